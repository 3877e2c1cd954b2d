//! One query, at each of the three parties.
//!
//! ```text
//! client ── Ask, inputs ──▶ server0 ── Session ──▶ server1, crypto producer    server0 picks the units
//!        ── Ask, inputs ──▶ server1 ── Session ──▶ crypto producer             everybody burns them, then the machines talk
//! ```
//! A session begins when the inputs are here or, if some are masked, when their masks are asked for: the units are burnt, then
//! the masks handed out, then the inputs come. A crypto producer that has dealt everything ahead is not asked at all.
//! Whatever goes wrong ends this session alone; whoever notices tells the others who must act.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use selkie::client::message::{Planned, Refusal, Session, Stats};
use selkie::party::Party;
use selkie::plan::{LinkCost, Phase};
use selkie::{Burnt, State};
use tokio::sync::{OwnedMutexGuard, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use zeroize::Zeroizing;

use crate::link::Channel;
use crate::store::Model;
use selkie::Role;

use super::era::{Era, Ready, capacity};
use super::hello::{About, Hello, Units, encode};
use super::measured::{self, Measurement};
use super::pipes::Pipes;
use super::setup::agreed_era;
use super::{Node, dealing, gathering, hex, refusal, turn};

/// How long a query waits for a party that has just gone to come back.
const RETURN: Duration = Duration::from_millis(2000);
/// How long a query waits for a model that is being set up.
const SETUP: Duration = Duration::from_secs(15);
/// How long one half of a session waits for the other.
const OTHER_HALF: Duration = Duration::from_secs(4);
/// How long server1 waits for server0's word, which may itself wait for a stock to be filled.
const FIRST_WORD: Duration = Duration::from_secs(15);
/// How long the crypto producer waits for server1: no party keeps a session for longer that was asked of one server alone.
pub(super) const ONE_HALF: Duration = Duration::from_secs(8);
/// What is said when all links are there, and no epoch yet.
const FINDING: &str = "the three parties are just finding each other: ask again in a moment";
/// The most memory that one query may take of a party.
const MEMORY: u64 = 4 << 30;

/// What a peer has said of a session whose other half has not come yet.
pub(crate) struct Offer {
    about: About,
    units: Units,
    channel: Channel,
    /// server1's: the model, the kept variables on which the session runs, and the units as soon as they are burnt.
    own: Option<Own>,
}

/// server1's part of an offer.
type Own = (Arc<Ready>, Option<Arc<State>>, oneshot::Receiver<Burnt>);

impl Offer {
    fn refuse(self, refusal: &Refusal) {
        self.channel.fail(&refusal::to_reason(refusal));
    }
}

/// What clients have asked.
#[derive(Clone)]
pub(crate) struct Query {
    pub(crate) session: Session,
    pub(crate) model: Arc<Model>,
    pub(crate) batch: usize,
}

/// A session that has begun at this server: its units are burnt here and announced to the others, for good.
pub(crate) struct Begun {
    ready: Arc<Ready>,
    hold: Hold,
    burnt: Burnt,
    pipes: Pipes,
    /// Ends the watch for parties that end it, when it computes or is over.
    watched: DropGuard,
}

impl Begun {
    fn new(ready: Arc<Ready>, hold: Hold, burnt: Burnt, pipes: Pipes) -> Self {
        Self { ready, hold, burnt, pipes, watched: CancellationToken::new().drop_guard() }
    }

    /// This server's part of the masks of all inputs; see [`selkie::party::Binding::input_masks`].
    pub(crate) fn masks(&self) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        Ok(Zeroizing::new(self.ready.binding.input_masks(self.burnt.units())?))
    }

    /// Ends it before it has computed anything; the peers are told why.
    pub(crate) fn refuse(self, refusal: &Refusal) {
        self.pipes.fail(refusal);
    }

    /// Waits for another party to end it; `None`: it has begun to compute, or this party has ended it.
    pub(crate) fn broken(&self) -> impl Future<Output = Option<Refusal>> + Send + use<> {
        let (broken, watched) = (self.pipes.broken(), self.watched.token().clone());
        async move { watched.run_until_cancelled(broken).await? }
    }
}

/// What a session holds of what its deployment keeps from run to run: the version on which it runs, and its turn to change it.
struct Hold {
    state: Option<Arc<State>>,
    turn: Option<OwnedMutexGuard<()>>,
}

/// Whether a batch can be asked at all.
///
/// # Errors
/// It is empty or too large; the error says how large it may be.
pub(crate) fn check_batch(node: &Node, model: &Model, batch: usize) -> Result<(), Refusal> {
    if model.plan.assigns() && batch != 1 {
        return Err(refusal::usage(format!(
            "a query of {batch} samples; a run that changes the variables of {} is one of a single sample",
            model.name
        )));
    }
    let most = capacity(&model.plan, &node.cluster.limits);
    if batch == 0 || batch > most {
        return Err(refusal::usage(format!("a query of {batch} samples; {} takes 1 to {most} at a time", model.name)));
    }
    let peak = model.expense(batch).peak;
    if peak > MEMORY {
        return Err(refusal::usage(format!(
            "a query of {batch} samples takes {peak} bytes of memory, {MEMORY} are allowed: ask for fewer at a time"
        )));
    }
    Ok(())
}

/// Burns what a query wants and opens the channels to the other parties.
///
/// # Errors
/// Anything; the refusal names who must act.
pub(crate) async fn begin(node: &Arc<Node>, query: &Query, stop: &CancellationToken) -> Result<Begun, Refusal> {
    let begun = match node.role {
        Role::Server0 => lead(node, query, stop).await,
        Role::Server1 => follow(node, query, stop).await,
        Role::CryptoProducer => Err(refusal::usage("the crypto producer answers no queries: ask server0 and server1")),
    };
    if let Err(refusal) = &begun {
        let session = hex(&query.session);
        tracing::warn!(%session, batch = query.batch, code = ?refusal.code, why = %refusal, "not begun");
    }
    begun
}

/// The answer to a query, at the server that was asked: its shares of every output. `inputs` are its share of every input;
/// `begun` is there if the session has begun already.
///
/// # Errors
/// Anything; the refusal names who must act.
pub(crate) async fn answer(
    node: &Arc<Node>,
    query: &Query,
    begun: Option<Begun>,
    inputs: Zeroizing<Vec<Vec<u8>>>,
    stop: CancellationToken,
) -> Result<(Vec<Vec<u8>>, Stats), Refusal> {
    let (start, from) = (Instant::now(), measured::wall_clock());
    let batch = query.batch;
    let session = hex(&query.session);
    let begun = match begun {
        Some(begun) => begun,
        None => begin(node, query, &stop).await?,
    };
    let result = compute(node, query, begun, inputs).await;
    let millis = start.elapsed().as_millis() as u64;
    match result {
        Ok((output, mut stats)) => {
            stats.micros = start.elapsed().as_micros() as u64;
            measured::say(&Measurement::Answered { from, to: measured::wall_clock() });
            tracing::info!(%session, batch, millis, "answered");
            Ok((output, stats))
        }
        Err(refusal) => {
            tracing::warn!(%session, batch, millis, code = ?refusal.code, why = %refusal, "not answered");
            Err(refusal)
        }
    }
}

/// server0's part: picks the units and tells the others.
async fn lead(node: &Arc<Node>, query: &Query, stop: &CancellationToken) -> Result<Begun, Refusal> {
    let turn = turn::take(node, &query.model, stop).await?;
    let (era, ready) = usable(node, query).await?;
    let link = |to| era.link(to).ok_or_else(|| refusal::bug("an epoch without links"));
    let (one, producer) = (link(Role::Server1)?, link(Role::CryptoProducer)?);
    let with_producer = ready.model.expense(query.batch).involves_producer();
    let (burnt, state, channels) = loop {
        let moved = ready.moved.notified();
        tokio::pin!(moved);
        moved.as_mut().enable();
        {
            // Under the lock, so that sessions reach the others in the order of their units.
            let mut stock = ready.stock();
            let first = stock.next();
            let end = first + query.batch as u64;
            if stock.holds(&(first..end)) {
                let burnt = stock.burn(first..end)?;
                let units = Units { first, count: query.batch as u32 };
                // What the session runs on, and its word to server1 before that of any later change: server1 has it, too.
                let state = turn::pins(&ready.model).map(|keeping| keeping.current()).transpose();
                let state = state.map_err(refusal::refused)?;
                let (session, about) = (query.session, era.about(&ready.model));
                let version = state.as_ref().map_or(0, |state| state.version());
                let hello = encode(&Hello::Session { session, about, units, state: version });
                let lost = |error| refusal::of_link(&node.cluster, &error);
                let mut channels = vec![(Role::Server1, one.open_channel(hello.clone()).map_err(lost)?)];
                if with_producer {
                    channels.push((Role::CryptoProducer, producer.open_channel(hello).map_err(lost)?));
                }
                ready.moved.notify_waiters();
                break (burnt, state, channels);
            }
            if ready.awaited.fetch_max(end, Ordering::AcqRel) < end {
                ready.moved.notify_waiters();
            }
        }
        // The stock is low: the crypto producer deals as fast as it can.
        tokio::select! {
            dealt = timeout(node.cluster.limits.idle(), moved) => dealt.map_err(|_| not_dealt(node))?,
            () = era.over.cancelled() => return Err(missing(node).await),
            () = stop.cancelled() => return Err(refusal::refused("the client went away")),
        }
    };
    let pipes = pipes(node, &ready, query, channels, stop);
    Ok(Begun::new(ready, Hold { state, turn }, burnt, pipes))
}

fn pipes(node: &Node, ready: &Ready, query: &Query, channels: Vec<(Role, Channel)>, stop: &CancellationToken) -> Pipes {
    let expense = ready.model.expense(query.batch);
    // A run that changes variables goes on to its end, whether or not somebody still listens.
    let stop = if ready.model.plan.assigns() { ready.over.child_token() } else { stop.clone() };
    Pipes::new(&node.cluster, channels, expected(&expense.cost.links, node.role), stop)
}

fn not_dealt(node: &Node) -> Refusal {
    let address = &node.cluster.party(Role::CryptoProducer).address;
    refusal::peer(
        Role::CryptoProducer,
        format!("crypto-producer at {address} did not deal enough for the query in time"),
    )
}

/// The era and the model of a query, waiting a moment for a party that comes back or a model that is being set up.
async fn usable(node: &Arc<Node>, query: &Query) -> Result<(Arc<Era>, Arc<Ready>), Refusal> {
    let era = era(node).await?;
    // Its weights as they are now; they are opened where that has not been done.
    let model = query.model.now().map_err(refusal::refused)?;
    if era.current(model.version).or_else(|| era.newer(&model)).is_none() {
        node.deployed.notify_waiters();
    }
    let mut failures = era.failures.subscribe();
    let ready = async {
        loop {
            let why = failures.borrow_and_update().get(&model.version).cloned();
            if let Some(ready) = era.current(model.version).or_else(|| era.newer(&model)) {
                return Ok(ready);
            }
            if let Some(why) = why {
                return Err(refusal::refused(format!("{} cannot be used: {why}", query.model.name)));
            }
            if failures.changed().await.is_err() {
                return Err(refusal::bug("an epoch ended without a word"));
            }
        }
    };
    let ready = tokio::select! {
        ready = timeout(SETUP, ready) => ready.unwrap_or_else(|_| {
            Err(refusal::refused(format!("{} is still being set up: ask again in a moment", query.model.name)))
        }),
        () = era.over.cancelled() => Err(missing(node).await),
    }?;
    Ok((era, ready))
}

async fn era(node: &Arc<Node>) -> Result<Arc<Era>, Refusal> {
    let mut eras = node.era.subscribe();
    // The borrow of what was waited for must not live across another wait.
    let there = timeout(RETURN, eras.wait_for(Option::is_some)).await.map(|era| era.map(|era| era.clone()));
    match there {
        Ok(Ok(era)) => era.ok_or_else(|| refusal::bug("an epoch that is none")),
        _ => Err(missing(node).await),
    }
}

/// Who is not there. When an epoch has just ended the reason may be a link between the two others, or one of which this party
/// learns a moment later.
async fn missing(node: &Node) -> Refusal {
    for _ in 0..20 {
        if let Some(refusal) = absent(node) {
            return refusal;
        }
        sleep(Duration::from_millis(100)).await;
    }
    refusal::refused(FINDING)
}

fn absent(node: &Node) -> Option<Refusal> {
    let failed = node.role.others().into_iter().find_map(|other| node.links.link(other).err());
    failed.map(|error| refusal::of_link(&node.cluster, &error))
}

/// server1, when server0 says that a session begins: its units are burnt in the order of these words.
pub(crate) fn offered(node: &Arc<Node>, session: Session, about: About, units: Units, state: u64, channel: Channel) {
    let checked = agreed_era(node, &about).and_then(|era| {
        let ready = era.current(about.version).filter(|ready| era.about(&ready.model) == about);
        let ready = ready.ok_or_else(|| {
            refusal::refused(format!("server1 does not run this version of {:?}: ask again", about.model))
        })?;
        let range =
            units.range().ok_or_else(|| refusal::peer(Role::Server0, "server0 began a session without units"))?;
        check_batch(node, &ready.model, units.count as usize)?;
        let pinned = turn::pins(&ready.model).map(|keeping| {
            let missing = || refusal::refused(format!("server1 has no version {state} of its variables: ask again"));
            keeping.at(state).ok_or_else(missing)
        });
        Ok((ready, pinned.transpose()?, range))
    });
    let (ready, state, range) = match checked {
        Ok(checked) => checked,
        Err(refusal) => return channel.fail(&refusal::to_reason(&refusal)),
    };
    let (sender, receiver) = oneshot::channel();
    if ready.wishes.send((range, sender)).is_err() {
        return channel.fail(&refusal::to_reason(&refusal::refused("the epoch is over: ask again")));
    }
    bring(node, session, Offer { about, units, channel, own: Some((ready, state, receiver)) });
}

/// The crypto producer, when server1 has joined a session.
pub(crate) fn joined(node: &Arc<Node>, session: Session, about: About, units: Units, channel: Channel) {
    bring(node, session, Offer { about, units, channel, own: None });
}

fn bring(node: &Arc<Node>, session: Session, offer: Offer) {
    let at = node.clone();
    let late = move |offer: Offer| {
        offer.refuse(&match (at.role, gathering::missing(&at, session)) {
            (Role::Server1, None) => refusal::refused("the client asked server0 and never server1"),
            (Role::Server1, Some(players)) => refusal::refused(format!(
                "all players have delivered to server0, and to server1 these have not: {players}; they must ask again, both servers"
            )),
            _ => refusal::peer(Role::Server0, "server0 never began this session"),
        });
    };
    if let Err(offer) = node.offers.bring(session, offer, OTHER_HALF, late) {
        offer.refuse(&refusal::refused("this session is in use already, or too many wait: ask again"));
    }
}

/// server1's part: waits for server0's word, joins the crypto producer.
async fn follow(node: &Arc<Node>, query: &Query, stop: &CancellationToken) -> Result<Begun, Refusal> {
    let silent = || match node.links.link(Role::Server0) {
        Err(error) => refusal::of_link(&node.cluster, &error),
        Ok(_) => match node.current_era() {
            None => absent(node).unwrap_or_else(|| refusal::refused(FINDING)),
            Some(_) => refusal::peer(
                Role::Server0,
                format!(
                    "server0 at {} did not begin the query within {} s",
                    node.cluster.party(Role::Server0).address,
                    FIRST_WORD.as_secs()
                ),
            ),
        },
    };
    let offer = tokio::select! {
        offer = node.offers.fetch(query.session, FIRST_WORD) => offer.ok_or_else(silent)?,
        () = stop.cancelled() => return Err(refusal::refused("the client went away")),
    };
    let Offer { about, units, channel, own: Some((ready, state, burnt)) } = offer else {
        return Err(refusal::bug("an offer without units"));
    };
    let refuse = |channel: Channel, refusal: Refusal| -> Result<Begun, Refusal> {
        channel.fail(&refusal::to_reason(&refusal));
        Err(refusal)
    };
    if ready.model.spec.plan != query.model.spec.plan || units.count as usize != query.batch {
        let what =
            "the client asked server1 something else than server0, or the model was just deployed anew: ask again";
        return refuse(channel, refusal::usage(what));
    }
    let era = match agreed_era(node, &about) {
        Ok(era) => era,
        Err(refusal) => return refuse(channel, refusal),
    };
    let turn = match turn::take(node, &ready.model, stop).await {
        Ok(turn) => turn,
        Err(refusal) => return refuse(channel, refusal),
    };
    let version = state.as_ref().map_or(0, |state| state.version());
    let hello = encode(&Hello::Session { session: query.session, about, units, state: version });
    let open = || match era.link(Role::CryptoProducer) {
        Some(link) => link.open_channel(hello).map_err(|error| refusal::of_link(&node.cluster, &error)),
        None => Err(refusal::bug("an epoch without a crypto producer")),
    };
    let with_producer = ready.model.expense(query.batch).involves_producer();
    let to_producer = match with_producer.then(open).transpose() {
        Ok(opened) => opened,
        Err(refusal) => return refuse(channel, refusal),
    };
    let mut channels = vec![(Role::Server0, channel)];
    channels.extend(to_producer.map(|channel| (Role::CryptoProducer, channel)));
    let pipes = pipes(node, &ready, query, channels, stop);
    // The stock may be low: the crypto producer deals as fast as it can.
    let burnt = tokio::select! {
        burnt = timeout(node.cluster.limits.idle(), burnt) => match burnt {
            Ok(Ok(burnt)) => Ok(burnt),
            Ok(Err(_)) => Err(refusal::refused("the query's randomness was burnt before it began: ask again")),
            Err(_) => Err(not_dealt(node)),
        },
        Some(refusal) = pipes.broken() => Err(refusal),
        () = era.over.cancelled() => Err(missing(node).await),
        () = stop.cancelled() => Err(refusal::refused("the client went away")),
    };
    match burnt {
        Ok(burnt) => Ok(Begun::new(ready, Hold { state, turn }, burnt, pipes)),
        Err(refusal) => {
            pipes.fail(&refusal);
            Err(refusal)
        }
    }
}

/// What both servers do with their units.
async fn compute(
    node: &Arc<Node>,
    query: &Query,
    begun: Begun,
    inputs: Zeroizing<Vec<Vec<u8>>>,
) -> Result<(Vec<Vec<u8>>, Stats), Refusal> {
    let Begun { ready, hold, burnt, pipes, watched } = begun;
    drop(watched);
    let expense = ready.model.expense(query.batch);
    let cost = &expense.cost;
    tracing::info!(session = %hex(&query.session), batch = query.batch, "begun");
    let session_ready = ready.clone();
    let Hold { state, turn } = hold;
    let pinned = state.clone();
    let prepared = ready.take_prepared(burnt.units());
    let (ran, mut pipes) = pipes
        .run(expense.peak, move || {
            let snapshot = session_ready.snapshot.as_ref().ok_or_else(|| refusal::bug("a server without weights"))?;
            let snapshot = match &pinned {
                Some(state) => snapshot.at(&session_ready.model.plan, state)?,
                None => snapshot.clone(),
            };
            Ok(Party::server(&session_ready.binding, &snapshot, &inputs, burnt, prepared)?)
        })
        .await?;
    if let Some((assigned, state)) = ran.assigned.zip(state) {
        let epoch = ready.binding.epoch();
        if let Err(refusal) = turn::go_over(node, &ready.model, epoch, &state, assigned, &mut pipes).await {
            pipes.fail(&refusal);
            return Err(refusal);
        }
    }
    drop(turn);
    let output = ran.output.unwrap_or_default();
    let (sent, from_producer) = pipes.wire_bytes(Role::CryptoProducer);
    let offline = (ready.model.plan.unit_bytes(node.role) * query.batch) as u64;
    let stats = Stats {
        rounds: ran.measured.levels.len() as u32,
        sent_bytes: ran.measured.sent.values().sum(),
        from_producer_bytes: ran.measured.received.get(&selkie::Role::CryptoProducer).copied().unwrap_or(0),
        offline_bytes: offline,
        wire_bytes: sent + from_producer + offline,
        planned: Planned {
            rounds: cost.rounds,
            online_bytes: cost.online_bytes,
            offline_bytes: cost.offline_bytes,
            client_bytes: cost.client_bytes,
        },
        micros: 0,
    };
    Ok((output, stats))
}

/// The crypto producer's part, when server0 begins a session.
pub(crate) fn produce(node: &Arc<Node>, session: Session, about: About, units: Units, channel: Channel) {
    // At once, in the order in which server0 says so.
    let burnt = match dealing::burn(node, &about, &units) {
        Ok(burnt) => burnt,
        Err(refusal) => return channel.fail(&refusal::to_reason(&refusal)),
    };
    let task_node = node.clone();
    node.spawn(async move {
        if let Err(refusal) = producing(&task_node, session, about, units, burnt, channel).await {
            tracing::warn!(session = %hex(&session), why = %refusal, "a session ended");
        }
    });
}

async fn producing(
    node: &Arc<Node>,
    session: Session,
    about: About,
    units: Units,
    burnt: Burnt,
    channel: Channel,
) -> Result<(), Refusal> {
    let other = node.offers.fetch(session, ONE_HALF).await;
    let other = match other {
        Some(offer) if offer.about == about && offer.units == units => offer,
        Some(offer) => {
            let refusal = refusal::refused("server0 and server1 speak of different queries");
            offer.refuse(&refusal);
            channel.fail(&refusal::to_reason(&refusal));
            return Err(refusal);
        }
        None => {
            let refusal = refusal::refused("server1 did not join the session: the client may not have asked it");
            channel.fail(&refusal::to_reason(&refusal));
            return Err(refusal);
        }
    };
    let ready = match dealing::ready_for(node, &about).await {
        Ok((_, ready)) => ready,
        Err(refusal) => {
            other.refuse(&refusal);
            channel.fail(&refusal::to_reason(&refusal));
            return Err(refusal);
        }
    };
    let expense = ready.model.expense(units.count as usize);
    let channels = vec![(Role::Server0, channel), (Role::Server1, other.channel)];
    let pipes = Pipes::new(&node.cluster, channels, expected(&expense.cost.links, node.role), node.stop.child_token());
    // How long the inputs may take is for the servers to say, who end the session if these do not come.
    pipes
        .patient()
        .run(expense.peak, move || {
            let dealer = ready.dealer.as_ref().ok_or_else(|| refusal::bug("a producer without masks"))?;
            Ok(Party::crypto_producer(dealer, burnt)?)
        })
        .await?;
    Ok(())
}

/// The most that any one peer sends to `to`, headers included.
fn expected(links: &[LinkCost], to: Role) -> u64 {
    links
        .iter()
        .filter(|link| link.to == to.name() && link.phase == Phase::Online)
        .map(|link| link.wire_bytes)
        .max()
        .unwrap_or(0)
}
