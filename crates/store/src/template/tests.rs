use model::QueryTemplate;

use super::*;

fn query(name: &str, regexp: &str, service: &str) -> PreparedQuery {
    PreparedQuery {
        name: Text::from(name),
        template: QueryTemplate {
            kind: Text::from(NAME_PREFIX_MATCH),
            regexp: Text::from(regexp),
        },
        service: QueryService {
            service: Text::from(service),
            ..QueryService::default()
        },
        ..PreparedQuery::default()
    }
}

#[test]
fn fills_in() {
    for (regexp, text, name, expected) in [
        ("", "plain", "geo-x", "plain"),
        ("", "${name.full}", "geo-x", "geo-x"),
        ("", "${name.prefix}|${name.suffix}", "geo-x", "geo-|x"),
        ("", "${ name.suffix }", "GEO-x", "GEO-x"),
        ("", "$${name.full}", "geo-x", "${name.full}"),
        ("", "$$ $ {x} $$$${x} $", "geo-x", "$ $ {x} $${x} $"),
        ("", "a${\"b${name.suffix}\\\"\"}c", "geo-x", "abx\"c"),
        ("", "${match(0)}", "geo-x", ""),
        (
            "^geo-(.*?)-(.*)$",
            "${match(2)}-${match(1)}",
            "geo-a-b",
            "b-a",
        ),
        ("^geo-(.*)$", "${match(0)}${match(7)}", "geo-a", "geo-a"),
        ("^geo-(.*)$", "${match(-1)}", "geo-a", ""),
        ("^geo-(.*)$", "${match(2 - 1)}", "geo-a", "a"),
        ("^geo-(.*)$", "${match(\"1\")}", "geo-a", "a"),
        ("", "v${1 + 2 * 3}", "geo-a", "v9"),
        ("", "v${7 - -2 * 3 % 4 / 2}", "geo-a", "v1"),
        ("", "v${-1 * 3}", "geo-a", "v-3"),
        ("", "v${010 + 0}", "geo-a", "v8"),
        (
            "",
            "v${9223372036854775807 + 1}",
            "geo-a",
            "v-9223372036854775808",
        ),
        ("", "${\"a\" \"${name.suffix}\"\"c\"}", "geo-x", "axc"),
        ("", r#"${"\d\\\""}"#, "geo-x", r#"\d\""#),
        ("", r#"${"a\nb$$"}"#, "geo-x", "a\nb$"),
        ("^geo-(.*)$", "${match(,1)}", "geo-a", "a"),
        ("^geo-(.*)$", "${match(1.9)}", "geo-a", "a"),
        ("^geo-(.*)$", "${\n match ( 1 )\t}", "geo-a", "a"),
        ("", "v${(1 + 2) * 3 % 4}", "geo-a", "v1"),
        ("", "v${-1}", "geo-a", "v-1"),
    ] {
        let template = Template::compile(&query("geo-", regexp, text)).unwrap();
        let rendered = template.render(name.as_bytes()).unwrap();
        assert_eq!(rendered.service, expected, "{text}");
    }
}

#[test]
fn fills_in_every_text() {
    let mut query = query("", "^(.*)$", "a-${match(1)}");
    let text = Text::from("b-${match(1)}");
    query.service.near = text.clone();
    query.service.datacenters = Some(vec![Text::from("dc"), text.clone()]);
    query.service.tags = Some(vec![text.clone()]);
    query.service.node_meta = [(Text::from("k"), text)].into();
    let rendered = Template::compile(&query).unwrap().render(b"x").unwrap();
    assert_eq!(rendered.service, "a-x");
    assert_eq!(rendered.near, "b-x");
    assert_eq!(rendered.datacenters.unwrap()[1], "b-x");
    assert_eq!(rendered.tags.unwrap()[0], "b-x");
    assert_eq!(rendered.node_meta[&b"k"[..]], "b-x");
}

#[test]
fn refuses() {
    let mut unknown_kind = query("x", "", "y");
    unknown_kind.template.kind = Text::from("nope");
    let mut bad_tag = query("x", "", "y");
    bad_tag.service.tags = Some(vec![Text::from("ok"), Text::from("${")]);
    for (query, expected) in [
        (unknown_kind, "Bad Template.Type 'nope'"),
        (
            query("x", "(", "y"),
            "Bad Regexp: error parsing regexp: missing closing ): `(`",
        ),
        (
            query("x", "", "${name.full"),
            "Bad format '${name.full' in Service.Service: 1:12: expected \"}\"",
        ),
        (
            query("x", "", "a${}"),
            "Bad format 'a${}' in Service.Service: 1:4: expected expression",
        ),
        (
            bad_tag,
            "Bad format '${' in Service.Tags[1]: 1:3: expected expression",
        ),
        (
            query("x", "", "${name.nope}"),
            "Bad evaluation for '${name.nope}' in Service.Service: unknown variable accessed: name.nope",
        ),
        (
            query("x", "", "${nope(1)}"),
            "Bad evaluation for '${nope(1)}' in Service.Service: unknown function called: nope",
        ),
        (
            query("x", "", "${1 / 0}"),
            "Bad evaluation for '${1 / 0}' in Service.Service: divide by zero",
        ),
        (
            query("x", "", "${7}"),
            "Bad evaluation for '${7}' in Service.Service: expected a string, got a number",
        ),
    ] {
        let error = Error::from(check_template(&query).unwrap_err()).to_string();
        assert_eq!(error, format!("failed compiling template: {expected}"));
    }
}

#[test]
fn is_bounded() {
    for (open, close) in [("(", ")"), ("-", ""), ("\"${", "}\""), ("match(", ")")] {
        let text = format!("${{{}1{}}}", open.repeat(10_000), close.repeat(10_000));
        assert!(check_template(&query("x", "", &text)).is_err(), "{open}");
    }
}

#[test]
fn queries_that_are_none_pass() {
    let mut query = query("x", "(", "${");
    query.template.kind = Text::default();
    check_template(&query).unwrap();
}

proptest::proptest! {
    #[test]
    fn never_panics(text in r#"[a-z${}"\\0-9+*/%(). -]{0,30}"#) {
        let _ = check_template(&query("x", "", &text));
    }
}
