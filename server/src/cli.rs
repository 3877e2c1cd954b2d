//! The command line.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::config::Cluster;
use crate::exit::{Exit, Failure};
use crate::link::Me;
use crate::node::Service;
use crate::tools::{evaluate, plan};
use crate::{bench, demo, deploy, heap, init, predict, train};
use selkie::Role;

/// Private neural-network inference: two servers compute on what neither can read.
#[derive(Debug, Parser)]
#[command(name = "selkie", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run all three parties here with a bundled model, ask one digit, and serve the page
    Demo(demo::Args),
    /// Run server0
    Server0(ServiceArgs),
    /// Run server1
    Server1(ServiceArgs),
    /// Run the crypto producer
    CryptoProducer(ServiceArgs),
    /// Make keys, and a cluster.toml
    Init(init::InitArgs),
    /// Train a network on MNIST in clear and write it as ONNX
    Train(train::command::Args),
    /// Give a model to the parties: its program to all three, a share of its weights to each server
    Deploy(deploy::Args),
    /// Ask a deployed model about images
    Predict(predict::Args),
    /// Run a model with all parties in memory, beside the same model in clear
    Evaluate(evaluate::Args),
    /// Say what a model will cost, and what each party will see
    Plan(plan::Args),
    /// Measure the protocols: three processes on this machine, beside the same computation in clear
    Bench(bench::Args),
}

#[derive(Debug, clap::Args)]
struct ServiceArgs {
    /// Where the parties are
    #[arg(long, value_name = "cluster.toml")]
    config: PathBuf,
}

/// Does what the command line says, and tells how it went.
#[must_use]
pub fn main() -> ExitCode {
    // Clap ends the process by itself: 2 for usage, 0 for help.
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(()) => Exit::Success.into(),
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.exit.into()
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Init(args) => init::run(&args),
        Command::Train(args) => train::command::run(&args).map_err(Failure::from),
        Command::Evaluate(args) => evaluate::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Bench(args) => {
            log("warn");
            block_on(async move { bench::run(&args).await })
        }
        Command::Server0(args) => serve(Role::Server0, args),
        Command::Server1(args) => serve(Role::Server1, args),
        Command::CryptoProducer(args) => serve(Role::CryptoProducer, args),
        Command::Demo(args) => {
            // The parties end together here, and would warn of each other's going.
            log("error");
            block_on(async move { demo::run(&args).await })
        }
        Command::Deploy(args) => {
            log("warn");
            block_on(async move { deploy::run(&args).await })
        }
        Command::Predict(args) => {
            log("warn");
            block_on(async move { predict::run(&args).await })
        }
    }
}

fn block_on(task: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(task);
    // Sessions that still compute on threads of their own are not waited for.
    runtime.shutdown_background();
    result
}

/// Logs to standard error: for people on a terminal, JSON otherwise. `SELKIE_LOG` filters.
fn log(default: &str) {
    let filter = EnvFilter::try_from_env("SELKIE_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second attempt, in a test, changes nothing.
    let _ = if std::io::stderr().is_terminal() { builder.try_init() } else { builder.json().try_init() };
}

fn serve(role: Role, args: ServiceArgs) -> Result<(), Failure> {
    log("info");
    heap::share();
    let cluster = Arc::new(Cluster::load(&args.config)?);
    let identity = cluster.identity(role)?;
    tracing::info!(
        %role,
        version = env!("CARGO_PKG_VERSION"),
        config = %args.config.display(),
        address = %cluster.party(role).address,
        state = %cluster.state(role)?.display(),
        limits = ?cluster.limits,
        deployers = ?cluster.deployers.keys().collect::<Vec<_>>(),
        "starting"
    );
    let me = Me::new(role, identity)?;
    block_on(async move {
        let service = Service::start(cluster, role, me, None).await?;
        stopped().await;
        tracing::info!(%role, "stopping");
        service.stop().await;
        Ok(())
    })
}

/// Waits for ctrl-c or SIGTERM.
pub(crate) async fn stopped() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    // Without signals there is nothing to wait for.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
