//! Three parties as processes of their own, over loopback sockets, with keys and a configuration that are thrown away.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use selkie::program::{Program, Weights};
use selkie::{Objective, Protocol, Role};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::config::Cluster;
use crate::deploy::{Held, Offer, each, fresh_version, hold};
use crate::exit::{Exit, Failure};
use crate::identity::{Identity, KEY_VARIABLE};
use crate::init::{DEPLOYER_KEY_FILE, write_local};
use crate::link::Me;
use crate::node::measured::{Measurement, TARGET};
use crate::scratch::Scratch;

/// How long the parties may take to find each other.
const START: Duration = Duration::from_secs(30);
/// How long anything may take that a party was asked to do.
const LONG: Duration = Duration::from_secs(600);
/// What a party said last is kept for whoever must find out why it failed.
const LAST_WORDS: usize = 8;

/// How the parties are to be.
#[derive(Clone, Debug, Default)]
pub(super) struct Setting {
    /// Units that the servers keep of a model.
    pub(super) stock_units: usize,
    pub(super) rtt_ms: f64,
    pub(super) bandwidth: Option<String>,
    /// Whether the parties say where each query's time goes.
    pub(super) profile: bool,
}

/// Three processes. Dropping it ends them.
pub(super) struct Trial {
    pub(super) cluster: Cluster,
    deployer: Me,
    held: Option<Held>,
    parties: Vec<Running>,
    measurements: mpsc::UnboundedReceiver<(Role, Measurement)>,
    /// Outlives the processes.
    _scratch: Scratch,
}

struct Running {
    role: Role,
    child: Child,
    last_words: Arc<Mutex<VecDeque<String>>>,
}

/// A line of a party's log.
#[derive(Deserialize)]
struct Line {
    target: String,
    fields: Fields,
}

#[derive(Deserialize)]
struct Fields {
    message: String,
}

impl Trial {
    /// Starts them, from this very executable.
    ///
    /// # Errors
    /// A process cannot be started, or there is no room for its files.
    pub(super) fn start(setting: &Setting) -> Result<Self, Failure> {
        let scratch = Scratch::new("bench")?;
        write_local(scratch.path())?;
        let path = scratch.path().join("cluster.toml");
        configure(&path, setting)?;
        let cluster = Cluster::load(&path)?;
        let deployer = Me::deployer(Identity::load(&scratch.path().join(DEPLOYER_KEY_FILE))?)?;
        let program = std::env::current_exe()?;
        let (sender, measurements) = mpsc::unbounded_channel();
        let mut trial = Self { cluster, deployer, held: None, parties: Vec::new(), measurements, _scratch: scratch };
        let level = if setting.profile { "trace" } else { "debug" };
        for role in Role::ALL {
            let mut command = Command::new(&program);
            command.args([role.name(), "--config"]).arg(&path).env_remove(KEY_VARIABLE);
            command.env("SELKIE_LOG", format!("warn,{TARGET}={level}"));
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
            let mut child = command.spawn()?;
            let log = child.stderr.take();
            let last_words = Arc::new(Mutex::new(VecDeque::new()));
            trial.parties.push(Running { role, child, last_words: last_words.clone() });
            if let Some(log) = log {
                let sender = sender.clone();
                // It ends with the process.
                std::thread::spawn(move || listen(role, log, &sender, &last_words));
            }
        }
        Ok(trial)
    }

    /// Deploys a program, in the parties' memory, as soon as all three are there.
    ///
    /// # Errors
    /// They refuse, or are not there for too long.
    pub(super) async fn deploy(
        &mut self,
        name: &str,
        program: &Program,
        weights: &Weights,
        protocol: Protocol,
        objective: Objective,
    ) -> Result<(), Failure> {
        let start = Instant::now();
        loop {
            let (version, programs, variant) = (fresh_version()?, program.into(), objective.into());
            let runs = &each(&[protocol], &programs);
            let offer = Offer { name, version, runs, weights, variant };
            match hold(&self.cluster, &self.deployer, &offer).await {
                Err(failure) if failure.exit == Exit::PeerFailed && start.elapsed() < START => {
                    self.alive()?;
                    sleep(Duration::from_millis(30)).await;
                }
                held => {
                    self.held = Some(held?);
                    return Ok(());
                }
            }
        }
    }

    /// The next thing that a party measured.
    ///
    /// # Errors
    /// A party has ended, or says nothing for too long.
    pub(super) async fn measurement(&mut self) -> Result<(Role, Measurement), Failure> {
        let start = Instant::now();
        while start.elapsed() < LONG {
            if let Ok(Some(measurement)) = timeout(Duration::from_secs(1), self.measurements.recv()).await {
                return Ok(measurement);
            }
            self.alive()?;
        }
        Err(Failure::new(Exit::PeerFailed, "the parties measured nothing for ten minutes"))
    }

    /// What was measured and not asked for yet.
    pub(super) fn measured(&mut self) -> Vec<(Role, Measurement)> {
        std::iter::from_fn(|| self.measurements.try_recv().ok()).collect()
    }

    /// The most memory that each party has had at one time, in bytes, where the system says so.
    pub(super) fn memory_peaks(&self) -> Vec<(Role, Option<u64>)> {
        let peak = |running: &Running| {
            let status = std::fs::read_to_string(format!("/proc/{}/status", running.child.id())).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
            Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
        };
        self.parties.iter().map(|running| (running.role, peak(running))).collect()
    }

    fn alive(&mut self) -> Result<(), Failure> {
        for running in &mut self.parties {
            if let Some(status) = running.child.try_wait()? {
                let failure = Failure::new(Exit::PeerFailed, format!("{} ended by itself: {status}", running.role));
                return Err(failure);
            }
        }
        Ok(())
    }

    /// The failure with what the parties said last.
    pub(super) fn explain(&self, failure: Failure) -> Failure {
        let mut message = failure.message;
        for running in &self.parties {
            for line in running.last_words.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                message.push_str(&format!("\n  {}: {line}", running.role));
            }
        }
        Failure::new(failure.exit, message)
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        for running in &mut self.parties {
            // It may have ended by itself.
            let _ = running.child.kill();
        }
        for running in &mut self.parties {
            let _ = running.child.wait();
        }
    }
}

/// Sorts a party's log: measurements to whoever measures, the rest kept for a while.
fn listen(
    role: Role,
    log: impl std::io::Read,
    measurements: &mpsc::UnboundedSender<(Role, Measurement)>,
    last_words: &Mutex<VecDeque<String>>,
) {
    for line in BufReader::new(log).lines().map_while(Result::ok) {
        let parsed = serde_json::from_str::<Line>(&line).ok().filter(|line| line.target == TARGET);
        if let Some(measurement) = parsed.and_then(|line| serde_json::from_str(&line.fields.message).ok()) {
            // Nobody measures any more.
            let _ = measurements.send((role, measurement));
            continue;
        }
        let mut words = last_words.lock().unwrap_or_else(PoisonError::into_inner);
        words.push_back(line);
        if words.len() > LAST_WORDS {
            words.pop_front();
        }
    }
}

/// Changes what `selkie init` wrote.
fn configure(path: &std::path::Path, setting: &Setting) -> Result<(), Failure> {
    let mut file: toml::Table = toml::from_str(&std::fs::read_to_string(path)?).map_err(Failure::other)?;
    let limits = file.entry("limits").or_insert_with(|| toml::Table::new().into()).as_table_mut();
    let limits = limits.ok_or_else(|| Failure::other("a bug here: [limits] is no table"))?;
    limits.insert("stock_units".to_owned(), i64::try_from(setting.stock_units).map_err(Failure::other)?.into());
    // Online and offline are measured apart.
    limits.insert("deal_while_computing".to_owned(), false.into());
    limits.insert("idle_seconds".to_owned(), 600.into());
    if setting.rtt_ms > 0.0 || setting.bandwidth.is_some() {
        let mut emulation = toml::Table::new();
        emulation.insert("rtt_ms".to_owned(), setting.rtt_ms.into());
        if let Some(bandwidth) = &setting.bandwidth {
            emulation.insert("bandwidth".to_owned(), bandwidth.clone().into());
        }
        file.insert("emulation".to_owned(), emulation.into());
    }
    std::fs::write(path, toml::to_string(&file).map_err(Failure::other)?)?;
    Ok(())
}
