//! A program run by the three parties of a cluster, for as long as one needs it.
//!
//! ```text
//! Session::remote ── program, shares of the weights ──▶ three parties      in their memory, while the session lives
//!   run           ── shares of the inputs ────────────▶ two servers        as often as one likes
//!   close, drop   ── it is no longer needed ──────────▶ three parties      which forget it
//! ```

use ndarray::{ArrayD, ArrayViewD, IxDyn};
use selkie::client::message::Planned;
use selkie::client::{Answer, ClientSpec};
use selkie::plan::Plan;
use selkie::program::{Program, Weights};
use selkie::{Protocol, Variant};

use crate::client::{Client, Keys, Question};
use crate::config::Cluster;
use crate::deploy::{Held, Offer, fresh_version, hold};
use crate::exit::{Exit, Failure};
use crate::identity::Identity;
use crate::link::Me;

/// A program at the three parties of a cluster, and a client of it who acts for all of its players.
pub struct Session {
    cluster: Cluster,
    name: String,
    spec: ClientSpec,
    held: Held,
    client: Client,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({}, {:?})", self.name, self.client)
    }
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Ran {
    /// The outputs, in the program's order.
    pub outputs: Vec<Output>,
    /// What it cost.
    pub statistics: Statistics,
}

/// One output.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// To whom it is granted.
    pub player: String,
    /// The batch, then one sample's shape.
    pub values: ArrayD<f32>,
}

/// What a run cost, as the two servers measured it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// Messages on the longest chain among the three parties.
    pub rounds: u32,
    /// Payload among the three parties from the arrival of the inputs on, in bytes.
    pub online_bytes: u64,
    /// Payload dealt ahead, in bytes.
    pub offline_bytes: u64,
    /// Payload between this client and the servers, in bytes.
    pub client_bytes: u64,
    /// All of these, headers included.
    pub wire_bytes: u64,
    /// Microseconds from the arrival of the inputs to the outputs, at the slower server.
    pub micros: u64,
    /// What the plan says that it costs.
    pub planned: Planned,
}

impl From<&Answer> for Statistics {
    fn from(answer: &Answer) -> Self {
        let [zero, one] = &answer.stats;
        Self {
            rounds: answer.rounds(),
            online_bytes: answer.online_bytes(),
            offline_bytes: answer.offline_bytes(),
            client_bytes: answer.client_bytes,
            wire_bytes: answer.wire_bytes(),
            micros: zero.micros.max(one.micros),
            planned: zero.planned.clone(),
        }
    }
}

impl Session {
    /// Deploys a program that lives as long as the session: in the parties' memory, never on disk. `deployer` is one of the
    /// cluster's `[deployers]`, `keys` are those of the program's players whom the cluster pins in `[players]`.
    ///
    /// # Errors
    /// The program cannot be planned, the weights do not fit it, a party is missing, or refuses.
    pub async fn remote(
        cluster: &Cluster,
        deployer: Identity,
        keys: Keys,
        program: &Program,
        weights: &Weights,
        protocol: Protocol,
    ) -> Result<Self, Failure> {
        let version = fresh_version()?;
        let name = format!("session-{version:016x}");
        let spec = ClientSpec::new(program, &Plan::new(program, protocol).map_err(Failure::usage)?);
        let variant = Variant::default();
        let offer = Offer { name: &name, version, program, weights, protocol, variant };
        let held = hold(cluster, &Me::deployer(deployer)?, &offer).await?;
        let client = Client::connect(cluster).await?.with_keys(keys);
        Ok(Self { cluster: cluster.clone(), name, spec, held, client })
    }

    /// The name under which other clients may ask the program, too, while the session lives.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What clients know of the program.
    #[must_use]
    pub fn spec(&self) -> &ClientSpec {
        &self.spec
    }

    /// Runs the program once, on the inputs by their names. An input's first axis is the batch, the same for all, and the
    /// others are one sample's shape; a program without inputs runs on one sample.
    ///
    /// # Errors
    /// An input is missing, unknown or of another shape; the servers refuse; a party has gone, and the session with it.
    pub async fn run(&mut self, inputs: &[(&str, ArrayViewD<'_, f32>)]) -> Result<Ran, Failure> {
        let (inputs, batch) = in_order(&self.spec, inputs)?;
        self.held.check()?;
        let answered = self.client.ask(Question { model: &self.name, inputs, batch, ..Question::default() }).await;
        // A party that has lost the program may say so before its link is known to be lost.
        let answer = answered.map_err(|failure| self.held.check().err().unwrap_or(failure))?;
        if (answer.spec.program, answer.spec.plan) != (self.spec.program, self.spec.plan) {
            return Err(Failure::new(
                Exit::PeerFailed,
                "the servers ran another program than this session's: trust neither",
            ));
        }
        let statistics = Statistics::from(&answer);
        let shaped = answer.spec.outputs.iter().zip(answer.outputs).map(|(output, values)| {
            let shape: Vec<usize> = [batch].into_iter().chain(output.shape.iter().map(|n| *n as usize)).collect();
            let values = ArrayD::from_shape_vec(IxDyn(&shape), values).map_err(Failure::other)?;
            Ok(Output { player: output.player.clone(), values })
        });
        Ok(Ran { outputs: shaped.collect::<Result<_, Failure>>()?, statistics })
    }

    /// Ends the session, and hears from all three parties that the program is gone. Dropping it ends it, too.
    ///
    /// # Errors
    /// A party has gone already, and the program with it.
    pub async fn close(self) -> Result<(), Failure> {
        self.held.retire(&self.cluster).await
    }
}

/// The inputs in the program's order, and the batch.
fn in_order(spec: &ClientSpec, given: &[(&str, ArrayViewD<'_, f32>)]) -> Result<(Vec<Vec<f32>>, usize), Failure> {
    let named = |name: &str| given.iter().find(|(given, _)| *given == name).map(|(_, values)| values);
    let known = || spec.inputs.iter().map(|input| input.name.as_str()).collect::<Vec<_>>().join(", ");
    for (index, (name, _)) in given.iter().enumerate() {
        let twice = given.iter().take(index).any(|(before, _)| before == name);
        if twice || spec.inputs.iter().all(|input| input.name != *name) {
            return Err(Failure::usage(format!(
                "{name:?} is no input of the program, or was given twice; its inputs are: {}",
                known()
            )));
        }
    }
    let first = spec.inputs.first().and_then(|input| named(&input.name));
    let batch = first.map_or(1, |values| values.shape().first().copied().unwrap_or(0));
    let one = |input: &selkie::client::InputSpec| {
        let values = named(&input.name).ok_or_else(|| {
            Failure::usage(format!("the input {:?} is missing; the program's inputs are: {}", input.name, known()))
        })?;
        let sample = input.shape.iter().map(|n| *n as usize);
        let wanted: Vec<usize> = [batch].into_iter().chain(sample).collect();
        if batch == 0 || values.shape() != wanted {
            return Err(Failure::usage(format!(
                "the input {:?} has shape {:?}, and a batch of samples of shape {:?} belongs there, the same batch for all inputs",
                input.name,
                values.shape(),
                input.shape
            )));
        }
        Ok(values.iter().copied().collect())
    };
    Ok((spec.inputs.iter().map(one).collect::<Result<_, _>>()?, batch))
}
