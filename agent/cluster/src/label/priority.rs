//! `ketch.priority=<integer>`: how a service ranks when there is not room for all. Without the label it is 0.
//!
//! `control` refuses what can't be read; the scheduler places by it, and takes room from lower ones by it. It is read of the service as it
//! is now, so that a changed label holds for tasks that run already.

use crate::objects::{Labels, Task};
use crate::view::View;

use super::Refusal;

pub const LABEL: &str = "ketch.priority";

/// Both ends may be asked for.
const LEAST: i32 = -1000;
const MOST: i32 = 1000;

/// The higher one goes first.
pub type Priority = i32;

/// The priority that the labels ask for; none without the label.
///
/// # Errors
/// When it is no whole number from -1000 to 1000.
pub fn parse(labels: &Labels) -> Result<Option<Priority>, Refusal> {
    let Some(text) = labels.get(LABEL) else { return Ok(None) };
    let known = text.parse().ok().filter(|number| (LEAST..=MOST).contains(number) && !text.starts_with('+'));
    known
        .map(Some)
        .ok_or_else(|| Refusal::new(LABEL, format!("{text:?} is no whole number from {LEAST} to {MOST}")))
}

/// The same where nothing can be refused any more.
pub(crate) fn asked(labels: &Labels) -> Option<Priority> {
    parse(labels).ok().flatten()
}

/// A task's: that of its service as it is now, or as it was when the service is gone.
#[must_use]
pub fn of(view: &View<'_>, task: &Task) -> Priority {
    let service = task.service.and_then(|id| view.service(id));
    asked(service.map_or(&task.service_labels, |service| &service.spec.labels)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> Labels {
        Labels::from([(LABEL.to_owned(), text.to_owned())])
    }

    #[test]
    fn whole_numbers_between_the_bounds() {
        assert_eq!(parse(&Labels::new()), Ok(None));
        for (text, number) in [("0", 0), ("10", 10), ("-1000", -1000), ("1000", 1000)] {
            assert_eq!(parse(&labels(text)), Ok(Some(number)), "{text}");
        }
        for text in ["", "high", "1.5", "1001", "-1001", "+5", " 5", "99999999999999999999"] {
            let told = parse(&labels(text)).unwrap_err().to_string();
            assert_eq!(told, format!("label ketch.priority: {text:?} is no whole number from -1000 to 1000"));
            assert_eq!(asked(&labels(text)), None);
        }
    }
}
