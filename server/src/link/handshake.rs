//! The signed handshake of a link, on top of TLS, and what it agrees on.
//!
//! Each end says who it is, whom it takes the other for, and draws 32 fresh bytes; then each
//! signs all that was said, bound to this very TLS connection by its exporter (RFC 5705). So the
//! link's identity does not rest on TLS alone, and no signature is good on another connection.

use futures_util::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::identity::{Identity, PartyKey};

use super::epoch::{EpochNonce, fresh};
use super::error::{LinkError, Peer};
use super::tls;

/// The version of this handshake, of the frames that follow it, and of what parties and deployers say in them.
pub const LINK_VERSION: u16 = 4;

/// The label under which TLS exports what the signatures are bound to.
pub(super) const EXPORTER: &[u8] = b"EXPORTER-selkie-link-1";

/// The seed that two parties share on one link: fresh on every link, from both ends' randomness.
/// Never stored, never logged, wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PairSeed([u8; 32]);

impl PairSeed {
    /// The 32 bytes. Do not keep a copy.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn agree(dialer: &Hello, acceptor: &Hello) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"selkie pair seed 1");
        for hello in [dialer, acceptor] {
            // The name ends in a zero byte, which no name contains.
            hash.update(hello.from.to_string());
            hash.update([0]);
        }
        hash.update(dialer.seed);
        hash.update(acceptor.seed);
        Self(hash.finalize().into())
    }
}

impl fmt::Debug for PairSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PairSeed(redacted)")
    }
}

/// What each end says first.
#[derive(Serialize, Deserialize, ZeroizeOnDrop)]
struct Hello {
    #[zeroize(skip)]
    version: u16,
    #[zeroize(skip)]
    from: Peer,
    #[zeroize(skip)]
    to: Peer,
    #[zeroize(skip)]
    key: PartyKey,
    #[zeroize(skip)]
    nonce: EpochNonce,
    /// The longest frame it takes, and how much of one channel it lets wait unread.
    #[zeroize(skip)]
    terms: Terms,
    /// Its contribution to the pair's seed.
    seed: [u8; 32],
}

/// What one end of a link takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Terms {
    pub(super) frame_bytes: u32,
    pub(super) window_bytes: u32,
}

/// Which end this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Dialer,
    Acceptor,
}

/// What this end knows before the handshake.
pub(super) struct Knowns<'a> {
    pub(super) end: End,
    pub(super) identity: &'a Identity,
    pub(super) me: Peer,
    pub(super) peer: Peer,
    /// Pinned, and proved by TLS.
    pub(super) peer_key: PartyKey,
    pub(super) address: &'a str,
    pub(super) nonce: EpochNonce,
    pub(super) terms: Terms,
    /// What TLS exports under [`EXPORTER`].
    pub(super) binding: [u8; 32],
}

/// What both ends know after it.
#[derive(Debug)]
pub(super) struct Agreed {
    pub(super) seed: PairSeed,
    pub(super) peer_nonce: EpochNonce,
    pub(super) peer_terms: Terms,
}

/// Runs the handshake. A refusal is told to the other end before it is returned.
pub(super) async fn run<S>(socket: &mut WebSocketStream<S>, knowns: &Knowns<'_>) -> Result<Agreed, LinkError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let result = exchange(socket, knowns).await;
    if let Err(LinkError::Misbehaved { what, .. }) = &result {
        let reason: String = what.chars().take(100).collect();
        let frame = CloseFrame { code: CloseCode::Policy, reason: reason.into() };
        // The link is lost in any case; the reason is a courtesy.
        let _ = socket.close(Some(frame)).await;
    }
    result
}

async fn exchange<S>(socket: &mut WebSocketStream<S>, knowns: &Knowns<'_>) -> Result<Agreed, LinkError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let misbehaved =
        |what: String| LinkError::Misbehaved { peer: knowns.peer, address: knowns.address.to_owned(), what };
    let ours = Hello {
        version: LINK_VERSION,
        from: knowns.me,
        to: knowns.peer,
        key: knowns.identity.public(),
        nonce: knowns.nonce,
        terms: knowns.terms,
        seed: fresh()?,
    };
    let said = postcard::to_allocvec(&ours)
        .map_err(|e| LinkError::Local(format!("a bug here: the hello does not encode: {e}")))?;
    send(socket, knowns, said.clone()).await?;
    let heard = receive(socket, knowns).await?;
    let theirs: Hello = postcard::from_bytes(&heard).map_err(|_| misbehaved("its hello cannot be read".to_owned()))?;
    check(&theirs, knowns).map_err(misbehaved)?;

    let (dialer, acceptor) = match knowns.end {
        End::Dialer => (&said, &heard),
        End::Acceptor => (&heard, &said),
    };
    let transcript = transcript(dialer, acceptor, &knowns.binding);
    let (our_name, their_name) = match knowns.end {
        End::Dialer => (&b"dialer"[..], &b"acceptor"[..]),
        End::Acceptor => (&b"acceptor"[..], &b"dialer"[..]),
    };
    let signature = knowns.identity.sign(&to_sign(&transcript, our_name));
    send(socket, knowns, signature.to_vec()).await?;
    let proof: [u8; 64] =
        receive(socket, knowns).await?.try_into().map_err(|_| misbehaved("its signature cannot be read".to_owned()))?;
    if !theirs.key.verifies(&to_sign(&transcript, their_name), &proof) {
        return Err(misbehaved("its signature of the handshake is wrong".to_owned()));
    }
    let seed = match knowns.end {
        End::Dialer => PairSeed::agree(&ours, &theirs),
        End::Acceptor => PairSeed::agree(&theirs, &ours),
    };
    Ok(Agreed { seed, peer_nonce: theirs.nonce, peer_terms: theirs.terms })
}

fn check(theirs: &Hello, knowns: &Knowns<'_>) -> Result<(), String> {
    if theirs.version != LINK_VERSION {
        return Err(format!(
            "it speaks version {} of the link and {} speaks {LINK_VERSION}: run the same release \
             of selkie everywhere",
            theirs.version, knowns.me
        ));
    }
    if theirs.key != knowns.peer_key || theirs.from != knowns.peer {
        return Err(format!(
            "it says that it is {} with the key {}, and TLS showed {} with the key {}",
            theirs.from, theirs.key, knowns.peer, knowns.peer_key
        ));
    }
    if theirs.to != knowns.me {
        return Err(format!(
            "it takes this process for {}, and this is {}: the key, the role and the address in \
             cluster.toml do not belong together",
            theirs.to, knowns.me
        ));
    }
    if theirs.terms.frame_bytes < 1024 || theirs.terms.window_bytes < 131_072 {
        return Err("its limits are below what a link needs".to_owned());
    }
    Ok(())
}

fn transcript(dialer: &[u8], acceptor: &[u8], binding: &[u8; 32]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"selkie link handshake 1");
    for part in [dialer, acceptor, binding] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

fn to_sign(transcript: &[u8; 32], signer: &[u8]) -> Vec<u8> {
    [b"selkie link signature 1, ", signer, b": ", transcript].concat()
}

async fn send<S>(socket: &mut WebSocketStream<S>, knowns: &Knowns<'_>, bytes: Vec<u8>) -> Result<(), LinkError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    socket.send(Message::binary(bytes)).await.map_err(|e| lost(knowns, e))
}

async fn receive<S>(socket: &mut WebSocketStream<S>, knowns: &Knowns<'_>) -> Result<Vec<u8>, LinkError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match socket.next().await {
        Some(Ok(Message::Binary(bytes))) => Ok(bytes.to_vec()),
        Some(Ok(Message::Close(Some(frame)))) => Err(LinkError::Refused {
            peer: knowns.peer,
            address: knowns.address.to_owned(),
            cause: printable(frame.reason.as_bytes()),
        }),
        Some(Ok(_)) => Err(LinkError::Misbehaved {
            peer: knowns.peer,
            address: knowns.address.to_owned(),
            what: "it sent something else than a handshake".to_owned(),
        }),
        Some(Err(error)) => Err(lost(knowns, error)),
        None => Err(lost(knowns, WsError::ConnectionClosed)),
    }
}

fn lost(knowns: &Knowns<'_>, error: WsError) -> LinkError {
    let (peer, address) = (knowns.peer, knowns.address.to_owned());
    match error {
        WsError::Io(error) => match tls::explain(&error) {
            tls::Failure::Alert(alert) => {
                LinkError::Refused { peer, address, cause: refused_key(knowns.me, &knowns.identity.public(), &alert) }
            }
            tls::Failure::NotPinned(_) => {
                LinkError::Absent { peer, address, cause: "its key is not the pinned one".to_owned() }
            }
            tls::Failure::Other(cause) => LinkError::Absent { peer, address, cause },
        },
        error => LinkError::Absent { peer, address, cause: error.to_string() },
    }
}

/// What to say when the other end's TLS turned our certificate away.
pub(super) fn refused_key(me: Peer, ours: &PartyKey, alert: &str) -> String {
    format!(
        "it does not take our key {ours} for that of {me} ({alert}): its cluster.toml must pin \
         this key"
    )
}

/// Text from outside, fit for an error or a log line: one line, no control characters.
pub(super) fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

    use super::*;

    #[test]
    fn a_signature_is_bound_to_everything_that_was_said() {
        let base = transcript(b"a", b"b", &[0; 32]);
        assert_ne!(base, transcript(b"b", b"a", &[0; 32]));
        assert_ne!(base, transcript(b"ab", b"", &[0; 32]));
        assert_ne!(base, transcript(b"a", b"b", &[1; 32]));
        assert_ne!(to_sign(&base, b"dialer"), to_sign(&base, b"acceptor"));
    }

    #[test]
    fn seeds_and_text_from_outside_stay_out_of_logs() {
        assert_eq!(format!("{:?}", PairSeed([7; 32])), "PairSeed(redacted)");
        assert_eq!(printable(b"a\nb\x1b[31mc\xff"), "ab[31mc\u{fffd}");
    }

    #[test]
    fn both_ends_and_their_names_make_the_seed() {
        let hello = |from: selkie::Role, seed| Hello {
            version: LINK_VERSION,
            from: from.into(),
            to: from.into(),
            key: Identity::generate().unwrap().public(),
            nonce: EpochNonce([0; 32]),
            terms: Terms { frame_bytes: 0, window_bytes: 0 },
            seed: [seed; 32],
        };
        use selkie::Role::{CryptoProducer, Server0, Server1};
        let seed = |a, b| *PairSeed::agree(&a, &b).as_bytes();
        let base = seed(hello(Server0, 1), hello(Server1, 2));
        assert_eq!(base, seed(hello(Server0, 1), hello(Server1, 2)));
        assert_ne!(base, seed(hello(Server0, 3), hello(Server1, 2)));
        assert_ne!(base, seed(hello(Server0, 1), hello(Server1, 3)));
        assert_ne!(base, seed(hello(Server0, 1), hello(CryptoProducer, 2)));
    }
}
