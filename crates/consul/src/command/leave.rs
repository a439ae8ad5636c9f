//! `consul leave`.

use super::{FAILED, OK, http};
use crate::console::Console;
use crate::flags::{Parsed, Syntax};

pub(super) const SYNTAX: Syntax = Syntax {
    name: "leave",
    arguments: "",
    summary: "Lets an agent leave the cluster and stop",
    about: "Lets a running agent say good-bye to the cluster and stop. The catalog forgets its node with all its \
            services at once, and a server stops taking part in consensus.",
    example: "consul leave",
    flags: &[http::AGENT, http::RPC],
};

pub(super) fn run(parsed: &Parsed, console: &mut Console<'_>) -> u8 {
    if !parsed.arguments.is_empty() {
        console.say(format_args!(
            "Error found unexpected args: [{}]\n",
            parsed.arguments.join(" ")
        ));
        console.say(SYNTAX.help());
        return FAILED;
    }
    let client = match http::client_instead_of_rpc(parsed, console) {
        Ok(client) => client,
        Err(why) => return http::failed(console, http::cannot_connect(&why)),
    };
    let done = http::wait_for(async {
        let done = client.agent_leave().await;
        done.map_err(|why| format!("Error leaving: {why}"))
    });
    match done {
        Ok(()) => {
            console.say("Graceful leave complete");
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
    fn asks_once_and_says_so() {
        let stub = Stub::tcp(|_| Reply::ok(""));
        let flag = format!("-http-addr={}", stub.address);
        let printed = consul(&["leave", &flag], b"", &[]);
        assert_eq!(
            (printed.status, printed.output.as_str()),
            (0, "Graceful leave complete\n")
        );
        assert_eq!(stub.lines(), ["PUT /v1/agent/leave"]);

        let printed = consul(&["leave", &flag, "x"], b"", &[]);
        assert_eq!(printed.status, 1);
        assert!(
            printed
                .output
                .starts_with("Error found unexpected args: [x]\n")
        );
        assert!(stub.lines().is_empty());
    }
}
