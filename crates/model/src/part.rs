//! A part of a snapshot that is restored by itself: which sections, which keys, and how they meet what is there.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Text, go_quoted};

/// What of a snapshot can be restored without the rest. The variant's name stands in the log and must never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Section {
    /// Nodes, services, checks, and where nodes are in the network.
    Catalog,
    /// Sessions.
    Sessions,
    /// Tokens.
    Acl,
    /// Keys.
    Kv,
    /// Prepared queries.
    Queries,
}

impl Section {
    /// All of them, in the order in which they are written.
    pub const ALL: [Self; 5] = [
        Self::Catalog,
        Self::Sessions,
        Self::Acl,
        Self::Kv,
        Self::Queries,
    ];

    /// What it is called in parameters and flags.
    pub fn name(self) -> &'static str {
        match self {
            Self::Catalog => "catalog",
            Self::Sessions => "sessions",
            Self::Acl => "acl",
            Self::Kv => "kv",
            Self::Queries => "queries",
        }
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How what is restored meets what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum RestoreMode {
    /// Of the part, what the snapshot lacks goes.
    #[default]
    Replace,
    /// What the snapshot has is added or written over; nothing goes.
    Merge,
}

impl RestoreMode {
    /// What it is called in parameters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::Merge => "merge",
        }
    }
}

/// The most prefixes that a part may name.
pub const PART_PREFIXES_MAX: usize = 64;

/// The longest prefix that a part may name, in bytes.
pub const PART_PREFIX_LEN_MAX: usize = 4096;

/// A part of a snapshot, and how it is restored. It makes sense: whoever builds one is told what doesn't.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Plain", into = "Plain")]
pub struct RestorePart {
    /// At least one.
    sections: BTreeSet<Section>,
    /// Of keys, those that begin so; none of which begins as another does. Empty for all, and without [`Section::Kv`].
    prefixes: Vec<Text>,
    /// What takes the place of the prefix, of which there is exactly one then.
    into: Option<Text>,
    mode: RestoreMode,
}

/// How a part stands in the log and in calls.
#[derive(Serialize, Deserialize)]
struct Plain {
    sections: BTreeSet<Section>,
    prefixes: Vec<Text>,
    into: Option<Text>,
    mode: RestoreMode,
}

impl From<RestorePart> for Plain {
    fn from(part: RestorePart) -> Self {
        let RestorePart {
            sections,
            prefixes,
            into,
            mode,
        } = part;
        Self {
            sections,
            prefixes,
            into,
            mode,
        }
    }
}

impl TryFrom<Plain> for RestorePart {
    type Error = PartError;

    fn try_from(plain: Plain) -> Result<Self, PartError> {
        Self::new(plain.sections, plain.prefixes, plain.into, plain.mode)
    }
}

/// What is asked for, in the words of parameters and flags; what isn't given is `None`, or empty.
#[derive(Debug, Clone, Copy, Default)]
pub struct PartWish<'a> {
    /// The sections that are restored, between commas.
    pub only: Option<&'a [u8]>,
    /// The sections that are not restored, between commas.
    pub skip: Option<&'a [u8]>,
    /// The beginnings of the keys that are restored.
    pub kv_prefixes: &'a [&'a [u8]],
    /// What takes the place of that beginning.
    pub into_prefix: Option<&'a [u8]>,
    /// `replace` or `merge`.
    pub mode: Option<&'a [u8]>,
}

/// Why no part is meant by what somebody said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PartError {
    /// Nobody said which part.
    #[error("no part is named: give only, skip or kv-prefix")]
    Nothing,
    /// Both ways of naming sections at once.
    #[error("only and skip can't both be given")]
    OnlyAndSkip,
    /// There is no such section.
    #[error("unknown part {}: there are catalog, sessions, acl, kv and queries", go_quoted(.0))]
    Unknown(Text),
    /// Nothing is left to restore.
    #[error("nothing is left to restore when all parts are skipped")]
    AllSkipped,
    /// A prefix of keys, where no keys are restored.
    #[error("kv-prefix is given, but kv is not among the parts that are restored")]
    PrefixWithoutKeys,
    /// Another prefix in place of none, or of several.
    #[error("into-prefix takes the place of a kv-prefix, so exactly one must be given")]
    IntoWithoutPrefix,
    /// Everything beside what is restored would go.
    #[error("into-prefix is empty, so that replacing would remove all other keys: give mode=merge")]
    IntoEverything,
    /// There is no such mode.
    #[error("unknown mode {}: it is replace or merge", go_quoted(.0))]
    Mode(Text),
    /// More prefixes than are taken.
    #[error("too many prefixes of keys: {PART_PREFIXES_MAX} can be given")]
    TooManyPrefixes,
    /// A prefix that is longer than is taken.
    #[error("a prefix of keys is longer than {PART_PREFIX_LEN_MAX} bytes")]
    PrefixTooLong,
}

impl RestorePart {
    /// A part of these sections, of keys only those with one of the prefixes unless there are none.
    ///
    /// # Errors
    /// [`PartError`] says what makes no sense.
    pub fn new(
        sections: BTreeSet<Section>,
        prefixes: Vec<Text>,
        into: Option<Text>,
        mode: RestoreMode,
    ) -> Result<Self, PartError> {
        if sections.is_empty() {
            return Err(PartError::Nothing);
        }
        if !prefixes.is_empty() && !sections.contains(&Section::Kv) {
            return Err(PartError::PrefixWithoutKeys);
        }
        if prefixes.len() > PART_PREFIXES_MAX {
            return Err(PartError::TooManyPrefixes);
        }
        let mut all = prefixes.iter().chain(&into);
        if all.any(|prefix| prefix.len() > PART_PREFIX_LEN_MAX) {
            return Err(PartError::PrefixTooLong);
        }
        if let Some(into) = &into {
            if prefixes.len() != 1 {
                return Err(PartError::IntoWithoutPrefix);
            }
            if into.is_empty() && mode == RestoreMode::Replace {
                return Err(PartError::IntoEverything);
            }
        }
        Ok(Self {
            sections,
            prefixes: outermost(prefixes),
            into,
            mode,
        })
    }

    /// The part that is meant by what somebody said. Who names a prefix of keys and no section means those keys alone.
    ///
    /// # Errors
    /// [`PartError`] says what makes no sense.
    pub fn parse(wish: PartWish<'_>) -> Result<Self, PartError> {
        let sections = match (wish.only, wish.skip) {
            (Some(_), Some(_)) => return Err(PartError::OnlyAndSkip),
            (Some(only), None) => named(only)?,
            (None, Some(skip)) => {
                let skipped = named(skip)?;
                let all = Section::ALL.into_iter();
                let left: BTreeSet<_> = all.filter(|it| !skipped.contains(it)).collect();
                if left.is_empty() {
                    return Err(PartError::AllSkipped);
                }
                left
            }
            (None, None) if wish.kv_prefixes.is_empty() => {
                return Err(match wish.into_prefix {
                    Some(_) => PartError::IntoWithoutPrefix,
                    None => PartError::Nothing,
                });
            }
            (None, None) => BTreeSet::from([Section::Kv]),
        };
        let mode = match wish.mode {
            None | Some(b"replace") => RestoreMode::Replace,
            Some(b"merge") => RestoreMode::Merge,
            Some(other) => return Err(PartError::Mode(Text::from(other))),
        };
        let prefixes = wish.kv_prefixes.iter().copied().map(Text::from);
        let into = wish.into_prefix.map(Text::from);
        Self::new(sections, prefixes.collect(), into, mode)
    }

    /// The sections that are restored, at least one.
    pub fn sections(&self) -> &BTreeSet<Section> {
        &self.sections
    }

    /// Whether a section is restored.
    pub fn has(&self, section: Section) -> bool {
        self.sections.contains(&section)
    }

    /// The beginnings of the keys that are restored; empty if they may begin in any way.
    pub fn prefixes(&self) -> &[Text] {
        &self.prefixes
    }

    /// What takes the place of the only prefix, if anything.
    pub fn into_prefix(&self) -> Option<&Text> {
        self.into.as_ref()
    }

    /// How what is restored meets what is there.
    pub fn mode(&self) -> RestoreMode {
        self.mode
    }

    /// Whether a key of the snapshot is restored.
    pub fn takes_key(&self, key: &[u8]) -> bool {
        self.has(Section::Kv)
            && (self.prefixes.is_empty()
                || self.prefixes.iter().any(|prefix| key.starts_with(prefix)))
    }

    /// The beginnings of those keys that what is restored takes the place of.
    pub fn places(&self) -> Vec<Text> {
        match &self.into {
            _ if !self.has(Section::Kv) => Vec::new(),
            Some(into) => vec![into.clone()],
            None if self.prefixes.is_empty() => vec![Text::default()],
            None => self.prefixes.clone(),
        }
    }
}

/// Sections by their names.
fn named(list: &[u8]) -> Result<BTreeSet<Section>, PartError> {
    list.split(|byte| *byte == b',')
        .map(|name| {
            let name = name.trim_ascii();
            let found = Section::ALL
                .into_iter()
                .find(|section| section.name().as_bytes() == name);
            found.ok_or_else(|| PartError::Unknown(Text::from(name)))
        })
        .collect()
}

/// Without those that begin as another one does.
fn outermost(mut prefixes: Vec<Text>) -> Vec<Text> {
    prefixes.sort_unstable();
    let mut kept: Vec<Text> = Vec::new();
    for prefix in prefixes {
        // Sorted, whatever begins as another does comes behind it.
        if kept.last().is_none_or(|last| !prefix.starts_with(last)) {
            kept.push(prefix);
        }
    }
    kept
}

#[cfg(test)]
mod tests;
