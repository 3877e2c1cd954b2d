//! What the rest of Selkie holds: links and channels.

use std::sync::Arc;

use tokio::sync::Notify;

use super::counted::Traffic;
use super::epoch::EpochNonce;
use super::error::{LinkError, Peer};
use super::handshake::PairSeed;
use super::mux::{Bytes, Counters, Shared};

/// What only handles hold: when the last link and channel are dropped, the link ends.
#[derive(Debug)]
struct Guard {
    shared: Arc<Shared>,
    traffic: Arc<Traffic>,
    seed: PairSeed,
    nonces: (EpochNonce, EpochNonce),
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.shared.leave("it is no longer needed");
    }
}

/// An authenticated, encrypted link to one peer, which carries any number of channels. Cheap to
/// clone. It lives until it is closed, dies, or the last handle of it and its channels is gone.
#[derive(Debug, Clone)]
pub struct Link(Arc<Guard>);

impl Link {
    pub(super) fn new(
        shared: Arc<Shared>,
        traffic: Arc<Traffic>,
        seed: PairSeed,
        nonces: (EpochNonce, EpochNonce),
    ) -> Self {
        Self(Arc::new(Guard { shared, traffic, seed, nonces }))
    }

    /// Who is at the other end, proved by TLS and by signature.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.0.shared.peer
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.0.shared.address
    }

    /// The seed shared with the peer, fresh on this link.
    #[must_use]
    pub fn pair_seed(&self) -> &PairSeed {
        &self.0.seed
    }

    /// The nonces of both processes, this one's first.
    #[must_use]
    pub fn epoch_nonces(&self) -> (EpochNonce, EpochNonce) {
        self.0.nonces
    }

    /// The longest frame or hello that can be sent, in bytes.
    #[must_use]
    pub fn frame_limit(&self) -> usize {
        self.0.shared.frame_limit
    }

    /// What really crossed the socket, in bytes, handshakes and all: (sent, received).
    #[must_use]
    pub fn traffic(&self) -> (u64, u64) {
        (self.0.traffic.sent(), self.0.traffic.received())
    }

    /// Opens a channel. Frames may be sent on it at once; should the peer not want it, it ends
    /// the channel with a reason.
    ///
    /// # Errors
    /// When the link is dead, or the hello longer than [`Self::frame_limit`].
    pub fn open_channel(&self, hello: Vec<u8>) -> Result<Channel, LinkError> {
        let id = self.0.shared.open(hello)?;
        self.channel(id)
    }

    /// Waits for a channel that the peer opens, and gives its hello.
    ///
    /// # Errors
    /// When the link dies.
    pub async fn accept(&self) -> Result<(Vec<u8>, Channel), LinkError> {
        loop {
            if let Some((id, hello)) = self.0.shared.take_opened()? {
                // Several may wait for a channel each.
                self.0.shared.acceptable.notify_one();
                return Ok((hello, self.channel(id)?));
            }
            let notified = self.0.shared.acceptable.notified();
            tokio::select! {
                () = notified => {}
                error = self.closed() => return Err(error),
            }
        }
    }

    /// Ends the link; the peer is told the reason.
    pub fn close(&self, reason: &str) {
        self.0.shared.leave(reason);
    }

    /// Waits until the link is dead, and tells why.
    pub async fn closed(&self) -> LinkError {
        loop {
            let died = self.0.shared.died.notified();
            tokio::pin!(died);
            died.as_mut().enable();
            if let Some(error) = self.0.shared.death() {
                return error;
            }
            died.await;
        }
    }

    /// Why the link is dead, if it is.
    #[must_use]
    pub fn death(&self) -> Option<LinkError> {
        self.0.shared.death()
    }

    /// Whether both are handles of one and the same link.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn channel(&self, id: u32) -> Result<Channel, LinkError> {
        match self.0.shared.signals(id) {
            Some((sendable, readable, counters)) => {
                Ok(Channel(Arc::new(Handle { guard: self.0.clone(), id, sendable, readable, counters })))
            }
            None => Err(self.0.shared.death().unwrap_or(LinkError::Closed { peer: self.peer() })),
        }
    }
}

#[derive(Debug)]
struct Handle {
    guard: Arc<Guard>,
    id: u32,
    sendable: Arc<Notify>,
    readable: Arc<Notify>,
    counters: Arc<Counters>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.guard.shared.end(self.id, "");
        // Whoever watches it learns that there is nothing to watch.
        self.readable.notify_waiters();
    }
}

impl Handle {
    async fn send(&self, mut frame: Vec<u8>) -> Result<(), LinkError> {
        let shared = &self.guard.shared;
        shared.fits(frame.len())?;
        loop {
            let sendable = self.sendable.notified();
            tokio::pin!(sendable);
            sendable.as_mut().enable();
            match shared.send(self.id, frame)? {
                None => return Ok(()),
                Some(back) => frame = back,
            }
            sendable.await;
        }
    }

    async fn recv(&self) -> Result<Vec<u8>, LinkError> {
        loop {
            let readable = self.readable.notified();
            tokio::pin!(readable);
            readable.as_mut().enable();
            if let Some(frame) = self.guard.shared.receive(self.id)? {
                return Ok(frame);
            }
            readable.await;
        }
    }
}

/// One channel of a link: frames in order, both ways. Dropping it ends it in good order, after
/// what was sent has left.
#[derive(Debug)]
pub struct Channel(Arc<Handle>);

impl Channel {
    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.0.guard.shared.peer
    }

    /// Sends one frame. Waits while the peer has a whole window of this channel unread; so whoever
    /// sends without reading, to a peer that does the same, waits for ever: [`Self::split`].
    ///
    /// # Errors
    /// When the frame is too long, or the channel or the link has ended.
    pub async fn send(&self, frame: Vec<u8>) -> Result<(), LinkError> {
        self.0.send(frame).await
    }

    /// Receives one frame. What arrived before the channel ended comes before the error. Safe to
    /// cancel.
    ///
    /// # Errors
    /// When the channel or the link has ended; the error says why.
    pub async fn recv(&mut self) -> Result<Vec<u8>, LinkError> {
        self.0.recv().await
    }

    /// Two halves, to send and receive at the same time. The channel ends with the last of them.
    #[must_use]
    pub fn split(self) -> (ChannelSender, ChannelReceiver) {
        (ChannelSender(self.0.clone()), ChannelReceiver(self.0))
    }

    /// Ends the channel because of an error, which the peer is told. What was not sent yet is
    /// dropped.
    pub fn fail(self, reason: &str) {
        fail(&self.0, reason);
    }

    /// What this channel has carried so far.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        self.0.counters.bytes()
    }
}

fn fail(handle: &Handle, reason: &str) {
    let reason = if reason.is_empty() { "no reason" } else { reason };
    handle.guard.shared.end(handle.id, reason);
}

/// The sending half of a [`Channel`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ChannelSender(Arc<Handle>);

impl ChannelSender {
    /// As [`Channel::send`].
    ///
    /// # Errors
    /// As [`Channel::send`].
    pub async fn send(&self, frame: Vec<u8>) -> Result<(), LinkError> {
        self.0.send(frame).await
    }

    /// Waits until the channel or the link has ended, without reading what arrives, and tells why; `None`: this party has let go
    /// of it. Holds nothing of the channel itself.
    pub fn failed(&self) -> impl Future<Output = Option<LinkError>> + Send + use<> {
        let (handle, readable) = (Arc::downgrade(&self.0), self.0.readable.clone());
        async move {
            loop {
                let changed = readable.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                // What is let go here may be the last of it, so not in the lock of anything.
                let over = {
                    let handle = handle.upgrade()?;
                    handle.guard.shared.over(handle.id)
                };
                if over.is_some() {
                    return over;
                }
                changed.await;
            }
        }
    }

    /// As [`Channel::fail`]; the other half learns that the channel is closed.
    pub fn fail(self, reason: &str) {
        fail(&self.0, reason);
    }

    /// What this channel has carried so far.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        self.0.counters.bytes()
    }
}

/// The receiving half of a [`Channel`].
#[derive(Debug)]
pub struct ChannelReceiver(Arc<Handle>);

impl ChannelReceiver {
    /// As [`Channel::recv`].
    ///
    /// # Errors
    /// As [`Channel::recv`].
    pub async fn recv(&mut self) -> Result<Vec<u8>, LinkError> {
        self.0.recv().await
    }

    /// What this channel has carried so far.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        self.0.counters.bytes()
    }
}
