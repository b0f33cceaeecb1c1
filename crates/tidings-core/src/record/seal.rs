//! Giving the events of an append their places, all at once: those that share a buffer become one block.
//!
//! It knows drafts and places, not what a store does with what it appends.

use super::{
    Draft, Record,
    block::{Block, Part, Parts},
};
use crate::Position;
use std::sync::Arc;

impl Record {
    /// Gives the events of one append consecutive places from `first` on; see [`Draft::seal`]. Those that share a buffer share the rest too:
    /// they take less memory than if they were sealed one by one.
    pub fn seal(drafts: Vec<Draft>, first: Position, accepted_at: u64) -> Vec<Record> {
        let mut records = Vec::with_capacity(drafts.len());
        let mut drafts = drafts.into_iter();
        while let Some(draft) = drafts.next() {
            let place = Position { sequence: first.sequence + records.len() as u64, ..first };
            let followers = drafts.as_slice().iter().take_while(|draft| draft.extra == 0).count();
            if followers == 0 {
                records.push(draft.seal(place, accepted_at));
                continue;
            }
            let block = Arc::new(block(draft, drafts.by_ref().take(followers), place, accepted_at));
            records.extend((0..=followers as u32).map(|index| Record { block: block.clone(), index }));
        }
        records
    }
}

/// The block of a draft and of those that follow it in its buffer.
fn block(mut draft: Draft, others: impl ExactSizeIterator<Item = Draft>, place: Position, accepted_at: u64) -> Block {
    draft.write_id(place);
    let Draft { mut bytes, part, extra, .. } = draft;
    let mut parts = Vec::with_capacity(1 + others.len());
    parts.push(part);
    for mut draft in others {
        draft.write_id(Position { sequence: place.sequence + parts.len() as u64, ..place });
        let Draft { bytes: own, part, .. } = draft;
        parts.push(Part { frame: part.frame.moved_to(bytes.len()), ..part });
        // They lie behind one another already.
        bytes.unsplit(own);
    }
    let Position { epoch, sequence: first } = place;
    Block { bytes: bytes.freeze(), parts: Parts::Many(parts.into()), second: None, first, accepted_at, epoch, extra }
}

#[cfg(test)]
mod tests {
    use super::{super::block::OWN_TOPICS, *};
    use crate::{Epoch, Event, IdForm, KnownTopics, limits};
    use proptest::prelude::*;

    const FIRST: Position = Position { epoch: Epoch(7), sequence: 41 };

    /// Events as they may come together: of few topics, small ones that share a buffer and large ones that do not.
    fn events() -> impl Strategy<Value = Vec<Event>> {
        let size = prop_oneof![8 => 0..200usize, 1 => limits::SHARED_BUFFER / 2..2 * limits::SHARED_BUFFER];
        let event = (prop::collection::vec("[ab]{1,2}", 1..3), size, "[ty]{0,2}", "[ij]{0,2}", any::<(bool, Option<u8>)>());
        prop::collection::vec(event, 0..40).prop_map(|events| {
            let event = |(topics, size, event_type, id, (private, retry)): (Vec<String>, usize, String, String, (bool, Option<u8>))| {
                let mut event = Event::new(&topics[0], "x\n".repeat(size / 2)).unwrap();
                for topic in &topics[1..] {
                    event = event.with_topic(topic).unwrap();
                }
                event = event.with_type(&event_type).unwrap().with_id(&id).unwrap();
                if let Some(retry) = retry {
                    event = event.with_retry(retry.into()).unwrap();
                }
                if private { event.private() } else { event }
            };
            events.into_iter().map(event).collect()
        })
    }

    proptest! {
        /// A record says the same however it was sealed, kept, stored or published again; and takes no more than its draft said.
        #[test]
        fn together_or_alone(appends in prop::collection::vec(events(), 1..4), opaque: bool, order in any::<prop::sample::Index>()) {
            let ids = if opaque { IdForm::opaque([9; 16]) } else { IdForm::PLAIN };
            let mut place = FIRST;
            for events in appends {
                let alone: Vec<Record> = events
                    .iter()
                    .zip(place.sequence..)
                    .map(|(event, sequence)| Record::draft(event.clone()).with_ids(ids).seal(Position { sequence, ..place }, 5))
                    .collect();
                let drafts: Vec<Draft> = Record::drafts(events.clone()).into_iter().map(|draft| draft.with_ids(ids)).collect();
                let costs: Vec<usize> = drafts.iter().map(Draft::cost).collect();
                let given: Vec<_> = drafts.iter().zip(place.sequence..).map(|(draft, sequence)| draft.event_id(Position { sequence, ..place })).collect();
                let together = Record::seal(drafts, place, 5);
                prop_assert_eq!(together.len(), alone.len());
                for (at, (record, alone)) in together.iter().zip(&alone).enumerate() {
                    prop_assert_eq!(format!("{record:?}"), format!("{alone:?}"));
                    prop_assert_eq!(format!("{:?}", record.alone()), format!("{alone:?}"));
                    let (event, id) = (&events[at], &given[at]);
                    prop_assert_eq!((record.event_type(), record.publisher_id(), record.retry()), (event.event_type(), event.id(), event.retry()));
                    prop_assert_eq!((&record.id(), record.is_private()), (id, event.is_private()));
                    prop_assert!(record.cost() <= costs[at]);
                    let mut stored = Vec::new();
                    record.put_stored(&mut stored);
                    let read = Record::from_stored(record.position(), 5, &stored.into(), &[]);
                    prop_assert_eq!(format!("{:?}", read.expect("the stored form")), format!("{alone:?}"));
                }
                // In another order and without some of them, as no store of ours does it.
                let mut drafts = Record::drafts(events.clone());
                let away = order.index(drafts.len() + 1);
                if away < drafts.len() {
                    drafts.remove(away);
                }
                drafts.reverse();
                let mut others = events.clone();
                if away < others.len() {
                    others.remove(away);
                }
                others.reverse();
                for (record, event) in Record::seal(drafts, place, 5).iter().zip(&others) {
                    prop_assert_eq!((record.topics(), record.event_type(), record.publisher_id()), (event.topics(), event.event_type(), event.id()));
                    prop_assert_eq!(&*record.data(), event.data());
                }
                place.sequence += events.len() as u64;
            }
        }
    }

    /// Records of one topic have it once, whichever appends they came with, and one of them answers for it; and who keeps one record does not keep
    /// the others.
    #[test]
    fn what_is_shared() {
        let known = KnownTopics::default();
        let append = |topics: &[&str]| {
            let drafts = Record::drafts(topics.iter().map(|topic| Event::new(topic, "d").unwrap().sharing(&known)).collect());
            Record::seal(drafts, FIRST, 0)
        };
        let (first, second) = (append(&["a", "b", "a", "a"]), append(&["a"]));
        for record in [&first[2], &first[3], &second[0], &second[0].alone()] {
            assert!(record.shared_topics().is(first[0].shared_topics()));
        }
        assert!(first.iter().all(|record| Arc::ptr_eq(&record.block, &first[0].block)));
        let own: Vec<bool> = first.iter().chain(&second).map(|record| record.part().frame.flags & OWN_TOPICS != 0).collect();
        assert_eq!(own, [true, true, false, false, false]);
        assert!(!Arc::ptr_eq(&first[1].alone().block, &first[1].block));
    }

    /// Little data under long names: what one of them holds of the others has the same bound, their names included.
    #[test]
    fn names_count_for_what_is_shared() {
        let topic = |n: usize| format!("{n}/{}", "t".repeat(limits::TOPIC - 10));
        let events = (0..100).map(|n| Event::new(&topic(n), "d").unwrap()).collect();
        let records = Record::seal(Record::drafts(events), FIRST, 0);
        let blocks: Vec<&[Record]> = records.chunk_by(|one, next| Arc::ptr_eq(&one.block, &next.block)).collect();
        for block in &blocks {
            let held: usize = block.iter().map(|record| record.bytes().len() + record.topics()[0].as_str().len()).sum();
            assert!(held <= limits::SHARED_BUFFER, "{held} bytes are held by each of {}", block.len());
        }
        assert!(blocks.len() < records.len() / 4, "{} buffers", blocks.len());
    }

    /// Whoever keeps a record alone answers for the memory of its topics as the record did.
    #[test]
    fn topics_are_counted_alone_too() {
        let append =
            |topics: &[&str]| Record::seal(Record::drafts(topics.iter().map(|topic| Event::new(topic, "d").unwrap()).collect()), FIRST, 0);
        for record in append(&["a", &"b".repeat(1_000), "c"]) {
            let (topics, alone) = (record.shared_topics().memory(), record.alone().cost());
            assert!(alone >= record.bytes().len() + topics, "{alone} for {topics} of topics");
        }
    }
}
