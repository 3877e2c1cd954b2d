//! What parties and deployers say to each other on a channel before the protocol's own frames: the first message says what
//! the channel is for.

use selkie::client::message::Session;
use selkie::{SharedVariables, Variant};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What two parties must agree on before they compute together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    /// The model's name.
    pub(crate) model: String,
    /// The program's hash.
    pub(crate) program: [u8; 32],
    /// The plan's hash.
    pub(crate) plan: [u8; 32],
    /// The version of the weights.
    pub(crate) version: u64,
    /// The version of the kept variables that are opened in it, if any are.
    pub(crate) state: u64,
    /// The epoch.
    pub(crate) epoch: [u8; 32],
}

/// The units that a session burns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Units {
    /// The first.
    pub(crate) first: u64,
    /// One for each sample.
    pub(crate) count: u32,
}

impl Units {
    /// As a range; `None` if there is none.
    pub(crate) fn range(&self) -> Option<std::ops::Range<u64>> {
        let end = self.first.checked_add(u64::from(self.count))?;
        (self.count > 0).then_some(self.first..end)
    }
}

/// The first message on a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Hello {
    /// server0 to the others: let us agree on an epoch. Answered by [`Joined`].
    Epoch {
        /// Fresh.
        nonce: [u8; 32],
    },
    /// server0 to server1: let us open this model's weights under their masks.
    Setup(About),
    /// A server to the crypto producer: deal for this model, as [`Want`]s ask.
    Deal(About),
    /// server0 to both others, and server1 to the crypto producer: a query.
    Session {
        /// The client's name for it.
        session: Session,
        /// What is computed.
        about: About,
        /// What is burnt.
        units: Units,
        /// The version of the kept variables on which it runs.
        state: u64,
    },
    /// A deployer to every party: here comes a model; answered by [`Staged`].
    Deploy {
        /// The deployment's name.
        name: String,
        /// Unlike that of every other deployment.
        version: u64,
        /// How many bytes of [`Parts`] follow.
        bytes: u64,
        /// Whether it lives only as long as this channel, or until [`RETIRE`], in memory alone.
        ephemeral: bool,
    },
}

/// The parts of a deployment, as a deployer sends them to one party.
pub(crate) type Parts = Vec<SentPart>;

/// One of them.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct SentPart {
    /// What stands behind the deployment's name.
    pub(crate) suffix: String,
    /// The protocol's name.
    pub(crate) protocol: String,
    /// Its variant.
    pub(crate) variant: Variant,
    /// The program.
    pub(crate) program: Vec<u8>,
    /// The server's shares of the weights; the crypto producer is sent none.
    pub(crate) shares: Option<SharedVariables>,
}

/// A deployment that keeps variables: its name and version, and the versions of the variables that a server can go on from.
pub(crate) type Offered = (String, u64, Vec<u64>);

/// The version that both servers go on from.
pub(crate) type Settled = (String, u64, Option<u64>);

/// A party's answer to [`Hello::Epoch`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Joined {
    /// Fresh.
    pub(crate) nonce: [u8; 32],
    /// The party's link to server0 by its public name.
    pub(crate) to_server0: [u8; 32],
    /// The party's link to the third party by its public name.
    pub(crate) to_third: [u8; 32],
    /// server1's: what it keeps from run to run.
    pub(crate) kept: Vec<Offered>,
}

/// server0's last word on an epoch: everybody's nonces in order, and from where to go on. Answered by an empty frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Begin {
    /// server0's, server1's, the crypto producer's.
    pub(crate) nonces: [[u8; 32]; 3],
    /// To server1: for each deployment that keeps variables the version on which both go on.
    pub(crate) kept: Vec<Settled>,
}

/// A server to the crypto producer: there is room for these units.
pub(crate) type Want = Units;

/// A party's answer to a deployer: for each part the program that it read and the plan that it made.
pub(crate) type Staged = Vec<Planned>;

/// A part, as a party understood it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Planned {
    /// The program.
    pub(crate) program: [u8; 32],
    /// The plan.
    pub(crate) plan: [u8; 32],
}

/// A server's word to its peer that it has stored the next version of the kept variables.
pub(crate) const PREPARED: &[u8] = b"prepared";

/// Both ends' word that a set-up is complete, and a deployer's that a model is to be kept.
pub(crate) const COMMIT: &[u8] = b"commit";

/// A deployer's word that its ephemeral program is no longer needed, and a party's that it is gone.
pub(crate) const RETIRE: &[u8] = b"retire";

/// A message's bytes.
pub(crate) fn encode(message: &impl Serialize) -> Vec<u8> {
    postcard::to_allocvec(message).unwrap_or_default()
}

/// A message from its bytes; all of them must belong to it.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        _ => Err("a message that cannot be read: run the same release of selkie everywhere".to_owned()),
    }
}
