//! What ketchd does not do yet as dockerd does: tests that are skipped on it, by name and with what is missing.
//!
//! Each is proven on dockerd. `KETCH_OPEN=1` runs them on ketchd all the same: a line whose test passes there is taken out. Called by
//! [`super::Maker::under_test`].

/// Test, what is missing.
const OPEN: &[(&str, &str)] = &[
    ("ketchd_api::a_body_must_be_json", "the JSON reader's own words where dockerd has Go's"),
    ("ketchd_api::a_head_has_no_body", "HEAD /_ping without a length"),
    ("ketchd_api::a_head_that_is_no_http_is_refused", "a request without Host is served"),
    (
        "ketchd_api::a_version_out_of_range_is_refused",
        "JSON where dockerd answers a version before 1.24 in plain text",
    ),
    ("ketchd_api::error_bodies_are_exact", "create without a configuration is refused in other words"),
    ("ketchd_api::version_is_by_number_and_whole", "no time of the build in /version"),
    ("ketchd_api::what_is_not_served_says_so", "404 where swarm is off, not 503"),
    ("ketchd_containers::copy_both_ways", "no archive (cp)"),
    (
        "ketchd_containers::diff_and_changes",
        "files that the runtime puts below mounts are in the list of changes",
    ),
    ("ketchd_streams::logs_rotate", "the number of rotated files under load"),
    ("ketchd_streams::logs_without_a_reader", "the text of an unknown log driver"),
    ("ketchd_images::list_and_filters", "the count of containers of an image is -1"),
    ("ketchd_images::login_checks_the_password", "the order of the two fields of /auth's answer"),
    ("ketchd_images::pull_by_digest_and_all", "pull -a asks for latest alone"),
    ("ketchd_volumes::subpaths", "a subpath that leads out is refused in the kernel's words"),
    ("ketchd_instances::three_side_by_side", "several give the same addresses out on one bridge"),
    ("ketchd_compose::run_and_configuration", "no archive (cp)"),
    ("ketchd_dockerpy::the_public_api", "no archive, and not looked at beyond"),
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
