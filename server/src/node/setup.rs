//! Opening a model's weights under their masks, once for each version and epoch: server0 leads, server1 follows, and each uses
//! them only when the other has them, too.

use std::sync::Arc;
use std::time::Duration;

use selkie::client::message::Refusal;
use selkie::party::Party;
use selkie::{Snapshot, State};
use tokio::time::{sleep, timeout};

use crate::link::Channel;
use crate::store::Model;
use selkie::Role;

use super::era::{Era, Ready};
use super::hello::{About, COMMIT, Hello, encode};
use super::pipes::Pipes;
use super::{Node, dealing, hex, refusal};

/// Between attempts: from this, doubled each time, …
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// … up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// server0's part: opens every deployed model, and those that are deployed later. Never ends.
pub(crate) async fn lead(node: Arc<Node>, era: Arc<Era>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let deployed = node.deployed.notified();
        tokio::pin!(deployed);
        deployed.as_mut().enable();
        let mut failed = false;
        for model in node.models() {
            // What it keeps may have changed since it was set up last.
            let model = model.now().unwrap_or(model);
            if era.current(model.version).is_some() {
                continue;
            }
            if let Err(refusal) = open(&node, &era, &model).await {
                tracing::warn!(model = %model.name, why = %refusal, "the model could not be set up");
                era.failures.send_modify(|failures| drop(failures.insert(model.version, refusal.message)));
                failed = true;
            }
        }
        if failed {
            // Whatever was deployed meanwhile is worth an attempt at once.
            if timeout(pause, deployed).await.is_err() {
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            sleep(FIRST_PAUSE).await;
        } else {
            pause = FIRST_PAUSE;
            deployed.await;
        }
    }
}

async fn open(node: &Arc<Node>, era: &Arc<Era>, model: &Arc<Model>) -> Result<(), Refusal> {
    let link = era.link(Role::Server1).ok_or_else(|| refusal::bug("an epoch without server1"))?;
    let hello = encode(&Hello::Setup(era.about(model)));
    let channel = link.open_channel(hello).map_err(|error| refusal::of_link(&node.cluster, &error))?;
    run(node, era, model, Role::Server1, channel).await
}

/// server1's part in opening one model.
pub(crate) async fn follow(node: Arc<Node>, about: About, channel: Channel) {
    let (era, model) = match agree(&node, &about) {
        Ok(agreed) => agreed,
        Err(refusal) => {
            tracing::warn!(model = %about.model, why = %refusal, "the model could not be set up");
            channel.fail(&refusal::to_reason(&refusal));
            return;
        }
    };
    if let Err(refusal) = run(&node, &era, &model, Role::Server0, channel).await {
        tracing::warn!(model = %model.name, why = %refusal, "the model could not be set up");
    }
}

/// The era and the model that a peer speaks about, if ours are the same.
///
/// # Errors
/// They are not; the error shows both.
pub(crate) fn agree(node: &Node, about: &About) -> Result<(Arc<Era>, Arc<Model>), Refusal> {
    let era = agreed_era(node, about)?;
    let Some(model) = node.model(&about.model).map(|model| model.at(about.state)) else {
        return Err(refusal::refused(format!(
            "the model {:?} is not deployed at {}: its owner must deploy it again",
            about.model, node.role
        )));
    };
    let ours = era.about(&model);
    if ours == *about {
        return Ok((era, model));
    }
    Err(refusal::refused(differ(node.role, about, &ours)))
}

/// The era, if the peer speaks of the same.
pub(crate) fn agreed_era(node: &Node, about: &About) -> Result<Arc<Era>, Refusal> {
    match node.current_era() {
        Some(era) if *era.epoch.as_bytes() == about.epoch => Ok(era),
        _ => Err(refusal::refused(format!("{} is in another epoch now: ask again", node.role))),
    }
}

fn differ(role: Role, theirs: &About, ours: &About) -> String {
    let show = |about: &About| {
        let short = |hash: &[u8; 32]| hex(hash).chars().take(16).collect::<String>();
        format!("program {} plan {} version {:016x}", short(&about.program), short(&about.plan), about.version)
    };
    format!(
        "{role} has another {:?} ({}) than its peer ({}): its owner must deploy it again",
        ours.model,
        show(ours),
        show(theirs)
    )
}

/// What both servers do; each is the other's peer.
async fn run(
    node: &Arc<Node>,
    era: &Arc<Era>,
    model: &Arc<Model>,
    with: Role,
    channel: Channel,
) -> Result<(), Refusal> {
    let binding = era.bind(model);
    let expense = model.expense(1);
    let expected = expense.cost.setup_bytes;
    // Frames' headers are not payload: twice the plan's bytes is more than any message needs.
    let pipes = Pipes::new(&node.cluster, vec![(with, channel)], expected * 2, era.over.clone());
    let state = match &model.keeping {
        Some(_) => model.opened_state().map_err(refusal::refused)?,
        None => Arc::new(State::new(node.role, [])?),
    };
    let (bound, model_of) = (binding.clone(), model.clone());
    let (ran, mut pipes) = pipes
        .run(expense.peak, move || {
            let shares = model_of.shares.as_deref().ok_or_else(|| refusal::bug("a server without shares"))?;
            Ok(Party::setup(&bound, shares, &state)?)
        })
        .await?;
    let snapshot: Snapshot = ran.snapshot.ok_or_else(|| refusal::bug("a set-up without weights"))?;
    // server0 begins sessions, so it is the last to use the new weights: only when it knows that server1 uses them already.
    if node.role == Role::Server0 {
        pipes.send(with, COMMIT.to_vec()).await?;
    }
    pipes.expect(with, COMMIT).await?;
    let over = era.over.child_token();
    let (ready, wishes) = Ready::new(model.clone(), binding, Some(snapshot), None, &node.cluster.limits, over);
    let ready = Arc::new(ready);
    node.activate(era, ready.clone());
    if node.role == Role::Server1 {
        pipes.send(with, COMMIT.to_vec()).await?;
    }
    tracing::info!(model = %model.name, version = model.version, "ready");
    node.spawn(dealing::stock_up(node.clone(), era.clone(), ready.clone()));
    if node.role == Role::Server1 {
        node.spawn(dealing::hand_out(ready, wishes));
    }
    Ok(())
}
