//! Capability names to masks. Names and numbers are those of the `caps` crate; an unknown name is a warning, as in runc.

use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::spec;

/// A set of capabilities: bit n for capability number n. Written as names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CapabilityMask(pub u64);

/// The five sets of a process (capabilities(7)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilityPlan {
    /// Upper bound over every execve.
    pub bounding: CapabilityMask,
    /// What permission checks look at.
    pub effective: CapabilityMask,
    /// What execve keeps of file capabilities; empty unless asked for (CVE-2022-29162).
    pub inheritable: CapabilityMask,
    /// Upper bound of the effective set.
    pub permitted: CapabilityMask,
    /// What an unprivileged program keeps; empty unless asked for.
    pub ambient: CapabilityMask,
}

impl CapabilityMask {
    /// The names in the mask, by number.
    pub fn names(self) -> impl Iterator<Item = String> {
        let mut all: Vec<caps::Capability> =
            caps::all().into_iter().filter(move |cap| self.has(*cap)).collect();
        all.sort_by_key(caps::Capability::index);
        all.into_iter().map(|capability| capability.to_string())
    }

    fn has(self, capability: caps::Capability) -> bool {
        self.0 & (1 << capability.index()) != 0
    }
}

impl Serialize for CapabilityMask {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.names())
    }
}

impl<'de> Deserialize<'de> for CapabilityMask {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        Ok(mask(&names, &mut Vec::new()))
    }
}

/// The plan of the five lists; names that the kernel's interface does not have are noted in one warning.
pub(super) fn plan_capabilities(
    capabilities: &spec::Capabilities,
    warnings: &mut Vec<String>,
) -> CapabilityPlan {
    let mut unknown = Vec::new();
    let plan = CapabilityPlan {
        bounding: mask(&capabilities.bounding, &mut unknown),
        effective: mask(&capabilities.effective, &mut unknown),
        inheritable: mask(&capabilities.inheritable, &mut unknown),
        permitted: mask(&capabilities.permitted, &mut unknown),
        ambient: mask(&capabilities.ambient, &mut unknown),
    };
    if !unknown.is_empty() {
        unknown.sort();
        unknown.dedup();
        warnings.push(format!("ignoring unknown or unavailable capabilities: [{}]", unknown.join(" ")));
    }
    // capabilities(7): only what is both permitted and inheritable can be raised; init skips what can't.
    let refused = CapabilityMask(plan.ambient.0 & !(plan.permitted.0 & plan.inheritable.0));
    for name in refused.names() {
        warnings.push(format!("can't raise ambient capability {name}: operation not permitted"));
    }
    plan
}

fn mask(names: &[String], unknown: &mut Vec<String>) -> CapabilityMask {
    let mut bits = 0;
    for name in names {
        match caps::Capability::from_str(name) {
            Ok(capability) => bits |= 1 << capability.index(),
            Err(_) => unknown.push(name.clone()),
        }
    }
    CapabilityMask(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ambient_capability_that_is_not_inheritable_warns() {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let capabilities = spec::Capabilities {
            permitted: list(&["CAP_KILL", "CAP_CHOWN"]),
            inheritable: list(&["CAP_KILL"]),
            ambient: list(&["CAP_KILL", "CAP_CHOWN"]),
            ..Default::default()
        };
        let mut warnings = Vec::new();
        plan_capabilities(&capabilities, &mut warnings);
        assert_eq!(warnings, ["can't raise ambient capability CAP_CHOWN: operation not permitted"]);
    }

    #[test]
    fn unknown_names_warn_once_and_count_for_nothing() {
        let capabilities = spec::Capabilities {
            bounding: vec!["CAP_KILL".into(), "CAP_NOPE".into()],
            effective: vec!["CAP_NOPE".into(), "CAP_CHOWN".into()],
            ..Default::default()
        };
        let mut warnings = Vec::new();
        let plan = plan_capabilities(&capabilities, &mut warnings);
        assert_eq!(plan.bounding.0, 1 << 5);
        assert_eq!(plan.effective.0, 1);
        assert_eq!(warnings, ["ignoring unknown or unavailable capabilities: [CAP_NOPE]"]);
        assert_eq!(serde_json::to_string(&plan.bounding).unwrap(), r#"["CAP_KILL"]"#);
    }
}
