//! `consul keyring`.

use client::KeyChange;

use super::{FAILED, OK, http};
use crate::console::Console;
use crate::flags::{Flag, Parsed, Syntax, Value};

pub(super) const SYNTAX: Syntax = Syntax {
    name: "keyring",
    arguments: "",
    summary: "Looks at and changes the keys of gossip",
    about: "Looks at and changes the keys that all members encrypt gossip with. To exchange one: install the new key, \
            use it, and remove the old one, each only after -list shows the step before on all members.",
    example: "consul keyring -list\nconsul keyring -install=pUqJrVyVRj5jsiYEkM/tFQ==",
    flags: &[
        &[
            Flag::new(
                "install",
                Value::Text(""),
                "key",
                "Let all members decrypt with this key as well.",
            ),
            Flag::new(
                "use",
                Value::Text(""),
                "key",
                "Let all members encrypt with this key; it must be installed.",
            ),
            Flag::new(
                "remove",
                Value::Text(""),
                "key",
                "Let all members forget this key; it must not be in use.",
            ),
            Flag::switch(
                "list",
                false,
                "Show the keys and how many members have each.",
            ),
            Flag::new(
                "relay-factor",
                Value::Uint(0),
                "n",
                "Through how many others each member answers, 0 to 5; answers find their way without it.",
            ),
        ],
        http::AGENT,
        http::RPC,
    ],
};

/// Through how many others a member may be told to answer.
const RELAY_FACTOR_MAX: u64 = 5;

pub(super) fn run(parsed: &Parsed, console: &mut Console<'_>) -> u8 {
    let change = |name, change| {
        let key = parsed.text(name);
        (!key.is_empty()).then_some((change, key))
    };
    let changes: Vec<(KeyChange, &str)> = [
        change("install", KeyChange::Install),
        change("use", KeyChange::Use),
        change("remove", KeyChange::Remove),
    ]
    .into_iter()
    .flatten()
    .collect();
    if changes.len() + usize::from(parsed.switch("list")) > 1 {
        return http::failed(console, "Only a single action is allowed");
    }
    if parsed.uint("relay-factor") > RELAY_FACTOR_MAX {
        return http::failed(
            console,
            "Error parsing relay factor: Relay factor must be in range: [0, 5]",
        );
    }
    if changes.is_empty() && !parsed.switch("list") {
        console.say(SYNTAX.help());
        return FAILED;
    }
    let client = match http::client_instead_of_rpc(parsed, console) {
        Ok(client) => client,
        Err(why) => return http::failed(console, http::cannot_connect(&why)),
    };
    match changes.first() {
        Some((change, key)) => {
            console.say(match change {
                KeyChange::Install => "==> Installing new gossip encryption key...",
                KeyChange::Use => "==> Changing primary gossip encryption key...",
                KeyChange::Remove => "==> Removing gossip encryption key...",
            });
            let done = http::wait_for(async {
                let done = client.change_key(*change, key).await;
                done.map_err(refusal)
            });
            if let Err(why) = done {
                return http::failed(console, why);
            }
            console.say("==> Done!");
            OK
        }
        None => list(&client, console),
    }
}

/// What the agent says itself, without the words of HTTP around it.
fn refusal(why: client::Error) -> String {
    match why {
        client::Error::Unexpected { code: 500, body } => format!("error: {body}"),
        other => format!("error: {other}"),
    }
}

fn list(client: &client::Client, console: &mut Console<'_>) -> u8 {
    console.say("==> Gathering installed encryption keys...");
    let pools = http::wait_for(async {
        let pools = client.keyring().await;
        pools.map_err(refusal)
    });
    let mut pools = match pools {
        Ok(pools) => pools,
        Err(why) => return http::failed(console, why),
    };
    pools.sort_by(|a, b| (!a.wan, &a.datacenter).cmp(&(!b.wan, &b.datacenter)));
    let mut status = OK;
    for pool in &pools {
        let name = if pool.wan {
            "WAN".to_owned()
        } else {
            format!("{} (LAN)", pool.datacenter)
        };
        if !pool.error.is_empty() {
            console.say(format_args!("\n{name} error: {}", pool.error));
            for (member, message) in &pool.messages {
                console.say(format_args!("  {member}: {message}"));
            }
            status = FAILED;
            continue;
        }
        console.say(format_args!("\n{name}:"));
        for (key, have) in &pool.keys {
            console.say(format_args!("  {key} [{have}/{}]", pool.members));
        }
    }
    if status == OK {
        console.say("\n==> Done!");
    }
    status
}

#[cfg(test)]
mod tests {
    use crate::command::stub::{Reply, Stub};
    use crate::console::tests::consul;

    #[test]
    fn lists_the_keys_of_each_pool() {
        let stub = Stub::tcp(|_| {
            Reply::ok(
                r#"[{"WAN":false,"Datacenter":"dc1","Keys":{"b==":1,"a==":2},"NumNodes":2},{"WAN":true,"Datacenter":"dc1","Keys":{"c==":1},"NumNodes":1}]"#,
            )
        });
        let flag = format!("-http-addr={}", stub.address);
        let printed = consul(&["keyring", "-list", &flag], b"", &[]);
        assert_eq!(
            printed.output,
            "==> Gathering installed encryption keys...\n\nWAN:\n  c== [1/1]\n\ndc1 (LAN):\n  a== [2/2]\n  b== [1/2]\n\n==> Done!\n"
        );
        assert_eq!(printed.status, 0);
    }

    #[test]
    fn tells_which_members_failed() {
        let stub = Stub::tcp(|_| {
            Reply::ok(
                r#"[{"WAN":false,"Datacenter":"dc1","Messages":{"n1":"Keyring is empty (encryption not enabled)"},"Keys":{},"NumNodes":1,"Error":"1/1 nodes reported failure"}]"#,
            )
        });
        let flag = format!("-http-addr={}", stub.address);
        let printed = consul(&["keyring", "-list", &flag], b"", &[]);
        assert_eq!(printed.status, 1);
        assert!(
            printed.output.ends_with(
                "\ndc1 (LAN) error: 1/1 nodes reported failure\n  n1: Keyring is empty (encryption not enabled)\n"
            ),
            "{}",
            printed.output
        );
    }

    #[test]
    fn changes_a_key() {
        for (flag, method) in [("-install", "POST"), ("-use", "PUT"), ("-remove", "DELETE")] {
            let stub = Stub::tcp(|_| Reply::ok(""));
            let address = format!("-http-addr={}", stub.address);
            let printed = consul(&["keyring", flag, "k==", &address], b"", &[]);
            assert_eq!(printed.status, 0);
            assert!(printed.output.ends_with("...\n==> Done!\n"));
            let asked = stub.asked().remove(0);
            assert_eq!(asked.line, format!("{method} /v1/operator/keyring"));
            assert_eq!(asked.body, br#"{"Key":"k=="}"#);
        }
    }

    #[test]
    fn one_thing_at_a_time() {
        let printed = consul(&["keyring", "-list", "-use=a"], b"", &[]);
        assert_eq!(
            (printed.status, printed.output.as_str()),
            (1, "Only a single action is allowed\n")
        );
        let printed = consul(&["keyring"], b"", &[]);
        assert_eq!(printed.status, 1);
        assert!(printed.output.starts_with("Usage: consul keyring"));
        assert_eq!(
            consul(&["keyring", "-list", "-relay-factor=6"], b"", &[]).status,
            1
        );
    }
}
