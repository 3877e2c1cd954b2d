//! One prediction: describe, ask, mask, collect. A machine without sockets.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::Role;
use crate::client::message::{
    Challenge, Code, MAX_PART, Playing, Refusal, Reply, Request, Secret, Session, Stats, VERSION, proof,
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
    /// Asked, and waiting for both servers' masks: nothing of the inputs has left yet.
    Masking {
        spec: ClientSpec,
        masks: [Masks; 2],
    },
    Collecting {
        spec: ClientSpec,
        servers: [Collected; 2],
    },
    Over,
}

#[derive(Default)]
struct Collected {
    bytes: Vec<u8>,
    parts: u32,
    stats: Option<Stats>,
}

/// One server's part of the masks, as far as it has come.
#[derive(Default)]
struct Masks {
    bytes: Secret,
    parts: u32,
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
            (State::Masking { spec, masks }, Reply::Masks { index: part, bytes, .. }) => {
                let wanted = spec.mask_bytes(self.batch).unwrap_or(0);
                let mask = masks.get_mut(index).ok_or_else(unexpected)?;
                if part != mask.parts || bytes.0.is_empty() || bytes.0.len() > wanted - mask.bytes.0.len() {
                    let what =
                        format!("part {part} of the masks, which does not belong here: {wanted} bytes do in all");
                    return Err(Blame::party(from, what).into());
                }
                mask.parts += 1;
                // In one piece from the start, so that no copy stays behind when it grows.
                mask.bytes.0.reserve_exact(wanted - mask.bytes.0.len());
                mask.bytes.0.extend_from_slice(&bytes.0);
                self.client_bytes += bytes.0.len() as u64;
                if masks.iter().any(|mask| mask.bytes.0.len() < wanted) {
                    return Ok(Progress::Going);
                }
                if let State::Masking { spec, masks: [first, second] } =
                    core::mem::replace(&mut self.state, State::Over)
                {
                    self.deliver(spec, [&first.bytes.0, &second.bytes.0])?;
                }
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
        // Before anything is asked: what the servers burn for a query is burnt for good.
        spec.admit(&self.rows(), self.batch)?;
        let session = self.session;
        let batch = u32::try_from(self.batch).map_err(|_| Blame::you("too many samples"))?;
        for (role, challenge) in [Role::Server0, Role::Server1].into_iter().zip(&challenges) {
            let play = |player: &String| {
                let signed = proof(role, challenge, &session, &spec.plan, player);
                let signature = self.signer.as_ref().and_then(|sign| sign(player, &signed));
                Playing { player: player.clone(), signature: signature.map(|bytes| bytes.to_vec()) }
            };
            let players = players.iter().map(play).collect();
            let ask = Request::Ask { session, model: self.model.clone(), plan: spec.plan, batch, players };
            self.outbox.push_back((role, ask.encode()));
        }
        if spec.mask_bytes(self.batch) == Some(0) {
            return self.deliver(spec, [&[], &[]]);
        }
        self.state = State::Masking { spec, masks: Default::default() };
        Ok(())
    }

    fn rows(&self) -> Vec<&[f32]> {
        self.inputs.iter().map(Vec::as_slice).collect()
    }

    /// Sends the inputs: shared, or under both servers' masks.
    fn deliver(&mut self, spec: ClientSpec, masks: [&[u8]; 2]) -> Result<(), Refusal> {
        let shared = spec.share_under(&self.rows(), self.batch, self.seed, masks)?;
        let session = self.session;
        for (role, shares) in [(Role::Server0, &shared.server0), (Role::Server1, &shared.server1)] {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a failed test may panic")]
    use super::*;
    use crate::Protocol;
    use crate::graph::{Bounds, Graph};
    use crate::pack;
    use crate::plan::Plan;
    use crate::program::Numbers;
    use crate::ring::Ring;
    use crate::share;
    use crate::stream::Seed;
    use alloc::vec;
    use alloc::vec::Vec;

    const SESSION: Session = [5; 16];
    const BATCH: usize = 2;

    /// Two masked inputs with a private one between them, all by one player.
    fn spec() -> ClientSpec {
        let graph = Graph::new();
        let x = graph.masked_input("c", "x", &[3], [-1.0, 1.0]).unwrap();
        let y = graph.private_input("c", "y", &[3], [-1.0, 1.0]).unwrap();
        let z = graph.masked_input("c", "z", &[3], [-1.0, 1.0]).unwrap();
        graph.output("c", &(&(&x + &y).unwrap() + &z).unwrap()).unwrap();
        let program = graph.compile(Numbers::default(), Bounds::Declared(8)).unwrap();
        ClientSpec::new(&program, &Plan::new(&program, Protocol::Table).unwrap())
    }

    fn rows() -> Vec<Vec<f32>> {
        [0.25, -0.5, 1.0].map(|x| vec![x; 3 * BATCH]).to_vec()
    }

    /// A prediction that has asked, and what it has sent since the specifications came.
    fn asked(inputs: Vec<Vec<f32>>) -> (Prediction, Result<Vec<(Role, Request)>, Refusal>) {
        let mut prediction = Prediction::new(SESSION, "m", None, inputs, BATCH, [1; 32]);
        sent(&mut prediction);
        let reply = Reply::Spec { session: SESSION, spec: spec(), challenge: [0; 32] }.encode();
        assert_eq!(prediction.handle(Role::Server0, &reply), Ok(Progress::Going));
        let asked = prediction.handle(Role::Server1, &reply).map(|_| sent(&mut prediction));
        (prediction, asked)
    }

    fn sent(prediction: &mut Prediction) -> Vec<(Role, Request)> {
        core::iter::from_fn(|| prediction.poll()).map(|(to, bytes)| (to, Request::decode(&bytes).unwrap())).collect()
    }

    /// The seeds that a server hands out: all bytes of one are alike.
    fn seeds(server: u8) -> Vec<u8> {
        (0..4).flat_map(|i| [10 * server + i; SEED_BYTES]).collect()
    }

    fn masks(index: u32, bytes: &[u8]) -> Vec<u8> {
        Reply::Masks { session: SESSION, index, bytes: Secret(bytes.to_vec()) }.encode()
    }

    #[test]
    fn nothing_of_an_input_leaves_before_both_servers_masks_are_there() {
        let (mut prediction, asked) = asked(rows());
        assert!(asked.unwrap().iter().all(|(_, request)| matches!(request, Request::Ask { .. })));
        let (first, second) = (seeds(1), seeds(2));
        for (from, index, part) in
            [(Role::Server1, 0, &second[..70]), (Role::Server0, 0, &first[..]), (Role::Server1, 1, &second[70..])]
        {
            assert_eq!(sent(&mut prediction), []);
            assert_eq!(prediction.handle(from, &masks(index, part)), Ok(Progress::Going));
        }
        let sent = sent(&mut prediction);
        let parts: Vec<_> = sent.iter().map(|(to, request)| (*to, part(request))).collect();
        let [(Role::Server0, zero), (Role::Server1, one)] = &parts[..] else { panic!("{sent:?}") };
        // Server0: 2 rows of x, a seed, 2 rows of z; server1: 2 rows each of x, y, z; 24 bytes a row.
        assert_eq!([zero.len(), one.len()], [48 + 32 + 48, 48 * 3]);
        let ring = Ring::<u64>::new(64).unwrap();
        for (input, place, at) in [(0, 0, [0, 0]), (2, 2, [80, 96])] {
            assert_eq!(zero[at[0]..][..48], one[at[1]..][..48]);
            let hats: Vec<u64> = pack::unpack(&zero[at[0]..][..48], 64, 6).collect();
            for (row, hat) in hats.chunks(3).enumerate() {
                let mut x = hat.to_vec();
                for server in [1, 2] {
                    let seed = [10 * server + place + row as u8; SEED_BYTES];
                    ring.add_all(&mut x, &share::expand(ring, &Seed::new(seed), 3));
                }
                assert!(x.iter().all(|x| *x == (f64::from(rows()[input][0]) * 65536.0) as i64 as u64), "{input} {row}");
            }
        }
        assert_eq!(prediction.client_bytes, 2 * 128 + 128 + 144);
    }

    fn part(request: &Request) -> Vec<u8> {
        match request {
            Request::Part { index: 0, bytes, .. } => bytes.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn inputs_that_do_not_fit_ask_for_no_masks() {
        for (index, value) in [(0, 1.5), (1, f32::NAN), (2, -1.25)] {
            let mut bad = rows();
            bad[index][5] = value;
            let (mut prediction, refused) = asked(bad);
            assert_eq!(refused.unwrap_err().code, Code::Usage);
            assert_eq!(sent(&mut prediction), []);
        }
    }

    #[test]
    fn a_server_is_named_whose_masks_are_too_many_too_few_or_were_not_asked_for() {
        for (from, index) in [(Role::Server0, 1), (Role::Server1, 2)] {
            let whole = seeds(index);
            let finished = Reply::Finished { session: SESSION, stats: Stats::default() }.encode();
            let output = Reply::Part { session: SESSION, index: 0, bytes: vec![0; 48] }.encode();
            let one_more = [&whole[..], &[0]].concat();
            let cases: [&[Vec<u8>]; 9] = [
                &[masks(0, &one_more)],
                &[masks(0, &whole), masks(1, &[0])],
                &[masks(0, &whole), masks(0, &whole)],
                &[masks(0, &[])],
                &[masks(1, &whole)],
                &[masks(0, &whole[..64]), masks(0, &whole[64..])],
                &[masks(0, &whole[..127]), finished.clone()],
                &[masks(0, &whole[..127]), output.clone()],
                &[finished, output],
            ];
            for (case, replies) in cases.into_iter().enumerate() {
                let (mut prediction, _) = asked(rows());
                let failed = replies.iter().find_map(|reply| prediction.handle(from, reply).err());
                assert_eq!(failed.unwrap().party, Some(from), "{case}");
                assert_eq!(sent(&mut prediction), [], "{case}");
                assert!(prediction.handle(from, &masks(0, &whole)).is_err(), "it is over");
            }
            // Before the other server's specification, and after all inputs were sent.
            let mut early = Prediction::new(SESSION, "m", None, rows(), BATCH, [1; 32]);
            assert_eq!(early.handle(from, &masks(0, &whole)).unwrap_err().party, Some(from));
            let (mut late, _) = asked(rows());
            for (server, index) in [(Role::Server0, 1), (Role::Server1, 2)] {
                late.handle(server, &masks(0, &seeds(index))).unwrap();
            }
            assert_eq!(late.handle(from, &masks(1, &whole)).unwrap_err().party, Some(from));
        }
        assert_eq!(alloc::format!("{:?}", Secret(vec![7; 2])), "Secret(2 bytes hidden)");
    }
}
