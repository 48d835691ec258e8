//! What pulls, pushes, loads and builds tell while they run: JSON objects, one after the other, as `docker` prints them.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use crate::error::Error;

/// One message. Fields are in the order that dockerd writes them.
#[derive(Clone, Debug, Default, Serialize)]
struct Message<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a str>,
    #[serde(rename = "progressDetail", skip_serializing_if = "Option::is_none")]
    detail: Option<Detail>,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(rename = "errorDetail", skip_serializing_if = "Option::is_none")]
    error_detail: Option<ErrorDetail<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aux: Option<&'a Value>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Detail {
    #[serde(skip_serializing_if = "is_zero")]
    current: u64,
    #[serde(skip_serializing_if = "is_zero")]
    total: u64,
}

#[derive(Clone, Debug, Serialize)]
struct ErrorDetail<'a> {
    #[serde(skip_serializing_if = "is_no_code")]
    code: i64,
    message: &'a str,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_no_code(code: &i64) -> bool {
    *code == 0
}

/// Where messages go: the client of one request. Without one they go nowhere.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    client: Option<mpsc::Sender<Bytes>>,
    /// Turns true with the first message.
    begun: Option<Arc<watch::Sender<bool>>>,
}

impl Progress {
    /// To the other end of a response's stream.
    #[must_use]
    pub fn to(sender: mpsc::Sender<Bytes>) -> Self {
        Self { client: Some(sender), begun: None }
    }

    /// Lets somebody wait for the first message.
    #[must_use]
    pub fn telling(self, begun: watch::Sender<bool>) -> Self {
        Self { begun: Some(Arc::new(begun)), ..self }
    }

    /// Whether anything has been told.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.begun.as_ref().is_some_and(|begun| *begun.borrow())
    }

    /// A line of text, with its newline.
    pub fn stream(&self, text: &str) {
        self.send(&Message { stream: Some(text), ..Message::default() });
    }

    /// What is going on.
    pub fn status(&self, text: &str) {
        self.send(&Message { status: Some(text), ..Message::default() });
    }

    /// What is going on with one part.
    pub fn part(&self, id: &str, status: &str) {
        let detail = Some(Detail::default());
        self.send(&Message { status: Some(status), detail, id: Some(id), ..Message::default() });
    }

    /// A part's name, without anything of its progress.
    pub fn headline(&self, id: &str, status: &str) {
        self.send(&Message { status: Some(status), id: Some(id), ..Message::default() });
    }

    /// How far one part is, in bytes. May be left out when the client does not keep up.
    pub fn bytes(&self, id: &str, status: &str, current: u64, total: u64) {
        let message = Message {
            status: Some(status),
            detail: Some(Detail { current, total }),
            progress: Some(bar(current, total)),
            id: Some(id),
            ..Message::default()
        };
        if let Some(sender) = &self.client {
            self.begin();
            let _full = sender.try_send(encode(&message));
        }
    }

    /// What a program wants to know.
    pub fn aux(&self, value: &Value) {
        self.send(&Message { aux: Some(value), ..Message::default() });
    }

    /// The same, as pushes tell it: clients of theirs tell it from what has no detail.
    pub fn aux_with_detail(&self, value: &Value) {
        let detail = Some(Detail::default());
        self.send(&Message { detail, aux: Some(value), ..Message::default() });
    }

    /// The end, when it is a bad one.
    pub fn error(&self, error: &Error) {
        self.error_with_code(error, 0);
    }

    /// The same, of a program that has ended with this code; 0 for none.
    pub fn error_with_code(&self, error: &Error, code: i64) {
        let message = error.message.as_str();
        self.send(&Message {
            error_detail: Some(ErrorDetail { code, message }),
            error: Some(message),
            ..Message::default()
        });
    }

    fn send(&self, message: &Message<'_>) {
        self.pass(encode(message));
    }

    /// A message as it was told elsewhere.
    pub fn pass(&self, bytes: Bytes) {
        let Some(sender) = &self.client else { return };
        self.begin();
        // From a thread that may block; in a task, a full channel makes a task of its own of it.
        match sender.try_send(bytes) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
            Err(mpsc::error::TrySendError::Full(bytes)) => self.wait(sender, bytes),
        }
    }

    fn begin(&self) {
        if let Some(begun) = &self.begun {
            let _before = begun.send_replace(true);
        }
    }

    fn wait(&self, sender: &mpsc::Sender<Bytes>, bytes: Bytes) {
        let Ok(handle) = tokio::runtime::Handle::try_current() else { return };
        let sender = sender.clone();
        // Only the multi-threaded runtime can wait here; the daemon's is.
        tokio::task::block_in_place(|| {
            let _gone = handle.block_on(sender.send(bytes));
        });
    }
}

fn encode(message: &Message<'_>) -> Bytes {
    let text = serde_json::to_string(message).unwrap_or_default();
    // As Go's encoder has them, for HTML; outside of texts JSON has none of them.
    let mut text = text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
    text.push_str("\r\n");
    text.into()
}

/// The bar that `docker` shows to those who can't draw one.
fn bar(current: u64, total: u64) -> String {
    if current == 0 && total == 0 {
        return String::new();
    }
    if total == 0 {
        return format!("{:>8}", size(current));
    }
    let half = usize::try_from(u128::from(current) * 50 / u128::from(total)).unwrap_or(50).min(50);
    let numbers = if current > total {
        format!("{:>8}", size(current))
    } else {
        format!("{:>8}/{}", size(current), size(total))
    };
    format!("[{}>{}] {numbers}", "=".repeat(half), " ".repeat(50 - half))
}

/// With four digits, in thousands.
#[must_use]
pub fn size(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let whole = value.trunc();
    let decimals = if whole >= 1000.0 {
        0
    } else if whole >= 100.0 {
        1
    } else if whole >= 10.0 {
        2
    } else {
        3
    };
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_bars_are_dockers() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1024, "1.024kB"),
            (2_220_000, "2.22MB"),
            (77_123_456, "77.12MB"),
            (123_456_789_000, "123.5GB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(bar(0, 0), "");
        assert_eq!(bar(500, 1000), format!("[{}>{}]     500B/1kB", "=".repeat(25), " ".repeat(25)));
        assert_eq!(bar(1000, 1000), format!("[{}>]      1kB/1kB", "=".repeat(50)));
    }

    #[test]
    fn messages_are_lines_of_json() {
        let (sender, mut receiver) = mpsc::channel(8);
        let progress = Progress::to(sender);
        progress.part("abc", "Waiting");
        progress.bytes("abc", "Downloading", 1, 2);
        progress.error(&Error::invalid("no"));
        progress.aux_with_detail(&serde_json::json!({ "Size": 1 }));
        let mut texts = std::iter::from_fn(|| receiver.try_recv().ok());
        let mut next = || String::from_utf8(texts.next().unwrap().to_vec()).unwrap();
        assert_eq!(next(), "{\"status\":\"Waiting\",\"progressDetail\":{},\"id\":\"abc\"}\r\n");
        assert!(next().contains(r#""progressDetail":{"current":1,"total":2},"progress":"[====="#));
        assert_eq!(next(), "{\"errorDetail\":{\"message\":\"no\"},\"error\":\"no\"}\r\n");
        assert_eq!(next(), "{\"progressDetail\":{},\"aux\":{\"Size\":1}}\r\n");
    }
}
