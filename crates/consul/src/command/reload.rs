//! `consul reload`.

use super::{OK, http};
use crate::console::Console;
use crate::flags::{Parsed, Syntax};

pub(super) const SYNTAX: Syntax = Syntax {
    name: "reload",
    arguments: "",
    summary: "Lets an agent read its configuration again",
    about: "Lets a running agent read its configuration files again and apply what can be applied while it runs. \
            What needs a restart is named in its log. If something is wrong with the files, nothing changes.",
    example: "consul reload",
    flags: &[http::AGENT, http::RPC],
};

pub(super) fn run(parsed: &Parsed, console: &mut Console<'_>) -> u8 {
    let client = match http::client_instead_of_rpc(parsed, console) {
        Ok(client) => client,
        Err(why) => return http::failed(console, http::cannot_connect(&why)),
    };
    let done = http::wait_for(async {
        let done = client.agent_reload().await;
        done.map_err(|why| format!("Error reloading: {why}"))
    });
    match done {
        Ok(()) => {
            console.say("Configuration reload triggered");
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
    fn tells_what_is_wrong_with_the_files() {
        let stub = Stub::tcp(|_| Reply::status(500, "Config has invalid keys: x"));
        let flag = format!("-http-addr={}", stub.address);
        let printed = consul(&["reload", &flag], b"", &[]);
        assert_eq!(
            (printed.status, printed.output.as_str()),
            (
                1,
                "Error reloading: Unexpected response code: 500 (Config has invalid keys: x)\n"
            )
        );
        assert_eq!(stub.lines(), ["PUT /v1/agent/reload"]);
    }

    #[test]
    fn says_that_it_is_done() {
        let stub = Stub::tcp(|_| Reply::ok(""));
        let flag = format!("-http-addr={}", stub.address);
        let printed = consul(&["reload", &flag], b"", &[]);
        assert_eq!(
            (printed.status, printed.output.as_str()),
            (0, "Configuration reload triggered\n")
        );
    }
}
