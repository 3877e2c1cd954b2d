//! `selkie plan`: what a model will cost and disclose, exactly, before it runs.

use std::fmt::Write as _;
use std::path::PathBuf;

use selkie::plan::{LinkCost, Phase, Plan};
use selkie::program::{Node, Op, Program};
use selkie::{Objective, PlanError, Protocol, Variant};

use super::report::{Compared, Planned, SCHEMA, print_json};
use super::table::{self, Align, Table};
use super::{name_of, objective, protocol};
use crate::exit::Failure;
use crate::model::{self, ModelArgs};
use crate::onnx;
use crate::train::Net;

/// The columns of a terminal that text is wrapped to.
const WIDTH: usize = 98;

/// What `selkie plan` is asked to do.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The model.
    #[arg(value_name = "MODEL.onnx", required_unless_present = "net")]
    pub model: Option<PathBuf>,
    /// A network by name, for its shapes alone: without weights nothing can be proved, so its bounds are declared.
    #[arg(long, value_enum, conflicts_with_all = ["model", "calibrate"])]
    pub net: Option<Net>,
    /// The protocol, or `all`.
    #[arg(long, value_parser = choice, default_value_t)]
    pub protocol: Choice,
    /// What the variants of `fss` and `table` are chosen for: latency or bytes.
    #[arg(long, value_parser = objective, default_value_t)]
    pub objective: Objective,
    /// The images in the batch that costs are given for.
    #[arg(long, default_value_t = 1)]
    pub batch: usize,
    /// How the model becomes a program.
    #[command(flatten)]
    pub how: ModelArgs,
    /// Print one JSON document instead of tables.
    #[arg(long)]
    pub json: bool,
}

/// The protocols to plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// One of them.
    One(Protocol),
    /// Each of them.
    All,
}

impl Default for Choice {
    fn default() -> Self {
        Self::One(Protocol::default())
    }
}

impl std::fmt::Display for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::One(protocol) => protocol.fmt(f),
            Self::All => f.write_str("all"),
        }
    }
}

fn choice(name: &str) -> Result<Choice, String> {
    if name == "all" { Ok(Choice::All) } else { protocol(name).map(Choice::One) }
}

/// Plans and reports.
///
/// # Errors
/// A file cannot be used, or the model cannot be planned.
pub fn run(args: &Args) -> Result<(), Failure> {
    if args.batch == 0 || args.batch > MAX_BATCH {
        return Err(Failure::usage(format!("a batch of {} cannot be; give --batch 1 to {MAX_BATCH}", args.batch)));
    }
    let (name, program) = program(args)?;
    let plan = |protocol| Plan::of_variant(&program, protocol, args.objective.into());
    match args.protocol {
        Choice::One(protocol) => {
            let plan = plan(protocol).map_err(model::Error::from)?;
            let planned = planned(&name, &program, &plan, args.batch);
            if args.json { print_json(&planned) } else { table::print(&describe(&planned, &program, &plan, args)) }
        }
        Choice::All => {
            let plans: Vec<_> = Protocol::ALL.iter().map(|protocol| (*protocol, plan(*protocol))).collect();
            let made = |plan: &Result<Plan, PlanError>| {
                plan.as_ref().ok().map(|plan| planned(&name, &program, plan, args.batch))
            };
            if args.json {
                print_json(&Compared {
                    schema: SCHEMA,
                    plans: plans.iter().filter_map(|(_, plan)| made(plan)).collect(),
                })
            } else {
                table::print(&compare(&name, args.batch, plans.iter().map(|(p, plan)| (*p, made(plan), plan))))
            }
        }
    }
}

/// Batches beyond this are nobody's, and their costs might not fit in 64 bits.
const MAX_BATCH: usize = 1 << 20;

fn program(args: &Args) -> Result<(String, Program), Failure> {
    let options = args.how.options()?;
    match (&args.model, args.net) {
        (_, Some(net)) => Ok((net.to_string(), model::untrained(net, &options)?)),
        (Some(path), None) => {
            let model = onnx::bytes(path).and_then(|file| onnx::read(&file)).map_err(|error| error.of(path))?;
            let imported = model::import(&model, &options)?;
            Ok((name_of(path), imported.program))
        }
        (None, None) => Err(Failure::usage("no model: give MODEL.onnx or --net")),
    }
}

/// A plan as a document.
#[must_use]
pub fn planned(model: &str, program: &Program, plan: &Plan, batch: usize) -> Planned {
    let (cost, numbers) = (plan.cost(batch), plan.numbers());
    let mut layers = plan.layers(batch);
    for (layer, node) in layers.iter_mut().zip(program.nodes()) {
        if let Op::Input { name, .. } | Op::Variable { name, .. } = &node.op {
            layer.name.clone_from(name);
        }
    }
    Planned {
        schema: SCHEMA,
        model: model.to_owned(),
        protocol: plan.protocol().name().to_owned(),
        variant: plan.variant().objective.name().to_owned(),
        batch,
        ring_bits: numbers.ring_bits,
        fraction_bits: numbers.fraction_bits,
        rounds: cost.rounds,
        online_bytes: cost.online_bytes,
        offline_bytes: cost.offline_bytes,
        client_bytes: cost.client_bytes,
        memory_peak_bytes: plan.memory_peak(batch).into_iter().collect(),
        links: cost.links,
        layers,
        disclosures: plan.disclosures(),
    }
}

/// A plan for people.
fn describe(planned: &Planned, program: &Program, plan: &Plan, args: &Args) -> String {
    let Planned { model, protocol, batch, ring_bits, fraction_bits, .. } = planned;
    let variant = variant(plan);
    let short = |hash: [u8; 32]| hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect::<String>();
    let images = if *batch == 1 { "one image".to_owned() } else { format!("a batch of {batch} images") };
    let mut out = format!(
        "{model} by {protocol}, {variant}, {images}\n\
         k = {ring_bits}, f = {fraction_bits}, {}\n\
         program {}, plan {}\n\n",
        bounds(args),
        short(program.hash()),
        short(plan.hash())
    );
    for part in [
        costs(planned).to_string(),
        layers(planned, program).to_string() + &approximations(planned, program),
        links(&planned.links).to_string(),
        memory(planned).to_string(),
        disclosures(planned),
    ] {
        // Writing to a string does not fail.
        let _ = writeln!(out, "{part}");
    }
    out
}

/// The variant, for people.
fn variant(plan: &Plan) -> String {
    let Variant { objective, hash, .. } = plan.variant();
    let made = match objective {
        Objective::Latency => "fewest rounds (--objective latency)",
        _ => "fewest bytes (--objective bytes)",
    };
    match plan.protocol() {
        Protocol::Fss => format!("{made}, trees of {hash}"),
        Protocol::Table => made.to_owned(),
        _ => "its only variant".to_owned(),
    }
}

fn bounds(args: &Args) -> String {
    match (args.net, &args.how.calibrate) {
        (Some(_), _) => "bounds declared: there are no weights to prove them from".to_owned(),
        (None, Some(_)) => format!("bounds calibrated, with a margin of {}", model::CALIBRATION_MARGIN),
        (None, None) => "bounds proved from the weights".to_owned(),
    }
}

fn costs(planned: &Planned) -> Table {
    let mut table = Table::new(&[Align::Left, Align::Right]);
    table.row(["rounds".to_owned(), planned.rounds.to_string()]);
    table.row(["online".to_owned(), table::bytes(planned.online_bytes)]);
    table.row(["dealt ahead".to_owned(), table::bytes(planned.offline_bytes)]);
    table.row(["with the client".to_owned(), table::bytes(planned.client_bytes)]);
    table
}

/// What is computed; variables stand with the operations that use them.
fn layers(planned: &Planned, program: &Program) -> Table {
    let right = Align::Right;
    let mut table = Table::new(&[right, Align::Left, Align::Left, right, right, right, right, Align::Left]);
    table.header(["wire", "operation", "shape", "rounds", "online", "ahead", "below", ""]);
    let rows = planned.layers.iter().zip(program.nodes()).enumerate();
    for (wire, (layer, node)) in rows.filter(|(_, (_, node))| !matches!(node.op, Op::Variable { .. })) {
        let cost = |bytes| if bytes == 0 { String::new() } else { table::bytes(bytes) };
        table.row([
            wire.to_string(),
            operation(program, node),
            shape(&layer.shape),
            if layer.rounds == 0 { String::new() } else { layer.rounds.to_string() },
            cost(layer.online_bytes),
            cost(layer.offline_bytes),
            format!("2^{}", layer.bound_bits),
            layer.bound_from.to_owned(),
        ]);
    }
    table
}

/// What is approximated, on which range, and how far it may be off; nothing if all is exact but for roundings.
fn approximations(planned: &Planned, program: &Program) -> String {
    let mut table = Table::new(&[Align::Right, Align::Left, Align::Right, Align::Right]);
    table.header(["wire", "approximated", "operand below", "off by at most"]);
    let layers = planned.layers.iter().zip(program.nodes()).enumerate();
    let mut none = true;
    for (wire, (layer, node)) in layers.filter(|(_, (layer, _))| layer.error_bound > 0.0) {
        none = false;
        let operand = node.op.operands().into_iter().find_map(|id| program.node(id));
        let limit = operand.map_or(f64::INFINITY, |operand| operand.bound.limit());
        table.row([wire.to_string(), layer.op.clone(), at_most(limit), at_most(layer.error_bound)]);
    }
    if none { String::new() } else { format!("\n{table}") }
}

/// Three digits, rounded up: a bound stays one.
fn at_most(bound: f64) -> String {
    let unit = 10f64.powf(bound.log10().floor() - 2.0);
    let rounded = (bound / unit).ceil() * unit;
    if (0.001..1e4).contains(&rounded) {
        let digits = (2.0 - rounded.log10().floor()).max(0.0) as usize;
        format!("{rounded:.digits$}")
    } else {
        format!("{rounded:.2e}")
    }
}

fn operation(program: &Program, node: &Node) -> String {
    let variable = node.op.operands().into_iter().filter_map(|id| program.node(id)).find_map(|node| match &node.op {
        Op::Variable { name, .. } => Some(format!(" {name} {}", shape(&node.shape))),
        _ => None,
    });
    let more = match &node.op {
        Op::Input { player, name, .. } => format!(" {name} of {player}"),
        Op::Output { player, .. } => format!(" to {player}"),
        _ => variable.unwrap_or_default(),
    };
    format!("{}{more}", node.op.name())
}

fn shape(shape: &[u32]) -> String {
    shape.iter().map(u32::to_string).collect::<Vec<_>>().join("×")
}

fn links(links: &[LinkCost]) -> Table {
    let mut table = Table::new(&[Align::Left, Align::Left, Align::Left, Align::Right, Align::Right]);
    table.header(["from", "to", "when", "payload", "on the wire"]);
    for link in links {
        let when = match link.phase {
            Phase::Setup => "once, at deployment",
            Phase::Offline => "ahead",
            Phase::Online => "online",
            Phase::Client => "with the client",
        };
        let [payload, wire] = [link.payload_bytes, link.wire_bytes].map(table::bytes);
        table.row([link.from.clone(), link.to.clone(), when.to_owned(), payload, wire]);
    }
    table
}

fn memory(planned: &Planned) -> Table {
    let peak = planned.memory_peak_bytes;
    let mut table = Table::new(&[Align::Left, Align::Right]);
    table.header(["party", "memory at most"]);
    for (role, bytes) in
        [("server0", peak.server0), ("server1", peak.server1), ("crypto-producer", peak.crypto_producer)]
    {
        table.row([role.to_owned(), table::bytes(bytes)]);
    }
    table
}

fn disclosures(planned: &Planned) -> String {
    let mut out = "what the parties see in clear, and why it tells them nothing\n".to_owned();
    out.push_str(&"─".repeat(out.trim_end().chars().count()));
    out.push('\n');
    for disclosure in &planned.disclosures {
        let line = format!("{}: {}; {}", disclosure.to, disclosure.what, disclosure.because);
        let _ = writeln!(out, "{}", table::wrap(&line, WIDTH, "    "));
    }
    out
}

/// Protocols side by side; those that cannot run the model say why.
fn compare<'a>(
    model: &str,
    batch: usize,
    plans: impl Iterator<Item = (Protocol, Option<Planned>, &'a Result<Plan, PlanError>)>,
) -> String {
    let mut table = Table::new(&[Align::Left, Align::Right, Align::Right, Align::Right, Align::Right]);
    table.header(["protocol", "rounds", "online", "ahead", "with the client"]);
    let mut refusals = String::new();
    for (protocol, planned, plan) in plans {
        match planned {
            Some(planned) => table.row([
                protocol.to_string(),
                planned.rounds.to_string(),
                table::bytes(planned.online_bytes),
                table::bytes(planned.offline_bytes),
                table::bytes(planned.client_bytes),
            ]),
            None => {
                let why = plan.as_ref().err().map(ToString::to_string).unwrap_or_default();
                let _ = writeln!(refusals, "{}", table::wrap(&format!("{protocol} cannot: {why}"), WIDTH, "    "));
            }
        }
    }
    format!("{model}, batch {batch}\n\n{table}{refusals}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail loudly")]

    use std::collections::BTreeSet;

    use clap::Parser;
    use serde_json::Value;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &str) -> Args {
        Cli::try_parse_from(std::iter::once("plan").chain(line.split(' '))).unwrap().args
    }

    fn document(line: &str) -> Value {
        let args = args(line);
        let (name, program) = program(&args).unwrap();
        let plan = Plan::new(&program, Protocol::default()).unwrap();
        serde_json::to_value(planned(&name, &program, &plan, args.batch)).unwrap()
    }

    fn keys(value: &Value) -> BTreeSet<&str> {
        value.as_object().unwrap().keys().map(String::as_str).collect()
    }

    #[test]
    fn the_document_has_the_fields_that_scripts_rely_on() {
        let document = document("--net B --batch 3");
        let fields = "schema model protocol variant batch ring_bits fraction_bits rounds online_bytes offline_bytes client_bytes \
                      memory_peak_bytes links layers disclosures";
        assert_eq!(keys(&document), fields.split_whitespace().collect());
        assert_eq!(keys(&document["memory_peak_bytes"]), ["crypto-producer", "server0", "server1"].into());
        let link = ["from", "to", "phase", "payload_bytes", "wire_bytes"];
        assert!(document["links"].as_array().unwrap().iter().all(|one| keys(one) == link.into()));
        let layer = "name op shape rounds online_bytes offline_bytes bound_bits bound bound_from error_bound";
        let layer: BTreeSet<&str> = layer.split_whitespace().collect();
        assert!(document["layers"].as_array().unwrap().iter().all(|one| keys(one) == layer));
        assert_eq!((&document["model"], &document["batch"]), (&"B".into(), &3.into()));
        assert_eq!((&document["schema"], &document["protocol"]), (&SCHEMA.into(), &"table".into()));
        let layers = document["layers"].as_array().unwrap();
        assert_eq!((&layers[0]["name"], &layers[1]["name"]), (&model::INPUT.into(), &"0.weights".into()));
        assert!(layers.iter().all(|layer| layer["bound_from"] == "declared"));
        let sum = |field: &str| layers.iter().map(|layer| layer[field].as_u64().unwrap()).sum::<u64>();
        assert_eq!(document["online_bytes"], sum("online_bytes"));
        assert_eq!(document["offline_bytes"], sum("offline_bytes"));
    }

    #[test]
    fn people_are_told_everything_in_100_columns() {
        for net in ["A", "B", "C", "D", "B-avg", "C-avg", "demo"] {
            let args = args(&format!("--net {net} --batch 128"));
            let (name, program) = program(&args).unwrap();
            let plan = Plan::new(&program, Protocol::default()).unwrap();
            let text = describe(&planned(&name, &program, &plan, args.batch), &program, &plan, &args);
            for wanted in ["declared", "crypto-producer", "0.weights", "relu", "input image of prediction-client", "2^"]
            {
                assert!(text.contains(wanted), "{wanted} in:\n{text}");
            }
            assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        }
    }

    /// A bound for every activation that is approximated, the same in the table and in the document; none for what is exact.
    #[test]
    fn plans_say_how_far_activations_may_be_off() {
        for net in ["A", "B-avg", "demo"] {
            let args = args(&format!("--net {net} --protocol pond"));
            let (name, program) = program(&args).unwrap();
            let plan = Plan::new(&program, Protocol::Pond).unwrap();
            let planned = planned(&name, &program, &plan, 1);
            let text = describe(&planned, &program, &plan, &args);
            assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
            let document = serde_json::to_value(&planned).unwrap();
            let mut activations = 0;
            for (layer, node) in document["layers"].as_array().unwrap().iter().zip(program.nodes()) {
                let bound = layer["error_bound"].as_f64().unwrap();
                if matches!(node.op, Op::Relu { .. }) {
                    activations += 1;
                    let printed = at_most(bound);
                    assert!(bound > 0.0 && text.lines().any(|line| line.ends_with(&printed)), "{bound}\n{text}");
                } else {
                    assert_eq!(bound, 0.0, "{node:?}");
                }
            }
            assert!(activations > 1 && text.contains("off by at most"));
        }
        for bound in [1.0, 0.031_249, 0.000_123_45, 99.94, 7_024_148.07] {
            let printed: f64 = at_most(bound).parse().unwrap();
            assert!((bound * 0.999_999..bound * 1.01).contains(&printed), "{printed} {bound}");
        }
        let args = args("--net D");
        let (name, program) = program(&args).unwrap();
        let exact = Plan::new(&program, Protocol::default()).unwrap();
        assert!(!describe(&planned(&name, &program, &exact, 1), &program, &exact, &args).contains("off by"));
    }

    #[test]
    fn variants_are_named() {
        for (line, named) in [
            ("--net B", "fewest bytes (--objective bytes)"),
            ("--net B --objective latency", "fewest rounds (--objective latency)"),
            ("--net B --protocol fss --objective latency", "trees of AES"),
            ("--net B --protocol securenn --objective latency", "its only variant"),
        ] {
            let args = args(line);
            let protocol = if let Choice::One(protocol) = args.protocol { protocol } else { Protocol::default() };
            let (name, program) = program(&args).unwrap();
            let plan = Plan::of_variant(&program, protocol, args.objective.into()).unwrap();
            let text = describe(&planned(&name, &program, &plan, 1), &program, &plan, &args);
            assert!(text.contains(named), "{text}");
        }
    }

    #[test]
    fn protocols_are_compared() {
        let plan = |protocol| Plan::new(&program(&args("--net D")).unwrap().1, protocol);
        let program = program(&args("--net D")).unwrap().1;
        let made: Vec<_> = Protocol::ALL.iter().map(|protocol| (*protocol, plan(*protocol))).collect();
        let rows =
            made.iter().map(|(p, made)| (*p, made.as_ref().ok().map(|plan| planned("D", &program, plan, 1)), made));
        let text = compare("D", 1, rows);
        assert!(Protocol::ALL.iter().all(|protocol| text.contains(protocol.name())), "{text}");
        let refused = Err(PlanError::Numbers("because".into()));
        let text = compare("D", 1, [(Protocol::SecureNn, None, &refused)].into_iter());
        assert!(text.contains("securenn cannot: because"), "{text}");
    }

    #[test]
    fn command_lines_that_make_no_sense_are_refused() {
        for line in ["", "--net E", "m.onnx --net A", "--net A --calibrate f", "--net A --protocol none"] {
            assert!(Cli::try_parse_from(["plan"].into_iter().chain(line.split_whitespace())).is_err(), "{line}");
        }
        assert_eq!(args("--net a --protocol all").protocol, Choice::All);
        for batch in ["0", "1048577"] {
            let failure = run(&args(&format!("--net A --batch {batch}"))).unwrap_err();
            assert_eq!(failure.exit, crate::exit::Exit::Usage);
        }
        assert!(run(&args("/nowhere/model.onnx")).unwrap_err().message.contains("/nowhere/model.onnx"));
    }
}
