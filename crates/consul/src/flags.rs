//! Command-line flags with the habits of Go's `flag` package, which is what people's scripts rely on.
//!
//! `-name=value`, `-name value` and `--name` all work; a switch takes a value only after `=`;
//! reading stops at the first argument that is no flag, or after `--`.
//! No argument library reads `-http-addr=x` and `-stale=false`, hence this one.
//!
//! A command describes itself once, as a [`Syntax`]: what is read and what `-h` prints come from the same table.

use std::fmt::Write as _;
use std::time::Duration;

use model::GoDuration;

/// What kind of value a flag takes, with the one it has when it isn't given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// On or off; the value is optional and follows `=`.
    Switch(bool),
    /// Any text.
    Text(&'static str),
    /// A whole number.
    Int(i64),
    /// A whole number that is not negative.
    Uint(u64),
    /// A duration in Go's syntax; the default is one too, or empty for "not given".
    Duration(&'static str),
    /// Any text, as often as one likes.
    Many,
}

/// One flag of a command.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    name: &'static str,
    value: Value,
    placeholder: &'static str,
    help: &'static str,
    hidden: bool,
}

impl Flag {
    /// A flag `-name` that is on or off.
    pub const fn switch(name: &'static str, default: bool, help: &'static str) -> Self {
        Self::new(name, Value::Switch(default), "", help)
    }

    /// A flag `-name=placeholder` that takes a value.
    pub const fn new(
        name: &'static str,
        value: Value,
        placeholder: &'static str,
        help: &'static str,
    ) -> Self {
        Self {
            name,
            value,
            placeholder,
            help,
            hidden: false,
        }
    }

    /// The same flag, read but not shown by `-h`.
    pub const fn hidden(self) -> Self {
        Self {
            hidden: true,
            ..self
        }
    }

    /// The name without its dash.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// What the flag takes.
    pub const fn value(&self) -> Value {
        self.value
    }

    /// What it does.
    pub const fn help(&self) -> &'static str {
        self.help
    }

    fn check(&self, text: &str) -> Result<(), String> {
        match self.value {
            Value::Text(_) | Value::Many => Ok(()),
            Value::Switch(_) => parse_bool(text).map(drop).ok_or_else(|| {
                format!(
                    "invalid boolean value {text:?} for -{}: strconv.ParseBool: parsing {text:?}: invalid syntax",
                    self.name
                )
            }),
            Value::Int(_) => parse_int(text).map(drop).map_err(|why| self.invalid(text, &why)),
            Value::Uint(_) => parse_uint(text).map(drop).map_err(|why| self.invalid(text, &why)),
            Value::Duration(_) => GoDuration::parse(text)
                .map(drop)
                .map_err(|why| self.invalid(text, &why.to_string())),
        }
    }

    fn invalid(&self, text: &str, why: &str) -> String {
        format!("invalid value {text:?} for flag -{}: {why}", self.name)
    }
}

/// All there is to know about a command's line: how to read it and how to explain it.
#[derive(Debug, Clone, Copy)]
pub struct Syntax {
    /// The words that name the command, such as `kv get`.
    pub name: &'static str,
    /// What follows the flags, such as `[KEY]`.
    pub arguments: &'static str,
    /// One line for the listing of commands.
    pub summary: &'static str,
    /// What the command does, in paragraphs.
    pub about: &'static str,
    /// Calls that work when pasted, one a line.
    pub example: &'static str,
    /// The flags, in groups so that commands can share some.
    pub flags: &'static [&'static [Flag]],
}

/// Why reading a command line ended early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// `-h` or `-help` was given.
    Help,
    /// Something was wrong; the lines to tell the user.
    Bad(String),
}

/// A command line that was read.
#[derive(Debug, Clone)]
pub struct Parsed {
    flags: &'static [&'static [Flag]],
    given: Vec<(&'static str, String)>,
    /// What follows the flags.
    pub arguments: Vec<String>,
}

impl Syntax {
    /// Reads the arguments that follow the command's name.
    ///
    /// # Errors
    /// [`Stop::Help`] when help was asked for, [`Stop::Bad`] when the arguments don't fit the table.
    pub fn parse(&self, arguments: &[String]) -> Result<Parsed, Stop> {
        let mut given = Vec::new();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.as_slice().first() {
            let Some(body) = argument.strip_prefix('-').filter(|body| !body.is_empty()) else {
                break;
            };
            rest.next();
            let body = match body.strip_prefix('-') {
                Some("") => break,
                Some(body) => body,
                None => body,
            };
            if body.is_empty() || body.starts_with(['-', '=']) {
                return Err(Stop::Bad(format!("bad flag syntax: {argument}")));
            }
            let (name, value) = match body.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (body, None),
            };
            let Some(flag) = self.find(name) else {
                if matches!(name, "h" | "help") {
                    return Err(Stop::Help);
                }
                return Err(Stop::Bad(self.unknown(name)));
            };
            let value = match (value, flag.value) {
                (Some(value), _) => value,
                (None, Value::Switch(_)) => "true".to_owned(),
                (None, _) => match rest.next() {
                    Some(value) => value.clone(),
                    None => return Err(Stop::Bad(format!("flag needs an argument: -{name}"))),
                },
            };
            flag.check(&value).map_err(Stop::Bad)?;
            given.push((flag.name, value));
        }
        Ok(Parsed {
            flags: self.flags,
            given,
            arguments: rest.cloned().collect(),
        })
    }

    /// The text that `-h` prints.
    pub fn help(&self) -> String {
        let mut text = format!("Usage: consul {} [options]", self.name);
        if !self.arguments.is_empty() {
            let _ = write!(text, " {}", self.arguments);
        }
        text.push_str("\n\n");
        for paragraph in self.about.split("\n\n") {
            wrap(&mut text, "  ", paragraph);
            text.push('\n');
        }
        text.push_str("Example:\n\n");
        for line in self.example.lines() {
            let _ = writeln!(text, "      $ {line}");
        }
        if self.shown().next().is_some() {
            text.push_str("\nOptions:\n");
        }
        for flag in self.shown() {
            let _ = match flag.value {
                Value::Switch(_) => write!(text, "\n  -{}\n", flag.name),
                _ => write!(text, "\n  -{}=<{}>\n", flag.name, flag.placeholder),
            };
            wrap(
                &mut text,
                "      ",
                &format!("{}{}", flag.help, default_note(flag.value)),
            );
        }
        text
    }

    /// The flags that `-h` shows.
    pub fn shown(&self) -> impl Iterator<Item = &'static Flag> + use<> {
        all(self.flags).filter(|flag| !flag.hidden)
    }

    fn find(&self, name: &str) -> Option<&'static Flag> {
        all(self.flags).find(|flag| flag.name == name)
    }

    fn unknown(&self, name: &str) -> String {
        let mut text = format!("flag provided but not defined: -{name}");
        if let Some(near) = nearest(name, self.shown().map(Flag::name)) {
            let _ = write!(text, "\ndid you mean -{near}?");
        }
        text
    }
}

impl Parsed {
    /// Whether the flag was given at all.
    pub fn given(&self, name: &str) -> bool {
        self.given.iter().any(|(given, _)| *given == name)
    }

    /// Every flag that was given, in order, with its text.
    pub fn in_order(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.given.iter().map(|(name, text)| (*name, text.as_str()))
    }

    /// A switch.
    pub fn switch(&self, name: &str) -> bool {
        match (self.last(name), self.default(name)) {
            (Some(text), _) => parse_bool(text).unwrap_or(false),
            (None, Value::Switch(default)) => default,
            (None, _) => false,
        }
    }

    /// A text.
    pub fn text(&self, name: &str) -> &str {
        match (self.last(name), self.default(name)) {
            (Some(text), _) => text,
            (None, Value::Text(default) | Value::Duration(default)) => default,
            (None, _) => "",
        }
    }

    /// A whole number.
    pub fn int(&self, name: &str) -> i64 {
        match (self.last(name), self.default(name)) {
            (Some(text), _) => parse_int(text).unwrap_or(0),
            (None, Value::Int(default)) => default,
            (None, _) => 0,
        }
    }

    /// A whole number that is not negative.
    pub fn uint(&self, name: &str) -> u64 {
        match (self.last(name), self.default(name)) {
            (Some(text), _) => parse_uint(text).unwrap_or(0),
            (None, Value::Uint(default)) => default,
            (None, _) => 0,
        }
    }

    /// A duration; `None` when it wasn't given and has no default, or is negative.
    pub fn duration(&self, name: &str) -> Option<Duration> {
        GoDuration::parse(self.text(name))
            .ok()
            .filter(|span| span.0 >= 0)
            .map(GoDuration::to_std)
    }

    fn last(&self, name: &str) -> Option<&str> {
        self.given
            .iter()
            .rev()
            .find(|(given, _)| *given == name)
            .map(|(_, text)| text.as_str())
    }

    fn default(&self, name: &str) -> Value {
        all(self.flags)
            .find(|flag| flag.name == name)
            .expect("a command asks only for flags of its own table")
            .value
    }
}

fn all(groups: &'static [&'static [Flag]]) -> impl Iterator<Item = &'static Flag> {
    groups.iter().flat_map(|group| group.iter())
}

/// The spellings of a truth value that Go accepts.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn parse_uint(text: &str) -> Result<u64, String> {
    let (digits, radix) = radix_of(text);
    // Rust's reader takes a plus sign, Go's doesn't.
    if digits.starts_with('+') {
        return Err(format!(
            "strconv.ParseUint: parsing {text:?}: invalid syntax"
        ));
    }
    u64::from_str_radix(digits, radix).map_err(|why| {
        format!(
            "strconv.ParseUint: parsing {text:?}: {}",
            number_fault(&why)
        )
    })
}

/// A whole number as Go's flags read it: decimal, `0x` or octal with a leading zero.
///
/// # Errors
/// Go's text for what is wrong with it.
pub fn parse_int(text: &str) -> Result<i64, String> {
    let (sign, magnitude) = match text.as_bytes().first() {
        Some(b'-') => ("-", &text[1..]),
        Some(b'+') => ("", &text[1..]),
        _ => ("", text),
    };
    let (digits, radix) = radix_of(magnitude);
    if digits.starts_with(['+', '-']) {
        return Err(format!(
            "strconv.ParseInt: parsing {text:?}: invalid syntax"
        ));
    }
    i64::from_str_radix(&format!("{sign}{digits}"), radix)
        .map_err(|why| format!("strconv.ParseInt: parsing {text:?}: {}", number_fault(&why)))
}

/// Go reads `0x1f` and `017` in flags, so they are read here too.
fn radix_of(text: &str) -> (&str, u32) {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (&text[1..], 8),
        None => (text, 10),
    }
}

fn number_fault(why: &std::num::ParseIntError) -> &'static str {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    match why.kind() {
        PosOverflow | NegOverflow => "value out of range",
        _ => "invalid syntax",
    }
}

fn default_note(value: Value) -> String {
    match value {
        Value::Switch(true) => " On by default; switch it off with =false.".to_owned(),
        Value::Text(text) | Value::Duration(text) if !text.is_empty() => {
            format!(" Default: {text}.")
        }
        Value::Int(number) if number > 0 => format!(" Default: {number}."),
        Value::Uint(number) if number > 0 => format!(" Default: {number}."),
        Value::Many => " May be given several times.".to_owned(),
        Value::Switch(false)
        | Value::Text(_)
        | Value::Duration(_)
        | Value::Int(_)
        | Value::Uint(_) => String::new(),
    }
}

/// A paragraph in lines of at most 80 columns.
pub fn paragraph(indent: &str, text: &str) -> String {
    let mut lines = String::new();
    wrap(&mut lines, indent, text);
    lines
}

/// Adds `paragraph` in lines of at most 80 columns.
fn wrap(text: &mut String, indent: &str, paragraph: &str) {
    const WIDTH: usize = 80;
    let mut column = 0;
    for word in paragraph.split_whitespace() {
        let width = word.chars().count();
        if column == 0 {
            text.push_str(indent);
            column = indent.len();
        } else if column + 1 + width > WIDTH {
            text.push('\n');
            text.push_str(indent);
            column = indent.len();
        } else {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += width;
    }
    text.push('\n');
}

/// The candidate that `word` most likely stands for, when it is at most two slips away.
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Longer input can't be a slip away from any name of ours, and the distance is quadratic.
    if word.len() > 64 {
        return None;
    }
    candidates
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(slips, candidate)| *slips <= 2 && *slips < candidate.len())
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, candidate)| candidate)
}

/// The number of letters to insert, delete or replace to turn one word into the other.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYNTAX: Syntax = Syntax {
        name: "try",
        arguments: "[THING]",
        summary: "Tries",
        about: "Tries a thing.",
        example: "consul try thing",
        flags: &[
            &[
                Flag::new("http-addr", Value::Text("127.0.0.1:8500"), "addr", "Where."),
                Flag::switch("stale", false, "Old is fine."),
                Flag::new("wait", Value::Duration("2s"), "time", "How long."),
            ],
            &[
                Flag::new("flags", Value::Uint(0), "number", "Flags."),
                Flag::new("protocol", Value::Int(-1), "number", "Protocol."),
                Flag::new("join", Value::Many, "addr", "Whom."),
                Flag::new("rpc-addr", Value::Text(""), "addr", "Gone.").hidden(),
            ],
        ],
    };

    fn parse(line: &str) -> Result<Parsed, Stop> {
        let words: Vec<String> = line
            .split(' ')
            .filter(|w| !w.is_empty())
            .map(str::to_owned)
            .collect();
        SYNTAX.parse(&words)
    }

    #[test]
    fn reads_every_spelling() {
        let cases = [
            ("-http-addr=a:1 k", "a:1", false, "k"),
            ("-http-addr a:1 k", "a:1", false, "k"),
            ("--http-addr a:1 k", "a:1", false, "k"),
            ("--http-addr=a=b", "a=b", false, ""),
            ("-http-addr= k", "", false, "k"),
            ("-stale k", "127.0.0.1:8500", true, "k"),
            ("-stale=true k", "127.0.0.1:8500", true, "k"),
            ("-stale=F k", "127.0.0.1:8500", false, "k"),
            ("-stale=true -stale=0", "127.0.0.1:8500", false, ""),
            ("-stale true k", "127.0.0.1:8500", true, "true k"),
            ("-- -stale", "127.0.0.1:8500", false, "-stale"),
            ("k -stale", "127.0.0.1:8500", false, "k -stale"),
            ("- -stale", "127.0.0.1:8500", false, "- -stale"),
            ("-http-addr -stale k", "-stale", false, "k"),
        ];
        for (line, address, stale, rest) in cases {
            let parsed = parse(line).unwrap();
            assert_eq!(parsed.text("http-addr"), address, "{line}");
            assert_eq!(parsed.switch("stale"), stale, "{line}");
            assert_eq!(parsed.arguments.join(" "), rest, "{line}");
        }
    }

    #[test]
    fn reads_numbers_durations_and_lists() {
        let parsed =
            parse("-flags=0x1f -protocol -3 -wait 1m30s -join a -join=b -rpc-addr x").unwrap();
        assert_eq!(parsed.uint("flags"), 31);
        assert_eq!(parsed.int("protocol"), -3);
        assert_eq!(parsed.duration("wait"), Some(Duration::from_secs(90)));
        let joins: Vec<_> = parsed
            .in_order()
            .filter(|(name, _)| *name == "join")
            .collect();
        assert_eq!(joins, [("join", "a"), ("join", "b")]);

        let untouched = parse("").unwrap();
        assert_eq!(untouched.int("protocol"), -1);
        assert_eq!(untouched.duration("wait"), Some(Duration::from_secs(2)));
        assert!(!untouched.given("wait"));
    }

    #[test]
    fn says_what_is_wrong() {
        let cases = [
            ("-x", "flag provided but not defined: -x"),
            ("--xyzzy=1", "flag provided but not defined: -xyzzy"),
            (
                "-http-adr=x",
                "flag provided but not defined: -http-adr\ndid you mean -http-addr?",
            ),
            ("-rpc-adr=x", "flag provided but not defined: -rpc-adr"),
            (
                "-flags=-1",
                "invalid value \"-1\" for flag -flags: strconv.ParseUint: parsing \"-1\": invalid syntax",
            ),
            (
                "-flags=99999999999999999999",
                "invalid value \"99999999999999999999\" for flag -flags: strconv.ParseUint: parsing \"99999999999999999999\": value out of range",
            ),
            ("-flags", "flag needs an argument: -flags"),
            (
                "-protocol=two",
                "invalid value \"two\" for flag -protocol: strconv.ParseInt: parsing \"two\": invalid syntax",
            ),
            (
                "-stale=maybe",
                "invalid boolean value \"maybe\" for -stale: strconv.ParseBool: parsing \"maybe\": invalid syntax",
            ),
            (
                "-wait=5",
                "invalid value \"5\" for flag -wait: time: missing unit in duration 5",
            ),
            ("---x", "bad flag syntax: ---x"),
            ("-=x", "bad flag syntax: -=x"),
        ];
        for (line, message) in cases {
            assert_eq!(
                parse(line).unwrap_err(),
                Stop::Bad(message.to_owned()),
                "{line}"
            );
        }
        for line in ["-h", "-help", "--help", "-stale -h x"] {
            assert_eq!(parse(line).unwrap_err(), Stop::Help, "{line}");
        }
    }

    #[test]
    fn help_shows_the_table() {
        let help = SYNTAX.help();
        for part in [
            "Usage: consul try [options] [THING]",
            "      $ consul try thing",
            "  -http-addr=<addr>\n      Where. Default: 127.0.0.1:8500.",
            "  -stale\n      Old is fine.",
            "  -join=<addr>\n      Whom. May be given several times.",
        ] {
            assert!(help.contains(part), "{part} in\n{help}");
        }
        assert!(!help.contains("rpc-addr"), "{help}");
    }
}
