//! A party's links to the two others, kept up.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::config::Cluster;
use selkie::{Epoch, Role};

use super::epoch::in_order;
use super::error::{LinkError, ListenError, Peer};
use super::http::HttpStream;
use super::listen::{Accepted, Listener};
use super::{Channel, Link, Me, dial};

/// Between attempts to reach a party: from this, doubled each time, …
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// … up to this. A restarted party is found again within a second.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Channels and connections that wait for somebody to take them.
const BACKLOG: usize = 64;

/// How one stands with a party.
#[derive(Debug, Clone)]
pub enum PeerState {
    /// There is a link.
    Linked(Link),
    /// There is none, and why.
    Absent(LinkError),
}

/// A channel that a peer opened: who, its hello, the channel.
type Opened = (Peer, Vec<u8>, Channel);

#[derive(Debug)]
struct Inner {
    cluster: Arc<Cluster>,
    role: Role,
    me: Me,
    states: [(Role, watch::Sender<PeerState>); 2],
    opened: mpsc::Sender<Opened>,
    clients: mpsc::Sender<HttpStream>,
    stop: CancellationToken,
    /// Held while a fresh link replaces an old one.
    adopting: Mutex<()>,
}

/// The links of one party. Dropping it closes the port and all links.
#[derive(Debug)]
pub struct Mesh {
    inner: Arc<Inner>,
    opened: mpsc::Receiver<Opened>,
    clients: Option<mpsc::Receiver<HttpStream>>,
}

/// What can be asked of a [`Mesh`] from anywhere. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Links(Arc<Inner>);

impl Mesh {
    /// Opens the party's port and begins to dial.
    ///
    /// # Errors
    /// When the port cannot be opened.
    pub async fn start(cluster: Arc<Cluster>, role: Role, me: Me) -> Result<Self, ListenError> {
        let listener = Listener::bind(&cluster, role, &me).await?;
        tracing::info!(%role, address = %listener.address(), key = %me.identity.public(), "listening");
        let (opened_in, opened) = mpsc::channel(BACKLOG);
        let (clients_in, clients) = mpsc::channel(BACKLOG);
        let states = role.others().map(|other| {
            let absent = PeerState::Absent(LinkError::Absent {
                peer: other.into(),
                address: cluster.party(other).address.to_string(),
                cause: "there was no link to it yet".to_owned(),
            });
            (other, watch::Sender::new(absent))
        });
        let inner = Arc::new(Inner {
            cluster,
            role,
            me,
            states,
            opened: opened_in,
            clients: clients_in,
            stop: CancellationToken::new(),
            adopting: Mutex::new(()),
        });
        spawn(&inner, welcome(inner.clone(), listener));
        // A party dials every party that comes after it.
        for other in role.others().into_iter().filter(|other| role < *other) {
            spawn(&inner, keep_dialling(inner.clone(), other));
        }
        Ok(Self { inner, opened, clients: Some(clients) })
    }

    /// The next channel that a peer opens: who, its hello, the channel. `None`: the mesh has
    /// stopped. Safe to cancel.
    pub async fn accept(&mut self) -> Option<(Peer, Vec<u8>, Channel)> {
        self.opened.recv().await
    }

    /// The clients' HTTP connections, to be taken once.
    pub fn clients(&mut self) -> Option<mpsc::Receiver<HttpStream>> {
        self.clients.take()
    }

    /// A handle to ask for links, from anywhere.
    #[must_use]
    pub fn links(&self) -> Links {
        Links(self.inner.clone())
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.links().stop("it is shutting down");
    }
}

impl Links {
    /// The link to a party.
    ///
    /// # Errors
    /// When there is none now; the error names the party, its address and the cause.
    pub fn link(&self, to: Role) -> Result<Link, LinkError> {
        let state = self.watch(to)?.borrow().clone();
        match state {
            // The link may have died a moment ago, and the state not have followed yet.
            PeerState::Linked(link) => match link.death() {
                None => Ok(link),
                Some(error) => Err(error),
            },
            PeerState::Absent(error) => Err(error),
        }
    }

    /// The link to a party, waiting for it for some time.
    ///
    /// # Errors
    /// When there is still none; the error says why.
    pub async fn wait(&self, to: Role, limit: Duration) -> Result<Link, LinkError> {
        let mut state = self.watch(to)?;
        let linked = async {
            loop {
                if let Ok(link) = self.link(to) {
                    return link;
                }
                if state.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        match timeout(limit, linked).await {
            Ok(link) => Ok(link),
            Err(_) => self.link(to),
        }
    }

    /// How one stands with a party, as it changes.
    ///
    /// # Errors
    /// When `to` is this party itself.
    pub fn watch(&self, to: Role) -> Result<watch::Receiver<PeerState>, LinkError> {
        self.0
            .state(to)
            .map(watch::Sender::subscribe)
            .ok_or_else(|| LinkError::Local(format!("a bug here: {to} has no link to itself")))
    }

    /// The epoch: a different one after any party's restart.
    ///
    /// # Errors
    /// When a link is missing; the error says which.
    pub fn epoch(&self) -> Result<Epoch, LinkError> {
        let [a, b] = self.0.role.others();
        let others = [(a, self.link(a)?.epoch_nonces().1), (b, self.link(b)?.epoch_nonces().1)];
        let [first, second, third] = in_order((self.0.role, self.0.me.nonce), others);
        Ok(Epoch::new([&first.0, &second.0, &third.0]))
    }

    /// Closes the port and all links; the peers are told the reason.
    pub fn stop(&self, reason: &str) {
        self.0.stop.cancel();
        for (_, state) in &self.0.states {
            if let PeerState::Linked(link) = &*state.borrow() {
                link.close(reason);
            }
        }
    }
}

impl Inner {
    fn state(&self, of: Role) -> Option<&watch::Sender<PeerState>> {
        self.states.iter().find(|(role, _)| *role == of).map(|(_, state)| state)
    }

    /// Puts a fresh link in the place of what was there, and takes in the channels it brings.
    fn adopt(self: &Arc<Self>, link: &Link) {
        if let Peer::Party(role) = link.peer() {
            let Some(state) = self.state(role) else {
                return;
            };
            let _turn = self.adopting.lock().unwrap_or_else(PoisonError::into_inner);
            if let PeerState::Linked(old) = state.send_replace(PeerState::Linked(link.clone())) {
                old.close("a newer link took its place");
            }
        }
        tracing::info!(peer = %link.peer(), address = link.address(), "linked");
        spawn(self, take_channels(self.clone(), link.clone()));
    }

    /// Says that a party is not there, unless there is another link by now.
    fn lost(&self, role: Role, dead: Option<&Link>, error: &LinkError) {
        let Some(state) = self.state(role) else {
            return;
        };
        let _turn = self.adopting.lock().unwrap_or_else(PoisonError::into_inner);
        state.send_if_modified(|state| {
            let current = match (&*state, dead) {
                (PeerState::Linked(link), Some(dead)) => link.is(dead),
                (PeerState::Linked(_), None) => false,
                (PeerState::Absent(old), _) => old != error,
            };
            if current {
                tracing::warn!(%error, "no link");
                *state = PeerState::Absent(error.clone());
            }
            current
        });
    }
}

/// Runs until it ends or the mesh stops.
fn spawn(inner: &Inner, task: impl Future<Output = ()> + Send + 'static) {
    let stop = inner.stop.clone();
    tokio::spawn(async move { stop.run_until_cancelled(task).await });
}

async fn welcome(inner: Arc<Inner>, mut listener: Listener) {
    while let Some(accepted) = listener.accept().await {
        match accepted {
            Accepted::Party(link) => inner.adopt(&link),
            // Nobody takes them any more: then the connection closes.
            Accepted::Http(stream) => drop(inner.clients.try_send(stream)),
            Accepted::Refused(refusal) => tracing::warn!("{refusal}"),
        }
    }
}

async fn keep_dialling(inner: Arc<Inner>, to: Role) {
    let mut pause = FIRST_PAUSE;
    loop {
        match dial(&inner.cluster, &inner.me, to).await {
            Ok(link) => {
                pause = FIRST_PAUSE;
                inner.adopt(&link);
                link.closed().await;
            }
            Err(error) => inner.lost(to, None, &error),
        }
        sleep(jittered(pause)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn take_channels(inner: Arc<Inner>, link: Link) {
    let peer = link.peer();
    let error = loop {
        match link.accept().await {
            Ok((hello, channel)) => {
                if inner.opened.send((peer, hello, channel)).await.is_err() {
                    return;
                }
            }
            Err(error) => break error,
        }
    };
    if let Peer::Party(role) = peer {
        inner.lost(role, Some(&link), &error);
    }
}

/// Between a half and the whole of a pause, so that parties do not dial in step.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [0];
    // Without randomness the pause is merely a fixed one.
    let _ = getrandom::fill(&mut byte);
    pause * (256 + u32::from(byte[0])) / 512
}
