//! What a build tells its client while it runs; with `-q`, only when it fails.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;

use super::Failure;
use crate::image::progress::Progress;

/// What is held back of a silent build at most, in bytes.
const HELD: usize = 16 << 20;

/// See the module.
#[derive(Debug)]
pub(super) struct Output {
    client: Progress,
    /// What steps tell: the client, or what holds it back.
    steps: Mutex<Progress>,
    held: Mutex<Option<JoinHandle<Vec<Bytes>>>>,
    /// Whether the id is told as data, too.
    aux: bool,
}

impl Output {
    pub(super) fn new(client: Progress, quiet: bool, aux: bool) -> Arc<Self> {
        let (steps, held) = if quiet {
            let (sender, mut receiver) = mpsc::channel::<Bytes>(64);
            let held = tokio::spawn(async move {
                let (mut held, mut size) = (Vec::new(), 0_usize);
                while let Some(message) = receiver.recv().await {
                    size += message.len();
                    if size < HELD {
                        held.push(message);
                    }
                }
                held
            });
            (Progress::to(sender), Some(held))
        } else {
            (client.clone(), None)
        };
        Arc::new(Self { client, steps: Mutex::new(steps), held: Mutex::new(held), aux })
    }

    pub(super) async fn steps(&self) -> Progress {
        self.steps.lock().await.clone()
    }

    pub(super) async fn print(&self, text: &str) {
        self.steps.lock().await.stream(text);
    }

    /// A line, which goes by itself before its end does.
    pub(super) async fn headline(&self, text: &str) {
        self.print(text).await;
        self.print("\n").await;
    }

    /// In red, as the classic builder shows what a container says on its standard error.
    pub(super) async fn print_error(&self, text: &str) {
        self.print(&format!("\u{1b}[91m{text}\u{1b}[0m")).await;
    }

    pub(super) async fn image(&self, id: &str) {
        if self.aux {
            self.steps.lock().await.aux(&json!({ "ID": id }));
        }
    }

    /// The end; of a silent build the id alone.
    pub(super) async fn succeed(&self, id: &str) {
        let held = self.held.lock().await.take();
        if let Some(held) = held {
            held.abort();
            self.client.stream(&format!("{id}\n"));
        }
    }

    /// A bad end. A silent build now says all that it has kept. Gives the failure back where nothing has been told: it is the
    /// request's then.
    pub(super) async fn fail(&self, failure: Failure) -> Result<(), Failure> {
        *self.steps.lock().await = Progress::default();
        let held = self.held.lock().await.take();
        if let Some(held) = held {
            for message in held.await.unwrap_or_default() {
                self.client.pass(message);
            }
        }
        if !self.client.has_begun() {
            return Err(failure);
        }
        self.client.error_with_code(&failure.error, failure.code);
        Ok(())
    }
}

/// Bytes of a process as text, in pieces that end where a letter does.
#[derive(Debug, Default)]
pub(super) struct Text(Vec<u8>);

impl Text {
    pub(super) fn add(&mut self, bytes: &[u8]) -> String {
        self.0.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.0) {
            // The beginning of a letter whose rest is still to come.
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => self.0.len(),
        };
        let rest = self.0.split_off(whole);
        let text = String::from_utf8_lossy(&self.0).into_owned();
        self.0 = rest;
        text
    }

    pub(super) fn rest(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.0)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_whole() {
        let mut text = Text::default();
        let bytes = "a\u{e9}\u{20ac}b".as_bytes();
        let pieces: Vec<String> = bytes.iter().map(|byte| text.add(&[*byte])).collect();
        assert_eq!(pieces.concat(), "a\u{e9}\u{20ac}b");
        assert!(pieces.iter().all(|piece| !piece.contains('\u{fffd}')));
        assert_eq!((text.add(b"\xe2\x82"), text.rest()), (String::new(), "\u{fffd}".to_owned()));
    }
}
