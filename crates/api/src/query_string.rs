//! What follows the `?`.

use std::borrow::Cow;

use crate::percent::{self, Part};

/// More parameters than any client sends; a string of bare ampersands must not cost memory.
const PARAMETERS_MAX: usize = 256;

/// The parameters of a request, decoded, in their order.
#[derive(Debug, Default)]
pub(crate) struct QueryString<'a>(Vec<Parameter<'a>>);

/// A name and a value.
type Parameter<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

impl<'a> QueryString<'a> {
    /// Takes the string apart; `None` if it has a bad escape or too many parameters.
    pub(crate) fn parse(raw: Option<&'a [u8]>) -> Option<Self> {
        let mut parameters = Vec::new();
        // The original takes a semicolon for an ampersand, as HTML once recommended.
        let pieces = raw
            .unwrap_or_default()
            .split(|byte| matches!(byte, b'&' | b';'));
        for piece in pieces.filter(|piece| !piece.is_empty()) {
            if parameters.len() == PARAMETERS_MAX {
                return None;
            }
            let (name, value) = match memchr::memchr(b'=', piece) {
                Some(at) => (&piece[..at], &piece[at + 1..]),
                None => (piece, &b""[..]),
            };
            let name = percent::decode(name, Part::Query)?;
            parameters.push((name, percent::decode(value, Part::Query)?));
        }
        Some(Self(parameters))
    }

    /// The first value of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        let found = self
            .0
            .iter()
            .find(|(known, _)| **known == *name.as_bytes())?;
        Some(&found.1)
    }

    /// All values of that name, in their order.
    pub(crate) fn all<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s [u8]> {
        let named = move |(known, _): &&Parameter<'_>| **known == *name.as_bytes();
        self.0.iter().filter(named).map(|(_, value)| &**value)
    }

    /// The first value of that name, or nothing if it is empty.
    pub(crate) fn filled(&self, name: &str) -> Option<&[u8]> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// Whether the name is there, with or without a value.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Written anew, sorted by name.
    pub(crate) fn sorted(&self) -> String {
        let mut parameters: Vec<_> = self.0.iter().collect();
        parameters.sort_by(|a, b| a.0.cmp(&b.0));
        let mut out = String::new();
        for (name, value) in parameters {
            if !out.is_empty() {
                out.push('&');
            }
            percent::encode(name, Part::Query, &mut out);
            out.push('=');
            percent::encode(value, Part::Query, &mut out);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::QueryString;

    #[test]
    fn parses() {
        let query = QueryString::parse(Some(b"b=2&a&&a=1;c=%20+x")).unwrap();
        assert_eq!(query.get("b"), Some(&b"2"[..]));
        assert_eq!(query.get("a"), Some(&b""[..]));
        assert_eq!(query.all("a").collect::<Vec<_>>(), [&b""[..], b"1"]);
        assert_eq!(query.filled("a"), None);
        assert_eq!(query.get("c"), Some(&b"  x"[..]));
        assert!(!query.has("d"));
        assert_eq!(query.sorted(), "a=&a=1&b=2&c=++x");
        assert!(QueryString::parse(Some(b"a=%zz")).is_none());
        assert!(QueryString::parse(Some("a&".repeat(300).as_bytes())).is_none());
    }
}
