//! `consul kv`: get, put, delete, export, import.

use std::io::Read;

use bytes::Bytes;
use client::{Client, DeleteCondition, KvPair, KvPut, PutCondition};
use serde::{Deserialize, Serialize};

use super::{OK, http};
use crate::config;
use crate::console::Console;
use crate::flags::{Flag, Parsed, Syntax, Value};

const MODIFY_INDEX: Flag = Flag::new(
    "modify-index",
    Value::Uint(0),
    "index",
    "With -cas: the index at which the key must have changed last.",
);

pub(super) const DELETE: Syntax = Syntax {
    name: "kv delete",
    arguments: "KEY_OR_PREFIX",
    summary: "Removes a key, or all keys with a prefix",
    about: "Removes one key. That it wasn't there is no failure. With -recurse it removes every key that begins \
            with the given text, which is not limited to whole directories.",
    example: "consul kv delete config/db\n\
              consul kv delete -recurse config/\n\
              consul kv delete -cas -modify-index=42 config/db",
    flags: &[
        &[
            Flag::switch(
                "cas",
                false,
                "Removes the key only if it hasn't changed since -modify-index.",
            ),
            MODIFY_INDEX,
            Flag::switch(
                "recurse",
                false,
                "Removes every key that begins with KEY_OR_PREFIX.",
            ),
        ],
        http::AGENT,
        http::DATACENTER,
        http::STALE,
    ],
};

pub(super) const EXPORT: Syntax = Syntax {
    name: "kv export",
    arguments: "[PREFIX]",
    summary: "Prints keys and values as JSON",
    about: "Prints every key that begins with PREFIX as a JSON list, which kv import reads. Without PREFIX it \
            prints all of them. Locks are not part of it.",
    example: "consul kv export config/ > config.json",
    flags: &[http::AGENT, http::DATACENTER, http::STALE],
};

pub(super) const GET: Syntax = Syntax {
    name: "kv get",
    arguments: "[KEY_OR_PREFIX]",
    summary: "Prints a value, or keys",
    about: "Prints the value of a key. With -recurse it prints every key that begins with the given text and its \
            value, with -keys only the keys.",
    example: "consul kv get config/db\n\
              consul kv get -detailed config/db\n\
              consul kv get -recurse config/\n\
              consul kv get -keys -separator= config/",
    flags: &[
        &[
            Flag::switch("base64", false, "Prints values in base64."),
            Flag::switch(
                "detailed",
                false,
                "Prints what is stored with the value too.",
            ),
            Flag::switch("keys", false, "Prints keys, without their values."),
            Flag::switch(
                "recurse",
                false,
                "Prints every key that begins with KEY_OR_PREFIX.",
            ),
            Flag::new(
                "separator",
                Value::Text("/"),
                "text",
                "With -keys: names are cut behind this text, so that a directory is one line; with an empty one \
                 all keys are listed whole.",
            ),
        ],
        http::AGENT,
        http::DATACENTER,
        http::STALE,
    ],
};

pub(super) const IMPORT: Syntax = Syntax {
    name: "kv import",
    arguments: "DATA",
    summary: "Writes the keys and values of a JSON list",
    about: "Writes every key of a JSON list as kv export prints it. DATA is the list itself, the name of a file \
            behind @, or - for standard input. The list is checked before anything is written; then the keys are \
            written in order, up to the first that fails.",
    example: "consul kv import @config.json\n\
              consul kv export config/ | consul kv import -http-addr=other:8500 -",
    flags: &[http::AGENT, http::DATACENTER, http::STALE],
};

pub(super) const PUT: Syntax = Syntax {
    name: "kv put",
    arguments: "KEY [DATA]",
    summary: "Writes a value",
    about: "Writes a value to a key, which is made if it isn't there. DATA is the value itself, the name of a file \
            behind @, or - for standard input; without it the value is empty.",
    example: "consul kv put config/db 10.0.0.5\n\
              consul kv put config/motd @/etc/motd\n\
              consul kv put -cas -modify-index=42 config/db 10.0.0.6\n\
              consul kv put -acquire -session=5dbf0f0c-0b4c-4d0f-9a5e-3b7a3f7a8f2c leader me",
    flags: &[
        &[
            Flag::switch(
                "acquire",
                false,
                "Takes the lock of the key; needs -session.",
            ),
            Flag::switch(
                "base64",
                false,
                "DATA is in base64; what it stands for is written.",
            ),
            Flag::switch(
                "cas",
                false,
                "Writes only if the key hasn't changed since -modify-index; 0 means that it must not exist.",
            ),
            Flag::new(
                "flags",
                Value::Uint(0),
                "number",
                "A number to keep with the value.",
            ),
            MODIFY_INDEX,
            Flag::switch(
                "release",
                false,
                "Gives the lock of the key back; needs -session.",
            ),
            Flag::new(
                "session",
                Value::Text(""),
                "id",
                "The session that takes or gives back the lock.",
            ),
        ],
        http::AGENT,
        http::DATACENTER,
        http::STALE,
    ],
};

/// The most that is read from a file or standard input for one value; servers take half a MiB.
const VALUE_SIZE_MAX: u64 = 64 << 20;

/// The most that is read for an import: ten times a million keys of 256 bytes.
const IMPORT_SIZE_MAX: u64 = 4 << 30;

pub(super) fn get(parsed: &Parsed, console: &mut Console<'_>) -> u8 {
    let listing = parsed.switch("keys") || parsed.switch("recurse");
    let key = match &parsed.arguments[..] {
        [] => "",
        [key] => strip_slash(key),
        more => return http::failed(console, too_many("1", more.len())),
    };
    if key.is_empty() && !listing {
        return http::failed(console, "Error! Missing KEY argument");
    }
    with_client(parsed, console, async |client, console| {
        let options = http::query_options(parsed);
        let failed = |why| format!("Error querying Consul agent: {why}");
        if parsed.switch("keys") {
            let keys = client
                .kv_keys(key, parsed.text("separator"), &options)
                .await
                .map_err(failed)?;
            return print(console, keys.value.iter(), |text, key| {
                text.extend_from_slice(key.as_bytes());
                text.push(b'\n');
            });
        }
        let encode = parsed.switch("base64");
        let detailed = parsed.switch("detailed");
        if parsed.switch("recurse") {
            let pairs = client.kv_list(key, &options).await.map_err(failed)?.value;
            let mut first = true;
            return print(console, pairs.iter(), |text, pair| {
                if !detailed {
                    text.extend_from_slice(pair.key.as_bytes());
                    text.push(b':');
                    text.extend_from_slice(&shown_value(pair, encode));
                    text.push(b'\n');
                    return;
                }
                if !std::mem::take(&mut first) {
                    text.push(b'\n');
                }
                block(text, pair, encode);
            });
        }
        let Some(pair) = client.kv_get(key, &options).await.map_err(failed)?.value else {
            return Err(format!("Error! No key exists at: {key}"));
        };
        print(console, [&pair].into_iter(), |text, pair| {
            if detailed {
                block(text, pair, encode);
            } else {
                text.extend_from_slice(&shown_value(pair, encode));
                text.push(b'\n');
            }
        })
    })
}

pub(super) fn put(parsed: &Parsed, console: &mut Console<'_>) -> u8 {
    let (key, data) = match &parsed.arguments[..] {
        [] => return http::failed(console, "Error! Missing KEY argument"),
        [key] => (strip_slash(key), ""),
        [key, data] => (strip_slash(key), data.as_str()),
        more => return http::failed(console, too_many("1 or 2", more.len())),
    };
    if key.is_empty() {
        return http::failed(console, "Error! Missing KEY argument");
    }
    let session = parsed.text("session").to_owned();
    let locking = parsed.switch("acquire") || parsed.switch("release");
    if locking && session.is_empty() {
        return http::failed(
            console,
            "Error! Missing -session (required with -acquire and -release)",
        );
    }
    let condition = if parsed.switch("cas") {
        // An index of 0 that was given means "only if it doesn't exist", as in the API.
        if !parsed.given("modify-index") {
            return http::failed(console, "Must specify -modify-index with -cas!");
        }
        PutCondition::Unchanged(parsed.uint("modify-index"))
    } else if parsed.switch("acquire") {
        PutCondition::Acquire(session)
    } else if parsed.switch("release") {
        PutCondition::Release(session)
    } else {
        PutCondition::Always
    };
    let value = read_data(data, VALUE_SIZE_MAX, console).and_then(|value| {
        if !parsed.switch("base64") {
            return Ok(value);
        }
        base64_simd::STANDARD
            .decode_to_vec(value.trim_ascii())
            .map_err(|_| "Error! Cannot base 64 decode data".to_owned())
    });
    let value = match value {
        Ok(value) => Bytes::from(value),
        Err(why) => return http::failed(console, why),
    };
    let put = KvPut {
        key: key.to_owned(),
        value,
        flags: parsed.uint("flags"),
        condition,
    };
    with_client(parsed, console, async |client, console| {
        let written = client
            .kv_put(&put, &http::write_options(parsed))
            .await
            .map_err(|why| format!("Error! Failed writing data: {why}"))?;
        let key = &put.key;
        let line = match (&put.condition, written) {
            (PutCondition::Always | PutCondition::Unchanged(_), true) => {
                format!("Success! Data written to: {key}")
            }
            (PutCondition::Acquire(_), true) => format!("Success! Lock acquired on: {key}"),
            (PutCondition::Release(_), true) => format!("Success! Lock released on: {key}"),
            (PutCondition::Unchanged(_), false) => {
                return Err(format!("Error! Did not write to {key}: CAS failed"));
            }
            (PutCondition::Acquire(_), false) => {
                return Err("Error! Did not acquire lock".to_owned());
            }
            (PutCondition::Release(_), false) => {
                return Err("Error! Did not release lock".to_owned());
            }
            (PutCondition::Always, false) => return Err(format!("Error! Did not write to {key}")),
        };
        console.say(line);
        Ok(())
    })
}

pub(super) fn delete(parsed: &Parsed, console: &mut Console<'_>) -> u8 {
    let key = match &parsed.arguments[..] {
        [] => return http::failed(console, "Error! Missing KEY argument"),
        [key] => strip_slash(key),
        more => return http::failed(console, too_many("1", more.len())),
    };
    let (cas, recurse) = (parsed.switch("cas"), parsed.switch("recurse"));
    // Deleting everything is possible, but only if it was said outright.
    if key.is_empty() && !recurse {
        return http::failed(console, "Error! Missing KEY argument");
    }
    let problem = match (cas, recurse, parsed.given("modify-index")) {
        (true, true, _) => Some("Cannot specify both -cas and -recurse!"),
        (true, false, false) => Some("Must specify -modify-index with -cas!"),
        (false, _, true) => Some("Cannot specify -modify-index without -cas!"),
        (true, false, true) | (false, _, false) => None,
    };
    if let Some(problem) = problem {
        return http::failed(console, problem);
    }
    with_client(parsed, console, async |client, console| {
        let options = http::write_options(parsed);
        if recurse {
            let deleted = client.kv_delete_tree(key, &options).await;
            deleted.map_err(|why| format!("Error! Did not delete prefix {key}: {why}"))?;
            console.say(format_args!("Success! Deleted keys with prefix: {key}"));
            return Ok(());
        }
        let condition = if cas {
            DeleteCondition::Unchanged(parsed.uint("modify-index"))
        } else {
            DeleteCondition::Always
        };
        let deleted = client.kv_delete(key, condition, &options).await;
        if !deleted.map_err(|why| format!("Error! Did not delete key {key}: {why}"))? {
            return Err(format!("Error! Did not delete key {key}: CAS failed"));
        }
        console.say(format_args!("Success! Deleted key: {key}"));
        Ok(())
    })
}

/// One key in the form of `kv export`. Letters of either case are read, one is written.
#[derive(Debug, Serialize, Deserialize)]
struct Exported {
    #[serde(alias = "Key")]
    key: String,
    #[serde(alias = "Flags", default)]
    flags: u64,
    #[serde(alias = "Value", default, deserialize_with = "null_is_empty")]
    value: String,
}

/// The HTTP interface shows an empty value as `null`, so lists made from its answers have it too.
fn null_is_empty<'de, D: serde::Deserializer<'de>>(value: D) -> Result<String, D::Error> {
    Option::deserialize(value).map(Option::unwrap_or_default)
}

pub(super) fn export(parsed: &Parsed, console: &mut Console<'_>) -> u8 {
    let prefix = match &parsed.arguments[..] {
        [] => "",
        [prefix] => strip_slash(prefix),
        more => return http::failed(console, too_many("1", more.len())),
    };
    with_client(parsed, console, async |client, console| {
        let pairs = client
            .kv_list(prefix, &http::query_options(parsed))
            .await
            .map_err(|why| format!("Error querying Consul agent: {why}"))?
            .value;
        let mut first = true;
        let begun = if pairs.is_empty() { "[]\n" } else { "[" };
        console
            .write(begun.as_bytes())
            .map_err(|why| broken_output(&why))?;
        print(console, pairs.iter(), |text, pair| {
            text.extend_from_slice(if std::mem::take(&mut first) {
                b"\n\t"
            } else {
                b",\n\t"
            });
            let exported = Exported {
                key: pair.key.clone(),
                flags: pair.flags,
                value: base64_simd::STANDARD.encode_to_string(&pair.value),
            };
            // One level in, because it is a member of the list.
            let json = pretty_json(&exported, b"\t");
            text.extend_from_slice(json.replace('\n', "\n\t").as_bytes());
        })?;
        if pairs.is_empty() {
            return Ok(());
        }
        console.write(b"\n]\n").map_err(|why| broken_output(&why))
    })
}

pub(super) fn import(parsed: &Parsed, console: &mut Console<'_>) -> u8 {
    let data = match &parsed.arguments[..] {
        [] => return http::failed(console, "Error! Missing DATA argument"),
        [data] if data.is_empty() => return http::failed(console, "Error! Empty DATA argument"),
        [data] => data,
        more => return http::failed(console, too_many("1", more.len())),
    };
    let puts = match read_data(data, IMPORT_SIZE_MAX, console).and_then(|json| imported(&json)) {
        Ok(puts) => puts,
        Err(why) => return http::failed(console, why),
    };
    with_client(parsed, console, async |client, console| {
        let options = http::write_options(parsed);
        let mut rest = &puts[..];
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(batch_len(rest));
            rest = after;
            // One round trip for many keys; where that isn't to be had, one by one, so that it is known which one failed.
            let together = batch.len() > 1
                && client
                    .kv_put_all(batch, &options)
                    .await
                    .is_ok_and(|all| all);
            for put in batch {
                let key = &put.key;
                if !together {
                    let written = client.kv_put(put, &options).await;
                    written.map_err(|why| {
                        format!("Error! Failed writing data for key {key}: {why}")
                    })?;
                }
                console.say(format_args!("Imported: {key}"));
            }
        }
        Ok(())
    })
}

/// How many of the next keys go into one transaction, at least 1: the servers' limits, with room to spare.
fn batch_len(puts: &[KvPut]) -> usize {
    const COUNT_MAX: usize = 64;
    const SIZE_MAX: usize = 256 << 10;
    let mut size = 0;
    let fits = |put: &&KvPut| {
        size += put.key.len() + put.value.len();
        size <= SIZE_MAX
    };
    puts.iter().take(COUNT_MAX).take_while(fits).count().max(1)
}

/// All that is to be written, so that a list with a mistake at its end writes nothing.
fn imported(json: &[u8]) -> Result<Vec<KvPut>, String> {
    if json.trim_ascii().is_empty() {
        return Err("Error! Empty DATA argument".to_owned());
    }
    let list: Vec<Exported> =
        serde_json::from_slice(json).map_err(|why| format!("Cannot unmarshal data: {why}"))?;
    list.into_iter()
        .map(|Exported { key, flags, value }| {
            let value = base64_simd::STANDARD.decode_to_vec(value).map_err(|_| {
                format!("Error base 64 decoding value for key {key}: illegal base64 data")
            })?;
            Ok(KvPut {
                key,
                value: value.into(),
                flags,
                condition: PutCondition::Always,
            })
        })
        .collect()
}

/// Runs `work` with the client that the flags ask for, and says why it failed if it did.
fn with_client<'a, 'c>(
    parsed: &Parsed,
    console: &'a mut Console<'c>,
    work: impl AsyncFnOnce(&Client, &mut Console<'c>) -> Result<(), String>,
) -> u8 {
    let client = match http::client(parsed, console) {
        Ok(client) => client,
        Err(why) => return http::failed(console, http::cannot_connect(&why)),
    };
    match http::wait_for(work(&client, console)) {
        Ok(()) => OK,
        Err(why) => http::failed(console, why),
    }
}

/// The text of a command's DATA argument: itself, or what a file or standard input holds.
fn read_data(data: &str, size_max: u64, console: &mut Console<'_>) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = if data == "-" {
        console.input.take(size_max + 1).read_to_end(&mut bytes)
    } else if let Some(path) = data.strip_prefix('@') {
        std::fs::File::open(path)
            .and_then(|file| file.take(size_max + 1).read_to_end(&mut bytes))
            .map_err(|why| std::io::Error::other(format!("open {path}: {}", config::reason(&why))))
    } else {
        return Ok(data.as_bytes().to_vec());
    };
    match read {
        Err(why) if data == "-" => Err(format!("Error! Failed to read stdin: {why}")),
        Err(why) => Err(format!("Error! Failed to read file: {why}")),
        Ok(size) if size as u64 > size_max => Err(format!(
            "Error! The data is larger than {} MiB",
            size_max >> 20
        )),
        Ok(_) => Ok(bytes),
    }
}

/// People write keys like paths; the leading slash is theirs.
fn strip_slash(key: &str) -> &str {
    key.strip_prefix('/').unwrap_or(key)
}

fn too_many(expected: &str, given: usize) -> String {
    format!("Too many arguments (expected {expected}, got {given})")
}

fn shown_value(pair: &KvPair, encode: bool) -> Bytes {
    if encode {
        Bytes::from(base64_simd::STANDARD.encode_to_string(&pair.value))
    } else {
        pair.value.clone()
    }
}

/// Everything that is stored with a key, one line each.
fn block(text: &mut Vec<u8>, pair: &KvPair, encode: bool) {
    let session = if pair.session.is_empty() {
        "-"
    } else {
        &pair.session
    };
    let lines = format!(
        "CreateIndex      {}\nFlags            {}\nKey              {}\nLockIndex        {}\n\
         ModifyIndex      {}\nSession          {session}\nValue            ",
        pair.create_index, pair.flags, pair.key, pair.lock_index, pair.modify_index
    );
    text.extend_from_slice(lines.as_bytes());
    text.extend_from_slice(&shown_value(pair, encode));
    text.push(b'\n');
}

pub(super) fn pretty_json(value: &impl Serialize, indent: &[u8]) -> String {
    let mut json = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(indent);
    let mut serializer = serde_json::Serializer::with_formatter(&mut json, formatter);
    value
        .serialize(&mut serializer)
        .expect("plain data always has a JSON form");
    String::from_utf8(json).expect("JSON is text")
}

/// Prints many items in pieces that are large enough to be quick and small enough to be no memory.
fn print<T>(
    console: &mut Console<'_>,
    items: impl Iterator<Item = T>,
    mut render: impl FnMut(&mut Vec<u8>, T),
) -> Result<(), String> {
    const PIECE_SIZE: usize = 64 << 10;
    let mut piece = Vec::new();
    for item in items {
        render(&mut piece, item);
        if piece.len() >= PIECE_SIZE {
            console.write(&piece).map_err(|why| broken_output(&why))?;
            piece.clear();
        }
    }
    console.write(&piece).map_err(|why| broken_output(&why))
}

fn broken_output(why: &std::io::Error) -> String {
    format!("Error writing the result: {}", config::reason(why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::stub::{Asked, Reply, Stub};
    use crate::console::tests::{Printed, consul};

    const PAIRS: &str = r#"[
        {"LockIndex":0,"Key":"foo/a","Flags":7,"Value":"NQ==","CreateIndex":17,"ModifyIndex":18},
        {"LockIndex":1,"Key":"foo/b","Flags":0,"Value":null,"Session":"s1","CreateIndex":19,"ModifyIndex":20}]"#;

    fn agent(asked: &Asked) -> Reply {
        match asked.line.as_str() {
            line if line.starts_with("PUT") || line.starts_with("DELETE") => {
                let conditional = ["cas=", "acquire=", "release="]
                    .iter()
                    .any(|part| line.contains(part));
                Reply::ok(if conditional && line.contains("held") {
                    "false"
                } else {
                    "true"
                })
            }
            line if line.contains("keys=") => Reply::ok(r#"["foo/","top"]"#),
            line if line.contains("missing") => Reply::status(404, ""),
            line if line.contains("secret") => Reply::status(403, "Permission denied"),
            line if line.contains("recurse=") => Reply::ok(PAIRS),
            _ => Reply::ok(format!(
                "[{}]",
                PAIRS
                    .trim()
                    .trim_matches(['[', ']'])
                    .split("},")
                    .next()
                    .unwrap()
                    .to_owned()
                    + "}"
            )),
        }
    }

    fn run(stub: &Stub, line: &[&str], input: &[u8]) -> Printed {
        let (words, rest) = line.split_at(2);
        let address = format!("-http-addr={}", stub.address);
        consul(&[words, &[&address], rest].concat(), input, &[])
    }

    #[test]
    fn every_command_asks_and_prints() {
        let stub = Stub::tcp(agent);
        let detailed = "CreateIndex      17\nFlags            7\nKey              foo/a\nLockIndex        0\n\
                        ModifyIndex      18\nSession          -\nValue            5\n";
        let both = format!(
            "{detailed}\nCreateIndex      19\nFlags            0\nKey              foo/b\nLockIndex        1\n\
             ModifyIndex      20\nSession          s1\nValue            \n"
        );
        let exported = "[\n\t{\n\t\t\"key\": \"foo/a\",\n\t\t\"flags\": 7,\n\t\t\"value\": \"NQ==\"\n\t},\
                        \n\t{\n\t\t\"key\": \"foo/b\",\n\t\t\"flags\": 0,\n\t\t\"value\": \"\"\n\t}\n]\n";
        let cases: &[(&[&str], &str, u8, &str)] = &[
            (&["kv", "get", "foo/a"], "GET /v1/kv/foo/a", 0, "5\n"),
            (&["kv", "get", "/foo/a"], "GET /v1/kv/foo/a", 0, "5\n"),
            (
                &["kv", "get", "-base64", "foo/a"],
                "GET /v1/kv/foo/a",
                0,
                "NQ==\n",
            ),
            (
                &["kv", "get", "-detailed", "foo/a"],
                "GET /v1/kv/foo/a",
                0,
                detailed,
            ),
            (
                &["kv", "get", "missing"],
                "GET /v1/kv/missing",
                1,
                "Error! No key exists at: missing\n",
            ),
            (
                &["kv", "get", "secret"],
                "GET /v1/kv/secret",
                1,
                "Error querying Consul agent: Unexpected response code: 403 (Permission denied)\n",
            ),
            (
                &["kv", "get", "-recurse", "foo/"],
                "GET /v1/kv/foo/?recurse=",
                0,
                "foo/a:5\nfoo/b:\n",
            ),
            (
                &["kv", "get", "-recurse", "missing"],
                "GET /v1/kv/missing?recurse=",
                0,
                "",
            ),
            (
                &["kv", "get", "-recurse", "-detailed"],
                "GET /v1/kv/?recurse=",
                0,
                &both,
            ),
            (
                &["kv", "get", "-recurse", "-base64"],
                "GET /v1/kv/?recurse=",
                0,
                "foo/a:NQ==\nfoo/b:\n",
            ),
            (
                &["kv", "get", "-keys", "-recurse"],
                "GET /v1/kv/?keys=&separator=%2F",
                0,
                "foo/\ntop\n",
            ),
            (
                &["kv", "get", "-keys", "-separator=", "x"],
                "GET /v1/kv/x?keys=",
                0,
                "foo/\ntop\n",
            ),
            (
                &["kv", "get", "-stale", "-datacenter=d", "a"],
                "GET /v1/kv/a?dc=d&stale=",
                0,
                "5\n",
            ),
            (
                &["kv", "put", "k", "v"],
                "PUT /v1/kv/k",
                0,
                "Success! Data written to: k\n",
            ),
            (
                &["kv", "put", "/k", "-5"],
                "PUT /v1/kv/k",
                0,
                "Success! Data written to: k\n",
            ),
            (
                &["kv", "put", "k"],
                "PUT /v1/kv/k",
                0,
                "Success! Data written to: k\n",
            ),
            (
                &["kv", "put", "k", ""],
                "PUT /v1/kv/k",
                0,
                "Success! Data written to: k\n",
            ),
            (
                &["kv", "put", "-flags=9", "-datacenter=d", "k", "v"],
                "PUT /v1/kv/k?dc=d&flags=9",
                0,
                "Success! Data written to: k\n",
            ),
            (
                &["kv", "put", "-cas", "-modify-index=3", "k", "v"],
                "PUT /v1/kv/k?cas=3",
                0,
                "Success! Data written to: k\n",
            ),
            (
                &["kv", "put", "-cas", "-modify-index=0", "held", "v"],
                "PUT /v1/kv/held?cas=0",
                1,
                "Error! Did not write to held: CAS failed\n",
            ),
            (
                &["kv", "put", "-acquire", "-session=s", "k"],
                "PUT /v1/kv/k?acquire=s",
                0,
                "Success! Lock acquired on: k\n",
            ),
            (
                &["kv", "put", "-acquire", "-session=s", "held"],
                "PUT /v1/kv/held?acquire=s",
                1,
                "Error! Did not acquire lock\n",
            ),
            (
                &["kv", "put", "-release", "-session=s", "k"],
                "PUT /v1/kv/k?release=s",
                0,
                "Success! Lock released on: k\n",
            ),
            (
                &["kv", "put", "-release", "-session=s", "held"],
                "PUT /v1/kv/held?release=s",
                1,
                "Error! Did not release lock\n",
            ),
            (
                &["kv", "delete", "k"],
                "DELETE /v1/kv/k",
                0,
                "Success! Deleted key: k\n",
            ),
            (
                &["kv", "delete", "-recurse", "p"],
                "DELETE /v1/kv/p?recurse=",
                0,
                "Success! Deleted keys with prefix: p\n",
            ),
            (
                &["kv", "delete", "-recurse", ""],
                "DELETE /v1/kv/?recurse=",
                0,
                "Success! Deleted keys with prefix: \n",
            ),
            (
                &["kv", "delete", "-cas", "-modify-index=3", "held"],
                "DELETE /v1/kv/held?cas=3",
                1,
                "Error! Did not delete key held: CAS failed\n",
            ),
            (
                &["kv", "export", "foo/"],
                "GET /v1/kv/foo/?recurse=",
                0,
                exported,
            ),
            (
                &["kv", "export", "missing"],
                "GET /v1/kv/missing?recurse=",
                0,
                "[]\n",
            ),
        ];
        for (line, request, status, output) in cases {
            let printed = run(&stub, line, b"");
            assert_eq!(
                (printed.output.as_str(), printed.status),
                (*output, *status),
                "{line:?}"
            );
            assert_eq!(printed.errors, "", "{line:?}");
            assert_eq!(stub.lines(), [*request], "{line:?}");
        }
    }

    #[test]
    fn mistakes_are_found_before_anybody_is_asked() {
        let stub = Stub::tcp(agent);
        let cases: &[(&[&str], &str)] = &[
            (&["kv", "get"], "Error! Missing KEY argument"),
            (
                &["kv", "get", "a", "b"],
                "Too many arguments (expected 1, got 2)",
            ),
            (&["kv", "put"], "Error! Missing KEY argument"),
            (
                &["kv", "put", "a", "b", "c"],
                "Too many arguments (expected 1 or 2, got 3)",
            ),
            (
                &["kv", "put", "a", "@/nonexistent"],
                "Error! Failed to read file: open /nonexistent: no such file or directory",
            ),
            (
                &["kv", "put", "-acquire", "a"],
                "Error! Missing -session (required with -acquire and -release)",
            ),
            (
                &["kv", "put", "-cas", "a"],
                "Must specify -modify-index with -cas!",
            ),
            (
                &["kv", "put", "-base64", "a", "?"],
                "Error! Cannot base 64 decode data",
            ),
            (&["kv", "delete"], "Error! Missing KEY argument"),
            (&["kv", "delete", ""], "Error! Missing KEY argument"),
            (
                &["kv", "delete", "-cas", "a"],
                "Must specify -modify-index with -cas!",
            ),
            (
                &["kv", "delete", "-cas", "-recurse", "-modify-index=1", "a"],
                "Cannot specify both -cas and -recurse!",
            ),
            (
                &["kv", "delete", "-modify-index=1", "a"],
                "Cannot specify -modify-index without -cas!",
            ),
            (&["kv", "import"], "Error! Missing DATA argument"),
            (&["kv", "import", ""], "Error! Empty DATA argument"),
            (&["kv", "import", "-"], "Error! Empty DATA argument"),
            (
                &["kv", "import", "{}"],
                "Cannot unmarshal data: invalid type: map, expected a sequence at line 1 column 0",
            ),
            (
                &[
                    "kv",
                    "import",
                    r#"[{"key":"a","flags":0,"value":"YQ=="},{"key":"b","flags":0,"value":"?"}]"#,
                ],
                "Error base 64 decoding value for key b: illegal base64 data",
            ),
        ];
        for (line, problem) in cases {
            let printed = run(&stub, line, b"");
            assert_eq!(
                (printed.output.as_str(), printed.status),
                (format!("{problem}\n").as_str(), 1),
                "{line:?}"
            );
            assert_eq!(stub.lines(), [""; 0], "{line:?}");
        }
    }

    #[test]
    fn data_comes_from_the_line_a_file_or_standard_input() {
        let stub = Stub::tcp(agent);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "from a file\n").unwrap();
        let at_file = format!("@{}", file.path().display());
        for (line, body) in [
            (&["kv", "put", "k", "v"][..], "v"),
            (&["kv", "put", "k", "-"], "from standard input"),
            (&["kv", "put", "k", &at_file], "from a file\n"),
            (&["kv", "put", "-base64", "k", "aGVsbG8="], "hello"),
        ] {
            assert_eq!(
                run(&stub, line, b"from standard input").status,
                0,
                "{line:?}"
            );
            assert_eq!(stub.asked()[0].body, body.as_bytes(), "{line:?}");
        }
    }

    #[test]
    fn an_import_writes_in_order_and_stops_at_the_first_failure() {
        let stub = Stub::tcp(|asked| match asked.line.as_str() {
            "PUT /v1/kv/bad" => Reply::status(500, "No cluster leader"),
            "PUT /v1/txn" if asked.body.windows(5).any(|part| part == b"\"bad\"") => {
                Reply::status(409, "{}")
            }
            _ => Reply::ok("true"),
        });
        let list =
            br#"[{"key":"a","flags":5,"value":"YQ=="},{"Key":"/b/../c","Flags":0,"Value":""}]"#;
        let printed = run(&stub, &["kv", "import", "-"], list);
        assert_eq!(
            (printed.status, printed.output.as_str()),
            (0, "Imported: a\nImported: /b/../c\n")
        );
        let asked = stub.asked();
        assert_eq!(asked[0].line, "PUT /v1/txn");
        assert_eq!(
            String::from_utf8_lossy(&asked[0].body),
            r#"[{"KV":{"Verb":"set","Key":"a","Value":"YQ==","Flags":5}},{"KV":{"Verb":"set","Key":"/b/../c","Value":"","Flags":0}}]"#
        );

        let single = r#"[{"key":"/b/../c","flags":5,"value":"YQ=="}]"#;
        assert_eq!(run(&stub, &["kv", "import", single], b"").status, 0);
        let asked = stub.asked();
        assert_eq!(asked[0].line, "PUT /v1/kv/%2Fb%2F..%2Fc?flags=5");
        assert_eq!(asked[0].body, b"a");

        let list = r#"[{"key":"a","value":""},{"key":"bad","value":""},{"key":"c","value":""}]"#;
        let printed = run(&stub, &["kv", "import", list], b"");
        assert_eq!(
            (printed.status, printed.output.as_str()),
            (
                1,
                "Imported: a\nError! Failed writing data for key bad: Unexpected response code: 500 (No cluster leader)\n"
            )
        );
        assert_eq!(
            stub.lines(),
            ["PUT /v1/txn", "PUT /v1/kv/a", "PUT /v1/kv/bad"]
        );
    }

    #[test]
    fn batches_stay_within_the_servers_limits() {
        let put = |size: usize| KvPut {
            key: "key".to_owned(),
            value: vec![0; size].into(),
            flags: 0,
            condition: PutCondition::Always,
        };
        assert_eq!(batch_len(&vec![put(1); 100]), 64);
        assert_eq!(batch_len(&vec![put(100 << 10); 10]), 2);
        assert_eq!(batch_len(&vec![put(600 << 10); 10]), 1);
    }
}
