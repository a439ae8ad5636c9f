//! The one entrance to the project: checks, fixes, simulation, fuzzing, crash rounds and measurements.
//!
//! Start with [`COMMANDS`]: a command is one file and one line in that table.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "progress and results are printed: that is what this program is for"
)]

mod arguments;
mod at_rest;
mod bench;
mod cargo;
mod check;
mod cluster;
mod planted;
mod rounds;
mod sim;
mod steps;
mod tidy;

use std::process::ExitCode;

use anyhow::Result;
use arguments::{Arguments, Misuse};

/// One thing that can be asked of this program.
struct Command {
    name: &'static str,
    /// What may follow the name.
    operands: &'static str,
    about: &'static str,
    run: fn(Arguments) -> Result<()>,
}

/// Every command, in the order in which the usage shows them.
const COMMANDS: &[Command] = &[
    Command {
        name: "check",
        operands: "",
        about: "format, lints, tidy, documentation and all tests; changes no file",
        run: check::check,
    },
    Command {
        name: "fix",
        operands: "",
        about: "mend what a machine can mend: format and lints",
        run: check::fix,
    },
    Command {
        name: "tidy",
        operands: "",
        about: "the house rules that a compiler can't see",
        run: check::tidy,
    },
    Command {
        name: "sim",
        operands: "[SEED…] [--agents | --locks | --backups | --crowd] [--seeds N] [--minutes M] [--from SEED] [--seconds S] [--no-ledger]",
        about: "whole clusters: named seeds with their traces, or the next N (200, with agents of either kind 100) behind the ledger's last, or for M minutes; --agents for those whose clients are agents, --locks for those whose clients take locks, --backups for those with snapshot agents, --crowd for large pools of these, with times",
        run: sim::sim,
    },
    Command {
        name: "planted",
        operands: "[NAME…] [--seeds N]",
        about: "bugs put in on purpose, each of which the simulation must catch",
        run: planted::planted,
    },
    Command {
        name: "lives",
        operands: "[SEED…] [--seeds N] [--release]",
        about: "the simulations of single crates, under the named seeds or under N of them (1000)",
        run: rounds::lives,
    },
    Command {
        name: "crash",
        operands: "[--rounds N] [--restore-rounds N] [--seed S]",
        about: "kill -9 under write load (200) and during restores (100)",
        run: rounds::crash,
    },
    Command {
        name: "cluster",
        operands: "[--rounds N] [--seed S]",
        about: "clusters of the real program in N rounds (20) of trouble",
        run: cluster::cluster,
    },
    Command {
        name: "fuzz",
        operands: "[TARGET…] [--seconds N]",
        about: "every fuzz target for N seconds (60); needs a nightly and cargo-fuzz",
        run: rounds::fuzz,
    },
    Command {
        name: "compat",
        operands: "",
        about: "the transcripts and snapshot files of the original, against ours",
        run: rounds::compat,
    },
    Command {
        name: "bench",
        operands: "[LINE…] [--cluster] [--runs N] [--quick] [--no-build] [--list]",
        about: "the speed table: target, measured, ceiling of the same run; --cluster for several servers only",
        run: bench::bench,
    },
    Command {
        name: "at-rest",
        operands: "[--no-build]",
        about: "makes the list anew by which the linker puts together what runs in an agent at rest",
        run: at_rest::at_rest,
    },
];

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let Some(name) = words.next() else {
        eprint!("{}", usage());
        return ExitCode::from(2);
    };
    if matches!(name.as_str(), "help" | "-h" | "--help") {
        print!("{}", usage());
        return ExitCode::SUCCESS;
    }
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        eprintln!("unknown command {name:?}\n");
        eprint!("{}", usage());
        return ExitCode::from(2);
    };
    let arguments = Arguments::new(words);
    if arguments.asks_for_help() {
        println!(
            "usage: cargo xtask {} {}\n\n{}",
            command.name, command.operands, command.about
        );
        return ExitCode::SUCCESS;
    }
    match (command.run)(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Misuse>() => {
            eprintln!(
                "{error}\n\nusage: cargo xtask {} {}",
                command.name, command.operands
            );
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> String {
    let mut text = String::from("usage: cargo xtask <command>\n\n");
    for Command {
        name,
        operands,
        about,
        ..
    } in COMMANDS
    {
        let call = format!("{name} {operands}");
        text.push_str(&format!("  {}\n      {about}\n", call.trim_end()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_names_every_command_once() {
        let text = usage();
        for command in COMMANDS {
            let lines = text
                .lines()
                .filter(|line| line.split(' ').nth(2) == Some(command.name));
            assert_eq!(lines.count(), 1, "{}", command.name);
        }
    }
}
