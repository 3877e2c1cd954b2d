//! What the tutorials share: two flags, and a session that is here or over three parties.

#![allow(dead_code, reason = "each tutorial uses a part of it")]

use std::error::Error;
use std::path::{Path, PathBuf};

use ndarray::{Array2, ArrayD, ArrayViewD};
use selkie::Protocol;
use selkie::drawing::{PIXELS, Stroke, rasterise};
use selkie::program::{EntryPoints, Weights};
use selkie_server::client::Keys;
use selkie_server::config::Cluster;
use selkie_server::data::Labelled;
use selkie_server::identity::Identity;
use selkie_server::init::DEPLOYER_KEY_FILE;
use selkie_server::tools::protocol;
use tokio::runtime::Runtime;

/// Which protocol, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Parties {
    /// The protocol.
    #[arg(long, value_parser = protocol, default_value_t)]
    pub(crate) protocol: Protocol,
    /// Run over the three parties of this configuration instead of in this process.
    #[arg(long, value_name = "cluster.toml")]
    pub(crate) remote: Option<PathBuf>,
}

/// Who receives what.
pub(crate) type Outputs = Vec<(String, ArrayD<f32>)>;

/// A program at three parties.
#[derive(Debug)]
pub(crate) enum Session {
    /// All of them in this process.
    Local(Box<selkie::Session>),
    /// Wherever a configuration says; and what waits for their answers.
    Remote(Runtime, Box<selkie_server::Session>),
}

impl Session {
    /// All three parties in this process, for trying things out.
    pub(crate) fn local(
        programs: impl Into<EntryPoints>,
        weights: &Weights,
        protocol: Protocol,
    ) -> Result<Self, Box<dyn Error>> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)?;
        Ok(Self::Local(Box::new(selkie::Session::local(programs, weights, protocol, seed)?)))
    }

    /// Three parties wherever `cluster` says. They take the program from a deployer, whose key `selkie init --local` left beside
    /// the configuration.
    pub(crate) fn remote(
        cluster: &Path,
        programs: impl Into<EntryPoints>,
        weights: &Weights,
        protocol: Protocol,
    ) -> Result<Self, Box<dyn Error>> {
        let deployer = Identity::load(&cluster.with_file_name(DEPLOYER_KEY_FILE))?;
        let (cluster, runtime) = (Cluster::load(cluster)?, Runtime::new()?);
        // The players whose keys are pinned prove who they are; here the deployer is the model trainer.
        let keys: Keys = [("model-trainer".to_owned(), deployer.clone())].into_iter().collect();
        let session = selkie_server::Session::remote(&cluster, deployer, keys, programs, weights, protocol);
        let session = Box::new(runtime.block_on(session)?);
        Ok(Self::Remote(runtime, session))
    }

    /// What each server holds of a variable, where all parties are in this process.
    pub(crate) fn shares_of(&self, variable: &str) -> Result<Option<[Vec<u64>; 2]>, Box<dyn Error>> {
        match self {
            Self::Local(session) => Ok(Some(session.shares_of(variable)?)),
            Self::Remote(..) => Ok(None),
        }
    }

    /// One run: who receives what.
    pub(crate) fn run(&mut self, inputs: &[(&str, ArrayViewD<'_, f32>)]) -> Result<Outputs, Box<dyn Error>> {
        match self {
            Self::Local(session) => Ok(session.run(inputs)?.outputs),
            Self::Remote(runtime, session) => Ok(runtime.block_on(session.run(inputs))?.outputs),
        }
    }

    /// One run of an entry point: who receives what.
    pub(crate) fn call(
        &mut self,
        entry: &str,
        inputs: &[(&str, ArrayViewD<'_, f32>)],
    ) -> Result<Outputs, Box<dyn Error>> {
        match self {
            Self::Local(session) => Ok(session.call(entry, inputs)?.outputs),
            Self::Remote(runtime, session) => Ok(runtime.block_on(session.call(entry, inputs))?.outputs),
        }
    }
}

#[derive(serde::Deserialize)]
struct Drawing {
    digit: u8,
    strokes: Vec<Stroke>,
}

/// Digits as strokes, drawn as the page draws them.
pub(crate) fn drawings(name: &str) -> Result<Labelled, Box<dyn Error>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/digits").join(name);
    let drawings: Vec<Drawing> = serde_json::from_slice(&std::fs::read(path)?)?;
    let mut pixels = Vec::with_capacity(drawings.len() * PIXELS);
    for drawing in &drawings {
        pixels.extend(rasterise(&drawing.strokes).ok_or("a drawing without strokes")?);
    }
    let images = Array2::from_shape_vec((drawings.len(), PIXELS), pixels)?;
    Ok(Labelled { images, labels: drawings.iter().map(|drawing| drawing.digit).collect() })
}
