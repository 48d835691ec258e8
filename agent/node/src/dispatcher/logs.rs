//! Logs of tasks: who wants to read which, and the way of the lines from the nodes to him.
//!
//! Each task of a reader is a part of its own: asked for at its node by a number of its own, it ends by itself, or with the reason
//! why it can't be had, and the others go on. A node whose session is made anew is asked again, for what comes after the last line
//! that has arrived. Lines are held nowhere: a node's call is answered when the reader has room for what it brought.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use ketch_cluster::id::{NodeId, TaskId};
use ketch_cluster::objects::node::NodeState;
use ketch_cluster::store::Store;
use tokio::sync::mpsc;

use super::bell::Topic;
use super::{Dispatcher, texts};
use crate::calls::{LogsTell, LogsWanted, SessionMessage};
use crate::executor::{LogLine, LogOptions};
use ketch_cluster::time::Timestamp;

/// Lines that a reader may be behind; what comes then waits at its node.
const BEHIND: usize = 64;

/// What a reader gets. The lines of one task are in order; those of several as they come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogMessage {
    Line {
        task: TaskId,
        node: NodeId,
        line: LogLine,
    },
    /// No more of this task; with why, when it is not all that there was to be read.
    Ended {
        task: TaskId,
        error: Option<String>,
    },
}

/// Logs as they come in. Dropped, the nodes stop to send.
#[derive(Debug)]
pub struct LogStream {
    messages: mpsc::Receiver<LogMessage>,
    dispatcher: Weak<Dispatcher>,
    reader: u64,
}

/// Adds tasks to logs that are read: of a service that is followed. While there is one, the stream does not end.
#[derive(Debug)]
pub struct LogHandle {
    to: mpsc::Sender<LogMessage>,
    dispatcher: Weak<Dispatcher>,
    reader: u64,
    options: LogOptions,
    asked: Mutex<BTreeSet<TaskId>>,
}

/// The parts that are under way, by their nodes and numbers.
#[derive(Debug, Default)]
pub(super) struct Logs(Mutex<Parts>);

#[derive(Debug, Default)]
struct Parts {
    open: BTreeMap<(NodeId, u64), Part>,
    next: u64,
}

#[derive(Debug)]
struct Part {
    reader: u64,
    task: TaskId,
    node: NodeId,
    options: LogOptions,
    to: mpsc::Sender<LogMessage>,
}

impl LogStream {
    /// The next message; none when all parts have ended and nobody can add more, or the leadership is over.
    pub async fn next(&mut self) -> Option<LogMessage> {
        self.messages.recv().await
    }
}

impl Drop for LogStream {
    fn drop(&mut self) {
        if let Some(dispatcher) = self.dispatcher.upgrade() {
            let nodes = dispatcher.logs.close(self.reader);
            nodes.into_iter().for_each(|node| dispatcher.sessions.ring_one(node, Topic::Logs));
        }
    }
}

impl LogHandle {
    /// Reads that task's log, too, if it was not added before; whether it was not. One without a node ends at once: it is added again
    /// when it has one.
    pub fn add(&self, task: TaskId, node: Option<NodeId>) -> bool {
        let Some(node) = node else {
            end(self.to.clone(), task, Some(texts::not_scheduled(task)));
            return false;
        };
        let is_new = self.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(task);
        if let Some(dispatcher) = self.dispatcher.upgrade().filter(|_| is_new) {
            let part =
                Part { reader: self.reader, task, node, options: self.options.clone(), to: self.to.clone() };
            dispatcher.read(part);
        }
        is_new
    }

    /// The task is no more, and will not be added again; whether it was. What is read of it goes on.
    pub fn forget(&self, task: TaskId) -> bool {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).remove(&task)
    }
}

/// A node's call that is under way. Dropped before its lines are taken, the node is asked again.
#[derive(Debug)]
struct Taking<'a> {
    dispatcher: &'a Dispatcher,
    of: Option<(NodeId, u64)>,
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        if let Some(of) = self.of {
            self.dispatcher.logs.ask_again(of);
            self.dispatcher.sessions.ring_one(of.0, Topic::Logs);
        }
    }
}

impl Dispatcher {
    /// Takes what a node has sent of a log; whether more is wanted.
    pub(super) async fn take_lines(&self, node: NodeId, told: LogsTell) -> bool {
        let mut taking = Taking { dispatcher: self, of: Some((node, told.subscription)) };
        let go_on = self.logs.take(node, told).await;
        taking.of = None;
        go_on
    }

    /// Reads logs of these tasks, each on its node. The stream ends with the last of them, unless the handle is kept.
    pub fn logs(
        self: &Arc<Self>,
        tasks: impl IntoIterator<Item = (TaskId, Option<NodeId>)>,
        options: LogOptions,
    ) -> (LogStream, LogHandle) {
        let (to, messages) = mpsc::channel(BEHIND);
        let reader = self.logs.number();
        let dispatcher = Arc::downgrade(self);
        let handle =
            LogHandle { to, dispatcher: dispatcher.clone(), reader, options, asked: Mutex::default() };
        tasks.into_iter().for_each(|(task, node)| _ = handle.add(task, node));
        (LogStream { messages, dispatcher, reader }, handle)
    }

    fn read(&self, part: Part) {
        let node = part.node;
        self.logs.open(part);
        // After it is there: if the node goes down from now on, that is told.
        if self.leader.has_ended() {
            self.logs.clear();
        } else if !self.leader.view(|view| is_available(view, node)) {
            self.logs.lose(node);
        } else {
            self.sessions.ring_one(node, Topic::Logs);
        }
    }
}

impl Logs {
    /// What a session is to be told: the parts of its node that it does not know, and those that are no more.
    pub(super) fn news(&self, node: NodeId, told: &mut BTreeSet<u64>) -> Vec<SessionMessage> {
        let parts = self.parts();
        let mut news = Vec::new();
        told.retain(|number| {
            let stays = parts.open.contains_key(&(node, *number));
            if !stays {
                news.push(SessionMessage::LogsEnd { subscription: *number });
            }
            stays
        });
        for ((_, number), part) in parts.open.range((node, 0)..=(node, u64::MAX)) {
            if told.insert(*number) {
                let (tasks, options) = (vec![part.task], part.options.clone());
                news.push(SessionMessage::Logs(LogsWanted { subscription: *number, tasks, options }));
            }
        }
        news
    }

    /// Gives a reader what a node has sent of its part, when there is room for it; whether more is wanted.
    async fn take(&self, node: NodeId, told: LogsTell) -> bool {
        let number = (node, told.subscription);
        let part = self.parts().open.get(&number).map(|part| (part.task, part.to.clone()));
        let Some((task, to)) = part else { return false };
        for (_, line) in told.lines.into_iter().filter(|(of, _)| *of == task) {
            let at = line.at;
            if to.send(LogMessage::Line { task, node, line }).await.is_err() {
                self.parts().open.remove(&number);
                return false;
            }
            if let Some(part) = self.parts().open.get_mut(&number) {
                part.has_come(at);
            }
        }
        match told.ended.into_iter().find(|(of, _)| *of == task) {
            None => true,
            Some((_, why)) => {
                if self.parts().open.remove(&number).is_some() {
                    end(to, task, Some(why).filter(|why| !why.is_empty()));
                }
                false
            }
        }
    }

    /// A node has given a call up before its lines were taken, and sends no more by that number: it is asked by another one.
    fn ask_again(&self, (node, number): (NodeId, u64)) {
        let mut parts = self.parts();
        if let Some(part) = parts.open.remove(&(node, number)) {
            let number = parts.number();
            parts.open.insert((node, number), part);
        }
    }

    /// The node does not answer: its parts end.
    pub(super) fn lose(&self, node: NodeId) {
        for part in self.parts().take(|part| part.node == node) {
            end(part.to, part.task, Some(texts::node_not_available(node)));
        }
    }

    /// Ends the parts of nodes that don't answer.
    pub(super) fn look(&self, store: &Store) {
        let nodes: BTreeSet<NodeId> = self.parts().open.keys().map(|(node, _)| *node).collect();
        nodes.into_iter().filter(|node| !is_available(store, *node)).for_each(|node| self.lose(node));
    }

    pub(super) fn clear(&self) {
        self.parts().open.clear();
    }

    fn number(&self) -> u64 {
        self.parts().number()
    }

    fn open(&self, part: Part) {
        let mut parts = self.parts();
        let number = parts.number();
        parts.open.insert((part.node, number), part);
    }

    /// Ends a reader's parts; the nodes that they were read from.
    fn close(&self, reader: u64) -> BTreeSet<NodeId> {
        self.parts().take(|part| part.reader == reader).into_iter().map(|part| part.node).collect()
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Parts {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn take(&mut self, is_meant: impl Fn(&Part) -> bool) -> Vec<Part> {
        self.open.extract_if(.., |_, part| is_meant(part)).map(|(_, part)| part).collect()
    }
}

impl Part {
    /// Asked again, it goes on from there.
    fn has_come(&mut self, at: Timestamp) {
        let next = at.after(Duration::from_nanos(1));
        self.options.since = Some(self.options.since.map_or(next, |since| since.max(next)));
        self.options.tail = None;
    }
}

/// Whether the node answers, or may still.
fn is_available(store: &Store, node: NodeId) -> bool {
    let state = store.node(node).map(|node| node.status.state);
    matches!(state, Some(NodeState::Ready | NodeState::Unknown))
}

/// Tells a reader of a part's end, once he has room for it.
fn end(to: mpsc::Sender<LogMessage>, task: TaskId, error: Option<String>) {
    drop(tokio::spawn(async move { to.send(LogMessage::Ended { task, error }).await }));
}
