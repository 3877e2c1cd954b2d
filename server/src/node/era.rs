//! What lasts from the moment that all three parties are linked until one of the links is lost.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use selkie::deal::Dealer;
use selkie::party::{Binding, Prepared};
use selkie::plan::Plan;
use selkie::{Blame, Burnt, Epoch, Seed, Seeds, Snapshot, Stock};
use sha2::{Digest, Sha256};
use tokio::sync::{Notify, OnceCell, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::config::Limits;
use crate::link::Link;
use crate::store::Model;
use selkie::Role;

use super::hello::About;
use super::threads::Pool;

/// The most that one model's stock holds, in bytes.
const STOCK_BYTES: usize = 1 << 30;

/// The time between two losses of a link.
pub(crate) struct Era {
    role: Role,
    /// Fresh from all three parties.
    pub(crate) epoch: Epoch,
    links: [(Role, Link); 2],
    /// Cancelled when the era is over.
    pub(crate) over: CancellationToken,
    ready: Mutex<Table>,
    /// The crypto producer's: the units burnt of each version.
    pub(crate) numbers: Mutex<HashMap<u64, Stock>>,
    /// The crypto producer's: models whose masks are drawn, or being drawn.
    pub(crate) dealers: Mutex<HashMap<u64, Arc<OnceCell<Arc<Ready>>>>>,
    /// Why models could not be set up, by version; it rings when one could, too.
    pub(crate) failures: watch::Sender<HashMap<u64, String>>,
}

/// The models that can be used.
#[derive(Default)]
struct Table {
    by_version: HashMap<u64, Arc<Ready>>,
    /// The version in use under a name.
    latest: HashMap<String, u64>,
}

/// server1's: a session's wish for units, and where they go.
pub(crate) type Wish = (Range<u64>, oneshot::Sender<Burnt>);

/// A model in use within an era.
pub(crate) struct Ready {
    pub(crate) model: Arc<Model>,
    pub(crate) binding: Binding,
    /// The servers' opened weights.
    pub(crate) snapshot: Option<Snapshot>,
    /// The crypto producer's masks.
    pub(crate) dealer: Option<Arc<Dealer>>,
    stock: Mutex<Stock>,
    /// The servers': what was computed ahead, by unit.
    prepared: Mutex<BTreeMap<u64, Prepared>>,
    /// A session waits for the units before this one.
    pub(crate) awaited: AtomicU64,
    /// Rings when the stock grows or shrinks, or a session waits.
    pub(crate) moved: Notify,
    /// server1's: sessions take their units in the order in which they came.
    pub(crate) wishes: mpsc::UnboundedSender<Wish>,
    /// Cancelled when the model was retired or the era is over.
    pub(crate) over: CancellationToken,
}

impl Era {
    pub(crate) fn new(role: Role, nonces: [[u8; 32]; 3], links: [(Role, Link); 2]) -> Self {
        let [n0, n1, n2] = &nonces;
        Self {
            role,
            epoch: Epoch::new([n0, n1, n2]),
            links,
            over: CancellationToken::new(),
            ready: Mutex::default(),
            numbers: Mutex::default(),
            dealers: Mutex::default(),
            failures: watch::Sender::default(),
        }
    }

    /// The link to a party.
    pub(crate) fn link(&self, to: Role) -> Option<&Link> {
        self.links.iter().find(|(role, _)| *role == to).map(|(_, link)| link)
    }

    /// Waits until one of the two links is lost.
    pub(crate) async fn broken(&self) {
        let [(_, a), (_, b)] = &self.links;
        tokio::select! {
            _ = a.closed() => {}
            _ = b.closed() => {}
        }
    }

    /// What this party's work on a model belongs to.
    pub(crate) fn bind(&self, model: &Model) -> Binding {
        let seed = |to| Seed::new(self.link(to).map(|link| *link.pair_seed().as_bytes()).unwrap_or_default());
        let seeds = match self.role {
            Role::Server0 => Seeds::server0(seed(Role::Server1), seed(Role::CryptoProducer)),
            Role::Server1 => Seeds::server1(seed(Role::Server0), seed(Role::CryptoProducer)),
            Role::CryptoProducer => Seeds::crypto_producer(seed(Role::Server0), seed(Role::Server1)),
        };
        Binding::new(self.role, model.plan.clone(), model.version, self.epoch, &seeds).with_threads(Arc::new(Pool))
    }

    /// What the others must know before they compute with us on this model.
    pub(crate) fn about(&self, model: &Model) -> About {
        About {
            model: model.name.clone(),
            program: model.spec.program,
            plan: model.spec.plan,
            version: model.version,
            state: model.state,
            epoch: *self.epoch.as_bytes(),
        }
    }

    /// The model of this version, if it can be used.
    pub(crate) fn current(&self, version: u64) -> Option<Arc<Ready>> {
        self.table().by_version.get(&version).cloned()
    }

    /// The same deployment's model with its weights as they were at a later time.
    pub(crate) fn newer(&self, model: &Model) -> Option<Arc<Ready>> {
        let table = self.table();
        let latest = table.by_version.get(table.latest.get(&model.name)?);
        latest.filter(|ready| ready.model.follows(model)).cloned()
    }

    /// A model can be used from now on. The version before it is kept, too, so that predictions finish on the version on which
    /// they began.
    pub(crate) fn activate(&self, ready: Arc<Ready>) {
        let (name, version) = (ready.model.name.clone(), ready.model.version);
        let mut table = self.table();
        let before = table.latest.insert(name.clone(), version);
        table.by_version.retain(|v, other| other.model.name != name || Some(*v) == before);
        table.by_version.insert(version, ready);
        let mut dealers = self.dealers.lock().unwrap_or_else(PoisonError::into_inner);
        dealers.retain(|version, made| !made.initialized() || table.by_version.contains_key(version));
        drop((dealers, table));
        self.failures.send_modify(|failures| {
            failures.remove(&version);
        });
    }

    /// Whether a model of this name can be used, as it was at some time.
    pub(crate) fn serves(&self, name: &str) -> bool {
        self.table().latest.contains_key(name)
    }

    /// A model of this name will never be used again. Sessions that have begun on it finish. The numbers of the units burnt stay.
    pub(crate) fn retire(&self, name: &str) {
        let mut table = self.table();
        table.latest.remove(name);
        let (gone, kept) = std::mem::take(&mut table.by_version).into_iter().partition(|(_, r)| r.model.name == name);
        table.by_version = kept;
        drop(table);
        let gone: HashMap<u64, Arc<Ready>> = gone;
        let mut dealers = self.dealers.lock().unwrap_or_else(PoisonError::into_inner);
        dealers.retain(|version, _| !gone.contains_key(version));
        drop(dealers);
        self.failures.send_modify(|failures| failures.retain(|version, _| !gone.contains_key(version)));
        gone.values().for_each(|ready| ready.over.cancel());
    }

    /// Whether nothing is ready or being made ready.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        let table = self.table();
        let dealers = self.dealers.lock().unwrap_or_else(PoisonError::into_inner);
        table.by_version.is_empty() && table.latest.is_empty() && dealers.is_empty()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ready {
    pub(crate) fn new(
        model: Arc<Model>,
        binding: Binding,
        snapshot: Option<Snapshot>,
        dealer: Option<Arc<Dealer>>,
        limits: &Limits,
        over: CancellationToken,
    ) -> (Self, mpsc::UnboundedReceiver<Wish>) {
        let epoch = binding.epoch();
        let stock = match model.plan.unit_bytes(binding.role()) {
            0 => Stock::of_numbers(epoch),
            bytes => Stock::new(epoch, bytes, capacity(&model.plan, limits)),
        };
        let (wishes, asked) = mpsc::unbounded_channel();
        let stock = Mutex::new(stock);
        (
            Self {
                model,
                binding,
                snapshot,
                dealer,
                stock,
                prepared: Mutex::default(),
                awaited: AtomicU64::new(0),
                moved: Notify::new(),
                wishes,
                over,
            },
            asked,
        )
    }

    /// Computes what follows from a unit's material alone, if the unit is not burnt.
    pub(crate) fn prepare(&self, unit: u64, material: &[u8]) -> Result<(), Blame> {
        let Some(snapshot) = self.snapshot.as_ref().filter(|_| self.model.plan.prepares()) else { return Ok(()) };
        if self.stock().next() > unit {
            return Ok(());
        }
        let prepared = Prepared::new(&self.binding, snapshot, unit, material)?;
        let mut all = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        // It may have been burnt meanwhile.
        if self.stock().next() <= unit {
            all.insert(unit, prepared);
        }
        Ok(())
    }

    /// What was computed ahead for these units, which are burnt; and nothing remains for those before them.
    pub(crate) fn take_prepared(&self, units: Range<u64>) -> Vec<Prepared> {
        let mut all = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        let later = all.split_off(&units.end);
        let taken = std::mem::replace(&mut *all, later);
        taken.into_iter().filter(|(unit, _)| *unit >= units.start).map(|(_, prepared)| prepared).collect()
    }

    pub(crate) fn stock(&self) -> MutexGuard<'_, Stock> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The units of a model that the servers keep, and so the largest batch.
pub(crate) fn capacity(plan: &Plan, limits: &Limits) -> usize {
    limits.stock_units.min((STOCK_BYTES / plan.unit_bytes(Role::Server1).max(1)).max(1))
}

/// A link's name: both ends know it, it is new on every link, and it says nothing about the seed.
pub(crate) fn link_name(link: &Link) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"selkie link name 1");
    hash.update(link.pair_seed().as_bytes());
    hash.finalize().into()
}
