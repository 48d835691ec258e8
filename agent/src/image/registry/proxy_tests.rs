//! Which hosts go through a proxy, and what goes over the wire then.

use hyper::Request;
use tokio::net::TcpListener;

use super::super::connection::{Host, whole};
use super::super::tls::Trust;
use super::*;

#[test]
fn exceptions_are_gos() {
    let none = " example.com, .below.org,*.star.net, 10.0.0.0/8,192.0.2.1,2001:db8::1, reg.io:5000,[2001:db8::2]:443,,x/y";
    let proxies = Proxies::new("http://p:1", "http://p:2", none);
    for (name, port, through) in [
        ("example.com", 443, false),
        ("a.EXAMPLE.com", 443, false),
        ("notexample.com", 443, true),
        ("below.org", 443, true),
        ("a.below.org", 443, false),
        ("star.net", 443, true),
        ("a.star.net", 443, false),
        ("10.255.0.1", 443, false),
        ("11.0.0.1", 443, true),
        ("192.0.2.1", 80, false),
        ("192.0.2.2", 80, true),
        ("2001:db8::1", 443, false),
        ("2001:db8::2", 443, false),
        ("2001:db8::2", 80, true),
        ("reg.io", 5000, false),
        ("a.reg.io", 5000, false),
        ("reg.io", 443, true),
        ("localhost", 443, false),
        ("127.9.0.1", 443, false),
        ("::1", 443, false),
    ] {
        assert_eq!(proxies.of(Scheme::Https, name, port).unwrap().is_some(), through, "{name}:{port}");
    }
    assert_eq!(proxies.of(Scheme::Http, "a.io", 80).unwrap().unwrap().port, 1);
    assert!(!Proxies::new("", "p", "*").is_for("a.io", 443));
    assert!(Proxies::default().of(Scheme::Https, "a.io", 443).unwrap().is_none());
}

#[test]
fn addresses_of_proxies() {
    let proxy = Proxy::of("http://me:a%40b%3Ac@[2001:db8::1]:3128/x").unwrap();
    assert_eq!((proxy.name.as_str(), proxy.port), ("2001:db8::1", 3128));
    let secret = proxy.authorization.as_ref().unwrap();
    assert_eq!(secret.to_str().unwrap(), format!("Basic {}", STANDARD.encode("me:a@b:c")));
    assert!(!format!("{proxy:?}").contains("Basic"));
    assert_eq!(Proxy::of("proxy"), Ok(Proxy { name: "proxy".into(), port: 80, authorization: None }));
    for scheme in ["https", "socks5"] {
        let said = Proxy::of(&format!("{scheme}://me:pass@proxy")).unwrap_err();
        assert!(
            said.contains(&format!("{scheme}:// is not supported")) && said.contains("https-proxy"),
            "{said}"
        );
        assert!(said.contains("no-proxy") && !said.contains("pass"), "{said}");
    }
    assert!(!Proxy::of("me:pass://proxy").unwrap_err().contains("pass"));
    assert!(Proxy::of("http://:80").is_err());
    assert!(Proxies::new("", "https://p", "").of(Scheme::Https, "a.io", 443).is_err());
}

/// A proxy that answers one connection so; gives where it is and what it was asked.
async fn proxy(answer: Vec<u8>) -> (String, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            asked.push(stream.read_u8().await.unwrap());
        }
        // Who has heard enough does not listen to the end.
        if stream.write_all(&answer).await.is_ok() {
            let mut behind = [0; 5];
            if stream.read_exact(&mut behind).await.is_ok() {
                let _heard = stream.write_all(&behind).await;
            }
        }
        String::from_utf8(asked).unwrap()
    });
    (format!("http://me:pass@127.0.0.1:{port}"), asked)
}

fn address(scheme: Scheme) -> Host {
    // RFC 6761: a name that leads nowhere but by the proxy.
    Host { scheme, authority: "registry.invalid:5000".to_owned(), trust: Trust::Verified }
}

fn request() -> Request<super::super::connection::Body> {
    Request::builder().uri("/v2/").body(whole("")).unwrap()
}

#[tokio::test]
async fn plain_requests_name_the_whole_address() {
    let (at, asked) = proxy(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec()).await;
    let proxies = Proxies::new(&at, "", "");
    let sent = address(Scheme::Http).send(&proxies, "/none".into(), request()).await;
    assert_eq!(sent.unwrap().status(), 200);
    let asked = asked.await.unwrap().to_lowercase();
    assert!(asked.starts_with("get http://registry.invalid:5000/v2/ http/1.1\r\n"), "{asked}");
    assert!(asked.contains("\r\nhost: registry.invalid:5000\r\n"), "{asked}");
    assert!(asked.contains("\r\nproxy-authorization: basic bwu6cgfzcw==\r\n"), "{asked}");
}

#[tokio::test]
async fn connections_are_made_and_carry_what_follows() {
    let (at, asked) = proxy(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n".to_vec()).await;
    let proxy = Proxy::of(&at).unwrap();
    let stream = proxy.connect().await.unwrap();
    let mut stream = proxy.tunnel(stream, "2001:db8::1", 443).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    let _count = stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"hello");
    assert_eq!(
        asked.await.unwrap(),
        "CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\nProxy-Authorization: Basic bWU6cGFzcw==\r\n\r\n"
    );
}

#[tokio::test]
async fn refusals_and_nonsense_are_told_and_bounded() {
    for (answer, words) in [
        (&b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"[..], "Proxy Authentication Required"),
        (b"HTTP/1.0 503\r\n\r\n", "the proxy answers with status 503"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "malformed HTTP response of the proxy"),
        (&[b'a'; 40_000], "the proxy's answer has more than 16384 bytes"),
    ] {
        let (at, asked) = proxy(answer.to_vec()).await;
        let proxies = Proxies::new("", &at, "");
        let error = address(Scheme::Https).send(&proxies, "/none".into(), request()).await.unwrap_err();
        assert_eq!(error.message, format!("Get \"https://registry.invalid:5000/v2/\": {words}"));
        let _asked = asked.await;
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    drop(listener);
    let proxies = Proxies::new("", &at.to_string(), "");
    let error = address(Scheme::Https).send(&proxies, "/none".into(), request()).await.unwrap_err();
    assert!(
        error.message.ends_with(&format!("proxyconnect tcp: dial tcp {at}: connect: connection refused")),
        "{error:?}"
    );
}
