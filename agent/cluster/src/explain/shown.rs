//! The answer as text: a line for each thing, what is said of it below.

use std::fmt;

use super::story::{seconds, word};
use super::{Explained, Group, TaskStory};

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(group) => shown(f, "service", group),
            Self::Node(group) => shown(f, "node", group),
            Self::Task(story) => write!(f, "{story}"),
        }
    }
}

fn shown(f: &mut fmt::Formatter<'_>, kind: &str, group: &Group) -> fmt::Result {
    writeln!(f, "{kind} {} ({}): {}", group.name, group.id, group.state)?;
    group.notes.iter().try_for_each(|note| writeln!(f, "  {note}"))?;
    group.tasks.iter().try_for_each(|story| write!(f, "{story}"))?;
    if group.left_out > 0 {
        writeln!(f, "and {} more tasks", group.left_out)?;
    }
    Ok(())
}

impl fmt::Display for TaskStory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = self.node.as_ref().map(|node| format!(" on {node}")).unwrap_or_default();
        let for_long = seconds(self.state_for_seconds);
        writeln!(f, "{} ({}): {} for {for_long}{on}", self.name, self.id, word(self.state))?;
        self.why.iter().chain(&self.waits).try_for_each(|line| writeln!(f, "  {line}"))?;
        if !self.nodes.is_empty() {
            writeln!(f, "  {}", if self.node.is_some() { "other nodes:" } else { "nodes:" })?;
        }
        for answer in &self.nodes {
            writeln!(f, "    {}: {}", answer.node, answer.refusal.as_deref().unwrap_or("could have it"))?;
        }
        if !self.earlier.is_empty() {
            writeln!(f, "  before:")?;
        }
        self.earlier.iter().try_for_each(|line| writeln!(f, "    {line}"))
    }
}
