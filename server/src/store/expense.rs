//! What batches cost, kept: finding it out takes longer than many a round.

use std::sync::{Arc, Mutex, PoisonError};

use selkie::plan::{Cost, Phase, Plan};

use selkie::Role;

/// What one batch costs.
#[derive(Debug)]
pub(crate) struct Expense {
    batch: usize,
    pub(crate) cost: Cost,
    /// The most that any party holds at one time, in bytes.
    pub(crate) peak: u64,
}

impl Expense {
    /// Whether the crypto producer takes part in queries.
    pub(crate) fn involves_producer(&self) -> bool {
        let producer = Role::CryptoProducer.name();
        let online = self.cost.links.iter().filter(|link| link.phase == Phase::Online);
        online.into_iter().any(|link| link.from == producer || link.to == producer)
    }
}

/// That of the batch that was asked about last.
#[derive(Debug, Default)]
pub(crate) struct Expenses(Mutex<Option<Arc<Expense>>>);

impl Expenses {
    /// What a batch costs.
    pub(crate) fn of(&self, plan: &Plan, batch: usize) -> Arc<Expense> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(expense) = last.as_ref().filter(|expense| expense.batch == batch) {
            return expense.clone();
        }
        let peak = plan.memory_peak(batch).into_iter().map(|(_, bytes)| bytes).max().unwrap_or(0);
        let expense = Arc::new(Expense { batch, cost: plan.cost(batch), peak });
        *last = Some(expense.clone());
        expense
    }
}
