//! Who a party is: one Ed25519 key, and the name of its role.
//!
//! The private half lives in one file of mode 0600 (PKCS#8, PEM) and is wiped from memory when
//! dropped. The public half, [`PartyKey`], is what everybody else's `cluster.toml` pins.

use std::fmt;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// A private key file is some 120 bytes; whatever is longer than this is not one.
const KEY_FILE_LIMIT: u64 = 4096;

/// The environment variable that may hold a party's private key (PEM) instead of its `key_file`.
pub const KEY_VARIABLE: &str = "SELKIE_KEY";

/// A party's public key: 32 bytes, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PartyKey([u8; 32]);

impl PartyKey {
    /// Takes 32 bytes for a public key.
    ///
    /// # Errors
    /// When they are no point of the curve, or one of the few weak ones under which a signature
    /// verifies for any message.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, String> {
        match VerifyingKey::from_bytes(&bytes) {
            Ok(key) if !key.is_weak() => Ok(Self(bytes)),
            _ => Err("this is no usable Ed25519 public key".to_owned()),
        }
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether `signature` is this key's over `message`.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        VerifyingKey::from_bytes(&self.0)
            .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
    }

    /// The first eight digits: enough for a person to tell keys apart.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string().chars().take(8).collect()
    }
}

impl fmt::Display for PartyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PartyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PartyKey({self})")
    }
}

impl FromStr for PartyKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let complain = || {
            format!(
                "a key is the 64 hexadecimal digits that `selkie init` prints, and `{}` is not",
                text.chars().take(80).collect::<String>()
            )
        };
        let digits = text.as_bytes();
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(complain());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| complain())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| complain())?;
        }
        Self::from_bytes(bytes)
    }
}

impl TryFrom<String> for PartyKey {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<PartyKey> for String {
    fn from(key: PartyKey) -> Self {
        key.to_string()
    }
}

/// Why a private key could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file is missing or unreadable.
    #[error(
        "the private key {} cannot be read: {source}; `selkie init` creates one", path.display()
    )]
    Read {
        /// The key file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Others than its owner may read it.
    #[error(
        "the private key {path} can be read by other users of this machine (mode {mode:04o}): \
         run `chmod 600 {path}`, and if anybody else may have read it make a new key with \
         `selkie init --force`", path = path.display()
    )]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It holds something else.
    #[error("{origin} holds no Ed25519 private key in PKCS#8 PEM, as `selkie init` writes it")]
    Malformed {
        /// The file's path, or the environment variable.
        origin: String,
    },
    /// It exists already.
    #[error(
        "{} exists already, and a key that is overwritten is lost: use another directory, or \
         --force if that is what you want", path.display()
    )]
    Exists {
        /// The key file.
        path: PathBuf,
    },
    /// It could not be written.
    #[error("{} cannot be written: {source}", path.display())]
    Write {
        /// The key file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The operating system gave no randomness.
    #[error("the operating system gives no randomness: {0}")]
    Randomness(getrandom::Error),
}

/// A party's private key. Cheap to clone; wiped when the last clone is dropped.
#[derive(Clone)]
pub struct Identity(Arc<SigningKey>);

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({}, private half redacted)", self.public())
    }
}

impl Identity {
    /// Draws a fresh key.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn generate() -> Result<Self, IdentityError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut_slice()).map_err(IdentityError::Randomness)?;
        Ok(Self(Arc::new(SigningKey::from_bytes(&seed))))
    }

    /// Reads a key from PEM text; `origin` names where it came from in an error.
    ///
    /// # Errors
    /// When the text is no Ed25519 private key.
    pub fn from_pem(text: &str, origin: &str) -> Result<Self, IdentityError> {
        match SigningKey::from_pkcs8_pem(text.trim()) {
            Ok(key) => Ok(Self(Arc::new(key))),
            Err(_) => Err(IdentityError::Malformed { origin: origin.to_owned() }),
        }
    }

    /// Reads a key file, refusing one that other users may read.
    ///
    /// # Errors
    /// When it is missing, exposed, or holds something else.
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        let unreadable = |source| IdentityError::Read { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(unreadable)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o7777;
            if mode & 0o077 != 0 {
                return Err(IdentityError::Exposed { path: path.to_owned(), mode });
            }
        }
        let malformed = || IdentityError::Malformed { origin: path.display().to_string() };
        let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_FILE_LIMIT as usize));
        file.take(KEY_FILE_LIMIT).read_to_end(&mut bytes).map_err(unreadable)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| malformed())?;
        Self::from_pem(text, &path.display().to_string())
    }

    /// Writes the key to a file that only its owner can read. An existing file is replaced only
    /// with `force`.
    ///
    /// # Errors
    /// When the file exists already or cannot be written.
    pub fn save(&self, path: &Path, force: bool) -> Result<(), IdentityError> {
        let pem = self
            .0
            .to_pkcs8_pem(LineEnding::LF)
            .map_err(|_| IdentityError::Malformed { origin: "this key".to_owned() })?;
        if force {
            // The old file may have been readable by others: never write into it.
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(IdentityError::Write { path: path.to_owned(), source: error });
                }
                _ => {}
            }
        }
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options
            .open(path)
            .and_then(|mut file| {
                file.write_all(pem.as_bytes())?;
                file.sync_all()
            })
            .map_err(|source| match source.kind() {
                std::io::ErrorKind::AlreadyExists => IdentityError::Exists { path: path.to_owned() },
                _ => IdentityError::Write { path: path.to_owned(), source },
            })
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PartyKey {
        PartyKey(self.0.verifying_key().to_bytes())
    }

    /// Signs a message. Callers put a label of their own in front of it, so that a signature
    /// made for one purpose is good for no other.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

#[cfg(test)]
mod tests;
