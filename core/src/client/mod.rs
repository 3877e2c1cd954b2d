//! The prediction client: encodes and shares inputs, puts outputs together. It contains no planner.
//!
//! What a client must know of a deployed model is a [`ClientSpec`], the same from both servers: shapes, ranges, encoding,
//! ring, who may feed and receive what, and the hashes by which the servers know what they run. [`Prediction`] is the
//! client's half of a conversation with both servers, without sockets: messages in, messages out.

pub mod message;
mod prediction;

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use ndarray::{ArrayD, ArrayViewD};
pub use prediction::{Answer, Prediction, Progress, Signer};
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::error::Blame;
use crate::fixed::{decode, encode};
use crate::pack;
use crate::plan::Plan;
use crate::program::{Numbers, Op, Program, Visibility};
use crate::ring::{Lane, Ring};
use crate::share;
use crate::stream::Seed;

/// What server0 is sent for each input: the seed of its share.
pub const SEED_BYTES: usize = 32;

/// An input, as its player must know it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InputSpec {
    /// Who feeds it.
    pub player: String,
    /// What it is called.
    pub name: String,
    /// One sample's shape.
    pub shape: Vec<u32>,
    /// The smallest and the largest value accepted.
    pub range: [f64; 2],
    /// Who will know it: nobody (the player shares or masks it), or both servers.
    pub visibility: Visibility,
    /// Whether it holds integers, without bits after the point.
    pub whole: bool,
    /// The mean that is taken away from every value and the deviation that it is divided by then, before it is encoded, if the
    /// program begins with that.
    pub normalised: Option<[f64; 2]>,
}

impl InputSpec {
    /// Elements of one sample.
    pub fn elements(&self) -> usize {
        self.shape.iter().map(|n| *n as usize).product()
    }

    /// Where in a batch an element is, counted from 0: by row and column, if there are two axes.
    fn place(&self, batch: usize, index: usize) -> String {
        let sample = self.shape.iter().map(|n| *n as usize);
        let axes: Vec<usize> = match self.shape.len() {
            0 | 1 => [batch].into_iter().chain(sample).collect(),
            _ if batch > 1 => [batch].into_iter().chain(sample).collect(),
            _ => sample.collect(),
        };
        let mut rest = index;
        let mut at: Vec<usize> = axes
            .iter()
            .rev()
            .map(|n| {
                let here = rest % n.max(&1);
                rest /= n.max(&1);
                here
            })
            .collect();
        at.reverse();
        match at.as_slice() {
            [row, column] => format!("in row {row}, column {column}"),
            at => format!("at {at:?}"),
        }
    }

    /// The bytes that a server is sent for `batch` samples; `None` if that overflows.
    fn bytes(&self, ring_bits: u32, first: bool, batch: usize) -> Option<usize> {
        match self.visibility {
            Visibility::Private if first => Some(SEED_BYTES),
            _ => pack::packed_len(self.elements().checked_mul(batch)?, ring_bits),
        }
    }
}

/// An output, as its player must know it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutputSpec {
    /// Who receives it.
    pub player: String,
    /// One sample's shape.
    pub shape: Vec<u32>,
    /// Bits after the point.
    pub fraction_bits: u32,
}

/// Everything that a client needs to know of a deployed model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientSpec {
    /// The program's hash.
    pub program: [u8; 32],
    /// The plan's hash.
    pub plan: [u8; 32],
    /// The protocol's name.
    pub protocol: String,
    /// Ring and encoding.
    pub numbers: Numbers,
    /// The inputs, in order.
    pub inputs: Vec<InputSpec>,
    /// The outputs, in order.
    pub outputs: Vec<OutputSpec>,
}

/// One query's inputs as they are sent: for each server, one vector of bytes for each input.
#[derive(Clone, PartialEq, Eq)]
pub struct SharedInputs {
    /// For server0: a seed for each private input; public and masked ones packed.
    pub server0: Vec<Vec<u8>>,
    /// For server1: what is left of private inputs, packed; public and masked ones as server0's.
    pub server1: Vec<Vec<u8>>,
}

impl core::fmt::Debug for SharedInputs {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("SharedInputs(hidden)")
    }
}

impl ClientSpec {
    /// What clients of `program`, run by `plan`, need to know.
    pub fn new(program: &Program, plan: &Plan) -> Self {
        let input = |(id, node): (crate::program::Id, &crate::program::Node)| match &node.op {
            Op::Input { player, name, range, visibility, whole } => Some(InputSpec {
                player: player.clone(),
                name: name.clone(),
                shape: node.shape.clone(),
                range: *range,
                visibility: *visibility,
                whole: *whole,
                normalised: program.normalisation(id),
            }),
            _ => None,
        };
        let output = |(node, port): (&crate::program::Node, &crate::plan::Port)| match &node.op {
            Op::Output { player, .. } => Some(OutputSpec {
                player: player.clone(),
                shape: node.shape.clone(),
                fraction_bits: port.fraction_bits,
            }),
            _ => None,
        };
        Self {
            program: program.hash(),
            plan: plan.hash(),
            protocol: plan.protocol().name().into(),
            numbers: program.numbers(),
            inputs: program.inputs().filter_map(input).collect(),
            outputs: program.outputs().map(|(_, node)| node).zip(&plan.outputs).filter_map(output).collect(),
        }
    }

    /// Checks a specification that came from outside, before anything is computed or allocated by it.
    ///
    /// # Errors
    /// It cannot have been made from a program.
    pub fn check(&self) -> Result<(), Blame> {
        let sizes = self.inputs.iter().map(|i| &i.shape).chain(self.outputs.iter().map(|o| &o.shape));
        let sane = |shape: &Vec<u32>| {
            let elements = shape.iter().try_fold(1u32, |all, n| all.checked_mul(*n));
            shape.len() <= 8 && elements.is_some_and(|n| (1..=1 << 28).contains(&n))
        };
        let numbers = (8..=64).contains(&self.numbers.ring_bits) && self.numbers.fraction_bits < self.numbers.ring_bits;
        let fractions = self.outputs.iter().all(|output| output.fraction_bits <= self.numbers.ring_bits);
        if numbers && fractions && self.inputs.len() + self.outputs.len() <= 4096 && sizes.into_iter().all(sane) {
            Ok(())
        } else {
            Err(Blame::you("a specification that no program has"))
        }
    }

    /// Everybody who feeds an input or receives an output, each once, in the program's order: a query needs them all.
    pub fn players(&self) -> Vec<&str> {
        let all = self.inputs.iter().map(|input| &input.player).chain(self.outputs.iter().map(|output| &output.player));
        let mut players: Vec<&str> = vec![];
        for player in all {
            if !players.contains(&player.as_str()) {
                players.push(player);
            }
        }
        players
    }

    /// The part that concerns some of the players: the inputs that they feed and the outputs that they are granted.
    pub fn of_players(&self, players: &[impl AsRef<str>]) -> Self {
        let among = |player: &String| players.iter().any(|one| one.as_ref() == player);
        Self {
            inputs: self.inputs.iter().filter(|input| among(&input.player)).cloned().collect(),
            outputs: self.outputs.iter().filter(|output| among(&output.player)).cloned().collect(),
            ..self.clone()
        }
    }

    /// Elements of one sample of each input.
    pub fn input_elements(&self) -> impl Iterator<Item = usize> + '_ {
        self.inputs.iter().map(|input| input.shape.iter().map(|n| *n as usize).product())
    }

    /// Named arrays as rows, every input flat and in order; and the batch, if the arrays have an axis for one.
    ///
    /// # Errors
    /// An input is missing, unknown, fed twice, or of another shape than one sample's or a batch's.
    pub fn batch(&self, inputs: &[(&str, ArrayViewD<'_, f32>)]) -> Result<(Vec<Vec<f32>>, Option<usize>), Blame> {
        let names = || self.inputs.iter().map(|input| input.name.as_str()).collect::<Vec<_>>().join(", ");
        if let Some((name, _)) = inputs.iter().find(|(name, _)| !self.inputs.iter().any(|input| input.name == *name)) {
            return Err(Blame::you(format!("the input {name}, which the program does not have; it has: {}", names())));
        }
        let (mut rows, mut batch) = (Vec::new(), None);
        for input in &self.inputs {
            let mut given = inputs.iter().filter(|(name, _)| *name == input.name);
            let (Some((name, array)), None) = (given.next(), given.next()) else {
                return Err(Blame::you(format!("the input {} not at all, or twice", input.name)));
            };
            let fits = |shape: &[usize]| shape.iter().copied().eq(input.shape.iter().map(|n| *n as usize));
            let found = match array.shape() {
                shape if fits(shape) => None,
                [count, rest @ ..] if fits(rest) && *count > 0 => Some(*count),
                shape => {
                    return Err(Blame::you(format!(
                        "an array of shape {shape:?} for the input {name}, which has shape {:?}, or a batch of them",
                        input.shape
                    )));
                }
            };
            if !rows.is_empty() && found != batch {
                return Err(Blame::you(format!("batches of different sizes: {found:?} for {name}, {batch:?} before")));
            }
            batch = found;
            rows.push(array.iter().copied().collect());
        }
        Ok((rows, batch))
    }

    /// Outputs as arrays, with who receives them; an axis more in front, if there is a batch.
    ///
    /// # Errors
    /// A bug: they have other sizes than the outputs.
    pub fn shaped(&self, outputs: Vec<Vec<f32>>, batch: Option<usize>) -> Result<Vec<(String, ArrayD<f32>)>, Blame> {
        let one = |(values, output): (Vec<f32>, &OutputSpec)| {
            let shape = batch.into_iter().chain(output.shape.iter().map(|n| *n as usize)).collect::<Vec<_>>();
            let array = ArrayD::from_shape_vec(shape, values);
            array.map(|array| (output.player.clone(), array)).map_err(|_| Blame::bug("an output of another size"))
        };
        outputs.into_iter().zip(&self.outputs).map(one).collect()
    }

    /// The bytes that one server sends for all outputs of `batch` samples; `None` if that overflows.
    pub fn output_bytes(&self, batch: usize) -> Option<usize> {
        let one = |output: &OutputSpec| {
            let elements: usize = output.shape.iter().map(|n| *n as usize).product();
            pack::packed_len(elements.checked_mul(batch)?, self.numbers.ring_bits)
        };
        self.outputs.iter().try_fold(0usize, |all, output| all.checked_add(one(output)?))
    }

    /// The bytes that a server is sent for all inputs of `batch` samples; `None` if that overflows.
    pub fn input_bytes(&self, first: bool, batch: usize) -> Option<usize> {
        let one = |input: &InputSpec| input.bytes(self.numbers.ring_bits, first, batch);
        self.inputs.iter().try_fold(0usize, |all, input| all.checked_add(one(input)?))
    }

    /// The bytes that each server sends for the masks of `batch` samples: a seed for each masked input of each sample, one
    /// input after the other; `None` if that overflows.
    pub fn mask_bytes(&self, batch: usize) -> Option<usize> {
        let masked = self.inputs.iter().filter(|input| input.visibility == Visibility::Masked).count();
        masked.checked_mul(batch)?.checked_mul(SEED_BYTES)
    }

    /// Cuts what a server was sent for all inputs into one part for each input.
    ///
    /// # Errors
    /// The client sent another number of bytes than the inputs have.
    pub fn cut_inputs(&self, first: bool, batch: usize, mut bytes: &[u8]) -> Result<Vec<Vec<u8>>, Blame> {
        if Some(bytes.len()) != self.input_bytes(first, batch) {
            return Err(Blame::client(format!(
                "{} bytes of input, where {:?} belong",
                bytes.len(),
                self.input_bytes(first, batch)
            )));
        }
        let mut parts = vec![];
        for input in &self.inputs {
            let len = input.bytes(self.numbers.ring_bits, first, batch);
            let cut = len.and_then(|len| bytes.split_at_checked(len));
            let (part, rest) = cut.ok_or_else(|| Blame::client("inputs that are cut off"))?;
            parts.push(part.to_vec());
            bytes = rest;
        }
        Ok(parts)
    }

    /// Cuts one server's part of the masks of `batch` samples into one part for each input: nothing for those that are not
    /// masked.
    ///
    /// # Errors
    /// A bug: they are others than [`ClientSpec::mask_bytes`].
    pub fn cut_masks<'a>(&self, batch: usize, mut masks: &'a [u8]) -> Result<Vec<&'a [u8]>, Blame> {
        let wrong = || Blame::bug("masks of other inputs than the specification's");
        let mut parts = vec![];
        for input in &self.inputs {
            let len = if input.visibility == Visibility::Masked { batch.checked_mul(SEED_BYTES) } else { Some(0) };
            let (part, rest) = len.and_then(|len| masks.split_at_checked(len)).ok_or_else(wrong)?;
            parts.push(part);
            masks = rest;
        }
        if masks.is_empty() { Ok(parts) } else { Err(wrong()) }
    }

    /// Whether these inputs can be sent: `batch` samples of every one, all within its range. What is refused here costs
    /// nobody anything.
    ///
    /// # Errors
    /// As [`ClientSpec::share`].
    pub fn admit(&self, inputs: &[&[f32]], batch: usize) -> Result<(), Blame> {
        self.fit(inputs, batch)?;
        let ring = self.ring::<u64>()?;
        let mut all = inputs.iter().zip(&self.inputs);
        all.try_for_each(|(values, spec)| {
            let mut elements = values.iter().enumerate();
            elements.try_for_each(|(at, x)| self.number(ring, spec, *x, &|| spec.place(batch, at)).map(drop))
        })
    }

    fn fit(&self, inputs: &[&[f32]], batch: usize) -> Result<(), Blame> {
        if inputs.len() != self.inputs.len() {
            return Err(Blame::you(format!("{} inputs, the model has {}", inputs.len(), self.inputs.len())));
        }
        for ((values, spec), elements) in inputs.iter().zip(&self.inputs).zip(self.input_elements()) {
            if batch == 0 || Some(values.len()) != elements.checked_mul(batch) {
                return Err(Blame::you(format!(
                    "{} values for the input {}, which has shape {:?}: {elements} for each of {batch} samples",
                    values.len(),
                    spec.name,
                    spec.shape
                )));
            }
        }
        Ok(())
    }

    /// One element of an input, encoded; `place` says where it stands.
    fn number<L: Lane>(
        &self,
        ring: Ring<L>,
        spec: &InputSpec,
        value: f32,
        place: &dyn Fn() -> String,
    ) -> Result<L, Blame> {
        let ([low, high], value) = (spec.range, f64::from(value));
        // Nothing that is not finite lies in a range.
        if !(low..=high).contains(&value) {
            let (name, place) = (&spec.name, place());
            return Err(Blame::you(format!("{value} for the input {name}, {place}, whose range is {low} to {high}")));
        }
        let fraction_bits = if spec.whole { 0 } else { self.numbers.fraction_bits };
        let [mean, deviation] = spec.normalised.unwrap_or([0.0, 1.0]);
        let [low, high, value] = [low, high, value].map(|x| (x - mean) / deviation);
        encode(ring, fraction_bits, low.abs().max(high.abs()), value)
    }

    /// Encodes and shares `batch` samples of every input, of a program without masked ones. `seed` is fresh for every query.
    ///
    /// # Errors
    /// A value is not finite, beyond its declared range, or the shapes do not fit.
    pub fn share(&self, inputs: &[&[f32]], batch: usize, seed: [u8; SEED_BYTES]) -> Result<SharedInputs, Blame> {
        self.share_under(inputs, batch, seed, [&[], &[]])
    }

    /// The same with masked inputs: `masks` are what server0 and server1 sent for them, [`ClientSpec::mask_bytes`] each, used
    /// for this query alone.
    ///
    /// # Errors
    /// As [`ClientSpec::share`]; a server sent another number of bytes.
    pub fn share_under(
        &self,
        inputs: &[&[f32]],
        batch: usize,
        seed: [u8; SEED_BYTES],
        masks: [&[u8]; 2],
    ) -> Result<SharedInputs, Blame> {
        self.fit(inputs, batch)?;
        for (role, mask) in crate::Role::ALL.into_iter().zip(masks) {
            if Some(mask.len()) != self.mask_bytes(batch) {
                let wanted = self.mask_bytes(batch);
                return Err(Blame::party(role, format!("{} bytes of masks, where {wanted:?} belong", mask.len())));
            }
        }
        if self.numbers.ring_bits <= 32 {
            self.share_in::<u32>(inputs, batch, seed, masks)
        } else {
            self.share_in::<u64>(inputs, batch, seed, masks)
        }
    }

    fn share_in<L: Lane>(
        &self,
        inputs: &[&[f32]],
        batch: usize,
        seed: [u8; SEED_BYTES],
        masks: [&[u8]; 2],
    ) -> Result<SharedInputs, Blame> {
        let ring = self.ring::<L>()?;
        let root = Seed::new(seed);
        let mut masks = masks.map(|mask| mask.as_chunks::<SEED_BYTES>().0.iter());
        let (mut server0, mut server1) = (vec![], vec![]);
        for (index, (values, spec)) in inputs.iter().zip(&self.inputs).enumerate() {
            let one = |(at, value): (usize, &f32)| self.number(ring, spec, *value, &|| spec.place(batch, at));
            let mut secret: Vec<L> = values.iter().enumerate().map(one).collect::<Result<_, _>>()?;
            let pack = |elements: &[L]| {
                let mut packed = vec![];
                pack::pack(elements.iter().map(|x| x.to_u64()), ring.bits(), &mut packed);
                packed
            };
            match spec.visibility {
                Visibility::Private => {
                    let own = root.derive("input share", &[&(index as u64).to_le_bytes()]);
                    let mut rest = share::complement(ring, &own, &secret);
                    server0.push(own.bytes().to_vec());
                    server1.push(pack(&rest));
                    rest.zeroize();
                }
                Visibility::Public => {
                    server0.push(pack(&secret));
                    server1.push(pack(&secret));
                }
                Visibility::Masked => {
                    for row in secret.chunks_mut((values.len() / batch).max(1)) {
                        for mask in &mut masks {
                            let seed = mask.next().ok_or_else(|| Blame::bug("too few masks"))?;
                            let mut mask = share::expand(ring, &Seed::new(*seed), row.len());
                            ring.sub_all(row, &mask);
                            mask.zeroize();
                        }
                    }
                    server0.push(pack(&secret));
                    server1.push(pack(&secret));
                }
            }
            secret.zeroize();
        }
        Ok(SharedInputs { server0, server1 })
    }

    /// What each server holds of the first sample of an input: both shares, expanded. For showing them.
    ///
    /// # Errors
    /// The shares are not those of this specification.
    pub fn expand(&self, shared: &SharedInputs, input: usize) -> Result<[Vec<u64>; 2], Blame> {
        let spec = self.inputs.get(input).filter(|spec| spec.visibility == Visibility::Private);
        let count = spec.ok_or_else(|| Blame::you("no such input, or none that is shared"))?.elements();
        let (Some(seed), Some(packed)) = (shared.server0.get(input), shared.server1.get(input)) else {
            return Err(Blame::you("shares of another specification"));
        };
        let seed: [u8; SEED_BYTES] = seed.as_slice().try_into().map_err(|_| Blame::you("a seed that is not one"))?;
        let second = pack::unpack(packed, self.numbers.ring_bits, count).collect();
        let first = if self.numbers.ring_bits <= 32 {
            share::expand(self.ring::<u32>()?, &Seed::new(seed), count).into_iter().map(u64::from).collect()
        } else {
            share::expand(self.ring::<u64>()?, &Seed::new(seed), count)
        };
        Ok([first, second])
    }

    /// The numbers that two expanded shares add up to.
    ///
    /// # Errors
    /// The ring does not exist.
    pub fn join(&self, shares: [&[u64]; 2]) -> Result<Vec<f32>, Blame> {
        let ring = self.ring::<u64>()?;
        let [first, second] = shares;
        let sum = first.iter().zip(second).map(|(a, b)| ring.add(ring.reduce(*a), ring.reduce(*b)));
        Ok(sum.map(|x| decode(ring, self.numbers.fraction_bits, x) as f32).collect())
    }

    fn ring<L: Lane>(&self) -> Result<Ring<L>, Blame> {
        Ring::new(self.numbers.ring_bits).ok_or_else(|| Blame::bug("the specification's ring does not fit its lanes"))
    }

    /// Puts the outputs together: `shares` are what the two servers sent, all outputs one after the other. One vector of
    /// values for each output.
    ///
    /// # Errors
    /// A server sent another number of bytes than the outputs have.
    pub fn reconstruct(&self, batch: usize, shares: [&[u8]; 2]) -> Result<Vec<Vec<f32>>, Blame> {
        let ring = self.ring::<u64>()?;
        for (role, share) in crate::Role::ALL.into_iter().zip(shares) {
            if Some(share.len()) != self.output_bytes(batch) {
                return Err(Blame::party(
                    role,
                    format!("{} bytes of output, where {:?} belong", share.len(), self.output_bytes(batch)),
                ));
            }
        }
        let ([mut first, mut second], mut outputs) = (shares, vec![]);
        for output in &self.outputs {
            let elements = output.shape.iter().map(|n| *n as usize).product::<usize>() * batch;
            let len = pack::packed_len(elements, ring.bits()).unwrap_or(usize::MAX);
            let (Some((a, rest0)), Some((b, rest1))) = (first.split_at_checked(len), second.split_at_checked(len))
            else {
                return Err(Blame::bug("outputs are shorter than their specification"));
            };
            (first, second) = (rest0, rest1);
            let [a, b] = [a, b].map(|share| pack::unpack(share, ring.bits(), elements));
            outputs.push(a.zip(b).map(|(a, b)| decode(ring, output.fraction_bits, ring.add(a, b)) as f32).collect());
        }
        Ok(outputs)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]
    use super::*;
    use crate::Role;
    use crate::client::message::proof;
    use crate::graph::{Bounds, Graph};

    /// Two owners' rows, one output for each of them and one for a third player.
    fn three_players() -> ClientSpec {
        let graph = Graph::new();
        let a = graph.private_input("a", "x", &[2], [-1.0, 1.0]).unwrap();
        let b = graph.private_input("b", "y", &[3], [-1.0, 1.0]).unwrap();
        let w = graph.private_variable("o", "w", &[3, 5]).unwrap();
        graph.output("b", &a).unwrap();
        graph.output("c", &b.matmul(&w).unwrap()).unwrap();
        graph.output("a", &b).unwrap();
        let program = graph.compile(Numbers::default(), Bounds::Declared(8)).unwrap();
        ClientSpec::new(&program, &Plan::new(&program, crate::Protocol::default()).unwrap())
    }

    #[test]
    fn a_player_sees_its_own_part_and_the_parts_make_the_whole() {
        let spec = three_players();
        assert_eq!(spec.players(), ["a", "b", "c"]);
        assert_eq!(spec.of_players(&spec.players()), spec);
        let parts: Vec<_> = spec.players().iter().map(|player| spec.of_players(&[player])).collect();
        let bytes = |first| parts.iter().map(|part| part.input_bytes(first, 2).unwrap()).sum::<usize>();
        assert_eq!([bytes(true), bytes(false)], [true, false].map(|first| spec.input_bytes(first, 2).unwrap()));
        let outputs: Vec<_> =
            parts.iter().map(|part| part.outputs.iter().map(|o| o.shape[0]).collect::<Vec<_>>()).collect();
        assert_eq!(outputs, [vec![3], vec![2], vec![5]]);
        assert_eq!(parts[2].inputs, []);
        assert_eq!(spec.of_players(&["nobody"]).players(), [""; 0]);
        for part in &parts {
            part.check().unwrap();
            assert_eq!((part.program, part.plan), (spec.program, spec.plan));
        }
    }

    #[test]
    fn an_inputs_normalisation_is_done_before_it_is_encoded() {
        // x w, or ((x - 1/4) / (1/2)) w; and the same where x is wanted as it is, too.
        let build = |visibility, normalise: bool, reread: bool| {
            let graph = Graph::new();
            let x = match visibility {
                Visibility::Public => graph.public_input("c", "x", &[2], [0.0, 1.0]),
                Visibility::Private => graph.private_input("c", "x", &[2], [0.0, 1.0]),
                Visibility::Masked => graph.masked_input("c", "x", &[2], [0.0, 1.0]),
            };
            let x = x.unwrap();
            let w = graph.private_variable("o", "w", &[2, 1]).unwrap();
            let values = [3.0f32, -1.0];
            graph.initialise(&w, ndarray::arr2(&[[values[0]], [values[1]]]).view().into_dyn()).unwrap();
            let z = if normalise { x.normalise(0.25, 0.5).unwrap() } else { x.clone() };
            graph.output("c", &z.matmul(&w).unwrap()).unwrap();
            if reread {
                graph.output("c", &x).unwrap();
            }
            let weights = graph.weights();
            (graph.compile(Numbers::default(), Bounds::Proved(&weights)).unwrap(), weights)
        };
        let rows = [&[0.25f32, 1.0, 0.5, 0.0][..]];
        for &protocol in crate::Protocol::ALL {
            for visibility in [Visibility::Public, Visibility::Private, Visibility::Masked] {
                for (reread, normalised) in [(false, Some([0.25, 0.5])), (true, None)] {
                    let (program, weights) = build(visibility, true, reread);
                    let mut session = crate::Session::local(&program, &weights, protocol, [1; 32]).unwrap();
                    assert_eq!(session.spec().inputs[0].normalised, normalised);
                    let outputs = session.run_rows(&rows, 2, &mut |_, _, _| ()).unwrap().0;
                    let close = outputs[0].iter().zip([-1.5, 2.0]).all(|(got, wanted)| (got - wanted).abs() < 1e-3);
                    assert!(close, "{protocol} {visibility:?}: {outputs:?}");
                    if !reread {
                        let plain = Plan::new(&build(visibility, false, false).0, protocol).unwrap();
                        assert_eq!(session.plan().cost(1), plain.cost(1));
                    }
                    // The range is that of what people have, not of what is encoded.
                    for outside in [-0.1, 1.1] {
                        assert!(session.run_rows(&[&[outside; 2]], 1, &mut |_, _, _| ()).is_err());
                    }
                }
            }
        }
    }

    #[test]
    fn proofs_differ_in_whatever_they_are_about() {
        let all = [
            proof(Role::Server0, &[0; 32], &[0; 16], &[0; 32], "a"),
            proof(Role::Server1, &[0; 32], &[0; 16], &[0; 32], "a"),
            proof(Role::Server0, &[1; 32], &[0; 16], &[0; 32], "a"),
            proof(Role::Server0, &[0; 32], &[1; 16], &[0; 32], "a"),
            proof(Role::Server0, &[0; 32], &[0; 16], &[1; 32], "a"),
            proof(Role::Server0, &[0; 32], &[0; 16], &[0; 32], "b"),
        ];
        for (i, one) in all.iter().enumerate() {
            assert!(!all[..i].contains(one), "{i}");
        }
    }
}
