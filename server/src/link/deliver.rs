//! What a peer sends, taken in: checked before it changes anything. A peer that breaks a channel's
//! rules loses that channel, one that breaks the link's rules loses the link.

use super::error::LinkError;
use super::frame::{Frame, HEADER, wire_bytes};
use super::mux::{FRAME_COST, Shared, Slot, Table, count};

/// Answers to nonsense that may wait to be sent; a peer that provokes more loses its link.
const CONTROL_LIMIT: usize = 1024;

impl Shared {
    /// Takes in one message. `Err`: the peer broke the rules, and the link must end.
    pub(super) fn deliver(&self, bytes: &[u8]) -> Result<Option<String>, String> {
        let frame = Frame::decode(bytes)?;
        let wire = wire_bytes(bytes.len().saturating_sub(HEADER), !self.masks);
        let mut guard = self.table();
        let table = &mut *guard;
        if let Some(slot) = table.slots.get_mut(&frame.channel()) {
            count(&slot.counters.wire_received, wire);
        }
        match frame {
            Frame::Beat => {}
            Frame::Bye { reason } => return Ok(Some(reason)),
            Frame::Open { id, hello } => self.opened(table, id, hello)?,
            Frame::Data { id, payload } => self.received(table, id, payload)?,
            Frame::Credit { id, bytes } => {
                if let Some(slot) = self.known(table, id)? {
                    let credit = slot.credit.saturating_add(bytes as usize);
                    if credit > self.peer_window {
                        let what = "it gave more credit than its window holds";
                        self.fail(table, id, what);
                    } else {
                        slot.credit = credit;
                        slot.sendable.notify_waiters();
                    }
                }
            }
            Frame::End { id, reason } => {
                if let Some(slot) = self.known(table, id)? {
                    let error = if reason.is_empty() {
                        LinkError::Closed { peer: self.peer }
                    } else {
                        LinkError::Ended { peer: self.peer, reason }
                    };
                    finish(slot, error);
                    if !slot.held {
                        table.slots.remove(&id);
                    }
                }
            }
        }
        if table.control.len() > CONTROL_LIMIT {
            return Err("it provokes answers faster than it reads them".to_owned());
        }
        let answers = !table.control.is_empty();
        drop(guard);
        if answers {
            self.writable.notify_one();
        }
        Ok(None)
    }

    fn opened(&self, table: &mut Table, id: u32, hello: Vec<u8>) -> Result<(), String> {
        // The peer's channels have the other parity than ours and only ever count upwards.
        let parity = if self.masks { 0 } else { 1 };
        if id % 2 != parity || id <= table.last_peer_id {
            return Err(format!("it opened channel {id}, which is not its to open"));
        }
        table.last_peer_id = id;
        let held = table.slots.values().filter(|s| s.opened_by_peer).count();
        if held >= self.sessions {
            table
                .control
                .push_back(Frame::End { id, reason: format!("{held} sessions are open, and no more are allowed") });
        } else if hello.len() > self.receive_limit {
            table.control.push_back(Frame::End { id, reason: self.too_long(hello.len()) });
        } else {
            let slot = self.slot(true);
            count(&slot.counters.wire_received, wire_bytes(hello.len(), !self.masks));
            table.slots.insert(id, slot);
            table.opened.push_back((id, hello));
            self.acceptable.notify_one();
        }
        Ok(())
    }

    fn received(&self, table: &mut Table, id: u32, payload: Vec<u8>) -> Result<(), String> {
        let Some(slot) = self.known(table, id)? else {
            return Ok(());
        };
        if !slot.held {
            return Ok(());
        }
        let cost = payload.len() + FRAME_COST;
        if payload.len() > self.receive_limit {
            let what = self.too_long(payload.len());
            self.fail(table, id, &what);
        } else if slot.unread + slot.owed + cost > self.window {
            self.fail(table, id, "it sent more than the channel's window holds");
        } else {
            slot.unread += cost;
            count(&slot.counters.payload_received, payload.len() as u64);
            slot.inbox.push_back(payload);
            slot.readable.notify_waiters();
        }
        Ok(())
    }

    fn too_long(&self, bytes: usize) -> String {
        format!("a frame of {bytes} bytes is longer than {}, the limit", self.receive_limit)
    }

    /// The slot of a live channel. Frames of a channel that was closed here may still be on their
    /// way; frames of one that never was are an error, told to the peer.
    fn known<'a>(&self, table: &'a mut Table, id: u32) -> Result<Option<&'a mut Slot>, String> {
        let parity = if self.masks { 0 } else { 1 };
        let once_was =
            if id % 2 == parity { id <= table.last_peer_id } else { table.next_id.is_none_or(|next| id < next) };
        if !once_was && !table.slots.contains_key(&id) {
            tracing::warn!(peer = %self.peer, channel = id, "frame for an unknown channel");
            table.control.push_back(Frame::End { id, reason: format!("channel {id} was never opened") });
        }
        Ok(table.slots.get_mut(&id).filter(|slot| slot.over.is_none()))
    }

    /// Ends one channel because the peer broke its rules.
    fn fail(&self, table: &mut Table, id: u32, what: &str) {
        tracing::warn!(peer = %self.peer, channel = id, what, "channel ended");
        let Some(slot) = table.slots.get_mut(&id) else {
            return;
        };
        let error = LinkError::Misbehaved { peer: self.peer, address: self.address.clone(), what: what.to_owned() };
        finish(slot, error);
        table.turns.retain(|turn| *turn != id);
        if !slot.held {
            table.slots.remove(&id);
        }
        table.control.push_back(Frame::End { id, reason: what.to_owned() });
    }
}

fn finish(slot: &mut Slot, error: LinkError) {
    slot.over = Some(error);
    slot.outbox.clear();
    slot.sendable.notify_waiters();
    slot.readable.notify_waiters();
}
