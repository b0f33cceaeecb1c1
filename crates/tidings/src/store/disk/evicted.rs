//! What retention removed, by audience, kept across restarts so that a reader who lost nothing is told nothing (N-14).
//!
//! It is a memory aid: never synced, and without it, or if it does not check, everybody who is behind the oldest event is told.

use super::{
    files::{Files, read_whole},
    format::{Removed, invalid, u16_at, u32_at, u64_at},
};
use crate::store::retention::{Gone, Rules};
use std::{collections::BTreeMap, io};
use tidings_core::{Epoch, Topic};

pub(super) const NAME: &str = "evicted";
const NEW: &str = "evicted.new";
const MAGIC: &[u8; 8] = b"TIDGONE\n";
/// Since 2 it is told by class. One of another version is as good as none.
const VERSION: u16 = 2;
const HEADER: usize = 20;

/// What is to be written down: the file as it is when this is so.
pub(super) fn to_bytes(epoch: Epoch, rules: &Rules, gone: &[Gone]) -> Vec<u8> {
    let mut bytes = Vec::from(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend([0; 2]);
    bytes.extend(epoch.0.to_le_bytes());
    bytes.extend((gone.len() as u32).to_le_bytes());
    for (class, gone) in rules.classes().iter().zip(gone) {
        let [public, private] = gone.evicted.forgotten();
        for number in [gone.noted, gone.foreign, public, private, gone.evicted.remembered().count() as u64] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend((class.prefix.len() as u16).to_le_bytes());
        bytes.extend(class.prefix.as_bytes());
        for (sequence, topics, private) in gone.evicted.remembered() {
            bytes.extend(sequence.to_le_bytes());
            bytes.push(private.into());
            bytes.extend((topics.len() as u16).to_le_bytes());
            for topic in topics {
                bytes.extend((topic.as_str().len() as u16).to_le_bytes());
                bytes.extend(topic.as_str().as_bytes());
            }
        }
    }
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend(checksum.to_le_bytes());
    bytes
}

/// Writes it down, as far as that works.
pub(super) fn save(files: &dyn Files, bytes: &[u8]) {
    let write = || {
        let _ = files.remove(NEW);
        files.create(NEW)?.write_at(bytes, 0)?;
        files.rename(NEW, NAME)
    };
    if let Err(error) = write() {
        // On a full disk it would take the room that removing needs.
        let _ = files.remove(NEW);
        tracing::warn!(%error, "which topics were removed could not be noted; after a restart more readers may be told of a gap");
    }
}

/// What is remembered of what each class has removed, as far as the state says it did, and that of classes that are no more: those
/// topics belong to others now. Nothing in particular is remembered of a class that removed more than the file knows of.
pub(super) fn load(files: &dyn Files, epoch: Epoch, rules: &Rules, then: &[Removed], now: &[Removed]) -> Vec<Gone> {
    let read =
        || -> io::Result<BTreeMap<Box<str>, Gone>> { parse(&read_whole(files, NAME)?, epoch).ok_or_else(|| invalid("it does not check")) };
    let known = if then.iter().all(|class| class.through == 0) { Ok(BTreeMap::new()) } else { read() };
    let known = known.unwrap_or_else(|error| {
        tracing::info!(%error, "which topics were removed is not known; readers behind the oldest event are told of a gap");
        BTreeMap::new()
    });
    let mut gone: Vec<Gone> = now.iter().enumerate().map(|(class, now)| Gone::blank(class, now.through, 0)).collect();
    for (class, now) in now.iter().enumerate() {
        gone[class].foreign = now.foreign;
    }
    for then in then {
        let here = now.iter().position(|now| now.prefix == then.prefix);
        // Of all classes that may have its topics now, if it is no more: of those it was itself part of.
        let class = here.unwrap_or_else(|| rules.class_of(&[Topic::stored(&then.prefix)]));
        match known.get(&then.prefix).filter(|known| known.through >= then.through) {
            Some(known) => {
                gone[class].evicted.forget(known.evicted.forgotten());
                gone[class].foreign = gone[class].foreign.max(known.foreign).max(then.foreign);
                for (sequence, topics, private) in known.evicted.remembered() {
                    gone[class].remember(rules, class, sequence, topics.into(), private);
                }
            }
            None => gone[class].evicted.forget([then.through; 2]),
        }
    }
    // A class that is new was part of another, and of what that one has forgotten nobody knows whose it was.
    for (class, now) in now.iter().enumerate().filter(|(_, now)| then.iter().all(|then| then.prefix != now.prefix)) {
        for of in &mut gone {
            let [public, private] = of.evicted.forgotten();
            of.foreign = of.foreign.max(now.through).max(public).max(private);
        }
        gone[class].foreign = gone[class].foreign.max(now.foreign);
    }
    gone
}

fn parse(bytes: &[u8], epoch: Epoch) -> Option<BTreeMap<Box<str>, Gone>> {
    let (contents, checksum) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    let checks = contents.len() >= HEADER && contents[..8] == *MAGIC && crc32c::crc32c(contents) == u32_at(checksum, 0);
    if !checks || u16_at(contents, 8) != VERSION || u32_at(contents, 12) != epoch.0 {
        return None;
    }
    let mut rest = &contents[HEADER..];
    let mut take = |len: usize| {
        let (part, after) = rest.split_at_checked(len)?;
        rest = after;
        Some(part)
    };
    let mut all = BTreeMap::new();
    for _ in 0..u32_at(contents, 16) {
        let fixed = take(42)?;
        let prefix: Box<str> = std::str::from_utf8(take(u16_at(fixed, 40).into())?).ok()?.into();
        let mut gone = Gone::blank(0, u64_at(fixed, 0), 0);
        gone.foreign = u64_at(fixed, 8);
        gone.evicted.forget([u64_at(fixed, 16), u64_at(fixed, 24)]);
        for _ in 0..u64_at(fixed, 32) {
            let fixed = take(11)?;
            let (sequence, private) = (u64_at(fixed, 0), fixed[8] != 0);
            let topics = (0..u16_at(fixed, 9)).map(|_| {
                let len = u16_at(take(2)?, 0);
                Some(Topic::stored(std::str::from_utf8(take(len.into())?).ok()?))
            });
            gone.evicted.remember(sequence, topics.collect::<Option<Vec<Topic>>>()?.into(), private);
        }
        all.insert(prefix, gone);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        PrefixRule,
        store::{disk::simulated::Simulated, retention::Limits},
    };
    use tidings_core::{Filter, Grant, Matchers, TopicMatcher};

    fn rules(prefixes: &[&str]) -> Rules {
        let rule = |prefix: &&str| {
            let mut rule = PrefixRule::new(*prefix);
            rule.retention_events = Some(1);
            rule
        };
        Rules::new(Limits::new(100, 100, None), &prefixes.iter().map(rule).collect::<Vec<_>>(), std::iter::empty())
    }

    fn removed(rules: &Rules, through: impl Fn(&str) -> u64) -> Vec<Removed> {
        rules.classes().iter().map(|class| Removed { prefix: class.prefix.clone(), through: through(&class.prefix), foreign: 0 }).collect()
    }

    fn told(rules: &Rules, gone: &[Gone]) -> [[bool; 3]; 4] {
        let filter = |topic: &str| Filter::new(Matchers::from(TopicMatcher::exact(topic).unwrap()), &Grant::open());
        let one = |after: u64, topic: &str| gone.iter().enumerate().any(|(class, gone)| gone.may_miss(rules, class, after, &filter(topic)));
        ["a", "b", "d", "x/y"].map(|topic| [0, 3, 6].map(|after| one(after, topic)))
    }

    /// N-14: after a restart too only those are told who can have lost something, as long as the file is whole, and whatever becomes of
    /// the rules.
    #[test]
    fn remembered_across_restarts() {
        let disk = Simulated::new(1, None);
        let with_x = rules(&["x"]);
        let states = |rules: &Rules| removed(rules, |prefix| if prefix == "x" { 5 } else { 6 });
        let mut gone: Vec<Gone> = (0..with_x.classes().len()).map(|class| Gone::blank(class, 6, 0)).collect();
        gone[0].remember(&with_x, 0, 3, [Topic::stored("a")].into(), false);
        gone[0].remember(&with_x, 0, 5, [Topic::stored("b"), Topic::stored("c")].into(), true);
        let x = with_x.class_of(&[Topic::stored("x")]);
        gone[x].remember(&with_x, x, 4, [Topic::stored("x/y")].into(), false);
        save(&disk, &to_bytes(Epoch(7), &with_x, &gone));
        let load = |disk: &Simulated, epoch, rules: &Rules, then: &[Removed]| {
            told(rules, &load(disk, Epoch(epoch), rules, then, &removed(rules, |_| 6)))
        };
        // The second is private, and nobody here has a grant.
        let exact = [[true, false, false], [false; 3], [false; 3], [true, true, false]];
        assert_eq!(load(&disk, 7, &with_x, &states(&with_x)), exact);
        for (others, what) in [(rules(&[]), "no rule any more"), (rules(&["x/y"]), "a longer one"), (rules(&["x", "d"]), "one more")] {
            assert_eq!(load(&disk, 7, &others, &states(&with_x)), exact, "{what}");
        }
        let everybody = [[true, true, false]; 4];
        assert_eq!(load(&disk, 8, &with_x, &states(&with_x)), everybody, "of another log");
        assert_eq!(load(&disk, 8, &rules(&["d"]), &states(&with_x)), everybody, "of another log and with other rules");
        let later = removed(&with_x, |prefix| if prefix == "x" { 7 } else { 6 });
        assert_eq!(load(&disk, 7, &with_x, &later), [exact[0], exact[1], exact[2], [true; 3]], "of an earlier time for one class");
        let len = disk.open(NAME).unwrap().len().unwrap();
        for at in 0..len {
            let damaged = disk.copy();
            damaged.damage(NAME, |contents| contents[at as usize] ^= 1);
            assert_eq!(load(&damaged, 7, &with_x, &states(&with_x)), everybody, "flipped at {at}");
            damaged.damage(NAME, |contents| contents.truncate(at as usize));
            assert_eq!(load(&damaged, 7, &with_x, &states(&with_x)), everybody, "cut at {at}");
        }
    }
}
