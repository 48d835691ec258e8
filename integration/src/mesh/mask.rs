//! What two runs of one cluster print differently, put out of the way: ids, tokens, keys, certificates, indexes, and the lines of
//! progress that a waiting client writes as often as it looks.
//!
//! Done before the mask of one engine's output ([`crate::ketchd::mask`]). Called by [`super::script`].

/// Lines that come and go with how fast things converge.
const PROGRESS: &[&str] =
    &["overall progress:", "verify: Waiting", "verify: waiting", "job progress:", "active tasks:"];

/// Masks a command's output.
#[must_use]
pub fn mask(text: &str) -> String {
    let is_table = text.starts_with("ID ");
    let mut lines: Vec<String> = Vec::new();
    let mut inside = false;
    for (number, line) in text.lines().enumerate() {
        if line.starts_with("-----BEGIN ") {
            inside = true;
            lines.push("<pem>".to_owned());
        } else if inside {
            inside = !line.starts_with("-----END ");
        } else if !is_progress(line) {
            let is_listed = (is_table && number > 0) || is_id(line.trim(), 12);
            let line = if is_listed { without_first(line) } else { line.to_owned() };
            lines.push(words(&number_after(&ago(&certificates(&line)), &["\"Index\":", "\"PID\":"])));
        }
    }
    lines.join("\n")
}

/// `overall progress: 1 out of 2 tasks`, `1/2: running [====> ]`, and the empty lines between.
fn is_progress(line: &str) -> bool {
    let line = line.trim();
    let is_slot = || {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        line.split_once(':')
            .and_then(|(head, _)| head.split_once('/'))
            .is_some_and(|(a, b)| digits(a) && digits(b))
    };
    // A global service's are by node.
    let is_node = || line.split_once(':').is_some_and(|(head, _)| is_id(head, 12));
    PROGRESS.iter().any(|start| line.starts_with(start)) || is_slot() || is_node()
}

/// An id, whole (25) or cut (12).
fn is_id(word: &str, length: usize) -> bool {
    word.len() == length && word.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase())
}

/// A table's line whose first word is an id.
fn without_first(line: &str) -> String {
    let word = line.split(' ').next().unwrap_or_default();
    let rest = &line[word.len()..];
    if is_id(word, 12) || is_id(word, 25) { format!("<id>{rest}") } else { line.to_owned() }
}

/// The client says in small letters what the mask of an engine knows in large ones.
fn ago(line: &str) -> String {
    line.replace("less than a second", "<while>").replace("about a minute", "<while>")
}

/// What stands in one line of JSON as a PEM file: how many lines it has differs, too, with the length of the signature.
fn certificates(line: &str) -> String {
    let last = "-----END CERTIFICATE-----\\n";
    match (line.find("-----BEGIN CERTIFICATE-----\\n"), line.rfind(last)) {
        (Some(start), Some(end)) if start < end => {
            format!("{}<pem>{}", &line[..start], &line[end + last.len()..])
        }
        _ => line.to_owned(),
    }
}

/// The number after each of these keys.
fn number_after(line: &str, keys: &[&str]) -> String {
    let Some((key, at)) = keys.iter().find_map(|key| line.find(key).map(|at| (key, at))) else {
        return line.to_owned();
    };
    let (head, tail) = line.split_at(at + key.len());
    let digits = tail.trim_start();
    let rest = digits.trim_start_matches(|letter: char| letter.is_ascii_digit());
    let masked = if rest.len() == digits.len() { tail.to_owned() } else { format!(" <number>{rest}") };
    format!("{head}{masked}")
}

/// Tokens, keys, ids and base64 anywhere in a line.
fn words(line: &str) -> String {
    let mut masked = String::new();
    let mut word = String::new();
    for letter in line.chars().chain(['\n']) {
        if letter.is_ascii_alphanumeric() || matches!(letter, '-' | '+' | '/' | '=') {
            word.push(letter);
        } else {
            // `web.1.jpp6auk83cgs@node1`
            let is_task = letter == '@' && is_id(&word, 12);
            masked.push_str(&if is_task { "<id>".to_owned() } else { thing(&word) });
            word.clear();
            masked.push(letter);
        }
    }
    masked.trim_end().to_owned()
}

fn thing(word: &str) -> String {
    if word.starts_with("SWMTKN-1-") && word.len() > 80 {
        "<token>".to_owned()
    } else if word.starts_with("SWMKEY-1-") && word.len() > 40 {
        "<key>".to_owned()
    } else if is_id(word, 25) {
        "<id>".to_owned()
    } else if word.len() >= 40 && !word.contains('-') && !is_hex(word) && !word.starts_with('/') {
        "<base64>".to_owned()
    } else {
        word.to_owned()
    }
}

fn is_hex(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::mask;

    #[test]
    fn what_differs_between_clusters_is_gone() {
        let id = "2p5vrmxwol063inh7doryhl28";
        assert_eq!(
            mask(&format!("current node ({id}) is now a manager.")),
            "current node (<id>) is now a manager."
        );
        assert_eq!(mask(&format!("ID   HOSTNAME\n{id} *  node1")), "ID   HOSTNAME\n<id> *  node1");
        assert_eq!(mask("ID  NAME\njpp6auk83cgs  web"), "ID  NAME\n<id>  web");
        assert_eq!(mask(&format!("web.1.{id}@node1    | hello")), "web.1.<id>@node1    | hello");
        let token = "SWMTKN-1-3v8b67plzqtf9shdb226w96rvhqks1nfwujh218tf8wzx9kskw-6jaq5ae9bz0koh8r96ao5w8ct";
        assert_eq!(
            mask(&format!("  join --token {token} 10.99.0.1:2377")),
            "  join --token <token> 10.99.0.1:2377"
        );
        assert_eq!(mask("talk.1.colaj4oh553e@node1 | one"), "talk.1.<id>@node1 | one");
        assert_eq!(mask("Running less than a second ago"), "Running <while> ago");
        assert_eq!(mask("  \"Index\": 21,"), "  \"Index\": <number>,");
        assert_eq!(mask("-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\nx"), "<pem>\nx");
        let json = r#"  "TrustRoot": "-----BEGIN CERTIFICATE-----\nMII\nab==\n-----END CERTIFICATE-----\n","#;
        assert_eq!(mask(json), r#"  "TrustRoot": "<pem>","#);
    }

    #[test]
    fn progress_is_not_told() {
        let text = "overall progress: 0 out of 2 tasks\n1/2:\n1/2: preparing\n2/2: running\nverify: Waiting 1 seconds\nverify: Service web converged";
        assert_eq!(mask(text), "verify: Service web converged");
    }
}
