//! Placement constraints: `node.labels.zone == a`, parsed once and asked of many nodes.
//!
//! It owns what a key and a value may hold, what each key reads of a node, and the texts of what is refused, which
//! clients show as they are. `control` refuses a spec by it; the global orchestrator and the scheduler ask it. The
//! scheduler also reads its spread descriptors here, as they are keys of the same kind.

use std::net::IpAddr;

use crate::objects::network::Subnet;
use crate::objects::node::{NodeDescription, NodeRole};
use crate::objects::{Labels, Node};

/// Why a text is no constraint. The words are SwarmKit's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    #[error("constraint expected one operator from ==, !=")]
    NoOperator,
    #[error("key '{0}' is invalid")]
    Key(String),
    #[error("value '{0}' is invalid")]
    Value(String),
}

/// All of them must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Constraints(Vec<Constraint>);

impl Constraints {
    /// The constraints of a spec, as its user wrote them.
    ///
    /// # Errors
    /// The first one that can't be parsed. A key that reads nothing of a node is none: such a constraint never holds.
    pub fn parse(texts: &[String]) -> Result<Self, ConstraintError> {
        texts.iter().map(|text| Constraint::parse(text)).collect::<Result<_, _>>().map(Self)
    }

    /// Whether the node satisfies every one.
    #[must_use]
    pub fn allow(&self, node: &Node) -> bool {
        self.0.iter().all(|constraint| constraint.holds(node))
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
}

impl Operator {
    /// In the order in which they are looked for: `a!=b==c` is split at `==`.
    const ALL: [(Self, &'static str); 2] = [(Self::Equal, "=="), (Self::NotEqual, "!=")];
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Constraint {
    left: Left,
    operator: Operator,
    value: String,
}

/// What is compared with the value.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Left {
    Text(Descriptor),
    Address(Range),
    /// No key that is known: it holds for no node, whatever the operator.
    Unknown,
}

/// The value of a `node.ip` constraint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Range {
    One(IpAddr),
    Subnet(Subnet),
    /// Neither: it holds for no node, whatever the operator.
    Malformed,
}

impl Constraint {
    fn parse(text: &str) -> Result<Self, ConstraintError> {
        let (operator, (key, value)) = Operator::ALL
            .into_iter()
            .find_map(|(operator, sign)| Some((operator, text.split_once(sign)?)))
            .ok_or(ConstraintError::NoOperator)?;
        let (key, value) = (key.trim(), value.trim());
        if !is_key(key) {
            return Err(ConstraintError::Key(key.to_owned()));
        }
        if !is_value(value) {
            return Err(ConstraintError::Value(value.to_owned()));
        }
        let left = if key.eq_ignore_ascii_case("node.ip") {
            Left::Address(Range::parse(value))
        } else {
            Descriptor::parse(key).map_or(Left::Unknown, Left::Text)
        };
        Ok(Self { left, operator, value: value.to_owned() })
    }

    fn holds(&self, node: &Node) -> bool {
        let equal = match &self.left {
            Left::Text(descriptor) => descriptor.of(node).eq_ignore_ascii_case(&self.value),
            Left::Address(Range::One(address)) => address_of(node) == Some(*address),
            Left::Address(Range::Subnet(subnet)) => address_of(node).is_some_and(|it| subnet.contains(it)),
            Left::Address(Range::Malformed) | Left::Unknown => return false,
        };
        equal == (self.operator == Operator::Equal)
    }
}

impl Range {
    fn parse(value: &str) -> Self {
        match (value.parse::<IpAddr>(), value.parse::<Subnet>()) {
            (Ok(address), _) => Self::One(address.to_canonical()),
            (_, Ok(subnet)) => Self::Subnet(subnet),
            _ => Self::Malformed,
        }
    }
}

/// The address that the leader knows the node by; none when it has not connected.
fn address_of(node: &Node) -> Option<IpAddr> {
    node.status.address.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// A key that reads a text of a node. Known keys compare without case, the label's name in them with case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Descriptor {
    Id,
    Hostname,
    Role,
    Os,
    Architecture,
    NodeLabel(String),
    EngineLabel(String),
}

impl Descriptor {
    /// None when it reads nothing of a node.
    pub(crate) fn parse(key: &str) -> Option<Self> {
        let label = |prefix: &str| {
            let (start, label) = key.split_at_checked(prefix.len())?;
            (start.eq_ignore_ascii_case(prefix) && !label.is_empty()).then(|| label.to_owned())
        };
        match key.to_ascii_lowercase().as_str() {
            "node.id" => Some(Self::Id),
            "node.hostname" => Some(Self::Hostname),
            "node.role" => Some(Self::Role),
            "node.platform.os" => Some(Self::Os),
            "node.platform.arch" => Some(Self::Architecture),
            _ => label("node.labels.")
                .map(Self::NodeLabel)
                .or_else(|| label("engine.labels.").map(Self::EngineLabel)),
        }
    }

    /// What it reads of the node; empty where the node has no such thing, or has not said so yet.
    pub(crate) fn of<'n>(&self, node: &'n Node) -> std::borrow::Cow<'n, str> {
        let of_description = |read: fn(&NodeDescription) -> &String| {
            node.description.as_ref().map_or_else(Default::default, |it| read(it).as_str().into())
        };
        match self {
            Self::Id => node.id.to_string().into(),
            Self::Hostname => of_description(|it| &it.hostname),
            Self::Role => role_text(node.role).into(),
            Self::Os => of_description(|it| &it.platform.os),
            Self::Architecture => of_description(|it| &it.platform.architecture),
            Self::NodeLabel(label) => label_of(Some(&node.spec.labels), label).into(),
            Self::EngineLabel(label) => {
                label_of(node.description.as_ref().map(|it| &it.engine.labels), label).into()
            }
        }
    }
}

fn role_text(role: NodeRole) -> &'static str {
    match role {
        NodeRole::Worker => "worker",
        NodeRole::Manager => "manager",
    }
}

fn label_of<'n>(labels: Option<&'n Labels>, label: &str) -> &'n str {
    labels.and_then(|labels| labels.get(label)).map_or("", String::as_str)
}

/// A letter or `_`, then at least one of letters, digits, `-`, `_` and `.`.
fn is_key(text: &str) -> bool {
    let mut bytes = text.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    first && text.len() > 1 && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// At least one character, and none that is or may become an operator.
fn is_value(text: &str) -> bool {
    const ALLOWED: &[u8] = b":-_ \t\n\x0c\r.*()?+[]\\^$|/";
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || ALLOWED.contains(&byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixture;
    use crate::objects::node::NodeStatus;

    fn node() -> Node {
        let mut node = fixture::node(7);
        node.spec.labels.insert("Zone".to_owned(), "Paris".to_owned());
        node.status.address = "10.1.2.3".to_owned();
        node.role = NodeRole::Manager;
        let description = node.description.as_mut().unwrap();
        description.hostname = "Host-1".to_owned();
        description.engine.labels.insert("disk".to_owned(), "ssd".to_owned());
        node
    }

    fn parse(text: &str) -> Result<Constraints, ConstraintError> {
        Constraints::parse(&[text.to_owned()])
    }

    fn allows(text: &str) -> bool {
        parse(text).unwrap().allow(&node())
    }

    #[test]
    fn each_key_reads_its_part_of_the_node() {
        for holds in [
            "node.id == 0000000000000000000000007",
            "node.hostname==host-1",
            "NODE.HostName == HOST-1",
            "node.role == Manager",
            "node.platform.os == Linux",
            "node.platform.arch == X86_64",
            "node.labels.Zone == paris",
            "NODE.LABELS.Zone == PARIS",
            "engine.labels.disk == SSD",
        ] {
            assert!(allows(holds), "{holds}");
            assert!(!allows(&holds.replace("==", "!=")), "not {holds}");
        }
        assert!(!allows("node.labels.zone == paris"), "label keys compare with case");
        assert!(allows("node.labels.zone != paris"), "a label that is missing is empty");
        assert!(allows("engine.labels.gpu != yes"));
    }

    #[test]
    fn an_address_is_compared_as_one_or_as_a_subnet() {
        for holds in [
            "node.ip == 10.1.2.3",
            "node.ip == 10.1.0.0/16",
            "node.ip != 10.2.0.0/16",
            "node.ip==::ffff:10.1.2.3",
        ] {
            assert!(allows(holds), "{holds}");
        }
        for fails in ["node.ip == 10.1.2.4", "node.ip != 10.1.0.0/16", "node.ip == fd00::/8"] {
            assert!(!allows(fails), "{fails}");
        }
        assert!(
            !allows("node.ip == nowhere") && !allows("node.ip != nowhere"),
            "malformed holds for no node"
        );
        let unknown = Node { status: NodeStatus::default(), ..node() };
        assert!(!parse("node.ip == 0.0.0.0/0").unwrap().allow(&unknown));
        assert!(parse("node.ip != 10.0.0.0/8").unwrap().allow(&unknown));
    }

    #[test]
    fn a_node_that_has_not_registered_has_only_its_labels_and_role() {
        let bare = Node { description: None, ..node() };
        assert!(parse("node.labels.Zone == Paris").unwrap().allow(&bare));
        assert!(!parse("engine.labels.disk == ssd").unwrap().allow(&bare));
        assert!(parse("node.hostname != host-1").unwrap().allow(&bare));
    }

    #[test]
    fn an_unknown_key_holds_for_no_node() {
        for text in ["node.colour == red", "node.colour != red", "node.labels. == a", "engine.labels != a"] {
            assert!(!allows(text), "{text}");
        }
    }

    #[test]
    fn all_must_hold() {
        let both =
            |a: &str, b: &str| Constraints::parse(&[a.to_owned(), b.to_owned()]).unwrap().allow(&node());
        assert!(both("node.role == manager", "node.labels.Zone == paris"));
        assert!(!both("node.role == manager", "node.labels.Zone == rome"));
        assert!(Constraints::parse(&[]).unwrap().allow(&node()));
    }

    /// The words are what clients show and scripts look for.
    #[test]
    fn what_is_refused_is_told_in_swarmkits_words() {
        for (text, told) in [
            ("node.role", "constraint expected one operator from ==, !="),
            ("node.role = manager", "constraint expected one operator from ==, !="),
            ("", "constraint expected one operator from ==, !="),
            (" == a", "key '' is invalid"),
            ("a == b", "key 'a' is invalid"),
            ("1node.id == b", "key '1node.id' is invalid"),
            ("node role == b", "key 'node role' is invalid"),
            ("node.id != a == b", "key 'node.id != a' is invalid"),
            ("node.id == ", "value '' is invalid"),
            ("node.id == a>b", "value 'a>b' is invalid"),
            ("node.id == ~a", "value '~a' is invalid"),
            ("node.id === a", "value '= a' is invalid"),
            ("node.labels.X == ä", "value 'ä' is invalid"),
        ] {
            assert_eq!(parse(text).map_err(|error| error.to_string()), Err(told.to_owned()), "{text}");
        }
        assert!(parse("_a == a:b-c_d e.*()?+[]\\^$|/").is_ok());
    }

    fn likely() -> impl Strategy<Value = String> {
        let key = prop_oneof![
            Just("node.labels.".to_owned()),
            Just("engine.labels.x".to_owned()),
            Just("node.ip".to_owned()),
            "[a-zA-Z.ä_ ]{0,16}",
        ];
        (key, "[ =!]{0,4}", "\\PC{0,12}").prop_map(|(key, sign, value)| key + &sign + &value)
    }

    proptest! {
        #[test]
        fn no_input_panics_and_each_operator_says_the_opposite(text in prop_oneof![any::<String>(), likely()]) {
            if let Ok(constraints) = parse(&text) {
                let [constraint] = &constraints.0[..] else { panic!("one text, one constraint") };
                let (equal, not) = [Operator::Equal, Operator::NotEqual]
                    .map(|operator| Constraint { operator, ..constraint.clone() }.holds(&node()))
                    .into();
                let of_no_node = matches!(constraint.left, Left::Unknown | Left::Address(Range::Malformed));
                prop_assert_eq!(equal ^ not, !of_no_node);
            }
        }
    }
}
