//! A client's WebSocket: conversations side by side, each with an id that the client chose.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use selkie::client::message::{
    Challenge, Deployed, MAX_MESSAGE, MAX_PART, Playing, Refusal, Reply, Request, Secret, Session, Stats, VERSION,
    proof,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::identity::PartyKey;
use crate::store::Model;
use selkie::Role;

use super::gathering::{Gathering, Seat, sit};
use super::{Node, fresh, refusal, session};

/// Replies that wait for a slow client.
const BACKLOG: usize = 16;
/// A quiet client is asked this often whether it is still there, …
const PING: Duration = Duration::from_secs(15);
/// … and is gone when it has said nothing for this long.
const SILENCE: Duration = Duration::from_secs(60);

/// A query whose inputs are still coming.
struct Collecting {
    seat: Seat,
    batch: usize,
    bytes: Zeroizing<Vec<u8>>,
    expected: usize,
    parts: u32,
    /// Whether the masks are still to be handed out, before which no input can come.
    masking: bool,
    begun: Instant,
    last: Instant,
}

/// The masks for a query that is being collected, or why there are none, or why they are of no use any more.
struct Masked {
    session: Session,
    gathering: Arc<Gathering>,
    masks: Result<Secret, Refusal>,
}

/// One client.
struct Client {
    node: Arc<Node>,
    collecting: HashMap<Session, Collecting>,
    /// What players may sign over, each once; the oldest one goes when there are more than queries.
    challenges: VecDeque<(Session, Challenge)>,
    replies: mpsc::Sender<Reply>,
    masked: mpsc::Sender<Masked>,
    /// Cancelled when the client is gone: its sessions end.
    gone: CancellationToken,
    /// The queries that this client may have open at once.
    places: Arc<tokio::sync::Semaphore>,
}

/// Serves one client until it leaves.
pub(crate) async fn converse<S>(node: Arc<Node>, socket: WebSocketStream<S>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sink, mut stream) = socket.split();
    let (replies, mut outbox) = mpsc::channel::<Reply>(BACKLOG);
    let gone = node.stop.child_token();
    let _leaving = gone.clone().drop_guard();
    let places = Arc::new(tokio::sync::Semaphore::new(node.cluster.limits.sessions_per_peer));
    let (masked, mut masks) = mpsc::channel(BACKLOG);
    let (collecting, challenges) = (HashMap::new(), VecDeque::new());
    let mut client = Client { node, collecting, challenges, replies, masked, gone: gone.clone(), places };
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut heard, mut pinged) = (Instant::now(), Instant::now());
    let reason = loop {
        tokio::select! {
            message = stream.next() => {
                heard = Instant::now();
                match message {
                    Some(Ok(Message::Binary(bytes))) => {
                        if let Err(why) = client.take(&bytes).await {
                            break Some((CloseCode::Policy, why));
                        }
                    }
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    Some(Ok(Message::Close(_))) | None => break None,
                    Some(Ok(_)) => break Some((CloseCode::Unsupported, "text is not spoken here".to_owned())),
                    Some(Err(WsError::Capacity(_))) => {
                        let why = format!("a message has at most {MAX_MESSAGE} bytes");
                        break Some((CloseCode::Size, why));
                    }
                    Some(Err(_)) => break None,
                }
            }
            Some(reply) = outbox.recv() => {
                if sink.send(Message::binary(reply.encode())).await.is_err() {
                    break None;
                }
            }
            Some(masked) = masks.recv() => client.hand_out(masked).await,
            _ = ticks.tick() => {
                client.expire().await;
                if heard.elapsed() > SILENCE {
                    break None;
                }
                if heard.elapsed() > PING && pinged.elapsed() > PING {
                    pinged = Instant::now();
                    if sink.send(Message::Ping(Vec::new().into())).await.is_err() {
                        break None;
                    }
                }
            }
            () = gone.cancelled() => break Some((CloseCode::Away, "this party is shutting down".to_owned())),
        }
    };
    if let Some((code, reason)) = reason {
        // A courtesy: the client is dropped in any case.
        let _ = sink.send(Message::Close(Some(CloseFrame { code, reason: reason.into() }))).await;
    }
}

impl Client {
    /// Takes one message. An error ends the connection: without a session id there is nobody to answer.
    async fn take(&mut self, bytes: &[u8]) -> Result<(), String> {
        let request = Request::decode(bytes).map_err(|blame| blame.to_string())?;
        let session = request.session();
        if let Err(refusal) = self.act(request).await {
            self.collecting.remove(&session);
            self.reply(Reply::Refused { session, refusal }).await;
        }
        Ok(())
    }

    async fn reply(&self, reply: Reply) {
        // This task empties the outbox itself, so it must not wait for room in it.
        if let Err(mpsc::error::TrySendError::Full(reply)) = self.replies.try_send(reply) {
            let replies = self.replies.clone();
            self.node.spawn(async move { drop(replies.send(reply).await) });
        }
    }

    async fn act(&mut self, request: Request) -> Result<(), Refusal> {
        if self.node.role == Role::CryptoProducer {
            return Err(refusal::usage("the crypto producer answers no clients: ask server0 and server1"));
        }
        match request {
            Request::List { session } => {
                let deployed = |model: Arc<Model>| Deployed {
                    name: model.name.clone(),
                    protocol: model.protocol().name().to_owned(),
                    input: model.spec.inputs.first().map(|input| input.shape.clone()).unwrap_or_default(),
                    output: model.spec.outputs.first().map(|output| output.shape.clone()).unwrap_or_default(),
                };
                let lasting = |model: &Arc<Model>| model.held_by.is_none();
                let models = self.node.models().into_iter().filter(lasting).map(deployed).collect();
                self.reply(Reply::Models { session, models }).await;
            }
            Request::Describe { version, session, model, protocol } => {
                let spec = self.describe(version, &model, protocol.as_deref())?.spec.clone();
                let challenge = self.challenge(session)?;
                self.reply(Reply::Spec { session, spec, challenge }).await;
            }
            Request::Ask { session, model, plan, batch, players } => {
                self.ask(session, &model, plan, batch as usize, &players)?;
            }
            Request::Part { session, index, bytes } => self.part(session, index, &bytes)?,
        }
        Ok(())
    }

    fn model(&self, name: &str) -> Result<Arc<Model>, Refusal> {
        self.node.model(name).ok_or_else(|| {
            let models = self.node.models();
            let names: Vec<_> = models.iter().filter(|m| m.held_by.is_none()).map(|model| model.name.clone()).collect();
            let shown: String = name.chars().take(80).collect();
            let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            refusal::usage(format!(
                "no model is called {shown:?} at {}; those deployed are: {there}. `selkie deploy … --name NAME` deploys one",
                self.node.role
            ))
        })
    }

    fn describe(&self, version: u16, name: &str, protocol: Option<&str>) -> Result<Arc<Model>, Refusal> {
        if version != VERSION {
            return Err(refusal::usage(format!(
                "the client speaks version {version} of the messages and {} speaks {VERSION}: use the same release of selkie",
                self.node.role
            )));
        }
        let model = self.model(name)?;
        let Some(wanted) = protocol else { return Ok(model) };
        let models = self.node.protocols_of(name);
        if let Some(model) = models.iter().find(|model| model.protocol().name() == wanted) {
            return Ok(model.clone());
        }
        let deployed: Vec<_> = models.iter().map(|model| model.protocol().name()).collect();
        let shown: String = wanted.chars().take(40).collect();
        Err(refusal::usage(format!(
            "{name} is not deployed for the protocol {shown:?} but for {}; its owner adds one by deploying it again, with \
             `selkie deploy --protocol` and all of them",
            deployed.join(", ")
        )))
    }

    /// Fresh bytes for the proofs of a query.
    fn challenge(&mut self, session: Session) -> Result<Challenge, Refusal> {
        let challenge = fresh().map_err(refusal::bug)?;
        self.challenges.retain(|(of, _)| *of != session);
        if self.challenges.len() >= self.node.cluster.limits.sessions_per_peer {
            self.challenges.pop_front();
        }
        self.challenges.push_back((session, challenge));
        Ok(challenge)
    }

    /// The players for whom the client may act, of those for whom it wants to.
    fn cast(&mut self, session: Session, model: &Model, playing: &[Playing]) -> Result<Vec<String>, Refusal> {
        // Whatever comes of it, nothing else may be signed over it.
        let place = self.challenges.iter().position(|(of, _)| *of == session);
        let challenge = place.and_then(|place| self.challenges.remove(place)).map(|(_, challenge)| challenge);
        let known = model.spec.players();
        let mut players: Vec<String> = Vec::new();
        for Playing { player, signature } in playing {
            if !known.contains(&player.as_str()) || players.contains(player) {
                let shown: String = player.chars().take(80).collect();
                return Err(refusal::usage(format!(
                    "a query for the player {shown:?}, whom {} does not have or who was named twice; its players are: {}",
                    model.name,
                    known.join(", ")
                )));
            }
            let proved = |key: &PartyKey| {
                let signature = signature.as_ref().and_then(|bytes| <[u8; 64]>::try_from(bytes.as_slice()).ok());
                challenge.zip(signature).is_some_and(|(challenge, signature)| {
                    let signed = proof(self.node.role, &challenge, &session, &model.spec.plan, player);
                    key.verifies(&signed, &signature)
                })
            };
            if let Some(key) = self.node.cluster.players.get(player).filter(|key| !proved(key)) {
                let how = match (signature, challenge) {
                    (None, _) => "the client did not sign for it; browsers hold no keys",
                    (_, None) => "the client did not describe the model first, or signed twice over the same bytes",
                    _ => "the signature is another key's, or was made for another query",
                };
                return Err(refusal::refused(format!(
                    "the player {player} is pinned to the key {} in the [players] of {}'s cluster.toml, and {how}: ask with that                      player's private key, or have the operators of both servers change [players]",
                    key.short(),
                    self.node.role
                )));
            }
            players.push(player.clone());
        }
        if players.is_empty() {
            return Err(refusal::usage(format!(
                "a query for nobody; the players of {} are: {}",
                model.name,
                known.join(", ")
            )));
        }
        Ok(players)
    }

    fn ask(
        &mut self,
        session: Session,
        name: &str,
        plan: [u8; 32],
        batch: usize,
        playing: &[Playing],
    ) -> Result<(), Refusal> {
        self.model(name)?;
        // Whoever picked a protocol asks by the model's own name, and knows the plan of that protocol.
        let model = self.node.protocols_of(name).into_iter().find(|model| model.spec.plan == plan);
        let model = model.ok_or_else(|| refusal::refused(format!("{name} was just deployed anew: ask again")))?;
        session::check_batch(&self.node, &model, batch)?;
        let players = self.cast(session, &model, playing)?;
        let place = self.places.clone().try_acquire_owned().map_err(|_| {
            refusal::refused("this client has limits.sessions_per_peer queries open: wait for their answers")
        })?;
        if self.collecting.contains_key(&session) {
            return Err(refusal::usage("this session id is in use: this client is asking with it already"));
        }
        let seat = sit(&self.node, session, &model, batch, players, place)?;
        let expected = seat.spec.input_bytes(self.node.role == Role::Server0, batch).unwrap_or(usize::MAX);
        if expected as u64 > self.node.cluster.limits.session_bytes {
            return Err(refusal::usage(format!(
                "{expected} bytes of input, and limits.session_bytes allows {}: ask for fewer samples at a time",
                self.node.cluster.limits.session_bytes
            )));
        }
        let masking = seat.spec.mask_bytes(batch) != Some(0);
        let (bytes, now) = (Zeroizing::default(), Instant::now());
        let query = Collecting { seat, batch, bytes, expected, parts: 0, masking, begun: now, last: now };
        if masking {
            self.mask(session, &query.seat);
        }
        if expected == 0 {
            // Whoever feeds nothing has delivered.
            return self.start(session, query);
        }
        self.collecting.insert(session, query);
        Ok(())
    }

    /// Has the masks of a query made beside the connection; [`Client::hand_out`] goes on.
    fn mask(&self, session: Session, seat: &Seat) {
        let ((gathering, players), node, masked) = (seat.gathering(), self.node.clone(), self.masked.clone());
        self.node.spawn(async move {
            let masks = gathering.masks(&node, &players).await;
            let begun = masks.is_ok();
            // Should the client be gone, the masks are for nobody.
            let sent = masked.send(Masked { session, gathering: gathering.clone(), masks }).await;
            if begun
                && sent.is_ok()
                && let Some(refusal) = gathering.failed().await
            {
                drop(masked.send(Masked { session, gathering, masks: Err(refusal) }).await);
            }
        });
    }

    /// Sends masks to the client, if it still asks what they were made for.
    async fn hand_out(&mut self, masked: Masked) {
        let Masked { session, gathering, masks } = masked;
        let Some(query) = self.collecting.get_mut(&session).filter(|query| query.seat.is_of(&gathering)) else {
            return;
        };
        match masks {
            Ok(masks) => {
                query.masking = false;
                query.last = Instant::now();
                let replies = self.replies.clone();
                self.node.spawn(async move {
                    for (index, part) in (0..).zip(masks.0.chunks(MAX_PART)) {
                        let bytes = Secret(part.to_vec());
                        if replies.send(Reply::Masks { session, index, bytes }).await.is_err() {
                            return;
                        }
                    }
                });
            }
            Err(refusal) => {
                self.collecting.remove(&session);
                self.reply(Reply::Refused { session, refusal }).await;
            }
        }
    }

    fn part(&mut self, session: Session, index: u32, bytes: &[u8]) -> Result<(), Refusal> {
        let Some(query) = self.collecting.get_mut(&session) else {
            return Err(refusal::usage("a piece of an input that was not announced"));
        };
        if query.masking {
            return Err(refusal::usage("a piece of a masked input before its masks were handed out"));
        }
        if index != query.parts {
            let next = query.parts;
            return Err(refusal::usage(format!("part {index} of the inputs, where part {next} comes next")));
        }
        if bytes.is_empty() || bytes.len() > MAX_PART || bytes.len() > query.expected - query.bytes.len() {
            return Err(refusal::usage(format!(
                "more input than the {} bytes announced, or an empty part",
                query.expected
            )));
        }
        query.bytes.extend_from_slice(bytes);
        query.parts += 1;
        query.last = Instant::now();
        if query.bytes.len() < query.expected {
            return Ok(());
        }
        let Some(complete) = self.collecting.remove(&session) else { return Ok(()) };
        self.start(session, complete)
    }

    /// The input is complete: the query runs beside the connection.
    fn start(&self, session: Session, collected: Collecting) -> Result<(), Refusal> {
        let Collecting { seat, batch, bytes, .. } = collected;
        let inputs = seat.spec.cut_inputs(self.node.role == Role::Server0, batch, &bytes)?;
        let (replies, gone) = (self.replies.clone(), self.gone.clone());
        self.node.spawn(async move {
            // Should the client be gone, there is nobody to tell.
            let _ = match seat.play(inputs, gone).await {
                Ok((output, stats)) => send(&replies, session, &output, stats).await,
                Err(refusal) => replies.send(Reply::Refused { session, refusal }).await.map_err(drop),
            };
        });
        Ok(())
    }

    /// Ends what was begun and not gone on with.
    async fn expire(&mut self) {
        let idle = self.node.cluster.limits.idle();
        let longest = self.node.cluster.limits.session();
        // A query that waits for its masks waits for us.
        let silent = |query: &Collecting| !query.masking && query.last.elapsed() > idle;
        let late = |query: &Collecting| silent(query) || query.begun.elapsed() > longest;
        let late: Vec<_> = self.collecting.iter().filter(|(_, query)| late(query)).map(|(id, _)| *id).collect();
        for session in late {
            self.collecting.remove(&session);
            let refusal = refusal::usage(format!(
                "no more input came for {} s (limits.idle_seconds), or not all of it in {} s (limits.session_seconds)",
                idle.as_secs(),
                longest.as_secs()
            ));
            self.reply(Reply::Refused { session, refusal }).await;
        }
    }
}

async fn send(replies: &mpsc::Sender<Reply>, session: Session, output: &[u8], stats: Stats) -> Result<(), ()> {
    for (index, part) in (0..).zip(output.chunks(MAX_PART)) {
        replies.send(Reply::Part { session, index, bytes: part.to_vec() }).await.map_err(drop)?;
    }
    replies.send(Reply::Finished { session, stats }).await.map_err(drop)
}
