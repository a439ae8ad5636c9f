//! The speed table: the real program, driven from outside, each target beside what was measured and what the
//! machine could do in the same run.
//!
//! A line is a function in the file of its subject and an entry in [`LINES`].
//! CPU per request is user and system time of the server's process divided by requests: the figure that survives a
//! machine which others use too.

mod access;
mod bucket;
mod ceiling;
mod chance;
mod cluster;
pub(crate) mod connection;
mod idle;
mod kv;
mod load;
mod locks;
mod million;
mod names;
pub(crate) mod process;
mod services;
mod snapshots;
mod table;
mod watchers;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;

use self::process::Agent;
use self::table::Measure;
use crate::arguments::{Arguments, unknown_name};
use crate::cargo::{cargo, root, run};

/// One line of the table, or a few that come from the same run.
struct Line {
    name: &'static str,
    about: &'static str,
    measure: fn(&Setting) -> Result<Vec<Measure>>,
}

/// One server alone; [`cluster::LINES`] are those of several.
const LINES: &[Line] = &[
    Line {
        name: "put",
        about: "durable writes over one connection",
        measure: kv::put_one,
    },
    Line {
        name: "put64",
        about: "durable writes over 64 connections",
        measure: kv::put_many,
    },
    Line {
        name: "get",
        about: "reads over 64 connections",
        measure: kv::get,
    },
    Line {
        name: "health",
        about: "a service of 100 instances",
        measure: services::health,
    },
    Line {
        name: "dns",
        about: "a name of 3 instances",
        measure: names::few,
    },
    Line {
        name: "dns1000",
        about: "a name of 1,000 instances, asked of a server",
        measure: names::many,
    },
    Line {
        name: "dns-srv",
        about: "ports of 100 instances over TCP",
        measure: names::ports,
    },
    Line {
        name: "dns-query",
        about: "names of prepared queries",
        measure: names::queries,
    },
    Line {
        name: "rules",
        about: "reads under a policy of 1,000 rules, and lists of 10,000 keys",
        measure: access::rules,
    },
    Line {
        name: "txn",
        about: "bulk load by transactions of 64",
        measure: kv::transactions,
    },
    Line {
        name: "renew",
        about: "renewals of 1,000 sessions",
        measure: locks::renew,
    },
    Line {
        name: "hand-over",
        about: "a lock that goes to and fro between two clients",
        measure: locks::hand_over,
    },
    Line {
        name: "watch",
        about: "9,500 watchers on one key",
        measure: watchers::one_key,
    },
    Line {
        name: "early",
        about: "5,000 watchers of services while others change",
        measure: watchers::elsewhere,
    },
    Line {
        name: "save",
        about: "snapshot save of a million keys",
        measure: million::save,
    },
    Line {
        name: "restore",
        about: "snapshot restore of a million keys",
        measure: million::restore,
    },
    Line {
        name: "snapshots",
        about: "snapshot verify, diff and redact of a million keys",
        measure: snapshots::snapshots,
    },
    Line {
        name: "keeper",
        about: "memory of a snapshot agent that has saved",
        measure: snapshots::keeper,
    },
    Line {
        name: "s3-save",
        about: "snapshot save to an S3 store on loopback",
        measure: bucket::save,
    },
    Line {
        name: "memory",
        about: "memory with a million keys",
        measure: million::memory,
    },
    Line {
        name: "idle",
        about: "start, memory at rest, size of the binary",
        measure: idle::idle,
    },
];

/// What every line is given.
#[derive(Debug)]
struct Setting {
    program: PathBuf,
    /// On the disk that also holds the build, not in memory: syncs must be real ones.
    scratch: TempDir,
    /// How long a load lasts.
    time: Duration,
}

impl Setting {
    fn agent(&self) -> Result<Agent> {
        Agent::start(&self.program, self.scratch.path())
    }
}

pub(crate) fn bench(mut arguments: Arguments) -> Result<()> {
    let quick = arguments.switch("--quick");
    let runs = arguments
        .number("--runs")?
        .unwrap_or(if quick { 1 } else { 5 })
        .max(1);
    let list = arguments.switch("--list");
    let as_built = arguments.switch("--no-build");
    let only_cluster = arguments.switch("--cluster");
    let named = arguments.operands()?;
    let alone = if only_cluster { &[] } else { LINES };
    let lines: Vec<&Line> = alone.iter().chain(cluster::LINES).collect();
    if list {
        for line in lines {
            println!("{:<15} {}", line.name, line.about);
        }
        return Ok(());
    }
    let names: Vec<&str> = lines.iter().map(|line| line.name).collect();
    if let Some(name) = named.iter().find(|name| !names.contains(&name.as_str())) {
        return Err(unknown_name(name, &names));
    }
    if !as_built {
        println!("== building");
        run(&mut cargo(&[
            "build",
            "--release",
            "-p",
            "consul",
            "--locked",
        ]))?;
    }
    let target = root().join("target");
    let setting = Setting {
        program: target.join("release/consul"),
        scratch: TempDir::with_prefix_in("bench-", &target).context("creating a scratch folder")?,
        time: Duration::from_secs(if quick { 2 } else { 4 }),
    };
    raise_open_files()?;
    let mut rows = Vec::new();
    let mut broken = Vec::new();
    for line in lines
        .into_iter()
        .filter(|line| named.is_empty() || named.iter().any(|name| name == line.name))
    {
        println!("== {}: {}", line.name, line.about);
        match measure(line, &setting, runs) {
            Ok(measured) => rows.extend(measured),
            Err(error) => {
                println!("{error:#}");
                broken.push(line.name);
            }
        }
    }
    println!("\nmedians of {runs}:\n");
    print!("{}", table::render(&rows));
    if !broken.is_empty() {
        bail!("not measured: {}", broken.join(", "));
    }
    match rows.iter().filter(|row| !row.reached()).count() {
        0 => Ok(()),
        n => bail!("{n} of {} targets missed", rows.len()),
    }
}

fn measure(line: &Line, setting: &Setting, runs: u64) -> Result<Vec<Measure>> {
    let mut all = Vec::new();
    for number in 1..=runs {
        let measures =
            (line.measure)(setting).with_context(|| format!("{} in run {number}", line.name))?;
        for measure in &measures {
            println!("   {number}: {measure}");
        }
        all.push(measures);
    }
    Ok(table::medians(&all))
}

/// Ten thousand watchers need as many descriptors, here and in the server, which inherits the limit.
fn raise_open_files() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).context("raising the limit of open files")
}
