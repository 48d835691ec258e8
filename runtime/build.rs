//! Tells the linker where `ketch` starts: before the C library, at `ketch_entry` of runtime/sys/src/entry.rs.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Elsewhere the C library's own entry is used, and the seal costs one more start of it.
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64") {
        // --undefined pulls the object out of its archive, which a name in --entry alone does not.
        println!("cargo:rustc-link-arg-bin=ketch=-Wl,--undefined=ketch_entry,--entry=ketch_entry");
    }
}
