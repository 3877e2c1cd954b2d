//! The files of a party's state directory.
//!
//! ```text
//! NAME.model           "selkie model\n" | format u16 | SHA-256 of the body | body: postcard of `Stored`
//! NAME.VERSION.state   "selkie state\n" | format u16 | SHA-256 of the body | body: postcard of `StoredState`
//! ```
//! A file is written beside its place, synced, and renamed into it, so that a crash leaves the old file or the new one.
//! A file that cannot be used is reported and left alone, and the other models are served.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use selkie::plan::Plan;
use selkie::program::Program;
use selkie::{SharedVariables, State};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{Deployment, Part};
use crate::identity::PartyKey;
use selkie::Role;

/// The largest file that is read.
pub const MAX_FILE: u64 = 2 << 30;

/// A kind of files.
struct Kind {
    magic: &'static [u8],
    /// The version of the files.
    format: u16,
    extension: &'static str,
    what: &'static str,
}

const MODEL: Kind = Kind { magic: b"selkie model\n", format: 2, extension: "model", what: "model" };
const STATE: Kind = Kind { magic: b"selkie state\n", format: 1, extension: "state", what: "state" };

/// Whose a file is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    role: Role,
    key: PartyKey,
}

impl Owner {
    fn check(&self, ours: &Owner) -> Result<(), String> {
        if self == ours {
            return Ok(());
        }
        Err(format!(
            "it belongs to {} with the key {}, and this is {} with the key {}",
            self.role,
            self.key.short(),
            ours.role,
            ours.key.short()
        ))
    }
}

#[derive(Serialize, Deserialize)]
struct StoredPart {
    suffix: String,
    program: Vec<u8>,
    plan: Vec<u8>,
    shares: Option<SharedVariables>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    owner: Owner,
    name: String,
    version: u64,
    parts: Vec<StoredPart>,
}

#[derive(Serialize, Deserialize)]
struct StoredState {
    owner: Owner,
    name: String,
    /// The deployment's version.
    version: u64,
    state: State,
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

/// The deployments that can be used, by name, and the files that cannot.
pub type Loaded = (BTreeMap<String, Deployment>, Vec<Unusable>);

/// One party's directory of deployments.
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

    fn owner(&self) -> Owner {
        Owner { role: self.role, key: self.key }
    }

    /// All deployments that can be used, by name, and the files that cannot.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn load(&self) -> io::Result<Loaded> {
        let (mut deployments, mut unusable) = (BTreeMap::new(), Vec::new());
        let mut versions = BTreeMap::new();
        for path in files(&self.directory, &MODEL)? {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            match self.read(&path, &name) {
                Ok(deployment) => match versions.insert(deployment.version, name.clone()) {
                    None => {
                        if let Some(keeping) = &deployment.keeping {
                            keeping.store_in(self.state_files(&deployment));
                        }
                        drop(deployments.insert(name, deployment));
                    }
                    Some(other) => {
                        let what = format!("it is a copy of the model {other}, and randomness must not be used twice");
                        unusable.push(Unusable { path, name, what });
                    }
                },
                Err(what) => unusable.push(Unusable { path, name, what }),
            }
        }
        Ok((deployments, unusable))
    }

    fn read(&self, path: &Path, name: &str) -> Result<Deployment, String> {
        let stored: Stored = unseal(path, &MODEL)?;
        stored.owner.check(&self.owner())?;
        if stored.name != name {
            return Err(format!("it holds the model {}", stored.name));
        }
        let part = |part: StoredPart| {
            let program = Program::from_bytes(&part.program).map_err(|blame| format!("it holds {}", blame.what()))?;
            let plan = Plan::from_bytes(&part.plan).map_err(|error| error.to_string())?;
            Ok(Part { suffix: part.suffix, program, plan, shares: part.shares })
        };
        let parts = stored.parts.into_iter().map(part).collect::<Result<_, String>>()?;
        Deployment::new(self.role, name, stored.version, parts, None)
    }

    /// Keeps a deployment, in the place of one with the same name, and from now on what it keeps from run to run.
    ///
    /// # Errors
    /// It cannot be written; the old one, if any, is still there.
    pub fn save(&self, deployment: &Deployment) -> io::Result<()> {
        let part = |model: &std::sync::Arc<super::Model>| StoredPart {
            suffix: model.name.get(deployment.name.len()..).unwrap_or_default().to_owned(),
            program: model.program.to_bytes(),
            plan: model.plan.to_bytes(),
            shares: model.shares.as_deref().cloned(),
        };
        let stored = Stored {
            owner: self.owner(),
            name: deployment.name.clone(),
            version: deployment.version,
            parts: deployment.models.iter().map(part).collect(),
        };
        // What it keeps comes first: without it a deployment is of no use.
        if let Some(keeping) = &deployment.keeping {
            keeping.store_first(self.state_files(deployment))?;
        }
        seal(&self.directory, &deployment.name, &MODEL, &stored)
    }

    fn state_files(&self, deployment: &Deployment) -> StateFiles {
        let (directory, owner) = (self.directory.clone(), self.owner());
        StateFiles { directory, owner, name: deployment.name.clone(), version: deployment.version }
    }
}

/// Where one deployment's kept variables are stored.
pub(super) struct StateFiles {
    directory: PathBuf,
    owner: Owner,
    name: String,
    version: u64,
}

impl StateFiles {
    /// The one stored version, or the two that follow each other, the older first.
    ///
    /// # Errors
    /// A file cannot be used; the error says which, and what to do.
    pub(super) fn load(&self, like: &State) -> Result<Vec<State>, String> {
        let mut states = Vec::new();
        for (path, version) in self.paths().map_err(|error| format!("the state directory cannot be read: {error}"))? {
            let state = self.read(&path, version, like);
            match state {
                Ok(Some(state)) => states.push(state),
                // An earlier deployment's.
                Ok(None) => drop(fs::remove_file(&path)),
                Err(what) => {
                    return Err(format!(
                        "{}: {what}; restore it from a copy, or deploy the model again, and what was trained is gone",
                        path.display()
                    ));
                }
            }
        }
        states.sort_by_key(State::version);
        // More than two remain where a file could not be removed: the newest two are those that count.
        let extra = states.len().saturating_sub(2);
        states.drain(..extra);
        if let [older, newer] = states.as_slice()
            && older.version() + 1 != newer.version()
        {
            states.drain(..1);
        }
        if states.is_empty() {
            let what = "its kept variables are missing from the state directory";
            return Err(format!(
                "{what}: restore them from a copy, or deploy the model again, and what was trained is gone"
            ));
        }
        Ok(states)
    }

    fn read(&self, path: &Path, version: u64, like: &State) -> Result<Option<State>, String> {
        let stored: StoredState = unseal(path, &STATE)?;
        stored.owner.check(&self.owner)?;
        if stored.name != self.name || stored.state.version() != version {
            return Err(format!("it holds version {} of {}", stored.state.version(), stored.name));
        }
        if stored.version != self.version {
            return Ok(None);
        }
        stored.state.check_like(like).map_err(|blame| format!("it holds {}", blame.what()))?;
        Ok(Some(stored.state))
    }

    fn paths(&self) -> io::Result<Vec<(PathBuf, u64)>> {
        let ours = |path: PathBuf| {
            let stem = path.file_stem()?.to_str()?;
            let version = stem.strip_prefix(&self.name)?.strip_prefix('.')?;
            // The name may itself have points in it: only digits may follow.
            let version = (version.len() == 20).then(|| version.parse().ok())??;
            Some((path, version))
        };
        Ok(files(&self.directory, &STATE)?.into_iter().filter_map(ours).collect())
    }

    pub(super) fn save(&self, state: &State) -> io::Result<()> {
        let stored = StoredState {
            owner: self.owner.clone(),
            name: self.name.clone(),
            version: self.version,
            state: state.clone(),
        };
        seal(&self.directory, &format!("{}.{:020}", self.name, state.version()), &STATE, &stored)
    }

    /// Removes all versions but this one.
    pub(super) fn remove_others(&self, version: u64) {
        for (path, other) in self.paths().unwrap_or_default() {
            // One that stays behind is older than the two that count, and goes another time.
            if other != version && fs::remove_file(&path).is_err() {
                tracing::warn!(path = %path.display(), "an old version cannot be removed");
            }
        }
    }
}

fn files(directory: &Path, kind: &Kind) -> io::Result<Vec<PathBuf>> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(directory)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    paths.retain(|path| path.extension().is_some_and(|e| e == kind.extension));
    paths.sort();
    Ok(paths)
}

/// What a file holds.
fn unseal<T: DeserializeOwned>(path: &Path, kind: &Kind) -> Result<T, String> {
    let file = File::open(path).map_err(|e| format!("it cannot be read ({e})"))?;
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|e| format!("it cannot be read ({e})"))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("it is larger than {MAX_FILE} bytes"));
    }
    let rest = bytes.strip_prefix(kind.magic).ok_or_else(|| format!("it is no {} of selkie's", kind.what))?;
    let (format, rest) = rest.split_first_chunk::<2>().ok_or("it is cut off")?;
    let (format, ours) = (u16::from_le_bytes(*format), kind.format);
    if format != ours {
        return Err(format!("it has format {format}, and this release of selkie reads format {ours}"));
    }
    let (sum, body) = rest.split_first_chunk::<32>().ok_or("it is cut off")?;
    if Sha256::digest(body).as_slice() != sum {
        return Err("it is damaged or cut off: its checksum is wrong".to_owned());
    }
    match postcard::take_from_bytes::<T>(body) {
        Ok((stored, [])) => Ok(stored),
        _ => Err("it is damaged".to_owned()),
    }
}

/// Puts a file into its place.
fn seal(directory: &Path, stem: &str, kind: &Kind, stored: &impl Serialize) -> io::Result<()> {
    let body = Zeroizing::new(postcard::to_allocvec(stored).map_err(io::Error::other)?);
    let mut header = kind.magic.to_vec();
    header.extend_from_slice(&kind.format.to_le_bytes());
    header.extend_from_slice(&Sha256::digest(&*body));

    let path = directory.join(format!("{stem}.{}", kind.extension));
    let beside = directory.join(format!(".{stem}.{}.part", kind.extension));
    let written = write(&beside, &[&header, &body]).and_then(|()| fs::rename(&beside, &path));
    if written.is_err() {
        // What remains of a failed attempt is of no use to anybody.
        let _ = fs::remove_file(&beside);
    }
    written?;
    // The rename itself must reach the disk, too.
    File::open(directory)?.sync_all()
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
