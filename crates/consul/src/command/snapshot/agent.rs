//! `consul snapshot agent`: flags, files and the environment become settings, and the agent runs on them.
//!
//! What it does is in `backup::agent`. A new setting is one line in `keys.rs`, one in `docs/snapshot-agent.md`, and a
//! field of the settings that it ends up in.

mod banner;
mod document;
mod keys;
mod life;
mod settings;

use crate::command::FAILED;
use crate::console::Console;
use crate::flags::{Flag, Parsed, Syntax, Value};

use settings::Said;

pub(in crate::command) const SYNTAX: Syntax = Syntax {
    name: "snapshot agent",
    arguments: "",
    summary: "Saves snapshots again and again, and keeps the newest",
    about: "Saves the state of the cluster at intervals, to a folder or to a cloud, proves each snapshot by reading it \
            again and loading it, and removes those that are too old. It runs until it is told to stop.\n\n\
            Run it on two or three machines beside their Consul agents: the instances compete for a lock, one of them \
            saves, and another takes over when it is gone. With -interval=0 it saves once and ends, for cron and \
            systemd timers; its status is 1 if that failed.\n\n\
            What flags don't say, configuration files do, then the environment. Several destinations can only be \
            given in files. Interrupt and terminate signals end it in good order; a hang-up lets it read its files \
            again.",
    example: "consul snapshot agent -local-path=/var/backups/consul -retain=48 -retain-daily=30\n\
              consul snapshot agent -aws-s3-region=eu-west-1 -aws-s3-bucket=backups -encrypt-to=age1...\n\
              consul snapshot agent -config-dir=/etc/consul-snapshot.d\n\
              consul snapshot agent -interval=0 -local-path=/var/backups/consul",
    flags: &[FILES, &keys::FLAGS],
};

/// What to read.
const FILES: &[Flag] = &[
    Flag::new(
        "config-file",
        Value::Many,
        "path",
        "A configuration file in JSON, whose name ends in .json, with an object snapshot_agent.",
    ),
    Flag::new(
        "config-dir",
        Value::Many,
        "path",
        "A directory; its files whose names end in .json are read in the order of their names.",
    ),
];

pub(in crate::command) fn run(parsed: &Parsed, console: &mut Console<'_>) -> u8 {
    let started = Said::read(parsed).and_then(|said| {
        let settings = said.settle(console)?;
        let plan = life::Plan::new(&settings)?;
        Ok((said, settings, plan))
    });
    let outcome = started.and_then(|(said, settings, plan)| {
        life::live(parsed, said, settings, plan, console)
            .map_err(|why| format!("Error starting snapshot agent: {why:#}"))
    });
    outcome.unwrap_or_else(|problem| {
        console.say(format_args!("==> {problem}"));
        FAILED
    })
}

/// Whether a configuration file of these bytes says something to the snapshot agent.
///
/// # Errors
/// What is wrong with it, if it can't be read.
pub fn speaks_to_snapshot_agent(bytes: &[u8]) -> Result<bool, String> {
    document::decode(bytes).map(|document| document.is_some())
}
