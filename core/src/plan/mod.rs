//! The protocol's lowering of a program, made before any data exists.
//!
//! A [`Plan`] is a list of *steps* over *wires*, in static single assignment. A step is a local computation or one hop of
//! messages; its *level* is the number of hops on the longest path to it, and all messages of one level that take the same
//! link leave as one. Everything that a person or a party may want to know beforehand follows from the list: rounds, exact
//! bytes on every link, the material wanted, the peak of memory, and what each party sees in clear and why it may.
//! All sizes are those of one sample; a batch multiplies them.

mod builder;
mod cost;
mod wire;

pub(crate) use cost::last_uses;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

pub(crate) use builder::Builder;
pub use cost::{Cost, Disclosure, LayerCost, LinkCost, Phase};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
pub(crate) use wire::{
    Additive, BitShares, Block, Class, Common, Domain, Form, Held, Kind, Linear, Mask, Masked, Odd, Own, OwnBytes,
    Route, Traffic, Wire, WireId,
};

use crate::error::PlanError;
use crate::gates::Step;
use crate::program::{Bound, Id, Node, Numbers, Program, Visibility};
use crate::protocol::{Protocol, Variant};

/// The version of the serialised form, and of what the steps mean.
const FORMAT: u16 = 3;

/// The sizes that steps refer to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Shapes {
    pub(crate) numbers: Numbers,
    /// Elements of one sample on each wire, and what they are.
    pub(crate) wires: Vec<(u32, Class)>,
}

impl Shapes {
    pub(crate) fn elements<K>(&self, wire: &Wire<K>) -> u32 {
        self.wires.get(wire.id() as usize).map_or(0, |(elements, _)| *elements)
    }
}

/// A step and its place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Placed {
    pub(crate) step: Step,
    /// Hops on the longest path up to and including this step.
    pub(crate) level: u32,
    /// The program's operation that it belongs to.
    pub(crate) layer: u32,
}

/// How a variable is kept on the servers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PlannedVariable {
    pub(crate) elements: u32,
    /// Whether it is a factor of products, and so opened under a mask, once for each version and epoch.
    pub(crate) masked: bool,
    /// Whether both servers know it.
    pub(crate) public: bool,
    /// The bits after its point: biases are added to products, which have twice as many.
    pub(crate) fraction_bits: u32,
    /// What it is called, if runs may change it.
    pub(crate) kept: Option<String>,
}

/// An input or output of the servers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Port {
    pub(crate) elements: u32,
    pub(crate) fraction_bits: u32,
    /// How an input arrives; outputs always leave as shares.
    pub(crate) visibility: Visibility,
}

/// What one operation of the program is called, for tables.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PlannedLayer {
    pub(crate) op: alloc::string::String,
    pub(crate) shape: Vec<u32>,
    pub(crate) bound: Bound,
    /// How far an approximation may be off; 0 for what is exact.
    pub(crate) error: f64,
}

/// What a lowering has made of a program.
pub(crate) struct Lowered {
    pub(crate) builder: Builder,
    /// Opens the masked weights.
    pub(crate) setup: Vec<Placed>,
    pub(crate) variables: Vec<PlannedVariable>,
    pub(crate) inputs: Vec<Port>,
    pub(crate) outputs: Vec<Port>,
    /// How far each approximated operation may be off.
    pub(crate) errors: BTreeMap<Id, f64>,
}

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    format: u16,
    pub(crate) protocol: Protocol,
    variant: Variant,
    pub(crate) program: [u8; 32],
    pub(crate) shapes: Shapes,
    /// Opens the masked weights; run once for each version and epoch.
    pub(crate) setup: Vec<Placed>,
    /// Answers one query; in the order in which they run.
    pub(crate) steps: Vec<Placed>,
    pub(crate) variables: Vec<PlannedVariable>,
    pub(crate) inputs: Vec<Port>,
    pub(crate) outputs: Vec<Port>,
    pub(crate) layers: Vec<PlannedLayer>,
}

impl Plan {
    /// Lowers `program` by `protocol`, in its usual variant.
    ///
    /// # Errors
    /// A bound does not fit into the ring, or the protocol cannot compute an operation.
    pub fn new(program: &Program, protocol: Protocol) -> Result<Self, PlanError> {
        Self::of_variant(program, protocol, Variant::default())
    }

    /// Lowers `program` by a variant of `protocol`.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn of_variant(program: &Program, protocol: Protocol, variant: Variant) -> Result<Self, PlanError> {
        protocol.lower(program, variant)
    }

    /// The plan of `program`, whose operations were lowered in the order of `arranged`.
    pub(crate) fn assemble(
        protocol: Protocol,
        variant: Variant,
        program: &Program,
        arranged: &Program,
        lowered: Lowered,
    ) -> Self {
        let Lowered { builder, setup, variables, inputs, outputs, errors } = lowered;
        let layer = |(id, node): (Id, &Node)| PlannedLayer {
            op: node.op.name().into(),
            shape: node.shape.clone(),
            bound: node.bound,
            error: errors.get(&id).copied().unwrap_or(0.0),
        };
        let layers = (0..).zip(arranged.nodes()).map(layer).collect();
        let (shapes, steps) = builder.finish();
        let (format, program) = (FORMAT, program.hash());
        Self { format, protocol, variant, program, shapes, setup, steps, variables, inputs, outputs, layers }
    }

    /// A plan of a few steps and of no program.
    #[cfg(test)]
    pub(crate) fn bare(builder: Builder, setup: Vec<Placed>, variables: Vec<PlannedVariable>) -> Self {
        let (shapes, steps) = builder.finish_all();
        let (inputs, outputs, layers) = (Vec::new(), Vec::new(), Vec::new());
        let (format, protocol, variant, program) = (FORMAT, Protocol::default(), Variant::default(), [0; 32]);
        Self { format, protocol, variant, program, shapes, setup, steps, variables, inputs, outputs, layers }
    }

    /// The protocol that lowered it.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Which variant of the protocol it is.
    pub fn variant(&self) -> Variant {
        self.variant
    }

    /// The program that it computes, by its hash.
    pub fn program_hash(&self) -> [u8; 32] {
        self.program
    }

    /// Ring and encoding.
    pub fn numbers(&self) -> Numbers {
        self.shapes.numbers
    }

    /// The plan's identity: the SHA-256 of its serialised form. Two parties whose plans differ never start.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.to_bytes()).into()
    }

    /// The serialised form.
    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_allocvec(self).unwrap_or_default()
    }

    /// Reads a plan that this party stored itself. Plans are never accepted from others: each party makes its own.
    ///
    /// # Errors
    /// It is damaged, or was made by a version that meant something else by it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PlanError> {
        match postcard::take_from_bytes::<Plan>(bytes) {
            Ok((plan, [])) if plan.format == FORMAT => Ok(plan),
            _ => Err(PlanError::Program(
                "the stored plan is damaged or of another version; deploy the model again".into(),
            )),
        }
    }

    /// Whether a run changes variables: then it is one of a single sample.
    pub fn assigns(&self) -> bool {
        self.steps.iter().any(|placed| matches!(placed.step, Step::Assign(_)))
    }

    /// Whether it finds variables that runs change.
    pub fn reads_state(&self) -> bool {
        self.variables.iter().any(|variable| variable.kept.is_some())
    }

    /// Whether variables that runs change are opened under masks that last for more than one run, and so only for one version
    /// of the state.
    pub fn opens_state(&self) -> bool {
        self.variables.iter().any(|variable| variable.masked && variable.kept.is_some())
    }

    /// The version to which what is opened and dealt belongs, of a program that was deployed as version `deployed`, at a version
    /// of the state: another one for every state if weights that runs change are opened under masks, because a mask belongs to
    /// one version of a weight; else that of the deployment.
    pub fn version_at(&self, deployed: u64, state: u64) -> u64 {
        if state == 0 || !self.opens_state() {
            return deployed;
        }
        let mut hash = Sha256::new();
        hash.update(b"selkie version of a state 1");
        hash.update(deployed.to_le_bytes());
        hash.update(state.to_le_bytes());
        let mut bytes = [0; 8];
        bytes.iter_mut().zip(hash.finalize()).for_each(|(to, from)| *to = from);
        u64::from_le_bytes(bytes)
    }

    /// Messages on the longest chain among the three parties for one query, whatever its batch.
    pub fn rounds(&self) -> u32 {
        self.steps.iter().map(|placed| placed.level).max().unwrap_or(0)
    }
}
