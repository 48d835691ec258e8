//! Volumes, binds and tmpfs: what is kept, copied, shared and refused.

use ketch_integration::ketchd::Engine;
use ketch_integration::{Case, tests};

tests![
    create_inspect_and_remove,
    named_volumes_keep,
    the_images_content_is_copied_once,
    anonymous_volumes_go_with_rm_v,
    binds_and_their_options,
    mounts_by_the_long_form,
    tmpfs_volumes_and_options,
    subpaths,
    volumes_from,
    a_volume_in_use_is_not_removed,
    list_and_filters,
    prune_by_age_of_use,
    destinations_that_clash,
    links_in_the_image_do_not_lead_out,
    size_in_df,
    other_users_do_not_get_in,
    a_mount_whose_name_is_no_text,
    one_new_volume_for_many,
    a_swapped_subpath,
    a_server_of_files_that_is_not_there,
    a_driver_that_is_not_there,
];

fn run(engine: &Engine<'_>, line: &str) -> String {
    engine.docker(&format!("run --rm --network none {line}")).ok().text().to_owned()
}

fn create_inspect_and_remove(case: &Case) {
    let engine = Engine::start(case);
    assert_eq!(engine.docker("volume create --label a=b one").ok().text(), "one");
    let seen = engine.call("GET", "/volumes/one", "").is(200).json();
    assert_eq!(seen["Mountpoint"], engine.site.path("data/volumes/one/_data").display().to_string());
    assert_eq!((seen["Driver"].as_str(), seen["Scope"].as_str(), &seen["Labels"]), (Some("local"), Some("local"), &serde_json::json!({"a": "b"})));
    assert!(seen["Options"].is_null(), "{seen}");
    let again = engine.docker("volume create one").ok();
    assert_eq!(again.text(), "one");
    let none = engine.docker("volume create").ok();
    assert_eq!(none.text().len(), 64);
    assert_eq!(engine.docker("volume rm one").ok().text(), "one");
    let out = engine.docker("volume rm one").exits(1);
    assert_eq!(out.stderr.trim(), "Error response from daemon: get one: no such volume");
    let _ = engine.docker("volume rm -f one").ok();
    engine.end();
}

fn named_volumes_keep(case: &Case) {
    let engine = Engine::start(case);
    let _ = run(&engine, "-v kept:/data busybox sh -c 'echo content >/data/file'");
    assert_eq!(run(&engine, "-v kept:/other busybox cat /other/file"), "content");
    let out = engine.docker("run --rm --network none -v kept:/data:ro busybox touch /data/x").exits(1);
    assert!(out.stderr.contains("Read-only file system"), "{out}");
    assert_eq!(engine.docker("volume ls -q").ok().text(), "kept");
    engine.end();
}

fn the_images_content_is_copied_once(case: &Case) {
    let engine = Engine::start(case);
    assert_eq!(run(&engine, "-v fresh:/etc busybox sh -c 'ls /etc/group && rm /etc/group'"), "/etc/group");
    let _ = engine.docker("run --rm --network none -v fresh:/etc busybox ls /etc/group").exits(1);
    assert_eq!(run(&engine, "-v other:/etc:nocopy busybox sh -c 'ls /etc/passwd 2>/dev/null; echo $?'"), "1");
    let mode = run(&engine, "-v tmp:/tmp busybox stat -c %a /tmp");
    assert_eq!(mode, "1777");
    engine.end();
}

fn anonymous_volumes_go_with_rm_v(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("create --name box --network none -v /one -v named:/two busybox").ok();
    let name = engine.inspect("box", "{{range .Mounts}}{{if eq .Destination \"/one\"}}{{.Name}}{{end}}{{end}}");
    assert_eq!(name.len(), 64);
    let _ = engine.docker("rm -v box").ok();
    assert_eq!(engine.docker("volume ls -q").ok().text(), "named");
    let _ = engine.docker("create --name box --network none -v /one busybox").ok();
    let _ = engine.docker("rm box").ok();
    assert_eq!(engine.docker("volume ls -q").ok().text().lines().count(), 2);
    engine.end();
}

fn binds_and_their_options(case: &Case) {
    let engine = Engine::start(case);
    let folder = engine.site.path("bound");
    std::fs::create_dir_all(&folder).expect("make a folder");
    std::fs::write(folder.join("file"), "bound\n").expect("write a file");
    let path = folder.display();
    assert_eq!(run(&engine, &format!("-v {path}:/b busybox sh -c 'cat /b/file; echo back >/b/back'")), "bound");
    assert_eq!(std::fs::read_to_string(folder.join("back")).expect("what came back"), "back\n");
    let out = engine.docker(&format!("run --rm --network none -v {path}:/b:ro busybox touch /b/x")).exits(1);
    assert!(out.stderr.contains("Read-only file system"), "{out}");
    assert_eq!(run(&engine, &format!("-v {path}/file:/etc/file busybox cat /etc/file")), "bound");
    // The short form makes the folder, the long form does not.
    let _ = run(&engine, &format!("-v {path}/made:/b busybox true"));
    assert!(folder.join("made").is_dir());
    let out = engine.docker(&format!("run --rm --network none --mount type=bind,source={path}/none,target=/b busybox true")).exits(125);
    assert!(out.stderr.contains("invalid mount config for type \"bind\": bind source path does not exist"), "{out}");
    assert_eq!(run(&engine, &format!("-v {path}:/b:ro busybox sh -c 'grep \" /b \" /proc/mounts | cut -d \" \" -f 4 | cut -d , -f 1'")), "ro");
    engine.end();
}

fn mounts_by_the_long_form(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("create --name box --network none --mount type=volume,source=one,target=/v,readonly --mount type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=700 busybox grep -E ' /(v|t) ' /proc/mounts").ok();
    let out = engine.docker("start -a box").ok();
    let find = |place: &str| out.text().lines().find(|line| line.contains(place)).unwrap_or_default().to_owned();
    assert!(find(" /v ").contains(" ro,"), "{out}");
    assert!(find(" /t ").contains("size=1024k") && find(" /t ").contains("mode=700"), "{out}");
    let mounts = engine.inspect("box", "{{json .Mounts}}");
    assert!(mounts.contains(r#""Type":"volume","Name":"one""#) && mounts.contains(r#""Destination":"/v","Driver":"local","Mode":"z","RW":false"#), "{mounts}");
    let out = engine.docker("run --rm --network none --mount type=volume,target=/v,volume-driver=local,volume-opt=type=tmpfs,volume-opt=device=tmpfs busybox grep -c '^tmpfs /v ' /proc/mounts").ok();
    assert_eq!(out.text(), "1");
    engine.end();
}

fn tmpfs_volumes_and_options(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("volume create --opt type=tmpfs --opt device=tmpfs --opt o=size=1m,uid=7 one").ok();
    assert_eq!(run(&engine, "-v one:/v busybox sh -c 'grep -c \"^tmpfs /v .*size=1024k\" /proc/mounts; stat -c %u /v'"), "1\n7");
    let folder = engine.site.path("bound");
    std::fs::create_dir_all(&folder).expect("make a folder");
    let out = engine.client().args(["volume", "create", "--opt", "type=none", "--opt", "o=bind", "--opt"]).arg(format!("device={}", folder.display())).arg("two").run().ok();
    assert_eq!(out.text(), "two");
    let _ = run(&engine, "-v two:/v busybox touch /v/through");
    assert!(folder.join("through").exists());
    let out = engine.docker("volume create --opt nonsense=1 three").exits(1);
    assert!(out.stderr.contains("invalid option: \"nonsense\""), "{out}");
    engine.end();
}

fn subpaths(case: &Case) {
    let engine = Engine::start(case);
    let _ = run(&engine, "-v one:/v busybox sh -c 'mkdir -p /v/deep && echo sub >/v/deep/file && ln -s /etc /v/out'");
    assert_eq!(run(&engine, "--mount type=volume,source=one,target=/s,volume-subpath=deep busybox cat /s/file"), "sub");
    let none = engine.docker("run --rm --network none --mount type=volume,source=one,target=/s,volume-subpath=none busybox true").exits(127);
    assert!(none.stderr.contains("no such file or directory") || none.stderr.contains("not found"), "{none}");
    let out = engine.docker("run --rm --network none --mount type=volume,source=one,target=/s,volume-subpath=out busybox ls /s");
    assert!(out.code != 0 || !out.stdout.contains("hostname"), "{out}");
    let up = engine.docker("run --rm --network none --mount type=volume,source=one,target=/s,volume-subpath=../.. busybox ls /s").exits(125);
    assert!(up.stderr.contains("subpath must be a relative path within the volume"), "{up}");
    engine.end();
}

fn volumes_from(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("run --name base --network none -v one:/data -v /anonymous busybox sh -c 'echo x >/data/file; echo y >/anonymous/file'").ok();
    assert_eq!(run(&engine, "--volumes-from base busybox cat /data/file /anonymous/file"), "x\ny");
    let out = engine.docker("run --rm --network none --volumes-from base:ro busybox touch /data/x").exits(1);
    assert!(out.stderr.contains("Read-only"), "{out}");
    let _ = engine.docker("rm -v base").ok();
    engine.end();
}

fn a_volume_in_use_is_not_removed(case: &Case) {
    let engine = Engine::start(case);
    let id = engine.docker("create --name box --network none -v one:/v busybox").ok().text().to_owned();
    let out = engine.docker("volume rm one").exits(1);
    assert_eq!(out.stderr.trim(), format!("Error response from daemon: remove one: volume is in use - [{id}]"));
    let _ = engine.docker("rm box").ok();
    let _ = engine.docker("volume rm one").ok();
    assert!(!engine.site.path("data/volumes/one").exists());
    engine.end();
}

fn list_and_filters(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("volume create --label a=b one").ok();
    let _ = engine.docker("volume create two").ok();
    let _ = engine.docker("create --network none -v one:/v busybox").ok();
    let names = |flags: &str| engine.docker(&format!("volume ls -q {flags}")).ok().text().replace('\n', " ");
    assert_eq!(names(""), "one two");
    assert_eq!(names("--filter label=a"), "one");
    assert_eq!(names("--filter dangling=true"), "two");
    assert_eq!(names("--filter dangling=false"), "one");
    assert_eq!(names("--filter name=w"), "two");
    assert_eq!(names("--filter driver=nonsense"), "");
    let list = engine.call("GET", "/volumes?filters=%7B%22name%22:%5B%22none%22%5D%7D", "").is(200);
    assert_eq!(list.body, "{\"Volumes\":[],\"Warnings\":null}\n");
    engine.end();
}

fn prune_by_age_of_use(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("volume create named").ok();
    let anonymous = engine.docker("volume create").ok().text().to_owned();
    let _ = engine.docker("create --name box --network none -v used:/v busybox").ok();
    let out = engine.docker("volume prune -f").ok();
    assert!(out.text().contains(&anonymous) && !out.text().contains("named"), "{out}");
    let out = engine.docker("volume prune -af").ok();
    assert!(out.text().contains("named") && !out.text().contains("used\n"), "{out}");
    assert_eq!(engine.docker("volume ls -q").ok().text(), "used");
    engine.end();
}

fn destinations_that_clash(case: &Case) {
    let engine = Engine::start(case);
    let out = engine.docker("run --rm --network none -v one:/x -v two:/x busybox true").exits(125);
    assert!(out.stderr.contains("Duplicate mount point: /x"), "{out}");
    let out = engine.docker("run --rm --network none -v one:/ busybox true").exits(125);
    assert!(out.stderr.contains("destination can't be '/'"), "{out}");
    engine.end();
}

fn links_in_the_image_do_not_lead_out(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("run --name one --network none busybox sh -c 'rm -r /var && ln -s /../../../../tmp /var && ln -s /proc/1/root /home2'").ok();
    let _ = engine.docker("commit one evil:1").ok();
    let marker = format!("{}-marker", engine.site.case.tag);
    let _ = engine.client().args(["run", "--rm", "--network", "none", "-v", "vol:/var", "evil:1", "touch"]).arg(format!("/var/{marker}")).run().ok();
    assert!(!std::path::Path::new("/tmp").join(&marker).exists());
    assert!(engine.site.path("data/volumes/vol/_data").join(&marker).exists());
    engine.end();
}

fn size_in_df(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("run --name box --network none -v one:/v busybox sh -c 'head -c 100000 /dev/zero >/v/file; head -c 50000 /dev/zero >/file'").ok();
    let df = engine.call("GET", "/v1.50/system/df", "").is(200).json();
    assert_eq!(df["Volumes"][0]["UsageData"], serde_json::json!({"RefCount": 1, "Size": 100_000}));
    assert_eq!((df["Images"].as_array().map(Vec::len), df["Containers"].as_array().map(Vec::len)), (Some(1), Some(1)));
    assert_eq!(df["Containers"][0]["SizeRw"], 50_000);
    let out = engine.docker("system df --format '{{.Type}} {{.TotalCount}}'").ok();
    assert_eq!(out.text(), "Images 1\nContainers 1\nLocal Volumes 1\nBuild Cache 0");
    engine.end();
}

/// CVE-2021-41091: a container's setuid files are no way up for the host's other users, and its environment is none of theirs.
fn other_users_do_not_get_in(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("run -d --name one --network none -e SECRET=word -v kept:/kept busybox sleep 999").ok();
    let id = engine.inspect("one", "{{.Id}}");
    let dir = engine.site.dir.display().to_string();
    let mut inside = vec![format!("{dir}/data/volumes/kept/_data"), format!("{dir}/data/containers/{id}")];
    if engine.is_ketch() {
        inside.extend(["config.json", "rootfs/bin"].map(|name| format!("{dir}/exec/{id}/{name}")));
        inside.push(format!("{dir}/data/ketchd.redb"));
    }
    for path in inside {
        let _ = engine.sh(&format!("test -e {path}")).ok();
        let out = engine.sh(&format!("setpriv --reuid 65534 --regid 65534 --clear-groups test -e {path}"));
        assert_eq!(out.code, 1, "{path}: {out}");
    }
    let _ = engine.docker("rm -f one").ok();
    engine.end();
}

/// Any user of the host can make one, by FUSE: what is mounted is still known, and nothing is removed through it.
fn a_mount_whose_name_is_no_text(case: &Case) {
    let engine = Engine::start(case);
    let dir = engine.site.dir.display().to_string();
    let _ = engine.sh(&format!("n={dir}/$(printf '\\377') && mkdir $n && mount -t tmpfs odd $n && mkdir {dir}/share && echo kept >{dir}/share/file")).ok();
    let _ = engine.docker("run --name box --network none busybox touch /written").ok();
    let _ = engine.docker("start -a box").ok();
    assert_eq!(engine.docker("diff box").ok().text().lines().filter(|line| line.ends_with("/written")).count(), 1);
    let _ = engine.docker(&format!("volume create -o type=none -o o=bind -o device={dir}/share shared")).ok();
    assert_eq!(run(&engine, "-v shared:/s busybox cat /s/file"), "kept");
    let _ = engine.docker("volume rm shared").ok();
    assert_eq!(engine.sh(&format!("cat {dir}/share/file")).ok().text(), "kept");
    let _ = engine.docker("rm box").ok();
    let _ = engine.sh(&format!("umount {dir}/$(printf '\\377')")).ok();
    engine.end();
}

fn one_new_volume_for_many(case: &Case) {
    let engine = Engine::start(case);
    for round in 0..3 {
        let all: Vec<_> = (0..6)
            .map(|number| {
                let line = format!("run --rm --network none --name c{round}-{number} -v fresh{round}:/etc busybox sh -c 'cat /etc/passwd | wc -l'");
                engine.client().args(ketch_integration::ketchd::words::split(&line)).spawn()
            })
            .collect();
        let all: Vec<_> = all.into_iter().map(|one| one.wait().ok().text().to_owned()).collect();
        assert!(all.iter().all(|lines| *lines == all[0] && lines != "0"), "{all:?}");
    }
    engine.end();
}

/// CVE-2021-25741: what was looked at is what is mounted, however fast a neighbour swaps it for a link.
fn a_swapped_subpath(case: &Case) {
    let engine = Engine::start(case);
    let marker = engine.site.path("marker");
    std::fs::write(&marker, "host").expect("write a marker");
    let _ = engine.docker("run -d --name swapper --network none -v one:/v busybox sh -c 'mkdir /v/a && touch /ready && while :; do mv /v/a /v/b; ln -s / /v/a; rm /v/a; mv /v/b /v/a; done'").ok();
    ketch_integration::wait::wait_until("the swapper to begin", || {
        let out = engine.docker("exec swapper test -e /ready");
        if out.code == 0 { Ok(()) } else { Err(out.to_string()) }
    });
    let mut started = 0;
    for _ in 0..12 {
        let out = engine.docker(&format!(
            "run --rm --network none --mount type=volume,source=one,target=/s,volume-subpath=a busybox sh -c 'test ! -e /s{}'",
            marker.display()
        ));
        // Where there was no folder at that moment the start is refused.
        assert!(matches!(out.code, 0 | 125..=127), "{out}");
        started += usize::from(out.code == 0);
    }
    println!("{}: started {started} of 12", case.name);
    let _ = engine.docker("rm -f swapper").ok();
    engine.end();
}

/// The options of nfs reach mount(2), whatever the kernel says of them, and a name of the server is resolved first.
fn a_server_of_files_that_is_not_there(case: &Case) {
    let engine = Engine::start(case);
    let options = |server: &str| format!("--opt type=nfs --opt o=addr={server},nfsvers=4,ro --opt device=:/export");
    let _ = engine.docker(&format!("volume create {} files", options("127.0.0.1"))).ok();
    let _ = engine.docker(&format!("volume create {} named", options("server.invalid"))).ok();
    let out = engine.docker("run --rm --network none -v files:/files busybox true").exits(125);
    let data = engine.inspect("files", "{{.Mountpoint}}");
    let asked = format!("failed to mount local volume: mount :/export:{data}, flags: 0x1, data: addr=127.0.0.1,nfsvers=4: ");
    assert!(out.stderr.contains(&asked), "{asked:?}: {out}");
    let out = engine.docker("run --rm --network none -v named:/files busybox true").exits(125);
    assert!(out.stderr.contains("error resolving passed in network volume address: lookup server.invalid"), "{out}");
    let _ = engine.docker("volume rm files named").ok();
    engine.end();
}

/// What another driver was to keep is not kept on this disk instead.
fn a_driver_that_is_not_there(case: &Case) {
    let engine = Engine::start(case);
    engine.only_ketch("asks its plugins for half a minute");
    for volume in [r#""HostConfig":{"VolumeDriver":"elsewhere","Binds":["named:/x"]}"#, r#""Volumes":{"/x":{}},"HostConfig":{"VolumeDriver":"elsewhere"}"#] {
        // The command line takes a 404 for an image that is not there, and pulls it, as it does with dockerd.
        let text = engine.call("POST", "/containers/create", &format!(r#"{{"Image":"busybox",{volume}}}"#)).refuses(404);
        assert!(text.ends_with("error looking up volume plugin elsewhere: plugin \"elsewhere\" not found"), "{text}");
    }
    assert_eq!(engine.docker("volume ls -q").ok().text(), "");
    assert_eq!(engine.docker("ps -aq").ok().text(), "");
    // One that says its own, and those of another container, are what they are.
    let _ = run(&engine, "--volume-driver elsewhere --mount type=volume,source=own,target=/x,volume-driver=local busybox true");
    let _ = engine.docker("create --name has --network none --volume-driver local -v kept:/kept busybox true").ok();
    let _ = run(&engine, "--volume-driver elsewhere --volumes-from has busybox ls -d /kept");
    assert_eq!(engine.docker("volume ls -q").ok().text(), "kept\nown");
    engine.end();
}
