//! A program run by the three parties of a cluster, for as long as one needs it.
//!
//! ```text
//! Session::remote ── program, shares of the weights ──▶ three parties      in their memory, while the session lives
//!   run           ── shares of the inputs ────────────▶ two servers        as often as one likes
//!   close, drop   ── it is no longer needed ──────────▶ three parties      which forget it
//! ```

use std::collections::BTreeMap;

use ndarray::{ArrayD, ArrayViewD};
use selkie::client::message::Planned;
use selkie::client::{Answer, ClientSpec};
use selkie::plan::Plan;
use selkie::program::{EntryPoints, Program, RUN, Weights, no_entry};
use selkie::{Blame, Protocol, Variant};

use crate::client::{Client, Keys, Question};
use crate::config::Cluster;
use crate::deploy::{Held, Offer, each, fresh_version, hold};
use crate::exit::{Exit, Failure};
use crate::identity::Identity;
use crate::link::Me;
use crate::store::suffix;

/// A program at the three parties of a cluster, and a client of it who acts for all of its players.
pub struct Session {
    cluster: Cluster,
    name: String,
    /// By entry point.
    specs: BTreeMap<String, ClientSpec>,
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
    /// The outputs in the program's order: who receives each, and its value. Batches have an axis more, in front.
    pub outputs: Vec<(String, ArrayD<f32>)>,
    /// What it cost.
    pub statistics: Statistics,
}

impl Ran {
    /// The first output that `player` receives.
    ///
    /// # Errors
    /// There is none.
    pub fn output(&self, player: &str) -> Result<ArrayD<f32>, Failure> {
        let found = self.outputs.iter().find(|(receiver, _)| receiver == player);
        let missing = || Failure::usage(format!("no output is granted to {player}"));
        found.map(|(_, value)| value.clone()).ok_or_else(missing)
    }
}

/// What its caller did wrong.
fn yours(blame: Blame) -> Failure {
    Failure::usage(blame.to_string())
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
    /// Deploys a program, or several entry points, that live as long as the session: in the parties' memory, never on disk, and
    /// so with what they keep from run to run. `deployer` is one of the cluster's `[deployers]`, `keys` are those of the
    /// programs' players whom the cluster pins in `[players]`.
    ///
    /// # Errors
    /// A program cannot be planned, the weights do not fit it, a party is missing, or refuses.
    pub async fn remote(
        cluster: &Cluster,
        deployer: Identity,
        keys: Keys,
        programs: impl Into<EntryPoints>,
        weights: &Weights,
        protocol: Protocol,
    ) -> Result<Self, Failure> {
        let (version, programs) = (fresh_version()?, programs.into());
        let name = format!("session-{version:016x}");
        let spec = |(entry, program): (&str, &Program)| {
            let plan = Plan::new(program, protocol).map_err(Failure::usage)?;
            Ok((entry.to_owned(), ClientSpec::new(program, &plan)))
        };
        let specs = programs.iter().map(spec).collect::<Result<_, Failure>>()?;
        let variant = Variant::default();
        let runs = &each(&[protocol], &programs);
        let offer = Offer { name: &name, version, runs, weights, variant };
        let held = hold(cluster, &Me::deployer(deployer)?, &offer).await?;
        let client = Client::connect(cluster).await?.with_keys(keys);
        Ok(Self { cluster: cluster.clone(), name, specs, held, client })
    }

    /// The name under which other clients may ask the program, too, while the session lives; entry points as `NAME:ENTRY`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What clients know of an entry point.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn spec(&self, entry: &str) -> Result<&ClientSpec, Failure> {
        self.specs.get(entry).ok_or_else(|| Failure::usage(no_entry(entry, self.specs.keys().map(String::as_str))))
    }

    /// Runs the program, or its only entry point, once. `inputs` are fed by name; each has its input's shape, or that of a batch of
    /// them, with an axis more in front.
    ///
    /// # Errors
    /// An input is missing, unknown or of another shape; the servers refuse; a party has gone, and the session with it.
    pub async fn run(&mut self, inputs: &[(&str, ArrayViewD<'_, f32>)]) -> Result<Ran, Failure> {
        let only = if self.specs.len() == 1 { self.specs.keys().next().cloned() } else { None };
        self.call(only.as_deref().unwrap_or(RUN), inputs).await
    }

    /// Runs an entry point once, as [`Session::run`]. What it assigns, all others find from then on.
    ///
    /// # Errors
    /// There is no such entry point; or as [`Session::run`].
    pub async fn call(&mut self, entry: &str, inputs: &[(&str, ArrayViewD<'_, f32>)]) -> Result<Ran, Failure> {
        let spec = self.spec(entry)?;
        let (inputs, batch) = spec.batch(inputs).map_err(yours)?;
        let ours = (spec.program, spec.plan);
        self.held.check()?;
        let model = format!("{}{}", self.name, suffix(entry, None));
        let answered =
            self.client.ask(Question { model: &model, inputs, batch: batch.unwrap_or(1), ..Question::default() }).await;
        // A party that has lost the program may say so before its link is known to be lost.
        let answer = answered.map_err(|failure| self.held.check().err().unwrap_or(failure))?;
        if (answer.spec.program, answer.spec.plan) != ours {
            return Err(Failure::new(
                Exit::PeerFailed,
                "the servers ran another program than this session's: trust neither",
            ));
        }
        let statistics = Statistics::from(&answer);
        let outputs = answer.spec.shaped(answer.outputs, batch).map_err(Failure::other)?;
        Ok(Ran { outputs, statistics })
    }

    /// Ends the session, and hears from all three parties that the program is gone. Dropping it ends it, too.
    ///
    /// # Errors
    /// A party has gone already, and the program with it.
    pub async fn close(self) -> Result<(), Failure> {
        self.held.retire(&self.cluster).await
    }
}
