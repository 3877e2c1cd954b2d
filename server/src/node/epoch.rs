//! How three parties agree on an epoch. server0 leads; both others join when they are linked to each other, too.
//!
//! ```text
//! server0 ── Epoch{nonce} ──▶ both      each answers Joined{nonce, the names of its two links}
//! server0 ── Begin{nonces} ─▶ both      each answers with an empty frame, and then keeps the channel
//! ```
//! Whoever loses a link drops the channel, and with it the epoch ends everywhere: all randomness is void, and the next epoch
//! begins with fresh nonces, even if no process was restarted.

use std::sync::Arc;
use std::time::Duration;

use selkie::client::message::Refusal;
use tokio::time::{sleep, timeout};

use crate::link::{Channel, Link};
use crate::store::Keeping;
use selkie::Role;

use super::era::{Era, link_name};
use super::hello::{Begin, Hello, Joined, Offered, Settled, decode, encode};
use super::{Node, fresh, hex, refusal, setup};

/// How long one step of the agreement may take.
const STEP: Duration = Duration::from_secs(5);
/// Between attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// server0's part, for as long as the process lives.
pub(crate) async fn lead(node: Arc<Node>) {
    let mut last = String::new();
    loop {
        let (Ok(one), Ok(producer)) = tokio::join!(
            node.links.wait(Role::Server1, Duration::from_secs(3600)),
            node.links.wait(Role::CryptoProducer, Duration::from_secs(3600)),
        ) else {
            continue;
        };
        match form(&node, [one, producer]).await {
            Ok((era, mut controls)) => {
                last.clear();
                begin(&node, &era);
                tokio::select! {
                    () = setup::lead(node.clone(), era.clone()) => {}
                    () = era.broken() => {}
                    () = ended(&mut controls) => {}
                    // A run could not be sure of its end.
                    () = era.over.cancelled() => {}
                }
                end(&node, &era);
            }
            Err(refusal) => {
                // It may take many attempts until the two others have found each other: that is said once.
                if refusal.message != last {
                    tracing::info!(why = %refusal, "no epoch yet");
                    last = refusal.message;
                }
            }
        }
        sleep(PAUSE).await;
    }
}

async fn form(node: &Arc<Node>, links: [Link; 2]) -> Result<(Arc<Era>, [Channel; 2]), Refusal> {
    let ours = fresh::<32>().map_err(refusal::bug)?;
    let [one, producer] = &links;
    let hello = encode(&Hello::Epoch { nonce: ours });
    let open = |link: &Link| link.open_channel(hello.clone()).map_err(|e| refusal::of_link(&node.cluster, &e));
    let mut controls = [open(one)?, open(producer)?];
    let roles = [Role::Server1, Role::CryptoProducer];

    let mut joined = Vec::with_capacity(2);
    for ((control, role), link) in controls.iter_mut().zip(roles).zip(&links) {
        let answer: Joined = decode(&step(node, control, role).await?)
            .map_err(|what| refusal::peer(role, format!("{role} sent {what}")))?;
        if answer.to_server0 != link_name(link) {
            return Err(refusal::peer(role, format!("{role} answered on a link that is no longer used")));
        }
        joined.push(answer);
    }
    let [first, second] = <[Joined; 2]>::try_from(joined).map_err(|_| refusal::bug("two parties joined"))?;
    if first.to_third != second.to_third {
        return Err(refusal::refused("server1 and the crypto producer have just found each other anew"));
    }
    let nonces = [ours, first.nonce, second.nonce];
    let kept = common(&node.keepings(), &first.kept);
    for (control, role) in controls.iter_mut().zip(roles) {
        let kept = if role == Role::Server1 { kept.clone() } else { Vec::new() };
        control.send(encode(&Begin { nonces, kept })).await.map_err(|e| refusal::of_link(&node.cluster, &e))?;
        step(node, control, role).await?;
    }
    let [one, producer] = links;
    let links = [(Role::Server1, one), (Role::CryptoProducer, producer)];
    let era = Arc::new(Era::new(node.role, nonces, links));
    settle(node, &era, &kept);
    Ok((era, controls))
}

/// For every deployment that keeps variables at both servers the newest version that both have. One of them may just be deployed
/// to, and not have what the other has: that is fresh, and begins where it is.
pub(crate) fn common(ours: &[Arc<Keeping>], theirs: &[Offered]) -> Vec<Settled> {
    let one = |keeping: &Arc<Keeping>| {
        let (name, version) = &keeping.of;
        let (_, _, offers) = theirs.iter().find(|(n, v, _)| (n, v) == (name, version))?;
        Some((name.clone(), *version, keeping.newest_of(offers)))
    };
    ours.iter().filter_map(one).collect()
}

fn settle(node: &Node, era: &Era, settled: &[Settled]) {
    for keeping in node.keepings() {
        let (name, version) = &keeping.of;
        let chosen = settled.iter().find(|(n, v, _)| (n, v) == (name, version));
        // The other server may be about to be deployed to, and will begin where this one is.
        let chosen = chosen.map_or_else(|| keeping.offers().first().copied(), |(_, _, chosen)| *chosen);
        keeping.settle(era.epoch, chosen);
    }
}

async fn step(node: &Node, control: &mut Channel, role: Role) -> Result<Vec<u8>, Refusal> {
    match timeout(STEP, control.recv()).await {
        Ok(frame) => frame.map_err(|error| refusal::of_link(&node.cluster, &error)),
        Err(_) => Err(refusal::peer(role, format!("{role} said nothing for {} s", STEP.as_secs()))),
    }
}

async fn ended(controls: &mut [Channel; 2]) {
    let [one, producer] = controls;
    // Nothing is said on these channels any more: whatever comes ends the epoch.
    tokio::select! {
        _ = one.recv() => {}
        _ = producer.recv() => {}
    }
}

/// server1's and the crypto producer's part in one attempt.
pub(crate) async fn join(node: Arc<Node>, theirs: [u8; 32], mut control: Channel) {
    match joining(&node, theirs, &mut control).await {
        Ok(era) => {
            begin(&node, &era);
            if control.send(Vec::new()).await.is_ok() {
                tokio::select! {
                    _ = control.recv() => {}
                    () = era.broken() => {}
                    // A newer epoch has taken its place.
                    () = era.over.cancelled() => {}
                }
            }
            end(&node, &era);
        }
        Err(refusal) => control.fail(&refusal::to_reason(&refusal)),
    }
}

async fn joining(node: &Arc<Node>, theirs: [u8; 32], control: &mut Channel) -> Result<Arc<Era>, Refusal> {
    let third = if node.role == Role::Server1 { Role::CryptoProducer } else { Role::Server1 };
    let link = |to| node.links.link(to).map_err(|error| refusal::of_link(&node.cluster, &error));
    let (to_server0, to_third) = (link(Role::Server0)?, link(third)?);
    let nonce = fresh::<32>().map_err(refusal::bug)?;
    let offered = |keeping: Arc<Keeping>| {
        let (name, version) = keeping.of.clone();
        (name, version, keeping.offers())
    };
    let kept = node.keepings().into_iter().map(offered).collect();
    let answer = Joined { nonce, to_server0: link_name(&to_server0), to_third: link_name(&to_third), kept };
    control.send(encode(&answer)).await.map_err(|e| refusal::of_link(&node.cluster, &e))?;
    let begin: Begin = decode(&step(node, control, Role::Server0).await?).map_err(refusal::bug)?;
    let [zero, one, producer] = begin.nonces;
    let own = if node.role == Role::Server1 { one } else { producer };
    if zero != theirs || own != nonce {
        return Err(refusal::peer(Role::Server0, "server0 changed a nonce between two messages"));
    }
    let links = [(Role::Server0, to_server0), (third, to_third)];
    let era = Arc::new(Era::new(node.role, begin.nonces, links));
    settle(node, &era, &begin.kept);
    Ok(era)
}

fn begin(node: &Node, era: &Arc<Era>) {
    tracing::info!(epoch = %hex(era.epoch.as_bytes()), "an epoch begins");
    if let Some(old) = node.era.send_replace(Some(era.clone())) {
        old.over.cancel();
    }
    // What was deployed after the epoch was settled, and before it was there to be entered.
    node.keepings().iter().for_each(|keeping| keeping.enter(era.epoch));
}

fn end(node: &Node, era: &Arc<Era>) {
    era.over.cancel();
    node.era.send_if_modified(|current| {
        let ours = current.as_ref().is_some_and(|current| Arc::ptr_eq(current, era));
        if ours {
            tracing::warn!(epoch = %hex(era.epoch.as_bytes()), "the epoch is over: randomness and opened weights are void");
            *current = None;
        }
        ours
    });
}
