//! The filters that apply to a task, in their order, and why it has no node.

use std::sync::Arc;

use super::filter::{Filter, NodeWants, Wants};
use super::nodes::NodeRow;
use super::table::NodeTable;
use crate::objects::Task;
use crate::view::View;

/// What all tasks of a batch are asked.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) wants: Wants,
    filters: Vec<Filter>,
    /// Those of them whose answer is altered by what is placed.
    of_full: Vec<Filter>,
}

impl Pipeline {
    pub(super) fn of(view: &View<'_>, task: &Task) -> Self {
        let wants = Wants::of(view, task);
        let filters: Vec<_> = Filter::ALL.into_iter().filter(|filter| filter.applies(&wants)).collect();
        let of_full = filters.iter().copied().filter(|filter| filter.fills_up()).collect();
        Self { wants, filters, of_full }
    }

    /// What of it many services may ask alike.
    pub(super) fn of_node(&self) -> &Arc<NodeWants> {
        &self.wants.of_node
    }

    /// Whether the filter by which a row was struck out is the first that refuses it for as long as it is out. Where a row may
    /// also fill up that was refused for what comes later in the order, it is not.
    fn refuses_once(&self) -> bool {
        let lasts = self.filters.iter().all(|filter| filter.lasts());
        lasts && (self.filters.len() <= 2 || !self.filters.contains(&Filter::Resources))
    }

    /// The first filter that refuses the node; none when it may have the task.
    pub(super) fn refusal(&self, row: &NodeRow) -> Option<Filter> {
        self.filters.iter().copied().find(|filter| !filter.passes(&self.wants, row))
    }

    /// The same of a node that none of the others refuses.
    pub(super) fn refusal_of_full(&self, row: &NodeRow) -> Option<Filter> {
        self.of_full.iter().copied().find(|filter| !filter.passes(&self.wants, row))
    }

    /// Why no node may have the task: what refuses most nodes comes first.
    pub(super) fn explain(&self, table: &NodeTable) -> String {
        let known = table.refused(self.of_node()).filter(|_| self.refuses_once());
        let counts = known.unwrap_or_else(|| {
            let mut counts = [0; Filter::ALL.len()];
            table.rows().iter().filter_map(|row| self.refusal(row)).for_each(|it| counts[it as usize] += 1);
            counts
        });
        let mut refused: Vec<_> = counts.into_iter().zip(Filter::ALL).collect();
        refused.sort_by_key(|(nodes, _)| std::cmp::Reverse(*nodes));
        let reasons: Vec<_> = refused
            .into_iter()
            .filter(|(nodes, _)| *nodes > 0)
            .map(|(nodes, filter)| filter.explain(nodes))
            .collect();
        match &reasons[..] {
            [] => "no suitable node".to_owned(),
            _ => format!("no suitable node ({})", reasons.join("; ")),
        }
    }
}
