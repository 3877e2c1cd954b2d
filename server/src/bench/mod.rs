//! `selkie bench`: what the protocols cost, in three processes over loopback sockets as in production, beside the same
//! computation in clear.
//!
//! Each row starts parties of its own, so that its peak of memory is its own, with a stock of exactly one query's units: every
//! query burns all of it. Dealing waits until the query is over, so that online and offline are measured apart and on an idle
//! machine. What was measured must be what was planned, in every run.

mod growth;
mod hop;
mod measure;
mod profile;
mod report;
mod statistics;
mod svg;
mod trial;
mod workload;

use std::path::PathBuf;

use selkie::{Objective, Protocol};

use crate::cli::stopped;
use crate::config::Bandwidth;
use crate::exit::Failure;
use crate::tools::report::{SCHEMA, print_json};
use crate::tools::{progress_bar, protocol};
use growth::Sweep;
use measure::{Order, measure};
use report::{Failed, Machine, Report};
use trial::Setting;
use workload::Workload;

/// The rings that rows are measured in.
const RINGS: [u32; 2] = [32, 64];
/// The batches of networks.
const BATCHES: [usize; 3] = [1, 32, 128];
/// Runs of a row, without and with --quick.
const RUNS: [usize; 2] = [30, 5];

/// What `selkie bench` is asked to do.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// These rows alone, such as network_a,matmul_784x128,relu_1m.
    #[arg(long, value_name = "ROW,…", value_delimiter = ',', value_parser = Workload::named)]
    only: Vec<Workload>,
    /// These protocols alone.
    #[arg(long, value_name = "P,…", value_delimiter = ',', value_parser = protocol)]
    protocol: Vec<Protocol>,
    /// How cost grows, over these sweeps or over all: batch,width,depth. Fitted exponents stand beside those to expect, by fss and
    /// table and in a ring of 32 bits, unless others are asked for.
    #[arg(long, value_name = "SWEEP,…", num_args = 0..=1, value_delimiter = ',')]
    #[arg(conflicts_with_all = ["only", "batch", "profile", "svg"])]
    growth: Option<Vec<Sweep>>,
    /// Bits of the ring [default: 32,64].
    #[arg(long, value_name = "K,…", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(8..=64))]
    ring: Vec<u32>,
    /// Networks' batches [default: 1,32,128].
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=65_536))]
    batch: Vec<u32>,
    /// Runs of each row [default: 30, with --quick 5].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    runs: Option<u32>,
    /// Few runs, batch 1, and no rows of a million elements, unless they are asked for.
    #[arg(long)]
    quick: bool,
    /// Emulate a network with this round trip, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 0.0)]
    rtt: f64,
    /// Emulate a network with this bandwidth in each direction of each connection, such as 100mbit.
    #[arg(long, value_name = "RATE", value_parser = bandwidth)]
    bandwidth: Option<String>,
    /// Say where the time goes; this takes a little time itself.
    #[arg(long)]
    profile: bool,
    /// Print one JSON document instead of a table.
    #[arg(long)]
    json: bool,
    /// Draw the times as bars.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

fn bandwidth(text: &str) -> Result<String, String> {
    text.parse::<Bandwidth>().map(|_| text.to_owned())
}

/// Measures and reports.
///
/// # Errors
/// A row could not be measured, or differs from its plan; the others are reported all the same.
pub async fn run(args: &Args) -> Result<(), Failure> {
    let mut report = Report {
        schema: SCHEMA,
        machine: Machine::here(),
        rtt_ms: args.rtt,
        bandwidth: args.bandwidth.clone(),
        hop_ms_p50: 0.0,
        rows: Vec::new(),
        growth: None,
        failures: Vec::new(),
    };
    let interrupted = tokio::select! {
        measured = bench(args, &mut report) => {
            measured?;
            false
        }
        // What is dropped ends the processes.
        () = stopped() => true,
    };
    if interrupted {
        report.failures.push(Failed { row: "the rest".to_owned(), why: "interrupted".to_owned() });
    }
    report.growth = args.growth.is_some().then(|| growth::curves(&report.rows, report.hop_ms_p50));
    if let Some(file) = &args.svg {
        std::fs::write(file, svg::draw(&report))
            .map_err(|e| Failure::other(format!("{} cannot be written: {e}", file.display())))?;
    }
    if args.json {
        print_json(&report)?
    } else {
        report::print(&report)?
    }
    match report.failures.as_slice() {
        [] => Ok(()),
        [first, rest @ ..] => Err(Failure::other(format!(
            "{} could not be measured: {}{}",
            first.row,
            first.why,
            if rest.is_empty() { String::new() } else { format!("; and {} more", rest.len()) }
        ))),
    }
}

async fn bench(args: &Args, report: &mut Report) -> Result<(), Failure> {
    let setting =
        Setting { stock_units: 1, rtt_ms: args.rtt, bandwidth: args.bandwidth.clone(), profile: args.profile };
    report.hop_ms_p50 = hop::hop_ms(&setting).await?;
    let orders = orders(args);
    let bar = progress_bar(orders.len(), "measuring");
    for order in orders {
        bar.set_message(order.to_string());
        match measure(&order, &setting).await {
            Ok(row) => report.rows.extend(row),
            Err(failure) => report.failures.push(Failed { row: order.to_string(), why: failure.message }),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

fn orders(args: &Args) -> Vec<Order> {
    let [full, few] = RUNS;
    let runs = args.runs.map_or(if args.quick { few } else { full }, |runs| runs as usize);
    if let Some(sweeps) = &args.growth {
        return growth::orders(sweeps, &args.protocol, &args.ring, runs);
    }
    let rings = or(&args.ring, &RINGS);
    let batches: Vec<usize> = match (args.batch.is_empty(), args.quick) {
        (false, _) => args.batch.iter().map(|batch| *batch as usize).collect(),
        (true, true) => vec![1],
        (true, false) => BATCHES.to_vec(),
    };
    let mut orders = Vec::new();
    for workload in Workload::ALL {
        let chosen =
            if args.only.is_empty() { !(args.quick && workload.is_million()) } else { args.only.contains(&workload) };
        let batches = if workload.has_batches() { batches.as_slice() } else { &[1] };
        for (batch, ring_bits) in batches.iter().filter(|_| chosen).flat_map(|b| rings.iter().map(|r| (*b, *r))) {
            for protocol in or(&args.protocol, Protocol::ALL).iter().copied() {
                let (objectives, several) = forms(protocol, workload);
                for objective in objectives.iter().copied().filter(|_| workload.is_for(protocol)) {
                    orders.push(Order { workload, protocol, objective, several, ring_bits, batch, runs });
                }
            }
        }
    }
    orders
}

/// What is given, or what is usual where nothing is.
fn or<'a, T>(given: &'a [T], usual: &'a [T]) -> &'a [T] {
    if given.is_empty() { usual } else { given }
}

/// What a protocol's variants are chosen for, and whether there is more than one.
fn forms(protocol: Protocol, workload: Workload) -> (&'static [Objective], bool) {
    // The other protocols have one form only.
    let several = matches!(protocol, Protocol::Table | Protocol::Fss) && workload.has_variants();
    (if several { Objective::ALL } else { &[Objective::Bytes] }, several)
}
