//! From a program's operations to a plan's steps: everything that all protocols have in common.
//!
//! *Scales.* A value has some number of bits after its point, which products add up. Values are truncated only where a
//! product would have more than 2f of them: biases are added, and maxima and signs taken, at full scale, where they are
//! exact; outputs leave at full scale too. Integers have none, so selecting by a bit costs no truncation.
//!
//! *Forms.* A value is held as it comes: public, as shares, masked, or as a variable that nobody has asked for yet. Masks
//! are made when a product wants them, once for each tensor: what is only an arrangement of another tensor is masked, and
//! truncated, before it is arranged, where that is less.

mod arithmetic;
mod forms;

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use crate::bilinear::Bilinear;
use crate::error::PlanError;
use crate::fixed::power_of_two;
use crate::gates::Step;
use crate::gates::agree::Agree;
use crate::gates::assign::{self, Assign};
use crate::gates::compare_table::MaskedBit;
use crate::gates::input::{Entry, Input};
use crate::gates::local::{combine, concat, constant, cumsum_runs, gather, sum_runs};
use crate::gates::mask::{mask, unmask};
use crate::gates::output::Output;
use crate::gates::product::{Factor, product, product_with_public, public_product};
use crate::gates::public::{PublicOp, lift, public};
use crate::gates::reveal::reveal;
use crate::gates::select_masked::select_masked;
use crate::gates::square::square;
use crate::gates::truncate::truncate;
use crate::gates::truncate_local::truncate_local;
use crate::gates::weights::{OpenWeights, load, load_masked, load_public};
use crate::gates::winner::{Comparisons, select_winner};
use crate::plan::{Additive, Builder, Common, Linear, Lowered, Masked, Placed, PlannedVariable, Port, Wire, WireId};
use crate::program::{Arrangement, Id, NOWHERE, Node, Op, Program, Visibility};
use crate::protocol::{Protocol, Truncation, Variant};

/// How a value is held.
#[derive(Clone, Debug)]
pub(crate) enum Held {
    /// Numbers that stand in the program, not encoded yet.
    Constant(Rc<Vec<f64>>),
    /// Known to both servers.
    Public(Wire<Common>),
    /// Shares.
    Private(Wire<Additive>),
    /// Under a mask.
    Masked(Masked),
    /// A private variable, all of it in order or these places of it, not put on wires yet.
    Variable { index: u32, places: Option<Rc<Vec<u32>>> },
}

/// A value with so many bits after the point; for constants and variables, as many as whoever uses them wants.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    pub(crate) held: Held,
    pub(crate) fraction: u32,
}

impl Value {
    pub(crate) fn private(wire: Wire<Additive>, fraction: u32) -> Self {
        Self { held: Held::Private(wire), fraction }
    }

    pub(crate) fn masked(masked: Masked, fraction: u32) -> Self {
        Self { held: Held::Masked(masked), fraction }
    }

    fn public(wire: Wire<Common>, fraction: u32) -> Self {
        Self { held: Held::Public(wire), fraction }
    }

    fn is_public(&self) -> bool {
        matches!(self.held, Held::Constant(_) | Held::Public(_))
    }
}

/// What a wire was selected from by masked bits: it can be selected anew, truncated, without a word.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Selected {
    /// z where the bit is 0, else 0.
    Kept { bit: MaskedBit, z: Masked },
    /// The largest of the candidates z, or its positive part; `sign` is the candidates' sign bit.
    Winner { comparisons: Comparisons, z: Masked, sign: u32 },
}

/// What a protocol makes of the operations that are its own: comparisons, and what is approximated.
pub(crate) type Nonlinear = fn(&mut Lowering<'_>, Id, &Node, Value) -> Result<Value, PlanError>;

/// A program on its way to a plan.
pub(crate) struct Lowering<'a> {
    pub(crate) program: &'a Program,
    pub(crate) builder: Builder,
    pub(crate) protocol: Protocol,
    pub(crate) variant: Variant,
    values: Vec<Value>,
    variables: Vec<PlannedVariable>,
    /// Variables whose scale is fixed.
    scaled: Vec<bool>,
    /// For each node, whether a product or a function will take it, or what is arranged of it.
    taken: Vec<bool>,
    setup: Vec<Placed>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    compared: Vec<Wire<Common>>,
    /// Where a wire of shares was arranged from.
    arranged: BTreeMap<WireId, (Wire<Additive>, Rc<Vec<u32>>)>,
    truncated: BTreeMap<(WireId, u32), Wire<Additive>>,
    selected: BTreeMap<WireId, Selected>,
    errors: BTreeMap<Id, f64>,
    used: BTreeMap<Id, Vec<Value>>,
    /// |x| < 2^n in integers, for nodes' values that are shares.
    magnitudes: BTreeMap<WireId, i32>,
    /// How likely one of the local truncations of a sample fails.
    failures: f64,
}

/// What tests want to know of a lowering.
#[derive(Debug)]
#[cfg_attr(not(test), expect(dead_code, reason = "only tests look at it"))]
pub(crate) struct Trace {
    /// Every node's value.
    pub(crate) values: Vec<Value>,
    /// What a node took its operands for, where that is another scale than theirs.
    pub(crate) used: BTreeMap<Id, Vec<Value>>,
}

/// Lowers `program`; what is the protocol's own is lowered by `nonlinear`.
pub(crate) fn lower(
    program: &Program,
    protocol: Protocol,
    variant: Variant,
    nonlinear: Nonlinear,
) -> Result<(Lowered, Trace), PlanError> {
    let mut lowering = Lowering {
        program,
        builder: Builder::new(program.numbers()),
        protocol,
        variant,
        values: Vec::new(),
        variables: Vec::new(),
        scaled: Vec::new(),
        taken: taken(program),
        setup: Vec::new(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        compared: Vec::new(),
        arranged: BTreeMap::new(),
        truncated: BTreeMap::new(),
        selected: BTreeMap::new(),
        errors: BTreeMap::new(),
        used: BTreeMap::new(),
        magnitudes: BTreeMap::new(),
        failures: 0.0,
    };
    for (id, node) in (0..).zip(program.nodes()) {
        lowering.builder.layer(id);
        let value = lowering.node(id, node, nonlinear)?;
        if !matches!(value.held, Held::Constant(_) | Held::Variable { .. })
            && !matches!(node.op, Op::Output { .. } | Op::Assign { .. })
        {
            lowering.check_room(id, value.fraction, 2)?;
        }
        if let Held::Private(wire) = value.held {
            lowering.magnitudes.insert(wire.id(), node.bound.bits + value.fraction as i32);
        }
        lowering.values.push(value);
    }
    lowering.check_failures()?;
    if !lowering.compared.is_empty() {
        let wires = core::mem::take(&mut lowering.compared);
        lowering.builder.layer(0);
        lowering.builder.push(Agree { wires });
    }
    let Lowering { builder, values, variables, setup, inputs, outputs, errors, used, .. } = lowering;
    let lowered = Lowered { builder, setup, variables, inputs, outputs, errors };
    Ok((lowered, Trace { values, used }))
}

/// For each node, whether anything but sums, arrangements and outputs takes it.
fn taken(program: &Program) -> Vec<bool> {
    let mut taken = vec![false; program.nodes().len()];
    for (index, node) in program.nodes().iter().enumerate().rev() {
        let passes = matches!(
            node.op,
            Op::Arrange { .. }
                | Op::Concat { .. }
                | Op::Add { .. }
                | Op::Sub { .. }
                | Op::Sum { .. }
                | Op::CumSum { .. }
                | Op::Reveal { .. }
                | Op::Output { .. }
        );
        let here = !passes || taken.get(index).copied().unwrap_or(false);
        for operand in node.op.operands() {
            taken.iter_mut().skip(operand as usize).take(1).for_each(|place| *place |= here);
        }
    }
    taken
}

fn broken(what: &str) -> PlanError {
    PlanError::Program(what.to_string())
}

impl Lowering<'_> {
    /// f.
    pub(crate) fn fraction(&self) -> u32 {
        self.program.numbers().fraction_bits
    }

    fn value(&self, id: Id) -> Result<Value, PlanError> {
        let mut value =
            self.values.get(id as usize).cloned().ok_or_else(|| broken("an operand comes after its use"))?;
        if let Held::Variable { index, .. } = value.held {
            value.fraction = self.variables.get(index as usize).map_or(0, |variable| variable.fraction_bits);
        }
        Ok(value)
    }

    /// The value of `operand` with at most 2f bits after the point, for all but what takes finer ones as they are.
    fn narrow(&mut self, id: Id, operand: Id) -> Result<Value, PlanError> {
        let value = self.value(operand)?;
        let most = 2 * self.fraction();
        if value.fraction <= most {
            return Ok(value);
        }
        let value = self.at(&value, most)?;
        self.used.insert(id, vec![value.clone()]);
        Ok(value)
    }

    /// Values must leave `free` bits of the ring: |x| < 2^(k - free).
    pub(crate) fn check_room(&self, id: Id, fraction: u32, free: u32) -> Result<(), PlanError> {
        let ring_bits = self.program.numbers().ring_bits;
        let Some(node) = self.program.node(id) else { return Err(broken("no such operand")) };
        let (needed, room) = (node.bound.bits + fraction as i32, ring_bits as i32 - free as i32);
        if needed > room {
            let (op, missing) = (node.op.name(), needed - room);
            return Err(PlanError::Bound { wire: id, op, needed, room, missing, ring_bits });
        }
        Ok(())
    }

    /// Local truncations must hardly ever fail.
    fn check_failures(&self) -> Result<(), PlanError> {
        if self.failures <= power_of_two(-40) {
            return Ok(());
        }
        let (bits, k) = (libm::ceil(libm::log2(self.failures)), self.program.numbers().ring_bits);
        Err(PlanError::Numbers(format!(
            "local truncation would fail for one sample in 2^{}, and for no more than one in 2^40 it may: use dealt truncation, \
             fewer fraction bits, tighter bounds, or a larger ring than {k} bits",
            -bits
        )))
    }

    /// |x| < 2^n in integers, for a node's value with `fraction` bits after the point.
    pub(crate) fn magnitude_bits(&self, id: Id, fraction: u32) -> i32 {
        self.program.node(id).map_or(0, |node| node.bound.bits) + fraction as i32
    }

    /// The bit that is the sign of numbers below 2^width.
    pub(crate) fn position(&self, width: i32) -> u32 {
        width.clamp(1, self.program.numbers().ring_bits as i32 - 2) as u32
    }

    /// Whether anything but sums, arrangements and outputs takes what `id` gives.
    pub(crate) fn is_taken(&self, id: Id) -> bool {
        self.taken.get(id as usize).copied().unwrap_or(true)
    }

    /// Notes that `id` is an approximation, off by at most `error` for operands within their bounds.
    pub(crate) fn approximates(&mut self, id: Id, error: f64) {
        self.errors.insert(id, error);
    }

    /// The protocol cannot compute this.
    pub(crate) fn unsupported(&self, wire: Id, node: &Node) -> PlanError {
        PlanError::Unsupported {
            protocol: self.protocol.name(),
            op: node.op.name(),
            wire,
            instead: Protocol::WITH_COMPARISONS,
        }
    }

    /// The one number that all elements of a constant are.
    fn uniform(value: &Value) -> Option<f64> {
        match &value.held {
            Held::Constant(values) => {
                let first = values.first().copied()?;
                values.iter().all(|x| *x == first).then_some(first)
            }
            _ => None,
        }
    }

    fn node(&mut self, id: Id, node: &Node, nonlinear: Nonlinear) -> Result<Value, PlanError> {
        let f = self.fraction();
        let elements = node.elements() as u32;
        match &node.op {
            Op::Input { .. } => {
                let fraction = if node.whole { 0 } else { f };
                let held = match node.visibility {
                    Visibility::Public => Held::Public(self.builder.wire(elements)),
                    Visibility::Private => Held::Private(self.builder.wire(elements)),
                    Visibility::Masked => {
                        Held::Masked(Masked { hat: self.builder.wire(elements), mask: self.builder.wire(elements) })
                    }
                };
                let entry = match &held {
                    Held::Public(x) => Entry::Public(*x),
                    Held::Masked(x) => Entry::Masked(*x),
                    Held::Private(x) => Entry::Shares(*x),
                    _ => return Err(broken("an input is on wires")),
                };
                match entry {
                    Entry::Public(x) | Entry::Masked(Masked { hat: x, .. }) => self.compared.push(x),
                    Entry::Shares(_) => {}
                }
                self.builder.push(Input { entry });
                self.inputs.push(Port { elements, fraction_bits: fraction, visibility: node.visibility });
                Ok(Value { held, fraction })
            }
            Op::Variable { name, kept, .. } => {
                let index = self.variables.len() as u32;
                let (public, fraction_bits) = (node.visibility == Visibility::Public, if node.whole { 0 } else { f });
                let kept_as = kept.map(|_| name.clone());
                self.variables.push(PlannedVariable { elements, masked: false, public, fraction_bits, kept: kept_as });
                // Whoever adds a variable that no product takes may choose its scale, unless other entry points have it, too.
                let taken = self.taken.get(id as usize).copied().unwrap_or(true);
                self.scaled.push(public || node.whole || taken || kept.is_some());
                // Masks of what the program itself may change are those of one run.
                let changes = kept.is_some() && self.program.assigned().next().is_some();
                let held = match public {
                    true => Held::Public(load_public(&mut self.builder, index, elements)),
                    false if changes => Held::Private(load(&mut self.builder, index, elements)),
                    false => Held::Variable { index, places: None },
                };
                Ok(Value { held, fraction: fraction_bits })
            }
            Op::Constant { values } => Ok(Value { held: Held::Constant(Rc::new(values.clone())), fraction: 0 }),
            Op::Arrange { x, how } => {
                let value = self.value(*x)?;
                if let Arrangement::Reshape(_) = how {
                    return Ok(value);
                }
                let shape = self.program.node(*x).map(|node| node.shape.clone()).unwrap_or_default();
                self.arrange(&value, how.places(&shape))
            }
            Op::Concat { parts, axis } => self.concat(id, parts, *axis),
            Op::Add { x, y } | Op::Sub { x, y } => {
                let sign = if matches!(node.op, Op::Add { .. }) { 1 } else { -1 };
                let (x, y) = (self.value(*x)?, self.value(*y)?);
                let (x, y) = self.aligned(x, y)?;
                self.used.insert(id, vec![x.clone(), y.clone()]);
                let fraction = x.fraction;
                match (Self::uniform(&x), Self::uniform(&y)) {
                    (None, Some(constant)) => {
                        let constant = self.encode(constant, fraction)?;
                        self.linear(&[(&x, 1)], sign * constant, fraction)
                    }
                    (Some(constant), None) => {
                        let constant = self.encode(constant, fraction)?;
                        self.linear(&[(&y, sign)], constant, fraction)
                    }
                    _ => self.linear(&[(&x, 1), (&y, sign)], 0, fraction),
                }
            }
            Op::Sum { x, axis } | Op::CumSum { x, axis } => {
                let shape = self.program.node(*x).map(|node| node.shape.clone()).unwrap_or_default();
                let (mut value, axis) = (self.narrow(id, *x)?, *axis as usize);
                if let Held::Constant(values) = &value.held {
                    value.fraction = self.exact_fraction(values);
                }
                let run = shape.get(axis).copied().unwrap_or(1);
                let rank = shape.len() as u32;
                let to_end: Vec<u32> = (0..rank).filter(|i| *i as usize != axis).chain([axis as u32]).collect();
                let moved = axis + 1 != shape.len();
                if moved {
                    value = self.arrange(&value, Arrangement::Transpose(to_end.clone()).places(&shape))?;
                }
                if matches!(node.op, Op::Sum { .. }) {
                    return self.locally(
                        &value,
                        |b, x| sum_runs(b, x, run),
                        |b, x| sum_runs(b, x, run),
                        |b, x| sum_runs(b, x, run),
                    );
                }
                let sums = self.locally(
                    &value,
                    |b, x| cumsum_runs(b, x, run),
                    |b, x| cumsum_runs(b, x, run),
                    |b, x| cumsum_runs(b, x, run),
                )?;
                if !moved {
                    return Ok(sums);
                }
                let there = Arrangement::Transpose(to_end.clone()).shape(&shape).map_err(|why| broken(&why))?;
                let back: Vec<u32> =
                    (0..rank).map(|i| to_end.iter().position(|at| *at == i).unwrap_or(0) as u32).collect();
                self.arrange(&sums, Arrangement::Transpose(back).places(&there))
            }
            // The client has done it.
            Op::Normalise { x, .. } if self.program.normalisation(*x).is_some() => self.value(*x),
            Op::Normalise { x, mean, deviation } => {
                let x = self.value(*x)?;
                let x = self.at(&x, f)?;
                self.used.insert(id, vec![x.clone()]);
                let factor = self.encode(1.0 / deviation, f)?;
                let constant = i128::from(self.encode(-mean, f)?) * i128::from(factor);
                let room = 1i128 << (self.program.numbers().ring_bits - 2);
                let constant = i64::try_from(constant).ok().filter(|c| i128::from(c.abs()) < room);
                let constant = constant
                    .ok_or_else(|| PlanError::Numbers("the normalisation's mean does not fit the ring".to_string()))?;
                self.linear(&[(&x, factor)], constant, 2 * f)
            }
            Op::Mul { x, y } => {
                let (x, y) = (self.value(*x)?, self.value(*y)?);
                let (x, y) = match self.small_factor(id, &x, &y) {
                    Some(factors) => factors,
                    None => self.factors(x, y)?,
                };
                self.used.insert(id, vec![x.clone(), y.clone()]);
                for (value, other) in [(&x, &y), (&y, &x)] {
                    if let (Some(factor), None) = (Self::uniform(value), Self::uniform(other)) {
                        let factor = self.encode(factor, value.fraction)?;
                        return self.linear(&[(other, factor)], 0, value.fraction + other.fraction);
                    }
                }
                self.product(id, Bilinear::Elementwise { elements }, x, y)
            }
            Op::MatMul { x, y } | Op::Conv2D { x, filters: y, .. } => {
                let bilinear = self.program.bilinear(id).ok_or_else(|| broken("a product without its shapes"))?;
                let (x, y) = (self.value(*x)?, self.value(*y)?);
                let (x, y) = self.factors(x, y)?;
                self.used.insert(id, vec![x.clone(), y.clone()]);
                self.product(id, bilinear, x, y)
            }
            Op::Square { x } => {
                let mut x = self.value(*x)?;
                if let Held::Constant(values) = &x.held {
                    x.fraction = self.exact_fraction(values);
                }
                if x.fraction > f {
                    x = self.at(&x, f)?;
                }
                self.used.insert(id, vec![x.clone()]);
                self.squared(id, &x)
            }
            Op::Reveal { x } => {
                let x = self.narrow(id, *x)?;
                let wire = self.shares(&x)?;
                Ok(Value::public(reveal(&mut self.builder, wire), x.fraction))
            }
            Op::Mask { x } => {
                let x = self.narrow(id, *x)?;
                Ok(Value { held: Held::Masked(self.masked(id, &x)?), fraction: x.fraction })
            }
            Op::Assign { x, variable } => {
                let x = self.value(*x)?;
                let fraction = if node.whole { 0 } else { f };
                let x = self.at(&x, fraction)?;
                let before = self.program.nodes().iter().take(*variable as usize);
                let index = before.filter(|node| matches!(node.op, Op::Variable { .. })).count() as u32;
                let value = match node.visibility {
                    Visibility::Public => assign::Value::Public(self.public_wire(&x)?),
                    _ => assign::Value::Shares(self.shares(&x)?),
                };
                self.builder.push(Assign { variable: index, value });
                Ok(x)
            }
            Op::Output { x, .. } => {
                let mut x = self.value(*x)?;
                if let Held::Constant(values) = &x.held {
                    x.fraction = self.exact_fraction(values);
                }
                let wire = self.shares(&x)?;
                self.builder.push(Output { x: wire });
                self.outputs.push(Port { elements, fraction_bits: x.fraction, visibility: Visibility::Private });
                Ok(x)
            }
            op => {
                let operand = op.operands().first().copied().unwrap_or(0);
                let mut x = self.narrow(id, operand)?;
                if let Held::Constant(values) = &x.held {
                    x.fraction = self.exact_fraction(values);
                }
                if x.is_public() { self.publicly(id, op, operand, &x) } else { nonlinear(self, id, node, x) }
            }
        }
    }

    fn concat(&mut self, id: Id, parts: &[Id], axis: u32) -> Result<Value, PlanError> {
        let shapes: Vec<Vec<u32>> =
            parts.iter().filter_map(|id| self.program.node(*id)).map(|node| node.shape.clone()).collect();
        let mut values = parts.iter().map(|part| self.narrow(id, *part)).collect::<Result<Vec<_>, _>>()?;
        let wanted = values.iter().map(|value| self.least_fraction(value).unwrap_or(value.fraction));
        let fraction = wanted.max().unwrap_or(0);
        for value in &mut values {
            self.beside(value, fraction);
            *value = self.at(value, fraction)?;
        }
        self.used.insert(id, values.clone());
        let together = self.joined(&values)?;
        let front: u32 = shapes.first().map_or(1, |shape| shape.iter().take(axis as usize).product());
        if front == 1 {
            return Ok(together);
        }
        // A run is what one part contributes between two steps of the axes in front.
        let runs: Vec<u32> = shapes.iter().map(|shape| shape.iter().skip(axis as usize).product()).collect();
        let mut places = Vec::new();
        for at in 0..front {
            let mut start = 0;
            for run in &runs {
                places.extend(start + at * run..start + (at + 1) * run);
                start += front * run;
            }
        }
        self.arrange(&together, places)
    }

    /// A function of what both servers know: each computes it for itself.
    fn publicly(&mut self, id: Id, op: &Op, operand: Id, x: &Value) -> Result<Value, PlanError> {
        let f = self.fraction();
        let candidates = self.program.node(operand).and_then(|node| node.shape.first().copied()).unwrap_or(1);
        let (function, fraction) = match op {
            Op::Negative { .. } => (PublicOp::Negative, 0),
            Op::EqualZero { .. } => (PublicOp::EqualZero, 0),
            Op::Bits { count, .. } => (PublicOp::Bits { count: *count }, 0),
            Op::Relu { .. } => (PublicOp::Relu, x.fraction),
            Op::Sigmoid { .. } => (PublicOp::Sigmoid { f }, f),
            Op::Tanh { .. } => (PublicOp::Tanh { f }, f),
            Op::Reciprocal { least, .. } => (PublicOp::Reciprocal { f, least: *least }, f),
            Op::Function { samples, .. } => (PublicOp::Function { f, samples: samples.clone() }, f),
            Op::Max { .. } => (PublicOp::Max { candidates }, x.fraction),
            Op::ArgMax { .. } => (PublicOp::ArgMax { candidates }, 0),
            _ => return Err(broken("an operation without a meaning for public values")),
        };
        let scaled = matches!(op, Op::Sigmoid { .. } | Op::Tanh { .. } | Op::Function { .. } | Op::Reciprocal { .. });
        let x = if scaled { self.at(x, f)? } else { x.clone() };
        self.used.insert(id, vec![x.clone()]);
        let wire = self.public_wire(&x)?;
        Ok(Value::public(public(&mut self.builder, function, wire), fraction))
    }
}
