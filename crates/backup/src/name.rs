//! What a snapshot is called where several lie together: `consul-<id>.snap`, and `consul-<id>.snap.age` if it is encrypted.
//! The note beside it has its name and `.json` after it, so that it isn't taken for a snapshot.

use std::fmt;
use std::str::FromStr;

/// The name of one snapshot in a store. Rotation sees nothing that isn't called so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// When it was begun, in nanoseconds since 1970; it orders snapshots.
    pub id: u64,
    /// Whether only who has an identity can read it.
    pub encrypted: bool,
}

const BEFORE: &str = "consul-";
const AFTER: &str = ".snap";
const ENCRYPTED: &str = ".age";
/// What the name of a note has after the snapshot's.
pub(crate) const NOTE: &str = ".json";

impl Name {
    /// What the note beside it is called.
    pub(crate) fn note(self) -> String {
        format!("{self}{NOTE}")
    }

    /// Whose note is called so.
    pub(crate) fn of_note(text: &str) -> Option<Self> {
        text.strip_suffix(NOTE)?.parse().ok()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{BEFORE}{}{AFTER}", self.id)?;
        f.write_str(if self.encrypted { ENCRYPTED } else { "" })
    }
}

/// It isn't a snapshot's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not the name of a snapshot: those are called consul-<number>.snap or consul-<number>.snap.age"
)]
pub struct NotAName;

impl FromStr for Name {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let (rest, encrypted) = match text.strip_suffix(ENCRYPTED) {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let digits = rest
            .strip_prefix(BEFORE)
            .and_then(|rest| rest.strip_suffix(AFTER))
            .ok_or(NotAName)?;
        let id = digits.parse().map_err(|_| NotAName)?;
        let name = Self { id, encrypted };
        // No sign, no leading zero: one snapshot has one name.
        if name.to_string() == text {
            Ok(name)
        } else {
            Err(NotAName)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_snapshot_has_one_name() {
        for (text, expected) in [
            (
                "consul-1479503772206993731.snap",
                Some((1_479_503_772_206_993_731, false)),
            ),
            ("consul-7.snap.age", Some((7, true))),
            ("consul-0.snap", Some((0, false))),
            ("consul-07.snap", None),
            ("consul-+7.snap", None),
            ("consul-.snap", None),
            ("consul-99999999999999999999.snap", None),
            ("consul-7.snap.part", None),
            ("consul-7.snap.age.age", None),
            ("consul-7.snap.json", None),
            ("Consul-7.snap", None),
            ("x/consul-7.snap", None),
            ("", None),
        ] {
            let parsed = text.parse::<Name>().ok();
            assert_eq!(
                parsed.map(|name| (name.id, name.encrypted)),
                expected,
                "{text}"
            );
            if let Some(name) = parsed {
                assert_eq!(name.to_string(), text);
                assert_eq!(Name::of_note(&name.note()), Some(name));
                assert_eq!(Name::of_note(text), None);
            }
        }
        assert_eq!(Name::of_note("consul-07.snap.json"), None);
        assert_eq!(Name::of_note("consul-7.json"), None);
    }
}
