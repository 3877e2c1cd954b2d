//! Errors that say who must act.
//!
//! What goes wrong while people write a graph or plan it is a [`GraphError`] or a [`PlanError`]; what goes wrong while
//! parties talk is a [`Blame`], which always names a culprit: whoever called us, a party, or a bug here.

use alloc::string::String;
use core::fmt;

use crate::Role;

/// Who caused a failure, and so who must act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Culprit {
    /// Whoever called this library, with what they passed in.
    You,
    /// The party that sent something it should not have sent.
    Party(Role),
    /// The client that sent something it should not have sent.
    Client,
    /// Selkie itself.
    Bug,
}

/// A failure of a running protocol: what happened, and whose doing it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blame {
    culprit: Culprit,
    what: String,
}

impl Blame {
    /// The caller gave something unusable.
    pub fn you(what: impl Into<String>) -> Self {
        Self { culprit: Culprit::You, what: what.into() }
    }

    /// A party sent something that the plan does not allow.
    pub fn party(role: Role, what: impl Into<String>) -> Self {
        Self { culprit: Culprit::Party(role), what: what.into() }
    }

    /// The client sent something that its specification does not allow.
    pub fn client(what: impl Into<String>) -> Self {
        Self { culprit: Culprit::Client, what: what.into() }
    }

    /// An invariant of Selkie does not hold.
    pub fn bug(what: impl Into<String>) -> Self {
        Self { culprit: Culprit::Bug, what: what.into() }
    }

    /// Who must act.
    pub fn culprit(&self) -> Culprit {
        self.culprit
    }

    /// What happened, without the culprit.
    pub fn what(&self) -> &str {
        &self.what
    }
}

impl fmt::Display for Blame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.culprit {
            Culprit::You => write!(f, "you gave {}", self.what),
            Culprit::Party(role) => write!(f, "{role} sent {}", self.what),
            Culprit::Client => write!(f, "the client sent {}", self.what),
            Culprit::Bug => write!(f, "a bug in selkie, please report it: {}", self.what),
        }
    }
}

impl core::error::Error for Blame {}

/// A graph that cannot be: the operation and the shapes that do not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{operation}: {reason}")]
pub struct GraphError {
    /// The operation that was asked for.
    pub operation: &'static str,
    /// Why it cannot be, with the shapes of all operands.
    pub reason: String,
}

impl GraphError {
    pub(crate) fn new(operation: &'static str, reason: impl Into<String>) -> Self {
        Self { operation, reason: reason.into() }
    }

    /// The same of the operation that was written, which is made of the one that failed.
    pub(crate) fn of(self, operation: &'static str) -> Self {
        Self { operation, ..self }
    }
}

/// A program that cannot be planned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A value may grow beyond what the ring holds.
    #[error(
        "wire {wire} ({op}) may reach 2^{needed} in fixed point, but a ring of {ring_bits} bits holds values below 2^{room}: \
         {missing} bits are missing; use a larger ring, fewer fraction bits, or calibrated bounds"
    )]
    Bound {
        /// The operation's number in the program.
        wire: u32,
        /// The operation's name.
        op: &'static str,
        /// The bits that the value needs, its fraction included.
        needed: i32,
        /// The bits that the ring offers to it.
        room: i32,
        /// The difference.
        missing: i32,
        /// The ring's width.
        ring_bits: u32,
    },
    /// The ring or the encoding is out of range.
    #[error("{0}")]
    Numbers(String),
    /// The protocol cannot do this.
    #[error("the protocol {protocol} cannot compute {op} (wire {wire}); protocols that can: {instead}")]
    Unsupported {
        /// The protocol that was asked for.
        protocol: &'static str,
        /// The operation's name.
        op: &'static str,
        /// The operation's number in the program.
        wire: u32,
        /// The protocols that can.
        instead: &'static str,
    },
    /// The program is not one that this library could have made.
    #[error("the program is not valid: {0}")]
    Program(String),
}
