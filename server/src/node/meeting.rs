//! Where the halves of a session meet: whoever comes first waits for the other.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use selkie::client::message::Session;
use tokio::sync::oneshot;
use tokio::time::timeout;

enum Slot<T> {
    /// Somebody waits for it.
    Awaited(oneshot::Sender<T>),
    /// It is here; nobody has asked yet.
    Here(T),
}

/// Things that are brought by one task and fetched by another, by the session that they belong to.
pub(crate) struct Meeting<T> {
    slots: Arc<Mutex<HashMap<Session, Slot<T>>>>,
    capacity: usize,
}

impl<T: Send + 'static> Meeting<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { slots: Arc::default(), capacity }
    }

    /// Brings it; should nobody fetch it in time, `expired` has it back.
    ///
    /// # Errors
    /// Something of this session is here already, or too much is: it is given back.
    pub(crate) fn bring(
        &self,
        session: Session,
        thing: T,
        limit: Duration,
        expired: impl FnOnce(T) + Send + 'static,
    ) -> Result<(), T> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let full = slots.len() >= self.capacity;
        match slots.entry(session) {
            Entry::Occupied(slot) if matches!(slot.get(), Slot::Awaited(_)) => match slot.remove() {
                Slot::Awaited(sender) => sender.send(thing),
                Slot::Here(_) => Err(thing),
            },
            Entry::Occupied(_) => Err(thing),
            Entry::Vacant(_) if full => Err(thing),
            Entry::Vacant(slot) => {
                slot.insert(Slot::Here(thing));
                let slots = self.slots.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(limit).await;
                    let mut slots = slots.lock().unwrap_or_else(PoisonError::into_inner);
                    if matches!(slots.get(&session), Some(Slot::Here(_)))
                        && let Some(Slot::Here(thing)) = slots.remove(&session)
                    {
                        drop(slots);
                        expired(thing);
                    }
                });
                Ok(())
            }
        }
    }

    /// Waits for it.
    pub(crate) async fn fetch(&self, session: Session, limit: Duration) -> Option<T> {
        let receiver = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(Slot::Here(thing)) = slots.remove(&session) {
                return Some(thing);
            }
            let (sender, receiver) = oneshot::channel();
            slots.insert(session, Slot::Awaited(sender));
            receiver
        };
        let _forget = Forget { slots: self.slots.clone(), session };
        timeout(limit, receiver).await.ok().and_then(Result::ok)
    }
}

/// Takes back an expectation, also when the waiting is cancelled.
struct Forget<T> {
    slots: Arc<Mutex<HashMap<Session, Slot<T>>>>,
    session: Session,
}

impl<T> Drop for Forget<T> {
    fn drop(&mut self) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(slots.get(&self.session), Some(Slot::Awaited(_))) {
            slots.remove(&self.session);
        }
    }
}
