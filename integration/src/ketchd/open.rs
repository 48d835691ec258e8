//! What ketchd does not do yet as dockerd does: tests that are skipped on it, by name and with what is missing.
//!
//! Each is proven on dockerd. `KETCH_OPEN=1` runs them on ketchd all the same: a line whose test passes there is taken out. Called by
//! [`super::Maker::under_test`].

/// Test, what is missing.
const OPEN: &[(&str, &str)] = &[
    (
        "ketchd_registry::certificates_of_clients",
        "a registry that wants a certificate of us is not reached with it; not proven on dockerd since the test was changed",
    ),
    ("ketchd_containers::diff_and_changes", "not run since both of its mends have landed together"),
    ("ketchd_dockerpy::the_public_api", "no archive, and not looked at beyond"),
    ("ketchd_differential::containers", "see `make differential`"),
    ("ketchd_differential::images", "see `make differential`"),
    ("ketchd_differential::flags", "no archive (cp)"),
    ("ketchd_compose::profiles_configs_and_what_is_watched", "no archive (cp)"),
];

/// Why the test is not asked of ketchd.
#[must_use]
pub fn reason(name: &str) -> Option<&'static str> {
    if std::env::var_os("KETCH_OPEN").is_some() {
        return None;
    }
    OPEN.iter().find(|(test, _)| *test == name).map(|(_, reason)| *reason)
}
