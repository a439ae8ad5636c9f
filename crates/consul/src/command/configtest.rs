//! `consul configtest` and `consul validate`: is this configuration in order, without an agent.

use std::path::PathBuf;

use super::{OK, agent, http};
use crate::config::{self, Host};
use crate::console::Console;
use crate::flags::{Flag, Parsed, Syntax};
use crate::run;

pub(super) const TEST: Syntax = Syntax {
    name: "configtest",
    arguments: "",
    summary: "Looks whether configuration files can be read",
    about: "Reads configuration files as the agent would, and says nothing if they can be read: known keys, values of \
            the right type, services and checks that make sense. Whether an agent could start with them is what \
            validate says.",
    example: "consul configtest -config-dir=/etc/consul.d",
    flags: &[agent::FILES],
};

pub(super) const VALIDATE: Syntax = Syntax {
    name: "validate",
    arguments: "[FILE OR DIRECTORY...]",
    summary: "Looks whether an agent could start with a configuration",
    about: "Reads configuration files and directories as the agent would, judges the whole of them, watches and files \
            of certificates included, and says what is wrong or that nothing is. Nothing is started. Flags of the \
            agent may be given as they will be, since they are a part of it.",
    example: "consul validate /etc/consul.d\n\
              consul validate -data-dir=/var/lib/consul /etc/consul.json",
    flags: &[
        &[Flag::switch(
            "quiet",
            false,
            "Say nothing if the configuration is in order.",
        )],
        agent::FILES,
        agent::DEVELOPMENT,
        agent::IDENTITY,
        agent::ADDRESSES,
        agent::JOINING,
        agent::REST,
    ],
};

pub(super) fn test(parsed: &Parsed, console: &mut Console<'_>) -> u8 {
    let sources: Vec<PathBuf> = parsed
        .in_order()
        .map(|(_, path)| PathBuf::from(path))
        .collect();
    if sources.is_empty() {
        return http::failed(
            console,
            "Must specify config using -config-file or -config-dir",
        );
    }
    match config::check(&sources) {
        Ok(()) => OK,
        Err(why) => http::failed(console, format_args!("Config validation failed: {why}")),
    }
}

pub(super) fn validate(parsed: &Parsed, console: &mut Console<'_>) -> u8 {
    match judged(parsed) {
        Ok(warnings) => {
            for warning in warnings {
                console.note(format_args!("WARNING: {warning}"));
            }
            if !parsed.switch("quiet") {
                console.say("Configuration is valid!");
            }
            OK
        }
        Err(why) => http::failed(console, format_args!("Config validation failed: {why}")),
    }
}

/// What is to be said of a configuration that is in order.
fn judged(parsed: &Parsed) -> Result<Vec<String>, String> {
    let mut arguments = agent::arguments(parsed)?;
    let more = parsed.arguments.iter().map(PathBuf::from);
    arguments.sources.extend(more);
    if arguments.sources.is_empty() {
        return Err("Must specify at least one config file or directory".to_owned());
    }
    let settings = config::load(arguments, &Host::here()).map_err(|why| why.to_string())?;
    run::check(&settings).map_err(|why| format!("{why:#}"))?;
    let mut warnings = settings.warnings;
    for (keys, fate) in [
        (settings.no_effect, "has no effect in this version"),
        (settings.ignored, "is ignored"),
    ] {
        warnings.extend(keys.iter().map(|key| format!("{key} {fate}")));
    }
    Ok(warnings)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::console::tests::consul;

    #[test]
    fn what_can_be_read_and_what_could_start() {
        let room = tempfile::tempdir().unwrap();
        let path = |name: &str| room.path().join(name).display().to_string();
        // What is in the file, what configtest says, and what validate says.
        let cases = [
            (
                r#"{"data_dir": "/d", "bind_addr": "10.0.0.1", "watches": [{"type": "nodes", "args": ["true"]}]}"#,
                "",
                "Configuration is valid!",
            ),
            ("{", "!Error decoding '$': ", "!Error decoding '$': "),
            (
                r#"{"server": "true"}"#,
                "!Error decoding '$': 1 error(s) decoding:",
                "!Error decoding '$': 1 error(s) decoding:",
            ),
            (
                r#"{"unknown": 1}"#,
                "!Error decoding '$': Config has invalid keys: unknown",
                "!Error decoding '$': Config has invalid keys: unknown",
            ),
            (
                r#"{"service": {"port": 1}}"#,
                "!Failed to register service '': Service name missing",
                "!Must specify data directory using -data-dir",
            ),
            ("{}", "", "!Must specify data directory using -data-dir"),
            (
                r#"{"data_dir": "/d", "bind_addr": "10.0.0.1", "watches": [{"type": "moon"}]}"#,
                "",
                "!Failed to parse watch ({\"type\":\"moon\"}): Unsupported watch type: moon",
            ),
            (
                r#"{"data_dir": "/d", "bind_addr": "10.0.0.1", "ports": {"http": -1}, "watches": [{"type": "nodes", "handler": "x"}]}"#,
                "",
                "!watches ask this agent over HTTP, which is switched off",
            ),
            (
                r#"{"data_dir": "/d", "bind_addr": "10.0.0.1", "ca_file": "/nonexistent/ca", "verify_outgoing": true}"#,
                "",
                "!",
            ),
        ];
        for (number, (content, tested, judged)) in cases.into_iter().enumerate() {
            let file = path(&format!("{number}.json"));
            fs::write(&file, content).unwrap();
            let as_test = consul(&["configtest", "-config-file", &file], b"", &[]);
            let as_validate = consul(&["validate", &file], b"", &[]);
            for (printed, expected) in [(as_test, tested), (as_validate, judged)] {
                let (status, beginning) = match expected.strip_prefix('!') {
                    Some(why) => (
                        1,
                        format!("Config validation failed: {why}").replace('$', &file),
                    ),
                    None => (0, expected.to_owned()),
                };
                assert_eq!(printed.status, status, "{content}: {printed:?}");
                assert!(
                    printed.output.starts_with(&beginning),
                    "{content}: {printed:?}"
                );
                assert_eq!(printed.output.is_empty(), beginning.is_empty(), "{content}");
            }
        }
    }

    #[test]
    fn directories_flags_and_warnings() {
        let room = tempfile::tempdir().unwrap();
        let folder = room.path().display().to_string();
        let file = room.path().join("a.json");
        fs::write(
            &file,
            r#"{"server": true, "bootstrap": true, "atlas_token": "t"}"#,
        )
        .unwrap();
        fs::write(room.path().join("notes.txt"), "no configuration").unwrap();
        let printed = consul(
            &[
                "validate",
                "-quiet",
                "-data-dir=/d",
                "-bind=10.0.0.1",
                &folder,
            ],
            b"",
            &[],
        );
        assert_eq!((printed.status, printed.output.as_str()), (0, ""));
        assert!(
            printed.errors.contains("WARNING: atlas_token is ignored\n"),
            "{printed:?}"
        );
        let flag = format!("-config-dir={folder}");
        let printed = consul(&["configtest", &flag], b"", &[]);
        assert_eq!((printed.status, printed.output.as_str()), (0, ""));
        for (line, why) in [
            (
                &["configtest"][..],
                "Must specify config using -config-file or -config-dir\n",
            ),
            (
                &["validate", "-quiet"],
                "Config validation failed: Must specify at least one config file or directory\n",
            ),
            (
                &["configtest", "-config-file=/nonexistent/x"],
                "Config validation failed: Error reading '/nonexistent/x': no such file or directory\n",
            ),
        ] {
            let printed = consul(line, b"", &[]);
            assert_eq!((printed.status, printed.output.as_str()), (1, why));
        }
    }
}
