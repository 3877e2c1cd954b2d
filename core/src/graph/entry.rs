//! Entry points of a graph: what may be run by itself.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::{Graph, Tensor};
use crate::bounds::{self, Bounds};
use crate::error::{GraphError, PlanError};
use crate::program::{EntryPoints, Id, Node, Numbers, Op, Program, RUN, Visibility};

/// An entry point under construction: what it gives out and assigns. See [`Graph::entry`].
#[derive(Clone, Debug)]
pub struct Entry {
    graph: Graph,
    name: String,
}

impl Graph {
    /// An entry point: a part of the graph that can be run by itself, and shares the kept variables with the others.
    pub fn entry(&self, name: &str) -> Entry {
        Entry { graph: self.clone(), name: name.into() }
    }

    /// A private variable that the servers keep from run to run, and that runs may change ([`Graph::assign`]). Its elements
    /// stay in `range`: that is what its owner declares, and nobody checks; beyond it answers may be wrong, and nothing leaks.
    ///
    /// # Errors
    /// The shape is empty or too large, or the range is not one.
    pub fn kept_variable(
        &self,
        player: &str,
        name: &str,
        shape: &[u32],
        range: [f64; 2],
    ) -> Result<Tensor, GraphError> {
        let (player, name, kept) = (player.into(), name.into(), Some(range));
        self.push(Op::Variable { player, name, visibility: Visibility::Private, whole: false, kept }, shape)
    }

    /// Gives `variable` a new value, which it has from the next run on.
    ///
    /// # Errors
    /// It is no kept variable, or the value has another shape.
    pub fn assign(&self, variable: &Tensor, value: &Tensor) -> Result<(), GraphError> {
        self.entry(RUN).assign(variable, value)
    }

    /// Grants `x` to `player`, in clear, and to nobody else.
    ///
    /// # Errors
    /// `x` is of another graph.
    pub fn output(&self, player: &str, x: &Tensor) -> Result<(), GraphError> {
        self.entry(RUN).output(player, x)
    }

    /// All entry points, every value's bound found as `bounds` says. Magnitudes of calibrated bounds are those of the whole
    /// graph's values, in the order in which they were written.
    ///
    /// # Errors
    /// As [`Graph::compile`].
    pub fn compile_entries(&self, numbers: Numbers, bounds: Bounds<'_>) -> Result<EntryPoints, PlanError> {
        let inner = self.inner.borrow();
        let mut nodes = inner.nodes.clone();
        bounds::annotate(&mut nodes, numbers, bounds)?;
        let mut sinks: BTreeMap<&str, Vec<Id>> = BTreeMap::new();
        for (entry, sink) in &inner.sinks {
            sinks.entry(entry).or_default().push(*sink);
        }
        let programs = sinks
            .into_iter()
            .map(|(entry, sinks)| Ok((entry.into(), Program::new(numbers, reaching(&nodes, &sinks))?)));
        EntryPoints::new(programs.collect::<Result<_, PlanError>>()?)
    }
}

impl Entry {
    /// As [`Graph::output`], for this entry point.
    ///
    /// # Errors
    /// `x` is of another graph.
    pub fn output(&self, player: &str, x: &Tensor) -> Result<(), GraphError> {
        self.graph.own(x, "output")?;
        self.sink(Op::Output { x: x.id, player: player.into() })
    }

    /// As [`Graph::assign`], for this entry point.
    ///
    /// # Errors
    /// `variable` is no kept variable, or the value has another shape.
    pub fn assign(&self, variable: &Tensor, value: &Tensor) -> Result<(), GraphError> {
        self.graph.own(variable, "assign")?;
        self.graph.own(value, "assign")?;
        self.sink(Op::Assign { x: value.id, variable: variable.id })
    }

    fn sink(&self, op: Op) -> Result<(), GraphError> {
        let sink = self.graph.push(op, &[])?;
        self.graph.inner.borrow_mut().sinks.push((self.name.clone(), sink.id));
        Ok(())
    }
}

/// The nodes that `sinks` want, and nothing else, numbered anew.
fn reaching(nodes: &[Node], sinks: &[Id]) -> Vec<Node> {
    let mut wanted = vec![false; nodes.len()];
    for (index, node) in nodes.iter().enumerate().rev() {
        let here = sinks.contains(&(index as Id)) || wanted.get(index).copied().unwrap_or(false);
        if here {
            for operand in node.op.operands().into_iter().chain([index as Id]) {
                wanted.iter_mut().skip(operand as usize).take(1).for_each(|place| *place = true);
            }
        }
    }
    let number = |id: Id| wanted.iter().take(id as usize).filter(|wanted| **wanted).count() as Id;
    let kept = nodes.iter().zip(&wanted).filter(|(_, wanted)| **wanted);
    kept.map(|(node, _)| Node { op: node.op.renumbered(&number), ..node.clone() }).collect()
}
