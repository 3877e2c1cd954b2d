//! What a client and a server say to each other, over one WebSocket for each server; each message is one of its binary
//! messages, at most [`MAX_MESSAGE`] bytes long.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::Role;
use crate::client::ClientSpec;
use crate::error::{Blame, Culprit};

/// The version of these messages.
pub const VERSION: u16 = 3;
/// The largest message.
pub const MAX_MESSAGE: usize = 65_536;
/// The largest piece of inputs or outputs in one message.
pub const MAX_PART: usize = MAX_MESSAGE - 256;
/// The WebSocket subprotocol.
pub const SUBPROTOCOL: &str = "selkie.client.3";

/// A conversation's name: 128 random bits that the client chooses, the same for both servers; and the same for all clients
/// that take part in one query, each for other players.
pub type Session = [u8; 16];

/// Fresh random bytes from a server, over which a player whose key is pinned signs, once.
pub type Challenge = [u8; 32];

/// Somebody for whom a client acts in a query: feeds its inputs and receives its outputs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Playing {
    /// The player, as the program names it.
    pub player: String,
    /// The 64 bytes of its Ed25519 signature of [`proof`]; none, if the client holds no key of the player's.
    pub signature: Option<Vec<u8>>,
}

/// What a player signs to prove to one server that it takes part in one query. The signature is good for nothing else: not
/// at the other server, nor in another query, nor for another player.
pub fn proof(server: Role, challenge: &Challenge, session: &Session, plan: &[u8; 32], player: &str) -> Vec<u8> {
    // All parts but the last have lengths of their own, so that no two proofs have the same bytes.
    let parts: [&[u8]; 7] =
        [b"selkie player 2\0", server.name().as_bytes(), b"\0", challenge, session, plan, player.as_bytes()];
    parts.concat()
}

/// Bytes that are erased when they are dropped, and never shown.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub Vec<u8>);

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl core::fmt::Debug for Secret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Secret({} bytes hidden)", self.0.len())
    }
}

/// A client to a server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Which models are deployed? Answered by [`Reply::Models`].
    List {
        /// The conversation.
        session: Session,
    },
    /// What must I know of this model? Answered by [`Reply::Spec`].
    Describe {
        /// The version of these messages that the client speaks.
        version: u16,
        /// The conversation.
        session: Session,
        /// The model's name.
        model: String,
        /// The protocol, if it matters and several are deployed.
        protocol: Option<String>,
    },
    /// A query, or another client's joining it; the inputs of those for whom the client acts follow as parts. If some of
    /// these are masked, [`Reply::Masks`] come first.
    Ask {
        /// The conversation.
        session: Session,
        /// The model's name.
        model: String,
        /// The plan that the client knows.
        plan: [u8; 32],
        /// Samples.
        batch: u32,
        /// For whom the client acts: at least one of the program's players, each once.
        players: Vec<Playing>,
    },
    /// A piece of the inputs' shares.
    Part {
        /// The conversation.
        session: Session,
        /// From 0.
        index: u32,
        /// At most [`MAX_PART`] bytes.
        bytes: Vec<u8>,
    },
}

/// A deployed model, in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployed {
    /// Its name.
    pub name: String,
    /// Its protocol.
    pub protocol: String,
    /// One sample's shape of its first input.
    pub input: Vec<u32>,
    /// One sample's shape of its first output.
    pub output: Vec<u32>,
}

/// What a server measured of a query.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Levels at which this server sent or received.
    pub rounds: u32,
    /// Payload that this server sent to the other parties.
    pub sent_bytes: u64,
    /// Payload that this server received from the crypto producer in the query.
    pub from_producer_bytes: u64,
    /// Payload dealt ahead to this server for the query.
    pub offline_bytes: u64,
    /// What this server sent to the other parties, received from the crypto producer, and was dealt, headers included.
    pub wire_bytes: u64,
    /// What the plan says that the query costs.
    pub planned: Planned,
    /// Microseconds from the arrival of the inputs to the outputs.
    pub micros: u64,
}

/// What a plan says that a query costs, for all parties together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// Messages on the longest chain among the three parties.
    pub rounds: u32,
    /// Payload among the three parties from the arrival of the inputs on.
    pub online_bytes: u64,
    /// Payload dealt ahead.
    pub offline_bytes: u64,
    /// Payload on the client's links.
    pub client_bytes: u64,
}

/// Who must act on a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Code {
    /// The client's user: the request is wrong.
    Usage,
    /// The server said no: try later, or ask its operator.
    Refused,
    /// A party failed or went away.
    Peer,
    /// A bug.
    Internal,
}

/// Why a conversation ended without an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Who must act.
    pub code: Code,
    /// The party at fault, if it is one.
    pub party: Option<Role>,
    /// What happened and what to do.
    pub message: String,
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.message)
    }
}

impl core::error::Error for Refusal {}

impl From<Blame> for Refusal {
    fn from(blame: Blame) -> Self {
        let (code, party) = match blame.culprit() {
            Culprit::You | Culprit::Client => (Code::Usage, None),
            Culprit::Party(role) => (Code::Peer, Some(role)),
            Culprit::Bug => (Code::Internal, None),
        };
        Self { code, party, message: format!("{blame}") }
    }
}

/// A server to a client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// The deployed models.
    Models {
        /// The conversation.
        session: Session,
        /// All of them.
        models: Vec<Deployed>,
    },
    /// What a client must know of a model.
    Spec {
        /// The conversation.
        session: Session,
        /// The same from both servers.
        spec: ClientSpec,
        /// For the [`Ask`](Request::Ask) that follows.
        challenge: Challenge,
    },
    /// A piece of this server's shares of the outputs that are granted to those for whom the client acts.
    Part {
        /// The conversation.
        session: Session,
        /// From 0.
        index: u32,
        /// At most [`MAX_PART`] bytes.
        bytes: Vec<u8>,
    },
    /// The outputs are complete.
    Finished {
        /// The conversation.
        session: Session,
        /// What it cost.
        stats: Stats,
    },
    /// The conversation is over without an answer.
    Refused {
        /// The conversation.
        session: Session,
        /// Why.
        refusal: Refusal,
    },
    /// A piece of this server's part of the masks of the inputs for which the client acts: a seed for each sample of each
    /// masked input, one input after the other. They were never handed out before, and never will be again.
    Masks {
        /// The conversation.
        session: Session,
        /// From 0.
        index: u32,
        /// At most [`MAX_PART`] bytes.
        bytes: Secret,
    },
}

impl Request {
    /// The conversation that it belongs to.
    pub fn session(&self) -> Session {
        match self {
            Request::List { session }
            | Request::Describe { session, .. }
            | Request::Ask { session, .. }
            | Request::Part { session, .. } => *session,
        }
    }

    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_allocvec(self).unwrap_or_default()
    }

    /// Reads a client's message.
    ///
    /// # Errors
    /// It is too long, cut off, or no message.
    pub fn decode(bytes: &[u8]) -> Result<Self, Blame> {
        decode(bytes).map_err(Blame::client)
    }
}

impl Reply {
    /// The conversation that it belongs to.
    pub fn session(&self) -> Session {
        match self {
            Reply::Models { session, .. }
            | Reply::Spec { session, .. }
            | Reply::Part { session, .. }
            | Reply::Finished { session, .. }
            | Reply::Masks { session, .. }
            | Reply::Refused { session, .. } => *session,
        }
    }

    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_allocvec(self).unwrap_or_default()
    }

    /// Reads what `from` sent.
    ///
    /// # Errors
    /// It is too long, cut off, or no message.
    pub fn decode(from: Role, bytes: &[u8]) -> Result<Self, Blame> {
        decode(bytes).map_err(|why| Blame::party(from, why))
    }
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    if bytes.len() > MAX_MESSAGE {
        return Err(format!("a message of {} bytes, at most {MAX_MESSAGE} are allowed", bytes.len()));
    }
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        Ok(_) => Err("a message with bytes after its end".into()),
        Err(_) => Err("a message that cannot be read; it is cut off, or of another version".into()),
    }
}
