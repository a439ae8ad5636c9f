//! Which servers an agent without one of its own may ask, as gossip tells it.

use gossip::{Event, Gossip, Member, Status};
use rpc::{Distant, ServerAddress};

use crate::members::NEW_LEADER;

/// Keeps the list of servers true, until gossip ends.
pub async fn follow(gossip: Gossip, datacenter: String, servers: Distant) {
    let mut events = gossip.subscribe();
    loop {
        let members = gossip.members();
        let known = members
            .iter()
            .filter_map(|member| server(member, &datacenter));
        let known = known.collect();
        servers.servers().set(known);
        if events.next().await.is_none() {
            return;
        }
        // What comes together is looked at together.
        while events.try_next().is_some() {}
    }
}

/// Calls `changed` whenever a server came up or a leader was elected, until gossip ends: what could not be written before
/// may go through now.
pub async fn watch(gossip: Gossip, datacenter: String, changed: impl Fn()) {
    let mut events = gossip.subscribe();
    while let Some(event) = events.next().await {
        if is_hopeful(&event, &datacenter) {
            changed();
        }
    }
}

/// Whether after this event a server may answer that didn't before.
fn is_hopeful(event: &Event, datacenter: &str) -> bool {
    match event {
        Event::Joined(member) | Event::Updated(member) => server(member, datacenter).is_some(),
        Event::User(event) => event.name == NEW_LEADER,
        // One of them may have been such an event.
        Event::Missed(_) => true,
        Event::Leaving(_) | Event::Left(_) | Event::Failed(_) | Event::Reaped(_) => false,
    }
}

/// The server that this member is, if it is one of this datacenter that answers.
fn server(member: &Member, datacenter: &str) -> Option<ServerAddress> {
    let tag = |name: &str| member.tags.get(name).map(String::as_str);
    let is_server = tag("role") == Some("consul")
        && tag("dc") == Some(datacenter)
        && member.status == Status::Alive;
    let port: u16 = tag("port")?.parse().ok()?;
    (is_server && port != 0).then(|| ServerAddress {
        address: (member.address.ip(), port).into(),
        node: member.name.clone(),
        datacenter: datacenter.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(role: &str, dc: &str, port: &str, status: Status) -> Member {
        let versions = gossip::Versions {
            min: 1,
            max: 5,
            current: 2,
        };
        let tags = [("role", role), ("dc", dc), ("port", port)];
        let tags = tags.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Member {
            name: "n1".to_owned(),
            address: "10.0.0.1:8301".parse().unwrap(),
            tags: tags.into(),
            status,
            since: tokio::time::Instant::now(),
            protocol: versions,
            delegate: versions,
        }
    }

    #[test]
    fn only_servers_of_this_datacenter_that_answer() {
        let member = |role: &str, dc: &str, port: &str, status| {
            let found = server(&some(role, dc, port, status), "dc1");
            found.map(|server| server.address.to_string())
        };
        let found = Some("10.0.0.1:8300".to_owned());
        assert_eq!(member("consul", "dc1", "8300", Status::Alive), found);
        assert_eq!(member("consul", "dc1", "8300", Status::Leaving), None);
        assert_eq!(member("consul", "dc1", "8300", Status::Failed), None);
        assert_eq!(member("consul", "dc2", "8300", Status::Alive), None);
        assert_eq!(member("node", "dc1", "8300", Status::Alive), None);
        assert_eq!(member("consul", "dc1", "0", Status::Alive), None);
        assert_eq!(member("consul", "dc1", "many", Status::Alive), None);
    }

    #[test]
    fn news_of_servers_give_hope() {
        let joined = |role, dc| Event::Joined(some(role, dc, "8300", Status::Alive));
        let user = |name: &str| {
            Event::User(gossip::UserEvent {
                ltime: 1,
                name: name.to_owned(),
                payload: "n3".into(),
                coalesce: false,
            })
        };
        let cases = [
            (joined("consul", "dc1"), true),
            (joined("consul", "dc2"), false),
            (joined("node", "dc1"), false),
            (
                Event::Failed(some("consul", "dc1", "8300", Status::Failed)),
                false,
            ),
            (user(NEW_LEADER), true),
            (user("deploy"), false),
            (Event::Missed(1), true),
        ];
        for (event, expected) in cases {
            assert_eq!(is_hopeful(&event, "dc1"), expected, "{event:?}");
        }
    }
}
