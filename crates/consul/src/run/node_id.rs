//! The id of this node, kept in the data directory once it was given.

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use anyhow::Context as _;

/// The file's name is the original's.
const FILE: &str = "node-id";

/// The longest content that is believed: an id and a line break.
const LENGTH_MAX: u64 = 64;

/// The id to go by: the one that is configured, else the one that was kept; a node that was never given one has none.
///
/// # Errors
/// If what is kept is no id, or can't be read or written.
pub(super) fn settle(
    data_dir: Option<&Path>,
    configured: Option<&str>,
) -> anyhow::Result<Option<String>> {
    let Some(path) = data_dir.map(|data_dir| data_dir.join(FILE)) else {
        return Ok(configured.map(str::to_owned));
    };
    if let Some(id) = configured {
        fs::write(&path, id)
            .with_context(|| format!("keeping the id of this node in {}", path.display()))?;
        return Ok(Some(id.to_owned()));
    }
    let mut kept = String::new();
    match fs::File::open(&path) {
        Ok(file) => file.take(LENGTH_MAX).read_to_string(&mut kept),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => Err(error),
    }
    .with_context(|| format!("reading the id of this node from {}", path.display()))?;
    let kept = kept.trim();
    anyhow::ensure!(
        model::parse_uuid(kept.as_bytes()).is_some(),
        "{} holds no UUID; correct or remove it",
        path.display()
    );
    Ok(Some(kept.to_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_given_it_is_kept() {
        let room = tempfile::tempdir().unwrap();
        let here = Some(room.path());
        let id = "40e4a748-2192-161a-0510-9bf59fe950b5";
        assert_eq!(settle(here, None).unwrap(), None);
        assert_eq!(settle(here, Some(id)).unwrap().as_deref(), Some(id));
        assert_eq!(settle(here, None).unwrap().as_deref(), Some(id));
        fs::write(room.path().join(FILE), "x".repeat(1000)).unwrap();
        let why = settle(here, None).unwrap_err().to_string();
        assert!(
            why.ends_with("holds no UUID; correct or remove it"),
            "{why}"
        );
        assert_eq!(settle(None, None).unwrap(), None);
    }
}
