use proptest::prelude::*;

use super::*;

fn parsed(text: &str) -> Dockerfile {
    parse(text, "Dockerfile").unwrap()
}

fn refused(text: &str) -> String {
    parse(text, "Dockerfile").unwrap_err().message
}

fn steps(text: &str) -> Vec<Instruction> {
    let mut file = parsed(&format!("FROM x\n{text}"));
    file.stages.remove(0).steps.into_iter().map(|step| step.instruction).collect()
}

fn texts(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn stages() {
    let file =
        parsed("ARG V=1\nFROM --platform=$P a:${V} AS One\nRUN x\nfrom scratch\nCOPY --from=one /a /b/");
    assert_eq!(file.before.len(), 1);
    let shown: Vec<_> = file.stages.iter().map(|stage| (stage.base.as_str(), stage.name.as_str())).collect();
    assert_eq!(shown, [("a:${V}", "one"), ("scratch", "")]);
    assert_eq!(
        (file.stages[0].platform.as_str(), file.stages[0].code.as_str()),
        ("$P", "FROM --platform=$P a:${V} AS One")
    );
    let Instruction::Copy(copy) = &file.stages[1].steps[0].instruction else { panic!("{file:?}") };
    assert_eq!(
        (copy.from.as_str(), &copy.sources, copy.destination.as_str()),
        ("one", &texts(&["/a"]), "/b/")
    );
}

#[test]
fn instructions_have_their_forms() {
    let shell = |text: &str| Command { words: texts(&[text]), by_shell: true };
    let exec = |words: &[&str]| Command { words: texts(words), by_shell: false };
    assert_eq!(
        steps(
            "RUN echo  'a'\nCMD [\"a\", \"b\"]\nENTRYPOINT [a]\nCMD\nVOLUME [\"/a b\"]\nVOLUME /a  /b\nUSER a b"
        ),
        [
            Instruction::Run(shell("echo  'a'"), Vec::new()),
            Instruction::Cmd(exec(&["a", "b"])),
            Instruction::Entrypoint(shell("[a]")),
            Instruction::Cmd(Command { words: Vec::new(), by_shell: true }),
            Instruction::Volume(texts(&["/a b"])),
            Instruction::Volume(texts(&["/a", "/b"])),
            Instruction::User("a b".to_owned()),
        ]
    );
    assert_eq!(
        steps(
            "ENV a=b c=\"d e\" f=g\\ h\nENV one two  three\nARG a b=c\nONBUILD  run x y\nRUN --mount=type=x y"
        ),
        [
            Instruction::Env(vec![
                ("a".into(), "b".into()),
                ("c".into(), "\"d e\"".into()),
                ("f".into(), "g\\ h".into())
            ]),
            Instruction::Env(vec![("one".into(), "two  three".into())]),
            Instruction::Arg(vec![("a".into(), None), ("b".into(), Some("c".into()))]),
            Instruction::OnBuild("run x y".to_owned()),
            Instruction::Run(shell("y"), vec!["mount".to_owned()]),
        ]
    );
}

#[test]
fn what_is_none_is_refused() {
    for (text, wanted) in [
        ("", "the Dockerfile (Dockerfile) cannot be empty"),
        ("\n", "failed to parse Dockerfile: file with no instructions"),
        ("RUN x", "no build stage in current context"),
        ("FROM x\nRUNN x", "dockerfile parse error on line 2: unknown instruction: RUNN (did you mean RUN?)"),
        ("FROM a b", "dockerfile parse error on line 1: FROM requires either one or three arguments"),
        (
            "FROM x\n\nCOPY a",
            "dockerfile parse error on line 3: COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        ("FROM x\nENV a", "failed to parse Dockerfile: ENV must have two arguments"),
        (
            "FROM x\nENV a=b c",
            "failed to parse Dockerfile: Syntax error - can't find = in \"c\". Must be of the form: name=value",
        ),
        (
            "FROM x\nCMD [1]",
            "failed to parse Dockerfile: when using JSON array syntax, arrays must be comprised of strings only",
        ),
        (
            "FROM x\nSHELL /bin/sh",
            "dockerfile parse error on line 2: SHELL requires the arguments to be in JSON form",
        ),
        (
            "FROM x\nONBUILD FROM y",
            "dockerfile parse error on line 2: FROM isn't allowed as an ONBUILD trigger",
        ),
        (
            "FROM x\nONBUILD ONBUILD RUN y",
            "dockerfile parse error on line 2: Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
        ),
        (
            "FROM x\nHEALTHCHECK x",
            "dockerfile parse error on line 2: Unknown type \"X\" in HEALTHCHECK (try CMD)",
        ),
        (
            "FROM x\nHEALTHCHECK NONE x",
            "dockerfile parse error on line 2: HEALTHCHECK NONE takes no arguments",
        ),
        (
            "FROM x AS 1",
            "dockerfile parse error on line 1: invalid name for build stage: \"1\", name can't start with a number or contain symbols",
        ),
        (
            "FROM x\nCOPY --form=a b c",
            "dockerfile parse error on line 2: unknown flag: --form (did you mean from?)",
        ),
        ("FROM x\nWORKDIR", "dockerfile parse error on line 2: WORKDIR requires exactly one argument"),
    ] {
        assert_eq!(refused(text), wanted, "{text:?}");
    }
}

#[test]
fn triggers() {
    let step = trigger("COPY a b").unwrap();
    assert!(matches!(step.instruction, Instruction::Copy(_)));
    assert!(trigger("RUN a\nRUN b").is_err());
}

proptest! {
    #[test]
    fn any_text_is_read(text in "(?s).*") {
        let _either = parse(&text, "Dockerfile");
    }

    #[test]
    fn any_operands_are_read(
        name in prop::sample::select(NAMES.to_vec()),
        operands in "[ -~\\n]{0,60}",
    ) {
        let _either = parse(&format!("FROM x\n{name} {operands}"), "Dockerfile");
    }
}
