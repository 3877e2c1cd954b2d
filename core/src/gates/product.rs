//! Products of private tensors, of any shape that is linear in both factors, and what selects by them.
//!
//! Beaver, "Efficient multiparty protocols using circuit randomization" (CRYPTO 1991); for matrices and convolutions as in
//! SecureML and SecureNN (Algorithm 1). Both factors are masked (see [`super::mask`]; weights, see [`super::weights`]),
//! the crypto producer shares C = A·B, and nothing more is said:
//!
//! Z_j = \[j = 0\] X̂·Ŷ + X̂·B_j + A_j·Ŷ + C_j. Then Z_0 + Z_1 = (X̂ + A)(Ŷ + B) = X·Y.
//!
//! C_0 is expanded from the seed that server0 shares with the crypto producer; only C_1 is sent. The shares of Z are
//! fresh, since those of C are. A factor that both servers know makes the product local: each multiplies its own share.

use alloc::borrow::Cow;
use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::bilinear::Bilinear;
use crate::error::Blame;
use crate::gates::Gate;
use crate::gates::local::combine;
use crate::gates::mask::mask;
use crate::party::column::Column;
use crate::party::producer::Producer;
use crate::party::server::{Server, Variable};
use crate::plan::{Additive, Block, Builder, Common, Domain, Masked, Shapes, Wire, WireId};
use crate::ring::Lane;
use crate::role::Side;
use crate::stream::{Label, Randomness};

const C: Label = Label::new(0, "product.product");

/// A masked factor.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Factor {
    /// Each sample's own.
    Wires(Masked),
    /// A variable that is open under its mask, the same for all samples.
    Variable(u32),
}

impl Factor {
    fn wires(&self) -> Vec<WireId> {
        match self {
            Factor::Wires(masked) => vec![masked.hat.id(), masked.mask.id()],
            Factor::Variable(_) => vec![],
        }
    }

    /// What the crypto producer knows of it.
    fn mask<'a, L: Lane, R: Randomness>(&self, producer: &'a Producer<L, R>) -> Result<&'a [L], Blame> {
        match self {
            Factor::Wires(masked) => producer.dealt(masked.mask.id()),
            Factor::Variable(variable) => producer.variable_mask(*variable),
        }
    }
}

// A factor at a server. Each of the three is made only where it is needed: a weight's is as large as the weight.
impl Factor {
    /// What is open, X̂.
    fn hat<'a, S: Side, L: Lane, R: Randomness>(&self, server: &'a Server<S, L, R>) -> Result<&'a [L], Blame> {
        match self {
            Factor::Wires(masked) => server.words(&masked.hat),
            Factor::Variable(variable) => Ok(opened(server, *variable)?.0),
        }
    }

    /// This server's share of the mask, A_j.
    fn mask_share<'a, S: Side, L: Lane, R: Randomness>(
        &self,
        server: &'a Server<S, L, R>,
    ) -> Result<Cow<'a, [L]>, Blame> {
        match self {
            Factor::Wires(masked) => Ok(Cow::Borrowed(server.words(&masked.mask)?)),
            Factor::Variable(variable) => {
                let (hat, share) = opened(server, *variable)?;
                let mut mask = Cow::Borrowed(share);
                if S::INDEX == 0 {
                    server.at.ring.sub_all(mask.to_mut(), hat);
                }
                Ok(mask)
            }
        }
    }

    /// This server's share of the factor itself, \[j = 0\] X̂ + A_j.
    fn share<'a, S: Side, L: Lane, R: Randomness>(&self, server: &'a Server<S, L, R>) -> Result<Cow<'a, [L]>, Blame> {
        match self {
            Factor::Wires(masked) if S::INDEX == 0 => Ok(Cow::Owned(server.combined(masked)?)),
            Factor::Wires(masked) => Ok(Cow::Borrowed(server.words(&masked.mask)?)),
            Factor::Variable(variable) => Ok(Cow::Borrowed(opened(server, *variable)?.1)),
        }
    }
}

/// A weight as it was opened, Ŵ, and this server's share of it.
fn opened<S: Side, L: Lane, R: Randomness>(server: &Server<S, L, R>, variable: u32) -> Result<(&[L], &[L]), Blame> {
    match server.variables.get(variable as usize) {
        Some(Variable::Masked { hat, share }) => Ok((hat, share)),
        _ => Err(Blame::bug("a weight was not opened under its mask")),
    }
}

/// z = x·y.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Product {
    pub(crate) product: Bilinear,
    pub(crate) x: Factor,
    pub(crate) y: Factor,
    pub(crate) z: Wire<Additive>,
}

/// x·y for masked factors.
pub(crate) fn product(b: &mut Builder, product: Bilinear, x: Factor, y: Factor) -> Wire<Additive> {
    let z = b.wire(product.out() as u32);
    b.push(Product { product, x, y, z });
    z
}

/// x·y, element by element.
pub(crate) fn multiply(b: &mut Builder, x: Wire<Additive>, y: Wire<Additive>) -> Wire<Additive> {
    let elementwise = Bilinear::Elementwise { elements: b.elements(&x) };
    let (x, y) = (mask(b, x), mask(b, y));
    product(b, elementwise, Factor::Wires(x), Factor::Wires(y))
}

/// SelectShare (SecureNN, Algorithm 2): x where α = 0 and y where α = 1, as x + α·(y - x).
pub(crate) fn select_share(
    b: &mut Builder,
    alpha: Wire<Additive>,
    x: Wire<Additive>,
    y: Wire<Additive>,
) -> Wire<Additive> {
    let difference = combine(b, &[(y, 1), (x, -1)], 0);
    let chosen = multiply(b, alpha, difference);
    combine(b, &[(x, 1), (chosen, 1)], 0)
}

impl Gate for Product {
    fn reads(&self) -> Vec<WireId> {
        [self.x.wires(), self.y.wires()].concat()
    }

    fn writes(&self) -> Vec<WireId> {
        vec![self.z.id()]
    }

    fn material(&self, _shapes: &Shapes) -> Vec<Block> {
        vec![Block::new(Domain::Ring, self.product.out())]
    }

    fn deal<L: Lane, R: Randomness>(&self, producer: &mut Producer<L, R>) -> Result<Vec<Column<L>>, Blame> {
        let batch = producer.at.batch();
        let (a, b) = (self.x.mask(producer)?, self.y.mask(producer)?);
        let mut c = vec![L::default(); self.product.out() * batch];
        self.product.apply(&*producer.at.threads, &each_sample(&self.x, a, batch), b, &mut c);
        c.iter_mut().for_each(|c| *c = producer.at.ring.reduce(*c));
        let block = Block::new(Domain::Ring, self.product.out());
        Ok(vec![producer.at.correction(C, block, Column::Words(c))?])
    }

    fn prepare<S: Side, L: Lane, R: Randomness>(&self, server: &mut Server<S, L, R>) -> Result<(), Blame> {
        let (x, y) = (&self.x, &self.y);
        let known = |factor: &Factor| match factor {
            Factor::Wires(masked) => server.words(&masked.mask).is_ok(),
            Factor::Variable(_) => true,
        };
        if self.has_variable() && known(x) && known(y) {
            let mut z = server.dealt(self, 0, C)?.words()?;
            self.add_masked(server, &mut z)?;
            server.ahead.insert(server.at.step, z);
        }
        Ok(())
    }

    fn finish<S: Side, L: Lane, R: Randomness>(
        &self,
        server: &mut Server<S, L, R>,
        _mine: Vec<Column<L>>,
        _theirs: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        let batch = server.at.batch();
        let mut z = match server.ahead.remove(&server.at.step) {
            Some(ahead) if ahead.len() == self.product.out() * batch => ahead,
            _ => {
                let mut z = server.dealt(self, 0, C)?.words()?;
                self.add_masked(server, &mut z)?;
                z
            }
        };
        let (x, y, threads) = (&self.x, &self.y, &*server.at.threads);
        // With [j = 0] X̂ + A_j = X_j: either X̂·Y_j + A_j·Ŷ or X_j·Ŷ + X̂·B_j; the one that has its operands at hand, and whose
        // second half is the same for every input if the other factor is a weight.
        if matches!(x, Factor::Variable(_)) {
            self.product.apply(threads, &each_sample(x, &x.share(server)?, batch), y.hat(server)?, &mut z);
        } else {
            self.product.apply(threads, x.hat(server)?, &y.share(server)?, &mut z);
        }
        z.iter_mut().for_each(|z| *z = server.at.ring.reduce(*z));
        server.set(&self.z, z);
        Ok(())
    }
}

impl Product {
    /// Whether one of the factors is a weight, which is open before the inputs come.
    pub(crate) fn has_variable(&self) -> bool {
        matches!(self.x, Factor::Variable(_)) || matches!(self.y, Factor::Variable(_))
    }

    /// Adds X̂·B_j where X is a weight, else A_j·Ŷ.
    fn add_masked<S: Side, L: Lane, R: Randomness>(&self, server: &Server<S, L, R>, z: &mut [L]) -> Result<(), Blame> {
        let (x, y, threads, batch) = (&self.x, &self.y, &*server.at.threads, server.at.batch());
        if matches!(x, Factor::Variable(_)) {
            self.product.apply(threads, &each_sample(x, x.hat(server)?, batch), &y.mask_share(server)?, z);
        } else {
            self.product.apply(threads, &x.mask_share(server)?, y.hat(server)?, z);
        }
        Ok(())
    }
}

/// A left factor for each sample.
fn each_sample<'a, L: Lane>(factor: &Factor, x: &'a [L], batch: usize) -> Cow<'a, [L]> {
    match factor {
        Factor::Variable(_) if batch > 1 => Cow::Owned(x.repeat(batch)),
        _ => Cow::Borrowed(x),
    }
}

/// z = x·y, where both servers know one of the factors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LocalProduct {
    pub(crate) product: Bilinear,
    pub(crate) x: WireId,
    pub(crate) y: WireId,
    pub(crate) z: WireId,
}

/// x·y for a private x that is multiplied with what both servers know, whichever of the two stands left.
pub(crate) fn product_with_public(
    b: &mut Builder,
    product: Bilinear,
    private: Wire<Additive>,
    public: Wire<Common>,
    private_left: bool,
) -> Wire<Additive> {
    let z = b.wire::<Additive>(product.out() as u32);
    let (x, y) = if private_left { (private.id(), public.id()) } else { (public.id(), private.id()) };
    b.push(LocalProduct { product, x, y, z: z.id() });
    z
}

/// x·y of two tensors that both servers know.
pub(crate) fn public_product(b: &mut Builder, product: Bilinear, x: Wire<Common>, y: Wire<Common>) -> Wire<Common> {
    let z = b.wire::<Common>(product.out() as u32);
    b.push(LocalProduct { product, x: x.id(), y: y.id(), z: z.id() });
    z
}

impl Gate for LocalProduct {
    fn reads(&self) -> Vec<WireId> {
        vec![self.x, self.y]
    }

    fn writes(&self) -> Vec<WireId> {
        vec![self.z]
    }

    fn finish<S: Side, L: Lane, R: Randomness>(
        &self,
        server: &mut Server<S, L, R>,
        _mine: Vec<Column<L>>,
        _theirs: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        let mut z = vec![L::default(); self.product.out() * server.at.batch()];
        self.product.apply(&*server.at.threads, server.words_of(self.x)?, server.words_of(self.y)?, &mut z);
        z.iter_mut().for_each(|z| *z = server.at.ring.reduce(*z));
        server.put_words(self.z, z);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]
    use super::*;
    use crate::Role;
    use crate::testing::rig::{Given, Rig};
    use crate::testing::tape::{Mutant, Tape};
    use crate::testing::{Views, alike, split, views};

    fn rig() -> (Rig, [Wire<Additive>; 3]) {
        Rig::new(2, 1, |b| {
            let (x, y) = (b.wire(1), b.wire(1));
            [x, y, multiply(b, x, y)]
        })
    }

    #[test]
    fn every_product_is_right() {
        let (rig, [x_wire, y_wire, z_wire]) = rig();
        for (x, y, salt) in (0..4).flat_map(|x| (0..4).flat_map(move |y| (0..32).map(move |salt| (x, y, salt)))) {
            let mut given = Given::default();
            given.words(x_wire, vec![u32::from(salt) % 4], vec![(x + 4 - u32::from(salt) % 4) % 4]);
            given.words(y_wire, vec![u32::from(salt) / 4 % 4], vec![(y + 4 - u32::from(salt) / 4 % 4) % 4]);
            let ran = rig.run(&Tape::new(|_| false).salted(salt), given);
            let z = ran.server0.words(&z_wire).unwrap()[0] + ran.server1.words(&z_wire).unwrap()[0];
            assert_eq!(z % 4, x * y % 4);
        }
    }

    /// One of the two factors, or both, are weights; the others are wires. x and y are \[1, 2\] and \[2, 1\].
    #[test]
    fn products_with_weights_on_either_side_are_right() {
        let dot = Bilinear::MatMul { count: 1, rows: 1, inner: 2, columns: 1 };
        for (left, right) in [(false, true), (true, false), (true, true), (false, false)] {
            let (rig, (x_wire, y_wire, z_wire)) = Rig::new(5, 1, |b| {
                let (x, y) = (b.wire(2), b.wire(2));
                let factor = |b: &mut Builder, weight, wire, index| {
                    if weight { Factor::Variable(index) } else { Factor::Wires(mask(b, wire)) }
                };
                let (left, right) = (factor(b, left, x, 0), factor(b, right, y, 1));
                (x, y, product(b, dot, left, right))
            });
            let rig = rig.with_weights(&[2, 2]).batch(2);
            for salt in 0..20 {
                let mut given = Given::default();
                given.words(x_wire, vec![9, 8, 7, 6], vec![25, 26, 28, 30]); // 2, 2, 3, 4
                given.words(y_wire, vec![1, 2, 3, 4], vec![2, 3, 4, 5]); // 3, 5, 7, 9
                given.versions = vec![vec![[vec![1, 2], vec![4, 5]], [vec![3, 3], vec![5, 8]]]]; // 5, 7 and 8, 11
                let ran = rig.run(&Tape::new(|_| false).salted(salt), given);
                let z = ran.server0.words(&z_wire).unwrap().iter().zip(ran.server1.words(&z_wire).unwrap());
                let x = if left { [[5, 7], [5, 7]] } else { [[2, 2], [3, 4]] };
                let y = if right { [[8, 11], [8, 11]] } else { [[3, 5], [7, 9]] };
                let expected: Vec<u32> = x.iter().zip(y).map(|(x, y)| (x[0] * y[0] + x[1] * y[1]) % 32).collect();
                assert_eq!(z.map(|(a, b)| (a + b) % 32).collect::<Vec<_>>(), expected, "{left} {right}");
            }
        }
    }

    /// With a public factor no server sees the other's share: nothing is sent at all (TF Encrypted 0.4 computed both shares'
    /// products on one server).
    #[test]
    fn products_with_what_is_public_are_local_and_right() {
        let dot = Bilinear::MatMul { count: 1, rows: 1, inner: 2, columns: 1 };
        for private_left in [true, false] {
            let (rig, (x_wire, y_wire, z_wire)) = Rig::new(5, 1, |b| {
                let (x, y) = (b.wire(2), b.wire(2));
                (x, y, product_with_public(b, dot, x, y, private_left))
            });
            assert_eq!(rig.plan().cost(1).online_bytes + rig.plan().cost(1).offline_bytes, 0);
            let mut given = Given::default();
            given.words(x_wire, vec![9, 8], vec![25, 26]); // 2, 2
            given.words(y_wire, vec![3, 5], vec![3, 5]);
            let ran = rig.run(&Tape::new(|_| false), given);
            let z = ran.server0.words(&z_wire).unwrap()[0] + ran.server1.words(&z_wire).unwrap()[0];
            assert_eq!(z % 32, 16);
        }
    }

    fn over_all_factors(mutant: Option<Mutant>) -> Vec<[Views; 3]> {
        let (rig, [x_wire, y_wire, _]) = rig();
        let tape = || mutant.iter().fold(Tape::new(|_| true), |tape, mutant| tape.with(*mutant));
        let factors = [(0, 0), (0, 3), (1, 1), (2, 1), (3, 2)];
        let of = |(x, y)| {
            views(tape(), &rig, |tape, given| {
                let ([x0, x1], [y0, y1]) = (split(tape, 4, x), split(tape, 4, y));
                given.words(x_wire, x0, x1);
                given.words(y_wire, y0, y1);
            })
        };
        factors.into_iter().map(of).collect()
    }

    #[test]
    fn the_servers_see_the_same_whatever_the_factors() {
        let shipped = over_all_factors(None);
        assert!(alike(&shipped, Role::Server0) && alike(&shipped, Role::Server1));
        let broken = over_all_factors(Some(Mutant::Zero("mask.mask")));
        assert!(!alike(&broken, Role::Server0) && !alike(&broken, Role::Server1));
        assert!(!alike(&over_all_factors(Some(Mutant::Zero(C.name))), Role::Server1), "server1 is sent the product");
    }
}
