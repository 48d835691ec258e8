//! Go's templates as far as Docker's services use them: `{{.Node.Hostname}}`, `{{index .Service.Labels "zone"}}`.
//!
//! A template is parsed once and expanded with a task's [`Context`]. Known are the context's fields, texts, pipelines, and the
//! functions `index` and `join`; in a config's or secret's payload also `env`, `config` and `secret`. Actions such as
//! `{{if}}` are refused by name. Errors are in Go's words, which clients show. `control` refuses what can't be parsed or
//! expanded; the worker expands what it runs.

mod container;
mod expand;
mod parse;

pub use container::{Dependencies, ExpandError, Payload, expand_container, expand_payload, payload_template};
pub use expand::Context;

use expand::{Expansion, Room};
use parse::Parser;

/// The name that Go's errors call a template by.
const NAME: &str = "expansion";

/// Why a text is no template, or can't be expanded. The text is as Go's package `text/template` has it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("template: {0}")]
pub struct TemplateError(String);

/// Which functions a template may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Functions {
    /// `index` and `join`: of a service's spec.
    Spec,
    /// Also `env`, `config` and `secret`: of a payload.
    Payload,
}

/// A text with actions in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    source: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Action(Pipeline),
}

/// Commands, each of which is given the value of the one before as its last argument.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pipeline(Vec<Command>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Command {
    /// The function to call, or the value.
    first: Operand,
    arguments: Vec<Operand>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Operand {
    /// Where errors about it point to: an offset in the source.
    at: usize,
    /// As it is written.
    text: String,
    kind: OperandKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum OperandKind {
    /// The context, or what is below it: no names for the dot alone.
    Field(Vec<String>),
    Text(String),
    Call(Function),
    Group(Pipeline),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    Index,
    Join,
    Env,
    Config,
    Secret,
}

impl Function {
    fn named(name: &str, allowed: Functions) -> Option<Self> {
        match (name, allowed) {
            ("index", _) => Some(Self::Index),
            ("join", _) => Some(Self::Join),
            ("env", Functions::Payload) => Some(Self::Env),
            ("config", Functions::Payload) => Some(Self::Config),
            ("secret", Functions::Payload) => Some(Self::Secret),
            _ => None,
        }
    }
}

impl Template {
    /// # Errors
    /// When an action can't be parsed, or calls what is no function here.
    pub fn parse(source: &str, functions: Functions) -> Result<Self, TemplateError> {
        let parts = Parser::new(source, functions).parts()?;
        Ok(Self { source: source.to_owned(), parts })
    }

    /// The text with what the context says in place of the actions.
    ///
    /// # Errors
    /// When a field is none of the context's, a label is missing, a function fails, or the text would be too large.
    pub fn expand(&self, context: &Context) -> Result<String, TemplateError> {
        self.expand_within(&mut Room::whole(), context)
    }

    fn expand_within(&self, room: &mut Room, context: &Context) -> Result<String, TemplateError> {
        Expansion::new(&self.source, context, None, room).text_of(&self.parts)
    }
}

#[cfg(test)]
mod tests;
