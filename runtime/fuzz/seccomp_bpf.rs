//! A seccomp profile to BPF: the kernel would take the program, and it has a verdict on every call. The profile is
//! compiled for every architecture; the rest of the input are the calls' numbers and arguments.
#![no_main]

use ketch::seccomp::interpreter::{SeccompData, run, verify};
use ketch::seccomp::{Arch, FilterFlags, Program, compile};
use ketch::spec::Seccomp;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut documents = serde_json::Deserializer::from_slice(bytes).into_iter::<Seccomp>();
    let Some(Ok(profile)) = documents.next() else { return };
    let mut calls = bytes[documents.byte_offset()..].to_vec();
    calls.resize(calls.len().next_multiple_of(8).max(56), 0);
    let words: Vec<u64> = calls.chunks(8).map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes"))).collect();
    let flags = FilterFlags::SPEC_ALLOW.with(FilterFlags::NEW_LISTENER).with(FilterFlags::LOG);
    for native in Arch::ALL {
        let Ok(Some(program)) = compile(&profile, native, flags) else { continue };
        verify(&program.filter).expect("the kernel would take it");
        let json = serde_json::to_vec(&program).expect("a program can be written");
        assert_eq!(serde_json::from_slice::<Program>(&json).expect("and read"), program);
        for call in words.windows(7) {
            for arch in Arch::ALL {
                let data = SeccompData {
                    number: (call[0] & 0xffff_ffff) as u32,
                    arch: arch.audit(),
                    instruction_pointer: 0,
                    args: [call[1], call[2], call[3], call[4], call[5], call[6]],
                };
                let verdict = run(&program.filter, &data, native.byte_order()).expect("every call has a verdict");
                let listed = arch.audit() == native.audit()
                    || profile.architectures.iter().any(|name| Arch::from_oci(name).is_some_and(|a| a.audit() == arch.audit()));
                assert!(listed || verdict == 0, "{arch:?} is not listed and not killed: {verdict:#x}");
            }
        }
    }
});
