//! The agent that one talks to: `/v1/agent/`.

use std::collections::BTreeMap;

use reqwest::Method;
use serde::Deserialize;

use crate::path;
use crate::request::{self, Question};
use crate::transport::Response;
use crate::{Client, Error, HealthCheck};

/// What `/v1/agent/self` says that callers here ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
struct SelfAnswer {
    #[serde(rename = "Config", default)]
    config: Option<BTreeMap<String, serde_json::Value>>,
    #[serde(rename = "Stats", default)]
    stats: Option<BTreeMap<String, BTreeMap<String, String>>>,
}

/// A participant of gossip.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Member {
    /// Its name; in the pool of all datacenters followed by a dot and its datacenter.
    pub name: String,
    /// Where it gossips.
    pub addr: String,
    /// On which port.
    pub port: u16,
    /// What it tells of itself.
    #[serde(deserialize_with = "crate::null_is_default")]
    pub tags: BTreeMap<String, String>,
    /// 1 alive, 2 leaving, 3 left, 4 failed.
    pub status: u8,
}

/// A service of the agent's node, as the agent sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AgentService {
    /// Unique on the node.
    #[serde(rename = "ID")]
    pub id: String,
    /// What it offers.
    pub service: String,
    /// Labels.
    #[serde(deserialize_with = "crate::null_is_default")]
    pub tags: Vec<String>,
    /// Where it listens if not at the node's address.
    pub address: String,
    /// Where it listens; 0 for none.
    pub port: i64,
    /// Whether tags changed in the catalog win over the agent's.
    pub enable_tag_override: bool,
}

/// What becomes of the use of a node or a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maintenance<'a> {
    /// It is taken out of use, for this reason; an empty one stands for a default sentence.
    Begin(&'a str),
    /// It is taken into use again.
    End,
}

impl Maintenance<'_> {
    fn parameters(self) -> Vec<(&'static str, String)> {
        match self {
            Self::Begin(reason) => {
                vec![("enable", "true".to_owned()), ("reason", reason.to_owned())]
            }
            Self::End => vec![("enable", "false".to_owned())],
        }
    }
}

/// The log of an agent as it flows.
#[derive(Debug)]
pub struct LogStream {
    response: Response,
}

impl LogStream {
    /// The next lines, each with its line break, or `None` when the agent has ended.
    ///
    /// # Errors
    /// When the connection breaks off.
    pub async fn next(&mut self) -> Result<Option<bytes::Bytes>, Error> {
        // A log may be silent for days.
        request::next(&mut self.response).await
    }
}

impl Client {
    /// The agent's figures about itself: by section, then by name.
    ///
    /// # Errors
    /// When no answer came, or not the expected one.
    pub async fn agent_stats(&self) -> Result<BTreeMap<String, BTreeMap<String, String>>, Error> {
        Ok(self.agent_self().await?.stats.unwrap_or_default())
    }

    /// The name of the agent's node.
    ///
    /// # Errors
    /// When no answer came, or not the expected one.
    pub async fn agent_node(&self) -> Result<String, Error> {
        Ok(self.agent_place().await?.0)
    }

    /// The name of the agent's node, and the datacenter that it is in.
    ///
    /// # Errors
    /// When no answer came, or not the expected one.
    pub async fn agent_place(&self) -> Result<(String, String), Error> {
        let config = self.agent_self().await?.config.unwrap_or_default();
        let text = |name| {
            let value = config.get(name).and_then(serde_json::Value::as_str);
            value.map(str::to_owned)
        };
        let node =
            text("NodeName").ok_or_else(|| Error::Decode("it has no node name".to_owned()))?;
        Ok((node, text("Datacenter").unwrap_or_default()))
    }

    async fn agent_self(&self) -> Result<SelfAnswer, Error> {
        let response = self
            .send_ok(Question::new(Method::GET, "/v1/agent/self"))
            .await?;
        self.json(response).await
    }

    /// The services of the agent's node, by id.
    ///
    /// # Errors
    /// When no answer came, or not the expected one.
    pub async fn agent_services(&self) -> Result<BTreeMap<String, AgentService>, Error> {
        let question = Question::new(Method::GET, "/v1/agent/services");
        let response = self.send_ok(question).await?;
        let services = self.json::<Option<_>>(response).await?;
        Ok(services.unwrap_or_default())
    }

    /// The checks of the agent's node, by id.
    ///
    /// # Errors
    /// When no answer came, or not the expected one.
    pub async fn agent_checks(&self) -> Result<BTreeMap<String, HealthCheck>, Error> {
        let question = Question::new(Method::GET, "/v1/agent/checks");
        let response = self.send_ok(question).await?;
        let checks = self.json::<Option<_>>(response).await?;
        Ok(checks.unwrap_or_default())
    }

    /// Takes the agent's node out of use, or into use again.
    ///
    /// # Errors
    /// When no answer came, or not the expected one.
    pub async fn agent_maintenance(&self, change: Maintenance<'_>) -> Result<(), Error> {
        let question = Question::new(Method::PUT, "/v1/agent/maintenance");
        let question = question.parameters(change.parameters());
        self.send_ok(question).await.map(drop)
    }

    /// Takes one service of the agent's node out of use, or into use again.
    ///
    /// # Errors
    /// When no answer came, or there is no such service.
    pub async fn agent_service_maintenance(
        &self,
        id: &str,
        change: Maintenance<'_>,
    ) -> Result<(), Error> {
        let path = format!("/v1/agent/service/maintenance/{}", segment(id));
        let question = Question::new(Method::PUT, path).parameters(change.parameters());
        self.send_ok(question).await.map(drop)
    }

    /// Everybody that gossips in the agent's datacenter, or with `wan` the servers of all datacenters.
    ///
    /// # Errors
    /// When no answer came, or not the expected one.
    pub async fn agent_members(&self, wan: bool) -> Result<Vec<Member>, Error> {
        let question = Question::new(Method::GET, "/v1/agent/members").parameters(pool(wan));
        let response = self.send_ok(question).await?;
        // An agent that isn't in the pool of all datacenters answers null.
        let members = self.json::<Option<Vec<Member>>>(response).await?;
        Ok(members.unwrap_or_default())
    }

    /// Lets the agent get to know the member at this address.
    ///
    /// # Errors
    /// When no answer came, or it could not be reached.
    pub async fn agent_join(&self, address: &str, wan: bool) -> Result<(), Error> {
        let path = format!("/v1/agent/join/{}", segment(address));
        let question = Question::new(Method::PUT, path).parameters(pool(wan));
        self.send_ok(question).await.map(drop)
    }

    /// Lets the agent say of a failed member that it has left.
    ///
    /// # Errors
    /// When no answer came, or not the expected one.
    pub async fn agent_force_leave(&self, node: &str) -> Result<(), Error> {
        let path = format!("/v1/agent/force-leave/{}", segment(node));
        self.send_ok(Question::new(Method::PUT, path))
            .await
            .map(drop)
    }

    /// Lets the agent leave the cluster and stop.
    ///
    /// # Errors
    /// When no answer came, or it could not leave in order.
    pub async fn agent_leave(&self) -> Result<(), Error> {
        self.send_ok(Question::new(Method::PUT, "/v1/agent/leave"))
            .await
            .map(drop)
    }

    /// Lets the agent read its configuration again.
    ///
    /// # Errors
    /// When no answer came, or something is wrong with the configuration.
    pub async fn agent_reload(&self) -> Result<(), Error> {
        self.send_ok(Question::new(Method::PUT, "/v1/agent/reload"))
            .await
            .map(drop)
    }

    /// The agent's log from a level on: its last lines, and then those that follow.
    ///
    /// # Errors
    /// When no answer came, or there is no such level.
    pub async fn agent_monitor(&self, level: &str) -> Result<LogStream, Error> {
        let question = Question::new(Method::GET, "/v1/agent/monitor").parameter("loglevel", level);
        let response = self.send_ok(question).await?;
        Ok(LogStream { response })
    }
}

fn pool(wan: bool) -> Vec<(&'static str, String)> {
    if wan {
        vec![("wan", "1".to_owned())]
    } else {
        Vec::new()
    }
}

/// A text as one segment of a path.
fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    path::push(&mut out, text, b"-_.~:[]");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_segments() {
        assert_eq!(segment("[::1]:8301"), "[::1]:8301");
        assert_eq!(segment("a b/../c%"), "a%20b%2F..%2Fc%25");
    }
}
