//! AppArmor profiles of a test's own, loaded into the kernel and taken out of it again.
//!
//! Called by the `lsm` and `attack_label` tests, which are skipped where the kernel has no AppArmor.

use std::fs;
use std::process::Command;

use crate::case::Case;

/// A loaded profile that allows everything but what the test denies.
#[derive(Debug)]
pub struct Profile {
    pub name: String,
    file: std::path::PathBuf,
}

impl Profile {
    /// Loads a profile with the rules of `denied` (one line each, AppArmor's language), or skips the test where that
    /// cannot be.
    ///
    /// # Panics
    /// When the kernel refuses the profile.
    #[must_use]
    pub fn load(case: &Case, denied: &str) -> Self {
        let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
        case.needs(enabled.trim() == "Y", "the kernel runs without AppArmor");
        case.needs(case.has_program("apparmor_parser"), "no apparmor_parser (package apparmor)");
        let name = case.fresh_id();
        let file = case.dir.join(format!("{name}.profile"));
        let text = format!(
            "profile {name} flags=(attach_disconnected,mediate_deleted) {{\n  file,\n  capability,\n  network,\n  \
             mount,\n  umount,\n  pivot_root,\n  signal,\n  ptrace,\n  unix,\n  {denied}\n}}\n"
        );
        fs::write(&file, text).expect("write the profile");
        let profile = Self { name, file };
        profile.parser("--replace");
        profile
    }

    /// What `attr/current` says of a process under this profile.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{} (enforce)", self.name)
    }

    fn parser(&self, action: &str) {
        let out = Command::new("apparmor_parser")
            .args([action, "--skip-cache", "--quiet"])
            .arg(&self.file)
            .output()
            .expect("run apparmor_parser");
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "apparmor_parser {action}: {said}");
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        // The last user of it may have ended a moment ago; the kernel keeps a profile as long as anybody has it.
        let _ = Command::new("apparmor_parser").arg("--remove").arg(&self.file).output();
    }
}
