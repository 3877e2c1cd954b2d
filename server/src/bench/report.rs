//! What `selkie bench` reports: the JSON document's fields, and the table.

use serde::Serialize;

use super::growth::{self, Curve};
use super::profile::Profiles;
use crate::exit::Failure;
use crate::tools::table::{self, Align, Table};

/// The document.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// The version of the documents.
    pub(super) schema: u32,
    pub(super) machine: Machine,
    /// What `--rtt` and `--bandwidth` emulated.
    pub(super) rtt_ms: f64,
    pub(super) bandwidth: Option<String>,
    /// One small frame's way over a link; `rounds` times this is the floor of a row's `online_ms`.
    pub(super) hop_ms_p50: f64,
    pub(super) rows: Vec<Row>,
    /// What the rows say together, with `--growth`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) growth: Option<Vec<Curve>>,
    /// What could not be measured, and why; then the command ends with an error.
    pub(super) failures: Vec<Failed>,
}

/// Where it was measured.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    pub(super) cpu: Option<String>,
    pub(super) cores: usize,
    pub(super) os: &'static str,
    pub(super) arch: &'static str,
}

/// A row that failed.
#[derive(Debug, Serialize)]
pub(super) struct Failed {
    pub(super) row: String,
    pub(super) why: String,
}

/// One computation by one protocol. Times are medians in milliseconds, bytes and rounds those of one run.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) protocol: &'static str,
    /// Which of the protocol's plans.
    pub(super) variant: String,
    pub(super) batch: usize,
    /// The size that grows, with `--growth`; the name is the sweep's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) size: Option<usize>,
    pub(super) ring_bits: u32,
    pub(super) fraction_bits: u32,
    /// Queries that make up one run, one after the other.
    pub(super) slices: usize,
    /// From shared input to shared output at both servers: from the moment at which the later of the two holds its shares of all
    /// inputs, to the one at which the later of the two holds those of all outputs. Both are processes of this machine and read
    /// the same clock. The client's sending and receiving is not part of it.
    pub(super) online_ms_p50: f64,
    pub(super) online_ms_min: f64,
    /// What the slower server said of itself to the client: that includes its waiting for the other one's inputs.
    pub(super) online_as_told_ms_p50: f64,
    /// From the wish for one run's units, with none at hand, to their having arrived, at the slower server.
    pub(super) offline_ms_p50: f64,
    pub(super) offline_ms_min: f64,
    /// Of that, the crypto producer's own computing.
    pub(super) dealing_ms_p50: f64,
    /// From the client's call to its answer.
    pub(super) end_to_end_ms_p50: f64,
    /// The same in clear, f32, one thread, between the private runs.
    pub(super) plaintext_ms_p50: f64,
    /// Who computed that.
    pub(super) plaintext_by: &'static str,
    /// The largest difference between an output and the same in clear.
    pub(super) max_abs_error: f64,
    pub(super) online_bytes: u64,
    pub(super) offline_bytes: u64,
    pub(super) client_bytes: u64,
    pub(super) rounds: u32,
    pub(super) planned_online_bytes: u64,
    pub(super) planned_offline_bytes: u64,
    pub(super) planned_client_bytes: u64,
    pub(super) planned_rounds: u32,
    /// The most resident memory of each process, with a stock of one query's units; null where the system does not say.
    pub(super) memory_peak_bytes: Memory,
    pub(super) runs: usize,
    /// Where the time went, with `--profile`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) profile: Option<Profiles>,
}

/// Bytes by role.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Memory {
    pub(super) server0: Option<u64>,
    pub(super) server1: Option<u64>,
    pub(super) crypto_producer: Option<u64>,
}

impl Machine {
    pub(super) fn here() -> Self {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        Self {
            cpu: cpu.map(|(_, name)| name.trim().to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            os: std::env::consts::OS,
            arch: std::env::consts::ARCH,
        }
    }
}

impl Row {
    /// What one costs with all dealing.
    pub(super) fn in_all_ms(&self) -> f64 {
        self.online_ms_p50 + self.offline_ms_p50
    }
}

/// Prints the table for people.
///
/// # Errors
/// Standard output is closed.
pub(super) fn print(report: &Report) -> Result<(), Failure> {
    let Machine { cpu, cores, os, arch } = &report.machine;
    let cpu = cpu.as_deref().unwrap_or("an unnamed processor");
    let network = match (report.rtt_ms, &report.bandwidth) {
        (0.0, None) => "loopback".to_owned(),
        (rtt, None) => format!("an emulated network with a round trip of {rtt} ms"),
        (rtt, Some(bandwidth)) => format!("an emulated network with a round trip of {rtt} ms and {bandwidth}"),
    };
    let mut text = format!("{cpu}, {cores} cores, {os} {arch}; three processes over {network}\n");
    text.push_str(&match &report.growth {
        Some(curves) => growth::describe(report, curves),
        None => describe(report),
    });
    for Failed { row, why } in &report.failures {
        text.push_str(&format!("\n{row} could not be measured: {why}\n"));
    }
    table::print(&text)
}

/// A line for each row.
fn describe(report: &Report) -> String {
    let right = Align::Right;
    let mut table = Table::new(&[
        Align::Left,
        Align::Left,
        Align::Left,
        right,
        right,
        right,
        right,
        right,
        right,
        right,
        right,
        right,
        right,
        right,
        right,
        right,
    ]);
    table.header([
        "row", "protocol", "variant", "k", "batch", "online", "ahead", "both", "asked", "clear", "rounds", "floor",
        "online", "ahead", "client", "memory",
    ]);
    for row in &report.rows {
        let Memory { server0, server1, crypto_producer } = row.memory_peak_bytes;
        let peak = [server0, server1, crypto_producer].into_iter().flatten().max();
        table.row([
            row.name.to_owned(),
            row.protocol.to_owned(),
            row.variant.clone(),
            row.ring_bits.to_string(),
            row.batch.to_string(),
            ms(row.online_ms_p50),
            ms(row.offline_ms_p50),
            ms(row.in_all_ms()),
            ms(row.end_to_end_ms_p50),
            ms(row.plaintext_ms_p50),
            row.rounds.to_string(),
            ms(f64::from(row.rounds) * report.hop_ms_p50),
            table::bytes(row.online_bytes),
            table::bytes(row.offline_bytes),
            table::bytes(row.client_bytes),
            peak.map_or_else(|| "–".to_owned(), table::bytes),
        ]);
    }
    let mut text = format!(
        "times in ms, medians; asked: from the client's call to its answer; clear: f32, one thread; floor: rounds times one hop of {} ms; \
         memory: the largest process\n\n{table}",
        ms(report.hop_ms_p50)
    );
    for row in &report.rows {
        if let Some(profile) = &row.profile {
            let Row { name, protocol, variant, batch, ring_bits, .. } = row;
            text.push_str(&format!("\n{name} by {protocol} ({variant}), batch {batch}, k = {ring_bits}\n{profile}"));
        }
    }
    text
}

/// Milliseconds to three digits that matter.
pub(super) fn ms(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v if v >= 1.0 => format!("{v:.2}"),
        v => format!("{v:.3}"),
    }
}
