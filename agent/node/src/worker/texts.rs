//! Texts of a task's status that clients show or match: SwarmKit's and Docker's words, each held by a test.

pub(super) const ACCEPTED: &str = "accepted";
pub(super) const PREPARING: &str = "preparing";
pub(super) const PREPARED: &str = "prepared";
pub(super) const STARTING: &str = "starting";
pub(super) const STARTED: &str = "started";
pub(super) const FINISHED: &str = "finished";
pub(super) const SHUTDOWN: &str = "shutdown";
/// Not Docker's: of a task that its fence has stopped.
pub(super) const FENCED: &str = "stopped: no manager was reached for as long as ketch.fence allows";

/// Of a container that ended otherwise than well, with why if that is known.
pub(super) fn exit(code: i32, cause: &str) -> String {
    match (code, cause) {
        // Docker calls an unhealthy container that ends with 0 complete; its restart policy would not bring it back.
        (0, cause) => cause.to_owned(),
        (code, "") => format!("task: non-zero exit ({code})"),
        (code, cause) => format!("task: non-zero exit ({code}): {cause}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_dockers() {
        assert_eq!(
            [ACCEPTED, PREPARING, PREPARED, STARTING, STARTED, FINISHED, SHUTDOWN],
            ["accepted", "preparing", "prepared", "starting", "started", "finished", "shutdown"]
        );
        assert_eq!(exit(1, ""), "task: non-zero exit (1)");
        assert_eq!(
            exit(137, "dockerexec: unhealthy container"),
            "task: non-zero exit (137): dockerexec: unhealthy container"
        );
        assert_eq!(exit(0, "dockerexec: unhealthy container"), "dockerexec: unhealthy container");
    }
}
