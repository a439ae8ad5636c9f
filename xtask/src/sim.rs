//! Whole clusters from seeds: builds the simulation, runs seeds of it on all cores, and keeps the ledger.
//!
//! A ledger says which seeds were run at which commit. A run without a named seed goes on behind the last seed in it, so
//! that time spent is never spent twice on the same.
//! There are several kinds of lives, each with seeds and a ledger of its own: see [`Kind`].

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::arguments::{Arguments, parse_number};
use crate::cargo::{cargo, output, root, run};
use crate::steps::Steps;

/// Whose lives are simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Clusters with clients that write keys.
    Keys,
    /// Clusters with agents that keep the catalog true.
    Agents,
    /// Clusters with clients that take locks with sessions.
    Locks,
    /// Clusters with snapshot agents.
    Backups,
    /// Large pools of agents, in which little goes wrong and time is measured.
    Crowd,
}

impl Kind {
    /// What was run so far, one line a run: commit, first seed, seed behind the last, result, simulated and real seconds.
    fn ledger(self) -> Option<&'static str> {
        match self {
            Self::Keys => Some("tests/sim/ledger.txt"),
            Self::Agents => Some("tests/sim/ledger-agents.txt"),
            Self::Locks => Some("tests/sim/ledger-locks.txt"),
            Self::Backups => Some("tests/sim/ledger-backups.txt"),
            Self::Crowd => None,
        }
    }

    /// How the simulation is told.
    pub(crate) fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Keys => &[],
            Self::Agents => &["--agents"],
            Self::Locks => &["--locks"],
            Self::Backups => &["--backups"],
            Self::Crowd => &["--crowd", "200"],
        }
    }

    /// Seeds that are run when nothing is said: as many as fit into three minutes on two cores.
    fn seeds(self) -> u64 {
        match self {
            Self::Keys | Self::Locks => 200,
            Self::Agents | Self::Backups => 100,
            Self::Crowd => 2,
        }
    }

    /// Simulated seconds of each seed's life: snapshots and failovers take longer than anything else.
    pub(crate) fn seconds(self) -> u64 {
        match self {
            Self::Keys | Self::Agents | Self::Locks | Self::Crowd => 120,
            Self::Backups => 400,
        }
    }
}

/// Every how manieth seed is run twice, to see that it repeats.
const TWICE: u64 = 50;

/// Seeds of one line of the ledger, if there is no end but time.
const BATCH: u64 = 200;

/// The simulation under a named seed, with its trace, or under the next ones.
pub(crate) fn sim(mut arguments: Arguments) -> Result<()> {
    let seeds = arguments.number("--seeds")?;
    let minutes = arguments.number("--minutes")?;
    let seconds = arguments.number("--seconds")?;
    let from = arguments.number("--from")?;
    let is_noted = !arguments.switch("--no-ledger");
    let kind = if arguments.switch("--crowd") {
        Kind::Crowd
    } else if arguments.switch("--agents") {
        Kind::Agents
    } else if arguments.switch("--locks") {
        Kind::Locks
    } else if arguments.switch("--backups") {
        Kind::Backups
    } else {
        Kind::Keys
    };
    let seconds = seconds.unwrap_or(kind.seconds());
    let named = arguments.operands()?;
    let program = build(&root())?;
    if !named.is_empty() {
        let mut steps = Steps::default();
        for word in &named {
            let seed = parse_number(word)?;
            steps.run(&format!("seed {seed}"), || {
                replay(&program, kind, seed, seconds)
            });
        }
        return steps.finish();
    }
    let commit = commit()?;
    let ledger = kind.ledger().map(|ledger| root().join(ledger));
    let mut next = match (from, &ledger) {
        (Some(from), _) => from,
        (None, Some(ledger)) => next_seed(&std::fs::read_to_string(ledger).unwrap_or_default()),
        (None, None) => 0,
    };
    let end = minutes.map(|minutes| Instant::now() + Duration::from_secs(minutes * 60));
    let last = next
        + seeds.unwrap_or(if end.is_some() {
            u64::MAX / 2
        } else {
            kind.seeds()
        });
    let mut failed = 0;
    let mut undecided = 0;
    while next < last && end.is_none_or(|end| Instant::now() < end) {
        let to = if end.is_some() {
            last.min(next + BATCH)
        } else {
            last
        };
        let batch = batch(&program, kind, next, to, seconds, &commit)?;
        failed += batch.failures;
        undecided += batch.undecided;
        if let Some(ledger) = &ledger
            && is_noted
        {
            note(ledger, &commit, next, to, &batch)?;
        }
        next = to;
    }
    if failed > 0 {
        bail!(
            "{} seeds break a promise, {undecided} are undecided",
            failed - undecided
        );
    }
    Ok(())
}

/// Builds the simulation of a tree and says where it is.
pub(crate) fn build(tree: &Path) -> Result<PathBuf> {
    let mut command = cargo(&["build", "--profile", "sim", "-p", "simulation", "--quiet"]);
    command.current_dir(tree);
    run(&mut command)?;
    let folder = std::env::var_os("CARGO_TARGET_DIR")
        .filter(|_| tree == root())
        .map_or_else(|| tree.join("target"), PathBuf::from);
    Ok(folder.join("sim/simulation"))
}

/// One seed with all that happened, twice, to see that it repeats.
fn replay(program: &Path, kind: Kind, seed: u64, seconds: u64) -> Result<()> {
    let mut command = Command::new(program);
    command
        .args([seed.to_string(), (seed + 1).to_string()])
        .args(["--seconds", &seconds.to_string()])
        .args(["--trace", "--twice", "1"])
        .args(kind.flags());
    run(&mut command)
}

/// What became of a batch of seeds.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Batch {
    /// Seeds that did not keep all promises, the undecided ones among them.
    pub(crate) failures: u64,
    /// Seeds of which a checker couldn't say whether they broke a promise.
    pub(crate) undecided: u64,
    pub(crate) simulated: f64,
    pub(crate) wall: f64,
    /// The first seed that failed, and the promise that it broke.
    pub(crate) first: Option<(u64, String)>,
    /// The first seed that is undecided, and the promise with that word before it.
    first_undecided: Option<(u64, String)>,
}

/// How the simulation names what it could not decide.
const UNDECIDED: &str = "undecided: ";

fn batch(
    program: &Path,
    kind: Kind,
    from: u64,
    to: u64,
    seconds: u64,
    commit: &str,
) -> Result<Batch> {
    let twice = TWICE.to_string();
    let flags = [&["--twice", &twice], kind.flags()].concat();
    let text = run_seeds(program, from, to, seconds, &flags)?;
    let batch = read(&text)?;
    for line in text.lines().filter(|line| line.starts_with("FAILED")) {
        println!("commit {commit} {line}");
        let flags = kind.flags().first().copied().unwrap_or_default();
        println!("  again, with all that happened: cargo xtask sim SEED {flags}");
    }
    let is_figure = |line: &&str| {
        ["catalogs ", "crowd: ", "locks: ", "snapshots: "]
            .iter()
            .any(|word| line.starts_with(word))
    };
    for line in text.lines().filter(is_figure) {
        println!("{line}");
    }
    println!(
        "seeds {from}..{to} at {commit}: {} failed, {:.0} simulated seconds in {:.1} s, {:.0} a second",
        batch.failures,
        batch.simulated,
        batch.wall,
        batch.simulated / batch.wall.max(0.001)
    );
    Ok(batch)
}

/// Runs seeds and returns what the simulation says of them.
pub(crate) fn run_seeds(
    program: &Path,
    from: u64,
    to: u64,
    seconds: u64,
    flags: &[&str],
) -> Result<String> {
    let out = Command::new(program)
        .args([from.to_string(), to.to_string()])
        .args(["--seconds", &seconds.to_string()])
        .args(flags)
        .stderr(Stdio::null())
        .output()
        .with_context(|| format!("starting {}", program.display()))?;
    String::from_utf8(out.stdout).context("reading the simulation's answer")
}

/// Reads what the simulation says at its end.
pub(crate) fn read(text: &str) -> Result<Batch> {
    let done = text
        .lines()
        .find_map(|line| line.strip_prefix("done "))
        .context("the simulation ended early")?;
    let mut batch = Batch::default();
    for pair in done.split(' ') {
        let Some((name, value)) = pair.split_once('=') else {
            continue;
        };
        match name {
            "failures" => batch.failures = value.parse()?,
            "simulated" => batch.simulated = value.parse()?,
            "wall" => batch.wall = value.parse()?,
            _ => {}
        }
    }
    let mut failures: Vec<(u64, String)> = text.lines().filter_map(failure).collect();
    failures.sort_unstable();
    let (undecided, broken): (Vec<_>, Vec<_>) = failures
        .into_iter()
        .partition(|(_, property)| property.starts_with(UNDECIDED));
    batch.undecided = u64::try_from(undecided.len())?;
    batch.first_undecided = undecided.into_iter().next();
    batch.first = broken.into_iter().next();
    Ok(batch)
}

/// `FAILED seed=7 property="what" …`
fn failure(line: &str) -> Option<(u64, String)> {
    let rest = line.strip_prefix("FAILED seed=")?;
    let (seed, rest) = rest.split_once(' ')?;
    let property = rest.strip_prefix("property=\"")?.split('"').next()?;
    Some((seed.parse().ok()?, property.to_owned()))
}

/// The commit, and whether the tree is exactly that.
fn commit() -> Result<String> {
    let git = |words: &[&str]| {
        let mut command = Command::new("git");
        command.args(words).current_dir(root());
        output(&mut command)
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&[
        "status",
        "--porcelain",
        "--untracked-files=no",
        "--",
        "crates",
        "tests/sim/src",
        "stand-ins",
        "Cargo.lock",
    ])?;
    let mark = if changed.trim().is_empty() { "" } else { "+" };
    Ok(format!("{}{mark}", commit.trim()))
}

const HEADING: &str = "# commit (+ if the tree was changed) | first seed | behind the last | failed | simulated s | real s\n";

fn note(ledger: &Path, commit: &str, from: u64, to: u64, batch: &Batch) -> Result<()> {
    let is_new = !ledger.exists();
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(ledger)
        .with_context(|| format!("opening {}", ledger.display()))?;
    let heading = if is_new { HEADING } else { "" };
    let firsts = batch.first.iter().chain(&batch.first_undecided);
    let firsts: Vec<String> = firsts
        .map(|(seed, property)| format!("seed {seed}: {property}"))
        .collect();
    let failed = if firsts.is_empty() {
        batch.failures.to_string()
    } else {
        format!("{} ({})", batch.failures, firsts.join(", "))
    };
    writeln!(
        file,
        "{heading}{commit} | {from} | {to} | {failed} | {:.0} | {:.0}",
        batch.simulated, batch.wall
    )
    .with_context(|| format!("writing {}", ledger.display()))
}

/// The seed behind all that were run.
fn next_seed(ledger: &str) -> u64 {
    let ends = ledger
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(" | ").nth(2)?.trim().parse().ok());
    ends.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_goes_on_where_the_ledger_ends() {
        assert_eq!(next_seed(""), 0);
        let ledger = format!(
            "{HEADING}abc | 0 | 200 | 0 | 26000 | 60\nabd+ | 200 | 250 | 1 (seed 204: x) | 9 | 9\n"
        );
        assert_eq!(next_seed(&ledger), 250);
    }

    #[test]
    fn what_the_simulation_says_is_read() {
        let text = "FAILED seed=9 property=\"a b\" hash=1 what\n  more\nFAILED seed=4 property=\"c\" x\ndone seeds=3 failures=2 simulated=398 wall=2.4\n";
        let batch = read(text).unwrap();
        assert_eq!((batch.failures, batch.simulated), (2, 398.0));
        assert_eq!(batch.first, Some((4, "c".to_owned())));
        assert!(read("").is_err());
    }

    #[test]
    fn what_is_undecided_fails_but_breaks_no_promise() {
        let text = "FAILED seed=3 property=\"undecided: a\" x\ndone seeds=5 failures=1 simulated=5 wall=1\n";
        let batch = read(text).unwrap();
        assert_eq!((batch.failures, batch.undecided), (1, 1));
        assert_eq!(batch.first, None);
        assert_eq!(batch.first_undecided, Some((3, "undecided: a".to_owned())));
    }
}
