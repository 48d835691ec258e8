//! `org.systemd.property.<name>` annotations: any property, with its value in GVariant's text form.

use std::collections::BTreeMap;

use super::super::CgroupPlanError;
use super::Property;
use crate::dbus::Value;

/// What the annotations' names begin with.
pub const ANNOTATION_PREFIX: &str = "org.systemd.property.";
const SECOND: u64 = 1_000_000;

/// The properties that the annotations ask for, by name.
pub(super) fn properties(annotations: &BTreeMap<String, String>) -> Result<Vec<Property>, CgroupPlanError> {
    let asked =
        annotations.iter().filter_map(|(key, text)| Some((key, key.strip_prefix(ANNOTATION_PREFIX)?, text)));
    asked.map(|(key, name, text)| property(key, name, text)).collect()
}

fn property(key: &str, name: &str, text: &str) -> Result<Property, CgroupPlanError> {
    if name.len() < 3 || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return Err(CgroupPlanError::PropertyName { annotation: key.to_owned() });
    }
    let failed = |reason: String| CgroupPlanError::PropertyValue {
        annotation: key.to_owned(),
        value: text.to_owned(),
        reason,
    };
    let value: Value = text.parse().map_err(|error| failed(format!("{error}")))?;
    // Manuals give times as `TimeoutStopSec=`; on D-Bus it is `TimeoutStopUSec`, in microseconds.
    match name.strip_suffix("Sec").filter(|stem| stem.ends_with(|letter: char| letter.is_ascii_lowercase())) {
        Some(stem) => {
            let time = microseconds(&value).ok_or_else(|| failed("not a number of seconds".to_owned()))?;
            Ok(Property::new(format!("{stem}USec"), Value::U64(time)))
        }
        None => Ok(Property::new(name, value)),
    }
}

fn microseconds(seconds: &Value) -> Option<u64> {
    let whole = match seconds {
        Value::Byte(number) => u64::from(*number),
        Value::U16(number) => u64::from(*number),
        Value::U32(number) => u64::from(*number),
        Value::U64(number) => *number,
        Value::I16(number) => u64::try_from(*number).ok()?,
        Value::I32(number) => u64::try_from(*number).ok()?,
        Value::I64(number) => u64::try_from(*number).ok()?,
        Value::Double(bits) => {
            let time = std::time::Duration::try_from_secs_f64(f64::from_bits(*bits)).ok()?;
            return u64::try_from(time.as_micros()).ok();
        }
        _ => return None,
    };
    whole.checked_mul(SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(name: &str, text: &str) -> Result<String, String> {
        let annotations = BTreeMap::from([
            (format!("{ANNOTATION_PREFIX}{name}"), text.to_owned()),
            ("org.other".to_owned(), "'".to_owned()),
        ]);
        let properties = properties(&annotations).map_err(|error| error.to_string())?;
        Ok(properties.iter().map(|it| format!("{}={}", it.name, it.value)).collect())
    }

    #[test]
    fn any_property_can_be_asked_for() {
        for (name, text, expected) in [
            ("TimeoutStopUSec", "uint64 123456789", "TimeoutStopUSec=uint64 123456789"),
            ("CollectMode", "'inactive-or-failed'", "CollectMode='inactive-or-failed'"),
            ("Before", "['a.service', 'b.service']", "Before=['a.service', 'b.service']"),
            ("TimeoutStopSec", "2", "TimeoutStopUSec=uint64 2000000"),
            ("RuntimeMaxSec", "1.5", "RuntimeMaxUSec=uint64 1500000"),
            ("RuntimeMaxSec", "uint64 3", "RuntimeMaxUSec=uint64 3000000"),
            // Not a unit of time.
            ("XSec", "'a'", "XSec='a'"),
        ] {
            assert_eq!(made(name, text).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn what_makes_no_sense_names_its_annotation() {
        assert_eq!(
            made("Collect-Mode", "5").unwrap_err(),
            "annotation org.systemd.property.Collect-Mode name incorrect: a property's name has three letters or more, \
             and nothing else"
        );
        assert!(made("ab", "5").is_err() && made("", "5").is_err());
        assert_eq!(
            made("CollectMode", "inactive").unwrap_err(),
            "annotation org.systemd.property.CollectMode=inactive value parse error: expected a value at byte 0"
        );
        assert_eq!(
            made("TimeoutStopSec", "'5'").unwrap_err(),
            "annotation org.systemd.property.TimeoutStopSec='5' value parse error: not a number of seconds"
        );
        assert!(made("TimeoutStopSec", "-5").is_err());
        assert!(made("TimeoutStopSec", "uint64 18446744073709551615").is_err());
        assert!(made("TimeoutStopSec", "nan").is_err());
    }
}
