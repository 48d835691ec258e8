//! Protobuf's well-known types as far as the protocol has them, and the names that messages have inside an [`Any`].
//! prost-types would bring a dozen more of them.

use std::time::{SystemTime, UNIX_EPOCH};

use prost::{DecodeError, Message};

/// A message that says its type.
#[derive(Clone, PartialEq, Message)]
pub struct Any {
    #[prost(string, tag = "1")]
    pub type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// A point in time.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Timestamp {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// A message without fields.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Empty {}

/// A message with a name, by which an [`Any`] is recognised.
pub trait Named: Message + Default {
    /// The full name, without a host before it.
    const NAME: &'static str;
}

macro_rules! named {
    ($($message:ty => $name:literal),* $(,)?) => {
        $(impl Named for $message { const NAME: &'static str = $name; })*
    };
}

named! {
    crate::events::TaskCreate => "containerd.events.TaskCreate",
    crate::events::TaskStart => "containerd.events.TaskStart",
    crate::events::TaskDelete => "containerd.events.TaskDelete",
    crate::events::TaskExit => "containerd.events.TaskExit",
    crate::events::TaskOom => "containerd.events.TaskOOM",
    crate::events::TaskExecAdded => "containerd.events.TaskExecAdded",
    crate::events::TaskExecStarted => "containerd.events.TaskExecStarted",
    crate::events::TaskPaused => "containerd.events.TaskPaused",
    crate::events::TaskResumed => "containerd.events.TaskResumed",
    crate::events::TaskCheckpointed => "containerd.events.TaskCheckpointed",
    crate::options::Options => "containerd.runc.v1.Options",
    crate::options::CheckpointOptions => "containerd.runc.v1.CheckpointOptions",
    crate::options::ProcessDetails => "containerd.runc.v1.ProcessDetails",
    crate::options::RuntimeOptions => "runtimeoptions.v1.Options",
    crate::cri::PodSandboxConfig => "runtime.v1.PodSandboxConfig",
    crate::cgroup1::Metrics => "io.containerd.cgroups.v1.Metrics",
    crate::cgroup2::Metrics => "io.containerd.cgroups.v2.Metrics",
}

impl Any {
    /// Packs a message under its name.
    pub fn pack<M: Named>(message: &M) -> Self {
        Self { type_url: M::NAME.to_owned(), value: message.encode_to_vec() }
    }

    /// Whether this says that it is an `M`; what stands before the last slash is a host that nobody asks.
    pub fn is<M: Named>(&self) -> bool {
        self.type_name() == M::NAME
    }

    /// The name without a host.
    pub fn type_name(&self) -> &str {
        self.type_url.rsplit('/').next().unwrap_or(&self.type_url)
    }

    /// The message inside, if this says that it is an `M`.
    ///
    /// # Errors
    /// The bytes are not an `M`.
    pub fn unpack<M: Named>(&self) -> Result<Option<M>, DecodeError> {
        if self.is::<M>() { M::decode(self.value.as_slice()).map(Some) } else { Ok(None) }
    }
}

impl From<SystemTime> for Timestamp {
    /// Before 1970 is 1970: no process exited then.
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { seconds: since.as_secs().cast_signed(), nanos: since.subsec_nanos().cast_signed() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::TaskOom;

    #[test]
    fn a_message_is_found_by_its_name_with_and_without_a_host() {
        let mut any = Any::pack(&TaskOom { container_id: "a".into() });
        assert_eq!(any.type_url, "containerd.events.TaskOOM");
        any.type_url = "types.googleapis.com/containerd.events.TaskOOM".into();
        assert_eq!(any.unpack::<TaskOom>().unwrap().unwrap().container_id, "a");
        assert_eq!(any.unpack::<crate::events::TaskExit>().unwrap(), None);
    }

    #[test]
    fn bytes_that_are_no_message_are_an_error() {
        let any = Any { type_url: "containerd.events.TaskOOM".into(), value: vec![0x0a, 0xff] };
        assert!(any.unpack::<TaskOom>().is_err());
    }

    #[test]
    fn a_timestamp_keeps_nanoseconds() {
        let time = UNIX_EPOCH + std::time::Duration::new(7, 9);
        assert_eq!(Timestamp::from(time), Timestamp { seconds: 7, nanos: 9 });
    }
}
