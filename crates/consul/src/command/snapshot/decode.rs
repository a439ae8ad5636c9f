//! `consul snapshot decode`: a snapshot as lines of JSON.

use std::io::{BufWriter, Write};

use backup::{DecodeError, Options};
use serde_json::json;

use super::source::{self, Held};
use super::{about_places, only_argument};
use crate::command::{OK, http};
use crate::console::Console;
use crate::flags::{Parsed, Syntax};

pub(in crate::command) const DECODE: Syntax = Syntax {
    name: "snapshot decode",
    arguments: "FILE",
    summary: "Prints all that is in a snapshot as lines of JSON",
    about: about_places!(
        "Proves that a snapshot file is sound and prints each of its records as a line of JSON, in the order of the \
         file, after a line with what the file says of itself. Values of keys are in base64. What is printed holds \
         every secret of the cluster. No server is needed."
    ),
    example: "consul snapshot decode backup.snap | jq -r 'select(.Type == \"KVS\").Data.Key'",
    flags: &[source::IDENTITY],
};

pub(in crate::command) fn decode(parsed: &Parsed, console: &mut Console<'_>) -> u8 {
    let outcome = only_argument(parsed).and_then(|file| {
        let identities = source::identities(parsed)?;
        let held = Held::take(&source::location(file, console)?, console)?;
        let refused = |why: &dyn std::fmt::Display| format!("Error decoding snapshot: {why}");
        let open = || held.open(identities.as_ref()).map_err(|why| refused(&why));
        // What isn't sound is refused before anything of it is printed.
        let report = backup::inspect(open()?, &Options::default()).map_err(|why| refused(&why))?;
        let meta = &report.meta;
        let data = json!({
            "ID": meta.id,
            "Index": meta.index,
            "Term": meta.term,
            "Version": meta.version,
            "Size": meta.size,
        });
        console.say(json!({"Data": data, "Type": "SnapshotHeader"}));
        let mut output = BufWriter::with_capacity(64 << 10, &mut *console.output);
        match backup::decode(open()?, &mut output) {
            Ok(()) => Ok(()),
            // A reader that has gone away has seen enough.
            Err(DecodeError::Write(why)) if why.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            Err(why) => {
                let _ = output.flush();
                Err(refused(&why))
            }
        }
    });
    match outcome {
        Ok(()) => OK,
        Err(why) => http::failed(console, why),
    }
}
