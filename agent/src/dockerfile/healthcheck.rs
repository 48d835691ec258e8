//! HEALTHCHECK's operands and flags. Pure.

use ketch_engine_api::container::HealthConfig;

use super::flags::Flags;
use super::operands;
use super::words::quoted;
use crate::duration;

const FLAGS: [&str; 5] = ["interval", "timeout", "start-period", "start-interval", "retries"];
const MILLISECOND: i64 = 1_000_000;

pub(super) fn parse(rest: &str, flags: &Flags) -> Result<HealthConfig, String> {
    let (kind, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let (kind, command) = (kind.to_uppercase(), command.trim_start());
    match kind.as_str() {
        "" => return Err("HEALTHCHECK requires at least one argument".to_owned()),
        "NONE" if command.is_empty() => {
            return Ok(HealthConfig { test: Some(vec![kind]), ..HealthConfig::default() });
        }
        "NONE" => return Err("HEALTHCHECK NONE takes no arguments".to_owned()),
        _ => {}
    }
    flags.check(&FLAGS)?;
    if kind != "CMD" {
        return Err(format!("Unknown type {} in HEALTHCHECK (try CMD)", quoted(&kind)));
    }
    let words = match operands::exec(command)? {
        Some(words) if !words.is_empty() => [vec!["CMD".to_owned()], words].concat(),
        None if !command.is_empty() => vec!["CMD-SHELL".to_owned(), command.to_owned()],
        _ => return Err("Missing command after HEALTHCHECK CMD".to_owned()),
    };
    let interval = |name: &str| -> Result<i64, String> {
        let text = flags.text(name);
        if text.is_empty() {
            return Ok(0);
        }
        let time = duration::parse(&text)?;
        if time != 0 && time < MILLISECOND {
            return Err(format!("Interval {} cannot be less than 1ms", quoted(name)));
        }
        Ok(time)
    };
    let retries = match flags.text("retries").as_str() {
        "" => 0,
        text => {
            let why = |_| format!("strconv.ParseInt: parsing {}: invalid syntax", quoted(text));
            let retries: i32 = text.parse().map_err(why)?;
            if retries < 0 {
                return Err(format!("--retries cannot be negative ({retries})"));
            }
            retries.into()
        }
    };
    Ok(HealthConfig {
        test: Some(words),
        interval: interval("interval")?,
        timeout: interval("timeout")?,
        start_period: interval("start-period")?,
        start_interval: interval("start-interval")?,
        retries,
    })
}

/// Go's text of such a time, without trailing zeros: `1m30s`, `500ms`.
pub(super) fn shown(time: i64) -> String {
    if time == 0 {
        return "0s".to_owned();
    }
    let (sign, left) = (if time < 0 { "-" } else { "" }, time.unsigned_abs());
    let fraction = |whole: u64, part: u64, digits: usize, unit: &str| {
        let text = format!("{whole}.{part:0digits$}");
        format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
    };
    let text = match left {
        ..1_000 => format!("{left}ns"),
        1_000..1_000_000 => fraction(left / 1_000, left % 1_000, 3, "\u{b5}s"),
        1_000_000..1_000_000_000 => fraction(left / 1_000_000, left % 1_000_000, 6, "ms"),
        _ => {
            let (seconds, nanoseconds) = (left / 1_000_000_000, left % 1_000_000_000);
            let end = fraction(seconds % 60, nanoseconds, 9, "s");
            match (seconds / 3600, seconds / 60 % 60) {
                (0, 0) => end,
                (0, minutes) => format!("{minutes}m{end}"),
                (hours, minutes) => format!("{hours}h{minutes}m{end}"),
            }
        }
    };
    format!("{sign}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_gos() {
        for (text, time, again) in [
            ("1m30s", 90_000_000_000, "1m30s"),
            ("1.5h", 5_400_000_000_000, "1h30m0s"),
            ("2ms", 2_000_000, "2ms"),
            ("1500us", 1_500_000, "1.5ms"),
            ("-1s", -1_000_000_000, "-1s"),
            ("0", 0, "0s"),
            ("90500ms", 90_500_000_000, "1m30.5s"),
        ] {
            assert_eq!(duration::parse(text), Ok(time), "{text}");
            assert_eq!(shown(time), again);
        }
    }
}
