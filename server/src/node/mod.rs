//! A party as a running process: it keeps its links up, agrees with the others on epochs, opens the weights of deployed models
//! under their masks, keeps correlated randomness ready, and answers clients.
//!
//! ```text
//!  clients ── http ── client ──┐                       ┌── epoch ── setup ── dealing
//!                              ├── session ── pipes ───┤
//!  deployers ── deploying ── store                     └── mesh (links to the two other parties)
//! ```
//! Everything that randomness touches belongs to an `era::Era`: the time between two losses of any of the three links. When an
//! era ends, its masks, its stock and its opened weights are dropped; what is on disk is shares alone.

mod client;
mod dealing;
mod deploying;
pub(crate) mod epoch;
pub(crate) mod era;
mod gathering;
pub(crate) mod hello;
pub(crate) mod http;
pub(crate) mod measured;
mod meeting;
mod pipes;
pub(crate) mod refusal;
mod session;
mod setup;
mod threads;
mod turn;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use selkie::client::message::Refusal;
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Cluster;
use crate::exit::Failure;
use crate::identity::PartyKey;
use crate::link::{Channel, Links, Me, Mesh, Peer};
use crate::page::Page;
use crate::store::{Deployment, Keeping, Model, Store};
use selkie::Role;

use era::{Era, Ready};
use gathering::Gatherings;
use hello::Hello;
use meeting::Meeting;

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Fresh random bytes.
pub(crate) fn fresh<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    match getrandom::fill(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) => Err(format!("the operating system gives no randomness: {error}")),
    }
}

/// One party.
pub(crate) struct Node {
    pub(crate) role: Role,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) links: Links,
    pub(crate) store: Store,
    pub(crate) page: Option<Page>,
    /// The deployed models, by name.
    models: Mutex<BTreeMap<String, Arc<Model>>>,
    /// Every version that this process has ever taken: none is taken twice.
    versions: Mutex<HashSet<u64>>,
    /// Rings when a model was deployed.
    pub(crate) deployed: Notify,
    pub(crate) era: watch::Sender<Option<Arc<Era>>>,
    /// The queries that are gathered or run here.
    pub(crate) gatherings: Gatherings,
    pub(crate) sessions: Arc<Semaphore>,
    /// One deployment at a time.
    pub(crate) deploying: tokio::sync::Mutex<()>,
    /// Dealing shares the processor with the sessions, and leaves them the larger part.
    pub(crate) dealing: Arc<Semaphore>,
    /// server1: what server0 said of a session. Crypto producer: server1's channel of a session.
    pub(crate) offers: Meeting<session::Offer>,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Node {
    pub(crate) fn model(&self, name: &str) -> Option<Arc<Model>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// The models that go by a name: the one that is called so, and the same under the deployment's other protocols, `NAME@…`.
    pub(crate) fn protocols_of(&self, name: &str) -> Vec<Arc<Model>> {
        let goes_by = |model: &Model| model.name.strip_prefix(name).is_some_and(|s| s.is_empty() || s.starts_with('@'));
        let models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        models.values().filter(|model| goes_by(model)).cloned().collect()
    }

    pub(crate) fn models(&self) -> Vec<Arc<Model>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Whether a deployment of this name may come; `held_by` is its deployer, if it is ephemeral.
    pub(crate) fn admits(&self, name: &str, held_by: Option<PartyKey>) -> Result<(), Refusal> {
        let models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        // A lasting model and an ephemeral program never take each other's place: the latter would take the name with it.
        let there = models.values().find(|model| model.deployment == name);
        if there.is_some_and(|there| there.held_by.is_some() || held_by.is_some()) {
            return Err(refusal::refused(format!(
                "{} has a model called {name:?} already: use another name",
                self.role
            )));
        }
        let most = self.cluster.limits.programs_per_deployer;
        let held = models.values().filter(|model| model.held_by == held_by).map(|model| &model.deployment);
        if held_by.is_some() && held.collect::<HashSet<_>>().len() >= most {
            return Err(refusal::refused(format!(
                "this deployer holds {most} ephemeral programs at {} already (limits.programs_per_deployer): end a session first",
                self.role
            )));
        }
        Ok(())
    }

    /// Puts a deployment in the place of an older one.
    pub(crate) fn put(&self, deployment: &Deployment) {
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<String> =
            models.values().filter(|m| m.deployment == deployment.name).map(|m| m.name.clone()).collect();
        models.retain(|_, model| model.deployment != deployment.name);
        models.extend(deployment.models.iter().map(|model| (model.name.clone(), model.clone())));
        // Parts that there are no more; the others go when their successors can be used.
        let gone: Vec<_> = gone.into_iter().filter(|name| !models.contains_key(name)).collect();
        drop(models);
        let mut current = self.current_era();
        while let Some(era) = current.take() {
            gone.iter().for_each(|name| era.retire(name));
            if let Some(keeping) = &deployment.keeping {
                keeping.enter(era.epoch);
            }
            // A newer one may have begun meanwhile, and been entered before this one.
            current = self.current_era().filter(|newer| newer.epoch != era.epoch);
        }
        self.deployed.notify_waiters();
    }

    /// Forgets an ephemeral program, and all that was made of it.
    pub(crate) fn retire(&self, deployment: &Deployment) {
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        for model in &deployment.models {
            if models.get(&model.name).is_some_and(|there| Arc::ptr_eq(there, model)) {
                models.remove(&model.name);
            }
        }
        drop(models);
        if let Some(era) = self.current_era() {
            deployment.models.iter().for_each(|model| era.retire(&model.name));
        }
        tracing::info!(model = %deployment.name, version = deployment.version, "retired");
    }

    /// A model can be used in the era from now on, unless it was retired while it was being set up.
    pub(crate) fn activate(&self, era: &Era, ready: Arc<Ready>) {
        let model = ready.model.clone();
        era.activate(ready);
        if model.held_by.is_some() && self.model(&model.name).is_none() {
            era.retire(&model.name);
        }
    }

    /// Whether this party is ready for queries to a model. The crypto producer has nothing to do for those to whom nothing is dealt.
    pub(crate) fn serves(&self, era: &Era, model: &Model) -> bool {
        let idle = || [Role::Server0, Role::Server1].iter().all(|role| model.plan.unit_bytes(*role) == 0);
        era.serves(&model.name) || (self.role == Role::CryptoProducer && idle())
    }

    /// What the deployments keep from run to run.
    pub(crate) fn keepings(&self) -> Vec<Arc<Keeping>> {
        let mut all: Vec<Arc<Keeping>> = Vec::new();
        for keeping in self.models().iter().filter_map(|model| model.keeping.clone()) {
            if !all.iter().any(|there| Arc::ptr_eq(there, &keeping)) {
                all.push(keeping);
            }
        }
        all
    }

    /// Takes a version number; `false`: it was taken before.
    pub(crate) fn take_version(&self, version: u64) -> bool {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner).insert(version)
    }

    pub(crate) fn current_era(&self) -> Option<Arc<Era>> {
        self.era.borrow().clone()
    }

    /// Whether a query is being gathered or run here.
    pub(crate) fn is_busy(&self) -> bool {
        !self.gatherings.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Runs until it ends or the party stops.
    pub(crate) fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            stop.run_until_cancelled(task).await;
        });
    }
}

/// A party that runs in this process until it is told to stop.
pub struct Service {
    node: Arc<Node>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Service {
    /// Opens the party's port and its store, and begins to serve. Its identity is given, so that the demo needs no files for it.
    ///
    /// # Errors
    /// The port is busy, or the store cannot be opened.
    pub async fn start(cluster: Arc<Cluster>, role: Role, me: Me, page: Option<Page>) -> Result<Self, Failure> {
        let directory = cluster.state(role)?;
        let store = Store::open(directory, role, me.identity.public())
            .map_err(|e| Failure::other(format!("the state directory {} cannot be used: {e}", directory.display())))?;
        let (deployments, unusable) = store
            .load()
            .map_err(|e| Failure::other(format!("the state directory {} cannot be read: {e}", directory.display())))?;
        for error in &unusable {
            tracing::error!("{error}");
        }
        let versions = deployments.values().map(|deployment| deployment.version).collect();
        let models = deployments.into_values().flat_map(|deployment| deployment.models);
        let models: BTreeMap<String, Arc<Model>> = models.map(|model| (model.name.clone(), model)).collect();
        for model in models.values() {
            tracing::info!(model = %model.name, protocol = %model.protocol(), program = %hex(&model.spec.program), "serving");
        }
        let mut mesh = Mesh::start(cluster.clone(), role, me).await?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let clients = mesh.clients();
        let node = Arc::new(Node {
            role,
            links: mesh.links(),
            store,
            page,
            versions: Mutex::new(versions),
            models: Mutex::new(models),
            deployed: Notify::new(),
            era: watch::Sender::new(None),
            gatherings: Mutex::default(),
            sessions: Arc::new(Semaphore::new(cluster.limits.sessions)),
            deploying: tokio::sync::Mutex::default(),
            dealing: Arc::new(Semaphore::new((cores / 2).max(1))),
            offers: Meeting::new(cluster.limits.sessions),
            cluster,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        if let Some(clients) = clients {
            node.spawn(http::serve(node.clone(), clients));
        }
        if role == Role::Server0 {
            node.spawn(epoch::lead(node.clone()));
        }
        let accepting = tokio::spawn(accept(node.clone(), mesh));
        Ok(Self { node, accepting })
    }

    /// Ends everything; the peers are told.
    pub async fn stop(self) {
        self.node.stop.cancel();
        self.node.links.stop("it is shutting down");
        self.node.tasks.close();
        // Sessions that compute on threads of their own find out when they next talk; they are not waited for.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(2), self.node.tasks.wait()).await;
        self.accepting.abort();
        // The parting word needs a moment to leave.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }

    /// Whether the three parties are linked and every deployed model is ready for queries.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.node.current_era().is_some_and(|era| self.node.models().iter().all(|model| self.node.serves(&era, model)))
    }
}

/// Takes the channels that peers open, in the order in which they open them: sessions burn units in that order.
async fn accept(node: Arc<Node>, mut mesh: Mesh) {
    while let Some((peer, hello, channel)) = mesh.accept().await {
        let hello = match hello::decode::<Hello>(&hello) {
            Ok(hello) => hello,
            Err(why) => {
                channel.fail(&why);
                continue;
            }
        };
        dispatch(&node, peer, hello, channel);
    }
}

fn dispatch(node: &Arc<Node>, peer: Peer, hello: Hello, channel: Channel) {
    use Role::{CryptoProducer, Server0, Server1};
    match (peer, node.role, hello) {
        (Peer::Deployer(key), _, Hello::Deploy { name, version, bytes, ephemeral }) => {
            let held_by = ephemeral.then_some(key);
            let coming = deploying::Coming { name, version, bytes, held_by };
            node.spawn(deploying::take(node.clone(), key, coming, channel));
        }
        (Peer::Party(Server0), Server1 | CryptoProducer, Hello::Epoch { nonce }) => {
            node.spawn(epoch::join(node.clone(), nonce, channel));
        }
        (Peer::Party(Server0), Server1, Hello::Setup(about)) => {
            node.spawn(setup::follow(node.clone(), about, channel));
        }
        (Peer::Party(to @ (Server0 | Server1)), CryptoProducer, Hello::Deal(about)) => {
            node.spawn(dealing::deal(node.clone(), to, about, channel));
        }
        (Peer::Party(Server0), Server1, Hello::Session { session, about, units, state }) => {
            session::offered(node, session, about, units, state, channel);
        }
        (Peer::Party(Server0), CryptoProducer, Hello::Session { session, about, units, .. }) => {
            session::produce(node, session, about, units, channel);
        }
        (Peer::Party(Server1), CryptoProducer, Hello::Session { session, about, units, .. }) => {
            session::joined(node, session, about, units, channel);
        }
        (peer, role, _) => {
            tracing::warn!(%peer, "a channel that is not its to open");
            channel.fail(&format!("[refused] {role} takes no such channel from {peer}"));
        }
    }
}

#[cfg(test)]
mod tests;
