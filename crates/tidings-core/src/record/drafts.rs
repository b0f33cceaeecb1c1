//! Events of one append before they have their places: encoded, and laid into the buffers that their records will share.
//!
//! It knows events and bytes, not what a store does with what it is asked to append.

use super::{
    Record,
    block::{self, Block, Frame, NAMED, OWN_TOPICS, Part, Parts},
};
use crate::{Event, EventId, IdForm, Position, Topic, limits, topics::allocated, wire::Shape};
use bytes::BytesMut;
use std::sync::Arc;

/// An encoded event that has no position yet.
#[derive(Debug)]
pub struct Draft(Group);

/// Encoded events that have no positions yet, in order: what a store is asked to append, all or none. Those made by [`Record::drafts`] share
/// buffers; others are collected from a [`Draft`] each.
#[derive(Debug, Default)]
pub struct Drafts(Vec<Group>);

/// Events whose bytes share a buffer, as their [`Block`] will have them.
#[derive(Debug)]
struct Group {
    bytes: BytesMut,
    parts: Parts,
    second: Option<Box<Frame>>,
    /// What the buffer costs beside its own bytes; the first of the events answers for it.
    extra: u32,
    ids: IdForm,
}

impl Group {
    /// One event, encoded into a buffer of its own.
    fn one<D: AsRef<str>>(event: Event<D>, shape: &Shape, capacity: usize) -> Group {
        let mut bytes = BytesMut::with_capacity(capacity);
        let part = encode(event, shape, &mut bytes);
        Group::of(bytes, Parts::One(part), None, capacity)
    }

    /// `capacity` is that of the buffer.
    fn of(bytes: BytesMut, parts: Parts, second: Option<Box<Frame>>, capacity: usize) -> Group {
        Group { bytes, parts, second, extra: block::block_cost(capacity) as u32, ids: IdForm::PLAIN }
    }

    fn len(&self) -> usize {
        self.parts.as_slice().len()
    }

    fn cost(&self) -> usize {
        let second = self.second.as_deref();
        self.extra as usize + self.parts.as_slice().iter().map(|part| super::cost(part, second, 0)).sum::<usize>()
    }

    /// The publisher's id of one of them, if it gave one.
    fn given_id(&self, part: &Part) -> Option<&str> {
        part.frame.given_id(&self.bytes[part.frame.at as usize..][..part.frame.len as usize])
    }

    fn event_id(&self, part: &Part, position: Position) -> EventId {
        self.given_id(part).map_or_else(|| self.ids.id(position), EventId::given)
    }

    /// Gives them consecutive places, writing the minted id into the bytes where the publisher gave none.
    fn seal(self, place: Position, accepted_at: u64) -> Block {
        let Group { mut bytes, parts, second, extra, ids } = self;
        let Position { epoch, sequence: first } = place;
        for (sequence, part) in (first..).zip(parts.as_slice()) {
            if part.frame.flags & NAMED == 0 {
                let id = ids.bytes(Position { epoch, sequence });
                for frame in [Some(&part.frame), second.as_deref()].into_iter().flatten() {
                    let at = frame.at as usize + frame.id_at();
                    bytes[at..at + Position::ID_LEN].copy_from_slice(&id);
                }
            }
        }
        Block { bytes: bytes.freeze(), parts, second, first, accepted_at, epoch, extra }
    }
}

/// Encodes behind what is in the buffer.
fn encode<D: AsRef<str>>(event: Event<D>, shape: &Shape, bytes: &mut BytesMut) -> Part {
    let mut frame = shape.encode(&event, bytes);
    let topics = event.into_topics();
    if topics.count() {
        frame.flags |= OWN_TOPICS;
    }
    Part { topics, frame }
}

impl Draft {
    /// Gives it its place, writing the minted id into the bytes where the publisher gave none. `accepted_at` is in milliseconds since 1970.
    /// What is appended together is sealed together, by [`Record::seal`].
    pub fn seal(self, position: Position, accepted_at: u64) -> Record {
        Record { block: Arc::new(self.0.seal(position, accepted_at)), index: 0 }
    }

    /// Another form of the id that it gets than the plain one.
    #[must_use]
    pub fn with_ids(self, ids: IdForm) -> Draft {
        Draft(Group { ids, ..self.0 })
    }

    fn part(&self) -> &Part {
        self.0.parts.get(0)
    }

    /// The topics; the first is the canonical one.
    pub fn topics(&self) -> &[Topic] {
        &self.part().topics
    }

    /// The publisher's id, if it gave one.
    pub fn id(&self) -> Option<&str> {
        self.0.given_id(self.part())
    }

    /// The id it has at a position: the publisher's, or the one minted there.
    pub fn event_id(&self, position: Position) -> EventId {
        self.0.event_id(self.part(), position)
    }

    /// Bytes of memory that it will take while it is kept; see [`Record::cost`].
    pub fn cost(&self) -> usize {
        self.0.cost()
    }

    /// An event of the hub's own in two views, whose topics are the one of the first view and the one of the second (M-405).
    pub(crate) fn in_two_views(first: Event, second: &Event) -> Draft {
        debug_assert_eq!(first.topics().len(), 2, "one topic for each view");
        let shapes = [Shape::of(&first), Shape::of(second)];
        let mut group = Group::one(first, &shapes[0], shapes[0].len() + shapes[1].len());
        group.second = Some(Box::new(shapes[1].encode(second, &mut group.bytes)));
        Draft(group)
    }
}

impl Drafts {
    /// How many events there are.
    pub fn len(&self) -> usize {
        self.0.iter().map(Group::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of memory that they will take while they are kept; see [`Record::cost`].
    pub fn cost(&self) -> usize {
        self.0.iter().map(Group::cost).sum()
    }

    /// Another form of the ids that they get than the plain one.
    #[must_use]
    pub fn with_ids(mut self, ids: IdForm) -> Drafts {
        self.0.iter_mut().for_each(|group| group.ids = ids);
        self
    }

    /// The ids they have from a position on: the publishers', or those minted there.
    pub fn event_ids(&self, first: Position) -> impl Iterator<Item = EventId> {
        let parts = self.0.iter().flat_map(|group| group.parts.as_slice().iter().map(move |part| (group, part)));
        (first.sequence..).zip(parts).map(move |(sequence, (group, part))| group.event_id(part, Position { sequence, ..first }))
    }
}

impl From<Draft> for Drafts {
    fn from(draft: Draft) -> Drafts {
        Drafts(vec![draft.0])
    }
}

impl FromIterator<Draft> for Drafts {
    fn from_iter<T: IntoIterator<Item = Draft>>(drafts: T) -> Drafts {
        Drafts(drafts.into_iter().map(|draft| draft.0).collect())
    }
}

impl Record {
    /// Encodes an event. Costly work belongs here, before the store's lock is taken.
    pub fn draft<D: AsRef<str>>(event: Event<D>) -> Draft {
        let shape = Shape::of(&event);
        Draft(Group::one(event, &shape, shape.len()))
    }

    /// Encodes the events of one append. Small ones share buffers of at most [`limits::SHARED_BUFFER`] bytes.
    pub fn drafts<D: AsRef<str>>(mut events: Vec<Event<D>>) -> Drafts {
        if events.len() == 1
            && let Some(event) = events.pop()
        {
            return Record::draft(event).into();
        }
        let shapes: Vec<Shape> = events.iter().map(Shape::of).collect();
        let mut shapes = shapes.as_slice();
        let mut events = events.into_iter();
        let mut groups = Vec::new();
        while !shapes.is_empty() {
            let (count, len) = buffer_of(shapes, events.as_slice());
            let (these, others) = shapes.split_at(count);
            if let [shape] = these {
                groups.extend(events.next().map(|event| Group::one(event, shape, len)));
            } else {
                let mut bytes = BytesMut::with_capacity(len);
                let parts = these.iter().zip(events.by_ref()).map(|(shape, event)| encode(event, shape, &mut bytes)).collect();
                groups.push(Group::of(bytes, Parts::Many(parts), None, len));
            }
            shapes = others;
        }
        Drafts(groups)
    }

    /// Gives the events of one append consecutive places from `first` on; see [`Draft::seal`]. Those that share a buffer share the rest too:
    /// they take less memory than if they were sealed one by one.
    pub fn seal(drafts: Drafts, first: Position, accepted_at: u64) -> Vec<Record> {
        let mut records = Vec::with_capacity(drafts.len());
        for group in drafts.0 {
            let place = Position { sequence: first.sequence + records.len() as u64, ..first };
            let count = group.len();
            let blocks = std::iter::repeat_n(Arc::new(group.seal(place, accepted_at)), count);
            records.extend(blocks.zip(0..).map(|(block, index)| Record { block, index }));
        }
        records
    }

    /// The same event for a place in another log.
    pub fn redraft(&self) -> Draft {
        let (bytes, frame, second) = self.copied();
        let capacity = bytes.len();
        let part = Part { topics: self.part().topics.clone(), frame };
        Draft(Group::of(bytes, Parts::One(part), second.map(Box::new), capacity))
    }
}

/// How many events from the first on may share a buffer, and its length. Allocators have few sizes: where so many would leave much of one
/// unused, the last of them go into another buffer.
///
/// The names of their topics stay for as long as one of them does, as the buffer: so they count for the bound on what is shared.
fn buffer_of<D: AsRef<str>>(shapes: &[Shape], events: &[Event<D>]) -> (usize, usize) {
    let mut sums = shapes.iter().zip(events).scan((0, 0, 0), |(count, sum, held), (shape, event)| {
        *count += 1;
        *sum += shape.len();
        *held += shape.len() + event.topics().iter().map(|topic| topic.as_str().len()).sum::<usize>();
        Some((*count, *sum, *held))
    });
    let (count, first, _) = sums.next().unwrap_or((1, 0, 0));
    let (mut best, mut last) = ((count, first), (count, first));
    for (count, sum, _) in sums.take_while(|&(.., held)| held <= limits::SHARED_BUFFER) {
        last = (count, sum);
        if allocated(sum) - sum <= sum / 64 {
            best = last;
        }
    }
    if block::block_cost(last.1) <= block::block_cost(best.1) + block::block_cost(last.1 - best.1) { last } else { best }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Epoch, KnownTopics};
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
                let drafts = Record::drafts(events.clone()).with_ids(ids);
                prop_assert_eq!((drafts.len(), drafts.is_empty()), (events.len(), events.is_empty()));
                let cost = drafts.cost();
                let given: Vec<EventId> = drafts.event_ids(place).collect();
                let together = Record::seal(drafts, place, 5);
                prop_assert_eq!(together.len(), alone.len());
                prop_assert_eq!(together.iter().map(Record::cost).sum::<usize>(), cost);
                for (at, (record, alone)) in together.iter().zip(&alone).enumerate() {
                    prop_assert_eq!(format!("{record:?}"), format!("{alone:?}"));
                    prop_assert_eq!(format!("{:?}", record.alone()), format!("{alone:?}"));
                    let (event, id) = (&events[at], &given[at]);
                    prop_assert_eq!((record.event_type(), record.publisher_id(), record.retry()), (event.event_type(), event.id(), event.retry()));
                    prop_assert_eq!((&record.id(), record.is_private()), (id, event.is_private()));
                    let mut stored = Vec::new();
                    record.put_stored(&mut stored);
                    let read = Record::from_stored(record.position(), 5, &stored.into(), &[]);
                    prop_assert_eq!(format!("{:?}", read.expect("the stored form")), format!("{alone:?}"));
                }
                // Collected from one each, in another order and without some of them.
                let mut others = events.clone();
                let away = order.index(others.len() + 1);
                if away < others.len() {
                    others.remove(away);
                }
                others.reverse();
                let drafts: Drafts = others.iter().cloned().map(Record::draft).collect();
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
