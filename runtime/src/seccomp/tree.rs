//! From segments of numbers to instructions: a chain over the audit architectures, below each a balanced tree over its
//! numbers, whose leaves are verdicts or comparisons of arguments.
//!
//! Pure. Called by `compile`. Every program is run, not read, by the tests of this folder.

use super::RET_KILL_THREAD;
use super::arch::ByteOrder;
use super::bpf::{Assembler, Label, SockFilter, Test};
use super::profile::Operator;
use super::verdict::{Comparison, Half, Match, Section, Segment, Verdict};

// Offsets in `struct seccomp_data` of linux/seccomp.h.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

/// The program of `sections`. The first section is the one that is asked for first.
pub(super) fn assemble(sections: &[Section], order: ByteOrder) -> Vec<SockFilter> {
    let mut asm = Assembler::default();
    let mut next = asm.ret(RET_KILL_THREAD);
    for section in sections.iter().rev() {
        let mut tree = Tree { asm: &mut asm, order, section, leaves: vec![None; section.verdicts.len()] };
        let root = tree.range(&section.segments);
        asm.go_on_with(root);
        let body = asm.load(NUMBER);
        next = asm.branch(Test::Equal, section.audit, body, next);
    }
    asm.go_on_with(next);
    asm.load(ARCH);
    asm.finish()
}

struct Tree<'a> {
    asm: &'a mut Assembler,
    order: ByteOrder,
    section: &'a Section,
    /// Where each verdict's comparisons have been written.
    leaves: Vec<Option<Label>>,
}

impl Tree<'_> {
    /// Picks among `segments` by the number in the accumulator.
    fn range(&mut self, segments: &[Segment]) -> Label {
        match segments {
            [only] => self.leaf(only.verdict),
            [around, hole, after] if around.verdict == after.verdict && after.start - hole.start == 1 => {
                let no = self.leaf(around.verdict);
                let yes = self.leaf(hole.verdict);
                self.asm.branch(Test::Equal, hole.start, yes, no)
            }
            _ => {
                let (left, right) = segments.split_at(segments.len() / 2);
                let start = right[0].start;
                let right = self.range(right);
                let left = self.range(left);
                self.asm.branch(Test::GreaterOrEqual, start, right, left)
            }
        }
    }

    fn leaf(&mut self, verdict: usize) -> Label {
        match &self.section.verdicts[verdict] {
            Verdict::Return(value) => self.asm.ret(*value),
            Verdict::Decide(matches, otherwise) => match self.leaves[verdict] {
                Some(leaf) => leaf,
                None => {
                    let leaf = self.decide(matches, *otherwise);
                    self.leaves[verdict] = Some(leaf);
                    leaf
                }
            },
        }
    }

    fn decide(&mut self, matches: &[Match], otherwise: u32) -> Label {
        let mut next = self.asm.ret(otherwise);
        for found in matches.iter().rev() {
            let mut then = self.asm.ret(found.verdict);
            for comparison in found.conditions.iter().rev() {
                then = self.compare(comparison, then, next);
            }
            next = then;
        }
        next
    }

    /// Goes to `yes` when the condition holds, else to `no`.
    fn compare(&mut self, comparison: &Comparison, yes: Label, no: Label) -> Label {
        let (high_word, low_word) = match self.order {
            ByteOrder::Little => (4, 0),
            ByteOrder::Big => (0, 4),
        };
        let argument = ARGUMENTS + 8 * u32::from(comparison.index);
        let (high_word, low_word) = (argument + high_word, argument + low_word);
        let (low, high) = (comparison.low, comparison.high);
        // Each pair of operators is one test with its outcomes swapped.
        let (test, yes, no) = match comparison.operator {
            Operator::Eq | Operator::MaskedEq => (Test::Equal, yes, no),
            Operator::Ne => (Test::Equal, no, yes),
            Operator::Gt => (Test::Greater, yes, no),
            Operator::Le => (Test::Greater, no, yes),
            Operator::Ge => (Test::GreaterOrEqual, yes, no),
            Operator::Lt => (Test::GreaterOrEqual, no, yes),
        };
        let low_decides = (low.mask != 0 || high.is_none()).then(|| self.half(low_word, low, test, yes, no));
        let Some(high) = high else {
            return low_decides.unwrap_or(yes);
        };
        match (test, low_decides) {
            (Test::Equal, low) => self.half(high_word, high, Test::Equal, low.unwrap_or(yes), no),
            (_, low) => {
                // Only equal high halves leave it to the low ones.
                let equal = self.asm.branch(Test::Equal, high.value, low.unwrap_or(no), no);
                self.asm.branch(Test::Greater, high.value, yes, equal);
                self.asm.load(high_word)
            }
        }
    }

    fn half(&mut self, word: u32, half: Half, test: Test, yes: Label, no: Label) -> Label {
        self.asm.branch(test, half.value, yes, no);
        if half.mask != u32::MAX {
            self.asm.and(half.mask);
        }
        self.asm.load(word)
    }
}
