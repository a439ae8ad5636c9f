//! What the agent's node offers, as it is told by who runs it: `/v1/agent/service/` and `/v1/agent/check/`.

use std::time::Duration;

use model::GoDuration;
use reqwest::Method;
use serde::Serialize;

use crate::path;
use crate::request::Question;
use crate::{Client, Error};

/// A service to register, without checks of its own: those that have a name are registered by themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NewService {
    /// Unique on the node; the name when empty.
    #[serde(rename = "ID")]
    pub id: String,
    /// What it offers.
    pub name: String,
    /// Labels.
    pub tags: Vec<String>,
    /// Where it listens if not at the node's address.
    pub address: String,
    /// Where it listens; 0 for none.
    pub port: u16,
}

/// A check to register that is told how things are, and is critical when it hasn't been told for too long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTtlCheck {
    /// Unique on the node; the name when empty.
    pub id: String,
    /// For people.
    pub name: String,
    /// For people.
    pub notes: String,
    /// The service that it speaks for; the whole node when empty.
    pub service_id: String,
    /// For how long it holds what it was told.
    pub ttl: Duration,
    /// How things are until it is told. The original begins with critical.
    pub status: CheckStatus,
    /// After having been critical for so long it takes its service away.
    pub deregister_after: Option<Duration>,
}

/// How things are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// Well.
    Passing,
    /// Not as they should be.
    Warning,
    /// Such that it is of no use.
    Critical,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct CheckBody<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    name: &'a str,
    notes: &'a str,
    #[serde(rename = "ServiceID")]
    service_id: &'a str,
    #[serde(rename = "TTL")]
    ttl: String,
    status: CheckStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    deregister_critical_service_after: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct UpdateBody<'a> {
    status: CheckStatus,
    output: &'a str,
}

impl Client {
    /// Registers a service at the agent, or changes it.
    ///
    /// # Errors
    /// When no answer came, or it was refused.
    pub async fn agent_service_register(&self, service: &NewService) -> Result<(), Error> {
        self.tell("/v1/agent/service/register".to_owned(), service)
            .await
    }

    /// Takes a service and its checks away from the agent.
    ///
    /// # Errors
    /// When no answer came, or it was refused.
    pub async fn agent_service_deregister(&self, id: &str) -> Result<(), Error> {
        let question = Question::new(Method::PUT, named("service/deregister", id));
        self.send_ok(question).await.map(drop)
    }

    /// Registers a check at the agent, or changes it.
    ///
    /// # Errors
    /// When no answer came, or it was refused, as where there is no such service.
    pub async fn agent_check_register(&self, check: &NewTtlCheck) -> Result<(), Error> {
        let body = CheckBody {
            id: &check.id,
            name: &check.name,
            notes: &check.notes,
            service_id: &check.service_id,
            ttl: shown(check.ttl),
            status: check.status,
            deregister_critical_service_after: check.deregister_after.map(shown),
        };
        self.tell("/v1/agent/check/register".to_owned(), &body)
            .await
    }

    /// Takes a check away from the agent.
    ///
    /// # Errors
    /// When no answer came, or it was refused.
    pub async fn agent_check_deregister(&self, id: &str) -> Result<(), Error> {
        let question = Question::new(Method::PUT, named("check/deregister", id));
        self.send_ok(question).await.map(drop)
    }

    /// Tells a check how things are.
    ///
    /// # Errors
    /// When no answer came, or it was refused, as where there is no such check.
    pub async fn agent_check_update(
        &self,
        id: &str,
        status: CheckStatus,
        output: &str,
    ) -> Result<(), Error> {
        let body = UpdateBody { status, output };
        self.tell(named("check/update", id), &body).await
    }

    async fn tell(&self, path: String, body: &impl Serialize) -> Result<(), Error> {
        let body = serde_json::to_vec(body).map_err(|why| Error::Decode(why.to_string()))?;
        let question = Question::new(Method::PUT, path).body(body);
        self.send_ok(question).await.map(drop)
    }
}

fn named(verb: &str, id: &str) -> String {
    let mut path = format!("/v1/agent/{verb}/");
    path::push(&mut path, id, b"-._~:");
    path
}

/// A duration as the original writes it.
fn shown(time: Duration) -> String {
    let nanoseconds = i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
    GoDuration(nanoseconds).to_string()
}
