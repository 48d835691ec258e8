//! A container and its groups in resctrl (Intel RDT): found by what is remembered of them, changed, removed.

use std::path::Path;

use super::{Container, ContainerError};
use crate::error::chain;
use crate::log;
use crate::plan::resctrl::schemata;
use crate::resctrl::{self, Group, ResctrlError};
use crate::spec::IntelRdt;
use crate::spec::facts::IntelRdtFact;
use crate::state::State;

/// New schemata for a container; empty is no change.
#[derive(Debug, Clone, Copy, Default)]
pub struct SchemaUpdate<'a> {
    /// `--l3-cache-schema`.
    pub l3_cache: &'a str,
    /// `--mem-bw-schema`.
    pub memory_bandwidth: &'a str,
}

impl Container {
    /// Its groups; none for a container that has none, or has them no more.
    pub(super) fn resctrl(&self) -> Result<Option<Group>, ResctrlError> {
        let Some(rdt) =
            self.state.config.intel_rdt.as_ref().filter(|_| !self.state.intel_rdt_path.is_empty())
        else {
            return Ok(None);
        };
        let path = Path::new(&self.state.intel_rdt_path);
        let mountpoint = if rdt.clos_id == "/" { path } else { path.parent().unwrap_or(path) };
        let monitor = &self.state.intel_rdt_mon_path;
        Group::find(mountpoint, path, (!monitor.is_empty()).then_some(Path::new(monitor)))
    }

    /// Its Intel RDT configuration with what is new; none when nothing is.
    pub(super) fn updated_rdt(&self, update: SchemaUpdate<'_>) -> Result<Option<IntelRdt>, ContainerError> {
        if update.l3_cache.is_empty() && update.memory_bandwidth.is_empty() {
            return Ok(None);
        }
        let fact = IntelRdtFact::look();
        if !update.l3_cache.is_empty() && !fact.cache_allocation {
            return Err(ContainerError::NoCacheAllocation);
        }
        if !update.memory_bandwidth.is_empty() && !fact.memory_bandwidth_allocation {
            return Err(ContainerError::NoBandwidthAllocation);
        }
        let mut rdt = self.state.config.intel_rdt.clone().ok_or(ContainerError::NoIntelRdt)?;
        if !update.l3_cache.is_empty() {
            update.l3_cache.clone_into(&mut rdt.l3_cache_schema);
        }
        if !update.memory_bandwidth.is_empty() {
            update.memory_bandwidth.clone_into(&mut rdt.mem_bw_schema);
        }
        Ok(Some(rdt))
    }

    /// Puts it in force and remembers it; the old one is in force again after a refusal, as far as it can be.
    pub(super) fn set_rdt(&mut self, rdt: IntelRdt) -> Result<(), ContainerError> {
        let failed = |source| ContainerError::Resctrl { action: "setting Intel RDT schemata", source };
        let group = self.resctrl().map_err(failed)?.ok_or(ContainerError::NoIntelRdt)?;
        if let Err(error) = group.set(&schemata(&rdt)) {
            let old = self.state.config.intel_rdt.as_ref().map(schemata).unwrap_or_default();
            if let Err(also) = group.set(&old) {
                log::warn(format!(
                    "setting back Intel RDT schemata: {}; your state.json and actual configs might be inconsistent",
                    chain(&also)
                ));
            }
            return Err(failed(error));
        }
        self.state.config.intel_rdt = Some(rdt);
        Ok(self.dir.store(&self.state)?)
    }
}

/// Removes the groups that were made for a container and for it alone.
pub(super) fn remove_groups(state: &State) -> Result<(), ContainerError> {
    let made = if state.intel_rdt_made { &state.intel_rdt_path } else { &state.intel_rdt_mon_path };
    if made.is_empty() {
        return Ok(());
    }
    resctrl::remove(Path::new(made)).map_err(|source| ContainerError::Resctrl {
        action: "unable to remove container's IntelRDT group",
        source,
    })
}
