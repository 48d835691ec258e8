//! Secrets and configs in a container: by id and name, with the file that shows them.

use ketch_cluster::control::texts;
use ketch_cluster::objects::container::{ConfigReference, ConfigTarget, FileTarget, SecretReference};
use ketch_cluster::store::ObjectKind;
use ketch_engine_api::swarm::container as api;

use crate::Refusal;

/// # Errors
/// One without a target, or whose id is none.
pub fn secrets_of(references: Vec<api::SecretReference>) -> Result<Vec<SecretReference>, Refusal> {
    let parsed = |reference: api::SecretReference| {
        let id = reference.secret_id.parse();
        let names = (&*reference.secret_id, &*reference.secret_name);
        is_whole(ObjectKind::Secret, names)?;
        let no_target = || texts::conversion::reference_without_target(ObjectKind::Secret);
        let file = file_of(reference.file.ok_or_else(no_target)?);
        let name = reference.secret_name;
        Ok(id.map(|secret| SecretReference { secret, name: name.clone(), file }).map_err(|_| name))
    };
    all_found(ObjectKind::Secret, references.into_iter().map(parsed))
}

/// # Errors
/// One without a target or with two, or whose id is none.
pub fn configs_of(references: Vec<api::ConfigReference>) -> Result<Vec<ConfigReference>, Refusal> {
    let parsed = |reference: api::ConfigReference| {
        let target = match (reference.file, reference.runtime) {
            (None, None) => return Err(texts::conversion::config_without_target()),
            (Some(_), Some(_)) => return Err(texts::conversion::config_with_two_targets()),
            (Some(file), None) => ConfigTarget::File(file_of(file)),
            (None, Some(_)) => ConfigTarget::Runtime,
        };
        is_whole(ObjectKind::Config, (&reference.config_id, &reference.config_name))?;
        let name = reference.config_name;
        let id = reference.config_id.parse();
        Ok(id.map(|config| ConfigReference { config, name: name.clone(), target }).map_err(|_| name))
    };
    all_found(ObjectKind::Config, references.into_iter().map(parsed))
}

fn is_whole(kind: ObjectKind, (id, name): (&str, &str)) -> Result<(), Refusal> {
    if id.is_empty() || name.is_empty() { Err(texts::reference_malformed(kind)) } else { Ok(()) }
}

/// What is no id is nobody's: the names of those that can't be there.
fn all_found<T>(
    kind: ObjectKind,
    parsed: impl Iterator<Item = Result<Result<T, String>, Refusal>>,
) -> Result<Vec<T>, Refusal> {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for reference in parsed {
        match reference? {
            Ok(reference) => found.push(reference),
            Err(name) => missing.push(name),
        }
    }
    match &missing[..] {
        [] => Ok(found),
        [name] => Err(texts::reference_not_found(kind, name)),
        names => Err(texts::references_not_found(kind, &names.join(", "))),
    }
}

fn file_of(file: api::FileTarget) -> FileTarget {
    FileTarget { name: file.name, uid: file.uid, gid: file.gid, mode: file.mode }
}

pub(crate) fn secret_shown(reference: &SecretReference) -> api::SecretReference {
    api::SecretReference {
        file: Some(file_shown(&reference.file)),
        secret_id: reference.secret.to_string(),
        secret_name: reference.name.clone(),
    }
}

pub(crate) fn config_shown(reference: &ConfigReference) -> api::ConfigReference {
    let (file, runtime) = match &reference.target {
        ConfigTarget::File(file) => (Some(file_shown(file)), None),
        ConfigTarget::Runtime => (None, Some(api::RuntimeTarget {})),
    };
    api::ConfigReference {
        file,
        runtime,
        config_id: reference.config.to_string(),
        config_name: reference.name.clone(),
    }
}

fn file_shown(file: &FileTarget) -> api::FileTarget {
    api::FileTarget { name: file.name.clone(), uid: file.uid.clone(), gid: file.gid.clone(), mode: file.mode }
}
