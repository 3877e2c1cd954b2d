//! A directory for a while: for the demo's and the benchmark's keys, configuration and state.

use std::path::{Path, PathBuf};

use crate::exit::Failure;
use crate::node::{fresh, hex};

/// A directory of this user's alone, that goes when this does.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// A fresh one.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn new(purpose: &str) -> Result<Self, Failure> {
        let name = format!("selkie-{purpose}-{}", hex(&fresh::<8>().map_err(Failure::other)?));
        let path = std::env::temp_dir().join(name);
        let mut builder = std::fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&path)?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It held shares of weights that everybody may see.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
