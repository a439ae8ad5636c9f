//! Instances of Amazon EC2 that carry a tag.
//!
//! The region comes from the configuration or, on an instance, from its metadata service.
//! Credentials come from the first of these that has any: the configuration, the environment, the shared credentials
//! file, the container service, the instance's role.

use std::net::IpAddr;
use std::path::PathBuf;

use futures::future::BoxFuture;
use http::Method;
use quick_xml::XmlVersion;
use quick_xml::events::Event;
use serde::Deserialize;

use super::http::{Answer, FACT_MAX, Http, PAGE_MAX, ask, form, no_code};
use super::signature::{self, AwsCredentials, AwsRequest};
use super::{Discover, DiscoverError, Options, Secret, read_credentials_file, search, variable};

/// The options under `retry_join_ec2`.
pub(super) const OPTIONS: &[&str] = &[
    "access_key_id",
    "region",
    "secret_access_key",
    "tag_key",
    "tag_value",
];

/// The most pages that one search follows; a page holds up to a thousand instances.
const PAGES_MAX: usize = 100;

const API: &str = "EC2";
const METADATA: &str = "the EC2 metadata service";
const CONTAINERS: &str = "the ECS credentials service";

/// Which instances to look for, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The region; empty for the one that this machine is in.
    pub region: String,
    /// The tag that the instances carry.
    pub tag_key: String,
    /// The tag's value.
    pub tag_value: String,
    /// Credentials of the configuration: access key id and secret access key.
    pub credentials: Option<(String, Secret)>,
}

impl Config {
    /// Reads the options of the configuration.
    ///
    /// # Errors
    /// A text for the user, when they don't go together.
    pub(super) fn read(options: &Options<'_>) -> Result<Option<super::Config>, String> {
        let option = |name| options.get(name).copied().filter(|text| !text.is_empty());
        let (tag_key, tag_value) = match (option("tag_key"), option("tag_value")) {
            (Some(key), Some(value)) => (key.to_owned(), value.to_owned()),
            (None, None) => return Ok(None),
            _ => return Err("tag key and value are both required for EC2 retry-join".to_owned()),
        };
        let region = option("region").unwrap_or_default();
        if !region.is_empty() && !is_region(region) {
            return Err(format!("retry_join_ec2.region: {region:?} is no region"));
        }
        let credentials = match (option("access_key_id"), option("secret_access_key")) {
            (Some(id), Some(secret)) => {
                if !is_header_text(id) {
                    return Err("retry_join_ec2.access_key_id is no access key id".to_owned());
                }
                Some((id.to_owned(), Secret::new(secret)))
            }
            (None, None) => None,
            _ => {
                return Err(
                    "retry_join_ec2: access_key_id and secret_access_key are needed together"
                        .to_owned(),
                );
            }
        };
        Ok(Some(super::Config::Ec2(Self {
            region: region.to_owned(),
            tag_key,
            tag_value,
            credentials,
        })))
    }
}

/// A region becomes part of a host's name, so it must not be able to name another host.
fn is_region(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn is_header_text(text: &str) -> bool {
    !text.is_empty() && text.len() <= 4096 && text.bytes().all(|b| (0x21..0x7f).contains(&b))
}

/// What this process finds around it: where the services are, and whose credentials lie about.
///
/// A plain value, so that tests can say what the surroundings look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surroundings {
    /// Where EC2 is asked; `None` for the region's own address.
    pub api_url: Option<String>,
    /// The metadata service of instances; `None` where it must not be asked.
    pub metadata_url: Option<String>,
    /// The service that gives credentials to containers.
    pub containers_url: String,
    /// The path there that is this container's; `None` outside of containers.
    pub container_path: Option<String>,
    /// Credentials of the environment: access key id, secret access key, session token.
    pub credentials: Option<(String, Secret, Option<Secret>)>,
    /// The shared credentials file, if there may be one.
    pub credentials_file: Option<PathBuf>,
    /// The section of it that counts.
    pub profile: String,
}

impl Surroundings {
    /// Those that the environment describes, under the names that Amazon's own tools use.
    pub fn of_this_process() -> Self {
        let either = |one, other| variable(one).or_else(|| variable(other));
        let access_key_id = either("AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY");
        let secret_access_key = either("AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY");
        let metadata_off = variable("AWS_EC2_METADATA_DISABLED")
            .is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let metadata_url = variable("AWS_EC2_METADATA_SERVICE_ENDPOINT")
            .unwrap_or_else(|| "http://169.254.169.254".to_owned());
        Self {
            api_url: either("AWS_ENDPOINT_URL_EC2", "AWS_ENDPOINT_URL"),
            metadata_url: (!metadata_off).then_some(metadata_url),
            containers_url: "http://169.254.170.2".to_owned(),
            container_path: variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
            credentials: access_key_id.zip(secret_access_key).map(|(id, secret)| {
                let token = variable("AWS_SESSION_TOKEN").map(Secret::new);
                (id, Secret::new(secret), token)
            }),
            credentials_file: variable("AWS_SHARED_CREDENTIALS_FILE")
                .map(PathBuf::from)
                .or_else(|| {
                    variable("HOME").map(|home| PathBuf::from(home).join(".aws/credentials"))
                }),
            profile: variable("AWS_PROFILE").unwrap_or_else(|| "default".to_owned()),
        }
    }
}

/// The search.
#[derive(Debug)]
pub struct Ec2 {
    config: Config,
    surroundings: Surroundings,
}

impl Ec2 {
    /// A search that is ready to be made.
    pub fn new(config: Config, surroundings: Surroundings) -> Self {
        Self {
            config,
            surroundings,
        }
    }
}

impl Discover for Ec2 {
    fn name(&self) -> &'static str {
        "EC2"
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

/// One search, from its credentials to its last page.
struct Search<'a> {
    of: &'a Ec2,
    http: Http,
}

impl Search<'_> {
    async fn run(&self) -> Result<Vec<IpAddr>, DiscoverError> {
        let region = self.region().await?;
        let credentials = self.credentials().await?;
        let mut addresses = Vec::new();
        let mut next = None;
        for _ in 0..PAGES_MAX {
            let page = self.page(&region, &credentials, next.as_deref()).await?;
            addresses.extend(page.addresses);
            next = page.next;
            if next.is_none() {
                return Ok(addresses);
            }
        }
        Err(DiscoverError::Malformed {
            service: API,
            why: format!("more than {PAGES_MAX} pages"),
        })
    }

    /// The configured region, or the one that this instance is in.
    async fn region(&self) -> Result<String, DiscoverError> {
        if !self.of.config.region.is_empty() {
            return Ok(self.of.config.region.clone());
        }
        let region = match self.fact("/latest/meta-data/placement/region").await {
            // Older metadata services know the zone alone, whose last letter is its own.
            Err(DiscoverError::Refused { status: 404, .. }) => {
                let zone = self
                    .fact("/latest/meta-data/placement/availability-zone")
                    .await?;
                zone.trim_end_matches(|c: char| c.is_ascii_lowercase())
                    .to_owned()
            }
            answer => answer?,
        };
        if is_region(&region) {
            Ok(region)
        } else {
            Err(DiscoverError::Malformed {
                service: METADATA,
                why: "it names no region".to_owned(),
            })
        }
    }

    async fn credentials(&self) -> Result<AwsCredentials, DiscoverError> {
        let surroundings = &self.of.surroundings;
        if let Some((id, secret)) = &self.of.config.credentials {
            return Ok(AwsCredentials {
                access_key_id: id.clone(),
                secret_access_key: secret.clone(),
                session_token: None,
            });
        }
        if let Some((id, secret, token)) = &surroundings.credentials {
            return sound(
                AwsCredentials {
                    access_key_id: id.clone(),
                    secret_access_key: secret.clone(),
                    session_token: token.clone(),
                },
                "the environment",
            );
        }
        if let Some(path) = &surroundings.credentials_file
            && let Ok(text) = read_credentials_file(path)
            && let Some(found) = profile(&text, &surroundings.profile)
        {
            return sound(found, "the shared credentials file");
        }
        if let Some(path) = &surroundings.container_path {
            let url = format!("{}{path}", surroundings.containers_url);
            let question = self.http.question(CONTAINERS, Method::GET, &url)?;
            let answer = ask(CONTAINERS, question, FACT_MAX, no_code).await?;
            return role_credentials(CONTAINERS, &answer);
        }
        self.role().await
    }

    /// The credentials of the role that this instance was given.
    async fn role(&self) -> Result<AwsCredentials, DiscoverError> {
        const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
        let nothing = |why: String| {
            DiscoverError::Credentials(format!(
                "no credentials for EC2 in the configuration, the environment or the shared credentials file, \
                 and none from the instance's role: {why}"
            ))
        };
        let roles = self
            .fact(ROLES)
            .await
            .map_err(|why| nothing(why.to_string()))?;
        let role = roles.lines().next().unwrap_or_default().trim();
        let is_role = (1..=128).contains(&role.len())
            && role
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"+=,.@_-".contains(&b));
        if !is_role {
            return Err(nothing("it has no role".to_owned()));
        }
        let answer = self.metadata(&format!("{ROLES}{role}")).await?;
        role_credentials(METADATA, &answer)
    }

    async fn fact(&self, path: &str) -> Result<String, DiscoverError> {
        let text = self.metadata(path).await?.text(METADATA)?;
        Ok(text.trim().to_owned())
    }

    /// Asks the metadata service, with the token that its newer form wants.
    async fn metadata(&self, path: &str) -> Result<Answer, DiscoverError> {
        let Some(base) = &self.of.surroundings.metadata_url else {
            return Err(DiscoverError::Unreachable {
                service: METADATA,
                why: "it is switched off by AWS_EC2_METADATA_DISABLED".to_owned(),
            });
        };
        let base = base.trim_end_matches('/');
        let token = self
            .http
            .question(METADATA, Method::PUT, &format!("{base}/latest/api/token"))?
            .header("x-aws-ec2-metadata-token-ttl-seconds", "60");
        let token = match ask(METADATA, token, FACT_MAX, no_code).await {
            Ok(answer) => Some(answer.text(METADATA)?),
            // The older form has no tokens, and takes none.
            Err(DiscoverError::Refused {
                status: 403..=405, ..
            }) => None,
            Err(why) => return Err(why),
        };
        let mut question = self
            .http
            .question(METADATA, Method::GET, &format!("{base}{path}"))?;
        if let Some(token) = token.as_deref().map(str::trim)
            && is_header_text(token)
        {
            question = question.header("x-aws-ec2-metadata-token", token);
        }
        ask(METADATA, question, FACT_MAX, no_code).await
    }

    /// One page of the instances that run and carry the tag.
    async fn page(
        &self,
        region: &str,
        credentials: &AwsCredentials,
        next: Option<&str>,
    ) -> Result<Page, DiscoverError> {
        let url = match &self.of.surroundings.api_url {
            Some(url) => url.clone(),
            None if region.starts_with("cn-") => format!("https://ec2.{region}.amazonaws.com.cn/"),
            None => format!("https://ec2.{region}.amazonaws.com/"),
        };
        let unusable = |why: String| DiscoverError::Unreachable { service: API, why };
        let url = reqwest::Url::parse(&url).map_err(|why| unusable(why.to_string()))?;
        let host = match (url.host_str(), url.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (Some(host), None) => host.to_owned(),
            (None, _) => return Err(unusable("the address names no host".to_owned())),
        };

        let tag = format!("tag:{}", self.of.config.tag_key);
        let mut pairs = vec![
            ("Action", "DescribeInstances"),
            ("Version", "2016-11-15"),
            ("Filter.1.Name", tag.as_str()),
            ("Filter.1.Value.1", self.of.config.tag_value.as_str()),
            ("Filter.2.Name", "instance-state-name"),
            ("Filter.2.Value.1", "running"),
            ("MaxResults", "1000"),
        ];
        if let Some(next) = next {
            pairs.push(("NextToken", next));
        }
        let body = form(&pairs);

        let headers = [
            (
                "content-type",
                "application/x-www-form-urlencoded; charset=utf-8",
            ),
            ("host", host.as_str()),
        ];
        let signed = AwsRequest {
            method: "POST",
            path: url.path(),
            query: "",
            headers: &headers,
            body: body.as_bytes(),
        };
        let time = jiff::Timestamp::now()
            .strftime("%Y%m%dT%H%M%SZ")
            .to_string();
        let mut question = self
            .http
            .question(API, Method::POST, url.as_str())?
            .header(headers[0].0, headers[0].1);
        for (name, value) in signature::aws(signed, credentials, region, "ec2", &time) {
            question = question.header(name, value);
        }
        let answer = ask(API, question.body(body), PAGE_MAX, refusal).await?;
        parse_page(&answer.body).map_err(|why| DiscoverError::Malformed { service: API, why })
    }
}

/// Credentials go into headers, so they must be able to.
fn sound(credentials: AwsCredentials, source: &str) -> Result<AwsCredentials, DiscoverError> {
    let token = credentials.session_token.as_ref();
    if is_header_text(&credentials.access_key_id)
        && token.is_none_or(|token| token.reveal().bytes().all(|b| (0x21..0x7f).contains(&b)))
    {
        Ok(credentials)
    } else {
        Err(DiscoverError::Credentials(format!(
            "the credentials of {source} are damaged"
        )))
    }
}

/// The credentials of one section of a shared credentials file.
fn profile(text: &str, name: &str) -> Option<AwsCredentials> {
    let mut ours = false;
    let (mut id, mut secret, mut token) = (None, None, None);
    for line in text.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            let section = section.split(']').next().unwrap_or_default().trim();
            ours = section == name;
        } else if ours
            && !line.starts_with(['#', ';'])
            && let Some((key, value)) = line.split_once('=')
        {
            let value = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
            match key.trim() {
                "aws_access_key_id" => id = value,
                "aws_secret_access_key" => secret = value,
                "aws_session_token" => token = value,
                _ => {}
            }
        }
    }
    Some(AwsCredentials {
        access_key_id: id?,
        secret_access_key: Secret::new(secret?),
        session_token: token.map(Secret::new),
    })
}

/// The credentials that an instance or a container is given.
fn role_credentials(
    service: &'static str,
    answer: &Answer,
) -> Result<AwsCredentials, DiscoverError> {
    #[derive(Deserialize)]
    struct Given {
        #[serde(rename = "AccessKeyId")]
        access_key_id: String,
        #[serde(rename = "SecretAccessKey")]
        secret_access_key: String,
        #[serde(rename = "Token")]
        token: Option<String>,
    }
    // What serde says of a mistake quotes what it read, which may be the secret.
    let given: Given =
        serde_json::from_slice(&answer.body).map_err(|_| DiscoverError::Malformed {
            service,
            why: "it holds no credentials".to_owned(),
        })?;
    let credentials = AwsCredentials {
        access_key_id: given.access_key_id,
        secret_access_key: Secret::new(given.secret_access_key),
        session_token: given
            .token
            .filter(|token| !token.is_empty())
            .map(Secret::new),
    };
    sound(credentials, service)
}

/// One answer to `DescribeInstances`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Page {
    addresses: Vec<IpAddr>,
    next: Option<String>,
}

/// Walks through an XML document and calls `leaf` with each element's path below the root, and its text, at its end.
fn walk(xml: &[u8], mut leaf: impl FnMut(&[String], &str)) -> Result<(), String> {
    const DEPTH_MAX: usize = 32;
    let mut reader = quick_xml::Reader::from_reader(xml);
    let (mut path, mut text) = (Vec::new(), String::new());
    let mut seen_root = false;
    loop {
        match reader.read_event().map_err(|why| why.to_string())? {
            Event::Start(start) => {
                if path.len() == DEPTH_MAX {
                    return Err(format!("more than {DEPTH_MAX} elements within one another"));
                }
                seen_root = true;
                path.push(start.local_name().into_inner().to_owned());
                text.clear();
            }
            Event::Text(part) => {
                text.push_str(&part.xml_content(XmlVersion::Implicit1_0));
            }
            Event::GeneralRef(reference) => {
                let character = match &*reference {
                    "amp" => Some('&'),
                    "lt" => Some('<'),
                    "gt" => Some('>'),
                    "quot" => Some('"'),
                    "apos" => Some('\''),
                    _ => reference
                        .resolve_char_ref()
                        .map_err(|why| why.to_string())?,
                };
                text.push(character.ok_or("it has entities of its own")?);
            }
            Event::End(_) => {
                leaf(path.get(1..).unwrap_or_default(), text.trim());
                path.pop();
                text.clear();
            }
            Event::Eof if seen_root && path.is_empty() => return Ok(()),
            Event::Eof => return Err("it ends too early".to_owned()),
            Event::Empty(_)
            | Event::CData(_)
            | Event::Comment(_)
            | Event::Decl(_)
            | Event::PI(_)
            | Event::DocType(_) => {}
        }
    }
}

fn parse_page(xml: &[u8]) -> Result<Page, String> {
    let mut page = Page::default();
    let (mut address, mut state) = (None, String::new());
    let mut bad = None;
    walk(xml, |path, text| {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        match path[..] {
            ["nextToken"] if !text.is_empty() => page.next = Some(text.to_owned()),
            [
                "reservationSet",
                "item",
                "instancesSet",
                "item",
                ref field @ ..,
            ] => match field {
                ["privateIpAddress"] => match text.parse::<IpAddr>() {
                    Ok(parsed) => address = Some(parsed),
                    Err(_) => bad = Some("a private address is none".to_owned()),
                },
                ["instanceState", "name"] => text.clone_into(&mut state),
                // The end of an instance.
                [] => {
                    let found = address.take();
                    if state.is_empty() || state == "running" {
                        page.addresses.extend(found);
                    }
                    state.clear();
                }
                _ => {}
            },
            _ => {}
        }
    })?;
    bad.map_or(Ok(page), Err)
}

/// Amazon's word for a refusal. Its explanation is left alone: it quotes what was sent.
fn refusal(body: &[u8]) -> Option<String> {
    let mut code = None;
    walk(body, |path, text| {
        if path.last().is_some_and(|name| name == "Code") {
            code = Some(text.to_owned());
        }
    })
    .ok()?;
    code
}

/// Reads the bytes as an answer of Amazon's, for fuzzing.
pub(crate) fn fuzz(bytes: &[u8]) {
    let _ = parse_page(bytes);
    let _ = refusal(bytes);
}

#[cfg(test)]
mod tests;
