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

use simulation::{Failure, Plan, crowd, run, run_agents};

const USAGE: &str = "usage: simulation FROM TO [--agents | --crowd AGENTS] [--seconds S] [--threads N] [--trace] [--twice EVERY]";

struct Wish {
    from: u64,
    to: u64,
    /// Whether the clients are agents; these are other lives, with seeds of their own.
    agents: bool,
    /// How many agents a large pool has in which little goes wrong; 0 for another life.
    crowd: usize,
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
        agents: false,
        crowd: 0,
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
            "--agents" => wish.agents = true,
            "--crowd" => wish.crowd = words.next()?.parse().ok()?,
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
                    total.seeds += 1;
                    total.failures += lived.failures;
                }
            });
        }
    });
    let total = total.into_inner().expect("all threads are done");
    let wall = begun.elapsed().as_secs_f64();
    if wish.agents {
        println!(
            "catalogs were true at most {:.1} s after the last fault",
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
    seeds: u64,
    failures: u64,
}

/// What a life was like, as far as it is printed and compared.
#[derive(PartialEq)]
struct Lived {
    told: String,
    simulated: Duration,
    converged: Duration,
}

fn live(agents: bool, size: usize, plan: Plan) -> Result<Lived, Box<Failure>> {
    if size > 0 {
        let measured = crowd(plan, size)?;
        println!("{measured}");
        return Ok(Lived {
            told: format!("{measured:?}"),
            simulated: measured.simulated,
            converged: Duration::ZERO,
        });
    }
    if agents {
        let report = run_agents(plan)?;
        return Ok(Lived {
            told: format!("{report:?}"),
            simulated: report.course.simulated,
            converged: report.converged,
        });
    }
    let report = run(plan)?;
    Ok(Lived {
        told: format!("{report:?}"),
        simulated: report.course.simulated,
        converged: Duration::ZERO,
    })
}

/// Runs one seed, twice if it is its turn.
fn one(wish: &Wish, seed: u64) -> Total {
    let plan = Plan {
        seed,
        length: Duration::from_secs(wish.seconds),
        is_told: wish.trace,
    };
    let (agents, size) = (wish.agents, wish.crowd);
    // A thread of its own, which a panic ends alone.
    let life = |plan| {
        std::thread::spawn(move || live(agents, size, plan))
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
