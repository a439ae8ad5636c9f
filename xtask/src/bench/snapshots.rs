//! Snapshots of a million keys as files: what the program takes to prove one, to compare two, and to redact one.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Setting;
use super::connection::succeed;
use super::kv::load_keys;
use super::process::{Agent, status_of};
use super::table::Measure;

const KEYS: u64 = 1_000_000;
/// So many of them are others in the second snapshot.
const CHANGED: u64 = 32_000;
const SIZE: usize = 256;
const MEGABYTE: f64 = 1e6;
/// The exit code of a comparison that finds differences.
const DIFFERENT: i32 = 2;

pub(super) fn snapshots(setting: &Setting) -> Result<Vec<Measure>> {
    let [first, second] = files(setting)?;
    let redacted = setting.scratch.path().join("redacted.snap");
    let run = |command: &str, files: &[&Path], status: i32| {
        Run::measure(&setting.program, command, files, status)
            .with_context(|| format!("snapshot {command}"))
    };
    let verify = run("verify", &[&first], 0)?;
    let same = run("diff", &[&first, &first], 0)?;
    let different = run("diff", &[&first, &second], DIFFERENT)?;
    let redact = run("redact", &[&first, &redacted], 0)?;
    Ok(vec![
        Measure::at_most(
            "snapshot verify, 1 million keys of 256 B",
            "s",
            verify.seconds(),
            6.0,
        ),
        Measure::at_most("verify: peak memory", "MB", verify.peak / MEGABYTE, 600.0),
        Measure::at_most(
            "snapshot diff of two that differ in 3 %",
            "s",
            different.seconds(),
            6.0,
        )
        .beside(same.seconds()),
        Measure::at_most("diff: peak memory", "MB", different.peak / MEGABYTE, 600.0),
        Measure::shown("snapshot redact", "s", redact.seconds()),
        Measure::at_most("redact: peak memory", "MB", redact.peak / MEGABYTE, 64.0),
    ])
}

/// How long a snapshot agent may take for its first snapshot and the proof.
const FIRST_MAX: Duration = Duration::from_secs(60);

/// What a snapshot agent has in memory when it has saved, proved, and nothing to do for an hour.
pub(super) fn keeper(setting: &Setting) -> Result<Vec<Measure>> {
    let agent = setting.agent()?;
    let folder = setting.scratch.path().join("kept");
    let mut keeper = Command::new(&setting.program)
        .args(["snapshot", "agent", "-interval=1h"])
        .arg(format!("-http-addr={}", agent.address))
        .arg(format!("-local-path={}", folder.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("starting {}", setting.program.display()))?;
    let memory = at_rest(keeper.id(), &folder);
    keeper
        .kill()
        .and_then(|()| keeper.wait())
        .context("ending the snapshot agent")?;
    let memory = memory? / MEGABYTE;
    Ok(vec![Measure::at_most(
        "snapshot agent at rest: memory",
        "MB",
        memory,
        12.0,
    )])
}

fn at_rest(keeper: u32, folder: &Path) -> Result<f64> {
    let start = Instant::now();
    // The note beside a snapshot is written when it is proved.
    let is_proved = || {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .into_iter()
            .any(|entry| entry.path().extension().is_some_and(|it| it == "json"))
    };
    while !is_proved() {
        if start.elapsed() > FIRST_MAX {
            bail!("no snapshot was proved within {FIRST_MAX:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_secs(3));
    status_of(keeper, "VmRSS:")
}

/// Two snapshots of the same cluster, one after the other.
fn files(setting: &Setting) -> Result<[PathBuf; 2]> {
    let agent = setting.agent()?;
    load_keys(agent.address, KEYS, SIZE, 5)?;
    let first = save(setting, &agent, "first.snap")?;
    load_keys(agent.address, CHANGED, SIZE, 6)?;
    let second = save(setting, &agent, "second.snap")?;
    Ok([first, second])
}

fn save(setting: &Setting, agent: &Agent, name: &str) -> Result<PathBuf> {
    let path = setting.scratch.path().join(name);
    let archive = succeed(agent.address, "GET", "/v1/snapshot", b"")?.into_body()?;
    std::fs::write(&path, archive).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

/// A command that ran to its end.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) took: Duration,
    /// The most resident memory, in bytes.
    pub(super) peak: f64,
}

impl Run {
    fn measure(program: &Path, command: &str, files: &[&Path], status: i32) -> Result<Self> {
        let mut program = Command::new(program);
        Self::of(program.args(["snapshot", command]).args(files), status)
    }

    /// Runs a command that ends with this exit code.
    pub(super) fn of(command: &mut Command, status: i32) -> Result<Self> {
        let start = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {}", command.get_program().display()))?;
        let mut peak = 0.0;
        let ended = loop {
            if let Some(ended) = child.try_wait()? {
                break ended;
            }
            // A process that has just ended has no memory any more, and no figure of it.
            peak = status_of(child.id(), "VmHWM:").unwrap_or(peak);
            std::thread::sleep(Duration::from_millis(2));
        };
        let took = start.elapsed();
        if ended.code() != Some(status) {
            bail!("it ended with {ended}");
        }
        Ok(Self { took, peak })
    }

    fn seconds(&self) -> f64 {
        self.took.as_secs_f64()
    }
}
