//! User events: short messages to all agents of a datacenter, or to those that filters choose.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Error, Text, re2};

/// The version of the form in which events travel; later ones are for later programs.
pub const EVENT_VERSION: u64 = 1;

/// An event that somebody wants to fire.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NewEvent {
    /// What it is called.
    pub name: Text,
    /// What goes with it.
    pub payload: Text,
    /// Whom it is for.
    pub filters: EventFilters,
}

/// An event that was fired.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UserEvent {
    /// Unique.
    pub id: Uuid,
    /// What it is called.
    pub name: Text,
    /// What goes with it.
    pub payload: Text,
    /// Whom it is for.
    pub filters: EventFilters,
    /// The version of its form.
    pub version: u64,
    /// When it was fired, by the clock of gossip; 0 for who has only fired it.
    pub ltime: u64,
}

/// Whom an event is for, as regular expressions that need not match the whole; empty ones let everybody pass.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EventFilters {
    /// The node's name.
    pub node: Text,
    /// The id of one of the node's services.
    pub service: Text,
    /// One of the tags of that service.
    pub tag: Text,
}

impl NewEvent {
    /// Refuses what nobody could receive; the texts are the original's.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub fn validate(&self) -> Result<(), Error> {
        let EventFilters { node, service, tag } = &self.filters;
        if self.name.is_empty() {
            return Err(Error::invalid("User event missing name"));
        }
        if !tag.is_empty() && service.is_empty() {
            return Err(Error::invalid(
                "Cannot provide tag filter without service filter",
            ));
        }
        for (kind, filter) in [("node", node), ("service", service), ("tag", tag)] {
            if !filter.is_empty()
                && let Err(why) = re2::compile(filter)
            {
                return Err(Error::invalid(format!("Invalid {kind} filter: {why}")));
            }
        }
        Ok(())
    }

    /// The event once it has an id.
    pub fn fired(&self, id: Uuid) -> UserEvent {
        UserEvent {
            id,
            name: self.name.clone(),
            payload: self.payload.clone(),
            filters: self.filters.clone(),
            version: EVENT_VERSION,
            ltime: 0,
        }
    }
}

impl UserEvent {
    /// The index to wait from for what comes after this event: the two halves of its id, one laid over the other.
    ///
    /// It has no order; any other one means that there is something new.
    pub fn index(&self) -> u64 {
        let (upper, lower) = self.id.as_u64_pair();
        upper ^ lower
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_could_receive_is_refused() {
        let event = |name: &str, node: &str, service: &str, tag: &str| NewEvent {
            name: name.into(),
            payload: Text::default(),
            filters: EventFilters {
                node: node.into(),
                service: service.into(),
                tag: tag.into(),
            },
        };
        for (event, expected) in [
            (event("deploy", "", "", ""), ""),
            (event("deploy", r"^\Qa.b\E$", "web", "v1|v2"), ""),
            (event("", "", "", ""), "User event missing name"),
            (
                event("deploy", "", "", "v1"),
                "Cannot provide tag filter without service filter",
            ),
            (
                event("deploy", "(", "", ""),
                "Invalid node filter: error parsing regexp: missing closing ): `(`",
            ),
            (
                event("deploy", "", "*", ""),
                "Invalid service filter: error parsing regexp: missing argument to repetition operator: `*`",
            ),
            (
                event("deploy", "", "web", "["),
                "Invalid tag filter: error parsing regexp: missing closing ]: `[`",
            ),
        ] {
            let said = event
                .validate()
                .map_or_else(|why| why.to_string(), |()| String::new());
            assert_eq!(said, expected, "{event:?}");
        }
    }

    #[test]
    fn indexes() {
        for (id, index) in [
            ("00000000-0000-0001-0000-000000000003", 2),
            ("ffffffff-ffff-ffff-0000-000000000000", u64::MAX),
            (
                "b54fe110-7af5-cafc-d1fb-afc8ba432b1c",
                0xb54f_e110_7af5_cafc ^ 0xd1fb_afc8_ba43_2b1c,
            ),
        ] {
            let id = crate::parse_uuid(id.as_bytes()).unwrap();
            assert_eq!(NewEvent::default().fired(id).index(), index);
        }
    }
}
