//! One prediction: describe, ask, collect. A machine without sockets.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::Role;
use crate::client::message::{
    Challenge, Code, MAX_PART, Playing, Refusal, Reply, Request, Session, Stats, VERSION, proof,
};
use crate::client::{ClientSpec, SEED_BYTES};
use crate::error::Blame;

/// What came of a prediction.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// One vector of values for each output that is granted to those for whom the client acts.
    pub outputs: Vec<Vec<f32>>,
    /// What server0 and server1 measured.
    pub stats: [Stats; 2],
    /// Payload sent and received by this client.
    pub client_bytes: u64,
    /// What was run, as far as it concerns those for whom the client acts.
    pub spec: ClientSpec,
}

impl Answer {
    /// Rounds: every one of them involves server1.
    pub fn rounds(&self) -> u32 {
        self.stats.iter().map(|stats| stats.rounds).max().unwrap_or(0)
    }

    /// Payload among the three parties after the inputs had arrived.
    pub fn online_bytes(&self) -> u64 {
        self.stats.iter().map(|stats| stats.sent_bytes + stats.from_producer_bytes).sum()
    }

    /// Everything among the three parties and dealt ahead, headers included, and the client's payload.
    pub fn wire_bytes(&self) -> u64 {
        self.stats.iter().map(|stats| stats.wire_bytes).sum::<u64>() + self.client_bytes
    }

    /// Payload dealt ahead.
    pub fn offline_bytes(&self) -> u64 {
        self.stats.iter().map(|stats| stats.offline_bytes).sum()
    }
}

/// How far a prediction is.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// Send what [`Prediction::poll`] gives, and feed what comes.
    Going,
    /// Here is the answer.
    Done(Box<Answer>),
}

/// Signs a message with a player's key; `None`: there is no key of that player's here.
pub type Signer = Box<dyn Fn(&str, &[u8]) -> Option<[u8; 64]> + Send>;

enum State {
    Describing([Option<(ClientSpec, Challenge)>; 2]),
    Collecting { spec: ClientSpec, servers: [Collected; 2] },
    Over,
}

#[derive(Default)]
struct Collected {
    bytes: Vec<u8>,
    parts: u32,
    stats: Option<Stats>,
}

/// One prediction in the making.
pub struct Prediction {
    session: Session,
    model: String,
    inputs: Vec<Vec<f32>>,
    batch: usize,
    seed: [u8; SEED_BYTES],
    /// For whom it acts; `None`: for all of the program's players.
    players: Option<Vec<String>>,
    signer: Option<Signer>,
    state: State,
    outbox: VecDeque<(Role, Vec<u8>)>,
    client_bytes: u64,
}

impl core::fmt::Debug for Prediction {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Prediction({}, hidden)", self.model)
    }
}

impl Drop for Prediction {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.seed);
        self.inputs.iter_mut().for_each(zeroize::Zeroize::zeroize);
    }
}

impl Prediction {
    /// Asks `model` about `batch` samples, acting for all of its players. `session` and `seed` are fresh random bytes;
    /// `protocol` picks among the deployed ones.
    pub fn new(
        session: Session,
        model: &str,
        protocol: Option<&str>,
        inputs: Vec<Vec<f32>>,
        batch: usize,
        seed: [u8; SEED_BYTES],
    ) -> Self {
        let describe =
            Request::Describe { version: VERSION, session, model: model.into(), protocol: protocol.map(Into::into) };
        let bytes = describe.encode();
        Self {
            session,
            model: model.into(),
            inputs,
            batch,
            seed,
            players: None,
            signer: None,
            state: State::Describing([None, None]),
            outbox: [(Role::Server0, bytes.clone()), (Role::Server1, bytes)].into(),
            client_bytes: 0,
        }
    }

    /// Acts for these players alone, before anything was handled: `inputs` are theirs, in the program's order. The query
    /// begins when other clients have joined it for all others, with the same session.
    pub fn playing(mut self, players: Vec<String>) -> Self {
        self.players = Some(players);
        self
    }

    /// Proves with this signer who the players are.
    pub fn signed_by(mut self, signer: Signer) -> Self {
        self.signer = Some(signer);
        self
    }

    /// The next message to send, and to which server.
    pub fn poll(&mut self) -> Option<(Role, Vec<u8>)> {
        self.outbox.pop_front()
    }

    /// Takes a message that a server sent.
    ///
    /// # Errors
    /// The servers refused, disagree, or sent something impossible, or the inputs do not fit the model. It is over.
    pub fn handle(&mut self, from: Role, bytes: &[u8]) -> Result<Progress, Refusal> {
        let result = self.advance(from, bytes);
        if result.is_err() {
            self.state = State::Over;
            self.outbox.clear();
        }
        result
    }

    fn advance(&mut self, from: Role, bytes: &[u8]) -> Result<Progress, Refusal> {
        let index = match from {
            Role::Server0 => 0,
            Role::Server1 => 1,
            Role::CryptoProducer => return Err(Blame::bug("the crypto producer does not talk to clients").into()),
        };
        let reply = Reply::decode(from, bytes)?;
        if reply.session() != self.session {
            return Err(Blame::party(from, "an answer to another conversation").into());
        }
        let unexpected = || Refusal::from(Blame::party(from, "an answer that was not asked for"));
        match (&mut self.state, reply) {
            (_, Reply::Refused { refusal, .. }) => Err(refusal),
            (State::Describing(specs), Reply::Spec { spec, challenge, .. }) => {
                spec.check()?;
                let place = specs.get_mut(index).filter(|place| place.is_none()).ok_or_else(unexpected)?;
                *place = Some((spec, challenge));
                let [Some((first, challenge0)), Some((second, challenge1))] = specs else {
                    return Ok(Progress::Going);
                };
                if first != second {
                    return Err(disagreement(&self.model, first, second));
                }
                let (spec, challenges) = (first.clone(), [*challenge0, *challenge1]);
                self.ask(spec, challenges)?;
                Ok(Progress::Going)
            }
            (State::Collecting { spec, servers }, Reply::Part { index: part, bytes, .. }) => {
                let server = servers.get_mut(index).ok_or_else(unexpected)?;
                let room = spec.output_bytes(self.batch).unwrap_or(0).saturating_sub(server.bytes.len());
                if part != server.parts || bytes.is_empty() || bytes.len() > room || server.stats.is_some() {
                    return Err(
                        Blame::party(from, format!("part {part} of the outputs, which does not belong here")).into()
                    );
                }
                server.parts += 1;
                server.bytes.extend_from_slice(&bytes);
                self.client_bytes += bytes.len() as u64;
                Ok(Progress::Going)
            }
            (State::Collecting { spec, servers }, Reply::Finished { stats, .. }) => {
                let server = servers.get_mut(index).filter(|server| server.stats.is_none()).ok_or_else(unexpected)?;
                server.stats = Some(stats);
                let [
                    Collected { bytes: first, stats: Some(stats0), .. },
                    Collected { bytes: second, stats: Some(stats1), .. },
                ] = servers
                else {
                    return Ok(Progress::Going);
                };
                let answer = Answer {
                    outputs: spec.reconstruct(self.batch, [first, second])?,
                    stats: [stats0.clone(), stats1.clone()],
                    client_bytes: self.client_bytes,
                    spec: spec.clone(),
                };
                self.state = State::Over;
                Ok(Progress::Done(Box::new(answer)))
            }
            _ => Err(unexpected()),
        }
    }

    fn ask(&mut self, whole: ClientSpec, challenges: [Challenge; 2]) -> Result<(), Refusal> {
        let players = match &self.players {
            Some(players) => players.clone(),
            None => whole.players().into_iter().map(String::from).collect(),
        };
        let spec = whole.of_players(&players);
        let inputs: Vec<&[f32]> = self.inputs.iter().map(Vec::as_slice).collect();
        let shared = spec.share(&inputs, self.batch, self.seed)?;
        let session = self.session;
        let batch = u32::try_from(self.batch).map_err(|_| Blame::you("too many samples"))?;
        for ((role, challenge), shares) in
            [Role::Server0, Role::Server1].into_iter().zip(&challenges).zip([&shared.server0, &shared.server1])
        {
            let play = |player: &String| {
                let signed = proof(role, challenge, &session, &spec.plan, player);
                let signature = self.signer.as_ref().and_then(|sign| sign(player, &signed));
                Playing { player: player.clone(), signature: signature.map(|bytes| bytes.to_vec()) }
            };
            let players = players.iter().map(play).collect();
            let ask = Request::Ask { session, model: self.model.clone(), plan: spec.plan, batch, players };
            self.outbox.push_back((role, ask.encode()));
            let all = shares.concat();
            self.client_bytes += all.len() as u64;
            for (index, part) in (0..).zip(all.chunks(MAX_PART)) {
                self.outbox.push_back((role, Request::Part { session, index, bytes: part.to_vec() }.encode()));
            }
        }
        self.state = State::Collecting { spec, servers: Default::default() };
        Ok(())
    }
}

fn disagreement(model: &str, first: &ClientSpec, second: &ClientSpec) -> Refusal {
    let short = |hash: &[u8; 32]| hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>();
    Refusal {
        code: Code::Refused,
        party: None,
        message: format!(
            "the servers disagree about {model:?}: server0 runs program {} by plan {}, server1 program {} by plan {}; its owner must \
             deploy it again",
            short(&first.program),
            short(&first.plan),
            short(&second.program),
            short(&second.plan)
        ),
    }
}
