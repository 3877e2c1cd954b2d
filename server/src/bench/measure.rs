//! One row: the parties are started, the model is deployed, and the same is asked over and over, each time with the stock
//! full, which is then filled again. In between, the same is computed in clear.

use std::time::{Duration, Instant};

use selkie::plan::Plan;
use selkie::{Objective, PlanError, Protocol, Role};

use super::profile::Profiles;
use super::report::{Memory, Row};
use super::statistics::{least, median};
use super::trial::{Setting, Trial};
use super::workload::{Prepared, Workload};
use crate::client::{Client, Question};
use crate::exit::Failure;
use crate::model;
use crate::node::measured::{Measurement, Profile};

/// The model's name at the parties.
const MODEL: &str = "bench";
/// Runs that are not counted, at most: caches fill, connections grow. Rows of a million elements have one.
const WARM_UP: usize = 3;
/// What is computed in clear between two private runs takes about this long.
const CLEAR: Duration = Duration::from_millis(1);

/// What is measured of one row.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) workload: Workload,
    pub(super) protocol: Protocol,
    /// What the variant is chosen for.
    pub(super) objective: Objective,
    /// Whether there is another variant.
    pub(super) several: bool,
    pub(super) ring_bits: u32,
    pub(super) batch: usize,
    pub(super) runs: usize,
}

impl Order {
    /// The variant's name.
    fn variant(&self) -> &'static str {
        if self.several { self.objective.name() } else { "default" }
    }
}

impl std::fmt::Display for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self { workload, protocol, ring_bits, batch, .. }, variant) = (self, self.variant());
        write!(f, "{workload} by {protocol} ({variant}), batch {}, k = {ring_bits}", workload.listed(*batch))
    }
}

/// Measures one row; `None`: the protocol cannot compute it.
///
/// # Errors
/// A party fails, or something was measured that was not planned.
pub(super) async fn measure(order: &Order, setting: &Setting) -> Result<Option<Row>, Failure> {
    let (samples, slices) = order.workload.queries(order.batch);
    let prepared = Prepared::new(order.workload, samples, order.ring_bits)?;
    let plan = match Plan::of_variant(&prepared.program, order.protocol, order.objective.into()) {
        Err(PlanError::Unsupported { .. }) => return Ok(None),
        plan => plan.map_err(model::Error::from)?,
    };
    let setting = Setting { stock_units: samples, ..setting.clone() };
    let mut trial = Trial::start(&setting)?;
    let mut measuring = Measuring { prepared, plan, trial: &mut trial, samples, dealing: 0.0 };
    let seen = measuring.run(order, slices).await;
    let (measurements, prepared) = (seen, measuring.prepared);
    let runs = measurements.map_err(|failure| trial.explain(failure))?;
    let memory = memory(&trial);
    let numbers = prepared.program.numbers();
    let Runs { online, told, offline, dealing, end_to_end, clear, cost, error, begin, profiles } = runs;
    let [by0, by1] = &begin;
    let profile = setting.profile.then(|| Profiles::new(&profiles, [mean(by0), mean(by1)]));
    Ok(Some(Row {
        name: order.workload.name(),
        protocol: order.protocol.name(),
        variant: order.variant().to_owned(),
        batch: order.workload.listed(order.batch),
        size: order.workload.size(),
        ring_bits: numbers.ring_bits,
        fraction_bits: numbers.fraction_bits,
        slices,
        online_ms_p50: median(&online),
        online_ms_min: least(&online),
        online_as_told_ms_p50: median(&told),
        offline_ms_p50: median(&offline),
        offline_ms_min: least(&offline),
        dealing_ms_p50: median(&dealing),
        end_to_end_ms_p50: median(&end_to_end),
        plaintext_ms_p50: median(&clear),
        plaintext_by: prepared.clear.by(),
        max_abs_error: error,
        online_bytes: cost.online,
        offline_bytes: cost.offline,
        client_bytes: cost.client,
        rounds: cost.rounds,
        planned_online_bytes: cost.planned_online,
        planned_offline_bytes: cost.planned_offline,
        planned_client_bytes: cost.planned_client,
        planned_rounds: cost.planned_rounds,
        memory_peak_bytes: memory,
        runs: online.len(),
        profile,
    }))
}

fn memory(trial: &Trial) -> Memory {
    let mut memory = Memory::default();
    for (role, peak) in trial.memory_peaks() {
        *match role {
            Role::Server0 => &mut memory.server0,
            Role::Server1 => &mut memory.server1,
            Role::CryptoProducer => &mut memory.crypto_producer,
        } = peak;
    }
    memory
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// What all counted runs took, in milliseconds, and cost.
#[derive(Default)]
struct Runs {
    online: Vec<f64>,
    told: Vec<f64>,
    offline: Vec<f64>,
    dealing: Vec<f64>,
    end_to_end: Vec<f64>,
    clear: Vec<f64>,
    cost: Cost,
    error: f64,
    /// Each server's own microseconds for a query.
    begin: [Vec<f64>; 2],
    profiles: Vec<(Role, Profile)>,
}

/// What one run moved, and should have.
#[derive(Clone, Debug, Default, PartialEq)]
struct Cost {
    rounds: u32,
    online: u64,
    offline: u64,
    client: u64,
    planned_rounds: u32,
    planned_online: u64,
    planned_offline: u64,
    planned_client: u64,
}

/// What one run took, in milliseconds.
#[derive(Default)]
struct Once {
    online: f64,
    told: f64,
    offline: f64,
    dealing: f64,
    end_to_end: f64,
    cost: Cost,
    error: f64,
}

struct Measuring<'a> {
    prepared: Prepared,
    plan: Plan,
    trial: &'a mut Trial,
    samples: usize,
    /// The crypto producer's milliseconds since they were last asked for.
    dealing: f64,
}

impl Measuring<'_> {
    async fn run(&mut self, order: &Order, slices: usize) -> Result<Runs, Failure> {
        let (program, weights) = (&self.prepared.program, &self.prepared.weights);
        self.trial.deploy(MODEL, program, weights, order.protocol, order.objective).await?;
        let mut runs = Runs::default();
        self.settled(&mut runs, false).await?;
        let mut client = Client::connect(&self.trial.cluster).await?;
        let warm_up = if order.workload.is_million() { 1 } else { WARM_UP };
        for run in 0..warm_up + order.runs {
            let clear = self.in_clear(slices)?;
            let mut once = Once::default();
            for _ in 0..slices {
                self.ask(&mut client, &mut once, &mut runs).await?;
            }
            if run < warm_up {
                runs = Runs::default();
                continue;
            }
            if !runs.online.is_empty() && once.cost != runs.cost {
                return Err(Failure::other("a bug in selkie, please report it: two runs moved different amounts"));
            }
            runs.online.push(once.online);
            runs.told.push(once.told);
            runs.offline.push(once.offline);
            runs.dealing.push(once.dealing);
            runs.end_to_end.push(once.end_to_end);
            runs.clear.push(clear);
            runs.error = runs.error.max(once.error);
            runs.cost = once.cost;
        }
        Ok(runs)
    }

    /// One query, and then the stock is filled again.
    async fn ask(&mut self, client: &mut Client, once: &mut Once, runs: &mut Runs) -> Result<(), Failure> {
        let (inputs, wanted) = (self.prepared.inputs.clone(), self.prepared.step()?);
        let start = Instant::now();
        let question = Question { model: MODEL, inputs, batch: self.samples, ..Question::default() };
        let answer = client.ask(question).await?;
        once.end_to_end += start.elapsed().as_secs_f64() * 1e3;
        let micros = answer.stats.each_ref().map(|stats| stats.micros as f64);
        let [zero, one] = micros;
        once.told += zero.max(one) / 1e3;
        for (all, micros) in runs.begin.iter_mut().zip(micros) {
            all.push(micros);
        }
        let [first, _] = &answer.stats;
        let planned = &first.planned;
        let pairs = [
            ("rounds", u64::from(answer.rounds()), u64::from(planned.rounds)),
            ("online bytes", answer.online_bytes(), planned.online_bytes),
            ("offline bytes", answer.offline_bytes(), planned.offline_bytes),
            ("client bytes", answer.client_bytes, planned.client_bytes),
        ];
        if let Some((what, measured, planned)) = pairs.into_iter().find(|(_, measured, planned)| measured != planned) {
            return Err(Failure::other(format!(
                "a bug in selkie, please report it: {measured} {what} were measured, where the plan says {planned}"
            )));
        }
        once.cost.rounds += answer.rounds();
        once.cost.online += answer.online_bytes();
        once.cost.offline += answer.offline_bytes();
        once.cost.client += answer.client_bytes;
        once.cost.planned_rounds += planned.rounds;
        once.cost.planned_online += planned.online_bytes;
        once.cost.planned_offline += planned.offline_bytes;
        once.cost.planned_client += planned.client_bytes;
        let pairs = answer.outputs.iter().zip(&wanted).flat_map(|(got, wanted)| got.iter().zip(wanted));
        let error = pairs.map(|(got, wanted)| f64::from((got - wanted).abs())).fold(0.0, f64::max);
        once.error = once.error.max(error);
        let (online, offline) = self.settled(runs, true).await?;
        (once.online, once.offline) = (once.online + online, once.offline + offline);
        once.dealing += std::mem::take(&mut self.dealing);
        Ok(())
    }

    /// Waits until both servers have said how long the query took, if there was one, and have units for the next. Gives the
    /// milliseconds of the query, and those that the slower one waited for the units.
    async fn settled(&mut self, runs: &mut Runs, asked: bool) -> Result<(f64, f64), Failure> {
        let (mut from, mut to, mut answers) = (0, 0, if asked { 2 } else { 0 });
        let mut waited = [Role::Server0, Role::Server1].map(|role| {
            let stocked = self.plan.unit_bytes(role) > 0 || self.plan.prepares();
            let units = if stocked { self.samples as u64 } else { 0 };
            (role, units, 0.0)
        });
        while answers > 0 || waited.iter().any(|(_, missing, _)| *missing > 0) {
            let (role, measurement) = self.trial.measurement().await?;
            match measurement {
                Measurement::Answered { from: begun, to: ended } => {
                    (from, to, answers) = (from.max(begun), to.max(ended), answers - 1);
                }
                Measurement::Stocked { units, micros } => {
                    for (_, missing, ms) in waited.iter_mut().filter(|(of, ..)| *of == role) {
                        *missing = missing.saturating_sub(units);
                        *ms += micros as f64 / 1e3;
                    }
                }
                other => self.note(role, other, runs),
            }
        }
        for (role, measurement) in self.trial.measured() {
            self.note(role, measurement, runs);
        }
        let online = to.saturating_sub(from) as f64 / 1e6;
        Ok((online, waited.into_iter().map(|(.., ms)| ms).fold(0.0, f64::max)))
    }

    fn note(&mut self, role: Role, measurement: Measurement, runs: &mut Runs) {
        match measurement {
            Measurement::Stocked { .. } | Measurement::Answered { .. } => {}
            Measurement::Dealt { micros, .. } => self.dealing += micros as f64 / 1e3,
            Measurement::Session(profile) => runs.profiles.push((role, profile)),
        }
    }

    /// The median of what one run takes in clear.
    fn in_clear(&self, slices: usize) -> Result<f64, Failure> {
        let (mut times, start) = (Vec::new(), Instant::now());
        loop {
            let once = Instant::now();
            std::hint::black_box(self.prepared.in_clear()?);
            times.push(once.elapsed().as_secs_f64() * 1e3);
            if start.elapsed() > CLEAR {
                return Ok(median(&times) * slices as f64);
            }
        }
    }
}
