//! A source of randomness that takes every value in turn.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;

use super::Chosen;
use crate::error::Blame;
use crate::ring::{Lane, OddRing, Ring};
use crate::stream::{Label, Pair, Randomness, Scope, Seed, Source, Stream};

/// A protocol that is broken on purpose, through its randomness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// Every draw of this label is zero.
    Zero(&'static str),
    /// All units share one: material is used twice.
    SameUnit,
    /// All versions of a weight share one mask.
    SameVersion,
    /// All steps share one, of the labels that begin so: what belongs to one tensor serves others.
    SameStep(&'static str),
}

type Key = (Pair, Scope, u32, u8, &'static str);

struct Inner {
    /// The values at hand, with their bounds: an odometer.
    digits: Vec<(u64, u64)>,
    at: usize,
    memo: BTreeMap<Key, Vec<u64>>,
    free: Vec<u64>,
    chosen: Chosen,
    salt: u8,
    mutant: Option<Mutant>,
}

/// See the module's documentation. Clones share their state, as parties share streams.
#[derive(Clone)]
pub(crate) struct Tape(Rc<RefCell<Inner>>);

impl Inner {
    fn digit(&mut self, bound: u64) -> u64 {
        let at = self.at;
        self.at += 1;
        if let Some((expected, value)) = self.digits.get(at) {
            assert_eq!(*expected, bound, "runs must draw alike");
            return *value;
        }
        self.digits.push((bound, 0));
        0
    }
}

impl Tape {
    /// Enumerates the draws whose label's name is chosen.
    pub(crate) fn new(chosen: Chosen) -> Self {
        Self(Rc::new(RefCell::new(Inner {
            digits: Vec::new(),
            at: 0,
            memo: BTreeMap::new(),
            free: Vec::new(),
            chosen,
            salt: 0,
            mutant: None,
        })))
    }

    /// Breaks the protocol.
    pub(crate) fn with(self, mutant: Mutant) -> Self {
        self.0.borrow_mut().mutant = Some(mutant);
        self
    }

    /// Other pseudo-random values for what is not chosen.
    pub(crate) fn salted(self, salt: u8) -> Self {
        self.0.borrow_mut().salt = salt;
        self
    }

    /// An enumerated value below `bound` that belongs to the test, such as a share of the input.
    pub(crate) fn free(&self, bound: u64) -> u64 {
        let mut inner = self.0.borrow_mut();
        let value = inner.digit(bound);
        inner.free.push(value);
        value
    }

    /// Goes on to the next values; false after the last.
    pub(crate) fn advance(&mut self) -> bool {
        let mut inner = self.0.borrow_mut();
        let at = inner.at;
        inner.digits.truncate(at);
        inner.at = 0;
        inner.memo.clear();
        inner.free.clear();
        while let Some((bound, value)) = inner.digits.pop() {
            if value + 1 < bound {
                inner.digits.push((bound, value + 1));
                return true;
            }
        }
        false
    }

    /// All enumerated draws of streams that a party of these pairs can expand.
    pub(crate) fn known_to(&self, pairs: &[Pair]) -> Vec<u64> {
        let inner = self.0.borrow();
        inner
            .memo
            .iter()
            .filter(|((pair, ..), _)| pairs.contains(pair))
            .flat_map(|(_, values)| values.clone())
            .collect()
    }
}

/// A stream of a [`Tape`].
pub(crate) enum Cursor {
    Enumerated { tape: Tape, key: Key, at: usize },
    Pseudo(Box<Stream>),
    Zero,
}

impl Cursor {
    fn digit(&mut self, bound: u64) -> u64 {
        match self {
            Cursor::Enumerated { tape, key, at } => {
                let mut inner = tape.0.borrow_mut();
                let known = inner.memo.get(key).and_then(|values| values.get(*at).copied());
                *at += 1;
                known.unwrap_or_else(|| {
                    let value = inner.digit(bound);
                    inner.memo.entry(*key).or_default().push(value);
                    value
                })
            }
            Cursor::Pseudo(stream) => {
                let mut word = [0u64];
                Source::ring(stream.as_mut(), Ring::new(64).unwrap_or_else(|| unreachable!()), &mut word);
                word[0] % bound
            }
            Cursor::Zero => 0,
        }
    }
}

impl Source for Cursor {
    fn ring<L: Lane>(&mut self, ring: Ring<L>, out: &mut [L]) {
        out.iter_mut().for_each(|x| *x = L::from_u64(self.digit(1 << ring.bits())));
    }

    fn odd<L: Lane>(&mut self, ring: OddRing, out: &mut [L]) {
        out.iter_mut().for_each(|x| *x = L::from_u64(self.digit(ring.modulus())));
    }

    fn bytes(&mut self, out: &mut [u8]) {
        out.iter_mut().for_each(|x| *x = self.digit(256) as u8);
    }

    fn below(&mut self, bound: impl Fn(usize) -> u8, out: &mut [u8]) {
        (0..).zip(out).for_each(|(i, x)| *x = self.digit(u64::from(bound(i))) as u8);
    }
}

impl Randomness for Tape {
    type Source = Cursor;

    fn open(&self, pair: Pair, scope: Scope, step: u32, label: Label) -> Result<Cursor, Blame> {
        let inner = self.0.borrow();
        let scope = match (inner.mutant, scope) {
            (Some(Mutant::SameUnit), Scope::Unit(_)) => Scope::Unit(0),
            (Some(Mutant::SameUnit), Scope::Input { step, .. }) => Scope::Input { unit: 0, step },
            (Some(Mutant::SameVersion), Scope::Variable { index, .. }) => Scope::Variable { index, version: 0 },
            (_, scope) => scope,
        };
        let step = match inner.mutant {
            Some(Mutant::SameStep(labels)) if label.name.starts_with(labels) => 0,
            _ => step,
        };
        if inner.mutant == Some(Mutant::Zero(label.name)) {
            return Ok(Cursor::Zero);
        }
        if (inner.chosen)(label.name) {
            return Ok(Cursor::Enumerated {
                tape: self.clone(),
                key: (pair, scope, step, label.id, label.name),
                at: 0,
            });
        }
        let context = alloc::format!("{pair:?} {scope:?} {step} {label:?}");
        let seed = Seed::new([inner.salt; 32]).derive("pseudo", &[context.as_bytes()]);
        Ok(Cursor::Pseudo(Box::new(seed.stream(0))))
    }
}
