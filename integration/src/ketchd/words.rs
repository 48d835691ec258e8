//! A command line's words, as a shell splits them: spaces, single and double quotes; nothing is expanded.

/// Splits a line.
///
/// # Panics
/// At a quote without its end.
#[must_use]
pub fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            ' ' | '\n' => words.extend(word.take()),
            quote @ ('\'' | '"') => {
                let inside: String = letters.by_ref().take_while(|letter| *letter != quote).collect();
                word.get_or_insert_default().push_str(&inside);
            }
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn quotes_hold_words_together() {
        assert_eq!(
            split("run  -e 'A=b c' sh -c \"echo 'x'\" ''"),
            ["run", "-e", "A=b c", "sh", "-c", "echo 'x'", ""]
        );
    }
}
