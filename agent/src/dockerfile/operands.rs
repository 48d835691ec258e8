//! The forms that operands have: words, `name=value` pairs, an array of JSON. Pure.

use super::words::quoted;

const BLANK: &str = "names can not be blank";

/// What separates words: Go's `[\t\v\f\r ]`.
pub(super) fn is_space(letter: char) -> bool {
    matches!(letter, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

/// What can be seen of a line's operands before its flags are looked at.
pub(super) fn check(name: &str, rest: &str, escape: char) -> Result<(), String> {
    match name.to_uppercase().as_str() {
        // A blank name is seen later.
        name @ ("ENV" | "LABEL") if !rest.is_empty() => match pairs(name, rest, escape) {
            Err(error) if !error.ends_with(BLANK) => Err(error),
            _ => Ok(()),
        },
        "ADD" | "COPY" | "VOLUME" | "CMD" | "ENTRYPOINT" | "RUN" | "SHELL" => exec(rest).map(drop),
        "HEALTHCHECK" => {
            let command =
                rest.split_once(char::is_whitespace).map_or("", |(_, command)| command.trim_start());
            exec(command).map(drop)
        }
        _ => Ok(()),
    }
}

/// Between spaces.
pub(super) fn spaced(rest: &str) -> Vec<String> {
    rest.split(is_space).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// The exec form; `None` for another.
///
/// # Errors
/// An array of something else than texts.
pub(super) fn exec(rest: &str) -> Result<Option<Vec<String>>, String> {
    let rest = rest.trim_start();
    if !rest.starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(rest) else { return Ok(None) };
    let texts = values.into_iter().map(|value| match value {
        serde_json::Value::String(text) => Ok(text),
        _ => Err("when using JSON array syntax, arrays must be comprised of strings only".to_owned()),
    });
    texts.collect::<Result<_, _>>().map(Some)
}

/// Words, with their quotes still around them.
pub(super) fn split(rest: &str, escape: char) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut letters = rest.chars();
    while let Some(letter) = letters.next() {
        if quote.is_none() && letter.is_whitespace() {
            words.extend(word.take());
            continue;
        }
        match quote {
            Some(open) if letter == open => quote = None,
            None if matches!(letter, '\'' | '"') => quote = Some(letter),
            _ => {}
        }
        if letter == escape && quote != Some('\'') {
            // At the end it means nothing.
            let Some(next) = letters.next() else { break };
            word.get_or_insert_default().extend([letter, next]);
            continue;
        }
        word.get_or_insert_default().push(letter);
    }
    words.extend(word);
    words
}

/// `name=value`s, or the old form of one `name value`.
pub(super) fn pairs(name: &str, rest: &str, escape: char) -> Result<Vec<(String, String)>, String> {
    let words = split(rest, escape);
    let Some(first) = words.first() else { return Err(format!("{name} requires at least one argument")) };
    let blank = || format!("{name} {BLANK}");
    if !first.contains('=') {
        let (key, value) =
            rest.split_once(is_space).ok_or_else(|| format!("{name} must have two arguments"))?;
        return match key {
            "" => Err(blank()),
            key => Ok(vec![(key.to_owned(), value.trim_start_matches(is_space).to_owned())]),
        };
    }
    let pair = |word: &String| match word.split_once('=') {
        Some(("", _)) => Err(blank()),
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => {
            Err(format!("Syntax error - can't find = in {}. Must be of the form: name=value", quoted(word)))
        }
    };
    words.iter().map(pair).collect()
}
