//! `consul event`.

use bytes::Bytes;
use client::{Client, NewEvent};
use model::re2;

use super::{FAILED, OK, http};
use crate::console::Console;
use crate::flags::{Flag, Parsed, Syntax, Value};

/// Which agents an event is for.
pub(super) const FILTERS: &[Flag] = &[
    Flag::new(
        "node",
        Value::Text(""),
        "regexp",
        "Only nodes whose names this regular expression finds something in.",
    ),
    Flag::new(
        "service",
        Value::Text(""),
        "regexp",
        "Only nodes with a service in whose id it finds something.",
    ),
    Flag::new(
        "tag",
        Value::Text(""),
        "regexp",
        "With -service: only if that service has a tag in which it finds something.",
    ),
];

pub(super) const SYNTAX: Syntax = Syntax {
    name: "event",
    arguments: "[PAYLOAD]",
    summary: "Fires a user event",
    about: "Sends a short message to the agents of a datacenter, or to those that the filters choose. It reaches who is \
            there within about a second, in no order, and nobody knows who has got it. Name, payload and filters have \
            some 430 bytes together. What came is shown by watches of type event.",
    example: "consul event -name=deploy -service=web v2",
    flags: &[
        &[Flag::new(
            "name",
            Value::Text(""),
            "name",
            "What the event is called; needed.",
        )],
        FILTERS,
        http::DATACENTER,
        http::AGENT,
    ],
};

pub(super) fn run(parsed: &Parsed, console: &mut Console<'_>) -> u8 {
    let name = parsed.text("name");
    if name.is_empty() {
        return misused(console, "Event name must be specified");
    }
    let payload = match parsed.arguments.as_slice() {
        [] => Bytes::new(),
        [payload] => Bytes::from(payload.clone()),
        _ => return misused(console, "Too many command line arguments."),
    };
    if let Err(why) = check_filters(parsed) {
        return http::failed(console, why);
    }
    let client = match http::client(parsed, console) {
        Ok(client) => client,
        Err(why) => return http::failed(console, http::cannot_connect(&why)),
    };
    let event = NewEvent {
        name: name.to_owned(),
        payload,
        ..filters(parsed)
    };
    let options = http::write_options(parsed);
    let fired = http::wait_for(async {
        reach(&client).await?;
        let fired = client.event_fire(&event, &options).await;
        fired.map_err(|why| format!("Error firing event: {why}"))
    });
    match fired {
        Ok(id) => {
            console.say(format_args!("Event ID: {id}"));
            OK
        }
        Err(why) => http::failed(console, why),
    }
}

/// Says what is wrong with the line, and how it is to be.
fn misused(console: &mut Console<'_>, why: &str) -> u8 {
    console.say(format_args!("{why}\n"));
    console.say(SYNTAX.help());
    FAILED
}

/// Refuses filters that make no sense, before anything is asked.
pub(super) fn check_filters(parsed: &Parsed) -> Result<(), String> {
    for name in ["node", "service", "tag"] {
        if let Err(why) = re2::compile(parsed.text(name).as_bytes()) {
            return Err(format!("Failed to compile {name} filter regexp: {why}"));
        }
    }
    if !parsed.text("tag").is_empty() && parsed.text("service").is_empty() {
        return Err("Cannot provide tag filter without service filter.".to_owned());
    }
    Ok(())
}

/// An event with the filters that the flags name, and nothing else.
pub(super) fn filters(parsed: &Parsed) -> NewEvent {
    NewEvent {
        node_filter: parsed.text("node").to_owned(),
        service_filter: parsed.text("service").to_owned(),
        tag_filter: parsed.text("tag").to_owned(),
        ..NewEvent::default()
    }
}

/// Makes sure that there is an agent, and says who and where it is: its node and its datacenter.
pub(super) async fn reach(client: &Client) -> Result<(String, String), String> {
    let place = client.agent_place().await;
    place.map_err(|why| format!("Error querying Consul agent: {why}"))
}

#[cfg(test)]
mod tests {
    use crate::command::stub::{Asked, Reply, Stub};
    use crate::console::tests::consul;

    const SELF: &str = r#"{"Config":{"NodeName":"n1","Datacenter":"dc1"}}"#;

    /// What comes of these arguments, and what was asked for.
    fn event(arguments: &[&str], fired: &Reply) -> (u8, String, Vec<Asked>) {
        let fired = fired.clone();
        let stub = Stub::tcp(move |asked| match asked.line.as_str() {
            "GET /v1/agent/self" => Reply::ok(SELF),
            _ => fired.clone(),
        });
        let address = format!("-http-addr={}", stub.address);
        let printed = consul(&[&["event", &address], arguments].concat(), b"", &[]);
        (printed.status, printed.output, stub.asked())
    }

    #[test]
    fn fires() {
        let fired = Reply::ok(
            r#"{"ID":"b54fe110-7af5-cafc-d1fb-afc8ba432b1c","Name":"deploy","Payload":null,"New":1}"#,
        );
        for (arguments, line, payload) in [
            (&["-name=deploy"][..], "PUT /v1/event/fire/deploy", ""),
            (&["-name", "a b", "v 2"], "PUT /v1/event/fire/a%20b", "v 2"),
            (
                &[
                    "-name=x",
                    "-node=^n[12]",
                    "-service=web",
                    "-tag=v1|v2",
                    "-datacenter=dc2",
                    "",
                ],
                "PUT /v1/event/fire/x?dc=dc2&node=%5En%5B12%5D&service=web&tag=v1%7Cv2",
                "",
            ),
        ] {
            let (status, output, asked) = event(arguments, &fired);
            let said = "Event ID: b54fe110-7af5-cafc-d1fb-afc8ba432b1c\n";
            assert_eq!((status, output.as_str()), (0, said), "{arguments:?}");
            assert_eq!(asked[1].line, line);
            assert_eq!(asked[1].body, payload.as_bytes());
        }
    }

    #[test]
    fn what_makes_no_sense_is_not_asked() {
        for (arguments, begins, helps) in [
            (
                &[][..],
                "Event name must be specified\n\nUsage: consul event ",
                true,
            ),
            (
                &["-name=x", "a", "b"],
                "Too many command line arguments.\n\nUsage: consul event ",
                true,
            ),
            (
                &["-name=x", "-node=("],
                "Failed to compile node filter regexp: error parsing regexp: missing closing ): `(`\n",
                false,
            ),
            (
                &["-name=x", "-service=*"],
                "Failed to compile service filter regexp: error parsing regexp: missing argument to repetition operator: `*`\n",
                false,
            ),
            (
                &["-name=x", "-service=web", "-tag=["],
                "Failed to compile tag filter regexp: error parsing regexp: missing closing ]: `[`\n",
                false,
            ),
            (
                &["-name=x", "-tag=v1"],
                "Cannot provide tag filter without service filter.\n",
                false,
            ),
        ] {
            let (status, output, asked) = event(arguments, &Reply::ok(""));
            assert_eq!((status, asked.len()), (1, 0), "{arguments:?}");
            assert!(output.starts_with(begins), "{output}");
            assert!(helps || output == begins, "{output}");
        }
    }

    #[test]
    fn says_what_the_agent_refuses() {
        let large = Reply::status(500, "user event exceeds limit of 512 bytes");
        let (status, output, _) = event(&["-name=x", "large"], &large);
        let expected = "Error firing event: Unexpected response code: 500 (user event exceeds limit of 512 bytes)\n";
        assert_eq!((status, output.as_str()), (1, expected));

        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let flag = format!("-http-addr={address}");
        let printed = consul(&["event", &flag, "-name=x"], b"", &[]);
        let expected = format!("Error querying Consul agent: Get http://{address}/v1/agent/self: ");
        assert!(printed.output.starts_with(&expected), "{}", printed.output);
        assert_eq!(printed.status, 1);
    }
}
