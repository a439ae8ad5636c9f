//! `consul info`.

use super::{OK, http};
use crate::console::Console;
use crate::flags::{Parsed, Syntax};

pub(super) const SYNTAX: Syntax = Syntax {
    name: "info",
    arguments: "",
    summary: "Prints an agent's figures about itself",
    about: "Prints what the agent knows about itself and its part in the cluster: its build, its role, its log, \
            its members. Meant for people who look for a fault.",
    example: "consul info",
    flags: &[http::AGENT, http::RPC],
};

pub(super) fn run(parsed: &Parsed, console: &mut Console<'_>) -> u8 {
    let client = match http::client_instead_of_rpc(parsed, console) {
        Ok(client) => client,
        Err(why) => return http::failed(console, http::cannot_connect(&why)),
    };
    let stats = http::wait_for(async {
        client
            .agent_stats()
            .await
            .map_err(|why| format!("Error querying agent: {why}"))
    });
    match stats {
        Ok(sections) => {
            for (section, figures) in sections {
                console.say(format_args!("{section}:"));
                for (name, value) in figures {
                    console.say(format_args!("\t{name} = {value}"));
                }
            }
            OK
        }
        Err(why) => http::failed(console, why),
    }
}

#[cfg(test)]
mod tests {
    use crate::command::stub::{Reply, Stub};
    use crate::console::tests::consul;

    #[test]
    fn prints_sections_in_order() {
        let stub = Stub::tcp(|_| {
            Reply::ok(
                r#"{"Config":{},"Stats":{"raft":{"term":"2","state":"Leader"},"agent":{"checks":"0"}}}"#,
            )
        });
        let flag = format!("-http-addr={}", stub.address);
        let printed = consul(&["info", &flag, "-rpc-addr=x"], b"", &[]);
        assert_eq!(
            printed.output,
            "agent:\n\tchecks = 0\nraft:\n\tstate = Leader\n\tterm = 2\n"
        );
        assert!(
            printed.errors.contains("-rpc-addr is ignored"),
            "{}",
            printed.errors
        );
        assert_eq!(stub.lines(), ["GET /v1/agent/self"]);
    }
}
