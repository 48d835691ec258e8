//! The label `ketch.depends_on` of a service: which services its first tasks wait for.
//!
//! `control` refuses what can't be read and what waits for itself; the orchestrator closes and opens the gates of tasks by
//! it; the store's index finds by it whom a service's tasks wake.

use std::collections::BTreeSet;
use std::fmt;

use super::{Refusal, STACK};
use crate::objects::{Labels, ServiceSpec};
use crate::store::{ObjectId, ObjectKind};
use crate::view::View;

pub const LABEL: &str = "ketch.depends_on";

/// Each is looked up and counted whenever one of its tasks changes.
const MOST: usize = 32;

/// A service that is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// As the user wrote it: in a stack it may lack the stack's name.
    pub name: String,
    pub until: Until,
}

/// How far all wanted tasks of the service must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Their containers were started.
    Started,
    /// They run: those with a health check are healthy.
    Healthy,
}

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Started => "to start",
            Self::Healthy => "to be healthy",
        })
    }
}

/// The services that the labels name; none when the label is not there.
///
/// # Errors
/// When the value is not a list of names, separated by commas.
pub fn parse(labels: &Labels) -> Result<Vec<Dependency>, Refusal> {
    let Some(text) = labels.get(LABEL) else { return Ok(Vec::new()) };
    let parts: Vec<_> = text.split(',').map(str::trim).collect();
    if parts.len() > MOST {
        return Err(Refusal::new(
            LABEL,
            format!("{} services are named, and at most {MOST} can be", parts.len()),
        ));
    }
    let mut dependencies: Vec<Dependency> = Vec::new();
    for part in parts {
        let dependency = dependency(part).ok_or_else(|| {
            Refusal::new(
                LABEL,
                format!("{part:?} is not a service's name, with or without :healthy behind it"),
            )
        })?;
        if dependencies.iter().any(|known| known.name.eq_ignore_ascii_case(&dependency.name)) {
            return Err(Refusal::new(LABEL, format!("service {} is named twice", dependency.name)));
        }
        dependencies.push(dependency);
    }
    Ok(dependencies)
}

fn dependency(text: &str) -> Option<Dependency> {
    let (name, until) = match text.split_once(':') {
        None => (text, Until::Started),
        Some((name, "healthy")) => (name, Until::Healthy),
        Some(_) => return None,
    };
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let is_name = !name.is_empty() && name.len() <= 63 && name.bytes().all(fits);
    is_name.then(|| Dependency { name: name.to_owned(), until })
}

/// Refuses a service that would wait for itself, also by way of others. Each name that a dependency may mean counts: which of
/// them is meant changes with the services that come and go.
pub(super) fn fits(view: &View<'_>, spec: &ServiceSpec) -> Result<(), Refusal> {
    // Each with the place of the one that it was found by.
    let mut found: Vec<(String, usize)> = Vec::new();
    let mut known = BTreeSet::new();
    let mut labels = &spec.labels;
    for next in 0.. {
        for name in names_in(labels) {
            if name.eq_ignore_ascii_case(&spec.name) {
                let reason = format!("the service would wait for itself: {}", way(&found, next, &spec.name));
                return Err(Refusal::new(LABEL, reason));
            }
            if known.insert(name.clone()) {
                found.push((name, next));
            }
        }
        let Some((name, _)) = found.get(next) else { break };
        labels = match view.by_name(ObjectKind::Service, name) {
            Some(ObjectId::Service(id)) => view.service(id).map_or(&NONE, |service| &service.spec.labels),
            _ => &NONE,
        };
    }
    Ok(())
}

static NONE: Labels = Labels::new();

/// The lower-case names by which the service with these labels may mean others; none when they can't be read.
pub fn names_in(labels: &Labels) -> impl Iterator<Item = String> {
    let dependencies = parse(labels).unwrap_or_default();
    dependencies
        .into_iter()
        .flat_map(|it| it.names(labels).collect::<Vec<_>>())
        .map(|it| it.to_ascii_lowercase())
}

/// From the service itself by those that led to the `last`-th one back to it.
fn way(found: &[(String, usize)], last: usize, own: &str) -> String {
    let mut names = vec![own];
    let mut place = last;
    while let Some((name, before)) = place.checked_sub(1).and_then(|index| found.get(index)) {
        names.push(name);
        place = *before;
    }
    names.push(own);
    names.reverse();
    names.join(", ")
}

impl Dependency {
    /// The names by which it is looked for, in this order: in the stack of the service with these labels, then as it is.
    pub fn names(&self, labels: &Labels) -> impl Iterator<Item = String> {
        let in_stack = labels.get(STACK).map(|stack| format!("{stack}_{}", self.name));
        in_stack.into_iter().chain([self.name.clone()])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixture;
    use crate::objects::Service;
    use crate::view::Observed;

    fn labels(text: &str) -> Labels {
        Labels::from([(LABEL.to_owned(), text.to_owned())])
    }

    fn on(name: &str, until: Until) -> Dependency {
        Dependency { name: name.to_owned(), until }
    }

    #[test]
    fn names_with_and_without_a_condition() {
        assert_eq!(parse(&Labels::new()), Ok(vec![]));
        assert_eq!(parse(&labels("db")), Ok(vec![on("db", Until::Started)]));
        let both = vec![on("db", Until::Healthy), on("my_cache-2", Until::Started)];
        assert_eq!(parse(&labels("db:healthy, my_cache-2")), Ok(both));
    }

    #[test]
    fn what_is_no_list_of_names_is_refused() {
        let told = |text: &str| parse(&labels(text)).unwrap_err().to_string();
        for (text, part) in [
            ("", ""),
            ("db,", ""),
            (",db", ""),
            ("db:", "db:"),
            ("db:ready", "db:ready"),
            (":healthy", ":healthy"),
            ("db:healthy:healthy", "db:healthy:healthy"),
            ("a b", "a b"),
            ("db;cache", "db;cache"),
            (&"x".repeat(64), &"x".repeat(64)),
        ] {
            let wrong = "is not a service's name, with or without :healthy behind it";
            assert_eq!(told(text), format!("label ketch.depends_on: {part:?} {wrong}"));
        }
        assert_eq!(told("db,DB:healthy"), "label ketch.depends_on: service DB is named twice");
        let many = (0..33).map(|number| format!("s{number}")).collect::<Vec<_>>().join(",");
        assert_eq!(told(&many), "label ketch.depends_on: 33 services are named, and at most 32 can be");
    }

    #[test]
    fn a_stack_comes_first() {
        let mut labels = labels("db");
        let names = |labels: &Labels| on("db", Until::Started).names(labels).collect::<Vec<_>>();
        assert_eq!(names(&labels), ["db"]);
        labels.insert(STACK.to_owned(), "shop".to_owned());
        assert_eq!(names(&labels), ["shop_db", "db"]);
    }

    fn service(number: u128, name: &str, on: &str) -> Service {
        let mut service = fixture::replicated(number, 1);
        service.spec.name = name.to_owned();
        if !on.is_empty() {
            service.spec.labels = labels(on);
        }
        service
    }

    /// What is said of the last one when the others are there.
    fn verdict(others: &[(&str, &str)], (name, on): (&str, &str)) -> Result<(), String> {
        let others = (1..).zip(others).map(|(number, (name, on))| service(number, name, on).into());
        let store = fixture::store(others);
        let observed = Observed::default();
        fits(&View::new(&store, &observed), &service(99, name, on).spec)
            .map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn nobody_waits_for_itself() {
        let circle =
            |way: &str| Err(format!("label ketch.depends_on: the service would wait for itself: {way}"));
        assert_eq!(verdict(&[], ("web", "db")), Ok(()), "it may come later");
        assert_eq!(verdict(&[], ("web", "WEB")), circle("web, web"));
        assert_eq!(verdict(&[("db", "web:healthy")], ("web", "db")), circle("web, db, web"));
        let chain = [("a", "b"), ("b", "c"), ("c", "web"), ("x", "y"), ("y", "x")];
        assert_eq!(verdict(&chain, ("web", "x,a")), circle("web, a, b, c, web"));
        assert_eq!(verdict(&chain, ("web", "x")), Ok(()), "a circle of others is not followed for ever");
        assert_eq!(verdict(&[("a", "c"), ("b", "c")], ("web", "a,b")), Ok(()), "two ways to the same one");
    }

    #[test]
    fn whatever_a_name_may_mean_in_its_stack_counts() {
        let mut spec = service(1, "shop_db", "db").spec;
        spec.labels.insert(STACK.to_owned(), "shop".to_owned());
        let store = fixture::store([]);
        let told = fits(&View::new(&store, &Observed::default()), &spec).unwrap_err().reason;
        assert_eq!(told, "the service would wait for itself: shop_db, shop_db");
    }

    proptest! {
        #[test]
        fn what_was_let_in_one_after_the_other_has_no_circle(edges in prop::collection::vec((0..6_usize, 0..6_usize), 0..20)) {
            let mut on = vec![std::collections::BTreeSet::new(); 6];
            for (from, to) in edges {
                let mut more = on.clone();
                more[from].insert(to);
                let names = |on: &std::collections::BTreeSet<usize>| on.iter().map(|it| format!("s{it}")).collect::<Vec<_>>().join(",");
                let others: Vec<_> = (0..6).filter(|it| *it != from).map(|it| (format!("s{it}"), names(&on[it]))).collect();
                let others: Vec<_> = others.iter().map(|(name, on)| (name.as_str(), on.as_str())).collect();
                if verdict(&others, (&format!("s{from}"), &names(&more[from]))).is_ok() {
                    on = more;
                }
            }
            // Those that wait for nobody go first, and so on: all come to their turn.
            let mut left: std::collections::BTreeSet<usize> = (0..6).collect();
            while let Some(next) = left.iter().copied().find(|it| on[*it].is_disjoint(&left)) {
                left.remove(&next);
            }
            prop_assert!(left.is_empty(), "{:?}", on);
        }
    }
}
