//! The topics of events: several names as one value that all events with the same ones share.
//!
//! It knows names, neither what was published under them nor who asks for them.

use crate::{EventError, Topic, limits};
use std::{
    cmp::Ordering,
    fmt,
    hash::BuildHasher,
    ops::Deref,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

/// The topics of an event, shared by all events that were given the same value: the first is the canonical one. Never empty, without repeats,
/// at most [`limits::TOPICS_PER_EVENT_MAX`].
#[derive(Clone)]
pub struct Topics(Arc<Shared>);

struct Shared {
    names: Names,
    /// A record answers for the memory.
    counted: AtomicBool,
}

/// Nearly every event has one.
enum Names {
    One(Topic),
    Many(Box<[Topic]>),
}

impl Topics {
    fn of(names: Names) -> Topics {
        Topics(Arc::new(Shared { names, counted: AtomicBool::new(false) }))
    }

    /// Topics that were those of an event before; `None` without any.
    pub(crate) fn stored(mut topics: impl ExactSizeIterator<Item = Topic>) -> Option<Topics> {
        Some(Topics::of(match topics.len() {
            0 => return None,
            1 => Names::One(topics.next()?),
            _ => Names::Many(topics.collect()),
        }))
    }

    /// Whether they are the very same.
    #[cfg(test)]
    pub(crate) fn is(&self, other: &Topics) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// True once: for the record that answers for the memory they take.
    pub(crate) fn count(&self) -> bool {
        // Looked at first, for nearly always it has been done, and somebody on another processor looks too.
        !self.0.counted.load(Relaxed) && !self.0.counted.swap(true, Relaxed)
    }

    /// Bytes of memory that they take, by the sizes that allocators have.
    pub(crate) fn memory(&self) -> usize {
        let name = |topic: &Topic| allocated(COUNTS + topic.as_str().len());
        let list = match &self.0.names {
            Names::One(_) => 0,
            Names::Many(names) => allocated(size_of_val(&**names)),
        };
        COUNTS + size_of::<Shared>() + list + self.iter().map(name).sum::<usize>()
    }

    /// One topic.
    pub fn new(topic: &str) -> Result<Topics, EventError> {
        Ok(Topics::of(Names::One(Topic::parse(topic)?)))
    }

    /// One more topic, unless it is there.
    pub fn with(self, topic: &str) -> Result<Topics, EventError> {
        if self.len() == limits::TOPICS_PER_EVENT_MAX {
            return Err(EventError::TooManyTopics);
        }
        let topic = Topic::parse(topic)?;
        if self.contains(&topic) {
            return Ok(self);
        }
        Ok(Topics::of(Names::Many(self.iter().cloned().chain([topic]).collect())))
    }
}

/// The two counts of an `Arc`.
pub(crate) const COUNTS: usize = 2 * size_of::<usize>();

/// What allocators give for so many bytes: most have four sizes for each doubling, and of the large ones what is not used is not there.
pub(crate) fn allocated(len: usize) -> usize {
    let step = (len.max(64).next_power_of_two() / 8).min(4_096);
    len.next_multiple_of(step)
}

impl Deref for Topics {
    type Target = [Topic];
    fn deref(&self) -> &[Topic] {
        match &self.0.names {
            Names::One(topic) => std::slice::from_ref(topic),
            Names::Many(topics) => topics,
        }
    }
}

impl PartialEq for Topics {
    fn eq(&self, other: &Topics) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || **self == **other
    }
}

impl Eq for Topics {}

impl PartialOrd for Topics {
    fn partial_cmp(&self, other: &Topics) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Topics {
    fn cmp(&self, other: &Topics) -> Ordering {
        (**self).cmp(&**other)
    }
}

impl fmt::Debug for Topics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&**self).finish()
    }
}

/// So many different topics are known at most.
const PLACES: usize = 8_192;
/// Those that take more memory are not: all that are known stay under two megabytes.
const LARGEST: usize = 256;

/// Topics that events had lately. Events of the same topics come again and again, and nearly never together: who asks here first makes no new
/// value of names that are known, checks them no second time, and keeps them in memory once for all those events.
pub struct KnownTopics(Box<[Mutex<Option<Topics>>]>);

impl KnownTopics {
    /// The value of some names, which is made if it is not known; see [`Topics::new`] and [`Topics::with`]. There is at least one name.
    pub fn topics(&self, names: &[impl AsRef<str>]) -> Result<Topics, EventError> {
        let (first, others) = names.split_first().ok_or(crate::TopicError::Empty)?;
        let place = self.place(first.as_ref());
        let is =
            |known: &&Topics| known.len() == names.len() && known.iter().zip(names).all(|(topic, name)| topic.as_str() == name.as_ref());
        if let Some(known) = place.lock().unwrap_or_else(PoisonError::into_inner).as_ref().filter(is) {
            return Ok(known.clone());
        }
        let topics = others.iter().try_fold(Topics::new(first.as_ref())?, |topics, name| topics.with(name.as_ref()))?;
        learn(place, &topics);
        Ok(topics)
    }

    /// The known value of the same names, or this one, which is known from now on.
    #[must_use]
    pub fn same(&self, topics: Topics) -> Topics {
        let place = self.place(topics[0].as_str());
        if let Some(known) = place.lock().unwrap_or_else(PoisonError::into_inner).as_ref().filter(|known| **known == topics) {
            return known.clone();
        }
        learn(place, &topics);
        topics
    }

    /// What falls on a taken place takes it: who chooses names for that has events no larger than they would be without this.
    fn place(&self, name: &str) -> &Mutex<Option<Topics>> {
        let hash = foldhash::fast::FixedState::with_seed(0).hash_one(name);
        &self.0[hash as usize % PLACES]
    }
}

fn learn(place: &Mutex<Option<Topics>>, topics: &Topics) {
    if topics.memory() <= LARGEST {
        let before = place.lock().unwrap_or_else(PoisonError::into_inner).replace(topics.clone());
        drop(before);
    }
}

impl Default for KnownTopics {
    fn default() -> Self {
        KnownTopics(std::iter::repeat_with(Mutex::default).take(PLACES).collect())
    }
}

impl fmt::Debug for KnownTopics {
    /// How many places there are: what is in them is of no use to anybody, and may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KnownTopics").field(&self.0.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known or not, the value is the one that the names have; and events that ask one after the other have the same.
    #[test]
    fn known_or_not() {
        let known = KnownTopics::default();
        for names in [vec!["a"], vec!["b"], vec!["a", "b"], vec!["a"], vec!["a", "b"], vec!["a", "a"]] {
            let made = names[1..].iter().fold(Topics::new(names[0]).unwrap(), |topics, name| topics.with(name).unwrap());
            assert_eq!(known.topics(&names).unwrap(), made, "{names:?}");
            assert_eq!(known.same(made.clone()), made);
        }
        assert!(known.topics(&["c"]).unwrap().is(&known.topics(&["c"]).unwrap()));
        assert!(known.same(Topics::new("c").unwrap()).is(&known.topics(&["c"]).unwrap()));
        for bad in ["", "*", "a\nb"] {
            assert_eq!(known.topics(&[bad]).unwrap_err(), EventError::from(Topic::parse(bad).unwrap_err()));
            assert!(known.topics(&["a", bad]).is_err());
        }
        assert!(known.topics(&[""; 0]).is_err());
        let long = "x".repeat(LARGEST);
        assert!(!known.topics(&[&long]).unwrap().is(&known.topics(&[&long]).unwrap()), "long ones are not kept");
    }

    /// What is known stays under two megabytes, whatever is asked for.
    #[test]
    fn what_is_known_is_bounded() {
        let known = KnownTopics::default();
        for n in 0..4 * PLACES {
            let name = format!("{n:0128}");
            known.topics(&[&name]).unwrap();
        }
        let kept = || known.0.iter().filter_map(|place| place.lock().unwrap().clone());
        assert!(kept().count() > PLACES / 2);
        assert!(kept().map(|topics| topics.memory()).sum::<usize>() + size_of_val(&*known.0) <= 5 << 19);
    }

    /// The memory of topics is answered for once, whoever has them.
    #[test]
    fn counted_once() {
        let topics = Topics::new("a").unwrap();
        let other = topics.clone();
        assert_eq!([topics.count(), other.count(), topics.count()], [true, false, false]);
        assert_eq!((allocated(1), allocated(64), allocated(65), allocated(145), allocated(14_500)), (8, 64, 80, 160, 16_384));
    }
}
