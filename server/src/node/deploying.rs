//! A party's part in a deployment: it reads the program, makes its own plan, says what it has, and keeps it when the deployer
//! has seen that all three have the same. An ephemeral program it keeps in memory, and only while the deployer is there.

use std::sync::Arc;

use selkie::Protocol;
use selkie::client::message::Refusal;
use selkie::plan::Plan;
use selkie::program::Program;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::identity::PartyKey;
use crate::link::Channel;
use crate::store::{self, Deployment, Model, Part};
use selkie::Role;

use super::hello::{COMMIT, Parts, Planned, RETIRE, SentPart, Staged, decode, encode};
use super::{Node, hex, refusal};

/// The largest program, in bytes.
const MAX_PROGRAM: usize = 16 << 20;
/// The largest deployment, in bytes: programs and shares.
const MAX_BYTES: u64 = 1 << 30;

/// A deployment as it is announced.
pub(crate) struct Coming {
    pub(crate) name: String,
    pub(crate) version: u64,
    pub(crate) bytes: u64,
    /// The deployer, if the program is ephemeral.
    pub(crate) held_by: Option<PartyKey>,
}

/// Takes a deployment from a deployer, whose key is pinned.
pub(crate) async fn take(node: Arc<Node>, key: PartyKey, coming: Coming, mut channel: Channel) {
    let deployer = node.cluster.deployer(&key).unwrap_or("somebody").to_owned();
    match taking(&node, &coming, &mut channel).await {
        Ok(deployment) => {
            let ephemeral = coming.held_by.is_some();
            tracing::info!(model = %deployment.name, version = deployment.version, %deployer, ephemeral, "deployed");
            if ephemeral {
                hold(Held { node, deployment }, channel).await;
            }
        }
        Err(refusal) => {
            let name: String = coming.name.chars().take(80).collect();
            tracing::warn!(model = %name, %deployer, why = %refusal, "not deployed");
            channel.fail(&refusal::to_reason(&refusal));
        }
    }
}

/// An ephemeral program, for as long as this lives.
struct Held {
    node: Arc<Node>,
    deployment: Arc<Deployment>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.node.retire(&self.deployment);
    }
}

/// Keeps an ephemeral program until its deployer says that it is no longer needed, or goes.
async fn hold(held: Held, mut channel: Channel) {
    let heard = channel.recv().await;
    drop(held);
    match heard {
        // The deployer may be gone before it hears so.
        Ok(word) if word == RETIRE => drop(channel.send(RETIRE.to_vec()).await),
        Ok(_) => {
            channel.fail(&refusal::to_reason(&refusal::usage("nothing but its end is said of a program that runs")))
        }
        Err(_) => {}
    }
}

async fn taking(node: &Arc<Node>, coming: &Coming, channel: &mut Channel) -> Result<Arc<Deployment>, Refusal> {
    store::check_name(&coming.name).map_err(refusal::usage)?;
    if coming.bytes > MAX_BYTES {
        return Err(refusal::refused(format!("a deployment of {} bytes, {MAX_BYTES} are allowed", coming.bytes)));
    }
    let Ok(_turn) = node.deploying.try_lock() else {
        return Err(refusal::refused(format!("another model is just being deployed to {}: try again", node.role)));
    };
    node.admits(&coming.name, coming.held_by)?;
    let bytes = read(node, channel, coming.bytes).await?;
    let (role, name, version, held_by) = (node.role, coming.name.clone(), coming.version, coming.held_by);
    let staged = tokio::task::spawn_blocking(move || stage(role, &name, version, held_by, &bytes));
    let deployment = Arc::new(staged.await.map_err(|_| refusal::bug("planning stopped"))??);

    let planned = |model: &Arc<Model>| Planned { program: model.spec.program, plan: model.spec.plan };
    let answer: Staged = deployment.models.iter().map(planned).collect();
    channel.send(encode(&answer)).await.map_err(|e| refusal::refused(e.to_string()))?;
    if next(node, channel).await? != COMMIT {
        return Err(refusal::usage("the deployer did not commit"));
    }
    if !node.take_version(version) {
        return Err(refusal::refused(format!(
            "version {version:016x} was deployed before, and its masks must not be used twice: deploy again"
        )));
    }
    if held_by.is_none() {
        let (keeper, kept) = (node.clone(), deployment.clone());
        let saved = tokio::task::spawn_blocking(move || keeper.store.save(&kept)).await;
        saved
            .map_err(|_| refusal::bug("storing stopped"))?
            .map_err(|error| refusal::refused(format!("{role} could not store the model: {error}")))?;
    }
    node.put(&deployment);
    // The deployer may be gone; the model is here all the same.
    let _ = channel.send(COMMIT.to_vec()).await;
    Ok(deployment)
}

fn stage(role: Role, name: &str, version: u64, held_by: Option<PartyKey>, bytes: &[u8]) -> Result<Deployment, Refusal> {
    let sent: Parts = decode(bytes).map_err(|what| refusal::usage(format!("{role} was sent {what}")))?;
    let part = |sent: SentPart| {
        let protocol = Protocol::named(&sent.protocol).ok_or_else(|| {
            let shown: String = sent.protocol.chars().take(40).collect();
            refusal::usage(format!("{role} knows no protocol {shown:?}: run the same release of selkie everywhere"))
        })?;
        if sent.program.len() > MAX_PROGRAM {
            return Err(refusal::refused(format!(
                "a program of {} bytes, {MAX_PROGRAM} are allowed",
                sent.program.len()
            )));
        }
        let program = Program::from_bytes(&sent.program)?;
        let plan =
            Plan::of_variant(&program, protocol, sent.variant).map_err(|error| refusal::usage(error.to_string()))?;
        tracing::debug!(%role, plan = %hex(&plan.hash()), "staged");
        Ok(Part { suffix: sent.suffix, program, plan, shares: sent.shares })
    };
    let parts = sent.into_iter().map(part).collect::<Result<_, Refusal>>()?;
    Deployment::new(role, name, version, parts, held_by).map_err(refusal::usage)
}

async fn read(node: &Node, channel: &mut Channel, bytes: u64) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    let mut all = Zeroizing::new(Vec::new());
    while (all.len() as u64) < bytes {
        let frame = Zeroizing::new(next(node, channel).await?);
        if frame.is_empty() || frame.len() as u64 > bytes - all.len() as u64 {
            return Err(refusal::usage("more bytes than were announced"));
        }
        all.extend_from_slice(&frame);
    }
    Ok(all)
}

async fn next(node: &Node, channel: &mut Channel) -> Result<Vec<u8>, Refusal> {
    match timeout(node.cluster.limits.idle(), channel.recv()).await {
        Ok(frame) => frame.map_err(|error| refusal::refused(format!("the deployer went away: {error}"))),
        Err(_) => Err(refusal::refused("the deployer said nothing for limits.idle_seconds")),
    }
}
