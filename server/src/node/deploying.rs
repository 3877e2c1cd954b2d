//! A party's part in a deployment: it reads the program, makes its own plan, says what it has, and keeps it when the deployer
//! has seen that all three have the same. An ephemeral program it keeps in memory, and only while the deployer is there.

use std::sync::Arc;

use selkie::client::message::Refusal;
use selkie::plan::Plan;
use selkie::program::{Program, Visibility};
use selkie::{Protocol, SharedVariables, Variant};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::identity::PartyKey;
use crate::link::Channel;
use crate::store::{self, Model};
use selkie::Role;

use super::hello::{COMMIT, RETIRE, Staged, decode, encode};
use super::{Node, hex, refusal};

/// The largest program, in bytes.
const MAX_PROGRAM: u64 = 16 << 20;
/// The largest shares, in bytes.
const MAX_SHARES: u64 = 1 << 30;

/// A deployment as it is announced.
pub(crate) struct Coming {
    pub(crate) name: String,
    pub(crate) version: u64,
    pub(crate) program_bytes: u64,
    pub(crate) shares_bytes: u64,
    pub(crate) protocol: String,
    pub(crate) variant: Variant,
    /// The deployer, if the program is ephemeral.
    pub(crate) held_by: Option<PartyKey>,
}

/// Takes a model from a deployer, whose key is pinned.
pub(crate) async fn take(node: Arc<Node>, key: PartyKey, coming: Coming, mut channel: Channel) {
    let deployer = node.cluster.deployer(&key).unwrap_or("somebody").to_owned();
    match taking(&node, &coming, &mut channel).await {
        Ok(model) => {
            let ephemeral = model.held_by.is_some();
            tracing::info!(model = %model.name, version = model.version, %deployer, ephemeral, "deployed");
            if ephemeral {
                hold(Held { node, model }, channel).await;
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
    model: Arc<Model>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.node.retire(&self.model);
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

async fn taking(node: &Arc<Node>, coming: &Coming, channel: &mut Channel) -> Result<Arc<Model>, Refusal> {
    store::check_name(&coming.name).map_err(refusal::usage)?;
    if coming.program_bytes > MAX_PROGRAM || coming.shares_bytes > MAX_SHARES {
        return Err(refusal::refused(format!(
            "the model is too large: a program has at most {MAX_PROGRAM} bytes and shares {MAX_SHARES}"
        )));
    }
    if (coming.shares_bytes == 0) != (node.role == Role::CryptoProducer) {
        return Err(refusal::usage(format!("{} bytes of shares are not for {}", coming.shares_bytes, node.role)));
    }
    let protocol = Protocol::named(&coming.protocol).ok_or_else(|| {
        let shown: String = coming.protocol.chars().take(40).collect();
        refusal::usage(format!("{} knows no protocol {shown:?}: run the same release of selkie everywhere", node.role))
    })?;
    let Ok(_turn) = node.deploying.try_lock() else {
        return Err(refusal::refused(format!("another model is just being deployed to {}: try again", node.role)));
    };
    node.admits(&coming.name, coming.held_by)?;
    let program = read(node, channel, coming.program_bytes).await?;
    let shares = read(node, channel, coming.shares_bytes).await?;
    let (role, name, version, how) = (node.role, coming.name.clone(), coming.version, (protocol, coming.variant));
    let staged = tokio::task::spawn_blocking(move || stage(role, &name, version, how, &program, &shares));
    let staged = staged.await.map_err(|_| refusal::bug("planning stopped"))??;
    let model = Arc::new(Model { held_by: coming.held_by, ..staged });

    let answer = encode(&Staged { program: model.spec.program, plan: model.spec.plan });
    channel.send(answer).await.map_err(|e| refusal::refused(e.to_string()))?;
    if next(node, channel).await? != COMMIT {
        return Err(refusal::usage("the deployer did not commit"));
    }
    if !node.take_version(version) {
        return Err(refusal::refused(format!(
            "version {version:016x} was deployed before, and its masks must not be used twice: deploy again"
        )));
    }
    if model.held_by.is_none() {
        let (keeper, kept) = (node.clone(), model.clone());
        let saved = tokio::task::spawn_blocking(move || keeper.store.save(&kept)).await;
        saved
            .map_err(|_| refusal::bug("storing stopped"))?
            .map_err(|error| refusal::refused(format!("{role} could not store the model: {error}")))?;
    }
    node.put(model.clone());
    // The deployer may be gone; the model is here all the same.
    let _ = channel.send(COMMIT.to_vec()).await;
    Ok(model)
}

fn stage(
    role: Role,
    name: &str,
    version: u64,
    (protocol, variant): (Protocol, Variant),
    program: &[u8],
    shares: &[u8],
) -> Result<Model, Refusal> {
    let program = Program::from_bytes(program)?;
    // Their masks would have to be handed out before the query; see CHANGELOG.md.
    if let Some((_, node)) = program.inputs().find(|(_, node)| node.visibility == Visibility::Masked) {
        return Err(refusal::usage(format!(
            "the program has a masked input of shape {:?}, which this release takes in local sessions only: use private_input",
            node.shape
        )));
    }
    let plan = Plan::of_variant(&program, protocol, variant).map_err(|error| refusal::usage(error.to_string()))?;
    let shares: Option<SharedVariables> = match shares {
        [] => None,
        bytes => Some(decode(bytes).map_err(|what| refusal::usage(format!("{role} was sent {what}")))?),
    };
    tracing::debug!(%role, plan = %hex(&plan.hash()), "staged");
    Model::new(role, name, program, plan, version, shares).map_err(refusal::usage)
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
