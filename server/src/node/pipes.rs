//! The channels of one session, and the party machine that talks through them.
//!
//! The machine computes on a thread of its own, never on those that serve sockets. What peers send is taken from the links at
//! once, so that two parties that send at the same time never wait for each other; how much may wait here is what the plan
//! says that they send.

use std::sync::Arc;
use std::time::Duration;

use selkie::client::message::Refusal;
use selkie::party::{Event, Measured, Party};
use selkie::wire::Frame;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::config::{Cluster, Limits};
use crate::link::{Channel, ChannelReceiver, ChannelSender, LinkError};
use selkie::Role;

use super::refusal;

/// The largest part of a limit that headers of frames add to payload.
const HEADERS: u64 = 1 << 16;

/// What came from a peer.
enum Arrival {
    Frame(Role, Vec<u8>),
    /// The peer has closed its channel in good order: it has done its part.
    Closed(Role),
    Failed(Refusal),
}

/// The channels of one session.
pub(crate) struct Pipes {
    senders: Vec<(Role, ChannelSender)>,
    inbox: mpsc::UnboundedReceiver<Arrival>,
    /// The first failure of a channel, as soon as it is known.
    broken: watch::Receiver<Option<Refusal>>,
    idle: Duration,
    deadline: Instant,
    stop: CancellationToken,
    cluster: Arc<Cluster>,
    /// Who has done its part.
    closed: Vec<Role>,
    _pumps: Vec<AbortOnDropHandle<()>>,
}

/// What a party machine left behind.
pub(crate) struct Ran {
    /// What moved.
    pub(crate) measured: Measured,
    /// This server's shares of the outputs, if it was a query.
    pub(crate) output: Option<Vec<Vec<u8>>>,
    /// The opened weights, if it was a set-up.
    pub(crate) snapshot: Option<selkie::Snapshot>,
}

impl Pipes {
    /// `expected` is the largest number of bytes that a peer has to send in this session; `stop` ends it early.
    pub(crate) fn new(
        cluster: &Arc<Cluster>,
        channels: Vec<(Role, Channel)>,
        expected: u64,
        stop: CancellationToken,
    ) -> Self {
        let limits: &Limits = &cluster.limits;
        let limit = expected.saturating_add(HEADERS).min(limits.session_bytes);
        let (arrivals, inbox) = mpsc::unbounded_channel();
        let (breaks, broken) = watch::channel(None);
        let (mut senders, mut pumps) = (Vec::new(), Vec::new());
        for (role, channel) in channels {
            let (sender, receiver) = channel.split();
            senders.push((role, sender));
            let task = pump(cluster.clone(), role, receiver, arrivals.clone(), breaks.clone(), limit);
            pumps.push(AbortOnDropHandle::new(tokio::spawn(task)));
        }
        Self {
            senders,
            inbox,
            broken,
            idle: limits.idle(),
            deadline: Instant::now() + limits.session(),
            stop,
            cluster: cluster.clone(),
            closed: Vec::new(),
            _pumps: pumps,
        }
    }

    /// Waits for a channel to fail, while nobody reads the channels; `None`: the session was over before.
    pub(crate) fn broken(&self) -> impl Future<Output = Option<Refusal>> + Send + use<> {
        let mut broken = self.broken.clone();
        async move { broken.wait_for(Option::is_some).await.ok()?.clone() }
    }

    /// The same, for a party that cannot know how long its peers wait for others: only the session's own limit holds.
    #[must_use]
    pub(crate) fn patient(self) -> Self {
        Self { idle: self.deadline.saturating_duration_since(Instant::now()), ..self }
    }

    /// Sends one frame.
    pub(crate) async fn send(&self, to: Role, frame: Vec<u8>) -> Result<(), Refusal> {
        let Some((_, sender)) = self.senders.iter().find(|(role, _)| *role == to) else {
            return Err(refusal::bug(format!("there is no channel to {to}")));
        };
        let sent = sender.send(frame);
        tokio::select! {
            sent = sent => sent.map_err(|error| refusal::of_link(&self.cluster, &error)),
            error = self.overdue(to) => Err(error),
        }
    }

    /// Receives the next frame of any peer; `awaited` is the one that is blamed if none comes.
    pub(crate) async fn recv(&mut self, awaited: Role) -> Result<(Role, Vec<u8>), Refusal> {
        let (idle, deadline, stop) = (self.idle, self.deadline, self.stop.clone());
        let cluster = self.cluster.clone();
        let overdue = overdue(&cluster, awaited, idle, deadline, &stop);
        tokio::pin!(overdue);
        loop {
            if self.closed.contains(&awaited) {
                let closed = LinkError::Closed { peer: awaited.into() };
                return Err(refusal::of_link(&self.cluster, &closed));
            }
            tokio::select! {
                arrival = self.inbox.recv() => match arrival {
                    Some(Arrival::Frame(role, frame)) => return Ok((role, frame)),
                    Some(Arrival::Closed(role)) => self.closed.push(role),
                    Some(Arrival::Failed(refusal)) => return Err(refusal),
                    None => self.closed.push(awaited),
                },
                error = &mut overdue => return Err(error),
            }
        }
    }

    async fn overdue(&self, awaited: Role) -> Refusal {
        overdue(&self.cluster, awaited, self.idle, self.deadline, &self.stop).await
    }

    /// Waits for a peer's word that it has finished, too.
    pub(crate) async fn expect(&mut self, from: Role, word: &[u8]) -> Result<(), Refusal> {
        let (sender, frame) = self.recv(from).await?;
        if sender == from && frame == word {
            Ok(())
        } else {
            Err(refusal::peer(from, format!("{from} did not end the set-up as it should")))
        }
    }

    /// Ends the session; the peers are told why.
    pub(crate) fn fail(self, refusal: &Refusal) {
        let reason = refusal::to_reason(refusal);
        for (_, sender) in self.senders {
            sender.fail(&reason);
        }
    }

    /// What all channels carried on the wire, headers and all: sent, and received from `from`.
    pub(crate) fn wire_bytes(&self, from: Role) -> (u64, u64) {
        let sent = self.senders.iter().map(|(_, sender)| sender.bytes().wire_sent).sum();
        let received = self.senders.iter().filter(|(role, _)| *role == from);
        (sent, received.map(|(_, sender)| sender.bytes().wire_received).sum())
    }

    /// Runs a party machine to its end on a thread of its own.
    ///
    /// # Errors
    /// The machine's, a link's, a limit's; the peers have been told.
    pub(crate) async fn run(
        mut self,
        make: impl FnOnce() -> Result<Party, Refusal> + Send + 'static,
    ) -> Result<(Ran, Self), Refusal> {
        let runtime = Handle::current();
        let running = tokio::task::spawn_blocking(move || {
            let ran = make().and_then(|party| self.drive(&runtime, party));
            match ran {
                Ok(ran) => Ok((ran, self)),
                Err(refusal) => {
                    self.fail(&refusal);
                    Err(refusal)
                }
            }
        });
        running.await.unwrap_or_else(|_| Err(refusal::bug("a party machine stopped")))
    }

    fn drive(&mut self, runtime: &Handle, mut party: Party) -> Result<Ran, Refusal> {
        let (mut output, mut snapshot) = (None, None);
        loop {
            match party.poll()? {
                Event::Transmit(to, frame) => runtime.block_on(self.send(to, frame.encode()))?,
                Event::Need(from) => {
                    let (role, bytes) = runtime.block_on(self.recv(from))?;
                    party.handle(role, &Frame::decode(role, &bytes)?)?;
                }
                Event::Output(shares) => output = Some(shares),
                Event::Commit(opened) => snapshot = Some(opened),
                Event::Done => {
                    return Ok(Ran { measured: party.measured().clone(), output, snapshot });
                }
            }
        }
    }
}

async fn overdue(
    cluster: &Cluster,
    awaited: Role,
    idle: Duration,
    deadline: Instant,
    stop: &CancellationToken,
) -> Refusal {
    let whom = || format!("{awaited} at {}", cluster.party(awaited).address);
    tokio::select! {
        () = stop.cancelled() => refusal::refused("the session was ended"),
        () = sleep_until(deadline) => {
            refusal::refused("the session took longer than limits.session_seconds; ask for a smaller batch")
        }
        () = tokio::time::sleep(idle) => {
            refusal::peer(awaited, format!("{} said nothing for {} s (limits.idle_seconds)", whom(), idle.as_secs()))
        }
    }
}

async fn pump(
    cluster: Arc<Cluster>,
    role: Role,
    mut receiver: ChannelReceiver,
    arrivals: mpsc::UnboundedSender<Arrival>,
    breaks: watch::Sender<Option<Refusal>>,
    limit: u64,
) {
    let mut taken = 0u64;
    loop {
        let arrival = match receiver.recv().await {
            Ok(frame) => {
                taken = taken.saturating_add(frame.len() as u64);
                if taken <= limit {
                    Arrival::Frame(role, frame)
                } else {
                    let what = format!("{role} sent more than the {limit} bytes that the plan allows it");
                    Arrival::Failed(refusal::peer(role, what))
                }
            }
            Err(LinkError::Closed { .. }) => Arrival::Closed(role),
            Err(error) => Arrival::Failed(refusal::of_link(&cluster, &error)),
        };
        if let Arrival::Failed(refusal) = &arrival {
            breaks.send_if_modified(|first| first.is_none() && first.replace(refusal.clone()).is_none());
        }
        let over = !matches!(arrival, Arrival::Frame(..));
        if arrivals.send(arrival).is_err() || over {
            return;
        }
    }
}
