//! Tells the linker where `ketch` starts: before the C library, at `ketch_entry` of runtime/sys/src/entry.rs.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    // Elsewhere the C library's own entry is used, and the seal costs one more start of it. So it is in a build without
    // optimisation, where even the smallest functions are called, through a table that is not relocated yet.
    if is("CARGO_CFG_TARGET_ARCH", "x86_64") && !is("OPT_LEVEL", "0") {
        // --undefined pulls the object out of its archive, which a name in --entry alone does not.
        println!("cargo:rustc-link-arg-bin=ketch=-Wl,--undefined=ketch_entry,--entry=ketch_entry");
    }
}
