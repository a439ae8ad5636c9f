use Access::{Deny, Read, Write};
use Resource::{Agent, Event, Key, Keyring, Node, Operator, Query, Service, Session};

use super::*;

/// Rules as they are compared: kind, beginning of the name, how far.
type Rules = Vec<(Resource, Text, Access)>;

fn rules(text: &str) -> Rules {
    match read(text.as_bytes()) {
        Ok(rules) => rules,
        Err(error) => panic!("{text}\n{error}"),
    }
}

fn expected(rules: &[(Resource, &str, Access)]) -> Rules {
    let rules = rules.iter();
    rules
        .map(|(kind, name, access)| (*kind, Text::from(*name), *access))
        .collect()
}

#[test]
fn what_the_original_takes() {
    for (text, meant) in [
        ("", &[][..]),
        ("\n  # nothing\n// at all\n/* of\n * any */\n", &[]),
        (r#"key "foo/" { policy = "read" }"#, &[(Key, "foo/", Read)]),
        (r#"key "" { policy = "deny" }"#, &[(Key, "", Deny)]),
        (
            "key \"a\" {\n  policy = \"write\"\n}\nkey \"b\" { policy = \"deny\" }",
            &[(Key, "a", Write), (Key, "b", Deny)],
        ),
        // Several on one line, with and without commas, and names with and without quotes.
        (
            r#"key "a" { policy = "read" } "service" web { "policy" = "write", }"#,
            &[(Key, "a", Read), (Service, "web", Write)],
        ),
        (
            r#"key "a" { policy = "read" }, event "deploy" { policy = "write" }"#,
            &[(Key, "a", Read), (Event, "deploy", Write)],
        ),
        // Names of blocks and fields are without regard to case, those of policies aren't.
        (
            r#"KEY "a" { Policy = "read" } Operator = "read""#,
            &[(Key, "a", Read), (Operator, "", Read)],
        ),
        (
            r#"query "q" { policy = "read" } node "n" { policy = "write" } session "s" { policy = "deny" }
               agent "x" { policy = "read" } keyring = "deny" operator = "write""#,
            &[
                (Agent, "x", Read),
                (Node, "n", Write),
                (Session, "s", Deny),
                (Query, "q", Read),
                (Keyring, "", Deny),
                (Operator, "", Write),
            ],
        ),
        // What is not known is passed over, whatever it looks like.
        (
            r#"acl = "write" key_prefix "x" { policy = "read" } limits { a = 1.5e3 b = [1, "two", { c = true },] }
               key "a" { policy = "read" intentions = "deny" sentinel { code = <<EOT
import "strings"
EOT
               } }"#,
            &[(Key, "a", Read)],
        ),
        // All rules in one block, with or without a sign between.
        (
            r#"key { "a" { policy = "read" } b { policy = "write" } }"#,
            &[(Key, "a", Read), (Key, "b", Write)],
        ),
        (
            r#"key = { "a" = { policy = "read" } "b" = { policy = "write" } }"#,
            &[(Key, "a", Read), (Key, "b", Write)],
        ),
        // Those with a name of their own come first, so of two about the same the one in the block counts.
        (
            r#"key { "a" { policy = "deny" } } key "a" { policy = "write" }"#,
            &[(Key, "a", Write), (Key, "a", Deny)],
        ),
        (
            r#"key "a" { policy = "read" policy = "write" }"#,
            &[(Key, "a", Write)],
        ),
        (r#"key { policy = "read" }"#, &[(Key, "policy", Read)]),
        // An empty one is none.
        (r#"operator = "" keyring = "read""#, &[(Keyring, "", Read)]),
        // Escapes, and what looks like something to be filled in.
        (
            r#"key "a\tb\x41\u00e9\"\\" { policy = "read" } key "${x["y"]}" { policy = "deny" }"#,
            &[(Key, "a\tbAé\"\\", Read), (Key, "${x[\"y\"]}", Deny)],
        ),
        (
            "\u{feff}key \"a\" { policy = \"read\" }",
            &[(Key, "a", Read)],
        ),
        // JSON, in all the ways in which people write it.
        ("{}", &[]),
        (
            r#" { "key": { "foo/": { "policy": "read" }, "": { "policy": "deny" } }, "operator": "write" }"#,
            &[(Key, "foo/", Read), (Key, "", Deny), (Operator, "", Write)],
        ),
        (
            r#"{"key": [{"a": {"policy": "read"}}, {"b": [{"policy": "write"}]}], "service": null}"#,
            &[(Key, "a", Read), (Key, "b", Write)],
        ),
        (
            r#"{"event": {"": {"policy": "read"}}, "unknown": [1, -2.5e3, true, null, {"x": []}],}"#,
            &[(Event, "", Read)],
        ),
        (
            r#"{"key": {"\u0061\ud83d\ude00\/": {"policy": "read"}}}"#,
            &[(Key, "a😀/", Read)],
        ),
    ] {
        assert_eq!(rules(text), expected(meant), "{text}");
    }
}

#[test]
fn what_it_refuses() {
    for (text, why) in [
        (
            r#"key "x" { policy = "nope" }"#,
            r#"Invalid key policy: acl.KeyPolicy{Prefix:"x", Policy:"nope"}"#,
        ),
        (
            r#"key "x" { }"#,
            r#"Invalid key policy: acl.KeyPolicy{Prefix:"x", Policy:""}"#,
        ),
        (
            r#"key "x" { policy = "READ" }"#,
            r#"Invalid key policy: acl.KeyPolicy{Prefix:"x", Policy:"READ"}"#,
        ),
        (
            r#"key "x" "y" { policy = "read" }"#,
            r#"Invalid key policy: acl.KeyPolicy{Prefix:"x", Policy:""}"#,
        ),
        (
            r#"service "a\"b" { policy = 1 }"#,
            r#"Invalid service policy: acl.ServicePolicy{Name:"a\"b", Policy:"1"}"#,
        ),
        (
            r#"event "x" { policy = true }"#,
            r#"Invalid event policy: acl.EventPolicy{Event:"x", Policy:"true"}"#,
        ),
        (
            r#"query "x" { policy = "list" }"#,
            r#"Invalid query policy: acl.PreparedQueryPolicy{Prefix:"x", Policy:"list"}"#,
        ),
        (
            r#"{"agent": {"x": {"policy": "no"}}}"#,
            r#"Invalid agent policy: acl.AgentPolicy{Node:"x", Policy:"no"}"#,
        ),
        (
            r#"node "x" { policy = "no" }"#,
            r#"Invalid node policy: acl.NodePolicy{Name:"x", Policy:"no"}"#,
        ),
        (
            r#"session "x" { policy = "no" }"#,
            r#"Invalid session policy: acl.SessionPolicy{Node:"x", Policy:"no"}"#,
        ),
        (r#"keyring = "no""#, r#"Invalid keyring policy: "no""#),
        (r#"operator = "no""#, r#"Invalid operator policy: "no""#),
        // Of several mistakes the kinds decide, and a text that can't be read comes before all.
        (
            r#"operator = "no" key "x" { policy = "no" } key "y" { policy = "no" }"#,
            r#"Invalid key policy: acl.KeyPolicy{Prefix:"x", Policy:"no"}"#,
        ),
        (
            "key \"x\" { policy = \"no\" }\noperator {}",
            "Failed to parse ACL rules: At 2:1: a rule about operator is a string",
        ),
        (
            "this is not",
            "Failed to parse ACL rules: At 1:12: expected a name or a block, found the end",
        ),
        (
            "key \"x\" {\n  policy = read\n}",
            "Failed to parse ACL rules: At 2:12: expected a value, found 'r'",
        ),
        (
            "key \"x",
            "Failed to parse ACL rules: At 1:5: a string that doesn't end",
        ),
        (
            "key \"x\ny\" {}",
            "Failed to parse ACL rules: At 1:5: a string that doesn't end",
        ),
        (
            "key \"x\" {",
            "Failed to parse ACL rules: At 1:10: expected a name, found the end",
        ),
        (
            "key \"x\" = { policy = \"read\" }",
            "Failed to parse ACL rules: At 1:9: expected a name or a block, found '='",
        ),
        (
            "/* key",
            "Failed to parse ACL rules: At 1:1: a comment that doesn't end",
        ),
        (
            "}",
            "Failed to parse ACL rules: At 1:1: expected a name, found '}'",
        ),
        (
            r#"key = "read""#,
            "Failed to parse ACL rules: At 1:1: a rule about key is a block",
        ),
        (
            r#"key "x" { policy = ["read"] }"#,
            "Failed to parse ACL rules: At 1:11: a rule about key has a policy that is a string",
        ),
        (
            "a = <<END\nfor ever",
            "Failed to parse ACL rules: At 1:5: a text that doesn't end",
        ),
        (
            r#"{"key": {"x": {"policy": "read"}}"#,
            "Failed to parse ACL rules: At 1:34: expected a comma or the end of the object, found the end",
        ),
        (
            r#"{"key": {"x": {"policy": "read"}}} key "y" {}"#,
            "Failed to parse ACL rules: At 1:36: there is more behind the object",
        ),
        (
            r#"{"key": nil}"#,
            "Failed to parse ACL rules: At 1:12: no such word",
        ),
        (
            r#"{"a": "\q"}"#,
            "Failed to parse ACL rules: At 1:9: no such escape",
        ),
    ] {
        assert_eq!(
            read(text.as_bytes()).unwrap_err().to_string(),
            why,
            "{text}"
        );
    }
}

#[test]
fn what_is_nested_too_deeply() {
    for (open, close) in [("a {", "}"), ("a = [[[", "]]]"), ("{\"a\":", "}")] {
        let text = format!("{}{}", open.repeat(100_000), close.repeat(100_000));
        let error = read(text.as_bytes()).unwrap_err().to_string();
        assert!(
            error.contains("nested too deeply") || error.contains("expected"),
            "{error}"
        );
    }
    let fits = format!("{}{}", "a {".repeat(60), "}".repeat(60));
    assert_eq!(rules(&fits), []);
}

#[test]
fn a_long_text_is_read_in_no_time() {
    // Each of these was once a reason for other readers to begin at the front again.
    for piece in ["<<A\nA\n", "/**/", "\"a\" ", "a=1 ", "# \n", "\\"] {
        let text = format!("x = [{}", piece.repeat(300_000));
        let _ = read(text.as_bytes());
        let text = piece.repeat(300_000);
        let _ = read(text.as_bytes());
    }
}

#[test]
fn the_default_holds_where_nothing_is_said() {
    let text = r#"key "a" { policy = "read" } operator = "read" keyring = "deny""#;
    for (otherwise, elsewhere) in [(DefaultPolicy::Allow, Write), (DefaultPolicy::Deny, Deny)] {
        let policy = compile(text.as_bytes(), otherwise).unwrap();
        for (kind, name, access) in [
            (Key, "a", Read),
            (Key, "ab", Read),
            (Key, "b", elsewhere),
            (Service, "a", elsewhere),
            // The original lets these two through where the default is to allow.
            (Operator, "", Read),
            (Keyring, "", Deny),
        ] {
            assert_eq!(
                policy.access(kind, name.as_bytes()),
                access,
                "{kind:?} {name}"
            );
        }
    }
}
