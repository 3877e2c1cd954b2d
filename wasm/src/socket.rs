//! One server's WebSocket, which JavaScript opened, and the listener that hears it.

use js_sys::{ArrayBuffer, Uint8Array};
use selkie::Role;
use wasm_bindgen::{JsCast, prelude::*};
use web_sys::{CloseEvent, Event, EventListener, MessageEvent, WebSocket};

use crate::failure::Failure;

/// What a socket tells.
pub(crate) enum Heard {
    /// It is open: bytes may be sent.
    Open,
    /// A message came.
    Message(Vec<u8>),
    /// A message came that is not binary.
    Text,
    /// It is closed, and why, where a reason was given.
    Closed(String),
}

/// An `EventListener`: what the sockets call. An exported object, not a closure; see the crate's documentation.
#[wasm_bindgen]
pub struct Listener {
    hear: Box<dyn Fn(Heard)>,
}

#[wasm_bindgen]
impl Listener {
    /// Called by the socket.
    #[wasm_bindgen(js_name = handleEvent)]
    pub fn handle_event(&self, event: Event) {
        // The casts are unchecked: the socket may be a package's, whose classes are not the browser's.
        let heard = match event.type_().as_str() {
            "open" => Heard::Open,
            "message" => {
                let data = event.unchecked_into::<MessageEvent>().data();
                if data.is_string() {
                    Heard::Text
                } else {
                    Heard::Message(Uint8Array::new(&data.unchecked_into::<ArrayBuffer>()).to_vec())
                }
            }
            "close" => Heard::Closed(event.unchecked_into::<CloseEvent>().reason()),
            // "error" tells nothing that "close" does not tell right after it.
            _ => return,
        };
        (self.hear)(heard);
    }
}

/// A socket to one of the two servers.
pub(crate) struct Socket {
    socket: WebSocket,
    role: Role,
    url: String,
    /// What is to be sent once it is open; afterwards nothing.
    waiting: Option<Vec<Vec<u8>>>,
    /// Whether the server has ever said anything.
    pub(crate) heard: bool,
}

impl Socket {
    /// Listens to a socket that is still connecting.
    pub(crate) fn new(socket: WebSocket, role: Role, url: String, hear: impl Fn(Heard) + 'static) -> Self {
        let listener: EventListener = JsValue::from(Listener { hear: Box::new(hear) }).unchecked_into();
        for event in ["open", "message", "close", "error"] {
            // Cannot fail: the event's name is a valid one. "error" is listened to so that Node does not throw it.
            let _ = socket.add_event_listener_with_event_listener(event, &listener);
        }
        Self { socket, role, url, waiting: Some(Vec::new()), heard: false }
    }

    /// The socket has opened.
    pub(crate) fn open(&mut self) {
        for bytes in self.waiting.take().into_iter().flatten() {
            self.send(bytes);
        }
    }

    /// Sends one binary message, as soon as that is possible.
    pub(crate) fn send(&mut self, bytes: Vec<u8>) {
        match &mut self.waiting {
            Some(waiting) => waiting.push(bytes),
            None => {
                // A copy: a view of our memory might be sent later, and be void by then. If the socket is closed, its
                // event is on the way and says so better.
                let _ = self.socket.send_with_js_u8_array(&Uint8Array::from(bytes.as_slice()));
            }
        }
    }

    /// Closes it; harmless if it is closed.
    pub(crate) fn close(&self) {
        let _ = self.socket.close();
    }

    /// It is closed: it was never there, or it went away.
    pub(crate) fn lost(&self, reason: &str) -> Failure {
        let Self { role, url, .. } = self;
        if !reason.is_empty() {
            return Failure::refused(Some(*role), format!("{role} at {url} closed the connection: {reason}"));
        }
        let message = if self.heard {
            format!("{role} at {url} went away. Try again; if it stays away, its operator must start it.")
        } else {
            format!("{role} does not answer at {url}. If the address is right, its operator must start it.")
        };
        Failure::peer(*role, message)
    }
}
