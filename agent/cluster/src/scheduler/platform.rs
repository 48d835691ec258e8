//! Which platform runs what: architectures have two names each.

use crate::objects::node::Platform;

/// Whether a node of this platform runs what is made for `wanted`, whose empty fields are any.
pub(super) fn runs(node: &Platform, wanted: &Platform) -> bool {
    let architecture =
        wanted.architecture.is_empty() || one_name(&wanted.architecture) == one_name(&node.architecture);
    architecture && (wanted.os.is_empty() || wanted.os == node.os)
}

/// The kernel's names as Docker's images have them.
fn one_name(architecture: &str) -> &str {
    match architecture {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(architecture: &str, os: &str) -> Platform {
        Platform { architecture: architecture.to_owned(), os: os.to_owned() }
    }

    #[test]
    fn both_names_of_an_architecture_are_the_same() {
        for (node, wanted, runs_it) in [
            (platform("x86_64", "linux"), platform("amd64", "linux"), true),
            (platform("arm64", "linux"), platform("aarch64", "linux"), true),
            (platform("x86_64", "linux"), platform("arm64", "linux"), false),
            (platform("x86_64", "linux"), platform("amd64", "windows"), false),
            (platform("riscv64", "linux"), platform("riscv64", ""), true),
            (platform("x86_64", "linux"), platform("", "linux"), true),
            (platform("x86_64", "linux"), platform("", ""), true),
            (platform("", ""), platform("amd64", ""), false),
        ] {
            assert_eq!(runs(&node, &wanted), runs_it, "{node:?} {wanted:?}");
        }
    }
}
