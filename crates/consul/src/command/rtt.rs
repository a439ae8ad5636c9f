//! `consul rtt`.

use std::time::Duration;

use client::{Client, Coordinate};

use super::{FAILED, OK, http};
use crate::console::Console;
use crate::flags::{Flag, Parsed, Syntax};

pub(super) const SYNTAX: Syntax = Syntax {
    name: "rtt",
    arguments: "NODE [NODE]",
    summary: "Estimates the round-trip time between two nodes",
    about: "Estimates how long a packet takes from one node to another and back, from the network coordinates that \
            all members keep. The second node is the agent's own when not given. With -wan the names are those of \
            servers, each followed by a dot and its datacenter.",
    example: "consul rtt db-1 web-3\nconsul rtt db-1",
    flags: &[
        &[Flag::switch(
            "wan",
            false,
            "Use the coordinates between datacenters.",
        )],
        http::AGENT,
    ],
};

/// What is wrong with the names.
enum Problem {
    /// How many there are.
    Count,
    /// A message.
    Text(String),
}

impl From<client::Error> for Problem {
    fn from(error: client::Error) -> Self {
        Self::Text(format!("Error getting coordinates: {error}"))
    }
}

pub(super) fn run(parsed: &Parsed, console: &mut Console<'_>) -> u8 {
    let client = match http::client(parsed, console) {
        Ok(client) => client,
        Err(why) => return http::failed(console, http::cannot_connect(&why)),
    };
    let outcome = http::wait_for(async {
        Ok(if parsed.switch("wan") {
            between_datacenters(&client, &parsed.arguments).await
        } else {
            within(&client, &parsed.arguments).await
        })
    });
    match outcome {
        Ok(Ok((from, to, space, trip))) => {
            let millis = trip.as_secs_f64() * 1000.0;
            console.say(format_args!(
                "Estimated {from} <-> {to} rtt: {millis:.3} ms (using {space} coordinates)"
            ));
            OK
        }
        Ok(Err(Problem::Count)) => {
            console.say("One or two node names must be specified\n");
            console.say(SYNTAX.help());
            FAILED
        }
        Ok(Err(Problem::Text(why))) | Err(why) => http::failed(console, why),
    }
}

type Trip = (String, String, &'static str, Duration);

async fn within(client: &Client, names: &[String]) -> Result<Trip, Problem> {
    let (from, to) = match names {
        [from] => (from.clone(), client.agent_node().await?),
        [from, to] => (from.clone(), to.clone()),
        _ => return Err(Problem::Count),
    };
    let entries = client.coordinate_nodes().await?;
    let find = |name: &str| {
        let entry = entries.iter().find(|entry| entry.node == name);
        entry.map(|entry| &entry.coord).ok_or_else(|| missing(name))
    };
    let trip = trip(find(&from)?, find(&to)?)?;
    Ok((from, to, "LAN", trip))
}

async fn between_datacenters(client: &Client, names: &[String]) -> Result<Trip, Problem> {
    let (from, to) = match names {
        [from] => {
            let stats = client.agent_members(true).await?;
            let node = client.agent_node().await?;
            let own = stats.into_iter().find(|member| {
                member
                    .name
                    .rsplit_once('.')
                    .is_some_and(|(name, _)| name == node)
            });
            let own = own.ok_or_else(|| {
                Problem::Text(format!(
                    "Could not find the agent's own node {node:?} among the servers of all datacenters"
                ))
            })?;
            (from.clone(), own.name)
        }
        [from, to] => (from.clone(), to.clone()),
        _ => return Err(Problem::Count),
    };
    let datacenters = client.coordinate_datacenters().await?;
    let find = |name: &str| {
        let mut parts = name.split('.');
        let (Some(node), Some(datacenter), None) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(Problem::Text(
                "Node names must be specified as <node name>.<datacenter> with -wan".to_owned(),
            ));
        };
        let of_datacenter = datacenters
            .iter()
            .filter(|known| known.datacenter == datacenter);
        of_datacenter
            .flat_map(|known| &known.coordinates)
            .find(|entry| entry.node == node)
            .map(|entry| &entry.coord)
            .ok_or_else(|| missing(name))
    };
    let trip = trip(find(&from)?, find(&to)?)?;
    Ok((from, to, "WAN", trip))
}

fn missing(name: &str) -> Problem {
    Problem::Text(format!("Could not find a coordinate for node {name:?}"))
}

fn trip(from: &Coordinate, to: &Coordinate) -> Result<Duration, Problem> {
    from.distance(to).ok_or_else(|| {
        Problem::Text("The coordinates of the two nodes don't belong to the same space".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use crate::command::stub::{Reply, Stub};
    use crate::console::tests::consul;

    fn rtt(arguments: &[&str]) -> (u8, String) {
        let stub = Stub::tcp(|asked| {
            let coord =
                |x: f64| format!(r#"{{"Vec":[{x}],"Error":1,"Adjustment":0,"Height":0.0001}}"#);
            let entry = |node, x| format!(r#"{{"Node":"{node}","Coord":{}}}"#, coord(x));
            Reply::ok(match asked.line.as_str() {
                "GET /v1/agent/self" => r#"{"Config":{"NodeName":"n1"}}"#.to_owned(),
                "GET /v1/coordinate/nodes" => {
                    format!("[{},{}]", entry("n1", 0.0), entry("n2", 0.001))
                }
                "GET /v1/coordinate/datacenters" => format!(
                    r#"[{{"Datacenter":"dc1","Coordinates":[{}]}},{{"Datacenter":"dc2","Coordinates":[{}]}}]"#,
                    entry("n1", 0.0),
                    entry("n2", 0.05)
                ),
                other => panic!("unexpected {other}"),
            })
        });
        let flag = format!("-http-addr={}", stub.address);
        let printed = consul(&[&["rtt", &flag], arguments].concat(), b"", &[]);
        (printed.status, printed.output)
    }

    #[test]
    fn estimates() {
        let expected = "Estimated n2 <-> n1 rtt: 1.200 ms (using LAN coordinates)\n".to_owned();
        assert_eq!(rtt(&["n2", "n1"]), (0, expected.clone()));
        assert_eq!(rtt(&["n2"]), (0, expected));
        let expected =
            "Estimated n1.dc1 <-> n2.dc2 rtt: 50.200 ms (using WAN coordinates)\n".to_owned();
        assert_eq!(rtt(&["-wan", "n1.dc1", "n2.dc2"]), (0, expected));
    }

    #[test]
    fn names_that_make_no_sense() {
        let missing = "Could not find a coordinate for node \"x\"\n".to_owned();
        assert_eq!(rtt(&["x"]), (1, missing));
        let (status, output) = rtt(&[]);
        assert_eq!(status, 1);
        assert!(output.starts_with("One or two node names must be specified\n"));
        let (status, output) = rtt(&["-wan", "a.b.c", "n2.dc2"]);
        assert_eq!(status, 1);
        assert!(output.starts_with("Node names must be specified as <node name>.<datacenter>"));
    }
}
