//! What secrets and configs have in common: names, templates, that they stay while a service uses them, how they are listed.

use crate::objects::{Driver, Labels, ServiceSpec};
use crate::store::ObjectKind;
use crate::template::payload_template;
use crate::view::View;

use super::error::ControlError;
use super::filter::Filters;
use super::rollback::specs_in_use;
use super::{texts, validate};

/// Whether a new one may be called so, and is a template that can be expanded if it says that it is one.
pub(super) fn is_good(name: &str, data: &[u8], templating: Option<&Driver>) -> Result<(), ControlError> {
    validate::payload_name(name)?;
    payload_template(data, templating).map_err(|reason| texts::template_invalid(&reason))?;
    Ok(())
}

/// Whether `new` asks for no other than the old value: what a client leaves out, it does not change.
pub(super) fn is_kept<T: PartialEq>(old: &T, new: &T, left_out: &T) -> bool {
    new == left_out || new == old
}

/// Refuses when a service uses it, and names every one.
pub(super) fn is_unused(
    view: &View<'_>,
    (kind, name): (ObjectKind, &str),
    uses: impl Fn(&ServiceSpec) -> bool,
) -> Result<(), ControlError> {
    let users = view.services().filter(|service| specs_in_use(view, service).any(&uses));
    let mut users = users.map(|service| service.spec.name.as_str()).collect::<Vec<_>>();
    users.sort_unstable();
    match users[..] {
        [] => Ok(()),
        [service] => Err(texts::payload_in_use_by_one(kind, name, service)),
        ref services => Err(texts::payload_in_use(kind, name, &services.join(", "))),
    }
}

/// Unlike other lists: a whole name, the start of a name and the start of an id are alternatives.
pub(super) fn is_listed(filters: &Filters, (name, id): (&str, &str), labels: &Labels) -> bool {
    let by = |key: &str, matches: bool| filters.has(key) && matches;
    let keyed = by("names", filters.equals("names", name))
        || by("name", filters.starts("name", name))
        || by("id", filters.starts("id", id));
    let any_key = ["names", "name", "id"].iter().any(|key| filters.has(key));
    (keyed || !any_key) && filters.labels("label", labels)
}
