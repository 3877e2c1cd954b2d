//! `selkie deploy`: a model's program to all three parties, and a share of its weights to each of the two servers.

use std::path::PathBuf;

use selkie::plan::Plan;
use selkie::program::{EntryPoints, Weights};
use selkie::{Objective, Protocol, SharedVariables, Variant};
use serde_json::json;
use zeroize::Zeroizing;

use crate::client::failure;
use crate::config::Cluster;
use crate::exit::{Exit, Failure};
use crate::identity::Identity;
use crate::init::DEPLOYER_KEY_FILE;
use crate::link::{Channel, Link, LinkError, Me, dial};
use crate::model::{self, ModelArgs};
use crate::node::hello::{COMMIT, Hello, Parts, Planned, RETIRE, SentPart, Staged, decode, encode};
use crate::node::{fresh, hex, refusal};
use crate::onnx;
use crate::store::{check_name, part_version, suffix};
use crate::tools::report::{SCHEMA, print_json};
use crate::tools::{objective, protocol};
use selkie::Role;

/// The arguments of `selkie deploy`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model.
    #[arg(value_name = "MODEL.onnx")]
    model: PathBuf,
    /// The name under which clients ask for it: a-z, 0-9, '.', '_', '-'.
    #[arg(long)]
    name: String,
    /// Where the parties are.
    #[arg(long, value_name = "cluster.toml")]
    config: PathBuf,
    /// The protocol to run it with, or several, separated by commas: clients ask for NAME and get the first, or for NAME@PROTOCOL.
    #[arg(long, value_parser = protocol, value_delimiter = ',', default_values_t = [Protocol::default()])]
    protocol: Vec<Protocol>,
    /// What the variants of `fss` and `table` are chosen for, for as long as the model is deployed: latency or bytes.
    #[arg(long, value_parser = objective, default_value_t)]
    objective: Objective,
    #[command(flatten)]
    how: ModelArgs,
    /// The deployer's private key; its public key stands in the configuration's `[deployers]`.
    /// [default: deployer.key beside the configuration]
    #[arg(long, value_name = "FILE")]
    deployer_key: Option<PathBuf>,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// What was deployed.
#[derive(Debug, Clone)]
pub struct Deployed {
    /// Its parts.
    pub parts: Vec<DeployedPart>,
    /// Unlike that of every other deployment.
    pub version: u64,
}

/// A part of it.
#[derive(Debug, Clone)]
pub struct DeployedPart {
    /// The name under which clients ask for it.
    pub name: String,
    /// The protocol that runs it.
    pub protocol: Protocol,
    /// The program's hash.
    pub program: [u8; 32],
    /// The plan's hash, the same at all three parties.
    pub plan: [u8; 32],
}

/// Reads the model, deploys it, and says so.
///
/// # Errors
/// The model cannot be planned, a party is missing, refuses, or has made another plan.
pub async fn run(args: &Args) -> Result<(), Failure> {
    check_name(&args.name).map_err(Failure::usage)?;
    let cluster = Cluster::load(&args.config)?;
    let key_file = args.deployer_key.clone().unwrap_or_else(|| cluster.path().with_file_name(DEPLOYER_KEY_FILE));
    let identity = Identity::load(&key_file)?;
    let model = onnx::bytes(&args.model).and_then(|file| onnx::read(&file)).map_err(|error| error.of(&args.model))?;
    let imported = model::import(&model, &args.how.options()?)?;
    let me = Me::deployer(identity)?;
    let (version, programs) = (fresh_version()?, imported.program.into());
    let (weights, variant) = (&imported.weights, args.objective.into());
    let runs = &each(&args.protocol, &programs);
    let offer = Offer { name: &args.name, version, runs, weights, variant };
    let deployed = deploy_as(&cluster, &me, &offer).await?;
    if args.json {
        print_json(&document(&args.name, &deployed))?;
    } else {
        println!("{} is deployed to all three parties.", args.name);
        for part in &deployed.parts {
            let (program, plan) = (hex(&part.program), hex(&part.plan));
            println!("{} ({})\nprogram {program}\nplan    {plan}", part.name, part.protocol);
        }
    }
    Ok(())
}

/// The first part's fields, and all parts.
fn document(name: &str, deployed: &Deployed) -> serde_json::Value {
    let part = |part: &DeployedPart| {
        json!({
            "model": part.name, "protocol": part.protocol.name(),
            "program": hex(&part.program), "plan": hex(&part.plan),
        })
    };
    let mut document = deployed.parts.first().map_or_else(|| json!({}), part);
    if let Some(fields) = document.as_object_mut() {
        fields.insert("schema".to_owned(), json!(SCHEMA));
        fields.insert("model".to_owned(), json!(name));
        fields.insert("version".to_owned(), json!(format!("{:016x}", deployed.version)));
        fields.insert("parts".to_owned(), deployed.parts.iter().map(part).collect());
    }
    document
}

/// One party in a deployment.
struct Target {
    role: Role,
    channel: Channel,
    // The link lives as long as the deployment.
    link: Link,
}

/// What is deployed.
pub(crate) struct Offer<'a> {
    /// The name under which clients ask for it.
    pub(crate) name: &'a str,
    /// Unlike that of every other deployment.
    pub(crate) version: u64,
    /// One at least; the first is the one that clients get who name no protocol.
    pub(crate) runs: &'a [Run<'a>],
    pub(crate) weights: &'a Weights,
    pub(crate) variant: Variant,
}

/// A protocol, and what it runs. Another one may run another program of the same model: with bounds that suit it.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// Unlike that of the deployment's other runs.
    pub protocol: Protocol,
    /// One program, or several entry points.
    pub programs: &'a EntryPoints,
}

/// Each of the protocols, with the same programs.
#[must_use]
pub fn each<'a>(protocols: &[Protocol], programs: &'a EntryPoints) -> Vec<Run<'a>> {
    protocols.iter().map(|&protocol| Run { protocol, programs }).collect()
}

/// A fresh version.
pub(crate) fn fresh_version() -> Result<u64, Failure> {
    Ok(u64::from_le_bytes(fresh().map_err(Failure::other)?))
}

/// Deploys programs and their weights, in the protocols' usual variant.
///
/// # Errors
/// As [`run`].
pub async fn deploy(
    cluster: &Cluster,
    me: &Me,
    name: &str,
    runs: &[Run<'_>],
    weights: &Weights,
) -> Result<Deployed, Failure> {
    let version = fresh_version()?;
    let variant = Variant::default();
    deploy_as(cluster, me, &Offer { name, version, runs, weights, variant }).await
}

/// The same as a version that was chosen before.
pub(crate) async fn deploy_as(cluster: &Cluster, me: &Me, offer: &Offer<'_>) -> Result<Deployed, Failure> {
    place(cluster, me, offer, false).await.map(|(deployed, _)| deployed)
}

/// Deploys a program that lives as long as what this gives, in the three parties' memory.
pub(crate) async fn hold(cluster: &Cluster, me: &Me, offer: &Offer<'_>) -> Result<Held, Failure> {
    place(cluster, me, offer, true).await.map(|(_, targets)| Held { targets })
}

/// An ephemeral program at the three parties. Dropping it ends it there.
pub(crate) struct Held {
    targets: Vec<Target>,
}

impl Held {
    /// Whether all three parties still have it.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let lost = self.targets.iter().find_map(|target| target.link.death());
        lost.map_or(Ok(()), |error| {
            let failure = Failure::from(error);
            Err(Failure::new(failure.exit, format!("{failure}; the session's program is gone: begin a new session")))
        })
    }

    /// Ends it, and hears from all three that it is gone.
    pub(crate) async fn retire(mut self, cluster: &Cluster) -> Result<(), Failure> {
        for target in &mut self.targets {
            target.channel.send(RETIRE.to_vec()).await?;
            if target.hear(cluster).await? != RETIRE {
                return Err(Failure::new(
                    Exit::PeerFailed,
                    format!("{} did not confirm that it has ended", target.role),
                ));
            }
        }
        Ok(())
    }
}

/// Gives all three parties a program, and both servers their shares; the links are still there afterwards.
async fn place(
    cluster: &Cluster,
    me: &Me,
    offer: &Offer<'_>,
    ephemeral: bool,
) -> Result<(Deployed, Vec<Target>), Failure> {
    let Offer { name, version, .. } = *offer;
    let (parts, sent) = make(offer)?;

    let links = tokio::join!(
        dial(cluster, me, Role::Server0),
        dial(cluster, me, Role::Server1),
        dial(cluster, me, Role::CryptoProducer)
    );
    let mut targets = Vec::with_capacity(3);
    for ((role, link), bytes) in Role::ALL.into_iter().zip(present([links.0, links.1, links.2])?).zip(&sent) {
        let hello = Hello::Deploy { name: name.to_owned(), version, bytes: bytes.len() as u64, ephemeral };
        let channel = link.open_channel(encode(&hello))?;
        let mut target = Target { role, channel, link };
        for frame in bytes.chunks(target.link.frame_limit()) {
            if target.channel.send(frame.to_vec()).await.is_err() {
                // Its reason is more telling than that it listens no more.
                target.hear(cluster).await?;
                return Err(Failure::other(format!("{role} did not take the model to its end")));
            }
        }
        targets.push(target);
    }

    let ours: Staged = parts.iter().map(|part| Planned { program: part.program, plan: part.plan }).collect();
    for target in &mut targets {
        let theirs: Staged = decode(&target.hear(cluster).await?).map_err(Failure::other)?;
        if theirs != ours {
            let show = |all: &Staged| {
                let one = |planned: &Planned| format!("program {} plan {}", hex(&planned.program), hex(&planned.plan));
                all.iter().map(one).collect::<Vec<_>>().join(", ")
            };
            return Err(Failure::new(
                Exit::Refused,
                format!(
                    "{} has made another plan, and nothing was deployed: it has {}, here it is {}; \
                     run the same release of selkie everywhere",
                    target.role,
                    show(&theirs),
                    show(&ours)
                ),
            ));
        }
    }
    // server0 comes last: it is the one that begins to use the model.
    for target in targets.iter_mut().rev() {
        target.channel.send(COMMIT.to_vec()).await?;
        if target.hear(cluster).await? != COMMIT {
            return Err(Failure::new(
                Exit::PeerFailed,
                format!("{} did not confirm: deploy {name} again", target.role),
            ));
        }
    }
    Ok((Deployed { parts, version }, targets))
}

/// What server0, server1 and the crypto producer are sent.
type Sent = [Zeroizing<Vec<u8>>; 3];

/// The parts of a deployment, and what is sent of them.
fn make(offer: &Offer<'_>) -> Result<(Vec<DeployedPart>, Sent), Failure> {
    let (mut parts, mut sent) = (Vec::new(), [Parts::new(), Parts::new(), Parts::new()]);
    for (index, &Run { protocol, programs }) in offer.runs.iter().enumerate() {
        for (entry, program) in programs.iter() {
            let suffix = suffix(entry, (index > 0).then_some(protocol));
            let plan = Plan::of_variant(program, protocol, offer.variant).map_err(Failure::usage)?;
            let seed = fresh().map_err(Failure::other)?;
            let version = part_version(offer.version, &suffix);
            let shares =
                SharedVariables::share(program, &plan, version, offer.weights, seed).map_err(Failure::usage)?;
            for (sent, shares) in sent.iter_mut().zip(shares.map(Some).into_iter().chain([None])) {
                let (suffix, protocol, program) = (suffix.clone(), protocol.name().to_owned(), program.to_bytes());
                sent.push(SentPart { suffix, protocol, variant: offer.variant, program, shares });
            }
            let name = format!("{}{suffix}", offer.name);
            parts.push(DeployedPart { name, protocol, program: program.hash(), plan: plan.hash() });
        }
    }
    Ok((parts, sent.map(|sent| Zeroizing::new(encode(&sent)))))
}

/// All links, or an error that names every party that is missing.
fn present(links: [Result<Link, LinkError>; 3]) -> Result<Vec<Link>, Failure> {
    let (mut there, mut failures) = (Vec::new(), Vec::new());
    for link in links {
        match link {
            Ok(link) => there.push(link),
            Err(error) => failures.push(Failure::from(error)),
        }
    }
    let Some(first) = failures.first() else { return Ok(there) };
    let all: Vec<_> = failures.iter().map(|failure| failure.message.clone()).collect();
    Err(Failure::new(first.exit, format!("{}; nothing was deployed", all.join("; "))))
}

impl Target {
    async fn hear(&mut self, cluster: &Cluster) -> Result<Vec<u8>, Failure> {
        let limit = cluster.limits.idle();
        match tokio::time::timeout(limit, self.channel.recv()).await {
            Ok(Ok(frame)) => Ok(frame),
            Ok(Err(error)) => Err(failure(&refusal::of_link(cluster, &error))),
            Err(_) => Err(Failure::new(
                Exit::PeerFailed,
                format!("{} at {} said nothing for {} s", self.role, cluster.party(self.role).address, limit.as_secs()),
            )),
        }
    }
}
