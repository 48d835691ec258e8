//! What requests say in their queries and headers.

use std::collections::BTreeSet;
use std::num::IntErrorKind;

use ketch_cluster::control::texts::conversion as texts;
use ketch_cluster::control::{RegistryAuth, Rollback, Rotate};
use ketch_cluster::objects::{SecretText, Version};

use crate::Refusal;
use crate::service::Defaults;

/// What an update is of; each kind has its words for a version that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Updated {
    Service,
    Node,
    Swarm,
    Secret,
    Config,
}

/// `version`: the one that the client has read.
///
/// # Errors
/// It is no number, or missing.
pub fn version(of: Updated, text: Option<&str>) -> Result<Version, Refusal> {
    let text = text.unwrap_or_default();
    // Go's numbers have no sign here.
    let number = if text.starts_with('+') { "".parse() } else { text.parse() };
    number.map(Version).map_err(|error: std::num::ParseIntError| {
        let reason = match error.kind() {
            IntErrorKind::PosOverflow => "value out of range",
            _ => "invalid syntax",
        };
        match of {
            Updated::Service => texts::version_invalid("service", text, reason),
            Updated::Node => texts::version_invalid("node", text, reason),
            Updated::Swarm => texts::version_invalid("swarm", text, reason),
            Updated::Secret => texts::payload_version_invalid("secret"),
            Updated::Config => texts::payload_version_invalid("config"),
        }
    })
}

/// `rollback` of a service's update.
///
/// # Errors
/// There is no such one.
pub fn rollback(text: Option<&str>) -> Result<Rollback, Refusal> {
    match text.unwrap_or_default() {
        "" | "none" => Ok(Rollback::None),
        "previous" => Ok(Rollback::Previous),
        other => Err(texts::rollback_unknown(other)),
    }
}

/// `X-Registry-Auth`, as the client sent it: nodes hand it on to the registry.
#[must_use]
pub fn sent_auth(header: Option<&str>) -> Option<SecretText> {
    header.filter(|text| !text.is_empty()).map(SecretText::from)
}

/// Where the credentials of an updated service come from: the header, or what `registryAuthFrom` says.
///
/// # Errors
/// There is no such source.
pub fn registry_auth(header: Option<&str>, from: Option<&str>) -> Result<RegistryAuth, Refusal> {
    match (sent_auth(header), from.unwrap_or_default()) {
        (Some(auth), _) => Ok(RegistryAuth::Given(auth)),
        (None, "" | "spec") => Ok(RegistryAuth::Spec),
        (None, "previous-spec") => Ok(RegistryAuth::PreviousSpec),
        (None, _) => Err(texts::auth_source_unknown()),
    }
}

/// `insertDefaults` of a service's inspection.
///
/// # Errors
/// It is no boolean.
pub fn insert_defaults(text: Option<&str>) -> Result<Defaults, Refusal> {
    let wanted = flag("insertDefaults", text)?;
    Ok(if wanted { Defaults::FilledIn } else { Defaults::LeftOut })
}

/// `status` of a list of services: whether their tasks are to be counted.
///
/// # Errors
/// It is no boolean.
pub fn status(text: Option<&str>) -> Result<bool, Refusal> {
    flag("status", text)
}

fn flag(name: &str, text: Option<&str>) -> Result<bool, Refusal> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(false) };
    boolean(text).ok_or_else(|| texts::flag_invalid(name, text))
}

/// The secrets that a `swarm/update` is to replace, by the query's values.
///
/// # Errors
/// One is no boolean.
pub fn rotations<'q>(value: impl Fn(&str) -> Option<&'q str>) -> Result<BTreeSet<Rotate>, Refusal> {
    let mut wanted = BTreeSet::new();
    for (name, secret) in [
        ("rotateWorkerToken", Rotate::WorkerToken),
        ("rotateManagerToken", Rotate::ManagerToken),
        ("rotateManagerUnlockKey", Rotate::UnlockKey),
    ] {
        let Some(text) = value(name).filter(|text| !text.is_empty()) else { continue };
        if boolean(text).ok_or_else(|| texts::rotation_flag_invalid(name, text))? {
            wanted.insert(secret);
        }
    }
    Ok(wanted)
}

/// Go's words for a boolean.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(version(Updated::Node, Some("18446744073709551615")), Ok(Version(u64::MAX)));
        let text = |of, text| version(of, text).unwrap_err().to_string();
        assert_eq!(
            text(Updated::Service, None),
            r#"invalid service version '': strconv.ParseUint: parsing "": invalid syntax"#
        );
        assert_eq!(
            text(Updated::Node, Some("-1")),
            r#"invalid node version '-1': strconv.ParseUint: parsing "-1": invalid syntax"#
        );
        assert_eq!(
            text(Updated::Swarm, Some("+1")),
            r#"invalid swarm version '+1': strconv.ParseUint: parsing "+1": invalid syntax"#
        );
        assert_eq!(
            text(Updated::Service, Some("99999999999999999999")),
            r#"invalid service version '99999999999999999999': strconv.ParseUint: parsing "99999999999999999999": value out of range"#
        );
        assert_eq!(text(Updated::Secret, Some("x")), "invalid secret version");
        assert_eq!(text(Updated::Config, None), "invalid config version");
    }

    #[test]
    fn rollbacks() {
        assert_eq!(rollback(None), Ok(Rollback::None));
        assert_eq!(rollback(Some("none")), Ok(Rollback::None));
        assert_eq!(rollback(Some("previous")), Ok(Rollback::Previous));
        assert_eq!(rollback(Some("x")), Err(texts::rollback_unknown("x")));
    }

    #[test]
    fn credentials_come_from_the_header_first() {
        let given = RegistryAuth::Given(SecretText::from("e30="));
        assert_eq!(registry_auth(Some("e30="), Some("previous-spec")), Ok(given));
        assert_eq!(registry_auth(Some(""), None), Ok(RegistryAuth::Spec));
        assert_eq!(registry_auth(None, Some("spec")), Ok(RegistryAuth::Spec));
        assert_eq!(registry_auth(None, Some("previous-spec")), Ok(RegistryAuth::PreviousSpec));
        assert_eq!(registry_auth(None, Some("x")), Err(texts::auth_source_unknown()));
    }

    #[test]
    fn flags() {
        assert_eq!(status(None), Ok(false));
        assert_eq!(status(Some("true")), Ok(true));
        assert_eq!(status(Some("x")), Err(texts::flag_invalid("status", "x")));
        assert_eq!(insert_defaults(Some("1")), Ok(Defaults::FilledIn));
        assert_eq!(insert_defaults(Some("false")), Ok(Defaults::LeftOut));
        let rotated = rotations(|name| match name {
            "rotateWorkerToken" => Some("true"),
            "rotateManagerToken" => Some("false"),
            _ => None,
        });
        assert_eq!(rotated, Ok(BTreeSet::from([Rotate::WorkerToken])));
        let refused = rotations(|name| (name == "rotateManagerUnlockKey").then_some("x"));
        assert_eq!(refused, Err(texts::rotation_flag_invalid("rotateManagerUnlockKey", "x")));
    }
}
