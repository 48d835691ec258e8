//! The drivers as `engine` uses them: written, rotated, followed, read again.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::scratch::Folder;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn config(driver: &str, options: &[(&str, &str)]) -> LogConfig {
    let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    LogConfig { driver: driver.to_owned(), options }
}

fn open(config: &LogConfig, folder: &Path) -> LogDriver {
    let container = Container {
        id: ID.into(),
        labels: BTreeMap::from([("role".into(), "x".into())]),
        ..Container::default()
    };
    LogDriver::open(config, folder, &container).unwrap()
}

async fn text(mut entries: Entries) -> String {
    let mut text = Vec::new();
    while let Some(entry) = next(&mut entries).await {
        text.extend_from_slice(&entry.line);
    }
    String::from_utf8(text).unwrap()
}

/// The next entry, which has to come.
async fn next(entries: &mut Entries) -> Option<Entry> {
    let entry = tokio::time::timeout(Duration::from_secs(30), entries.recv()).await;
    entry.expect("an entry, or the end, within 30 s").map(|entry| entry.unwrap())
}

fn numbers(range: std::ops::Range<u32>) -> String {
    range.map(|number| format!("line {number}\n")).collect()
}

#[tokio::test]
async fn written_and_read() {
    for driver in ["json-file", "local"] {
        let folder = Folder::new("log");
        let config = config(driver, &[]);
        let log = open(&config, folder.path());
        log.write(Stream::Stdout, Timestamp::new(1, 0), b"one\ntw").await;
        log.write(Stream::Stderr, Timestamp::new(2, 0), b"bad\n").await;
        log.write(Stream::Stdout, Timestamp::new(3, 0), b"o\nthree\n").await;
        assert_eq!(
            text(log.read(Options::default()).await.unwrap()).await,
            "one\nbad\ntwo\nthree\n",
            "{driver}"
        );
        log.close(Timestamp::new(4, 0)).await;
        let read = |options| read_ended(&config, folder.path(), ID, options);
        for (options, wanted) in [
            (Options { tail: Some(0), ..Options::default() }, ""),
            (Options { tail: Some(2), ..Options::default() }, "two\nthree\n"),
            (Options { tail: Some(9), ..Options::default() }, "one\nbad\ntwo\nthree\n"),
            (Options { since: Some(Timestamp::new(3, 0)), ..Options::default() }, "two\nthree\n"),
            (Options { until: Some(Timestamp::new(2, 0)), ..Options::default() }, "one\nbad\n"),
        ] {
            assert_eq!(text(read(options).await.unwrap()).await, wanted, "{driver} {options:?}");
        }
    }
}

#[tokio::test]
async fn a_last_line_without_newline_stays_without() {
    let folder = Folder::new("log");
    let config = config("json-file", &[("labels", "role"), ("tag", "{{.ID}}")]);
    let log = open(&config, folder.path());
    log.write(Stream::Stdout, Timestamp::new(0, 5), b"no end").await;
    log.close(Timestamp::new(0, 6)).await;
    let path = shown_path(&config, folder.path(), ID).unwrap();
    assert_eq!(
        std::fs::read_to_string(path).unwrap(),
        "{\"log\":\"no end\",\"stream\":\"stdout\",\"attrs\":{\"role\":\"x\",\"tag\":\"0123456789ab\"},\
         \"time\":\"1970-01-01T00:00:00.000000006Z\"}\n"
    );
}

#[tokio::test]
async fn rotated_files_are_read_in_order_and_the_oldest_go() {
    for (driver, compress) in [("json-file", "true"), ("json-file", "false"), ("local", "true")] {
        let folder = Folder::new("log");
        let config = config(driver, &[("max-size", "2k"), ("max-file", "3"), ("compress", compress)]);
        let log = open(&config, folder.path());
        for number in 0..200 {
            log.write(Stream::Stdout, Timestamp::new(number, 0), format!("line {number}\n").as_bytes()).await;
        }
        let all = text(log.read(Options::default()).await.unwrap()).await;
        let first: u32 = all.lines().next().unwrap().strip_prefix("line ").unwrap().parse().unwrap();
        assert!(first > 0 && first < 190, "{driver}: {first}");
        assert_eq!(all, numbers(first..200), "{driver}");
        let tail = Options { tail: Some(60), ..Options::default() };
        log.close(Timestamp::new(200, 0)).await;
        let ended = text(read_ended(&config, folder.path(), ID, tail).await.unwrap()).await;
        assert_eq!(ended, numbers(140..200), "{driver}");
    }
}

#[tokio::test]
async fn followers_lose_nothing_to_rotations_and_end_with_the_log() {
    for driver in ["json-file", "local"] {
        let folder = Folder::new("log");
        let config = config(driver, &[("max-size", "1k"), ("max-file", "2"), ("compress", "false")]);
        let log = open(&config, folder.path());
        log.write(Stream::Stdout, Timestamp::new(0, 0), b"line 0\n").await;
        let mut entries =
            log.read(Options { follow: true, tail: Some(1), ..Options::default() }).await.unwrap();
        for number in 0..300 {
            let entry = next(&mut entries).await.unwrap();
            assert_eq!(entry.line, format!("line {number}\n").into_bytes(), "{driver}");
            let line = format!("line {}\n", number + 1);
            log.write(Stream::Stdout, Timestamp::new(0, 0), line.as_bytes()).await;
        }
        log.close(Timestamp::new(1, 0)).await;
        assert_eq!(text(entries).await, "line 300\n", "{driver}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_never_stops_to_write_is_read_all_the_same() {
    let folder = Folder::new("log");
    let log = std::sync::Arc::new(open(&config("json-file", &[]), folder.path()));
    log.write(Stream::Stdout, Timestamp::new(0, 0), b"first\n").await;
    let writer = std::sync::Arc::clone(&log);
    let writing = tokio::spawn(async move {
        loop {
            writer.write(Stream::Stdout, Timestamp::new(1, 0), &[b'x'; 4096]).await;
        }
    });
    for _ in 0..20 {
        let read = log.read(Options { follow: true, ..Options::default() });
        let read = tokio::time::timeout(std::time::Duration::from_secs(20), read).await;
        assert_eq!(next(&mut read.unwrap().unwrap()).await.unwrap().line, b"first\n");
    }
    writing.abort();
}

#[tokio::test]
async fn a_file_that_somebody_moves_ends_no_log() {
    for files in ["1", "3"] {
        let folder = Folder::new("log");
        let config = config("json-file", &[("max-size", "1k"), ("max-file", files)]);
        let log = open(&config, folder.path());
        let path = shown_path(&config, folder.path(), ID).unwrap();
        for number in 0..50 {
            log.write(Stream::Stdout, Timestamp::new(0, 0), format!("line {number}\n").as_bytes()).await;
            if number % 20 == 10 {
                let _read = text(log.read(Options::default()).await.unwrap()).await;
                std::fs::rename(&path, folder.path().join("moved")).unwrap();
            }
        }
        let all = text(log.read(Options::default()).await.unwrap()).await;
        assert!(all.ends_with("line 49\n"), "{files}: {all}");
    }
}

#[tokio::test]
async fn a_torn_end_hides_no_line_after_it() {
    let folder = Folder::new("log");
    let config = config("json-file", &[]);
    let path = shown_path(&config, folder.path(), ID).unwrap();
    std::fs::write(
        &path,
        "{\"log\":\"a\\n\",\"stream\":\"stdout\",\"time\":\"1970-01-01T00:00:00Z\"}\n{\"log\":\"cut",
    )
    .unwrap();
    let log = open(&config, folder.path());
    log.write(Stream::Stdout, Timestamp::new(0, 0), b"b\n").await;
    assert_eq!(text(log.read(Options::default()).await.unwrap()).await, "a\nb\n");
}

#[tokio::test]
async fn a_log_that_can_not_be_read_says_so() {
    let folder = Folder::new("log");
    let log = open(&config("none", &[]), folder.path());
    log.write(Stream::Stdout, Timestamp::new(0, 0), b"gone\n").await;
    log.close(Timestamp::new(0, 0)).await;
    let error = log.read(Options::default()).await.unwrap_err();
    assert_eq!(
        (error.kind, error.message.as_str()),
        (Kind::NotImplemented, "configured logging driver does not support reading")
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn without_blocking_what_does_not_fit_is_dropped() {
    let folder = Folder::new("log");
    let server = std::os::unix::net::UnixListener::bind(folder.path().join("syslog")).unwrap();
    let address = format!("unix://{}", folder.path().join("syslog").display());
    let config = config(
        "syslog",
        &[
            ("syslog-address", &address),
            ("mode", "non-blocking"),
            ("max-buffer-size", "8k"),
            ("cache-disabled", "true"),
        ],
    );
    let log = open(&config, folder.path());
    let line = [&[b'x'; 1000][..], b"\n"].concat();
    // Nobody reads: the socket's buffer fills, then the ring, and the writer still returns.
    for _ in 0..2000 {
        log.write(Stream::Stdout, Timestamp::new(0, 0), &line).await;
    }
    assert!(log.queue.as_ref().unwrap().dropped() > 0);
    // The server's end of the connection ends the sender's wait.
    drop(server);
}

#[tokio::test]
async fn a_log_that_can_not_be_opened_at_a_takeover_is_tried_again() {
    let folder = Folder::new("log");
    let container = Container { id: ID.into(), ..Container::default() };
    // A folder in the place of the file: not even root opens that.
    let place = folder.path().join(format!("{ID}-json.log"));
    std::fs::create_dir(&place).unwrap();
    let files = config("json-file", &[]);
    assert!(LogDriver::open(&files, folder.path(), &container).is_err());
    let log = LogDriver::resume(&files, folder.path(), &container).unwrap();
    log.write(Stream::Stdout, Timestamp::new(1, 0), b"lost\n").await;
    // Asked, so that it has been tried.
    assert_eq!(text(log.read(Options::default()).await.unwrap()).await, "");
    std::fs::remove_dir(&place).unwrap();
    log.write(Stream::Stdout, Timestamp::new(2, 0), b"kept\n").await;
    assert_eq!(text(log.read(Options::default()).await.unwrap()).await, "kept\n");
}

#[tokio::test]
async fn a_server_that_is_away_at_a_takeover_is_found_when_it_is_back() {
    let folder = Folder::new("log");
    let container = Container { id: ID.into(), ..Container::default() };
    let path = folder.path().join("server");
    let syslog = config("syslog", &[("syslog-address", &format!("unixgram://{}", path.display()))]);
    assert!(LogDriver::open(&syslog, folder.path(), &container).is_err());
    let log = LogDriver::resume(&syslog, folder.path(), &container).unwrap();
    log.write(Stream::Stdout, Timestamp::new(1, 0), b"away\n").await;
    // The copy goes on.
    assert_eq!(text(log.read(Options::default()).await.unwrap()).await, "away\n");
    let server = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    server.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    log.write(Stream::Stdout, Timestamp::new(2, 0), b"back\n").await;
    let mut buffer = [0; 1024];
    let length = server.recv(&mut buffer).unwrap();
    assert!(String::from_utf8_lossy(&buffer[..length]).ends_with(": back\n"));
}
