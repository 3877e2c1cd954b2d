//! What the process tells its caller: the exit codes that scripts rely on.

use std::fmt;
use std::process::ExitCode;

use crate::config::ConfigError;
use crate::identity::IdentityError;
use crate::link::{LinkError, ListenError};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It did what was asked.
    Success = 0,
    /// It failed in a way that has no number of its own.
    Other = 1,
    /// The command line, the configuration or a given file is wrong: the caller must act.
    Usage = 2,
    /// A party, or this one, refused: a key, a policy, a limit.
    Refused = 3,
    /// A party is not there, went away or misbehaved.
    PeerFailed = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A command's failure: what to tell the person, and the number to end with.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What happened, who must act, what to do.
    pub message: String,
}

impl Failure {
    /// A failure with this code and message.
    pub fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, message: message.to_string() }
    }

    /// A failure of the caller's: code 2.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// A failure without a number of its own: code 1.
    pub fn other(message: impl fmt::Display) -> Self {
        Self::new(Exit::Other, message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::usage(error)
    }
}

impl From<IdentityError> for Failure {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::Randomness(_) | IdentityError::Write { .. } => Self::other(error),
            IdentityError::Read { .. }
            | IdentityError::Exposed { .. }
            | IdentityError::Malformed { .. }
            | IdentityError::Exists { .. } => Self::usage(error),
        }
    }
}

impl From<LinkError> for Failure {
    fn from(error: LinkError) -> Self {
        let exit = match &error {
            LinkError::WrongKey { .. } | LinkError::Refused { .. } => Exit::Refused,
            LinkError::Absent { .. }
            | LinkError::Gone { .. }
            | LinkError::Closed { .. }
            | LinkError::Ended { .. }
            | LinkError::Misbehaved { .. } => Exit::PeerFailed,
            LinkError::TooLong { .. } | LinkError::Local(_) => Exit::Other,
        };
        Self::new(exit, error)
    }
}

impl From<ListenError> for Failure {
    fn from(error: ListenError) -> Self {
        match error {
            ListenError::Clients(_) => Self::usage(error),
            ListenError::Bind { .. } | ListenError::Busy { .. } | ListenError::Tls(_) => Self::other(error),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::other(error)
    }
}
