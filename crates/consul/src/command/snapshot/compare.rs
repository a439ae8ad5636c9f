//! What a snapshot is worth and what it would change, before anybody restores it: `verify`, `diff`, `restore -dry-run`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;

use backup::seal::Identities;
use backup::{Change, Difference, Proof, Subject, Unreadable};
use client::{Client, QueryOptions};
use futures::TryStreamExt;
use model::RestorePart;
use serde_json::json;

use super::progress::Progress;
use super::source::{self, Held, Source};
use super::{FORMAT, about_places, only_argument, printable, save, wants_json};
use crate::command::kv::pretty_json;
use crate::command::{OK, http};
use crate::config::reason;
use crate::console::Console;
use crate::flags::{Flag, Parsed, Syntax, Value};

/// The exit code that tells a difference from a failure.
const DIFFERENT: u8 = 2;

const NAMES: &[Flag] = &[Flag::new(
    "names",
    Value::Uint(20),
    "number",
    "How many of a kind are named one by one; more are counted by the first part of their names.",
)];

pub(in crate::command) const VERIFY: Syntax = Syntax {
    name: "snapshot verify",
    arguments: "FILE",
    summary: "Proves a snapshot file by loading it",
    about: about_places!(
        "Loads a snapshot file into a store of its own, as a restore would, compares what was loaded with what the \
         file says, and tells what a cluster would have. No server is needed."
    ),
    example: "consul snapshot verify backup.snap\n\
              consul snapshot verify -identity=key.txt s3://backups/dc1.snap.age\n\
              consul snapshot save - | consul snapshot verify -",
    flags: &[FORMAT, source::IDENTITY],
};

pub(in crate::command) const DIFF: Syntax = Syntax {
    name: "snapshot diff",
    arguments: "FILE [FILE]",
    summary: "Shows how two snapshots differ",
    about: about_places!(
        "Shows what would be added, changed and removed if the second snapshot took the place of the first. With \
         -live the second is what the cluster has now. Indexes don't count, and tokens are shown by their names. The \
         exit code is 0 when the two hold the same, 2 when they differ, and 1 when they can't be compared."
    ),
    example: "consul snapshot diff monday.snap tuesday.snap\n\
              consul snapshot diff -live monday.snap\n\
              consul snapshot diff -format=json monday.snap tuesday.snap",
    flags: &[
        &[Flag::switch(
            "live",
            false,
            "Compares with what the cluster has now.",
        )],
        FORMAT,
        NAMES,
        source::IDENTITY,
        http::AGENT,
        http::DATACENTER,
        http::STALE,
    ],
};

/// For `snapshot restore`.
pub(super) const DRY_RUN: &[Flag] = &[
    Flag::switch(
        "dry-run",
        false,
        "Changes nothing, and shows what the restore would add, change and remove. The exit code is 2 if there is any of it.",
    ),
    Flag::new(
        "names",
        Value::Uint(20),
        "number",
        "With -dry-run: how many of a kind are named one by one.",
    ),
    Flag::new(
        "format",
        Value::Text("pretty"),
        "format",
        "With -dry-run: pretty or json.",
    ),
];

pub(in crate::command) fn verify(parsed: &Parsed, console: &mut Console<'_>) -> u8 {
    let outcome = only_argument(parsed).and_then(|file| {
        let as_json = wants_json(parsed)?;
        let identities = source::identities(parsed)?;
        let location = source::location(file, console)?;
        let Source { reader, .. } = Source::open(&location, identities.as_ref(), console)?;
        let loaded =
            backup::prove(reader).map_err(|why| format!("Error verifying snapshot: {why}"))?;
        Ok((loaded, as_json))
    });
    match outcome {
        Ok((proof, true)) => console.say(proof_json(&proof)),
        Ok((proof, false)) => console.say(proof_text(&proof)),
        Err(why) => return http::failed(console, why),
    }
    OK
}

pub(in crate::command) fn diff(parsed: &Parsed, console: &mut Console<'_>) -> u8 {
    let outcome = (|| {
        let as_json = wants_json(parsed)?;
        let (first, second) = match (&parsed.arguments[..], parsed.switch("live")) {
            ([first], true) => (first, None),
            ([first, second], false) => (first, Some(second)),
            (_, true) => return Err("With -live exactly one FILE is needed".to_owned()),
            (_, false) => {
                return Err("Two FILE arguments are needed, or one with -live".to_owned());
            }
        };
        if first == "-" && second.is_some_and(|second| second == "-") {
            return Err("Only one of the two can be standard input".to_owned());
        }
        let identities = source::identities(parsed)?;
        let one = Held::take(&source::location(first, console)?, console)?;
        let other = match second {
            Some(second) => Held::take(&source::location(second, console)?, console)?,
            None => now(&http::query_options(parsed), parsed, console)?,
        };
        let difference = compared(&one, &other, identities.as_ref())?;
        Ok((difference, as_json))
    })();
    show(outcome, parsed, console)
}

/// What a restore of this file, or of a part of it, would change.
pub(super) fn dry_run(
    file: &str,
    part: Option<&RestorePart>,
    parsed: &Parsed,
    console: &mut Console<'_>,
) -> u8 {
    let outcome = wants_json(parsed).and_then(|as_json| {
        let identities = source::identities(parsed)?;
        let identities = identities.as_ref();
        let wanted = Held::take(&source::location(file, console)?, console)?;
        let would_fail = |why: Unreadable| format!("A restore would fail: {why}");
        // What can't be restored has nothing to show.
        (wanted.open(identities))
            .and_then(backup::prove)
            .map_err(would_fail)?;
        // What the leader has is what would be replaced.
        let leader = QueryOptions {
            datacenter: parsed.text("datacenter").to_owned(),
            ..QueryOptions::default()
        };
        let present = now(&leader, parsed, console)?;
        let difference = match part {
            None => compared(&present, &wanted, identities)?,
            Some(part) => {
                let open = |held: &Held| held.open(identities);
                let (present, wanted) = (open(&present), open(&wanted));
                (present.and_then(|present| backup::diff_part(present, wanted?, part)))
                    .map_err(would_fail)?
            }
        };
        Ok((difference, as_json))
    });
    show(outcome, parsed, console)
}

fn show(
    outcome: Result<(Difference, bool), String>,
    parsed: &Parsed,
    console: &mut Console<'_>,
) -> u8 {
    let (difference, as_json) = match outcome {
        Ok(found) => found,
        Err(why) => return http::failed(console, why),
    };
    let names = usize::try_from(parsed.uint("names")).unwrap_or(usize::MAX);
    console.say(if as_json {
        difference_json(&difference)
    } else {
        difference_text(&difference, names)
    });
    if difference.is_empty() { OK } else { DIFFERENT }
}

/// What the cluster has now, as a file without a name.
fn now(options: &QueryOptions, parsed: &Parsed, console: &mut Console<'_>) -> Result<Held, String> {
    let client = http::client(parsed, console).map_err(|why| http::cannot_connect(&why))?;
    let progress = Progress::new("Saving", None, console);
    let saved = http::wait_for(saved(&client, options, progress))?;
    Ok(Held::of(saved))
}

async fn saved(
    client: &Client,
    options: &QueryOptions,
    progress: Progress,
) -> Result<File, String> {
    let download = client
        .snapshot_save(options)
        .await
        .map_err(|why| format!("Error saving snapshot: {why}"))?;
    let writing = |why| format!("Error saving snapshot: {}", reason(&why));
    let mut scratch = tempfile::tempfile().map_err(writing)?;
    let mut pieces = save::checked(download, progress);
    while let Some(piece) = pieces.try_next().await.map_err(|why| why.to_string())? {
        scratch.write_all(&piece).map_err(writing)?;
    }
    Ok(scratch)
}

fn compared(
    first: &Held,
    second: &Held,
    identities: Option<&Identities>,
) -> Result<Difference, String> {
    backup::diff(|| first.open(identities), || second.open(identities))
        .map_err(|why| format!("Error comparing snapshots: {why}"))
}

fn proof_text(proof: &Proof) -> String {
    let mut text = format!(
        "Verified snapshot to index {}: it was loaded, and all of it is there.\n\n",
        proof.meta.index
    );
    for (what, count) in &proof.digest.counts {
        let _ = writeln!(text, "{what:13}{count}");
    }
    let _ = write!(text, "{:13}{}", "Digest", proof.digest);
    text
}

fn proof_json(proof: &Proof) -> String {
    let value = json!({
        "ID": proof.meta.id,
        "Index": proof.meta.index,
        "Size": proof.state_size,
        "Counts": proof.digest.counts,
        "Digest": proof.digest.to_string(),
    });
    pretty_json(&value, b"   ")
}

const CHANGES: [(Change, char, &str); 3] = [
    (Change::Added, '+', "added"),
    (Change::Changed, '~', "changed"),
    (Change::Removed, '-', "removed"),
];

fn difference_text(difference: &Difference, names: usize) -> String {
    if difference.is_empty() {
        return "No difference".to_owned();
    }
    let mut text = String::new();
    for subject in Subject::ALL {
        let count = |change| difference.count(subject, change);
        let same = difference.same.get(&subject).copied().unwrap_or(0);
        if CHANGES.iter().all(|(change, ..)| count(*change) == 0) {
            continue;
        }
        let what = subject.plural();
        let counts = CHANGES.map(|(change, _, word)| format!("{} {word}", count(change)));
        let _ = writeln!(text, "{what}: {}, {same} the same", counts.join(", "));
        let changes = difference.changes.get(&subject);
        for (change, sign, _) in CHANGES {
            let of_it = || {
                changes
                    .into_iter()
                    .flatten()
                    .filter(move |(_, it)| **it == change)
            };
            if of_it().count() <= names {
                for (name, _) in of_it() {
                    let _ = writeln!(text, "  {sign} {}", printable(name));
                }
            } else {
                let mut prefixes: BTreeMap<&str, u64> = BTreeMap::new();
                for (name, _) in of_it() {
                    *prefixes.entry(first_part(name)).or_default() += 1;
                }
                for (prefix, count) in prefixes {
                    let _ = writeln!(text, "  {sign} {count} under {}", printable(prefix));
                }
            }
            if let Some(more) = difference.unnamed.get(&(subject, change)) {
                let _ = writeln!(text, "  {sign} {more} more");
            }
        }
    }
    text.truncate(text.trim_end().len());
    text
}

/// A name up to its first slash, the slash included.
fn first_part(name: &str) -> &str {
    name.find('/').map_or(name, |at| &name[..=at])
}

fn difference_json(difference: &Difference) -> String {
    let mut value = json!({ "Same": difference.is_empty() });
    for subject in Subject::ALL {
        let mut of_it = json!({ "SameCount": difference.same.get(&subject).copied().unwrap_or(0) });
        for (change, _, word) in CHANGES {
            let named: Vec<&String> = difference
                .changes
                .get(&subject)
                .into_iter()
                .flatten()
                .filter(|(_, it)| **it == change)
                .map(|(name, _)| name)
                .collect();
            let title = title(word);
            of_it[&title] = json!(named);
            of_it[format!("{title}Count")] = json!(difference.count(subject, change));
        }
        value[title(subject.plural())] = of_it;
    }
    pretty_json(&value, b"   ")
}

/// A word as the name of a field.
fn title(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference() -> Difference {
        let mut difference = Difference::default();
        difference.same.insert(Subject::Key, 7);
        let keys = difference.changes.entry(Subject::Key).or_default();
        for name in ["app/a", "app/b", "db/x\n"] {
            keys.insert(name.to_owned(), Change::Added);
        }
        keys.insert("old".to_owned(), Change::Removed);
        difference
            .unnamed
            .insert((Subject::Node, Change::Changed), 3);
        difference
    }

    #[test]
    fn for_people() {
        assert_eq!(
            difference_text(&difference(), 3),
            "nodes: 0 added, 3 changed, 0 removed, 0 the same\n  ~ 3 more\n\
             keys: 3 added, 0 changed, 1 removed, 7 the same\n  + app/a\n  + app/b\n  + db/x\\n\n  - old"
        );
        assert_eq!(
            difference_text(&difference(), 2),
            "nodes: 0 added, 3 changed, 0 removed, 0 the same\n  ~ 3 more\n\
             keys: 3 added, 0 changed, 1 removed, 7 the same\n  + 2 under app/\n  + 1 under db/\n  - old"
        );
        assert_eq!(difference_text(&Difference::default(), 2), "No difference");
    }

    #[test]
    fn for_programs() {
        let value: serde_json::Value =
            serde_json::from_str(&difference_json(&difference())).unwrap();
        assert_eq!(value["Same"], false);
        assert_eq!(value["Keys"]["AddedCount"], 3);
        assert_eq!(value["Keys"]["Removed"], json!(["old"]));
        assert_eq!(value["Nodes"]["ChangedCount"], 3);
        assert_eq!(value["Sessions"]["SameCount"], 0);
    }
}
