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

use simulation::{Plan, run};

const USAGE: &str =
    "usage: simulation FROM TO [--seconds S] [--threads N] [--trace] [--twice EVERY]";

struct Wish {
    from: u64,
    to: u64,
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
    let total = Mutex::new((Duration::ZERO, 0_u64, 0_u64));
    std::thread::scope(|scope| {
        for _ in 0..wish.threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= wish.to {
                        return;
                    }
                    let (simulated, failures) = one(&wish, seed);
                    let mut total = total.lock().expect("nobody panics while holding it");
                    total.0 += simulated;
                    total.1 += 1;
                    total.2 += failures;
                }
            });
        }
    });
    let (simulated, seeds, failures) = *total.lock().expect("all threads are done");
    let wall = begun.elapsed().as_secs_f64();
    println!(
        "done seeds={seeds} failures={failures} simulated={:.0} wall={wall:.1}",
        simulated.as_secs_f64()
    );
    if failures == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs one seed, twice if it is its turn; says how long it lived and how many promises were broken.
fn one(wish: &Wish, seed: u64) -> (Duration, u64) {
    let plan = Plan {
        seed,
        length: Duration::from_secs(wish.seconds),
        is_told: wish.trace,
    };
    // A thread of its own, which a panic ends alone.
    let life = |plan| {
        std::thread::spawn(move || run(plan))
            .join()
            .map_err(|panic| {
                let text = panic.downcast_ref::<String>().cloned();
                let text =
                    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                text.unwrap_or_default()
            })
    };
    match life(plan) {
        Ok(Ok(report)) => {
            if wish.twice > 0 && seed.is_multiple_of(wish.twice) {
                let again = life(plan);
                if !matches!(&again, Ok(Ok(again)) if *again == report) {
                    println!(
                        "FAILED seed={seed} property=\"a seed replays\" {report:?} and then {again:?}"
                    );
                    return (report.simulated, 1);
                }
            }
            if wish.trace {
                println!("seed={seed} {report:?}");
            }
            (report.simulated, 0)
        }
        Ok(Err(failure)) => {
            println!(
                "FAILED seed={seed} property=\"{}\" hash={:016x} {}",
                failure.violation.property, failure.hash, failure.violation.what
            );
            (plan.length, 1)
        }
        Err(panic) => {
            println!("FAILED seed={seed} property=\"nothing panics\" {panic}");
            (plan.length, 1)
        }
    }
}
