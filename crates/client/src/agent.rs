//! The agent that one talks to: `/v1/agent/`.

use std::collections::BTreeMap;

use reqwest::Method;
use serde::Deserialize;

use crate::request::Question;
use crate::{Client, Error};

/// What `/v1/agent/self` says that callers here ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
struct SelfAnswer {
    #[serde(rename = "Stats", default)]
    stats: Option<BTreeMap<String, BTreeMap<String, String>>>,
}

impl Client {
    /// The agent's figures about itself: by section, then by name.
    ///
    /// # Errors
    /// When no answer came, or not the expected one.
    pub async fn agent_stats(&self) -> Result<BTreeMap<String, BTreeMap<String, String>>, Error> {
        let response = self
            .send_ok(Question::new(Method::GET, "/v1/agent/self"))
            .await?;
        Ok(self
            .json::<SelfAnswer>(response)
            .await?
            .stats
            .unwrap_or_default())
    }
}
