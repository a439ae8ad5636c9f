//! What is in a snapshot: proven sound, and counted by type and by prefix of the keys.
//!
//! The archive is read once, from front to end. What it holds of state goes, piece by piece, to a thread that counts and to one that judges;
//! so memory doesn't grow with the snapshot, and nothing is written anywhere.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::mpsc::SyncSender;
use std::thread;

use bytes::Bytes;
use store::archive::{Kind, TypeName, Unknown};
use wire::archive::{self, ArchiveError, Contents, Meta};
use wire::msgpack::{DecodeError, Decoder, RecordError, RecordReader};

use crate::pipe::{PieceReader, join, pipe};

/// What to count beside the types.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Counts keys by prefix, if given.
    pub keys: Option<KeyDetails>,
}

/// How keys are counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyDetails {
    /// How many `/`-separated parts of a key make its prefix, at least 1.
    pub depth: usize,
    /// Only keys that begin with this count.
    pub filter: Vec<u8>,
}

/// What a snapshot holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The snapshot's description of itself.
    pub meta: Meta,
    /// How long its state really is.
    pub state_size: u64,
    /// The first thing in the state that a restore would refuse, types of other releases aside.
    /// The counts go as far as records can be told apart.
    pub fault: Option<String>,
    /// The records that this program has a table for, by type, the largest first.
    pub types: Vec<Tally>,
    /// The records of other releases, by type, the largest first.
    pub skipped: Vec<Tally>,
    /// The keys by prefix, the largest first; empty unless asked for.
    pub keys: Vec<Tally>,
}

/// Some records and what they amount to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// What the records have in common.
    pub name: String,
    /// How many there are.
    pub count: u64,
    /// How many bytes they take, type bytes included.
    pub size: u64,
}

/// Reads an archive to its end, proves that all of it agrees, and counts what it holds.
///
/// # Errors
/// What is wrong with the archive. A sound archive whose state isn't sound is a [`Report`] with a fault.
pub fn inspect(input: impl Read, options: &Options) -> Result<Report, ArchiveError> {
    thread::scope(|scope| {
        let (to_counting, counting) = pipe();
        let (to_judging, judging) = pipe();
        let counting = scope.spawn(move || count(counting, options));
        let judging = scope.spawn(move || judge(judging));
        let contents = archive::unpack(input, &mut Both(to_counting, to_judging));
        // Should a thread panic, so do we: that would be a mistake of ours, not of the file.
        let counts = join(counting);
        let fault = join(judging);
        let Contents { meta, state_size } = contents?;
        let (types, skipped) = counts
            .kinds
            .into_iter()
            .partition::<Vec<_>, _>(|(byte, _, _)| Kind::from_byte(*byte).is_some());
        Ok(Report {
            meta,
            state_size,
            fault,
            types: sorted(types.into_iter().map(named)),
            skipped: sorted(skipped.into_iter().map(named)),
            keys: sorted(counts.keys),
        })
    })
}

fn named((byte, count, size): (u8, u64, u64)) -> Tally {
    Tally {
        name: TypeName(byte).to_string(),
        count,
        size,
    }
}

fn sorted(tallies: impl IntoIterator<Item = Tally>) -> Vec<Tally> {
    let mut tallies: Vec<Tally> = tallies.into_iter().collect();
    tallies.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.name.cmp(&b.name)));
    tallies
}

/// What a restore would have against the state, if anything.
fn judge(mut state: PieceReader) -> Option<String> {
    let verdict = store::archive::verify(&mut state, Unknown::Skip);
    state.drain();
    verdict.err().map(|why| why.to_string())
}

#[derive(Debug)]
struct Counts {
    /// Type byte, count and size of each type that occurs.
    kinds: Vec<(u8, u64, u64)>,
    keys: Vec<Tally>,
}

fn count(mut state: PieceReader, options: &Options) -> Counts {
    let mut by_kind = [(0_u64, 0_u64); 256];
    let mut prefixes = Prefixes::default();
    // How far it got is all that counts here; what stopped it is for the judging side to tell.
    let _: Result<(), RecordError> = (|| {
        let mut records = RecordReader::open(&mut state)?;
        // The header has no line of its own; its bytes count with the first record.
        let mut header_size = records.header().len() as u64;
        while let Some(record) = records.next_record()? {
            let size = 1 + record.bytes.len() as u64 + std::mem::take(&mut header_size);
            let (count, sum) = &mut by_kind[usize::from(record.kind)];
            *count += 1;
            *sum += size;
            if let Some(details) = &options.keys
                && record.kind == Kind::Kvs.byte()
                && let Ok(key) = key_of(record.bytes)
                && key.starts_with(&details.filter)
            {
                prefixes.add(prefix(key, details.depth), size);
            }
        }
        Ok(())
    })();
    state.drain();
    Counts {
        kinds: (0..=u8::MAX)
            .zip(by_kind)
            .filter(|(_, (count, _))| *count > 0)
            .map(|(byte, (count, size))| (byte, count, size))
            .collect(),
        keys: prefixes.into_tallies(),
    }
}

fn key_of(record: &[u8]) -> Result<&[u8], DecodeError> {
    // In the order in which the original declares them, up to the one that we want.
    const FIELDS: &[&str] = &["LockIndex", "Key"];
    let mut key: &[u8] = &[];
    Decoder::new(record).fields(FIELDS, |value, field| {
        if field == 1 {
            key = value.raw()?;
            Ok(())
        } else {
            value.skip()
        }
    })?;
    Ok(key)
}

/// The first `depth` parts of a key.
fn prefix(key: &[u8], depth: usize) -> &[u8] {
    let end = key
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'/')
        .nth(depth.max(1) - 1);
    match end {
        Some((end, _)) => &key[..end],
        None => key,
    }
}

/// Keys counted by prefix, within a bound.
#[derive(Debug, Default)]
struct Prefixes {
    counts: HashMap<Box<[u8]>, (u64, u64)>,
    names_size: usize,
    /// Keys whose prefix came when there was no room left.
    others: (u64, u64),
}

impl Prefixes {
    /// The most memory that the names of prefixes take, their place in the map included.
    const SIZE_MAX: usize = 64 << 20;
    /// What a prefix takes beside its name.
    const OVERHEAD: usize = 64;

    fn add(&mut self, name: &[u8], size: u64) {
        let (count, sum) = if let Some(known) = self.counts.get_mut(name) {
            known
        } else if self.names_size + name.len() + Self::OVERHEAD <= Self::SIZE_MAX {
            self.names_size += name.len() + Self::OVERHEAD;
            self.counts.entry(name.into()).or_default()
        } else {
            &mut self.others
        };
        *count += 1;
        *sum += size;
    }

    fn into_tallies(self) -> Vec<Tally> {
        let others = (self.others.0 > 0).then(|| Tally {
            name: "(other prefixes)".to_owned(),
            count: self.others.0,
            size: self.others.1,
        });
        let known = self.counts.into_iter().map(|(name, (count, size))| Tally {
            name: String::from_utf8_lossy(&name).into_owned(),
            count,
            size,
        });
        known.chain(others).collect()
    }
}

/// The writing ends of two pipes, which get the same.
struct Both(SyncSender<Bytes>, SyncSender<Bytes>);

impl Write for Both {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(bytes);
        self.0
            .send(piece.clone())
            .map_err(|_| io::ErrorKind::BrokenPipe)?;
        self.1.send(piece).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    fn fixture(name: &str) -> Vec<u8> {
        fs::read(
            PathBuf::from(env!("CARGO_MANIFEST_DIR"))
                .join("../../fixtures/snapshots")
                .join(name),
        )
        .unwrap()
    }

    fn shown(tallies: &[Tally]) -> Vec<(&str, u64, u64)> {
        tallies
            .iter()
            .map(|tally| (tally.name.as_str(), tally.count, tally.size))
            .collect()
    }

    /// Counts and bytes by type, from the decoded lines that another program made of the same file.
    fn expected(lines: &str) -> Vec<(String, u64, u64)> {
        let mut kinds: Vec<(String, u64, u64)> = Vec::new();
        let mut header = 0;
        for line in lines.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let Some(byte) = line["TypeByte"].as_u64() else {
                header = line["Len"].as_u64().unwrap_or(header);
                continue;
            };
            let name = TypeName(u8::try_from(byte).unwrap()).to_string();
            // Its lengths leave the type byte out.
            let size = 1 + line["Len"].as_u64().unwrap() + std::mem::take(&mut header);
            match kinds.iter_mut().find(|(known, _, _)| *known == name) {
                Some((_, count, sum)) => (*count, *sum) = (*count + 1, *sum + size),
                None => kinds.push((name, 1, size)),
            }
        }
        kinds.sort_by(|a, b| b.2.cmp(&a.2).then_with(|| a.0.cmp(&b.0)));
        kinds
    }

    #[test]
    fn counts_what_another_decoder_counts() {
        for name in ["full-0.7.1", "empty", "three-servers", "from-1.4.0"] {
            let report =
                inspect(&fixture(&format!("{name}.snap"))[..], &Options::default()).unwrap();
            let lines = String::from_utf8(fixture(&format!("{name}.decoded.jsonl"))).unwrap();
            let (known, unknown): (Vec<_>, Vec<_>) =
                expected(&lines).into_iter().partition(|(kind_name, _, _)| {
                    report.types.iter().any(|tally| tally.name == *kind_name)
                });
            let known: Vec<_> = known.iter().map(|(n, c, s)| (n.as_str(), *c, *s)).collect();
            let unknown: Vec<_> = unknown
                .iter()
                .map(|(n, c, s)| (n.as_str(), *c, *s))
                .collect();
            assert_eq!(shown(&report.types), known, "{name}");
            assert_eq!(shown(&report.skipped), unknown, "{name}");
            let total: u64 = report
                .types
                .iter()
                .chain(&report.skipped)
                .map(|tally| tally.size)
                .sum();
            assert_eq!(total, report.state_size, "{name}");
        }
        let newer = inspect(&fixture("from-1.4.0.snap")[..], &Options::default()).unwrap();
        assert!(
            newer.skipped.iter().any(|tally| tally.name == "ACLToken"),
            "{newer:?}"
        );
    }

    #[test]
    fn counts_keys_by_prefix() {
        let keys = |depth, filter: &str| {
            let details = KeyDetails {
                depth,
                filter: filter.as_bytes().to_vec(),
            };
            inspect(
                &fixture("large-10k.snap")[..],
                &Options {
                    keys: Some(details),
                },
            )
            .unwrap()
            .keys
        };
        let all: u64 = keys(1, "").iter().map(|tally| tally.count).sum();
        assert!(all >= 10_000, "{all}");
        assert_eq!(
            all,
            keys(9, "").iter().map(|tally| tally.count).sum::<u64>()
        );
        let first = keys(1, "").remove(0).name;
        assert!(
            keys(2, &first)
                .iter()
                .all(|tally| tally.name.starts_with(&first))
        );
        assert!(keys(2, "no such prefix").is_empty());
    }

    #[test]
    fn prefixes() {
        let cases = [
            ("a", 2, "a"),
            ("a/b", 1, "a"),
            ("a/b/c", 2, "a/b"),
            ("a/b/", 2, "a/b"),
            ("/a", 1, ""),
            ("a//b", 2, "a/"),
            ("a", 0, "a"),
        ];
        for (key, depth, expected) in cases {
            assert_eq!(
                prefix(key.as_bytes(), depth),
                expected.as_bytes(),
                "{key} {depth}"
            );
        }
    }

    #[test]
    fn a_flood_of_prefixes_is_bounded() {
        let mut prefixes = Prefixes::default();
        let long = vec![b'x'; 1 << 20];
        for number in 0..66_u8 {
            prefixes.add(&[&long[..], &[number]].concat(), 1);
        }
        assert!(prefixes.names_size <= Prefixes::SIZE_MAX);
        let tallies = prefixes.into_tallies();
        assert!(tallies.iter().any(|tally| tally.name == "(other prefixes)"));
        assert_eq!(tallies.iter().map(|tally| tally.count).sum::<u64>(), 66);
    }

    /// What the original says about each archive is on record; ours says the same, and never panics.
    #[test]
    fn judges_the_edge_files_as_the_original_does() {
        let observed: serde_json::Value =
            serde_json::from_slice(&fixture("edge/observed-0.7.1.json")).unwrap();
        let observed = observed.as_object().unwrap();
        assert!(observed.len() > 50);
        // Texts of another language's standard library, and random choices, can't be ours.
        let own_text = [
            "reject-meta-not-json",
            "reject-gzip-of-nothing",
            "reject-missing-sums",
        ];
        // Ours refuses these on purpose.
        let stricter = ["accept-cut-gzip-trailer", "accept-junk-after-gzip"];
        // The original refuses these by mistake.
        let quirks = ["quirk-meta-object-512", "quirk-meta-object-1536"];
        let mut seen = 0;
        for (name, observation) in observed {
            let bytes = fixture(&format!("edge/{name}.snap"));
            let judged = inspect(&bytes[..], &Options::default()).map_err(|why| why.to_string());
            let line = observation["inspect_stdout_first_line"].as_str().unwrap();
            let refusal = line.strip_prefix("Error verifying snapshot: ");
            let name = name.as_str();
            if stricter.contains(&name) {
                judged.unwrap_err();
            } else if quirks.contains(&name) {
                judged.unwrap();
            } else if let Some(refusal) = refusal {
                let why = judged.unwrap_err();
                if !own_text.contains(&name) {
                    // The record cuts long lines.
                    assert!(
                        why.starts_with(refusal),
                        "{name}: {why:?} is not {refusal:?}"
                    );
                }
            } else {
                judged.unwrap_or_else(|why| panic!("{name}: {why}"));
            }
            seen += 1;
        }
        assert_eq!(seen, observed.len());
    }

    #[test]
    fn names_what_a_restore_would_refuse() {
        let observed: serde_json::Value =
            serde_json::from_slice(&fixture("edge/observed-0.7.1.json")).unwrap();
        for name in observed.as_object().unwrap().keys() {
            let Ok(report) = inspect(
                &fixture(&format!("edge/{name}.snap"))[..],
                &Options::default(),
            ) else {
                continue;
            };
            assert_eq!(
                report.fault.is_some(),
                name.starts_with("crash-"),
                "{name}: {:?}",
                report.fault
            );
        }
        let report = |name: &str| inspect(&fixture(name)[..], &Options::default()).unwrap();
        let cut = report("edge/crash-state-truncated.snap");
        assert!(cut.fault.unwrap().starts_with("unexpected EOF (record "));
        assert!(!cut.types.is_empty());
        let unknown = report("edge/crash-unknown-type-99.snap");
        assert_eq!(unknown.skipped[0].name, "Unknown(99)");
        assert!(
            unknown
                .fault
                .unwrap()
                .starts_with("Unrecognized msg type: [99]")
        );
        assert_eq!(report("from-1.4.0.snap").fault, None);
    }

    #[test]
    fn every_cut_is_refused() {
        let bytes = fixture("three-servers.snap");
        for end in 0..bytes.len() {
            inspect(&bytes[..end], &Options::default()).unwrap_err();
        }
    }
}
