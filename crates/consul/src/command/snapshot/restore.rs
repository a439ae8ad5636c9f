//! `consul snapshot restore`: a cluster gets the state of a snapshot.

use std::io::{self, Read};
use std::thread;

use bytes::{Bytes, BytesMut};
use client::{Client, RestoreOptions, Skipped};
use tokio::sync::mpsc;

use super::progress::Progress;
use super::source::{self, Source};
use super::{about_places, compare, only_argument};
use crate::command::{OK, http};
use crate::config::reason;
use crate::console::Console;
use crate::flags::{Flag, Parsed, Syntax};

pub(in crate::command) const RESTORE: Syntax = Syntax {
    name: "snapshot restore",
    arguments: "FILE",
    summary: "Restores a cluster from a snapshot file",
    about: about_places!(
        "Replaces the whole state of the cluster by that of a snapshot file: keys, services, sessions, tokens and \
         queries. A file that isn't sound is refused before anything changes."
    ),
    example: "consul snapshot restore backup.snap\n\
              consul snapshot restore -dry-run backup.snap\n\
              consul snapshot restore -identity=key.txt s3://backups/dc1.snap.age",
    flags: &[
        compare::DRY_RUN,
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
    if parsed.switch("dry-run") {
        return match only_argument(parsed) {
            Ok(file) => compare::dry_run(file, parsed, console),
            Err(why) => http::failed(console, why),
        };
    }
    let outcome = only_argument(parsed).and_then(|file| {
        let identities = source::identities(parsed)?;
        let location = source::location(file, console)?;
        let client = http::client(parsed, console).map_err(|why| http::cannot_connect(&why))?;
        let options = RestoreOptions {
            write: http::write_options(parsed),
            skip_unknown: parsed.switch("skip-unknown"),
            ..RestoreOptions::default()
        };
        let mut progress = Progress::new("Sending", None, console);
        let source = Source::open(&location, identities.as_ref(), console)?;
        progress.expect(source.size);
        restore_from(source.reader, &client, &options, progress)
    });
    match outcome {
        Ok(skipped) => {
            console.say("Restored snapshot");
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
