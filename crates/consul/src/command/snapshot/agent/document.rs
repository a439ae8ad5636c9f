//! What was said, by files and by flags, as data: values of the table's settings, each of its setting's shape.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::GoDuration;
use serde_json::{Map, Value as Json};

use super::keys::{self, DESTINATIONS, Kind, RETENTION, SETTINGS, Setting, Shape};
use crate::config::{self, DIRECTORY_FILES_MAX};
use crate::flags::{self, Parsed};

/// What a file may hold below this key is for us; everything else in it is for others.
const ROOT: &str = "snapshot_agent";

/// How a file must end.
const SUFFIX: &str = ".json";

/// The most destinations that there may be.
pub(super) const DESTINATIONS_MAX: usize = 16;

/// The most texts of a list.
const TEXTS_MAX: usize = 64;

/// A value of some shape. Empty texts are not kept: they count as not given.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Switch(bool),
    Count(u64),
    Time(Duration),
    Texts(Vec<String>),
    Pairs(BTreeMap<String, String>),
}

/// Values by the keys of their settings.
pub(super) type Values = BTreeMap<&'static str, Value>;

/// All that was said in one place.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Document {
    pub(super) values: Values,
    pub(super) destinations: Vec<Block>,
}

/// One of several destinations.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) kind: Kind,
    /// What it says of its kind's settings, and of how snapshots are kept.
    pub(super) values: Values,
    /// Where it stands, for messages.
    pub(super) place: String,
}

/// What `-config-file` or `-config-dir` named.
enum Source<'a> {
    File(&'a Path),
    Folder(&'a Path),
}

/// Reads the files that the command line names, later ones over earlier ones.
pub(super) fn read_files(parsed: &Parsed) -> Result<Document, String> {
    let mut all = Document::default();
    let mut is_any = false;
    let mut is_ours = false;
    for (name, text) in parsed.in_order() {
        let source = match name {
            "config-file" => Source::File(Path::new(text)),
            "config-dir" => Source::Folder(Path::new(text)),
            _ => continue,
        };
        is_any = true;
        for file in files(&source)? {
            if let Some(document) = read_file(&file)? {
                is_ours = true;
                all.add(document);
            }
        }
    }
    if is_any && !is_ours {
        return Err(format!(
            "none of the configuration files has an object {ROOT:?}"
        ));
    }
    if all.destinations.len() > DESTINATIONS_MAX {
        return Err(format!(
            "{DESTINATIONS} has more than {DESTINATIONS_MAX} destinations"
        ));
    }
    Ok(all)
}

/// What the flags say.
pub(super) fn of_flags(parsed: &Parsed) -> Result<Values, String> {
    let mut values = Values::new();
    for (name, text) in parsed.in_order() {
        let Some(setting) = keys::of_flag(name) else {
            continue;
        };
        let value = Value::of_text(setting.shape(), text).map_err(|why| format!("-{name}: {why}"));
        if let Some(value) = value? {
            put(&mut values, setting.key, value);
        }
    }
    Ok(values)
}

impl Value {
    /// From a flag or a variable; `None` if it is empty.
    pub(super) fn of_text(shape: Shape, text: &str) -> Result<Option<Self>, String> {
        if text.is_empty() {
            return Ok(None);
        }
        Ok(Some(match shape {
            Shape::Text => Self::Text(text.to_owned()),
            Shape::Switch => Self::Switch(
                flags::parse_bool(text)
                    .ok_or_else(|| format!("{text:?} is neither true nor false"))?,
            ),
            Shape::Count => Self::Count(
                flags::parse_int(text)
                    .ok()
                    .and_then(|number| u64::try_from(number).ok())
                    .ok_or_else(|| format!("{text:?} is no whole number from 0 on"))?,
            ),
            Shape::Time => Self::Time(time(text)?),
            Shape::Texts => Self::Texts(vec![text.to_owned()]),
            Shape::Pairs => {
                let (name, value) = text
                    .split_once('=')
                    .ok_or_else(|| format!("{text:?} is not of the form name=value"))?;
                Self::Pairs([(name.to_owned(), value.to_owned())].into())
            }
        }))
    }

    /// From a file; `None` if it is empty.
    fn of_json(shape: Shape, json: Json) -> Result<Option<Self>, String> {
        Ok(Some(match (shape, json) {
            (_, Json::Null) => return Ok(None),
            (Shape::Text, Json::String(text)) if text.is_empty() => return Ok(None),
            (Shape::Text, Json::String(text)) => Self::Text(text),
            (Shape::Switch, Json::Bool(switch)) => Self::Switch(switch),
            (Shape::Count, Json::Number(number)) => Self::Count(
                number
                    .as_u64()
                    .ok_or_else(|| format!("{number} is no whole number from 0 on"))?,
            ),
            (Shape::Time, Json::String(text)) if text.is_empty() => return Ok(None),
            (Shape::Time, Json::String(text)) => Self::Time(time(&text)?),
            (Shape::Texts, Json::Array(items)) if items.is_empty() => return Ok(None),
            (Shape::Texts, Json::Array(items)) if items.len() <= TEXTS_MAX => {
                let texts = items.into_iter().map(|item| match item {
                    Json::String(text) if !text.is_empty() => Ok(text),
                    other => Err(format!("{} is in the list of texts", found(&other))),
                });
                Self::Texts(texts.collect::<Result<_, _>>()?)
            }
            (Shape::Texts, Json::Array(_)) => {
                return Err(format!("it has more than {TEXTS_MAX} texts"));
            }
            (Shape::Pairs, Json::Object(members)) if members.is_empty() => return Ok(None),
            (Shape::Pairs, Json::Object(members)) => {
                let pairs = members.into_iter().map(|(name, member)| match member {
                    Json::String(text) => Ok((name, text)),
                    other => Err(format!("{name:?} must be a text, and is {}", found(&other))),
                });
                Self::Pairs(pairs.collect::<Result<_, _>>()?)
            }
            (shape, other) => {
                return Err(format!(
                    "it must be {}, and is {}",
                    wanted(shape),
                    found(&other)
                ));
            }
        }))
    }
}

impl Document {
    /// Adds what a later file says: it wins, but what are lists are continued.
    fn add(&mut self, later: Self) {
        for (key, value) in later.values {
            put(&mut self.values, key, value);
        }
        self.destinations.extend(later.destinations);
    }
}

fn put(values: &mut Values, key: &'static str, value: Value) {
    match (values.get_mut(key), value) {
        (Some(Value::Texts(texts)), Value::Texts(more)) => texts.extend(more),
        (Some(Value::Pairs(pairs)), Value::Pairs(more)) => pairs.extend(more),
        (_, value) => {
            values.insert(key, value);
        }
    }
}

fn time(text: &str) -> Result<Duration, String> {
    match GoDuration::parse(text) {
        Ok(span @ GoDuration(0..)) => Ok(span.to_std()),
        Ok(_) => Err(format!("time: negative duration {text}")),
        Err(why) => Err(why.to_string()),
    }
}

fn wanted(shape: Shape) -> &'static str {
    match shape {
        Shape::Text => "a text",
        Shape::Switch => "true or false",
        Shape::Count => "a whole number",
        Shape::Time => "a duration such as \"1h\"",
        Shape::Texts => "a list of texts",
        Shape::Pairs => "an object of texts",
    }
}

fn found(json: &Json) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(_) => "true or false",
        Json::Number(_) => "a number",
        Json::String(text) if text.is_empty() => "an empty text",
        Json::String(_) => "a text",
        Json::Array(_) => "a list",
        Json::Object(_) => "an object",
    }
}

/// The files that a source means, in the order in which they count.
fn files(source: &Source<'_>) -> Result<Vec<PathBuf>, String> {
    match source {
        Source::File(path) if !ends_so(path.as_os_str()) => Err(format!(
            "the name of the configuration file '{}' must end in {SUFFIX}",
            path.display()
        )),
        Source::File(path) => Ok(vec![path.to_path_buf()]),
        Source::Folder(path) => {
            let failed = |why| {
                format!(
                    "Error reading '{}': {}",
                    path.display(),
                    config::reason(&why)
                )
            };
            let mut found = Vec::new();
            for entry in fs::read_dir(path).map_err(failed)? {
                let file = entry.map_err(failed)?.path();
                // One level deep only.
                if ends_so(file.as_os_str()) && !file.is_dir() {
                    found.push(file);
                }
                if found.len() > DIRECTORY_FILES_MAX {
                    return Err(format!(
                        "Error reading '{}': more than {DIRECTORY_FILES_MAX} configuration files in one directory",
                        path.display()
                    ));
                }
            }
            found.sort();
            Ok(found)
        }
    }
}

fn ends_so(name: &OsStr) -> bool {
    name.as_encoded_bytes().ends_with(SUFFIX.as_bytes())
}

/// What a file says to us; `None` if it is for others only.
fn read_file(path: &Path) -> Result<Option<Document>, String> {
    let bytes = config::read_file(path).map_err(|why| why.to_string())?;
    decode(&bytes).map_err(|why| format!("Error decoding '{}': {why}", path.display()))
}

pub(super) fn decode(bytes: &[u8]) -> Result<Option<Document>, String> {
    let json: Json = serde_json::from_slice(bytes).map_err(|why| why.to_string())?;
    let Json::Object(mut root) = json else {
        return Err(format!("it must be an object, and is {}", found(&json)));
    };
    let ours = match root.remove(ROOT) {
        Some(Json::Object(ours)) => ours,
        None => return Ok(None),
        Some(other) => {
            return Err(format!(
                "{ROOT}: it must be an object, and is {}",
                found(&other)
            ));
        }
    };
    let mut document = Document::default();
    for (name, json) in ours {
        if name.eq_ignore_ascii_case(DESTINATIONS) {
            destinations(json, &mut document.destinations)?;
        } else if let Some(group) = group(&name) {
            let members = object(json, group)?;
            let settings: Vec<Named> = named(&format!("{group}.")).collect();
            document.values.extend(level(group, members, &settings)?);
        } else {
            let settings: Vec<Named> = SETTINGS
                .iter()
                .filter(|setting| !setting.key.contains('.'))
                .map(|setting| (setting.key, setting))
                .collect();
            let members = [(name, json)].into_iter().collect();
            document.values.extend(level("", members, &settings)?);
        }
    }
    Ok(Some(document))
}

/// A setting and its name where it stands.
type Named = (&'static str, &'static Setting);

/// The settings of a group, by what is left of their keys.
fn named(group: &str) -> impl Iterator<Item = Named> {
    SETTINGS
        .iter()
        .filter_map(move |setting| Some((setting.key.strip_prefix(group)?, setting)))
}

fn group(name: &str) -> Option<&'static str> {
    let groups = SETTINGS
        .iter()
        .filter_map(|setting| setting.key.split_once('.'));
    groups
        .map(|(group, _)| group)
        .find(|group| group.eq_ignore_ascii_case(name))
}

fn object(json: Json, place: &str) -> Result<Map<String, Json>, String> {
    match json {
        Json::Object(members) => Ok(members),
        Json::Null => Ok(Map::new()),
        other => Err(format!(
            "{ROOT}.{place}: it must be an object, and is {}",
            found(&other)
        )),
    }
}

/// The members of one object, all of which are among these settings.
fn level(place: &str, members: Map<String, Json>, settings: &[Named]) -> Result<Values, String> {
    let mut values = Values::new();
    let mut taken = Vec::new();
    for (name, json) in members {
        let dot = if place.is_empty() { "" } else { "." };
        let shown = format!("{ROOT}.{place}{dot}{name}");
        let setting = settings
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(&name));
        let Some((_, setting)) = setting else {
            let near = flags::nearest(&name, settings.iter().map(|(known, _)| *known));
            let near = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
            return Err(format!("{shown}: there is no such key{near}"));
        };
        if taken.contains(&setting.key) {
            return Err(format!("{shown}: it is given twice"));
        }
        taken.push(setting.key);
        let value = Value::of_json(setting.shape(), json).map_err(|why| format!("{shown}: {why}"));
        if let Some(value) = value? {
            values.insert(setting.key, value);
        }
    }
    Ok(values)
}

fn destinations(json: Json, into: &mut Vec<Block>) -> Result<(), String> {
    for (name, list) in object(json, DESTINATIONS)? {
        let place = format!("{DESTINATIONS}.{name}");
        let mut kinds = Kind::ALL.into_iter();
        let Some(kind) = kinds.find(|kind| kind.group().eq_ignore_ascii_case(&name)) else {
            let near = flags::nearest(&name, Kind::ALL.into_iter().map(Kind::group));
            let near = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
            return Err(format!("{ROOT}.{place}: there is no such key{near}"));
        };
        let blocks = match list {
            Json::Array(blocks) => blocks,
            Json::Null => continue,
            other => {
                return Err(format!(
                    "{ROOT}.{place}: it must be a list of objects, and is {}",
                    found(&other)
                ));
            }
        };
        for (position, block) in blocks.into_iter().enumerate() {
            let place = format!("{DESTINATIONS}.{}[{position}]", kind.group());
            let members = object(block, &place)?;
            let own = format!("{}.", kind.group());
            let kept = named("snapshot.").filter(|(_, setting)| RETENTION.contains(&setting.key));
            let settings: Vec<Named> = named(&own).chain(kept).collect();
            let values = level(&place, members, &settings)?;
            into.push(Block {
                kind,
                values,
                place,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::SYNTAX;
    use super::*;

    fn parsed(words: &[&str]) -> Parsed {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        SYNTAX.parse(&words).unwrap()
    }

    fn shown(document: &Document) -> String {
        let mut text = lines(&document.values);
        for block in &document.destinations {
            text += &format!("[{}]\n{}", block.place, lines(&block.values));
        }
        text
    }

    fn lines(values: &Values) -> String {
        let shown = |value: &Value| match value {
            Value::Text(text) => text.clone(),
            Value::Switch(switch) => switch.to_string(),
            Value::Count(count) => count.to_string(),
            Value::Time(time) => format!("{time:?}"),
            Value::Texts(texts) => texts.join(","),
            Value::Pairs(pairs) => format!("{pairs:?}"),
        };
        let line = |(key, value): (&&str, &Value)| format!("{key}={}\n", shown(value));
        values.iter().map(line).collect()
    }

    #[test]
    fn reads_every_shape() {
        let text = r#"{
            "server": true,
            "snapshot_agent": {
                "http_addr": "a:1", "token": "", "datacenter": null,
                "Log": {"level": "warn", "ENABLE_SYSLOG": true},
                "snapshot": {"interval": "1h30m", "retain": 7, "encrypt_to": ["age1a", "age1b"]},
                "login": {"meta": {"a": "b"}},
                "google_storage": null,
                "backup_destinations": {
                    "aws_storage": [{"s3_bucket": "x", "retain": 2}, {"s3_bucket": "y"}],
                    "local_storage": [{"path": "/p", "retain_daily": 3}]
                }
            }
        }"#;
        let document = decode(text.as_bytes()).unwrap().unwrap();
        assert_eq!(
            shown(&document),
            "http_addr=a:1\nlog.enable_syslog=true\nlog.level=warn\nlogin.meta={\"a\": \"b\"}\n\
             snapshot.encrypt_to=age1a,age1b\nsnapshot.interval=5400s\nsnapshot.retain=7\n\
             [backup_destinations.aws_storage[0]]\naws_storage.s3_bucket=x\nsnapshot.retain=2\n\
             [backup_destinations.aws_storage[1]]\naws_storage.s3_bucket=y\n\
             [backup_destinations.local_storage[0]]\nlocal_storage.path=/p\nsnapshot.retain_daily=3\n"
        );
        assert!(decode(br#"{"server": true}"#).unwrap().is_none());
    }

    #[test]
    fn says_what_is_wrong_where() {
        let cases = [
            ("", "EOF while parsing a value at line 1 column 0"),
            ("[]", "it must be an object, and is a list"),
            (
                r#"{"snapshot_agent": {}} x"#,
                "trailing characters at line 1 column 24",
            ),
            (
                r#"{"snapshot_agent": []}"#,
                "snapshot_agent: it must be an object, and is a list",
            ),
            (
                r#"{"snapshot_agent": {"tokem": "x"}}"#,
                "snapshot_agent.tokem: there is no such key; did you mean token?",
            ),
            (
                r#"{"snapshot_agent": {"xyz": 1}}"#,
                "snapshot_agent.xyz: there is no such key",
            ),
            (
                r#"{"snapshot_agent": {"snapshot": {"intervall": "1h"}}}"#,
                "snapshot_agent.snapshot.intervall: there is no such key; did you mean interval?",
            ),
            (
                r#"{"snapshot_agent": {"snapshot": 1}}"#,
                "snapshot_agent.snapshot: it must be an object, and is a number",
            ),
            (
                r#"{"snapshot_agent": {"snapshot": {"interval": 3600}}}"#,
                "snapshot_agent.snapshot.interval: it must be a duration such as \"1h\", and is a number",
            ),
            (
                r#"{"snapshot_agent": {"snapshot": {"interval": "1d"}}}"#,
                "snapshot_agent.snapshot.interval: time: unknown unit d in duration 1d",
            ),
            (
                r#"{"snapshot_agent": {"snapshot": {"deregister_after": "-1h"}}}"#,
                "snapshot_agent.snapshot.deregister_after: time: negative duration -1h",
            ),
            (
                r#"{"snapshot_agent": {"snapshot": {"retain": -1}}}"#,
                "snapshot_agent.snapshot.retain: -1 is no whole number from 0 on",
            ),
            (
                r#"{"snapshot_agent": {"snapshot": {"retain": "30"}}}"#,
                "snapshot_agent.snapshot.retain: it must be a whole number, and is a text",
            ),
            (
                r#"{"snapshot_agent": {"snapshot": {"stale": "true"}}}"#,
                "snapshot_agent.snapshot.stale: it must be true or false, and is a text",
            ),
            (
                r#"{"snapshot_agent": {"snapshot": {"encrypt_to": "age1a"}}}"#,
                "snapshot_agent.snapshot.encrypt_to: it must be a list of texts, and is a text",
            ),
            (
                r#"{"snapshot_agent": {"snapshot": {"encrypt_to": [""]}}}"#,
                "snapshot_agent.snapshot.encrypt_to: an empty text is in the list of texts",
            ),
            (
                r#"{"snapshot_agent": {"login": {"meta": {"a": 1}}}}"#,
                "snapshot_agent.login.meta: \"a\" must be a text, and is a number",
            ),
            (
                r#"{"snapshot_agent": {"log": {"level": "a", "LEVEL": "b"}}}"#,
                "snapshot_agent.log.level: it is given twice",
            ),
            (
                r#"{"snapshot_agent": {"backup_destinations": {"aws": []}}}"#,
                "snapshot_agent.backup_destinations.aws: there is no such key",
            ),
            (
                r#"{"snapshot_agent": {"backup_destinations": {"aws_storage": {}}}}"#,
                "snapshot_agent.backup_destinations.aws_storage: it must be a list of objects, and is an object",
            ),
            (
                r#"{"snapshot_agent": {"backup_destinations": {"aws_storage": [{}, {"s3_buket": "x"}]}}}"#,
                "snapshot_agent.backup_destinations.aws_storage[1].s3_buket: there is no such key; did you mean s3_bucket?",
            ),
            (
                r#"{"snapshot_agent": {"backup_destinations": {"local_storage": [{"interval": "1h"}]}}}"#,
                "snapshot_agent.backup_destinations.local_storage[0].interval: there is no such key",
            ),
        ];
        for (text, message) in cases {
            let why = decode(text.as_bytes()).err();
            assert_eq!(why.as_deref(), Some(message), "{text}");
        }
        let many = vec!["\"age1a\""; TEXTS_MAX + 1].join(",");
        let many = format!(r#"{{"snapshot_agent": {{"snapshot": {{"encrypt_to": [{many}]}}}}}}"#);
        assert_eq!(
            decode(many.as_bytes()).err().unwrap(),
            "snapshot_agent.snapshot.encrypt_to: it has more than 64 texts"
        );
    }

    #[test]
    fn whatever_a_file_holds_is_read_or_refused() {
        let sound = r#"{"snapshot_agent":{"token":"a","login":{"meta":{"a":"b"}},"log":{"enable_syslog":true},
            "snapshot":{"interval":"1h","retain":7,"encrypt_to":["x"]},
            "backup_destinations":{"aws_storage":[{"s3_bucket":"b","retain":2}]}}}"#;
        assert!(decode(sound.as_bytes()).unwrap().is_some());
        for place in 0..sound.len() {
            assert!(decode(&sound.as_bytes()[..place]).is_err());
            for other in *b"\"{}[]:,0-a\\\xff" {
                let mut bytes = sound.as_bytes().to_vec();
                bytes[place] = other;
                // Either is fine, as long as it comes back.
                drop(decode(&bytes));
            }
        }
        let deep = "[".repeat(100_000);
        assert!(decode(deep.as_bytes()).is_err());
        let deep = format!(
            "{}1{}",
            r#"{"snapshot_agent":"#.repeat(1000),
            "}".repeat(1000)
        );
        assert!(decode(deep.as_bytes()).is_err());
        for number in ["1e400", "-0", "18446744073709551616", "1.5", "7.0"] {
            let text = format!(r#"{{"snapshot_agent":{{"snapshot":{{"retain":{number}}}}}}}"#);
            assert!(decode(text.as_bytes()).is_err(), "{number}");
        }
    }

    #[test]
    fn files_and_folders_in_the_order_of_the_line() {
        let room = tempfile::tempdir().unwrap();
        let path = |name: &str| room.path().join(name).display().to_string();
        fs::create_dir_all(path("conf/sub.json")).unwrap();
        let write = |name: &str, ours: &str| {
            fs::write(path(name), format!(r#"{{"snapshot_agent": {ours}}}"#)).unwrap();
        };
        write(
            "first.json",
            r#"{"token": "first", "datacenter": "d", "snapshot": {"encrypt_to": ["age1a"]}}"#,
        );
        write("conf/b.json", r#"{"token": "b"}"#);
        write(
            "conf/a.json",
            r#"{"token": "a", "snapshot": {"encrypt_to": ["age1b"]}}"#,
        );
        write("conf/c.conf", r#"{"token": "c"}"#);
        write("conf/sub.json/d.json", r#"{"token": "d"}"#);
        fs::write(path("conf/others.json"), r#"{"server": true}"#).unwrap();
        let read = |words: &[&str]| read_files(&parsed(words)).map(|document| shown(&document));
        let (first, conf) = (path("first.json"), path("conf"));
        assert_eq!(
            read(&["-config-file", &first, "-config-dir", &conf]).unwrap(),
            "datacenter=d\nsnapshot.encrypt_to=age1a,age1b\ntoken=b\n"
        );
        assert_eq!(
            read(&["-config-dir", &conf, "-config-file", &first]).unwrap(),
            "datacenter=d\nsnapshot.encrypt_to=age1b,age1a\ntoken=first\n"
        );
        assert_eq!(read(&[]).unwrap(), "");

        let (wrong, gone, others) = (
            path("conf/c.conf"),
            path("gone.json"),
            path("conf/others.json"),
        );
        write("bad.json", r#"{"tokem": "x"}"#);
        let bad = path("bad.json");
        let cases = [
            (
                vec!["-config-file", &wrong],
                format!("the name of the configuration file '{wrong}' must end in .json"),
            ),
            (
                vec!["-config-file", &gone],
                format!("Error reading '{gone}': no such file or directory"),
            ),
            (
                vec!["-config-dir", &gone],
                format!("Error reading '{gone}': no such file or directory"),
            ),
            (
                vec!["-config-dir", &first],
                format!("Error reading '{first}': not a directory"),
            ),
            (
                vec!["-config-file", &others],
                "none of the configuration files has an object \"snapshot_agent\"".to_owned(),
            ),
            (
                vec!["-config-file", &first, "-config-file", &bad],
                format!(
                    "Error decoding '{bad}': snapshot_agent.tokem: there is no such key; did you mean token?"
                ),
            ),
        ];
        for (words, message) in cases {
            assert_eq!(read(&words).err(), Some(message), "{words:?}");
        }
    }

    #[test]
    fn flags_become_values() {
        let values = of_flags(&parsed(&[
            "-interval=30m",
            "-retain",
            "0x10",
            "-stale",
            "-encrypt-to=age1a",
            "-encrypt-to",
            "age1b",
            "-token=",
            "-aws-s3-bucket=b",
            "-login-meta=a=b=c",
        ]))
        .unwrap();
        assert_eq!(
            lines(&values),
            "aws_storage.s3_bucket=b\nlogin.meta={\"a\": \"b=c\"}\nsnapshot.encrypt_to=age1a,age1b\n\
             snapshot.interval=1800s\nsnapshot.retain=16\nsnapshot.stale=true\n"
        );
        for (flag, message) in [
            ("-interval=-1h", "-interval: time: negative duration -1h"),
            (
                "-login-meta=x",
                "-login-meta: \"x\" is not of the form name=value",
            ),
        ] {
            assert_eq!(of_flags(&parsed(&[flag])).err().as_deref(), Some(message));
        }
    }
}
