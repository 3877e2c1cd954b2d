//! The state of one link: its channels, whose turn it is, and who may send how much.
//!
//! Everything here is bookkeeping under one lock: [`super::deliver`] takes in what the peer sends,
//! [`super::drive`] moves the bytes. Each channel
//! has a window: what its receiver lets wait unread. A sender that has used it up waits until the
//! receiver has read. So one slow reader stops its own channel and no other.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::error::{LinkError, Peer};
use super::frame::{Frame, wire_bytes};
use super::handshake::{End, Terms};

/// What a frame takes of a window beside its length, so that empty frames fill it too.
pub(super) const FRAME_COST: usize = 64;

/// Bytes of one channel, each way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bytes {
    /// Frames given to `send`, without any header.
    pub payload_sent: u64,
    /// Frames received, without any header.
    pub payload_received: u64,
    /// Everything this channel sent: headers of the link, of WebSocket and of TLS, its opening
    /// and its credits. Every message is counted as if it had left alone.
    pub wire_sent: u64,
    /// The same for what it received.
    pub wire_received: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) payload_sent: AtomicU64,
    pub(super) payload_received: AtomicU64,
    pub(super) wire_sent: AtomicU64,
    pub(super) wire_received: AtomicU64,
}

impl Counters {
    pub(super) fn bytes(&self) -> Bytes {
        Bytes {
            payload_sent: self.payload_sent.load(Ordering::Relaxed),
            payload_received: self.payload_received.load(Ordering::Relaxed),
            wire_sent: self.wire_sent.load(Ordering::Relaxed),
            wire_received: self.wire_received.load(Ordering::Relaxed),
        }
    }
}

#[derive(Debug)]
pub(super) struct Slot {
    /// Frames that wait for their turn; never more than the peer's window.
    pub(super) outbox: VecDeque<Vec<u8>>,
    /// What may still be sent before the peer reads.
    pub(super) credit: usize,
    /// Frames that wait to be read; never more than our window.
    pub(super) inbox: VecDeque<Vec<u8>>,
    /// What those in `inbox` take of the window, and what was read since the last credit.
    pub(super) unread: usize,
    pub(super) owed: usize,
    /// We end the channel once the outbox is empty.
    pub(super) ending: Option<String>,
    /// The channel is over, and why.
    pub(super) over: Option<LinkError>,
    /// Whether a handle still exists here.
    pub(super) held: bool,
    pub(super) opened_by_peer: bool,
    pub(super) sendable: Arc<Notify>,
    pub(super) readable: Arc<Notify>,
    pub(super) counters: Arc<Counters>,
}

#[derive(Debug)]
pub(super) struct Table {
    pub(super) slots: HashMap<u32, Slot>,
    /// Channels with something to send, in the order of their turns.
    pub(super) turns: VecDeque<u32>,
    pub(super) control: VecDeque<Frame>,
    /// Channels that the peer opened and nobody here has taken yet.
    pub(super) opened: VecDeque<(u32, Vec<u8>)>,
    pub(super) next_id: Option<u32>,
    pub(super) last_peer_id: u32,
    /// We want the link to end, and say why.
    pub(super) bye: Option<String>,
    /// It has ended.
    pub(super) dead: Option<LinkError>,
}

/// What the writer does next.
pub(super) enum Next {
    Send(Vec<u8>),
    Wait,
    Leave(String),
}

/// One link's state, shared by its tasks and its handles.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) peer: Peer,
    pub(super) address: String,
    pub(super) frame_limit: usize,
    /// Dialers mask what they send, as WebSocket clients must.
    pub(super) masks: bool,
    pub(super) window: usize,
    pub(super) peer_window: usize,
    pub(super) receive_limit: usize,
    pub(super) sessions: usize,
    table: Mutex<Table>,
    pub(super) writable: Notify,
    pub(super) acceptable: Notify,
    pub(super) died: Notify,
}

impl Shared {
    pub(super) fn new(peer: Peer, address: String, end: End, (ours, theirs): (Terms, Terms), sessions: usize) -> Self {
        Self {
            peer,
            address,
            frame_limit: ours.frame_bytes.min(theirs.frame_bytes) as usize,
            masks: end == End::Dialer,
            window: ours.window_bytes as usize,
            peer_window: theirs.window_bytes as usize,
            receive_limit: ours.frame_bytes as usize,
            sessions,
            table: Mutex::new(Table {
                slots: HashMap::new(),
                turns: VecDeque::new(),
                control: VecDeque::new(),
                opened: VecDeque::new(),
                // The dialer's channels are odd, the acceptor's even; 0 is the link itself.
                next_id: Some(if end == End::Dialer { 1 } else { 2 }),
                last_peer_id: 0,
                bye: None,
                dead: None,
            }),
            writable: Notify::new(),
            acceptable: Notify::new(),
            died: Notify::new(),
        }
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        // No code panics while it holds the lock; if it did, the counts would still be sound.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn slot(&self, opened_by_peer: bool) -> Slot {
        Slot {
            outbox: VecDeque::new(),
            credit: self.peer_window,
            inbox: VecDeque::new(),
            unread: 0,
            owed: 0,
            ending: None,
            over: None,
            held: true,
            opened_by_peer,
            sendable: Arc::new(Notify::new()),
            readable: Arc::new(Notify::new()),
            counters: Arc::new(Counters::default()),
        }
    }

    // ---- from the handles ----

    pub(super) fn open(&self, hello: Vec<u8>) -> Result<u32, LinkError> {
        self.fits(hello.len())?;
        let mut table = self.table();
        if let Some(error) = &table.dead {
            return Err(error.clone());
        }
        let Some(id) = table.next_id else {
            return Err(LinkError::Local(format!(
                "the link to {} has used up its channels: close it, and a fresh one is made",
                self.peer
            )));
        };
        table.next_id = id.checked_add(2);
        let slot = self.slot(false);
        count(&slot.counters.wire_sent, wire_bytes(hello.len(), self.masks));
        table.slots.insert(id, slot);
        table.control.push_back(Frame::Open { id, hello });
        drop(table);
        self.writable.notify_one();
        Ok(id)
    }

    /// A channel that the peer opened.
    pub(super) fn take_opened(&self) -> Result<Option<(u32, Vec<u8>)>, LinkError> {
        let mut table = self.table();
        match (&table.dead, table.opened.is_empty()) {
            (Some(error), _) => Err(error.clone()),
            (None, true) => Ok(None),
            (None, false) => Ok(table.opened.pop_front()),
        }
    }

    pub(super) fn signals(&self, id: u32) -> Option<(Arc<Notify>, Arc<Notify>, Arc<Counters>)> {
        self.table().slots.get(&id).map(|slot| (slot.sendable.clone(), slot.readable.clone(), slot.counters.clone()))
    }

    pub(super) fn fits(&self, bytes: usize) -> Result<(), LinkError> {
        if bytes > self.frame_limit {
            return Err(LinkError::TooLong { bytes, limit: self.frame_limit });
        }
        Ok(())
    }

    /// Queues a frame, or gives it back when the window is full.
    pub(super) fn send(&self, id: u32, frame: Vec<u8>) -> Result<Option<Vec<u8>>, LinkError> {
        let mut guard = self.table();
        let table = &mut *guard;
        let Some(slot) = table.slots.get_mut(&id) else {
            return Err(self.closed());
        };
        if let Some(error) = slot.over.as_ref().or(table.dead.as_ref()) {
            return Err(error.clone());
        }
        if !slot.held {
            return Err(self.closed());
        }
        let cost = frame.len() + FRAME_COST;
        if slot.credit < cost {
            return Ok(Some(frame));
        }
        slot.credit -= cost;
        count(&slot.counters.payload_sent, frame.len() as u64);
        count(&slot.counters.wire_sent, wire_bytes(frame.len(), self.masks));
        if slot.outbox.is_empty() {
            table.turns.push_back(id);
        }
        slot.outbox.push_back(frame);
        drop(guard);
        self.writable.notify_one();
        Ok(None)
    }

    /// Why a channel has ended, if it has; what arrived before may still be there to read.
    pub(super) fn over(&self, id: u32) -> Option<LinkError> {
        let table = self.table();
        let Some(slot) = table.slots.get(&id) else { return Some(self.closed()) };
        slot.over.as_ref().or(table.dead.as_ref()).cloned()
    }

    /// The next frame received; `None` when there is none yet. What arrived before the end is
    /// delivered before the end is.
    pub(super) fn receive(&self, id: u32) -> Result<Option<Vec<u8>>, LinkError> {
        let mut guard = self.table();
        let table = &mut *guard;
        let Some(slot) = table.slots.get_mut(&id) else {
            return Err(self.closed());
        };
        let Some(frame) = slot.inbox.pop_front() else {
            return match slot.over.as_ref().or(table.dead.as_ref()) {
                Some(error) => Err(error.clone()),
                None if !slot.held => Err(self.closed()),
                None => Ok(None),
            };
        };
        let cost = frame.len() + FRAME_COST;
        slot.unread = slot.unread.saturating_sub(cost);
        slot.owed += cost;
        // Half a window at a time: few credits, and the sender does not run dry.
        if slot.owed >= self.window / 2 && slot.over.is_none() && table.dead.is_none() {
            let bytes = u32::try_from(slot.owed).unwrap_or(u32::MAX);
            slot.owed = 0;
            count(&slot.counters.wire_sent, wire_bytes(4, self.masks));
            table.control.push_back(Frame::Credit { id, bytes });
            self.writable.notify_one();
        }
        Ok(Some(frame))
    }

    /// The last handle is gone, or gives up for a reason. What is queued still leaves in the
    /// first case.
    pub(super) fn end(&self, id: u32, reason: &str) {
        let mut guard = self.table();
        let table = &mut *guard;
        let Some(slot) = table.slots.get_mut(&id) else {
            return;
        };
        slot.held = false;
        slot.inbox.clear();
        // The other half of a split channel may be waiting.
        slot.sendable.notify_waiters();
        slot.readable.notify_waiters();
        if slot.over.is_some() || table.dead.is_some() {
            table.slots.remove(&id);
            return;
        }
        if !reason.is_empty() {
            slot.outbox.clear();
            table.turns.retain(|turn| *turn != id);
        }
        if slot.outbox.is_empty() {
            table.slots.remove(&id);
            table.control.push_back(Frame::End { id, reason: reason.to_owned() });
        } else {
            slot.ending = Some(reason.to_owned());
        }
        drop(guard);
        self.writable.notify_one();
    }

    /// Asks for the whole link to end.
    pub(super) fn leave(&self, reason: &str) {
        self.table().bye.get_or_insert_with(|| reason.to_owned());
        self.writable.notify_one();
    }

    pub(super) fn death(&self) -> Option<LinkError> {
        self.table().dead.clone()
    }

    // ---- from the tasks ----

    pub(super) fn next(&self) -> Next {
        let mut guard = self.table();
        let table = &mut *guard;
        if let Some(frame) = table.control.pop_front() {
            return Next::Send(frame.encode());
        }
        while let Some(id) = table.turns.pop_front() {
            let Some(slot) = table.slots.get_mut(&id) else {
                continue;
            };
            let Some(payload) = slot.outbox.pop_front() else {
                continue;
            };
            if !slot.outbox.is_empty() {
                table.turns.push_back(id);
            } else if let Some(reason) = slot.ending.take() {
                table.slots.remove(&id);
                table.control.push_back(Frame::End { id, reason });
            }
            return Next::Send(Frame::Data { id, payload }.encode());
        }
        // A parting word comes after everything that was sent.
        match &table.bye {
            Some(reason) => Next::Leave(reason.clone()),
            None => Next::Wait,
        }
    }

    /// Whether this side wants the link to end.
    pub(super) fn leaving(&self) -> bool {
        self.table().bye.is_some()
    }

    /// The link is dead: every channel learns why, at once.
    pub(super) fn die(&self, error: LinkError) {
        let mut table = self.table();
        if table.dead.is_some() {
            return;
        }
        table.dead = Some(error);
        table.opened.clear();
        table.turns.clear();
        table.control.clear();
        table.slots.retain(|_, slot| slot.held);
        for slot in table.slots.values_mut() {
            slot.outbox.clear();
            slot.sendable.notify_waiters();
            slot.readable.notify_waiters();
        }
        drop(table);
        self.acceptable.notify_one();
        self.died.notify_waiters();
    }

    pub(super) fn gone(&self, cause: impl Into<String>) -> LinkError {
        LinkError::Gone { peer: self.peer, address: self.address.clone(), cause: cause.into() }
    }

    fn closed(&self) -> LinkError {
        LinkError::Closed { peer: self.peer }
    }
}

pub(super) fn count(counter: &AtomicU64, bytes: u64) {
    counter.fetch_add(bytes, Ordering::Relaxed);
}
