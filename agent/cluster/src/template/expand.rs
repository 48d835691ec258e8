//! The parts of a template to a text.

use std::borrow::Cow;

use super::container::Dependencies;
use super::{Command, Function, NAME, Operand, OperandKind, Part, Pipeline, TemplateError};
use crate::objects::node::{NodeDescription, Platform};
use crate::objects::{Labels, Task};

/// What a template can say of a task. It is by value: nothing else of the cluster can be reached from a template.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Context {
    pub service_id: String,
    pub service_name: String,
    pub service_labels: Labels,
    pub node_id: String,
    pub node_hostname: String,
    pub node_platform: Platform,
    pub task_id: String,
    pub task_name: String,
    /// The slot, or the node's id where tasks have none.
    pub task_slot: String,
}

impl Context {
    /// Of a task on its node.
    #[must_use]
    pub fn of(task: &Task, node: &NodeDescription) -> Self {
        let node_id = task.node.map(|id| id.to_string()).unwrap_or_default();
        Self {
            service_id: task.service.map(|id| id.to_string()).unwrap_or_default(),
            service_name: task.service_name.to_string(),
            service_labels: task.service_labels.clone(),
            node_hostname: node.hostname.clone(),
            node_platform: node.platform.clone(),
            task_id: task.id.to_string(),
            task_name: task.name.to_string(),
            task_slot: if task.slot == 0 { node_id.clone() } else { task.slot.to_string() },
            node_id,
        }
    }
}

/// A value on its way through an action.
#[derive(Debug, Clone)]
enum Value<'a> {
    Text(Cow<'a, str>),
    Labels(&'a Labels),
    Fields(Group),
}

/// The context or a part of it that has fields of its own.
#[derive(Debug, Clone, Copy)]
enum Group {
    Context,
    Service,
    Node,
    Platform,
    Task,
}

impl Group {
    /// As Go names the type.
    fn type_name(self) -> &'static str {
        match self {
            Self::Context => "*template.Context",
            Self::Service => "struct { ID string; Name string; Labels map[string]string }",
            Self::Node => "struct { ID string; Hostname string; Platform template.Platform }",
            Self::Platform => "template.Platform",
            Self::Task => "struct { ID string; Name string; Slot string }",
        }
    }
}

/// How many bytes may still be made: of the texts that come out, and of those on the way there. A text of a few bytes can ask
/// for gigabytes by joining or repeating what the context says, at the leader first and then on each node.
#[derive(Debug)]
pub(super) struct Room(usize);

impl Room {
    /// Far above what a kernel takes as arguments and variables, and four times the largest payload.
    pub(super) const MOST: usize = 4 << 20;

    pub(super) fn whole() -> Self {
        Self(Self::MOST)
    }

    fn take(&mut self, bytes: usize) -> Result<(), String> {
        let left = self.0.checked_sub(bytes);
        self.0 = left.ok_or_else(|| format!("the text would take more than {} bytes", Self::MOST))?;
        Ok(())
    }
}

/// One expansion of one template.
pub(super) struct Expansion<'a> {
    source: &'a str,
    context: &'a Context,
    /// Of a payload.
    dependencies: Option<&'a Dependencies<'a>>,
    room: &'a mut Room,
    /// Whether a secret has been read.
    pub(super) used_secret: bool,
}

impl<'a> Expansion<'a> {
    pub(super) fn new(
        source: &'a str,
        context: &'a Context,
        dependencies: Option<&'a Dependencies<'a>>,
        room: &'a mut Room,
    ) -> Self {
        Self { source, context, dependencies, room, used_secret: false }
    }

    pub(super) fn text_of(&mut self, parts: &[Part]) -> Result<String, TemplateError> {
        let mut text = String::new();
        for part in parts {
            match part {
                Part::Text(plain) => {
                    self.room.take(plain.len()).map_err(|told| TemplateError(format!("{NAME}: {told}")))?;
                    text.push_str(plain);
                }
                Part::Action(pipeline) => {
                    let printed = self.printed(pipeline)?;
                    self.room.take(printed.len()).map_err(|told| self.error_in(pipeline, &told))?;
                    text.push_str(&printed);
                }
            }
        }
        Ok(text)
    }

    fn printed(&mut self, pipeline: &Pipeline) -> Result<String, TemplateError> {
        match self.pipeline(pipeline)? {
            Value::Text(text) => Ok(text.into_owned()),
            Value::Labels(labels) => {
                let pairs = labels.iter().map(|(key, value)| format!("{key}:{value}")).collect::<Vec<_>>();
                Ok(format!("map[{}]", pairs.join(" ")))
            }
            Value::Fields(group) => {
                let told = format!("can't print value of type {}", group.type_name());
                Err(self.error_in(pipeline, &told))
            }
        }
    }

    fn pipeline(&mut self, pipeline: &Pipeline) -> Result<Value<'a>, TemplateError> {
        let mut last = None;
        for command in &pipeline.0 {
            last = Some(self.command(command, last)?);
        }
        Ok(last.unwrap_or(Value::Text(Cow::Borrowed(""))))
    }

    /// The value of a command that is given the value of the one before it, if there is one.
    fn command(&mut self, command: &Command, last: Option<Value<'a>>) -> Result<Value<'a>, TemplateError> {
        let OperandKind::Call(function) = command.first.kind else {
            if !command.arguments.is_empty() {
                let told = match &command.first.kind {
                    OperandKind::Field(names) if !names.is_empty() => {
                        let last = names.last().map_or("", String::as_str);
                        format!("{last} has arguments but cannot be invoked as function")
                    }
                    _ => format!("can't give argument to non-function {}", command.first.text),
                };
                return Err(self.error(&command.first, &told));
            }
            return self.operand(&command.first);
        };
        let mut arguments = Vec::with_capacity(command.arguments.len() + 1);
        for argument in &command.arguments {
            arguments.push(self.operand(argument)?);
        }
        arguments.extend(last);
        self.call(function, &arguments).map_err(|told| {
            let told = format!("error calling {}: {told}", command.first.text);
            self.error(&command.first, &told)
        })
    }

    fn operand(&mut self, operand: &Operand) -> Result<Value<'a>, TemplateError> {
        match &operand.kind {
            OperandKind::Text(text) => Ok(Value::Text(Cow::Owned(text.clone()))),
            OperandKind::Group(pipeline) => self.pipeline(pipeline),
            OperandKind::Call(function) => self.call(*function, &[]).map_err(|told| {
                let told = format!("error calling {}: {told}", operand.text);
                self.error(operand, &told)
            }),
            OperandKind::Field(names) => {
                let mut value = Value::Fields(Group::Context);
                for name in names {
                    value = self.field(&value, name).map_err(|told| self.error(operand, &told))?;
                }
                Ok(value)
            }
        }
    }

    fn field(&self, value: &Value<'a>, name: &str) -> Result<Value<'a>, String> {
        let context = self.context;
        let text = |text: &'a str| Ok(Value::Text(Cow::Borrowed(text)));
        let unknown = |kind: &str| Err(format!("can't evaluate field {name} in type {kind}"));
        match value {
            Value::Text(_) => unknown("string"),
            Value::Labels(labels) => match labels.get(name) {
                Some(label) => text(label),
                None => Err(format!("map has no entry for key {name:?}")),
            },
            Value::Fields(group) => match (group, name) {
                (Group::Context, "Service") => Ok(Value::Fields(Group::Service)),
                (Group::Context, "Node") => Ok(Value::Fields(Group::Node)),
                (Group::Context, "Task") => Ok(Value::Fields(Group::Task)),
                (Group::Service, "ID") => text(&context.service_id),
                (Group::Service, "Name") => text(&context.service_name),
                (Group::Service, "Labels") => Ok(Value::Labels(&context.service_labels)),
                (Group::Node, "ID") => text(&context.node_id),
                (Group::Node, "Hostname") => text(&context.node_hostname),
                (Group::Node, "Platform") => Ok(Value::Fields(Group::Platform)),
                (Group::Platform, "Architecture") => text(&context.node_platform.architecture),
                (Group::Platform, "OS") => text(&context.node_platform.os),
                (Group::Task, "ID") => text(&context.task_id),
                (Group::Task, "Name") => text(&context.task_name),
                (Group::Task, "Slot") => text(&context.task_slot),
                (group, _) => unknown(group.type_name()),
            },
        }
    }

    fn call(&mut self, function: Function, arguments: &[Value<'a>]) -> Result<Value<'a>, String> {
        match function {
            Function::Index => {
                let value = index(arguments)?;
                if let Value::Text(Cow::Owned(text)) = &value {
                    self.room.take(text.len())?;
                }
                Ok(value)
            }
            Function::Join => join(arguments, self.room),
            Function::Env => {
                let variable = only_text(arguments)?;
                self.dependencies()?.env(variable).map(|value| Value::Text(Cow::Borrowed(value)))
            }
            Function::Config => {
                let target = only_text(arguments)?;
                self.dependencies()?.config(target).map(|value| Value::Text(Cow::Borrowed(value)))
            }
            Function::Secret => {
                let target = only_text(arguments)?;
                let secret = self.dependencies()?.secret(target)?;
                self.used_secret = true;
                Ok(Value::Text(Cow::Borrowed(secret)))
            }
        }
    }

    fn dependencies(&self) -> Result<&'a Dependencies<'a>, String> {
        self.dependencies.ok_or_else(|| "task is not a container".to_owned())
    }

    /// At the last command, whose value is the pipeline's.
    fn error_in(&self, pipeline: &Pipeline, told: &str) -> TemplateError {
        pipeline.0.last().map_or_else(
            || TemplateError(format!("{NAME}: {told}")),
            |command| self.error(&command.first, told),
        )
    }

    fn error(&self, operand: &Operand, told: &str) -> TemplateError {
        let before = &self.source[..operand.at];
        let line = 1 + before.matches('\n').count();
        let column = before.len() - before.rfind('\n').map_or(0, |end| end + 1);
        let text = &operand.text;
        TemplateError(format!("{NAME}:{line}:{column}: executing {NAME:?} at <{text}>: {told}"))
    }
}

/// `index map key`: a label, empty when there is none.
fn index<'a>(arguments: &[Value<'a>]) -> Result<Value<'a>, String> {
    match arguments {
        [Value::Labels(labels), Value::Text(key)] => {
            let label = labels.get(key.as_ref()).map_or("", String::as_str);
            Ok(Value::Text(Cow::Borrowed(label)))
        }
        [only] => Ok(only.clone()),
        [] => Err("wrong number of args for index: want at least 1 got 0".to_owned()),
        [Value::Labels(_), ..] => Err("a map of texts is indexed by one text".to_owned()),
        _ => Err("can't index item: it is no map".to_owned()),
    }
}

/// `join separator text...`.
fn join<'a>(arguments: &[Value<'a>], room: &mut Room) -> Result<Value<'a>, String> {
    let texts = arguments.iter().map(text_in).collect::<Result<Vec<_>, _>>()?;
    match texts.split_first() {
        Some((separator, rest)) => {
            let between = separator.len().saturating_mul(rest.len().saturating_sub(1));
            room.take(rest.iter().map(|text| text.len()).sum::<usize>().saturating_add(between))?;
            Ok(Value::Text(Cow::Owned(rest.join(separator))))
        }
        None => Err("wrong number of args for join: want at least 1 got 0".to_owned()),
    }
}

fn only_text<'v>(arguments: &'v [Value<'_>]) -> Result<&'v str, String> {
    match arguments {
        [value] => text_in(value),
        other => Err(format!("wrong number of args: want 1 got {}", other.len())),
    }
}

fn text_in<'v>(value: &'v Value<'_>) -> Result<&'v str, String> {
    match value {
        Value::Text(text) => Ok(text),
        Value::Labels(_) => Err("wrong type for value; expected string; got map[string]string".to_owned()),
        Value::Fields(group) => {
            Err(format!("wrong type for value; expected string; got {}", group.type_name()))
        }
    }
}
