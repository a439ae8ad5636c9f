use super::*;

fn ask(name: &str) -> Lookup {
    ask_in(name, "consul.")
}

fn ask_in(name: &str, domain: &str) -> Lookup {
    let name = Name::parse(name.as_bytes()).unwrap();
    parse(&name, &Name::parse(domain.as_bytes()).unwrap())
}

fn node(name: &str, datacenter: &str) -> Lookup {
    Lookup::Node {
        name: Text::from(name),
        datacenter: (!datacenter.is_empty()).then(|| Text::from(datacenter)),
    }
}

fn service(tag: &str, name: &str, datacenter: &str) -> Lookup {
    let some = |text: &str| (!text.is_empty()).then(|| Text::from(text));
    Lookup::Service {
        name: Text::from(name),
        tag: some(tag),
        datacenter: some(datacenter),
    }
}

fn query(name: &str, datacenter: Option<&str>) -> Lookup {
    Lookup::PreparedQuery {
        name: Text::from(name),
        datacenter: datacenter.map(Text::from),
    }
}

fn address(text: &str) -> Lookup {
    Lookup::Address(text.parse().unwrap())
}

fn reverse(text: &str) -> Lookup {
    Lookup::Reverse(Some(text.parse().unwrap()))
}

#[test]
fn every_form() {
    let longest = "20010db8000000000000000000000001";
    let six = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.B.d.0.1.0.0.2.ip6.arpa";
    for (name, expected) in [
        // nodes
        ("foo.node.consul", node("foo", "")),
        ("FOO.Node.Consul", node("foo", "")),
        ("foo.node.dc1.consul", node("foo", "dc1")),
        ("a.b.c.node.dc1.consul", node("a.b.c", "dc1")),
        ("foo.node.dc1.extra.consul", node("foo", "dc1")),
        ("node.consul", Lookup::Nothing),
        ("node.dc1.consul", Lookup::Nothing),
        // a node that is called like a keyword is asked for under its name, from the right
        ("service.node.consul", node("service", "")),
        ("node.service.consul", service("", "node", "")),
        ("foo.node.service.consul", service("foo", "node", "")),
        // services
        ("web.service.consul", service("", "web", "")),
        ("Web.SERVICE.dc2.consul", service("", "web", "dc2")),
        ("web.service.dc1.extra.consul", service("", "web", "dc1")),
        ("v1.web.service.consul", service("v1", "web", "")),
        ("a.B.web.service.dc2.consul", service("a.b", "web", "dc2")),
        ("service.consul", Lookup::Nothing),
        // RFC 2782
        ("_web._tcp.service.consul", service("", "web", "")),
        ("_Web._TCP.service.dc2.consul", service("", "web", "dc2")),
        ("_web._udp.service.consul", service("udp", "web", "")),
        ("_web._v1.service.consul", service("v1", "web", "")),
        ("_web._.service.consul", service("", "web", "")),
        ("_._tcp.service.consul", Lookup::Nothing),
        ("_web.service.consul", service("", "_web", "")),
        ("_web.tcp.service.consul", service("_web", "tcp", "")),
        ("x._web._tcp.service.consul", service("x._web", "_tcp", "")),
        // there is no form without `service` before 0.8
        ("_web._tcp.consul", Lookup::Nothing),
        // prepared queries have their place
        ("nearest.query.consul", query("nearest", None)),
        ("A.b.query.dc1.consul", query("a.b", Some("dc1"))),
        ("query.consul", Lookup::Nothing),
        // addresses
        ("0a000001.addr.consul", address("10.0.0.1")),
        ("0A0000fF.addr.dc1.consul", address("10.0.0.255")),
        (&format!("{longest}.addr.consul"), address("2001:db8::1")),
        ("0a00000g.addr.consul", Lookup::Nothing),
        (&format!("{}.addr.consul", "x".repeat(32)), Lookup::Nothing),
        ("0a0000.addr.consul", Lookup::NoAddress),
        ("0a00000100.addr.consul", Lookup::NoAddress),
        ("x.0a000001.addr.consul", Lookup::Nothing),
        ("addr.consul", Lookup::Nothing),
        // nothing
        ("consul", Lookup::Apex),
        ("Consul", Lookup::Apex),
        ("foo.consul", Lookup::Nothing),
        ("foo.bar.consul", Lookup::Nothing),
        ("ns.consul", Lookup::Nothing),
        // elsewhere
        ("example.com", Lookup::Elsewhere),
        ("", Lookup::Elsewhere),
        ("xconsul", Lookup::Elsewhere),
        ("consul.example.com", Lookup::Elsewhere),
        // backwards
        ("4.3.2.1.in-addr.arpa", reverse("1.2.3.4")),
        ("4.3.2.1.IN-ADDR.ARPA", reverse("1.2.3.4")),
        ("04.3.2.1.in-addr.arpa", Lookup::Reverse(None)),
        ("+4.3.2.1.in-addr.arpa", Lookup::Reverse(None)),
        ("256.3.2.1.in-addr.arpa", Lookup::Reverse(None)),
        ("3.2.1.in-addr.arpa", Lookup::Reverse(None)),
        ("5.4.3.2.1.in-addr.arpa", Lookup::Reverse(None)),
        (six, reverse("2001:db8::1")),
        (&six[2..], Lookup::Reverse(None)),
        ("arpa", Lookup::Reverse(None)),
        ("example.arpa", Lookup::Reverse(None)),
    ] {
        assert_eq!(ask(name), expected, "{name}");
    }
}

#[test]
fn other_domains() {
    for (name, domain, expected) in [
        ("web.service.my.test", "my.test.", service("", "web", "")),
        ("web.service.MY.Test", "my.test.", service("", "web", "")),
        ("my.test", "my.test.", Lookup::Apex),
        ("web.service.test", "my.test.", Lookup::Elsewhere),
        ("web.service.consul", "my.test.", Lookup::Elsewhere),
        // the longest end wins
        (
            "web.service.10.in-addr.arpa",
            "10.in-addr.arpa.",
            service("", "web", ""),
        ),
        ("1.0.0.10.in-addr.arpa", ".", reverse("10.0.0.1")),
        ("web.service", ".", service("", "web", "")),
        (".", ".", Lookup::Apex),
    ] {
        assert_eq!(ask_in(name, domain), expected, "{name} in {domain}");
    }
}
