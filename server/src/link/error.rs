//! What goes wrong between two parties, and whose fault it is.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::identity::PartyKey;
use selkie::Role;

/// Who is at the other end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Peer {
    /// One of the three parties.
    Party(Role),
    /// Somebody whose key is among the `[deployers]`.
    Deployer(PartyKey),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Party(role) => role.fmt(f),
            Self::Deployer(key) => write!(f, "deployer {}", key.short()),
        }
    }
}

impl From<Role> for Peer {
    fn from(role: Role) -> Self {
        Self::Party(role)
    }
}

/// Why a link or a channel ended, or did not come to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The peer cannot be reached.
    #[error("{peer} at {address} is not there: {cause}")]
    Absent {
        /// Who.
        peer: Peer,
        /// Where it should be.
        address: String,
        /// What the attempt met.
        cause: String,
    },
    /// The peer was there and is no longer.
    #[error("{peer} at {address} went away: {cause}")]
    Gone {
        /// Who.
        peer: Peer,
        /// Where it was.
        address: String,
        /// How it was noticed.
        cause: String,
    },
    /// Somebody else answers at the peer's address.
    #[error(
        "whoever answers at {address} is not {peer}: it holds the key {got}, and cluster.toml \
         pins {expected}; correct the address or the key"
    )]
    WrongKey {
        /// Who was expected.
        peer: Peer,
        /// Where.
        address: String,
        /// The pinned key.
        expected: PartyKey,
        /// The key it proved to hold.
        got: PartyKey,
    },
    /// The peer turned us away.
    #[error("{peer} at {address} refused: {cause}")]
    Refused {
        /// Who.
        peer: Peer,
        /// Where.
        address: String,
        /// Its reason.
        cause: String,
    },
    /// The peer has closed this channel in good order.
    #[error("{peer} has closed this channel")]
    Closed {
        /// Who.
        peer: Peer,
    },
    /// The peer has ended this channel because of an error.
    #[error("{peer} ended this channel: {reason}")]
    Ended {
        /// Who.
        peer: Peer,
        /// What it said.
        reason: String,
    },
    /// The peer broke the rules of the link.
    #[error("{peer} at {address} misbehaved: {what}")]
    Misbehaved {
        /// Who.
        peer: Peer,
        /// Where it is.
        address: String,
        /// What it did.
        what: String,
    },
    /// A frame too long to be sent.
    #[error("this frame has {bytes} bytes, and a frame has at most {limit}: cut it")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The limit, the smaller of both ends'.
        limit: usize,
    },
    /// Something on this side.
    #[error("{0}")]
    Local(String),
}

/// Why a party cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The port is taken.
    #[error(
        "the address {address} is in use: another selkie may be running; stop it, or choose \
         another address in cluster.toml"
    )]
    Busy {
        /// The address.
        address: String,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; correct address or listen in cluster.toml")]
    Bind {
        /// The address.
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The clients' certificate or its key is unusable.
    #[error("{0}")]
    Clients(String),
    /// The party's own certificate could not be made.
    #[error("a bug here: the party's certificate could not be made: {0}")]
    Tls(String),
}

/// A connection that a party turned away.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// Where it came from.
    pub from: SocketAddr,
    /// Why.
    pub reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused {}: {}", self.from, self.reason)
    }
}
