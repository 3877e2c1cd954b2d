//! Correlated randomness, used once, ever.
//!
//! The crypto producer deals in *units*: everything that one sample needs. Units are numbered within an [`Epoch`] and
//! are burnt in order: the number first, the value afterwards, so that nothing, not even a crash in between, hands out a
//! unit twice. A [`Burnt`] cannot be cloned and only [`Stock::burn`] makes one.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::vec::Vec;
use core::ops::Range;

use sha2::{Digest, Sha256};
use zeroize::Zeroize;

use crate::error::Blame;

/// What all correlated randomness is bound to: a hash of fresh nonces of all three parties. A restart of any of them is a
/// new epoch, and voids what was dealt in the old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch([u8; 32]);

impl Epoch {
    /// The epoch of three nonces, in the order server0, server1, crypto producer.
    pub fn new(nonces: [&[u8; 32]; 3]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"selkie epoch v1");
        nonces.iter().for_each(|nonce| hash.update(nonce));
        Self(hash.finalize().into())
    }

    /// Its bytes, to be compared and shown; not a secret.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The units of one plan in one epoch, at one party.
#[derive(Debug)]
pub struct Stock {
    epoch: Epoch,
    unit_bytes: usize,
    capacity: usize,
    /// The next unit that may be burnt.
    next: u64,
    /// The units from `next` on; empty at parties that expand everything from seeds.
    units: VecDeque<Unit>,
}

struct Unit(Vec<u8>);

impl Drop for Unit {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl core::fmt::Debug for Unit {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Unit({} bytes hidden)", self.0.len())
    }
}

impl Stock {
    /// A stock that holds at most `capacity` units of `unit_bytes` bytes each (server1's).
    pub fn new(epoch: Epoch, unit_bytes: usize, capacity: usize) -> Self {
        Self { epoch, unit_bytes, capacity, next: 0, units: VecDeque::new() }
    }

    /// A stock of nothing but numbers, for the parties that expand their part from seeds (server0, crypto producer).
    pub fn of_numbers(epoch: Epoch) -> Self {
        Self::new(epoch, 0, 0)
    }

    /// The epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The next unit that can be burnt.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The most units that it holds.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Units at hand.
    pub fn len(&self) -> usize {
        self.units.len()
    }

    /// Whether no units are at hand.
    pub fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// The number of the unit that must be put next, and how many more there is room for.
    pub fn wanted(&self) -> (u64, usize) {
        (self.next + self.units.len() as u64, self.capacity.saturating_sub(self.units.len()))
    }

    /// Stores what the crypto producer dealt for `unit`.
    ///
    /// # Errors
    /// It is not the unit wanted next, has another length than the plan says, or there is no room.
    pub fn put(&mut self, unit: u64, material: Vec<u8>) -> Result<(), Blame> {
        let dealer = |what| Err(Blame::party(crate::Role::CryptoProducer, what));
        let (wanted, room) = self.wanted();
        if unit != wanted {
            return dealer(format!("unit {unit} of material, where unit {wanted} comes next"));
        }
        if material.len() != self.unit_bytes {
            return dealer(format!("a unit of {} bytes, the plan says {}", material.len(), self.unit_bytes));
        }
        if room == 0 {
            return dealer(format!("more than the {} units that fit", self.capacity));
        }
        self.units.push_back(Unit(material));
        Ok(())
    }

    /// Whether [`Stock::burn`] of these units has all it needs.
    pub fn holds(&self, units: &Range<u64>) -> bool {
        units.start >= self.next && (self.unit_bytes == 0 || units.end <= self.wanted().0)
    }

    /// Burns `units`, and all units before them, and hands out what was dealt for them.
    ///
    /// # Errors
    /// Some of them are burnt already, or not there yet.
    pub fn burn(&mut self, units: Range<u64>) -> Result<Burnt, Blame> {
        if units.start < self.next {
            return Err(Blame::you(format!("units {units:?}, of which those before {} are burnt", self.next)));
        }
        if units.is_empty() || !self.holds(&units) {
            return Err(Blame::you(format!(
                "units {units:?}, of which those from {} on are not there",
                self.wanted().0
            )));
        }
        let skipped = units.start - self.next;
        self.next = units.end;
        let mut material = Vec::new();
        if self.unit_bytes > 0 {
            self.units.drain(..(skipped as usize).min(self.units.len()));
            let count = ((units.end - units.start) as usize).min(self.units.len());
            material.extend(self.units.drain(..count).map(|mut unit| core::mem::take(&mut unit.0)));
        }
        Ok(Burnt { epoch: self.epoch, units, material })
    }
}

/// Units that are used up: good for one run.
pub struct Burnt {
    epoch: Epoch,
    units: Range<u64>,
    material: Vec<Vec<u8>>,
}

impl Burnt {
    /// The units' numbers.
    pub fn units(&self) -> Range<u64> {
        self.units.clone()
    }

    /// The epoch that they belong to.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Each unit's number, and what was dealt for it: nothing, at parties that expand everything from seeds.
    pub fn material(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let dealt = self.material.iter().map(Vec::as_slice).chain(core::iter::repeat(&[][..]));
        self.units.clone().zip(dealt)
    }

    pub(crate) fn take_material(&mut self) -> Vec<Vec<u8>> {
        core::mem::take(&mut self.material)
    }
}

impl Drop for Burnt {
    fn drop(&mut self) {
        self.material.iter_mut().for_each(Zeroize::zeroize);
    }
}

impl core::fmt::Debug for Burnt {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Burnt({:?}, hidden)", self.units)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test may panic")]
    use super::*;
    use alloc::vec;

    fn epoch() -> Epoch {
        Epoch::new([&[1; 32], &[2; 32], &[3; 32]])
    }

    #[test]
    fn every_nonce_changes_the_epoch() {
        assert_ne!(epoch(), Epoch::new([&[1; 32], &[3; 32], &[2; 32]]));
        assert_ne!(epoch(), Epoch::new([&[1; 32], &[2; 32], &[4; 32]]));
    }

    #[test]
    fn no_unit_is_handed_out_twice() {
        let mut stock = Stock::new(epoch(), 1, 4);
        for unit in 0..4 {
            stock.put(unit, vec![unit as u8]).unwrap();
        }
        assert!(stock.put(4, vec![4]).is_err(), "there is no room");
        assert!(stock.burn(3..5).is_err(), "unit 4 is not there");
        assert_eq!(stock.burn(1..3).unwrap().take_material(), [[1], [2]]);
        assert!(stock.burn(0..1).is_err(), "skipped units are burnt too");
        assert!(stock.burn(2..4).is_err());
        assert!(stock.put(5, vec![5]).is_err(), "unit 4 comes next");
        assert!(stock.put(4, vec![4, 4]).is_err(), "too long");
        assert_eq!(stock.burn(3..4).unwrap().take_material(), [[3]]);
        let mut numbers = Stock::of_numbers(epoch());
        numbers.burn(0..7).unwrap();
        assert!(numbers.burn(6..8).is_err());
        #[allow(clippy::reversed_empty_ranges, reason = "it must be refused")]
        let backwards = numbers.burn(9..8);
        assert!(backwards.is_err());
    }
}
