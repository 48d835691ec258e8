//! The message texts that other programs match, each with its reader.
//!
//! runc's callers have no error codes to go by, so they look for these words in what it prints; a changed word is a
//! changed interface. Whoever fails for one of these reasons takes the text from here. The rules that the readers apply
//! are repeated in the tests.

/// `create` with an id that is taken. Read by BuildKit and by people.
pub const EXISTS: &str = "container with given ID already exists";

/// Any command with an id that is not there. containerd (`checkKillError`, and `Delete`, which ignores it), podman.
pub const DOES_NOT_EXIST: &str = "container does not exist";

/// `kill`, `pause` without a process to act on. containerd takes it as "not found", CRI-O as "already stopped".
pub const NOT_RUNNING: &str = "container not running";

/// `resume` of what is not paused. Read by containerd's users in its error.
pub const NOT_PAUSED: &str = "container not paused";

/// `exec` into what has ended. Read by podman's and CRI-O's users.
pub const EXEC_IN_STOPPED: &str = "cannot exec in a stopped container";

/// `exec` into what is paused.
pub const EXEC_IN_PAUSED: &str = "cannot exec in a paused container (use --ignore-paused to override)";

/// `start` of what has ended.
pub const START_STOPPED: &str = "cannot start a container that has stopped";

/// `start` of what runs. CRI-O and podman hold it against a double start.
pub const START_RUNNING: &str = "cannot start an already running container";

/// A detached terminal with nobody to hand it to.
pub const TERMINAL_WITHOUT_SOCKET: &str =
    "cannot allocate tty if runc will detach without setting console socket";

/// A console socket without a use.
pub const SOCKET_WITHOUT_TERMINAL: &str = "cannot use console socket if runc will not detach or allocate tty";

/// What a failed `create` begins with. Tests of runc and logs' readers look for the whole of it, the name included.
pub const CREATE_FAILED: &str = "runc create failed";

/// What a failed `run` begins with.
pub const RUN_FAILED: &str = "runc run failed";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::ContainerError;
    use crate::process::environment::LookupError;
    use crate::spec::ContainerIdError;
    use crate::state::StateError;
    use ketch_sys::{Errno, error::errno_text};

    /// containerd, cmd/containerd-shim-runc-v2/process: `checkKillError` makes these "not found", which a stop that comes
    /// too late needs.
    fn containerd_finds_nothing_to_kill(text: &str) -> bool {
        ["os: process already finished", "container not running", "no such process", "does not exist"]
            .iter()
            .any(|words| text.to_lowercase().contains(words))
    }

    /// podman, libpod: `getOCIRuntimeError` sorts failures by these words.
    fn podman_not_found(text: &str) -> bool {
        let text = text.to_lowercase();
        text.contains("executable file not found in $path") || text.contains("no such file or directory")
    }

    /// podman: the same for what may not be done.
    fn podman_not_permitted(text: &str) -> bool {
        let text = text.to_lowercase();
        text.contains("permission denied") || text.contains("operation not permitted")
    }

    #[test]
    fn a_late_kill_is_not_found() {
        assert!(containerd_finds_nothing_to_kill(NOT_RUNNING));
        assert!(containerd_finds_nothing_to_kill(DOES_NOT_EXIST));
        assert!(containerd_finds_nothing_to_kill(&errno_text(Errno::ESRCH)));
        assert!(!containerd_finds_nothing_to_kill(EXISTS));
    }

    #[test]
    fn podman_sorts_the_kernels_answers() {
        assert!(podman_not_found(&errno_text(Errno::ENOENT)));
        assert!(podman_not_permitted(&errno_text(Errno::EACCES)));
        assert!(podman_not_permitted(&errno_text(Errno::EPERM)));
    }

    #[test]
    fn the_library_fails_in_these_words() {
        for (error, text) in [
            (ContainerError::State(StateError::Exists), EXISTS),
            (ContainerError::State(StateError::Missing), DOES_NOT_EXIST),
            (ContainerError::NotRunning, NOT_RUNNING),
            (ContainerError::NotPaused, NOT_PAUSED),
            (ContainerError::ExecStopped, EXEC_IN_STOPPED),
            (ContainerError::ExecPaused, EXEC_IN_PAUSED),
            (ContainerError::StartStopped, START_STOPPED),
            (ContainerError::AlreadyRunning, START_RUNNING),
        ] {
            assert_eq!(error.to_string(), text);
        }
    }

    /// podman and dockerd tell a missing program from other failures by these words.
    #[test]
    fn a_missing_program_is_told_as_such() {
        let error = LookupError::NotInPath { name: "nope".to_owned() };
        assert!(podman_not_found(&error.to_string()), "{error}");
    }

    /// containerd's go-runc and its users compare ids' refusals by this text.
    #[test]
    fn ids_are_refused_in_runcs_words() {
        assert_eq!(ContainerIdError::Format.to_string(), "invalid container ID format");
        assert_eq!(ContainerIdError::Empty.to_string(), "container id cannot be empty");
    }
}
