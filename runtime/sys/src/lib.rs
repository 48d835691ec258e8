//! Safe signatures over the kernel. The only crate with `unsafe`.
