//! Which servers an agent without one of its own may ask, as gossip tells it.

use gossip::{Gossip, Member, Status};
use rpc::{Distant, ServerAddress};

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

    #[test]
    fn only_servers_of_this_datacenter_that_answer() {
        let versions = gossip::Versions {
            min: 1,
            max: 5,
            current: 2,
        };
        let member = |role: &str, dc: &str, port: &str, status| {
            let tags = [("role", role), ("dc", dc), ("port", port)];
            let tags = tags.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let member = Member {
                name: "n1".to_owned(),
                address: "10.0.0.1:8301".parse().unwrap(),
                tags: tags.into(),
                status,
                since: tokio::time::Instant::now(),
                protocol: versions,
                delegate: versions,
            };
            server(&member, "dc1").map(|server| server.address.to_string())
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
}
