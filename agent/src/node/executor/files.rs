//! A task's secrets and configs as files, their templates expanded. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use ketch_cluster::id::{ConfigId, SecretId};
use ketch_cluster::objects::container::{ConfigTarget, FileTarget};
use ketch_cluster::objects::{Config, ContainerSpec, Secret};
use ketch_cluster::template::{Context, Dependencies, expand_payload};
use ketch_node::executor::Work;

use crate::engine::task::TaskFile;
use crate::paths::clean;

/// Where secrets show that name no place.
const SECRETS: &str = "/run/secrets";

/// All of them; the error is why one can't be made.
pub(super) fn of(work: &Work, spec: &ContainerSpec, context: &Context) -> Result<Vec<TaskFile>, String> {
    let secrets: BTreeMap<SecretId, Arc<Secret>> =
        work.secrets.iter().map(|secret| (secret.id, Arc::clone(secret))).collect();
    let configs: BTreeMap<ConfigId, Arc<Config>> =
        work.configs.iter().map(|config| (config.id, Arc::clone(config))).collect();
    let dependencies = Dependencies { container: spec, secrets: &secrets, configs: &configs };
    let mut files = Vec::new();
    for reference in &spec.secrets {
        let secret = secrets.get(&reference.secret);
        let secret = secret.ok_or_else(|| not_given("secret", &reference.name))?;
        if let Some(driver) = &secret.spec.driver {
            return Err(format!(
                "secret {}: this node has no secret driver {:?}",
                reference.name, driver.name
            ));
        }
        let data = &secret.spec.data;
        let payload = expand_payload(data, secret.spec.templating.as_ref(), context, &dependencies)
            .map_err(|error| format!("secret {}: {error}", reference.name))?;
        files.push(file(SECRETS, &reference.file, payload.data)?);
    }
    for reference in &spec.configs {
        let ConfigTarget::File(target) = &reference.target else { continue };
        let config = configs.get(&reference.config);
        let config = config.ok_or_else(|| not_given("config", &reference.name))?;
        let payload =
            expand_payload(&config.spec.data, config.spec.templating.as_ref(), context, &dependencies)
                .map_err(|error| format!("config {}: {error}", reference.name))?;
        files.push(file("", target, payload.data)?);
    }
    Ok(files)
}

fn not_given(kind: &str, name: &str) -> String {
    format!("{kind} {name} was not given to this node")
}

fn file(folder: &str, target: &FileTarget, data: Vec<u8>) -> Result<TaskFile, String> {
    let number = |text: &str| match text {
        "" => Ok(0),
        text => text.parse().map_err(|_| format!("{}: {text:?} is no user's or group's number", target.name)),
    };
    let path = match target.name.as_str() {
        name if name.starts_with('/') => clean(name),
        name => clean(&format!("{folder}/{name}")),
    };
    Ok(TaskFile {
        target: path,
        owner: (number(&target.uid)?, number(&target.gid)?),
        mode: target.mode,
        data,
    })
}
