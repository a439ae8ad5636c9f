//! What is well and what isn't: `/v1/health/`.

use reqwest::Method;
use serde::{Deserialize, Serialize};

use crate::path;
use crate::request::Question;
use crate::{Answer, CatalogNode, Client, Error, QueryOptions};

/// A check as the catalog or an agent has it.
///
/// It is written as the original's client writes it, in this order of fields.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HealthCheck {
    /// The node.
    pub node: String,
    /// Unique on the node.
    #[serde(rename = "CheckID")]
    pub check_id: String,
    /// For people.
    pub name: String,
    /// `passing`, `warning` or `critical`.
    pub status: String,
    /// For people.
    pub notes: String,
    /// What it said last.
    pub output: String,
    /// The service that it speaks for; empty for the whole node.
    #[serde(rename = "ServiceID")]
    pub service_id: String,
    /// What that service offers.
    pub service_name: String,
}

/// An instance of a service as the catalog has it.
///
/// It is written as the original's client writes it, in this order of fields.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HealthService {
    /// Unique on the node.
    #[serde(rename = "ID")]
    pub id: String,
    /// What it offers.
    pub service: String,
    /// Labels; `None` if nobody gave a list.
    pub tags: Option<Vec<String>>,
    /// Where it listens; 0 for none.
    pub port: i64,
    /// Where it listens if not at the node's address.
    pub address: String,
    /// Whether tags changed in the catalog win over the agent's.
    pub enable_tag_override: bool,
}

/// An instance of a service, where it is and how it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServiceEntry {
    /// The node.
    pub node: CatalogNode,
    /// The instance.
    pub service: HealthService,
    /// Its checks and those of the node.
    #[serde(deserialize_with = "crate::null_is_default")]
    pub checks: Vec<HealthCheck>,
}

impl Client {
    /// The instances of a service: with this tag unless it is empty, and with `passing_only` those without a failing check.
    ///
    /// # Errors
    /// When no answer came, or not the expected one.
    pub async fn health_service(
        &self,
        service: &str,
        tag: &str,
        passing_only: bool,
        options: &QueryOptions,
    ) -> Result<Answer<Vec<ServiceEntry>>, Error> {
        let mut question = Question::new(Method::GET, under("service", service));
        if !tag.is_empty() {
            question = question.parameter("tag", tag);
        }
        if passing_only {
            question = question.parameter("passing", "1");
        }
        self.read(question, options).await
    }

    /// The checks of a service.
    ///
    /// # Errors
    /// When no answer came, or not the expected one.
    pub async fn health_checks(
        &self,
        service: &str,
        options: &QueryOptions,
    ) -> Result<Answer<Vec<HealthCheck>>, Error> {
        let question = Question::new(Method::GET, under("checks", service));
        self.read(question, options).await
    }

    /// The checks in a state: `passing`, `warning`, `critical` or `any`.
    ///
    /// # Errors
    /// When no answer came, or not the expected one, or there is no such state.
    pub async fn health_state(
        &self,
        state: &str,
        options: &QueryOptions,
    ) -> Result<Answer<Vec<HealthCheck>>, Error> {
        let question = Question::new(Method::GET, under("state", state));
        self.read(question, options).await
    }
}

fn under(kind: &str, name: &str) -> String {
    let mut path = format!("/v1/health/{kind}/");
    path::push(&mut path, name, b"-._~");
    path
}
