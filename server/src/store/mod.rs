//! What a party remembers across restarts: deployments, one file each, and the variables that they keep, one file for each version.
//!
//! A deployment has one *part* or several: entry points over the same variables, or the same program under several protocols.
//! To everything beyond this module a part is a model, asked for by its own name: `mnist`, `mnist:train`, `mnist@fss`.

mod expense;
mod files;
mod keeping;

use std::sync::Arc;

use selkie::client::ClientSpec;
use selkie::plan::Plan;
use selkie::program::{Program, RUN};
use selkie::{Protocol, SharedVariables, State};
use sha2::{Digest, Sha256};

pub(crate) use expense::{Expense, Expenses};
pub use files::{Loaded, MAX_FILE, Store, Unusable};
pub use keeping::Keeping;

use crate::identity::PartyKey;
use selkie::Role;

/// The longest name of a deployment.
const MAX_NAME: usize = 64;
/// More parts than any deployment has.
const MAX_PARTS: usize = 64;

/// A part of a deployment, as a party makes it of what it was sent.
#[derive(Debug)]
pub struct Part {
    /// What stands behind the deployment's name: nothing, `:` and an entry point, `@` and a protocol, or both.
    pub suffix: String,
    /// What is computed.
    pub program: Program,
    /// How; made when it was deployed, and kept.
    pub plan: Plan,
    /// The servers' shares of the weights; the crypto producer has none.
    pub shares: Option<SharedVariables>,
}

/// A part of a deployment, as clients ask for it.
#[derive(Debug, Clone)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// The name of the deployment that it is a part of.
    pub deployment: String,
    /// What is computed.
    pub program: Program,
    /// How; made when it was deployed, and kept.
    pub plan: Arc<Plan>,
    /// What clients must know.
    pub spec: ClientSpec,
    /// Unlike that of every other deployment, part and, where it matters, state.
    pub version: u64,
    /// The servers' shares of the weights; the crypto producer has none.
    pub shares: Option<Arc<SharedVariables>>,
    /// The deployer who holds it, if it is ephemeral: it goes when that deployer's channel ends, and is never stored.
    pub held_by: Option<PartyKey>,
    /// The version of the kept variables whose openings it uses; 0 if it uses none.
    pub state: u64,
    /// The version as which it was deployed.
    deployed: u64,
    /// The servers': what the deployment keeps from run to run.
    pub keeping: Option<Arc<Keeping>>,
    /// What batches cost.
    expenses: Arc<Expenses>,
}

impl Model {
    /// What a batch costs.
    pub(crate) fn expense(&self, batch: usize) -> Arc<Expense> {
        self.expenses.of(&self.plan, batch)
    }

    /// The protocol that runs it.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.plan.protocol()
    }

    /// The same model with its weights as they are in this version of the kept variables. It is another model only where such
    /// weights are opened under masks.
    #[must_use]
    pub fn at(self: &Arc<Self>, state: u64) -> Arc<Self> {
        if !self.plan.opens_state() || self.state == state {
            return self.clone();
        }
        Arc::new(Self { state, version: self.plan.version_at(self.deployed, state), ..Self::clone(self) })
    }

    /// The same model with its weights as they are now.
    ///
    /// # Errors
    /// The servers' kept variables cannot be used; the error says why.
    pub fn now(self: &Arc<Self>) -> Result<Arc<Self>, String> {
        match &self.keeping {
            Some(keeping) => Ok(self.at(keeping.current()?.version())),
            None => Ok(self.clone()),
        }
    }

    /// Whether it is the same part of the same deployment, at a later time.
    #[must_use]
    pub fn follows(&self, other: &Self) -> bool {
        self.deployed == other.deployed && self.state > other.state
    }

    /// The kept variables that its weights are opened from.
    ///
    /// # Errors
    /// The version is not at hand, or this party keeps none.
    pub fn opened_state(&self) -> Result<Arc<State>, String> {
        let keeping = self.keeping.as_ref().ok_or("this party keeps no variables")?;
        if !self.plan.opens_state() {
            return keeping.current();
        }
        keeping.at(self.state).ok_or_else(|| format!("version {} of the kept variables is not at hand", self.state))
    }
}

/// The version of a part.
#[must_use]
pub fn part_version(deployment: u64, suffix: &str) -> u64 {
    if suffix.is_empty() {
        return deployment;
    }
    let mut hash = Sha256::new();
    hash.update(b"selkie version of a part 1");
    hash.update(deployment.to_le_bytes());
    hash.update(suffix.as_bytes());
    let mut bytes = [0; 8];
    bytes.iter_mut().zip(hash.finalize()).for_each(|(to, from)| *to = from);
    u64::from_le_bytes(bytes)
}

/// The suffix of a part: of an entry point, under a protocol if there are several.
#[must_use]
pub fn suffix(entry: &str, protocol: Option<Protocol>) -> String {
    let entry = if entry == RUN { String::new() } else { format!(":{entry}") };
    protocol.map_or(entry.clone(), |protocol| format!("{entry}@{protocol}"))
}

/// All that was deployed under one name at one time.
#[derive(Debug)]
pub struct Deployment {
    /// Its name.
    pub name: String,
    /// Unlike that of every other deployment.
    pub version: u64,
    /// Its parts.
    pub models: Vec<Arc<Model>>,
    /// The servers': what it keeps from run to run.
    pub keeping: Option<Arc<Keeping>>,
}

impl Deployment {
    /// A deployment that fits together, at `role`; what it keeps is as it was deployed.
    ///
    /// # Errors
    /// A name is none, or programs, plans and shares do not belong together.
    pub fn new(
        role: Role,
        name: &str,
        version: u64,
        parts: Vec<Part>,
        held_by: Option<PartyKey>,
    ) -> Result<Self, String> {
        check_name(name)?;
        if parts.is_empty() || parts.len() > MAX_PARTS {
            return Err(format!("{} parts, 1 to {MAX_PARTS} are allowed", parts.len()));
        }
        for (index, part) in parts.iter().enumerate() {
            part.check(role, part_version(version, &part.suffix))?;
            if parts.iter().take(index).any(|before| before.suffix == part.suffix) {
                return Err(format!("two parts are called {name}{}", part.suffix));
            }
        }
        let initial = parts.iter().filter_map(|part| Some((&part.plan, part.shares.as_ref()?)));
        let initial = State::new(role, initial).map_err(|blame| blame.what().to_owned())?;
        let keeps = role != Role::CryptoProducer && !initial.is_empty();
        let keeping = keeps.then(|| Arc::new(Keeping::new(name, version, initial)));
        let models = parts.into_iter().map(|part| {
            let deployed = part_version(version, &part.suffix);
            let spec = ClientSpec::new(&part.program, &part.plan);
            Arc::new(Model {
                name: format!("{name}{}", part.suffix),
                deployment: name.to_owned(),
                program: part.program,
                plan: Arc::new(part.plan),
                spec,
                version: deployed,
                shares: part.shares.map(Arc::new),
                held_by,
                state: 0,
                deployed,
                keeping: keeping.clone(),
                expenses: Arc::default(),
            })
        });
        Ok(Self { name: name.to_owned(), version, models: models.collect(), keeping })
    }
}

impl Part {
    fn check(&self, role: Role, version: u64) -> Result<(), String> {
        check_suffix(&self.suffix)?;
        if self.plan.program_hash() != self.program.hash() {
            return Err("its plan is another program's".to_owned());
        }
        match (&self.shares, role) {
            (None, Role::CryptoProducer) => Ok(()),
            (Some(shares), Role::Server0 | Role::Server1) => {
                shares.check(role, &self.plan).map_err(|blame| blame.what().to_owned())?;
                if shares.version() == version { Ok(()) } else { Err("its shares are of another version".to_owned()) }
            }
            (Some(_), Role::CryptoProducer) => Err("the crypto producer must not hold shares".to_owned()),
            (None, _) => Err("its shares are missing".to_owned()),
        }
    }
}

fn letters(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

/// Whether this can be a deployment's name: also a file's, on every system, and never a path.
///
/// # Errors
/// It is not; the error says what a name is.
pub fn check_name(name: &str) -> Result<(), String> {
    let fine = name.len() <= MAX_NAME
        && name.chars().all(|c| letters(c) || matches!(c, '.' | '_' | '-'))
        && name.starts_with(letters);
    if fine {
        Ok(())
    } else {
        let shown: String = name.chars().take(80).collect();
        Err(format!(
            "{shown:?} cannot be a model's name: use up to {MAX_NAME} of a-z, 0-9, '.', '_', '-', the first one a letter \
             or digit"
        ))
    }
}

/// Whether this can stand behind a deployment's name: `:entry`, `@protocol`, `:entry@protocol`, or nothing.
fn check_suffix(suffix: &str) -> Result<(), String> {
    let (entry, protocol) = suffix.split_once('@').map_or((suffix, None), |(entry, protocol)| (entry, Some(protocol)));
    let known = protocol.is_none_or(|protocol| Protocol::named(protocol).is_some());
    let entry_fits = entry.is_empty()
        || entry.strip_prefix(':').is_some_and(|entry| {
            (1..=MAX_NAME).contains(&entry.len()) && entry.chars().all(|c| letters(c) || matches!(c, '_' | '-'))
        });
    if known && entry_fits {
        return Ok(());
    }
    let shown: String = suffix.chars().take(80).collect();
    Err(format!("{shown:?} cannot stand behind a model's name: ':' and an entry point, or '@' and a protocol can"))
}

/// Whether a model can be asked for by this name.
///
/// # Errors
/// It cannot; the error says what a name is.
pub fn check_asked(name: &str) -> Result<(), String> {
    let end = name.find([':', '@']).unwrap_or(name.len());
    let (base, suffix) = name.split_at_checked(end).unwrap_or((name, ""));
    check_name(base)?;
    check_suffix(suffix)
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        clippy::indexing_slicing,
        reason = "a test that cannot go on has failed"
    )]

    use std::fs;
    use std::path::Path;

    use ndarray::arr1;
    use selkie::Session;
    use selkie::graph::{Bounds, Graph};
    use selkie::program::{EntryPoints, Numbers, Tensor, Weights};

    use super::*;
    use crate::identity::Identity;

    fn model(name: &str, version: u64) -> [Deployment; 2] {
        let graph = Graph::new();
        let x = graph.private_input("c", "x", &[2], [0.0, 1.0]).unwrap();
        let w = graph.private_variable("o", "w", &[2, 3]).unwrap();
        graph.output("c", &x.matmul(&w).unwrap().relu().unwrap()).unwrap();
        let weights = Weights([("w".to_owned(), Tensor { shape: vec![2, 3], values: vec![0.5; 6] })].into());
        let program = graph.compile(Numbers::default(), Bounds::Proved(&weights)).unwrap();
        deployed(name, version, &program.into(), &weights)
    }

    fn deployed(name: &str, version: u64, programs: &EntryPoints, weights: &Weights) -> [Deployment; 2] {
        [Role::Server0, Role::Server1].map(|role| {
            let part = |(entry, program): (&str, &Program)| {
                let plan = Plan::new(program, Protocol::default()).unwrap();
                let suffix = suffix(entry, None);
                let version = part_version(version, &suffix);
                let [zero, one] = SharedVariables::share(program, &plan, version, weights, [3; 32]).unwrap();
                let shares = if role == Role::Server0 { zero } else { one };
                Part { suffix, program: program.clone(), plan, shares: Some(shares) }
            };
            Deployment::new(role, name, version, programs.iter().map(part).collect(), None).unwrap()
        })
    }

    /// A deployment that keeps a variable, stored in a directory, or found there; and what the variable is after one run.
    pub(super) fn trained(role: Role, directory: &Path) -> (Store, Arc<Keeping>, State) {
        let graph = Graph::new();
        let w = graph.kept_variable("o", "w", &[2], [-8.0, 8.0]).unwrap();
        graph.initialise(&w, arr1(&[1.0, 2.0]).view().into_dyn()).unwrap();
        graph.entry("double").assign(&w, &(&w * 2.0).unwrap()).unwrap();
        graph.entry("show").output("o", &w).unwrap();
        let weights = graph.weights();
        let programs = graph.compile_entries(Numbers::default(), Bounds::Proved(&weights)).unwrap();
        let mut session = Session::local(&programs, &weights, Protocol::default(), [1; 32]).unwrap();
        session.call("double", &[]).unwrap();
        let index = usize::from(role == Role::Server1);
        let key_file = directory.join("key");
        if !key_file.exists() {
            Identity::generate().unwrap().save(&key_file, false).unwrap();
        }
        let key = Identity::load(&key_file).unwrap().public();
        let store = Store::open(&directory.join("state"), role, key).unwrap();
        let (mut there, unusable) = store.load().unwrap();
        assert!(unusable.is_empty(), "{unusable:?}");
        let deployment = there.remove("m").unwrap_or_else(|| {
            let [zero, one] = deployed("m", 7, &programs, &weights);
            let deployment = if index == 0 { zero } else { one };
            store.save(&deployment).unwrap();
            deployment
        });
        let keeping = deployment.keeping.clone().unwrap();
        (store, keeping, session.states()[index].clone())
    }

    #[test]
    fn names_are_no_paths() {
        for name in ["a", "mnist-2.1_b", "0"] {
            check_name(name).unwrap();
            check_asked(name).unwrap();
            check_asked(&format!("{name}:train")).unwrap();
            check_asked(&format!("{name}@fss")).unwrap();
            check_asked(&format!("{name}:train@table")).unwrap();
        }
        for name in ["", ".", "..", ".a", "-a", "a/b", "../a", "A", "a b", "a\0", "ä", &"a".repeat(65)] {
            check_name(name).unwrap_err();
            check_asked(name).unwrap_err();
        }
        for name in ["a:", "a@", "a@nothing", "a:../b", "a:b@", "a@fss:b", ":train", "a:b:c", "ä:b"] {
            check_name(name).unwrap_err();
            check_asked(name).unwrap_err();
        }
    }

    #[test]
    fn what_is_saved_is_found_again_and_every_damage_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let key = Identity::generate().unwrap().public();
        let place = directory.path().join("state");
        let store = Store::open(&place, Role::Server1, key).unwrap();
        let [_, one] = model("m", 7);
        store.save(&one).unwrap();
        let (deployments, unusable) = store.load().unwrap();
        assert!(unusable.is_empty(), "{unusable:?}");
        let (read, saved) = (&deployments["m"].models[0], &one.models[0]);
        assert_eq!((read.version, &read.shares, read.plan.hash()), (7, &saved.shares, saved.plan.hash()));
        assert_eq!(fs::read_dir(&place).unwrap().count(), 1, "nothing is left beside it");

        let path = place.join("m.model");
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            fs::write(&path, &bad).unwrap();
            assert_eq!(store.load().unwrap().1.len(), 1, "byte {at}");
            fs::write(&path, &good[..at]).unwrap();
            assert_eq!(store.load().unwrap().1.len(), 1, "cut at {at}");
        }
        // Another party's file, and a second one of the same version: its masks would be used twice.
        fs::write(&path, &good).unwrap();
        let stranger = Store::open(&place, Role::Server1, Identity::generate().unwrap().public()).unwrap();
        assert!(stranger.load().unwrap().1[0].what.contains("belongs to"));
        store.save(&model("copy", 7)[1]).unwrap();
        let (deployments, unusable) = store.load().unwrap();
        assert_eq!((deployments.len(), unusable.len()), (1, 1));
    }

    /// Damaged, cut off, foreign or missing: kept variables are never guessed.
    #[test]
    fn kept_variables_are_found_again_and_every_damage_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let (store, keeping, next) = trained(Role::Server1, directory.path());
        keeping.settle(selkie::Epoch::new([&[1; 32]; 3]), Some(0));
        keeping.prepare(selkie::Epoch::new([&[1; 32]; 3]), next).unwrap();
        keeping.commit(selkie::Epoch::new([&[1; 32]; 3])).unwrap();
        let load = || store.load().unwrap().0.remove("m").unwrap().keeping.unwrap().current();
        assert_eq!(load().unwrap().version(), 1);
        let place = directory.path().join("state");
        let mut states: Vec<_> = fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().path()).collect();
        states.retain(|path| path.extension().is_some_and(|e| e == "state"));
        let [path] = states.as_slice() else { panic!("{states:?}") };
        let good = fs::read(path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            fs::write(path, &bad).unwrap();
            assert!(load().unwrap_err().contains("deploy the model again"), "byte {at}");
            fs::write(path, &good[..at]).unwrap();
            assert!(load().is_err(), "cut at {at}");
        }
        let other = tempfile::tempdir().unwrap();
        let (_, _, _) = trained(Role::Server1, other.path());
        let foreign = fs::read_dir(other.path().join("state")).unwrap().map(|entry| entry.unwrap().path());
        let foreign = foreign.filter(|path| path.extension().is_some_and(|e| e == "state")).last().unwrap();
        fs::copy(foreign, path).unwrap();
        assert!(load().unwrap_err().contains("belongs to"));
        fs::remove_file(path).unwrap();
        assert!(load().unwrap_err().contains("missing"));
    }

    #[test]
    fn shares_go_to_their_own_server_alone() {
        let [zero, one] = model("m", 7);
        let (zero, one) = (&zero.models[0], &one.models[0]);
        let rebuilt = |role, shares: &Option<Arc<SharedVariables>>, version| {
            let plan = Plan::new(&zero.program, Protocol::default()).unwrap();
            let (suffix, shares) = (String::new(), shares.as_deref().cloned());
            let part = Part { suffix, program: zero.program.clone(), plan, shares };
            Deployment::new(role, "m", version, vec![part], None)
        };
        rebuilt(Role::Server0, &zero.shares, 7).unwrap();
        rebuilt(Role::Server0, &one.shares, 7).unwrap_err();
        rebuilt(Role::Server1, &zero.shares, 7).unwrap_err();
        rebuilt(Role::Server0, &zero.shares, 8).unwrap_err();
        rebuilt(Role::Server0, &None, 7).unwrap_err();
        rebuilt(Role::CryptoProducer, &zero.shares, 7).unwrap_err();
        rebuilt(Role::CryptoProducer, &None, 7).unwrap();
    }
}
