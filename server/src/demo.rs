//! `selkie demo`: all three parties in this process, over real sockets, with a model that everybody may see.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use ndarray::Array2;
use selkie::drawing::{PIXELS, Stroke, rasterise};
use selkie::plan::Plan;
use selkie::program::{EntryPoints, Program};
use selkie::{Protocol, clear};
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;

use crate::cli::stopped;
use crate::client::Client;
use crate::config::{Address, Cluster, SampleParty, sample};
use crate::deploy::{Run, deploy};
use crate::exit::Failure;
use crate::identity::Identity;
use crate::init::free_ports;
use crate::link::Me;
use crate::model::{self, ImportOptions, Imported};
use crate::node::{Service, fresh, http};
use crate::onnx::{self, argmax};
use crate::page::Page;
use crate::scratch::Scratch;
use crate::train::Augmentation;
use selkie::Role;

/// The model's name.
const MODEL: &str = "mnist";
/// The page's port, if it is free and nobody asked for another.
const PORT: u16 = 7700;
/// An activation may be off by so much: a digit's logits lie units apart.
const MOST_OFF: f64 = 1.0;
/// Variations of each example drawing that bounds are calibrated with.
const VARIATIONS: usize = 50;
/// How long the parties may take to find each other.
const START: Duration = Duration::from_secs(30);

static BUNDLED: &[u8] = include_bytes!("../models/demo.onnx");
static EXAMPLES: &str = include_str!("../../tests/digits/examples.json");

/// The arguments of `selkie demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// End after one private prediction, instead of serving the page
    #[arg(long)]
    once: bool,
    /// Serve the page on this port [default: 7700, or any free one]
    #[arg(long)]
    port: Option<u16>,
    /// Serve the page from this directory, instead of the one that is built in
    #[arg(long, value_name = "DIR")]
    page: Option<PathBuf>,
}

/// A digit drawn with strokes.
#[derive(Deserialize)]
struct Example {
    digit: usize,
    strokes: Vec<Stroke>,
}

/// Runs the demo.
///
/// # Errors
/// A port is busy, or a bug: everything else is in this process.
pub async fn run(args: &Args) -> Result<(), Failure> {
    let listener = if args.once { None } else { Some(listen(args.port).await?) };
    let page = page(args)?;
    let scratch = Scratch::new("demo")?;
    println!("Three parties in this process: server0, server1 and the crypto producer, each with a key of its own.");
    let (cluster, services, deployer) = parties(scratch.path()).await?;
    let model = onnx::read(BUNDLED).map_err(Failure::other)?;
    let examples = examples()?;
    let imported = model::import(&model, &ImportOptions::default())?;
    let calibrated = model::import(&model, &calibration(&examples)?)?;
    wait(&services, "find each other").await?;
    let programs = [imported.program.clone(), calibrated.program].map(EntryPoints::from);
    let choice = Choice::of(&programs);
    // One prediction needs one protocol; the page offers all that can run the model.
    let runs = if args.once { choice.runs.get(..1) } else { choice.runs.get(..) }.unwrap_or(&[]);
    deploy(&cluster, &deployer, MODEL, runs, &imported.weights).await?;
    wait(&services, "open the model's weights under masks").await?;
    println!("The bundled model is deployed as {MODEL:?}: each server holds one share of its weights.\n");
    predict(&cluster, &imported, &examples).await?;

    if let Some(listener) = listener {
        serve(listener, page, &cluster, &imported, &choice.refused).await?;
    }
    for service in services {
        service.stop().await;
    }
    Ok(())
}

/// The protocols that can run the model, and read by it.
struct Choice<'a> {
    /// The default first, each with the first program that it can run.
    runs: Vec<Run<'a>>,
    /// Why each of the others cannot, by its name.
    refused: BTreeMap<&'static str, String>,
}

/// Whether one can read by what the protocol makes of a program; if not, why.
fn readable(program: &Program, protocol: Protocol) -> Result<(), String> {
    let plan = Plan::new(program, protocol).map_err(|why| why.to_string())?;
    let layers = plan.layers(1).into_iter().map(|layer| (layer.op, layer.error_bound));
    let worst = layers.filter(|(_, off)| *off > MOST_OFF).max_by(|(_, a), (_, b)| a.total_cmp(b));
    worst.map_or(Ok(()), |(op, off)| {
        Err(format!(
            "has no comparisons: it makes a polynomial of this network's {op}, which may be off by {off:.0}: too much to read by"
        ))
    })
}

impl<'a> Choice<'a> {
    /// Among programs of one model, those with better bounds first.
    fn of(programs: &'a [EntryPoints]) -> Self {
        let (mut runs, mut refused) = (Vec::new(), BTreeMap::new());
        for protocol in [Protocol::Table, Protocol::Fss, Protocol::SecureNn, Protocol::Pond] {
            for programs in programs {
                match programs.iter().try_for_each(|(_, program)| readable(program, protocol)) {
                    Ok(()) => {
                        refused.remove(protocol.name());
                        runs.push(Run { protocol, programs });
                        break;
                    }
                    Err(why) => drop(refused.insert(protocol.name(), why)),
                }
            }
        }
        Self { runs, refused }
    }
}

fn examples() -> Result<Vec<Example>, Failure> {
    serde_json::from_str(EXAMPLES).map_err(Failure::other)
}

impl Example {
    fn pixels(&self) -> Result<[f32; PIXELS], Failure> {
        rasterise(&self.strokes).ok_or_else(|| Failure::other("a bug here: an example without ink"))
    }
}

/// Bounds that the example drawings keep, and variations of them: polynomials are fitted to them, and those fitted to what can
/// be proved of all images at all are too coarse to read by.
fn calibration(examples: &[Example]) -> Result<ImportOptions, Failure> {
    let pixels = examples.iter().map(Example::pixels).collect::<Result<Vec<_>, _>>()?;
    let images = Array2::from_shape_vec((pixels.len(), PIXELS), pixels.into_flattened()).map_err(Failure::other)?;
    let images = Augmentation::STRONG.extend(images.view(), VARIATIONS, 0);
    Ok(ImportOptions { calibration: Some(images), ..ImportOptions::default() })
}

fn page(args: &Args) -> Result<Page, Failure> {
    let unusable = |dir: &Path, e| Failure::usage(format!("the page in {} cannot be used: {e}", dir.display()));
    match &args.page {
        Some(directory) => Page::load(directory).map_err(|e| unusable(directory, e)),
        None => Ok(Page::embedded().unwrap_or_else(|| {
            let mut page = Page::default();
            page.add("index.html", Bytes::from_static(WITHOUT.as_bytes()));
            page
        })),
    }
}

/// What is shown by a binary that was built without the page.
const WITHOUT: &str = "<!doctype html><html lang=en><meta charset=utf-8><title>Selkie</title>\
    <p>This selkie was built without its page. <code>make demo</code> builds it with the page; \
    <code>selkie demo --page web/dist</code> serves one that is built already.\n";

async fn parties(scratch: &Path) -> Result<(Arc<Cluster>, Vec<Service>, Me), Failure> {
    let identities = [Identity::generate()?, Identity::generate()?, Identity::generate()?];
    let deployer = Identity::generate()?;
    let ports = free_ports()?;
    let mut parties = identities.iter().zip(ports).map(|(identity, port)| SampleParty {
        address: Address::loopback(port).to_string(),
        key: identity.public().to_string(),
    });
    let (Some(zero), Some(one), Some(producer)) = (parties.next(), parties.next(), parties.next()) else {
        return Err(Failure::other("a bug here: there are three parties"));
    };
    let text = sample(&[zero, one, producer], &deployer.public().to_string());
    let cluster = Arc::new(Cluster::parse(&text, &scratch.join("cluster.toml"))?);
    let mut services = Vec::new();
    for (role, identity) in Role::ALL.into_iter().zip(identities) {
        services.push(Service::start(cluster.clone(), role, Me::new(role, identity)?, None).await?);
    }
    Ok((cluster, services, Me::deployer(deployer)?))
}

async fn wait(services: &[Service], what: &str) -> Result<(), Failure> {
    let start = Instant::now();
    while !services.iter().all(Service::is_ready) {
        if start.elapsed() > START {
            return Err(Failure::other(format!("the parties did not {what} within {} s", START.as_secs())));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// One private prediction of a drawn digit, beside the same in clear.
async fn predict(cluster: &Cluster, imported: &Imported, examples: &[Example]) -> Result<(), Failure> {
    let pick = usize::from(fresh::<1>().map_err(Failure::other)?.first().copied().unwrap_or(0)) % examples.len().max(1);
    let example = examples.get(pick).ok_or_else(|| Failure::other("a bug here: there are no examples"))?;
    let pixels = example.pixels()?;
    let mut client = Client::connect(cluster).await?;
    let start = Instant::now();
    let answer = client.predict(MODEL, pixels.to_vec(), 1).await?;
    let millis = start.elapsed().as_secs_f64() * 1e3;

    let in_clear = clear::evaluate(&imported.program, &imported.weights, &[&pixels], 1, &mut |_, _| ());
    let in_clear = in_clear.map_err(Failure::other)?.into_iter().next().unwrap_or_default();
    let private = answer.outputs.first().cloned().unwrap_or_default();
    let error = private.iter().zip(&in_clear).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let (said, told) = (argmax(ndarray::aview1(&private)), argmax(ndarray::aview1(&in_clear)));
    let agreement = if said == told { "the same" } else { "ANOTHER" };
    println!("digit       {said}    (somebody drew a {})", example.digit);
    println!("agreement   {agreement} as in clear; the largest difference of a logit is {error:.5}");
    println!("time        {millis:.0} ms");
    println!(
        "bytes       {:.1} kB among the parties, {:.1} kB dealt ahead, {:.1} kB to and from the client",
        answer.online_bytes() as f64 / 1e3,
        answer.offline_bytes() as f64 / 1e3,
        answer.client_bytes as f64 / 1e3
    );
    println!("rounds      {}", answer.rounds());
    Ok(())
}

async fn listen(port: Option<u16>) -> Result<TcpListener, Failure> {
    let bind = |port| TcpListener::bind(("127.0.0.1", port));
    match port {
        Some(port) => bind(port).await.map_err(|e| match e.kind() {
            std::io::ErrorKind::AddrInUse => {
                Failure::other(format!("the port {port} is in use: choose another one with --port, or none"))
            }
            _ => Failure::other(format!("cannot listen on 127.0.0.1:{port}: {e}")),
        }),
        None => match bind(PORT).await {
            Ok(listener) => Ok(listener),
            Err(_) => bind(0).await.map_err(|e| Failure::other(format!("cannot listen on 127.0.0.1: {e}"))),
        },
    }
}

async fn serve(
    listener: TcpListener,
    mut page: Page,
    cluster: &Cluster,
    imported: &Imported,
    refused: &BTreeMap<&'static str, String>,
) -> Result<(), Failure> {
    let address = |role| cluster.party(role).address.to_string();
    let (zero, one) = (address(Role::Server0), address(Role::Server1));
    let document = json!({
        "server0": format!("ws://{zero}/client"), "server1": format!("ws://{one}/client"),
        "producer": address(Role::CryptoProducer), "model": MODEL, "demo": true, "refused": refused,
    });
    page.add("cluster.json", Bytes::from(document.to_string()));
    let public = postcard::to_allocvec(&(&imported.program, &imported.weights)).map_err(Failure::other)?;
    page.add("demo/model.bin", Bytes::from(public));
    page.allow(&[format!("ws://{zero}"), format!("ws://{one}")]);
    let page = Arc::new(page);
    println!("\nready http://{}/", listener.local_addr()?);

    let stop = stopped();
    tokio::pin!(stop);
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((tcp, _)) = accepted else {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                let page = page.clone();
                connections.spawn(http::connection(tcp, Duration::from_secs(10), move |request| {
                    let page = page.clone();
                    async move { page.answer(&request) }
                }));
            }
            Some(_) = connections.join_next() => {}
            () = &mut stop => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]

    use selkie::Session;

    use super::*;

    static STROKES: &str = include_str!("../../tests/digits/strokes.json");

    fn imported(options: &ImportOptions) -> Imported {
        model::import(&onnx::read(BUNDLED).unwrap(), options).unwrap()
    }

    #[test]
    fn every_protocol_runs_the_model_pond_by_what_the_examples_show() {
        let calibrated = imported(&calibration(&examples().unwrap()).unwrap()).program;
        let programs = [imported(&ImportOptions::default()).program, calibrated].map(EntryPoints::from);
        let choice = Choice::of(&programs);
        assert_eq!(choice.refused, BTreeMap::new());
        let runs: Vec<_> =
            choice.runs.iter().map(|run| (run.protocol, usize::from(run.programs == &programs[1]))).collect();
        let [table, fss, securenn, pond] = [Protocol::Table, Protocol::Fss, Protocol::SecureNn, Protocol::Pond];
        assert_eq!(runs, [(table, 0), (fss, 0), (securenn, 0), (pond, 1)]);

        let without = Choice::of(&programs[..1]);
        assert_eq!(without.runs.len(), 3);
        assert!(without.refused["pond"].contains("has no comparisons"), "{:?}", without.refused);
    }

    #[test]
    fn pond_reads_drawings_that_it_was_not_calibrated_with() {
        let Imported { program, weights } = imported(&calibration(&examples().unwrap()).unwrap());
        let mut session = Session::local(&program, &weights, Protocol::Pond, [7; 32]).unwrap();
        let drawings: Vec<Example> = serde_json::from_str(STROKES).unwrap();
        let read = drawings.iter().filter(|drawing| {
            let image = Array2::from_shape_vec((1, PIXELS), drawing.pixels().unwrap().to_vec()).unwrap();
            let image = image.to_shape((1, 28, 28)).unwrap().to_owned().into_dyn();
            let logits = session.run(&[(model::INPUT, image.view())]).unwrap().output(model::CLIENT).unwrap();
            argmax(logits.to_shape(10).unwrap().view()) == drawing.digit
        });
        let read = read.count();
        println!("pond reads {read} of {} drawings", drawings.len());
        assert!(read >= 95, "{read}");
    }
}
