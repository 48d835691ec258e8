//! No secret of any object is in what a log line of an action would say.

use super::*;
use crate::objects::cluster::{DataKey, JoinTokens, RootRotation, SecretBytes};
use crate::objects::container::{Mount, VolumeOptions};
use crate::objects::task::TaskRuntime;
use crate::objects::{ContainerSpec, Driver, NetworkSpec, SecretSpec, ServiceSpec};

const MARKER: &str = "hunter2";

fn bytes() -> SecretBytes {
    SecretBytes(MARKER.as_bytes().to_vec())
}

/// A driver whose option has a secret, as cifs and Splunk have them.
fn driver() -> Driver {
    Driver { name: "cifs".to_owned(), options: [("password".to_owned(), MARKER.to_owned())].into() }
}

fn task_spec() -> TaskSpec {
    let volume = VolumeOptions { driver: Some(driver()), ..VolumeOptions::default() };
    let container = ContainerSpec {
        registry_auth: Some(MARKER.to_owned().into()),
        env: vec![format!("PASSWORD={MARKER}")],
        mounts: vec![Mount { volume, ..Mount::default() }],
        ..ContainerSpec::default()
    };
    TaskSpec {
        runtime: TaskRuntime::Container(Box::new(container)),
        log_driver: Some(driver()),
        ..TaskSpec::default()
    }
}

/// One of each kind, with the marker in every field that holds a secret.
fn objects() -> Vec<Object> {
    let mut cluster = fixture::cluster();
    cluster.root_ca.key = bytes();
    cluster.root_ca.join_tokens = JoinTokens { worker: MARKER.to_owned(), manager: MARKER.to_owned() };
    cluster.root_ca.rotation = Some(RootRotation { key: bytes(), ..RootRotation::default() });
    cluster.unlock_key = Some(bytes());
    cluster.data_keys = vec![DataKey { generation: 1, made_at: fixture::at(1), secret: bytes() }];
    cluster.spec.log_driver = Some(driver());
    let mut service = fixture::replicated(1, 1);
    service.spec.task = Arc::new(task_spec());
    service.previous_spec = Some(ServiceSpec::clone(&service.spec));
    let task = Task { log_driver: Some(driver()), ..fixture::task(1, &service, 1) };
    let mut network = fixture::network(1);
    network.spec = NetworkSpec { driver: driver(), ipam_driver: driver(), ..network.spec };
    let spec = SecretSpec {
        data: MARKER.as_bytes().to_vec(),
        driver: Some(driver()),
        templating: Some(driver()),
        ..SecretSpec::default()
    };
    let secret =
        Secret { id: SecretId::of(1), meta: Meta::default(), spec, internal: false, superseded: false };
    let spec = crate::objects::ConfigSpec {
        data: MARKER.as_bytes().to_vec(),
        templating: Some(driver()),
        ..Default::default()
    };
    let config = Config { id: ConfigId::of(1), meta: Meta::default(), spec, superseded: false };
    let node = fixture::node(1);
    vec![
        cluster.into(),
        node.into(),
        network.into(),
        secret.into(),
        config.into(),
        service.into(),
        task.into(),
    ]
}

#[test]
fn no_secret_is_in_a_log_line() {
    let objects = objects();
    assert_eq!(objects.iter().map(Object::kind).collect::<BTreeSet<_>>(), KINDS.into_iter().collect());
    let as_bytes = format!("{:?}", MARKER.as_bytes());
    let as_bytes = as_bytes.trim_matches(['[', ']']);
    for object in objects {
        let kind = object.kind();
        for action in [StoreAction::Create(object.clone()), StoreAction::Update(object)] {
            for told in [format!("{action:?}"), format!("{action:#?}").replace([' ', '\n'], "")] {
                let is_told = told.contains(MARKER)
                    || told.contains(as_bytes)
                    || told.contains(&as_bytes.replace(' ', ""));
                assert!(!is_told, "{kind}: {told}");
            }
        }
    }
}
