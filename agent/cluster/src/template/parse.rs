//! The text of a template to its parts.

use super::{Command, Function, Functions, NAME, Operand, OperandKind, Part, Pipeline, TemplateError};

/// Parentheses within parentheses: so that no input can use up the stack.
const MAX_DEPTH: usize = 16;

const KEYWORDS: [&str; 10] =
    ["continue", "if", "else", "end", "range", "with", "define", "template", "block", "break"];

pub(super) struct Parser<'s> {
    source: &'s str,
    /// Where the next token starts.
    at: usize,
    depth: usize,
    functions: Functions,
}

impl<'s> Parser<'s> {
    pub(super) fn new(source: &'s str, functions: Functions) -> Self {
        Self { source, at: 0, depth: 0, functions }
    }

    pub(super) fn parts(mut self) -> Result<Vec<Part>, TemplateError> {
        let mut parts = Vec::new();
        while let Some(length) = self.rest().find("{{") {
            let text = &self.rest()[..length];
            self.at += length + 2;
            let trims = self.eat_trim_at_start();
            push_text(&mut parts, if trims { text.trim_end_matches(is_space) } else { text });
            if self.rest().starts_with("/*") {
                self.comment()?;
            } else {
                parts.push(Part::Action(self.action()?));
            }
        }
        push_text(&mut parts, self.rest());
        Ok(parts)
    }

    fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    /// `{{- `: white space before the action goes away.
    fn eat_trim_at_start(&mut self) -> bool {
        let mut characters = self.rest().chars();
        let trims = characters.next() == Some('-') && characters.next().is_some_and(is_space);
        self.at += if trims { 2 } else { 0 };
        trims
    }

    fn comment(&mut self) -> Result<(), TemplateError> {
        let length = self.rest().find("*/").ok_or_else(|| self.error("unclosed comment"))?;
        self.at += length + 2;
        let trims = self.rest().starts_with(" -}}");
        if !trims && !self.rest().starts_with("}}") {
            return Err(self.error("comment ends before closing delimiter"));
        }
        self.close(trims);
        Ok(())
    }

    fn action(&mut self) -> Result<Pipeline, TemplateError> {
        let pipeline = self.pipeline()?;
        match self.at_close() {
            Some(trims) => {
                self.close(trims);
                Ok(pipeline)
            }
            None => Err(self.unexpected("command")),
        }
    }

    /// Up to the end of the action or the parenthesis, which is left for the caller.
    fn pipeline(&mut self) -> Result<Pipeline, TemplateError> {
        let mut commands = vec![self.command()?];
        while self.rest().starts_with('|') {
            self.at += 1;
            let command = self.command()?;
            if !matches!(command.first.kind, OperandKind::Call(_)) {
                let stage = commands.len() + 1;
                return Err(self.error(&format!("non executable command in pipeline stage {stage}")));
            }
            commands.push(command);
        }
        Ok(Pipeline(commands))
    }

    fn command(&mut self) -> Result<Command, TemplateError> {
        self.skip_space();
        let mut operands = Vec::new();
        while !self.at_end_of_command() {
            if self.rest().is_empty() {
                return Err(self.error("unclosed action"));
            }
            operands.push(self.operand()?);
            self.after_operand()?;
        }
        let mut operands = operands.into_iter();
        match operands.next() {
            Some(first) => Ok(Command { first, arguments: operands.collect() }),
            None => Err(self.error("missing value for command")),
        }
    }

    /// Two operands have space between them.
    fn after_operand(&mut self) -> Result<(), TemplateError> {
        let end = self.at;
        self.skip_space();
        match self.rest().chars().next() {
            Some(_) if end != self.at || self.at_end_of_command() => Ok(()),
            Some('(') => Err(self.unexpected("operand")),
            Some(bad) => {
                let code = u32::from(bad);
                Err(self.error(&format!("bad character U+{code:04X} '{bad}'")))
            }
            None => Ok(()),
        }
    }

    fn operand(&mut self) -> Result<Operand, TemplateError> {
        let start = self.at;
        let (at, kind) = match self.rest().chars().next() {
            Some('.') => self.fields(),
            Some('"') => (start, OperandKind::Text(self.quoted()?)),
            Some('`') => (start, OperandKind::Text(self.raw()?)),
            Some('(') => (start, OperandKind::Group(self.group()?)),
            Some(first) if first.is_alphabetic() || first == '_' => (start, self.call()?),
            _ => return Err(self.unexpected("command")),
        };
        Ok(Operand { at, text: self.source[start..self.at].to_owned(), kind })
    }

    /// `.`, `.A` or `.A.B`. Errors about a chain point to its second link, as Go's do.
    fn fields(&mut self) -> (usize, OperandKind) {
        let mut links = Vec::new();
        while self.rest().starts_with('.') {
            let name = word(&self.rest()[1..]);
            links.push((self.at, name.to_owned()));
            self.at += 1 + name.len();
            if name.is_empty() {
                break;
            }
        }
        let at = links.get(1).or(links.first()).map_or(self.at, |(at, _)| *at);
        let names = links.into_iter().map(|(_, name)| name).filter(|name| !name.is_empty()).collect();
        (at, OperandKind::Field(names))
    }

    fn call(&mut self) -> Result<OperandKind, TemplateError> {
        let name = word(self.rest());
        if KEYWORDS.contains(&name) {
            return Err(self.error(&format!("{{{{{name}}}}} is not supported")));
        }
        let function = Function::named(name, self.functions);
        let function = function.ok_or_else(|| self.error(&format!("function {name:?} not defined")))?;
        self.at += name.len();
        Ok(OperandKind::Call(function))
    }

    fn group(&mut self) -> Result<Pipeline, TemplateError> {
        if self.depth == MAX_DEPTH {
            return Err(self.error("parentheses are nested too deeply"));
        }
        self.depth += 1;
        self.at += 1;
        let pipeline = self.pipeline()?;
        if !self.rest().starts_with(')') {
            return Err(self.error("unclosed left paren"));
        }
        self.at += 1;
        self.depth -= 1;
        Ok(pipeline)
    }

    fn raw(&mut self) -> Result<String, TemplateError> {
        let inside = &self.rest()[1..];
        let length = inside.find('`').ok_or_else(|| self.error("unterminated raw quoted string"))?;
        self.at += length + 2;
        Ok(inside[..length].to_owned())
    }

    /// A text in quotes with Go's escapes of one letter.
    fn quoted(&mut self) -> Result<String, TemplateError> {
        let inside = &self.rest()[1..];
        let mut text = String::new();
        let mut characters = inside.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    self.at += at + 2;
                    return Ok(text);
                }
                '\n' => break,
                '\\' => match characters.next().and_then(|(_, letter)| unescaped(letter)) {
                    Some(meant) => text.push(meant),
                    None => return Err(self.error("invalid syntax in quoted string")),
                },
                other => text.push(other),
            }
        }
        Err(self.error("unterminated quoted string"))
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches(is_space).len();
    }

    fn at_end_of_command(&self) -> bool {
        self.at_close().is_some() || self.rest().starts_with(['|', ')'])
    }

    /// Whether the action ends here, and then whether white space after it goes away: the dash needs a space before it,
    /// which has been skipped.
    fn at_close(&self) -> Option<bool> {
        let trims = self.rest().starts_with("-}}") && self.source[..self.at].ends_with(is_space);
        (trims || self.rest().starts_with("}}")).then_some(trims)
    }

    fn close(&mut self, trims: bool) {
        let length = self.rest().find("}}").map_or(0, |start| start + 2);
        self.at += length;
        if trims {
            self.skip_space();
        }
    }

    fn unexpected(&self, place: &str) -> TemplateError {
        match self.rest().chars().next() {
            Some(')') => self.error("unexpected right paren"),
            Some(character) => self.error(&format!("unexpected {:?} in {place}", character.to_string())),
            None => self.error("unclosed action"),
        }
    }

    fn error(&self, told: &str) -> TemplateError {
        let line = 1 + self.source[..self.at].matches('\n').count();
        TemplateError(format!("{NAME}:{line}: {told}"))
    }
}

fn push_text(parts: &mut Vec<Part>, text: &str) {
    if !text.is_empty() {
        parts.push(Part::Text(text.to_owned()));
    }
}

/// What Go calls space between tokens.
fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r' | '\n')
}

/// The letters, digits and underscores at the start.
fn word(text: &str) -> &str {
    let end = text.find(|character: char| !character.is_alphanumeric() && character != '_');
    &text[..end.unwrap_or(text.len())]
}

fn unescaped(letter: char) -> Option<char> {
    match letter {
        '"' | '\\' => Some(letter),
        'n' => Some('\n'),
        't' => Some('\t'),
        'r' => Some('\r'),
        _ => None,
    }
}
