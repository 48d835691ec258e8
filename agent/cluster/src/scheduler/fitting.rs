//! Whether a node could have a task as things are: asked by who moves tasks, before anything is stopped for it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::nodes::NodeRow;
use super::pipeline::Pipeline;
use crate::objects::{Node, Task};
use crate::view::View;

/// What a task asks of a node.
#[derive(Debug)]
pub(crate) struct Fitting(Pipeline);

impl Fitting {
    pub(crate) fn of(view: &View<'_>, task: &Task) -> Self {
        Self(Pipeline::of(view, task))
    }

    /// Whether the node could have it if nothing ran there: by what the node is, which is asked without a look at its tasks.
    pub(crate) fn would_allow_empty(&self, node: &Arc<Node>) -> bool {
        self.0.refusal(&NodeRow::empty(node)).is_none()
    }

    /// Whether no filter refuses the node with all that its tasks hold of it.
    pub(crate) fn allows(&self, view: &View<'_>, node: &Arc<Node>) -> bool {
        self.0.refusal(&NodeRow::of(view, node, &mut BTreeSet::new())).is_none()
    }
}
