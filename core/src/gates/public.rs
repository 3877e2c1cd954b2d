//! What both servers compute, each for itself, of what both know.
//!
//! Fixed-point numbers are integers here: rounding goes down, exactly, and both servers do the same.

use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::error::Blame;
use crate::fixed::power_of_two;
use crate::gates::Gate;
use crate::party::column::Column;
use crate::party::server::Server;
use crate::plan::{Additive, Builder, Common, Wire, WireId};
use crate::program::Samples;
use crate::ring::{Lane, Ring};
use crate::role::Side;
use crate::stream::Randomness;

/// A function of what both servers know, with so many bits after the point where it matters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum PublicOp {
    /// x / 2^by, rounded down.
    Truncate { by: u32 },
    /// 1 where x < 0.
    Negative,
    /// 1 where x = 0.
    EqualZero,
    /// The lowest bits, the lowest first, along a new first axis.
    Bits { count: u32 },
    /// max(x, 0).
    Relu,
    /// 1 / (1 + e^-x), x and the result with f bits after the point.
    Sigmoid { f: u32 },
    /// tanh x.
    Tanh { f: u32 },
    /// 1 / x, for x beyond `least`.
    Reciprocal { f: u32, least: f64 },
    /// The largest of so many candidates, which are the first axis.
    Max { candidates: u32 },
    /// Its index, the lowest on ties.
    ArgMax { candidates: u32 },
    /// Any function, x and the result with f bits after the point.
    Function { f: u32, samples: Samples },
}

/// out = op(x).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Public {
    pub(crate) op: PublicOp,
    pub(crate) x: Wire<Common>,
    pub(crate) out: Wire<Common>,
}

/// op(x).
pub(crate) fn public(b: &mut Builder, op: PublicOp, x: Wire<Common>) -> Wire<Common> {
    let n = b.elements(&x);
    let out = b.wire(match op {
        PublicOp::Bits { count } => n * count,
        PublicOp::Max { candidates } | PublicOp::ArgMax { candidates } => n / candidates.max(1),
        _ => n,
    });
    b.push(Public { op, x, out });
    out
}

impl PublicOp {
    /// Of one sample.
    fn compute<L: Lane>(&self, ring: Ring<L>, x: &[L], out: &mut Vec<L>) {
        let integer = |value: i64| ring.element(value as u64);
        let real = |f: u32, x: &L, function: &dyn Fn(f64) -> f64| {
            let unit = power_of_two(f as i32);
            integer(libm::rint(function(ring.signed(*x) as f64 / unit) * unit) as i64)
        };
        let bit = |set: bool| L::from_u64(u64::from(set));
        match *self {
            PublicOp::Truncate { by } => out.extend(x.iter().map(|x| integer(ring.signed(*x) >> by))),
            PublicOp::Negative => out.extend(x.iter().map(|x| bit(ring.signed(*x) < 0))),
            PublicOp::EqualZero => out.extend(x.iter().map(|x| bit(*x == L::default()))),
            PublicOp::Bits { count } => {
                for i in 0..count {
                    out.extend(x.iter().map(|x| bit(ring.signed(*x) >> i.min(63) & 1 == 1)));
                }
            }
            PublicOp::Relu => out.extend(x.iter().map(|x| integer(ring.signed(*x).max(0)))),
            PublicOp::Sigmoid { f } => {
                out.extend(x.iter().map(|x| real(f, x, &|x| 1.0 / (1.0 + libm::exp(-x)))));
            }
            PublicOp::Tanh { f } => out.extend(x.iter().map(|x| real(f, x, &libm::tanh))),
            PublicOp::Function { f, ref samples } => out.extend(x.iter().map(|x| real(f, x, &|x| samples.at(x)))),
            PublicOp::Reciprocal { f, least } => {
                let divisor = |x: f64| if least > 0.0 { x.max(least) } else { x.min(least) };
                out.extend(x.iter().map(|x| real(f, x, &|x| 1.0 / divisor(x))));
            }
            PublicOp::Max { candidates } | PublicOp::ArgMax { candidates } => {
                let groups = (x.len() / candidates.max(1) as usize).max(1);
                for group in 0..groups {
                    let lane = x.iter().skip(group).step_by(groups).map(|x| ring.signed(*x));
                    let best = (0i64..).zip(lane).reduce(|best, next| if next.1 > best.1 { next } else { best });
                    let (index, value) = best.unwrap_or_default();
                    out.push(integer(if matches!(self, PublicOp::Max { .. }) { value } else { index }));
                }
            }
        }
    }
}

impl Gate for Public {
    fn reads(&self) -> Vec<WireId> {
        vec![self.x.id()]
    }

    fn writes(&self) -> Vec<WireId> {
        vec![self.out.id()]
    }

    fn finish<S: Side, L: Lane, R: Randomness>(
        &self,
        server: &mut Server<S, L, R>,
        _mine: Vec<Column<L>>,
        _theirs: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        let (ring, sample) = (server.at.ring, server.at.elements(&self.x).max(1));
        let mut out = Vec::with_capacity(server.at.elements(&self.out) * server.at.batch());
        for row in server.words(&self.x)?.chunks(sample) {
            self.op.compute(ring, row, &mut out);
        }
        server.set(&self.out, out);
        Ok(())
    }
}

/// out = x as shares: x at server0, nothing at server1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Lift {
    pub(crate) x: Wire<Common>,
    pub(crate) out: Wire<Additive>,
}

/// x as shares.
pub(crate) fn lift(b: &mut Builder, x: Wire<Common>) -> Wire<Additive> {
    let out = b.wire(b.elements(&x));
    b.push(Lift { x, out });
    out
}

impl Gate for Lift {
    fn reads(&self) -> Vec<WireId> {
        vec![self.x.id()]
    }

    fn writes(&self) -> Vec<WireId> {
        vec![self.out.id()]
    }

    fn finish<S: Side, L: Lane, R: Randomness>(
        &self,
        server: &mut Server<S, L, R>,
        _mine: Vec<Column<L>>,
        _theirs: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        let x = server.words(&self.x)?;
        let share = if S::INDEX == 0 { x.to_vec() } else { vec![L::default(); x.len()] };
        server.set(&self.out, share);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test may panic")]
    use super::*;

    #[test]
    fn public_functions_are_those_of_integers() {
        let ring = Ring::<u32>::new(12).unwrap();
        let x: Vec<u32> = [-9i64, 0, 5, 700].map(|x| ring.element(x as u64)).to_vec();
        let of = |op: PublicOp| {
            let mut out = vec![];
            op.compute(ring, &x, &mut out);
            out.into_iter().map(|x| ring.signed(x)).collect::<Vec<_>>()
        };
        assert_eq!(of(PublicOp::Truncate { by: 2 }), [-3, 0, 1, 175]);
        assert_eq!(of(PublicOp::Negative), [1, 0, 0, 0]);
        assert_eq!(of(PublicOp::EqualZero), [0, 1, 0, 0]);
        assert_eq!(of(PublicOp::Bits { count: 3 }), [1, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 1]);
        assert_eq!(of(PublicOp::Relu), [0, 0, 5, 700]);
        assert_eq!(of(PublicOp::Sigmoid { f: 8 }), [126, 128, 129, 240]);
        assert_eq!(of(PublicOp::Tanh { f: 8 }), [-9, 0, 5, 254]);
        assert_eq!(of(PublicOp::Reciprocal { f: 8, least: 0.5 }), [512, 512, 512, 94]);
        assert_eq!(of(PublicOp::Max { candidates: 2 }), [5, 700]);
        assert_eq!(of(PublicOp::ArgMax { candidates: 4 }), [3]);
    }
}
