//! The formats of cgroup files. Pure but for the reading itself.

use std::collections::BTreeMap;

use super::super::{CgroupError, Group};
use super::{BlkioEntry, Pressure, Psi};

impl Group {
    /// A file with one number; `max` is the largest there is.
    pub(super) fn number(&self, file: &str) -> Result<u64, CgroupError> {
        let content = self.read(file)?;
        number(content.trim()).ok_or_else(|| self.malformed(file, content.trim()))
    }

    /// [`Group::number`] of a file that not every kernel has.
    pub(super) fn number_if_present(&self, file: &str) -> Result<Option<u64>, CgroupError> {
        match self.number(file) {
            Ok(number) => Ok(Some(number)),
            Err(error) if error.is_absence() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// [`Group::number_if_present`], with zero for what isn't.
    pub(super) fn number_or_zero(&self, file: &str) -> Result<u64, CgroupError> {
        Ok(self.number_if_present(file)?.unwrap_or(0))
    }

    /// A file of `key value` lines; empty if the kernel doesn't have it.
    pub(super) fn flat_keyed(&self, file: &str) -> Result<BTreeMap<String, u64>, CgroupError> {
        let content = self.read_if_present(file)?.unwrap_or_default();
        let entry = |line: &str| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), number(value)?))
        };
        content.lines().map(|line| entry(line).ok_or_else(|| self.malformed(file, line))).collect()
    }

    /// A pressure file; absent where the kernel has none, or doesn't keep it.
    pub(super) fn pressure(&self, file: &str) -> Result<Option<Psi>, CgroupError> {
        let content = match self.read_if_present(file) {
            Err(error) if error.errno() == Some(ketch_sys::Errno::EOPNOTSUPP) => None,
            other => other?,
        };
        Ok(content.map(|content| psi(&content)))
    }

    pub(super) fn malformed(&self, file: &str, line: &str) -> CgroupError {
        CgroupError::Malformed { path: self.path.join(file), line: line.to_owned() }
    }
}

/// An unsigned number. Some kernels let counters sink below zero: that is zero.
pub(super) fn number(text: &str) -> Option<u64> {
    match text {
        "max" => Some(u64::MAX),
        _ => text.parse().ok().or_else(|| text.parse::<i64>().ok().filter(|number| *number < 0).map(|_| 0)),
    }
}

/// `0-2,5`.
pub(super) fn list(text: &str) -> Option<Vec<u16>> {
    let mut numbers = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (u16, u16) = (from.parse().ok()?, to.parse().ok()?);
        if from > to {
            return None;
        }
        numbers.extend(from..=to);
    }
    Some(numbers)
}

fn psi(content: &str) -> Psi {
    let mut psi = Psi::default();
    for line in content.lines() {
        let mut fields = line.split(' ');
        let pressure = match fields.next() {
            Some("some") => &mut psi.some,
            Some("full") => &mut psi.full,
            _ => continue,
        };
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            set_pressure(pressure, key, value);
        }
    }
    psi
}

fn set_pressure(pressure: &mut Pressure, key: &str, value: &str) {
    match key {
        "avg10" => pressure.avg10 = value.parse().unwrap_or(0.0),
        "avg60" => pressure.avg60 = value.parse().unwrap_or(0.0),
        "avg300" => pressure.avg300 = value.parse().unwrap_or(0.0),
        "total" => pressure.total = value.parse().unwrap_or(0),
        _ => {}
    }
}

/// v1 blkio: `major:minor [operation] value` lines; the grand total at the end is left out.
pub(super) fn blkio(content: &str) -> Result<Vec<BlkioEntry>, &str> {
    let mut entries = Vec::new();
    for line in content.lines() {
        let fields: Vec<&str> = line.split([' ', ':']).filter(|field| !field.is_empty()).collect();
        let entry = match fields.as_slice() {
            ["Total", _] => continue,
            [major, minor, value] => blkio_entry(major, minor, "", value),
            [major, minor, op, value] => blkio_entry(major, minor, op, value),
            _ => None,
        };
        entries.push(entry.ok_or(line)?);
    }
    Ok(entries)
}

/// v2 io.stat: `major:minor key=value...` lines; one entry for each key, with the key as the operation.
pub(super) fn io_stat(content: &str) -> Vec<BlkioEntry> {
    let mut entries = Vec::new();
    for line in content.lines() {
        let mut fields = line.split(' ');
        let Some((major, minor)) = fields.next().and_then(|device| device.split_once(':')) else {
            continue;
        };
        let pairs = fields.filter_map(|field| field.split_once('='));
        entries.extend(pairs.filter_map(|(key, value)| blkio_entry(major, minor, key, value)));
    }
    entries
}

fn blkio_entry(major: &str, minor: &str, op: &str, value: &str) -> Option<BlkioEntry> {
    Some(BlkioEntry {
        major: number(major)?,
        minor: number(minor)?,
        op: op.to_owned(),
        value: number(value)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(
            [number("5"), number("max"), number("-3"), number("x"), number("")],
            [Some(5), Some(u64::MAX), Some(0), None, None]
        );
        assert_eq!(list("0-2,5\n"), Some(vec![0, 1, 2, 5]));
        assert_eq!(list("\n"), Some(vec![]));
        assert_eq!([list("2-1"), list("a")], [None, None]);
    }

    #[test]
    fn pressure() {
        let read = psi(
            "some avg10=1.50 avg60=0.02 avg300=0.00 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n",
        );
        assert_eq!((read.some.avg10, read.some.total, read.full.total), (1.5, 77, 3));
    }

    #[test]
    fn block_devices() {
        let entries = blkio("8:0 Read 12\n8:0 Total 13\nTotal 13\n254:1 7\n").unwrap();
        let texts: Vec<_> =
            entries.iter().map(|e| format!("{}:{} {} {}", e.major, e.minor, e.op, e.value)).collect();
        assert_eq!(texts, ["8:0 Read 12", "8:0 Total 13", "254:1  7"]);
        assert_eq!(blkio("8:0\n"), Err("8:0"));

        let entries = io_stat("8:0 rbytes=1 wbytes=2 cost.usage=3\n7:0 \n");
        let texts: Vec<_> =
            entries.iter().map(|e| format!("{}:{} {} {}", e.major, e.minor, e.op, e.value)).collect();
        assert_eq!(texts, ["8:0 rbytes 1", "8:0 wbytes 2", "8:0 cost.usage 3"]);
    }
}
