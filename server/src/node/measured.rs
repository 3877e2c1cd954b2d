//! What a party measures of itself: events under the log target [`TARGET`], for `selkie bench` and whoever else wants them.
//! `SELKIE_LOG=info,selkie::measured=debug` says how long dealing takes, `…=trace` also where each query's time goes; both say
//! nothing of the data, since no step's time depends on it.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Instant, SystemTime};

use selkie::Role;
use selkie::party::{Timed, Work};
use serde::{Deserialize, Serialize};

/// The target of these events.
pub(crate) const TARGET: &str = "selkie::measured";

/// One event; the log's message is its JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Measurement {
    /// A server: from the wish for these units to their having arrived.
    Stocked { units: u64, micros: u64 },
    /// The crypto producer: computing these units for a server, without their way.
    Dealt { to: Role, units: u64, micros: u64 },
    /// A server's part in a query, from holding its shares of all inputs to holding those of all outputs: nanoseconds since 1970,
    /// so that what two processes of one machine say can be compared.
    Answered { from: u64, to: u64 },
    /// A party's part in one session.
    Session(Profile),
}

/// Where one party's time went in one session, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Profile {
    /// From the opened channels to the machine's first step.
    pub(crate) start: u64,
    /// Making the machine: unpacking inputs and material.
    pub(crate) make: u64,
    /// Waiting for each peer.
    pub(crate) wait: BTreeMap<String, u64>,
    /// Giving frames to the links.
    pub(crate) send: u64,
    /// Each gate's work: making messages, the rest, packing, unpacking.
    pub(crate) gates: BTreeMap<String, [u64; 4]>,
    /// All of the session from its opened channels on, with what is not accounted for.
    pub(crate) total: u64,
}

impl Profile {
    pub(crate) fn add(&mut self, timeline: &[Timed]) {
        for timed in timeline {
            let [send, finish, pack, unpack] = self.gates.entry(timed.gate.to_owned()).or_default();
            *match timed.work {
                Work::Send => send,
                Work::Finish => finish,
                Work::Pack => pack,
                Work::Unpack => unpack,
            } += timed.nanoseconds;
        }
    }
}

/// Nanoseconds since this process first asked.
pub(crate) fn clock() -> u64 {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    u64::try_from(ORIGIN.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds since 1970.
pub(crate) fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Whether anybody wants profiles: taking them costs time.
pub(crate) fn profiled() -> bool {
    tracing::enabled!(target: TARGET, tracing::Level::TRACE)
}

/// Says what was measured, if anybody listens.
pub(crate) fn say(measurement: &Measurement) {
    if tracing::enabled!(target: TARGET, tracing::Level::DEBUG) {
        tracing::debug!(target: TARGET, "{}", serde_json::to_string(measurement).unwrap_or_default());
    }
}
