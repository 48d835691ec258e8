//! What every part of a worker works with.

use std::sync::Arc;

use super::contact::Contact;
use super::events::Events;
use super::networks::Networks;
use super::session::Present;
use super::store::TaskStore;
use super::word::Words;
use crate::executor::Executor;
use crate::wire::Links;
use crate::world::World;

#[derive(Debug)]
pub(super) struct Hands {
    pub(super) world: Arc<dyn World>,
    pub(super) links: Arc<Links>,
    pub(super) executor: Arc<dyn Executor>,
    pub(super) store: TaskStore,
    pub(super) words: Words,
    pub(super) networks: Networks,
    pub(super) contact: Contact,
    pub(super) events: Events,
    pub(super) present: Present,
}
