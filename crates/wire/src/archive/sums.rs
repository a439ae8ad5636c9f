//! `SHA256SUMS`: a line per file, a hash and a name.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use super::{META, STATE};

/// The hash of one file.
pub(super) type Hash = [u8; 32];

/// What is wrong with the sums; the texts are the original's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SumsError {
    /// A line that is not a hash and a name.
    #[error("{0}")]
    Line(&'static str),
    /// A file is listed that is not one of the two.
    #[error("list missing hash for {0:?}")]
    Stranger(String),
    /// A file is not what its hash says.
    #[error("hash check failed for {0:?}")]
    Mismatch(&'static str),
    /// A file is not listed.
    #[error("file missing for {0:?}")]
    Missing(&'static str),
}

/// The file for these hashes.
///
/// The original writes the two lines in random order, so no reader depends on it.
pub(super) fn encode(meta: &Hash, state: &Hash) -> String {
    let mut lines = String::new();
    for (hash, name) in [(meta, META), (state, STATE)] {
        for byte in hash {
            write!(lines, "{byte:02x}").expect("a string takes everything");
        }
        writeln!(lines, "  {name}").expect("a string takes everything");
    }
    lines
}

/// Checks the listed hashes against those of what was read.
pub(super) fn check(lines: &[u8], meta: &Hash, state: &Hash) -> Result<(), SumsError> {
    let (mut meta_seen, mut state_seen) = (false, false);
    // A newline ends a line and doesn't begin another one; but an empty line is one.
    let mut rest = lines;
    while !rest.is_empty() {
        let end = rest
            .iter()
            .position(|byte| *byte == b'\n')
            .unwrap_or(rest.len());
        let line = &rest[..end];
        rest = rest.get(end + 1..).unwrap_or_default();
        let (hash, name) = scan(line.strip_suffix(b"\r").unwrap_or(line))?;
        let (name, actual, seen) = match name {
            name if name == META.as_bytes() => (META, meta, &mut meta_seen),
            name if name == STATE.as_bytes() => (STATE, state, &mut state_seen),
            name => {
                return Err(SumsError::Stranger(
                    String::from_utf8_lossy(name).into_owned(),
                ));
            }
        };
        if hash != actual {
            return Err(SumsError::Mismatch(name));
        }
        *seen = true;
    }
    for (name, seen) in [(META, meta_seen), (STATE, state_seen)] {
        if !seen {
            return Err(SumsError::Missing(name));
        }
    }
    Ok(())
}

/// Takes a line apart as the original's scanner does: pairs of hex digits in either case, any run of blanks, a name up to the next blank.
/// What follows the name is not looked at.
fn scan(line: &[u8]) -> Result<(Vec<u8>, &[u8]), SumsError> {
    if line.is_empty() {
        return Err(SumsError::Line("EOF"));
    }
    let line = trim_blanks(line);
    let digits = line
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    match digits {
        0 if line.is_empty() => return Err(SumsError::Line("unexpected EOF")),
        0 => return Err(SumsError::Line("no hex data for %x string")),
        odd if odd % 2 == 1 => return Err(SumsError::Line("illegal hex digit")),
        _ => {}
    }
    let (hash, rest) = line.split_at(digits);
    let name = trim_blanks(rest);
    if name.is_empty() {
        return Err(SumsError::Line("unexpected EOF"));
    }
    if name.len() == rest.len() {
        return Err(SumsError::Line("expected space in input to match format"));
    }
    let end = name
        .iter()
        .position(|byte| is_blank(*byte))
        .unwrap_or(name.len());
    let hash = hash
        .chunks_exact(2)
        .map(|pair| nibble(pair[0]) << 4 | nibble(pair[1]))
        .collect();
    Ok((hash, &name[..end]))
}

fn nibble(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\x0b' | b'\x0c')
}

fn trim_blanks(bytes: &[u8]) -> &[u8] {
    let start = bytes
        .iter()
        .position(|byte| !is_blank(*byte))
        .unwrap_or(bytes.len());
    &bytes[start..]
}

/// A hash that takes its bytes as they come.
#[derive(Debug, Default)]
pub(super) struct Hasher(Sha256);

impl Hasher {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(super) fn finish(self) -> Hash {
        self.0.finalize().into()
    }
}
