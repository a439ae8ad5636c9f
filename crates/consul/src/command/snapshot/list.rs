//! `consul snapshot list` and `show`: what a store of snapshots has, what is known of it, and how long it is kept.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use backup::stores::{self, Destination, Patience, Store, StoreError, Stored};
use backup::{Kept, Note, Retention, location};
use futures::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value as Json, json};

use super::{FORMAT, human, printable, wants_json};
use crate::command::kv::pretty_json;
use crate::command::table::Table;
use crate::command::{OK, http};
use crate::console::Console;
use crate::flags::{Flag, Parsed, Syntax, Value};

/// The snapshot agent's rules, by its names for them, in place of those that it noted.
const RULES: &[Flag] = &[
    Flag::new(
        "retain",
        Value::Uint(0),
        "number",
        "To tell until when each snapshot is kept by other rules than those that the agent noted: its -retain, which is \
         how many of the newest are kept.",
    ),
    Flag::new(
        "retain-hourly",
        Value::Uint(0),
        "number",
        "The same with its -retain-hourly: for how many hours the newest of each is kept.",
    ),
    Flag::new(
        "retain-daily",
        Value::Uint(0),
        "number",
        "The same with its -retain-daily: for how many days the newest of each is kept.",
    ),
    Flag::new(
        "retain-weekly",
        Value::Uint(0),
        "number",
        "The same with its -retain-weekly: for how many weeks the newest of each is kept.",
    ),
    Flag::new(
        "retain-monthly",
        Value::Uint(0),
        "number",
        "The same with its -retain-monthly: for how many months the newest of each is kept.",
    ),
    Flag::new(
        "interval",
        Value::Duration(""),
        "duration",
        "How often the agent goes on saving. When not given it is what the agent noted, else the time between the last \
         two snapshots.",
    ),
];

/// The help's last paragraph.
macro_rules! about_stores {
    ($about:literal) => {
        concat!(
            $about,
            "\n\nA store is a folder, or the beginning of names in a cloud: s3://bucket/prefix, gs://bucket/prefix, \
             az://container/prefix, az://account.blob.core.windows.net/container/prefix. Credentials come from the \
             environment, as for consul snapshot save."
        )
    };
}

pub(in crate::command) const LIST: Syntax = Syntax {
    name: "snapshot list",
    arguments: "STORE",
    summary: "Lists the snapshots in a folder or a bucket",
    about: about_stores!(
        "Lists the snapshots that the snapshot agent keeps in a store, the newest first: how old and how large they \
         are, when the agent proved that they can be restored, and until when each is kept if the agent goes on as it \
         does. What it proved and by which rules it keeps snapshots is in the note that it writes beside each. Files \
         that aren't called as the agent calls them are not listed."
    ),
    example: "consul snapshot list /var/backups/consul\n\
              consul snapshot list -retain=30 -retain-monthly=12 -interval=1h s3://backups/consul-snapshot\n\
              consul snapshot list -format=json gs://backups/consul-snapshot",
    flags: &[FORMAT, RULES],
};

pub(in crate::command) const SHOW: Syntax = Syntax {
    name: "snapshot show",
    arguments: "STORE/NAME",
    summary: "Shows what is known of one snapshot in a store",
    about: about_stores!(
        "Shows what is known of one of the snapshots that the snapshot agent keeps in a store, without reading the \
         snapshot itself: age, size, what the agent's proof came to, what it holds, and until when it is kept."
    ),
    example: "consul snapshot show /var/backups/consul/consul-1479503772206993731.snap\n\
              consul snapshot show -format=json s3://backups/consul-snapshot/consul-1479503772206993731.snap",
    flags: &[FORMAT, RULES],
};

pub(in crate::command) fn list(parsed: &Parsed, console: &mut Console<'_>) -> u8 {
    let outcome = argument(parsed, "STORE").and_then(|store| {
        let as_json = wants_json(parsed)?;
        if store == "-" {
            return Err("A store is a folder or a place in a cloud; - is neither".to_owned());
        }
        let destination =
            location::place(store, &console.lookup()).map_err(|why| format!("Error: {why}"))?;
        let known = http::wait_for(look(&destination, console, |_| true))?;
        let now = Timestamp::now();
        let rows = rows(known, &Said::read(parsed), now);
        Ok(if as_json {
            list_json(&rows, now)
        } else {
            list_text(&rows, now)
        })
    });
    say(outcome, console)
}

pub(in crate::command) fn show(parsed: &Parsed, console: &mut Console<'_>) -> u8 {
    let outcome = argument(parsed, "STORE/NAME").and_then(|text| {
        let as_json = wants_json(parsed)?;
        let (destination, name) = location::place_and_name(text, &console.lookup())
            .map_err(|why| format!("Error: {why}"))?;
        let known = http::wait_for(look(&destination, console, |stored| stored.name == name))?;
        let now = Timestamp::now();
        let rows = rows(known, &Said::read(parsed), now);
        let row = rows.into_iter().find(|row| row.stored.name == name);
        let row = row.ok_or_else(|| format!("Error: {name} is not there"))?;
        Ok(if as_json {
            pretty_json(&row_json(&row, now, true), b"   ")
        } else {
            show_text(&row, now)
        })
    });
    say(outcome, console)
}

fn say(outcome: Result<String, String>, console: &mut Console<'_>) -> u8 {
    match outcome {
        Ok(text) => console.say(text),
        Err(why) => return http::failed(console, why),
    }
    OK
}

fn argument<'a>(parsed: &'a Parsed, what: &str) -> Result<&'a str, String> {
    match &parsed.arguments[..] {
        [text] if !text.is_empty() => Ok(text),
        [] | [_] => Err(format!("Missing {what} argument")),
        more => Err(format!(
            "Too many arguments (expected 1, got {})",
            more.len()
        )),
    }
}

/// What is told of snapshots of which nothing is told.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Proven {
    /// No note lies beside it.
    Untold,
    /// What the agent noted.
    Noted(Box<Note>),
    /// A note lies there that can't be read.
    Unreadable(String),
}

/// How many notes are read at once.
const READS: usize = 8;

/// All snapshots of a store, the oldest first, and what is noted of the newest and of those that are `wanted`.
async fn look(
    destination: &Destination,
    console: &Console<'_>,
    wanted: impl Fn(&Stored) -> bool,
) -> Result<Vec<(Stored, Proven)>, String> {
    let failed = |why: StoreError| format!("Error: {why}");
    let store = stores::open_with(destination, &console.lookup(), Patience::default());
    let store = store.map_err(failed)?;
    if let Destination::Local(folder) = destination {
        // Where nothing was written yet there is no folder; whoever asks for one has mistyped it.
        std::fs::read_dir(folder).map_err(|why| {
            let why = crate::config::reason(&why);
            format!(
                "Error: cannot list the snapshots in {}: {why}",
                folder.display()
            )
        })?;
    }
    let all = store.list().await.map_err(failed)?;
    let newest = all.last().map(|stored| stored.name);
    let reading = all.into_iter().map(|stored| {
        let is_newest = newest == Some(stored.name);
        let reads = stored.has_note && (is_newest || wanted(&stored));
        let store = &store;
        async move {
            let proven = if reads {
                read_note(&**store, &stored).await
            } else {
                Proven::Untold
            };
            (stored, proven)
        }
    });
    Ok(stream::iter(reading).buffered(READS).collect().await)
}

async fn read_note(store: &dyn Store, stored: &Stored) -> Proven {
    match store.read_note(stored.name).await {
        Ok(Some(text)) => match Note::decode(&text) {
            Ok(note) => Proven::Noted(Box::new(note)),
            Err(why) => Proven::Unreadable(why.to_string()),
        },
        // Rotation took it meanwhile.
        Ok(None) => Proven::Untold,
        Err(why) => Proven::Unreadable(why.to_string()),
    }
}

/// By which rules somebody says that the agent keeps snapshots.
#[derive(Debug, Default)]
struct Said {
    retention: Option<Retention>,
    interval: Option<Duration>,
}

impl Said {
    fn read(parsed: &Parsed) -> Self {
        const NAMES: [&str; 5] = [
            "retain",
            "retain-hourly",
            "retain-daily",
            "retain-weekly",
            "retain-monthly",
        ];
        let [newest, hourly, daily, weekly, monthly] =
            NAMES.map(|name| usize::try_from(parsed.uint(name)).unwrap_or(usize::MAX));
        let retention = Retention {
            newest,
            hourly,
            daily,
            weekly,
            monthly,
        };
        let is_given = NAMES.iter().any(|name| parsed.given(name));
        Self {
            retention: is_given.then_some(retention),
            interval: parsed
                .duration("interval")
                .filter(|_| parsed.given("interval")),
        }
    }
}

/// A snapshot with all that is known of it.
#[derive(Debug)]
struct Row {
    stored: Stored,
    proven: Proven,
    /// Only where the rules are known.
    kept: Option<Kept>,
}

/// The newest first.
fn rows(known: Vec<(Stored, Proven)>, said: &Said, now: Timestamp) -> Vec<Row> {
    let names: Vec<backup::Name> = known.iter().map(|(stored, _)| stored.name).collect();
    // The newest note knows best what holds now; the newest snapshot may still be without one.
    let noted = known.iter().rev().find_map(|(_, proven)| match proven {
        Proven::Noted(note) => note.rules,
        Proven::Untold | Proven::Unreadable(_) => None,
    });
    let retention = said.retention.or(noted.map(|rules| rules.retention));
    let kept = retention.map_or_else(BTreeMap::new, |retention| {
        let interval = said.interval.or(noted.map(|rules| rules.interval));
        // An agent that saves once is started by somebody else, as often as he likes.
        let interval = interval.filter(|interval| !interval.is_zero());
        let interval = interval.unwrap_or_else(|| gap(&names));
        backup::forecast(&retention, &names, interval, now)
    });
    let rows = known.into_iter().rev().map(|(stored, proven)| Row {
        kept: kept.get(&stored.name).copied(),
        stored,
        proven,
    });
    rows.collect()
}

/// The time between the last two, or the agent's default for an interval.
fn gap(names: &[backup::Name]) -> Duration {
    match names {
        [.., before, last] if last.id > before.id => Duration::from_nanos(last.id - before.id),
        _ => Duration::from_secs(3600),
    }
}

fn begun(stored: &Stored) -> Timestamp {
    Timestamp::from_nanosecond(stored.name.id.into()).unwrap_or(Timestamp::MAX)
}

fn list_text(rows: &[Row], now: Timestamp) -> String {
    if rows.is_empty() {
        return "No snapshots".to_owned();
    }
    let has_kept = rows.iter().any(|row| row.kept.is_some());
    let mut table = Table::new(["Name", "Age", "Size", "Verified", "Kept until"]);
    if !has_kept {
        table = Table::new(["Name", "Age", "Size", "Verified"]);
    }
    for row in rows {
        let name = row.stored.name.to_string();
        let age = age(begun(&row.stored), now);
        let (size, verified) = (human(row.stored.size), verified(&row.proven));
        match row.kept {
            Some(kept) => table.row([&name, &age, &size, &verified, &kept_until(kept)]),
            None => table.row([&name, &age, &size, &verified]),
        }
    }
    table.to_string()
}

fn show_text(row: &Row, now: Timestamp) -> String {
    let Row {
        stored,
        proven,
        kept,
    } = row;
    let mut text = String::new();
    let mut line = |label: &str, value: &str| {
        let _ = writeln!(text, "{label:13}{value}");
    };
    let begun = begun(stored);
    line("Name", &stored.name.to_string());
    line(
        "Begun",
        &format!("{} ({} ago)", minute(begun), age(begun, now)),
    );
    line("Size", &human(stored.size));
    let encrypted = if stored.name.encrypted { "yes" } else { "no" };
    line("Encrypted", encrypted);
    line("Verified", &verified(proven));
    if let Some(kept) = kept {
        line("Kept until", &kept_until(*kept));
    }
    if let Proven::Noted(note) = proven {
        line("Index", &note.summary.index.to_string());
        line("Term", &note.summary.term.to_string());
        line("State size", &human(note.summary.state_size));
        line("Digest", &printable(&note.summary.digest));
        for (what, count) in &note.summary.counts {
            line(&printable(what), &count.to_string());
        }
    }
    text.truncate(text.trim_end().len());
    text
}

/// When it was proved, or why it isn't.
fn verified(proven: &Proven) -> String {
    match proven {
        Proven::Untold => "no".to_owned(),
        Proven::Noted(note) => match &note.failure {
            None => minute(note.checked_at),
            Some(why) => format!("FAILED {}: {}", minute(note.checked_at), printable(why)),
        },
        Proven::Unreadable(why) => format!("unknown: {}", printable(why)),
    }
}

fn kept_until(kept: Kept) -> String {
    match kept {
        Kept::Always => "for ever".to_owned(),
        Kept::Until(at) => minute(at),
        Kept::Beyond(at) => format!("after {}", minute(at)),
    }
}

/// In UTC, since the days of the rules are those as well.
fn minute(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%MZ").to_string()
}

/// How old something is, in the two largest units that say something.
fn age(then: Timestamp, now: Timestamp) -> String {
    let span: SignedDuration = now.duration_since(then);
    if span.is_negative() {
        // A clock is off, here or there.
        return "in the future".to_owned();
    }
    let seconds = span.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m"),
        (0, _, _) => format!("{hours}h{}m", minutes % 60),
        (1..10, _, _) => format!("{days}d{}h", hours % 24),
        _ => format!("{days}d"),
    }
}

fn list_json(rows: &[Row], now: Timestamp) -> String {
    let rows: Vec<Json> = rows.iter().map(|row| row_json(row, now, false)).collect();
    pretty_json(&rows, b"   ")
}

fn row_json(row: &Row, now: Timestamp, in_full: bool) -> Json {
    let Row {
        stored,
        proven,
        kept,
    } = row;
    let begun = begun(stored);
    let written = Timestamp::try_from(stored.written).map(|at| at.to_string());
    let mut value = json!({
        "Name": stored.name.to_string(),
        // Too large for the numbers of many programs.
        "ID": stored.name.id.to_string(),
        "Begun": begun.to_string(),
        "AgeSeconds": now.duration_since(begun).as_secs(),
        "Written": written.ok(),
        "Size": stored.size,
        "Encrypted": stored.name.encrypted,
        "Verified": false,
    });
    match proven {
        Proven::Untold => {}
        Proven::Noted(note) => {
            value["Verified"] = json!(note.failure.is_none());
            value["CheckedAt"] = json!(note.checked_at.to_string());
            if let Some(why) = &note.failure {
                value["Failure"] = json!(why);
            }
            value["Digest"] = json!(note.summary.digest);
            if in_full {
                value["Index"] = json!(note.summary.index);
                value["Term"] = json!(note.summary.term);
                value["StateSize"] = json!(note.summary.state_size);
                value["Counts"] = json!(note.summary.counts);
            }
        }
        Proven::Unreadable(why) => value["NoteUnreadable"] = json!(why),
    }
    match kept {
        None => {}
        Some(Kept::Always) => value["KeptUntil"] = Json::Null,
        Some(Kept::Until(at)) => value["KeptUntil"] = json!(at.to_string()),
        Some(Kept::Beyond(at)) => value["KeptLongerThan"] = json!(at.to_string()),
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_for_people() {
        let now = Timestamp::from_second(1_000_000_000).unwrap();
        for (seconds, text) in [
            (-1, "in the future"),
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (3_599, "59m"),
            (3_600, "1h0m"),
            (86_399, "23h59m"),
            (86_400, "1d0h"),
            (10 * 86_400 - 1, "9d23h"),
            (400 * 86_400, "400d"),
        ] {
            let then = Timestamp::from_second(1_000_000_000 - seconds).unwrap();
            assert_eq!(age(then, now), text, "{seconds}");
        }
    }

    #[test]
    fn the_interval_is_that_of_the_last_two() {
        let name = |id| backup::Name {
            id,
            encrypted: false,
        };
        let hour = Duration::from_secs(3600);
        assert_eq!(gap(&[]), hour);
        assert_eq!(gap(&[name(1)]), hour);
        assert_eq!(gap(&[name(1), name(4), name(9)]), Duration::from_nanos(5));
    }
}
