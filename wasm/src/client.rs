//! The prediction client over two WebSockets.
//!
//! One [`Client`] has one socket for each server and any number of conversations over the two at once, told apart by their
//! random names. When a server goes, every conversation ends with it, and the client is over: connect again.

use std::{
    cell::RefCell,
    rc::{Rc, Weak},
};

use js_sys::Function;
use selkie::Role;
use selkie::client::message::{Deployed, Reply, Request, SUBPROTOCOL, Session, VERSION};
use selkie::client::{ClientSpec, Prediction};
use wasm_bindgen::prelude::*;
use web_sys::WebSocket;

use crate::conversation::{Outcome, Promised, Question, nonsense};
use crate::failure::Failure;
use crate::shares::{self, Shares};
use crate::socket::{Heard, Socket};

/// The WebSocket subprotocol to open sockets with.
#[wasm_bindgen]
pub fn subprotocol() -> String {
    SUBPROTOCOL.into()
}

/// A model that both servers serve.
#[wasm_bindgen(getter_with_clone)]
pub struct Model {
    /// Its name.
    #[wasm_bindgen(readonly)]
    pub name: String,
    /// The protocol under which it is deployed.
    #[wasm_bindgen(readonly)]
    pub protocol: String,
    /// One sample's shape.
    #[wasm_bindgen(readonly, js_name = inputShape)]
    pub input_shape: Vec<u32>,
    /// One answer's shape.
    #[wasm_bindgen(readonly, js_name = outputShape)]
    pub output_shape: Vec<u32>,
}

impl From<Deployed> for Model {
    fn from(Deployed { name, protocol, input, output }: Deployed) -> Self {
        Self { name, protocol, input_shape: input, output_shape: output }
    }
}

/// The answer of one prediction, and what it cost.
#[wasm_bindgen(getter_with_clone)]
pub struct Answer {
    /// All answers, one after another.
    #[wasm_bindgen(readonly)]
    pub values: Vec<f32>,
    /// The batch, then one answer's shape.
    #[wasm_bindgen(readonly)]
    pub shape: Vec<u32>,
    /// The protocol that ran.
    #[wasm_bindgen(readonly)]
    pub protocol: String,
    /// Rounds among the three parties.
    #[wasm_bindgen(readonly)]
    pub rounds: u32,
    /// Payload among the three parties, from the inputs' arrival on.
    #[wasm_bindgen(readonly, js_name = onlineBytes)]
    pub online_bytes: f64,
    /// Payload dealt ahead.
    #[wasm_bindgen(readonly, js_name = offlineBytes)]
    pub offline_bytes: f64,
    /// Payload between this client and the servers.
    #[wasm_bindgen(readonly, js_name = clientBytes)]
    pub client_bytes: f64,
    /// The session's name.
    #[wasm_bindgen(readonly)]
    pub session: String,
}

/// A client of both servers.
#[wasm_bindgen]
pub struct Client {
    inner: Rc<RefCell<Inner>>,
}

struct Inner {
    sockets: [Socket; 2],
    protocol: Option<String>,
    // Both hold a handful, and a map's code would weigh more than the search through them.
    conversations: Vec<(Session, Question, Promised)>,
    specs: Vec<(String, ClientSpec)>,
    over: Option<Failure>,
}

#[wasm_bindgen]
impl Client {
    /// Takes over two sockets, `binaryType` set to `arraybuffer`, that may still be connecting.
    #[wasm_bindgen(constructor)]
    pub fn new(server0: WebSocket, server1: WebSocket, url0: String, url1: String, protocol: Option<String>) -> Client {
        let inner = Rc::new_cyclic(|inner: &Weak<RefCell<Inner>>| {
            let listen = |socket, role, url| {
                let inner = inner.clone();
                Socket::new(socket, role, url, move |heard| {
                    if let Some(inner) = inner.upgrade() {
                        inner.borrow_mut().hear(role, heard);
                    }
                })
            };
            RefCell::new(Inner {
                sockets: [listen(server0, Role::Server0, url0), listen(server1, Role::Server1, url1)],
                protocol,
                conversations: Vec::new(),
                specs: Vec::new(),
                over: None,
            })
        });
        Client { inner }
    }

    /// The models that both servers serve, as an array of `Model`.
    ///
    /// # Errors
    /// There is no randomness, or the client is over.
    pub fn models(&self, resolve: Function, reject: Function) -> Result<(), Failure> {
        let inner = &mut *self.inner.borrow_mut();
        let session = inner.begin(Question::List([None, None]), Promised::new(resolve, reject))?;
        inner.ask_both(&Request::List { session });
        Ok(())
    }

    /// Learns what `split` and `join` must know of a model.
    ///
    /// # Errors
    /// There is no randomness, or the client is over.
    pub fn describe(&self, model: String, resolve: Function, reject: Function) -> Result<(), Failure> {
        let inner = &mut *self.inner.borrow_mut();
        let promised = Promised::new(resolve, reject);
        if inner.spec(&model).is_ok() {
            promised.settle(Ok(JsValue::UNDEFINED));
            return Ok(());
        }
        let session = inner.begin(Question::Describe(model.clone(), Box::default()), promised)?;
        let protocol = inner.protocol.clone();
        inner.ask_both(&Request::Describe { version: VERSION, session, model, protocol });
        Ok(())
    }

    /// Begins a prediction of `batch` samples, which resolves to an `Answer`; returns the session's name. `protocol` is this
    /// prediction's, instead of the client's.
    ///
    /// # Errors
    /// A value is not finite; there is no randomness; the client is over.
    pub fn predict(
        &self,
        model: String,
        input: Vec<f32>,
        batch: u32,
        protocol: Option<String>,
        resolve: Function,
        reject: Function,
    ) -> Result<String, Failure> {
        if let Some(place) = input.iter().position(|value| !value.is_finite()) {
            return Err(Failure::usage(format!(
                "The input's value number {place} is not a finite number. Nothing was sent."
            )));
        }
        let inner = &mut *self.inner.borrow_mut();
        let (session, seed) = (session()?, shares::seed()?);
        let protocol = protocol.as_deref().or(inner.protocol.as_deref());
        let prediction = Prediction::new(session, &model, protocol, vec![input], batch as usize, seed);
        inner.begin_as(session, Question::Predict(model, Box::new(prediction)), Promised::new(resolve, reject))?;
        inner.flush(session);
        Ok(name(session))
    }

    /// Gives a prediction up: whatever still comes of it is ignored. Its promise is not settled.
    pub fn abandon(&self, session: &str) {
        self.inner.borrow_mut().conversations.retain(|(key, ..)| name(*key) != session);
    }

    /// Splits one sample as `predict` would, with fresh randomness; sends nothing.
    ///
    /// # Errors
    /// The input does not fit the model; it was not described yet.
    pub fn split(&self, model: &str, input: &[f32]) -> Result<Shares, Failure> {
        shares::share(self.inner.borrow().spec(model)?, input)
    }

    /// Puts the shares of one sample together.
    ///
    /// # Errors
    /// They are not of one length; the model was not described yet.
    pub fn join(&self, model: &str, share0: &[u64], share1: &[u64]) -> Result<Vec<f32>, Failure> {
        shares::add(self.inner.borrow().spec(model)?, share0, share1)
    }

    /// Too much time has passed: a server that is not there by now is absent.
    pub fn late(&self) {
        let inner = &mut *self.inner.borrow_mut();
        if let Some(failure) = inner.sockets.iter().find(|socket| !socket.heard).map(|socket| socket.lost("")) {
            inner.end(failure);
        }
    }

    /// Closes both sockets; everything under way fails.
    pub fn close(&self) {
        self.inner.borrow_mut().end(Failure::usage("The client was closed; connect again."));
    }
}

impl Inner {
    fn begin(&mut self, question: Question, promised: Promised) -> Result<Session, Failure> {
        let session = session()?;
        self.begin_as(session, question, promised)?;
        Ok(session)
    }

    fn begin_as(&mut self, session: Session, question: Question, promised: Promised) -> Result<(), Failure> {
        if let Some(failure) = &self.over {
            return Err(failure.clone());
        }
        self.conversations.push((session, question, promised));
        Ok(())
    }

    fn ask_both(&mut self, request: &Request) {
        let bytes = request.encode();
        self.sockets.iter_mut().for_each(|socket| socket.send(bytes.clone()));
    }

    /// Sends what a prediction has to say.
    fn flush(&mut self, session: Session) {
        let mut all = self.conversations.iter_mut();
        let Some((_, Question::Predict(_, prediction), _)) = all.find(|(key, ..)| *key == session) else { return };
        let [server0, server1] = &mut self.sockets;
        while let Some((to, bytes)) = prediction.poll() {
            if to == Role::Server0 { &mut *server0 } else { &mut *server1 }.send(bytes);
        }
    }

    fn hear(&mut self, from: Role, heard: Heard) {
        let [server0, server1] = &mut self.sockets;
        let socket = if from == Role::Server0 { server0 } else { server1 };
        match heard {
            Heard::Open => socket.open(),
            Heard::Closed(reason) => {
                let failure = socket.lost(&reason);
                self.end(failure);
            }
            Heard::Text => self.end(nonsense(from)),
            Heard::Message(bytes) => {
                socket.heard = true;
                match Reply::decode(from, &bytes) {
                    Ok(reply) => self.answer(from, reply, &bytes),
                    Err(blame) => self.end(blame.into()),
                }
            }
        }
    }

    /// Hands a reply to its conversation. One that nobody waits for belongs to a conversation that was given up or has failed.
    fn answer(&mut self, from: Role, reply: Reply, bytes: &[u8]) {
        let session = reply.session();
        let Some(place) = self.conversations.iter().position(|(key, ..)| *key == session) else { return };
        let Some((_, question, _)) = self.conversations.get_mut(place) else { return };
        let result = match question.hear(from, reply, bytes) {
            Ok(Outcome::Going) => return self.flush(session),
            Ok(Outcome::Listed(models)) => {
                Ok(models.into_iter().map(|model| JsValue::from(Model::from(model))).collect::<js_sys::Array>().into())
            }
            Ok(Outcome::Described(model, spec)) => {
                self.know(model, spec);
                Ok(JsValue::UNDEFINED)
            }
            Ok(Outcome::Answered(model, answer)) => {
                // Of any protocol: all run one program, whose inputs are encoded in one way, and that is what it is kept for.
                self.know(model, answer.spec.clone());
                Ok(report(session, *answer).into())
            }
            Err(failure) => Err(failure),
        };
        let (_, _, promised) = self.conversations.swap_remove(place);
        promised.settle(result);
    }

    fn know(&mut self, model: String, spec: ClientSpec) {
        self.specs.retain(|(name, _)| *name != model);
        self.specs.push((model, spec));
    }

    fn spec(&self, model: &str) -> Result<&ClientSpec, Failure> {
        let known = self.specs.iter().find(|(name, _)| name == model).map(|(_, spec)| spec);
        known.ok_or_else(|| Failure::usage(format!("The model {model:?} was not described yet.")))
    }

    fn end(&mut self, failure: Failure) {
        let failure = self.over.get_or_insert(failure).clone();
        self.sockets.iter().for_each(Socket::close);
        for (_, _, promised) in std::mem::take(&mut self.conversations) {
            promised.settle(Err(failure.clone()));
        }
    }
}

fn report(session: Session, answer: selkie::client::Answer) -> Answer {
    let (rounds, client_bytes) = (answer.rounds(), answer.client_bytes);
    let (online_bytes, offline_bytes) = (answer.online_bytes(), answer.offline_bytes());
    let values = answer.outputs.into_iter().next().unwrap_or_default();
    let one = answer.spec.outputs.first().map(|output| output.shape.clone()).unwrap_or_default();
    let elements: usize = one.iter().map(|n| *n as usize).product();
    let batch = values.len() / elements.max(1);
    Answer {
        shape: std::iter::once(batch as u32).chain(one).collect(),
        values,
        protocol: answer.spec.protocol,
        rounds,
        online_bytes: online_bytes as f64,
        offline_bytes: offline_bytes as f64,
        client_bytes: client_bytes as f64,
        session: name(session),
    }
}

/// A fresh conversation's name.
fn session() -> Result<Session, Failure> {
    let mut session = Session::default();
    getrandom::fill(&mut session).map_err(Failure::no_randomness)?;
    Ok(session)
}

/// As operators' logs show it.
fn name(session: Session) -> String {
    session.iter().map(|byte| format!("{byte:02x}")).collect()
}
