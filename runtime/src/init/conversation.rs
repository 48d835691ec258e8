//! The parent's part of the conversation of [`super::protocol`]: [`converse`], what it answers ([`Answers`]), and what it
//! makes of a child that fell silent. Called by [`super::parent`] and [`super::exec`].

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use ketch_sys::process::{Child, Pid};
use ketch_sys::socket;

use super::birth::has_word;
use super::protocol::{Channel, Message, ProtocolError};
use super::rlimits::set_rlimits;
use super::{InitError, ProcessIo, step};
use crate::plan::FilterPlan;
use crate::plan::process::RlimitPlan;

/// How the parent answers what not every child asks for.
pub(super) trait Answers {
    /// The container's state, for a filter's agent.
    fn state(&self, pid: Pid) -> Vec<u8>;

    /// The child is ready for its program, and waits.
    fn ready(&mut self, started: &Child) -> Result<(), InitError>;

    /// Whether the child may make another one beside itself, which then has its end of the channel, too.
    fn makes_sibling(&self) -> bool;

    /// Whether the child is done once its end closes: then execve has closed it.
    fn is_done_at_the_end(&self) -> bool;

    /// A request that is not of every child.
    fn answer(&mut self, request: Message, channel: &Channel, started: &Child) -> Result<(), InitError>;
}

/// How far the child is when a conversation begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// It will say when it is ready.
    OnItsWay,
    /// It waits for its `Run`.
    Ready,
}

/// The rest of the conversation, until the child says that it is done, or does what shows it, or that it has made
/// another one beside itself, whose number this gives.
pub(super) fn converse(
    rlimits: &[RlimitPlan],
    filter: Option<&FilterPlan>,
    (channel, started, progress): (&Channel, &Child, Progress),
    answers: &mut dyn Answers,
) -> Result<Option<Pid>, InitError> {
    let let_run = |answers: &mut dyn Answers| {
        set_rlimits(started.pid, rlimits)?;
        answers.ready(started)?;
        // The child has gone on meanwhile, and may have failed.
        tell(channel, &Message::Run)
    };
    let mut ready = progress == Progress::Ready;
    if ready {
        let_run(answers)?;
    }
    loop {
        let has_ended = answers.makes_sibling() && !has_word(channel, started)?;
        let Some((message, mut fds)) = (if has_ended { None } else { channel.receive()? }) else { break };
        match message {
            Message::Ready if !ready => {
                let_run(answers)?;
                ready = true;
            }
            Message::Pid(pid) if answers.makes_sibling() && !ready => return Ok(Some(pid)),
            Message::SeccompListener => {
                let listener = fds.pop().ok_or(ProtocolError::Ended)?;
                if let Some(source) = filter {
                    send_listener(source, &listener, &answers.state(started.pid), started.pid)?;
                }
                tell(channel, &Message::ListenerTaken)?;
            }
            Message::Created if ready => return Ok(None),
            Message::Error(text) => return Err(ProtocolError::Reported(text).into()),
            request => answers.answer(request, channel, started)?,
        }
    }
    if ready && answers.is_done_at_the_end() { Ok(None) } else { Err(ProtocolError::Ended.into()) }
}

/// Hands the filter's listener to the agent that the configuration names, with the state that the runtime-spec
/// gives it (config-linux.md, "The Container Process State").
fn send_listener(source: &FilterPlan, listener: &OwnedFd, state: &[u8], pid: Pid) -> Result<(), InitError> {
    let state: serde_json::Value = serde_json::from_slice(state).unwrap_or_default();
    let process_state = serde_json::json!({
        "ociVersion": crate::spec::OCI_VERSION,
        "fds": ["seccompFd"],
        "pid": pid,
        "metadata": source.listener_metadata,
        "state": state,
    });
    let connection = socket::connect_unix(socket::SocketKind::Stream, Path::new(&source.listener_path))
        .map_err(step("failed to connect with seccomp agent specified in the seccomp profile"))?;
    socket::send(&connection, process_state.to_string().as_bytes(), &[listener.as_fd()])
        .map_err(step("cannot send seccomp fd to the seccomp agent"))
}

/// Whoever is sent a pidfd of the process.
pub(super) struct PidfdTaker {
    socket: OwnedFd,
    /// The text of the message.
    name: &'static str,
}

impl PidfdTaker {
    /// The parent's copy: the process itself is not to have the socket.
    pub(super) fn of(io: &ProcessIo, name: &'static str) -> Result<Option<Self>, InitError> {
        let socket = io.pidfd_socket.as_ref().map(OwnedFd::try_clone).transpose();
        Ok(socket.map_err(InitError::from_io)?.map(|socket| Self { socket, name }))
    }

    /// Tells `taker` of the process, which has not yet become its program.
    pub(super) fn tell(taker: Option<Self>, started: &Child) -> Result<(), InitError> {
        let Some(Self { socket, name }) = taker else { return Ok(()) };
        socket::send(&socket, name.as_bytes(), &[started.pidfd.as_fd()])
            .map_err(step("failed to setup pidfd"))
    }
}

/// Sends a message to the child; what it has said before it hung up counts more than that it has.
pub(super) fn tell(channel: &Channel, message: &Message) -> Result<(), InitError> {
    tell_with(channel, message, &[])
}

pub(super) fn tell_with(
    channel: &Channel,
    message: &Message,
    fds: &[BorrowedFd<'_>],
) -> Result<(), InitError> {
    reached(channel, channel.send_with(message, fds))
}

/// Whether what was `sent` to the child, on whichever channel, has reached it; what it has said on its own counts more.
pub(super) fn reached(channel: &Channel, sent: Result<(), ProtocolError>) -> Result<(), InitError> {
    sent.map_err(|error| match error {
        ProtocolError::Ended => last_words(channel, error),
        // It is still there and waits, for ever if it were listened to.
        error => error.into(),
    })
}

/// What is done to a child fails when it is gone; it may have said why. Only for a child that has its `Go`: another one
/// would be waited for without end.
pub(super) fn last_words(channel: &Channel, error: impl Into<InitError>) -> InitError {
    match channel.receive() {
        Ok(Some((Message::Error(text), _))) => ProtocolError::Reported(text).into(),
        Ok(None) => ProtocolError::Ended.into(),
        _ => error.into(),
    }
}
