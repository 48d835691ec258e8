//! Tells the linker where `ketch` starts: before the C library, at `ketch_entry` of runtime/sys/src/entry.rs. And, for a
//! build with fault injection, whose uses of the C library go through runtime/sys/src/fault_injection.

use std::fs;

const CALLS: &str = "sys/src/fault_injection/calls.in";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    // Elsewhere the C library's own entry is used, and the seal costs one more start of it. So it is in a build without
    // optimisation, where even the smallest functions are called, through a table that is not relocated yet.
    if is("CARGO_CFG_TARGET_ARCH", "x86_64") && !is("OPT_LEVEL", "0") {
        // --undefined pulls the object out of its archive, which a name in --entry alone does not.
        println!("cargo:rustc-link-arg-bin=ketch=-Wl,--undefined=ketch_entry,--entry=ketch_entry");
    }
    if std::env::var_os("CARGO_FEATURE_FAULT_INJECTION").is_some() {
        println!("cargo:rerun-if-changed={CALLS}");
        let text = fs::read_to_string(CALLS).unwrap_or_default();
        let names =
            text.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or("", |(names, _)| names);
        for name in names.split_whitespace().chain(["close", "syscall"]) {
            println!("cargo:rustc-link-arg-bin=ketch=-Wl,--wrap={name}");
        }
    }
}
