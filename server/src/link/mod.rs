//! Links between processes: one encrypted, mutually authenticated connection for each pair of
//! parties, which carries any number of channels of opaque frames.
//!
//! ```text
//! TCP ── TLS 1.3, both keys pinned ── WebSocket ── signed handshake ── channels, fair, bounded
//! ```
//!
//! A party starts a [`Mesh`]: it listens on the party's one port, dials the parties that it must
//! dial, dials again when a link is lost, and hands over the channels that peers open and the
//! HTTP connections of clients. Deployers [`dial()`] a party themselves; programs that are nobody
//! in particular use [`dial_client`].

mod channel;
mod counted;
mod deliver;
mod dial;
mod drive;
mod emulate;
mod epoch;
mod error;
mod frame;
mod handshake;
mod http;
mod listen;
mod mesh;
mod mux;
mod pins;
mod rate;
mod tls;

pub use channel::{Channel, ChannelReceiver, ChannelSender, Link};
pub use dial::{dial, dial_client};
pub(crate) use emulate::Emulated;
pub use epoch::EpochNonce;
pub use error::{LinkError, ListenError, Peer, Refusal};
pub use handshake::{LINK_VERSION, PairSeed};
pub use http::HttpStream;
pub use listen::{Accepted, Listener};
pub use mesh::{Links, Mesh, PeerState};
pub use mux::Bytes;

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::config::{Limits, MAX_FRAME_BYTES};
use crate::identity::Identity;
use counted::Traffic;
use handshake::{Agreed, Knowns, Terms};

/// Who this process is on its links.
#[derive(Debug, Clone)]
pub struct Me {
    /// Its name: a party, or a deployer.
    pub name: Peer,
    /// Its key.
    pub identity: Identity,
    /// Drawn once for each process.
    pub nonce: EpochNonce,
}

impl Me {
    /// This process, with a fresh nonce.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn new(name: impl Into<Peer>, identity: Identity) -> Result<Self, LinkError> {
        Ok(Self { name: name.into(), identity, nonce: EpochNonce::draw()? })
    }

    /// A deployer, named by its key.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn deployer(identity: Identity) -> Result<Self, LinkError> {
        Self::new(Peer::Deployer(identity.public()), identity)
    }
}

/// The path of party links' WebSocket.
const PATH: &str = "ws://selkie/party";

fn terms(limits: &Limits) -> Terms {
    let clamp = |n| u32::try_from(n).unwrap_or(u32::MAX);
    Terms { frame_bytes: clamp(limits.frame_bytes), window_bytes: clamp(limits.window_bytes) }
}

/// WebSocket's own limits: what is longer than `most` bytes is never read. Under it lies TLS, which gives a record at a time: a
/// buffer for more would stay empty, and its zeros would be written anew for every message.
pub(crate) fn socket_config(most: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(frame::RECORD as usize)
        .max_message_size(Some(most))
        .max_frame_size(Some(most))
}

/// The longest message of a link: twice a frame, so that a frame somewhat too long costs its channel only.
const LONGEST: usize = 2 * MAX_FRAME_BYTES;

/// The handshake, and then the tasks that drive the link.
async fn establish<S>(
    mut socket: WebSocketStream<S>,
    traffic: Arc<Traffic>,
    knowns: &Knowns<'_>,
    sessions: usize,
    permit: Option<OwnedSemaphorePermit>,
) -> Result<Link, LinkError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Agreed { seed, peer_nonce, peer_terms } = handshake::run(&mut socket, knowns).await?;
    let shared = Arc::new(mux::Shared::new(
        knowns.peer,
        knowns.address.to_owned(),
        knowns.end,
        (knowns.terms, peer_terms),
        sessions,
    ));
    let link = Link::new(shared.clone(), traffic.clone(), seed, (knowns.nonce, peer_nonce));
    tokio::spawn(async move {
        // The connection counts against the limit for as long as it lasts.
        let _permit = permit;
        drive::run(socket, traffic, shared).await;
    });
    Ok(link)
}

#[cfg(test)]
mod tests;
