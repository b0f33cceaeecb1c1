//! The protocol by which publishers wake shards, through every interleaving that the memory model allows, with the file the hub uses. And
//! that the check can fail: without one of the two fences it finds the lost wake-up.
//!
//! loom treats sequentially consistent loads and stores as weaker ones, which the protocol does not use; fences it models.

#[path = "../src/delivery/wake.rs"]
mod wake;

mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
}

use atomic::{AtomicBool, AtomicU32, Ordering, fence};
use loom::{sync::Arc, thread};
use wake::{Bell, Interest, Word};

struct Shard {
    bell: Bell,
    interest: Interest,
    head: AtomicU32,
}

impl Shard {
    fn new() -> Arc<Shard> {
        Arc::new(Shard { bell: Bell::new(), interest: Interest::new(2), head: AtomicU32::new(0) })
    }
}

/// A publisher appends while a subscriber for that topic arrives and the shard goes to sleep: if the shard sleeps with the event not taken,
/// it was woken.
#[test]
fn an_event_wakes_the_shard_of_a_subscriber_who_arrives_meanwhile() {
    for word in [Word::All, Word::Exact(1), Word::Prefix(1), Word::Head(0, 1)] {
        loom::model(move || {
            let shard = Shard::new();
            let publisher = thread::spawn({
                let shard = shard.clone();
                move || {
                    shard.head.store(1, Ordering::Release);
                    shard.bell.ring(|| !shard.interest.is_empty() && shard.interest.wants(word))
                }
            });
            shard.interest.add(word);
            let sleeps = shard.bell.may_sleep(|| shard.head.load(Ordering::Acquire) == 0);
            let woken = publisher.join().unwrap();
            assert!(woken || !sleeps, "the event lies there and nobody comes");
        });
    }
}

/// Two publishers, one of something nobody wants: whoever concerns the shard wakes it, and nobody wakes it for the other alone.
#[test]
fn one_of_two_publishers_wakes_it() {
    loom::model(|| {
        let shard = Shard::new();
        shard.interest.add(Word::Exact(1));
        let publish = |word, bit| {
            let shard = shard.clone();
            thread::spawn(move || {
                shard.head.fetch_or(bit, Ordering::AcqRel);
                shard.bell.ring(|| !shard.interest.is_empty() && shard.interest.wants(word))
            })
        };
        let (wanted, unwanted) = (publish(Word::Exact(1), 1), publish(Word::Exact(2), 2));
        let sleeps = shard.bell.may_sleep(|| shard.head.load(Ordering::Acquire) & 1 == 0);
        assert!(!unwanted.join().unwrap(), "nobody reads that");
        let woken = wanted.join().unwrap();
        assert!(woken || !sleeps);
    });
}

/// A shard that gets up for another reason while a publisher is about to wake it, looks, and lies down again.
#[test]
fn getting_up_and_lying_down_again_loses_nothing() {
    loom::model(|| {
        let shard = Shard::new();
        shard.interest.add(Word::All);
        assert!(shard.bell.may_sleep(|| true));
        let publisher = thread::spawn({
            let shard = shard.clone();
            move || {
                shard.head.store(1, Ordering::Release);
                shard.bell.ring(|| !shard.interest.is_empty() && shard.interest.wants(Word::All))
            }
        });
        shard.bell.awake();
        let tail = shard.head.load(Ordering::Acquire);
        let sleeps = shard.bell.may_sleep(|| shard.head.load(Ordering::Acquire) == tail);
        let woken = publisher.join().unwrap();
        assert!(woken || !sleeps || tail == 1, "the event lies there and nobody comes");
    });
}

/// The same protocol with one fence left out.
fn without_a_fence(publishers: bool, shards: bool) {
    loom::model(move || {
        let shard = Arc::new((AtomicBool::new(false), AtomicU32::new(0)));
        let publisher = thread::spawn({
            let shard = shard.clone();
            move || {
                shard.1.store(1, Ordering::Release);
                if publishers {
                    fence(Ordering::SeqCst);
                }
                shard.0.load(Ordering::Relaxed) && shard.0.swap(false, Ordering::Relaxed)
            }
        });
        shard.0.store(true, Ordering::Relaxed);
        if shards {
            fence(Ordering::SeqCst);
        }
        let sleeps = shard.1.load(Ordering::Acquire) == 0;
        let woken = publisher.join().unwrap();
        assert!(woken || !sleeps, "lost wake-up");
    });
}

#[test]
#[should_panic(expected = "lost wake-up")]
fn without_the_publishers_fence_it_fails() {
    without_a_fence(false, true);
}

#[test]
#[should_panic(expected = "lost wake-up")]
fn without_the_shards_fence_it_fails() {
    without_a_fence(true, false);
}

#[test]
fn with_both_it_holds() {
    without_a_fence(true, true);
}

/// What is taken back is gone, whatever shares its count stays.
#[test]
fn interest_is_counted() {
    loom::model(|| {
        let interest = Interest::new(2);
        interest.add(Word::Exact(1));
        interest.add(Word::Exact(3));
        interest.add(Word::Prefix(2));
        assert!(interest.wants(Word::Exact(1)) && interest.wants(Word::Prefix(2)) && !interest.wants(Word::All));
        interest.remove(Word::Exact(1));
        assert!(interest.wants(Word::Exact(3)), "the other of the two that share a count");
        interest.remove(Word::Prefix(2));
        assert!(!interest.wants_prefixes() && !interest.wants(Word::Exact(2)));
        interest.add(Word::Head(1, 2));
        assert!(
            interest.wants_heads(1) && !interest.wants_heads(0) && interest.wants(Word::Head(1, 2)) && !interest.wants(Word::Head(0, 2))
        );
        interest.remove(Word::Head(1, 2));
        assert!(!interest.wants_heads(1) && !interest.wants(Word::Head(1, 2)));
        interest.add(Word::All);
        interest.clear();
        assert!(interest.is_empty() && !interest.wants(Word::All) && !interest.wants(Word::Exact(3)));
    });
}
