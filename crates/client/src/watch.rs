//! Waiting for changes: what `consul watch` and the watches of an agent's configuration stand on.
//!
//! A [`Plan`] says what to look at, in the words of the original's watches; a [`Watch`] asks again and again and says what is new.
//! What is asked for is in the files of the subjects; a further type of watch is a variant of `Kind`, a branch of [`Plan::parse`] and one of
//! [`Source::ask`] for [`Client`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use model::GoDuration;
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter};
use serde_json::{Map, Value};
use tokio::time::{Instant, sleep_until};

use crate::{
    Answer, CatalogNode, CatalogServices, Client, Consistency, Error, HealthCheck, KvPair,
    QueryOptions, ServiceEntry, UserEvent, Wait,
};

/// How long the agent may keep a question that nothing happens to.
const WAIT: Duration = Duration::from_secs(5 * 60);

/// What the wait after a failure is a multiple of: by the square of how many there were in a row.
const RETRY: Duration = Duration::from_secs(5);

/// The longest wait after a failure.
const RETRY_MAX: Duration = Duration::from_secs(180);

/// How long the next question waits when the answer named no index to wait from, so that it doesn't follow at once for ever.
const WITHOUT_INDEX: Duration = Duration::from_secs(1);

/// The least time from one question to the next, so that an agent that answers each at once isn't flooded with them.
const PACE: Duration = Duration::from_millis(100);

/// What to look at.
#[derive(Clone, PartialEq, Eq)]
pub struct Plan {
    kind: Kind,
    datacenter: String,
    token: String,
    stale: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Key(String),
    KeyPrefix(String),
    Services,
    Nodes,
    Service {
        service: String,
        tag: String,
        passing_only: bool,
    },
    /// The checks of one service.
    ServiceChecks(String),
    /// The checks in one state.
    StateChecks(String),
    /// Events of a name, or of any when it is empty.
    Event(String),
}

/// Why parameters are no plan, in the original's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// There is no `type`.
    #[error("Watch type must be specified")]
    TypeMissing,
    /// The `type` is none of those that there are.
    #[error("Unsupported watch type: {0}")]
    Unsupported(String),
    /// A parameter that must be a text is something else.
    #[error("Expecting {0} to be a string")]
    NotText(&'static str),
    /// A parameter that must be true or false is something else.
    #[error("Expecting {0} to be a boolean")]
    NotBool(&'static str),
    /// A parameter that this type needs is not there.
    #[error("Must specify a single {0} to watch")]
    Missing(&'static str),
    /// Checks of a service and checks in a state are two things.
    #[error("Cannot specify service and state")]
    ServiceAndState,
    /// Parameters that this type doesn't have, in alphabetical order.
    #[error("Invalid parameters: [{}]", .0.join(" "))]
    Invalid(Vec<String>),
}

impl Plan {
    /// Reads a plan from its parameters.
    ///
    /// # Errors
    /// The first thing that is wrong with them.
    pub fn parse(parameters: Map<String, Value>) -> Result<Self, PlanError> {
        let mut given = Given(parameters);
        let datacenter = given.text("datacenter")?;
        let token = given.text("token")?;
        let kind = given.text("type")?;
        if kind.is_empty() {
            return Err(PlanError::TypeMissing);
        }
        let needed = |name, text: String| {
            if text.is_empty() {
                Err(PlanError::Missing(name))
            } else {
                Ok(text)
            }
        };
        let mut stale = false;
        if kind != "event" && NAMES.contains(&kind.as_str()) {
            stale = given.on("stale")?;
        }
        let kind = match kind.as_str() {
            "key" => Kind::Key(needed("key", given.text("key")?)?),
            "keyprefix" => Kind::KeyPrefix(needed("prefix", given.text("prefix")?)?),
            "services" => Kind::Services,
            "nodes" => Kind::Nodes,
            "service" => {
                let (service, tag) = (given.text("service")?, given.text("tag")?);
                Kind::Service {
                    service: needed("service", service)?,
                    tag,
                    passing_only: given.on("passingonly")?,
                }
            }
            "checks" => match (given.text("service")?, given.text("state")?) {
                (service, state) if !service.is_empty() && !state.is_empty() => {
                    return Err(PlanError::ServiceAndState);
                }
                (service, _) if !service.is_empty() => Kind::ServiceChecks(service),
                (_, state) if state.is_empty() => Kind::StateChecks("any".to_owned()),
                (_, state) => Kind::StateChecks(state),
            },
            "event" => Kind::Event(given.text("name")?),
            _ => return Err(PlanError::Unsupported(kind)),
        };
        if !given.0.is_empty() {
            return Err(PlanError::Invalid(
                given.0.into_iter().map(|(name, _)| name).collect(),
            ));
        }
        Ok(Self {
            kind,
            datacenter,
            token,
            stale,
        })
    }

    /// The name of its type.
    pub fn name(&self) -> &'static str {
        match self.kind {
            Kind::Key(_) => "key",
            Kind::KeyPrefix(_) => "keyprefix",
            Kind::Services => "services",
            Kind::Nodes => "nodes",
            Kind::Service { .. } => "service",
            Kind::ServiceChecks(_) | Kind::StateChecks(_) => "checks",
            Kind::Event(_) => "event",
        }
    }

    fn options(&self, index: u64) -> QueryOptions {
        QueryOptions {
            datacenter: self.datacenter.clone(),
            token: self.token.clone(),
            consistency: if self.stale {
                Consistency::Stale
            } else {
                Consistency::Leader
            },
            wait: (index > 0).then_some(Wait { index, time: WAIT }),
        }
    }
}

/// The names of all types.
const NAMES: [&str; 7] = [
    "key",
    "keyprefix",
    "services",
    "nodes",
    "service",
    "checks",
    "event",
];

impl fmt::Debug for Plan {
    /// The token is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("kind", &self.kind)
            .field("datacenter", &self.datacenter)
            .field("stale", &self.stale)
            .finish_non_exhaustive()
    }
}

/// Parameters that are taken out one by one.
struct Given(Map<String, Value>);

impl Given {
    fn text(&mut self, name: &'static str) -> Result<String, PlanError> {
        match self.0.remove(name) {
            None => Ok(String::new()),
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(PlanError::NotText(name)),
        }
    }

    fn on(&mut self, name: &'static str) -> Result<bool, PlanError> {
        match self.0.remove(name) {
            None => Ok(false),
            Some(Value::Bool(on)) => Ok(on),
            Some(_) => Err(PlanError::NotBool(name)),
        }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Watched {
    /// A key, if it exists.
    Key(Option<KvPair>),
    /// Keys; `None` when there is none.
    Keys(Option<Vec<KvPair>>),
    /// The names of services.
    Services(CatalogServices),
    /// Nodes.
    Nodes(Vec<CatalogNode>),
    /// Instances of a service.
    Instances(Vec<ServiceEntry>),
    /// Checks.
    Checks(Vec<HealthCheck>),
    /// Events that were not seen before.
    Events(Vec<UserEvent>),
}

impl Watched {
    /// As JSON in the shape of the original's client, on one line and without its end.
    ///
    /// # Errors
    /// Never for what an agent answered.
    pub fn json(&self) -> Result<String, Error> {
        self.written(serde_json::ser::CompactFormatter)
    }

    /// The same for people: four columns for each depth.
    ///
    /// # Errors
    /// Never for what an agent answered.
    pub fn json_indented(&self) -> Result<String, Error> {
        self.written(PrettyFormatter::with_indent(b"    "))
    }

    fn written(&self, formatter: impl Formatter) -> Result<String, Error> {
        let mut bytes = Vec::new();
        let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
        let bad = |why: &dyn fmt::Display| Error::Decode(why.to_string());
        self.serialize(&mut serializer).map_err(|why| bad(&why))?;
        let text = String::from_utf8(bytes).map_err(|why| bad(&why))?;
        Ok(escaped(&text))
    }
}

/// The original escapes what could mean something where JSON is put into a page. Outside of strings none of it occurs.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        let (before, from) = rest.split_at(at);
        text.push_str(before);
        let mut letters = from.chars();
        text.push_str(match letters.next() {
            Some('<') => r"\u003c",
            Some('>') => r"\u003e",
            Some('&') => r"\u0026",
            Some('\u{2028}') => r"\u2028",
            _ => r"\u2029",
        });
        rest = letters.as_str();
    }
    text.push_str(rest);
    text
}

/// Who can be asked: an agent, or a test's stand-in.
pub trait Source {
    /// Asks once for what the plan names; with an index other than 0 it answers when there is something beyond it, or after some
    /// minutes.
    fn ask(
        &self,
        plan: &Plan,
        index: u64,
    ) -> impl Future<Output = Result<Answer<Watched>, Error>> + Send;
}

impl Source for Client {
    async fn ask(&self, plan: &Plan, index: u64) -> Result<Answer<Watched>, Error> {
        let options = plan.options(index);
        match &plan.kind {
            Kind::Key(key) => Ok(self.kv_get(key, &options).await?.map(Watched::Key)),
            Kind::KeyPrefix(prefix) => {
                let pairs = self.kv_list(prefix, &options).await?;
                // The original's client tells no keys from a list without one, and its list is never empty.
                Ok(pairs.map(|pairs| Watched::Keys(Some(pairs).filter(|pairs| !pairs.is_empty()))))
            }
            Kind::Services => {
                let services = self.catalog_services(&options).await?;
                Ok(services.map(Watched::Services))
            }
            Kind::Nodes => Ok(self.catalog_nodes(&options).await?.map(Watched::Nodes)),
            Kind::Service {
                service,
                tag,
                passing_only,
            } => {
                let entries = self.health_service(service, tag, *passing_only, &options);
                Ok(entries.await?.map(Watched::Instances))
            }
            Kind::ServiceChecks(service) => {
                let checks = self.health_checks(service, &options).await?;
                Ok(checks.map(Watched::Checks))
            }
            Kind::StateChecks(state) => {
                let checks = self.health_state(state, &options).await?;
                Ok(checks.map(Watched::Checks))
            }
            Kind::Event(name) => Ok(self.event_list(name, &options).await?.map(Watched::Events)),
        }
    }
}

/// Something new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The index at which it was found.
    pub index: u64,
    /// What was found.
    pub value: Arc<Watched>,
}

/// A question that failed; the next one is put off.
#[derive(Debug, thiserror::Error)]
#[error("Watch (type: {kind}) errored: {why}, retry in {}", GoDuration::from(*.retry_in))]
pub struct Failure {
    /// The type of the watch.
    pub kind: &'static str,
    /// What went wrong.
    pub why: Error,
    /// How long nobody is asked.
    pub retry_in: Duration,
}

/// A plan that is carried out.
#[derive(Debug)]
pub struct Watch<S> {
    source: S,
    plan: Plan,
    progress: Progress,
    /// When the next question may be asked, if not at once.
    not_before: Option<Instant>,
}

impl<S: Source> Watch<S> {
    /// Nothing is asked yet.
    pub fn new(source: S, plan: Plan) -> Self {
        Self {
            source,
            plan,
            progress: Progress::default(),
            not_before: None,
        }
    }

    /// Waits for something new: for the first answer, whatever it is, and from then on for one that differs from the last.
    ///
    /// What happens between two calls is told as one change. Dropping the future loses nothing.
    ///
    /// # Errors
    /// When a question failed; the next call goes on, as late as the failure says.
    pub async fn next(&mut self) -> Result<Change, Failure> {
        loop {
            if let Some(instant) = self.not_before {
                sleep_until(instant).await;
                self.not_before = None;
            }
            let asked = Instant::now();
            let answer = self.source.ask(&self.plan, self.progress.index).await;
            let later = |span| Some(Instant::now() + span);
            match answer {
                Ok(answer) => {
                    self.not_before = if answer.meta.index == 0 {
                        later(WITHOUT_INDEX)
                    } else {
                        Some(asked + PACE)
                    };
                    if let Some(change) = self.progress.answered(answer) {
                        return Ok(change);
                    }
                }
                Err(why) => {
                    let retry_in = self.progress.failed();
                    self.not_before = later(retry_in);
                    return Err(Failure {
                        kind: self.plan.name(),
                        why,
                        retry_in,
                    });
                }
            }
        }
    }
}

/// How far a watch has come.
#[derive(Debug, Default)]
struct Progress {
    /// What the next question waits from; 0 to be answered at once.
    index: u64,
    last: Option<Arc<Watched>>,
    failures: u32,
}

impl Progress {
    /// Takes an answer, and says whether it is something new.
    fn answered(&mut self, answer: Answer<Watched>) -> Option<Change> {
        self.failures = 0;
        // An index of 0, of a table that was never written, would be answered at once.
        let index = answer.meta.index.max(1);
        let before = std::mem::replace(&mut self.index, index);
        if index == before && self.last.is_some() {
            return None;
        }
        let mut value = answer.value;
        if let Watched::Events(events) = &mut value {
            // What came up to the last answer was told. Where the agent doesn't remember it any more, all is told again.
            let seen = events
                .iter()
                .rposition(|event| event.index() == Some(before));
            events.drain(..seen.map_or(0, |seen| seen + 1));
        } else if index < before {
            // The state is another one, and what it may have missed of it is asked for at once.
            self.index = 0;
        }
        if self.last.as_deref() == Some(&value) {
            return None;
        }
        let value = Arc::new(value);
        self.last = Some(Arc::clone(&value));
        Some(Change { index, value })
    }

    /// Takes note of a failure, and says how long to wait after it.
    fn failed(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let square = self.failures.saturating_mul(self.failures);
        RETRY.saturating_mul(square).min(RETRY_MAX)
    }
}

#[cfg(test)]
mod tests;
