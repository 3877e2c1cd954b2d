//! Errors as JavaScript meets them.

use selkie::client::message::{Code, Refusal};
use selkie::{Blame, Role};
use wasm_bindgen::prelude::*;

/// What went wrong, and who must act.
#[wasm_bindgen]
#[derive(Clone, Debug)]
pub struct Failure {
    code: &'static str,
    party: Option<Role>,
    message: String,
}

#[wasm_bindgen]
impl Failure {
    /// `usage`, `refused`, `peer` or `bug`.
    #[wasm_bindgen(getter)]
    pub fn code(&self) -> String {
        self.code.into()
    }

    /// The party that refused or failed.
    #[wasm_bindgen(getter)]
    pub fn party(&self) -> Option<String> {
        self.party.map(|party| party.name().into())
    }

    /// What happened and what to do.
    #[wasm_bindgen(getter)]
    pub fn message(&self) -> String {
        self.message.clone()
    }
}

impl Failure {
    /// The caller must act.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { code: "usage", party: None, message: message.into() }
    }

    /// `party`, or both servers, said no.
    pub(crate) fn refused(party: Option<Role>, message: impl Into<String>) -> Self {
        Self { code: "refused", party, message: message.into() }
    }

    /// `party` is not there, went away or talks nonsense.
    pub(crate) fn peer(party: Role, message: impl Into<String>) -> Self {
        Self { code: "peer", party: Some(party), message: message.into() }
    }

    /// The operating system gave no random bytes.
    pub(crate) fn no_randomness(error: getrandom::Error) -> Self {
        Self::usage(format!(
            "This environment gives no secure random numbers (crypto.getRandomValues): {error}. Selkie does not work without."
        ))
    }
}

impl From<Refusal> for Failure {
    fn from(Refusal { code, party, message }: Refusal) -> Self {
        let code = match code {
            Code::Usage => "usage",
            Code::Refused => "refused",
            Code::Peer => "peer",
            Code::Internal => "bug",
        };
        Self { code, party, message }
    }
}

impl From<Blame> for Failure {
    fn from(blame: Blame) -> Self {
        Refusal::from(blame).into()
    }
}
