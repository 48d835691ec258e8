//! Putting a device policy in force: rules written one by one on v1, one eBPF program on v2.

use std::os::fd::{AsFd, OwnedFd};

use ketch_sys::{Errno, SyscallError, bpf, cgroupfs};

use super::{Cgroup, CgroupError, Group};
use crate::plan::cgroup::device_program::{Instruction, assemble};
use crate::plan::cgroup::devices::Verdict;
use crate::plan::cgroup::{CgroupMode, DeviceLimits, DevicePolicy, OnDeviceFailure};

impl Cgroup {
    pub(super) fn set_devices(&self, limits: &DeviceLimits) -> Result<(), CgroupError> {
        let result = match (self.mode, self.group("devices")) {
            (_, None) => Err(CgroupError::NoGroup { controller: "devices".to_owned() }),
            (CgroupMode::Unified, Some(group)) => group.set_device_program(&limits.policy),
            (CgroupMode::Legacy | CgroupMode::Hybrid, Some(group)) => group.set_device_rules(&limits.policy),
        };
        match limits.on_failure {
            OnDeviceFailure::Fail => result,
            OnDeviceFailure::Ignore => Ok(()),
        }
    }
}

impl Group {
    /// v1: the least change from what `devices.list` shows, so that nothing that stays allowed is refused meanwhile.
    fn set_device_rules(&self, policy: &DevicePolicy) -> Result<(), CgroupError> {
        let current = DevicePolicy::parse_list(&self.read("devices.list")?)?;
        let (mut allow, mut deny) = (None, None);
        for rule in current.transition(policy) {
            let (name, file): (_, &mut Option<OwnedFd>) = match rule.verdict {
                Verdict::Allow => ("devices.allow", &mut allow),
                Verdict::Deny => ("devices.deny", &mut deny),
            };
            let value = rule.to_string();
            let written = match file {
                Some(file) => cgroupfs::write(file, value.as_bytes()),
                None => cgroupfs::open_to_write(self.dir()?, name)
                    .and_then(|opened| cgroupfs::write(file.insert(opened), value.as_bytes())),
            };
            written.map_err(|source| CgroupError::Limit {
                controller: "devices".to_owned(),
                source: Box::new(CgroupError::Write { path: self.path.join(name), value, source }),
            })?;
        }
        Ok(())
    }

    /// v2: exactly one program with the whole policy, or none if it allows everything. One that is there is replaced
    /// in one step, so that there is no moment without.
    fn set_device_program(&self, policy: &DevicePolicy) -> Result<(), CgroupError> {
        let dir = self.dir()?;
        let failed =
            |action| move |source| CgroupError::DeviceProgram { action, path: self.path.clone(), source };
        let old = attached(dir).map_err(failed("query"))?;
        if policy.allows_everything() {
            return old.iter().try_for_each(|old| detach(dir, old)).map_err(failed("detach"));
        }
        let program: Vec<_> = assemble(policy).into_iter().map(Instruction::encode).collect();
        let program =
            bpf::load_device_program(&program).map_err(|source| CgroupError::LoadProgram { source })?;
        let replaced = match old.as_slice() {
            [only] => Some(only.as_fd()),
            _ => None,
        };
        bpf::attach_device_program(dir, &program, replaced).map_err(failed("attach"))?;
        if replaced.is_none() {
            old.iter().try_for_each(|old| detach(dir, old)).map_err(failed("detach"))?;
        }
        Ok(())
    }
}

/// The programs of the directory itself. One that a security module keeps from us stays: it can only deny more.
fn attached(dir: impl AsFd) -> Result<Vec<OwnedFd>, SyscallError> {
    let mut programs = Vec::new();
    for id in bpf::attached_device_programs(&dir)? {
        match bpf::program_by_id(id) {
            Ok(program) => programs.push(program),
            Err(error) if matches!(error.errno, Errno::EPERM | Errno::EACCES | Errno::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(programs)
}

fn detach(dir: impl AsFd, program: &OwnedFd) -> Result<(), SyscallError> {
    match bpf::detach_device_program(dir, program) {
        Err(error) if error.errno == Errno::ENOENT => Ok(()),
        other => other,
    }
}
