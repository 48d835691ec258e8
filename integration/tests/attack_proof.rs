//! Each attack is seen to work: on `naive_runtime`, which protects nothing, it must fall, and for its own reason.
//!
//! An attack that no longer works would hold for ever; this is where it shows. The runtime under test has no part in it.
//! `make attack` has the same runtime as a column of its table.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use ketch_integration::runtime::{Kind, Runtime};
use ketch_integration::{Case, tests};

use crate::{attack_host, attack_image, attack_inside, attack_label, attack_pid, attack_sysctl};

/// Tests of the names of attacks: the module, the attack, and what is said when it has worked.
macro_rules! proofs {
    ($($module:ident::$name:ident => $said:literal),* $(,)?) => {
        tests![$($name),*];
        $(fn $name(case: &Case) {
            falls(case, $module::$name, $said);
        })*
    };
}

proofs![
    attack_image::dev_as_a_link_to_the_host => "the host's folder holds",
    attack_image::proc_as_a_link => "expected a refusal",
    attack_image::sys_as_a_link => "expected a refusal",
    attack_image::a_volume_over_proc => "expected a refusal",
    attack_image::a_mount_target_behind_a_link_to_the_host => "the host's folder holds",
    attack_image::a_mount_target_that_is_swapped => "the host's folder holds",
    attack_image::a_false_null_under_a_mask => "the image's file",
    attack_image::a_standard_stream_on_the_host => "the host's file after",
    attack_image::a_read_only_volume_and_a_false_procfs => "the volume was written to",
    attack_image::a_console_behind_a_link_to_the_host => "the host's folder holds",
    attack_image::a_false_slave => "the console shows",
    attack_image::a_working_directory_by_descriptor => "a file of the host is read",
    attack_image::a_device_behind_a_link_to_the_host => "the host's folder holds",
    attack_inside::descriptors_of_an_entering_process => "a descriptor of the host was read",
    attack_inside::inheritable_capabilities => "of create",
    attack_inside::a_user_with_trailing_garbage => "--user \"33x\"",
    attack_inside::exec_into_a_descriptor => "a file of the host is read",
    attack_host::the_propagation_of_a_mount_namespace_that_is_shared => "not shared any more",
    attack_host::the_folder_of_a_notification_socket_behind_a_link => "the host's folder holds",
    attack_host::a_mount_over_the_notification_socket => "the host has the container's mount",
    attack_pid::the_host_behind_a_container_that_joins => "by /proc/",
    attack_pid::rights_of_a_container_that_joins => "by ptrace",
    attack_pid::rights_of_an_entering_process => "by ptrace",
    attack_sysctl::a_false_procfs => "the sysctl was written to a file of the host",
    attack_sysctl::a_mount_that_is_led_over_the_file => "the sysctl was written to a file of the host",
    attack_label::a_folder_in_place_of_proc => "without its profile",
    attack_label::a_tmpfs_in_place_of_proc => "without its profile",
    attack_label::a_link_in_place_of_proc => "without its profile",
    attack_label::a_mount_over_attr => "without its profile",
    attack_label::a_mount_over_attr_through_a_link => "without its profile",
    attack_label::attr_redirected_during_an_exec => "without its profile",
    attack_label::proc_replaced_before_an_exec => "without its profile",
];

/// # Panics
/// When the attack does not work, or something else than `said` is seen.
fn falls(case: &Case, attack: fn(&Case), said: &str) {
    let (path, version) = (env!("CARGO_BIN_EXE_naive_runtime").into(), "naive".to_owned());
    let naive = case.with_runtime(Runtime { path, kind: Kind::Naive, version });
    let Err(thrown) = catch_unwind(AssertUnwindSafe(|| attack(&naive))) else {
        panic!("the attack does not work: a runtime without protection holds");
    };
    match thrown.downcast::<String>() {
        Ok(message) => assert!(message.contains(said), "the attack ends otherwise than by {said:?}: {message}"),
        // Skipped, with its reason.
        Err(other) => resume_unwind(other),
    }
}
