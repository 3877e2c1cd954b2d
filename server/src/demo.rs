//! `selkie demo`: all three parties in this process, over real sockets, with a model that everybody may see.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use selkie::drawing::{Stroke, rasterise};
use selkie::plan::Plan;
use selkie::program::Program;
use selkie::{Protocol, clear};
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;

use crate::cli::stopped;
use crate::client::Client;
use crate::config::{Address, Cluster, SampleParty, sample};
use crate::deploy::deploy;
use crate::exit::Failure;
use crate::identity::Identity;
use crate::init::free_ports;
use crate::link::Me;
use crate::model::{self, ImportOptions, Imported};
use crate::node::{Service, fresh, http};
use crate::onnx::{self, argmax};
use crate::page::Page;
use crate::scratch::Scratch;
use selkie::Role;

/// The model's name.
const MODEL: &str = "mnist";
/// The page's port, if it is free and nobody asked for another.
const PORT: u16 = 7700;
/// An activation may be off by so much: a digit's logits lie units apart.
const MOST_OFF: f64 = 1.0;
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
    let imported = model::import(&model, &ImportOptions::default())?;
    wait(&services, "find each other").await?;
    let choice = Choice::of(&imported.program);
    // One prediction needs one protocol; the page offers all that can run the model.
    let protocols = if args.once { vec![Protocol::default()] } else { choice.can.clone() };
    deploy(&cluster, &deployer, MODEL, &(&imported.program).into(), &imported.weights, &protocols).await?;
    wait(&services, "open the model's weights under masks").await?;
    println!("The bundled model is deployed as {MODEL:?}: each server holds one share of its weights.\n");
    predict(&cluster, &imported).await?;

    if let Some(listener) = listener {
        serve(listener, page, &cluster, &imported, &choice).await?;
    }
    for service in services {
        service.stop().await;
    }
    Ok(())
}

/// The protocols that can run a program, and read by it.
struct Choice {
    /// The default first.
    can: Vec<Protocol>,
    /// Why each of the others cannot, by its name.
    refused: BTreeMap<&'static str, String>,
}

/// The operation that a plan approximates worst, and how far it may be off, if that is more than [`MOST_OFF`].
fn worst(plan: &Plan) -> Option<(String, f64)> {
    let layers = plan.layers(1).into_iter().map(|layer| (layer.op, layer.error_bound));
    layers.filter(|(_, off)| *off > MOST_OFF).max_by(|(_, a), (_, b)| a.total_cmp(b))
}

impl Choice {
    fn of(program: &Program) -> Self {
        let (mut can, mut refused) = (Vec::new(), BTreeMap::new());
        for protocol in [Protocol::Table, Protocol::Fss, Protocol::SecureNn, Protocol::Pond] {
            match Plan::new(program, protocol) {
                Ok(plan) => match worst(&plan) {
                    Some((op, off)) => {
                        let why = format!(
                            "has no comparisons: it makes a polynomial of this network's {op}, which may be off by {off:.0}: too \
                             much to read by"
                        );
                        refused.insert(protocol.name(), why);
                    }
                    None => can.push(protocol),
                },
                Err(why) => drop(refused.insert(protocol.name(), why.to_string())),
            }
        }
        Self { can, refused }
    }
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
async fn predict(cluster: &Cluster, imported: &Imported) -> Result<(), Failure> {
    let examples: Vec<Example> = serde_json::from_str(EXAMPLES).map_err(Failure::other)?;
    let pick = usize::from(fresh::<1>().map_err(Failure::other)?.first().copied().unwrap_or(0)) % examples.len().max(1);
    let example = examples.get(pick).ok_or_else(|| Failure::other("a bug here: there are no examples"))?;
    let pixels = rasterise(&example.strokes).ok_or_else(|| Failure::other("a bug here: an example without ink"))?;
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
    choice: &Choice,
) -> Result<(), Failure> {
    let address = |role| cluster.party(role).address.to_string();
    let (zero, one) = (address(Role::Server0), address(Role::Server1));
    let document = json!({
        "server0": format!("ws://{zero}/client"), "server1": format!("ws://{one}/client"),
        "producer": address(Role::CryptoProducer), "model": MODEL, "demo": true, "refused": choice.refused,
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
