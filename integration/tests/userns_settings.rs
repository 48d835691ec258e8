//! What a machine's settings forbid a user, and whether the message names the setting. They are the whole machine's, so these
//! run in the VM alone; a module's tests are the only ones at their time.

use std::fs;
use std::path::{Path, PathBuf};

use ketch_integration::{Case, tests};

tests![a_machine_without_namespaces_for_users, apparmor_takes_the_capabilities];

/// A setting that is put back in the end.
struct Setting {
    path: PathBuf,
    before: String,
}

impl Setting {
    fn set(case: &Case, name: &str, value: &str) -> Self {
        let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
        case.needs(line.contains("ketch.vm="), "only in the VM: it changes the machine");
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        let Ok(before) = fs::read_to_string(&path) else { case.skip(format!("this kernel has no {name}")) };
        fs::write(&path, value).expect("change the setting");
        Self { path, before }
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        let _ = fs::write(&self.path, &self.before);
    }
}

fn a_machine_without_namespaces_for_users(case: &Case) {
    case.not_on_runc("says only what the kernel did");
    let bundle = case.bundle().command(&["/bin/true"]);
    let setting = Setting::set(case, "kernel.unprivileged_userns_clone", "0");
    let texts = ["cannot create a user namespace (kernel.unprivileged_userns_clone is 0)", "operation not permitted"];
    bundle.run().refuses(&texts);
    drop(setting);
    let _ = bundle.run().ok();
}

/// Ubuntu's kernels have it.
fn apparmor_takes_the_capabilities(case: &Case) {
    case.not_on_runc("says only what the kernel did");
    let bundle = case.bundle().command(&["/bin/true"]);
    let _setting = Setting::set(case, "kernel.apparmor_restrict_unprivileged_userns", "1");
    bundle.run().refuses(&["kernel.apparmor_restrict_unprivileged_userns is 1"]);
}
