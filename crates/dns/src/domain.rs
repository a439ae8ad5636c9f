//! A domain name as messages hold it.

use std::fmt;
use std::sync::Arc;

/// How long a name may be, lengths of labels and the root included.
const NAME_MAX: usize = 255;

/// How long a label may be.
const LABEL_MAX: usize = 63;

/// A domain name: labels, each after its length, and the root's empty one. Cheap to clone.
///
/// It never exceeds the bounds of the protocol, and keeps the case that it was given.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name(Arc<[u8]>);

impl Name {
    /// A name of these labels, before those of `zone`; `None` if it would be none or is too long.
    pub(crate) fn of<'a>(
        labels: impl IntoIterator<Item = &'a [u8]>,
        zone: Option<&Self>,
    ) -> Option<Self> {
        let mut wire = [0; NAME_MAX];
        let mut end = 0;
        for label in labels {
            let length = u8::try_from(label.len()).ok()?;
            if label.is_empty() || label.len() > LABEL_MAX || end + 1 + label.len() >= NAME_MAX {
                return None;
            }
            wire[end] = length;
            wire[end + 1..end + 1 + label.len()].copy_from_slice(label);
            end += 1 + label.len();
        }
        let rest = zone.map_or(&[0][..], |zone| &zone.0);
        let whole = wire.get_mut(end..end + rest.len())?;
        whole.copy_from_slice(rest);
        end += rest.len();
        Some(Self(Arc::from(&wire[..end])))
    }

    /// Reads the usual form, with or without its final dot.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let text = text.strip_suffix(b".").unwrap_or(text);
        if text.is_empty() {
            return Self::of([], None);
        }
        Self::of(text.split(|byte| *byte == b'.'), None)
    }

    /// As it stands in messages that don't shorten it.
    pub(crate) fn wire(&self) -> &[u8] {
        &self.0
    }

    /// Its labels from the left, without the root's.
    pub(crate) fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first()?;
            let (label, after) = after.split_at_checked(usize::from(*length))?;
            rest = after;
            (!label.is_empty()).then_some(label)
        })
    }

    /// Whether it is this zone or lies in it, whatever the case.
    pub(crate) fn is_in(&self, zone: &Self) -> bool {
        let Some(skipped) = self.0.len().checked_sub(zone.0.len()) else {
            return false;
        };
        // The end must begin with a label, not in the middle of one.
        let mut at = 0;
        while at < skipped {
            at += 1 + usize::from(self.0[at]);
        }
        // Lengths are below the letters, so that comparing them without regard to case does no harm.
        at == skipped && self.0[at..].eq_ignore_ascii_case(&zone.0)
    }

    /// Whether it is the same name, whatever the case.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }

    /// In lower case.
    pub(crate) fn lower(&self) -> Self {
        Self(Arc::from(self.0.to_ascii_lowercase()))
    }
}

/// With its final dot; whatever is no printable character, and dots within labels, as `\DDD`.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() == 1 {
            return f.write_str(".");
        }
        for label in self.labels() {
            for byte in label {
                if byte.is_ascii_graphic() && !matches!(byte, b'.' | b'\\') {
                    write!(f, "{}", char::from(*byte))?;
                } else {
                    write!(f, "\\{byte:03}")?;
                }
            }
            f.write_str(".")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn read_and_shown() {
        for (text, shown) in [
            ("", "."),
            (".", "."),
            ("consul", "consul."),
            ("Web.Service.consul.", "Web.Service.consul."),
            ("a\\ b.c", "a\\092\\032b.c."),
        ] {
            assert_eq!(name(text).to_string(), shown);
        }
        let label = "x".repeat(63);
        let long = [&*label; 3].join(".");
        assert!(Name::parse(format!("{long}.{}", "y".repeat(61)).as_bytes()).is_some());
        for bad in [
            "a..b",
            "..",
            ".a",
            &"x".repeat(64),
            &format!("{long}.{}", "y".repeat(62)),
        ] {
            assert!(Name::parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[test]
    fn bounds_hold_with_a_zone() {
        let label = [b'x'; 60];
        for labels in 0..8 {
            for zone in ["", "consul", &"z".repeat(63)] {
                let zone = name(zone);
                let made = Name::of(std::iter::repeat_n(&label[..], labels), Some(&zone));
                assert_eq!(made.is_some(), labels * 61 + zone.wire().len() <= 255);
            }
        }
    }

    #[test]
    fn inside_and_outside() {
        for (inner, zone, expected) in [
            ("consul", "consul", true),
            ("a.CONSUL", "consul", true),
            ("aconsul", "consul", false),
            ("consul", "a.consul", false),
            ("a.my.test", "my.test", true),
            ("a.test", "my.test", false),
            ("anything", ".", true),
            (".", ".", true),
        ] {
            assert_eq!(name(inner).is_in(&name(zone)), expected, "{inner} {zone}");
        }
    }
}
