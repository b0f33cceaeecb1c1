//! How streams begin: with what cannot be served said first, with a head alone when only that was asked for, and for clients that have
//! nothing more to say.

use crate::{
    Engine, on_every_engine,
    reader::{Connection, Reader},
    running::{PATIENCE, Running, wait_until},
};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tidings::{Config, Item, wire};
use tokio::{net::TcpStream, time::timeout};

on_every_engine!(gaps_are_told, a_head_alone);

/// N-14: a cursor that cannot be honoured, and what follows it by either setting.
async fn gaps_are_told(engine: Engine) {
    let mut config = Config::default();
    (config.window_events, config.lag_events) = (10, 10);
    let running = Running::start(engine, config);
    let evicted = running.publish("t", "first").await.to_string();
    for n in 0..20 {
        running.publish("t", &n.to_string()).await;
    }
    let epoch = "#00000000-0000000000000001".to_owned();
    for (cursor, reason) in [(&evicted, "evicted"), (&epoch, "epoch")] {
        for (after_gap, kept) in [("replay", 10), ("live", 0)] {
            let told = running.metric(&format!("tidings_gaps_total{{reason=\"{reason}\"}}"));
            let path = format!("/subscribe/t?after_gap={after_gap}&last_event_id={}", &cursor[1..]);
            let mut reader = Reader::open(&running, &path).await;
            reader.until(|items| items.iter().any(|item| matches!(item, Item::Message(_)))).await;
            // The place it is told is not asked for again in vain.
            let resumed = reader.messages().next().unwrap().id[1..].to_owned();
            let mut again = Reader::open(&running, &format!("/subscribe/t?last_event_id={resumed}")).await;
            // An event that is published pushes one out.
            again.events(kept).await;
            reader.events(kept).await;
            let new = running.publish("t", "new").await.to_string();
            reader.events(kept + 1).await;
            again.events(kept + 1).await;
            let case = format!("{reason}, {after_gap}: {:?}", reader.items);

            let mut messages = reader.messages();
            let gap = messages.next().unwrap();
            let first = messages.next().unwrap();
            assert_eq!(gap.event_type, wire::GAP_TYPE, "{case}");
            let earliest = if kept > 0 { format!("{:?}", first.id) } else { "null".to_owned() };
            let requested = &cursor[1..];
            assert_eq!(gap.data, format!(r#"{{"earliest":{earliest},"reason":"{reason}","requested":"{requested}"}}"#), "{case}");
            assert!(gap.id < first.id, "{case}");
            assert_eq!((reader.data().last(), reader.last_event_id()), (Some("new"), &*new), "{case}");
            assert_eq!(reader.data().count(), kept + 1, "{case}");
            running.wait_for(&format!("tidings_gaps_total{{reason=\"{reason}\"}}"), told + 1).await;
            assert!(again.messages().eq(reader.messages().skip(1)), "{case}");
        }
    }
}

/// N-15: a HEAD request is answered like a GET one without its stream, and opens none.
async fn a_head_alone(engine: Engine) {
    let running = Running::start(engine, Config::default());
    let mut reader = Reader::open(&running, "/subscribe/t").await;
    let stream = TcpStream::connect(running.address).await.unwrap();
    let request = Request::head("http://h/subscribe/t").header("host", "h").body(Empty::<Bytes>::new()).unwrap();
    let response = if engine == Engine::Http2 {
        let mut connection = Connection::new(stream).await;
        timeout(PATIENCE, connection.sender.send_request(request)).await.unwrap().unwrap()
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        timeout(PATIENCE, sender.send_request(request)).await.unwrap().unwrap()
    };
    assert_eq!(response.status(), 200);
    let mut names: Vec<_> = response.headers().keys().cloned().collect();
    let mut expected: Vec<_> = reader.headers.keys().cloned().collect();
    names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    // How a body is framed may be left out where there is none.
    expected.retain(|name| name != "transfer-encoding");
    expected.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    assert_eq!(names, expected, "the fields of a GET request");
    assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
    running.wait_for("tidings_connections", 1).await;
    assert_eq!(running.metric("tidings_subscriptions_total"), 1);
    running.publish("t", "x").await;
    reader.events(1).await;
}

mod a_half_closed_client {
    use super::{Config, Engine, Reader, Running, wait_until};

    /// A client may end its half with its request and read on; when it leaves, it is forgotten.
    async fn reads_on(engine: Engine) {
        let running = Running::start(engine, Config::default());
        let mut reader = Reader::open(&running, "/subscribe/t").await;
        reader.end_half().await;
        for n in 0..100 {
            running.publish("t", &n.to_string()).await;
            reader.events(n + 1).await;
        }
        assert_eq!(reader.connects, 1);
        reader.leave();
        // Nothing can be seen of that until something is written.
        running.publish("t", "to nobody").await;
        running.publish("t", "to nobody").await;
        wait_until("it is forgotten", || (running.hub.subscribers(), running.server.connections()) == (0, 0)).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn body() {
        reads_on(Engine::Body).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn socket() {
        reads_on(Engine::Socket).await;
    }
}
