//! What a shard's thread does for readers who are behind, and what that costs the others; and whose its connections are.

use super::{
    body::Mailbox,
    connection::{Connection, Connections},
    *,
};
use bytes::Bytes;
use std::sync::{Mutex, mpsc};
use tidings_core::{
    Epoch, FeedKey, Filter, Framing, Grant, Matchers, TopicMatcher, limits,
    shard::{CloseReason, NewSubscriber, SubscriberId},
};

/// Long enough for a loaded machine; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(10);
const HEAD: u64 = 1_000;

/// A log in which all is old.
struct Old;

impl Source for Old {
    fn pull(&self, _: u64, _: &mut Vec<Record>) -> Option<u64> {
        Some(0)
    }

    fn head(&self) -> (u64, u64) {
        (HEAD, 0)
    }

    fn newest(&self) -> u64 {
        HEAD
    }

    fn progress(&self) -> (u64, u64) {
        (HEAD, 0)
    }

    fn taken(&self) {}
}

/// One shard.
fn start(read: Arc<ReadPage>) -> Delivery {
    Delivery::start(vec![ShardConfig::new(Epoch(1), 1)], HEAD, Clock::start(), Arc::new(Old), read, (1, 1)).unwrap()
}

/// Somebody who asks for a topic from the beginning.
async fn open(delivery: &Delivery, topic: &str) -> EventBody {
    let filter = Filter::new(Matchers::from(TopicMatcher::exact(topic).unwrap()), &Grant::open());
    let feed = FeedKey { filter: Arc::new(filter), framing: Framing::Plain, topics_field: false };
    delivery.open(NewSubscriber::new(feed, 0, Bytes::from_static(b": ok\n")).into()).await.unwrap()
}

/// Of all who want a page in one turn so many may have it looked for on the spot, found or not: the shard's thread has others to serve.
#[tokio::test]
async fn looking_on_the_spot_is_bounded() {
    const MANY: usize = limits::PAGES_IN_FLIGHT - 1;
    let ((ask, asked), (release, released)) = (mpsc::channel(), mpsc::channel::<()>());
    let released = Mutex::new(released);
    let delivery = start(Arc::new(move |_, at_once| {
        ask.send(at_once).unwrap();
        // The first keeps the shard here until all others wait for its next turn.
        let _ = released.lock().unwrap().recv();
        Reading::Later(Box::pin(std::future::pending()))
    }));
    let mut bodies = vec![open(&delivery, "first").await];
    assert_eq!(asked.recv_timeout(PATIENCE), Ok(true));
    for n in 0..MANY {
        bodies.push(open(&delivery, &n.to_string()).await);
    }
    drop(release);
    let on_the_spot: Vec<bool> = (0..MANY).map(|_| asked.recv_timeout(PATIENCE).unwrap()).collect();
    assert_eq!(on_the_spot, std::array::from_fn::<_, MANY, _>(|n| n < limits::PAGES_AT_ONCE));
    delivery.drain(Duration::ZERO, Duration::ZERO).await;
}

/// Where no thread can be made to read a page, whoever asked for it is cut off, and nobody else.
#[test]
fn without_a_thread_only_the_reader_goes() {
    // No address space is as large as these threads' stacks.
    let runtime = tokio::runtime::Builder::new_current_thread().thread_stack_size(1 << 60).enable_all().build().unwrap();
    runtime.block_on(async {
        let delivery = start(Arc::new(|request, _| {
            if request.filter.wants(&[Topic::parse("a").unwrap()], false) {
                Reading::Elsewhere(Box::new(|| panic!("there is no thread for it")))
            } else {
                Reading::Later(Box::pin(std::future::pending()))
            }
        }));
        let (_other, mut reader) = (open(&delivery, "b").await, open(&delivery, "a").await);
        let read = async { while std::future::poll_fn(|cx| reader.poll_bytes(cx)).await.is_some_and(|bytes| bytes.is_ok()) {} };
        tokio::time::timeout(PATIENCE, read).await.expect("it is told");
        wait_until(|| delivery.subscribers() == 1).await;
        let (stats, failures) = delivery.stats();
        assert_eq!((stats.closed[CloseReason::Store as usize], stats.closed[CloseReason::Failed as usize], failures), (1, 0, 0));
        delivery.drain(Duration::ZERO, Duration::ZERO).await;
    });
}

async fn wait_until(holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A late word about whoever had a slot before is not about who has it now.
#[test]
fn a_connection_is_taken_by_its_own_subscriber() {
    let (shard, _poll) = Shared::new(0).unwrap();
    let connection = || Connection::Body(Mailbox::new(shard.clone()));
    let id = |generation| SubscriberId::in_slot(3, generation);
    let mut connections = Connections::default();
    connections.put(id(1), connection());
    assert!(connections.take(id(2)).is_none());
    assert_eq!(connections.at(3).map(|(id, _)| id), Some(id(1)));
    assert!(connections.at(0).is_none() && connections.at(9).is_none(), "nobody is there");
    assert!(connections.take(id(1)).is_some() && connections.take(id(1)).is_none(), "once");
    connections.put(id(2), connection());
    assert!(connections.take(id(1)).is_none());
    assert_eq!(connections.take_all().count(), 1);
    assert_eq!(connections.take_all().count(), 0);
}
