//! The commands of the program, and the choice of one by the first words of the command line.
//!
//! A new command is a file of its name with a `SYNTAX` and a `run`, a variant of [`Command`], and a line in each match below.

mod agent;
mod child;
mod completion;
mod configtest;
mod event;
mod exec;
mod force_leave;
mod http;
mod info;
mod join;
mod keygen;
mod keyring;
mod kv;
mod leave;
mod lock;
mod maint;
mod members;
mod monitor;
mod operator;
mod reload;
mod rtt;
mod snapshot;
#[cfg(test)]
mod stub;
mod table;
mod version;
mod watch;

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use crate::console::Console;
use crate::flags::{self, Stop, Syntax};

pub use snapshot::agent::speaks_to_snapshot_agent;

/// Everything the program can be told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// `agent`
    Agent,
    /// `completion`
    Completion,
    /// `configtest`
    Configtest,
    /// `event`
    Event,
    /// `exec`
    Exec,
    /// `force-leave`
    ForceLeave,
    /// `info`
    Info,
    /// `join`
    Join,
    /// `keygen`
    Keygen,
    /// `keyring`
    Keyring,
    /// `kv delete`
    KvDelete,
    /// `kv export`
    KvExport,
    /// `kv get`
    KvGet,
    /// `kv import`
    KvImport,
    /// `kv put`
    KvPut,
    /// `leave`
    Leave,
    /// `lock`
    Lock,
    /// `maint`
    Maint,
    /// `members`
    Members,
    /// `monitor`
    Monitor,
    /// `operator raft`
    OperatorRaft,
    /// `reload`
    Reload,
    /// `rtt`
    Rtt,
    /// `snapshot agent`
    SnapshotAgent,
    /// `snapshot decode`
    SnapshotDecode,
    /// `snapshot diff`
    SnapshotDiff,
    /// `snapshot inspect`
    SnapshotInspect,
    /// `snapshot list`
    SnapshotList,
    /// `snapshot redact`
    SnapshotRedact,
    /// `snapshot restore`
    SnapshotRestore,
    /// `snapshot save`
    SnapshotSave,
    /// `snapshot show`
    SnapshotShow,
    /// `snapshot verify`
    SnapshotVerify,
    /// `validate`
    Validate,
    /// `version`
    Version,
    /// `watch`
    Watch,
}

/// A first word that stands before several commands.
struct Group {
    name: &'static str,
    summary: &'static str,
    about: &'static str,
}

impl Command {
    /// The commands in alphabetical order of their names.
    pub const ALL: &'static [Self] = &[
        Self::Agent,
        Self::Completion,
        Self::Configtest,
        Self::Event,
        Self::Exec,
        Self::ForceLeave,
        Self::Info,
        Self::Join,
        Self::Keygen,
        Self::Keyring,
        Self::KvDelete,
        Self::KvExport,
        Self::KvGet,
        Self::KvImport,
        Self::KvPut,
        Self::Leave,
        Self::Lock,
        Self::Maint,
        Self::Members,
        Self::Monitor,
        Self::OperatorRaft,
        Self::Reload,
        Self::Rtt,
        Self::SnapshotAgent,
        Self::SnapshotDecode,
        Self::SnapshotDiff,
        Self::SnapshotInspect,
        Self::SnapshotList,
        Self::SnapshotRedact,
        Self::SnapshotRestore,
        Self::SnapshotSave,
        Self::SnapshotShow,
        Self::SnapshotVerify,
        Self::Validate,
        Self::Version,
        Self::Watch,
    ];

    /// How the command's line is read and explained.
    pub fn syntax(self) -> &'static Syntax {
        match self {
            Self::Agent => &agent::SYNTAX,
            Self::Completion => &completion::SYNTAX,
            Self::Configtest => &configtest::TEST,
            Self::Event => &event::SYNTAX,
            Self::Exec => &exec::SYNTAX,
            Self::ForceLeave => &force_leave::SYNTAX,
            Self::Info => &info::SYNTAX,
            Self::Join => &join::SYNTAX,
            Self::Keygen => &keygen::SYNTAX,
            Self::Keyring => &keyring::SYNTAX,
            Self::KvDelete => &kv::DELETE,
            Self::KvExport => &kv::EXPORT,
            Self::KvGet => &kv::GET,
            Self::KvImport => &kv::IMPORT,
            Self::KvPut => &kv::PUT,
            Self::Leave => &leave::SYNTAX,
            Self::Lock => &lock::SYNTAX,
            Self::Maint => &maint::SYNTAX,
            Self::Members => &members::SYNTAX,
            Self::Monitor => &monitor::SYNTAX,
            Self::OperatorRaft => &operator::RAFT,
            Self::Reload => &reload::SYNTAX,
            Self::Rtt => &rtt::SYNTAX,
            Self::SnapshotAgent => &snapshot::agent::SYNTAX,
            Self::SnapshotDecode => &snapshot::DECODE,
            Self::SnapshotDiff => &snapshot::DIFF,
            Self::SnapshotInspect => &snapshot::INSPECT,
            Self::SnapshotList => &snapshot::LIST,
            Self::SnapshotRedact => &snapshot::REDACT,
            Self::SnapshotRestore => &snapshot::RESTORE,
            Self::SnapshotSave => &snapshot::SAVE,
            Self::SnapshotShow => &snapshot::SHOW,
            Self::SnapshotVerify => &snapshot::VERIFY,
            Self::Validate => &configtest::VALIDATE,
            Self::Version => &version::SYNTAX,
            Self::Watch => &watch::SYNTAX,
        }
    }

    fn run(self, parsed: &flags::Parsed, console: &mut Console<'_>) -> u8 {
        match self {
            Self::Agent => agent::run(parsed, console),
            Self::Completion => completion::run(parsed, console),
            Self::Configtest => configtest::test(parsed, console),
            Self::Event => event::run(parsed, console),
            Self::Exec => exec::run(parsed, console),
            Self::ForceLeave => force_leave::run(parsed, console),
            Self::Info => info::run(parsed, console),
            Self::Join => join::run(parsed, console),
            Self::Keygen => keygen::run(parsed, console),
            Self::Keyring => keyring::run(parsed, console),
            Self::KvDelete => kv::delete(parsed, console),
            Self::KvExport => kv::export(parsed, console),
            Self::KvGet => kv::get(parsed, console),
            Self::KvImport => kv::import(parsed, console),
            Self::KvPut => kv::put(parsed, console),
            Self::Leave => leave::run(parsed, console),
            Self::Lock => lock::run(parsed, console),
            Self::Maint => maint::run(parsed, console),
            Self::Members => members::run(parsed, console),
            Self::Monitor => monitor::run(parsed, console),
            Self::OperatorRaft => operator::raft(parsed, console),
            Self::Reload => reload::run(parsed, console),
            Self::Rtt => rtt::run(parsed, console),
            Self::SnapshotAgent => snapshot::agent::run(parsed, console),
            Self::SnapshotDecode => snapshot::decode(parsed, console),
            Self::SnapshotDiff => snapshot::diff(parsed, console),
            Self::SnapshotInspect => snapshot::inspect(parsed, console),
            Self::SnapshotList => snapshot::list(parsed, console),
            Self::SnapshotRedact => snapshot::redact(parsed, console),
            Self::SnapshotRestore => snapshot::restore(parsed, console),
            Self::SnapshotSave => snapshot::save(parsed, console),
            Self::SnapshotShow => snapshot::show(parsed, console),
            Self::SnapshotVerify => snapshot::verify(parsed, console),
            Self::Validate => configtest::validate(parsed, console),
            Self::Version => version::run(console),
            Self::Watch => watch::run(parsed, console),
        }
    }
}

const GROUPS: &[Group] = &[
    Group {
        name: "kv",
        summary: "Reads and writes keys and values",
        about: "Reads and writes the key/value store. Keys look like paths, but a prefix is just the beginning of a \
                text.",
    },
    Group {
        name: "operator",
        summary: "Tools for the operators of a cluster",
        about: "Looks at and mends what keeps the servers together. Not needed day by day; know what you do.",
    },
    Group {
        name: "snapshot",
        summary: "Saves, restores, compares and looks into snapshots",
        about: "Saves the whole state of a cluster to a file or into a cloud, restores it, compares two, looks into one, \
                or tells what a store of them has. A snapshot holds secrets: every token and every value.",
    },
];

/// The status of a command that did what it was told.
const OK: u8 = 0;
/// The status of a command that didn't.
const FAILED: u8 = 1;

/// Runs the program with the process's own arguments, streams and environment.
pub fn main() -> ExitCode {
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect::<BTreeMap<_, _>>();
    // None of the streams is locked for good: a running agent logs from other threads.
    let (mut stdin, mut stdout, mut stderr) = (io::stdin(), io::stdout(), io::stderr());
    let errors_is_terminal = stderr.is_terminal();
    let mut console = Console {
        input: &mut stdin,
        output: &mut stdout,
        errors: &mut stderr,
        errors_is_terminal,
        environment,
    };
    let arguments = std::env::args_os()
        .skip(1)
        .map(std::ffi::OsString::into_string);
    let status = match arguments.collect::<Result<Vec<_>, _>>() {
        Ok(arguments) => dispatch(&arguments, &mut console),
        Err(argument) => {
            console.note(format_args!(
                "an argument is not valid UTF-8: {}",
                argument.display()
            ));
            FAILED
        }
    };
    let _ = console.output.flush();
    ExitCode::from(status)
}

/// Runs the command that the arguments name, and returns the exit status.
pub fn dispatch(arguments: &[String], console: &mut Console<'_>) -> u8 {
    // The original answers a version flag wherever it stands, also behind a command.
    let before_dashes = arguments.iter().take_while(|argument| *argument != "--");
    if before_dashes
        .into_iter()
        .any(|argument| argument == "-v" || argument == "--version")
    {
        return version::run(console);
    }

    let leading = arguments
        .iter()
        .take_while(|argument| argument.starts_with('-'))
        .count();
    let (flags_before, words) = arguments.split_at(leading);
    let chosen = Command::ALL.iter().find_map(|command| {
        let name = command.syntax().name.split(' ');
        let length = name.clone().count();
        let named = words.len() >= length && name.zip(words).all(|(name, word)| name == word);
        named.then(|| (*command, &words[length..]))
    });
    let group = words
        .first()
        .and_then(|word| GROUPS.iter().find(|group| group.name == word));
    let help_asked = flags_before
        .iter()
        .any(|flag| matches!(flag.as_str(), "-h" | "-help" | "--help"));
    match (chosen, group) {
        _ if help_asked => console.note(usage()),
        (Some((command, _)), _) if !flags_before.is_empty() => {
            console.note("Invalid flags before the subcommand: put them after it.\n");
            console.note(command.syntax().help());
        }
        (Some((command, rest)), _) => return run(command, rest, console),
        (None, Some(group)) => {
            console.note(group_help(group));
            let names = members(group).map(|(name, _)| name);
            if let Some(near) = words.get(1).and_then(|word| flags::nearest(word, names)) {
                console.note(format_args!("did you mean consul {} {near}?", group.name));
            }
        }
        (None, None) => {
            console.note(usage());
            let names = Command::ALL.iter().map(|command| command.syntax().name);
            if let Some(word) = words.first()
                && let Some(near) =
                    flags::nearest(word, names.chain(GROUPS.iter().map(|group| group.name)))
            {
                console.note(format_args!("did you mean consul {near}?"));
            }
        }
    }
    FAILED
}

fn run(command: Command, arguments: &[String], console: &mut Console<'_>) -> u8 {
    match command.syntax().parse(arguments) {
        Ok(parsed) => command.run(&parsed, console),
        Err(stop) => {
            if let Stop::Bad(problem) = stop {
                console.note(problem);
            }
            console.say(command.syntax().help());
            FAILED
        }
    }
}

/// The listing of commands; those of a group count as one.
fn usage() -> String {
    let single = Command::ALL.iter().map(|command| command.syntax());
    let single = single.filter(|syntax| !syntax.name.contains(' '));
    let mut lines: Vec<(&str, &str)> = single
        .map(|syntax| (syntax.name, syntax.summary))
        .chain(GROUPS.iter().map(|group| (group.name, group.summary)))
        .collect();
    lines.sort_unstable();
    format!(
        "usage: consul [--version] [--help] <command> [<args>]\n\nAvailable commands are:\n{}",
        listing(&lines)
    )
}

fn group_help(group: &Group) -> String {
    let members: Vec<(&str, &str)> = members(group).collect();
    format!(
        "Usage: consul {} <subcommand> [options] [args]\n\n{}\nSubcommands:\n\n{}",
        group.name,
        flags::paragraph("  ", group.about),
        listing(&members)
    )
}

/// The commands of a group, by their second words, each with a line about it.
fn members(group: &Group) -> impl Iterator<Item = (&'static str, &'static str)> {
    let syntaxes = Command::ALL.iter().map(|command| command.syntax());
    syntaxes.filter_map(|syntax| {
        let (first, second) = syntax.name.split_once(' ')?;
        (first == group.name).then_some((second, syntax.summary))
    })
}

fn listing(lines: &[(&str, &str)]) -> String {
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    lines
        .iter()
        .map(|(name, summary)| format!("    {name:width$}    {summary}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::stub::{Reply, Stub};
    use super::*;
    use crate::console::tests::consul;

    #[test]
    fn the_lists_are_in_order_and_explained() {
        let names: Vec<&str> = Command::ALL
            .iter()
            .map(|command| command.syntax().name)
            .collect();
        assert!(names.is_sorted(), "{names:?}");
        for command in Command::ALL {
            let syntax = command.syntax();
            assert!(
                syntax
                    .example
                    .lines()
                    .all(|line| line.starts_with("consul ")),
                "{}",
                syntax.name
            );
            assert!(syntax.example.contains(syntax.name), "{}", syntax.name);
            if let Some((group, _)) = syntax.name.split_once(' ') {
                assert!(GROUPS.iter().any(|known| known.name == group), "{group}");
            }
            let printed = consul(
                &[&syntax.name.split(' ').collect::<Vec<_>>()[..], &["-h"]].concat(),
                b"",
                &[],
            );
            assert_eq!(
                (printed.status, printed.errors.as_str()),
                (1, ""),
                "{}",
                syntax.name
            );
            assert!(
                printed
                    .output
                    .starts_with(&format!("Usage: consul {} ", syntax.name))
            );
            let example = syntax
                .example
                .lines()
                .map(|line| format!("      $ {line}\n"));
            let example = format!("\nExample:\n\n{}", example.collect::<String>());
            assert!(printed.output.contains(&example), "{}", printed.output);
        }
    }

    #[test]
    fn every_command_ends_with_the_status_of_the_contract() {
        // Whatever it is asked, this agent refuses.
        let refusing = Stub::tcp(|_| Reply::status(500, "no"));
        let flag = format!("-http-addr={}", refusing.address);
        // A line for each command that can only fail, by being refused or for want of what it needs.
        let cases: &[(Command, &[&str])] = &[
            (Command::Agent, &["-config-file=/nonexistent"]),
            (Command::Completion, &["nonsense"]),
            (Command::Configtest, &["-config-file=/nonexistent"]),
            (Command::Event, &[&flag, "-name=e"]),
            (Command::Exec, &[&flag, "true"]),
            (Command::ForceLeave, &[&flag, "n"]),
            (Command::Info, &[&flag]),
            (Command::Join, &[&flag, "127.0.0.1"]),
            (Command::Keyring, &[&flag, "-list"]),
            (Command::KvDelete, &[&flag, "k"]),
            (Command::KvExport, &[&flag, "k"]),
            (Command::KvGet, &[&flag, "k"]),
            (Command::KvImport, &[&flag, r#"[{"key":"k","value":""}]"#]),
            (Command::KvPut, &[&flag, "k", "v"]),
            (Command::Leave, &[&flag]),
            (Command::Lock, &[&flag, "p", "true"]),
            (Command::Maint, &[&flag]),
            (Command::Members, &[&flag]),
            (Command::Monitor, &[&flag]),
            (Command::OperatorRaft, &[&flag, "-list-peers"]),
            (Command::Reload, &[&flag]),
            (Command::Rtt, &[&flag, "a", "b"]),
            (Command::SnapshotAgent, &["-config-file=/nonexistent.json"]),
            (Command::SnapshotDecode, &["/nonexistent"]),
            (Command::SnapshotDiff, &["/nonexistent", "/nonexistent"]),
            (Command::SnapshotInspect, &["/nonexistent"]),
            (Command::SnapshotList, &["/nonexistent"]),
            (Command::SnapshotRedact, &["/nonexistent", "/nonexistent/r"]),
            (Command::SnapshotRestore, &[&flag, "/nonexistent"]),
            (Command::SnapshotSave, &[&flag, "/nonexistent/s"]),
            (Command::SnapshotShow, &["/nonexistent/consul-1.snap"]),
            (Command::SnapshotVerify, &["/nonexistent"]),
            (Command::Validate, &["/nonexistent"]),
            (Command::Watch, &[&flag, "-type=nodes"]),
        ];
        // These need nobody; they fail by their flags alone.
        const SELF_SUFFICIENT: &[Command] = &[Command::Keygen, Command::Version];
        for command in Command::ALL {
            let line = cases.iter().find(|(listed, _)| listed == command);
            let name: Vec<&str> = command.syntax().name.split(' ').collect();
            let Some((_, arguments)) = line else {
                assert!(
                    SELF_SUFFICIENT.contains(command),
                    "{command:?} is not in the table"
                );
                assert_eq!(consul(&name, b"", &[]).status, 0, "{command:?}");
                continue;
            };
            let printed = consul(&[&name[..], arguments].concat(), b"", &[]);
            assert_eq!(printed.status, 1, "{command:?}: {printed:?}");
            // What went wrong is said where the original says it.
            assert!(!printed.output.is_empty(), "{command:?}: {printed:?}");
            let printed = consul(&[&name[..], &["-no-such-flag"]].concat(), b"", &[]);
            assert_eq!(printed.status, 1, "{command:?}");
            assert!(
                printed
                    .errors
                    .starts_with("flag provided but not defined: -no-such-flag\n"),
                "{command:?}: {printed:?}"
            );
        }
        // Exceptions: an operator's command without an action explains itself, and nobody there is a status of its own.
        assert_eq!(consul(&["operator", "raft", &flag], b"", &[]).status, 0);
        let alone = Stub::tcp(|_| Reply::ok("[]"));
        let flag = format!("-http-addr={}", alone.address);
        let printed = consul(&["members", &flag], b"", &[]);
        assert_eq!((printed.status, printed.output.as_str()), (2, ""));
    }

    #[test]
    fn a_group_explains_itself() {
        for (line, hint) in [
            (&["kv"][..], ""),
            (&["kv", "-h"], ""),
            (&["kv", "nonsense"], ""),
            (&["kv", "gte", "k"], "did you mean consul kv get?\n"),
        ] {
            let printed = consul(line, b"", &[]);
            assert_eq!(
                (printed.status, printed.output.as_str()),
                (1, ""),
                "{line:?}"
            );
            let errors = &printed.errors;
            assert!(
                errors.starts_with("Usage: consul kv <subcommand> [options] [args]\n"),
                "{errors}"
            );
            assert!(
                errors.contains("\nSubcommands:\n\n    delete    "),
                "{errors}"
            );
            assert!(errors.ends_with(&format!("\n{hint}")), "{errors}");
        }
    }

    #[test]
    fn usage_goes_to_standard_error() {
        for line in [
            &[][..],
            &["-h"],
            &["--help"],
            &["-version"],
            &["nonsense"],
            &["-h", "agent"],
        ] {
            let printed = consul(line, b"", &[]);
            assert_eq!(
                (printed.status, printed.output.as_str()),
                (1, ""),
                "{line:?}"
            );
            assert!(
                printed.errors.starts_with(
                    "usage: consul [--version] [--help] <command> [<args>]\n\nAvailable commands are:\n    agent"
                ),
                "{}",
                printed.errors
            );
        }
        assert!(
            consul(&["agnet"], b"", &[])
                .errors
                .ends_with("did you mean consul agent?\n")
        );
    }

    #[test]
    fn bad_flags() {
        let printed = consul(&["agent", "-nonsense"], b"", &[]);
        assert_eq!(printed.status, 1);
        assert_eq!(printed.errors, "flag provided but not defined: -nonsense\n");
        assert!(printed.output.starts_with("Usage: consul agent "));

        let printed = consul(&["-stale", "agent"], b"", &[]);
        assert_eq!((printed.status, printed.output.as_str()), (1, ""));
        assert!(
            printed
                .errors
                .starts_with("Invalid flags before the subcommand"),
            "{}",
            printed.errors
        );
    }

    #[test]
    fn a_version_flag_wins_anywhere() {
        for line in [
            &["--version"][..],
            &["-v"],
            &["agent", "-v"],
            &["nonsense", "--version", "--"],
        ] {
            let printed = consul(line, b"", &[]);
            assert_eq!(
                (printed.status, printed.errors.as_str()),
                (0, ""),
                "{line:?}"
            );
            assert!(
                printed.output.starts_with("Consul v0.7.1\n"),
                "{}",
                printed.output
            );
        }
        assert_eq!(consul(&["nonsense", "--", "--version"], b"", &[]).status, 1);
    }
}
