//! `ketch.rebalance=true|false`: whether running tasks of the service move to nodes that come or return, until they are spread evenly.

use crate::objects::{Labels, ServiceMode, ServiceSpec};

use super::Refusal;

pub const LABEL: &str = "ketch.rebalance";

/// Whether it is asked for.
///
/// # Errors
/// When the value is another word.
pub fn parse(labels: &Labels) -> Result<bool, Refusal> {
    super::switch(labels, LABEL)
}

/// Refuses services whose tasks can't move: each node has its own, or they are to end where they are.
pub(super) fn fits(spec: &ServiceSpec) -> Result<(), Refusal> {
    let is_moved = matches!(spec.mode, ServiceMode::Replicated { .. });
    if is_moved || parse(&spec.labels) == Ok(false) {
        return Ok(());
    }
    Err(Refusal::new(LABEL, "is for services of the mode replicated"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn labels(text: &str) -> Labels {
        Labels::from([(LABEL.to_owned(), text.to_owned())])
    }

    #[test]
    fn one_of_two_words() {
        assert_eq!(parse(&Labels::new()), Ok(false));
        assert_eq!(parse(&labels("true")), Ok(true));
        assert_eq!(parse(&labels("false")), Ok(false));
        let told = parse(&labels("yes")).unwrap_err().to_string();
        assert_eq!(told, "label ketch.rebalance: \"yes\" is neither true nor false");
    }

    #[test]
    fn of_replicated_services_alone() {
        let told = |mode, text| {
            let mut spec = fixture::service(1, mode).spec;
            spec.labels = labels(text);
            fits(&spec).map_err(|refusal| refusal.to_string())
        };
        assert_eq!(told(ServiceMode::Replicated { replicas: 3 }, "true"), Ok(()));
        assert_eq!(told(ServiceMode::Global, "false"), Ok(()));
        let why = Err("label ketch.rebalance: is for services of the mode replicated".to_owned());
        assert_eq!(told(ServiceMode::Global, "true"), why);
        assert_eq!(told(ServiceMode::ReplicatedJob { max_concurrent: 1, total_completions: 2 }, "true"), why);
    }
}
