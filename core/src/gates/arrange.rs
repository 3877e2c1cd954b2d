//! What each server does with its shares alone: moving them about, and linear combinations with public factors.

use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::error::Blame;
use crate::gates::Gate;
use crate::party::column::Column;
use crate::party::server::{Server, Variable};
use crate::plan::{Additive, Builder, Wire, WireId};
use crate::ring::Lane;
use crate::role::Side;
use crate::stream::Randomness;

/// out\[i\] = x\[places\[i\]\], in each sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Gather {
    pub(crate) x: Wire<Additive>,
    pub(crate) places: Vec<u32>,
    pub(crate) out: Wire<Additive>,
}

/// The elements of x at `places`.
pub(crate) fn gather(b: &mut Builder, x: Wire<Additive>, places: Vec<u32>) -> Wire<Additive> {
    let out = b.wire(places.len() as u32);
    b.push(Gather { x, places, out });
    out
}

impl Gate for Gather {
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
        let sample = server.at.elements(&self.x).max(1);
        let pick =
            |row: &[L], place: &u32| row.get(*place as usize).copied().ok_or_else(|| Blame::bug("a place outside"));
        let samples = server.words(&self.x)?.chunks(sample);
        let out =
            samples.flat_map(|row| self.places.iter().map(move |place| pick(row, place))).collect::<Result<_, _>>()?;
        server.set(&self.out, out);
        Ok(())
    }
}

/// out = left, then right, in each sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Concat {
    pub(crate) left: Wire<Additive>,
    pub(crate) right: Wire<Additive>,
    pub(crate) out: Wire<Additive>,
}

/// left and right, one after the other.
pub(crate) fn concat(b: &mut Builder, left: Wire<Additive>, right: Wire<Additive>) -> Wire<Additive> {
    let out = b.wire(b.elements(&left) + b.elements(&right));
    b.push(Concat { left, right, out });
    out
}

impl Gate for Concat {
    fn reads(&self) -> Vec<WireId> {
        vec![self.left.id(), self.right.id()]
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
        let rows = |wire| Ok(server.words(wire)?.chunks(server.at.elements(wire).max(1)));
        let pairs = rows(&self.left)?.zip(rows(&self.right)?);
        let out = pairs.flat_map(|(left, right)| left.iter().chain(right).copied()).collect();
        server.set(&self.out, out);
        Ok(())
    }
}

/// out = Σ factor · x + constant, element by element, with public factors and constant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Combine {
    pub(crate) terms: Vec<(Wire<Additive>, i64)>,
    pub(crate) constant: i64,
    pub(crate) out: Wire<Additive>,
}

/// Σ factor · x + constant.
pub(crate) fn combine(b: &mut Builder, terms: &[(Wire<Additive>, i64)], constant: i64) -> Wire<Additive> {
    let out = b.wire(terms.first().map_or(0, |(x, _)| b.elements(x)));
    b.push(Combine { terms: terms.to_vec(), constant, out });
    out
}

impl Gate for Combine {
    fn reads(&self) -> Vec<WireId> {
        self.terms.iter().map(|(x, _)| x.id()).collect()
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
        let ring = server.at.ring;
        let constant = ring.mul(server.first(), ring.element(self.constant as u64));
        let mut out = vec![constant; server.at.elements(&self.out) * server.at.batch()];
        for (x, factor) in &self.terms {
            let factor = ring.element(*factor as u64);
            let x = server.words(x)?;
            out.iter_mut().zip(x).for_each(|(out, x)| *out = ring.add(*out, ring.mul(factor, *x)));
        }
        server.set(&self.out, out);
        Ok(())
    }
}

/// Public numbers, the same for every sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Constant {
    pub(crate) values: Vec<i64>,
    pub(crate) out: Wire<Additive>,
}

/// These numbers.
pub(crate) fn constant(b: &mut Builder, values: Vec<i64>) -> Wire<Additive> {
    let out = b.wire(values.len() as u32);
    b.push(Constant { values, out });
    out
}

impl Gate for Constant {
    fn reads(&self) -> Vec<WireId> {
        vec![]
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
        let (ring, first) = (server.at.ring, server.first());
        let one: Vec<L> = self.values.iter().map(|value| ring.mul(first, ring.element(*value as u64))).collect();
        let out = core::iter::repeat_n(one, server.at.batch()).flatten().collect();
        server.set(&self.out, out);
        Ok(())
    }
}

/// out = x + a variable's share, each of whose elements serves `run` elements of a sample in a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct AddVariable {
    pub(crate) x: Wire<Additive>,
    pub(crate) variable: u32,
    pub(crate) run: u32,
    pub(crate) out: Wire<Additive>,
}

impl Gate for AddVariable {
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
        let Some(Variable::Plain(bias)) = server.variables.get(self.variable as usize) else {
            return Err(Blame::bug("a variable that is added has no share"));
        };
        let mut out = server.words(&self.x)?.to_vec();
        for (run, bias) in out.chunks_mut(self.run.max(1) as usize).zip(bias.iter().cycle()) {
            run.iter_mut().for_each(|x| *x = server.at.ring.add(*x, *bias));
        }
        server.set(&self.out, out);
        Ok(())
    }
}
