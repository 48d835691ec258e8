//! `/cluster`: what ketchd says of its cluster beyond Docker's API. `command/` is who asks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::{Method, StatusCode};
use ketch_cluster::control::{
    ControlError, RegistryAuth, Rollback, ServiceUpdate, SpecUpdate, create_config, create_network,
    create_secret, create_service, remove_service, update_config, update_secret, update_service,
};
use ketch_cluster::explain;
use ketch_cluster::objects::Service;
use ketch_cluster::simulate::{Copied, Ended, Simulation};
use ketch_cluster::store::{ObjectId, ObjectKind};
use ketch_cluster::view::View;
use ketch_convert::{config, network, secret, service};
use ketch_engine_api::network::NetworkCreateRequest;
use ketch_engine_api::swarm::payload::{ConfigSpec, SecretSpec};
use ketch_engine_api::swarm::service::ServiceSpec;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::api::request::Request;
use crate::api::response::{self, Response};
use crate::api::router::Router;
use crate::blocking::blocking;
use crate::daemon::Daemon;
use crate::error::{Error, Kind, Result};
use crate::node::api::{Led, led};
use crate::stack::{IMAGE, NAMESPACE, Simulated, Stack};

/// Simulations on this manager.
static ONE_AT_A_TIME: Semaphore = Semaphore::const_new(1);
const BUSY: &str = "another simulation is under way on this manager: ask again when it has ended";
/// So long is one worked on: another manager that has sent it on gives up after 20 s.
const LONGEST: Duration = Duration::from_secs(15);

pub(super) fn add(router: &mut Router) {
    router.on(Method::GET, "/cluster/explain/{}", |daemon, request| led(daemon, request, explained));
    router.on(Method::POST, "/cluster/simulate", |daemon, request| led(daemon, request, simulated));
}

/// What each node says is a sum over all tasks.
async fn explained(_: Arc<Daemon>, Led { leader, .. }: Led, request: Request) -> Result<Response> {
    leader.read().await?;
    let text = request.operand(0).to_owned();
    let explained = blocking(move || {
        let now = leader.now();
        Ok(leader.view(|view| explain::explain(view, &text, now))?)
    });
    response::json(StatusCode::OK, &explained.await?)
}

/// The copy is made while the store is held, and worked on beside it: one at a time, as it has the size of the cluster.
async fn simulated(_: Arc<Daemon>, Led { leader, .. }: Led, request: Request) -> Result<Response> {
    let stack: Stack = request.json().await?;
    let turn = ONE_AT_A_TIME.try_acquire().map_err(|_| Error::new(Kind::Unavailable, BUSY))?;
    leader.read().await?;
    let simulated = blocking(move || {
        // A client who has gone away does not make room for another while this one is at work.
        let _turn = turn;
        let until = Instant::now() + LONGEST;
        let now = leader.now();
        let copied = leader.view(Copied::of);
        deploy(Simulation::of(copied, now), stack, until)
    });
    response::json(StatusCode::OK, &simulated.await?)
}

/// As `docker stack deploy` would: what it would end at is told, and gone on from.
fn deploy(mut simulation: Simulation, stack: Stack, until: Instant) -> Result<Simulated> {
    let mut refused = Vec::new();
    let mut wanted = BTreeSet::new();
    let Stack { name, prune, networks, secrets, configs, services } = stack;
    for body in networks {
        note(&mut refused, "network", &body, make_network(&mut simulation, read(&body)?));
    }
    for body in secrets {
        note(&mut refused, "secret", &body, make_secret(&mut simulation, read(&body)?));
    }
    for body in configs {
        note(&mut refused, "config", &body, make_config(&mut simulation, read(&body)?));
    }
    for body in services {
        let spec: ServiceSpec = read(&body)?;
        let _new = wanted.insert(spec.name.clone());
        note(&mut refused, "service", &body, make_service(&mut simulation, spec));
    }
    let mut left = BTreeSet::new();
    for service in strangers(&simulation.view(), &name, &wanted) {
        if prune {
            let removed =
                simulation.request(|view, _, _| remove_service(view, service.id).map(|it| ((), it)));
            refused
                .extend(removed.err().map(|it| (format!("service {}", service.spec.name), it.to_string())));
        } else {
            let _new = left.insert(service.spec.name.clone());
        }
    }
    let unfinished = simulation.settle(|| Instant::now() < until) == Ended::Unfinished;
    Ok(Simulated { outcome: simulation.outcome(), refused, left, unfinished })
}

fn read<T: DeserializeOwned>(body: &Value) -> Result<T> {
    serde_json::from_value(body.clone()).map_err(|error| Error::invalid(error.to_string()))
}

fn note(refused: &mut Vec<(String, String)>, kind: &str, body: &Value, made: Result<(), ControlError>) {
    let name = body.get("Name").and_then(Value::as_str).unwrap_or_default();
    refused.extend(made.err().map(|error| (format!("{kind} {name}"), error.to_string())));
}

/// Services that the stack has, and the file has not.
fn strangers(view: &View<'_>, stack: &str, wanted: &BTreeSet<String>) -> Vec<Arc<Service>> {
    let is_of_it = |it: &&Arc<Service>| it.spec.labels.get(NAMESPACE).is_some_and(|of| of == stack);
    view.services().filter(is_of_it).filter(|it| !wanted.contains(&it.spec.name)).cloned().collect()
}

/// One that is there stays as it is, as with Docker's client.
fn make_network(simulation: &mut Simulation, request: NetworkCreateRequest) -> Result<(), ControlError> {
    if simulation.view().by_name(ObjectKind::Network, &request.name).is_some() {
        return Ok(());
    }
    let spec = network::spec_of(request)?;
    simulation.request(|view, now, bits| create_network(view, spec, now, bits)).map(|_| ())
}

fn make_secret(simulation: &mut Simulation, spec: SecretSpec) -> Result<(), ControlError> {
    let spec = secret::spec_of(spec)?;
    simulation.request(|view, now, bits| match view.by_name(ObjectKind::Secret, &spec.name) {
        Some(ObjectId::Secret(id)) => {
            let version = view.secret(id).map(|it| it.meta.version).unwrap_or_default();
            update_secret(view, id, SpecUpdate { version, spec }, now, bits).map(|it| ((), it))
        }
        _ => create_secret(view, spec, now, bits).map(|(_, it)| ((), it)),
    })
}

fn make_config(simulation: &mut Simulation, spec: ConfigSpec) -> Result<(), ControlError> {
    let spec = config::spec_of(spec)?;
    simulation.request(|view, now, bits| match view.by_name(ObjectKind::Config, &spec.name) {
        Some(ObjectId::Config(id)) => {
            let version = view.config(id).map(|it| it.meta.version).unwrap_or_default();
            update_config(view, id, SpecUpdate { version, spec }, now, bits).map(|it| ((), it))
        }
        _ => create_config(view, spec, now, bits).map(|(_, it)| ((), it)),
    })
}

fn make_service(simulation: &mut Simulation, mut wanted: ServiceSpec) -> Result<(), ControlError> {
    name_payloads(&simulation.view(), &mut wanted);
    simulation.request(|view, now, bits| {
        let known = match view.by_name(ObjectKind::Service, &wanted.name) {
            Some(ObjectId::Service(id)) => view.service(id).cloned(),
            _ => None,
        };
        let Some(known) = known else {
            let spec = service::spec_of(view, wanted, None)?;
            return create_service(view, spec, now, bits).map(|(_, it)| ((), it));
        };
        keep_what_stays(&known, &mut wanted);
        let spec = service::spec_of(view, wanted, None)?;
        let registry_auth = RegistryAuth::Spec;
        let update =
            ServiceUpdate { version: known.meta.version, spec, rollback: Rollback::None, registry_auth };
        update_service(view, known.id, update, now).map(|it| ((), it))
    })
}

/// Docker's client asks for the ids first.
fn name_payloads(view: &View<'_>, wanted: &mut ServiceSpec) {
    let Some(container) = &mut wanted.task_template.container_spec else { return };
    for reference in container.secrets.iter_mut().flatten() {
        if let Some(ObjectId::Secret(id)) = view.by_name(ObjectKind::Secret, &reference.secret_name) {
            reference.secret_id = id.to_string();
        }
    }
    for reference in container.configs.iter_mut().flatten() {
        if let Some(ObjectId::Config(id)) = view.by_name(ObjectKind::Config, &reference.config_name) {
            reference.config_id = id.to_string();
        }
    }
}

/// As Docker's client: the digest that an image had when it was deployed stays while the file names the same image, and what was
/// forced stays so.
fn keep_what_stays(known: &Service, wanted: &mut ServiceSpec) {
    wanted.task_template.force_update = known.spec.task.force_update;
    let image = |labels: Option<&String>| labels.cloned();
    let is_same =
        image(known.spec.labels.get(IMAGE)) == image(wanted.labels.as_ref().and_then(|it| it.get(IMAGE)));
    let (Some(old), Some(new)) = (known.spec.task.container(), &mut wanted.task_template.container_spec)
    else {
        return;
    };
    if is_same {
        new.image.clone_from(&old.image);
    }
    // It also writes which platforms the image is for; the file can't say.
    if let Some(placement) = &mut wanted.task_template.placement {
        let platforms = known.spec.task.placement.platforms.iter();
        let shown = platforms.map(|it| ketch_engine_api::swarm::node::Platform {
            architecture: it.architecture.clone(),
            os: it.os.clone(),
        });
        placement.platforms = (!known.spec.task.placement.platforms.is_empty()).then(|| shown.collect());
    }
}
