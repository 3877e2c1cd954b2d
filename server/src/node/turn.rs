//! A run's hold on what its deployment keeps from run to run: which version it runs on, and how the two servers go over to the
//! next one together ([`Keeping`] has the rules).

use std::sync::Arc;

use selkie::client::message::Refusal;
use selkie::{Assigned, Epoch, State};
use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::store::{Keeping, Model};
use selkie::Role;

use super::hello::PREPARED;
use super::pipes::Pipes;
use super::{Node, refusal};

/// What is said of a run that one server cannot be sure of; the other may have said it already.
const DOUBT: &str = "it is not known whether the run counts: ask what the variables are before going on";

/// Whether a run of this model finds kept variables as they are when it begins. (Others find them as they were opened.)
pub(crate) fn pins(model: &Model) -> Option<&Arc<Keeping>> {
    model.keeping.as_ref().filter(|_| model.plan.reads_state() && !model.plan.opens_state())
}

/// Runs that change variables take turns, at each server in the order of server0.
///
/// # Errors
/// Others take too long, or the client went away.
pub(crate) async fn take(
    node: &Node,
    model: &Model,
    stop: &CancellationToken,
) -> Result<Option<OwnedMutexGuard<()>>, Refusal> {
    let Some(keeping) = model.keeping.as_ref().filter(|_| model.plan.assigns()) else { return Ok(None) };
    tokio::select! {
        turn = timeout(node.cluster.limits.idle(), keeping.turn.clone().lock_owned()) => match turn {
            Ok(turn) => Ok(Some(turn)),
            Err(_) => Err(refusal::refused(format!(
                "other runs change the variables of {}, and took longer than limits.idle_seconds: ask again",
                model.deployment
            ))),
        },
        () = stop.cancelled() => Err(refusal::refused("the client went away")),
    }
}

/// Goes over to the next version together with the other server, or ends the epoch: then they find out anew what they share.
///
/// # Errors
/// The version could not be stored here or there, or the other server has gone. The run counts only if both go over to it; if
/// this server cannot know, its clients are told that they cannot know either.
pub(crate) async fn go_over(
    node: &Node,
    model: &Model,
    epoch: Epoch,
    state: &State,
    assigned: Assigned,
    pipes: &mut Pipes,
) -> Result<(), Refusal> {
    let keeping = model.keeping.clone().ok_or_else(|| refusal::bug("a run that changes what nobody keeps"))?;
    let next = state.after(assigned)?;
    let peer = if node.role == Role::Server0 { Role::Server1 } else { Role::Server0 };
    // The other server may have prepared before this one begins: whatever fails from here on leaves both in doubt.
    let both = async {
        let prepared = if keeping.is_stored() {
            // The disk is waited for.
            let to_store = keeping.clone();
            let prepared = tokio::task::spawn_blocking(move || to_store.prepare(epoch, next)).await;
            prepared.map_err(|_| refusal::bug("storing stopped"))?
        } else {
            keeping.prepare(epoch, next)
        };
        prepared.map_err(refusal::refused)?;
        pipes.send(peer, PREPARED.to_vec()).await?;
        pipes.expect(peer, PREPARED).await?;
        keeping.commit(epoch).map_err(refusal::refused)
    };
    if let Err(why) = both.await {
        if let Some(era) = node.current_era().filter(|era| era.epoch == epoch) {
            tracing::warn!(model = %model.deployment, %why, "a run's end is in doubt: the epoch is over");
            era.over.cancel();
        }
        return Err(refusal::peer(
            peer,
            if why.message.contains(DOUBT) { why.message } else { format!("{}; {DOUBT}", why.message) },
        ));
    }
    Ok(())
}
