//! The table of `agent/API.md` says of each operation of the Docker Engine API whether it is served; this holds it to the
//! routes.

use std::collections::BTreeSet;

use ketchd::api::routes;

/// The operation of a row, and whether it has a route: it is served, or refused with a text of its own.
fn row(line: &str) -> Option<(String, bool)> {
    let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
    let [operation, state] = cells.as_slice() else { return None };
    let operation = operation.strip_prefix('`')?.strip_suffix('`')?;
    let is_status = state.split(':').next().is_some_and(|status| status.parse::<u16>().is_ok());
    Some((operation.to_owned(), state.starts_with("served") || is_status))
}

#[test]
fn the_table_is_what_the_router_has() {
    let rows: Vec<_> = include_str!("../API.md").lines().filter_map(row).collect();
    let named: BTreeSet<_> = rows.iter().map(|(operation, _)| operation).collect();
    assert_eq!(named.len(), rows.len(), "an operation is there twice");
    let said: BTreeSet<_> =
        rows.iter().filter(|(_, has_route)| *has_route).map(|(name, _)| name.clone()).collect();
    let router = routes::all();
    let has: BTreeSet<_> = router.patterns().map(|(method, path)| format!("{method} {path}")).collect();
    let only_said: Vec<_> = said.difference(&has).collect();
    let not_said: Vec<_> = has.difference(&said).collect();
    assert!(
        only_said.is_empty() && not_said.is_empty(),
        "without a route: {only_said:?}; not in the table: {not_said:?}"
    );
}
