//! `consul members`.

use std::collections::BTreeMap;

use client::Member;

use super::table::Table;
use super::{OK, http};
use crate::console::Console;
use crate::flags::{Flag, Parsed, Syntax, Value};

pub(super) const SYNTAX: Syntax = Syntax {
    name: "members",
    arguments: "",
    summary: "Lists the members of a cluster",
    about: "Lists everybody that gossips in the agent's datacenter, and how it is with them. The exit status is 2 when \
            nobody is left to list.",
    example: "consul members\nconsul members -status=failed",
    flags: &[
        &[
            Flag::switch(
                "detailed",
                false,
                "Show all that the members tell of themselves.",
            ),
            Flag::new(
                "status",
                Value::Text(".*"),
                "regexp",
                "Only members whose status matches: alive, leaving, left or failed.",
            ),
            Flag::switch("wan", false, "List the servers of all datacenters."),
        ],
        http::AGENT,
        http::RPC,
    ],
};

/// The exit status when nobody is left to list, as the original has it.
const NOBODY: u8 = 2;

pub(super) fn run(parsed: &Parsed, console: &mut Console<'_>) -> u8 {
    let wanted = match model::re2::compile(parsed.text("status").as_bytes()) {
        Ok(wanted) => wanted,
        Err(why) => {
            return http::failed(
                console,
                format_args!("Failed to compile status regexp: {why}"),
            );
        }
    };
    let client = match http::client_instead_of_rpc(parsed, console) {
        Ok(client) => client,
        Err(why) => return http::failed(console, http::cannot_connect(&why)),
    };
    let members = http::wait_for(async {
        let members = client.agent_members(parsed.switch("wan")).await;
        members.map_err(|why| format!("Error retrieving members: {why}"))
    });
    let mut members = match members {
        Ok(members) => members,
        Err(why) => return http::failed(console, why),
    };
    members.retain(|member| wanted.is_match(status(member).as_bytes()));
    if members.is_empty() {
        return NOBODY;
    }
    members.sort_by(|a, b| a.name.cmp(&b.name));
    let table = if parsed.switch("detailed") {
        detailed(&members)
    } else {
        plain(&members)
    };
    console.say(table);
    OK
}

fn plain(members: &[Member]) -> Table {
    let mut table = Table::new([
        "Node", "Address", "Status", "Type", "Build", "Protocol", "DC",
    ]);
    for member in members {
        let tag = |name: &str| member.tags.get(name).map(String::as_str);
        let row = match tag("role") {
            Some(role @ ("consul" | "node")) => [
                if role == "consul" { "server" } else { "client" },
                // Agents from before this tag are older than what follows.
                tag("build").map_or("< 0.3", |build| {
                    build.split_once(':').map_or(build, |(version, _)| version)
                }),
                tag("vsn").unwrap_or_default(),
                tag("dc").unwrap_or_default(),
            ],
            _ => ["unknown", "", "", ""],
        };
        let [kind, build, protocol, datacenter] = row;
        table.row([
            &member.name,
            &address(member),
            status(member),
            kind,
            build,
            protocol,
            datacenter,
        ]);
    }
    table
}

fn detailed(members: &[Member]) -> Table {
    let mut table = Table::new(["Node", "Address", "Status", "Tags"]);
    for member in members {
        table.row([
            &member.name,
            &address(member),
            status(member),
            &tags(&member.tags),
        ]);
    }
    table
}

fn tags(tags: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = tags
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join(",")
}

fn address(member: &Member) -> String {
    if member.addr.contains(':') {
        format!("[{}]:{}", member.addr, member.port)
    } else {
        format!("{}:{}", member.addr, member.port)
    }
}

fn status(member: &Member) -> &'static str {
    match member.status {
        1 => "alive",
        2 => "leaving",
        3 => "left",
        4 => "failed",
        _ => "none",
    }
}

#[cfg(test)]
mod tests {
    use crate::command::stub::{Reply, Stub};
    use crate::console::tests::consul;

    const MEMBERS: &str = r#"[
        {"Name":"srv1","Addr":"10.0.0.1","Port":8301,"Tags":{"role":"consul","dc":"dc1","vsn":"2","build":"0.7.1:a9455cd","port":"8300"},"Status":1},
        {"Name":"cli1","Addr":"fd00::2","Port":8301,"Tags":{"role":"node","dc":"dc1","vsn":"2"},"Status":4},
        {"Name":"odd","Addr":"10.0.0.3","Port":8301,"Tags":null,"Status":3}]"#;

    fn members(flags: &[&str]) -> (u8, String) {
        let stub = Stub::tcp(|_| Reply::ok(MEMBERS));
        let flag = format!("-http-addr={}", stub.address);
        let printed = consul(&[&["members", &flag], flags].concat(), b"", &[]);
        (printed.status, printed.output)
    }

    #[test]
    fn a_table_by_name() {
        let expected = "\
Node  Address         Status  Type     Build  Protocol  DC
cli1  [fd00::2]:8301  failed  client   < 0.3  2         dc1
odd   10.0.0.3:8301   left    unknown
srv1  10.0.0.1:8301   alive   server   0.7.1  2         dc1\n";
        let (status, output) = members(&[]);
        assert_eq!(status, 0);
        assert_eq!(output, expected);
    }

    #[test]
    fn all_tags() {
        let expected = "\
Node  Address        Status  Tags
srv1  10.0.0.1:8301  alive   build=0.7.1:a9455cd,dc=dc1,port=8300,role=consul,vsn=2\n";
        assert_eq!(
            members(&["-detailed", "-status=ali"]),
            (0, expected.to_owned())
        );
    }

    #[test]
    fn nobody_is_two_and_a_bad_expression_one() {
        assert_eq!(members(&["-status=^x"]), (2, String::new()));
        let (status, output) = members(&["-status=("]);
        assert_eq!(status, 1);
        assert!(output.starts_with("Failed to compile status regexp: "));
    }
}
