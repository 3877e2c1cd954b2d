//! `selkie evaluate`: a model on many images with all parties in memory, beside the same model in clear.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use ndarray::{Array2, ArrayView2, Axis, s};
use rayon::prelude::*;
use selkie::plan::Plan;
use selkie::session::{Moved, Session};
use selkie::{Objective, Protocol};

use super::report::{Evaluation, SCHEMA, print_json};
use super::table::{self, Align, Table};
use super::{blamed, name_of, objective, progress_bar, protocol};
use crate::exit::Failure;
use crate::model::{self, Imported, ModelArgs};
use crate::node::measured::clock;
use crate::onnx::argmax;
use crate::{data, onnx};

/// What `selkie evaluate` is asked to do.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The model.
    #[arg(value_name = "MODEL.onnx")]
    pub model: PathBuf,
    /// The images: IDX, plain or gzipped, or .npy.
    #[arg(long, value_name = "FILE")]
    pub images: PathBuf,
    /// What is on them: IDX or .npy.
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// The protocol to run.
    #[arg(long, value_parser = protocol, default_value_t)]
    pub protocol: Protocol,
    /// What the variants of `fss` and `table` are chosen for: latency or bytes.
    #[arg(long, value_parser = objective, default_value_t)]
    pub objective: Objective,
    /// How many of the images, from the first [default: all].
    #[arg(long)]
    pub count: Option<usize>,
    /// Images that are asked about at once; costs are reported for one such batch.
    #[arg(long, default_value_t = 1)]
    pub batch: usize,
    /// How the model becomes a program.
    #[command(flatten)]
    pub how: ModelArgs,
    /// Run the first batch once more, alone, and print what each operation took.
    #[arg(long, conflicts_with = "json")]
    pub profile: bool,
    /// Run the first batch once more, alone, and write each operation's times for chrome://tracing or Perfetto.
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Print one JSON document instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Evaluates and reports.
///
/// # Errors
/// A file cannot be used, the model cannot be planned, or what was measured is not what was planned.
pub fn run(args: &Args) -> Result<(), Failure> {
    let start = Instant::now();
    let evaluation = evaluate(args)?;
    if args.json { print_json(&evaluation) } else { print(&evaluation, args, start.elapsed()) }
}

/// Evaluates without a word.
///
/// # Errors
/// As [`run`].
pub fn evaluate(args: &Args) -> Result<Evaluation, Failure> {
    let mut images = data::images(&args.images)?;
    let labels = args.labels.as_deref().map(data::labels).transpose()?;
    if let Some((file, labels)) = args.labels.as_ref().zip(labels.as_ref()).filter(|(_, l)| l.len() != images.nrows()) {
        return Err(Failure::from(data::Error::Mismatch {
            image_file: args.images.clone(),
            images: images.nrows(),
            label_file: file.clone(),
            labels: labels.len(),
        }));
    }
    let count = args.count.unwrap_or(images.nrows());
    if count == 0 || args.batch == 0 {
        return Err(Failure::usage("nothing to evaluate: give --count and --batch of at least 1"));
    }
    if count > images.nrows() {
        let (file, there) = (args.images.display(), images.nrows());
        return Err(Failure::usage(format!("{file} has {there} images; give a --count of at most that, not {count}")));
    }
    images.slice_collapse(s![..count, ..]);

    let faulty = |error: onnx::Error| error.of(&args.model);
    let file = onnx::bytes(&args.model).map_err(faulty)?;
    let options = args.how.options()?;
    let imported = model::import(&onnx::read(&file).map_err(faulty)?, &options)?;
    let plan = Plan::of_variant(&imported.program, args.protocol, args.objective.into());
    let plan = Arc::new(plan.map_err(model::Error::from)?);

    let batch = args.batch.min(count);
    let bar = progress_bar(count, "computing on shares");
    let private = compute(&imported, &plan, images.view(), batch, &bar)?;
    bar.finish_and_clear();

    let seen = options.normalisation.map_or_else(|| images.clone(), |n| n.apply(images.view()));
    let reference = onnx::Plaintext::new(&file).and_then(|reference| reference.logits(seen.view())).map_err(faulty)?;
    if let Some(bad) = reference.iter().find(|logit| !logit.is_finite()) {
        return Err(Failure::usage(format!("in clear the model answers {bad}; train it again, with a smaller rate")));
    }

    let in_clear = classes(&reference);
    let label_only = imported.program.outputs().next().is_some_and(|(_, node)| node.elements() != reference.ncols());
    let answers = if label_only {
        private.values.column(0).iter().map(|label| *label as usize).collect()
    } else {
        classes(&private.values)
    };
    let labels = labels.map(|labels| labels.into_iter().map(usize::from).collect::<Vec<_>>());
    let error = private.values.iter().zip(&reference).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs());

    let (planned, moved, numbers) = (plan.cost(batch), private.moved, plan.numbers());
    let evaluation = Evaluation {
        schema: SCHEMA,
        model: name_of(&args.model),
        protocol: args.protocol.name().to_owned(),
        ring_bits: numbers.ring_bits,
        fraction_bits: numbers.fraction_bits,
        batch,
        images: count,
        accuracy_private: labels.as_ref().map(|labels| fraction_equal(&answers, labels)),
        accuracy_plaintext: labels.as_ref().map(|labels| fraction_equal(&in_clear, labels)),
        agreement: Some(fraction_equal(&answers, &in_clear)),
        max_abs_error: (!label_only).then(|| error.fold(0.0, f64::max)),
        rounds: moved.rounds,
        online_bytes: moved.online_bytes,
        offline_bytes: moved.offline_bytes,
        client_bytes: moved.client_bytes,
        wire_bytes: moved.wire_bytes,
        planned_rounds: planned.rounds,
        planned_online_bytes: planned.online_bytes,
        planned_offline_bytes: planned.offline_bytes,
        planned_client_bytes: planned.client_bytes,
        latency_ms_p50: median(private.milliseconds),
    };
    evaluation.check(&planned)?;
    if args.profile || args.trace.is_some() {
        observe(args, &imported, plan, images.slice(s![..batch, ..]))?;
    }
    Ok(evaluation)
}

/// Runs one batch with a clock: every core is free for it, and no thread takes another's time.
fn observe(args: &Args, imported: &Imported, plan: Arc<Plan>, images: ArrayView2<'_, f32>) -> Result<(), Failure> {
    let mut session = Session::with_plan(&imported.program, plan, &imported.weights, seed()?).map_err(blamed)?;
    let shape: Vec<usize> = session.spec().inputs.first().map_or_else(Vec::new, |input| {
        std::iter::once(images.nrows()).chain(input.shape.iter().map(|n| *n as usize)).collect()
    });
    let images = images.to_shape(shape).map_err(Failure::other)?;
    // The first run is for the caches.
    session.run(&[(model::INPUT, images.view().into_dyn())]).map_err(blamed)?;
    session.observe(clock);
    let run = session.run(&[(model::INPUT, images.view().into_dyn())]).map_err(blamed)?;
    if let Some(file) = &args.trace {
        std::fs::write(file, run.statistics.chrome_trace())
            .map_err(|e| Failure::other(format!("{} cannot be written: {e}", file.display())))?;
    }
    if args.profile { table::print(&(run.statistics.table() + "\n")) } else { Ok(()) }
}

fn seed() -> Result<[u8; 32], Failure> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| Failure::other(format!("no randomness: {error}")))?;
    Ok(seed)
}

/// What came of computing on shares.
struct Private {
    /// A row of outputs for each image.
    values: Array2<f32>,
    /// What one full batch moved.
    moved: Moved,
    /// How long each batch took.
    milliseconds: Vec<f64>,
}

/// One batch's outputs, in order of images; what it moved; how long it took.
type Batch = (usize, Vec<f32>, Moved, Duration);

/// Runs all batches, on every core: each thread has three parties of its own, with seeds of their own.
fn compute(
    imported: &Imported,
    plan: &Arc<Plan>,
    images: ArrayView2<'_, f32>,
    batch: usize,
    bar: &ProgressBar,
) -> Result<Private, Failure> {
    let batches: Vec<_> = images.axis_chunks_iter(Axis(0), batch).collect();
    let next = AtomicUsize::new(0);
    let work = |_| {
        let session = Session::with_plan(&imported.program, Arc::clone(plan), &imported.weights, seed()?);
        let (mut session, mut done) = (session.map_err(blamed)?, Vec::new());
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(images) = batches.get(index) else { return Ok::<Vec<Batch>, Failure>(done) };
            let flat: Vec<f32> = images.iter().copied().collect();
            let start = Instant::now();
            let (outputs, moved) = session.run_rows(&[&flat], images.nrows(), &mut |_, _, _| ()).map_err(blamed)?;
            done.push((index, outputs.concat(), moved, start.elapsed()));
            bar.inc(images.nrows() as u64);
        }
    };
    let workers = rayon::current_num_threads().min(batches.len());
    let done: Vec<Vec<Batch>> = (0..workers).into_par_iter().map(work).collect::<Result<_, _>>()?;
    let mut done = done.concat();
    done.sort_unstable_by_key(|(index, ..)| *index);

    let milliseconds = done.iter().map(|(.., took)| took.as_secs_f64() * 1e3).collect();
    let moved = done.first().map(|(_, _, moved, _)| moved.clone()).unwrap_or_default();
    // All full batches move the same.
    let full = images.nrows() / batch;
    if let Some((index, ..)) = done.iter().take(full).find(|(_, _, other, _)| *other != moved) {
        return Err(Failure::other(format!(
            "a bug in selkie, please report it: batch {index} moved other amounts than the first one"
        )));
    }
    let values: Vec<f32> = done.into_iter().flat_map(|(_, values, ..)| values).collect();
    let columns = values.len() / images.nrows().max(1);
    let values = Array2::from_shape_vec((images.nrows(), columns), values).map_err(Failure::other)?;
    Ok(Private { values, moved, milliseconds })
}

pub(crate) fn classes(logits: &Array2<f32>) -> Vec<usize> {
    logits.rows().into_iter().map(argmax).collect()
}

/// The part of the places at which both are the same.
pub(crate) fn fraction_equal(a: &[usize], b: &[usize]) -> f64 {
    let equal = a.iter().zip(b).filter(|(a, b)| a == b).count();
    equal as f64 / a.len().max(1) as f64
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn print(found: &Evaluation, args: &Args, took: Duration) -> Result<(), Failure> {
    let percent = |fraction: f64| format!("{:.2} %", 100.0 * fraction);
    let mut answers = Table::new(&[Align::Left, Align::Right]);
    let rows = [
        ("recognised on shares", found.accuracy_private.map(percent)),
        ("recognised in clear", found.accuracy_plaintext.map(percent)),
        ("the two agree", found.agreement.map(percent)),
        ("largest error of a logit", found.max_abs_error.map(|error| format!("{error:.6}"))),
    ];
    for (what, value) in rows {
        answers.row([what.to_owned(), value.unwrap_or_else(|| "–".to_owned())]);
    }
    let mut costs = Table::new(&[Align::Left, Align::Right, Align::Right]);
    costs.header(["for one batch", "measured", "planned"]);
    let rows = [
        ("online", found.online_bytes, found.planned_online_bytes),
        ("dealt ahead", found.offline_bytes, found.planned_offline_bytes),
        ("with the client", found.client_bytes, found.planned_client_bytes),
    ];
    costs.row(["rounds".to_owned(), found.rounds.to_string(), found.planned_rounds.to_string()]);
    for (what, measured, planned) in rows {
        costs.row([what.to_owned(), table::bytes(measured), table::bytes(planned)]);
    }
    costs.row(["all, with headers".to_owned(), table::bytes(found.wire_bytes), table::bytes(found.wire_bytes)]);
    costs.row(["median time".to_owned(), format!("{:.2} ms", found.latency_ms_p50), String::new()]);

    let Evaluation { model, protocol, ring_bits, fraction_bits, images, batch, .. } = found;
    let batches = if *batch == 1 { "one by one".to_owned() } else { format!("in batches of {batch}") };
    let bounds = if args.how.calibrate.is_some() {
        format!("bounds calibrated, with a margin of {}", model::CALIBRATION_MARGIN)
    } else {
        "bounds proved from the weights".to_owned()
    };
    table::print(&format!(
        "{model} by {protocol}, {images} images {batches}, {:.1} s\n\
         k = {ring_bits}, f = {fraction_bits}, {bounds}; all parties in this process\n\n{answers}\n{costs}",
        took.as_secs_f64()
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail loudly")]

    use clap::Parser;
    use ndarray::Array3;
    use ndarray_npy::WriteNpyExt;

    use super::*;
    use crate::exit::Exit;
    use crate::train::Net;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    /// A directory with a random model of net D, 7 random images and the labels that the model gives them.
    fn files() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let model = Net::D.untrained(11);
        onnx::save(&model, &directory.path().join("d.onnx")).unwrap();
        let pixel = |(i, y, x): (usize, usize, usize)| ((i * 784 + y * 28 + x) as u32).wrapping_mul(0x9e37_79b9) >> 24;
        let images = Array3::from_shape_fn((7, 28, 28), |at| pixel(at) as u8);
        images.write_npy(std::fs::File::create(directory.path().join("images.npy")).unwrap()).unwrap();
        let read = data::images(&directory.path().join("images.npy")).unwrap();
        let logits = onnx::Plaintext::new(&onnx::write(&model).unwrap()).unwrap().logits(read.view()).unwrap();
        let mut labels = vec![0, 0, 8, 1, 0, 0, 0, 7];
        labels.extend(logits.rows().into_iter().map(|row| argmax(row) as u8));
        labels[8] = 255; // the first one is wrong
        std::fs::write(directory.path().join("labels"), labels).unwrap();
        directory
    }

    fn args(directory: &tempfile::TempDir, more: &[&str]) -> Args {
        let at = |name: &str| directory.path().join(name).display().to_string();
        let [model, images] = [at("d.onnx"), at("images.npy")];
        let line = ["evaluate", &model, "--images", &images].into_iter().chain(more.iter().copied());
        Cli::try_parse_from(line).unwrap().args
    }

    #[test]
    fn a_model_is_evaluated_beside_its_reference() {
        let directory = files();
        let labels = directory.path().join("labels").display().to_string();
        let found = evaluate(&args(&directory, &["--labels", &labels, "--batch", "3"])).unwrap();
        assert_eq!((found.images, found.batch, found.ring_bits, found.fraction_bits), (7, 3, 64, 16));
        assert_eq!(found.accuracy_private, Some(6.0 / 7.0));
        assert_eq!(found.accuracy_plaintext, Some(6.0 / 7.0));
        assert_eq!(found.agreement, Some(1.0));
        assert!(found.max_abs_error.unwrap() < 0.01, "{found:?}");
        assert_eq!(found.online_bytes, found.planned_online_bytes);
        assert!(found.wire_bytes > found.online_bytes + found.offline_bytes + found.client_bytes);
        assert!(found.latency_ms_p50 > 0.0);
    }

    #[test]
    fn normalisation_calibration_and_labels_alone() {
        let directory = files();
        let normalised = evaluate(&args(&directory, &["--count", "2", "--mean", "0.13", "--std", "0.31"])).unwrap();
        assert_eq!((normalised.agreement, normalised.accuracy_private), (Some(1.0), None));
        assert!(normalised.max_abs_error.unwrap() < 0.01, "{normalised:?}");
        // The client does it: no step of the parties' does.
        let plain = evaluate(&args(&directory, &["--count", "2"])).unwrap();
        assert_eq!(normalised.rounds, plain.rounds);
        // Its bounds are larger, so comparisons take some bits more; an opening of all pixels would be thousands of bytes.
        assert!(normalised.online_bytes < plain.online_bytes + 784, "{normalised:?}");

        let images = directory.path().join("images.npy").display().to_string();
        let narrow = evaluate(&args(&directory, &["--ring", "32", "--calibrate", &images])).unwrap();
        assert_eq!((narrow.ring_bits, narrow.fraction_bits, narrow.images), (32, 10, 7));
        assert!(narrow.max_abs_error.unwrap() < 0.2, "{narrow:?}");

        let labels = evaluate(&args(&directory, &["--label-only", "--count", "3"])).unwrap();
        assert_eq!((labels.agreement, labels.max_abs_error), (Some(1.0), None));
        assert!(labels.rounds > normalised.rounds);
    }

    #[test]
    fn one_batch_is_traced_alone() {
        let directory = files();
        let trace = directory.path().join("trace.json");
        evaluate(&args(&directory, &["--count", "3", "--batch", "2", "--trace", &trace.display().to_string()]))
            .unwrap();
        let trace: serde_json::Value = serde_json::from_slice(&std::fs::read(trace).unwrap()).unwrap();
        let events = trace["traceEvents"].as_array().unwrap();
        let of = |category: &str| events.iter().filter(|event| event["cat"] == category).count();
        // Both servers compute two layers' products, and open what they take.
        assert!(of("Product Finish") >= 4 && of("OpenMasked Send") >= 4, "{trace}");
        assert!(events.iter().filter(|e| e["ph"] == "X").all(|e| e["dur"].as_f64().unwrap() > 0.0), "{trace}");
    }

    #[test]
    fn objectives_are_met() {
        let directory = files();
        let images = directory.path().join("images.npy").display().to_string();
        let found = |protocol: &str, objective: &str| {
            let more = ["--ring", "32", "--calibrate", &images, "--label-only", "--count", "2", "--protocol", protocol];
            let found = evaluate(&args(&directory, &[&more[..], &["--objective", objective]].concat())).unwrap();
            assert_eq!(found.agreement, Some(1.0));
            assert_eq!((found.rounds, found.offline_bytes), (found.planned_rounds, found.planned_offline_bytes));
            found
        };
        for protocol in ["table", "fss"] {
            let (latency, bytes) = (found(protocol, "latency"), found(protocol, "bytes"));
            assert!(
                latency.rounds < bytes.rounds && latency.offline_bytes > bytes.offline_bytes,
                "{latency:?} {bytes:?}"
            );
        }
        let line = ["evaluate", "m", "--images", "i", "--objective", "speed"];
        let message = Cli::try_parse_from(line).err().unwrap().to_string();
        assert!(message.contains("latency, bytes"), "{message}");
    }

    #[test]
    fn what_cannot_be_is_the_callers_to_mend() {
        let directory = files();
        let refused = |more: &[&str]| {
            let failure = evaluate(&args(&directory, more)).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage, "{failure}");
            failure.message
        };
        assert!(refused(&["--count", "8"]).contains("7 images"));
        assert!(refused(&["--count", "0"]).contains("at least 1"));
        assert!(refused(&["--batch", "0"]).contains("at least 1"));
        assert!(refused(&["--ring", "32"]).contains("--calibrate"));
        assert!(refused(&["--ring", "99"]).contains("8 to 64"));
        let images = directory.path().join("images.npy").display().to_string();
        assert!(!refused(&["--labels", &images]).is_empty());
        std::fs::write(directory.path().join("d.onnx"), b"not a model").unwrap();
        let message = refused(&[]);
        assert!(message.contains("d.onnx: not a usable ONNX model"), "{message}");
        let line = ["evaluate", "m", "--images", "i", "--protocol", "spdz"];
        let message = Cli::try_parse_from(line).err().unwrap().to_string();
        assert!(message.contains("securenn"), "{message}");
        assert!(Cli::try_parse_from(["evaluate", "m", "--images", "i", "--mean", "0.1"]).is_err());
    }

    #[test]
    fn pixels_beyond_the_declared_range_are_refused() {
        let directory = files();
        for bad in [f32::NAN, 1.5] {
            let images = Array3::from_elem((7, 28, 28), bad);
            images.write_npy(std::fs::File::create(directory.path().join("images.npy")).unwrap()).unwrap();
            assert_eq!(evaluate(&args(&directory, &[])).unwrap_err().exit, Exit::Usage);
        }
    }

    #[test]
    fn measured_costs_that_differ_from_the_plan_are_a_bug() {
        let directory = files();
        let found = evaluate(&args(&directory, &["--count", "1"])).unwrap();
        let options = model::ImportOptions::default();
        let imported = model::import(&Net::D.untrained(11), &options).unwrap();
        let cost = Plan::new(&imported.program, Protocol::default()).unwrap().cost(1);
        found.check(&cost).unwrap();
        let failure = found.check(&selkie::plan::Cost { online_bytes: cost.online_bytes + 1, ..cost }).unwrap_err();
        assert!(failure.exit == Exit::Other && failure.message.contains("bug"), "{failure}");
    }
}
