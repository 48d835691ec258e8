//! The seccomp compiler against libseccomp: for the same profile both filters are run on every number and boundary
//! argument, and must say the same. libseccomp is an oracle of this test only: a small C program exports its filters.
//! Where there is no C compiler or no libseccomp the test says so and passes.
//!
//! Exceptions, by design:
//! - names that the installed libseccomp lacks on an architecture (2.5.4 has no loongarch64 and nothing newer than
//!   Linux 5.17): their numbers are left out, and printed;
//! - names that libseccomp takes for one another, because its stand-in for "not on x86_64" is the same (in 2.5.4
//!   switch_endian and sys_debug_setcontext of powerpc);
//! - numbers that the ENOSYS stub answers: libseccomp has no stub (runc puts one before its filter), so the expected
//!   verdict is computed here;
//! - several conditional rules on one call: with different actions libseccomp's order is that of its internal tree, and
//!   with one action 2.5.4 goes wrong when they compare the same argument by order ("above 0xbb6f0febd4a9dd3e, or at
//!   most 2" lets 0xc3eef0b7 pass on aarch64). Random profiles therefore name each call in one rule, repeat an argument
//!   only in equalities, and put no conditions on multiplexed calls. Our own reference covers all of these.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: it may panic, and feeds its child from a thread"
)]

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use ketch::seccomp::interpreter::{SeccompData, run, verify};
use ketch::seccomp::{Arch, FilterFlags, KNOWN_ACTIONS, KNOWN_OPERATORS, SockFilter, Syscall, compile};
use ketch::spec::{Seccomp, SeccompArg, SeccompRule};

/// Builds the oracle, or tells why it can't be had.
fn oracle() -> Result<PathBuf, String> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/libseccomp_export.c");
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("libseccomp_export");
    let built = Command::new("cc")
        .args(["-O1", "-o"])
        .arg(&target)
        .args([source, "-lseccomp"])
        .output()
        .map_err(|error| format!("cc: {error}"))?;
    if built.status.success() {
        Ok(target)
    } else {
        Err(String::from_utf8_lossy(&built.stderr).lines().next().unwrap_or("cc failed").to_owned())
    }
}

fn ask(oracle: &PathBuf, commands: &str) -> Vec<String> {
    let mut child = Command::new(oracle).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let commands = commands.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(commands.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "the oracle died: {}", output.status);
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// libseccomp's name of an architecture.
fn scmp_name(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "x86_64",
        Arch::Aarch64 => "aarch64",
        Arch::Loongarch64 => "loongarch64",
        other => other.name(),
    }
}

/// What libseccomp knows, and where that differs from our tables.
struct Oracle {
    program: PathBuf,
    archs: Vec<Arch>,
    missing: HashSet<(Arch, Syscall)>,
}

impl Oracle {
    fn new() -> Result<Self, String> {
        let program = oracle()?;
        let names: Vec<_> = Syscall::all().map(Syscall::name).collect();
        let commands: String = Arch::ALL
            .iter()
            .map(|&arch| format!("names {} {}\n", scmp_name(arch), names.join(" ")))
            .collect();
        let (mut archs, mut missing) = (Vec::new(), HashSet::new());
        let (mut wrong, mut confused) = (Vec::new(), Vec::new());
        for (arch, line) in Arch::ALL.into_iter().zip(ask(&program, &commands)) {
            let numbers: Vec<i64> = line.split_whitespace().map(|number| number.parse().unwrap()).collect();
            if numbers.iter().all(|&number| number == -1) {
                println!("exception: this libseccomp has no {}", arch.name());
                continue;
            }
            archs.push(arch);
            let shared = |number: i64| numbers.iter().filter(|other| **other == number).count() > 1;
            if arch == Arch::X86_64 {
                confused.extend(
                    Syscall::all().zip(&numbers).filter(|(_, n)| **n < -1 && shared(**n)).map(|(c, _)| c),
                );
            }
            for (call, number) in Syscall::all().zip(numbers) {
                let theirs = u32::try_from(number).ok();
                match (arch.number(call), theirs) {
                    (ours, theirs) if ours == theirs => {}
                    // Multiplexed calls are negative there, even where a direct one exists.
                    (Some(_), None) if number < -99 && arch.multiplexed(call).is_some() => {}
                    (Some(_), None) => {
                        missing.insert((arch, call));
                    }
                    (ours, theirs) => wrong.push((arch, call.name(), ours, theirs)),
                }
            }
        }
        assert!(wrong.is_empty(), "numbers differ: {wrong:?}");
        println!(
            "exceptions: names that this libseccomp takes for one another: {:?}",
            confused.iter().map(|call: &Syscall| call.name()).collect::<Vec<_>>()
        );
        for call in confused {
            missing.extend(
                Arch::ALL.iter().filter(|arch| arch.number(call).is_some()).map(|&arch| (arch, call)),
            );
        }
        let mut lacking: HashMap<&str, Vec<&str>> = HashMap::new();
        for (arch, call) in &missing {
            lacking.entry(call.name()).or_default().push(arch.name());
        }
        let mut lacking: Vec<_> = lacking.into_iter().map(|(call, archs)| (call, archs.len())).collect();
        lacking.sort_unstable();
        println!("exceptions: names this libseccomp lacks, and on how many architectures: {lacking:?}");
        Ok(Oracle { program, archs, missing })
    }

    /// libseccomp's filters of these profiles; an error where it refuses one.
    fn filters(&self, profiles: &[(Arch, Seccomp)]) -> Vec<Result<Vec<SockFilter>, String>> {
        let mut commands = String::new();
        for (native, profile) in profiles {
            let default = action(&profile.default_action, profile.default_errno_ret);
            let rules: usize = profile.syscalls.iter().map(|rule| rule.names.len()).sum();
            write!(commands, "filter {default} {}", u8::from(rules > 32)).unwrap();
            for arch in archs(*native, profile) {
                write!(commands, " {}", scmp_name(arch)).unwrap();
            }
            commands.push('\n');
            for rule in &profile.syscalls {
                let verdict = action(&rule.action, rule.errno_ret);
                if verdict == default {
                    continue;
                }
                for name in &rule.names {
                    let groups: Vec<&[SeccompArg]> =
                        if repeats(rule) { rule.args.chunks(1).collect() } else { vec![&rule.args] };
                    for args in groups {
                        write!(commands, "rule {verdict} {name}").unwrap();
                        for arg in args {
                            let op = match arg.op.as_str() {
                                "SCMP_CMP_NE" => 1,
                                "SCMP_CMP_LT" => 2,
                                "SCMP_CMP_LE" => 3,
                                "SCMP_CMP_EQ" => 4,
                                "SCMP_CMP_GE" => 5,
                                "SCMP_CMP_GT" => 6,
                                _ => 7,
                            };
                            write!(commands, " {} {op} {} {}", arg.index, arg.value, arg.value_two).unwrap();
                        }
                        commands.push('\n');
                    }
                }
            }
            commands.push_str("end\n");
        }
        ask(&self.program, &commands).iter().map(|line| parse(line)).collect()
    }
}

fn parse(line: &str) -> Result<Vec<SockFilter>, String> {
    if line.starts_with("error") {
        return Err(line.to_owned());
    }
    let words: Vec<u32> =
        line.split(' ').skip(1).map(|word| u32::from_str_radix(word, 16).unwrap()).collect();
    Ok(words
        .chunks(4)
        .map(|i| SockFilter {
            code: i[0].try_into().unwrap(),
            jt: i[1].try_into().unwrap(),
            jf: i[2].try_into().unwrap(),
            k: i[3],
        })
        .collect())
}

fn repeats(rule: &SeccompRule) -> bool {
    rule.args.iter().enumerate().any(|(at, arg)| rule.args[..at].iter().any(|other| other.index == arg.index))
}

fn archs(native: Arch, profile: &Seccomp) -> Vec<Arch> {
    let mut archs = vec![native];
    for arch in profile.architectures.iter().filter_map(|name| Arch::from_oci(name)) {
        if !archs.contains(&arch) {
            archs.push(arch);
        }
    }
    archs
}

fn action(name: &str, errno: Option<u32>) -> u32 {
    match name {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => 0,
        "SCMP_ACT_KILL_PROCESS" => 0x8000_0000,
        "SCMP_ACT_TRAP" => 0x0003_0000,
        "SCMP_ACT_ERRNO" => 0x0005_0000 | errno.unwrap_or(1),
        "SCMP_ACT_TRACE" => 0x7ff0_0000 | errno.unwrap_or(1),
        "SCMP_ACT_LOG" => 0x7ffc_0000,
        "SCMP_ACT_ALLOW" => 0x7fff_0000,
        _ => 0x7fc0_0000,
    }
}

/// runc's stub before libseccomp's filter: the largest number that the profile names on each architecture.
struct Stub(Vec<(Arch, u32)>);

impl Stub {
    fn new(archs: &[Arch], profile: &Seccomp) -> Self {
        if matches!(profile.default_action.as_str(), "SCMP_ACT_ALLOW" | "SCMP_ACT_LOG" | "SCMP_ACT_TRACE") {
            return Stub(Vec::new());
        }
        let named: Vec<_> = profile.syscalls.iter().flat_map(|rule| &rule.names).collect();
        let newest =
            |arch: Arch| named.iter().filter_map(|name| arch.number(Syscall::from_name(name)?)).max();
        Stub(
            archs
                .iter()
                .filter_map(|&arch| Some((arch, newest(arch).filter(|&newest| newest > 0)?)))
                .collect(),
        )
    }

    /// What it says, if anything.
    fn verdict(&self, data: &SeccompData) -> Option<u32> {
        let x32 = data.arch == Arch::X86_64.audit() && data.number & 0x4000_0000 != 0;
        let &(arch, newest) =
            self.0.iter().find(|(arch, _)| arch.audit() == data.arch && (*arch == Arch::X32) == x32)?;
        let setup = matches!(arch, Arch::S390 | Arch::S390x) && data.number == 0;
        (setup || data.number > newest).then_some(0x0005_0000 | 38)
    }
}

/// Compares both filters of one profile; gives how many verdicts.
fn compare(oracle: &Oracle, native: Arch, profile: &Seccomp, theirs: &[SockFilter]) -> usize {
    let flags = FilterFlags::SPEC_ALLOW.with(FilterFlags::NEW_LISTENER);
    let ours = compile(profile, native, flags).unwrap().unwrap().filter;
    verify(&ours).unwrap();
    let archs = archs(native, profile);
    let skipped: HashSet<(u32, u32)> = oracle
        .missing
        .iter()
        .filter(|(arch, _)| archs.contains(arch))
        .map(|&(arch, call)| (arch.audit(), arch.number(call).unwrap()))
        .collect();
    let values = boundaries(profile);
    let stub = Stub::new(&archs, profile);
    let conditional = conditional_numbers(&archs, profile);
    let mut compared = 0;
    let mut audits: Vec<_> = archs.iter().map(|arch| arch.audit()).collect();
    audits.extend([0, 0x1234_5678]);
    audits.dedup();
    for arch in audits {
        let mut numbers: Vec<u32> = (0..600).chain(0x4000_0000..0x4000_0000 + 600).collect();
        numbers.extend((4000..4500).chain(5000..5500).chain(6000..6500).chain(0xf_0000..0xf_0010));
        numbers.extend([
            0x3fff_ffff,
            0x7fff_ffff,
            0x8000_0000,
            0xbfff_ffff,
            0xc000_0000,
            0xffff_fffe,
            u32::MAX,
        ]);
        for number in numbers {
            if skipped.contains(&(arch, number)) {
                continue;
            }
            let mut data = SeccompData { number, arch, instruction_pointer: 0, args: [0; 6] };
            let mut check = |data: &SeccompData| {
                let found = run(&ours, data, native.byte_order()).unwrap();
                let wanted =
                    stub.verdict(data).unwrap_or_else(|| run(theirs, data, native.byte_order()).unwrap());
                assert_eq!(
                    found, wanted,
                    "{found:#x} is not {wanted:#x}: {data:x?} on {native:?}\n{profile:#?}"
                );
                compared += 1;
            };
            check(&data);
            check(&SeccompData { args: [u64::MAX; 6], ..data });
            if !conditional.contains(&number) {
                continue;
            }
            for (index, values) in values.iter().enumerate() {
                for &value in values {
                    if index == 0 {
                        data.args = [value; 6];
                        check(&data);
                    }
                    data.args = [0; 6];
                    data.args[index] = value;
                    check(&data);
                }
            }
        }
    }
    compared
}

/// Numbers whose verdict may depend on arguments, on any of the architectures.
fn conditional_numbers(archs: &[Arch], profile: &Seccomp) -> HashSet<u32> {
    let mut numbers = HashSet::new();
    for rule in &profile.syscalls {
        for call in rule.names.iter().filter_map(|name| Syscall::from_name(name)) {
            for arch in archs {
                numbers.extend(arch.multiplexed(call).map(|(multiplexer, _)| multiplexer));
                numbers.extend(arch.number(call).filter(|_| !rule.args.is_empty()));
            }
        }
    }
    numbers
}

fn boundaries(profile: &Seccomp) -> [Vec<u64>; 6] {
    let mut values: [Vec<u64>; 6] = Default::default();
    for (index, values) in values.iter_mut().enumerate() {
        values.extend([1, u64::from(u32::MAX), 1 << 32, u64::MAX]);
        // The selectors of socketcall(2) and ipc(2).
        values.extend((0..26).filter(|_| index == 0));
        let args = profile.syscalls.iter().flat_map(|rule| &rule.args);
        for arg in args.filter(|arg| arg.index as usize == index) {
            for value in [arg.value, arg.value_two, arg.value & arg.value_two] {
                for value in [value, value ^ 1 << 32, value & 0xffff_ffff] {
                    values.extend([value.wrapping_sub(1), value, value.wrapping_add(1)]);
                }
            }
        }
        values.sort_unstable();
        values.dedup();
    }
    values
}

/// The default profiles of Docker 20.10 and 28.5.
fn docker() -> [Seccomp; 2] {
    [
        include_str!("../../oci-bundles/docker-default/seccomp.json"),
        include_str!("../../oci-bundles/docker-default/seccomp-28.5.json"),
    ]
    .map(|text| serde_json::from_str(text).unwrap())
}

/// xorshift64: the profiles are the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % end
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn value(&mut self) -> u64 {
        match self.below(5) {
            0 => self.next() % 4,
            1 => self.next(),
            2 => self.next() >> 32,
            3 => self.pick(&[0, 1 << 32, u64::MAX, u64::from(u32::MAX), 1 << 63]),
            _ => 1 << self.below(64),
        }
    }

    /// Conditions on different arguments, or equalities of one argument.
    fn args(&mut self) -> Vec<SeccompArg> {
        let (first, alternatives) = (self.below(4), self.below(3) == 0);
        (0..1 + self.below(3))
            .map(|at| SeccompArg {
                index: if alternatives { first } else { (first + at) % 6 } as u32,
                value: self.value(),
                value_two: self.value(),
                op: if alternatives { "SCMP_CMP_EQ" } else { self.pick(&KNOWN_OPERATORS) }.to_owned(),
            })
            .collect()
    }

    fn profile(&mut self, oracle: &Oracle) -> (Arch, Seccomp) {
        let native = self.pick(&oracle.archs);
        let alike: Vec<_> =
            oracle.archs.iter().copied().filter(|arch| arch.byte_order() == native.byte_order()).collect();
        let architectures = (0..self.below(3)).map(|_| self.pick(&alike).oci_name().to_owned()).collect();
        let default_action = loop {
            let action = self.pick(&KNOWN_ACTIONS);
            if action != "SCMP_ACT_NOTIFY" {
                break action.to_owned();
            }
        };
        let mut names: Vec<_> = Syscall::all()
            .filter(|&call| !Arch::ALL.iter().any(|&arch| oracle.missing.contains(&(arch, call))))
            .collect();
        let mut syscalls = Vec::new();
        for _ in 0..1 + self.below(40) {
            let action = self.pick(&KNOWN_ACTIONS).to_owned();
            let errno_ret = (self.below(2) == 0).then(|| self.next() as u32 % 200);
            let conditional = self.below(2) == 0;
            let taken: Vec<_> =
                (0..1 + self.below(4)).map(|_| names.swap_remove(self.below(names.len()))).collect();
            let multiplexed = |call: &Syscall| Arch::X86.multiplexed(*call).is_some();
            let takes_conditions =
                |call: &Syscall| !matches!(call.name(), "socketcall" | "ipc") && !multiplexed(call);
            let args =
                if conditional && taken.iter().all(takes_conditions) { self.args() } else { Vec::new() };
            let names =
                taken.into_iter().map(|call| call.name().to_owned()).filter(|name| name != "write").collect();
            syscalls.push(SeccompRule { names, action, errno_ret, args });
        }
        (native, Seccomp { default_action, architectures, syscalls, ..Seccomp::default() })
    }
}

#[test]
fn same_verdicts_as_libseccomp() {
    let oracle = match Oracle::new() {
        Ok(oracle) => oracle,
        Err(reason) => return println!("skipped: no libseccomp to compare with: {reason}"),
    };
    let mut profiles = docker().map(|profile| (Arch::X86_64, profile)).to_vec();
    for docker in docker() {
        for &native in &oracle.archs {
            let alone = Seccomp { architectures: Vec::new(), ..docker.clone() };
            profiles.push((native, Seccomp { default_action: "SCMP_ACT_LOG".to_owned(), ..alone.clone() }));
            profiles.push((native, alone));
        }
    }
    let fixed = profiles.len();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    profiles.extend((0..240).map(|_| random.profile(&oracle)));
    let mut compared = 0;
    let mut refused = Vec::new();
    for (at, ((native, profile), theirs)) in profiles.iter().zip(oracle.filters(&profiles)).enumerate() {
        match theirs {
            Ok(theirs) => compared += compare(&oracle, *native, profile, &theirs),
            Err(error) if at >= fixed => refused.push((native.name(), error)),
            Err(error) => panic!("libseccomp refuses Docker's profile on {}: {error}", native.name()),
        }
        if at == 1 {
            println!("Docker's profiles are the same on {compared} verdicts");
        }
    }
    println!(
        "{compared} verdicts of {} profiles are the same; refused by libseccomp: {refused:?}",
        profiles.len()
    );
    assert!(refused.len() < 20, "{refused:?}");
}
