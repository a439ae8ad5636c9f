//! Regular expressions as the original reads them: RE2's syntax, translated for the `regex` crate.
//!
//! The two dialects agree on most things and differ quietly on the rest: the crate reads `[a&&b]` as an intersection, `[[]` as an open nested class and `x{,5}` as an error, and its `\d`, `\s` and `\b` know all of Unicode.
//! So nothing is passed through as it stands: every piece is read by RE2's rules and written anew, in a form that means the same in whichever mode it stands.
//!
//! Names are matched as bytes. Where they are no UTF-8, `.` does not match them, while the original would see U+FFFD.

use std::fmt::Write as _;

use regex::bytes::{Regex, RegexBuilder};

/// The longest expression that is read.
const EXPRESSION_MAX: usize = 64 << 10;

/// How deeply groups may be nested.
const NESTING_MAX: usize = 200;

/// The most repetitions, multiplied along the nesting.
const REPEAT_MAX: u32 = 1000;

/// The most memory for a compiled expression.
const PROGRAM_SIZE_MAX: usize = 4 << 20;

/// Why an expression can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("error parsing regexp: {problem}: `{part}`")]
pub struct BadRegexp {
    problem: &'static str,
    part: String,
}

impl BadRegexp {
    /// Whether it may be sound, only larger than what is read here. The original has fewer bounds.
    pub fn is_too_much(&self) -> bool {
        self.problem == LARGE || self.problem == NESTING
    }
}

const CHAR_RANGE: &str = "invalid character class range";
const ESCAPE: &str = "invalid escape sequence";
const LARGE: &str = "expression too large";
const MISSING_ARGUMENT: &str = "missing argument to repetition operator";
const MISSING_BRACKET: &str = "missing closing ]";
const MISSING_PAREN: &str = "missing closing )";
const NAMED_CAPTURE: &str = "invalid named capture";
const NESTED_REPEAT: &str = "invalid nested repetition operator";
const NESTING: &str = "expression nests too deeply";
const PERL_OP: &str = "invalid or unsupported Perl syntax";
const REPEAT_SIZE: &str = "invalid repeat count";
const TRAILING_BACKSLASH: &str = "trailing backslash at end of expression";
const UNEXPECTED_PAREN: &str = "unexpected )";
const UTF8: &str = "invalid UTF-8";

fn bad(problem: &'static str, part: impl Into<String>) -> BadRegexp {
    BadRegexp {
        problem,
        part: part.into(),
    }
}

/// Compiles an expression in RE2's syntax; its groups are numbered as there.
///
/// # Errors
/// [`BadRegexp`] in the words of the original, or that the expression needs too much memory.
pub fn compile(expression: &[u8]) -> Result<Regex, BadRegexp> {
    let expression = std::str::from_utf8(expression)
        .map_err(|_| bad(UTF8, String::from_utf8_lossy(expression)))?;
    let translated = translate(expression)?;
    RegexBuilder::new(&translated)
        .size_limit(PROGRAM_SIZE_MAX)
        .dfa_size_limit(PROGRAM_SIZE_MAX)
        .build()
        .map_err(|_| bad(LARGE, expression))
}

/// Writes an expression in RE2's syntax as one in the syntax of the `regex` crate.
fn translate(expression: &str) -> Result<String, BadRegexp> {
    if expression.len() > EXPRESSION_MAX {
        let start: String = expression.chars().take(40).collect();
        return Err(bad(LARGE, format!("{start}…")));
    }
    let mut parser = Parser {
        whole: expression,
        rest: expression,
        flags: Flags::default(),
        group: Group::default(),
        outer: Vec::new(),
    };
    parser.run()
}

#[derive(Debug, Clone, Copy, Default)]
struct Flags {
    fold_case: bool,
    many_lines: bool,
    dot_all: bool,
    lazy: bool,
}

/// Something that a repetition may follow, written in the other syntax.
#[derive(Debug)]
struct Item {
    text: String,
    /// The largest product of repetitions inside of it.
    repeats: u32,
}

/// What stands between two parentheses, as far as it was read.
#[derive(Debug, Default)]
struct Group {
    /// What opened it.
    open: &'static str,
    /// The flags to go back to when it ends.
    flags_outside: Flags,
    /// The alternatives that are complete, each with a `|` behind it.
    alternatives: String,
    /// The one that is being read.
    items: Vec<Item>,
    repeats: u32,
}

impl Group {
    fn end_alternative(&mut self) {
        for item in self.items.drain(..) {
            self.alternatives.push_str(&item.text);
            self.repeats = self.repeats.max(item.repeats);
        }
    }
}

struct Parser<'a> {
    whole: &'a str,
    rest: &'a str,
    flags: Flags,
    group: Group,
    outer: Vec<Group>,
}

impl<'a> Parser<'a> {
    fn run(&mut self) -> Result<String, BadRegexp> {
        // The repetition that was read last, if nothing came since: two in a row are an error.
        let mut last_repeat: Option<&'a str> = None;
        while let Some(next) = self.rest.chars().next() {
            let before = self.rest;
            let mut repeat = None;
            match next {
                '(' => self.open_group()?,
                ')' => self.close_group()?,
                '|' => {
                    self.take(1);
                    self.group.end_alternative();
                    self.group.alternatives.push('|');
                }
                '*' | '+' | '?' => {
                    self.take(1);
                    let bounds = match next {
                        '*' => (0, None),
                        '+' => (1, None),
                        _ => (0, Some(1)),
                    };
                    self.repeat(before, last_repeat, bounds)?;
                    repeat = Some(before);
                }
                '{' => match self.bounds(before)? {
                    None => {
                        self.take(1);
                        self.literal('{');
                    }
                    Some((bounds, after)) => {
                        self.rest = after;
                        self.counted(before, last_repeat, bounds)?;
                        repeat = Some(before);
                    }
                },
                '[' => self.class()?,
                '\\' => self.escape()?,
                '.' => {
                    self.take(1);
                    let dot = if self.flags.dot_all {
                        "(?s:.)"
                    } else {
                        "[^\\n]"
                    };
                    self.push(dot);
                }
                '^' => {
                    self.take(1);
                    self.push(if self.flags.many_lines {
                        "(?m:^)"
                    } else {
                        r"\A"
                    });
                }
                '$' => {
                    self.take(1);
                    self.push(if self.flags.many_lines {
                        "(?m:$)"
                    } else {
                        r"\z"
                    });
                }
                _ => {
                    self.take(next.len_utf8());
                    self.literal(next);
                }
            }
            last_repeat = repeat;
        }
        if !self.outer.is_empty() {
            return Err(bad(MISSING_PAREN, self.whole));
        }
        self.group.end_alternative();
        Ok(std::mem::take(&mut self.group.alternatives))
    }

    fn take(&mut self, len: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        taken
    }

    fn push(&mut self, text: impl Into<String>) {
        self.group.items.push(Item {
            text: text.into(),
            repeats: 1,
        });
    }

    fn literal(&mut self, c: char) {
        self.literal_code(u32::from(c));
    }

    /// A character by its number, which need not exist as a character.
    fn literal_code(&mut self, code: u32) {
        let mut text = String::new();
        match char::from_u32(code) {
            // Half a surrogate pair: the original takes it, and it matches nothing.
            None => text.push_str(NOTHING),
            Some(c) => {
                if self.flags.fold_case {
                    text.push_str("(?i:");
                }
                if c.is_ascii_alphanumeric() || !c.is_ascii() {
                    text.push(c);
                } else {
                    put_code(&mut text, code);
                }
                if self.flags.fold_case {
                    text.push(')');
                }
            }
        }
        self.push(text);
    }

    fn open_group(&mut self) -> Result<(), BadRegexp> {
        let text = self.rest;
        if !text.starts_with("(?") {
            self.take(1);
            return self.enter("(");
        }
        // The other spelling, without the P, is younger than the original.
        if let Some(name_on) = text.strip_prefix("(?P<")
            && !name_on.is_empty()
        {
            let Some(end) = name_on.find('>') else {
                return Err(bad(NAMED_CAPTURE, text));
            };
            let capture_len = "(?P<".len() + end + 1;
            let name = &name_on[..end];
            let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
            if name.is_empty() || !name.bytes().all(word) {
                return Err(bad(NAMED_CAPTURE, &text[..capture_len]));
            }
            self.take(capture_len);
            // Groups are asked for by number alone.
            return self.enter("(");
        }

        let mut flags = self.flags;
        let mut set = true;
        let mut any = false;
        for (at, c) in text.char_indices().skip(2) {
            let end = at + c.len_utf8();
            match c {
                'i' => flags.fold_case = set,
                'm' => flags.many_lines = set,
                's' => flags.dot_all = set,
                'U' => flags.lazy = set,
                '-' if set => set = false,
                ':' | ')' if set || any => {
                    self.take(end);
                    if c == ':' {
                        self.enter("(?:")?;
                    }
                    self.flags = flags;
                    return Ok(());
                }
                _ => return Err(bad(PERL_OP, &text[..end])),
            }
            // A minus must be followed by a flag.
            any = c != '-';
        }
        Err(bad(PERL_OP, text))
    }

    fn enter(&mut self, open: &'static str) -> Result<(), BadRegexp> {
        if self.outer.len() >= NESTING_MAX {
            return Err(bad(NESTING, self.whole));
        }
        let group = Group {
            open,
            flags_outside: self.flags,
            repeats: 1,
            ..Group::default()
        };
        self.outer.push(std::mem::replace(&mut self.group, group));
        Ok(())
    }

    fn close_group(&mut self) -> Result<(), BadRegexp> {
        let Some(outside) = self.outer.pop() else {
            return Err(bad(UNEXPECTED_PAREN, self.whole));
        };
        self.take(1);
        let mut group = std::mem::replace(&mut self.group, outside);
        group.end_alternative();
        self.flags = group.flags_outside;
        self.group.items.push(Item {
            text: format!("{}{})", group.open, group.alternatives),
            repeats: group.repeats.max(1),
        });
        Ok(())
    }

    /// The bounds in braces, and what comes after; `None` if these braces are but characters.
    #[expect(clippy::type_complexity, reason = "a name for it would say less")]
    fn bounds(&self, before: &'a str) -> Result<Option<((u32, Option<u32>), &'a str)>, BadRegexp> {
        let Some((least, rest)) = number(&before[1..]) else {
            return Ok(None);
        };
        let (most, rest) = match rest.strip_prefix(',') {
            None => (Some(least), rest),
            Some(rest) if rest.starts_with('}') => (None, rest),
            Some(rest) => match number(rest) {
                None => return Ok(None),
                Some((most, rest)) => (Some(most), rest),
            },
        };
        let Some(after) = rest.strip_prefix('}') else {
            return Ok(None);
        };
        if least > REPEAT_MAX || most.is_some_and(|most| most > REPEAT_MAX || most < least) {
            let part = &before[..before.len() - after.len()];
            return Err(bad(REPEAT_SIZE, part));
        }
        Ok(Some(((least, most), after)))
    }

    fn counted(
        &mut self,
        before: &'a str,
        last_repeat: Option<&'a str>,
        (least, most): (u32, Option<u32>),
    ) -> Result<(), BadRegexp> {
        self.repeat(before, last_repeat, (least, most))?;
        let Some(item) = self.group.items.last_mut() else {
            return Ok(());
        };
        // Nested counts multiply, and with them the size of what is compiled.
        item.repeats = match most.unwrap_or(least) {
            0 if most == Some(0) => 1,
            times => item.repeats.saturating_mul(times.max(1)),
        };
        if item.repeats > REPEAT_MAX {
            let part = &before[..before.len() - self.rest.len()];
            return Err(bad(REPEAT_SIZE, part));
        }
        Ok(())
    }

    fn repeat(
        &mut self,
        before: &'a str,
        last_repeat: Option<&'a str>,
        (least, most): (u32, Option<u32>),
    ) -> Result<(), BadRegexp> {
        let mut lazy = self.flags.lazy;
        if self.rest.starts_with('?') {
            self.take(1);
            lazy = !lazy;
        }
        if let Some(last) = last_repeat {
            let part = &last[..last.len() - self.rest.len()];
            return Err(bad(NESTED_REPEAT, part));
        }
        let part_len = before.len() - self.rest.len();
        let Some(item) = self.group.items.last_mut() else {
            return Err(bad(MISSING_ARGUMENT, &before[..part_len]));
        };
        let mut text = format!("(?:{})", item.text);
        match (least, most) {
            (0, None) => text.push('*'),
            (1, None) => text.push('+'),
            (0, Some(1)) => text.push('?'),
            (least, None) => {
                let _ = write!(text, "{{{least},}}");
            }
            (least, Some(most)) => {
                let _ = write!(text, "{{{least},{most}}}");
            }
        }
        if lazy {
            text.push('?');
        }
        item.text = text;
        Ok(())
    }

    fn escape(&mut self) -> Result<(), BadRegexp> {
        let text = self.rest;
        if let Some(quoted) = text.strip_prefix(r"\Q") {
            let (quoted, rest) = quoted.split_once(r"\E").unwrap_or((quoted, ""));
            self.rest = rest;
            for c in quoted.chars() {
                self.literal(c);
            }
            return Ok(());
        }
        for (escape, same) in [
            (r"\A", r"\A"),
            (r"\z", r"\z"),
            (r"\b", r"(?-u:\b)"),
            (r"\B", r"(?-u:\B)"),
        ] {
            if text.starts_with(escape) {
                self.take(escape.len());
                self.push(same);
                return Ok(());
            }
        }
        // One byte, whatever it belongs to: the original's documents refuse it too.
        if text.starts_with(r"\C") {
            return Err(bad(ESCAPE, r"\C"));
        }
        let mut set = String::new();
        if self.unicode_class(&mut set)? || self.perl_class(&mut set) {
            let class = format!("[{set}]");
            self.push(if self.flags.fold_case {
                format!("(?i:{class})")
            } else {
                class
            });
            return Ok(());
        }
        let code = self.character_escape()?;
        self.literal_code(code);
        Ok(())
    }

    /// Reads `\d` and its like, if it comes next. They know ASCII alone.
    fn perl_class(&mut self, set: &mut String) -> bool {
        const DIGIT: &str = "0-9";
        const SPACE: &str = r"\t\n\x0c\r\x20";
        const WORD: &str = "0-9A-Za-z_";
        let (class, inside) = match self.rest.as_bytes() {
            [b'\\', b'd', ..] => (DIGIT, true),
            [b'\\', b'D', ..] => (DIGIT, false),
            [b'\\', b's', ..] => (SPACE, true),
            [b'\\', b'S', ..] => (SPACE, false),
            [b'\\', b'w', ..] => (WORD, true),
            [b'\\', b'W', ..] => (WORD, false),
            _ => return false,
        };
        self.take(2);
        put_set(set, class, inside);
        true
    }

    /// Reads `\pL` or `\p{Greek}`, if it comes next.
    fn unicode_class(&mut self, set: &mut String) -> Result<bool, BadRegexp> {
        let text = self.rest;
        let mut inside = match text.as_bytes() {
            [b'\\', b'p', ..] => true,
            [b'\\', b'P', ..] => false,
            _ => return Ok(false),
        };
        let (len, mut name) = match text[2..].chars().next() {
            None => return Err(bad(CHAR_RANGE, text)),
            Some('{') => match text.find('}') {
                None => return Err(bad(CHAR_RANGE, text)),
                Some(end) => (end + 1, &text[3..end]),
            },
            Some(c) => (2 + c.len_utf8(), &text[2..2 + c.len_utf8()]),
        };
        let part = self.take(len);
        if let Some(negated) = name.strip_prefix('^') {
            name = negated;
            inside = !inside;
        }
        let class = unicode_class(name).ok_or_else(|| bad(CHAR_RANGE, part))?;
        put_set(set, &class, inside);
        Ok(true)
    }

    /// Reads an escape that stands for one character, and gives its number.
    fn character_escape(&mut self) -> Result<u32, BadRegexp> {
        let text = self.rest;
        let mut chars = text.chars();
        chars.next();
        let Some(c) = chars.next() else {
            return Err(bad(TRAILING_BACKSLASH, ""));
        };
        let invalid = |rest: &str| bad(ESCAPE, &text[..text.len() - rest.len()]);
        let code = match c {
            '0'..='7' => {
                let digits = text[1..].bytes().take(3);
                let octal: Vec<u8> = digits.take_while(|b| (b'0'..=b'7').contains(b)).collect();
                // A single digit other than 0 would be a reference back, which there is none of.
                if c != '0' && octal.len() < 2 {
                    return Err(invalid(chars.as_str()));
                }
                self.take(1 + octal.len());
                return Ok(octal
                    .iter()
                    .fold(0, |code, digit| code * 8 + u32::from(digit - b'0')));
            }
            'x' => {
                let Some(first) = chars.next() else {
                    return Err(invalid(chars.as_str()));
                };
                let mut code = 0;
                if first == '{' {
                    let mut any = false;
                    loop {
                        match chars.next() {
                            Some('}') if any => break,
                            Some(c) => {
                                let digit =
                                    c.to_digit(16).ok_or_else(|| invalid(chars.as_str()))?;
                                code = code * 16 + digit;
                                any = true;
                            }
                            None => return Err(invalid("")),
                        }
                        if code > u32::from(char::MAX) {
                            return Err(invalid(chars.as_str()));
                        }
                    }
                } else {
                    let second = chars.next();
                    let (Some(high), Some(low)) =
                        (first.to_digit(16), second.and_then(|c| c.to_digit(16)))
                    else {
                        return Err(invalid(chars.as_str()));
                    };
                    code = high * 16 + low;
                }
                code
            }
            'a' => 0x07,
            'f' => 0x0c,
            'n' => 0x0a,
            'r' => 0x0d,
            't' => 0x09,
            'v' => 0x0b,
            // Whatever is no letter or digit stands for itself.
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => u32::from(c),
            _ => return Err(invalid(chars.as_str())),
        };
        self.rest = chars.as_str();
        Ok(code)
    }

    fn class(&mut self) -> Result<(), BadRegexp> {
        let whole = self.rest;
        self.take(1);
        let mut set = String::new();
        let outside = self.rest.starts_with('^');
        if outside {
            self.take(1);
        }
        let mut first = true;
        loop {
            if self.rest.starts_with(']') && !first {
                self.take(1);
                break;
            }
            first = false;
            if self.named_class(&mut set)?
                || self.unicode_class(&mut set)?
                || self.perl_class(&mut set)
            {
                continue;
            }
            let range = self.rest;
            let low = self.class_character(whole)?;
            let mut high = low;
            if self.rest.starts_with('-') && self.rest.len() > 1 && !self.rest.starts_with("-]") {
                self.take(1);
                high = self.class_character(whole)?;
                if high < low {
                    let part = &range[..range.len() - self.rest.len()];
                    return Err(bad(CHAR_RANGE, part));
                }
            }
            put_range(&mut set, low, high);
        }
        let not = if outside { "^" } else { "" };
        // A set of surrogates alone is empty.
        let set = if set.is_empty() { NOTHING } else { &set };
        self.push(if self.flags.fold_case {
            format!("(?i:[{not}{set}])")
        } else {
            format!("[{not}{set}]")
        });
        Ok(())
    }

    fn class_character(&mut self, whole: &str) -> Result<u32, BadRegexp> {
        match self.rest.chars().next() {
            None => Err(bad(MISSING_BRACKET, whole)),
            Some('\\') => self.character_escape(),
            Some(c) => {
                self.take(c.len_utf8());
                Ok(u32::from(c))
            }
        }
    }

    /// Reads `[:alnum:]` and its like, if it comes next.
    fn named_class(&mut self, set: &mut String) -> Result<bool, BadRegexp> {
        let Some(end) = self
            .rest
            .strip_prefix("[:")
            .and_then(|name_on| name_on.find(":]"))
        else {
            return Ok(false);
        };
        let part = self.take(2 + end + 2);
        let name = &part[2..2 + end];
        let (name, inside) = match name.strip_prefix('^') {
            Some(name) => (name, false),
            None => (name, true),
        };
        let class = match name {
            "alnum" => "0-9A-Za-z",
            "alpha" => "A-Za-z",
            "ascii" => r"\x00-\x7f",
            "blank" => r"\t\x20",
            "cntrl" => r"\x00-\x1f\x7f",
            "digit" => "0-9",
            "graph" => r"\x21-\x7e",
            "lower" => "a-z",
            "print" => r"\x20-\x7e",
            "punct" => r"\x21-\x2f\x3a-\x40\x5b-\x60\x7b-\x7e",
            "space" => r"\t\n\x0b\x0c\r\x20",
            "upper" => "A-Z",
            "word" => "0-9A-Za-z_",
            "xdigit" => "0-9A-Fa-f",
            _ => return Err(bad(CHAR_RANGE, part)),
        };
        put_set(set, class, inside);
        Ok(true)
    }
}

/// A class that has no member.
const NOTHING: &str = "[^\\x{0}-\\x{10FFFF}]";

/// Digits without a leading zero; numbers too large to count come out as the largest.
fn number(text: &str) -> Option<(u32, &str)> {
    let len = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at(len);
    if digits.is_empty() || (len > 1 && digits.starts_with('0')) {
        return None;
    }
    Some((digits.parse().unwrap_or(u32::MAX), rest))
}

fn put_code(out: &mut String, code: u32) {
    let _ = write!(out, "\\x{{{code:X}}}");
}

/// A range of numbers, without the surrogates, which are no characters.
fn put_range(set: &mut String, low: u32, high: u32) {
    for (low, high) in [(low, high.min(0xd7ff)), (low.max(0xe000), high)] {
        if low <= high {
            put_code(set, low);
            set.push('-');
            put_code(set, high);
        }
    }
}

fn put_set(set: &mut String, class: &str, inside: bool) {
    let not = if inside { "" } else { "^" };
    let _ = write!(set, "[{not}{class}]");
}

/// The general categories that the original knows. There is none of what stands for nothing yet.
const CATEGORIES: &[&str] = &[
    "C", "Cc", "Cf", "Co", "Cs", "L", "Ll", "Lm", "Lo", "Lt", "Lu", "M", "Mc", "Me", "Mn", "N",
    "Nd", "Nl", "No", "P", "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "S", "Sc", "Sk", "Sm", "So",
    "Z", "Zl", "Zp", "Zs",
];

/// The scripts that the original knows, which are those of Unicode 8.
const SCRIPTS: &[&str] = &[
    "Ahom",
    "Anatolian_Hieroglyphs",
    "Arabic",
    "Armenian",
    "Avestan",
    "Balinese",
    "Bamum",
    "Bassa_Vah",
    "Batak",
    "Bengali",
    "Bopomofo",
    "Brahmi",
    "Braille",
    "Buginese",
    "Buhid",
    "Canadian_Aboriginal",
    "Carian",
    "Caucasian_Albanian",
    "Chakma",
    "Cham",
    "Cherokee",
    "Common",
    "Coptic",
    "Cuneiform",
    "Cypriot",
    "Cyrillic",
    "Deseret",
    "Devanagari",
    "Duployan",
    "Egyptian_Hieroglyphs",
    "Elbasan",
    "Ethiopic",
    "Georgian",
    "Glagolitic",
    "Gothic",
    "Grantha",
    "Greek",
    "Gujarati",
    "Gurmukhi",
    "Han",
    "Hangul",
    "Hanunoo",
    "Hatran",
    "Hebrew",
    "Hiragana",
    "Imperial_Aramaic",
    "Inherited",
    "Inscriptional_Pahlavi",
    "Inscriptional_Parthian",
    "Javanese",
    "Kaithi",
    "Kannada",
    "Katakana",
    "Kayah_Li",
    "Kharoshthi",
    "Khmer",
    "Khojki",
    "Khudawadi",
    "Lao",
    "Latin",
    "Lepcha",
    "Limbu",
    "Linear_A",
    "Linear_B",
    "Lisu",
    "Lycian",
    "Lydian",
    "Mahajani",
    "Malayalam",
    "Mandaic",
    "Manichaean",
    "Meetei_Mayek",
    "Mende_Kikakui",
    "Meroitic_Cursive",
    "Meroitic_Hieroglyphs",
    "Miao",
    "Modi",
    "Mongolian",
    "Mro",
    "Multani",
    "Myanmar",
    "Nabataean",
    "New_Tai_Lue",
    "Nko",
    "Ogham",
    "Ol_Chiki",
    "Old_Hungarian",
    "Old_Italic",
    "Old_North_Arabian",
    "Old_Permic",
    "Old_Persian",
    "Old_South_Arabian",
    "Old_Turkic",
    "Oriya",
    "Osmanya",
    "Pahawh_Hmong",
    "Palmyrene",
    "Pau_Cin_Hau",
    "Phags_Pa",
    "Phoenician",
    "Psalter_Pahlavi",
    "Rejang",
    "Runic",
    "Samaritan",
    "Saurashtra",
    "Sharada",
    "Shavian",
    "Siddham",
    "SignWriting",
    "Sinhala",
    "Sora_Sompeng",
    "Sundanese",
    "Syloti_Nagri",
    "Syriac",
    "Tagalog",
    "Tagbanwa",
    "Tai_Le",
    "Tai_Tham",
    "Tai_Viet",
    "Takri",
    "Tamil",
    "Telugu",
    "Thaana",
    "Thai",
    "Tibetan",
    "Tifinagh",
    "Tirhuta",
    "Ugaritic",
    "Vai",
    "Warang_Citi",
    "Yi",
];

/// What is in a class of this name, if the original knows it: no other names for the same, and no other case.
///
/// Characters that are younger than the original's Unicode belong where they belong today.
fn unicode_class(name: &str) -> Option<String> {
    match name {
        "Any" => Some(r"\x{0}-\x{10FFFF}".to_owned()),
        // Halves of surrogate pairs are no characters here.
        "Cs" => Some(NOTHING.to_owned()),
        // The crate counts in what stands for nothing yet.
        "C" => Some(r"\p{gc=Cc}\p{gc=Cf}\p{gc=Co}".to_owned()),
        _ if CATEGORIES.binary_search(&name).is_ok() => Some(format!("\\p{{gc={name}}}")),
        _ if SCRIPTS.binary_search(&name).is_ok() => Some(format!("\\p{{sc={name}}}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
