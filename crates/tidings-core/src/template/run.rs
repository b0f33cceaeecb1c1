//! The automaton: which positions of a name have been reached, as a set of bits that each step moves on all at once.
//!
//! It knows steps and positions; that they come from a template is its caller's to know.

use super::{Class, Expression, Step};

/// Whether steps lead from the beginning of a name to its end; `text` is what their literals are places in.
pub(super) fn matches(steps: &[Step], text: &[u8], name: &[u8]) -> bool {
    match (steps, name.len()) {
        // What most templates are: one variable, with literals at the ends.
        ([Step::Expression(Expression::Run(class))], _) => all(*class, name),
        (_, 0..64) => Run::<1>::new(name).go(steps, text),
        (_, 64..256) => Run::<4>::new(name).go(steps, text),
        (_, 256..LONGEST) => Run::<{ LONGEST / 64 }>::new(name).go(steps, text),
        // Longer than a topic and than a selector may be.
        _ => false,
    }
}

/// Longer than any name or selector, in whole words.
pub(super) const LONGEST: usize = 4_160;

const _: () = assert!(crate::limits::TOPIC < LONGEST && crate::limits::PATTERN < LONGEST);

/// Whether a name consists of characters of a class and of percent-encoded octets.
fn all(class: Class, name: &[u8]) -> bool {
    let mut rest = name;
    while let Some(at) = rest.iter().position(|&byte| !class.has(byte)) {
        if !is_octet(&rest[at..]) {
            return false;
        }
        rest = &rest[at + 3..];
    }
    true
}

fn is_octet(name: &[u8]) -> bool {
    matches!(name, [b'%', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit())
}

/// A set of positions: before each byte of the name, and after the last.
pub(super) type Positions<const WORDS: usize> = [u64; WORDS];

/// So many positions are looked at one by one; more, all at once.
const FEW: u32 = 8;

/// One name, and what was found out about it.
pub(super) struct Run<'a, const WORDS: usize> {
    name: &'a [u8],
    /// By class: the bytes that may be passed, with all three of a percent-encoded octet.
    passable: [Positions<WORDS>; CLASSES],
    known: [bool; CLASSES],
    /// Second and third byte of each percent-encoded octet: no character ends before them.
    inside: Positions<WORDS>,
    /// Where a byte stands, for those that were asked for.
    places: Vec<(u8, Positions<WORDS>)>,
}

/// The classes there are, see [`number`].
const CLASSES: usize = 6;

fn number(class: Class) -> usize {
    match (class.reserved, class.equals, class.and) {
        (true, _, _) => 0,
        (false, false, _) => 1,
        (false, true, None) => 2,
        (false, true, Some(b'/')) => 3,
        (false, true, Some(b';')) => 4,
        (false, true, Some(_)) => 5,
    }
}

impl<'a, const WORDS: usize> Run<'a, WORDS> {
    /// `name` is shorter than the bits of so many words.
    pub(super) fn new(name: &'a [u8]) -> Self {
        let mut inside = [0; WORDS];
        for at in memchr::memchr_iter(b'%', name).filter(|&at| is_octet(&name[at..])) {
            set(&mut inside, at + 1);
            set(&mut inside, at + 2);
        }
        Run { name, passable: [[0; WORDS]; CLASSES], known: [false; CLASSES], inside, places: Vec::new() }
    }

    fn go(&mut self, steps: &[Step], text: &[u8]) -> bool {
        let mut reached = Self::START;
        for step in steps {
            reached = match *step {
                Step::Literal { from, to } => self.literal(&text[from.into()..to.into()], &reached),
                Step::Expression(expression) => self.expression(expression, &reached),
            };
            if is_empty(&reached) {
                return false;
            }
        }
        self.is_whole(&reached)
    }

    /// Nothing of the name is passed.
    pub(super) const START: Positions<WORDS> = {
        let mut start = [0; WORDS];
        start[0] = 1;
        start
    };

    /// Whether all of the name may be passed.
    pub(super) fn is_whole(&self, reached: &Positions<WORDS>) -> bool {
        reached[self.name.len() / 64] >> (self.name.len() % 64) & 1 == 1
    }

    pub(super) fn expression(&mut self, expression: Expression, from: &Positions<WORDS>) -> Positions<WORDS> {
        match expression {
            Expression::Run(class) => self.run(class, from),
            Expression::Begun { first, class } => {
                let begun = self.byte(first, from);
                or(from, &self.run(class, &begun))
            }
            Expression::List { first, class, separator, more } => {
                let mut last = self.byte(first, from);
                last = self.run(class, &last);
                let mut reached = or(from, &last);
                for _ in 0..more {
                    last = self.byte(separator, &last);
                    if is_empty(&last) {
                        break;
                    }
                    last = self.run(class, &last);
                    reached = or(&reached, &last);
                }
                reached
            }
        }
    }

    pub(super) fn literal(&mut self, literal: &[u8], from: &Positions<WORDS>) -> Positions<WORDS> {
        let (mut reached, mut rest) = (*from, literal);
        while count(&reached) > FEW {
            let Some((&byte, after)) = rest.split_first() else { return reached };
            (reached, rest) = (self.byte(byte, &reached), after);
        }
        let mut to = [0; WORDS];
        each(&reached, |at| {
            if self.name[at..].starts_with(rest) {
                set(&mut to, at + rest.len());
            }
        });
        to
    }

    /// The bytes that come next, each once.
    pub(super) fn next_bytes(&self, reached: &Positions<WORDS>, mut visit: impl FnMut(u8)) {
        if count(reached) > 1 {
            let mut seen = [0; 4];
            let mut once = |byte: u8| {
                let (word, bit) = (&mut seen[usize::from(byte / 64)], 1u64 << (byte % 64));
                if *word & bit == 0 {
                    *word |= bit;
                    visit(byte);
                }
            };
            each(reached, |at| self.name.get(at).copied().into_iter().for_each(&mut once));
        } else {
            each(reached, |at| self.name.get(at).copied().into_iter().for_each(&mut visit));
        }
    }

    /// Over one byte.
    fn byte(&mut self, byte: u8, from: &Positions<WORDS>) -> Positions<WORDS> {
        let mut to = [0; WORDS];
        if count(from) <= FEW {
            each(from, |at| {
                if self.name.get(at) == Some(&byte) {
                    set(&mut to, at + 1);
                }
            });
            return to;
        }
        let known = self.places.iter().position(|&(of, _)| of == byte).unwrap_or_else(|| {
            let mut places = [0; WORDS];
            memchr::memchr_iter(byte, self.name).for_each(|at| set(&mut places, at));
            self.places.push((byte, places));
            self.places.len() - 1
        });
        let mut carry = 0;
        for ((to, from), place) in to.iter_mut().zip(from).zip(&self.places[known].1) {
            let stands = from & place;
            *to = stands << 1 | carry;
            carry = stands >> 63;
        }
        to
    }

    /// Over any number of characters of a class.
    fn run(&mut self, class: Class, from: &Positions<WORDS>) -> Positions<WORDS> {
        let number = number(class);
        if !self.known[number] {
            self.known[number] = true;
            let passable = &mut self.passable[number];
            for (at, &byte) in self.name.iter().enumerate() {
                if class.has(byte) || (byte == b'%' && is_octet(&self.name[at..])) {
                    set(passable, at);
                }
            }
            *passable = or(passable, &self.inside);
        }
        // Adding a bit to a row of ones carries it to the row's end: what has changed, and where it began, is what can be reached.
        let (mut to, mut carry) = ([0; WORDS], false);
        for at in 0..WORDS {
            let (from, passable) = (from[at], self.passable[number][at]);
            let (sum, first) = passable.overflowing_add(from & passable);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            carry = first || second;
            to[at] = (from | (sum ^ passable)) & !self.inside[at];
        }
        to
    }
}

fn set<const WORDS: usize>(positions: &mut Positions<WORDS>, at: usize) {
    positions[at / 64] |= 1 << (at % 64);
}

fn or<const WORDS: usize>(one: &Positions<WORDS>, other: &Positions<WORDS>) -> Positions<WORDS> {
    std::array::from_fn(|at| one[at] | other[at])
}

pub(super) fn is_empty<const WORDS: usize>(positions: &Positions<WORDS>) -> bool {
    positions.iter().all(|&word| word == 0)
}

fn count<const WORDS: usize>(positions: &Positions<WORDS>) -> u32 {
    positions.iter().map(|word| word.count_ones()).sum()
}

fn each<const WORDS: usize>(positions: &Positions<WORDS>, mut visit: impl FnMut(usize)) {
    for (at, &word) in positions.iter().enumerate() {
        let mut word = word;
        while word != 0 {
            visit(at * 64 + word.trailing_zeros() as usize);
            word &= word - 1;
        }
    }
}
