//! What each party does with its values alone: moving elements about, and linear combinations with public factors.
//!
//! Whatever is linear needs no message, and means the same for shares, for what both servers know, and for masks: applied
//! to both servers' shares it is applied to their sum, and applied to x - a and to a it is applied to x. For masks the
//! crypto producer does the same while it deals. Public constants enter sums of shares at server0, and no mask.

use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::error::Blame;
use crate::gates::Gate;
use crate::party::column::Column;
use crate::party::producer::Producer;
use crate::party::server::Server;
use crate::plan::{Builder, Form, Linear, Wire, WireId};
use crate::program::NOWHERE;
use crate::ring::{Lane, Ring};
use crate::role::Side;
use crate::stream::Randomness;

/// A local computation, of each sample by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum LocalOp {
    /// out\[i\] = x\[places\[i\]\], zero for [`NOWHERE`].
    Gather(Vec<u32>),
    /// All operands, one after the other.
    Concat,
    /// Σ factor · x + constant, element by element.
    Combine { factors: Vec<i64>, constant: i64 },
    /// These numbers.
    Constant(Vec<i64>),
    /// The sum of each run of so many elements.
    SumRuns(u32),
    /// In each run of so many elements, the sums of all up to each one.
    CumSumRuns(u32),
}

/// out = op(xs), all of one form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Local {
    pub(crate) form: Form,
    pub(crate) op: LocalOp,
    pub(crate) xs: Vec<WireId>,
    pub(crate) out: WireId,
}

fn local<K: Linear>(b: &mut Builder, op: LocalOp, xs: &[Wire<K>], elements: u32) -> Wire<K> {
    let out = b.wire::<K>(elements);
    b.push(Local { form: K::FORM, op, xs: xs.iter().map(Wire::id).collect(), out: out.id() });
    out
}

/// The elements of x at `places`, zero for [`NOWHERE`].
pub(crate) fn gather<K: Linear>(b: &mut Builder, x: Wire<K>, places: Vec<u32>) -> Wire<K> {
    let elements = places.len() as u32;
    local(b, LocalOp::Gather(places), &[x], elements)
}

/// All operands, one after the other.
pub(crate) fn concat<K: Linear>(b: &mut Builder, parts: &[Wire<K>]) -> Wire<K> {
    let elements = parts.iter().map(|part| b.elements(part)).sum();
    local(b, LocalOp::Concat, parts, elements)
}

/// Σ factor · x + constant, element by element.
pub(crate) fn combine<K: Linear>(b: &mut Builder, terms: &[(Wire<K>, i64)], constant: i64) -> Wire<K> {
    let elements = terms.first().map_or(0, |(x, _)| b.elements(x));
    let (xs, factors): (Vec<_>, Vec<_>) = terms.iter().copied().unzip();
    local(b, LocalOp::Combine { factors, constant }, &xs, elements)
}

/// These numbers.
pub(crate) fn constant<K: Linear>(b: &mut Builder, values: Vec<i64>) -> Wire<K> {
    let elements = values.len() as u32;
    local(b, LocalOp::Constant(values), &[], elements)
}

/// The sum of each run of `run` elements.
pub(crate) fn sum_runs<K: Linear>(b: &mut Builder, x: Wire<K>, run: u32) -> Wire<K> {
    let elements = b.elements(&x) / run.max(1);
    local(b, LocalOp::SumRuns(run), &[x], elements)
}

/// In each run of `run` elements, the sums of all up to each one.
pub(crate) fn cumsum_runs<K: Linear>(b: &mut Builder, x: Wire<K>, run: u32) -> Wire<K> {
    let elements = b.elements(&x);
    local(b, LocalOp::CumSumRuns(run), &[x], elements)
}

impl LocalOp {
    /// Computes on operands with so many elements in a sample; `one` is what a public 1 is to this party.
    fn compute<L: Lane>(
        &self,
        ring: Ring<L>,
        one: L,
        xs: &[(&[L], usize)],
        elements: usize,
        batch: usize,
    ) -> Result<Vec<L>, Blame> {
        let first = || xs.first().copied().ok_or_else(|| Blame::bug("a local step without its operand"));
        Ok(match self {
            LocalOp::Gather(places) => {
                let (x, sample) = first()?;
                let mut out = Vec::with_capacity(elements * batch);
                for row in x.chunks(sample.max(1)) {
                    out.extend(places.iter().map(|place| match *place {
                        NOWHERE => L::default(),
                        place => row.get(place as usize).copied().unwrap_or_default(),
                    }));
                }
                out
            }
            LocalOp::Concat => {
                let mut out = Vec::with_capacity(elements * batch);
                for sample in 0..batch {
                    for (x, elements) in xs {
                        out.extend(x.iter().skip(sample * elements).take(*elements));
                    }
                }
                out
            }
            LocalOp::Combine { factors, constant } => {
                let mut out = vec![ring.mul(one, ring.element(*constant as u64)); elements * batch];
                for ((x, _), factor) in xs.iter().zip(factors) {
                    match *factor {
                        1 => ring.add_all(&mut out, x),
                        -1 => ring.sub_all(&mut out, x),
                        factor => {
                            let factor = ring.element(factor as u64);
                            out.iter_mut().zip(*x).for_each(|(out, x)| *out = ring.add(*out, ring.mul(factor, *x)));
                        }
                    }
                }
                out
            }
            LocalOp::Constant(values) => {
                let row: Vec<L> = values.iter().map(|value| ring.mul(one, ring.element(*value as u64))).collect();
                row.repeat(batch)
            }
            LocalOp::SumRuns(run) => {
                let sum = |run: &[L]| run.iter().fold(L::default(), |sum, x| ring.add(sum, *x));
                first()?.0.chunks((*run).max(1) as usize).map(sum).collect()
            }
            LocalOp::CumSumRuns(run) => {
                let mut out = first()?.0.to_vec();
                for run in out.chunks_mut((*run).max(1) as usize) {
                    let mut sum = L::default();
                    for x in run {
                        sum = ring.add(sum, *x);
                        *x = sum;
                    }
                }
                out
            }
        })
    }
}

impl Gate for Local {
    fn reads(&self) -> Vec<WireId> {
        self.xs.clone()
    }

    fn writes(&self) -> Vec<WireId> {
        vec![self.out]
    }

    fn deal<L: Lane, R: Randomness>(&self, producer: &mut Producer<L, R>) -> Result<Vec<Column<L>>, Blame> {
        if self.form == Form::Mask {
            let xs = self.xs.iter().map(|id| Ok((producer.dealt(*id)?, producer.at.elements_of(*id))));
            let xs = xs.collect::<Result<Vec<_>, Blame>>()?;
            let (ring, elements, batch) = (producer.at.ring, producer.at.elements_of(self.out), producer.at.batch());
            let out = self.op.compute(ring, L::default(), &xs, elements, batch)?;
            producer.put(self.out, out);
        }
        Ok(vec![])
    }

    fn prepare<S: Side, L: Lane, R: Randomness>(&self, server: &mut Server<S, L, R>) -> Result<(), Blame> {
        if self.form == Form::Mask && self.xs.iter().all(|x| server.words_of(*x).is_ok()) {
            self.finish(server, Vec::new(), Vec::new())?;
        }
        Ok(())
    }

    fn finish<S: Side, L: Lane, R: Randomness>(
        &self,
        server: &mut Server<S, L, R>,
        _mine: Vec<Column<L>>,
        _theirs: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        let one = match self.form {
            Form::Shared => server.first(),
            Form::Public => L::from_u64(1),
            Form::Mask => L::default(),
        };
        let xs = self.xs.iter().map(|id| Ok((server.words_of(*id)?, server.at.elements_of(*id))));
        let xs = xs.collect::<Result<Vec<_>, Blame>>()?;
        let (ring, elements, batch) = (server.at.ring, server.at.elements_of(self.out), server.at.batch());
        let out = self.op.compute(ring, one, &xs, elements, batch)?;
        server.put_words(self.out, out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]
    use super::*;
    use crate::gates::mask::mask;
    use crate::plan::Additive;
    use crate::testing::rig::{Given, Rig};
    use crate::testing::tape::Tape;

    type Lay<K> = fn(&mut Builder, Wire<K>) -> Wire<K>;

    fn all<K: Linear>() -> Vec<(Lay<K>, Vec<u32>)> {
        vec![
            (|b, x| gather(b, x, vec![2, NOWHERE, 0, 0]), vec![3, 0, 1, 1]),
            (|b, x| concat(b, &[x, x]), vec![1, 2, 3, 4, 1, 2, 3, 4]),
            (|b, x| combine(b, &[(x, 3), (x, -1)], 5), vec![7, 9, 11, 13]),
            (|b, _| constant(b, vec![-1, 2]), vec![31, 2]),
            (|b, x| sum_runs(b, x, 2), vec![3, 7]),
            (|b, x| cumsum_runs(b, x, 2), vec![1, 3, 3, 7]),
        ]
    }

    /// On shares, and on a masked tensor: x - a, a's shares, and a at the crypto producer all the same.
    #[test]
    fn every_form_computes_the_same() {
        for (lay, expected) in all::<Additive>() {
            let (rig, (x, out)) = Rig::new(5, 1, |b| {
                let x = b.wire(4);
                (x, lay(b, x))
            });
            let mut given = Given::default();
            given.words(x, vec![9, 9, 9, 9], vec![24, 25, 26, 27]);
            let ran = rig.run(&Tape::new(|_| false), given);
            let pairs = ran.server0.words(&out).unwrap().iter().zip(ran.server1.words(&out).unwrap());
            assert_eq!(pairs.map(|(a, b)| (a + b) % 32).collect::<Vec<_>>(), expected);
        }
        for ((hats, expected), (masks, _)) in all().into_iter().zip(all()) {
            let (rig, (x, hat, mask)) = Rig::new(5, 1, |b| {
                let x = b.wire(4);
                let masked = mask(b, x);
                (x, hats(b, masked.hat), masks(b, masked.mask))
            });
            let mut given = Given::default();
            given.words(x, vec![9, 9, 9, 9], vec![24, 25, 26, 27]);
            let ran = rig.run(&Tape::new(|_| false), given);
            assert_eq!(ran.server0.words(&hat).unwrap(), ran.server1.words(&hat).unwrap());
            let shares = ran.server0.words(&mask).unwrap().iter().zip(ran.server1.words(&mask).unwrap());
            let sum: Vec<u32> = shares.map(|(a, b)| (a + b) % 32).collect();
            let sums = ran.server0.words(&hat).unwrap().iter().zip(&sum);
            assert_eq!(sums.map(|(a, b)| (a + b) % 32).collect::<Vec<_>>(), expected);
            assert_eq!(ran.dealt(mask.id()), sum);
        }
    }
}
