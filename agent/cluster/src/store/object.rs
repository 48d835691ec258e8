//! An object of any kind, and its id.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{ClusterId, ConfigId, NetworkId, NodeId, SecretId, ServiceId, TaskId};
use crate::label::scale;
use crate::objects::{Cluster, Config, Meta, Network, Node, Secret, Service, ServiceSpec, Task, Version};

/// Its text is how errors name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectKind {
    Cluster,
    Node,
    Service,
    Task,
    Network,
    Secret,
    Config,
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cluster => "cluster",
            Self::Node => "node",
            Self::Service => "service",
            Self::Task => "task",
            Self::Network => "network",
            Self::Secret => "secret",
            Self::Config => "config",
        })
    }
}

macro_rules! objects {
    ($($kind:ident($id:ident)),+ $(,)?) => {
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        pub enum Object {
            $($kind(Arc<$kind>),)+
        }

        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum ObjectId {
            $($kind($id),)+
        }

        $(impl From<$kind> for Object {
            fn from(object: $kind) -> Self {
                Self::$kind(Arc::new(object))
            }
        }

        impl From<$id> for ObjectId {
            fn from(id: $id) -> Self {
                Self::$kind(id)
            }
        })+

        impl Object {
            #[must_use]
            pub fn id(&self) -> ObjectId {
                match self {
                    $(Self::$kind(object) => ObjectId::$kind(object.id),)+
                }
            }

            fn meta(&self) -> &Meta {
                match self {
                    $(Self::$kind(object) => &object.meta,)+
                }
            }

            /// The same, last written at `version`.
            pub(super) fn at(&self, version: Version) -> Self {
                match self {
                    $(Self::$kind(object) => {
                        let mut object = $kind::clone(object);
                        object.meta.version = version;
                        Self::from(object)
                    })+
                }
            }
        }

        impl ObjectId {
            #[must_use]
            pub fn kind(self) -> ObjectKind {
                match self {
                    $(Self::$kind(_) => ObjectKind::$kind,)+
                }
            }
        }
    };
}

objects! {
    Cluster(ClusterId),
    Node(NodeId),
    Service(ServiceId),
    Task(TaskId),
    Network(NetworkId),
    Secret(SecretId),
    Config(ConfigId),
}

impl Object {
    #[must_use]
    pub fn kind(&self) -> ObjectKind {
        self.id().kind()
    }

    #[must_use]
    pub fn version(&self) -> Version {
        self.meta().version
    }

    /// The same, its spec last written at `version`. Only services remember that: their tasks are compared by it.
    pub(super) fn with_spec_written_at(self, version: Version) -> Self {
        let Self::Service(mut service) = self else { return self };
        Arc::make_mut(&mut service).spec_version = version;
        Self::Service(service)
    }

    /// When its spec was last written; of services only.
    pub(super) fn spec_version(&self) -> Option<Version> {
        match self {
            Self::Service(service) => Some(service.spec_version),
            _ => None,
        }
    }

    /// Whether both are services with the same spec, or no services. How many replicas its load asks for is no part of it: no task hangs
    /// on that, and what is counted of a spec's tasks is not to begin anew each time.
    pub(super) fn has_spec_of(&self, other: &Self) -> bool {
        let (Self::Service(this), Self::Service(other)) = (self, other) else { return true };
        this.spec == other.spec
            || (scale::parse(&this.spec.labels).is_ok_and(|scale| scale.is_some())
                && ServiceSpec { mode: other.spec.mode, ..this.spec.clone() } == other.spec
                && std::mem::discriminant(&this.spec.mode) == std::mem::discriminant(&other.spec.mode))
    }

    /// Whether it is a secret or config in whose place there is another one.
    pub(super) fn is_superseded(&self) -> bool {
        match self {
            Self::Secret(secret) => secret.superseded,
            Self::Config(config) => config.superseded,
            _ => false,
        }
    }

    /// The name that no other of its kind may have, compared without regard to the case of its letters. A network that is
    /// to go has none any more, nor has a superseded secret or config: nobody sees it, and the next one may be called so.
    #[must_use]
    pub fn unique_name(&self) -> Option<&str> {
        match self {
            Self::Service(service) => Some(&service.spec.name),
            Self::Network(network) => (!network.pending_delete).then_some(&network.spec.name),
            Self::Secret(secret) => (!secret.superseded).then_some(&secret.spec.name),
            Self::Config(config) => (!config.superseded).then_some(&config.spec.name),
            Self::Cluster(_) | Self::Node(_) | Self::Task(_) => None,
        }
    }
}
