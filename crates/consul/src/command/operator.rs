//! `consul operator raft`.

use super::table::Table;
use super::{FAILED, OK, http};
use crate::console::Console;
use crate::flags::{Flag, Parsed, Syntax, Value};

pub(super) const RAFT: Syntax = Syntax {
    name: "operator raft",
    arguments: "[list-peers | remove-peer]",
    summary: "Looks at and changes who takes part in consensus",
    about: "Looks at and changes which servers take part in consensus. A server that has failed and won't come back \
            is removed by force-leave; remove-peer is for one that gossip has forgotten and consensus has not. What \
            to do can be given as a flag or, as with later releases, as a word in front of the flags.",
    example: "consul operator raft -list-peers\nconsul operator raft -remove-peer -address=10.0.0.3:8300",
    flags: &[
        &[
            Flag::switch("list-peers", false, "List the servers that take part."),
            Flag::switch(
                "remove-peer",
                false,
                "Remove the server that -address names.",
            ),
            Flag::new(
                "address",
                Value::Text(""),
                "ip:port",
                "The server to remove.",
            ),
            Flag::new(
                "id",
                Value::Text(""),
                "id",
                "The same: a server is identified by its address.",
            ),
        ],
        http::STALE,
        http::DATACENTER,
        http::AGENT,
    ],
};

/// What was asked for.
enum Action {
    List,
    Remove,
}

pub(super) fn raft(parsed: &Parsed, console: &mut Console<'_>) -> u8 {
    // The word of later releases stands where flags end here, so what follows it is read again.
    let (word, rest) = match &parsed.arguments[..] {
        [] => (None, &[][..]),
        [word, rest @ ..] => (Some(word.as_str()), rest),
    };
    let again;
    let parsed = if rest.is_empty() {
        parsed
    } else {
        match RAFT.parse(rest) {
            Ok(read) => {
                again = read;
                &again
            }
            Err(_) => return refuse(console, format_args!("cannot read {:?}", rest.join(" "))),
        }
    };
    let action = match word {
        Some("list-peers") => Action::List,
        Some("remove-peer") => Action::Remove,
        Some(other) => return refuse(console, format_args!("unknown subcommand {other:?}")),
        None if parsed.switch("list-peers") => Action::List,
        None if parsed.switch("remove-peer") => Action::Remove,
        None => {
            console.say(RAFT.help());
            return OK;
        }
    };
    let client = match http::client(parsed, console) {
        Ok(client) => client,
        Err(why) => return http::failed(console, http::cannot_connect(&why)),
    };
    match action {
        Action::List => {
            let options = http::query_options(parsed);
            let listed = http::wait_for(async {
                let listed = client.raft_configuration(&options).await;
                listed.map_err(|why| why.to_string())
            });
            let configuration = match listed {
                Ok(configuration) => configuration,
                Err(why) => return refuse(console, why),
            };
            let mut table = Table::new(["Node", "ID", "Address", "State", "Voter"]);
            for server in &configuration.servers {
                let state = if server.leader { "leader" } else { "follower" };
                let voter = if server.voter { "true" } else { "false" };
                table.row([&server.node, &server.id, &server.address, state, voter]);
            }
            console.say(table);
            OK
        }
        Action::Remove => {
            let address = match (parsed.text("address"), parsed.text("id")) {
                ("", "") => {
                    return refuse(console, "an address is required for the peer to remove");
                }
                ("", id) => id,
                (address, _) => address,
            };
            let options = http::write_options(parsed);
            let removed = http::wait_for(async {
                let removed = client.raft_remove_peer(address, &options).await;
                removed.map_err(|why| why.to_string())
            });
            match removed {
                Ok(()) => {
                    console.say(format_args!("Removed peer with address {address:?}"));
                    OK
                }
                Err(why) => refuse(console, why),
            }
        }
    }
}

fn refuse(console: &mut Console<'_>, why: impl std::fmt::Display) -> u8 {
    console.say(format_args!("Operator \"raft\" subcommand failed: {why}"));
    FAILED
}

#[cfg(test)]
mod tests {
    use crate::command::stub::{Reply, Stub};
    use crate::console::tests::consul;

    #[test]
    fn lists_peers() {
        let table = "\
Node       ID             Address        State     Voter
n1         10.0.0.1:8300  10.0.0.1:8300  leader    true
(unknown)  10.0.0.2:8300  10.0.0.2:8300  follower  false\n";
        for words in [&["-list-peers", "-stale"][..], &["list-peers", "-stale"]] {
            let stub = Stub::tcp(|_| {
                Reply::ok(
                    r#"{"Servers":[{"ID":"10.0.0.1:8300","Node":"n1","Address":"10.0.0.1:8300","Leader":true,"Voter":true},{"ID":"10.0.0.2:8300","Node":"(unknown)","Address":"10.0.0.2:8300","Leader":false,"Voter":false}],"Index":22}"#,
                )
            });
            let flag = format!("-http-addr={}", stub.address);
            let line = [&["operator", "raft"], words, &[&flag]].concat();
            let printed = consul(&line, b"", &[]);
            assert_eq!((printed.status, printed.output.as_str()), (0, table));
            assert_eq!(stub.lines(), ["GET /v1/operator/raft/configuration?stale="]);
        }
    }

    #[test]
    fn removes_a_peer() {
        let stub = Stub::tcp(|_| Reply::ok(""));
        let flag = format!("-http-addr={}", stub.address);
        let line = [
            "operator",
            "raft",
            "-remove-peer",
            "-address=10.0.0.2:8300",
            &flag,
        ];
        let printed = consul(&line, b"", &[]);
        assert_eq!(
            (printed.status, printed.output.as_str()),
            (0, "Removed peer with address \"10.0.0.2:8300\"\n")
        );
        assert_eq!(
            stub.lines(),
            ["DELETE /v1/operator/raft/peer?address=10.0.0.2%3A8300"]
        );
    }

    #[test]
    fn what_makes_no_sense() {
        let output = |words: &[&str]| consul(&[&["operator", "raft"], words].concat(), b"", &[]);
        assert_eq!(
            output(&["-remove-peer"]).output,
            "Operator \"raft\" subcommand failed: an address is required for the peer to remove\n"
        );
        let unknown = output(&["foo"]);
        assert_eq!(
            (unknown.status, unknown.output.as_str()),
            (
                1,
                "Operator \"raft\" subcommand failed: unknown subcommand \"foo\"\n"
            )
        );
        let nothing = output(&[]);
        assert_eq!(nothing.status, 0);
        assert!(nothing.output.starts_with("Usage: consul operator raft"));
    }
}
