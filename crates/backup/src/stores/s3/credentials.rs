//! Who we are at Amazon's: the keys somebody gave, or those that a token, a container, an instance or a role lends.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures::TryStreamExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use object_store::aws::{AwsAuthorizer, AwsCredential, AwsCredentialProvider};
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody};
use object_store::{CredentialProvider, StaticCredentialProvider};
use quick_xml::events::Event;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::super::StoreError;
use super::super::told::{Told, chain, explained};
use super::{S3, SESSION_NAME};
use crate::location::Environment;

/// Where credentials come from.
#[derive(Debug)]
pub(super) enum Source {
    Keys(Keys),
    Token(Token),
    Container(Container),
    /// The machine that we run on; asked at the address where each instance of EC2 is, unless another one is named.
    Instance {
        endpoint: Option<String>,
    },
}

/// Keys as people are given them.
pub(super) struct Keys {
    id: String,
    secret: String,
    token: Option<String>,
}

/// A file that proves who may take on a role.
#[derive(Debug)]
pub(super) struct Token {
    file: PathBuf,
    role: Role,
}

/// A role, and what its sessions are called.
#[derive(Debug)]
pub(super) struct Role {
    arn: String,
    session: String,
}

/// Where the orchestrator of a container lends its credentials.
#[derive(Debug)]
pub(super) struct Container {
    url: String,
    authorization: Option<Authorization>,
}

enum Authorization {
    Value(String),
    File(PathBuf),
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorization").finish_non_exhaustive()
    }
}

/// Where this store's credentials come from. What the settings name goes before the environment, that before the tools'
/// file, and that before what the machine has.
pub(super) fn plan(s3: &S3, environment: Environment<'_>) -> Result<Source, StoreError> {
    let wrong = |text: &str| StoreError::Settings(text.to_owned());
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    match (text(&s3.access_key_id), text(&s3.secret_access_key)) {
        (Some(id), Some(secret)) => {
            let token = text(&s3.session_token);
            return Ok(Source::Keys(Keys { id, secret, token }));
        }
        (None, None) => {}
        _ => {
            return Err(wrong(
                "S3 needs both the access key id and the secret access key, or neither",
            ));
        }
    }
    let token_of = |file: String, variable: &str| {
        let arn = text(&s3.role_arn).or_else(|| environment("AWS_ROLE_ARN"));
        let arn = arn.ok_or_else(|| {
            StoreError::Settings(format!(
                "{variable} proves who may take on a role; name the role as well"
            ))
        })?;
        Ok(Source::Token(Token {
            file: file.into(),
            role: Role {
                arn,
                session: session(s3, environment),
            },
        }))
    };
    if let Some(file) = text(&s3.web_identity_token_file) {
        return token_of(file, "a web identity token");
    }
    let first = |names: [&str; 2]| names.iter().find_map(|name| environment(name));
    let id = first(["AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY"]);
    let secret = first(["AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY"]);
    match (id, secret) {
        (Some(id), Some(secret)) => {
            let token = text(&s3.session_token).or_else(|| environment("AWS_SESSION_TOKEN"));
            return Ok(Source::Keys(Keys { id, secret, token }));
        }
        (None, None) => {}
        _ => {
            return Err(wrong(
                "the environment has one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; set both or neither",
            ));
        }
    }
    if let Some(file) = environment(TOKEN_FILE) {
        return token_of(file, TOKEN_FILE);
    }
    if let Some(keys) = Keys::of_profile(environment)? {
        return Ok(Source::Keys(keys));
    }
    if let Some(container) = Container::of(environment)? {
        return Ok(Source::Container(container));
    }
    if environment("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value == "true") {
        return Err(wrong(
            "S3 has no credentials: the settings and the environment name none, and AWS_EC2_METADATA_DISABLED forbids to \
             ask this machine",
        ));
    }
    let endpoint = text(&s3.iam_endpoint)
        // Those who set the address of IAM itself get what they got with the original: it has nothing to be asked there.
        .filter(|endpoint| !endpoint.trim_start_matches("https://").starts_with("iam."))
        .or_else(|| environment("AWS_EC2_METADATA_SERVICE_ENDPOINT"));
    let endpoint = endpoint.map(|text| super::address(&text)).transpose()?;
    Ok(Source::Instance {
        endpoint: endpoint.map(|url| url.as_str().trim_end_matches('/').to_owned()),
    })
}

const TOKEN_FILE: &str = "AWS_WEB_IDENTITY_TOKEN_FILE";

/// The role to take on with whatever credentials there are; none if a token already stands for one.
pub(super) fn role(s3: &S3, environment: Environment<'_>) -> Option<Role> {
    // Where there are keys and a token, the role is still the token's.
    let is_by_token = !s3.web_identity_token_file.is_empty()
        || (s3.access_key_id.is_empty() && environment(TOKEN_FILE).is_some());
    let arn = match &s3.role_arn[..] {
        _ if is_by_token => None,
        // Where the environment has a token, its role is meant for that.
        "" if environment(TOKEN_FILE).is_some() => None,
        "" => environment("AWS_ROLE_ARN"),
        arn => Some(arn.to_owned()),
    };
    Some(Role {
        arn: arn?,
        session: session(s3, environment),
    })
}

fn session(s3: &S3, environment: Environment<'_>) -> String {
    let given = Some(s3.role_session_name.clone()).filter(|name| !name.is_empty());
    given
        .or_else(|| environment("AWS_ROLE_SESSION_NAME"))
        .unwrap_or_else(|| SESSION_NAME.to_owned())
}

/// The most that is read of a file of credentials.
const FILE_MAX: u64 = 1 << 20;

fn read(file: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(file)?
        .take(FILE_MAX)
        .read_to_string(&mut text)?;
    Ok(text)
}

impl Keys {
    pub(super) fn into_provider(self) -> Result<AwsCredentialProvider, StoreError> {
        let keys = self
            .credential()
            .map_err(|why| StoreError::Settings(why.to_string()))?;
        Ok(Arc::new(StaticCredentialProvider::new(keys)))
    }

    fn credential(self) -> Result<AwsCredential, Told> {
        // They go into headers, where nothing else can be.
        let is_word =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        let all = [Some(&self.id), Some(&self.secret), self.token.as_ref()];
        if !all.into_iter().flatten().all(|text| is_word(text)) {
            return Err(Told(
                "an access key, its secret or its token has blanks or other characters that none has".to_owned(),
            ));
        }
        Ok(AwsCredential {
            key_id: self.id,
            secret_key: self.secret,
            token: self.token,
        })
    }

    /// The profile that the environment names in the file of AWS's tools, if it is there.
    fn of_profile(environment: Environment<'_>) -> Result<Option<Self>, StoreError> {
        let file = match (
            environment("AWS_SHARED_CREDENTIALS_FILE"),
            environment("HOME"),
        ) {
            (Some(file), _) => PathBuf::from(file),
            (None, Some(home)) => PathBuf::from(home).join(".aws/credentials"),
            (None, None) => return Ok(None),
        };
        let named = environment("AWS_PROFILE");
        let name = named.as_deref().unwrap_or("default");
        match read(&file) {
            Ok(text) => Ok(Self::parse(&text, name)),
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(why) => Err(StoreError::Settings(format!(
                "cannot read the credentials in {}: {why}",
                file.display()
            ))),
        }
    }

    fn parse(text: &str, profile: &str) -> Option<Self> {
        let mut is_ours = false;
        let (mut id, mut secret, mut token) = (None, None, None);
        for line in text.lines().map(str::trim) {
            if let Some(name) = line
                .strip_prefix('[')
                .and_then(|line| line.strip_suffix(']'))
            {
                is_ours = name.trim() == profile;
            } else if is_ours && let Some((key, value)) = line.split_once('=') {
                let value = Some(value.trim().to_owned());
                match key.trim() {
                    "aws_access_key_id" => id = value,
                    "aws_secret_access_key" => secret = value,
                    "aws_session_token" => token = value,
                    _ => {}
                }
            }
        }
        Some(Self {
            id: id?,
            secret: secret?,
            token: token.filter(|token| !token.is_empty()),
        })
    }
}

impl Container {
    /// Where ECS and those that do as it does say in the environment that they lend credentials.
    fn of(environment: Environment<'_>) -> Result<Option<Self>, StoreError> {
        let url = match environment("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
            Some(path) => Some(format!("http://169.254.170.2{path}")),
            None => environment("AWS_CONTAINER_CREDENTIALS_FULL_URI"),
        };
        let Some(url) = url else { return Ok(None) };
        let value = environment("AWS_CONTAINER_AUTHORIZATION_TOKEN").map(Authorization::Value);
        let file = environment("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").map(PathBuf::from);
        Ok(Some(Self {
            url: super::address(&url)?.into(),
            authorization: file.map(Authorization::File).or(value),
        }))
    }

    pub(super) fn into_provider(self, client: HttpClient) -> AwsCredentialProvider {
        Lent::provider(Lender::Container(self), client)
    }

    async fn lend(&self, client: &HttpClient) -> Result<Loan, Told> {
        let mut request = http::Request::get(&self.url);
        let authorization = match &self.authorization {
            None => None,
            Some(Authorization::Value(value)) => Some(value.clone()),
            Some(Authorization::File(file)) => Some(read(file).map_err(|why| {
                Told(format!(
                    "cannot read the token in {}: {why}",
                    file.display()
                ))
            })?),
        };
        if let Some(value) = authorization {
            request = request.header("authorization", value.trim());
        }
        let request = request.body(HttpRequestBody::empty());
        let answer = ask(
            client,
            request.map_err(unusable)?,
            "the container's credentials",
        )
        .await?;
        let lent: serde_json::Value = serde_json::from_slice(&answer).map_err(unusable)?;
        let field = |name: &str| {
            lent.get(name)
                .and_then(|value| value.as_str())
                .map(str::to_owned)
        };
        loan(
            field("AccessKeyId"),
            field("SecretAccessKey"),
            field("Token"),
            field("Expiration"),
        )
    }
}

/// The service that gives out roles.
#[derive(Debug, Clone)]
pub(super) struct Sts {
    pub(super) endpoint: String,
    pub(super) region: String,
    pub(super) client: HttpClient,
}

impl Sts {
    /// A role that is taken on with a token.
    pub(super) fn by_token(&self, token: Token) -> AwsCredentialProvider {
        Lent::provider(Lender::Token(self.clone(), token), self.client.clone())
    }

    /// A role that is taken on with other credentials.
    pub(super) fn by_credentials(
        &self,
        role: Role,
        own: &AwsCredentialProvider,
    ) -> AwsCredentialProvider {
        let lender = Lender::Role(self.clone(), role, Arc::clone(own));
        Lent::provider(lender, self.client.clone())
    }

    async fn assume(
        &self,
        action: &str,
        role: &Role,
        token: Option<&str>,
        own: Option<&AwsCredential>,
    ) -> Result<Loan, Told> {
        let mut form = vec![
            ("Action", action),
            ("Version", "2011-06-15"),
            ("RoleArn", &role.arn),
            ("RoleSessionName", &role.session),
            ("DurationSeconds", "3600"),
        ];
        form.extend(token.map(|token| ("WebIdentityToken", token)));
        let form = serde_urlencoded(&form);
        let mut request: HttpRequest = http::Request::post(&self.endpoint)
            .header("content-type", "application/x-www-form-urlencoded")
            .header("content-length", form.len())
            .body(form.into())
            .map_err(unusable)?;
        if let Some(own) = own {
            AwsAuthorizer::new(own, "sts", &self.region)
                .try_authorize(&mut request, None)
                .map_err(unusable)?;
        }
        let what = format!("the role {}", role.arn);
        let answer = ask(&self.client, request, &what).await?;
        let text = std::str::from_utf8(&answer).map_err(unusable)?;
        let field = |name: &str| element(text, name);
        loan(
            field("AccessKeyId"),
            field("SecretAccessKey"),
            field("SessionToken"),
            field("Expiration"),
        )
    }
}

/// A form as browsers write it.
fn serde_urlencoded(fields: &[(&str, &str)]) -> String {
    let mut url = reqwest::Url::parse("form:").expect("this is a URL");
    url.query_pairs_mut().extend_pairs(fields);
    url.query().unwrap_or_default().to_owned()
}

/// The text of the first element of this name.
fn element(xml: &str, name: &str) -> Option<String> {
    let mut reader = quick_xml::Reader::from_str(xml);
    let mut is_inside = false;
    loop {
        match reader.read_event().ok()? {
            Event::Start(start) => is_inside = start.local_name().as_ref() == name,
            // What we look for is words without entities.
            Event::Text(text) if is_inside => {
                return Some(text.as_ref().trim().to_owned());
            }
            Event::End(_) => is_inside = false,
            Event::Eof => return None,
            _ => {}
        }
    }
}

/// How often somebody is asked who lends credentials.
const TRIES: u32 = 4;

/// The longest answer of one.
const ANSWER_MAX: usize = 64 << 10;

async fn ask(client: &HttpClient, request: HttpRequest, what: &str) -> Result<Vec<u8>, Told> {
    let mut tried = 0;
    loop {
        tried += 1;
        let (status, why) = match client.execute(request.clone()).await {
            Err(why) => (None, chain(&why)),
            Ok(answer) => {
                let status = answer.status();
                let mut said = BytesMut::new();
                let mut pieces = answer.into_body().bytes_stream();
                while let Some(piece) = pieces.try_next().await.map_err(unusable)? {
                    if said.len() + piece.len() > ANSWER_MAX {
                        return Err(Told(format!("cannot get {what}: the answer is too long")));
                    }
                    said.extend_from_slice(&piece);
                }
                if status.is_success() {
                    return Ok(said.to_vec());
                }
                (
                    Some(status),
                    format!("{status} {}", String::from_utf8_lossy(&said)),
                )
            }
        };
        // A refusal stays one.
        let is_final = status.is_some_and(|status| !status.is_server_error());
        if is_final || tried == TRIES {
            let (why, _) = explained(&why);
            return Err(Told(format!("cannot get {what}: {why}")));
        }
        tokio::time::sleep(Duration::from_millis(100 << tried)).await;
    }
}

/// Credentials for a while.
struct Loan {
    keys: Arc<AwsCredential>,
    /// When others are asked for.
    until: Instant,
}

/// The longest that credentials are used without asking for others, and the shortest.
const LOAN_MAX: Duration = Duration::from_secs(3600);
const LOAN_MIN: Duration = Duration::from_secs(30);

/// How long before their end others are asked for.
const EARLY: Duration = Duration::from_secs(300);

fn loan(
    id: Option<String>,
    secret: Option<String>,
    token: Option<String>,
    expiration: Option<String>,
) -> Result<Loan, Told> {
    let (Some(id), Some(secret)) = (id, secret) else {
        return Err(Told("the answer has no credentials in it".to_owned()));
    };
    let keys = Keys { id, secret, token }.credential()?;
    let ends: Option<Timestamp> = expiration.and_then(|text| text.parse().ok());
    let left = match ends {
        Some(ends) => Duration::try_from(ends.duration_since(Timestamp::now())).unwrap_or_default(),
        None => LOAN_MAX,
    };
    let left = left.min(LOAN_MAX);
    let used = left.saturating_sub(EARLY).max(left / 2).max(LOAN_MIN);
    Ok(Loan {
        keys: Arc::new(keys),
        until: Instant::now() + used,
    })
}

/// Who lends credentials.
#[derive(Debug)]
enum Lender {
    Token(Sts, Token),
    Role(Sts, Role, AwsCredentialProvider),
    Container(Container),
}

impl Lender {
    async fn lend(&self, client: &HttpClient) -> Result<Loan, object_store::Error> {
        let lent = match self {
            Self::Container(container) => container.lend(client).await,
            Self::Token(sts, Token { file, role }) => match read(file) {
                // The file is read each time, since somebody replaces it before it ends.
                Ok(token) => {
                    let action = "AssumeRoleWithWebIdentity";
                    sts.assume(action, role, Some(token.trim()), None).await
                }
                Err(why) => {
                    let file = file.display();
                    Err(Told(format!("cannot read the token in {file}: {why}")))
                }
            },
            Self::Role(sts, role, own) => {
                let own = own.get_credential().await?;
                sts.assume("AssumeRole", role, None, Some(&own)).await
            }
        };
        lent.map_err(|why| object_store::Error::Generic {
            store: "S3",
            source: why.into(),
        })
    }
}

/// Lent credentials, kept until shortly before they end.
#[derive(Debug)]
struct Lent {
    lender: Lender,
    client: HttpClient,
    kept: Mutex<Option<Loan>>,
}

impl fmt::Debug for Loan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loan").finish_non_exhaustive()
    }
}

impl Lent {
    fn provider(lender: Lender, client: HttpClient) -> AwsCredentialProvider {
        Arc::new(Self {
            lender,
            client,
            kept: Mutex::new(None),
        })
    }
}

impl CredentialProvider for Lent {
    type Credential = AwsCredential;

    fn get_credential<'here, 'call>(
        &'here self,
    ) -> BoxFuture<'call, object_store::Result<Arc<AwsCredential>>>
    where
        'here: 'call,
    {
        Box::pin(async {
            // Held while they are asked for, so that many requests ask once.
            let mut kept = self.kept.lock().await;
            if let Some(loan) = kept.as_ref().filter(|loan| Instant::now() < loan.until) {
                return Ok(Arc::clone(&loan.keys));
            }
            let loan = self.lender.lend(&self.client).await?;
            let keys = Arc::clone(&loan.keys);
            *kept = Some(loan);
            Ok(keys)
        })
    }
}

/// Why there are no credentials.
fn unusable(why: impl fmt::Display) -> Told {
    Told(why.to_string())
}

#[cfg(test)]
mod tests;
