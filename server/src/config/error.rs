//! What is wrong with a configuration, and where.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::identity::IdentityError;

/// Why a `cluster.toml` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is missing or unreadable.
    #[error(
        "{} cannot be read: {source}; `selkie init --local` writes one for trials on one \
         machine, `selkie init --sample` shows what it holds", path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Something in it is wrong.
    #[error("{}{}, {key}: {message}", path.display(), Line(*line))]
    Wrong {
        /// The file.
        path: PathBuf,
        /// The line, from 1, where one can be named.
        line: Option<usize>,
        /// The key, with its table.
        key: String,
        /// What is wrong and what to write.
        message: String,
    },
    /// A private key that it names cannot be used.
    #[error(transparent)]
    Identity(IdentityError),
}

struct Line(Option<usize>);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(line) => write!(f, " line {line}"),
            None => Ok(()),
        }
    }
}

impl ConfigError {
    /// What the TOML reader complains of, with line and key.
    pub(super) fn from_toml(path: &Path, text: &str, error: &toml::de::Error) -> Self {
        let offset = error.span().map_or(0, |span| span.start);
        let (line, key) = place(text, offset);
        let hint = if error.message().starts_with("unknown field") || error.message().starts_with("missing field") {
            "; `selkie init --sample` shows every key"
        } else {
            ""
        };
        Self::Wrong { path: path.to_owned(), line: Some(line), key, message: format!("{}{hint}", error.message()) }
    }

    /// An error at a key that is known by name.
    pub(super) fn at(path: &Path, text: &str, table: &str, key: &str, message: String) -> Self {
        Self::Wrong { path: path.to_owned(), line: line_of(text, table, key), key: format!("`{table}.{key}`"), message }
    }
}

fn header(line: &str) -> Option<&str> {
    line.trim().strip_prefix('[')?.split(']').next()
}

/// The line (from 1) and the key at a byte offset.
fn place(text: &str, offset: usize) -> (usize, String) {
    let (mut table, mut seen, mut number) = ("", 0, 0);
    for line in text.split_inclusive('\n') {
        number += 1;
        if let Some(name) = header(line) {
            table = name;
        }
        seen += line.len();
        if seen > offset {
            return match line.split_once('=') {
                Some((key, _)) if table.is_empty() => (number, format!("`{}`", key.trim())),
                Some((key, _)) => (number, format!("`{table}.{}`", key.trim())),
                None if table.is_empty() => (number, "the file".to_owned()),
                None => (number, format!("[{table}]")),
            };
        }
    }
    (number.max(1), "the file".to_owned())
}

/// The line (from 1) of a key, or else of its table.
fn line_of(text: &str, table: &str, key: &str) -> Option<usize> {
    let mut found = None;
    let mut inside = false;
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(name) = header(line) {
            inside = name == table;
            if inside {
                found = Some(number);
            }
        } else if inside && line.split_once('=').is_some_and(|(name, _)| name.trim() == key) {
            return Some(number);
        }
    }
    found
}
