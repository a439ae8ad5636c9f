//! `consul snapshot restore`: a cluster gets the state of a snapshot.

use std::io::{self, Read};
use std::thread;

use bytes::{Bytes, BytesMut};
use client::{Client, RestoreOptions, Skipped};
use model::{PartError, PartWish, RestorePart};
use tokio::sync::mpsc;

use super::progress::Progress;
use super::source::{self, Source};
use super::{about_places, compare, only_argument};
use crate::command::{OK, http};
use crate::config::reason;
use crate::console::Console;
use crate::flags::{Flag, Parsed, Syntax, Value};

/// Which part, and how.
const PART: &[Flag] = &[
    Flag::new(
        "only",
        Value::Text(""),
        "parts",
        "Restores only these parts: any of catalog, sessions, acl, kv and queries, with commas in between. The catalog is \
         nodes, services, checks and coordinates.",
    ),
    Flag::new(
        "skip",
        Value::Text(""),
        "parts",
        "Restores all parts but these.",
    ),
    Flag::new(
        "kv-prefix",
        Value::Many,
        "prefix",
        "Of the keys, restores only those that begin with this; given several times, with any of them. Without -only \
         and -skip nothing but these keys is restored.",
    ),
    Flag::new(
        "into-prefix",
        Value::Text(""),
        "prefix",
        "Puts what begins with the one -kv-prefix under keys that begin with this instead. Keys that begin with the \
         old prefix stay as they are.",
    ),
    Flag::switch(
        "merge",
        false,
        "Adds to what is there and writes over what has the same name, but removes nothing. Without it, what the part \
         of the snapshot lacks is removed.",
    ),
];

/// The part that the flags name; `None` for everything.
fn part(parsed: &Parsed) -> Result<Option<RestorePart>, String> {
    const NAMES: [&str; 5] = ["only", "skip", "kv-prefix", "into-prefix", "merge"];
    if !NAMES.iter().any(|name| parsed.given(name)) {
        return Ok(None);
    }
    let given = |name| parsed.given(name).then(|| parsed.text(name).as_bytes());
    let prefixes = parsed.in_order().filter(|(name, _)| *name == "kv-prefix");
    let prefixes: Vec<&[u8]> = prefixes.map(|(_, prefix)| prefix.as_bytes()).collect();
    let wish = PartWish {
        only: given("only"),
        skip: given("skip"),
        kv_prefixes: &prefixes,
        into_prefix: given("into-prefix"),
        mode: parsed.switch("merge").then_some(b"merge"),
    };
    RestorePart::parse(wish).map(Some).map_err(|why| match why {
        PartError::Nothing => "No part is named: -only, -skip or -kv-prefix says which".to_owned(),
        PartError::OnlyAndSkip => "Only one of -only and -skip can be given".to_owned(),
        PartError::PrefixWithoutKeys => {
            "-kv-prefix is given, but kv is not among the parts that are restored".to_owned()
        }
        PartError::IntoWithoutPrefix => "-into-prefix needs exactly one -kv-prefix".to_owned(),
        PartError::IntoEverything => {
            "With an empty -into-prefix all other keys would be removed; give -merge as well"
                .to_owned()
        }
        other => format!("Error: {other}"),
    })
}

/// The part in a few words.
fn told(part: &RestorePart) -> String {
    let sections: Vec<&str> = part.sections().iter().map(|it| it.name()).collect();
    format!("Restored {} of the snapshot", sections.join(", "))
}

pub(in crate::command) const RESTORE: Syntax = Syntax {
    name: "snapshot restore",
    arguments: "FILE",
    summary: "Restores a cluster from a snapshot file",
    about: about_places!(
        "Replaces the whole state of the cluster by that of a snapshot file: keys, services, sessions, tokens and \
         queries. A file that isn't sound is refused before anything changes.\n\nWith -only, -skip or -kv-prefix a part \
         of the snapshot takes the place of that part of the state, as one change like the whole: either all of it \
         happens or nothing. Locks whose sessions don't come along are free afterwards. Sessions need their nodes, there \
         or in the same part. Servers that don't know parts refuse them."
    ),
    example: "consul snapshot restore backup.snap\n\
              consul snapshot restore -dry-run backup.snap\n\
              consul snapshot restore -only=kv,queries backup.snap\n\
              consul snapshot restore -kv-prefix=app/ -into-prefix=app-restored/ backup.snap\n\
              consul snapshot restore -identity=key.txt s3://backups/dc1.snap.age",
    flags: &[
        compare::DRY_RUN,
        PART,
        &[Flag::switch(
            "skip-unknown",
            false,
            "Leaves out records of types that only other releases know, instead of refusing the file.",
        )],
        source::IDENTITY,
        http::AGENT,
        http::DATACENTER,
    ],
};

pub(in crate::command) fn restore(parsed: &Parsed, console: &mut Console<'_>) -> u8 {
    let (file, part) = match only_argument(parsed).and_then(|file| Ok((file, part(parsed)?))) {
        Ok(wish) => wish,
        Err(why) => return http::failed(console, why),
    };
    if parsed.switch("dry-run") {
        return compare::dry_run(file, part.as_ref(), parsed, console);
    }
    let done = match &part {
        None => "Restored snapshot".to_owned(),
        Some(part) => told(part),
    };
    let outcome = (|| {
        let identities = source::identities(parsed)?;
        let location = source::location(file, console)?;
        let client = http::client(parsed, console).map_err(|why| http::cannot_connect(&why))?;
        let options = RestoreOptions {
            write: http::write_options(parsed),
            skip_unknown: parsed.switch("skip-unknown"),
            part,
        };
        let mut progress = Progress::new("Sending", None, console);
        let source = Source::open(&location, identities.as_ref(), console)?;
        progress.expect(source.size);
        restore_from(source.reader, &client, &options, progress)
    })();
    match outcome {
        Ok(skipped) => {
            console.say(done);
            for Skipped { r#type, count } in skipped {
                console.say(format_args!("Skipped {count} records of type {type}", type = r#type));
            }
            OK
        }
        Err(why) => http::failed(console, why),
    }
}

/// Sends a snapshot while it is read, a few pieces at a time.
fn restore_from(
    source: impl Read + Send,
    client: &Client,
    options: &RestoreOptions,
    progress: Progress,
) -> Result<Vec<Skipped>, String> {
    // A few pieces keep the connection busy; reading waits when they are not taken.
    let (sender, receiver) = mpsc::channel(4);
    let body = futures::stream::unfold(receiver, async |mut receiver| {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    // What reads may wait, and an object is read by a runtime of its own.
    let (read, restored) = thread::scope(|scope| {
        let reading = scope.spawn(move || send(source, &sender, progress));
        let restored = http::wait_for(async {
            let restored = client.snapshot_restore(body, options).await;
            restored.map_err(|why| format!("Error restoring snapshot: {why}"))
        });
        let read = reading.join();
        let read = read.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (read, restored)
    });
    match (read, restored) {
        // The servers only know that the file broke off.
        (Err(why), Err(_)) => Err(format!("Error reading snapshot file: {}", reason(&why))),
        (_, restored) => restored,
    }
}

fn send(
    mut source: impl Read,
    sender: &mpsc::Sender<io::Result<Bytes>>,
    mut progress: Progress,
) -> io::Result<()> {
    const PIECE_SIZE: usize = 64 << 10;
    let mut piece = BytesMut::zeroed(PIECE_SIZE);
    loop {
        match source.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(read) => {
                progress.advance(read);
                let filled = std::mem::replace(&mut piece, BytesMut::zeroed(PIECE_SIZE));
                // Nobody takes it when the request has ended early, which then says why.
                if (sender.blocking_send(Ok(filled.freeze().split_to(read)))).is_err() {
                    return Ok(());
                }
            }
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            Err(why) => {
                // So that the request ends as one that broke off, not as one that is complete.
                let broken = io::Error::new(why.kind(), why.to_string());
                let _ = sender.blocking_send(Err(broken));
                return Err(why);
            }
        }
    }
}
