//! The epoch: what any party's restart changes.

use serde::{Deserialize, Serialize};

use selkie::Role;

use super::error::LinkError;

/// What a process draws once, at its start, so that its restart is noticed. Not a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochNonce(pub [u8; 32]);

impl EpochNonce {
    /// Draws one.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn draw() -> Result<Self, LinkError> {
        fresh().map(Self)
    }
}

/// 32 bytes from the operating system.
pub(super) fn fresh() -> Result<[u8; 32], LinkError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|e| LinkError::Local(format!("the operating system gives no randomness: {e}")))?;
    Ok(bytes)
}

/// The order in which [`selkie::Epoch::new`] wants the nonces.
pub(super) fn in_order(mine: (Role, EpochNonce), others: [(Role, EpochNonce); 2]) -> [EpochNonce; 3] {
    let mut all = [mine, others[0], others[1]];
    all.sort_by_key(|(role, _)| *role);
    all.map(|(_, nonce)| nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonces_are_put_in_order() {
        let nonces = [1, 2, 3].map(|b| EpochNonce([b; 32]));
        let mine = (Role::Server1, nonces[1]);
        let others = [(Role::CryptoProducer, nonces[2]), (Role::Server0, nonces[0])];
        assert_eq!(in_order(mine, others), nonces);
    }
}
