//! Who says that the check is critical, or takes it away, and makes it well again.

use model::{Check, Command, Deregister, Deregistration, Node, Registration, Text};
use rand::RngExt;

use super::holder::Holder;
use super::{CHECK, NODE};
use crate::history::Moment;
use crate::history::locks::Trouble;
use crate::world::Told;

/// The node, and its check with this status.
fn register(status: &str) -> Command {
    Command::Register(Box::new(Registration {
        node: Node {
            name: Text::from(NODE),
            address: Text::from("10.1.0.1"),
            ..Node::default()
        },
        checks: vec![Check {
            node: Text::from(NODE),
            check_id: Text::from(CHECK),
            name: Text::from(CHECK),
            status: Text::from(status),
            ..Check::default()
        }],
        ..Registration::default()
    }))
}

impl Holder {
    /// Makes sure that there is the node, with its check.
    pub(super) async fn introduce(&mut self) {
        const TRIES: usize = 60;
        for _ in 0..TRIES {
            if let Some(front) = self.world.leader()
                && matches!(
                    self.write(&front, register("passing")).await,
                    Told::Answer(_)
                )
            {
                return;
            }
            self.pause(50, 300).await;
        }
    }

    /// Bad news and good news in turn, until the end.
    pub(super) async fn attend(mut self) {
        while !self.world.ends() {
            self.pause(4_000, 20_000).await;
            if self.world.ends() {
                return;
            }
            let Some(front) = self.front() else { continue };
            let trouble = if self.chance.random_bool(0.6) {
                register("critical")
            } else {
                Command::Deregister(Deregistration {
                    node: Text::from(NODE),
                    what: Deregister::Check(Text::from(CHECK)),
                })
            };
            let called = self.world.now();
            let told = self.write(&front, trouble).await;
            if matches!(told, Told::Refused(_)) {
                continue;
            }
            let trouble = Trouble {
                called,
                returned: if matches!(told, Told::Answer(_)) {
                    self.world.now()
                } else {
                    Moment::MAX
                },
            };
            self.world.tell("locks", || format!("{trouble:?}"));
            self.world.with(|state| state.locks.troubles.push(trouble));
            self.pause(100, 2_000).await;
            self.introduce().await;
        }
    }
}
