//! `selkie init`: keys, and a `cluster.toml` for trials on one machine.

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::config::{Address, SampleParty, sample};
use crate::exit::Failure;
use crate::identity::Identity;
use selkie::Role;

/// The name of the deployer's key file.
pub const DEPLOYER_KEY_FILE: &str = "deployer.key";

/// The arguments of `selkie init`.
#[derive(Debug, clap::Args)]
pub struct InitArgs {
    #[command(flatten)]
    what: What,
    /// Directory to write to
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// With --local: use this port and the next two, instead of any free ones
    #[arg(long, requires = "local")]
    base_port: Option<u16>,
    /// Overwrite existing files; a key that is overwritten is lost
    #[arg(long)]
    force: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct What {
    /// Make one key: server0, server1, crypto-producer, deployer or player
    #[arg(long)]
    role: Option<KeyRole>,
    /// Make all three parties' keys, a deployer's, and a cluster.toml for this machine alone
    #[arg(long)]
    local: bool,
    /// Print a documented cluster.toml and write nothing
    #[arg(long)]
    sample: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum KeyRole {
    Server0,
    Server1,
    CryptoProducer,
    Deployer,
    Player,
}

impl KeyRole {
    fn name(self) -> &'static str {
        match self {
            Self::Server0 => Role::Server0.name(),
            Self::Server1 => Role::Server1.name(),
            Self::CryptoProducer => Role::CryptoProducer.name(),
            Self::Deployer => "deployer",
            Self::Player => "player",
        }
    }
}

/// Does what the arguments ask, and prints what there is to know.
///
/// # Errors
/// When a file exists already or cannot be written, or no port is free.
pub fn run(args: &InitArgs) -> Result<(), Failure> {
    if args.what.sample {
        return say(&placeholder_sample());
    }
    std::fs::create_dir_all(&args.dir)
        .map_err(|e| Failure::other(format!("{} cannot be made: {e}", args.dir.display())))?;
    let (document, text) = match args.what.role {
        Some(role) => one_key(role, args)?,
        None => local(args)?,
    };
    if args.json { say(&format!("{document:#}\n")) } else { say(&text) }
}

/// What `selkie init --local --dir DIR` writes, without a word.
///
/// # Errors
/// As [`run`].
pub(crate) fn write_local(dir: &Path) -> Result<(), Failure> {
    let what = What { role: None, local: true, sample: false };
    local(&InitArgs { what, dir: dir.to_owned(), base_port: None, force: false, json: false }).map(drop)
}

fn say(text: &str) -> Result<(), Failure> {
    std::io::stdout().write_all(text.as_bytes()).map_err(Failure::other)
}

fn one_key(role: KeyRole, args: &InitArgs) -> Result<(serde_json::Value, String), Failure> {
    let name = role.name();
    let path = args.dir.join(format!("{name}.key"));
    let identity = Identity::generate()?;
    identity.save(&path, args.force)?;
    let key = identity.public();
    let line = match role {
        KeyRole::Deployer => format!("[deployers]\nowner = \"{key}\""),
        KeyRole::Player => format!("[players]\nNAME = \"{key}\""),
        _ => format!("[{name}]\nkey = \"{key}\""),
    };
    let document = json!({ "schema": 1, "role": name, "key": key.to_string(), "key_file": path });
    let text = format!(
        "{}: the private key of {name}; it stays on this machine.\n\
         Its public key, for everybody's cluster.toml:\n\n{line}\n",
        path.display()
    );
    Ok((document, text))
}

fn local(args: &InitArgs) -> Result<(serde_json::Value, String), Failure> {
    let names = Role::ALL.map(|role| format!("{role}.key"));
    let config = args.dir.join("cluster.toml");
    let deployer_path = args.dir.join(DEPLOYER_KEY_FILE);
    let key_paths = names.map(|name| args.dir.join(name));
    let all = key_paths.iter().chain([&deployer_path, &config]);
    if let Some(path) = all.into_iter().find(|p| p.exists() && !args.force) {
        return Err(Failure::usage(format!(
            "{} exists already, and nothing was written: use another --dir, or --force to lose \
             the old keys",
            path.display()
        )));
    }
    let ports = match args.base_port {
        Some(base) => consecutive(base)?,
        None => free_ports()?,
    };
    let mut parties = Vec::with_capacity(3);
    for (path, port) in key_paths.iter().zip(ports) {
        let identity = Identity::generate()?;
        identity.save(path, args.force)?;
        parties.push(SampleParty { address: Address::loopback(port).to_string(), key: identity.public().to_string() });
    }
    let deployer = Identity::generate()?;
    deployer.save(&deployer_path, args.force)?;
    let parties: [SampleParty; 3] =
        parties.try_into().map_err(|_| Failure::other("a bug here: there are three parties"))?;
    write_config(&config, &sample(&parties, &deployer.public().to_string()), args.force)?;
    let document = json!({
        "schema": 1,
        "config": config,
        "deployer": { "key": deployer.public().to_string(), "key_file": deployer_path },
        "parties": Role::ALL.iter().zip(&parties).zip(&key_paths).map(|((role, party), path)| json!({
            "role": role.name(), "address": party.address, "key": party.key, "key_file": path,
        })).collect::<Vec<_>>(),
    });
    let mut text = format!("{}: for trials on this machine.\n\n", config.display());
    for (role, party) in Role::ALL.iter().zip(&parties) {
        let name = role.name();
        text.push_str(&format!("selkie {name} --config {}    # {}\n", config.display(), party.address));
    }
    text.push_str(&format!("\nModels are deployed with the key {}.\n", deployer_path.display()));
    Ok((document, text))
}

/// The sample with blanks to fill in.
fn placeholder_sample() -> String {
    let party = |role: Role, port: u16| SampleParty {
        address: Address::loopback(port).to_string(),
        key: format!("<what `selkie init --role {role}` prints>"),
    };
    sample(
        &[party(Role::Server0, 7000), party(Role::Server1, 7001), party(Role::CryptoProducer, 7002)],
        "<what `selkie init --role deployer` prints>",
    )
}

fn write_config(path: &Path, text: &str, force: bool) -> Result<(), Failure> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true);
    if force {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    options
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|e| Failure::other(format!("{} cannot be written: {e}", path.display())))
}

fn consecutive(base: u16) -> Result<[u16; 3], Failure> {
    match (base.checked_add(1), base.checked_add(2)) {
        (Some(next), Some(last)) if base > 0 => Ok([base, next, last]),
        _ => Err(Failure::usage("--base-port must leave room for three ports: 1 to 65533")),
    }
}

/// Three ports that are free now. Somebody else may take one before the parties start; they
/// will say so then.
pub(crate) fn free_ports() -> Result<[u16; 3], Failure> {
    let bind = || TcpListener::bind(("127.0.0.1", 0));
    // All three are held before any is let go, so that they differ.
    let held = [bind()?, bind()?, bind()?];
    let mut ports = [0; 3];
    for (port, listener) in ports.iter_mut().zip(&held) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

    use super::*;
    use crate::config::Cluster;
    use crate::exit::Exit;

    fn args(dir: &Path, role: Option<KeyRole>, force: bool) -> InitArgs {
        InitArgs {
            what: What { role, local: role.is_none(), sample: false },
            dir: dir.to_owned(),
            base_port: None,
            force,
            json: false,
        }
    }

    #[test]
    fn a_local_cluster_works_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        run(&args(dir.path(), None, false)).unwrap();
        let cluster = Cluster::load(&dir.path().join("cluster.toml")).unwrap();
        for role in Role::ALL {
            let identity = cluster.identity(role).unwrap();
            assert_eq!(identity.public(), cluster.party(role).key);
            assert!(cluster.party(role).address.is_loopback());
        }
        let deployer = Identity::load(&dir.path().join(DEPLOYER_KEY_FILE)).unwrap();
        assert_eq!(cluster.deployer(&deployer.public()), Some("owner"));
    }

    #[test]
    fn nothing_is_overwritten_without_force() {
        let dir = tempfile::tempdir().unwrap();
        run(&args(dir.path(), Some(KeyRole::Server1), false)).unwrap();
        let before = std::fs::read(dir.path().join("server1.key")).unwrap();
        let failure = run(&args(dir.path(), None, false)).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.contains("server1.key"), "{failure}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "a refused init leaves nothing behind");
        assert_eq!(std::fs::read(dir.path().join("server1.key")).unwrap(), before);
        run(&args(dir.path(), None, true)).unwrap();
        assert_ne!(std::fs::read(dir.path().join("server1.key")).unwrap(), before);
    }

    #[test]
    fn ports_are_three_or_none() {
        assert_eq!(consecutive(7000).unwrap(), [7000, 7001, 7002]);
        assert!(consecutive(65534).is_err());
        assert!(consecutive(0).is_err());
        let ports = free_ports().unwrap();
        assert!(ports[0] != ports[1] && ports[1] != ports[2] && ports[0] != ports[2]);
    }
}
