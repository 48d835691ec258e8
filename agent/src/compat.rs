//! Texts that Docker's clients match or scripts depend on, letter by letter, each with who does.

use crate::error::Kind;

/// docker-py's `errors.ImageNotFound`, and the CLI's decision to pull, see the first words.
#[must_use]
pub fn no_such_image(name: &str) -> String {
    format!("No such image: {name}")
}

/// What users of old images look for.
pub const SCHEMA_1: &str = "support for Docker Image Format v1 and Docker Image manifest version 2, schema 1 has been removed in Docker Engine v28.2. More information at https://docs.docker.com/go/deprecated-image-specs/";

/// Every client's "not found".
#[must_use]
pub fn no_such_container(name: &str) -> String {
    format!("No such container: {name}")
}

/// Compose and scripts that create until it works see "already in use".
#[must_use]
pub fn name_in_use(name: &str, owner: &str) -> String {
    format!(
        "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". You have to remove (or rename) that container to be able to reuse that name."
    )
}

/// Shown by the CLI behind "Error response from daemon: ".
#[must_use]
pub fn task_not_created(words: &str) -> String {
    format!("failed to create task for container: failed to create shim task: {words}")
}

/// Whoever runs containers in networks of the cluster sees it behind what he asked for.
#[must_use]
pub fn not_attached(network: &str, words: &str) -> String {
    format!("Could not attach to network {network}: {words}")
}

/// The same, where no address came; dockerd has no more to say at its end than that its time was over.
#[must_use]
pub fn attachment_not_given(words: &str) -> String {
    format!(
        "attaching to network failed, make sure your network options are correct and check manager logs: {words}"
    )
}

/// What exec and pause say in a pause before a restart.
#[must_use]
pub fn is_restarting(id: &str) -> String {
    format!("Container {id} is restarting, wait until the container is running")
}

/// docker-py's tests and Compose look for it.
#[must_use]
pub fn no_bind_source(path: &str) -> String {
    format!("invalid mount config for type \"bind\": bind source path does not exist: {path}")
}

/// The exit code of a container that did not start, the error's kind, and what Docker adds to the text: the CLI exits with
/// 126 or 127 by the words "permission denied", "executable file not found" and "no such file or directory".
#[must_use]
pub fn start_failure(words: &str) -> (i64, Kind, &'static str) {
    let lower = words.to_lowercase();
    let has = |part: &str| lower.contains(part);
    if has("permission denied") {
        (126, Kind::InvalidArgument, "")
    } else if has("is a directory") {
        (126, Kind::InvalidArgument, ": permission denied")
    } else if has("not a directory") {
        let question = ": Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type";
        (127, Kind::InvalidArgument, question)
    } else if has("executable file not found") || has("no such file or directory") {
        (127, Kind::InvalidArgument, "")
    } else {
        (128, Kind::Internal, "")
    }
}

/// What keeps its IPC namespace to itself.
#[must_use]
pub fn not_shareable(donor: &str) -> String {
    format!(
        "failed to join IPC namespace: container {donor}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
    )
}

/// What a container whose users are others on the host may not share with it (dockerd's texts, which Compose's users and scripts
/// look for).
pub const PRIVILEGED_WITH_USERS: &str = "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode";
/// The same.
pub const HOST_NETWORK_WITH_USERS: &str =
    "cannot share the host's network namespace when user namespaces are enabled";
/// The same.
pub const HOST_PROCESSES_WITH_USERS: &str =
    "cannot share the host PID namespace when user namespaces are enabled";

/// Why a task has failed, in `docker service ps`, which scripts look through (moby's `dockerexec`).
pub const UNHEALTHY: &str = "dockerexec: unhealthy container";
/// The same; not Docker's, whose users have to guess it from the exit code.
pub const OUT_OF_MEMORY: &str = "OOM killed: the memory limit was reached";
/// The same.
pub const NO_IMAGE_OF_TASK: &str = "dockerexec: image required";
/// Of tasks that are no containers.
pub const NO_SUCH_RUNTIME: &str = "exec: unsupported runtime";

/// How a task's container has ended before it was healthy, with why if that is known. Docker takes a clean end for a success.
#[must_use]
pub fn task_exit(code: i32, cause: &str) -> String {
    match (code, cause) {
        (code, "") => format!("task: non-zero exit ({code})"),
        (0, cause) => cause.to_owned(),
        (code, cause) => format!("task: non-zero exit ({code}): {cause}"),
    }
}

/// Of a task's container that did not start.
#[must_use]
pub fn task_not_started(words: &str) -> String {
    format!("starting container failed: {words}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn failures_have_their_codes() {
        for (words, code) in [
            ("exec: \"x\": executable file not found in $PATH", 127),
            ("exec /x: no such file or directory", 127),
            ("mount: not a directory", 127),
            ("exec: \"/etc\": is a directory", 126),
            ("exec: \"/x\": Permission denied", 126),
            ("no space left", 128),
        ] {
            assert_eq!(super::start_failure(words).0, code, "{words}");
        }
    }

    #[test]
    fn texts() {
        assert_eq!(super::no_such_image("a:b"), "No such image: a:b");
        assert_eq!(super::no_such_container("a"), "No such container: a");
        assert_eq!(super::task_exit(3, ""), "task: non-zero exit (3)");
        assert_eq!(
            super::task_exit(137, super::UNHEALTHY),
            "task: non-zero exit (137): dockerexec: unhealthy container"
        );
        assert_eq!(super::task_exit(0, super::UNHEALTHY), "dockerexec: unhealthy container");
        assert_eq!(super::task_not_started("x"), "starting container failed: x");
        assert_eq!(super::NO_IMAGE_OF_TASK, "dockerexec: image required");
        assert_eq!(super::NO_SUCH_RUNTIME, "exec: unsupported runtime");
    }
}
