//! What a party remembers across restarts: the deployed models, one file each.
//!
//! ```text
//! "selkie model\n" | format u16 | SHA-256 of the body | body: postcard of `Stored`
//! ```
//! A file is written beside its place, synced, and renamed into it, so that a crash leaves the old model or the new one.
//! A file that cannot be used is reported and left alone, and the other models are served.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use selkie::client::ClientSpec;
use selkie::plan::{Cost, Phase, Plan};
use selkie::program::Program;
use selkie::{Protocol, SharedVariables};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::identity::PartyKey;
use selkie::Role;

const MAGIC: &[u8] = b"selkie model\n";
/// The version of the files.
const FORMAT: u16 = 1;
const HEADER: usize = MAGIC.len() + 2 + 32;
/// The largest file that is read.
pub const MAX_FILE: u64 = 2 << 30;
const EXTENSION: &str = "model";
/// The longest name of a model.
const MAX_NAME: usize = 64;

/// A model as one party keeps it.
#[derive(Debug)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// What is computed.
    pub program: Program,
    /// How; made when it was deployed, and kept.
    pub plan: Arc<Plan>,
    /// What clients must know.
    pub spec: ClientSpec,
    /// Unlike that of every other deployment.
    pub version: u64,
    /// The servers' shares of the weights; the crypto producer has none.
    pub shares: Option<SharedVariables>,
    /// The deployer who holds it, if it is ephemeral: it goes when that deployer's channel ends, and is never stored.
    pub held_by: Option<PartyKey>,
    /// What the batch that was asked about last costs: finding it out takes longer than many a round.
    pub(crate) expense: Mutex<Option<Arc<Expense>>>,
}

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

impl Model {
    /// A model that fits together, at `role`.
    ///
    /// # Errors
    /// The name is none, or program, plan and shares do not belong together.
    pub fn new(
        role: Role,
        name: &str,
        program: Program,
        plan: Plan,
        version: u64,
        shares: Option<SharedVariables>,
    ) -> Result<Self, String> {
        check_name(name)?;
        if plan.program_hash() != program.hash() {
            return Err("its plan is another program's".to_owned());
        }
        match (&shares, role) {
            (None, Role::CryptoProducer) => {}
            (Some(shares), Role::Server0 | Role::Server1) => {
                shares.check(role, &plan).map_err(|blame| blame.what().to_owned())?;
                if shares.version() != version {
                    return Err("its shares are of another version".to_owned());
                }
            }
            (Some(_), Role::CryptoProducer) => return Err("the crypto producer must not hold shares".to_owned()),
            (None, _) => return Err("its shares are missing".to_owned()),
        }
        let spec = ClientSpec::new(&program, &plan);
        Ok(Self {
            name: name.to_owned(),
            program,
            plan: Arc::new(plan),
            spec,
            version,
            shares,
            held_by: None,
            expense: Mutex::default(),
        })
    }

    /// What a batch costs.
    pub(crate) fn expense(&self, batch: usize) -> Arc<Expense> {
        let mut last = self.expense.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(expense) = last.as_ref().filter(|expense| expense.batch == batch) {
            return expense.clone();
        }
        let peak = self.plan.memory_peak(batch).into_iter().map(|(_, bytes)| bytes).max().unwrap_or(0);
        let expense = Arc::new(Expense { batch, cost: self.plan.cost(batch), peak });
        *last = Some(expense.clone());
        expense
    }

    /// The protocol that runs it.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.plan.protocol()
    }
}

/// Whether this can be a model's name: also a file's, on every system, and never a path.
///
/// # Errors
/// It is not; the error says what a name is.
pub fn check_name(name: &str) -> Result<(), String> {
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
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

#[derive(Serialize, Deserialize)]
struct Stored {
    role: Role,
    key: PartyKey,
    name: String,
    version: u64,
    program: Vec<u8>,
    plan: Vec<u8>,
    shares: Option<SharedVariables>,
}

/// A stored file that cannot be used, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{}: {what}; the model in it is not served: deploy it again with `selkie deploy … --name {name}`, or remove the file",
    path.display()
)]
pub struct Unusable {
    /// Where it is.
    pub path: PathBuf,
    /// The model's name, after the file's.
    pub name: String,
    /// What is wrong with it.
    pub what: String,
}

/// The models that can be used, by name, and the files that cannot.
pub type Loaded = (BTreeMap<String, Arc<Model>>, Vec<Unusable>);

/// One party's directory of models.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    role: Role,
    key: PartyKey,
}

impl Store {
    /// Opens, or makes, the directory of the party with this role and key.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn open(directory: &Path, role: Role, key: PartyKey) -> io::Result<Self> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::DirBuilderExt;
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        #[cfg(not(unix))]
        fs::create_dir_all(directory)?;
        Ok(Self { directory: directory.to_owned(), role, key })
    }

    /// All models that can be used, by name, and the files that cannot.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn load(&self) -> io::Result<Loaded> {
        let (mut models, mut unusable) = (BTreeMap::new(), Vec::new());
        let mut paths: Vec<PathBuf> =
            fs::read_dir(&self.directory)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
        paths.retain(|path| path.extension().is_some_and(|e| e == EXTENSION));
        paths.sort();
        let mut versions = BTreeMap::new();
        for path in paths {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            match self.read(&path, &name) {
                Ok(model) => match versions.insert(model.version, name.clone()) {
                    None => drop(models.insert(name, Arc::new(model))),
                    Some(other) => {
                        let what = format!("it is a copy of the model {other}, and randomness must not be used twice");
                        unusable.push(Unusable { path, name, what });
                    }
                },
                Err(what) => unusable.push(Unusable { path, name, what }),
            }
        }
        Ok((models, unusable))
    }

    fn read(&self, path: &Path, name: &str) -> Result<Model, String> {
        let file = File::open(path).map_err(|e| format!("it cannot be read ({e})"))?;
        let mut bytes = Zeroizing::new(Vec::new());
        file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|e| format!("it cannot be read ({e})"))?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(format!("it is larger than {MAX_FILE} bytes"));
        }
        let rest = bytes.strip_prefix(MAGIC).ok_or("it is no model of selkie's")?;
        let (format, rest) = rest.split_first_chunk::<2>().ok_or("it is cut off")?;
        let format = u16::from_le_bytes(*format);
        if format != FORMAT {
            return Err(format!("it has format {format}, and this release of selkie reads format {FORMAT}"));
        }
        let (sum, body) = rest.split_first_chunk::<32>().ok_or("it is cut off")?;
        if Sha256::digest(body).as_slice() != sum {
            return Err("it is damaged or cut off: its checksum is wrong".to_owned());
        }
        let (stored, after) = postcard::take_from_bytes::<Stored>(body).map_err(|_| "it is damaged".to_owned())?;
        if stored.role != self.role || stored.key != self.key {
            return Err(format!(
                "it belongs to {} with the key {}, and this is {} with the key {}",
                stored.role,
                stored.key.short(),
                self.role,
                self.key.short()
            ));
        }
        if !after.is_empty() || stored.name != name {
            return Err(format!("it holds the model {}, or more than one", stored.name));
        }
        let program = Program::from_bytes(&stored.program).map_err(|blame| format!("it holds {}", blame.what()))?;
        let plan = Plan::from_bytes(&stored.plan).map_err(|error| error.to_string())?;
        Model::new(self.role, name, program, plan, stored.version, stored.shares)
    }

    /// Keeps a model, in the place of one with the same name.
    ///
    /// # Errors
    /// It cannot be written; the old one, if any, is still there.
    pub fn save(&self, model: &Model) -> io::Result<()> {
        let stored = Stored {
            role: self.role,
            key: self.key,
            name: model.name.clone(),
            version: model.version,
            program: model.program.to_bytes(),
            plan: model.plan.to_bytes(),
            shares: model.shares.clone(),
        };
        let body = Zeroizing::new(postcard::to_allocvec(&stored).map_err(io::Error::other)?);
        let mut header = Vec::with_capacity(HEADER);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&FORMAT.to_le_bytes());
        header.extend_from_slice(&Sha256::digest(&*body));

        let path = self.directory.join(format!("{}.{EXTENSION}", model.name));
        let beside = self.directory.join(format!(".{}.{:016x}.part", model.name, model.version));
        let written = write(&beside, &[&header, &body]).and_then(|()| fs::rename(&beside, &path));
        if written.is_err() {
            // What remains of a failed attempt is of no use to anybody.
            let _ = fs::remove_file(&beside);
        }
        written?;
        // The rename itself must reach the disk, too.
        File::open(&self.directory)?.sync_all()
    }
}

fn write(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let mut file = options.open(path)?;
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

    use selkie::graph::{Bounds, Graph};
    use selkie::program::{Numbers, Tensor, Weights};

    use super::*;
    use crate::identity::Identity;

    fn model(name: &str, version: u64) -> [Model; 2] {
        let graph = Graph::new();
        let x = graph.private_input("c", "x", &[2], [0.0, 1.0]).unwrap();
        let w = graph.private_variable("o", "w", &[2, 3]).unwrap();
        graph.output("c", &x.matmul(&w).unwrap().relu().unwrap()).unwrap();
        let weights = Weights([("w".to_owned(), Tensor { shape: vec![2, 3], values: vec![0.5; 6] })].into());
        let program = graph.compile(Numbers::default(), Bounds::Proved(&weights)).unwrap();
        let plan = Plan::new(&program, Protocol::default()).unwrap();
        let shares = SharedVariables::share(&program, &plan, version, &weights, [3; 32]).unwrap();
        let mut roles = [Role::Server0, Role::Server1].into_iter();
        shares.map(|shares| {
            Model::new(roles.next().unwrap(), name, program.clone(), plan.clone(), version, Some(shares)).unwrap()
        })
    }

    #[test]
    fn names_are_no_paths() {
        for name in ["a", "mnist-2.1_b", "0"] {
            check_name(name).unwrap();
        }
        for name in ["", ".", "..", ".a", "-a", "a/b", "../a", "A", "a b", "a\0", "ä", &"a".repeat(65)] {
            check_name(name).unwrap_err();
        }
    }

    #[test]
    fn what_is_saved_is_found_again_and_every_damage_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let key = Identity::generate().unwrap().public();
        let store = Store::open(&directory.path().join("state"), Role::Server1, key).unwrap();
        let [_, one] = model("m", 7);
        store.save(&one).unwrap();
        let (models, unusable) = store.load().unwrap();
        assert!(unusable.is_empty(), "{unusable:?}");
        let read = &models["m"];
        assert_eq!((read.version, &read.shares, read.plan.hash()), (7, &one.shares, one.plan.hash()));
        assert_eq!(std::fs::read_dir(&store.directory).unwrap().count(), 1, "nothing is left beside it");

        let path = store.directory.join("m.model");
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
        let stranger = Store {
            directory: store.directory.clone(),
            role: Role::Server1,
            key: Identity::generate().unwrap().public(),
        };
        assert!(stranger.load().unwrap().1[0].what.contains("belongs to"));
        store.save(&model("copy", 7)[1]).unwrap();
        let (models, unusable) = store.load().unwrap();
        assert_eq!((models.len(), unusable.len()), (1, 1));
    }

    #[test]
    fn shares_go_to_their_own_server_alone() {
        let [zero, one] = model("m", 7);
        let rebuilt = |role, shares: &Option<SharedVariables>, version| {
            let plan = Plan::new(&zero.program, Protocol::default()).unwrap();
            Model::new(role, "m", zero.program.clone(), plan, version, shares.clone())
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
