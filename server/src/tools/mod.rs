//! What is found out about a model on one machine: `selkie evaluate` runs it with all parties in memory, `selkie plan` says
//! what it will cost.

pub mod evaluate;
pub mod plan;
pub mod report;
pub(crate) mod table;

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use selkie::{Blame, Culprit, Objective, Protocol};

use crate::exit::Failure;

/// Reads a protocol's name from a command line.
///
/// # Errors
/// There is no such protocol; the message names those that there are.
pub fn protocol(name: &str) -> Result<Protocol, String> {
    let names = || Protocol::ALL.iter().map(|protocol| protocol.name()).collect::<Vec<_>>().join(", ");
    Protocol::named(name).ok_or_else(|| format!("there is no such protocol; there are: {}", names()))
}

/// Reads an objective's name from a command line.
///
/// # Errors
/// There is no such objective; the message names those that there are.
pub fn objective(name: &str) -> Result<Objective, String> {
    let names = || Objective::ALL.iter().map(|objective| objective.name()).collect::<Vec<_>>().join(", ");
    Objective::named(name).ok_or_else(|| format!("there is no such objective; there are: {}", names()))
}

/// What a model file is called in reports: its name without the ending.
fn name_of(model: &Path) -> String {
    model.file_stem().unwrap_or(model.as_os_str()).to_string_lossy().into_owned()
}

/// A failure of what ran in this process: bugs are not the caller's.
fn blamed(blame: Blame) -> Failure {
    match blame.culprit() {
        Culprit::You => Failure::usage(blame),
        _ => Failure::other(blame),
    }
}

/// A bar on standard error, and only on a terminal.
pub(crate) fn progress_bar(length: usize, what: &'static str) -> ProgressBar {
    let target =
        if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(length as u64), target).with_message(what);
    let style = ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}
