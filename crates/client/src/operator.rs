//! What operators ask: `/v1/operator/`.

use std::collections::BTreeMap;

use reqwest::Method;
use serde::{Deserialize, Serialize};

use crate::request::Question;
use crate::{Client, Consistency, Error, QueryOptions, WriteOptions};

/// Who takes part in consensus.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RaftConfiguration {
    /// The members.
    #[serde(deserialize_with = "crate::null_is_default")]
    pub servers: Vec<RaftServer>,
    /// The log's index at which this became so.
    pub index: u64,
}

/// A member of consensus.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RaftServer {
    /// What identifies it; the same as its address.
    #[serde(rename = "ID")]
    pub id: String,
    /// The name of its node, or `(unknown)`.
    #[serde(rename = "Node")]
    pub node: String,
    /// Its `ip:port`.
    #[serde(rename = "Address")]
    pub address: String,
    /// Whether it leads.
    #[serde(rename = "Leader")]
    pub leader: bool,
    /// Whether it votes.
    #[serde(rename = "Voter")]
    pub voter: bool,
}

/// What the members of one pool said about their keys.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Keyring {
    /// Whether it is the pool of servers of all datacenters.
    #[serde(rename = "WAN")]
    pub wan: bool,
    /// The datacenter of the server that asked.
    #[serde(rename = "Datacenter")]
    pub datacenter: String,
    /// What went wrong, by member.
    #[serde(rename = "Messages", deserialize_with = "crate::null_is_default")]
    pub messages: BTreeMap<String, String>,
    /// The keys in base64, and how many members have each.
    #[serde(rename = "Keys", deserialize_with = "crate::null_is_default")]
    pub keys: BTreeMap<String, u64>,
    /// How many members there are.
    #[serde(rename = "NumNodes")]
    pub members: u64,
    /// What went wrong as a whole; empty if nothing did.
    #[serde(rename = "Error")]
    pub error: String,
}

impl std::fmt::Debug for Keyring {
    /// Without the keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyring")
            .field("wan", &self.wan)
            .field("datacenter", &self.datacenter)
            .field("messages", &self.messages)
            .field("members", &self.members)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

/// What to do with a key of gossip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyChange {
    /// Let all members decrypt with it as well.
    Install,
    /// Encrypt with it from now on.
    Use,
    /// Forget it.
    Remove,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct KeyBody<'a> {
    key: &'a str,
}

impl Client {
    /// Who takes part in consensus.
    ///
    /// # Errors
    /// When no answer came, or not the expected one.
    pub async fn raft_configuration(
        &self,
        options: &QueryOptions,
    ) -> Result<RaftConfiguration, Error> {
        let mut question = Question::new(Method::GET, "/v1/operator/raft/configuration")
            .parameters(datacenter(&options.datacenter))
            .token(&options.token);
        if options.consistency == Consistency::Stale {
            question = question.parameter("stale", "");
        }
        let response = self.send_ok(question).await?;
        self.json(response).await
    }

    /// Takes the server with this `ip:port` out of consensus.
    ///
    /// # Errors
    /// When no answer came, or there is no such server.
    pub async fn raft_remove_peer(
        &self,
        address: &str,
        options: &WriteOptions,
    ) -> Result<(), Error> {
        let question = Question::new(Method::DELETE, "/v1/operator/raft/peer")
            .parameter("address", address)
            .parameters(datacenter(&options.datacenter))
            .token(&options.token);
        self.send_ok(question).await.map(drop)
    }

    /// The keys of gossip in each pool.
    ///
    /// # Errors
    /// When no answer came, or not the expected one.
    pub async fn keyring(&self) -> Result<Vec<Keyring>, Error> {
        let question = Question::new(Method::GET, "/v1/operator/keyring");
        let response = self.send_ok(question).await?;
        let pools = self.json::<Option<Vec<Keyring>>>(response).await?;
        Ok(pools.unwrap_or_default())
    }

    /// Changes the keys of gossip in every pool.
    ///
    /// # Errors
    /// When no answer came, or not all members did it.
    pub async fn change_key(&self, change: KeyChange, key: &str) -> Result<(), Error> {
        let method = match change {
            KeyChange::Install => Method::POST,
            KeyChange::Use => Method::PUT,
            KeyChange::Remove => Method::DELETE,
        };
        let body =
            serde_json::to_vec(&KeyBody { key }).map_err(|why| Error::Decode(why.to_string()))?;
        let question = Question::new(method, "/v1/operator/keyring").body(body);
        self.send_ok(question).await.map(drop)
    }
}

fn datacenter(name: &str) -> Vec<(&'static str, String)> {
    if name.is_empty() {
        Vec::new()
    } else {
        vec![("dc", name.to_owned())]
    }
}
