//! What is known of a snapshot, as the snapshot agent notes it beside it.
//!
//! `docs/snapshot-status.md` describes the format for other programs.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use model::GoDuration;
use serde::{Deserialize, Serialize};

use crate::{Proof, Retention};

/// What is known of a snapshot that lies in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Its id.
    pub id: u64,
    /// What it holds, as it was when it was received.
    pub summary: Summary,
    /// How long it is where it lies, in bytes.
    pub size: u64,
    /// When it was looked through where it lies.
    pub checked_at: Timestamp,
    /// What is wrong with it; `None`: it was downloaded, loaded, and found to be what was received.
    pub failure: Option<String>,
    /// By which rules the agent keeps what lies there, if it said so.
    pub rules: Option<Rules>,
}

/// How an agent saves to a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Which snapshots it keeps.
    pub retention: Retention,
    /// How often it saves; zero if it saved only once.
    pub interval: Duration,
}

/// What a snapshot holds, in a few words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Summary {
    /// The index it was taken at.
    pub index: u64,
    /// The term of that index.
    pub term: u64,
    /// How long its state is, in bytes.
    pub state_size: u64,
    /// A number that is the same for any two snapshots of the same state, as 32 hexadecimal digits.
    pub digest: String,
    /// How many things of each kind there are.
    pub counts: BTreeMap<String, u64>,
}

/// Why a note can't be read.
#[derive(Debug, thiserror::Error)]
#[error("the note beside the snapshot makes no sense: {0}")]
pub struct NotANote(String);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Written {
    version: u32,
    /// Too large for the numbers of many programs.
    #[serde(rename = "ID")]
    id: String,
    #[serde(flatten)]
    summary: Summary,
    size: u64,
    checked_at: String,
    verified: bool,
    #[serde(default)]
    failure: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rules: Option<WrittenRules>,
}

/// The rules by the names of the agent's settings.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct WrittenRules {
    interval: String,
    retain: usize,
    retain_hourly: usize,
    retain_daily: usize,
    retain_weekly: usize,
    retain_monthly: usize,
}

impl From<Rules> for WrittenRules {
    fn from(
        Rules {
            retention,
            interval,
        }: Rules,
    ) -> Self {
        Self {
            interval: GoDuration::from(interval).to_string(),
            retain: retention.newest,
            retain_hourly: retention.hourly,
            retain_daily: retention.daily,
            retain_weekly: retention.weekly,
            retain_monthly: retention.monthly,
        }
    }
}

impl TryFrom<WrittenRules> for Rules {
    type Error = NotANote;

    fn try_from(written: WrittenRules) -> Result<Self, NotANote> {
        let interval = GoDuration::parse(&written.interval)
            .ok()
            .filter(|interval| interval.0 >= 0)
            .ok_or_else(|| NotANote(format!("{:?} is no interval", written.interval)))?;
        Ok(Self {
            retention: Retention {
                newest: written.retain,
                hourly: written.retain_hourly,
                daily: written.retain_daily,
                weekly: written.retain_weekly,
                monthly: written.retain_monthly,
            },
            interval: interval.to_std(),
        })
    }
}

/// The version that is written. Later ones may have more fields; what is there keeps its meaning.
pub(crate) const VERSION: u32 = 1;

impl Summary {
    /// In a few words what was received.
    pub fn of(received: &Proof) -> Self {
        let counts = received.digest.counts.iter();
        Self {
            index: received.meta.index,
            term: received.meta.term,
            state_size: received.state_size,
            digest: received.digest.to_string(),
            counts: counts
                .map(|(&kind, &count)| (kind.to_owned(), count))
                .collect(),
        }
    }
}

impl Note {
    /// The note as it lies beside the snapshot.
    pub fn encode(&self) -> Vec<u8> {
        let written = Written {
            version: VERSION,
            id: self.id.to_string(),
            summary: self.summary.clone(),
            size: self.size,
            checked_at: self.checked_at.to_string(),
            verified: self.failure.is_none(),
            failure: self.failure.clone().unwrap_or_default(),
            rules: self.rules.map(WrittenRules::from),
        };
        let mut text = serde_json::to_vec_pretty(&written)
            .expect("numbers, texts, and a map whose keys are texts are always JSON");
        text.push(b'\n');
        text
    }

    /// Reads what lies there.
    ///
    /// # Errors
    /// If it isn't such a note.
    pub fn decode(text: &[u8]) -> Result<Self, NotANote> {
        let read: Written =
            serde_json::from_slice(text).map_err(|why| NotANote(why.to_string()))?;
        let no_number = |_| NotANote(format!("{:?} is no id", read.id));
        let no_time = |_| NotANote(format!("{:?} is no time", read.checked_at));
        Ok(Self {
            id: read.id.parse().map_err(no_number)?,
            summary: read.summary,
            size: read.size,
            checked_at: read.checked_at.parse().map_err(no_time)?,
            failure: (!read.verified).then_some(read.failure),
            rules: read.rules.map(Rules::try_from).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The notes that the manual shows.
    const MANUAL: &str = include_str!("../../../docs/snapshot-status.md");

    #[test]
    fn a_note_is_what_it_was() {
        let note = Note {
            id: u64::MAX,
            summary: Summary {
                index: 68,
                term: 2,
                state_size: 9,
                digest: "00".repeat(16),
                counts: [("keys".to_owned(), 3)].into(),
            },
            size: 7,
            checked_at: Timestamp::from_second(1_479_474_972).unwrap(),
            failure: None,
            rules: None,
        };
        assert_eq!(Note::decode(&note.encode()).unwrap(), note);
        let wrong = Note {
            failure: Some("it is \"another\"".to_owned()),
            rules: Some(Rules {
                retention: Retention {
                    newest: 30,
                    monthly: 12,
                    ..Retention::default()
                },
                interval: Duration::from_secs(3600),
            }),
            ..note
        };
        assert_eq!(Note::decode(&wrong.encode()).unwrap(), wrong);
        for text in ["", "{}", "[]", "null", "{\"Version\":1,\"ID\":\"x\"}"] {
            Note::decode(text.as_bytes()).unwrap_err();
        }
    }

    #[test]
    fn the_manual_shows_a_note() {
        let shown = MANUAL.split("```json note\n").nth(1).unwrap();
        let shown = shown.split("```").next().unwrap();
        let note = Note::decode(shown.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(note.encode()).unwrap(), shown);
    }
}
