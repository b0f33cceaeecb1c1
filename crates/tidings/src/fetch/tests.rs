//! The client against a real server on this machine: redirects, bounds, TLS, and what it refuses to ask for.

use super::{
    Target,
    client::{get, get_with, with_roots},
    server::{Server, ok},
};
use std::{sync::Arc, time::Duration};
use tidings_core::limits;

async fn check(answers: &[String], expected: Result<(&str, Option<u64>), &str>) {
    let server = Server::start(answers).await;
    let target = Target::parse(&server.url("/keys?x=y"), false).unwrap();
    match (get(&target, 1_000).await, expected) {
        (Ok(fetched), Ok((body, max_age))) => {
            assert_eq!((std::str::from_utf8(&fetched.body).unwrap(), fetched.max_age.map(|age| age.as_secs())), (body, max_age));
        }
        (Err(why), Err(complaint)) => assert!(why.contains(complaint), "{why}"),
        (got, _) => panic!("{answers:?}: {:?} instead of {expected:?}", got.map(|fetched| fetched.body)),
    }
}

/// M-411: URLs that are fetched from, and those that are not.
#[test]
fn targets() {
    for (url, insecure, shown) in [
        ("https://a.example/keys?secret=x", false, "https://a.example/keys"),
        ("https://10.0.0.1:8443", false, "https://10.0.0.1:8443/"),
        ("http://127.0.0.1:1/k", false, "http://127.0.0.1:1/k"),
        ("http://[::1]/k", false, "http://[::1]/k"),
        ("http://LOCALHOST/k", false, "http://LOCALHOST/k"),
        ("http://a.example/k", true, "http://a.example/k"),
    ] {
        assert_eq!(Target::parse(url, insecure).map(|target| target.to_string()).as_deref(), Ok(shown), "{url}");
    }
    for (url, complaint) in [
        ("http://a.example/k", "is not https"),
        ("http://127.0.0.1.example/k", "is not https"),
        ("http://10.0.0.1/k", "is not https"),
        ("https://user:password@a.example/", "must not have a user"),
        ("ftp://a.example/", "is not a URL to fetch from"),
        ("/keys", "is not a URL to fetch from"),
        ("", "is not a URL to fetch from"),
    ] {
        let why = Target::parse(url, false).unwrap_err();
        assert!(why.contains(complaint) && !why.contains("password"), "{url}: {why}");
    }
}

/// M-411: what an answer may be, and how long it is good for.
#[tokio::test]
async fn answers() {
    let plain = |fields: &str| ok(fields, "{}");
    check(&[plain("")], Ok(("{}", None))).await;
    check(&[plain("Cache-Control: public, max-age=600\r\n")], Ok(("{}", Some(600)))).await;
    check(&[plain("Cache-Control: max-age=600, no-store\r\n")], Ok(("{}", Some(0)))).await;
    check(&[plain("Cache-Control: max-age=soon\r\n")], Ok(("{}", None))).await;
    check(&["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n".into()], Ok(("{}", None))).await;
    check(&[ok("", &"x".repeat(1_000))], Ok((&"x".repeat(1_000), None))).await;
    check(&[ok("", &"x".repeat(1_001))], Err("more than 1000 bytes")).await;
    check(&[format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(100_000))], Err("more than 1000 bytes")).await;
    check(&["HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".into()], Err("404")).await;
    check(&["HTTP/1.1 204 No Content\r\n\r\n".into()], Err("204")).await;
    check(&["HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf".into()], Err("")).await;
    check(&["SSH-2.0-x\r\n".into()], Err("")).await;
}

/// M-411, M-114: redirects stay with their origin, and end.
#[tokio::test]
async fn redirects() {
    let to = |place: &str| format!("HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n");
    let server = Server::start(&[to("/other"), ok("", "{}")]).await;
    let target = Target::parse(&server.url("/keys"), false).unwrap();
    assert_eq!(get(&target, 10).await.map(|fetched| fetched.body), Ok(b"{}".to_vec()));
    let lines: Vec<String> = server.requests.lock().unwrap().iter().map(|request| request.lines().next().unwrap().to_owned()).collect();
    assert_eq!(lines, ["GET /keys HTTP/1.1", "GET /other HTTP/1.1"]);
    let same = Server::start(&[String::new()]).await;
    same.answer(to(&same.url("/again")));
    let target = Target::parse(&same.url("/keys"), false).unwrap();
    assert!(get(&target, 10).await.is_err_and(|why| why.contains("more than 3 redirects")));
    assert_eq!(same.served(), 1 + limits::KEY_SET_REDIRECTS);
    for place in ["http://127.0.0.1:1/", "https://127.0.0.1/", "//evil.example/", "http://169.254.169.254/latest", "ftp://x/", "?"] {
        check(&[to(place), ok("", "{}")], Err("redirect")).await;
    }
    check(&["HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n".into()], Err("a redirect without a place")).await;
}

/// M-411: whoever does not answer is left alone after a while.
#[tokio::test(start_paused = true)]
async fn silence() {
    check(&[String::new()], Err("no answer within 5 s")).await;
}

/// M-411: over TLS, with a certificate that is believed and with one that is not.
#[tokio::test]
async fn https() {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(certified.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![certified.cert.der().clone()], key).unwrap();
    let server = Server::start_with(&[ok("Cache-Control: max-age=9\r\n", "{}")], Some(Arc::new(config).into())).await;
    let target = |host: &str| Target::parse(&format!("https://{host}:{}/keys", server.address.port()), false).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certified.cert.der().clone()).unwrap();
    let believing = with_roots(roots).unwrap();
    let fetched = get_with(&target("localhost"), 10, Some(believing.clone())).await.unwrap();
    assert_eq!((fetched.body, fetched.max_age), (b"{}".to_vec(), Some(Duration::from_secs(9))));
    assert!(get_with(&target("127.0.0.1"), 10, Some(believing)).await.is_err(), "a certificate for another name");
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(other.cert.der().clone()).unwrap();
    assert!(get_with(&target("localhost"), 10, Some(with_roots(roots).unwrap())).await.is_err(), "a stranger's certificate");
    assert_eq!(server.requests.lock().unwrap().len(), 1);
}
