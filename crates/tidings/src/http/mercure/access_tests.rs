//! Who may do what on the Mercure path, and what lies beside it: refusals, origins, cookies, metadata, probes and the page, literally.

use super::tests::{HUB, POST, publish, subscribe};
use crate::{
    Dialects,
    http::tests::{case, check, get, hub, read_until, request, send},
};

/// M-60, M-61, M-63, M-308, M-309, M-331, M-408: refusals in the style of each dialect, with static keys.
#[tokio::test]
async fn styles() {
    let eight = hub(|config| config.publish_keys = vec!["s3cret".into()]);
    let seven = hub(|config| {
        config.publish_keys = vec!["s3cret".into()];
        config.mercure_dialects = Dialects::Seven;
    });
    let post = |field: &str| format!("{POST}{field}");
    let get_ = |query: &str, field: &str| format!("GET {HUB}?{query}{field}");
    let (invalid, malformed) = (Some("Bearer error=\"invalid_token\""), Some("Bearer error=\"invalid_request\""));
    // Long enough to be a token (M-315, M-338).
    let wrong = format!("\nAuthorization: Bearer {}", "x".repeat(48));
    for (hub, head, status, challenge) in [
        (&eight, post("\nAuthorization: Bearer short"), 400, malformed),
        (&seven, post("\nAuthorization: Bearer short"), 401, malformed),
        (&eight, post("\nAuthorization: Basic eDp5"), 400, malformed),
        (&seven, post("\nAuthorization: Basic eDp5"), 401, malformed),
        (&eight, post(""), 401, Some("Bearer")),
        (&eight, post(&wrong), 401, invalid),
        (&eight, post("\nAuthorization: Bearer"), 400, malformed),
        (&eight, post("\nAuthorization: Bearer s3cret\nAuthorization: Bearer s3cret"), 400, malformed),
        (&eight, post("\nAuthorization: BEARER s3cret"), 200, None),
        (&seven, post(""), 401, Some("Bearer")),
        (&seven, post(&wrong), 401, invalid),
        (&seven, post("\nAuthorization: Bearer"), 401, malformed),
        (&eight, get_("match=a", "\nAuthorization: Bearer"), 400, malformed),
        (&eight, get_("topic=a", "\nAuthorization: Bearer"), 401, malformed),
        (&eight, get_("topic=a&match=a", "\nAuthorization: Bearer"), 400, malformed),
        (&eight, get_("", &wrong), 401, invalid),
        (&eight, get_("matchx=a", &wrong), 401, invalid),
        (&eight, get_("match=a", "\nAuthorization: Bearer s3cret"), 200, None),
    ] {
        let answer = send(&hub.service(), request(&head, "topic=a")).await;
        assert_eq!((answer.status, answer.header("www-authenticate")), (status, challenge), "{head}");
        let status = format!("\"status\":{},", answer.status);
        assert!(answer.status == 200 || answer.text().contains(&status), "{head}");
    }
}

/// M-28, M-314, M-339, M-408, N-31, S-39: pages of other origins at a path for readers and publishers both.
#[tokio::test]
async fn origins() {
    let hub = hub(|config| {
        config.cors_origins = vec!["https://app.example".to_owned()];
        config.publish_origins = vec!["https://writer.example".to_owned()];
    });
    let service = hub.service();
    let stream = format!("GET {HUB}?topic=a");
    let query = format!("QUERY {HUB}?topic=a");
    for (line, origin, status, allow_origin) in [
        (POST, "https://evil.example", 403, None),
        (&query, "https://evil.example", 403, None),
        (&stream, "https://evil.example", 200, None),
        (POST, "https://app.example", 200, Some("https://app.example")),
        (&stream, "https://APP.example", 200, Some("https://APP.example")),
        (POST, "https://writer.example", 200, Some("https://writer.example")),
        (&stream, "https://writer.example", 200, None),
    ] {
        let (first, rest) = line.split_once('\n').unwrap_or((line, "Accept: */*"));
        let answer = send(&service, request(&format!("{first}\nHost: hub.example\nOrigin: {origin}\n{rest}"), "topic=a")).await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (status, allow_origin), "{line} {origin}");
        if allow_origin.is_some() {
            let exposed = answer.header("access-control-expose-headers");
            assert_eq!(exposed, Some("Mercure-Last-Event-ID, Last-Event-ID, Link, Retry-After"), "M-404");
            assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
        }
    }
    for (origin, method, allowed) in
        [("https://app.example", "GET", true), ("https://writer.example", "POST", true), ("https://writer.example", "GET", false)]
    {
        let head = format!("OPTIONS {HUB}\nHost: hub.example\nOrigin: {origin}\nAccess-Control-Request-Method: {method}");
        let answer = get(&service, &head).await;
        assert_eq!(answer.status, 204);
        let methods = answer.header("access-control-allow-methods");
        assert_eq!(methods, allowed.then_some("GET, HEAD, POST, QUERY, OPTIONS"), "{origin} {method}");
    }
}

/// M-57, M-59, M-316, M-408, S-40: who publishes with a cookie says from which page, and that page may; on the native routes too.
#[tokio::test]
async fn cookies() {
    let eight = hub(|config| {
        config.publish_keys = vec!["s3cret".into()];
        config.cors_origins = vec!["https://app.example".to_owned(), "*".to_owned()];
        config.publish_origins = vec!["https://*.writer.example".to_owned()];
    });
    let any = hub(|config| {
        config.publish_keys = vec!["s3cret".into()];
        config.publish_origins = vec!["*".to_owned()];
    });
    let seven = hub(|config| {
        config.publish_keys = vec!["s3cret".into()];
        config.mercure_dialects = Dialects::Seven;
    });
    let cookie = "\nHost: hub.example\nCookie: a=b; mercureAuthorization=s3cret";
    for (hub, fields, status) in [
        (&eight, "", 400),
        (&seven, "", 401),
        (&eight, "\nOrigin: https://hub.example", 200),
        (&eight, "\nOrigin: https://app.example", 200),
        (&eight, "\nOrigin: https://APP.example", 200),
        (&eight, "\nOrigin: https://a.writer.example", 200),
        (&eight, "\nOrigin: https://evil.example", 403),
        (&eight, "\nOrigin: null", 403),
        (&eight, "\nReferer: https://a.writer.example/page?x=y#z", 200),
        (&eight, "\nReferer: https://hub.example/page", 200),
        (&eight, "\nReferer: https://evil.example/https://hub.example", 403),
        (&eight, "\nReferer: https://hub.example@evil.example/", 403),
        (&eight, "\nOrigin: https://evil.example\nReferer: https://hub.example/", 403),
        (&seven, "\nOrigin: https://evil.example", 403),
        (&any, "\nOrigin: https://anywhere.example", 200),
        (&any, "\nOrigin: null", 200),
        (&any, "", 400),
        // M-57: with the field the cookie does not count.
        (&eight, "\nAuthorization: Bearer s3cret", 200),
    ] {
        for head in [POST, "POST /publish/a"] {
            let native_status = if status == 401 { 400 } else { status };
            let expected = if head == POST { status } else { native_status };
            let answer = send(&hub.service(), request(&format!("{head}{cookie}{fields}"), "topic=a")).await;
            assert_eq!(answer.status, expected, "{head} {fields}");
        }
    }
}

/// M-11, M-12, M-13, M-60, M-73: the metadata and the way there come from what is configured, never from a request.
#[tokio::test]
async fn metadata() {
    let path = "GET /.well-known/oauth-protected-resource/.well-known/mercure\nHost: evil.example";
    let named = |change: fn(&mut crate::Config)| {
        hub(|config| {
            config.publish_keys = vec!["s3cret".into()];
            config.public_url = Some("https://hub.example".to_owned());
            change(config);
        })
    };
    let plain = named(|_| {});
    let answer = get(&plain.service(), path).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    assert_eq!(answer.header("x-frame-options"), Some("DENY"), "M-313");
    assert_eq!(
        answer.text(),
        concat!(
            r#"{"resource":"https://hub.example/.well-known/mercure","#,
            r#""authorization_details_types_supported":["https://mercure.rocks/authorization-detail"],"#,
            r#""bearer_methods_supported":["header"],"mercure_cookie":"__Secure-mercure_access_token"}"#
        )
    );
    let full = named(|config| {
        config.resource = Some("urn:hub".to_owned());
        config.cookie_name = Some("session".to_owned());
        config.subscriptions = true;
        let mut server = crate::Issuer::new(Some("https://as.example".to_owned()));
        server.authorization_server = true;
        config.issuers = vec![server, crate::Issuer::new(Some("https://other.example".to_owned()))];
    });
    let text = get(&full.service(), path).await.text();
    assert!(text.starts_with(r#"{"resource":"urn:hub","authorization_servers":["https://as.example"],"#), "{text}");
    assert!(text.ends_with(r#""mercure_cookie":"session","mercure_subscriptions":true}"#), "{text}");

    let there = "resource_metadata=\"https://hub.example/.well-known/oauth-protected-resource/.well-known/mercure\"";
    for (field, challenge) in
        [("", format!("Bearer {there}")), ("\nAuthorization: Basic x", format!("Bearer error=\"invalid_request\", {there}"))]
    {
        let answer = send(&plain.service(), request(&format!("{POST}{field}"), "topic=a")).await;
        assert_eq!(answer.header("www-authenticate"), Some(&*challenge));
    }
    let seven = named(|config| config.mercure_dialects = Dialects::Seven);
    assert_eq!(get(&seven.service(), path).await.status, 404, "M-13");
    assert_eq!(send(&seven.service(), request(POST, "topic=a")).await.header("www-authenticate"), Some("Bearer"));
    // Without a public URL it is where the hub listens; nothing is made up where that is not known.
    let local = hub(|_| {});
    assert_eq!(get(&local.service(), path).await.status, 404);
    let answer = get(&local.service().check_host(vec!["127.0.0.1:4680".to_owned()]), &path.replace("evil.example", "localhost")).await;
    assert!(answer.text().contains(r#""resource":"http://127.0.0.1:4680/.well-known/mercure""#));
}

/// What is scraped and probed from other hubs, and the page.
#[tokio::test]
async fn looking() {
    let hub = hub(|config| config.mercure_debug = true);
    let service = hub.service();
    let mut stream = subscribe(&hub, "topic=a").await;
    publish(&hub, "topic=a&id=x").await;
    read_until(&mut stream.body, "id: x\n").await;
    let metrics = get(&service, "GET /metrics").await.text();
    for line in ["mercure_subscribers_connected 1", "mercure_subscribers_total 1", "mercure_updates_total 1", "tidings_events_total 1"] {
        assert!(metrics.lines().any(|found| found == line), "{line}: {metrics}");
    }
    let page = get(&service, &format!("GET {HUB}/debug/")).await;
    assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'none'; script-src 'nonce-"));
    assert_eq!((page.header("x-frame-options"), page.header("content-type")), (Some("DENY"), Some("text/html; charset=utf-8")));
    let off = crate::http::tests::hub(|_| {});
    check(
        &service,
        vec![
            case("the page", format!("GET {HUB}/debug"), "", 200, "by hand"),
            case("the page off", format!("POST {HUB}/debug/"), "", 405, "GET, HEAD, OPTIONS"),
            case("live", "GET /mercure/health/live", "", 200, "{\"status\":\"ok\"}"),
            case("ready", "GET /mercure/health/ready", "", 200, "{\"status\":\"ok\"}"),
        ],
    )
    .await;
    check(&off.service(), vec![case("the page off", format!("GET {HUB}/debug/"), "", 404, "not-found")]).await;
    drop(stream);
    hub.shut_down(std::time::Duration::from_secs(10)).await;
    assert_eq!(get(&service, "GET /mercure/health/live").await.status, 200);
    let ready = get(&service, "GET /mercure/health/ready").await;
    assert!(ready.status == 503 && ready.text().contains("\"draining\""));
}
