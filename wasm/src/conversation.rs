//! What is under way between this client and both servers.

use js_sys::Function;
use selkie::Role;
use selkie::client::message::{Deployed, Reply};
use selkie::client::{Answer, ClientSpec, Prediction, Progress};
use wasm_bindgen::prelude::*;

use crate::failure::Failure;

/// The two ends of a JavaScript promise.
pub(crate) struct Promised {
    resolve: Function,
    reject: Function,
}

impl Promised {
    pub(crate) fn new(resolve: Function, reject: Function) -> Self {
        Self { resolve, reject }
    }

    /// Neither function throws: they only settle a promise.
    pub(crate) fn settle(&self, result: Result<JsValue, Failure>) {
        let _ = match result {
            Ok(value) => self.resolve.call1(&JsValue::UNDEFINED, &value),
            Err(failure) => self.reject.call1(&JsValue::UNDEFINED, &failure.into()),
        };
    }
}

/// One question to both servers.
pub(crate) enum Question {
    /// Which models are there?
    List([Option<Vec<Deployed>>; 2]),
    /// What must I know of this model?
    Describe(String, Box<[Option<ClientSpec>; 2]>),
    /// What does this model say?
    Predict(String, Box<Prediction>),
}

/// What came of it.
pub(crate) enum Outcome {
    /// The other server has not answered yet, or there is more to come.
    Going,
    /// The models that both have.
    Listed(Vec<Deployed>),
    /// What both say of a model.
    Described(String, ClientSpec),
    /// The answer.
    Answered(String, Box<Answer>),
}

impl Question {
    /// Takes what the server `from` said.
    pub(crate) fn hear(&mut self, from: Role, reply: Reply, bytes: &[u8]) -> Result<Outcome, Failure> {
        let index = usize::from(from == Role::Server1);
        match (self, reply) {
            (Question::Predict(model, prediction), _) => Ok(match prediction.handle(from, bytes)? {
                Progress::Going => Outcome::Going,
                Progress::Done(answer) => Outcome::Answered(model.clone(), answer),
            }),
            (_, Reply::Refused { refusal, .. }) => Err(refusal.into()),
            (Question::List(heard), Reply::Models { models, .. }) => {
                heard.get_mut(index).ok_or_else(|| nonsense(from))?.get_or_insert(models);
                let [Some(first), Some(second)] = heard else { return Ok(Outcome::Going) };
                Ok(Outcome::Listed(first.iter().filter(|model| second.contains(model)).cloned().collect()))
            }
            (Question::Describe(model, heard), Reply::Spec { spec, .. }) => {
                spec.check()?;
                heard.get_mut(index).ok_or_else(|| nonsense(from))?.get_or_insert(spec);
                let [Some(first), Some(second)] = heard.as_ref() else { return Ok(Outcome::Going) };
                if first != second {
                    let message = format!("The servers disagree about {model:?}; its owner must deploy it again.");
                    return Err(Failure::refused(None, message));
                }
                Ok(Outcome::Described(model.clone(), first.clone()))
            }
            _ => Err(nonsense(from)),
        }
    }
}

/// A server said something that cannot be.
pub(crate) fn nonsense(from: Role) -> Failure {
    Failure::peer(from, format!("{from} sent an answer that was not asked for; its operator may run another version."))
}
