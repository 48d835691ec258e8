//! When a container that has ended is started again: Docker's policies and pauses. Pure.

use std::time::Duration;

use ketch_engine_api::host_config::RestartPolicy;

use crate::error::{Error, Result};

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(60);
/// A run of this length makes the next pause the first again.
const LONG_RUN: Duration = Duration::from_secs(10);

/// How a run has ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// Its status.
    pub exit_code: i64,
    /// Whether somebody has stopped it.
    pub stopped: bool,
    /// How often it was started again already.
    pub restarts: u32,
    /// How long it ran.
    pub ran: Duration,
    /// The pause before this run; zero if it was started by hand.
    pub pause: Duration,
}

/// The pause after which it is started again; `None` when it is not.
#[must_use]
pub fn decide(policy: &RestartPolicy, ended: Ended) -> Option<Duration> {
    let again = !ended.stopped
        && match policy.name.as_str() {
            "always" | "unless-stopped" => true,
            "on-failure" => {
                let most = policy.maximum_retry_count;
                ended.exit_code != 0 && (most == 0 || i64::from(ended.restarts) < most)
            }
            _ => false,
        };
    let first = ended.pause.is_zero() || ended.ran >= LONG_RUN;
    again.then(|| if first { FIRST } else { (ended.pause * 2).min(LONGEST) })
}

/// Whether a policy can be meant.
///
/// # Errors
/// dockerd's texts.
pub fn check(policy: &RestartPolicy, auto_remove: bool) -> Result<()> {
    let invalid = |why: String| Err(Error::invalid(format!("invalid restart policy: {why}")));
    match policy.name.as_str() {
        "" | "no" | "always" | "unless-stopped" if policy.maximum_retry_count != 0 => {
            let mut why = "maximum retry count can only be used with 'on-failure'".to_owned();
            if policy.maximum_retry_count < 0 {
                why.push_str(" and cannot be negative");
            }
            return invalid(why);
        }
        "on-failure" if policy.maximum_retry_count < 0 => {
            return invalid("maximum retry count cannot be negative".to_owned());
        }
        "" | "no" | "always" | "unless-stopped" | "on-failure" => {}
        other => {
            return invalid(format!(
                "unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
            ));
        }
    }
    if auto_remove && !matches!(policy.name.as_str(), "" | "no") {
        return Err(Error::invalid("can't create 'AutoRemove' container with restart policy"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(exit_code: i64, restarts: u32, pause: u64) -> Ended {
        let pause = Duration::from_millis(pause);
        Ended { exit_code, stopped: false, restarts, ran: Duration::from_secs(1), pause }
    }

    fn policy(name: &str, maximum_retry_count: i64) -> RestartPolicy {
        RestartPolicy { name: name.into(), maximum_retry_count }
    }

    #[test]
    fn pauses_double_up_to_a_minute() {
        let always = policy("always", 0);
        let next = |pause| decide(&always, ended(0, 1, pause)).unwrap().as_millis();
        assert_eq!((next(0), next(100), next(51_200), next(60_000)), (100, 200, 60_000, 60_000));
        let long = Ended { ran: LONG_RUN, ..ended(0, 1, 800) };
        assert_eq!(decide(&always, long), Some(FIRST));
    }

    #[test]
    fn policies() {
        assert!(decide(&policy("no", 0), ended(1, 0, 0)).is_none());
        assert!(decide(&policy("on-failure", 0), ended(0, 0, 0)).is_none());
        assert!(decide(&policy("on-failure", 2), ended(1, 1, 0)).is_some());
        assert!(decide(&policy("on-failure", 2), ended(1, 2, 0)).is_none());
        let stopped = Ended { stopped: true, ..ended(1, 0, 0) };
        assert!(decide(&policy("always", 0), stopped).is_none());
    }

    #[test]
    fn checks() {
        assert!(check(&policy("", 0), true).is_ok() && check(&policy("on-failure", 3), false).is_ok());
        for (bad, remove) in [("x", false), ("always", true)] {
            assert!(check(&policy(bad, 0), remove).is_err());
        }
        assert!(check(&policy("always", 1), false).unwrap_err().message.contains("only be used with"));
    }
}
