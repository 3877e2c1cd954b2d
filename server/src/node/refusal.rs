//! Why something ended, and who must act: as clients are told it, and as it travels on party links.

use selkie::client::message::{Code, Refusal};

use crate::config::Cluster;
use crate::link::{LinkError, Peer};
use selkie::Role;

/// The client's user must act.
pub(crate) fn usage(message: impl Into<String>) -> Refusal {
    Refusal { code: Code::Usage, party: None, message: message.into() }
}

/// This party says no.
pub(crate) fn refused(message: impl Into<String>) -> Refusal {
    Refusal { code: Code::Refused, party: None, message: message.into() }
}

/// A party failed or went away.
pub(crate) fn peer(role: Role, message: impl Into<String>) -> Refusal {
    Refusal { code: Code::Peer, party: Some(role), message: message.into() }
}

/// Selkie itself failed.
pub(crate) fn bug(message: impl Into<String>) -> Refusal {
    let message = format!("a bug in selkie, please report it: {}", message.into());
    Refusal { code: Code::Internal, party: None, message }
}

/// What a link's failure means to a client. Parties that dialled us are named by their address in the configuration, not by
/// the port from which they happened to call.
pub(crate) fn of_link(cluster: &Cluster, error: &LinkError) -> Refusal {
    let at = |role: Role| format!("{role} at {}", cluster.party(role).address);
    match error {
        LinkError::Ended { peer: Peer::Party(role), reason } => parse(*role, reason),
        LinkError::Gone { peer: Peer::Party(role), cause, .. } => {
            peer(*role, format!("{} went away: {cause}", at(*role)))
        }
        LinkError::Absent { peer: Peer::Party(role), cause, .. } => {
            peer(*role, format!("{} is not there: {cause}", at(*role)))
        }
        LinkError::Closed { peer: Peer::Party(role) } => peer(*role, format!("{} left the session early", at(*role))),
        LinkError::Misbehaved { peer: Peer::Party(role), what, .. } => {
            peer(*role, format!("{} misbehaved: {what}", at(*role)))
        }
        LinkError::WrongKey { peer: Peer::Party(role), .. } | LinkError::Refused { peer: Peer::Party(role), .. } => {
            peer(*role, error.to_string())
        }
        other => bug(other.to_string()),
    }
}

/// The reason with which a channel ends.
pub(crate) fn to_reason(refusal: &Refusal) -> String {
    let code = match (refusal.code, refusal.party) {
        (Code::Peer, Some(party)) => party.name(),
        (Code::Peer, None) | (Code::Refused, _) => "refused",
        (Code::Usage, _) => "usage",
        (Code::Internal, _) => "bug",
    };
    format!("[{code}] {}", refusal.message)
}

/// What `from` meant by ending a channel with this reason.
pub(crate) fn parse(from: Role, reason: &str) -> Refusal {
    let unmarked = || peer(from, format!("{from} ended the session: {reason}"));
    let Some((code, message)) = reason.strip_prefix('[').and_then(|rest| rest.split_once("] ")) else {
        return unmarked();
    };
    match code {
        "usage" => usage(message),
        "refused" => refused(message),
        "bug" => Refusal { code: Code::Internal, party: Some(from), message: format!("{from}: {message}") },
        name => match selkie::Role::named(name) {
            Some(role) => peer(role, message),
            None => unmarked(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_survive_the_link() {
        for refusal in [usage("wrong"), refused("no"), peer(Role::CryptoProducer, "crypto-producer went away")] {
            assert_eq!(parse(Role::Server1, &to_reason(&refusal)), refusal);
        }
        assert_eq!(parse(Role::Server1, "whatever").party, Some(selkie::Role::Server1));
        assert_eq!(parse(Role::Server1, "[nobody] x").party, Some(selkie::Role::Server1));
    }
}
