//! From a checked profile to what each system call number gets: per audit architecture, the whole range of numbers cut
//! into segments of equal verdict.
//!
//! Pure. Called by `compile`; `tree` turns the segments into instructions. What is decided here, and is libseccomp's
//! and runc's way:
//! - an unconditional rule beats conditional ones on the same call, and the first of several wins; of conditional rules
//!   whose conditions overlap the first in the profile wins (libseccomp's order is that of its tree, and undocumented);
//! - on 32-bit architectures conditions look at the low 32 bits of an argument only;
//! - where socketcall(2) or ipc(2) multiplex a call, its rule also covers the multiplexer called for it: there the first
//!   argument must be the selector, and the rule's other conditions are kept as they are;
//! - an architecture that the profile doesn't list kills the thread, and so does an x32 call when x32 isn't listed;
//! - unless the default is permissive, numbers above the largest one named in the profile are ENOSYS: they are newer
//!   than the profile, and a program that probes for them must be able to fall back.

use super::arch::{Arch, ArgWidth, X32_BIT};
use super::profile::{Condition, Operator, Profile, Rule};
use super::{RET_ERRNO, RET_KILL_THREAD, Warning};

/// What a number gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// `SECCOMP_RET_*`, whatever the arguments are.
    Return(u32),
    /// The first match's, else the last field's.
    Decide(Vec<Match>, u32),
}

/// Conditions that must all hold, and the verdict then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Match {
    pub(super) conditions: Vec<Comparison>,
    pub(super) verdict: u32,
}

/// A condition as wide as the architecture's arguments. `high` is absent where only the low half counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Comparison {
    pub(super) index: u8,
    pub(super) operator: Operator,
    pub(super) high: Option<Half>,
    pub(super) low: Half,
}

/// Half of an argument's mask and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Half {
    pub(super) mask: u32,
    pub(super) value: u32,
}

/// All numbers of one audit architecture.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) audit: u32,
    /// Distinct verdicts; segments point here.
    pub(super) verdicts: Vec<Verdict>,
    /// First number and verdict of each segment; the first starts at 0, neighbours differ.
    pub(super) segments: Vec<Segment>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) start: u32,
    pub(super) verdict: usize,
}

const ENOSYS: u32 = RET_ERRNO | 38;

/// The sections of `profile`, the native one first.
pub(super) fn sections(profile: &Profile<'_>, warnings: &mut Vec<Warning>) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::with_capacity(profile.archs.len());
    for &arch in &profile.archs {
        if sections.iter().any(|section| section.audit == arch.audit()) {
            continue;
        }
        let sharing: Vec<Table> = profile
            .archs
            .iter()
            .filter(|other| other.audit() == arch.audit())
            .map(|&other| Table::new(profile, other, warnings))
            .collect();
        sections.push(Section::new(arch.audit(), profile.default, sharing));
    }
    sections
}

/// What the profile says about the calls of one architecture.
struct Table {
    arch: Arch,
    /// By number, ascending.
    entries: Vec<(u32, Verdict)>,
    /// The largest number that the profile names, when larger ones are ENOSYS.
    newest: Option<u32>,
}

impl Table {
    fn new(profile: &Profile<'_>, arch: Arch, warnings: &mut Vec<Warning>) -> Self {
        let mut newest = None;
        if !profile.permissive {
            newest = profile
                .named
                .iter()
                .filter_map(|&call| arch.number(call))
                .max()
                .filter(|&newest| newest != 0);
            if newest.is_none() {
                warnings.push(Warning::NoSyscalls(arch));
            }
        }
        let mut entries = entries(profile, arch);
        // A multiplexer may have a larger number than all that are named: it is newer than they are, as libseccomp's callers see it.
        entries.retain(|(number, _)| newest.is_none_or(|newest| *number <= newest));
        Table { arch, entries, newest }
    }
}

/// A rule's claim on a number; with a selector, on that number when its first argument is the selector.
struct Claim<'a> {
    number: u32,
    rule: &'a Rule,
    selector: Option<u64>,
}

fn entries(profile: &Profile<'_>, arch: Arch) -> Vec<(u32, Verdict)> {
    let mut claims = Vec::with_capacity(profile.named.len());
    for rule in &profile.rules {
        for &call in &rule.calls {
            if let Some((number, selector)) = arch.multiplexed(call) {
                claims.push(Claim { number, rule, selector: Some(selector) });
            }
            if let Some(number) = arch.number(call) {
                claims.push(Claim { number, rule, selector: None });
            }
        }
    }
    // Stable: claims on one number stay in the profile's order.
    claims.sort_by_key(|claim| claim.number);
    claims
        .chunk_by(|a, b| a.number == b.number)
        .map(|claims| (claims[0].number, verdict(claims, arch.arg_width(), profile.default)))
        .collect()
}

fn verdict(claims: &[Claim<'_>], width: ArgWidth, default: u32) -> Verdict {
    // The first unconditional rule has the last word, whatever conditions stand before it; as with libseccomp, a mask that
    // looks at nothing is no condition.
    let always = |alternative: &Vec<Condition>| {
        alternative.iter().all(|condition| comparison(condition, width).is_none())
    };
    let unconditional = |claim: &&Claim<'_>| {
        let alternatives = &claim.rule.alternatives;
        claim.selector.is_none() && (alternatives.is_empty() || alternatives.iter().any(always))
    };
    if let Some(claim) = claims.iter().find(unconditional) {
        return Verdict::Return(claim.rule.verdict);
    }
    let mut matches = Vec::new();
    for claim in claims {
        let unconditional = [Vec::new()];
        let alternatives = match claim.rule.alternatives.as_slice() {
            [] => unconditional.as_slice(),
            alternatives => alternatives,
        };
        for alternative in alternatives {
            let selector = claim.selector.map(|selector| Condition {
                index: 0,
                operator: Operator::Eq,
                mask: u64::MAX,
                value: selector,
            });
            let rest = alternative.iter().filter(|condition| selector.is_none() || condition.index != 0);
            let conditions: Vec<_> =
                selector.iter().chain(rest).filter_map(|condition| comparison(condition, width)).collect();
            if conditions.is_empty() {
                // Masks that look at nothing.
                return Verdict::Return(claim.rule.verdict);
            }
            let found = Match { conditions, verdict: claim.rule.verdict };
            if matches.last() != Some(&found) {
                matches.push(found);
            }
        }
    }
    Verdict::Decide(matches, default)
}

/// `condition` at the architecture's width; `None` when it always holds.
fn comparison(condition: &Condition, width: ArgWidth) -> Option<Comparison> {
    #[expect(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
    let low = Half { mask: condition.mask as u32, value: condition.value as u32 };
    let high = Half { mask: (condition.mask >> 32) as u32, value: (condition.value >> 32) as u32 };
    let high = match width {
        ArgWidth::Half => None,
        ArgWidth::Full => Some(high).filter(|high| high.mask != 0),
    };
    let looks_at_nothing = low.mask == 0 && high.is_none();
    (!looks_at_nothing).then_some(Comparison {
        index: condition.index,
        operator: condition.operator,
        high,
        low,
    })
}

impl Section {
    fn new(audit: u32, default: u32, mut tables: Vec<Table>) -> Self {
        let mut section = Section { audit, verdicts: Vec::new(), segments: Vec::new() };
        let background = background(&tables, default);
        // Numbers of tables that share an audit number do not overlap: x32 has its bit.
        tables.sort_by_key(|table| table.arch == Arch::X32);
        let mut entries = tables.into_iter().flat_map(|table| table.entries).peekable();
        for (at, &(start, verdict)) in background.iter().enumerate() {
            let end = background.get(at + 1).map_or(u32::MAX, |&(next, _)| next - 1);
            let mut next = Some(start);
            while let Some((number, verdict_of_entry)) = entries.next_if(|&(number, _)| number <= end) {
                if let Some(next) = next.filter(|&next| next < number) {
                    section.push(next, Verdict::Return(verdict));
                }
                section.push(number, verdict_of_entry);
                next = number.checked_add(1);
            }
            if let Some(next) = next.filter(|&next| next <= end) {
                section.push(next, Verdict::Return(verdict));
            }
        }
        section
    }

    fn push(&mut self, start: u32, verdict: Verdict) {
        let known = self.verdicts.iter().position(|known| *known == verdict);
        let verdict = known.unwrap_or_else(|| {
            self.verdicts.push(verdict);
            self.verdicts.len() - 1
        });
        if self.segments.last().is_none_or(|last| last.verdict != verdict) {
            self.segments.push(Segment { start, verdict });
        }
    }
}

/// What the numbers get that no rule names: first numbers and verdicts, ascending from 0.
fn background(tables: &[Table], default: u32) -> Vec<(u32, u32)> {
    let of = |arch| tables.iter().find(|table| table.arch == arch);
    let (low, x32) = (of(Arch::X86_64), of(Arch::X32));
    if let (None, None) = (low, x32) {
        return tables.first().map_or_else(Vec::new, |table| {
            let mut background = Vec::new();
            // Number 0 stands for calls above 255 that this kernel lacks; setup(2), its owner, is long gone.
            if table.newest.is_some() && matches!(table.arch, Arch::S390 | Arch::S390x) {
                background.push((0, ENOSYS));
                background.push((1, default));
            } else {
                background.push((0, default));
            }
            background.extend(table.newest.and_then(newer));
            background
        });
    }
    // Bit 30 tells the two apart; bit 31 is nobody's.
    let mut background = vec![(0, if low.is_some() { default } else { RET_KILL_THREAD })];
    background.extend(low.and_then(|low| low.newest).and_then(newer));
    background.push((X32_BIT, if x32.is_some() { default } else { RET_KILL_THREAD }));
    background.extend(x32.and_then(|x32| x32.newest).and_then(newer));
    background.push((
        2 * X32_BIT,
        match (low, x32) {
            (Some(Table { newest: Some(_), .. }), _) => ENOSYS,
            (_, Some(_)) => default,
            (_, None) => RET_KILL_THREAD,
        },
    ));
    match x32 {
        Some(Table { newest: Some(_), .. }) => background.push((3 * X32_BIT, ENOSYS)),
        Some(_) => background.push((3 * X32_BIT, default)),
        None => {
            background.push((3 * X32_BIT, RET_KILL_THREAD));
            // A tracer that skips a call makes its number -1, and the filter is asked about that one too.
            background.push((u32::MAX, default));
        }
    }
    background
}

fn newer(newest: u32) -> Option<(u32, u32)> {
    newest.checked_add(1).map(|next| (next, ENOSYS))
}
