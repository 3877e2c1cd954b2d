//! `selkie predict`: images, asked of the deployed model, a batch at a time.

use std::path::{Path, PathBuf};
use std::time::Instant;

use ndarray::{Array2, Axis, s};
use selkie::client::{Answer, ClientSpec};

use crate::client::{Client, Keys};
use crate::config::Cluster;
use crate::exit::Failure;
use crate::identity::Identity;
use crate::model::Normalisation;
use crate::onnx::{self, Plaintext};
use crate::tools::evaluate::{classes, fraction_equal, median};
use crate::tools::progress_bar;
use crate::tools::report::{Evaluation, SCHEMA, print_json};
use crate::{data, store};

/// The arguments of `selkie predict`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The name under which the model is deployed.
    #[arg(long, value_name = "NAME")]
    model: String,
    /// Where the parties are.
    #[arg(long, value_name = "cluster.toml")]
    config: PathBuf,
    /// The images: IDX, plain or gzipped, or .npy.
    #[arg(long, value_name = "FILE")]
    images: PathBuf,
    /// What is on them: IDX or .npy.
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// How many of the images, from the first [default: all].
    #[arg(long)]
    count: Option<usize>,
    /// Images that are asked about at once.
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// The same model in clear, to compare with.
    #[arg(long, value_name = "MODEL.onnx")]
    reference: Option<PathBuf>,
    /// The private key of a player whom the servers' cluster.toml pins in `[players]`; may be repeated.
    #[arg(long = "player-key", value_name = "NAME=FILE", value_parser = player_key)]
    player_keys: Vec<(String, PathBuf)>,
    /// Print one JSON document instead of a table.
    #[arg(long)]
    json: bool,
}

fn player_key(text: &str) -> Result<(String, PathBuf), String> {
    let (name, file) = text.split_once('=').ok_or("write the player's name, '=', and the file of its private key")?;
    Ok((name.to_owned(), file.into()))
}

/// Asks, and reports.
///
/// # Errors
/// A file cannot be used, a party is missing or fails, or the servers refuse.
pub async fn run(args: &Args) -> Result<(), Failure> {
    store::check_asked(&args.model).map_err(Failure::usage)?;
    let cluster = Cluster::load(&args.config)?;
    let (images, labels) = read(args)?;
    let reference = args.reference.as_deref().map(reference).transpose()?;

    let keys = args.player_keys.iter().map(|(name, file)| Ok((name.clone(), Identity::load(file)?)));
    let keys = keys.collect::<Result<Keys, Failure>>()?;
    let mut client = Client::connect(&cluster).await?.with_keys(keys);
    let bar = progress_bar(images.nrows(), "asking on shares");
    let (mut answers, mut milliseconds) = (Vec::new(), Vec::new());
    for chunk in images.axis_chunks_iter(Axis(0), args.batch) {
        let samples: Vec<f32> = chunk.iter().copied().collect();
        let start = Instant::now();
        answers.push(client.predict(&args.model, samples, chunk.nrows()).await?);
        milliseconds.push(start.elapsed().as_secs_f64() * 1e3);
        bar.inc(chunk.nrows() as u64);
    }
    bar.finish_and_clear();
    let report = report(args, &images, labels.as_deref(), reference.as_ref(), &answers, milliseconds)?;
    if args.json {
        print_json(&report)?;
    } else {
        print(&report, &answers);
    }
    Ok(())
}

fn read(args: &Args) -> Result<(Array2<f32>, Option<Vec<u8>>), Failure> {
    let (mut images, mut labels) = match &args.labels {
        Some(labels) => {
            let both = data::Labelled::read(&args.images, labels).map_err(Failure::usage)?;
            (both.images, Some(both.labels))
        }
        None => (data::images(&args.images).map_err(Failure::usage)?, None),
    };
    let count = args.count.unwrap_or(images.nrows());
    if count == 0 || args.batch == 0 || count > images.nrows() {
        return Err(Failure::usage(format!(
            "{} has {} images: give a --count from 1 to that, and a --batch of at least 1",
            args.images.display(),
            images.nrows()
        )));
    }
    images.slice_collapse(s![..count, ..]);
    if let Some(labels) = &mut labels {
        labels.truncate(count);
    }
    Ok((images, labels))
}

fn reference(path: &Path) -> Result<Plaintext, Failure> {
    onnx::bytes(path).and_then(|file| Plaintext::new(&file)).map_err(|error| error.of(path))
}

/// One label and, unless the model reveals labels alone, the logits, for each image.
fn outputs(spec: &ClientSpec, answers: &[Answer]) -> (Vec<usize>, Option<Array2<f32>>) {
    let columns: usize =
        spec.outputs.first().map_or(1, |output| output.shape.iter().map(|n| *n as usize).product::<usize>()).max(1);
    let values: Vec<f32> = answers.iter().filter_map(|answer| answer.outputs.first()).flatten().copied().collect();
    let rows = Array2::from_shape_vec((values.len() / columns, columns), values).unwrap_or_default();
    if columns == 1 {
        return (rows.column(0).iter().map(|label| *label as usize).collect(), None);
    }
    (classes(&rows), Some(rows))
}

fn report(
    args: &Args,
    images: &Array2<f32>,
    labels: Option<&[u8]>,
    reference: Option<&Plaintext>,
    answers: &[Answer],
    milliseconds: Vec<f64>,
) -> Result<Evaluation, Failure> {
    let Some(first) = answers.first() else { return Err(Failure::usage("no images")) };
    let spec = &first.spec;
    let (private, logits) = outputs(spec, answers);
    let in_clear = match reference {
        Some(reference) => {
            let normalised = spec.inputs.first().and_then(|input| input.normalised);
            let seen = match normalised {
                Some([mean, std]) => Normalisation { mean, std }.apply(images.view()),
                None => images.clone(),
            };
            Some(reference.logits(seen.view()).map_err(Failure::usage)?)
        }
        None => None,
    };
    let clear: Option<Vec<usize>> = in_clear.as_ref().map(classes);
    let labels: Option<Vec<usize>> = labels.map(|labels| labels.iter().map(|label| usize::from(*label)).collect());
    let error = logits
        .as_ref()
        .zip(in_clear.as_ref())
        .filter(|(a, b)| a.dim() == b.dim())
        .map(|(a, b)| a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs()).fold(0.0, f64::max));
    let planned = &first.stats[0].planned;
    Ok(Evaluation {
        schema: SCHEMA,
        model: args.model.clone(),
        protocol: spec.protocol.clone(),
        ring_bits: spec.numbers.ring_bits,
        fraction_bits: spec.numbers.fraction_bits,
        batch: args.batch.min(images.nrows()),
        images: images.nrows(),
        accuracy_private: labels.as_deref().map(|labels| fraction_equal(&private, labels)),
        accuracy_plaintext: labels
            .as_deref()
            .zip(clear.as_deref())
            .map(|(labels, clear)| fraction_equal(clear, labels)),
        agreement: clear.as_deref().map(|clear| fraction_equal(&private, clear)),
        max_abs_error: error,
        rounds: first.rounds(),
        online_bytes: first.online_bytes(),
        offline_bytes: first.offline_bytes(),
        client_bytes: first.client_bytes,
        wire_bytes: first.wire_bytes(),
        planned_rounds: planned.rounds,
        planned_online_bytes: planned.online_bytes,
        planned_offline_bytes: planned.offline_bytes,
        planned_client_bytes: planned.client_bytes,
        latency_ms_p50: median(milliseconds),
    })
}

fn print(report: &Evaluation, answers: &[Answer]) {
    if let (1..=20, Some(first)) = (report.images, answers.first()) {
        let (labels, _) = outputs(&first.spec, answers);
        let labels: Vec<_> = labels.iter().map(ToString::to_string).collect();
        println!("answers            {}", labels.join(" "));
    }
    let percent = |name: &str, fraction: Option<f64>| {
        if let Some(fraction) = fraction {
            println!("{name:<18} {:.2} %", 100.0 * fraction);
        }
    };
    println!("model              {} by {}, {} images", report.model, report.protocol, report.images);
    percent("right, privately", report.accuracy_private);
    percent("right, in clear", report.accuracy_plaintext);
    percent("agreement", report.agreement);
    if let Some(error) = report.max_abs_error {
        println!("largest error      {error:.5}");
    }
    println!(
        "one batch of {:<5} {:.1} ms, {} rounds, {:.1} kB online, {:.1} kB dealt ahead, {:.1} kB to and from here",
        report.batch,
        report.latency_ms_p50,
        report.rounds,
        report.online_bytes as f64 / 1e3,
        report.offline_bytes as f64 / 1e3,
        report.client_bytes as f64 / 1e3
    );
}
