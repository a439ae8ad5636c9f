//! A snapshot without its secrets, to be shown to who helps; `docs/redaction.md` is the same for operators.
//!
//! | stays | goes |
//! | --- | --- |
//! | names: of nodes, services, checks, keys, sessions, queries, tokens; addresses, ports, ids of sessions and queries | |
//! | keys, their flags, locks and indexes | values: as many `x` as there were bytes |
//! | status of checks | what checks said, and notes about them: as many `x` |
//! | tokens: name, type, rules | their secrets, here and in queries: another id each, the same wherever it stands; `anonymous` is none and stays |
//! | tags; of a tag like `version=2` what is before the `=` | what is after it, and values of metadata: a few letters and digits, the same for the same |
//! | metadata of the snapshot, coordinates, deletions | records that only later releases know, since nobody here can tell what is in them |
//!
//! What takes the place of a secret is made with a random number that is forgotten afterwards: nobody can try out secrets on it,
//! and two redacted files of one cluster don't have the same for the same.
//! The result is a snapshot like others: it can be looked into, verified, compared with itself, and restored somewhere.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Read, Seek, Write};
use std::time::SystemTime;

use model::{ANONYMOUS, Check, KvParts, Pairs, Text, Uuid};
use rand::Rng;
use sha2::{Digest, Sha256};
use store::archive::{Record, Rules, is_known};
use wire::archive::{Compression, Contents, Meta, Writer};
use wire::msgpack::{RecordError, RecordReader};
use zeroize::Zeroizing;

use crate::items::{Unreadable, refused};
use crate::pipe::{PieceReader, unpack};

/// What a redacted snapshot is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redacted {
    /// What it says of itself: the same as before, but for the size.
    pub meta: Meta,
    /// How many records of types of later releases were left out, by type byte; [`store::archive::TypeName`] names them.
    pub left_out: BTreeMap<u8, u64>,
}

/// Why a snapshot could not be redacted.
#[derive(Debug, thiserror::Error)]
pub enum RedactError {
    /// It can't be read to its end.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// There is no room for the result, or it can't be written.
    #[error("writing the redacted snapshot: {0}")]
    Write(#[from] io::Error),
}

/// Writes a snapshot again without its values, secrets and texts that anything may be in; the table above says which.
///
/// Nothing is written to `output` before all of `input` was read and proved to be sound.
/// What is redacted waits meanwhile in a nameless file in the folder for temporary files; what isn't is never on a disk.
///
/// # Errors
/// [`RedactError`]. What was written until then is no snapshot.
pub fn redact(input: impl Read, output: impl Write) -> Result<Redacted, RedactError> {
    let mut scratch = tempfile::tempfile()?;
    let state = BufWriter::with_capacity(256 << 10, &mut scratch);
    let (contents, rewritten) = unpack(input, |records| rewrite(records, state));
    let Contents { meta, .. } = contents.map_err(Unreadable::from)?;
    let Rewritten { size, left_out } = rewritten?;

    let meta = Meta {
        size: i64::try_from(size).map_err(io::Error::other)?,
        ..meta
    };
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    scratch.rewind()?;
    let mut writer = Writer::new(output, &meta, now, Compression::default())?;
    io::copy(&mut scratch, &mut writer)?;
    writer.finish()?.flush()?;
    Ok(Redacted { meta, left_out })
}

struct Rewritten {
    size: u64,
    left_out: BTreeMap<u8, u64>,
}

fn rewrite(state: &mut PieceReader, mut out: impl Write) -> Result<Rewritten, RedactError> {
    let cut = |why: RecordError| Unreadable::State(why.to_string());
    let mut reader = RecordReader::open(state).map_err(cut)?;
    let mut rules = Rules::default();
    let mut veil = Veil::new();
    let mut rewritten = Rewritten {
        size: reader.header().len() as u64,
        left_out: BTreeMap::new(),
    };
    out.write_all(reader.header())?;
    let mut bytes = Vec::new();
    while let Some(record) = reader.next_record().map_err(cut)? {
        if !is_known(record.kind) {
            *rewritten.left_out.entry(record.kind).or_default() += 1;
            continue;
        }
        let mut taken = rules
            .take(record.kind, record.bytes)
            .map_err(|refusal| Unreadable::State(refused(&record, refusal)))?;
        bytes.clear();
        veil.cover(&mut taken, &mut bytes);
        rewritten.size += bytes.len() as u64;
        out.write_all(&bytes)?;
    }
    out.flush()?;
    Ok(rewritten)
}

/// Hides what is secret, the same each time.
struct Veil {
    salt: Zeroizing<[u8; 32]>,
    /// As many `x` as the longest text so far needed.
    filler: Vec<u8>,
}

impl Veil {
    fn new() -> Self {
        let mut salt = Zeroizing::new([0; 32]);
        rand::rng().fill_bytes(&mut *salt);
        Self {
            salt,
            filler: Vec::new(),
        }
    }

    /// Writes a record without its secrets.
    fn cover(&mut self, record: &mut Record<'_>, out: &mut Vec<u8>) {
        match record {
            Record::Register(registration) => {
                self.cover_values(&mut registration.node.meta);
                if let Some(service) = &mut registration.service {
                    self.cover_values(&mut service.meta);
                    self.cover_tags(service.tags.as_deref_mut());
                }
                for Check { notes, output, .. } in &mut registration.checks {
                    *notes = Text::from(self.filler(notes.len()));
                    *output = Text::from(self.filler(output.len()));
                }
            }
            Record::Kv(entry) => {
                let covered = KvParts {
                    value: self.filler(entry.value.len()),
                    ..*entry
                };
                return Record::Kv(covered).encode(out);
            }
            Record::Acl(row) => row.id = self.cover_token(&row.id),
            Record::Query(row) => {
                row.token = self.cover_token(&row.token);
                self.cover_tags(row.service.tags.as_deref_mut());
                self.cover_values(&mut row.service.node_meta);
            }
            Record::Session(_) | Record::Tombstone(..) | Record::Coordinates(_) => {}
        }
        record.encode(out);
    }

    /// What stands for a token in place of its secret.
    fn cover_token(&self, token: &Text) -> Text {
        if token.is_empty() || *token == ANONYMOUS {
            return token.clone();
        }
        Text::from(Uuid::from_bytes(self.hash(b"token", token)).to_string())
    }

    fn cover_values(&self, pairs: &mut Pairs) {
        for value in pairs.values_mut() {
            *value = self.cover_value(value);
        }
    }

    fn cover_tags(&self, tags: Option<&mut [Text]>) {
        for tag in tags.into_iter().flatten() {
            if let Some(at) = tag.iter().position(|byte| *byte == b'=') {
                let (name, value) = tag.split_at(at + 1);
                *tag = Text::from([name, &self.cover_value(value)].concat());
            }
        }
    }

    /// What stands for a short text by which things are found, so that the same ones are still found.
    fn cover_value(&self, value: &[u8]) -> Text {
        // What a template fills in is no secret, and has to stay what it is.
        if value.is_empty() || value.windows(2).any(|pair| pair == b"${") {
            return Text::from(value);
        }
        let [a, b, c, d, e, f, ..] = self.hash(b"value", value);
        Text::from(format!("{a:02x}{b:02x}{c:02x}{d:02x}{e:02x}{f:02x}"))
    }

    fn hash(&self, kind: &[u8], secret: &[u8]) -> [u8; 16] {
        let hash = Sha256::new()
            .chain_update(*self.salt)
            .chain_update(kind)
            .chain_update([0])
            .chain_update(secret);
        let mut half = [0; 16];
        half.copy_from_slice(&hash.finalize()[..16]);
        half
    }

    fn filler(&mut self, len: usize) -> &[u8] {
        if self.filler.len() < len {
            self.filler.resize(len, b'x');
        }
        &self.filler[..len]
    }
}

#[cfg(test)]
mod tests {
    use model::{AclToken, Node, PreparedQuery, QueryService, Registration, Service};

    use super::*;
    use crate::fixtures::{archive_of, sound};

    fn redacted(archive: &[u8]) -> (Vec<u8>, Redacted) {
        let mut out = Vec::new();
        let redacted = redact(archive, &mut out).unwrap();
        (out, redacted)
    }

    fn state(archive: &[u8]) -> Vec<u8> {
        let mut state = Vec::new();
        wire::archive::unpack(archive, &mut state).unwrap();
        state
    }

    /// Goes through the records of a state.
    fn each_record(state: &[u8], mut each: impl FnMut(Record<'_>)) {
        let mut reader = RecordReader::open(state).unwrap();
        let mut rules = Rules::default();
        while let Some(record) = reader.next_record().unwrap() {
            if is_known(record.kind) {
                each(rules.take(record.kind, record.bytes).unwrap());
            }
        }
    }

    /// The texts that must not be in a redacted snapshot, and all the others.
    fn secrets_and_rest(state: &[u8]) -> (Vec<Vec<u8>>, Vec<u8>) {
        let (mut secrets, mut rest) = (Vec::new(), Vec::new());
        let mut covered = Vec::new();
        each_record(state, |mut record| {
            let mut add = |secret: &[u8]| secrets.push(secret.to_vec());
            match &mut record {
                Record::Register(registration) => {
                    for check in &mut registration.checks {
                        add(&std::mem::take(&mut check.output));
                        add(&std::mem::take(&mut check.notes));
                    }
                }
                Record::Kv(entry) => add(std::mem::take(&mut entry.value)),
                Record::Acl(row) if row.id != ANONYMOUS => add(&std::mem::take(&mut row.id)),
                Record::Query(row) => add(&std::mem::take(&mut row.token)),
                _ => {}
            }
            covered.clear();
            record.encode(&mut covered);
            rest.extend_from_slice(&covered);
        });
        // Shorter ones are found in anything.
        secrets.retain(|secret| secret.len() >= 6);
        (secrets, rest)
    }

    fn holds(state: &[u8], text: &[u8]) -> bool {
        memchr::memmem::find(state, text).is_some()
    }

    #[test]
    fn nothing_secret_is_left_and_the_rest_stays() {
        let mut searched = 0;
        for (name, archive) in sound() {
            let (out, redacted) = redacted(&archive);
            let (before, after) = (
                crate::prove(&archive[..]).unwrap(),
                crate::prove(&out[..]).unwrap(),
            );
            assert_eq!(before.digest.counts, after.digest.counts, "{name}");
            assert_eq!(redacted.meta, after.meta, "{name}");
            let same_size = Meta {
                size: before.meta.size,
                ..after.meta
            };
            assert_eq!(same_size, before.meta, "{name}");

            let (secrets, rest) = secrets_and_rest(&state(&archive));
            let after = state(&out);
            // What a secret is depends on where it stands: a value may be the name of a service as well.
            let secrets: Vec<_> = secrets
                .into_iter()
                .filter(|secret| !holds(&rest, secret))
                // Some are no other than what takes their place.
                .filter(|secret| secret.iter().any(|byte| *byte != b'x'))
                .take(300)
                .collect();
            for secret in &secrets {
                let text = String::from_utf8_lossy(secret);
                assert!(!holds(&after, secret), "{name}: {text}");
            }
            searched += secrets.len();
        }
        assert!(searched > 300, "{searched}");
    }

    #[test]
    fn a_redacted_snapshot_has_the_keys_and_lengths_of_before() {
        for (name, archive) in sound() {
            let shape = |state: &[u8]| {
                let mut keys = Vec::new();
                each_record(state, |record| {
                    if let Record::Kv(entry) = record {
                        keys.push((
                            entry.key.to_vec(),
                            entry.value.len(),
                            entry.flags,
                            entry.lock_index,
                            entry.session,
                            entry.create_index,
                            entry.modify_index,
                        ));
                    }
                });
                keys
            };
            assert_eq!(
                shape(&state(&archive)),
                shape(&state(&redacted(&archive).0)),
                "{name}"
            );
        }
    }

    #[test]
    fn what_only_later_releases_know_is_left_out() {
        let archive = crate::fixtures::snapshot("from-1.4.0.snap");
        let (out, redacted) = redacted(&archive);
        let report = crate::inspect(&archive[..], &crate::Options::default()).unwrap();
        let skipped: u64 = report.skipped.iter().map(|tally| tally.count).sum();
        assert!(skipped > 0);
        assert_eq!(redacted.left_out.values().sum::<u64>(), skipped);
        let report = crate::inspect(&out[..], &crate::Options::default()).unwrap();
        assert!(report.skipped.is_empty() && report.fault.is_none());
    }

    /// Tokens, tags and metadata that belong together still do, and are something else in the next file.
    #[test]
    fn the_same_is_the_same_within_one_file() {
        let token = "0e4c0b04-7d5c-4a5f-9a4d-4a1a4f5b3e11";
        let texts = |texts: &[&str]| Some(texts.iter().map(|text| Text::from(*text)).collect());
        let meta = Pairs::from([(Text::from("rack"), Text::from("secret rack"))]);
        let archive = archive_of(&[
            Record::Register(Registration {
                node: Node {
                    name: Text::from("web1"),
                    meta: meta.clone(),
                    ..Node::default()
                },
                service: Some(Service {
                    id: Text::from("web"),
                    name: Text::from("web"),
                    tags: texts(&["v1", "auth=user:password", "="]),
                    meta: meta.clone(),
                    ..Service::default()
                }),
                checks: Vec::new(),
            }),
            Record::Acl(AclToken {
                id: Text::from(token),
                rules: Text::from("key \"\" { policy = \"read\" }"),
                ..AclToken::default()
            }),
            Record::Acl(AclToken {
                id: Text::from(ANONYMOUS),
                ..AclToken::default()
            }),
            Record::Query(PreparedQuery {
                id: Uuid::from_u128(7),
                name: Text::from("query"),
                token: Text::from(token),
                service: QueryService {
                    service: Text::from("web"),
                    tags: texts(&["v1", "auth=user:password", "!old=${name.full}"]),
                    node_meta: meta,
                    ..QueryService::default()
                },
                ..PreparedQuery::default()
            }),
        ]);
        let mut ids = Vec::new();
        for _ in 0..2 {
            let (out, _) = redacted(&archive);
            let (mut tokens, mut tags, mut metas) = (Vec::new(), Vec::new(), Vec::new());
            each_record(&state(&out), |record| match record {
                Record::Register(registration) => {
                    let service = registration.service.unwrap();
                    tags.push(service.tags.unwrap());
                    metas.extend([registration.node.meta, service.meta]);
                }
                Record::Acl(row) => tokens.push(row.id),
                Record::Query(row) => {
                    tokens.push(row.token);
                    tags.push(row.service.tags.unwrap());
                    metas.push(row.service.node_meta);
                }
                _ => {}
            });
            assert_eq!(tokens[0], tokens[2]);
            assert_eq!(tokens[1], ANONYMOUS);
            assert_ne!(tokens[0], token);
            assert_eq!(tokens[0].len(), 36);
            assert_eq!(tags[0][..2], tags[1][..2]);
            assert_eq!(tags[0][0], "v1");
            assert_eq!(tags[0][2], "=");
            assert!(tags[0][1].starts_with(b"auth=") && !tags[0][1].ends_with(b"password"));
            assert_eq!(tags[1][2], "!old=${name.full}");
            assert!(metas.iter().all(|other| *other == metas[0]));
            assert!(metas[0].values().all(|value| *value != "secret rack"));
            ids.push(tokens.remove(0));
        }
        assert_ne!(ids[0], ids[1]);
    }

    #[test]
    fn nothing_is_written_of_what_is_not_sound() {
        let archive = crate::fixtures::snapshot("three-servers.snap");
        for end in 0..archive.len() {
            let mut out = Vec::new();
            redact(&archive[..end], &mut out).unwrap_err();
            assert!(out.is_empty());
        }
    }

    #[test]
    fn what_can_not_be_written_is_an_error() {
        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                match self.0.checked_sub(bytes.len()) {
                    None => Err(io::ErrorKind::StorageFull.into()),
                    Some(left) => {
                        self.0 = left;
                        Ok(bytes.len())
                    }
                }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let archive = crate::fixtures::snapshot("full-0.7.1.snap");
        for room in [0, 10, 100, 1000] {
            let why = redact(&archive[..], Full(room)).unwrap_err();
            assert!(matches!(why, RedactError::Write(_)), "{why}");
        }
    }
}
