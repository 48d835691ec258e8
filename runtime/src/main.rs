//! The `ketch` command: a thin door to the library.

fn main() {}
