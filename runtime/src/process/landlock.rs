//! Carries out a [`LandlockPlan`]: the rules while paths can be opened, the restriction when the process needs no more.
//!
//! In two steps, since the container's user may not reach what a rule is about, and since what follows the restriction
//! is restricted. Called by the child after its root is the container's.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use ketch_sys::{Errno, SyscallError, landlock, path, stat};

use crate::plan::landlock::LandlockPlan;

/// Rules that are not yet in force.
#[derive(Debug)]
pub struct Prepared(OwnedFd);

/// Makes the ruleset, by paths of the calling process's root. None where the kernel can do nothing of it, and the plan is
/// content with that.
///
/// # Errors
/// A path that is not there, or an access that the kernel does not know, by its name.
pub fn prepare(plan: &LandlockPlan) -> Result<Option<Prepared>, SyscallError> {
    let abi = landlock::abi()?;
    let unknown = plan.unknown_to(abi);
    if !unknown.is_empty() && !plan.best_effort {
        let detail = format!("the kernel (Landlock ABI {abi}) does not know {}", unknown.join(", "));
        return Err(SyscallError::new("landlock_create_ruleset", detail, Errno::EOPNOTSUPP));
    }
    let plan = plan.within(abi);
    if plan.handled_files == 0 && plan.handled_ports == 0 {
        return Ok(None);
    }
    let ruleset = landlock::create_ruleset(plan.handled_files, plan.handled_ports)?;
    for rule in &plan.paths {
        let top = path::open_host(Path::new(&rule.path), path::PATH)?;
        let access = if stat::status(&top)?.is_dir() { rule.access } else { rule.access_of_file() };
        // A rule that allows nothing is refused with ENOMSG.
        if access != 0 {
            let named = |error: SyscallError| SyscallError::new(error.call, rule.path.clone(), error.errno);
            landlock::add_path(&ruleset, &top, access).map_err(named)?;
        }
    }
    for rule in &plan.ports {
        landlock::add_port(&ruleset, rule.port, rule.access)?;
    }
    Ok(Some(Prepared(ruleset)))
}

impl Prepared {
    /// Puts the rules in force.
    ///
    /// # Errors
    /// EPERM without no_new_privs and CAP_SYS_ADMIN.
    pub fn restrict(self) -> Result<(), SyscallError> {
        landlock::restrict_self(self.0.as_fd())
    }
}
