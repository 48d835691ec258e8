//! `validate`, one case at a time.

use std::time::Duration;

use super::super::tests::{
    attachment, cluster, config_reference, created, endpoint, ingress, port, secret_reference, spec,
    with_container, with_task, with_view,
};
use super::*;
use crate::fixture;
use crate::objects::container::{ConfigTarget, HealthCheck, Mount};
use crate::objects::endpoint::{Protocol, PublishMode, ResolutionMode};
use crate::objects::node::ManagerStatus;
use crate::objects::task::TaskRuntime;
use crate::objects::{ContainerSpec, EndpointSpec, Node, PortConfig, Service};
use crate::orchestrator::fence;
use crate::reconciled::Reconciled;
use crate::store::{Store, StoreAction};

fn verdict_in(store: &Store, spec: &ServiceSpec) -> Result<(), ControlError> {
    with_view(store, |view| service(view, spec, None))
}

fn verdict(spec: &ServiceSpec) -> Result<(), ControlError> {
    verdict_in(&fixture::store(cluster()), spec)
}

fn of_container(change: impl FnOnce(&mut ContainerSpec)) -> Result<(), ControlError> {
    verdict(&with_container(spec("a"), change))
}

fn of_resources(change: impl FnOnce(&mut ResourceRequirements)) -> Result<(), ControlError> {
    verdict(&with_task(spec("a"), |task| change(&mut task.resources)))
}

fn of_ports(ports: &[PortConfig]) -> Result<(), ControlError> {
    verdict(&ServiceSpec { endpoint: endpoint(ports), ..spec("a") })
}

#[test]
fn names_are_dns_labels() {
    for good in ["a", "A-b_c", "1a", "a--b", &"a".repeat(63)] {
        assert_eq!(dns_label(good), Ok(()), "{good}");
    }
    assert_eq!(dns_label(""), Err(texts::name_missing()));
    for bad in ["-a", "a-", "_a", "a.b", "a b", "ä"] {
        assert_eq!(dns_label(bad), Err(texts::name_no_dns_label()), "{bad}");
    }
    assert_eq!(dns_label(&"a".repeat(64)), Err(texts::name_too_long()));
}

#[test]
fn payload_names_may_have_dots() {
    for good in ["a", "A.b-c_d", &"a".repeat(64)] {
        assert_eq!(payload_name(good), Ok(()), "{good}");
    }
    assert_eq!(payload_name(""), Err(texts::payload_name_missing()));
    for bad in [".a", "a.", "a b", "ä", &"a".repeat(65)] {
        assert_eq!(payload_name(bad), Err(texts::payload_name_invalid()), "{bad}");
    }
}

#[test]
fn a_good_spec_is_good() {
    assert_eq!(verdict(&spec("a")), Ok(()));
}

#[test]
fn a_fence_is_a_duration() {
    let mut fenced = spec("a");
    fenced.labels.insert(fence::LABEL.to_owned(), "90s".to_owned());
    assert_eq!(verdict(&fenced), Ok(()));
    fenced.labels.insert(fence::LABEL.to_owned(), "soon".to_owned());
    let told = verdict(&fenced).unwrap_err().to_string();
    assert_eq!(told, "label ketch.fence: \"soon\" is not a duration such as 90s or 1m30s");
}

#[test]
fn labels_go_with_the_rest_of_the_service() {
    let labelled = |label: &str, text: &str, ports: &[PortConfig]| {
        let mut spec = ServiceSpec { endpoint: endpoint(ports), ..spec("a") };
        let _none = spec.labels.insert(label.to_owned(), text.to_owned());
        verdict(&spec).map_err(|error| error.to_string())
    };
    assert_eq!(labelled("ketch.allow", "*:80", &[]), Ok(()));
    let told = "label ketch.publish.from: the service has no published port";
    assert_eq!(labelled("ketch.publish.from", "10.0.0.0/8", &[]), Err(told.to_owned()));
    assert_eq!(labelled("ketch.publish.from", "10.0.0.0/8", &[port(80, PublishMode::Ingress)]), Ok(()));
    assert!(labelled("ketch.other", "", &[]).unwrap_err().starts_with("label ketch.other: is not known;"));
}

#[test]
fn who_is_named_must_have_a_way_to_the_service() {
    let closed = |allow: &str, spec: ServiceSpec| {
        let mut spec = spec;
        let _none = spec.labels.insert("ketch.allow".to_owned(), allow.to_owned());
        verdict(&spec).map_err(|error| error.to_string())
    };
    let told = "label ketch.allow: \"web\" can't come to a service that is in no overlay network";
    let by_host = ServiceSpec { endpoint: endpoint(&[port(80, PublishMode::Host)]), ..spec("a") };
    for alone in [spec("a"), by_host] {
        assert_eq!(closed("*:1,web:80", alone.clone()), Err(told.to_owned()));
        for of_bridges in ["", "*:80"] {
            assert_eq!(closed(of_bridges, alone.clone()), Ok(()), "neighbours on its node are kept out");
        }
    }
    let shared = with_task(spec("a"), |task| task.networks = vec![attachment(&fixture::network(2))]);
    let published = ServiceSpec { endpoint: endpoint(&[port(80, PublishMode::Ingress)]), ..spec("a") };
    for reached in [shared, published] {
        assert_eq!(closed("web:80", reached), Ok(()));
    }
}

#[test]
fn a_service_that_names_such_a_one_from_before_is_updated() {
    let mut store = fixture::store(cluster());
    let allowing = |allow: &str| {
        let mut spec = spec("a");
        let _none = spec.labels.insert("ketch.allow".to_owned(), allow.to_owned());
        spec
    };
    let id = created(&mut store, spec("a"));
    let before = Service { spec: allowing("web:80"), ..Service::clone(store.service(id).unwrap()) };
    let written = vec![StoreAction::Update(before.into())];
    fixture::apply(&mut store, Reconciled { actions: written, wake_at: None });
    let with = |spec: &ServiceSpec| with_view(&store, |view| service(view, spec, Some(id)));
    assert_eq!(with(&allowing("web:80")), Ok(()));
    assert!(with(&allowing("web:81")).is_err());
}

#[test]
fn ports_at_which_the_cluster_listens_are_not_published() {
    let place = ManagerStatus { raft_id: 1, address: "[fd00::1]:2377".to_owned() };
    let manager = Node { manager: Some(place), ..fixture::node(7) };
    let mut networking = fixture::cluster();
    networking.networking.data_path_port = 7789;
    let mut objects = cluster();
    objects[0] = networking.into();
    let mut store = fixture::store(objects);
    let at = |number, protocol, mode| PortConfig { protocol, ..port(number, mode) };
    let publishing = |ports: &[PortConfig]| ServiceSpec { endpoint: endpoint(ports), ..spec("a") };
    let early = publishing(&[at(2377, Protocol::Tcp, PublishMode::Ingress)]);
    assert_eq!(verdict_in(&store, &early), Ok(()), "nobody listens there yet");
    let id = created(&mut store, early.clone());
    fixture::apply(
        &mut store,
        Reconciled { actions: vec![StoreAction::Create(manager.into())], wake_at: None },
    );
    let with = |spec: &ServiceSpec, updated| with_view(&store, |view| service(view, spec, updated));
    assert_eq!(with(&early, Some(id)), Ok(()), "what it has does not keep it from updates");
    for mode in [PublishMode::Ingress, PublishMode::Host] {
        for (number, protocol, told) in [
            (
                2377,
                Protocol::Tcp,
                "port 2377/tcp can't be published: the manager node-7 is reached there by the cluster's nodes",
            ),
            (
                7789,
                Protocol::Udp,
                "port 7789/udp can't be published: the cluster's networks send their data there (--data-path-port)",
            ),
        ] {
            let refused = none_of_the_cluster_in(&store, &publishing(&[at(number, protocol, mode)]));
            assert_eq!(refused.unwrap_err().to_string(), told);
        }
        for (number, protocol) in
            [(2377, Protocol::Udp), (7789, Protocol::Tcp), (4789, Protocol::Udp), (7946, Protocol::Tcp)]
        {
            assert_eq!(none_of_the_cluster_in(&store, &publishing(&[at(number, protocol, mode)])), Ok(()));
        }
    }
    let others = [at(7789, Protocol::Udp, PublishMode::Host), at(2377, Protocol::Tcp, PublishMode::Host)];
    for port in others {
        let refused = with(&publishing(&[port]), Some(id)).unwrap_err().to_string();
        assert!(refused.contains("can't be published"), "neither another port nor another mode: {refused}");
    }
}

/// Whatever other services have.
fn none_of_the_cluster_in(store: &Store, spec: &ServiceSpec) -> Result<(), ControlError> {
    with_view(store, |view| endpoint::none_of_the_cluster(view, spec, None))
}

#[test]
fn ports_of_the_hosts_network_are_not_closed() {
    let mut host = fixture::network(7);
    host.spec.driver.name = "host".to_owned();
    let mut closed = with_task(spec("a"), |task| task.networks = vec![attachment(&host)]);
    let store = fixture::store(cluster().into_iter().chain([host.into()]));
    let _none = closed.labels.insert("ketch.allow".to_owned(), String::new());
    let told = verdict_in(&store, &closed).unwrap_err().to_string();
    assert_eq!(told, "label ketch.allow: a service of the network host has no ports of its own");
}

#[test]
fn resources_have_a_minimum() {
    for (nano_cpus, told) in [
        (500_000, "0.0005"),
        (999_999, "0.000999999"),
        (100_000, "0.0001"),
        (15_000, "1.5e-05"),
        (1, "1e-09"),
    ] {
        let refused = Err(texts::cpu_below_minimum(told));
        assert_eq!(of_resources(|it| it.limits.nano_cpus = nano_cpus), refused);
        assert_eq!(of_resources(|it| it.reservations.nano_cpus = nano_cpus), refused);
    }
    let refused = Err(texts::memory_below_minimum(4_194_303));
    assert_eq!(of_resources(|it| it.limits.memory_bytes = 4_194_303), refused);
    assert_eq!(of_resources(|it| it.reservations.memory_bytes = 4_194_303), refused);
    let least = of_resources(|it| {
        it.limits.nano_cpus = 1_000_000;
        it.reservations.memory_bytes = 4_194_304;
    });
    assert_eq!(least, Ok(()));
}

#[test]
fn resources_that_make_no_sense_are_refused() {
    let named = GenericResource::Named { kind: "GPU".to_owned(), values: ["a".to_owned()].into() };
    assert_eq!(
        of_resources(|it| it.reservations.generic.push(named)),
        Err(texts::generic_not_a_count("GPU"))
    );
    assert_eq!(of_resources(|it| it.swap_bytes = Some(1)), Err(texts::swap_without_limit()));
    assert_eq!(of_resources(|it| it.memory_swappiness = Some(101)), Err(texts::swappiness_out_of_range(101)));
    assert_eq!(of_resources(|it| it.memory_swappiness = Some(-1)), Err(texts::swappiness_out_of_range(-1)));
}

#[test]
fn constraints_are_parsed() {
    let with = |text: &str| with_task(spec("a"), |task| task.placement.constraints.push(text.to_owned()));
    assert_eq!(verdict(&with("node.role == manager")), Ok(()));
    let told = verdict(&with("node.role")).unwrap_err().to_string();
    assert_eq!(told, "rpc error: code = Unknown desc = constraint expected one operator from ==, !=");
}

#[test]
fn only_containers_are_run_by_services() {
    let attachment = with_task(spec("a"), |task| {
        task.runtime = TaskRuntime::Attachment { container: "c".to_owned() };
    });
    assert_eq!(verdict(&attachment), Err(texts::runtime_not_supported()));
}

#[test]
fn an_image_is_named() {
    assert_eq!(of_container(|it| it.image.clear()), Err(texts::image_missing()));
    assert_eq!(of_container(|it| it.image = "A b".to_owned()), Err(texts::image_invalid("A b")));
}

#[test]
fn mounts_differ_once_expanded() {
    let mount = |target: &str| Mount { target: target.to_owned(), ..Mount::default() };
    let twice = |a: &str, b: &str| of_container(|it| it.mounts = vec![mount(a), mount(b)]);
    assert_eq!(twice("/a", "/b"), Ok(()));
    assert_eq!(twice("/x", "/x"), Err(texts::mount_point_duplicate("/x")));
    assert_eq!(twice("/a", "/{{.Service.Name}}"), Err(texts::mount_point_duplicate("/a")));
}

#[test]
fn templates_are_expanded_with_the_services_own_labels() {
    let told = of_container(|it| it.env.push("A={{.Nope}}".to_owned())).unwrap_err().to_string();
    assert_eq!(
        told,
        "rpc error: code = InvalidArgument desc = expanding env failed: expanding env \"A\": template: \
         expansion:1:2: executing \"expansion\" at <.Nope>: can't evaluate field Nope in type *template.Context"
    );
    let mut labelled = with_container(spec("a"), |it| it.hostname = "{{.Service.Labels.zone}}".to_owned());
    assert!(verdict(&labelled).is_err());
    labelled.labels.insert("zone".to_owned(), "z".to_owned());
    assert_eq!(verdict(&labelled), Ok(()));
}

#[test]
fn times_of_a_health_check_are_at_least_a_millisecond() {
    let of =
        |change: fn(&mut HealthCheck)| of_container(|it| change(it.health_check.get_or_insert_default()));
    const SHORT: Duration = Duration::from_micros(999);
    assert_eq!(of(|_| {}), Ok(()));
    assert_eq!(of(|it| it.interval = Duration::from_millis(1)), Ok(()));
    assert_eq!(of(|it| it.interval = SHORT), Err(texts::health_below_minimum("Interval")));
    assert_eq!(of(|it| it.timeout = SHORT), Err(texts::health_below_minimum("Timeout")));
    assert_eq!(of(|it| it.start_period = SHORT), Err(texts::health_below_minimum("StartPeriod")));
    assert_eq!(of(|it| it.start_interval = SHORT), Err(texts::health_below_minimum("StartInterval")));
}

#[test]
fn references_are_complete_and_show_in_places_of_their_own() {
    use crate::store::ObjectKind::{Config, Secret};
    let secrets = |pairs: &[(&str, &str)]| {
        of_container(|it| {
            it.secrets = pairs.iter().map(|(name, file)| secret_reference(3, name, file)).collect()
        })
    };
    let configs = |pairs: &[(&str, &str)]| {
        of_container(|it| {
            it.configs = pairs.iter().map(|(name, file)| config_reference(4, name, file)).collect()
        })
    };
    assert_eq!(secrets(&[("key", "a"), ("key", "b")]), Ok(()));
    assert_eq!(secrets(&[("", "a")]), Err(texts::reference_malformed(Secret)));
    assert_eq!(secrets(&[("key", "")]), Err(texts::reference_without_file_name(Secret)));
    assert_eq!(
        secrets(&[("key", "a"), ("b", "a")]),
        Err(texts::references_conflict(Secret, "key", "b", "a"))
    );
    assert_eq!(configs(&[("conf", "a"), ("conf", "b")]), Ok(()));
    assert_eq!(configs(&[("", "a")]), Err(texts::reference_malformed(Config)));
    assert_eq!(configs(&[("conf", "")]), Err(texts::reference_without_file_name(Config)));
    assert_eq!(
        configs(&[("b", "a"), ("conf", "a")]),
        Err(texts::references_conflict(Config, "b", "conf", "a"))
    );
    let runtime = of_container(|it| {
        let mut reference = config_reference(4, "conf", "");
        reference.target = ConfigTarget::Runtime;
        it.configs.push(reference);
    });
    assert_eq!(runtime, Ok(()), "no file, no name of one");
}

#[test]
fn what_is_referenced_is_there_under_its_name() {
    use crate::store::ObjectKind::{Config, Secret};
    let two = of_container(|it| {
        it.secrets = vec![secret_reference(9, "gone", "a"), secret_reference(3, "other", "b")];
    });
    assert_eq!(two, Err(texts::references_not_found(Secret, "gone, other")));
    let one = of_container(|it| it.configs = vec![config_reference(9, "gone", "a")]);
    assert_eq!(one, Err(texts::reference_not_found(Config, "gone")));
}

#[test]
fn counts_that_were_negative_are_refused() {
    let of = |mode| verdict(&ServiceSpec { mode, ..spec("a") });
    let (good, bad) = (MAX_TASKS, 1 << 63);
    assert_eq!(of(ServiceMode::Replicated { replicas: good }), Ok(()));
    assert_eq!(of(ServiceMode::Replicated { replicas: bad }), Err(texts::replicas_negative()));
    let job = |max_concurrent, total_completions| {
        of(ServiceMode::ReplicatedJob { max_concurrent, total_completions })
    };
    assert_eq!(job(good, good), Ok(()));
    assert_eq!(job(bad, 0), Err(texts::max_concurrent_negative()));
    assert_eq!(job(0, bad), Err(texts::total_completions_negative()));
}

#[test]
fn update_configs_are_of_services_that_are_updated() {
    let ratio = |max_failure_ratio| Some(UpdateConfig { max_failure_ratio, ..UpdateConfig::default() });
    for bad in [-0.1, 1.1, f32::NAN] {
        let refused = Err(texts::failure_ratio_out_of_range());
        assert_eq!(verdict(&ServiceSpec { update: ratio(bad), ..spec("a") }), refused);
        assert_eq!(verdict(&ServiceSpec { rollback: ratio(bad), ..spec("a") }), refused);
    }
    assert_eq!(verdict(&ServiceSpec { update: ratio(1.0), rollback: ratio(0.0), ..spec("a") }), Ok(()));
    let job = ServiceSpec { mode: ServiceMode::GlobalJob, ..spec("a") };
    assert_eq!(verdict(&job), Ok(()));
    assert_eq!(verdict(&ServiceSpec { update: ratio(0.0), ..job }), Err(texts::job_with_update_config()));
}

#[test]
fn ports_of_one_endpoint_differ() {
    let udp = PortConfig { protocol: Protocol::Udp, ..port(80, PublishMode::Ingress) };
    let any = || port(0, PublishMode::Ingress);
    assert_eq!(of_ports(&[port(80, PublishMode::Ingress), udp, any(), any()]), Ok(()));
    let twice = [port(80, PublishMode::Ingress), port(80, PublishMode::Host)];
    assert_eq!(of_ports(&twice), Err(texts::published_port_duplicate()));
    let untargeted = PortConfig { target_port: 0, ..any() };
    assert_eq!(of_ports(&[untargeted]), Err(texts::target_port_missing()));
    let dnsrr = |mode| {
        let endpoint = EndpointSpec { mode: ResolutionMode::DnsRr, ports: vec![port(80, mode)] };
        verdict(&ServiceSpec { endpoint: Some(endpoint), ..spec("a") })
    };
    assert_eq!(dnsrr(PublishMode::Ingress), Err(texts::ingress_port_with_dnsrr()));
    assert_eq!(dnsrr(PublishMode::Host), Ok(()));
}

#[test]
fn published_ports_are_the_whole_clusters() {
    let mut store = fixture::store(cluster());
    let publishing =
        |name: &str, number, mode| ServiceSpec { endpoint: endpoint(&[port(number, mode)]), ..spec(name) };
    let mesh = created(&mut store, publishing("mesh", 80, PublishMode::Ingress));
    let host = created(&mut store, publishing("host", 81, PublishMode::Host));
    let of = |number, mode| verdict_in(&store, &publishing("new", number, mode));
    assert_eq!(of(80, PublishMode::Ingress), Err(texts::port_in_use_by_ingress(80, "mesh", mesh)));
    assert_eq!(of(80, PublishMode::Host), Err(texts::port_in_use_by_ingress(80, "mesh", mesh)));
    assert_eq!(of(81, PublishMode::Ingress), Err(texts::port_in_use_by_host(81, "host", host)));
    assert_eq!(of(81, PublishMode::Host), Ok(()), "the scheduler keeps them apart");
    assert_eq!(of(82, PublishMode::Ingress), Ok(()));
    let udp = PortConfig { protocol: Protocol::Udp, ..port(80, PublishMode::Ingress) };
    assert_eq!(verdict_in(&store, &ServiceSpec { endpoint: endpoint(&[udp]), ..spec("new") }), Ok(()));
    let of_itself =
        with_view(&store, |view| service(view, &publishing("mesh", 80, PublishMode::Ingress), Some(mesh)));
    assert_eq!(of_itself, Ok(()), "an update keeps its own");
}

#[test]
fn a_port_that_was_given_is_taken_too() {
    let mut given = fixture::replicated(7, 1);
    given.endpoint.ports.push(port(30_000, PublishMode::Ingress));
    let store = fixture::store(cluster().into_iter().chain([given.clone().into()]));
    let wanted = ServiceSpec { endpoint: endpoint(&[port(30_000, PublishMode::Ingress)]), ..spec("a") };
    let refused = Err(texts::port_in_use_by_ingress(30_000, "service-7", given.id));
    assert_eq!(verdict_in(&store, &wanted), refused);
}

#[test]
fn the_mesh_needs_its_network() {
    let store = fixture::store([fixture::cluster().into()]);
    let publishing = |mode| ServiceSpec { endpoint: endpoint(&[port(80, mode)]), ..spec("a") };
    assert_eq!(verdict_in(&store, &publishing(PublishMode::Ingress)), Err(texts::ingress_missing()));
    assert_eq!(verdict_in(&store, &publishing(PublishMode::Host)), Ok(()));
}

#[test]
fn networks_are_there_and_open_to_services() {
    let on = |networks: &[u128]| {
        verdict(&with_task(spec("a"), |task| {
            task.networks = networks.iter().map(|number| attachment(&fixture::network(*number))).collect();
        }))
    };
    assert_eq!(on(&[2]), Ok(()));
    assert_eq!(on(&[1]), Err(texts::attached_to_ingress("ingress")));
    assert_eq!(on(&[2, 2]), Err(texts::attached_twice("network-2")));
    let missing = fixture::network(9).id.to_string();
    assert_eq!(on(&[9]), Err(texts::not_found(ObjectKind::Network, &missing)));
    let mut going = fixture::network(8);
    going.pending_delete = true;
    let store = fixture::store([ingress(1).into(), going.clone().into()]);
    let wanted = with_task(spec("a"), |task| task.networks.push(attachment(&going)));
    let refused = texts::not_found(ObjectKind::Network, &going.id.to_string());
    assert_eq!(verdict_in(&store, &wanted), Err(refused));
}

#[test]
fn a_spec_of_which_two_do_not_fit_is_refused() {
    let sized = |bytes| with_container(spec("a"), |it| it.args.push("x".repeat(bytes)));
    assert_eq!(verdict(&sized(MAX_SERVICE_SPEC_BYTES - 2000)), Ok(()));
    let told = verdict(&sized(MAX_SERVICE_SPEC_BYTES)).unwrap_err().to_string();
    assert!(told.starts_with("service spec is too large: it takes 75"), "{told}");
}

#[test]
fn counts_that_no_cluster_holds_are_refused() {
    let of = |mode| verdict(&ServiceSpec { mode, ..spec("a") }).map_err(|refusal| refusal.to_string());
    let replicas = |replicas| of(ServiceMode::Replicated { replicas });
    let job = |max_concurrent, total_completions| {
        of(ServiceMode::ReplicatedJob { max_concurrent, total_completions })
    };
    let (most, more) = (1_000_000, 1_000_001);
    assert_eq!(replicas(most), Ok(()));
    assert_eq!(job(most, most), Ok(()));
    for (refused, what) in [
        (replicas(more), "Number of replicas"),
        (replicas(i64::MAX as u64), "Number of replicas"),
        (job(more, 1), "Maximum concurrent jobs"),
        (job(1, more), "Total completed jobs"),
    ] {
        assert_eq!(refused, Err(format!("{what} must be at most 1000000")));
    }
}

#[test]
fn a_placement_has_few_rules() {
    let placed = |constraints: usize, spread: usize| {
        verdict(&with_task(spec("a"), |task| {
            task.placement.constraints = vec!["node.role == worker".to_owned(); constraints];
            task.placement.spread = vec!["node.labels.zone".to_owned(); spread];
        }))
        .map_err(|refusal| refusal.to_string())
    };
    assert_eq!(placed(100, 100), Ok(()));
    let told = |what: &str| Err(format!("a service may have at most 100 placement {what}, and has 101"));
    assert_eq!(placed(101, 0), told("constraints"));
    assert_eq!(placed(0, 101), told("preferences"));
}
