//! Lives of clusters from seeds: `cargo run --release -p consensus --example simulate -- FIRST COUNT SERVERS`.
//!
//! Each seed prints nothing unless it breaks a promise; that seed shows it again. Ends with 1 then.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "printing is what it is for"
)]

use std::process::ExitCode;

use consensus::sim;
use tokio::time::Instant;

fn main() -> ExitCode {
    let number = |place, default| {
        let argument = std::env::args().nth(place);
        argument
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    let (first, count, servers) = (number(1, 1_u64), number(2, 100), number(3, 3));
    let begun = Instant::now();
    let mut total = sim::Report::default();
    let mut broken = 0;
    for seed in first..first.saturating_add(count) {
        match sim::run(seed, usize::try_from(servers).unwrap_or(3)) {
            Ok(report) => total.add(&report),
            Err(violation) => {
                eprintln!("{violation}");
                broken += 1;
            }
        }
    }
    println!(
        "{count} lives of {servers} servers in {:?}, {broken} broken: {total:?}",
        begun.elapsed(),
    );
    if broken == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
