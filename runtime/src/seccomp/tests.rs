//! The compiler against the reference: every number of every architecture, with arguments at every boundary.

use proptest::prelude::*;
use proptest::sample::select;

use super::interpreter::{SeccompData, run, verify};
use super::reference::Reference;
use super::*;
use crate::spec::{SeccompArg, SeccompRule};

const ALL_FLAGS: FilterFlags =
    FilterFlags(FilterFlags::LOG.0 | FilterFlags::SPEC_ALLOW.0 | FilterFlags::NEW_LISTENER.0);

fn docker() -> Seccomp {
    serde_json::from_str(include_str!("../../../oci-bundles/docker-default/seccomp.json")).unwrap()
}

fn compiled(profile: &Seccomp, native: Arch) -> Program {
    compile(profile, native, ALL_FLAGS).unwrap().unwrap()
}

/// Runs the filter of `profile` on everything that may matter to it; panics at the first verdict that is not the
/// reference's. Gives the number of verdicts compared.
fn check_against_reference(profile: &Seccomp, native: Arch) -> usize {
    let program = compiled(profile, native);
    verify(&program.filter).unwrap();
    let reference = Reference::new(profile, native);
    let boundaries = reference.boundaries();
    let mut compared = 0;
    let mut compare = |data: SeccompData| {
        let found = run(&program.filter, &data, native.byte_order()).unwrap();
        let wanted = reference.verdict(&data);
        assert_eq!(found, wanted, "{data:x?} on {native:?}: {found:#x} is not {wanted:#x}\n{profile:#?}");
        compared += 1;
    };
    for arch in reference.audits() {
        for number in reference.numbers() {
            let mut data = SeccompData { number, arch, instruction_pointer: 0, args: [0; 6] };
            compare(data);
            if !reference.looks_at_arguments(number) {
                compare(SeccompData { args: [u64::MAX; 6], ..data });
                compare(SeccompData { args: [1, 2, 3, 4, 5, 6], ..data });
                continue;
            }
            // One argument at a time from a common floor: the random tests vary them together.
            for (index, values) in boundaries.iter().enumerate() {
                for &value in values {
                    data.args = [0; 6];
                    data.args[index] = value;
                    compare(data);
                }
            }
        }
    }
    compared
}

/// i386 has `accept` by socketcall(2) alone, whose number is above all that this profile names there.
#[test]
fn a_multiplexer_above_all_that_is_named_is_newer() {
    let argument = SeccompArg { index: 0, value: 203, value_two: 0, op: "SCMP_CMP_MASKED_EQ".to_owned() };
    let rule = SeccompRule {
        names: vec!["accept".to_owned(), "truncate".to_owned()],
        action: "SCMP_ACT_ALLOW".to_owned(),
        errno_ret: None,
        args: vec![argument],
    };
    for default in ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL"] {
        let profile = Seccomp {
            default_action: default.to_owned(),
            syscalls: vec![rule.clone()],
            ..serde_json::from_str("{\"defaultAction\": \"\"}").unwrap()
        };
        assert!(check_against_reference(&profile, Arch::X86) > 0);
    }
}

#[test]
fn dockers_profile_on_its_architectures() {
    let newer = include_str!("../../../oci-bundles/docker-default/seccomp-28.5.json");
    check_against_reference(&serde_json::from_str(newer).unwrap(), Arch::X86_64);
    let mut profile = docker();
    let compared = check_against_reference(&profile, Arch::X86_64);
    assert!(compared > 10_000, "{compared}");
    profile.architectures = vec!["SCMP_ARCH_ARM".to_owned()];
    check_against_reference(&profile, Arch::Aarch64);
    profile.architectures = vec!["SCMP_ARCH_S390".to_owned()];
    check_against_reference(&profile, Arch::S390x);
    profile.architectures = Vec::new();
    for native in Arch::ALL {
        check_against_reference(&profile, native);
    }
}

#[test]
fn dockers_profile_is_small_and_clean() {
    let program = compiled(&docker(), Arch::X86_64);
    println!("{} instructions", program.filter.len());
    assert!(program.filter.len() < 500, "{}", program.filter.len());
    assert_eq!(program.warnings, []);
    assert_eq!(program.flags, FilterFlags::SPEC_ALLOW);
    assert!(!program.notify);
}

#[test]
fn programs_survive_json() {
    let program = compiled(&docker(), Arch::X86_64);
    let text = serde_json::to_string(&program).unwrap();
    assert_eq!(serde_json::from_str::<Program>(&text).unwrap(), program);
}

fn profile(json: serde_json::Value) -> Seccomp {
    serde_json::from_value(json).unwrap()
}

fn rule(names: &[&str], action: &str) -> serde_json::Value {
    serde_json::json!({"names": names, "action": action})
}

fn error(json: serde_json::Value) -> String {
    compile(&profile(json), Arch::X86_64, ALL_FLAGS).unwrap_err().to_string()
}

#[test]
fn what_runc_refuses_is_refused_in_its_words() {
    let json = |value| serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [value]});
    assert_eq!(
        error(serde_json::json!({"defaultAction": "SCMP_ACT_MAYBE"})),
        "string SCMP_ACT_MAYBE is not a valid action for seccomp"
    );
    assert_eq!(error(json(rule(&["read"], "NO"))), "string NO is not a valid action for seccomp");
    assert_eq!(
        error(json(
            serde_json::json!({"names": ["read"], "action": "SCMP_ACT_LOG", "args": [{"op": "LIKE"}]})
        )),
        "string LIKE is not a valid operator for seccomp"
    );
    assert_eq!(
        error(serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_Z80"]})),
        "string SCMP_ARCH_Z80 is not a valid arch for seccomp"
    );
    assert_eq!(
        error(serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_S390X"]})),
        "error adding architecture s390x to seccomp filter: its byte order is not that of amd64"
    );
    assert_eq!(
        error(serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_X"]})),
        "seccomp flag SECCOMP_FILTER_FLAG_X is not known to ketch"
    );
    assert_eq!(
        error(serde_json::json!(
            {"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}
        )),
        "seccomp flag SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV is not supported by this kernel"
    );
    assert_eq!(
        error(json(rule(&["read", "write"], "SCMP_ACT_NOTIFY"))),
        "SCMP_ACT_NOTIFY cannot be used for the write syscall"
    );
    assert_eq!(
        error(serde_json::json!({"defaultAction": "SCMP_ACT_NOTIFY"})),
        "SCMP_ACT_NOTIFY cannot be used as default action"
    );
    assert_eq!(error(json(rule(&[""], "SCMP_ACT_LOG"))), "empty string is not a valid syscall");
    assert_eq!(
        error(json(serde_json::json!(
            {"names": ["read"], "action": "SCMP_ACT_LOG", "args": [{"index": 6, "op": "SCMP_CMP_EQ"}]}
        ))),
        "error creating seccomp syscall condition for syscall read: syscalls only have up to 6 arguments (6 given)"
    );
}

#[test]
fn a_profile_that_says_nothing_is_no_filter() {
    assert_eq!(compile(&Seccomp::default(), Arch::X86_64, ALL_FLAGS), Ok(None));
    assert_eq!(error(serde_json::json!({"syscalls": [{}]})), "string  is not a valid action for seccomp");
}

#[test]
fn unknown_names_are_told_and_skipped() {
    let program = compiled(
        &profile(serde_json::json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [rule(&["open", "frobnicate"], "SCMP_ACT_ALLOW"), rule(&["unheard"], "SCMP_ACT_ERRNO")],
        })),
        Arch::X86_64,
    );
    assert_eq!(program.warnings, [Warning::UnknownSyscall("frobnicate".to_owned())]);
    assert!(program.warnings[0].is_debug());
    assert_eq!(program.warnings[0].to_string(), "unknown seccomp syscall \"frobnicate\" ignored");
}

#[test]
fn an_architecture_without_calls_is_told() {
    let program = compiled(
        &profile(serde_json::json!({
            "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"],
            "syscalls": [rule(&["semtimedop"], "SCMP_ACT_ALLOW")],
        })),
        Arch::X86_64,
    );
    assert_eq!(program.warnings, [Warning::NoSyscalls(Arch::X86)]);
}

#[test]
fn flags_become_bits() {
    let flags = |names: serde_json::Value| {
        compile(
            &profile(serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": names})),
            Arch::X86_64,
            ALL_FLAGS.with(FilterFlags::WAIT_KILLABLE_RECV),
        )
        .unwrap()
        .unwrap()
        .flags
        .bits()
    };
    assert_eq!(flags(serde_json::json!(null)), 4);
    assert_eq!(flags(serde_json::json!([])), 0);
    assert_eq!(flags(serde_json::json!(["SECCOMP_FILTER_FLAG_TSYNC"])), 0);
    assert_eq!(flags(serde_json::json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"])), 6);
    assert_eq!(flags(serde_json::json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"])), 32);
    let old = compile(
        &profile(serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW"})),
        Arch::X86_64,
        FilterFlags::NONE,
    );
    assert_eq!(old.unwrap().unwrap().flags, FilterFlags::NONE);
}

#[test]
fn notifying_asks_for_a_listener() {
    let program = compiled(
        &profile(serde_json::json!({
            "defaultAction": "SCMP_ACT_ALLOW", "flags": [],
            "syscalls": [rule(&["mkdir"], "SCMP_ACT_NOTIFY")],
        })),
        Arch::X86_64,
    );
    assert!(program.notify);
    assert_eq!(program.flags, FilterFlags::NEW_LISTENER);
}

#[test]
fn a_filter_that_the_kernel_would_refuse_is_refused() {
    let args: Vec<_> =
        (0..3000).map(|value| serde_json::json!({"index": 0, "value": value, "op": "SCMP_CMP_EQ"})).collect();
    let message = error(serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": args}],
    }));
    assert!(message.ends_with("instructions, the kernel takes at most 4096"), "{message}");
}

#[test]
fn features_lists_are_what_the_compiler_knows() {
    for name in KNOWN_ACTIONS {
        let default = if name == "SCMP_ACT_NOTIFY" { "SCMP_ACT_ALLOW" } else { name };
        compiled(
            &profile(serde_json::json!({"defaultAction": default, "syscalls": [rule(&["read"], name)]})),
            Arch::X86_64,
        );
    }
    assert_eq!(KNOWN_ARCHS.map(Arch::from_oci).iter().flatten().count(), Arch::ALL.len());
    assert!(KNOWN_ARCHS.is_sorted() && KNOWN_ACTIONS.is_sorted() && KNOWN_OPERATORS.is_sorted());
    assert_eq!(
        supported_flags(FilterFlags::SPEC_ALLOW).collect::<Vec<_>>(),
        ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]
    );
}

fn any_value() -> impl Strategy<Value = u64> {
    prop_oneof![
        0_u64..4,
        any::<u64>(),
        (any::<u32>(), any::<bool>()).prop_map(|(low, high)| u64::from(low) | u64::from(high) << 32),
        select(vec![0, u64::from(u32::MAX), 1 << 32, u64::MAX, 0xffff_ffff_0000_0000, 0x8000_0000]),
    ]
}

fn any_arg() -> impl Strategy<Value = SeccompArg> {
    (0_u32..3, any_value(), any_value(), select(KNOWN_OPERATORS.to_vec()))
        .prop_map(|(index, value, value_two, op)| SeccompArg { index, value, value_two, op: op.to_owned() })
}

fn any_name() -> impl Strategy<Value = String> {
    let names: Vec<_> = Syscall::all().map(Syscall::name).collect();
    prop_oneof![
        8 => select(names),
        4 => select(vec!["read", "open", "clone", "socket", "accept", "semop", "socketcall", "ipc", "set_tls"]),
        1 => Just("frobnicate"),
    ]
    .prop_filter("runc's own rule", |name| *name != "write")
    .prop_map(str::to_owned)
}

prop_compose! {
    fn any_rule()(
        names in proptest::collection::vec(any_name(), 0..6),
        action in select(KNOWN_ACTIONS.to_vec()),
        errno_ret in proptest::option::of(0_u32..40),
        args in prop_oneof![2 => Just(Vec::new()), 3 => proptest::collection::vec(any_arg(), 1..4)],
    ) -> SeccompRule {
        SeccompRule { names, action: action.to_owned(), errno_ret, args }
    }
}

prop_compose! {
    fn any_profile()(
        native in select(Arch::ALL.to_vec()),
        default in select(KNOWN_ACTIONS.iter().filter(|name| **name != "SCMP_ACT_NOTIFY").collect::<Vec<_>>()),
        default_errno_ret in proptest::option::of(0_u32..40),
        archs in proptest::collection::vec(select(Arch::ALL.to_vec()), 0..3),
        syscalls in proptest::collection::vec(any_rule(), 0..12),
    ) -> (Arch, Seccomp) {
        let architectures = archs
            .into_iter()
            .filter(|arch| arch.byte_order() == native.byte_order())
            .map(|arch| arch.oci_name().to_owned())
            .collect();
        let default_action = (*default).to_owned();
        (native, Seccomp { default_action, default_errno_ret, architectures, syscalls, ..Seccomp::default() })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn random_profiles_mean_what_the_reference_says((native, profile) in any_profile()) {
        check_against_reference(&profile, native);
    }
}

/// Found by the random profiles.
#[test]
fn a_mask_that_looks_at_nothing_is_no_condition() {
    let void = SeccompArg { index: 0, value: 0, value_two: 7, op: "SCMP_CMP_MASKED_EQ".into() };
    let rule = |action: &str, args: &[SeccompArg]| SeccompRule {
        names: vec!["socket".into()],
        action: action.into(),
        args: args.to_vec(),
        ..SeccompRule::default()
    };
    let profile = Seccomp {
        default_action: "SCMP_ACT_ALLOW".into(),
        syscalls: vec![rule("SCMP_ACT_ERRNO", &[void]), rule("SCMP_ACT_LOG", &[])],
        ..Seccomp::default()
    };
    for native in [Arch::X86, Arch::X86_64] {
        check_against_reference(&profile, native);
    }
}

proptest! {
    #[test]
    fn random_arguments_get_what_the_reference_says(
        (native, profile) in any_profile(),
        calls in proptest::collection::vec((any::<u16>(), proptest::array::uniform6(any_value())), 64),
    ) {
        let program = compiled(&profile, native);
        verify(&program.filter).unwrap();
        let reference = Reference::new(&profile, native);
        let (numbers, audits) = (reference.numbers(), reference.audits());
        for (pick, args) in calls {
            let pick = usize::from(pick);
            let data = SeccompData {
                number: numbers[pick % numbers.len()],
                arch: audits[pick % audits.len()],
                instruction_pointer: 0,
                args,
            };
            let found = run(&program.filter, &data, native.byte_order()).unwrap();
            prop_assert_eq!(found, reference.verdict(&data), "{:x?} on {:?}", data, native);
        }
    }
}

/// `cargo test --profile quick -p ketch --lib -- --ignored --nocapture seccomp::tests::time`
#[test]
#[ignore = "prints a time and checks nothing"]
fn time_of_dockers_profile() {
    let profile = docker();
    let mut times: Vec<_> = (0..1000)
        .map(|_| {
            let start = std::time::Instant::now();
            std::hint::black_box(compile(std::hint::black_box(&profile), Arch::X86_64, ALL_FLAGS)).unwrap();
            start.elapsed()
        })
        .collect();
    let first = times[0];
    times.sort_unstable();
    println!("Docker's profile compiles in {:?} (the first time in {first:?})", times[times.len() / 2]);
}

#[test]
fn a_program_says_what_it_allows() {
    let dockers = include_str!("../../../oci-bundles/docker-default/seccomp.json");
    let program =
        compile(&serde_json::from_str(dockers).unwrap(), Arch::NATIVE, FilterFlags::NONE).unwrap().unwrap();
    assert!(program.allows("setsid", [0; 6]));
    assert!(program.allows("clone", [0x8000, 0, 0, 0, 0, 0]));
    // A new user namespace, and a call with arguments that no filter can see.
    assert!(!program.allows("clone", [0x1000_0000, 0, 0, 0, 0, 0]));
    assert!(!program.allows("clone3", [0; 6]));
    assert!(!program.allows("no such call", [0; 6]));
}
