//! Instances of Google Compute Engine that carry a tag.
//!
//! The project comes from the configuration or, on an instance, from its metadata service.
//! Credentials come from the first of these that there is: the configured file, the file that the environment names,
//! the file that Google's tool leaves at home, the service account of the instance.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use futures::future::BoxFuture;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use http::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::http::{Answer, FACT_MAX, Http, PAGE_MAX, ask, escaped, form, no_code};
use super::signature;
use super::{Discover, DiscoverError, Options, Secret, read_credentials_file, search, variable};

/// The options under `retry_join_gce`.
pub(super) const OPTIONS: &[&str] = &[
    "credentials_file",
    "project_name",
    "tag_value",
    "zone_pattern",
];

/// The most pages of one list that a search follows; a page holds up to 500 entries.
const PAGES_MAX: usize = 100;

/// How many zones are asked at once; there are more than a hundred.
const ZONES_AT_ONCE: usize = 8;

/// What we ask to be allowed, and no more.
const SCOPE: &str = "https://www.googleapis.com/auth/compute.readonly";

const API: &str = "GCE";
const METADATA: &str = "the GCE metadata service";
const TOKENS: &str = "Google's token service";

/// Which instances to look for, and as whom.
#[derive(Debug, Clone)]
pub struct Config {
    /// The project; empty for the one that this machine is in.
    pub project_name: String,
    /// The zones to look in, by name; `None` for all of them.
    pub zone_pattern: Option<regex::Regex>,
    /// The tag that the instances carry.
    pub tag_value: String,
    /// A file of credentials; `None` to look for some in the surroundings.
    pub credentials_file: Option<PathBuf>,
}

impl PartialEq for Config {
    fn eq(&self, other: &Self) -> bool {
        let pattern = |config: &Self| config.zone_pattern.as_ref().map(ToString::to_string);
        self.project_name == other.project_name
            && pattern(self) == pattern(other)
            && self.tag_value == other.tag_value
            && self.credentials_file == other.credentials_file
    }
}

impl Eq for Config {}

impl Config {
    /// Reads the options of the configuration.
    ///
    /// # Errors
    /// A text for the user, when they make no sense.
    pub(super) fn read(options: &Options<'_>) -> Result<Option<super::Config>, String> {
        let option = |name| options.get(name).copied().filter(|text| !text.is_empty());
        let Some(tag_value) = option("tag_value") else {
            return Ok(None);
        };
        let project_name = option("project_name").unwrap_or_default();
        if !project_name.is_empty() && !is_name(project_name) {
            return Err(format!(
                "retry_join_gce.project_name: {project_name:?} is no project"
            ));
        }
        let zone_pattern = option("zone_pattern").map(|pattern| {
            // The whole name has to fit.
            regex::RegexBuilder::new(&format!("^(?:{pattern})$"))
                .size_limit(1 << 20)
                .build()
                .map_err(|_| {
                    format!("retry_join_gce.zone_pattern: {pattern:?} is no regular expression")
                })
        });
        Ok(Some(super::Config::Gce(Self {
            project_name: project_name.to_owned(),
            zone_pattern: zone_pattern.transpose()?,
            tag_value: tag_value.to_owned(),
            credentials_file: option("credentials_file").map(PathBuf::from),
        })))
    }
}

/// Names of projects and zones become parts of a path; those of old projects have a domain in front.
fn is_name(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && !text.contains("..")
        && text.bytes().all(|b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.' || b == b':'
        })
}

/// What this process finds around it: where the services are, and whose credentials lie about.
///
/// A plain value, so that tests can say what the surroundings look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surroundings {
    /// Where Compute Engine is asked.
    pub api_url: String,
    /// The metadata service of instances.
    pub metadata_url: String,
    /// Where users' credentials are exchanged for a token.
    pub token_url: String,
    /// The file that the environment names.
    pub named_file: Option<PathBuf>,
    /// The file that Google's tool leaves at home, which need not be there.
    pub home_file: Option<PathBuf>,
}

impl Surroundings {
    /// Those that the environment describes, under the names that Google's own tools use.
    pub fn of_this_process() -> Self {
        let tools = variable("CLOUDSDK_CONFIG")
            .map(PathBuf::from)
            .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".config/gcloud")));
        let metadata = variable("GCE_METADATA_HOST");
        // Google's tool names the version too, which we add ourselves.
        let api_url = variable("CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE").map(|url| {
            let url = url.trim_end_matches('/');
            url.strip_suffix("/compute/v1").unwrap_or(url).to_owned()
        });
        Self {
            api_url: api_url.unwrap_or_else(|| "https://compute.googleapis.com".to_owned()),
            metadata_url: format!(
                "http://{}",
                metadata.as_deref().unwrap_or("metadata.google.internal")
            ),
            token_url: "https://oauth2.googleapis.com/token".to_owned(),
            named_file: variable("GOOGLE_APPLICATION_CREDENTIALS").map(PathBuf::from),
            home_file: tools.map(|folder| folder.join("application_default_credentials.json")),
        }
    }
}

/// The search.
#[derive(Debug)]
pub struct Gce {
    config: Config,
    surroundings: Surroundings,
}

impl Gce {
    /// A search that is ready to be made.
    pub fn new(config: Config, surroundings: Surroundings) -> Self {
        Self {
            config,
            surroundings,
        }
    }
}

impl Discover for Gce {
    fn name(&self) -> &'static str {
        "GCE"
    }

    fn addresses(&self) -> BoxFuture<'_, Result<Vec<IpAddr>, DiscoverError>> {
        let search_of_now = async {
            Search {
                of: self,
                http: Http::default(),
            }
            .run()
            .await
        };
        Box::pin(search(self.name(), search_of_now))
    }
}

/// One search, from its token to the last zone.
struct Search<'a> {
    of: &'a Gce,
    http: Http,
}

impl Search<'_> {
    async fn run(&self) -> Result<Vec<IpAddr>, DiscoverError> {
        let project = self.project().await?;
        let token = self.token().await?;
        let zones: Vec<Zone> = self
            .list(&format!("projects/{project}/zones"), &token)
            .await?;
        let wanted = zones
            .into_iter()
            .map(|zone| zone.name)
            .filter(|zone| is_name(zone))
            .filter(|zone| {
                let pattern = self.of.config.zone_pattern.as_ref();
                pattern.is_none_or(|pattern| pattern.is_match(zone))
            });
        let of_zones: Vec<Vec<IpAddr>> = stream::iter(wanted)
            .map(|zone| self.zone(&project, zone, &token))
            .buffered(ZONES_AT_ONCE)
            .try_collect()
            .await?;
        Ok(of_zones.concat())
    }

    /// The configured project, or the one that this instance is in.
    async fn project(&self) -> Result<String, DiscoverError> {
        if !self.of.config.project_name.is_empty() {
            return Ok(self.of.config.project_name.clone());
        }
        let project = self.metadata("project/project-id").await?.text(METADATA)?;
        let project = project.trim();
        if is_name(project) {
            Ok(project.to_owned())
        } else {
            Err(DiscoverError::Malformed {
                service: METADATA,
                why: "it names no project".to_owned(),
            })
        }
    }

    async fn metadata(&self, fact: &str) -> Result<Answer, DiscoverError> {
        let base = self.of.surroundings.metadata_url.trim_end_matches('/');
        let url = format!("{base}/computeMetadata/v1/{fact}");
        let question = self
            .http
            .question(METADATA, Method::GET, &url)?
            .header("metadata-flavor", "Google");
        ask(METADATA, question, FACT_MAX, no_code).await
    }

    /// The addresses of the instances in one zone that run and carry the tag.
    async fn zone(
        &self,
        project: &str,
        zone: String,
        token: &Secret,
    ) -> Result<Vec<IpAddr>, DiscoverError> {
        let path = format!("projects/{project}/zones/{zone}/instances");
        let instances: Vec<Instance> = self.list(&path, token).await?;
        let mut addresses = Vec::new();
        for instance in instances {
            let carries_tag = instance.tags.items.contains(&self.of.config.tag_value);
            if instance.status != "RUNNING" || !carries_tag {
                continue;
            }
            // The first interface is the one that the others can count on.
            if let Some(interface) = instance.network_interfaces.first() {
                let address =
                    interface
                        .network_ip
                        .parse()
                        .map_err(|_| DiscoverError::Malformed {
                            service: API,
                            why: "an internal address is none".to_owned(),
                        })?;
                addresses.push(address);
            }
        }
        Ok(addresses)
    }

    /// Everything in one list, page by page.
    async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        token: &Secret,
    ) -> Result<Vec<T>, DiscoverError> {
        let base = self.of.surroundings.api_url.trim_end_matches('/');
        let mut items = Vec::new();
        let mut page_token = String::new();
        for _ in 0..PAGES_MAX {
            let mut url = format!("{base}/compute/v1/{path}?maxResults=500");
            if !page_token.is_empty() {
                url.push_str(&format!("&pageToken={}", escaped(&page_token)));
            }
            let question = self
                .http
                .question(API, Method::GET, &url)?
                .bearer_auth(token.reveal());
            let answer = ask(API, question, PAGE_MAX, refusal).await?;
            let page: Page<T> =
                serde_json::from_slice(&answer.body).map_err(|why| DiscoverError::Malformed {
                    service: API,
                    why: why.to_string(),
                })?;
            items.extend(page.items);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(items);
            }
        }
        Err(DiscoverError::Malformed {
            service: API,
            why: format!("more than {PAGES_MAX} pages"),
        })
    }

    /// A token for the questions that follow.
    async fn token(&self) -> Result<Secret, DiscoverError> {
        let surroundings = &self.of.surroundings;
        let named = self.of.config.credentials_file.as_ref();
        if let Some(path) = named.or(surroundings.named_file.as_ref()) {
            return self.token_of_file(path).await;
        }
        if let Some(path) = &surroundings.home_file
            && path.exists()
        {
            return self.token_of_file(path).await;
        }
        let answer = self
            .metadata("instance/service-accounts/default/token")
            .await?;
        token_in(METADATA, &answer)
    }

    async fn token_of_file(&self, path: &Path) -> Result<Secret, DiscoverError> {
        let damaged = |why: &str| {
            DiscoverError::Credentials(format!("the credentials in {}: {why}", path.display()))
        };
        let text = read_credentials_file(path).map_err(|why| damaged(&why.to_string()))?;
        // What serde says of a mistake quotes what it read, which may be the secret.
        let file: CredentialsFile = serde_json::from_str(&text).map_err(|_| {
            damaged("they are neither those of a service account nor those of a user")
        })?;
        let (url, body) = match &file {
            CredentialsFile::ServiceAccount(account) => {
                let url = account
                    .token_uri
                    .as_ref()
                    .unwrap_or(&self.of.surroundings.token_url);
                let now = jiff::Timestamp::now().as_second();
                let assertion = account.assertion(url, now).map_err(|why| damaged(&why))?;
                let body = form(&[
                    ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
                    ("assertion", &assertion),
                ]);
                (url, body)
            }
            CredentialsFile::AuthorizedUser(user) => {
                let body = form(&[
                    ("grant_type", "refresh_token"),
                    ("client_id", &user.client_id),
                    ("client_secret", &user.client_secret),
                    ("refresh_token", &user.refresh_token),
                ]);
                (&self.of.surroundings.token_url, body)
            }
        };
        let question = self
            .http
            .question(TOKENS, Method::POST, url)?
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body);
        let answer = ask(TOKENS, question, FACT_MAX, refusal).await?;
        token_in(TOKENS, &answer)
    }
}

/// A file of credentials, in the two forms that Google hands out.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum CredentialsFile {
    ServiceAccount(ServiceAccount),
    AuthorizedUser(User),
}

#[derive(Deserialize)]
struct ServiceAccount {
    client_email: String,
    private_key: String,
    private_key_id: Option<String>,
    token_uri: Option<String>,
}

#[derive(Deserialize)]
struct User {
    client_id: String,
    client_secret: String,
    refresh_token: String,
}

impl ServiceAccount {
    /// What this account says of itself to be given a token: it is who it is, for the next ten minutes.
    fn assertion(&self, audience: &str, now: i64) -> Result<String, String> {
        let mut header = serde_json::json!({"alg": "RS256", "typ": "JWT"});
        if let Some(id) = &self.private_key_id {
            header["kid"] = id.as_str().into();
        }
        let claims = serde_json::json!({
            "iss": self.client_email,
            "scope": SCOPE,
            "aud": audience,
            "iat": now,
            "exp": now + 600,
        });
        signature::jwt(
            &header.to_string(),
            &claims.to_string(),
            &Secret::new(self.private_key.as_str()),
        )
    }
}

fn token_in(service: &'static str, answer: &Answer) -> Result<Secret, DiscoverError> {
    #[derive(Deserialize)]
    struct Given {
        access_token: String,
    }
    let damaged = || DiscoverError::Malformed {
        service,
        why: "it holds no token".to_owned(),
    };
    let given: Given = serde_json::from_slice(&answer.body).map_err(|_| damaged())?;
    let token = given.access_token;
    // It goes into a header.
    if token.is_empty() || !token.bytes().all(|b| (0x21..0x7f).contains(&b)) {
        return Err(damaged());
    }
    Ok(Secret::new(token))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound = "T: DeserializeOwned")]
struct Page<T> {
    #[serde(default = "Vec::new")]
    items: Vec<T>,
    #[serde(default)]
    next_page_token: String,
}

#[derive(Deserialize)]
struct Zone {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Instance {
    #[serde(default)]
    status: String,
    #[serde(default)]
    tags: Tags,
    #[serde(default)]
    network_interfaces: Vec<Interface>,
}

#[derive(Default, Deserialize)]
struct Tags {
    #[serde(default)]
    items: Vec<String>,
}

#[derive(Deserialize)]
struct Interface {
    #[serde(rename = "networkIP", default)]
    network_ip: String,
}

/// Google's word for a refusal: `{"error": "word"}` of the token service, a nested reason elsewhere.
fn refusal(body: &[u8]) -> Option<String> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    let error = &body["error"];
    [&error["errors"][0]["reason"], &error["status"], error]
        .into_iter()
        .find_map(|word| word.as_str())
        .map(str::to_owned)
}

#[cfg(test)]
mod tests;
