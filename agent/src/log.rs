//! The daemon's own log: a line for each event, in the form of dockerd's (logfmt, or JSON), to standard error.

use std::fmt::{self, Write as _};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry, reload};

use crate::config::Config;
use crate::timestamp::Timestamp;

/// Changes how much is said.
#[derive(Clone, Debug)]
pub struct Loudness(reload::Handle<LevelFilter, Registry>);

impl Loudness {
    /// As much as the settings say now.
    pub fn set(&self, config: &Config) {
        // Fails when there is no log any more.
        let _set = self.0.modify(|filter| *filter = level(config));
    }
}

/// Begins the log.
#[must_use]
pub fn begin(config: &Config) -> Loudness {
    let (filter, handle) = reload::Layer::new(level(config));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .event_format(Lines { json: config.log.json })
        .with_filter(filter_fn(is_told));
    tracing_subscriber::registry().with(filter).with(lines).init();
    Loudness(handle)
}

/// openraft tells of each heartbeat that a manager does not answer, some in a second, and of each election: what there is to
/// say of that the node says itself.
fn is_told(of: &Metadata<'_>) -> bool {
    !of.target().starts_with("openraft") || *of.level() == Level::ERROR
}

fn level(config: &Config) -> LevelFilter {
    if config.live().debug {
        return LevelFilter::DEBUG;
    }
    match config.log.level.as_str() {
        "trace" => LevelFilter::TRACE,
        "debug" => LevelFilter::DEBUG,
        "warn" => LevelFilter::WARN,
        "error" | "fatal" | "panic" => LevelFilter::ERROR,
        _ => LevelFilter::INFO,
    }
}

struct Lines {
    json: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        };
        let Fields { message, rest } = fields;
        writeln!(writer, "{}", line(self.json, &Timestamp::now().padded(), level, message, rest))
    }
}

fn line(json: bool, time: &str, level: &str, message: String, rest: Map<String, Value>) -> String {
    if json {
        let mut object = Map::new();
        let _none = object.insert("level".to_owned(), Value::from(level));
        let _none = object.insert("msg".to_owned(), Value::from(message));
        object.extend(rest);
        let _none = object.insert("time".to_owned(), Value::from(time));
        return Value::Object(object).to_string();
    }
    let mut text = format!("time={time:?} level={level} msg={message:?}");
    for (key, value) in rest {
        // Writing into memory can't fail.
        let _written = match value {
            Value::String(value) => write!(text, " {key}={value:?}"),
            other => write!(text, " {key}={other}"),
        };
    }
    text
}

#[derive(Default)]
struct Fields {
    message: String,
    rest: Map<String, Value>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            // Of the `log` crate's users.
            name if name.starts_with("log.") => {}
            name => drop(self.rest.insert(name.to_owned(), Value::from(format!("{value:?}")))),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            name => drop(self.rest.insert(name.to_owned(), Value::from(value))),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        drop(self.rest.insert(field.name().to_owned(), Value::from(value)));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        drop(self.rest.insert(field.name().to_owned(), Value::from(value)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms() {
        let rest = Map::from_iter([("host".to_owned(), Value::from("a\"b"))]);
        assert_eq!(
            line(false, "T", "info", "it is".to_owned(), rest.clone()),
            r#"time="T" level=info msg="it is" host="a\"b""#
        );
        assert_eq!(
            line(true, "T", "info", "it is".to_owned(), rest),
            r#"{"level":"info","msg":"it is","host":"a\"b","time":"T"}"#
        );
    }
}
