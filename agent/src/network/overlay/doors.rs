//! Closes and opens the ports of tasks, and narrows published ones, as [`super::access`] says: before a task runs, and with each change
//! of what the node is told.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use ketch_cluster::assignment::Item;
use ketch_cluster::id::{NetworkId, TaskId};
use ketch_cluster::objects::Labels;

use super::Held;
use super::access::{Access, Resident, access, is_asked};
use crate::error::{Error, Result};
use crate::locks::locked;
use crate::network::firewall::{Admission, Narrowed, admit, opened};
use crate::network::record::{Driver, OfService, Sandbox};
use crate::network::{Networks, State, namespace, refused};

/// What could not be done.
#[derive(Debug)]
pub(super) struct Doors {
    /// Containers whose ports could not be closed or opened, and why.
    pub(super) failed: Vec<(String, Error)>,
    /// Whether published ports are narrowed.
    pub(super) narrowed: Result<()>,
}

impl Networks {
    /// A task is about to run, or has gone. Of services that say nothing of who reaches them nothing is looked at.
    ///
    /// # Errors
    /// The kernel's or the disk's: it may not run.
    pub(in crate::network) fn renew_doors(&self, of: &Sandbox) -> Result<()> {
        let Some(service) = &of.service else { return Ok(()) };
        let is_of_asked =
            || service.task.parse::<TaskId>().is_ok_and(|task| locked(&self.0.closing).contains(&task));
        if !is_asked(&service.labels) && !is_of_asked() {
            return Ok(());
        }
        let mut held = locked(&self.0.overlays);
        // Not copied: a cluster may have many.
        let told = held.told.take();
        let items = told.as_ref().map(|(_, items)| items.as_slice()).unwrap_or_default();
        let set = self.set_doors(&mut held, items);
        held.told = told;
        let Doors { failed, narrowed } = set?;
        narrowed?;
        failed
            .into_iter()
            .find(|(container, _)| *container == of.container)
            .map_or(Ok(()), |(_, error)| Err(error))
    }

    /// How many TCP connections were opened to a container since it was first asked for; none of one without a network namespace of
    /// its own.
    ///
    /// # Errors
    /// The kernel's.
    pub fn opened_to(&self, container: &str) -> Result<Option<u64>> {
        let namespace = self.state().sandboxes.get(container).and_then(|it| it.namespace.clone());
        let Some(namespace) = namespace else { return Ok(None) };
        namespace::enter(&namespace, || opened().map(Some).map_err(|error| refused(&error)))
    }

    /// A TCP socket that is one of a container's network, for somebody who reaches it there at that address; none of one without a
    /// network of its own.
    ///
    /// # Errors
    /// The kernel's.
    pub fn socket_in(&self, container: &str, to: IpAddr) -> Result<Option<OwnedFd>> {
        let namespace = self.state().sandboxes.get(container).and_then(|it| it.namespace.clone());
        namespace.map(|namespace| namespace::socket(&namespace, to)).transpose()
    }

    /// What containers publish themselves is narrowed as it was, before anything leads to them again: whoever has taken rules away
    /// while there was no agent has taken these too, and a locked manager is told of no service for long.
    ///
    /// # Errors
    /// The kernel's.
    pub(in crate::network) fn narrow_residents(&self) -> Result<()> {
        let own = access(&[], &self.state().residents()).narrowed;
        if own.0.is_empty() {
            return Ok(());
        }
        let mut held = locked(&self.0.overlays);
        held.narrowing = (Narrowed::default(), own);
        self.narrow(&mut held)
    }

    /// Of all tasks of this node.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn set_doors(&self, held: &mut Held, items: &[Item]) -> Result<Doors> {
        let residents = self.state().residents();
        let Access { admissions, mesh, narrowed, labels, asked } = access(items, &residents);
        *locked(&self.0.closing) = asked;
        let before = std::mem::replace(&mut held.narrowing, (mesh, narrowed)).0;
        // A port that is published no more is led to tasks still: it opens to nobody before it has gone.
        let narrowed = self.narrow_with(held, &before);
        for (resident, labels) in residents.iter().zip(labels) {
            self.remember_labels(resident, labels)?;
        }
        held.admitted.retain(|sandbox, _| residents.iter().any(|resident| resident.sandbox == *sandbox));
        let mut failed = Vec::new();
        for (resident, wanted) in residents.iter().zip(admissions) {
            if let Err(error) = self.set_door(held, resident, wanted) {
                failed.push((resident.container.clone(), error));
            }
        }
        Ok(Doors { failed, narrowed })
    }

    /// Narrows the ports that are led to tasks. One of the mesh's that somebody else has on this node stays his.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn narrow(&self, held: &mut Held) -> Result<()> {
        self.narrow_with(held, &Narrowed::default())
    }

    /// The same, with more of the mesh's.
    fn narrow_with(&self, held: &mut Held, more: &Narrowed) -> Result<()> {
        let (mesh, own) = &held.narrowing;
        let led = more.0.iter().chain(&mesh.0).filter(|(port, _)| !held.published.is_refused(port));
        let narrowed = Narrowed(led.chain(&own.0).map(|(port, how)| (*port, how.clone())).collect());
        if held.narrowed.as_ref() == Some(&narrowed) {
            return Ok(());
        }
        held.narrowed = None;
        let wanted = (!narrowed.0.is_empty()).then(|| narrowed.clone());
        self.0.narrows.set(wanted).map_err(|error| refused(&error))?;
        held.narrowed = Some(narrowed);
        Ok(())
    }

    fn set_door(&self, held: &mut Held, resident: &Resident, wanted: Option<Admission>) -> Result<()> {
        if held.admitted.get(&resident.sandbox) == Some(&wanted) {
            return Ok(());
        }
        let _unknown = held.admitted.remove(&resident.sandbox);
        let is_touched = resident.is_closed || wanted.is_some();
        if is_touched {
            // Written down first: a daemon that is killed now knows that there may be rules.
            self.remember_door(resident, true)?;
            let written = namespace::enter(&resident.namespace, || {
                admit(wanted.as_ref()).map_err(|error| refused(&error))
            });
            if let Err(error) = written {
                // It may have gone meanwhile, and its namespace with it.
                let is_there = self.state().sandboxes.values().any(|it| it.id == resident.sandbox);
                return if is_there { Err(error) } else { Ok(()) };
            }
            self.remember_door(resident, wanted.is_some())?;
        }
        let _none = held.admitted.insert(resident.sandbox.clone(), wanted);
        Ok(())
    }

    /// What is in force when nobody tells of the service any more: it was removed, or this agent was started without a manager.
    fn remember_labels(&self, resident: &Resident, labels: Labels) -> Result<()> {
        if resident.of.labels == labels {
            return Ok(());
        }
        let service = Some(OfService { labels, ..resident.of.clone() });
        self.rewrite(resident, |sandbox| {
            sandbox.service = service;
            true
        })
    }

    fn remember_door(&self, resident: &Resident, is_closed: bool) -> Result<()> {
        self.rewrite(resident, |sandbox| std::mem::replace(&mut sandbox.is_closed, is_closed) != is_closed)
    }

    /// Changes the record of a resident's sandbox, if it is there still and `change` says that it has changed that.
    fn rewrite(&self, resident: &Resident, change: impl FnOnce(&mut Sandbox) -> bool) -> Result<()> {
        let mut state = self.state();
        let known = state.sandboxes.get(&resident.container).filter(|it| it.id == resident.sandbox);
        let Some(mut sandbox) = known.cloned() else { return Ok(()) };
        match change(&mut sandbox) {
            true => self.remember(&mut state, sandbox),
            false => Ok(()),
        }
    }
}

impl State {
    /// The tasks of this node.
    fn residents(&self) -> Vec<Resident> {
        let mut residents: Vec<_> = self.sandboxes.values().filter_map(|it| self.resident(it)).collect();
        residents.sort_by(|one, other| one.sandbox.cmp(&other.sandbox));
        residents
    }

    fn resident(&self, sandbox: &Sandbox) -> Option<Resident> {
        let endpoints = sandbox.endpoints.iter();
        let with_networks: Vec<_> = endpoints
            .filter_map(|endpoint| Some((endpoint, self.networks.get(&endpoint.network)?)))
            .filter(|(endpoint, _)| !endpoint.interface.is_empty())
            .collect();
        let overlays = with_networks.iter().filter(|(_, network)| network.is_overlay());
        let bridges = with_networks.iter().filter(|(_, network)| network.driver == Driver::Bridge);
        let published = sandbox.published.iter().map(|one| one.forward);
        let published = published.filter(|forward| forward.host.port() != 0);
        let id = |text: &str| text.parse::<NetworkId>().ok();
        Some(Resident {
            container: sandbox.container.clone(),
            sandbox: sandbox.id.clone(),
            namespace: sandbox.namespace.clone()?,
            of: sandbox.service.clone()?,
            overlays: overlays
                .filter_map(|(endpoint, network)| Some((endpoint.interface.clone(), id(&network.id)?)))
                .collect(),
            bridges: bridges.map(|(endpoint, _)| endpoint.interface.clone()).collect(),
            published: published
                .map(|forward| (forward.transport, forward.host.port(), forward.container.port()))
                .collect(),
            is_closed: sandbox.is_closed,
        })
    }
}
