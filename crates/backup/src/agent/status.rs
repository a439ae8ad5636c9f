//! The entry under which everybody finds out how the snapshots of the cluster are doing, the web interface for one.
//!
//! `docs/snapshot-status.md` describes it for other programs.

use serde::{Deserialize, Serialize};

use super::{Outcome, Saved};
use crate::note::{Summary, VERSION};

/// The longest text about a failure that is kept.
const TEXT_MAX: usize = 1000;

/// The entry's value. Times are UTC as RFC 3339 writes them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Status {
    pub(super) version: u32,
    /// The id of the service of the instance that wrote it.
    pub(super) agent: String,
    /// The node of the agent that it talks to; empty if it couldn't be asked.
    pub(super) node: String,
    pub(super) updated_at: String,
    /// As Go writes durations; `0s` where a single snapshot was taken.
    pub(super) interval: String,
    /// When the next snapshot is due; empty if nobody knows.
    pub(super) next_at: String,
    /// How many failed in a row.
    pub(super) failures: u32,
    pub(super) last_failure: Option<Failure>,
    /// The last one that has its name at one place at least.
    pub(super) last_saved: Option<LastSaved>,
    /// The last one that was proved at every place.
    pub(super) last_verified: Option<Verified>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Failure {
    pub(super) at: String,
    pub(super) text: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct LastSaved {
    /// Too large for the numbers of many programs.
    #[serde(rename = "ID")]
    pub(super) id: String,
    pub(super) name: String,
    pub(super) size: u64,
    #[serde(flatten)]
    pub(super) summary: Summary,
    pub(super) places: Vec<AtPlace>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct AtPlace {
    pub(super) place: String,
    /// `verified`, `unverified`, `wrong` or `failed`.
    pub(super) state: String,
    /// What is wrong, if something is.
    pub(super) text: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Verified {
    #[serde(rename = "ID")]
    pub(super) id: String,
    pub(super) at: String,
}

/// The key of the entry: `status` in the folder of the lock.
pub(super) fn key(lock_key: &str) -> String {
    let key = match lock_key.rsplit_once('/') {
        Some((folder, _)) => format!("{folder}/status"),
        None => format!("{lock_key}-status"),
    };
    // Whoever called his lock like that.
    if key == lock_key {
        format!("{lock_key}-status")
    } else {
        key
    }
}

/// A text that isn't longer than texts about failures are.
pub(super) fn short(text: &str) -> String {
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

impl Status {
    /// The entry as it was written, or nothing where there is none that can be read.
    pub(super) fn decode(value: &[u8]) -> Self {
        serde_json::from_slice(value).unwrap_or_default()
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let written = Self {
            version: VERSION,
            ..self.clone()
        };
        serde_json::to_vec(&written)
            .expect("numbers, texts, and maps whose keys are texts are always JSON")
    }

    /// The id of the last snapshot that it knows of.
    pub(super) fn newest(&self) -> Option<u64> {
        self.last_saved.as_ref()?.id.parse().ok()
    }

    /// Notes a snapshot that has its name.
    pub(super) fn saved(&mut self, saved: &Saved, at: &str) {
        let place = |at: &super::AtPlace| {
            let (state, text) = match &at.outcome {
                Outcome::Verified => ("verified", ""),
                Outcome::Unverified(why) => ("unverified", why.as_str()),
                Outcome::Wrong(why) => ("wrong", why.as_str()),
                Outcome::Failed(why) => ("failed", why.as_str()),
            };
            AtPlace {
                place: at.place.clone(),
                state: state.to_owned(),
                text: short(text),
            }
        };
        self.last_saved = Some(LastSaved {
            id: saved.name.id.to_string(),
            name: saved.name.to_string(),
            size: saved.size,
            summary: Summary::of(&saved.received),
            places: saved.places.iter().map(place).collect(),
        });
        if saved.is_verified() {
            self.last_verified = Some(Verified {
                id: saved.name.id.to_string(),
                at: at.to_owned(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The entry that the manual shows.
    const MANUAL: &str = include_str!("../../../../docs/snapshot-status.md");

    #[test]
    fn the_manual_shows_the_entry() {
        let shown = MANUAL.split("```json status\n").nth(1).unwrap();
        let shown = shown.split("```").next().unwrap();
        let status = Status::decode(shown.as_bytes());
        assert_eq!(status.newest(), Some(1_479_503_772_206_993_731));
        let written: serde_json::Value = serde_json::from_slice(&status.encode()).unwrap();
        let shown: serde_json::Value = serde_json::from_str(shown).unwrap();
        assert_eq!(written, shown);
    }

    #[test]
    fn beside_the_lock() {
        for (lock, status) in [
            ("consul-snapshot/lock", "consul-snapshot/status"),
            ("a/b/c", "a/b/status"),
            ("lock", "lock-status"),
            ("a/status", "a/status-status"),
            ("/lock", "/status"),
            ("a/", "a/status"),
        ] {
            assert_eq!(key(lock), status);
        }
    }

    #[test]
    fn what_cannot_be_read_is_nothing() {
        for value in ["", "{", "7", "{\"LastSaved\":7}"] {
            assert_eq!(Status::decode(value.as_bytes()), Status::default());
        }
        assert_eq!(short(&"ü".repeat(600)).len(), 1000);
        let odd = format!("a{}", "ü".repeat(600));
        assert_eq!(short(&odd).len(), 999);
    }
}
