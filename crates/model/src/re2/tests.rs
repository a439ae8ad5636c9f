use super::*;

/// What an expression finds first in a text, by both dialects' rules if they agree.
fn found(expression: &str, text: &str) -> Option<String> {
    let compiled = compile(expression.as_bytes());
    let compiled = compiled.unwrap_or_else(|error| panic!("{expression}: {error}"));
    let found = compiled.find(text.as_bytes())?;
    Some(String::from_utf8_lossy(found.as_bytes()).into_owned())
}

/// Expression, text, what RE2 finds.
const FOUND: &[(&str, &str, Option<&str>)] = &[
    ("", "abc", Some("")),
    ("b", "abc", Some("b")),
    ("^(.+)-([0-9]+)$", "web-12", Some("web-12")),
    // quoting
    (r"\Qa.b\E", "axb", None),
    (r"\Qa.b\E", "a.b", Some("a.b")),
    (r"\Qa.b\Ec+", "a.bcc", Some("a.bcc")),
    (r"\Q[(*", "x[(*", Some("[(*")),
    (r"\Qab\E+", "abb", Some("abb")),
    (r"a\Q\E+", "aa", Some("aa")),
    (r"\_\-\ \!", "_- !", Some("_- !")),
    // braces that are no counts
    ("x{,5}", "x{,5}", Some("x{,5}")),
    ("x{,5}", "xxx", None),
    ("x{a}", "x{a}", Some("x{a}")),
    ("x{01}", "x{01}", Some("x{01}")),
    ("x{2", "x{2", Some("x{2")),
    ("{", "{", Some("{")),
    ("}", "}", Some("}")),
    ("]", "]", Some("]")),
    ("x{2}", "xxx", Some("xx")),
    ("x{2,}", "xxxx", Some("xxxx")),
    ("x{1,3}", "xxxx", Some("xxx")),
    ("x{1,3}?", "xxxx", Some("x")),
    ("x{0}y", "xy", Some("y")),
    // classes
    ("[[]", "a[", Some("[")),
    ("[]]", "a]", Some("]")),
    ("[]a]+", "a]a", Some("a]a")),
    ("[^]]+", "]ab", Some("ab")),
    ("[a&&b]+", "a&b", Some("a&b")),
    ("[+--b]+", "b,", Some("b,")),
    ("[~~]", "~", Some("~")),
    ("[a-]+", "a-a", Some("a-a")),
    ("[-a]+", "a-a", Some("a-a")),
    ("[a-c]+", "xbcax", Some("bca")),
    ("[[a]+", "[a[", Some("[a[")),
    ("[a[b]+]", "xab]", Some("ab]")),
    ("[a[b]+", "a[b", Some("a[b")),
    ("[ #]+", "a # b", Some(" # ")),
    (r"[\]\\]+", r"]\", Some(r"]\")),
    (r"[\w.]+", "-a.b_9-", Some("a.b_9")),
    (r"[^\d]+", "12ab", Some("ab")),
    (r"[\D]+", "12ab", Some("ab")),
    (r"[\x41-\x43]+", "xABC", Some("ABC")),
    (r"[\x{10FFFF}]", "\u{10FFFF}", Some("\u{10FFFF}")),
    (r"[\101]", "A", Some("A")),
    ("[^a]", "\n", Some("\n")),
    ("[[:alpha:]]+", "1ab2", Some("ab")),
    ("[[:^alpha:]]+", "a12b", Some("12")),
    ("[[:word:]-]+", " a_-b ", Some("a_-b")),
    ("[[:space:]]+", "a\t\x0bb", Some("\t\x0b")),
    ("[:alpha:]+", "xalp:", Some("alp:")),
    ("[[:alpha]+", "[:alp", Some("[:alp")),
    ("[é-ü]+", "aéôb", Some("éô")),
    // ASCII alone
    (r"\d+", "٣4", Some("4")),
    (r"\w+", "é5", Some("5")),
    (r"\s+", "\u{a0} ", Some(" ")),
    (r"\s", "\x0b", None),
    (r"\bx", "éx", Some("x")),
    (r"a\Bb", "ab", Some("ab")),
    (r"\S+", " é ", Some("é")),
    // Unicode
    (r"\pN+", "a12", Some("12")),
    (r"\p{Greek}+", "aλμb", Some("λμ")),
    (r"\P{Greek}+", "λab", Some("ab")),
    (r"\p{^Greek}+", "λab", Some("ab")),
    (r"\PL+", "ab12", Some("12")),
    (r"[\p{Lu}\d]+", "aB1", Some("B1")),
    (r"\p{Any}", "\n", Some("\n")),
    (r"\p{Cs}", "a", None),
    (r"\P{Cs}", "a", Some("a")),
    (r"[^\p{Cs}]", "a", Some("a")),
    (r"\pC", "\u{378}", None),
    (r"\PC", "\u{378}", Some("\u{378}")),
    (r"\p{^C}", "\u{378}", Some("\u{378}")),
    (r"[\pC]+", "a\u{ad}\n\u{e000}b", Some("\u{ad}\n\u{e000}")),
    (r"[^\pC]+", "\na\t", Some("a")),
    (r"\p{Zs}\p{Nd}\p{Pd}", "\u{2003}٣–", Some("\u{2003}٣–")),
    (
        r"\p{Common}\p{SignWriting}\p{Old_Hungarian}",
        "1\u{1d800}\u{10c80}",
        Some("1\u{1d800}\u{10c80}"),
    ),
    (r"(?i)\p{Lu}+", "aB1", Some("aB")),
    (r"(?i)\P{Lu}+", "aB1", Some("1")),
    (r"(?i)\p{^Lu}+", "aB1", Some("1")),
    (r"(?i)[^\P{Lu}]+", "aB1", Some("aB")),
    (r"(?i)[[:upper:]]", "a", Some("a")),
    (r"(?i)[[:^upper:]]+", "aB1", Some("1")),
    (r"(?i)\W", "\u{212a}", None),
    (r"\x{263a}", "☺", Some("☺")),
    (r"\x{10FFFF}", "\u{10FFFF}", Some("\u{10FFFF}")),
    (r"\x{D800}", "a", None),
    (r"[\x{D800}]", "a", None),
    (r"[\x{D7FF}-\x{E000}]", "\u{e000}", Some("\u{e000}")),
    (".", "é", Some("é")),
    // escapes
    (r"\x41\t\.", "A\t.", Some("A\t.")),
    (r"\101\07", "A\x07", Some("A\x07")),
    (r"\a\f\v", "\x07\x0c\x0b", Some("\x07\x0c\x0b")),
    (r"\12", "\n", Some("\n")),
    // places
    (r"\Ab", "ab", None),
    (r"a\z", "a\n", None),
    ("a$", "a\n", None),
    ("(?m)^b$", "a\nb\nc", Some("b")),
    ("^b", "a\nb", None),
    ("^*", "a", Some("")),
    // groups and flags
    ("(?P<n>a)(?P<m>b)", "ab", Some("ab")),
    ("(?P<1st>a)", "a", Some("a")),
    ("(?i)AbC", "aBc", Some("aBc")),
    ("(?i:a)B", "AB", Some("AB")),
    ("(?i:a)B", "Ab", None),
    ("(?i)[b-d]", "C", Some("C")),
    ("(?i)k", "\u{212a}", Some("\u{212a}")),
    ("(?i)a(?-i)b", "AB", None),
    ("(?i)a(?-i)b", "Ab", Some("Ab")),
    ("(a(?i)b)c", "aBC", None),
    ("x(?i)a|b", "B", Some("B")),
    ("(?s).", "\n", Some("\n")),
    (".", "\n", None),
    ("(?U)a+", "aaa", Some("a")),
    ("(?U)a+?", "aaa", Some("aaa")),
    ("(?U:a+)a+", "aaa", Some("aaa")),
    ("a(?i)*", "aaa", Some("aaa")),
    ("a*(?:)*", "aa", Some("aa")),
    ("(|a)+", "aa", Some("")),
    ("a||b", "b", Some("")),
    ("a|ab", "ab", Some("a")),
    ("(?:ab)+", "abab", Some("abab")),
    ("a+?", "aa", Some("a")),
];

#[test]
fn finds_what_re2_finds() {
    for (expression, text, expected) in FOUND {
        assert_eq!(
            found(expression, text).as_deref(),
            *expected,
            "{expression} in {text:?}"
        );
    }
}

/// Expression, and what the original says about it.
const REFUSED: &[(&str, &str)] = &[
    ("(", "missing closing ): `(`"),
    ("(a", "missing closing ): `(a`"),
    ("a)", "unexpected ): `a)`"),
    (")", "unexpected ): `)`"),
    ("*", "missing argument to repetition operator: `*`"),
    ("(*)", "missing argument to repetition operator: `*`"),
    ("a|+", "missing argument to repetition operator: `+`"),
    ("?x", "missing argument to repetition operator: `?`"),
    ("{2}", "missing argument to repetition operator: `{2}`"),
    (r"\Q\E*", "missing argument to repetition operator: `*`"),
    ("a**", "invalid nested repetition operator: `**`"),
    ("a+*?", "invalid nested repetition operator: `+*?`"),
    ("a{2}{3}", "invalid nested repetition operator: `{2}{3}`"),
    ("a{1001}", "invalid repeat count: `{1001}`"),
    ("a{2,1}", "invalid repeat count: `{2,1}`"),
    (
        "a{1,99999999999}",
        "invalid repeat count: `{1,99999999999}`",
    ),
    ("((a{100}){100}){100}", "invalid repeat count: `{100}`"),
    ("(a{501}){2}", "invalid repeat count: `{2}`"),
    ("[a", "missing closing ]: `[a`"),
    ("[]", "missing closing ]: `[]`"),
    ("x[]a", "missing closing ]: `[]a`"),
    ("[a--b]", "invalid character class range: `a--`"),
    ("[b-a]", "invalid character class range: `b-a`"),
    ("[[:nope:]]", "invalid character class range: `[:nope:]`"),
    (r"\pX", r"invalid character class range: `\pX`"),
    (r"\p{Nope}", r"invalid character class range: `\p{Nope}`"),
    (r"\p{}", r"invalid character class range: `\p{}`"),
    (r"\p{^}", r"invalid character class range: `\p{^}`"),
    (r"\p^L", r"invalid character class range: `\p^`"),
    (r"\pl", r"invalid character class range: `\pl`"),
    (r"\p{Cn}", r"invalid character class range: `\p{Cn}`"),
    (r"\p{LC}", r"invalid character class range: `\p{LC}`"),
    (r"\p{LU}", r"invalid character class range: `\p{LU}`"),
    (r"\p{any}", r"invalid character class range: `\p{any}`"),
    (
        r"\p{Letter}",
        r"invalid character class range: `\p{Letter}`",
    ),
    (r"\p{GREEK}", r"invalid character class range: `\p{GREEK}`"),
    (r"\p{Grek}", r"invalid character class range: `\p{Grek}`"),
    (
        r"[\p{OldItalic}]",
        r"invalid character class range: `\p{OldItalic}`",
    ),
    (
        r"\P{Unknown}",
        r"invalid character class range: `\P{Unknown}`",
    ),
    // younger than the original
    (r"\p{Adlam}", r"invalid character class range: `\p{Adlam}`"),
    ("(?<n>a)", "invalid or unsupported Perl syntax: `(?<`"),
    (r"\p{greek}", r"invalid character class range: `\p{greek}`"),
    (
        r"\p{Alphabetic}",
        r"invalid character class range: `\p{Alphabetic}`",
    ),
    (r"\p{Greek", r"invalid character class range: `\p{Greek`"),
    (r"\p", r"invalid character class range: `\p`"),
    (r"\", "trailing backslash at end of expression: ``"),
    (r"\C", r"invalid escape sequence: `\C`"),
    (r"\Z", r"invalid escape sequence: `\Z`"),
    (r"\1", r"invalid escape sequence: `\1`"),
    (r"\8", r"invalid escape sequence: `\8`"),
    (r"\y", r"invalid escape sequence: `\y`"),
    (r"\x{}", r"invalid escape sequence: `\x{}`"),
    (r"\x{110000}", r"invalid escape sequence: `\x{110000`"),
    (r"\xg1", r"invalid escape sequence: `\xg1`"),
    (r"[\b]", r"invalid escape sequence: `\b`"),
    ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
    ("(?x)a", "invalid or unsupported Perl syntax: `(?x`"),
    ("(?i-)a", "invalid or unsupported Perl syntax: `(?i-)`"),
    ("(?P=n)", "invalid or unsupported Perl syntax: `(?P`"),
    ("(?i", "invalid or unsupported Perl syntax: `(?i`"),
    ("(?P<n", "invalid named capture: `(?P<n`"),
    ("(?P<", "invalid or unsupported Perl syntax: `(?P`"),
    ("(?P<n)", "invalid named capture: `(?P<n)`"),
    ("(?--i)", "invalid or unsupported Perl syntax: `(?--`"),
    ("(?-)", "invalid or unsupported Perl syntax: `(?-)`"),
    ("(?P<>a)", "invalid named capture: `(?P<>`"),
    ("(?P<a b>a)", "invalid named capture: `(?P<a b>`"),
];

#[test]
fn refuses_what_re2_refuses() {
    for (expression, expected) in REFUSED {
        let error = compile(expression.as_bytes()).expect_err(expression);
        assert_eq!(
            error.to_string(),
            format!("error parsing regexp: {expected}"),
            "{expression}"
        );
    }
    let error = compile(b"a\xff").unwrap_err();
    assert!(error.to_string().contains("invalid UTF-8"), "{error}");
}

#[test]
fn every_class_is_of_the_originals_time() {
    assert!(CATEGORIES.is_sorted() && SCRIPTS.is_sorted());
    let all: String = ('\0'..='\u{e0fff}').collect();
    for name in CATEGORIES.iter().chain(SCRIPTS) {
        assert!(compile(format!(r"[\p{{{name}}}]").as_bytes()).is_ok());
        let class = unicode_class(name).unwrap();
        let of_unicode_8 = Regex::new(&format!(r"[[{class}]&&\p{{age=8.0}}]")).unwrap();
        // There are no halves of surrogate pairs.
        assert_eq!(
            of_unicode_8.is_match(all.as_bytes()),
            *name != "Cs",
            "{name}"
        );
    }
}

#[test]
fn groups_keep_their_numbers() {
    let re = compile(br"^(?:x)?(?P<first>a+)(-(\d+))?$").unwrap();
    let found = re.captures(b"aa-12").unwrap();
    let groups: Vec<_> = found.iter().map(|g| g.map(|g| g.as_bytes())).collect();
    let expected: Vec<Option<&[u8]>> = vec![Some(b"aa-12"), Some(b"aa"), Some(b"-12"), Some(b"12")];
    assert_eq!(groups, expected);
}

#[test]
fn is_bounded() {
    let long = "a".repeat(EXPRESSION_MAX + 1);
    assert!(compile(long.as_bytes()).is_err());
    let deep = format!("{}a{}", "(".repeat(1000), ")".repeat(1000));
    assert!(compile(deep.as_bytes()).is_err());
    let at_the_limit = format!("{}a{}", "(".repeat(NESTING_MAX), ")".repeat(NESTING_MAX));
    assert!(compile(at_the_limit.as_bytes()).is_ok());
    // Much to compile behind few characters.
    let _ = compile(br"(\pL{30}){30}");
    assert!(compile(br"\pL{1000}\pL{1000}\pL{1000}\pL{1000}").is_err());
}

proptest::proptest! {
    /// Whatever is read by RE2's rules is written so that the crate can read it.
    #[test]
    fn translations_are_well_formed(expression in r"[a-c()\[\]{}*+?|.^$\\0-9:,<>PQEpLxdws&~iU-]{0,24}") {
        if let Ok(translated) = translate(&expression) {
            let compiled = RegexBuilder::new(&translated).size_limit(1 << 30).build();
            proptest::prop_assert!(compiled.is_ok(), "{expression} became {translated}");
        }
    }

    #[test]
    fn bytes_never_panic(expression: Vec<u8>) {
        let _ = compile(&expression);
    }
}
