//! Looking for events by a name, a publisher's id or a topic, among those that are served.
//!
//! It knows the log and its segments. An index knows numbers only, so of what may be hidden the event itself is asked.

use super::{
    index::{Index, List, Names, UNREADABLE, find},
    log::{Log, Part, Sight},
    places::trying_again,
    segment::{Place, fetch},
};
use std::{collections::BTreeMap, io};
use tidings_core::{EventId, Position, Record, Topic};

/// Events that may be served, by sequence and offset.
type Places = Vec<(u64, u32)>;

impl Log {
    /// Whether an event is served if that does not take a look at it; nothing if it does.
    fn surely(&self, sight: &Sight, sequence: u64) -> Option<bool> {
        if sequence > sight.high || self.is_latest(sequence) {
            return Some(true);
        }
        (sequence <= sight.floors.iter().copied().min().unwrap_or(0)).then_some(false)
    }

    /// An event, if it is served.
    fn served(&self, sight: &Sight, place: Place, event: (u64, u32)) -> io::Result<Option<Record>> {
        let mut found = None;
        fetch(&*self.files, place, &[event], |_, record| {
            found = record.filter(|record| self.serves(sight, event.0, record.topics()));
            false
        })?;
        Ok(found)
    }

    /// The events of a list that may be served, from one end on and up to the first that is.
    fn places(&self, sight: &Sight, index: &dyn Index, first: u64, list: &List<'_>, newest: bool) -> io::Result<Places> {
        let mut places = Places::new();
        let mut look = |at: usize| -> io::Result<bool> {
            let event = list.get(at)?;
            let sequence = index.sequence(first, event)?;
            let surely = self.surely(sight, sequence);
            if surely != Some(false) {
                places.push((sequence, index.offset(event)?));
            }
            Ok(surely != Some(true))
        };
        if newest {
            for at in (0..list.len()).rev() {
                if !look(at)? {
                    break;
                }
            }
        } else {
            // Below the lowest place there is none.
            for at in list.below(index.rank(first, sight.low + 1)?)?..list.len() {
                if !look(at)? {
                    break;
                }
            }
        }
        Ok(places)
    }

    /// See [`crate::EventStore::resolve`].
    pub(super) fn resolve(&self, id: &str) -> io::Result<Option<Position>> {
        trying_again(|| {
            let sight = self.sight();
            let ask = |index: &dyn Index, place: Place| {
                let found = find(index, Names::Ids, id, |list| self.places(&sight, index, place.header.first, &list, false).map(Some))?;
                Ok((found.unwrap_or_default(), place))
            };
            for part in self.parts(|active| ask(&active.index, active.place()))? {
                let (places, place) = match part {
                    Part::Active(found) => found,
                    Part::Finished(segment) => segment.ask(&self.files, |index| ask(index, segment.place()))?,
                };
                for event in places {
                    if self.surely(&sight, event.0) == Some(true) || self.served(&sight, place, event)?.is_some() {
                        return Ok(Some(Position { epoch: self.epoch, sequence: event.0 }));
                    }
                }
            }
            Ok(None)
        })
    }

    /// See [`crate::EventStore::newest`].
    pub(super) fn newest(&self, topic: &Topic) -> io::Result<Option<EventId>> {
        trying_again(|| {
            let sight = self.sight();
            let ask = |index: &dyn Index, place: Place| {
                let list = |list: List<'_>| self.places(&sight, index, place.header.first, &list, true).map(Some);
                Ok((find(index, Names::Topics, topic.as_str(), list)?.unwrap_or_default(), place))
            };
            for part in self.parts(|active| ask(&active.index, active.place()))?.into_iter().rev() {
                let (places, place) = match part {
                    Part::Active(found) => found,
                    Part::Finished(segment) => segment.ask(&self.files, |index| ask(index, segment.place()))?,
                };
                if let Some(id) = self.first_of(&sight, place, &places)? {
                    return Ok(Some(id));
                }
            }
            Ok(None)
        })
    }

    fn first_of(&self, sight: &Sight, place: Place, places: &Places) -> io::Result<Option<EventId>> {
        for &event in places {
            if let Some(record) = self.served(sight, place, event)? {
                return Ok(Some(record.id()));
            }
        }
        Ok(None)
    }

    /// See [`crate::EventStore::topics`].
    pub(super) fn topics(&self, after: Option<&str>, limit: usize) -> io::Result<Vec<(Topic, EventId)>> {
        let (mut topics, mut after) = (Vec::new(), after.map(str::to_owned));
        // Of names whose events turn out to be hidden there may be many, and a page that is not full is the last one.
        loop {
            let names = trying_again(|| self.some_topics(after.as_deref(), limit - topics.len()))?;
            let more = names.len() == limit - topics.len();
            let last = names.last().map(|(name, _)| name.to_string());
            topics.extend(names.into_iter().filter_map(|(name, id)| Some((Topic::stored(&name), id?))));
            if !more || topics.len() == limit || last.is_none() {
                return Ok(topics);
            }
            after = last;
        }
    }

    /// Names of topics, each with its newest event if one is served.
    fn some_topics(&self, after: Option<&str>, limit: usize) -> io::Result<Vec<(Box<str>, Option<EventId>)>> {
        type Found = BTreeMap<Box<str>, Vec<(Place, Places)>>;
        let sight = self.sight();
        let list = |index: &dyn Index, place: Place| -> io::Result<Found> {
            let mut found = Found::new();
            index.visit(Names::Topics, after.unwrap_or_default(), &mut |name, list: List<'_>| {
                if after != Some(name) && name != UNREADABLE {
                    let places = self.places(&sight, index, place.header.first, &list, true)?;
                    if !places.is_empty() {
                        found.insert(name.into(), vec![(place, places)]);
                    }
                }
                Ok(found.len() < limit)
            })?;
            Ok(found)
        };
        let mut all = Found::new();
        for part in self.parts(|active| list(&active.index, active.place()))?.into_iter().rev() {
            let found = match part {
                Part::Active(found) => found,
                Part::Finished(segment) => segment.ask(&self.files, |index| list(index, segment.place()))?,
            };
            for (name, places) in found {
                let newer = all.entry(name).or_default();
                let decided = newer.iter().flat_map(|(_, places)| places).any(|(sequence, _)| self.surely(&sight, *sequence) == Some(true));
                if !decided {
                    newer.extend(places);
                }
            }
        }
        let id = |(name, places): (Box<str>, Vec<(Place, Places)>)| {
            let mut ids = places.iter().map(|(place, places)| self.first_of(&sight, *place, places));
            Ok((name, ids.find_map(io::Result::transpose).transpose()?))
        };
        all.into_iter().take(limit).map(id).collect()
    }
}
