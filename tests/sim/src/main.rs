//! Runs seeds of the simulation; `cargo xtask sim` calls it.
//!
//! Each seed has a thread of its own, since the Raft library draws its chance from one generator a thread.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "results are printed: that is what this program is for"
)]

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use simulation::{Failure, Plan, crowd, run, run_agents, run_backups, run_locks};

const USAGE: &str = "usage: simulation FROM TO [--agents | --locks | --backups | --crowd AGENTS] [--seconds S] [--threads N] [--trace] [--twice EVERY]";

/// Whose lives; each kind has seeds of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The clients use keys.
    Keys,
    /// The clients are agents.
    Agents,
    /// The clients take locks.
    Locks,
    /// The clients are snapshot agents.
    Backups,
    /// So many agents are a large pool in which little goes wrong.
    Crowd(usize),
}

struct Wish {
    from: u64,
    to: u64,
    kind: Kind,
    seconds: u64,
    threads: usize,
    trace: bool,
    /// Every how manieth seed is run twice, to compare.
    twice: u64,
}

fn wish() -> Option<Wish> {
    let mut words = std::env::args().skip(1);
    let mut wish = Wish {
        from: words.next()?.parse().ok()?,
        to: words.next()?.parse().ok()?,
        kind: Kind::Keys,
        seconds: 120,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        trace: false,
        twice: 0,
    };
    while let Some(word) = words.next() {
        match word.as_str() {
            "--seconds" => wish.seconds = words.next()?.parse().ok()?,
            "--threads" => wish.threads = words.next()?.parse().ok()?,
            "--twice" => wish.twice = words.next()?.parse().ok()?,
            "--agents" => wish.kind = Kind::Agents,
            "--locks" => wish.kind = Kind::Locks,
            "--backups" => wish.kind = Kind::Backups,
            "--crowd" => wish.kind = Kind::Crowd(words.next()?.parse().ok()?),
            "--trace" => wish.trace = true,
            _ => return None,
        }
    }
    Some(wish)
}

fn main() -> ExitCode {
    let Some(wish) = wish() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let begun = Instant::now();
    let next = AtomicU64::new(wish.from);
    let total = Mutex::new(Total::default());
    std::thread::scope(|scope| {
        for _ in 0..wish.threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= wish.to {
                        return;
                    }
                    let lived = one(&wish, seed);
                    let mut total = total.lock().expect("nobody panics while holding it");
                    total.simulated += lived.simulated;
                    total.converged = total.converged.max(lived.converged);
                    total.locks.add(&lived.locks);
                    total.backups.add(&lived.backups);
                    total.seeds += 1;
                    total.failures += lived.failures;
                }
            });
        }
    });
    let total = total.into_inner().expect("all threads are done");
    let wall = begun.elapsed().as_secs_f64();
    if wish.kind == Kind::Agents {
        println!(
            "catalogs were true at most {:.1} s after the last fault",
            total.converged.as_secs_f64()
        );
    }
    if wish.kind == Kind::Locks {
        let locks = &total.locks;
        println!(
            "locks: {} sessions, {} renewals, {} found gone, {} locks and {} places taken",
            locks.sessions, locks.renewals, locks.gone, locks.acquired, locks.entered
        );
    }
    if wish.kind == Kind::Backups {
        let backups = &total.backups;
        println!(
            "snapshots: {} published, {} removed, the lock taken {} times, {} restores; at most {:.1} s after the last fault there was a new one",
            backups.published,
            backups.removed,
            backups.taken,
            backups.restores,
            total.converged.as_secs_f64()
        );
    }
    println!(
        "done seeds={} failures={} simulated={:.0} wall={wall:.1}",
        total.seeds,
        total.failures,
        total.simulated.as_secs_f64()
    );
    if total.failures == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// What became of all seeds, or of one.
#[derive(Default)]
struct Total {
    simulated: Duration,
    /// How long it took at most until catalogs were true, where that is asked.
    converged: Duration,
    locks: Locks,
    backups: Backups,
    seeds: u64,
    failures: u64,
}

/// How much was done with locks.
#[derive(Default, Clone, PartialEq)]
struct Locks {
    sessions: usize,
    renewals: usize,
    gone: usize,
    acquired: usize,
    entered: usize,
}

impl Locks {
    fn add(&mut self, other: &Self) {
        self.sessions += other.sessions;
        self.renewals += other.renewals;
        self.gone += other.gone;
        self.acquired += other.acquired;
        self.entered += other.entered;
    }
}

/// How much was done with snapshots.
#[derive(Default, Clone, PartialEq)]
struct Backups {
    taken: usize,
    published: usize,
    removed: usize,
    restores: usize,
}

impl Backups {
    fn add(&mut self, other: &Self) {
        self.taken += other.taken;
        self.published += other.published;
        self.removed += other.removed;
        self.restores += other.restores;
    }
}

/// What a life was like, as far as it is printed and compared.
#[derive(PartialEq)]
struct Lived {
    told: String,
    simulated: Duration,
    converged: Duration,
    locks: Locks,
    backups: Backups,
}

fn live(kind: Kind, plan: Plan) -> Result<Lived, Box<Failure>> {
    let lived = |told, simulated| Lived {
        told,
        simulated,
        converged: Duration::ZERO,
        locks: Locks::default(),
        backups: Backups::default(),
    };
    Ok(match kind {
        Kind::Keys => {
            let report = run(plan)?;
            lived(format!("{report:?}"), report.course.simulated)
        }
        Kind::Agents => {
            let report = run_agents(plan)?;
            Lived {
                converged: report.converged,
                ..lived(format!("{report:?}"), report.course.simulated)
            }
        }
        Kind::Locks => {
            let report = run_locks(plan)?;
            let locks = Locks {
                sessions: report.sessions,
                renewals: report.renewals,
                gone: report.gone,
                acquired: report.acquired,
                entered: report.entered,
            };
            Lived {
                locks,
                ..lived(format!("{report:?}"), report.course.simulated)
            }
        }
        Kind::Backups => {
            let report = run_backups(plan)?;
            Lived {
                converged: report.recovered,
                backups: Backups {
                    taken: report.taken,
                    published: report.published,
                    removed: report.removed,
                    restores: report.restores,
                },
                ..lived(format!("{report:?}"), report.course.simulated)
            }
        }
        Kind::Crowd(size) => {
            let measured = crowd(plan, size)?;
            println!("{measured}");
            lived(format!("{measured:?}"), measured.simulated)
        }
    })
}

/// Runs one seed, twice if it is its turn.
fn one(wish: &Wish, seed: u64) -> Total {
    let plan = Plan {
        seed,
        length: Duration::from_secs(wish.seconds),
        is_told: wish.trace,
    };
    let kind = wish.kind;
    // A thread of its own, which a panic ends alone.
    let life = |plan| {
        std::thread::spawn(move || live(kind, plan))
            .join()
            .map_err(|panic| {
                let text = panic.downcast_ref::<String>().cloned();
                let text =
                    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                text.unwrap_or_default()
            })
    };
    let failed = |simulated| Total {
        simulated,
        failures: 1,
        ..Total::default()
    };
    match life(plan) {
        Ok(Ok(lived)) => {
            if wish.twice > 0 && seed.is_multiple_of(wish.twice) {
                let again = life(plan);
                if !matches!(&again, Ok(Ok(again)) if *again == lived) {
                    let again = again.map(|again| again.map(|again| again.told));
                    println!(
                        "FAILED seed={seed} property=\"a seed replays\" {} and then {again:?}",
                        lived.told
                    );
                    return failed(lived.simulated);
                }
            }
            if wish.trace {
                println!("seed={seed} {}", lived.told);
            }
            Total {
                simulated: lived.simulated,
                converged: lived.converged,
                locks: lived.locks,
                backups: lived.backups,
                ..Total::default()
            }
        }
        Ok(Err(failure)) => {
            println!(
                "FAILED seed={seed} property=\"{}\" hash={:016x} {}",
                failure.violation.property, failure.hash, failure.violation.what
            );
            failed(plan.length)
        }
        Err(panic) => {
            println!("FAILED seed={seed} property=\"nothing panics\" {panic}");
            failed(plan.length)
        }
    }
}
