//! What holds for every request, and what the tests of each kind of request start from.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::strategy::ValueTree;

use super::*;
use crate::fixture::{self, at};
use crate::id::{ConfigId, SecretId, ServiceId};
use crate::objects::container::{
    ConfigReference, ConfigTarget, FileTarget, HealthCheck, Mount, SecretReference,
};
use crate::objects::endpoint::{Protocol, PublishMode, ResolutionMode};
use crate::objects::network::{IpamConfig, Subnet};
use crate::objects::resources::{Limits, ResourceRequirements};
use crate::objects::task::{NetworkAttachmentConfig, Placement, TaskRuntime};
use crate::objects::{
    Config, ConfigSpec, ContainerSpec, Driver, EndpointSpec, GenericResource, Labels, Meta, Network,
    NetworkSpec, PortConfig, Resources, Secret, SecretSpec, ServiceMode, ServiceSpec, TaskSpec, UpdateConfig,
};
use crate::store::{Object, Store, StoreAction};
use crate::view::{Observed, View};

pub(super) fn with_view<T>(store: &Store, ask: impl FnOnce(&View<'_>) -> T) -> T {
    ask(&View::new(store, &Observed::default()))
}

/// A service that is good in any cluster.
pub(super) fn spec(name: &str) -> ServiceSpec {
    ServiceSpec {
        name: name.to_owned(),
        labels: Labels::new(),
        task: Arc::new(TaskSpec {
            runtime: TaskRuntime::Container(Box::new(ContainerSpec {
                image: "busybox:latest".to_owned(),
                ..ContainerSpec::default()
            })),
            ..TaskSpec::default()
        }),
        mode: ServiceMode::Replicated { replicas: 1 },
        update: None,
        rollback: None,
        endpoint: None,
    }
}

/// The same service with its task changed.
pub(super) fn with_task(mut spec: ServiceSpec, change: impl FnOnce(&mut TaskSpec)) -> ServiceSpec {
    change(Arc::make_mut(&mut spec.task));
    spec
}

/// The same service with its container changed.
pub(super) fn with_container(spec: ServiceSpec, change: impl FnOnce(&mut ContainerSpec)) -> ServiceSpec {
    with_task(spec, |task| {
        let TaskRuntime::Container(container) = &mut task.runtime else { panic!("a container") };
        change(container);
    })
}

pub(super) fn secret(number: u128, name: &str) -> Secret {
    let spec = SecretSpec { name: name.to_owned(), data: b"x".to_vec(), ..SecretSpec::default() };
    Secret { id: SecretId::of(number), meta: Meta::default(), spec, internal: false, superseded: false }
}

pub(super) fn config(number: u128, name: &str) -> Config {
    let spec = ConfigSpec { name: name.to_owned(), data: b"x".to_vec(), ..ConfigSpec::default() };
    Config { id: ConfigId::of(number), meta: Meta::default(), spec, superseded: false }
}

pub(super) fn secret_reference(number: u128, name: &str, file: &str) -> SecretReference {
    SecretReference { secret: SecretId::of(number), name: name.to_owned(), file: file_target(file) }
}

pub(super) fn config_reference(number: u128, name: &str, file: &str) -> ConfigReference {
    let target = ConfigTarget::File(file_target(file));
    ConfigReference { config: ConfigId::of(number), name: name.to_owned(), target }
}

fn file_target(name: &str) -> FileTarget {
    FileTarget { name: name.to_owned(), ..FileTarget::default() }
}

pub(super) fn port(published: u16, mode: PublishMode) -> PortConfig {
    PortConfig {
        name: String::new(),
        protocol: Protocol::Tcp,
        target_port: 80,
        published_port: published,
        publish_mode: mode,
    }
}

pub(super) fn endpoint(ports: &[PortConfig]) -> Option<EndpointSpec> {
    Some(EndpointSpec { mode: ResolutionMode::Vip, ports: ports.to_vec() })
}

pub(super) fn attachment(network: &Network) -> NetworkAttachmentConfig {
    NetworkAttachmentConfig {
        target: network.id,
        aliases: Vec::new(),
        addresses: Vec::new(),
        driver_options: Labels::new(),
    }
}

pub(super) fn ingress(number: u128) -> Network {
    let network = fixture::network(number);
    Network { spec: NetworkSpec { name: "ingress".to_owned(), ingress: true, ..network.spec }, ..network }
}

/// A cluster with one of each: an ingress, an overlay `network-2`, secret `key`, config `conf`.
pub(super) fn cluster() -> Vec<Object> {
    vec![
        fixture::cluster().into(),
        ingress(1).into(),
        fixture::network(2).into(),
        secret(3, "key").into(),
        config(4, "conf").into(),
    ]
}

/// The store once the service was created.
pub(super) fn created(store: &mut Store, spec: ServiceSpec) -> ServiceId {
    let next = store.version().0;
    let (id, actions) = with_view(store, |view| {
        create_service(view, spec, at(1), &mut fixture::counter(u128::from(next) * 100))
    })
    .unwrap();
    commit(store, &actions);
    id
}

pub(super) fn commit(store: &mut Store, actions: &[StoreAction]) {
    store.apply(Version(store.version().0 + 1), actions).unwrap();
}

/// Texts of which some are good and some are not.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("a".to_owned()),
        2 => "[a-z{}.\"|/:@-]{0,8}",
        1 => Just("{{.Service.Name}}".to_owned()),
        1 => Just("key".to_owned()),
        1 => any::<String>(),
    ]
}

fn any_port() -> impl Strategy<Value = PortConfig> {
    (
        prop_oneof![1 => Just(0_u16), 9 => Just(80)],
        prop_oneof![Just(0), Just(80), Just(81)],
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(target_port, published_port, udp, host)| PortConfig {
            name: String::new(),
            protocol: if udp { Protocol::Udp } else { Protocol::Tcp },
            target_port,
            published_port,
            publish_mode: if host { PublishMode::Host } else { PublishMode::Ingress },
        })
}

fn any_container() -> impl Strategy<Value = ContainerSpec> {
    let references = prop::collection::vec((2..5_u128, text(), text()), 0..2);
    let texts = || prop::collection::vec(text(), 0..2);
    let image = prop_oneof![9 => Just("busybox".to_owned()), 1 => text()];
    (image, texts(), text(), prop::collection::vec((text(), text()), 0..2), references, any::<u8>()).prop_map(
        |(image, env, hostname, mounts, references, interval)| ContainerSpec {
            image,
            env,
            hostname,
            mounts: mounts
                .into_iter()
                .map(|(source, target)| Mount { source, target, ..Mount::default() })
                .collect(),
            secrets: references
                .iter()
                .map(|(number, name, file)| secret_reference(*number, name, file))
                .collect(),
            configs: references
                .iter()
                .map(|(number, name, file)| config_reference(*number, name, file))
                .collect(),
            health_check: Some(HealthCheck {
                interval: std::time::Duration::from_micros(u64::from(interval) * 100),
                ..HealthCheck::default()
            }),
            ..ContainerSpec::default()
        },
    )
}

fn any_task() -> impl Strategy<Value = TaskSpec> {
    let amounts = (
        prop_oneof![Just(0_u64), 900_000..1_100_000_u64],
        prop_oneof![Just(0_u64), Just(8 << 20), any::<u64>()],
    );
    let constraint = prop_oneof![Just("node.role == manager".to_owned()), text()];
    (
        any_container(),
        amounts,
        prop::collection::vec(constraint, 0..2),
        prop::collection::vec(1..4_u128, 0..2),
        any::<bool>(),
    )
        .prop_map(|(container, (nano_cpus, memory_bytes), constraints, networks, named)| TaskSpec {
            runtime: TaskRuntime::Container(Box::new(container)),
            resources: ResourceRequirements {
                limits: Limits { nano_cpus, ..Limits::default() },
                reservations: Resources {
                    memory_bytes,
                    generic: if named {
                        vec![GenericResource::Named { kind: "GPU".to_owned(), values: Default::default() }]
                    } else {
                        Vec::new()
                    },
                    ..Resources::default()
                },
                ..ResourceRequirements::default()
            },
            placement: Placement { constraints, ..Placement::default() },
            networks: networks.into_iter().map(|number| attachment(&fixture::network(number))).collect(),
            ..TaskSpec::default()
        })
}

/// Specs of which a good part is accepted.
fn any_spec() -> impl Strategy<Value = ServiceSpec> {
    let mode = prop_oneof![
        8 => (0..9_u64).prop_map(|replicas| ServiceMode::Replicated { replicas }),
        1 => any::<u64>().prop_map(|replicas| ServiceMode::Replicated { replicas }),
        2 => Just(ServiceMode::Global),
        1 => Just(ServiceMode::GlobalJob),
        1 => any::<(u64, u64)>().prop_map(|(max_concurrent, total_completions)| ServiceMode::ReplicatedJob {
            max_concurrent,
            total_completions
        }),
    ];
    let name = prop_oneof![4 => "[a-c]{1,2}", 1 => text()];
    let task = prop_oneof![1 => Just(TaskSpec::clone(&spec("a").task)), 1 => any_task()];
    let ratio = prop::option::of(prop_oneof![6 => Just(0.5_f32), 1 => any::<f32>()]);
    let ports = prop::collection::vec(any_port(), 0..3);
    (name, task, mode, ratio, ports, any::<bool>()).prop_map(|(name, task, mode, ratio, ports, dnsrr)| {
        ServiceSpec {
            name,
            labels: Labels::new(),
            task: Arc::new(task),
            mode,
            update: ratio
                .map(|max_failure_ratio| UpdateConfig { max_failure_ratio, ..UpdateConfig::default() }),
            rollback: None,
            endpoint: (!ports.is_empty()).then_some(EndpointSpec {
                mode: if dnsrr { ResolutionMode::DnsRr } else { ResolutionMode::Vip },
                ports,
            }),
        }
    })
}

proptest! {
    #[test]
    fn what_is_accepted_enters_the_store(specs in prop::collection::vec((any_spec(), any::<bool>()), 1..12)) {
        let mut store = fixture::store(cluster());
        let mut bits = fixture::counter(1000);
        let mut last: Option<ServiceId> = None;
        for (mut spec, is_update) in specs {
            let wanted = match last.filter(|_| is_update) {
                None => with_view(&store, |view| create_service(view, spec, at(1), &mut bits)).map(|(id, actions)| {
                    last = Some(id);
                    actions
                }),
                Some(id) => {
                    let old = store.service(id).unwrap().clone();
                    spec.name.clone_from(&old.spec.name);
                    spec.mode = old.spec.mode;
                    let update = ServiceUpdate {
                        version: old.meta.version,
                        spec,
                        rollback: Rollback::None,
                        registry_auth: RegistryAuth::Spec,
                    };
                    let stale = ServiceUpdate { version: Version(old.meta.version.0 + 1), ..update.clone() };
                    prop_assert!(with_view(&store, |view| update_service(view, id, stale, at(2))).is_err());
                    with_view(&store, |view| update_service(view, id, update, at(2)))
                }
            };
            if let Ok(actions) = wanted {
                let version = Version(store.version().0 + 1);
                prop_assert!(store.apply(version, &actions).is_ok());
            }
        }
    }

    #[test]
    fn what_a_service_refers_to_is_never_removed(uses in prop::collection::vec(any::<(bool, bool, bool)>(), 1..4)) {
        let mut store = fixture::store(cluster());
        for (index, (secret, config, network)) in uses.iter().enumerate() {
            let spec = with_task(spec(&format!("s{index}")), |task| {
                task.networks.extend(network.then(|| attachment(&fixture::network(2))));
            });
            created(&mut store, with_container(spec, |container| {
                container.secrets.extend(secret.then(|| secret_reference(3, "key", "k")));
                container.configs.extend(config.then(|| config_reference(4, "conf", "c")));
            }));
        }
        with_view(&store, |view| {
            let used = |pick: fn(&(bool, bool, bool)) -> bool| uses.iter().any(pick);
            prop_assert_eq!(remove_secret(view, SecretId::of(3), at(7)).is_err(), used(|uses| uses.0));
            prop_assert_eq!(remove_config(view, ConfigId::of(4), at(7)).is_err(), used(|uses| uses.1));
            let network = fixture::network(2).id;
            prop_assert_eq!(remove_network(view, network, at(3)).is_err(), used(|uses| uses.2));
            Ok(())
        })?;
    }

    #[test]
    fn no_payload_or_network_panics_and_what_is_accepted_enters(
        (name, data, templating) in (text(), prop::collection::vec(any::<u8>(), 0..8), prop::option::of(text())),
        (subnet, range, gateway) in (any::<(u32, u8)>(), any::<(u32, u8)>(), any::<u32>()),
    ) {
        let mut store = fixture::store(cluster());
        let mut bits = fixture::counter(1000);
        let driver = |name: Option<String>| name.map(|name| Driver { name, options: Labels::new() });
        let subnet_of = |(address, prefix): (u32, u8)| Subnet { address: std::net::Ipv4Addr::from(address).into(), prefix: prefix % 33 };
        let secret = SecretSpec { name: name.clone(), data: data.clone(), templating: driver(templating.clone()), ..SecretSpec::default() };
        let config = ConfigSpec { name: name.clone(), data, templating: driver(templating.clone()), ..ConfigSpec::default() };
        let network = NetworkSpec {
            name,
            driver: driver(templating).unwrap_or_default(),
            ipam: vec![IpamConfig {
                subnet: Some(subnet_of(subnet)),
                range: Some(subnet_of(range)),
                gateway: Some(std::net::Ipv4Addr::from(gateway).into()),
                reserved: BTreeMap::new(),
            }],
            ..NetworkSpec::default()
        };
        let wanted = with_view(&store, |view| [
            create_secret(view, secret, at(1), &mut bits).map(|(_, actions)| actions),
            create_config(view, config, at(1), &mut bits).map(|(_, actions)| actions),
            create_network(view, network, at(1), &mut bits).map(|(_, actions)| actions),
        ]);
        for actions in wanted.into_iter().flatten() {
            let version = Version(store.version().0 + 1);
            prop_assert!(store.apply(version, &actions).is_ok());
        }
    }

    #[test]
    fn no_filter_and_no_lookup_panics(pairs in prop::collection::vec((
        prop_oneof![Just("name"), Just("id"), Just("label"), Just("service"), Just("node"), Just("role"), Just("mode"), Just("x")].prop_map(str::to_owned),
        text(),
    ), 0..4)) {
        let store = fixture::store(cluster());
        let filters = pairs.iter().cloned().collect::<Filters>();
        with_view(&store, |view| {
            let _ = (list_services(view, &filters), list_nodes(view, &filters), list_tasks(view, &filters));
            let _ = (list_secrets(view, &filters), list_configs(view, &filters));
            for (_, text) in &pairs {
                let _ = (find_service(view, text), find_node(view, text), find_task(view, text));
                let _ = (find_secret(view, text), find_config(view, text), find_network(view, text));
            }
        });
    }
}

#[test]
fn many_specs_of_these_tests_are_good_and_many_are_not() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let store = fixture::store(cluster());
    let good = (0..200).filter(|_| {
        let spec = any_spec().new_tree(&mut runner).unwrap().current();
        with_view(&store, |view| create_service(view, spec, at(1), &mut fixture::counter(9))).is_ok()
    });
    let good = good.count();
    assert!((40..160).contains(&good), "{good} of 200");
}

/// What an automatic rollback would need, while one may still come: all of it is there, or is missing to nobody.
#[test]
fn what_an_automatic_rollback_needs_is_kept_for_it() {
    use crate::objects::service::{FailureAction, UpdateState, UpdateStatus};
    let before = with_container(
        with_task(spec("web"), |task| task.networks.push(attachment(&fixture::network(2)))),
        |container| {
            container.secrets.push(secret_reference(3, "key", "k"));
            container.configs.push(config_reference(4, "conf", "c"));
        },
    );
    let before = ServiceSpec { endpoint: endpoint(&[port(81, PublishMode::Ingress)]), ..before };
    let store_with = |action: FailureAction, state: Option<UpdateState>, task_of: Version| {
        let mut service = fixture::replicated(9, 1);
        let update = UpdateConfig { failure_action: action, ..UpdateConfig::default() };
        service.spec = ServiceSpec { update: Some(update), ..spec("web") };
        service.previous_spec = Some(before.clone());
        service.update_status = state.map(|state| UpdateStatus {
            state,
            started_at: at(1),
            completed_at: None,
            message: String::new(),
            slots: 1,
            failed_before: 0,
        });
        let task = crate::objects::Task { spec_version: task_of, ..fixture::task(1, &service, 1) };
        fixture::store(cluster().into_iter().chain([service.into(), task.into()]))
    };
    let refused = |store: &Store| {
        with_view(store, |view| {
            let other =
                ServiceSpec { endpoint: endpoint(&[port(81, PublishMode::Ingress)]), ..spec("other") };
            [
                remove_secret(view, SecretId::of(3), at(7)).is_err(),
                remove_config(view, ConfigId::of(4), at(7)).is_err(),
                remove_network(view, fixture::network(2).id, at(3)).is_err(),
                remove_network(view, ingress(1).id, at(3)).is_err(),
                create_service(view, other, at(3), &mut fixture::counter(500)).is_err(),
            ]
        })
    };
    let (rollback, now, before_it) = (FailureAction::Rollback, Version(1), Version(0));
    assert_eq!(refused(&store_with(rollback, Some(UpdateState::Updating), now)), [true; 5]);
    assert_eq!(refused(&store_with(rollback, None, before_it)), [true; 5], "it is about to begin");
    assert_eq!(refused(&store_with(rollback, None, now)), [false; 5], "there was nothing to replace");
    assert_eq!(refused(&store_with(rollback, Some(UpdateState::Completed), now)), [false; 5]);
    assert_eq!(refused(&store_with(FailureAction::Pause, Some(UpdateState::Updating), now)), [false; 5]);
}
