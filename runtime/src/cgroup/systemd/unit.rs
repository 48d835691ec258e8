//! What a container's cgroups do by systemd: come into being around a process, take limits, go away.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::chown;

use ketch_sys::process::Pid;

use super::super::create::{create_group, enter_domain, refuse_used_before};
use super::super::{Cgroup, CgroupError, Group};
use super::{Manager, SystemdError};
use crate::log;
use crate::plan::cgroup::systemd::{Instance, Property, SystemdFacts, UnitName, UnitPlan};
use crate::plan::cgroup::{CgroupMode, CgroupPlan, Join};

/// The unit of a container's cgroup.
#[derive(Debug)]
pub(in super::super) struct Unit {
    name: String,
    instance: Instance,
    /// Which run of the unit is the container's, as far as that is known.
    invocation: Option<String>,
    /// The connection, once there is one.
    manager: RefCell<Option<Manager>>,
    /// It has not answered once: what else a command has to ask, under the container's lock, would wait as long again.
    is_silent: Cell<bool>,
    phase: Phase,
}

/// Whether the unit is there: only then its cgroup is the container's. Before, a cgroup at its path is somebody else's.
#[derive(Debug)]
enum Phase {
    Planned,
    Started,
}

impl Unit {
    pub(in super::super) fn is_planned(&self) -> bool {
        matches!(self.phase, Phase::Planned)
    }

    fn ask<T>(&self, call: impl FnOnce(&mut Manager) -> Result<T, SystemdError>) -> Result<T, SystemdError> {
        if self.is_silent.get() {
            return Err(SystemdError::Silent);
        }
        let mut manager = self.manager.borrow_mut();
        let answer = match &mut *manager {
            Some(manager) => call(manager),
            none => Manager::connect(self.instance).and_then(|manager| call(none.insert(manager))),
        };
        self.is_silent.set(answer.as_ref().is_err_and(SystemdError::is_silence));
        answer
    }
}

impl Cgroup {
    /// The cgroups of a plan with a unit. Nothing is made yet: [`Cgroup::enter`] has systemd make them around the
    /// container's process.
    ///
    /// # Errors
    /// There are processes in them already: they are another container's.
    pub fn of_unit(plan: &CgroupPlan, unit: &UnitPlan, manager: Manager) -> Result<Cgroup, CgroupError> {
        refuse_used_before(plan)?;
        let group = |group: &crate::plan::cgroup::GroupPlan| {
            Group::new(group.controllers.clone(), &group.path, group.join)
        };
        let unit = Unit {
            name: unit.name.unit(),
            instance: unit.instance,
            invocation: None,
            manager: RefCell::new(Some(manager)),
            is_silent: Cell::new(false),
            phase: Phase::Planned,
        };
        Ok(Cgroup { mode: plan.mode, groups: plan.groups.iter().map(group).collect(), unit: Some(unit) })
    }

    /// [`Cgroup::open`] of cgroups that are a unit's.
    #[must_use]
    pub fn open_unit(
        paths: &BTreeMap<String, String>,
        (name, instance): (&UnitName, Instance),
        invocation: Option<String>,
    ) -> Cgroup {
        let unit = Unit {
            name: name.unit(),
            instance,
            invocation,
            manager: RefCell::new(None),
            is_silent: Cell::new(false),
            phase: Phase::Started,
        };
        Cgroup { unit: Some(unit), ..Cgroup::open(paths) }
    }

    /// Which run of its unit the container is in, once it is.
    #[must_use]
    pub fn invocation(&self) -> Option<&str> {
        self.unit.as_ref()?.invocation.as_deref()
    }

    /// Whether the unit of this name is a later one, and so is its cgroup: the container's has ended, and somebody else has
    /// taken the name. What systemd does not say is taken for the container's.
    #[must_use]
    pub fn is_of_another(&self) -> bool {
        let Some((unit, ours)) = self.unit.as_ref().zip(self.invocation()) else { return false };
        match unit.ask(|manager| manager.invocation(&unit.name)) {
            Ok(now) => now.is_some_and(|now| now != ours),
            Err(error) => {
                log::debug(crate::error::chain(&error));
                false
            }
        }
    }

    /// What a plan must know of the systemd that made these cgroups; nothing for cgroups that it has not made.
    ///
    /// # Errors
    /// It does not answer.
    pub fn systemd_facts(&self) -> Result<Option<SystemdFacts>, CgroupError> {
        Ok(self.unit.as_ref().map(|unit| unit.ask(Manager::facts)).transpose()?)
    }

    /// Puts a process into the cgroups of `plan` where it was not born in them: systemd makes the unit around it, with
    /// the plan's limits in force. Nothing to do without a unit.
    ///
    /// # Errors
    /// systemd refuses, or what it leaves to us fails.
    pub fn enter(&mut self, plan: &CgroupPlan, pid: Pid) -> Result<(), CgroupError> {
        let (Some(unit), Some(planned)) = (&mut self.unit, &plan.unit) else { return Ok(()) };
        // A slice has no processes of its own as far as systemd is concerned.
        let pids = if planned.name.is_slice() { &[][..] } else { &[pid][..] };
        let properties = planned.properties.clone();
        match unit.ask(|manager| manager.start(&unit.name, properties, pids)) {
            Ok(()) => {
                unit.phase = Phase::Started;
                unit.invocation = unit
                    .ask(|manager| manager.invocation(&unit.name))
                    .inspect_err(|error| log::debug(crate::error::chain(error)))
                    .unwrap_or_default();
            }
            Err(error) => {
                if matches!(error, SystemdError::NotStarted { .. }) {
                    unit.phase = Phase::Started;
                }
                return Err(error.into());
            }
        }
        match self.mode {
            CgroupMode::Unified => self.complete_v2(plan, planned, pid),
            CgroupMode::Legacy | CgroupMode::Hybrid => self.complete_v1(plan, pid),
        }
    }

    /// systemd enables the controllers that it knows.
    fn complete_v2(&self, plan: &CgroupPlan, planned: &UnitPlan, pid: Pid) -> Result<(), CgroupError> {
        for (group, group_plan) in self.groups.iter().zip(&plan.groups) {
            // It may have gone with its process.
            group.dir()?;
            enter_domain(plan, group, group_plan.mountpoint.as_ref())?;
            if planned.name.is_slice() {
                group.write("cgroup.procs", &pid.to_string())?;
            }
            if let Some(owner) = planned.owner {
                give(group, owner)?;
            }
        }
        Ok(())
    }

    /// systemd makes the cgroup in the hierarchies that it knows.
    fn complete_v1(&self, plan: &CgroupPlan, pid: Pid) -> Result<(), CgroupError> {
        for (group, group_plan) in self.groups.iter().zip(&plan.groups) {
            let joined = create_group(plan, group_plan, group, &mut Default::default())
                .and_then(|_found| group.write("cgroup.procs", &pid.to_string()));
            match joined {
                Err(error) if group.join == Join::Required => return Err(error),
                _ => {}
            }
        }
        self.set_device_rules_ahead(&plan.limits)
    }

    /// Tells systemd of new limits. On v1 it puts device rules into force anew, by a moment of denying everything: the
    /// container must not be running then.
    pub(in super::super) fn set_properties(&self, properties: &[Property]) -> Result<(), CgroupError> {
        let Some(unit) = self.unit.as_ref().filter(|_| !properties.is_empty()) else { return Ok(()) };
        let set = || unit.ask(|manager| manager.set(&unit.name, properties)).map_err(CgroupError::from);
        if self.mode == CgroupMode::Unified || self.is_frozen()? {
            return set();
        }
        self.freeze()?;
        let set = set();
        set.and(self.thaw())
    }

    /// Moves a process into the unit's cgroup, or one below it.
    pub(in super::super) fn attach_to_unit(&self, below: &str, pid: Pid) -> Result<(), CgroupError> {
        let unit = self.unit.as_ref().ok_or(CgroupError::NotExist)?;
        Ok(unit.ask(|manager| manager.attach(&unit.name, below, pid))?)
    }

    /// Ends the unit. Without systemd its cgroup is removed all the same, which systemd will find.
    pub(in super::super) fn stop_unit(&self) {
        let Some(unit) = &self.unit else { return };
        if let Err(error) = unit.ask(|manager| manager.stop(&unit.name)) {
            log::warn(crate::error::chain(&error));
        }
    }
}

/// Lets a user manage what is below a cgroup: gives away what the kernel says may be (cgroups(7), "Delegation").
fn give(group: &Group, owner: u32) -> Result<(), CgroupError> {
    let failed = |file: &str| {
        let path = group.path.join(file);
        move |source| CgroupError::Give { path, owner, source }
    };
    chown(&group.path, Some(owner), None).map_err(failed(""))?;
    let files = fs::read_to_string("/sys/kernel/cgroup/delegate");
    let files = files.unwrap_or_else(|_| "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n".to_owned());
    for file in files.lines() {
        match chown(group.path.join(file), Some(owner), None) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            other => other.map_err(failed(file))?,
        }
    }
    Ok(())
}
