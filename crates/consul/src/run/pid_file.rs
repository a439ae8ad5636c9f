//! A file that says which process the agent is.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// A file with the process id, removed at the end.
pub(super) struct PidFile(PathBuf);

impl PidFile {
    pub(super) fn write(path: &Path) -> anyhow::Result<Self> {
        fs::write(path, std::process::id().to_string())
            .with_context(|| format!("writing the pid file {}", path.display()))?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::warn!("cannot remove the pid file {}: {error}", self.0.display());
        }
    }
}
