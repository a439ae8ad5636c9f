//! `consul snapshot`: a file for each of its commands, and what they have in common.

pub(super) mod agent;
mod compare;
mod decode;
mod inspect;
mod list;
mod progress;
mod redact;
mod restore;
mod save;
mod source;

pub(super) use compare::{DIFF, VERIFY, diff, verify};
pub(super) use decode::{DECODE, decode};
pub(super) use inspect::{INSPECT, inspect};
pub(super) use list::{LIST, SHOW, list, show};
pub(super) use redact::{REDACT, redact};
pub(super) use restore::{RESTORE, restore};
pub(super) use save::{SAVE, save};

use crate::flags::{Flag, Parsed, Value};

/// What a command does, and where snapshots can be.
macro_rules! about_places {
    ($about:literal) => {
        concat!(
            $about,
            "\n\nFILE is the name of a file, - for standard input or output, or the URL of an object in a cloud: \
             s3://bucket/key, gs://bucket/name, az://container/name, or \
             az://account.blob.core.windows.net/container/name. Credentials, region, endpoint and account come from \
             the environment, by the names that the clouds' own tools use: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, \
             AWS_SESSION_TOKEN, AWS_REGION, and AWS_S3_ENDPOINT for a store that isn't Amazon's; \
             GOOGLE_APPLICATION_CREDENTIALS; AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY. Without them \
             ~/.aws/credentials and the role of the machine are asked."
        )
    };
}
use about_places;

/// How the result is shown.
const FORMAT: &[Flag] = &[Flag::new(
    "format",
    Value::Text("pretty"),
    "format",
    "pretty or json.",
)];

fn wants_json(parsed: &Parsed) -> Result<bool, String> {
    match parsed.text("format") {
        "json" => Ok(true),
        "pretty" | "text" => Ok(false),
        other => Err(format!("Unknown format {other}: it is pretty or json")),
    }
}

fn only_argument(parsed: &Parsed) -> Result<&str, String> {
    match &parsed.arguments[..] {
        [] => Err("Missing FILE argument".to_owned()),
        [file] if file.is_empty() => Err("Missing FILE argument".to_owned()),
        [file] => Ok(file),
        more => Err(format!(
            "Too many arguments (expected 1, got {})",
            more.len()
        )),
    }
}

/// Names come out of the file, and must not steer the terminal.
fn printable(name: &str) -> String {
    name.chars()
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            let plain = escaped.is_none().then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

/// A size in the largest unit that fits, with one decimal where it isn't whole: `1.5KB`.
fn human(size: u64) -> String {
    const UNITS: [&str; 4] = ["KB", "MB", "GB", "TB"];
    if size == 0 {
        return "0".to_owned();
    }
    let mut shift = 0;
    while shift < UNITS.len() && size >> (10 * (shift + 1)) > 0 {
        shift += 1;
    }
    let Some(unit) = shift.checked_sub(1).map(|unit| UNITS[unit]) else {
        return format!("{size}B");
    };
    // In tenths, rounded half up, without floating point.
    let one = 1_u128 << (10 * shift);
    let tenths = (u128::from(size) * 10 + one / 2) / one;
    match tenths % 10 {
        0 => format!("{}{unit}", tenths / 10),
        tenth => format!("{}.{tenth}{unit}", tenths / 10),
    }
}

#[cfg(test)]
mod tests;
