//! Bugs put in on purpose: the simulation must catch each of them, or it would not catch those that nobody put in.
//!
//! Each is a patch in [`FOLDER`] with a heading of two lines: what it breaks, and within how many seeds it must be caught,
//! of which kind of lives if they are those with agents: `caught within 40 seeds of agents`, `of locks`, `of backups` or `of crowds`.
//! It is applied to a copy of the tree, which keeps its own build directory so that the next one builds quickly.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::arguments::{Arguments, parse_number, unknown_name};
use crate::cargo::{output, root};
use crate::sim::{self, Kind};
use crate::steps::Steps;

const FOLDER: &str = "tests/sim/planted";

/// Seeds that are run before looking whether the bug was caught.
const BATCH: u64 = 20;

/// The same of crowds, which take long.
const CROWDS: u64 = 2;

/// A planted bug.
struct Planted {
    name: String,
    patch: PathBuf,
    /// In which lives it shows.
    kind: Kind,
    /// Within how many seeds it must be caught.
    seeds: u64,
}

/// Plants the named bugs, or all, one after the other.
pub(crate) fn planted(mut arguments: Arguments) -> Result<()> {
    let seeds = arguments.number("--seeds")?;
    let named = arguments.operands()?;
    let all = list()?;
    let known: Vec<&str> = all.iter().map(|planted| planted.name.as_str()).collect();
    if let Some(name) = named.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(unknown_name(name, &known));
    }
    let tree = Tree::prepare()?;
    let mut steps = Steps::default();
    for planted in &all {
        if named.is_empty() || named.contains(&planted.name) {
            steps.run(&planted.name, || {
                catch(&tree, planted, seeds.unwrap_or(planted.seeds))
            });
        }
    }
    steps.finish()
}

/// All that there are, by name.
fn list() -> Result<Vec<Planted>> {
    let folder = root().join(FOLDER);
    let mut all = Vec::new();
    for entry in
        std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?
    {
        let patch = entry?.path();
        if patch.extension().is_none_or(|ending| ending != "patch") {
            continue;
        }
        let text = std::fs::read_to_string(&patch)
            .with_context(|| format!("reading {}", patch.display()))?;
        let name = patch.file_stem().unwrap_or_default().to_string_lossy();
        let (seeds, kind) = seeds_of(&text).with_context(|| format!("the heading of {name}"))?;
        all.push(Planted {
            name: name.into_owned(),
            patch,
            kind,
            seeds,
        });
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// The line `caught within N seeds`, or `… of agents`, `… of locks`, `… of backups` or `… of crowds`, before the patch itself.
fn seeds_of(patch: &str) -> Result<(u64, Kind)> {
    let heading = patch.lines().take_while(|line| !line.starts_with("--- "));
    let within = heading
        .filter_map(|line| line.trim().strip_prefix("caught within "))
        .find_map(|rest| match rest.strip_suffix(" seeds") {
            Some(number) => Some((number, Kind::Keys)),
            None => match rest.split_once(" seeds of ")? {
                (number, "agents") => Some((number, Kind::Agents)),
                (number, "locks") => Some((number, Kind::Locks)),
                (number, "backups") => Some((number, Kind::Backups)),
                (number, "crowds") => Some((number, Kind::Crowd)),
                _ => None,
            },
        });
    let (number, kind) = within.context("a line like «caught within 100 seeds» is missing")?;
    Ok((parse_number(number)?, kind))
}

/// A copy of the tree, in which bugs are planted.
struct Tree {
    folder: PathBuf,
}

impl Tree {
    /// Brings the copy to the state of the tree, uncommitted changes included. Files that didn't change keep their time,
    /// or everything would be built anew.
    fn prepare() -> Result<Self> {
        let folder = root().join("target/planted");
        let mut listing = Command::new("git");
        listing
            .args([
                "ls-files",
                "-z",
                "--cached",
                "--others",
                "--exclude-standard",
            ])
            .current_dir(root());
        let files = output(&mut listing)?;
        let wanted: std::collections::BTreeSet<&str> =
            files.split('\0').filter(|file| !file.is_empty()).collect();
        for file in &wanted {
            let from = root().join(file);
            // Deleted, but not committed.
            if from.is_file() {
                copy_if_other(&from, &folder.join(file))?;
            }
        }
        remove_others(&folder, &folder, &wanted)?;
        Ok(Self { folder })
    }

    fn patch(&self, patch: &Path, flags: &[&str]) -> Result<()> {
        let text = std::fs::read(patch).with_context(|| format!("reading {}", patch.display()))?;
        let mut child = Command::new("git")
            // The copy lies inside of the tree, which git would take for the place to work on.
            .env("GIT_CEILING_DIRECTORIES", root().join("target"))
            .args(["apply", "--whitespace=nowarn"])
            .args(flags)
            .arg("-")
            .current_dir(&self.folder)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting git")?;
        child
            .stdin
            .take()
            .context("git takes no input")?
            .write_all(&text)
            .context("giving git the patch")?;
        let done = child.wait_with_output().context("waiting for git")?;
        ensure!(
            done.status.success(),
            "the patch does not apply any more: {}",
            String::from_utf8_lossy(&done.stderr).trim()
        );
        Ok(())
    }
}

fn copy_if_other(from: &Path, to: &Path) -> Result<()> {
    let content = std::fs::read(from).with_context(|| format!("reading {}", from.display()))?;
    if std::fs::read(to).is_ok_and(|there| there == content) {
        return Ok(());
    }
    if let Some(parent) = to.parent() {
        std::fs::create_dir_all(parent)
            .with_context(|| format!("creating {}", parent.display()))?;
    }
    std::fs::write(to, content).with_context(|| format!("writing {}", to.display()))
}

/// Removes sources that are not in the tree any more.
fn remove_others(
    top: &Path,
    folder: &Path,
    wanted: &std::collections::BTreeSet<&str>,
) -> Result<()> {
    for entry in
        std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?
    {
        let path = entry?.path();
        let name = path.strip_prefix(top).unwrap_or(&path).to_string_lossy();
        if name == "target" {
            continue;
        }
        if path.is_dir() {
            remove_others(top, &path, wanted)?;
        } else if !wanted.contains(&*name) {
            std::fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    Ok(())
}

/// Plants a bug and runs seeds until one shows it.
fn catch(tree: &Tree, planted: &Planted, seeds: u64) -> Result<()> {
    tree.patch(&planted.patch, &[])?;
    let caught =
        sim::build(&tree.folder).and_then(|program| first_failure(&program, planted.kind, seeds));
    tree.patch(&planted.patch, &["--reverse"])?;
    match caught? {
        Some((seed, property)) => {
            println!("caught by seed {seed}: {property}");
            Ok(())
        }
        None => bail!("not caught within {seeds} seeds"),
    }
}

fn first_failure(program: &Path, kind: Kind, seeds: u64) -> Result<Option<(u64, String)>> {
    let batch = match kind {
        Kind::Keys | Kind::Agents | Kind::Locks | Kind::Backups => BATCH,
        Kind::Crowd => CROWDS,
    };
    let mut from = 0;
    while from < seeds {
        let to = seeds.min(from + batch);
        let text = sim::run_seeds(program, from, to, kind.seconds(), kind.flags())?;
        if let Some(first) = sim::read(&text)?.first {
            return Ok(Some(first));
        }
        from = to;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heading_says_how_many_seeds() {
        let patch = "A vote is not synced.\ncaught within 40 seeds\n\n--- a/x\n+++ b/x\n";
        assert_eq!(seeds_of(patch).unwrap(), (40, Kind::Keys));
        let patch = patch.replace("seeds", "seeds of agents");
        assert_eq!(seeds_of(&patch).unwrap(), (40, Kind::Agents));
        assert!(seeds_of("--- a/x\ncaught within 40 seeds\n").is_err());
    }

    #[test]
    fn every_planted_bug_has_a_heading_and_applies() {
        for planted in list().unwrap() {
            let mut check = Command::new("git");
            check.args(["apply", "--check"]).arg(&planted.patch);
            check.current_dir(root());
            // Or nobody would notice until somebody plants them all, which takes an hour.
            output(&mut check).unwrap_or_else(|why| panic!("{}: {why:#}", planted.name));
        }
    }
}
