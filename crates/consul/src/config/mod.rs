//! The agent's configuration: files and flags in, [`Settings`] out.
//!
//! The way is always the same: each file is read and checked against the list of [`keys`] into a [`Document`],
//! the documents are merged as data, flags last, and the result is decoded once into [`Settings`].
//! Nobody beyond this module knows how a setting is spelled.
//!
//! A new key is one line in `keys.rs`, one in `docs/configuration.md`, and a field of [`Settings`] if it does something;
//! `reload.rs` says whether that can change while the agent runs.

mod definitions;
pub mod document;
pub mod host;
pub mod keys;
mod merge;
pub mod reload;
pub mod settings;
#[cfg(test)]
mod table;
pub mod watches;

use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

pub use document::{DecodeError, Document, decode};
pub use host::Host;
pub use reload::{Live, Reload, differences};
pub use settings::{ClientAddr, EncryptKey, Listener, LogLevel, Pool, Settings};
pub use watches::{Handler, WatchDefinition};

/// The largest configuration file that is read; enough for a hundred thousand service definitions.
pub const FILE_SIZE_MAX: u64 = 32 << 20;

/// The most files that one directory may hold.
pub const DIRECTORY_FILES_MAX: usize = 10_000;

/// Why the agent can't start with this configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file or directory can't be read.
    #[error("Error reading '{}': {why}", .path.display())]
    Read {
        /// What was read.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// A file holds no configuration.
    #[error("Error decoding '{}': {why}", .path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: DecodeError,
    },
    /// The settings don't go together, or one has a value that makes no sense.
    #[error("{0}")]
    Invalid(String),
}

/// What the command line said.
#[derive(Debug, Clone, Default)]
pub struct Arguments {
    /// The files and directories of `-config-file` and `-config-dir`, in the order in which they were given.
    pub sources: Vec<PathBuf>,
    /// The flags that stand for keys.
    pub flags: Document,
    /// Whether `-dev` was given.
    pub dev: bool,
    /// Warnings about the command line itself.
    pub warnings: Vec<String>,
}

/// Reads, merges and validates everything.
///
/// # Errors
/// The first problem, with a text for the user.
pub fn load(arguments: Arguments, host: &Host) -> Result<Settings, ConfigError> {
    let mut document = read(&arguments.sources)?;
    merge::merge(&mut document, arguments.flags);
    let mut settings =
        settings::validate(&document, arguments.dev, host).map_err(ConfigError::Invalid)?;
    settings.warnings.splice(0..0, arguments.warnings);
    Ok(settings)
}

/// Reads and merges files and directories and decodes what they define, without judging whether an agent could run so.
///
/// # Errors
/// The first problem, with a text for the user.
pub fn check(sources: &[PathBuf]) -> Result<(), ConfigError> {
    let document = read(sources)?;
    definitions::judge(&document).map_err(ConfigError::Invalid)
}

fn read(sources: &[PathBuf]) -> Result<Document, ConfigError> {
    let mut document = Document::new();
    for source in sources {
        read_source(source, &mut document)?;
    }
    Ok(document)
}

/// Merges a file, or the `.json` files of a directory, over `document`.
fn read_source(source: &Path, document: &mut Document) -> Result<(), ConfigError> {
    let failed = |why: io::Error| ConfigError::Read {
        path: source.to_owned(),
        why: reason(&why),
    };
    if !fs::metadata(source).map_err(failed)?.is_dir() {
        let bytes = read_file(source)?;
        return merge_file(source, &bytes, document);
    }

    let mut names = Vec::new();
    for entry in fs::read_dir(source).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().into_vec();
        if name.ends_with(b".json") {
            names.push(name);
        }
        if names.len() > DIRECTORY_FILES_MAX {
            let why =
                format!("more than {DIRECTORY_FILES_MAX} configuration files in one directory");
            return Err(ConfigError::Read {
                path: source.to_owned(),
                why,
            });
        }
    }
    names.sort();
    for name in names {
        let path = source.join(std::ffi::OsStr::from_bytes(&name));
        // One level deep only.
        if path.is_dir() {
            continue;
        }
        let bytes = read_file(&path)?;
        // In a directory an empty file is one that somebody is about to write; named outright it is a mistake.
        if !bytes.is_empty() {
            merge_file(&path, &bytes, document)?;
        }
    }
    Ok(())
}

/// The bytes of a file that may be as large as a configuration may.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let failed = |why| ConfigError::Read {
        path: path.to_owned(),
        why,
    };
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(FILE_SIZE_MAX + 1).read_to_end(&mut bytes))
        .map_err(|why| failed(reason(&why)))?;
    if bytes.len() as u64 > FILE_SIZE_MAX {
        return Err(failed(format!("larger than {} MiB", FILE_SIZE_MAX >> 20)));
    }
    Ok(bytes)
}

fn merge_file(path: &Path, bytes: &[u8], document: &mut Document) -> Result<(), ConfigError> {
    let read = decode(bytes).map_err(|why| ConfigError::Decode {
        path: path.to_owned(),
        why,
    })?;
    merge::merge(document, read);
    Ok(())
}

/// What the system said, without the number that Rust adds to it.
pub(crate) fn reason(why: &io::Error) -> String {
    match why.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::IsADirectory => "is a directory".to_owned(),
        io::ErrorKind::NotADirectory => "not a directory".to_owned(),
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::StorageFull => "no space left on device".to_owned(),
        _ => why.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(sources: &[PathBuf]) -> Arguments {
        Arguments {
            sources: sources.to_vec(),
            ..Arguments::default()
        }
    }

    fn host() -> Host {
        Host {
            name: "host".to_owned(),
            interfaces: vec![host::Interface {
                name: "eth0".to_owned(),
                address: "10.0.0.1".parse().unwrap(),
            }],
        }
    }

    #[test]
    fn files_and_directories_in_command_line_order() {
        let room = tempfile::tempdir().unwrap();
        let path = |name: &str| room.path().join(name);
        fs::create_dir_all(path("conf/sub.json")).unwrap();
        fs::write(
            path("first"),
            r#"{"data_dir": "/a", "datacenter": "first", "acl_token": "f"}"#,
        )
        .unwrap();
        fs::write(path("conf/b.json"), r#"{"datacenter": "b"}"#).unwrap();
        fs::write(
            path("conf/a.json"),
            r#"{"datacenter": "a", "node_name": "n"}"#,
        )
        .unwrap();
        fs::write(path("conf/empty.json"), "").unwrap();
        fs::write(path("conf/c.conf"), "not ours").unwrap();

        let settings = load(arguments(&[path("first"), path("conf")]), &host()).unwrap();
        assert_eq!(
            (settings.datacenter.as_str(), settings.node_name.as_str()),
            ("b", "n")
        );
        let settings = load(arguments(&[path("conf"), path("first")]), &host()).unwrap();
        assert_eq!(settings.datacenter, "first");

        let mut flags = Document::new();
        flags.set_text("datacenter", "flag").unwrap();
        let with_flag = Arguments {
            flags,
            ..arguments(&[path("conf"), path("first")])
        };
        assert_eq!(load(with_flag, &host()).unwrap().datacenter, "flag");
    }

    #[test]
    fn names_the_file_in_errors() {
        let room = tempfile::tempdir().unwrap();
        let file = room.path().join("bad.json");
        let shown = file.display();
        let cases = [
            ("", format!("Error decoding '{shown}': EOF")),
            (
                r#"{"x": 1}"#,
                format!("Error decoding '{shown}': Config has invalid keys: x"),
            ),
            (
                r#"{"server": "true"}"#,
                format!(
                    "Error decoding '{shown}': 1 error(s) decoding:\n\n* 'server' expected type 'bool', got unconvertible type 'string'"
                ),
            ),
        ];
        for (text, message) in cases {
            fs::write(&file, text).unwrap();
            let why = load(arguments(std::slice::from_ref(&file)), &host()).unwrap_err();
            assert_eq!(why.to_string(), message);
        }
        let missing = room.path().join("missing");
        let why = load(arguments(std::slice::from_ref(&missing)), &host()).unwrap_err();
        assert_eq!(
            why.to_string(),
            format!(
                "Error reading '{}': no such file or directory",
                missing.display()
            )
        );
    }
}
