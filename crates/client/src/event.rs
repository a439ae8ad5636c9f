//! Events that users fire: `/v1/event/`.

use bytes::Bytes;
use reqwest::Method;
use serde::{Deserialize, Serialize};

use crate::path;
use crate::request::Question;
use crate::{Answer, Client, Error, QueryOptions, WriteOptions};

/// An event.
///
/// It is written as the original's client writes it, in this order of fields.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct UserEvent {
    /// Unique, in the form of a UUID.
    #[serde(rename = "ID")]
    pub id: String,
    /// What it is called.
    pub name: String,
    /// What goes with it.
    #[serde(with = "crate::base64")]
    pub payload: Bytes,
    /// Which nodes it is for, as a regular expression; empty for all.
    pub node_filter: String,
    /// For nodes with which services it is.
    pub service_filter: String,
    /// Which tag these services must have.
    pub tag_filter: String,
    /// The version of its form.
    pub version: u64,
    /// When it was fired, by the clock of gossip; 0 as long as only its sender has seen it.
    #[serde(rename = "LTime")]
    pub ltime: u64,
}

impl UserEvent {
    /// The index to wait from for what comes after this event.
    ///
    /// It has no order: it is made from the event's id, and any other one means that there is something new.
    pub fn index(&self) -> Option<u64> {
        let digits: String = self.id.chars().filter(|c| *c != '-').collect();
        // The number's reader would take a sign as well.
        if digits.len() != 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let (upper, lower) = digits.split_at(16);
        let half = |digits| u64::from_str_radix(digits, 16).ok();
        Some(half(upper)? ^ half(lower)?)
    }
}

/// An event to fire. Filters are regular expressions that need not match the whole; empty ones let everybody pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewEvent {
    /// What it is called.
    pub name: String,
    /// What goes with it; a few hundred bytes at most.
    pub payload: Bytes,
    /// Which nodes it is for, by their names.
    pub node_filter: String,
    /// For nodes with which services it is, by the ids of these.
    pub service_filter: String,
    /// Which tag one of these services must have.
    pub tag_filter: String,
}

impl Client {
    /// Sends an event to the agents of a datacenter, and says its id. Who receives it nobody knows.
    ///
    /// # Errors
    /// When no answer came, or not the expected one: when it is too large, or a filter makes no sense.
    pub async fn event_fire(
        &self,
        event: &NewEvent,
        options: &WriteOptions,
    ) -> Result<String, Error> {
        let mut path = "/v1/event/fire/".to_owned();
        path::push(&mut path, &event.name, b"-._~");
        let mut question = Question::new(Method::PUT, path)
            .parameters(options.parameters())
            .token(&options.token)
            .body(event.payload.clone());
        for (name, filter) in [
            ("node", &event.node_filter),
            ("service", &event.service_filter),
            ("tag", &event.tag_filter),
        ] {
            if !filter.is_empty() {
                question = question.parameter(name, filter);
            }
        }
        let fired: UserEvent = self.json(self.send_ok(question).await?).await?;
        Ok(fired.id)
    }

    /// The events that the agent remembers, the oldest first: those of this name, or with an empty one all.
    ///
    /// # Errors
    /// When no answer came, or not the expected one.
    pub async fn event_list(
        &self,
        name: &str,
        options: &QueryOptions,
    ) -> Result<Answer<Vec<UserEvent>>, Error> {
        let mut question = Question::new(Method::GET, "/v1/event/list");
        if !name.is_empty() {
            question = question.parameter("name", name);
        }
        self.read(question, options).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_of_events() {
        let event = |id: &str| UserEvent {
            id: id.to_owned(),
            ..UserEvent::default()
        };
        let cases = [
            ("00000000-0000-0001-0000-000000000003", Some(2)),
            ("ffffffff-ffff-ffff-0000-000000000000", Some(u64::MAX)),
            ("", None),
            ("00000000-0000-0001-0000-00000000000", None),
            ("0000000000000000+000000000000000", None),
            ("ü0000000-0000-0001-0000-000000000003", None),
        ];
        for (id, index) in cases {
            assert_eq!(event(id).index(), index, "{id}");
        }
    }

    #[test]
    fn written_as_the_original_does() {
        let raw = r#"{"ID":"i","Name":"n","Payload":"aGk=","NodeFilter":"","ServiceFilter":"s","TagFilter":"","Version":1,"LTime":3}"#;
        let event: UserEvent = serde_json::from_str(raw).unwrap();
        assert_eq!(event.payload, "hi");
        assert_eq!(serde_json::to_string(&event).unwrap(), raw);
        let empty: UserEvent = serde_json::from_str(r#"{"Payload":null}"#).unwrap();
        assert!(
            serde_json::to_string(&empty)
                .unwrap()
                .contains(r#""Payload":null"#)
        );
    }
}
