//! SecureNN: linear maps by Beaver triples, everything else by exact comparisons with the crypto producer's help.
//!
//! Products have 2f bits after the point. They are truncated only where the next product needs f again: biases are added,
//! and maxima and signs taken, at full scale, where they are exact; outputs leave at full scale too.

use alloc::string::ToString;
use alloc::vec::Vec;

use crate::error::PlanError;
use crate::fixed::power_of_two;
use crate::gates::Step;
use crate::gates::arrange::{AddVariable, combine, gather};
use crate::gates::input::Input;
use crate::gates::linear::{self, OpenWeights};
use crate::gates::maximum::{argmax, maximum};
use crate::gates::output::Output;
use crate::gates::relu::relu;
use crate::gates::truncate::truncate;
use crate::plan::{Additive, Builder, Placed, Plan, PlannedVariable, Port, Wire};
use crate::program::{Id, Node, Op, Program};
use crate::protocol::Protocol;

/// A value of the program, lowered.
#[derive(Clone, Copy)]
enum Lowered {
    /// Shared, with so many bits after the point.
    Shared { wire: Wire<Additive>, fraction: u32 },
    /// The variable of this number.
    Variable(u32),
    /// An output has no value.
    Nothing,
}

struct Lowering<'a> {
    program: &'a Program,
    builder: Builder,
    values: Vec<Lowered>,
    variables: Vec<PlannedVariable>,
    setup: Vec<Placed>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

pub(super) fn lower(program: &Program) -> Result<Plan, PlanError> {
    let mut lowering = Lowering {
        program,
        builder: Builder::new(program.numbers()),
        values: Vec::new(),
        variables: Vec::new(),
        setup: Vec::new(),
        inputs: Vec::new(),
        outputs: Vec::new(),
    };
    for (id, node) in (0..).zip(program.nodes()) {
        lowering.builder.layer(id);
        let value = lowering.lower(id, node)?;
        if let Lowered::Shared { fraction, .. } = value {
            lowering.check_room(id, node, fraction, 2)?;
        }
        lowering.values.push(value);
    }
    let Lowering { builder, variables, setup, inputs, outputs, .. } = lowering;
    Ok(Plan::assemble(Protocol::SecureNn, program, builder, setup, variables, inputs, outputs))
}

impl Lowering<'_> {
    fn fraction(&self) -> u32 {
        self.program.numbers().fraction_bits
    }

    /// The value of `id`, which is no variable, with its fraction.
    fn shared(&self, id: Id) -> Result<(Wire<Additive>, u32), PlanError> {
        match self.values.get(id as usize) {
            Some(Lowered::Shared { wire, fraction }) => Ok((*wire, *fraction)),
            _ => Err(PlanError::Program("an operand has no value".to_string())),
        }
    }

    /// The value of `id` with f bits after the point, as products want it.
    fn at_scale(&mut self, id: Id) -> Result<Wire<Additive>, PlanError> {
        let (mut wire, mut fraction) = self.shared(id)?;
        while fraction > self.fraction() {
            wire = truncate(&mut self.builder, wire);
            fraction -= self.fraction();
        }
        if fraction < self.fraction() {
            let factor = 1 << (self.fraction() - fraction);
            wire = combine(&mut self.builder, &[(wire, factor)], 0);
        }
        Ok(wire)
    }

    /// Values must leave `free` bits of the ring: |x| < 2^(k - free).
    fn check_room(&self, id: Id, node: &Node, fraction: u32, free: u32) -> Result<(), PlanError> {
        let ring_bits = self.program.numbers().ring_bits;
        let (needed, room) = (node.bound.bits + fraction as i32, ring_bits as i32 - free as i32);
        if needed > room {
            let (op, missing) = (node.op.name(), needed - room);
            return Err(PlanError::Bound { wire: id, op, needed, room, missing, ring_bits });
        }
        Ok(())
    }

    /// The variable of `id`, used as a linear map's weights.
    fn weights(&mut self, id: Id) -> Result<u32, PlanError> {
        let Some(Lowered::Variable(index)) = self.values.get(id as usize) else {
            return Err(PlanError::Program("weights must be a variable".to_string()));
        };
        if let Some(variable) = self.variables.get_mut(*index as usize).filter(|variable| !variable.masked) {
            variable.masked = true;
            let step = Step::from(OpenWeights { variable: *index, elements: variable.elements });
            self.setup.push(Placed { step, level: 1, layer: id });
        }
        Ok(*index)
    }

    fn lower(&mut self, id: Id, node: &Node) -> Result<Lowered, PlanError> {
        let f = self.fraction();
        let elements = node.elements() as u32;
        let shared = |wire, fraction| Ok(Lowered::Shared { wire, fraction });
        match &node.op {
            Op::Input { .. } => {
                let x = self.builder.wire(elements);
                self.builder.push(Input { x });
                self.inputs.push(Port { elements, fraction_bits: f });
                shared(x, f)
            }
            Op::Variable { .. } => {
                self.variables.push(PlannedVariable { elements, masked: false, fraction_bits: f });
                Ok(Lowered::Variable(self.variables.len() as u32 - 1))
            }
            Op::MatMul { x, weights } | Op::Conv2D { x, filters: weights, .. } => {
                let linear = self.program.linear(id);
                let linear = linear.ok_or_else(|| PlanError::Program("a linear map without its shapes".to_string()))?;
                let variable = self.weights(*weights)?;
                let x = self.at_scale(*x)?;
                shared(linear::apply(&mut self.builder, x, variable, linear), 2 * f)
            }
            Op::Bias { x, bias } => {
                let (x, fraction) = self.shared(*x)?;
                let Some(Lowered::Variable(variable)) = self.values.get(*bias as usize).copied() else {
                    return Err(PlanError::Program("a bias must be a variable".to_string()));
                };
                let entries = self.bias(variable, fraction)?;
                let out = self.builder.wire(elements);
                self.builder.push(AddVariable { x, variable, run: elements / entries.max(1), out });
                shared(out, fraction)
            }
            Op::Normalise { x, mean, deviation } => {
                let x = self.at_scale(*x)?;
                let unit = power_of_two(f as i32);
                let factor = nearest(unit / deviation);
                let constant = nearest(-mean * unit) as i128 * i128::from(factor);
                let constant = i64::try_from(constant)
                    .map_err(|_| PlanError::Numbers("the normalisation's mean does not fit the ring".to_string()))?;
                shared(combine(&mut self.builder, &[(x, factor)], constant), 2 * f)
            }
            Op::Relu { x } => {
                let (x, fraction) = self.shared(*x)?;
                shared(relu(&mut self.builder, x), fraction)
            }
            Op::MaxPool { x: operand, .. } => {
                let (x, fraction) = self.shared(*operand)?;
                self.check_operand(*operand, fraction)?;
                let windows = self.program.windows(id);
                let windows = windows.ok_or_else(|| PlanError::Program("a pooling without its shapes".to_string()))?;
                let candidates = windows.len() as u32;
                let x = gather(&mut self.builder, x, windows.concat());
                shared(maximum(&mut self.builder, x, candidates), fraction)
            }
            Op::ArgMax { x: operand } => {
                let (x, fraction) = self.shared(*operand)?;
                self.check_operand(*operand, fraction)?;
                let candidates = self.builder.elements(&x);
                shared(argmax(&mut self.builder, x, candidates), 0)
            }
            Op::Reshape { x, .. } => {
                let (x, fraction) = self.shared(*x)?;
                shared(x, fraction)
            }
            Op::Output { x, .. } => {
                let (x, fraction_bits) = self.shared(*x)?;
                self.builder.push(Output { x });
                self.outputs.push(Port { elements, fraction_bits });
                Ok(Lowered::Nothing)
            }
        }
    }

    /// What is compared with its like leaves three bits free, for the difference.
    fn check_operand(&self, id: Id, fraction: u32) -> Result<(), PlanError> {
        self.program.node(id).map_or(Ok(()), |node| self.check_room(id, node, fraction, 3))
    }

    /// Fixes the scale at which a bias is shared; returns its entries.
    fn bias(&mut self, index: u32, fraction: u32) -> Result<u32, PlanError> {
        let planned =
            self.variables.get_mut(index as usize).ok_or_else(|| PlanError::Program("no such variable".to_string()))?;
        if planned.masked
            || (planned.fraction_bits != self.program.numbers().fraction_bits && planned.fraction_bits != fraction)
        {
            return Err(PlanError::Program("a variable is used at two scales".to_string()));
        }
        planned.fraction_bits = fraction;
        Ok(planned.elements)
    }
}

/// The nearest integer, for public factors: exact below 2^52.
fn nearest(x: f64) -> i64 {
    if x < 0.0 { (x - 0.5) as i64 } else { (x + 0.5) as i64 }
}
