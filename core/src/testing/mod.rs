//! Runs the shipping gates at toy widths, over sources that enumerate every random value, and compares what each party
//! sees. Only built for tests.

pub(crate) mod lockstep;
pub(crate) mod rig;
pub(crate) mod tape;
mod two_sample;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use rig::{Ran, Rig};
use tape::Tape;

/// Which random values are enumerated; all others are pseudo-random and fixed. A test may leave out what cannot matter to
/// what it looks at.
pub(crate) type Chosen = fn(&str) -> bool;

/// Everything that a party sees, and how often, over all random values.
pub(crate) type Views = BTreeMap<Vec<u64>, u64>;

/// Runs `one` for every value of every chosen draw, and hands each run to `look`.
pub(crate) fn exhaust(mut tape: Tape, mut one: impl FnMut(&Tape)) -> u64 {
    let mut runs = 0;
    loop {
        one(&tape);
        runs += 1;
        assert!(runs < 5_000_000, "too many random values to enumerate");
        if !tape.advance() {
            return runs;
        }
    }
}

/// Shares of `secret` in Z_bound of which the first is enumerated.
pub(crate) fn split(tape: &Tape, bound: u64, secret: u64) -> [Vec<u32>; 2] {
    let first = tape.free(bound);
    [alloc::vec![first as u32], alloc::vec![((secret + bound - first) % bound) as u32]]
}

/// Whether all views of `party` are the same.
pub(crate) fn alike(all: &[[Views; 3]], party: crate::Role) -> bool {
    let of = |views: &[Views; 3]| views.get(party as usize).cloned();
    all.iter().all(|views| of(views) == all.first().and_then(of))
}

/// The views of all three parties, for one input.
pub(crate) fn views(tape: Tape, rig: &Rig, give: impl Fn(&Tape, &mut rig::Given)) -> [Views; 3] {
    let mut all: [Views; 3] = Default::default();
    exhaust(tape, |tape| {
        let mut given = rig::Given::default();
        give(tape, &mut given);
        let ran: Ran = rig.run(tape, given);
        for (views, view) in all.iter_mut().zip(ran.views) {
            *views.entry(view).or_default() += 1;
        }
    });
    all
}
