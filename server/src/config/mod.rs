//! `cluster.toml`: where every party is, which key it has, what it allows.
//!
//! All parties and clients can share one file: it holds no secret, only the paths of the files
//! that do. Unknown keys are errors, and an error names the file, the line, the key, and what
//! to write.

mod address;
mod emulation;
mod error;
mod limits;
mod sample;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use address::Address;
pub use emulation::{Bandwidth, Emulation};
pub use error::ConfigError;
pub use limits::{Limits, MAX_FRAME_BYTES};
pub use sample::{SampleParty, sample};

use crate::identity::{Identity, IdentityError, KEY_VARIABLE, PartyKey};
use selkie::Role;

/// No honest `cluster.toml` comes near this many bytes.
const FILE_LIMIT: u64 = 1 << 20;
/// As programs have it.
const LONGEST_PLAYER: usize = 128;

/// Everything in `cluster.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    server0: PartyConfig,
    server1: PartyConfig,
    #[serde(rename = "crypto-producer")]
    crypto_producer: PartyConfig,
    #[serde(default)]
    clients: Clients,
    /// Who may deploy models: a name for people to read, and a public key.
    #[serde(default)]
    pub deployers: BTreeMap<String, PartyKey>,
    /// The players who must prove a key before they feed an input or receive an output; all others anyone may play.
    #[serde(default)]
    pub players: BTreeMap<String, PartyKey>,
    /// What a party allows its peers and clients to use.
    #[serde(default)]
    pub limits: Limits,
    /// A slower network between the parties than there is; on loopback only.
    #[serde(default)]
    pub emulation: Option<Emulation>,
    #[serde(skip)]
    path: PathBuf,
}

/// One party.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartyConfig {
    /// Where others reach it: HTTP, WebSockets and party links all use this one port.
    pub address: Address,
    /// Where it listens, when that is not `address` (`0.0.0.0:7001`, a container's port).
    #[serde(default)]
    pub listen: Option<Address>,
    /// Its public key.
    pub key: PartyKey,
    /// The file of its private key, read by that party alone.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// The directory where it keeps deployed models, used by that party alone.
    #[serde(default)]
    pub state: Option<PathBuf>,
}

impl PartyConfig {
    /// Where it listens.
    #[must_use]
    pub fn listen_address(&self) -> &Address {
        self.listen.as_ref().unwrap_or(&self.address)
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Clients {
    #[serde(default)]
    server0: ClientAccess,
    #[serde(default)]
    server1: ClientAccess,
    #[serde(default, rename = "crypto-producer")]
    crypto_producer: ClientAccess,
}

/// How browsers reach a party. Party links do not depend on it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientAccess {
    /// An ordinary certificate chain (PEM) that browsers accept. An Ed25519 one they do not.
    #[serde(default)]
    pub tls_certificate: Option<PathBuf>,
    /// Its private key (PEM).
    #[serde(default)]
    pub tls_key: Option<PathBuf>,
    /// A proxy on the same machine ends the clients' TLS and connects over loopback.
    #[serde(default)]
    pub proxy: bool,
}

impl Cluster {
    /// Reads and checks a `cluster.toml`. Relative paths in it start at its own directory.
    ///
    /// # Errors
    /// When the file cannot be read or anything in it is wrong.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        use std::io::Read;
        let unreadable = |source| ConfigError::Read { path: path.to_owned(), source };
        let mut text = String::new();
        std::fs::File::open(path)
            .map_err(unreadable)?
            .take(FILE_LIMIT)
            .read_to_string(&mut text)
            .map_err(unreadable)?;
        Self::parse(&text, path)
    }

    /// Checks the text of a `cluster.toml` that came from `path`.
    ///
    /// # Errors
    /// When anything in it is wrong.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let mut cluster: Self = toml::from_str(text).map_err(|error| ConfigError::from_toml(path, text, &error))?;
        cluster.path = path.to_owned();
        cluster.check(text)?;
        let directory = path.parent().unwrap_or(Path::new("")).to_owned();
        for path in cluster.paths_mut().into_iter().flatten() {
            *path = directory.join(&*path);
        }
        Ok(cluster)
    }

    /// The file this came from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A party's address, key and files.
    #[must_use]
    pub fn party(&self, role: Role) -> &PartyConfig {
        match role {
            Role::Server0 => &self.server0,
            Role::Server1 => &self.server1,
            Role::CryptoProducer => &self.crypto_producer,
        }
    }

    /// How browsers reach a party.
    #[must_use]
    pub fn clients(&self, role: Role) -> &ClientAccess {
        match role {
            Role::Server0 => &self.clients.server0,
            Role::Server1 => &self.clients.server1,
            Role::CryptoProducer => &self.clients.crypto_producer,
        }
    }

    /// The deployer who holds this key, by name.
    #[must_use]
    pub fn deployer(&self, key: &PartyKey) -> Option<&str> {
        self.deployers.iter().find(|(_, pinned)| *pinned == key).map(|(name, _)| name.as_str())
    }

    /// Reads a party's private key from `SELKIE_KEY` (PEM) or else its `key_file`, and sees that
    /// it is the one pinned.
    ///
    /// # Errors
    /// When there is none, it cannot be read, or its public half is another than `key`.
    pub fn identity(&self, role: Role) -> Result<Identity, ConfigError> {
        self.identity_from(role, std::env::var(KEY_VARIABLE).ok())
    }

    fn identity_from(&self, role: Role, pem: Option<String>) -> Result<Identity, ConfigError> {
        let party = self.party(role);
        let identity = match (pem.map(zeroize::Zeroizing::new), &party.key_file) {
            (Some(pem), _) => Identity::from_pem(&pem, KEY_VARIABLE)?,
            (None, Some(path)) => Identity::load(path)?,
            (None, None) => {
                return Err(self.wrong(
                    "key_file",
                    format!(
                        "[{role}] names no private key: set key_file to the file that `selkie \
                         init --role {role}` wrote, or the environment variable {KEY_VARIABLE}"
                    ),
                ));
            }
        };
        if identity.public() != party.key {
            return Err(self.wrong(
                &format!("{role}.key"),
                format!(
                    "the private key of {role} belongs to the public key {}, but this file pins \
                     {}: correct `key` here and at the other parties, or use the right key_file",
                    identity.public(),
                    party.key
                ),
            ));
        }
        Ok(identity)
    }

    /// The directory where a party keeps deployed models.
    ///
    /// # Errors
    /// When the file names none.
    pub fn state(&self, role: Role) -> Result<&Path, ConfigError> {
        self.party(role).state.as_deref().ok_or_else(|| {
            self.wrong("state", format!("[{role}] names no directory for deployed models: set state = \"…\""))
        })
    }

    fn wrong(&self, key: &str, message: String) -> ConfigError {
        ConfigError::Wrong { path: self.path.clone(), line: None, key: key.to_owned(), message }
    }

    fn paths_mut(&mut self) -> [Option<&mut PathBuf>; 12] {
        let Self { server0, server1, crypto_producer, clients, .. } = self;
        let (c0, c1, c2) = (&mut clients.server0, &mut clients.server1, &mut clients.crypto_producer);
        [
            server0.key_file.as_mut(),
            server0.state.as_mut(),
            server1.key_file.as_mut(),
            server1.state.as_mut(),
            crypto_producer.key_file.as_mut(),
            crypto_producer.state.as_mut(),
            c0.tls_certificate.as_mut(),
            c0.tls_key.as_mut(),
            c1.tls_certificate.as_mut(),
            c1.tls_key.as_mut(),
            c2.tls_certificate.as_mut(),
            c2.tls_key.as_mut(),
        ]
    }

    /// What serde cannot see: conditions between keys.
    fn check(&self, text: &str) -> Result<(), ConfigError> {
        let wrong = |table: &str, key: &str, message: String| ConfigError::at(&self.path, text, table, key, message);
        for role in Role::ALL {
            let party = self.party(role);
            for other in role.others() {
                if self.party(other).key == party.key {
                    return Err(wrong(
                        other.name(),
                        "key",
                        format!(
                            "{role} and {other} have the same key: give each party the key that \
                             its own `selkie init --role …` printed"
                        ),
                    ));
                }
                if self.party(other).address == party.address {
                    return Err(wrong(
                        other.name(),
                        "address",
                        format!("{role} and {other} have the same address: each needs its own"),
                    ));
                }
            }
            if let Some(name) = self.deployer(&party.key) {
                return Err(wrong(
                    "deployers",
                    name,
                    format!("this is the key of {role}: a deployer needs a key of its own"),
                ));
            }
            if let Some((name, _)) = self.players.iter().find(|(_, pinned)| **pinned == party.key) {
                return Err(wrong(
                    "players",
                    name,
                    format!("this is the key of {role}: a player needs a key of its own"),
                ));
            }
            self.check_clients(role, &wrong)?;
        }
        if let Some(name) = self.players.keys().find(|name| name.is_empty() || name.len() > LONGEST_PLAYER) {
            return Err(wrong("players", name, format!("a player's name has 1 to {LONGEST_PLAYER} bytes")));
        }
        if let Some(emulation) = &self.emulation {
            if let Some(role) = Role::ALL.into_iter().find(|role| !self.party(*role).address.is_loopback()) {
                let message = format!(
                    "{} is not a loopback address, and a network is emulated on loopback alone: remove [emulation]",
                    self.party(role).address
                );
                return Err(wrong(role.name(), "address", message));
            }
            emulation.check().map_err(|(key, message)| wrong("emulation", key, message))?;
        }
        self.limits.check().map_err(|(key, message)| wrong("limits", key, message))
    }

    fn check_clients(&self, role: Role, wrong: &impl Fn(&str, &str, String) -> ConfigError) -> Result<(), ConfigError> {
        let access = self.clients(role);
        let table = format!("clients.{role}");
        match (&access.tls_certificate, &access.tls_key) {
            (Some(_), None) => Err(wrong(
                &table,
                "tls_certificate",
                "tls_certificate needs tls_key, the PEM file of its private key".to_owned(),
            )),
            (None, Some(_)) => Err(wrong(
                &table,
                "tls_key",
                "tls_key needs tls_certificate, the PEM file of the certificate chain".to_owned(),
            )),
            // Clients send shares to the servers alone, so only these must offer them TLS.
            (None, None)
                if role != Role::CryptoProducer && !access.proxy && !self.party(role).address.is_loopback() =>
            {
                Err(wrong(
                    role.name(),
                    "address",
                    format!(
                        "{} is not a loopback address, so clients must reach {role} by TLS: set \
                         tls_certificate and tls_key in [clients.{role}], or proxy = true there \
                         if a proxy on that machine ends the clients' TLS",
                        self.party(role).address
                    ),
                ))
            }
            _ => Ok(()),
        }
    }
}

impl From<IdentityError> for ConfigError {
    fn from(error: IdentityError) -> Self {
        Self::Identity(error)
    }
}

#[cfg(test)]
mod tests;
