//! `consul snapshot inspect`: what is in a snapshot, and whether it is sound.

use std::fmt::Display;

use backup::{KeyDetails, Options, Report, Tally};
use serde_json::json;

use super::source::{self, Source};
use super::{FORMAT, about_places, human, only_argument, printable, wants_json};
use crate::command::kv::pretty_json;
use crate::command::{OK, http};
use crate::console::Console;
use crate::flags::{Flag, Parsed, Syntax, Value};

pub(in crate::command) const INSPECT: Syntax = Syntax {
    name: "snapshot inspect",
    arguments: "FILE",
    summary: "Shows what is in a snapshot file",
    about: about_places!(
        "Proves that a snapshot file is sound and shows what is in it. No server is needed."
    ),
    example: "consul snapshot inspect backup.snap\n\
              consul snapshot inspect -kvdetails -kvdepth=1 backup.snap\n\
              consul snapshot inspect -format=json backup.snap",
    flags: &[
        FORMAT,
        &[
            Flag::switch(
                "kvdetails",
                false,
                "Also counts keys by the beginning of their names.",
            ),
            Flag::new(
                "kvdepth",
                Value::Uint(2),
                "number",
                "With -kvdetails: how many parts of a name count.",
            ),
            Flag::new(
                "kvfilter",
                Value::Text(""),
                "prefix",
                "With -kvdetails: only keys that begin with this.",
            ),
        ],
        source::IDENTITY,
    ],
};

pub(in crate::command) fn inspect(parsed: &Parsed, console: &mut Console<'_>) -> u8 {
    // Who names a prefix wants to see the keys.
    let wants_keys = parsed.switch("kvdetails") || !parsed.text("kvfilter").is_empty();
    let keys = wants_keys.then(|| KeyDetails {
        depth: usize::try_from(parsed.uint("kvdepth")).unwrap_or(usize::MAX),
        filter: parsed.text("kvfilter").as_bytes().to_vec(),
    });
    let options = Options { keys };
    let outcome = only_argument(parsed).and_then(|file| {
        let render = if wants_json(parsed)? {
            as_json
        } else {
            as_text
        };
        let identities = source::identities(parsed)?;
        let location = source::location(file, console)?;
        let Source { reader, .. } = Source::open(&location, identities.as_ref(), console)?;
        let refused = |why: &dyn Display| format!("Error verifying snapshot: {why}");
        let report = backup::inspect(reader, &options).map_err(|why| refused(&why))?;
        // What can be read is shown even of a state that a restore would refuse.
        console.say(render(&report, &options));
        report.fault.map_or(Ok(()), |why| Err(refused(&why)))
    });
    match outcome {
        Ok(()) => OK,
        Err(why) => http::failed(console, why),
    }
}

/// The five lines that tools read, then the counts.
fn as_text(report: &Report, options: &Options) -> String {
    let meta = &report.meta;
    let mut text = format!(
        "ID           {}\nSize         {}\nIndex        {}\nTerm         {}\nVersion      {}\n",
        printable(&meta.id),
        meta.size,
        meta.index,
        meta.term,
        meta.version
    );
    text.push('\n');
    text.push_str(&table("Type", &report.types));
    if options.keys.is_some() {
        text.push('\n');
        text.push_str(&table("Key Name", &report.keys));
    }
    if !report.skipped.is_empty() {
        text.push_str("\nSkipped: types of other releases. A restore refuses them unless -skip-unknown is given.\n");
        text.push_str(&table("Type", &report.skipped));
    }
    if let Err(why) = meta.check_restorable(report.state_size) {
        text.push_str(&format!("\nA restore would fail: {why}\n"));
    }
    text.truncate(text.trim_end().len());
    text
}

fn table(title: &str, tallies: &[Tally]) -> String {
    let rule = || ["----".to_owned(), "----".to_owned(), "----".to_owned()];
    let row = |tally: &Tally| {
        [
            printable(&tally.name),
            tally.count.to_string(),
            human(tally.size),
        ]
    };
    let total = Tally {
        name: "Total".to_owned(),
        count: tallies.iter().map(|tally| tally.count).sum(),
        size: total_size(tallies),
    };
    let mut rows = vec![
        [title.to_owned(), "Count".to_owned(), "Size".to_owned()],
        rule(),
    ];
    rows.extend(tallies.iter().map(row));
    rows.extend([rule(), row(&total)]);

    const GAP: usize = 6;
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
            + GAP
    };
    let (first, second) = (width(0), width(1));
    rows.iter()
        .map(|[name, count, size]| format!("{name:first$}{count:second$}{size}\n"))
        .collect()
}

fn as_json(report: &Report, options: &Options) -> String {
    let list = |tallies: &[Tally]| -> serde_json::Value {
        tallies
            .iter()
            .map(|tally| json!({"Name": tally.name, "Sum": tally.size, "Count": tally.count}))
            .collect()
    };
    let meta = &report.meta;
    let mut value = json!({
        "Meta": {
            "ID": meta.id,
            "Size": meta.size,
            "Index": meta.index,
            "Term": meta.term,
            "Version": meta.version,
        },
        "Stats": list(&report.types),
        "Skipped": list(&report.skipped),
        "TotalSize": total_size(&report.types),
    });
    if options.keys.is_some() {
        value["StatsKV"] = list(&report.keys);
        value["TotalSizeKV"] = json!(total_size(&report.keys));
    }
    pretty_json(&value, b"   ")
}

fn total_size(tallies: &[Tally]) -> u64 {
    tallies.iter().map(|tally| tally.size).sum()
}
