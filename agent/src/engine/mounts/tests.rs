//! What is asked for, and what is refused.

use super::*;

#[test]
fn binds() {
    let shown = |text: &str| bind(text).unwrap().shown;
    let one = shown("/a/../b:/c/:ro");
    assert_eq!((one.source.as_str(), one.destination.as_str(), one.rw), ("/b", "/c", false));
    assert_eq!((one.kind.as_str(), one.propagation.as_str(), one.mode.as_str()), ("bind", "rprivate", "ro"));
    let one = shown("vol:/c");
    assert_eq!((one.kind.as_str(), one.name.as_str()), ("volume", "vol"));
    assert!(bind("/c").unwrap().anonymous);
    assert_eq!(shown("/a:/b:rshared").propagation, "rshared");
    for (text, why) in [
        ("a:b:c:d", "invalid volume specification: 'a:b:c:d'"),
        ("/a::ro", "invalid volume specification: '/a::ro'"),
        ("/a:/b:x", "invalid mode: x"),
        ("/a:/b:ro,rw", "invalid mode: ro,rw"),
    ] {
        assert_eq!(bind(text).unwrap_err().message, why);
    }
    assert!(bind("/a:b").unwrap_err().message.ends_with("mount path must be absolute"));
    assert!(bind("/a:/").unwrap_err().message.ends_with("destination can't be '/'"));
}

#[test]
fn specifications() {
    let of = |text: &str| specified(&bind(text).unwrap(), "/src")["options"].clone();
    assert_eq!(of("/a:/b"), json!(["rbind", "rprivate"]));
    assert_eq!(of("/a:/b:ro,rslave"), json!(["rbind", "rro", "rslave"]));
    let tmpfs = specified_tmpfs("/t", "size=1m,exec").unwrap();
    assert_eq!(tmpfs["options"], json!(["nosuid", "nodev", "size=1m", "exec"]));
}

#[test]
fn two_at_one_place_are_refused() {
    let host_config =
        HostConfig { binds: Some(vec!["/a:/b".into(), "/c:/b/".into()]), ..HostConfig::default() };
    assert_eq!(asked(&host_config).unwrap_err().message, "Duplicate mount point: /b");
}
