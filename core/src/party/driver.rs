//! Carries out a plan level by level: everybody sends what the level wants, waits for what it brings, and goes on.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{Clock, Measured, Timed, Work};
use crate::Role;
use crate::error::Blame;
use crate::gates::{Gate, Step};
use crate::party::column::{Column, pack_blocks, unpack_blocks};
use crate::party::inbox::Inbox;
use crate::party::producer::Producer;
use crate::party::server::Server;
use crate::plan::{Placed, Plan, WireId, last_uses};
use crate::ring::Lane;
use crate::role::Side;
use crate::stream::Randomness;
use crate::wire::Frame;

/// How one role carries out a step.
pub(crate) trait Actor {
    type Lane: Lane;
    /// Whose part it plays.
    fn role(&self) -> Role;
    /// Its message.
    fn send(&mut self, index: usize, step: &Step) -> Result<Vec<Column<Self::Lane>>, Blame>;
    /// The rest of the step, with its own message and those received, in the order of the senders' roles.
    fn finish(
        &mut self,
        index: usize,
        step: &Step,
        mine: Columns<Self>,
        theirs: Vec<Columns<Self>>,
    ) -> Result<(), Blame>;
    /// Forgets a wire.
    fn forget(&mut self, wire: WireId);
}

type Columns<A> = Vec<Column<<A as Actor>::Lane>>;

impl<S: Side, L: Lane, R: Randomness> Actor for Server<S, L, R> {
    type Lane = L;

    fn role(&self) -> Role {
        S::ROLE
    }

    fn send(&mut self, index: usize, step: &Step) -> Result<Vec<Column<L>>, Blame> {
        self.at.step = index as u32;
        step.send(self)
    }

    fn finish(
        &mut self,
        index: usize,
        step: &Step,
        mine: Columns<Self>,
        theirs: Vec<Columns<Self>>,
    ) -> Result<(), Blame> {
        self.at.step = index as u32;
        step.finish(self, mine, theirs.into_iter().next().unwrap_or_default())
    }

    fn forget(&mut self, wire: WireId) {
        Server::forget(self, wire);
    }
}

impl<L: Lane, R: Randomness> Actor for Producer<L, R> {
    type Lane = L;

    fn role(&self) -> Role {
        Role::CryptoProducer
    }

    fn send(&mut self, index: usize, step: &Step) -> Result<Vec<Column<L>>, Blame> {
        self.at.step = index as u32;
        step.produce(self)
    }

    fn finish(
        &mut self,
        index: usize,
        step: &Step,
        _mine: Columns<Self>,
        theirs: Vec<Columns<Self>>,
    ) -> Result<(), Blame> {
        self.at.step = index as u32;
        let mut theirs = theirs.into_iter();
        step.absorb(self, theirs.next().unwrap_or_default(), theirs.next().unwrap_or_default())
    }

    fn forget(&mut self, wire: WireId) {
        Producer::forget(self, wire);
    }
}

/// Which of the plan's lists of steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Opens the weights.
    Setup,
    /// Answers a query.
    Query,
}

impl Stage {
    fn steps(self, plan: &Plan) -> &[Placed] {
        match self {
            Stage::Setup => &plan.setup,
            Stage::Query => &plan.steps,
        }
    }
}

/// What the driver wants next.
pub(crate) enum Want {
    Transmit(Role, Frame),
    Need(Role),
    Finished,
}

/// One role's way through a plan.
pub(crate) struct Driver<A: Actor> {
    pub(crate) actor: A,
    pub(crate) measured: Measured,
    pub(crate) clock: Option<Clock>,
    plan: Arc<Plan>,
    stage: Stage,
    batch: usize,
    /// The steps of each level, in order.
    levels: VecDeque<(u32, Vec<usize>)>,
    /// The wires to forget after each step.
    last: BTreeMap<usize, Vec<WireId>>,
    /// This role's own messages of the level at hand, by step.
    mine: BTreeMap<usize, Vec<Column<A::Lane>>>,
    sent: bool,
    inboxes: BTreeMap<Role, Inbox>,
    outbox: VecDeque<(Role, Frame)>,
}

impl<A: Actor> Driver<A> {
    pub(crate) fn new(actor: A, plan: Arc<Plan>, stage: Stage, batch: usize) -> Self {
        let mut levels: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (index, placed) in stage.steps(&plan).iter().enumerate() {
            levels.entry(placed.level).or_default().push(index);
        }
        let mut last: BTreeMap<usize, Vec<WireId>> = BTreeMap::new();
        for (wire, index) in last_uses(stage.steps(&plan)) {
            last.entry(index).or_default().push(wire);
        }
        let messages = plan.messages(stage.steps(&plan), batch);
        let inboxes = Role::ALL
            .into_iter()
            .map(|from| {
                let to_me = messages.iter().filter(|((_, f, to), _)| (*f, *to) == (from, actor.role()));
                (from, Inbox::new(from, to_me.map(|((level, ..), bytes)| (*level, *bytes))))
            })
            .collect();
        Self {
            actor,
            measured: Measured::default(),
            clock: None,
            plan,
            stage,
            batch,
            levels: levels.into_iter().collect(),
            last,
            mine: BTreeMap::new(),
            sent: false,
            inboxes,
            outbox: VecDeque::new(),
        }
    }

    /// Takes a frame that `from` sent.
    pub(crate) fn handle(&mut self, from: Role, frame: &Frame) -> Result<(), Blame> {
        let inbox = self.inboxes.get_mut(&from).ok_or_else(|| Blame::bug("a role without an inbox"))?;
        inbox.accept(frame)?;
        *self.measured.received.entry(from).or_default() += frame.payload.len() as u64;
        self.measured.levels.insert(frame.step);
        Ok(())
    }

    /// Goes as far as the messages at hand allow.
    pub(crate) fn poll(&mut self) -> Result<Want, Blame> {
        loop {
            if let Some((to, frame)) = self.outbox.pop_front() {
                *self.measured.sent.entry(to).or_default() += frame.payload.len() as u64;
                self.measured.levels.insert(frame.step);
                return Ok(Want::Transmit(to, frame));
            }
            let Some((level, steps)) = self.levels.front().cloned() else { return Ok(Want::Finished) };
            if !self.sent {
                self.send(level, &steps)?;
                self.sent = true;
            } else if let Some((from, _)) = self.inboxes.iter().find(|(_, inbox)| inbox.awaits(level)) {
                return Ok(Want::Need(*from));
            } else {
                self.finish(level, &steps)?;
                self.levels.pop_front();
                self.sent = false;
            }
        }
    }

    /// Notes the time since `start`, and gives the time now.
    fn spent(&mut self, placed: &Placed, work: Work, start: Option<u64>) -> Option<u64> {
        let (clock, start) = self.clock.zip(start)?;
        let (layer, gate, now) = (placed.layer, placed.step.name(), clock());
        self.measured.timeline.push(Timed { layer, gate, work, start, nanoseconds: now.saturating_sub(start) });
        Some(now)
    }

    fn send(&mut self, level: u32, steps: &[usize]) -> Result<(), Blame> {
        let plan = Arc::clone(&self.plan);
        let mut messages: BTreeMap<Role, Vec<u8>> = BTreeMap::new();
        for index in steps {
            let Some(placed) = self.stage.steps(&plan).get(*index) else { continue };
            let Some(traffic) = placed.step.traffic(&plan.shapes) else { continue };
            let me = self.actor.role();
            let receivers = traffic.route.directions().iter().filter(|(from, _)| *from == me).map(|(_, to)| *to);
            for to in receivers {
                let start = self.clock.map(|clock| clock());
                let columns = self.actor.send(*index, &placed.step)?;
                let made = self.spent(placed, Work::Send, start);
                let message = messages.entry(to).or_default();
                pack_blocks(plan.numbers(), &traffic.blocks, &columns, self.batch, message)?;
                self.spent(placed, Work::Pack, made);
                self.mine.insert(*index, columns);
            }
        }
        for (to, message) in messages {
            self.outbox.extend(Frame::cut(level, &message).map(|frame| (to, frame)));
        }
        Ok(())
    }

    fn finish(&mut self, level: u32, steps: &[usize]) -> Result<(), Blame> {
        let plan = Arc::clone(&self.plan);
        let messages: BTreeMap<Role, Vec<u8>> =
            self.inboxes.iter_mut().map(|(from, inbox)| (*from, inbox.take(level))).collect();
        let mut rest: BTreeMap<Role, &[u8]> = messages.iter().map(|(from, bytes)| (*from, bytes.as_slice())).collect();
        for index in steps {
            let Some(placed) = self.stage.steps(&plan).get(*index) else { continue };
            let mut theirs = Vec::new();
            let mut start = self.clock.map(|clock| clock());
            if let Some(traffic) = placed.step.traffic(&plan.shapes) {
                for (from, _) in traffic.route.directions().iter().filter(|(_, to)| *to == self.actor.role()) {
                    let message = rest.entry(*from).or_default();
                    theirs.push(unpack_blocks(*from, plan.numbers(), &traffic.blocks, self.batch, message)?);
                }
                start = self.spent(placed, Work::Unpack, start);
            }
            let mine = self.mine.remove(index).unwrap_or_default();
            self.actor.finish(*index, &placed.step, mine, theirs)?;
            self.spent(placed, Work::Finish, start);
            for wire in self.last.remove(index).into_iter().flatten() {
                self.actor.forget(wire);
            }
        }
        Ok(())
    }
}
