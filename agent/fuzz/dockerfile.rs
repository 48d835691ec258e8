//! Any text as a Dockerfile: refused, or stages of instructions whose variables are put in or refused.
#![no_main]

use ketchd::dockerfile::parse::{parse, trigger};
use ketchd::dockerfile::words::Substitution;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let variables = ["A=a", "EMPTY=", "PATH=/usr/bin:/bin"].map(str::to_owned);
    let _trigger = trigger(text);
    let Ok(file) = parse(text, "Dockerfile") else { return };
    let how = Substitution::new(file.escape, &variables);
    for step in file.before.iter().chain(file.stages.iter().flat_map(|stage| &stage.steps)) {
        let _text = how.word(&step.code);
        let _words = how.words(&step.code);
    }
});
