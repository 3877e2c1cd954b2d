//! `selkie train`: trains a network on MNIST in clear and writes an ONNX file.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Net, Options, Progress, Recipe, Trained};
use crate::exit::Failure;
use crate::{data, onnx};

/// The version of the document that `--json` prints.
const SCHEMA: u32 = 1;

/// What `selkie train` is asked to do.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The network to train.
    #[arg(long, value_enum, default_value = "A")]
    pub net: Net,
    /// How to train it; the other options change single choices.
    #[arg(long, value_enum, default_value = "shipped")]
    pub recipe: Recipe,
    /// Times that every training image is shown.
    #[arg(long)]
    pub epochs: Option<u32>,
    /// Images in a step.
    #[arg(long)]
    pub batch: Option<usize>,
    /// Adam's rate, at the start.
    #[arg(long)]
    pub rate: Option<f32>,
    /// What everything random follows from.
    #[arg(long)]
    pub seed: Option<u64>,
    /// The directory of MNIST's four IDX files, gzipped or not.
    #[arg(long, value_name = "DIR", env = "SELKIE_MNIST_DIR")]
    pub data: Option<PathBuf>,
    /// The file to write [default: the network's name, with .onnx].
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Print one JSON document instead of words.
    #[arg(long)]
    pub json: bool,
}

/// Why `selkie train` ended without a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody said where the images are.
    #[error("no data: name the directory of MNIST's four files with --data DIR or SELKIE_MNIST_DIR")]
    NoData,
    /// The images could not be read.
    #[error(transparent)]
    Data(#[from] data::Error),
    /// Training itself.
    #[error(transparent)]
    Training(#[from] super::Error),
    /// The file could not be written.
    #[error(transparent)]
    Model(#[from] onnx::Error),
    /// The report could not be printed.
    #[error("the report cannot be printed: {0}")]
    Output(#[from] std::io::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Data(data) => data.into(),
            Error::Model(model) => model.into(),
            Error::NoData | Error::Training(_) => Self::usage(error),
            Error::Output(_) => Self::other(error),
        }
    }
}

/// The document that `--json` prints.
#[derive(serde::Serialize)]
struct Report<'a> {
    schema: u32,
    net: String,
    recipe: &'static str,
    epochs: u32,
    batch: usize,
    rate: f32,
    seed: u64,
    parameters: usize,
    test_accuracy: f64,
    seconds: f64,
    file: &'a str,
    bytes: usize,
}

/// Trains, writes the file, and reports.
///
/// # Errors
/// The options make no sense, the data cannot be read, or the file cannot be written.
pub fn run(args: &Args) -> Result<(), Error> {
    let options = options(args);
    let directory = args.data.as_deref().ok_or(Error::NoData)?;
    let file = args.out.clone().unwrap_or_else(|| PathBuf::from(format!("{}.onnx", options.net)));
    onnx::check_writable(&file)?;
    let mnist = data::Mnist::read(directory)?;

    let bar = progress_bar();
    let start = Instant::now();
    let Trained { model, test_accuracy } = super::run(&options, &mnist, &mut |progress| show(&bar, &progress))?;
    bar.finish_and_clear();
    let seconds = start.elapsed().as_secs_f64();
    let bytes = onnx::save(&model, &file)?;

    let report = Report {
        schema: SCHEMA,
        net: options.net.to_string(),
        recipe: match args.recipe {
            Recipe::Tutorial => "tutorial",
            Recipe::Shipped => "shipped",
        },
        epochs: options.epochs,
        batch: options.batch,
        rate: options.rate,
        seed: options.seed,
        parameters: model.parameters(),
        test_accuracy,
        seconds,
        file: &file.display().to_string(),
        bytes,
    };
    print(&report, args.json)?;
    Ok(())
}

fn options(args: &Args) -> Options {
    let recipe = Options::new(args.net, args.recipe);
    Options {
        epochs: args.epochs.unwrap_or(recipe.epochs),
        batch: args.batch.unwrap_or(recipe.batch),
        rate: args.rate.unwrap_or(recipe.rate),
        seed: args.seed.unwrap_or(recipe.seed),
        ..recipe
    }
}

fn print(report: &Report<'_>, json: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, report)?;
        return writeln!(out);
    }
    let Report { net, epochs, seconds, test_accuracy, file, bytes, parameters, .. } = report;
    writeln!(out, "network {net}: {:.2} % of the test images recognised", 100.0 * test_accuracy)?;
    writeln!(out, "{parameters} parameters, {epochs} epochs in {seconds:.0} s")?;
    writeln!(out, "written to {file} ({:.0} kB)", *bytes as f64 / 1000.0)
}

/// A bar on standard error, and only on a terminal.
fn progress_bar() -> ProgressBar {
    let target =
        if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(None, target);
    let template = "{msg} {wide_bar} {percent:>3} % {eta}";
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

fn show(bar: &ProgressBar, progress: &Progress) {
    let Progress { epoch, epochs, step, steps, loss, test_accuracy } = *progress;
    bar.set_length(u64::from(epochs) * steps as u64);
    bar.set_position(u64::from(epoch - 1) * steps as u64 + step as u64);
    match test_accuracy {
        Some(accuracy) => bar.set_message(format!("epoch {epoch}/{epochs}: {:.2} % of the test", 100.0 * accuracy)),
        // Between epochs only now and then: every step would cost more than it tells.
        None if step % 20 == 0 => bar.set_message(format!("epoch {epoch}/{epochs}: loss {loss:.3}")),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

    use super::*;
    use crate::exit::Exit;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &[&str]) -> Args {
        Cli::try_parse_from(std::iter::once(&"train").chain(line)).unwrap().args
    }

    #[test]
    fn single_choices_change_a_recipe() {
        let chosen = options(&args(&["--net", "B", "--recipe", "tutorial", "--epochs", "5", "--seed", "9"]));
        assert_eq!((chosen.net, chosen.epochs, chosen.batch, chosen.seed), (Net::B, 5, 256, 9));
        assert!(chosen.augmentation.is_none() && !chosen.decay);
        assert!(options(&args(&["--net", "demo"])).augmentation.is_some());
        for (name, net) in [("B-avg", Net::BAvg), ("b-avg", Net::BAvg), ("C-avg", Net::CAvg)] {
            let chosen = options(&args(&["--net", name]));
            assert_eq!((chosen.net, chosen.net.to_string().to_lowercase()), (net, name.to_lowercase()));
        }
        assert!(Cli::try_parse_from(["train", "--net", "E"]).is_err());
    }

    #[test]
    fn what_cannot_work_is_said_before_training() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("a.onnx");
        let good = Args { data: Some(directory.path().to_owned()), out: Some(out), ..args(&[]) };
        let nameless = Failure::from(run(&Args { data: None, ..good.clone() }).unwrap_err());
        assert_eq!(nameless.exit, Exit::Usage);
        assert!(nameless.message.contains("SELKIE_MNIST_DIR"));
        let nowhere = Args { out: Some(directory.path().join("nowhere/a.onnx")), ..good.clone() };
        assert!(matches!(run(&nowhere), Err(Error::Model(_))));
        // An empty directory: the message names the file that is missing.
        let message = run(&good).unwrap_err().to_string();
        assert!(message.contains("train-images-idx3-ubyte"), "{message}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
