//! Correlated randomness on its way from the crypto producer to the servers: each says for how many units it has room, and no
//! more are dealt. server0 is dealt only what both are dealt alike; most protocols have nothing of that kind.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use selkie::client::message::Refusal;
use selkie::deal::Dealer;
use tokio::sync::{OnceCell, mpsc};
use tokio::time::sleep;
use zeroize::Zeroizing;

use crate::link::{Channel, LinkError};
use selkie::Role;

use super::era::{Era, Ready, Wish, capacity};
use super::hello::{About, Hello, Units, Want, decode, encode};
use super::measured::{self, Measurement};
use super::pipes::LARGE;
use super::setup::{agree, agreed_era};
use super::{Node, refusal};

/// Units dealt in one go.
const CHUNK: u64 = 4;
/// A server asks when it has room for this part of its stock, …
const PART: usize = 8;
/// … and for no more than this many at once.
const MOST: usize = 1024;
/// How soon a server looks again whether a query still runs, when dealing has to wait for its end.
const QUIET: Duration = Duration::from_millis(2);
/// What is computed ahead takes no more than this of a model.
const PREPARED_BYTES: usize = 64 << 20;
/// Between attempts to be dealt to.
const PAUSE: Duration = Duration::from_secs(1);

/// What was dealt for one unit.
type Material = Zeroizing<Vec<u8>>;

/// A server's part: keeps the stock full until the era is over or the model was replaced.
pub(crate) async fn stock_up(node: Arc<Node>, era: Arc<Era>, ready: Arc<Ready>) {
    if ready.model.plan.unit_bytes(node.role) == 0 {
        return prepare_ahead(node, ready).await;
    }
    let keeping = async {
        while era.current(ready.model.version).is_some() {
            if let Err(error) = receive(&node, &era, ready.clone()).await {
                let refusal = refusal::of_link(&node.cluster, &error);
                tracing::warn!(model = %ready.model.name, why = %refusal, "nothing is dealt");
            }
            sleep(PAUSE).await;
        }
    };
    tokio::select! {
        () = keeping => {}
        () = ready.over.cancelled() => {}
    }
}

async fn receive(node: &Node, era: &Era, ready: Arc<Ready>) -> Result<(), LinkError> {
    let link = era
        .link(Role::CryptoProducer)
        .ok_or_else(|| LinkError::Local("a bug here: an epoch without a crypto producer".to_owned()))?;
    let mut channel = link.open_channel(encode(&Hello::Deal(era.about(&ready.model))))?;
    let bytes = ready.model.plan.unit_bytes(node.role);
    let misbehaved = |what: String| LinkError::Misbehaved {
        peer: Role::CryptoProducer.into(),
        address: link.address().to_owned(),
        what,
    };
    let threshold = (ready.stock().capacity() / PART).max(1);
    while era.current(ready.model.version).is_some() {
        let moved = ready.moved.notified();
        tokio::pin!(moved);
        moved.as_mut().enable();
        let (first, room) = ready.stock().wanted();
        // A little room is not worth asking for, unless somebody waits.
        let awaited = first < ready.awaited.load(Ordering::Acquire);
        if room == 0 || (room < threshold && !awaited) {
            moved.await;
            continue;
        }
        if !node.cluster.limits.deal_while_computing && !awaited && node.is_busy() {
            sleep(QUIET).await;
            continue;
        }
        let (count, start) = (room.min(MOST) as u32, Instant::now());
        channel.send(encode(&Want { first, count })).await?;
        for unit in first..first + u64::from(count) {
            let mut material = Material::new(Vec::with_capacity(bytes));
            while material.len() < bytes {
                let frame = channel.recv().await?;
                if frame.is_empty() || frame.len() > bytes - material.len() {
                    return Err(misbehaved("it dealt more than was asked for".to_owned()));
                }
                material.extend_from_slice(&frame);
            }
            // Before a query can burn it: what is computed ahead borrows the material, where it would copy it out of the stock.
            let mut material = prepare(&ready, unit, material).await?;
            ready
                .stock()
                .put(unit, std::mem::take(&mut *material))
                .map_err(|blame| misbehaved(blame.what().to_owned()))?;
            ready.moved.notify_waiters();
        }
        measured::say(&Measurement::Stocked { units: count.into(), micros: start.elapsed().as_micros() as u64 });
    }
    Ok(())
}

/// Computes what follows from a unit's material alone, and gives the material back. It is a head start, and may fail: the run
/// then computes it itself.
async fn prepare(ready: &Arc<Ready>, unit: u64, material: Material) -> Result<Material, LinkError> {
    let (prepared, material) = if ready.model.expense(1).peak <= LARGE {
        (ready.prepare(unit, &material), material)
    } else {
        let apart = ready.clone();
        let computed = tokio::task::spawn_blocking(move || (apart.prepare(unit, &material), material));
        computed.await.map_err(|_| LinkError::Local("a bug here: computing ahead stopped".to_owned()))?
    };
    if let Err(blame) = prepared {
        tracing::warn!(model = %ready.model.name, why = %blame, "nothing is computed ahead");
    }
    Ok(material)
}

/// For a server that expands all of its material from seeds: computes ahead for as many units as a stock would hold.
async fn prepare_ahead(node: Arc<Node>, ready: Arc<Ready>) {
    let most = capacity(&ready.model.plan, &node.cluster.limits);
    let fit = PREPARED_BYTES.checked_div(ready.model.plan.prepared_bytes()).unwrap_or(0);
    let most = most.min(fit) as u64;
    let preparing = async {
        let mut next = 0;
        if most == 0 {
            return;
        }
        loop {
            let moved = ready.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            let first = ready.stock().next();
            let units = next.max(first)..first + most;
            if units.is_empty() {
                moved.await;
                continue;
            }
            if !node.cluster.limits.deal_while_computing && node.is_busy() {
                sleep(QUIET).await;
                continue;
            }
            let (count, start) = (units.end - units.start, Instant::now());
            next = units.end;
            for unit in units {
                if prepare(&ready, unit, Material::default()).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
            measured::say(&Measurement::Stocked { units: count, micros: start.elapsed().as_micros() as u64 });
        }
    };
    tokio::select! {
        () = preparing => {}
        () = ready.over.cancelled() => {}
    }
}

/// server1's: gives sessions their units, in the order in which they were asked for.
pub(crate) async fn hand_out(ready: Arc<Ready>, mut wishes: mpsc::UnboundedReceiver<Wish>) {
    let handing = async {
        while let Some((units, session)) = wishes.recv().await {
            ready.awaited.store(units.end, Ordering::Release);
            ready.moved.notify_waiters();
            loop {
                let moved = ready.moved.notified();
                tokio::pin!(moved);
                moved.as_mut().enable();
                {
                    let mut stock = ready.stock();
                    // Units that no session asked for must go, or there is never room for those that one did.
                    let skipped = stock.next()..units.start.min(stock.wanted().0);
                    if !skipped.is_empty() && ready.model.plan.unit_bytes(Role::Server1) > 0 {
                        let _ = stock.burn(skipped);
                        ready.moved.notify_waiters();
                    }
                    if stock.holds(&units) {
                        if let Ok(burnt) = stock.burn(units) {
                            // A session that has ended meanwhile has burnt its units all the same.
                            let _ = session.send(burnt);
                        }
                        ready.moved.notify_waiters();
                        break;
                    }
                    if units.start < stock.next() || session.is_closed() {
                        break;
                    }
                }
                moved.await;
            }
        }
    };
    tokio::select! {
        () = handing => {}
        () = ready.over.cancelled() => {}
    }
}

/// The crypto producer's part, on a channel that a server opened.
pub(crate) async fn deal(node: Arc<Node>, to: Role, about: About, channel: Channel) {
    let mut channel = channel;
    let result = match ready_for(&node, &about).await {
        Ok((era, ready)) => {
            let limit = era.link(to).map_or(1024, |link| link.frame_limit());
            tokio::select! {
                result = dealing(&node, &ready, to, &mut channel, limit) => result,
                () = era.over.cancelled() => Err(refusal::refused("the epoch is over")),
            }
        }
        Err(refusal) => Err(refusal),
    };
    if let Err(refusal) = result {
        tracing::warn!(model = %about.model, why = %refusal, "dealing ended");
        channel.fail(&refusal::to_reason(&refusal));
    }
}

async fn dealing(
    node: &Node,
    ready: &Arc<Ready>,
    to: Role,
    channel: &mut Channel,
    limit: usize,
) -> Result<(), Refusal> {
    let lost = |error: LinkError| refusal::of_link(&node.cluster, &error);
    let dealer = ready.dealer.clone().ok_or_else(|| refusal::bug("a producer without masks"))?;
    // Dealing a unit again, after a broken attempt, gives the server the same bytes again.
    let mut next = None;
    loop {
        let wanted = match channel.recv().await {
            // It needs no more: the model was retired.
            Err(LinkError::Closed { .. }) => return Ok(()),
            wanted => wanted.map_err(lost)?,
        };
        let want: Want = decode(&wanted).map_err(|what| refusal::peer(to, what))?;
        let fits = |units: &Range<u64>| units.start == next.unwrap_or(units.start) && want.count as usize <= MOST;
        let Some(units) = want.range().filter(fits) else {
            let what = format!("{to} wants {} units from unit {} on, after unit {next:?}", want.count, want.first);
            return Err(refusal::peer(to, what));
        };
        next = Some(units.end);
        let mut spent = Duration::ZERO;
        for start in units.clone().step_by(CHUNK as usize) {
            let chunk = start..(start + CHUNK).min(units.end);
            let permit = node.dealing.clone().acquire_owned().await;
            let dealer: Arc<Dealer> = dealer.clone();
            let start = Instant::now();
            let dealt = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                dealer.deal(to, chunk)
            });
            let dealt = dealt.await.map_err(|_| refusal::bug("the dealer stopped"))??;
            spent += start.elapsed();
            for unit in dealt {
                for frame in unit.chunks(limit) {
                    channel.send(frame.to_vec()).await.map_err(lost)?;
                }
            }
        }
        measured::say(&Measurement::Dealt { to, units: want.count.into(), micros: spent.as_micros() as u64 });
    }
}

/// The crypto producer's: a model with its masks drawn.
pub(crate) async fn ready_for(node: &Arc<Node>, about: &About) -> Result<(Arc<Era>, Arc<Ready>), Refusal> {
    let era = agreed_era(node, about)?;
    // The version before the current one still serves the sessions that began on it.
    if let Some(ready) = era.current(about.version).filter(|ready| era.about(&ready.model) == *about) {
        return Ok((era, ready));
    }
    let (era, model) = agree(node, about)?;
    let cell = {
        let mut dealers = era.dealers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        dealers.entry(about.version).or_insert_with(|| Arc::new(OnceCell::new())).clone()
    };
    let made = cell.get_or_try_init(|| async {
        let binding = era.bind(&model);
        let bound = binding.clone();
        let dealer = tokio::task::spawn_blocking(move || Dealer::new(bound));
        let dealer = dealer.await.map_err(|_| refusal::bug("the dealer stopped"))??;
        let (limits, over) = (&node.cluster.limits, era.over.child_token());
        let (ready, _) = Ready::new(model.clone(), binding, None, Some(Arc::new(dealer)), limits, over);
        let ready = Arc::new(ready);
        node.activate(&era, ready.clone());
        Ok::<_, Refusal>(ready)
    });
    let ready = made.await?.clone();
    Ok((era, ready))
}

/// The crypto producer's: burns a session's units.
pub(crate) fn burn(node: &Node, about: &About, units: &Units) -> Result<selkie::Burnt, Refusal> {
    let era = agreed_era(node, about)?;
    if era.current(about.version).is_none() {
        agree(node, about)?;
    }
    let range = units.range().ok_or_else(|| refusal::peer(Role::Server0, "server0 began a session without units"))?;
    let mut numbers = era.numbers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let stock = numbers.entry(about.version).or_insert_with(|| selkie::Stock::of_numbers(era.epoch));
    Ok(stock.burn(range)?)
}
