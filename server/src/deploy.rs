//! `selkie deploy`: a model's program to all three parties, and a share of its weights to each of the two servers.

use std::path::PathBuf;

use selkie::plan::Plan;
use selkie::program::{Program, Weights};
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
use crate::node::hello::{COMMIT, Hello, RETIRE, Staged, decode, encode};
use crate::node::{fresh, hex, refusal};
use crate::onnx;
use crate::store::check_name;
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
    /// The protocol to run it with.
    #[arg(long, value_parser = protocol, default_value_t)]
    protocol: Protocol,
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
    /// The program's hash.
    pub program: [u8; 32],
    /// The plan's hash, the same at all three parties.
    pub plan: [u8; 32],
    /// Unlike that of every other deployment.
    pub version: u64,
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
    let offer = Offer {
        name: &args.name,
        version: fresh_version()?,
        program: &imported.program,
        weights: &imported.weights,
        protocol: args.protocol,
        variant: args.objective.into(),
    };
    let deployed = deploy_as(&cluster, &me, &offer).await?;
    let (program, plan) = (hex(&deployed.program), hex(&deployed.plan));
    if args.json {
        let document = json!({
            "schema": SCHEMA, "model": args.name, "protocol": args.protocol.name(),
            "variant": args.objective.name(),
            "program": program, "plan": plan, "version": format!("{:016x}", deployed.version),
        });
        print_json(&document)?;
    } else {
        println!("{} is deployed to all three parties.\nprogram {program}\nplan    {plan}", args.name);
    }
    Ok(())
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
    pub(crate) program: &'a Program,
    pub(crate) weights: &'a Weights,
    pub(crate) protocol: Protocol,
    pub(crate) variant: Variant,
}

/// A fresh version.
pub(crate) fn fresh_version() -> Result<u64, Failure> {
    Ok(u64::from_le_bytes(fresh().map_err(Failure::other)?))
}

/// Deploys a program and its weights, in the protocol's usual variant.
///
/// # Errors
/// As [`run`].
pub async fn deploy(
    cluster: &Cluster,
    me: &Me,
    name: &str,
    program: &Program,
    weights: &Weights,
    protocol: Protocol,
) -> Result<Deployed, Failure> {
    let version = fresh_version()?;
    let variant = Variant::default();
    deploy_as(cluster, me, &Offer { name, version, program, weights, protocol, variant }).await
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
    let Offer { name, version, program, weights, protocol, variant } = *offer;
    let plan = Plan::of_variant(program, protocol, variant).map_err(Failure::usage)?;
    let seed = fresh().map_err(Failure::other)?;
    let shares = SharedVariables::share(program, &plan, version, weights, seed).map_err(Failure::usage)?;
    let [zero, one] = shares.map(|shares| Zeroizing::new(encode(&shares)));
    let program_bytes = program.to_bytes();

    let links = tokio::join!(
        dial(cluster, me, Role::Server0),
        dial(cluster, me, Role::Server1),
        dial(cluster, me, Role::CryptoProducer)
    );
    let none = Zeroizing::new(Vec::new());
    let mut targets = Vec::with_capacity(3);
    for ((role, link), shares) in
        Role::ALL.into_iter().zip(present([links.0, links.1, links.2])?).zip([&zero, &one, &none])
    {
        let hello = Hello::Deploy {
            name: name.to_owned(),
            version,
            program_bytes: program_bytes.len() as u64,
            shares_bytes: shares.len() as u64,
            protocol: protocol.name().to_owned(),
            variant,
            ephemeral,
        };
        let channel = link.open_channel(encode(&hello))?;
        let mut target = Target { role, channel, link };
        let chunk = target.link.frame_limit();
        for frame in program_bytes.chunks(chunk).chain(shares.chunks(chunk)) {
            if target.channel.send(frame.to_vec()).await.is_err() {
                // Its reason is more telling than that it listens no more.
                target.hear(cluster).await?;
                return Err(Failure::other(format!("{role} did not take the model to its end")));
            }
        }
        targets.push(target);
    }

    let ours = Staged { program: program.hash(), plan: plan.hash() };
    for target in &mut targets {
        let theirs: Staged = decode(&target.hear(cluster).await?).map_err(Failure::other)?;
        if theirs != ours {
            return Err(Failure::new(
                Exit::Refused,
                format!(
                    "{} has made another plan, and nothing was deployed: it has program {} plan {}, here it is program {} plan {}; \
                     run the same release of selkie everywhere",
                    target.role,
                    hex(&theirs.program),
                    hex(&theirs.plan),
                    hex(&ours.program),
                    hex(&ours.plan)
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
    Ok((Deployed { program: ours.program, plan: ours.plan, version }, targets))
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
