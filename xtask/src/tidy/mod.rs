//! The house rules that a compiler can't see.
//!
//! A rule is a pure function from the tree to findings, and has a file of its own with the others of its subject.
//! A new rule is a function there and a line in [`findings`].

mod changelog;
mod documents;
mod edges;
mod fuzzing;
mod sources;

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};

pub(crate) use edges::{Member, members};

/// A broken rule and where.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) path: String,
    /// Counted from 1; 0 when it is about the file as a whole.
    pub(crate) line: usize,
    pub(crate) what: String,
}

impl Finding {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line,
            what: what.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.what),
            line => write!(f, "{}:{line}: {}", self.path, self.what),
        }
    }
}

/// Everything that breaks a rule.
pub(crate) fn findings(tree: &Tree, members: &[Member]) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(edges::check(tree, members));
    findings.extend(documents::check(tree));
    findings.extend(changelog::check(tree));
    findings.extend(sources::check(tree));
    findings.extend(fuzzing::check(tree));
    findings
}

/// The files of the project.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    files: Vec<File>,
    folders: BTreeSet<String>,
}

/// One file; its text only where rules read it.
#[derive(Debug)]
struct File {
    path: String,
    text: String,
}

impl Tree {
    /// Reads what belongs to the project: everything but what `.gitignore` names.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let ignore =
            std::fs::read_to_string(root.join(".gitignore")).context("reading .gitignore")?;
        let ignored: BTreeSet<&str> = ignore
            .lines()
            .filter_map(|line| line.strip_prefix('/'))
            .map(|line| line.trim_end_matches('/'))
            .collect();
        let mut tree = Self::default();
        tree.read_folder(root, "", &ignored)?;
        tree.files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(tree)
    }

    fn read_folder(&mut self, root: &Path, folder: &str, ignored: &BTreeSet<&str>) -> Result<()> {
        let shown = root.join(folder);
        for entry in
            std::fs::read_dir(&shown).with_context(|| format!("reading {}", shown.display()))?
        {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if folder.is_empty() {
                name.clone()
            } else {
                format!("{folder}/{name}")
            };
            if name == ".git" || ignored.contains(path.as_str()) {
                continue;
            }
            // Of a symbolic link this is the link itself: what it points to is not followed.
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.read_folder(root, &path, ignored)?;
                self.folders.insert(path);
            } else if kind.is_file() {
                // A file that goes away while we look is somebody's temporary one.
                let text = if is_read(&path) {
                    std::fs::read(entry.path())
                        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                        .unwrap_or_default()
                } else {
                    String::new()
                };
                self.files.push(File { path, text });
            }
        }
        Ok(())
    }

    fn text(&self, path: &str) -> Option<&str> {
        self.files
            .iter()
            .find(|file| file.path == path)
            .map(|file| file.text.as_str())
    }

    fn ending_in(&self, ending: &str) -> impl Iterator<Item = &File> {
        self.files
            .iter()
            .filter(move |file| file.path.ends_with(ending))
    }

    fn has(&self, path: &str) -> bool {
        self.folders.contains(path) || self.files.iter().any(|file| file.path == path)
    }

    #[cfg(test)]
    fn of(files: &[(&str, &str)]) -> Self {
        let mut tree = Self::default();
        for (path, text) in files {
            let mut folder = *path;
            while let Some((above, _)) = folder.rsplit_once('/') {
                tree.folders.insert(above.to_owned());
                folder = above;
            }
            tree.files.push(File {
                path: (*path).to_owned(),
                text: (*text).to_owned(),
            });
        }
        tree
    }
}

/// Test data is not ours to judge, and a lock file is cargo's.
fn is_read(path: &str) -> bool {
    let data = path.starts_with("fixtures/")
        || path.starts_with("fuzz/corpus/")
        || path.ends_with(".lock");
    let name = path.rsplit('/').next().unwrap_or(path);
    !data
        && (path.starts_with(".ci/")
            || [
                ".rs", ".md", ".toml", ".sh", ".py", ".txt", ".json", ".yml", ".hcl",
            ]
            .iter()
            .any(|ending| name.ends_with(ending)))
}
