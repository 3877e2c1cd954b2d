//! The channels of one session, and the party machine that talks through them.
//!
//! A small machine computes where its frames arrive: on the threads that serve sockets, without a hand-over in any round. A
//! large one has a thread of its own, so that no link waits for it. While a machine waits for room to send, what peers send is
//! taken from the links, so that two parties that send at the same time never wait for each other; how much may wait here is
//! what the plan says that they send.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use selkie::client::message::Refusal;
use selkie::party::{Event, Measured, Party};
use selkie::wire::Frame;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::config::{Cluster, Limits};
use crate::link::{Channel, ChannelReceiver, ChannelSender, LinkError};
use selkie::Role;

use super::hello::PREPARED;
use super::measured::{self, Measurement, Profile};
use super::refusal;

/// The largest part of a limit that headers of frames add to payload.
const HEADERS: u64 = 1 << 16;

/// A machine that holds more than this many bytes at a time computes on a thread of its own.
pub(super) const LARGE: u64 = 16 << 20;

/// What came from a peer: a frame; or nothing more, because it has closed its channel in good order and done its part.
type Arrival = (Role, Option<Vec<u8>>);

/// What one peer sends.
struct Incoming {
    role: Role,
    receiver: ChannelReceiver,
    /// Bytes that came, of those that the plan allows.
    taken: u64,
    limit: u64,
}

/// The channels of one session.
pub(crate) struct Pipes {
    senders: Vec<(Role, ChannelSender)>,
    /// The peers that have not done their part.
    incoming: Vec<Incoming>,
    /// What came while there was something to send.
    early: VecDeque<Arrival>,
    idle: Duration,
    deadline: Instant,
    stop: CancellationToken,
    cluster: Arc<Cluster>,
    /// Who has said that it is prepared before this party had done its own part.
    prepared: Vec<Role>,
    /// When the channels were opened, by [`measured::clock`], and where the time goes since then, if anybody wants to know.
    profile: Option<(u64, Profile)>,
}

/// What a party machine left behind.
pub(crate) struct Ran {
    /// What moved.
    pub(crate) measured: Measured,
    /// This server's shares of the outputs, if it was a query.
    pub(crate) output: Option<Vec<Vec<u8>>>,
    /// What kept variables are from now on, if it was a query that changes them.
    pub(crate) assigned: Option<selkie::Assigned>,
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
        let (mut senders, mut incoming) = (Vec::new(), Vec::new());
        for (role, channel) in channels {
            let (sender, receiver) = channel.split();
            senders.push((role, sender));
            incoming.push(Incoming { role, receiver, taken: 0, limit });
        }
        Self {
            senders,
            incoming,
            early: VecDeque::new(),
            idle: limits.idle(),
            deadline: Instant::now() + limits.session(),
            stop,
            cluster: cluster.clone(),
            prepared: Vec::new(),
            profile: measured::profiled().then(|| (measured::clock(), Profile::default())),
        }
    }

    /// Waits for a channel to fail, while nobody reads the channels; `None`: the session was over before.
    pub(crate) fn broken(&self) -> impl Future<Output = Option<Refusal>> + Send + use<> {
        let cluster = self.cluster.clone();
        let mut failing: FuturesUnordered<_> = self.senders.iter().map(|(_, sender)| sender.failed()).collect();
        async move {
            while let Some(failed) = failing.next().await {
                // Who has closed its channel in good order has done its part.
                if let Some(error) = failed.filter(|error| !matches!(error, LinkError::Closed { .. })) {
                    return Some(refusal::of_link(&cluster, &error));
                }
            }
            None
        }
    }

    /// The same, for a party that cannot know how long its peers wait for others: only the session's own limit holds.
    #[must_use]
    pub(crate) fn patient(self) -> Self {
        Self { idle: self.deadline.saturating_duration_since(Instant::now()), ..self }
    }

    /// Sends one frame.
    pub(crate) async fn send(&mut self, to: Role, frame: Vec<u8>) -> Result<(), Refusal> {
        let Some((_, sender)) = self.senders.iter().find(|(role, _)| *role == to) else {
            return Err(refusal::bug(format!("there is no channel to {to}")));
        };
        let sent = sender.send(frame);
        let overdue = overdue(&self.cluster, to, self.idle, self.deadline, &self.stop);
        tokio::pin!(sent, overdue);
        loop {
            tokio::select! {
                biased;
                sent = &mut sent => return sent.map_err(|error| refusal::of_link(&self.cluster, &error)),
                arrival = next(&self.cluster, &mut self.incoming) => self.early.push_back(arrival?),
                error = &mut overdue => return Err(error),
            }
        }
    }

    /// Receives the next frame of any peer; `awaited` is the one that is blamed if none comes.
    pub(crate) async fn recv(&mut self, awaited: Role) -> Result<(Role, Vec<u8>), Refusal> {
        let overdue = overdue(&self.cluster, awaited, self.idle, self.deadline, &self.stop);
        tokio::pin!(overdue);
        loop {
            let arrival = match self.early.pop_front() {
                Some(arrival) => arrival,
                None if !self.incoming.iter().any(|incoming| incoming.role == awaited) => {
                    let closed = LinkError::Closed { peer: awaited.into() };
                    return Err(refusal::of_link(&self.cluster, &closed));
                }
                None => tokio::select! {
                    biased;
                    arrival = next(&self.cluster, &mut self.incoming) => arrival?,
                    error = &mut overdue => return Err(error),
                },
            };
            if let (role, Some(frame)) = arrival {
                return Ok((role, frame));
            }
        }
    }

    /// Waits for a peer's word that it has finished, too.
    pub(crate) async fn expect(&mut self, from: Role, word: &[u8]) -> Result<(), Refusal> {
        if self.prepared.contains(&from) && word == PREPARED {
            return Ok(());
        }
        let (sender, frame) = self.recv(from).await?;
        if sender == from && frame == word {
            Ok(())
        } else {
            Err(refusal::peer(from, format!("{from} did not end as it should")))
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

    /// Runs a party machine, which holds `bytes` at a time, to its end.
    ///
    /// # Errors
    /// The machine's, a link's, a limit's; the peers have been told.
    pub(crate) async fn run(
        self,
        bytes: u64,
        make: impl FnOnce() -> Result<Party, Refusal> + Send + 'static,
    ) -> Result<(Ran, Self), Refusal> {
        if bytes <= LARGE {
            return self.run_here(make).await;
        }
        let runtime = Handle::current();
        let running = tokio::task::spawn_blocking(move || runtime.block_on(self.run_here(make)));
        running.await.unwrap_or_else(|_| Err(refusal::bug("a party machine stopped")))
    }

    async fn run_here(mut self, make: impl FnOnce() -> Result<Party, Refusal>) -> Result<(Ran, Self), Refusal> {
        let ran = match self.made(make) {
            Ok(party) => self.drive(party).await,
            Err(refusal) => Err(refusal),
        };
        match ran {
            Ok(ran) => Ok((ran, self)),
            Err(refusal) => {
                self.fail(&refusal);
                Err(refusal)
            }
        }
    }

    fn made(&mut self, make: impl FnOnce() -> Result<Party, Refusal>) -> Result<Party, Refusal> {
        let Some((opened, profile)) = &mut self.profile else { return make() };
        let start = measured::clock();
        let mut party = make()?;
        party.observe(measured::clock);
        (profile.start, profile.make) = (start.saturating_sub(*opened), measured::clock().saturating_sub(start));
        Ok(party)
    }

    async fn drive(&mut self, mut party: Party) -> Result<Ran, Refusal> {
        let (mut output, mut assigned, mut snapshot) = (None, None, None);
        loop {
            match party.poll()? {
                Event::Transmit(to, frame) => {
                    let start = self.now();
                    self.send(to, frame.encode()).await?;
                    self.spent(start, |profile| &mut profile.send);
                }
                Event::Need(from) => {
                    let start = self.now();
                    let (role, bytes) = self.recv(from).await?;
                    self.spent(start, |profile| profile.wait.entry(from.name().to_owned()).or_default());
                    // A server that has finished already; frames are never empty, so this is none.
                    if bytes == PREPARED {
                        self.prepared.push(role);
                        continue;
                    }
                    party.handle(role, &Frame::decode(role, &bytes)?)?;
                }
                Event::Output(shares) => output = Some(shares),
                Event::Commit(opened) => snapshot = Some(opened),
                Event::Assign(values) => assigned = Some(values),
                Event::Done => {
                    if let Some((opened, mut profile)) = self.profile.take() {
                        profile.add(&party.measured().timeline);
                        profile.total = measured::clock().saturating_sub(opened);
                        measured::say(&Measurement::Session(profile));
                    }
                    return Ok(Ran { measured: party.measured().clone(), output, assigned, snapshot });
                }
            }
        }
    }

    fn now(&self) -> Option<u64> {
        self.profile.is_some().then(measured::clock)
    }

    fn spent(&mut self, start: Option<u64>, on: impl FnOnce(&mut Profile) -> &mut u64) {
        if let Some((start, (_, profile))) = start.zip(self.profile.as_mut()) {
            *on(profile) += measured::clock().saturating_sub(start);
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

/// What comes next of any peer; never, when all have done their part. Safe to cancel.
async fn next(cluster: &Cluster, incoming: &mut Vec<Incoming>) -> Result<Arrival, Refusal> {
    // A session has at most two peers.
    let (place, arrived) = match incoming.as_mut_slice() {
        [] => return std::future::pending().await,
        [only] => (0, only.receiver.recv().await),
        [first, second, ..] => tokio::select! {
            arrived = first.receiver.recv() => (0, arrived),
            arrived = second.receiver.recv() => (1, arrived),
        },
    };
    let Some(Incoming { role, taken, limit, .. }) = incoming.get_mut(place) else {
        return Err(refusal::bug("a frame of nobody"));
    };
    let role = *role;
    match arrived {
        Ok(frame) => {
            *taken = taken.saturating_add(frame.len() as u64);
            if *taken <= *limit {
                return Ok((role, Some(frame)));
            }
            let what = format!("{role} sent more than the {limit} bytes that the plan allows it");
            Err(refusal::peer(role, what))
        }
        Err(LinkError::Closed { .. }) => {
            incoming.remove(place);
            Ok((role, None))
        }
        Err(error) => Err(refusal::of_link(cluster, &error)),
    }
}
