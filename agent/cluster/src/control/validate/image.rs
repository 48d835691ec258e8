//! Whether a text names an image: `[registry[:port]/]path[:tag][@digest]`.
//!
//! It only decides; what the name stands for is resolved by the node that pulls. The grammar is that of the distribution
//! project's references, with the registry optional and any-case, the path in lower case.

const MAX_NAME: usize = 255;

pub(super) fn is_reference(text: &str) -> bool {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    // A colon after the last slash starts a tag, one before it a port.
    let path_start = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match rest[path_start..].split_once(':') {
        Some((last, tag)) => (&rest[..path_start + last.len()], Some(tag)),
        None => (rest, None),
    };
    digest.is_none_or(is_digest) && tag.is_none_or(is_tag) && is_name(name) && !is_id(text)
}

/// 64 hexadecimal digits are an image's id, which means nothing on another node.
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_name(name: &str) -> bool {
    let path = match name.split_once('/') {
        Some((registry, path)) if is_registry(registry) => path,
        _ => name,
    };
    name.len() <= MAX_NAME && path.split('/').all(is_component)
}

/// A first part is a registry when it has a dot, a port or upper-case letters, or is `localhost`.
fn is_registry(text: &str) -> bool {
    let marked =
        text.contains(['.', ':']) || text == "localhost" || text.bytes().any(|it| it.is_ascii_uppercase());
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port_fits =
        port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
    marked && port_fits && is_host(host)
}

fn is_host(host: &str) -> bool {
    if let Some(v6) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return !v6.is_empty() && v6.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':');
    }
    host.split('.').all(|label| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty() && !label.starts_with('-') && !label.ends_with('-') && label.bytes().all(fits)
    })
}

/// Lower-case letters and digits, with one dot, one or two underscores or any dashes between them.
fn is_component(component: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends_fit = [bytes.first(), bytes.last()].into_iter().all(|byte| byte.is_some_and(|it| is_plain(*it)));
    ends_fit
        && component
            .split(|character: char| character.is_ascii_lowercase() || character.is_ascii_digit())
            .all(|between| {
                matches!(between, "" | "." | "_" | "__") || between.bytes().all(|byte| byte == b'-')
            })
}

fn is_tag(tag: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.bytes().next().is_some_and(is_word)
        && tag.len() <= 128
        && tag.bytes().all(|byte| is_word(byte) || b".-".contains(&byte))
}

fn is_digest(digest: &str) -> bool {
    let Some((algorithm, hex)) = digest.split_once(':') else { return false };
    let is_part = |part: &str| {
        part.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    algorithm.split(['-', '_', '+', '.']).all(is_part)
        && hex.len() >= 32
        && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_with_and_without_registry_tag_and_digest() {
        let digest = format!("busybox@sha256:{}", "a".repeat(64));
        for good in [
            "busybox",
            "busybox:1.36",
            "library/busybox",
            "docker.io/library/busybox:latest",
            "localhost/a",
            "localhost:5000/a/b:c",
            "REGISTRY/a",
            "127.0.0.1:5000/a",
            "[fd00::1]:5000/a",
            "a__b/c--d.e_f",
            digest.as_str(),
            &format!("a:b@sha256:{}", "0".repeat(32)),
        ] {
            assert!(is_reference(good), "{good}");
        }
        for bad in [
            "",
            ":",
            "@",
            "Busybox",
            "a:",
            "a@",
            "a:-b",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "a//b",
            "/a",
            "a/",
            "a b",
            "http://a/b",
            "a@sha256:abc",
            "a.b:x/c",
            "a:b:c",
            "ä",
            &"a".repeat(256),
            &"a".repeat(64),
        ] {
            assert!(!is_reference(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(text in prop_oneof![any::<String>(), "[a-zA-Z0-9:/@._\\[\\]-]{0,40}"]) {
            let _ = is_reference(&text);
        }
    }
}
