//! `consul maint`.

use client::{Client, HealthCheck, Maintenance};

use super::{FAILED, OK, http};
use crate::console::Console;
use crate::flags::{Flag, Parsed, Syntax, Value};

pub(super) const SYNTAX: Syntax = Syntax {
    name: "maint",
    arguments: "",
    summary: "Takes a node or a service out of use, and back",
    about: "Takes the agent's node, or one service on it, out of use until it is taken into use again: a check that \
            is critical keeps it out of every answer that asks for what is healthy, also after a restart of the \
            agent. Without a flag it shows what is out of use, and why.",
    example: "consul maint\nconsul maint -enable -reason=\"new disks\"\nconsul maint -disable -service=web-1",
    flags: &[
        &[
            Flag::switch("enable", false, "Take the node or the service out of use."),
            Flag::switch("disable", false, "Take the node or the service into use."),
            Flag::new(
                "reason",
                Value::Text(""),
                "text",
                "Why it is out of use, for people; only with -enable.",
            ),
            Flag::new(
                "service",
                Value::Text(""),
                "id",
                "The id of the service that is meant; the whole node when not given.",
            ),
        ],
        http::AGENT,
    ],
};

pub(super) fn run(parsed: &Parsed, console: &mut Console<'_>) -> u8 {
    let (enable, disable) = (parsed.switch("enable"), parsed.switch("disable"));
    let (reason, service) = (parsed.text("reason"), parsed.text("service"));
    let change = match (enable, disable) {
        (true, true) => {
            return http::failed(console, "Only one of -enable or -disable may be provided");
        }
        (false, _) if !reason.is_empty() => {
            return http::failed(console, "Reason may only be provided with -enable");
        }
        (false, false) if !service.is_empty() => {
            return http::failed(console, "Service requires either -enable or -disable");
        }
        (true, false) => Some(Maintenance::Begin(reason)),
        (false, true) => Some(Maintenance::End),
        (false, false) => None,
    };
    let client = match http::client(parsed, console) {
        Ok(client) => client,
        Err(why) => return http::failed(console, http::cannot_connect(&why)),
    };
    let outcome = http::wait_for(async {
        match change {
            Some(change) => changed(&client, service, change).await,
            None => listed(&client).await,
        }
    });
    match outcome {
        Ok(lines) => {
            for line in lines {
                console.say(line);
            }
            OK
        }
        Err(why) => {
            console.say(why);
            FAILED
        }
    }
}

/// Takes something out of use or into it, and says so.
async fn changed(
    client: &Client,
    service: &str,
    change: Maintenance<'_>,
) -> Result<Vec<String>, String> {
    let (doing, done) = match change {
        Maintenance::Begin(_) => ("enabling", "enabled"),
        Maintenance::End => ("disabling", "disabled"),
    };
    if service.is_empty() {
        let changed = client.agent_maintenance(change).await;
        changed.map_err(|why| format!("Error {doing} node maintenance: {why}"))?;
        return Ok(vec![format!("Node maintenance is now {done}")]);
    }
    let changed = client.agent_service_maintenance(service, change).await;
    changed.map_err(|why| format!("Error {doing} service maintenance: {why}"))?;
    Ok(vec![format!(
        "Service maintenance is now {done} for {service:?}"
    )])
}

/// What is out of use.
async fn listed(client: &Client) -> Result<Vec<String>, String> {
    let checks = client.agent_checks().await;
    let checks = checks.map_err(|why| format!("Error getting checks: {why}"))?;
    let mut lines = Vec::new();
    let mut entry = |kind: &str, name: String, check: &HealthCheck| {
        let reason = format!("  Reason: {}", check.notes);
        lines.extend([kind.to_owned(), name, reason, String::new()]);
    };
    for check in checks.values() {
        if check.check_id == "_node_maintenance" {
            entry("Node:", format!("  Name:   {}", check.node), check);
        } else if check.check_id.starts_with("_service_maintenance:") {
            entry("Service:", format!("  ID:     {}", check.service_id), check);
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use crate::command::stub::{Reply, Stub};
    use crate::console::tests::consul;

    /// What comes of these flags, and what was asked for.
    fn maint(flags: &[&str], reply: &Reply) -> (u8, String, Vec<String>) {
        let reply = reply.clone();
        let stub = Stub::tcp(move |_| reply.clone());
        let address = format!("-http-addr={}", stub.address);
        let printed = consul(&[&["maint", &address], flags].concat(), b"", &[]);
        (printed.status, printed.output, stub.lines())
    }

    #[test]
    fn takes_out_of_use_and_back() {
        for (flags, asked, output) in [
            (
                &["-enable"][..],
                "/v1/agent/maintenance?enable=true&reason=",
                "Node maintenance is now enabled\n",
            ),
            (
                &["-enable", "-reason=new disks"],
                "/v1/agent/maintenance?enable=true&reason=new+disks",
                "Node maintenance is now enabled\n",
            ),
            (
                &["-disable"],
                "/v1/agent/maintenance?enable=false",
                "Node maintenance is now disabled\n",
            ),
            (
                &["-enable", "-service=web 1", "-reason=x"],
                "/v1/agent/service/maintenance/web%201?enable=true&reason=x",
                "Service maintenance is now enabled for \"web 1\"\n",
            ),
            (
                &["-disable", "-service", "web"],
                "/v1/agent/service/maintenance/web?enable=false",
                "Service maintenance is now disabled for \"web\"\n",
            ),
        ] {
            let done = maint(flags, &Reply::ok(""));
            let expected = (0, output.to_owned(), vec![format!("PUT {asked}")]);
            assert_eq!(done, expected, "{flags:?}");
        }
    }

    #[test]
    fn lists_what_is_out_of_use() {
        let checks = r#"{
            "service:web":{"Node":"n1","CheckID":"service:web","Notes":"x","ServiceID":"web"},
            "_service_maintenance:web":{"Node":"n1","CheckID":"_service_maintenance:web","Notes":"a | b","ServiceID":"web"},
            "_node_maintenance":{"Node":"n1","CheckID":"_node_maintenance","Notes":"new disks","ServiceID":""}}"#;
        let (status, output, asked) = maint(&[], &Reply::ok(checks));
        let expected = "\
Node:
  Name:   n1
  Reason: new disks

Service:
  ID:     web
  Reason: a | b

";
        assert_eq!((status, output.as_str()), (0, expected));
        assert_eq!(asked, ["GET /v1/agent/checks"]);
        assert_eq!(maint(&[], &Reply::ok("{}")).1, "");
    }

    #[test]
    fn what_makes_no_sense_is_not_asked() {
        for (flags, output) in [
            (
                &["-enable", "-disable"][..],
                "Only one of -enable or -disable may be provided\n",
            ),
            (
                &["-disable", "-reason=x"],
                "Reason may only be provided with -enable\n",
            ),
            (&["-reason=x"], "Reason may only be provided with -enable\n"),
            (
                &["-service=web"],
                "Service requires either -enable or -disable\n",
            ),
        ] {
            let refused = maint(flags, &Reply::ok(""));
            assert_eq!(refused, (1, output.to_owned(), Vec::new()), "{flags:?}");
        }
    }

    #[test]
    fn says_what_the_agent_refuses() {
        let unknown = Reply::status(404, "No service registered with ID \"x\"");
        for (flags, beginning) in [
            (&["-enable"][..], "Error enabling node maintenance: "),
            (&["-disable"], "Error disabling node maintenance: "),
            (
                &["-enable", "-service=x"],
                "Error enabling service maintenance: ",
            ),
            (
                &["-disable", "-service=x"],
                "Error disabling service maintenance: ",
            ),
            (&[], "Error getting checks: "),
        ] {
            let (status, output, _) = maint(flags, &unknown);
            let expected = format!(
                "{beginning}Unexpected response code: 404 (No service registered with ID \"x\")\n"
            );
            assert_eq!((status, output), (1, expected), "{flags:?}");
        }
    }
}
