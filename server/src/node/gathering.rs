//! Where the clients of one query meet, at one server: each acts for some of the program's players, and the query begins when
//! all players have delivered their inputs. Whoever delivers last runs it; everybody receives what is granted to its players.
//!
//! If inputs are masked, the session begins earlier: the first client that needs masks begins it, and each is given those of its
//! players' own inputs, once. Whatever happens then, the units are burnt. A query that is given up keeps its place among those
//! that `[limits]` allow for as long as any party keeps one that was asked of one server alone, so that asking and leaving at
//! once burns units no faster than that.
//!
//! One client that acts for all players, as a browser does, meets nobody and waits for nobody.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use selkie::client::ClientSpec;
use selkie::client::message::{Refusal, Secret, Session, Stats};
use selkie::program::Visibility;
use tokio::runtime::Handle;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, oneshot};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::store::Model;

use super::session::{self, Begun, ONE_HALF, Query};
use super::{Node, refusal};

/// What a client is answered: this server's shares of its players' outputs, one after the other, and what they cost.
type Answer = Result<(Vec<u8>, Stats), Refusal>;

/// This server's share of every input.
type Inputs = Zeroizing<Vec<Vec<u8>>>;

/// The queries that are being gathered or run, by their sessions.
pub(crate) type Gatherings = Mutex<HashMap<Session, Arc<Gathering>>>;

/// One query of several players.
pub(crate) struct Gathering {
    query: Query,
    /// The session begins once, for its masks.
    beginning: OnceCell<()>,
    /// Ends the query early.
    stop: CancellationToken,
    state: Mutex<State>,
    /// One of limits.sessions.
    _permit: OwnedSemaphorePermit,
}

#[derive(Default)]
struct State {
    /// The clients that take part.
    seats: usize,
    /// Players for whom somebody acts, and whether their inputs are here.
    players: HashMap<String, bool>,
    /// This server's share of every input, in the program's order.
    inputs: Vec<Option<Zeroizing<Vec<u8>>>>,
    /// This server's part of every masked input's mask, until it is handed out; empty before the session has begun.
    masks: Vec<Option<Secret>>,
    /// Whether units are burnt, or about to be, before the inputs are here.
    burns: bool,
    /// The session, from its beginning until it computes.
    begun: Option<Begun>,
    waiting: Vec<Waiting>,
    /// Whether all inputs are here, and it computes.
    complete: bool,
    /// Why it is over.
    over: Option<Refusal>,
}

/// A client that has delivered.
struct Waiting {
    players: Vec<String>,
    answer: oneshot::Sender<Answer>,
}

/// A client's place in a query. Whoever leaves it before the answer ends the query for all.
pub(crate) struct Seat {
    node: Arc<Node>,
    session: Session,
    gathering: Arc<Gathering>,
    players: Vec<String>,
    /// What concerns these players.
    pub(crate) spec: ClientSpec,
    /// One of limits.sessions_per_peer.
    place: Option<OwnedSemaphorePermit>,
}

/// Takes a seat for some of the program's players; the first one to come says what is asked.
///
/// # Errors
/// The session is in use for something else, or one of the players has a seat already, or the server is busy.
pub(crate) fn sit(
    node: &Arc<Node>,
    session: Session,
    model: &Arc<Model>,
    batch: usize,
    players: Vec<String>,
    place: OwnedSemaphorePermit,
) -> Result<Seat, Refusal> {
    let mut all = lock(&node.gatherings);
    let gathering = match all.entry(session) {
        Entry::Occupied(there) => there.get().clone(),
        Entry::Vacant(free) => {
            let permit = node.sessions.clone().try_acquire_owned().map_err(|_| {
                refusal::refused(format!("{} is busy with limits.sessions queries: ask again in a moment", node.role))
            })?;
            let inputs = model.spec.inputs.iter().map(|_| None).collect();
            let state = Mutex::new(State { inputs, ..State::default() });
            let stop = node.stop.child_token();
            let query = Query { session, model: model.clone(), batch };
            free.insert(Arc::new(Gathering { query, beginning: OnceCell::new(), stop, state, _permit: permit })).clone()
        }
    };
    gathering.admit(model, batch, &players)?;
    let spec = model.spec.of_players(&players);
    Ok(Seat { node: node.clone(), session, gathering, players, spec, place: Some(place) })
}

/// The players who have not delivered yet in a query that was begun to be gathered.
pub(crate) fn missing(node: &Node, session: Session) -> Option<String> {
    let gathering = lock(&node.gatherings).get(&session).cloned()?;
    let missing = gathering.missing();
    (!missing.is_empty()).then(|| missing.join(", "))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gathering {
    /// Lets a client in, or says why not.
    fn admit(&self, model: &Model, batch: usize, players: &[String]) -> Result<(), Refusal> {
        const FRESH: &str = "choose a fresh random one for every query";
        let mut state = lock(&self.state);
        if state.complete || state.over.is_some() || self.query.model.version != model.version {
            return Err(refusal::usage(format!("this session id is in use: {FRESH}")));
        }
        if self.query.batch != batch {
            return Err(refusal::usage(format!(
                "this session id is in use for a query of {} samples, and here are {batch}: all players of a query ask for the \
                 same number",
                self.query.batch
            )));
        }
        if let Some(taken) = players.iter().find(|player| state.players.contains_key(*player)) {
            return Err(refusal::usage(format!("this session id is in use: somebody acts for {taken} in it; {FRESH}")));
        }
        state.players.extend(players.iter().map(|player| (player.clone(), false)));
        state.seats += 1;
        Ok(())
    }

    fn missing(&self) -> Vec<String> {
        let state = lock(&self.state);
        let absent = |player: &&str| state.players.get(*player) != Some(&true);
        self.query.model.spec.players().into_iter().filter(absent).map(str::to_owned).collect()
    }

    /// Ends it for everybody who waits, and for those who still deliver.
    fn end(&self, refusal: Refusal) {
        let mut state = lock(&self.state);
        let refusal = state.over.get_or_insert(refusal).clone();
        let (waiting, begun) = (std::mem::take(&mut state.waiting), state.begun.take());
        state.masks.clear();
        drop(state);
        self.stop.cancel();
        if let Some(begun) = begun {
            begun.refuse(&refusal);
        }
        for one in waiting {
            // Whoever waits no longer need not be told.
            let _ = one.answer.send(Err(refusal.clone()));
        }
    }

    /// Gives everybody what is granted to its players.
    fn finish(&self, result: Result<(Vec<Vec<u8>>, Stats), Refusal>) {
        let (outputs, stats) = match result {
            Ok(done) => done,
            Err(refusal) => return self.end(refusal),
        };
        let waiting = std::mem::take(&mut lock(&self.state).waiting);
        for Waiting { players, answer } in waiting {
            let granted = self.query.model.spec.outputs.iter().zip(&outputs);
            let granted =
                granted.filter(|(output, _)| players.contains(&output.player)).map(|(_, share)| share.as_slice());
            let _ = answer.send(Ok((granted.collect::<Vec<_>>().concat(), stats.clone())));
        }
    }

    /// Begins the session for its masks: the units are burnt before anybody sees a mask.
    async fn begin(&self, node: &Arc<Node>) -> Result<(), Refusal> {
        {
            let mut state = lock(&self.state);
            if let Some(refusal) = &state.over {
                return Err(refusal.clone());
            }
            state.burns = true;
        }
        let begun = session::begin(node, &self.query, &self.stop).await?;
        let (spec, all) = (&self.query.model.spec, begun.masks()?);
        let masks = spec.inputs.iter().zip(spec.cut_masks(self.query.batch, &all)?);
        let masks = masks.map(|(input, mask)| (input.visibility == Visibility::Masked).then(|| Secret(mask.to_vec())));
        let mut state = lock(&self.state);
        if let Some(refusal) = state.over.clone() {
            drop(state);
            begun.refuse(&refusal);
            return Err(refusal);
        }
        (state.masks, state.begun) = (masks.collect(), Some(begun));
        Ok(())
    }

    /// This server's part of the masks of these players' inputs, one after the other. Nobody is given them again.
    ///
    /// # Errors
    /// The query is over; the refusal names who must act.
    pub(crate) async fn masks(&self, node: &Arc<Node>, players: &[String]) -> Result<Secret, Refusal> {
        let begin = async || self.begin(node).await.inspect_err(|refusal| self.end(refusal.clone()));
        self.beginning.get_or_try_init(begin).await?;
        let mut state = lock(&self.state);
        if let Some(refusal) = &state.over {
            return Err(refusal.clone());
        }
        let mut masks = Secret::default();
        for (mask, input) in state.masks.iter_mut().zip(&self.query.model.spec.inputs) {
            if players.contains(&input.player) && input.visibility == Visibility::Masked {
                let mask = mask.take().ok_or_else(|| refusal::bug("masks that are handed out already"))?;
                masks.0.extend_from_slice(&mask.0);
            }
        }
        Ok(masks)
    }

    /// Waits for a session that has begun to end before its inputs are here, and says why; `None`: it did not.
    pub(crate) async fn failed(&self) -> Option<Refusal> {
        let broken = lock(&self.state).begun.as_ref().map(Begun::broken)?;
        let broken = tokio::select! {
            broken = broken => broken,
            () = self.stop.cancelled() => None,
        };
        if let Some(refusal) = broken
            && !lock(&self.state).complete
        {
            self.end(refusal);
        }
        lock(&self.state).over.clone()
    }

    /// Takes what a client delivers; gives all inputs, and the session if it has begun, to the one who delivers last.
    fn deliver(&self, waiting: Waiting, delivered: Vec<Vec<u8>>) -> Result<Option<(Inputs, Option<Begun>)>, Refusal> {
        let mut state = lock(&self.state);
        if let Some(refusal) = &state.over {
            return Err(refusal.clone());
        }
        let mut delivered = delivered.into_iter();
        for (place, input) in state.inputs.iter_mut().zip(&self.query.model.spec.inputs) {
            if waiting.players.contains(&input.player) {
                *place = delivered.next().map(Zeroizing::new);
            }
        }
        for player in &waiting.players {
            state.players.insert(player.clone(), true);
        }
        state.waiting.push(waiting);
        let all_here = self.query.model.spec.players().iter().all(|player| state.players.get(*player) == Some(&true));
        if !all_here {
            return Ok(None);
        }
        state.complete = true;
        let whole = |input: &mut Option<Zeroizing<Vec<u8>>>| input.as_mut().map(|share| std::mem::take(&mut **share));
        let inputs: Option<Vec<_>> = state.inputs.iter_mut().map(whole).collect();
        let inputs = inputs.ok_or_else(|| refusal::bug("all players have delivered, and an input is missing"))?;
        Ok(Some((Zeroizing::new(inputs), state.begun.take())))
    }
}

impl Seat {
    /// Where it is, and for whom.
    pub(crate) fn gathering(&self) -> (Arc<Gathering>, Vec<String>) {
        (self.gathering.clone(), self.players.clone())
    }

    /// Whether it is in this query.
    pub(crate) fn is_of(&self, gathering: &Arc<Gathering>) -> bool {
        Arc::ptr_eq(&self.gathering, gathering)
    }

    /// Delivers the players' inputs, waits for the others, and gives what is granted to the players. `gone` ends the query:
    /// the client has left.
    ///
    /// # Errors
    /// Anything; the refusal names who must act, and those who have not come.
    pub(crate) async fn play(self, inputs: Vec<Vec<u8>>, gone: CancellationToken) -> Answer {
        let (answer, mut answered) = oneshot::channel();
        let waiting = Waiting { players: self.players.clone(), answer };
        if let Some((inputs, begun)) = self.gathering.deliver(waiting, inputs)? {
            let run = session::answer(&self.node, &self.gathering.query, begun, inputs, self.gathering.stop.clone());
            tokio::pin!(run);
            let result = tokio::select! {
                result = &mut run => result,
                () = gone.cancelled() => {
                    self.gathering.end(self.left());
                    // The machine is told, and ends in good order.
                    run.await
                }
            };
            self.gathering.finish(result);
        }
        let idle = self.node.cluster.limits.idle();
        let late = sleep(idle);
        tokio::pin!(late);
        loop {
            tokio::select! {
                biased;
                answer = &mut answered => {
                    return answer.unwrap_or_else(|_| Err(refusal::bug("a query ended without a word")));
                }
                () = gone.cancelled() => {
                    self.gathering.end(self.left());
                    return Err(self.left());
                }
                // Once it computes, the session's own limits hold.
                () = &mut late, if !lock(&self.gathering.state).complete => {
                    self.gathering.end(refusal::refused(format!(
                        "the query did not begin, because it has several players and these did not deliver within {} s \
                         (limits.idle_seconds): {}; all of them must ask with the same session id",
                        idle.as_secs(),
                        self.gathering.missing().join(", ")
                    )));
                }
            }
        }
    }

    fn left(&self) -> Refusal {
        let who = self.players.join(", ");
        refusal::refused(format!(
            "the client that acts for {who} went away or gave up, and the query ended: ask again together"
        ))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut all = lock(&self.node.gatherings);
        let mut state = lock(&self.gathering.state);
        state.seats -= 1;
        let (last, complete, burns) = (state.seats == 0, state.complete, state.burns);
        drop(state);
        if last {
            all.remove(&self.session);
        }
        drop(all);
        // Those who have their answers already are not disturbed.
        if complete {
            return;
        }
        self.gathering.end(self.left());
        if let (true, Ok(runtime)) = (burns, Handle::try_current()) {
            let kept = (self.place.take(), self.gathering.clone());
            runtime.spawn(async move {
                sleep(ONE_HALF).await;
                drop(kept);
            });
        }
    }
}
