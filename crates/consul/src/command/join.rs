//! `consul join`.

use super::{FAILED, OK, http};
use crate::console::Console;
use crate::flags::{Flag, Parsed, Syntax};

pub(super) const SYNTAX: Syntax = Syntax {
    name: "join",
    arguments: "ADDRESS...",
    summary: "Lets an agent join the cluster of another",
    about: "Lets a running agent get to know the members at these addresses, and through them all others. One that \
            answers is enough. An address is host, host:port or [ip]:port; the port is the one of gossip.",
    example: "consul join 10.0.0.1 10.0.0.2:8301",
    flags: &[
        &[Flag::switch(
            "wan",
            false,
            "Join the pool of servers of all datacenters.",
        )],
        http::AGENT,
        http::RPC,
    ],
};

pub(super) fn run(parsed: &Parsed, console: &mut Console<'_>) -> u8 {
    if parsed.arguments.is_empty() {
        console.say("At least one address to join must be specified.\n");
        console.say(SYNTAX.help());
        return FAILED;
    }
    let client = match http::client_instead_of_rpc(parsed, console) {
        Ok(client) => client,
        Err(why) => return http::failed(console, http::cannot_connect(&why)),
    };
    let wan = parsed.switch("wan");
    let outcome = http::wait_for(async {
        let mut failures = Vec::new();
        for address in &parsed.arguments {
            if let Err(why) = client.agent_join(address, wan).await {
                failures.push(why);
            }
        }
        Ok(failures)
    });
    let failures = match outcome {
        Ok(failures) => failures,
        Err(why) => return http::failed(console, why),
    };
    let reached = parsed.arguments.len() - failures.len();
    if reached == 0 {
        let why: Vec<String> = failures.iter().map(reason).collect();
        return http::failed(
            console,
            format_args!("Error joining the cluster: {}", why.join("\n")),
        );
    }
    for failure in &failures {
        console.note(reason(failure));
    }
    console.say(format_args!(
        "Successfully joined cluster by contacting {reached} nodes."
    ));
    OK
}

/// What the agent says itself, without the words of HTTP around it.
fn reason(failure: &client::Error) -> String {
    match failure {
        client::Error::Unexpected { code: 500, body } => body.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use crate::command::stub::{Reply, Stub};
    use crate::console::tests::consul;

    #[test]
    fn one_that_answers_is_enough() {
        let stub = Stub::tcp(|asked| {
            if asked.line.contains("10.9") {
                Reply::status(
                    500,
                    "1 error(s) occurred:\n\n* Failed to join 10.9.0.1: connection refused",
                )
            } else {
                Reply::ok("")
            }
        });
        let flag = format!("-http-addr={}", stub.address);
        let printed = consul(&["join", &flag, "10.0.0.1:8301", "10.9.0.1"], b"", &[]);
        assert_eq!(printed.status, 0);
        assert_eq!(
            printed.output,
            "Successfully joined cluster by contacting 1 nodes.\n"
        );
        assert_eq!(
            stub.lines(),
            [
                "PUT /v1/agent/join/10.0.0.1:8301",
                "PUT /v1/agent/join/10.9.0.1"
            ]
        );

        let printed = consul(&["join", "-wan", &flag, "10.9.0.1"], b"", &[]);
        assert_eq!(printed.status, 1);
        assert_eq!(
            printed.output,
            "Error joining the cluster: 1 error(s) occurred:\n\n* Failed to join 10.9.0.1: connection refused\n"
        );
        assert_eq!(stub.lines(), ["PUT /v1/agent/join/10.9.0.1?wan=1"]);
    }

    #[test]
    fn somebody_must_be_named() {
        let printed = consul(&["join"], b"", &[]);
        assert_eq!(printed.status, 1);
        assert!(printed.output.starts_with("At least one address"));
        assert!(printed.output.contains("Usage: consul join"));
    }
}
