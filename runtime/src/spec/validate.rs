//! The gate between a parsed configuration and a plan.
//!
//! [`validate`] runs every check of [`super::checks`] in runc's order; the only way to a [`ValidSpec`] leads through it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::checks::{CHECKS, RELAXED, Subject};
use super::facts::{SpecFacts, rootfs_path};
use super::user_namespace::IdMappings;
use super::{Hooks, IdMapping, Linux, Mount, Namespace, NamespaceType, Process, Spec, SpecError};

/// How the caller wants the container made, as far as that decides what is allowed.
#[derive(Clone, Debug)]
pub struct ValidationContext {
    /// The bundle's absolute path, free of symbolic links: relative paths of the configuration start there.
    pub bundle: PathBuf,
    /// The runtime is not root in its user namespace.
    pub rootless: bool,
    /// The cgroup can't be relied on.
    pub rootless_cgroups: bool,
    /// cgroups are made through systemd.
    pub systemd_cgroup: bool,
    /// The root is changed without pivot_root.
    pub no_pivot: bool,
}

impl ValidationContext {
    /// A root caller with runc's defaults.
    #[must_use]
    pub fn new(bundle: impl Into<PathBuf>) -> Self {
        Self {
            bundle: bundle.into(),
            rootless: false,
            rootless_cgroups: false,
            systemd_cgroup: false,
            no_pivot: false,
        }
    }
}

/// A configuration that has passed every check, with what the checks worked out.
#[derive(Clone, Debug)]
pub struct ValidSpec {
    /// Everything but the two parts below.
    rest: Spec,
    process: Process,
    linux: Linux,
    rootfs: PathBuf,
    mappings: IdMappings,
    resctrl: Option<PathBuf>,
    bundle: PathBuf,
    warnings: Vec<String>,
}

/// Checks `spec`, looking at the host for what the checks need to know.
///
/// # Errors
/// The first check that fails, with runc's text.
pub fn validate(spec: Spec, context: &ValidationContext) -> Result<ValidSpec, SpecError> {
    let facts = SpecFacts::gather(&spec, &context.bundle);
    validate_with(spec, context, &facts)
}

/// Checks `spec` against facts that are known already. Pure: for golden tests and fuzzing.
///
/// # Errors
/// The first check that fails, with runc's text.
pub fn validate_with(
    mut spec: Spec,
    context: &ValidationContext,
    facts: &SpecFacts,
) -> Result<ValidSpec, SpecError> {
    let linux = spec.linux.take().unwrap_or_default();
    let options: Vec<_> = spec.mounts.iter().map(Mount::parse_options).collect();
    let subject = Subject { spec: &spec, linux: &linux, options: &options, facts, context };
    for check in CHECKS {
        check(&subject)?;
    }
    let mut warnings = Vec::new();
    for check in RELAXED {
        check(&subject, &mut warnings);
    }
    let mappings = match &facts.joined_mappings {
        Some(Ok(joined)) => joined.clone(),
        _ if linux.namespace(NamespaceType::User).is_none() => IdMappings::default(),
        _ => IdMappings { uid: linux.uid_mappings.clone(), gid: linux.gid_mappings.clone() },
    };
    let root = spec.root.as_ref().ok_or(SpecError::NoRoot)?;
    let rootfs = rootfs_path(&context.bundle, &root.path);
    let process = spec.process.take().ok_or(SpecError::NoProcess)?;
    let resctrl = linux.intel_rdt.as_ref().and_then(|_| facts.intel_rdt.mountpoint.clone());
    let bundle = context.bundle.clone();
    Ok(ValidSpec { rest: spec, process, linux, rootfs, mappings, resctrl, bundle, warnings })
}

/// Checks the process that `exec` adds to a container.
///
/// # Errors
/// The first check that fails, with runc's text.
pub fn validate_process(process: &Process) -> Result<(), SpecError> {
    let selinux = process.selinux_label.is_empty() || super::facts::selinux_enabled();
    super::checks::process_alone(process, selinux)
}

impl ValidSpec {
    /// The runtime-spec version that the bundle follows.
    #[must_use]
    pub fn oci_version(&self) -> &str {
        &self.rest.oci_version
    }

    /// The host name to set; empty for none.
    #[must_use]
    pub fn hostname(&self) -> &str {
        &self.rest.hostname
    }

    /// The domain name to set; empty for none.
    #[must_use]
    pub fn domainname(&self) -> &str {
        &self.rest.domainname
    }

    /// The mounts, in order.
    #[must_use]
    pub fn mounts(&self) -> &[Mount] {
        &self.rest.mounts
    }

    /// The hooks, if there are any.
    #[must_use]
    pub fn hooks(&self) -> Option<&Hooks> {
        self.rest.hooks.as_ref()
    }

    /// The caller's keys and values.
    #[must_use]
    pub fn annotations(&self) -> &BTreeMap<String, String> {
        &self.rest.annotations
    }

    /// The container's first process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The Linux part; empty when the configuration has none.
    #[must_use]
    pub fn linux(&self) -> &Linux {
        &self.linux
    }

    /// The absolute path of the root filesystem.
    #[must_use]
    pub fn rootfs(&self) -> &Path {
        &self.rootfs
    }

    /// The absolute path of the bundle.
    #[must_use]
    pub fn bundle(&self) -> &Path {
        &self.bundle
    }

    /// Whether the container's root is read-only.
    #[must_use]
    pub fn readonly_rootfs(&self) -> bool {
        self.rest.root.as_ref().is_some_and(|root| root.readonly)
    }

    /// The container's user ids: those of the namespace it joins, or those of its new one.
    #[must_use]
    pub fn uid_mappings(&self) -> &[IdMapping] {
        &self.mappings.uid
    }

    /// The container's group ids: those of the namespace it joins, or those of its new one.
    #[must_use]
    pub fn gid_mappings(&self) -> &[IdMapping] {
        &self.mappings.gid
    }

    /// Where resctrl is mounted, for a container that is to be in it.
    #[must_use]
    pub fn resctrl(&self) -> Option<&Path> {
        self.resctrl.as_deref()
    }

    /// The entry for namespaces of `kind`.
    #[must_use]
    pub fn namespace(&self, kind: NamespaceType) -> Option<&Namespace> {
        self.linux.namespace(kind)
    }

    /// What is accepted but worth a warning in the log.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Gives the configuration back as it was parsed, but for a Linux part, which it has now in any case.
    #[must_use]
    pub fn into_spec(self) -> Spec {
        Spec { process: Some(self.process), linux: Some(self.linux), ..self.rest }
    }
}
