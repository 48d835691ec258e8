//! Networks, secrets and configs of a stack.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::value::{Place, StackError, keys};
use super::{Around, NAMESPACE};

/// What labels a part of the stack has: the file's, and the stack's.
pub(super) fn labels(stack: &str, given: Option<&Place<'_>>) -> Result<BTreeMap<String, String>, StackError> {
    let pairs = given.map(Place::pairs).transpose()?.unwrap_or_default();
    let own = pairs.into_iter().map(|(key, value)| (key, value.unwrap_or_default()));
    Ok(own.chain([(NAMESPACE.to_owned(), stack.to_owned())]).collect())
}

/// A part's name in the cluster: of its own, or the stack's and its key.
pub(super) fn name(stack: &str, part: &Place<'_>) -> Result<String, StackError> {
    let external = part.get("external");
    let is_external = external.as_ref().is_some_and(|it| *it.value != Value::Bool(false));
    let named = part.get("name").or_else(|| external.as_ref()?.get("name"));
    match named {
        Some(named) => named.text(),
        None if is_external => Ok(part.key().to_owned()),
        None => Ok(format!("{stack}_{}", part.key())),
    }
}

fn is_external(part: &Place<'_>) -> bool {
    part.get("external").is_some_and(|it| *it.value != Value::Bool(false))
}

/// The stack's networks by their keys.
#[derive(Debug, Default)]
pub(super) struct Networks {
    names: BTreeMap<String, String>,
    requests: BTreeMap<String, Value>,
}

impl Networks {
    pub(super) fn read(stack: &str, root: &Place<'_>) -> Result<Self, StackError> {
        let mut it = Self::default();
        let given = root.get("networks");
        for key in given.as_ref().map(keys).transpose()?.unwrap_or_default() {
            let Some(part) = given.as_ref().map(|given| given.at(&key)) else { continue };
            let named = name(stack, &part)?;
            if !is_external(&part) {
                let _none = it.requests.insert(key.clone(), request(stack, &named, &part)?);
            }
            let _none = it.names.insert(key, named);
        }
        if is_default_used(root)? && !it.names.contains_key("default") {
            let named = format!("{stack}_default");
            let request = request(stack, &named, &Place::root(&Value::Null))?;
            let _none = it.requests.insert("default".to_owned(), request);
            let _none = it.names.insert("default".to_owned(), named);
        }
        Ok(it)
    }

    pub(super) fn name_of(&self, key: &Place<'_>, named: &str) -> Result<&str, StackError> {
        let known = self.names.get(named).map(String::as_str);
        known.ok_or_else(|| key.wrong(&format!("undefined network {named:?}")))
    }

    pub(super) fn requests(self) -> Vec<Value> {
        self.requests.into_values().collect()
    }
}

fn is_default_used(root: &Place<'_>) -> Result<bool, StackError> {
    let Some(services) = root.get("services") else { return Ok(false) };
    let names = keys(&services)?;
    Ok(names.iter().any(|key| {
        let networks = services.at(key).get("networks");
        networks.is_none_or(|it| match it.value {
            Value::Array(items) => items.is_empty() || items.iter().any(|it| it == "default"),
            Value::Object(map) => map.is_empty() || map.contains_key("default"),
            _ => true,
        })
    }))
}

fn request(stack: &str, named: &str, part: &Place<'_>) -> Result<Value, StackError> {
    let text = |key: &str| part.get(key).map(|it| it.text()).transpose();
    let truth = |key: &str| part.get(key).map_or(Ok(false), |it| it.truth());
    let options = part.get("driver_opts").map(|it| it.pairs()).transpose()?.unwrap_or_default();
    let options: BTreeMap<_, _> =
        options.into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect();
    let ipam = part.get("ipam").and_then(|ipam| ipam.get("config")).map(|it| it.items()).transpose()?;
    let subnets = ipam.unwrap_or_default().into_iter().map(|it| {
        let text = |key: &str| it.get(key).map(|it| it.text()).transpose().map(Option::unwrap_or_default);
        Ok(json!({"Subnet": text("subnet")?, "IPRange": text("ip_range")?, "Gateway": text("gateway")?}))
    });
    let subnets = subnets.collect::<Result<Vec<_>, StackError>>()?;
    let mut request = json!({
        "Name": named,
        "Driver": text("driver")?.unwrap_or_else(|| "overlay".to_owned()),
        "Internal": truth("internal")?,
        "Attachable": truth("attachable")?,
        "Options": options,
        "Labels": labels(stack, part.get("labels").as_ref())?,
    });
    if !subnets.is_empty() {
        request["IPAM"] = json!({"Config": subnets});
    }
    Ok(request)
}

/// Those secrets or configs that are made of files.
pub(super) fn payloads(
    stack: &str,
    kind: &str,
    root: &Place<'_>,
    around: &Around<'_>,
) -> Result<Vec<Value>, StackError> {
    let Some(parts) = root.get(kind) else { return Ok(Vec::new()) };
    let mut requests = Vec::new();
    for part in keys(&parts)?.iter().map(|key| parts.at(key)).filter(|part| !is_external(part)) {
        let file = part.get("file").ok_or_else(|| part.wrong("needs a file, or to be external"))?;
        let path = file.text()?;
        let data = std::fs::read(around.folder.join(&path)).map_err(|error| StackError::File {
            place: file.path(),
            path: path.clone(),
            why: error.to_string(),
        })?;
        requests.push(json!({
            "Name": name(stack, &part)?,
            "Labels": labels(stack, part.get("labels").as_ref())?,
            "Data": STANDARD.encode(data),
        }));
    }
    Ok(requests)
}
