//! `consul snapshot redact`: a snapshot without its secrets, for whoever helps.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek};

use backup::stores::Content;
use backup::{Redacted, TypeName};
use bytes::Bytes;
use futures::{StreamExt, stream};

use super::source::{self, Source};
use super::{about_places, save};
use crate::command::{FAILED, OK, http};
use crate::config::reason;
use crate::console::Console;
use crate::flags::{Parsed, Syntax};

pub(in crate::command) const REDACT: Syntax = Syntax {
    name: "snapshot redact",
    arguments: "FILE FILE",
    summary: "Takes the secrets out of a snapshot, to show it to others",
    about: about_places!(
        "Reads the first snapshot and writes the second, which lacks what nobody else should see: values of keys, \
         tokens, what checks said, and metadata. Names, sizes, indexes, locks and rules stay, so that whoever helps \
         sees what there is and how it hangs together. Look through the names before you pass the file on. The result \
         is a snapshot: it can be inspected, compared and restored. No server is needed."
    ),
    example: "consul snapshot redact backup.snap redacted.snap\n\
              consul snapshot redact -identity=key.txt -encrypt-to=age1… backup.snap.age ticket.snap.age",
    flags: &[source::IDENTITY, save::ENCRYPT_TO],
};

pub(in crate::command) fn redact(parsed: &Parsed, console: &mut Console<'_>) -> u8 {
    // Where the snapshot itself goes to standard output, nothing else may.
    let to_output = parsed.arguments.get(1).is_some_and(|to| to == "-");
    let outcome = redacted(parsed, console);
    let (text, status) = match outcome {
        Ok(redacted) => (told(&redacted), OK),
        Err(why) => (why, FAILED),
    };
    if to_output {
        console.note(text);
    } else {
        console.say(text);
    }
    status
}

fn redacted(parsed: &Parsed, console: &mut Console<'_>) -> Result<Redacted, String> {
    let [from, to] = &parsed.arguments[..] else {
        return Err("Two FILE arguments are needed: what to read, and what to write".to_owned());
    };
    let identities = source::identities(parsed)?;
    let recipients = save::recipients(parsed)?;
    let from = source::location(from, console)?;
    let to = source::location(to, console)?;
    let Source { reader, .. } = Source::open(&from, identities.as_ref(), console)?;
    let writing = |why: io::Error| format!("Error writing snapshot file: {}", reason(&why));
    let mut scratch = tempfile::tempfile().map_err(writing)?;
    let redacted = backup::redact(reader, BufWriter::new(&mut scratch))
        .map_err(|why| format!("Error redacting snapshot: {why}"))?;
    scratch.rewind().map_err(writing)?;
    http::wait_for(save::store(pieces(scratch), &recipients, &to, console))?;
    Ok(redacted)
}

/// A file from where it stands to its end. The errors are for people as they are.
fn pieces(file: File) -> Content {
    const PIECE_SIZE: usize = 256 << 10;
    let pieces = stream::try_unfold(file, async |mut file| {
        let mut piece = vec![0; PIECE_SIZE];
        let read = file.read(&mut piece).map_err(|why| {
            io::Error::other(format!("Error writing snapshot file: {}", reason(&why)))
        })?;
        piece.truncate(read);
        Ok((read > 0).then(|| (Bytes::from(piece), file)))
    });
    pieces.boxed()
}

fn told(redacted: &Redacted) -> String {
    let mut text = format!("Redacted snapshot to index {}", redacted.meta.index);
    for (kind, count) in &redacted.left_out {
        let kind = TypeName(*kind);
        text.push_str(&format!("\nLeft out {count} records of type {kind}"));
    }
    text
}
