//! Prometheus's text form: families of numbers with their labels, each family once.
//!
//! Labels have few values, all from here: never a name or an id that users give.

use std::fmt::Write as _;

use ketch_node::measure::{BUCKETS, SpansNow};

/// The text as it is written.
#[derive(Debug, Default)]
pub(super) struct Page {
    text: String,
    last: String,
}

/// What a family is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) help: &'static str,
}

impl Family {
    pub(super) const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: "counter", help }
    }

    pub(super) const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: "gauge", help }
    }

    /// In seconds.
    pub(super) const fn histogram(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: "histogram", help }
    }
}

impl Page {
    /// One number of a family; all of a family come one after the other.
    pub(super) fn number(&mut self, family: Family, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.begin(family);
        self.line(family.name, labels, value);
    }

    /// Spans as a histogram.
    pub(super) fn spans(&mut self, family: Family, labels: &[(&str, &str)], now: &SpansNow) {
        self.begin(family);
        let bucket = format!("{}_bucket", family.name);
        let ends = BUCKETS.iter().map(|end| format!("{}.{:03}", end / 1000, end % 1000));
        let all = std::iter::once(("+Inf".to_owned(), now.count));
        for (end, count) in ends.zip(now.up_to).chain(all) {
            let with_end: Vec<_> = labels.iter().copied().chain([("le", end.as_str())]).collect();
            self.line(&bucket, &with_end, count);
        }
        self.line(&format!("{}_sum", family.name), labels, now.sum.as_secs_f64());
        self.line(&format!("{}_count", family.name), labels, now.count);
    }

    pub(super) fn text(self) -> String {
        self.text
    }

    fn begin(&mut self, Family { name, kind, help }: Family) {
        if self.last != name {
            // Writing into memory can't fail.
            let _written = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            name.clone_into(&mut self.last);
        }
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let pairs: Vec<_> =
            labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escaped(value))).collect();
        let labels = if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) };
        let _written = writeln!(self.text, "{name}{labels} {value}");
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ketch_node::measure::Spans;
    use std::time::Duration;

    #[test]
    fn families_are_told_once_and_values_escaped() {
        let mut page = Page::default();
        let family = Family::gauge("a", "What it is");
        page.number(family, &[("x", "1\"\\")], 2);
        page.number(family, &[], 3);
        assert_eq!(page.text(), "# HELP a What it is\n# TYPE a gauge\na{x=\"1\\\"\\\\\"} 2\na 3\n");
    }

    #[test]
    fn spans_are_a_histogram_in_seconds() {
        let spans = Spans::default();
        spans.took(Duration::from_millis(30));
        spans.took(Duration::from_secs(60));
        let mut page = Page::default();
        page.spans(Family::histogram("b_seconds", "Spans"), &[("y", "z")], &spans.now());
        let text = page.text();
        for line in [
            "# TYPE b_seconds histogram",
            "b_seconds_bucket{y=\"z\",le=\"0.025\"} 0",
            "b_seconds_bucket{y=\"z\",le=\"0.050\"} 1",
            "b_seconds_bucket{y=\"z\",le=\"30.000\"} 1",
            "b_seconds_bucket{y=\"z\",le=\"+Inf\"} 2",
            "b_seconds_sum{y=\"z\"} 60.03",
            "b_seconds_count{y=\"z\"} 2",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line} is not in\n{text}");
        }
    }
}
