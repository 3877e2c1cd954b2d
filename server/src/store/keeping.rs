//! What a deployment keeps from run to run, at one server, so that both servers always find one common version again.
//!
//! A run that changes variables ends in two phases. *Prepare*: each server stores the next version beside the current one, and
//! says so to its peer. *Commit*: when a server has prepared, and has heard that its peer has, it goes over to the next version.
//! Whatever happens, each holds one version or two that follow each other, and a server gives a version up only when it knows
//! that its peer holds the next: so the newest version that both hold is one that neither had given up. They look for it
//! whenever an epoch begins ([`Keeping::offers`], [`Keeping::settle`]). A run that has prepared and does not hear of its peer
//! ends the epoch, so there is one place where doubts are settled; and since masks belong to an epoch, a version that is
//! reached a second time, with other values, is opened under other masks.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use selkie::{Epoch, State};

use super::files::StateFiles;

/// See the module's documentation.
pub struct Keeping {
    /// Runs that change variables take turns.
    pub(crate) turn: Arc<tokio::sync::Mutex<()>>,
    /// The deployment, for the other server: its name and version.
    pub(crate) of: (String, u64),
    held: Mutex<Held>,
}

struct Held {
    epoch: Option<Epoch>,
    current: Arc<State>,
    /// In memory, for the runs that began on it.
    previous: Option<Arc<State>>,
    prepared: Option<Arc<State>>,
    /// Why it cannot be used.
    lost: Option<String>,
    /// Where it is stored; an ephemeral program's is in memory alone.
    files: Option<StateFiles>,
}

impl std::fmt::Debug for Keeping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keeping({}, hidden)", self.of.0)
    }
}

impl Keeping {
    pub(super) fn new(name: &str, version: u64, initial: State) -> Self {
        let held =
            Held { epoch: None, current: Arc::new(initial), previous: None, prepared: None, lost: None, files: None };
        Self { turn: Arc::default(), of: (name.to_owned(), version), held: Mutex::new(held) }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on it is stored in files, and begins with what it is now.
    pub(super) fn store_first(&self, files: StateFiles) -> io::Result<()> {
        let mut held = self.held();
        files.save(&held.current)?;
        files.remove_others(held.current.version());
        held.files = Some(files);
        Ok(())
    }

    /// From now on it is stored in files, and goes on with what they hold.
    pub(super) fn store_in(&self, files: StateFiles) {
        let mut held = self.held();
        match files.load(&held.current) {
            Ok(states) => {
                let mut states = states.into_iter().map(Arc::new);
                if let Some(current) = states.next() {
                    held.current = current;
                }
                held.prepared = states.next();
            }
            Err(why) => held.lost = Some(why),
        }
        held.files = Some(files);
    }

    /// Whether it is on disk, and not in memory alone.
    pub(crate) fn is_stored(&self) -> bool {
        self.held().files.is_some()
    }

    /// The versions that this server can go on from, the older first.
    pub(crate) fn offers(&self) -> Vec<u64> {
        let held = self.held();
        if held.lost.is_some() {
            return Vec::new();
        }
        [Some(&held.current), held.prepared.as_ref()].into_iter().flatten().map(|state| state.version()).collect()
    }

    /// Goes on from `version` in this epoch; `None`: the two servers have no version in common.
    pub(crate) fn settle(&self, epoch: Epoch, version: Option<u64>) {
        let mut held = self.held();
        held.epoch = Some(epoch);
        held.previous = None;
        let prepared = held.prepared.take();
        if let Some(prepared) = prepared.filter(|prepared| Some(prepared.version()) == version) {
            held.current = prepared;
        }
        if Some(held.current.version()) == version {
            held.only_current();
        } else if held.lost.is_none() {
            let ours = held.current.version();
            held.lost = Some(format!(
                "the servers have no version of its variables in common (here it is {ours}): restore the state directory that \
                 was lost, or deploy it again, and what was trained is gone"
            ));
        }
    }

    /// Takes part in this epoch as it is: it was deployed while the epoch began. Changes nothing of what was settled for the epoch.
    pub(crate) fn enter(&self, epoch: Epoch) {
        self.held().epoch = Some(epoch);
    }

    /// The newest version that the other server offers, too; `None`: there is none.
    pub(crate) fn newest_of(&self, theirs: &[u64]) -> Option<u64> {
        self.offers().into_iter().filter(|offer| theirs.contains(offer)).max()
    }

    /// What the variables are now.
    ///
    /// # Errors
    /// They cannot be used; the error says why and what to do.
    pub fn current(&self) -> Result<Arc<State>, String> {
        let held = self.held();
        match &held.lost {
            Some(why) => Err(why.clone()),
            None => Ok(held.current.clone()),
        }
    }

    /// One of the versions at hand.
    #[must_use]
    pub fn at(&self, version: u64) -> Option<Arc<State>> {
        let held = self.held();
        let all = [Some(&held.current), held.previous.as_ref(), held.prepared.as_ref()];
        all.into_iter().flatten().find(|state| state.version() == version).cloned()
    }

    /// The first phase. Waits for the disk.
    ///
    /// # Errors
    /// The epoch is over, it is not the next version, or it cannot be stored.
    pub(crate) fn prepare(&self, epoch: Epoch, next: State) -> Result<(), String> {
        let mut held = self.held();
        if held.epoch != Some(epoch) || held.prepared.is_some() || next.version() != held.current.version() + 1 {
            return Err("the epoch is over, and the run with it: ask again".to_owned());
        }
        if let Some(files) = &held.files {
            files.save(&next).map_err(|error| format!("the state directory cannot be written to: {error}"))?;
        }
        held.prepared = Some(Arc::new(next));
        Ok(())
    }

    /// The second phase: the peer has prepared, too.
    ///
    /// # Errors
    /// The epoch is over: what is current was settled, or will be.
    pub(crate) fn commit(&self, epoch: Epoch) -> Result<(), String> {
        let mut held = self.held();
        if held.epoch != Some(epoch) {
            return Err("the epoch ended before both servers were sure of the new variables: ask again".to_owned());
        }
        let prepared = held.prepared.take().ok_or("nothing was prepared")?;
        held.previous = Some(std::mem::replace(&mut held.current, prepared));
        held.only_current();
        Ok(())
    }
}

impl Held {
    fn only_current(&self) {
        if let Some(files) = &self.files {
            files.remove_others(self.current.version());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        clippy::indexing_slicing,
        reason = "a test that cannot go on has failed"
    )]

    use selkie::Role;

    use super::super::tests::trained;
    use super::*;
    use crate::node::epoch::common;

    fn epoch(n: u8) -> Epoch {
        Epoch::new([&[n; 32], &[2; 32], &[3; 32]])
    }

    fn settle(servers: [&Keeping; 2], n: u8) -> Option<u64> {
        let [zero, one] = servers;
        let common = zero.offers().into_iter().filter(|version| one.offers().contains(version)).max();
        servers.iter().for_each(|server| server.settle(epoch(n), common));
        common
    }

    /// Two servers' runs, cut off after each single act of one of them, in every order: they find one common version again, and
    /// it is one that a run which was reported as done has made.
    #[test]
    fn whoever_stops_whenever_both_go_on_from_one_version() {
        // What a server does in a run; a commit needs that the other has prepared.
        for cut in 0..=4 {
            for first in 0..2 {
                let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
                let open = |index: usize| {
                    let role = [Role::Server0, Role::Server1][index];
                    trained(role, directories[index].path())
                };
                let mut servers = [open(0), open(1)];
                assert_eq!(settle([&servers[0].1, &servers[1].1], 1), Some(0));
                let order = if first == 0 { [0, 1] } else { [1, 0] };
                let acts: Vec<(usize, bool)> =
                    order.iter().map(|s| (*s, false)).chain(order.iter().map(|s| (*s, true))).collect();
                let mut done = 0;
                for (server, commits) in &acts[..cut] {
                    let keeping = &servers[*server].1;
                    if *commits {
                        keeping.commit(epoch(1)).unwrap();
                        done = 1;
                    } else {
                        keeping.prepare(epoch(1), servers[*server].2.clone()).unwrap();
                    }
                }
                // Either is started again, or both are, or neither.
                for restarted in [vec![], vec![0], vec![1], vec![0, 1]] {
                    for server in &restarted {
                        servers[*server] = open(*server);
                    }
                    let common = settle([&servers[0].1, &servers[1].1], 2);
                    let common = common.unwrap_or_else(|| panic!("{acts:?} cut at {cut}, {restarted:?}"));
                    assert!(common >= done, "a run that was done is not undone");
                    for (_, keeping, _) in &servers {
                        assert_eq!(keeping.current().unwrap().version(), common);
                        assert_eq!(keeping.offers(), [common]);
                    }
                }
            }
        }
    }

    #[test]
    fn a_run_of_an_epoch_that_is_over_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let (_, keeping, next) = trained(Role::Server0, directory.path());
        assert!(keeping.prepare(epoch(1), next.clone()).is_err());
        keeping.settle(epoch(1), Some(0));
        keeping.prepare(epoch(1), next.clone()).unwrap();
        assert!(keeping.prepare(epoch(1), next.clone()).is_err(), "one at a time");
        assert_eq!(keeping.offers(), [0, 1]);
        keeping.settle(epoch(2), Some(0));
        assert!(keeping.commit(epoch(1)).is_err());
        assert!(keeping.commit(epoch(2)).is_err());
        assert_eq!(keeping.current().unwrap().version(), 0);
        assert!(keeping.prepare(epoch(1), next).is_err());
    }

    /// server0 has the deployment when it looks for what both have, and server1 had not when it was asked.
    #[test]
    fn what_is_deployed_while_an_epoch_begins_begins_where_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let (_, keeping, next) = trained(Role::Server0, directory.path());
        let ours = [keeping.clone()];
        assert_eq!(common(&ours, &[]), []);
        let (name, version) = keeping.of.clone();
        let offers = |offers: &[u64]| [(name.clone(), version, offers.to_vec())];
        assert_eq!(common(&ours, &offers(&[0])), [(name.clone(), version, Some(0))]);
        assert_eq!(common(&ours, &offers(&[3])), [(name.clone(), version, None)]);
        keeping.enter(epoch(1));
        keeping.prepare(epoch(1), next).unwrap();
        keeping.enter(epoch(1));
        keeping.commit(epoch(1)).unwrap();
        assert_eq!(keeping.current().unwrap().version(), 1);
    }

    #[test]
    fn what_has_no_version_in_common_is_said_and_not_guessed() {
        let directory = tempfile::tempdir().unwrap();
        let (_, keeping, _) = trained(Role::Server0, directory.path());
        keeping.settle(epoch(1), None);
        assert!(keeping.current().unwrap_err().contains("in common"));
        assert!(keeping.offers().is_empty());
    }
}
