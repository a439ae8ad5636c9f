//! `consul monitor`.

use super::{FAILED, OK, http};
use crate::console::Console;
use crate::flags::{Flag, Parsed, Syntax, Value};

pub(super) const SYNTAX: Syntax = Syntax {
    name: "monitor",
    arguments: "",
    summary: "Shows the log of an agent as it flows",
    about: "Shows the last lines of a running agent's log and those that follow, until it is interrupted. The level \
            is independent of the agent's own: it can show more than the agent prints.",
    example: "consul monitor -log-level=debug",
    flags: &[
        &[Flag::new(
            "log-level",
            Value::Text("INFO"),
            "level",
            "The least level to show: trace, debug, info, warn or err.",
        )],
        http::AGENT,
        http::RPC,
    ],
};

/// Why following a log ended.
enum End {
    /// The agent ended, or the connection broke.
    Gone,
    /// Somebody has seen enough, or nobody reads any more.
    Enough,
}

pub(super) fn run(parsed: &Parsed, console: &mut Console<'_>) -> u8 {
    let client = match http::client_instead_of_rpc(parsed, console) {
        Ok(client) => client,
        Err(why) => return http::failed(console, http::cannot_connect(&why)),
    };
    let level = parsed.text("log-level").to_uppercase();
    let ended = http::wait_for(async {
        let mut lines = client
            .agent_monitor(&level)
            .await
            .map_err(|why| match why {
                client::Error::Unexpected { code: 400, body } => {
                    format!("Error starting monitor: {body}")
                }
                other => format!("Error starting monitor: {other}"),
            })?;
        let follow = async {
            while let Ok(Some(piece)) = lines.next().await {
                let written = console.write(&piece).and_then(|()| console.output.flush());
                if written.is_err() {
                    return Ok(End::Enough);
                }
            }
            Ok(End::Gone)
        };
        http::until_stopped(follow).await
    });
    match ended {
        Ok(Some(End::Gone)) => {
            console.say("\nRemote side ended the monitor! This usually means that the\nremote side has exited or crashed.");
            FAILED
        }
        Ok(Some(End::Enough) | None) => OK,
        Err(why) => http::failed(console, why),
    }
}

#[cfg(test)]
mod tests {
    use crate::command::stub::{Reply, Stub};
    use crate::console::tests::consul;

    #[test]
    fn shows_lines_until_the_agent_is_gone() {
        let stub = Stub::tcp(|_| Reply::ok("one\ntwo\n"));
        let flag = format!("-http-addr={}", stub.address);
        let printed = consul(&["monitor", &flag, "-log-level=debug"], b"", &[]);
        assert_eq!(printed.status, 1);
        assert!(
            printed
                .output
                .starts_with("one\ntwo\n\nRemote side ended the monitor!")
        );
        assert_eq!(stub.lines(), ["GET /v1/agent/monitor?loglevel=DEBUG"]);
    }

    #[test]
    fn there_are_only_so_many_levels() {
        let stub = Stub::tcp(|_| Reply::status(400, "Unknown log level: BOGUS"));
        let flag = format!("-http-addr={}", stub.address);
        let printed = consul(&["monitor", &flag, "-log-level=BOGUS"], b"", &[]);
        assert_eq!(
            (printed.status, printed.output.as_str()),
            (1, "Error starting monitor: Unknown log level: BOGUS\n")
        );
    }
}
