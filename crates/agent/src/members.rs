//! What happens in the pool, for the log and for those who count.

use gossip::{Event, Gossip};

/// The user event by which a new leader announces itself; its payload is the name of the node.
pub(crate) const NEW_LEADER: &str = "consul:new-leader";

/// Writes each event of the pool to the log, and counts it under the original's names, until gossip ends.
pub async fn report(gossip: Gossip) {
    let mut events = gossip.subscribe();
    let own = gossip.local().name;
    while let Some(event) = events.next().await {
        let Some(news) = News::of(&event, &own) else {
            continue;
        };
        metrics::counter!(news.counted).increment(1);
        if news.is_for_operators {
            tracing::info!("{}", news.line);
        } else {
            tracing::debug!("{}", news.line);
        }
    }
}

/// What is told of an event.
#[derive(Debug, PartialEq, Eq)]
struct News {
    line: String,
    is_for_operators: bool,
    /// The name that it is counted under.
    counted: &'static str,
}

impl News {
    /// Nothing of this node's own coming and going, which is no news to it.
    fn of(event: &Event, own: &str) -> Option<Self> {
        let (member, what, is_for_operators, counted) = match event {
            Event::Joined(member) => (member, "joined", true, "serf.member.join"),
            Event::Updated(member) => (member, "changed", false, "serf.member.update"),
            Event::Leaving(member) => (member, "is leaving", false, "serf.member.leaving"),
            Event::Left(member) => (member, "left", true, "serf.member.left"),
            Event::Failed(member) => (member, "failed", true, "serf.member.failed"),
            Event::Reaped(member) => (member, "was forgotten", true, "serf.member.reap"),
            Event::User(event) => {
                let is_leader = event.name == NEW_LEADER;
                let payload = String::from_utf8_lossy(&event.payload);
                return Some(Self {
                    line: if is_leader {
                        format!("new leader elected: {payload}")
                    } else {
                        format!("user event '{}'", event.name)
                    },
                    is_for_operators: is_leader,
                    counted: "serf.events",
                });
            }
            Event::Missed(count) => {
                return Some(Self {
                    line: format!("missed {count} events of members"),
                    is_for_operators: true,
                    counted: "serf.missed",
                });
            }
        };
        (member.name != own).then(|| Self {
            line: format!("member '{}' at {} {what}", member.name, member.address),
            is_for_operators,
            counted,
        })
    }
}

#[cfg(test)]
mod tests {
    use gossip::{Member, Status, UserEvent, Versions};

    use super::*;

    #[test]
    fn tells_of_others_and_of_leaders() {
        let versions = Versions {
            min: 1,
            max: 5,
            current: 2,
        };
        let member = Member {
            name: "n2".to_owned(),
            address: "10.0.0.2:8301".parse().unwrap(),
            tags: [].into(),
            status: Status::Alive,
            since: tokio::time::Instant::now(),
            protocol: versions,
            delegate: versions,
        };
        let joined = Event::Joined(member);
        assert_eq!(News::of(&joined, "n2"), None);
        let news = News::of(&joined, "n1").unwrap();
        assert_eq!(news.line, "member 'n2' at 10.0.0.2:8301 joined");
        assert_eq!(
            (news.is_for_operators, news.counted),
            (true, "serf.member.join")
        );

        let user = |name: &str| {
            Event::User(UserEvent {
                ltime: 1,
                name: name.to_owned(),
                payload: "n3".into(),
                coalesce: false,
            })
        };
        let news = News::of(&user(NEW_LEADER), "n1").unwrap();
        assert_eq!(news.line, "new leader elected: n3");
        assert!(news.is_for_operators);
        let news = News::of(&user("deploy"), "n1").unwrap();
        assert_eq!(news.line, "user event 'deploy'");
        assert!(!news.is_for_operators);
    }
}
