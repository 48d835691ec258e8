//! The instructions of a Dockerfile that change no file: `docker commit --change` and `docker import --change`. Pure.

use std::collections::BTreeMap;

use ketch_engine_api::image::ImageConfig;
use serde_json::json;

use crate::error::{Error, Result};
use crate::paths;

const SHELL: &[&str] = &["/bin/sh", "-c"];

/// Changes what the line says.
///
/// # Errors
/// No instruction, one that changes files, or its operands: dockerd's texts.
pub fn apply(config: &mut ImageConfig, line: &str) -> Result<()> {
    let line = line.trim();
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let (name, rest) = (name.to_uppercase(), rest.trim());
    if rest.is_empty() && name != "CMD" && name != "ENTRYPOINT" {
        return Err(Error::invalid(format!("{name} requires at least one argument")));
    }
    let one = || match words(rest)?.as_slice() {
        [word] => Ok(word.clone()),
        _ => Err(Error::invalid(format!("{name} requires exactly one argument"))),
    };
    match name.as_str() {
        "CMD" => config.cmd = Some(command(config, rest)),
        "ENTRYPOINT" => {
            config.entrypoint = Some(command(config, rest));
            // What was the other's argument is none of this one's.
            config.cmd = None;
        }
        "ENV" => {
            let variables = config.env.get_or_insert_default();
            for (key, value) in pairs(&name, rest)? {
                let prefix = format!("{key}=");
                variables.retain(|variable| !variable.starts_with(&prefix));
                variables.push(prefix + &value);
            }
        }
        "LABEL" => config.labels.get_or_insert_default().extend(pairs(&name, rest)?),
        "EXPOSE" => {
            for port in words(rest)? {
                let (number, protocol) = port.split_once('/').unwrap_or((&port, "tcp"));
                let valid = |number: &str| number.parse::<u16>().is_ok();
                let (first, last) = number.split_once('-').unwrap_or((number, number));
                if !valid(first) || !valid(last) || !matches!(protocol, "tcp" | "udp" | "sctp") {
                    return Err(Error::invalid(format!("Invalid containerPort: {port}")));
                }
                let (first, last) = (first.parse().unwrap_or(0_u16), last.parse().unwrap_or(0));
                for number in first..=last {
                    let _none = config
                        .exposed_ports
                        .get_or_insert_default()
                        .insert(format!("{number}/{protocol}"), json!({}));
                }
            }
        }
        "USER" => config.user = Some(one()?),
        "WORKDIR" => {
            let (path, before) = (one()?, config.working_dir.clone().unwrap_or_default());
            let joined = if path.starts_with('/') { path } else { format!("{before}/{path}") };
            config.working_dir = Some(paths::clean(&joined));
        }
        "VOLUME" => {
            let volumes = json_words(rest).map_or_else(|| words(rest), Ok)?;
            for volume in volumes {
                let _none = config.volumes.get_or_insert_default().insert(volume, json!({}));
            }
        }
        "STOPSIGNAL" => config.stop_signal = Some(one()?),
        "ONBUILD" => config.on_build.get_or_insert_default().push(rest.to_owned()),
        "HEALTHCHECK" => config.healthcheck = Some(healthcheck(rest)?),
        "SHELL" => {
            let shell = json_words(rest);
            config.shell =
                Some(shell.ok_or_else(|| Error::invalid("SHELL requires the arguments to be in JSON form"))?);
        }
        _ => {
            let written = line.split_whitespace().next().unwrap_or_default();
            return Err(Error::invalid(format!("{written} is not a valid change command")));
        }
    }
    Ok(())
}

/// The exec form as it is; the shell form for the image's shell.
fn command(config: &ImageConfig, rest: &str) -> Vec<String> {
    json_words(rest).unwrap_or_else(|| {
        let default = || SHELL.iter().map(|&word| word.to_owned()).collect();
        let mut words: Vec<String> = config.shell.clone().unwrap_or_else(default);
        if rest.is_empty() {
            return Vec::new();
        }
        words.push(rest.to_owned());
        words
    })
}

fn json_words(text: &str) -> Option<Vec<String>> {
    text.starts_with('[').then(|| serde_json::from_str(text).ok())?
}

/// Words with quotes and backslashes taken away.
fn words(text: &str) -> Result<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            ('\\', None | Some('"')) => word.get_or_insert_default().extend(letters.next()),
            ('\'' | '"', None) => {
                quote = Some(letter);
                let _word = word.get_or_insert_default();
            }
            (letter, Some(open)) if letter == open => quote = None,
            (letter, None) if letter.is_whitespace() => words.extend(word.take()),
            (letter, _) => word.get_or_insert_default().push(letter),
        }
    }
    if quote.is_some() {
        return Err(Error::invalid(format!(
            "unexpected end of statement while looking for matching quote: {text}"
        )));
    }
    words.extend(word);
    Ok(words)
}

/// `key=value`s, or the old form of one `key value`.
fn pairs(name: &str, rest: &str) -> Result<BTreeMap<String, String>> {
    let words = words(rest)?;
    let first = rest.split(char::is_whitespace).next().unwrap_or_default();
    if !first.contains('=') {
        let (key, value) = rest
            .split_once(char::is_whitespace)
            .ok_or_else(|| Error::invalid(format!("{name} must have two arguments")))?;
        return Ok([(key.to_owned(), value.trim().to_owned())].into());
    }
    words
        .iter()
        .map(|word| match word.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            Some(_) => Err(Error::invalid(format!("{name} names can not be blank"))),
            None => Err(Error::invalid(format!(
                "Syntax error - can't find = in \"{word}\". Must be of the form: name=value"
            ))),
        })
        .collect()
}

fn healthcheck(rest: &str) -> Result<serde_json::Value> {
    let mut check = serde_json::Map::new();
    let mut rest = rest;
    while let Some(flag) = rest.strip_prefix("--") {
        let (flag, after) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
        rest = after.trim_start();
        let wrong = || Error::invalid(format!("Unknown flag: {flag}"));
        let (key, value) = flag.split_once('=').ok_or_else(wrong)?;
        let (key, value) = match key {
            "retries" => ("Retries", value.parse().map_err(|_| wrong())?),
            "interval" => ("Interval", nanoseconds(value).ok_or_else(wrong)?),
            "timeout" => ("Timeout", nanoseconds(value).ok_or_else(wrong)?),
            "start-period" => ("StartPeriod", nanoseconds(value).ok_or_else(wrong)?),
            "start-interval" => ("StartInterval", nanoseconds(value).ok_or_else(wrong)?),
            _ => return Err(wrong()),
        };
        let _none = check.insert(key.to_owned(), json!(value));
    }
    let (kind, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let test = match (kind.to_uppercase().as_str(), command.trim()) {
        ("NONE", "") => vec!["NONE".to_owned()],
        ("CMD", "") => return Err(Error::invalid("Missing command after HEALTHCHECK CMD")),
        ("CMD", command) => match json_words(command) {
            Some(words) => [vec!["CMD".to_owned()], words].concat(),
            None => vec!["CMD-SHELL".to_owned(), command.to_owned()],
        },
        (other, _) => return Err(Error::invalid(format!("Unknown type {other:?} in HEALTHCHECK (try CMD)"))),
    };
    let _none = check.insert("Test".to_owned(), json!(test));
    Ok(check.into())
}

/// Go's durations: `1m30s`.
fn nanoseconds(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut sum = 0_f64;
    while !rest.is_empty() {
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit_end =
            rest[end..].find(|letter: char| letter.is_ascii_digit()).map_or(rest.len(), |at| end + at);
        let unit = match &rest[end..unit_end] {
            "ns" => 1.0,
            "us" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        sum += number * unit;
        rest = &rest[unit_end..];
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "sums of positive numbers saturate"
    )]
    (!text.is_empty()).then_some(sum as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_change_the_config() {
        let mut config = ImageConfig::default();
        for line in [
            "CMD [\"a\",\"b\"]",
            "env A=1 B='x y'",
            "ENV C d e",
            "ENV A=2",
            "LABEL k=\"v w\"",
            "EXPOSE 80 90-91/udp",
            "WORKDIR /a",
            "WORKDIR b/../c",
            "USER u:g",
            "VOLUME [\"/v\"]",
            "HEALTHCHECK --interval=1m30s --retries=2 CMD curl x",
        ] {
            apply(&mut config, line).unwrap();
        }
        assert_eq!(config.cmd.unwrap(), ["a", "b"]);
        assert_eq!(config.env.unwrap(), ["B=x y", "C=d e", "A=2"]);
        assert_eq!(config.labels.unwrap()["k"], "v w");
        assert_eq!(
            config.exposed_ports.unwrap().into_keys().collect::<Vec<_>>(),
            ["80/tcp", "90/udp", "91/udp"]
        );
        assert_eq!((config.working_dir.as_deref(), config.user.as_deref()), (Some("/a/c"), Some("u:g")));
        let check = json!({"Interval": 90_000_000_000_u64, "Retries": 2, "Test": ["CMD-SHELL", "curl x"]});
        assert_eq!(config.healthcheck, Some(check));
    }

    #[test]
    fn others_are_refused() {
        let mut config = ImageConfig::default();
        for (line, text) in [
            ("Run x", "Run is not a valid change command"),
            ("USER", "USER requires at least one argument"),
            ("USER a b", "USER requires exactly one argument"),
            ("EXPOSE x", "Invalid containerPort: x"),
            ("ENV =x", "ENV names can not be blank"),
        ] {
            assert_eq!(apply(&mut config, line).unwrap_err().message, text);
        }
    }
}
