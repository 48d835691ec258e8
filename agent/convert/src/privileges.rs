//! What a container may do: the credentials of Windows, SELinux, seccomp, AppArmor.

use ketch_cluster::control::texts::conversion as texts;
use ketch_cluster::objects::Given;
use ketch_cluster::objects::container::{
    AppArmorMode, ContainerSpec, CredentialSpec, Privileges, SeccompMode, SelinuxContext,
};
use ketch_engine_api::swarm::container as api;

use crate::{Refusal, bytes, given};

/// Writes them into the container's spec, with what was given of them.
///
/// # Errors
/// A mode that there is not, or credentials from no source or several.
pub(crate) fn read(privileges: api::Privileges, container: &mut ContainerSpec) -> Result<(), Refusal> {
    container.given.insert(Given::Privileges);
    given::note(&mut container.given, Given::Seccomp, privileges.seccomp.as_ref());
    given::note(&mut container.given, Given::AppArmor, privileges.apparmor.as_ref());
    container.privileges = Privileges {
        no_new_privileges: privileges.no_new_privileges,
        credentials: privileges.credential_spec.map(credentials_of).transpose()?,
        selinux: privileges.selinux_context.map(selinux_of),
        seccomp: privileges.seccomp.map(seccomp_of).transpose()?.unwrap_or_default(),
        apparmor: privileges.apparmor.map(|it| apparmor_of(&it)).transpose()?.unwrap_or_default(),
    };
    Ok(())
}

fn credentials_of(spec: api::CredentialSpec) -> Result<CredentialSpec, Refusal> {
    let sources = [("config", &spec.config), ("file", &spec.file), ("registry", &spec.registry)];
    let named: Vec<_> =
        sources.iter().filter(|(_, value)| !value.is_empty()).map(|(name, _)| *name).collect();
    match named[..] {
        [] => Err(texts::credentials_missing()),
        ["config"] => Ok(CredentialSpec::Config(spec.config)),
        ["file"] => Ok(CredentialSpec::File(spec.file)),
        [_] => Ok(CredentialSpec::Registry(spec.registry)),
        [first, second] => Err(texts::credentials_two(first, second)),
        _ => Err(texts::credentials_three()),
    }
}

fn selinux_of(context: api::SelinuxContext) -> SelinuxContext {
    SelinuxContext {
        disable: context.disable,
        user: context.user,
        role: context.role,
        kind: context.kind,
        level: context.level,
    }
}

fn seccomp_of(options: api::SeccompOptions) -> Result<SeccompMode, Refusal> {
    match options.mode.as_str() {
        "" | "default" => Ok(SeccompMode::Default),
        "unconfined" => Ok(SeccompMode::Unconfined),
        "custom" => bytes::of("Profile", &options.profile).map(SeccompMode::Custom),
        other => Err(texts::seccomp_mode(other)),
    }
}

fn apparmor_of(options: &api::AppArmorOptions) -> Result<AppArmorMode, Refusal> {
    match options.mode.as_str() {
        "" | "default" => Ok(AppArmorMode::Default),
        "disabled" => Ok(AppArmorMode::Disabled),
        other => Err(texts::apparmor_mode(other)),
    }
}

/// None when none were given, and none are asked for.
pub(crate) fn shown(container: &ContainerSpec) -> Option<api::Privileges> {
    let (given, privileges) = (&container.given, &container.privileges);
    let is_shown = given.contains(&Given::Privileges) || *privileges != Privileges::default();
    is_shown.then(|| api::Privileges {
        credential_spec: privileges.credentials.as_ref().map(credentials_shown),
        selinux_context: privileges.selinux.as_ref().map(selinux_shown),
        seccomp: is_given(given.contains(&Given::Seccomp), &privileges.seccomp).map(seccomp_shown),
        apparmor: is_given(given.contains(&Given::AppArmor), &privileges.apparmor).map(apparmor_shown),
        no_new_privileges: privileges.no_new_privileges,
    })
}

fn is_given<T: Default + PartialEq>(given: bool, mode: &T) -> Option<&T> {
    (given || *mode != T::default()).then_some(mode)
}

fn credentials_shown(credentials: &CredentialSpec) -> api::CredentialSpec {
    let mut shown = api::CredentialSpec::default();
    match credentials {
        CredentialSpec::Config(id) => shown.config.clone_from(id),
        CredentialSpec::File(name) => shown.file.clone_from(name),
        CredentialSpec::Registry(name) => shown.registry.clone_from(name),
    }
    shown
}

fn selinux_shown(context: &SelinuxContext) -> api::SelinuxContext {
    api::SelinuxContext {
        disable: context.disable,
        user: context.user.clone(),
        role: context.role.clone(),
        kind: context.kind.clone(),
        level: context.level.clone(),
    }
}

fn seccomp_shown(mode: &SeccompMode) -> api::SeccompOptions {
    let (mode, profile) = match mode {
        SeccompMode::Default => ("default", String::new()),
        SeccompMode::Unconfined => ("unconfined", String::new()),
        SeccompMode::Custom(profile) => ("custom", bytes::shown(profile)),
    };
    api::SeccompOptions { mode: mode.to_owned(), profile }
}

fn apparmor_shown(mode: &AppArmorMode) -> api::AppArmorOptions {
    let mode = match mode {
        AppArmorMode::Default => "default",
        AppArmorMode::Disabled => "disabled",
    };
    api::AppArmorOptions { mode: mode.to_owned() }
}
