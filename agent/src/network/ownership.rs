//! Whose a default bridge is. Several daemons may live in one network namespace; two that give addresses out on one bridge would give
//! the same ones. So a bridge bears its daemon's mark, as its alias, which the kernel keeps for as long as the bridge: the first one
//! has `docker0`, or adopts it; another one has a bridge by a name of its own, or is refused one that it was told to take.

use super::link::Links;
use super::options::BRIDGE_NAME;
use super::record::Network;
use super::refused;
use super::settings::DefaultBridge;
use crate::error::{Error, Result};

/// Before the instance, in an alias.
const MARK: &str = "ketchd ";

/// The default bridge of this instance: as the settings have it, but for one that bears another's mark.
///
/// # Errors
/// The kernel's; a bridge that was asked for by name is another's.
pub(super) fn settle(instance: &str, asked: &DefaultBridge, known: Option<&str>) -> Result<DefaultBridge> {
    let default = DefaultBridge::default().name;
    let own = format!("ketch{instance}");
    if asked.name == default && known == Some(&own) {
        // What containers of an earlier start are in.
        return Ok(DefaultBridge { name: own, ..asked.clone() });
    }
    let mut links = Links::open().map_err(|error| refused(&error))?;
    let alias = links.alias(&asked.name).map_err(|error| refused(&error))?;
    let other =
        alias.as_deref().and_then(|alias| alias.strip_prefix(MARK)).filter(|other| *other != instance);
    match other {
        None => Ok(asked.clone()),
        Some(_) if asked.name == default => Ok(DefaultBridge { name: own, ..asked.clone() }),
        Some(other) => Err(Error::conflict(format!(
            "the bridge {} is that of another ketchd ({other}), which gives its addresses out: name another with --bridge, or remove it if that one is gone",
            asked.name
        ))),
    }
}

/// Marks the default bridge as this instance's; one that somebody else has given an alias keeps that.
///
/// # Errors
/// The kernel's.
pub(super) fn mark(network: &Network, instance: &str) -> Result<()> {
    let Some(name) = network.options.get(BRIDGE_NAME).filter(|_| network.is_default_bridge()) else {
        return Ok(());
    };
    let mut links = Links::open().map_err(|error| refused(&error))?;
    match links.alias(name).map_err(|error| refused(&error))? {
        Some(alias) if alias.is_empty() => {
            links.set_alias(name, &format!("{MARK}{instance}")).map_err(|error| refused(&error))
        }
        _ => Ok(()),
    }
}
