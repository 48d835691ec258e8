//! What ketchd does not do yet as dockerd does: tests that are skipped on it, by name and with what is missing.
//!
//! Each is proven on dockerd. `KETCH_OPEN=1` runs them on ketchd all the same: a line whose test passes there is taken out. Called by
//! [`super::Maker::under_test`].

/// Test, what is missing.
const OPEN: &[(&str, &str)] = &[
    ("ketchd_api::a_body_must_be_json", "no volumes, whose create the test posts to"),
    ("ketchd_api::a_head_has_no_body", "HEAD /_ping without a length"),
    ("ketchd_api::a_head_that_is_no_http_is_refused", "a request without Host is served"),
    ("ketchd_api::a_huge_body_is_refused_and_the_engine_lives", "no volumes, whose create the test posts to"),
    (
        "ketchd_api::a_version_out_of_range_is_refused",
        "JSON where dockerd answers a version before 1.24 in plain text",
    ),
    ("ketchd_api::error_bodies_are_exact", "no volumes"),
    ("ketchd_api::every_answer_bears_the_servers_headers", "no GET /info"),
    ("ketchd_api::filters_in_both_forms_and_bad_ones", "no volumes"),
    ("ketchd_api::info_tells_the_roots", "no GET /info"),
    ("ketchd_api::version_is_by_number_and_whole", "no time of the build in /version"),
    ("ketchd_api::what_is_not_served_says_so", "404 where swarm is off, not 503"),
    ("ketchd_run::an_init", "the init is not under /sbin/docker-init with `--`"),
    ("ketchd_run::an_out_of_memory_kill_is_told", "no GET /events"),
    ("ketchd_run::auto_remove", "no volumes"),
    ("ketchd_run::output_and_exit_code", "no GET /info"),
    ("ketchd_run::privileged", "capabilities that the daemon itself lacks are asked for"),
    ("ketchd_containers::copy_both_ways", "no archive"),
    ("ketchd_containers::diff_and_changes", "other folders in the list of changes, or their order"),
    ("ketchd_containers::events_of_a_life", "no GET /events"),
    ("ketchd_containers::health_goes_both_ways", "no GET /events"),
    ("ketchd_containers::list_filters", "no sizes in the list"),
    ("ketchd_containers::pause_freezes", "the text of a second pause"),
    ("ketchd_streams::a_terminal_is_resized", "an exec that is not upgraded answers in chunks"),
    ("ketchd_streams::attach_ends_with_the_container", "no GET /events"),
    ("ketchd_streams::attach_half_close_over_raw_http", "`101 Switching Protocols`, not `101 UPGRADED`"),
    ("ketchd_streams::attach_with_logs", "the content type of an attachment that is not upgraded"),
    ("ketchd_streams::exec_over_raw_http", "`101 Switching Protocols`, not `101 UPGRADED`"),
    (
        "ketchd_streams::exec_settings",
        "capabilities that the daemon itself lacks are asked for by --privileged",
    ),
    ("ketchd_streams::logs_rotate", "the number of rotated files under load"),
    ("ketchd_streams::logs_without_a_reader", "the text of an unknown log driver"),
    ("ketchd_images::list_and_filters", "the count of containers in the list"),
    ("ketchd_images::login_checks_the_password", "the order of the answer of /auth"),
    ("ketchd_images::pull_by_digest_and_all", "pull -a asks for latest alone"),
    ("ketchd_images::the_image_configures_its_containers", "no volumes"),
    ("ketchd_networks::addresses_and_pools", "not looked into"),
    ("ketchd_networks::another_containers_network", "the text of a container that does not run"),
    ("ketchd_networks::connect_and_disconnect_while_it_runs", "no connecting of a running container"),
    ("ketchd_networks::names_resolve_on_ones_own", "not looked into"),
    ("ketchd_networks::six", "published ports of IPv6"),
    ("ketchd_volumes::a_volume_in_use_is_not_removed", "no volumes"),
    ("ketchd_volumes::anonymous_volumes_go_with_rm_v", "no volumes"),
    ("ketchd_volumes::create_inspect_and_remove", "no volumes"),
    ("ketchd_volumes::links_in_the_image_do_not_lead_out", "no volumes"),
    ("ketchd_volumes::list_and_filters", "no volumes"),
    ("ketchd_volumes::mounts_by_the_long_form", "no volumes"),
    ("ketchd_volumes::named_volumes_keep", "no volumes"),
    ("ketchd_volumes::prune_by_age_of_use", "no volumes"),
    ("ketchd_volumes::size_in_df", "no GET /system/df"),
    ("ketchd_volumes::subpaths", "no volumes"),
    ("ketchd_volumes::the_images_content_is_copied_once", "no volumes"),
    ("ketchd_volumes::tmpfs_volumes_and_options", "no volumes"),
    ("ketchd_volumes::volumes_from", "no volumes"),
    ("ketchd_life::a_second_interrupt_is_harmless", "as a_stop_ends_the_containers"),
    (
        "ketchd_life::a_stop_ends_the_containers",
        "the end of the daemon does not ask containers to end by their signal",
    ),
    ("ketchd_life::events_and_clients_end_with_it", "no GET /events"),
    ("ketchd_life::flags_in_both_forms", "no GET /info"),
    ("ketchd_life::images_networks_and_volumes_outlive_it", "no volumes"),
    (
        "ketchd_life::health_goes_on_after_a_crash",
        "a probe's fifos of before the crash stay open in the daemon",
    ),
    ("ketchd_life::policies_after_a_restart", "policies after an orderly end"),
    ("ketchd_life::reload_on_hangup", "no GET /info"),
    ("ketchd_compose::run_and_configuration", "no volumes and no GET /events"),
    ("ketchd_compose::scale_and_recreate", "no volumes and no GET /events"),
    ("ketchd_compose::up_ps_logs_exec_and_down", "no volumes and no GET /events"),
    ("ketchd_compose::what_fails_is_told", "no volumes and no GET /events"),
    ("ketchd_dockerpy::the_public_api", "no GET /info, /events and volumes"),
    ("ketchd_differential::containers", "see `make differential`"),
    ("ketchd_differential::images", "see `make differential`"),
    ("ketchd_differential::networks", "see `make differential`"),
    ("ketchd_differential::system", "see `make differential`"),
];

/// Why the test is not asked of ketchd.
#[must_use]
pub fn reason(name: &str) -> Option<&'static str> {
    if std::env::var_os("KETCH_OPEN").is_some() {
        return None;
    }
    OPEN.iter().find(|(test, _)| *test == name).map(|(_, reason)| *reason)
}
