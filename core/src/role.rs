//! The parties and the sides of a sharing.

use alloc::format;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::stream::Pair;

/// One of the three parties. Clients and model trainers are *players* and have names of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Holds one share of everything.
    Server0,
    /// Holds the other share of everything.
    Server1,
    /// Holds all correlated randomness.
    CryptoProducer,
}

impl Role {
    /// All three, in their fixed order.
    pub const ALL: [Role; 3] = [Role::Server0, Role::Server1, Role::CryptoProducer];

    /// The name by which configuration, command line and errors call it.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Server0 => "server0",
            Role::Server1 => "server1",
            Role::CryptoProducer => "crypto-producer",
        }
    }

    /// The role of that name.
    pub fn named(name: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.name() == name)
    }

    /// The two other parties, in order.
    pub const fn others(self) -> [Role; 2] {
        match self {
            Role::Server0 => [Role::Server1, Role::CryptoProducer],
            Role::Server1 => [Role::Server0, Role::CryptoProducer],
            Role::CryptoProducer => [Role::Server0, Role::Server1],
        }
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Role::named(text).ok_or_else(|| format!("`{text}` is no party: write server0, server1 or crypto-producer"))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which of the two servers a share belongs to, as a type: nothing outside the in-process harness can hold both.
pub(crate) trait Side: Clone + Copy + Send + Sync + core::fmt::Debug + 'static {
    /// 0 or 1, the `j` of the papers.
    const INDEX: usize;
    /// The server on this side.
    const ROLE: Role;
    /// The streams that this server shares with the crypto producer.
    const DEALT: Pair;
}

/// server0's side.
#[derive(Clone, Copy, Debug)]
pub(crate) enum S0 {}

/// server1's side.
#[derive(Clone, Copy, Debug)]
pub(crate) enum S1 {}

impl Side for S0 {
    const INDEX: usize = 0;
    const ROLE: Role = Role::Server0;
    const DEALT: Pair = Pair::Producer0;
}

impl Side for S1 {
    const INDEX: usize = 1;
    const ROLE: Role = Role::Server1;
    const DEALT: Pair = Pair::Producer1;
}
