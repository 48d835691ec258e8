//! What two runs of one engine print differently, put out of the way: ids, times, hardware addresses, folders, pids.
//!
//! White space is one space, since a column is as wide as its widest entry. Called by the differential tests.

/// Masks a command's output; `own` are texts of this run and what stands for them.
#[must_use]
pub fn mask(text: &str, own: &[(&str, &str)]) -> String {
    let mut text = text.to_owned();
    for (from, to) in own {
        text = text.replace(from, to);
    }
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn line(text: &str) -> String {
    let text = pid(text);
    let words: Vec<String> = text.split_whitespace().map(word).collect();
    let mut masked: Vec<&str> = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let length = duration(&words[at..]);
        if length > 0 {
            masked.push("<while>");
            at += length;
        } else {
            masked.push(&words[at]);
            at += 1;
        }
    }
    masked.join(" ")
}

/// `"Pid": 123` and its like; zero says that there is none.
fn pid(text: &str) -> String {
    let Some((head, tail)) = text.split_once("\"Pid\":") else { return text.to_owned() };
    let digits = tail.trim_start();
    let rest = digits.trim_start_matches(|letter: char| letter.is_ascii_digit());
    let number = &digits[..digits.len() - rest.len()];
    format!("{head}\"Pid\":{}{rest}", if number == "0" { "0" } else { "<pid>" })
}

/// How many words say how long something has been.
fn duration(words: &[String]) -> usize {
    let words: Vec<&str> = words.iter().take(4).map(String::as_str).collect();
    let is_unit =
        |word: &str| ["second", "seconds", "minute", "minutes"].contains(&word.trim_end_matches(','));
    match words.as_slice() {
        ["Less", "than", "a", "second", ..] => 4,
        ["About", "a", "minute", ..] => 3,
        [number, unit, ..] if number.parse::<u32>().is_ok() && is_unit(unit) => 2,
        _ => 0,
    }
}

fn word(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let mut masked = String::new();
    let mut at = 0;
    while at < letters.len() {
        let rest = &letters[at..];
        let is_inside = at > 0 && letters[at - 1].is_ascii_alphanumeric();
        let (length, mark) = if is_inside { (0, "") } else { thing(rest) };
        if length > 0 {
            masked.push_str(mark);
            at += length;
        } else {
            masked.push(letters[at]);
            at += 1;
        }
    }
    masked
}

/// What begins here, and how long it is.
fn thing(rest: &[char]) -> (usize, &'static str) {
    let times = [
        ("dddd-dd-ddTdd:dd:dd", "<time>"),
        ("dddd-dd-dd", "<day>"),
        ("dd:dd:dd.", "<time>"),
        ("xx:xx:xx:xx:xx:xx", "<mac>"),
    ];
    for (form, mark) in times {
        if fits(rest, form) {
            let head: String = rest.iter().take(4).collect();
            if head == "0001" {
                return (0, "");
            }
            let mut length = form.len();
            while rest
                .get(length)
                .is_some_and(|letter| letter.is_ascii_digit() || ['.', 'Z', '+'].contains(letter))
            {
                length += 1;
            }
            return (length, mark);
        }
    }
    let hex =
        rest.iter().take_while(|letter| letter.is_ascii_digit() || ('a'..='f').contains(*letter)).count();
    let ends = !rest.get(hex).is_some_and(char::is_ascii_alphanumeric);
    if hex >= 12 && ends { (hex, "<id>") } else { (0, "") }
}

fn fits(rest: &[char], form: &str) -> bool {
    rest.len() >= form.len()
        && form.chars().zip(rest).all(|(wanted, seen)| match wanted {
            'd' => seen.is_ascii_digit(),
            'x' => seen.is_ascii_hexdigit(),
            other => *seen == other,
        })
}

#[cfg(test)]
mod tests {
    use super::mask;

    #[test]
    fn what_differs_between_runs_is_gone() {
        let seen = mask(
            "0123456789ab  busybox \"Up 3 seconds\"\n  \"StartedAt\": \"2026-11-26T09:38:25.123Z\",",
            &[],
        );
        assert_eq!(seen, "<id> busybox \"Up 3 seconds\"\n\"StartedAt\": \"<time>\",");
        assert_eq!(mask("Exited (0) Less than a second ago", &[]), "Exited (0) <while> ago");
        assert_eq!(
            mask("\"FinishedAt\": \"0001-01-01T00:00:00Z\"", &[]),
            "\"FinishedAt\": \"0001-01-01T00:00:00Z\""
        );
        assert_eq!(mask("\"Pid\": 77, \"x\"", &[]), "\"Pid\":<pid>, \"x\"");
        assert_eq!(mask("ether 02:42:ac:00:00:07", &[]), "ether <mac>");
        assert_eq!(mask("at /tmp/k1x/site/data", &[("/tmp/k1x/site", "<site>")]), "at <site>/data");
    }
}
