//! `template`, one case at a time.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::fixture;
use crate::id::{ConfigId, SecretId};
use crate::objects::container::{
    ConfigReference, ConfigTarget, FileTarget, Mount, SecretReference, VolumeOptions,
};
use crate::objects::node::Platform;
use crate::objects::{Config, ConfigSpec, ContainerSpec, Driver, Labels, Meta, Secret, SecretSpec};

fn context() -> Context {
    Context {
        service_id: "s1".to_owned(),
        service_name: "web".to_owned(),
        service_labels: [("zone", "a"), ("com.x/y", "dotted")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        node_id: "n1".to_owned(),
        node_hostname: "host".to_owned(),
        node_platform: Platform { architecture: "x86_64".to_owned(), os: "linux".to_owned() },
        task_id: "t1".to_owned(),
        task_name: "web.3.t1".to_owned(),
        task_slot: "3".to_owned(),
    }
}

fn expand(text: &str) -> Result<String, String> {
    let template = Template::parse(text, Functions::Spec).map_err(|error| error.to_string())?;
    template.expand(&context()).map_err(|error| error.to_string())
}

#[test]
fn every_field_is_known() {
    let all = "{{.Service.ID}} {{.Service.Name}} {{.Service.Labels.zone}} {{.Node.ID}} {{.Node.Hostname}} \
               {{.Node.Platform.Architecture}} {{.Node.Platform.OS}} {{.Task.ID}} {{.Task.Name}} {{.Task.Slot}}";
    assert_eq!(expand(all).unwrap(), "s1 web a n1 host x86_64 linux t1 web.3.t1 3");
}

#[test]
fn labels_texts_functions_and_pipelines() {
    for (text, expanded) in [
        (r#"{{index .Service.Labels "com.x/y"}}"#, "dotted"),
        (r#"{{index .Service.Labels "none"}}|"#, "|"),
        ("{{.Service.Labels}}", "map[com.x/y:dotted zone:a]"),
        (r#"{{join "-" .Service.Name .Task.Slot}}"#, "web-3"),
        (r#"{{.Task.Slot | join "-" "x"}}"#, "x-3"),
        (r#"{{"zone" | index .Service.Labels}}"#, "a"),
        (r#"{{join "." (index .Service.Labels "zone") `r\n`}}"#, r"a.r\n"),
        (r#"{{"a\t\"b\\"}}"#, "a\t\"b\\"),
        ("a{{/* nothing */}}b", "ab"),
        ("a \n{{- .Task.Slot -}} \t b", "a3b"),
        ("a {{- /* trimmed */ -}} b", "ab"),
        ("{{ .Node.ID }}", "n1"),
        ("plain } {text}", "plain } {text}"),
        ("", ""),
    ] {
        assert_eq!(expand(text), Ok(expanded.to_owned()), "{text}");
    }
}

#[test]
fn what_can_not_be_parsed_is_told_in_gos_words() {
    for (text, told) in [
        ("{{", "template: expansion:1: unclosed action"),
        ("a\n{{.Task", "template: expansion:2: unclosed action"),
        ("{{}}", "template: expansion:1: missing value for command"),
        ("{{.Task |}}", "template: expansion:1: missing value for command"),
        (r#"{{"a}}"#, "template: expansion:1: unterminated quoted string"),
        ("{{`a}}", "template: expansion:1: unterminated raw quoted string"),
        ("{{nope}}", "template: expansion:1: function \"nope\" not defined"),
        (r#"{{env "A"}}"#, "template: expansion:1: function \"env\" not defined"),
        (r#"{{.Task | "a"}}"#, "template: expansion:1: non executable command in pipeline stage 2"),
        ("{{/* a", "template: expansion:1: unclosed comment"),
        ("{{/* a */ b}}", "template: expansion:1: comment ends before closing delimiter"),
        ("{{(.Task}}", "template: expansion:1: unclosed left paren"),
        ("{{.Task)}}", "template: expansion:1: unexpected right paren"),
        ("{{!}}", "template: expansion:1: unexpected \"!\" in command"),
        ("{{.Task.Slot\"a\"}}", "template: expansion:1: bad character U+0022 '\"'"),
        ("{{if .Task}}", "template: expansion:1: {{if}} is not supported"),
    ] {
        assert_eq!(expand(text), Err(told.to_owned()), "{text}");
    }
    let deep = format!("{{{{{}", "(".repeat(100_000));
    assert_eq!(expand(&deep), Err("template: expansion:1: parentheses are nested too deeply".to_owned()));
}

#[test]
fn what_can_not_be_expanded_is_told_in_gos_words() {
    for (text, told) in [
        (
            "{{.Nope}}",
            "template: expansion:1:2: executing \"expansion\" at <.Nope>: can't evaluate field Nope in type *template.Context",
        ),
        (
            "x\n {{.Service.Nope}}",
            "template: expansion:2:11: executing \"expansion\" at <.Service.Nope>: can't evaluate field Nope in type struct { ID string; Name string; Labels map[string]string }",
        ),
        (
            "{{.Service.Labels.none}}",
            "template: expansion:1:10: executing \"expansion\" at <.Service.Labels.none>: map has no entry for key \"none\"",
        ),
        (
            "{{.Task.Slot.X}}",
            "template: expansion:1:7: executing \"expansion\" at <.Task.Slot.X>: can't evaluate field X in type string",
        ),
        (
            "{{.Task.ID \"a\"}}",
            "template: expansion:1:7: executing \"expansion\" at <.Task.ID>: ID has arguments but cannot be invoked as function",
        ),
        (
            "{{\"a\" \"b\"}}",
            "template: expansion:1:2: executing \"expansion\" at <\"a\">: can't give argument to non-function \"a\"",
        ),
        (
            "{{join}}",
            "template: expansion:1:2: executing \"expansion\" at <join>: error calling join: wrong number of args for join: want at least 1 got 0",
        ),
        (
            "{{.}}",
            "template: expansion:1:2: executing \"expansion\" at <.>: can't print value of type *template.Context",
        ),
    ] {
        assert_eq!(expand(text), Err(told.to_owned()), "{text}");
    }
}

#[test]
fn a_container_is_expanded_where_it_may_be() {
    let spec = ContainerSpec {
        hostname: "{{.Service.Name}}-{{.Task.Slot}}".to_owned(),
        env: vec!["A={{.Node.Hostname}}".to_owned(), "{{B}}".to_owned(), "{{C}}=c=d".to_owned()],
        args: vec!["{{not a template".to_owned()],
        mounts: vec![Mount {
            source: "v-{{.Task.Slot}}".to_owned(),
            target: "/{{.Service.Name}}".to_owned(),
            volume: VolumeOptions {
                labels: Labels::from([("l".to_owned(), "{{.Task.ID}}".to_owned())]),
                driver: Some(Driver {
                    name: "{{x".to_owned(),
                    options: Labels::from([("o".to_owned(), "{{.Node.ID}}".to_owned())]),
                }),
                ..VolumeOptions::default()
            },
            ..Mount::default()
        }],
        ..ContainerSpec::default()
    };
    let expanded = expand_container(&spec, &context()).unwrap();
    assert_eq!(expanded.hostname, "web-3");
    assert_eq!(expanded.env, ["A=host", "{{B}}", "{{C}}=c=d"]);
    assert_eq!(expanded.args, spec.args);
    let mount = &expanded.mounts[0];
    assert_eq!((mount.source.as_str(), mount.target.as_str()), ("v-3", "/web"));
    assert_eq!(mount.volume.labels["l"], "t1");
    assert_eq!(mount.volume.driver.as_ref().unwrap().options["o"], "n1");
}

#[test]
fn the_text_that_fails_is_named() {
    let env = |text: &str| ContainerSpec { env: vec![text.to_owned()], ..ContainerSpec::default() };
    let told = expand_container(&env("A={{"), &context()).unwrap_err().to_string();
    assert_eq!(told, "expanding env failed: expanding env \"A\": template: expansion:1: unclosed action");
    let host = ContainerSpec { hostname: "{{".to_owned(), ..ContainerSpec::default() };
    let told = expand_container(&host, &context()).unwrap_err().to_string();
    assert_eq!(told, "expanding hostname failed: template: expansion:1: unclosed action");
    let mount = |source: &str, target: &str| ContainerSpec {
        mounts: vec![Mount { source: source.to_owned(), target: target.to_owned(), ..Mount::default() }],
        ..ContainerSpec::default()
    };
    for (spec, which) in [(mount("{{", ""), "source"), (mount("", "{{"), "target")] {
        let told = expand_container(&spec, &context()).unwrap_err().to_string();
        let start = format!("expanding mounts failed: expanding mount {which} \"{{{{\": template: ");
        assert!(told.starts_with(&start), "{told}");
    }
}

#[test]
fn a_payload_reads_what_its_task_references() {
    let file = |name: &str| FileTarget { name: name.to_owned(), ..FileTarget::default() };
    let (secret, config) = (SecretId::of(1), ConfigId::of(2));
    let container = ContainerSpec {
        env: vec!["A=1".to_owned(), "B".to_owned()],
        secrets: vec![SecretReference { secret, name: "s".to_owned(), file: file("key") }],
        configs: vec![ConfigReference {
            config,
            name: "c".to_owned(),
            target: ConfigTarget::File(file("conf")),
        }],
        ..ContainerSpec::default()
    };
    let secrets = BTreeMap::from([(
        secret,
        Arc::new(Secret {
            id: secret,
            meta: Meta::default(),
            spec: SecretSpec { data: b"hidden".to_vec(), ..SecretSpec::default() },
            internal: false,
            superseded: false,
        }),
    )]);
    let configs = BTreeMap::from([(
        config,
        Arc::new(Config {
            id: config,
            meta: Meta::default(),
            spec: ConfigSpec { data: b"shown".to_vec(), ..ConfigSpec::default() },
            superseded: false,
        }),
    )]);
    let dependencies = Dependencies { container: &container, secrets: &secrets, configs: &configs };
    let golang = Driver { name: "golang".to_owned(), ..Driver::default() };
    let expand = |text: &str| {
        expand_payload(text.as_bytes(), Some(&golang), &context(), &dependencies)
            .map(|payload| (String::from_utf8(payload.data).unwrap(), payload.has_secret))
            .map_err(|error| error.to_string())
    };
    let text = r#"{{env "A"}}{{env "B"}}{{config "conf"}}{{.Task.Slot}}"#;
    assert_eq!(expand(text), Ok(("1shown3".to_owned(), false)));
    assert_eq!(expand(r#"{{secret "key"}}"#), Ok(("hidden".to_owned(), true)));
    assert_eq!(
        expand(r#"{{secret "other"}}"#),
        Err("template: expansion:1:2: executing \"expansion\" at <secret>: error calling secret: secret target other not found".to_owned())
    );
    let plain = expand_payload(b"{{", None, &context(), &dependencies).unwrap();
    assert_eq!(plain, Payload { data: b"{{".to_vec(), has_secret: false });
    let other = Driver { name: "jinja".to_owned(), ..Driver::default() };
    assert_eq!(
        expand_payload(b"", Some(&other), &context(), &dependencies),
        Err(ExpandError::UnknownTemplating)
    );
    assert_eq!(
        expand_payload(&[0xff], Some(&golang), &context(), &dependencies),
        Err(ExpandError::PayloadNotText)
    );
}

#[test]
fn a_task_without_a_slot_has_its_node_for_one() {
    let service = fixture::replicated(1, 1);
    let node = fixture::node(9);
    let description = node.description.clone().unwrap();
    let on_node = |slot| fixture::task_on(fixture::task(5, &service, slot), &node, Default::default());
    assert_eq!(Context::of(&on_node(2), &description).task_slot, "2");
    let global = Context::of(&on_node(0), &description);
    assert_eq!(global.task_slot, node.id.to_string());
    assert_eq!((global.service_name.as_str(), global.node_hostname.as_str()), ("service-1", "node-9"));
}

fn likely() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("{{"),
        Just("}}"),
        Just("{{- "),
        Just(" -}}"),
        Just("/*"),
        Just("*/"),
        Just("."),
        Just("|"),
        Just("("),
        Just(")"),
        Just("\""),
        Just("`"),
        Just("\\"),
        Just(" "),
        Just("\n"),
        Just("index "),
        Just("join "),
        Just(".Service.Labels"),
        Just(".Task.Slot"),
        Just("\"zone\""),
        Just("ä"),
        Just("-"),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_input_panics(text in prop_oneof![any::<String>(), likely()]) {
        for functions in [Functions::Spec, Functions::Payload] {
            if let Ok(template) = Template::parse(&text, functions) {
                let _ = template.expand(&context());
            }
        }
    }

    #[test]
    fn a_text_without_actions_is_itself(text in "[^{]*") {
        prop_assert_eq!(expand(&text), Ok(text));
    }
}

#[test]
fn a_text_that_grows_without_bound_is_refused() {
    let mut context = context();
    context.service_labels.insert("large".to_owned(), "x".repeat(60_000));
    let env = |value: String| ContainerSpec { env: vec![format!("A={value}")], ..ContainerSpec::default() };
    let told = |value: String| expand_container(&env(value), &context).map(drop).map_err(|it| it.to_string());
    let label = "{{.Service.Labels.large}}";
    assert_eq!(told(label.repeat(50)), Ok(()));
    let too_large = "the text would take more than 4194304 bytes";
    assert!(told(label.repeat(100)).unwrap_err().ends_with(too_large));
    let joined = format!("{{{{join .Service.Labels.large {}}}}}", ".Service.Name ".repeat(200));
    assert!(told(joined.clone()).unwrap_err().ends_with(too_large));
    let unseen = joined.replace("}}", "| join}}");
    assert!(told(unseen).unwrap_err().ends_with(too_large), "what is not shown counts as well");
    let many = ContainerSpec { env: vec![format!("A={}", label.repeat(50)); 3], ..ContainerSpec::default() };
    assert!(expand_container(&many, &context).is_err(), "all texts of a container together");
}

#[test]
fn values_that_may_be_secret_are_in_no_error() {
    let env = ContainerSpec { env: vec!["PASSWORD=hunter2{{".to_owned()], ..ContainerSpec::default() };
    let options = [("o".to_owned(), "password=hunter2{{".to_owned())].into();
    let driver = Some(crate::objects::Driver { name: String::new(), options });
    let mut mount = Mount::default();
    mount.volume.driver = driver;
    let volume = ContainerSpec { mounts: vec![mount], ..ContainerSpec::default() };
    for (spec, named) in [(env, "PASSWORD"), (volume, "\"o\"")] {
        let error = expand_container(&spec, &context()).unwrap_err();
        let told = format!("{error} {error:?}");
        assert!(told.contains(named) && !told.contains("hunter2"), "{told}");
    }
}
