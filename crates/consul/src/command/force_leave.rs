//! `consul force-leave`.

use super::{FAILED, OK, http};
use crate::console::Console;
use crate::flags::{Parsed, Syntax};

pub(super) const SYNTAX: Syntax = Syntax {
    name: "force-leave",
    arguments: "NODE",
    summary: "Says of a failed member that it has left",
    about: "Says of a member that has failed and won't come back that it has left, so that the catalog forgets it \
            now instead of after three days. A member that is still there says so, and stays.",
    example: "consul force-leave db-3",
    flags: &[http::AGENT, http::RPC],
};

pub(super) fn run(parsed: &Parsed, console: &mut Console<'_>) -> u8 {
    let [node] = &parsed.arguments[..] else {
        console.say("A single node name must be specified to force leave.\n");
        console.say(SYNTAX.help());
        return FAILED;
    };
    let client = match http::client_instead_of_rpc(parsed, console) {
        Ok(client) => client,
        Err(why) => return http::failed(console, http::cannot_connect(&why)),
    };
    let done = http::wait_for(async {
        let done = client.agent_force_leave(node).await;
        done.map_err(|why| format!("Error force leaving: {why}"))
    });
    match done {
        Ok(()) => OK,
        Err(why) => http::failed(console, why),
    }
}

#[cfg(test)]
mod tests {
    use crate::command::stub::{Reply, Stub};
    use crate::console::tests::consul;

    #[test]
    fn says_nothing_when_it_is_done() {
        let stub = Stub::tcp(|_| Reply::ok(""));
        let flag = format!("-http-addr={}", stub.address);
        let printed = consul(&["force-leave", &flag, "db 3"], b"", &[]);
        assert_eq!((printed.status, printed.output.as_str()), (0, ""));
        assert_eq!(stub.lines(), ["PUT /v1/agent/force-leave/db%203"]);
        assert_eq!(consul(&["force-leave", &flag], b"", &[]).status, 1);
    }
}
