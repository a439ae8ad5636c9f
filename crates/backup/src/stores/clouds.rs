//! The clouds: settings in the original's terms, and the buckets that they open.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::{HttpClient, HttpConnector};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use rustls::ClientConfig;

use super::{Objects, StoreError};

/// Amazon S3, or what speaks like it.
///
/// What is empty comes from the environment (`AWS_…`), then from `~/.aws/credentials`, then from the machine's role.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct S3 {
    /// The region; needed for Amazon's own.
    pub region: String,
    /// The bucket.
    pub bucket: String,
    /// How keys begin.
    pub key_prefix: String,
    /// Whose credentials; needs the secret as well.
    pub access_key_id: String,
    /// Their secret.
    pub secret_access_key: String,
    /// A token for credentials that end.
    pub session_token: String,
    /// Where the store is, if it isn't Amazon's: an `http://` or `https://` URL.
    pub endpoint: String,
    /// Whether the bucket is named in the path instead of in the host.
    pub force_path_style: bool,
    /// Whether the store encrypts what it keeps, with keys of its own.
    pub server_side_encryption: bool,
    /// Whether it does so with KMS.
    pub enable_kms: bool,
    /// With which of KMS's keys; empty for its default one.
    pub kms_key: String,
    /// The one key of all snapshots, which then overwrite each other; empty for a new one each.
    pub static_snapshot_name: String,
    /// A role to take on.
    pub role_arn: String,
    /// What its sessions are called.
    pub role_session_name: String,
    /// The file with the token that proves who may take it on.
    pub web_identity_token_file: String,
    /// Where roles are given, if not at Amazon's.
    pub sts_endpoint: String,
}

/// Google Cloud Storage, with the application's default credentials.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gcs {
    /// The bucket.
    pub bucket: String,
    /// How names begin.
    pub prefix: String,
    /// Where the store is, if it isn't Google's; nothing is signed there.
    pub endpoint: String,
}

/// Azure Blob Storage.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Azure {
    /// The storage account.
    pub account_name: String,
    /// Its key; empty to use the service principal or the machine's identity.
    pub account_key: String,
    /// The container.
    pub container_name: String,
    /// How names begin.
    pub prefix: String,
    /// Which of Microsoft's clouds.
    pub environment: AzureCloud,
    /// A service principal.
    pub service_principal_id: String,
    /// Its secret.
    pub service_principal_secret: String,
    /// Its tenant.
    pub tenant_id: String,
    /// Where the store is, if it isn't Microsoft's.
    pub endpoint: String,
}

/// Microsoft's clouds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AzureCloud {
    /// Nearly everybody's.
    #[default]
    Public,
    /// China's.
    China,
    /// Germany's.
    German,
    /// The government of the United States'.
    UsGovernment,
}

impl AzureCloud {
    /// From the name that settings give it, without regard to case.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name.to_ascii_uppercase().as_str() {
            "" | "AZUREPUBLICCLOUD" => Self::Public,
            "AZURECHINACLOUD" => Self::China,
            "AZUREGERMANCLOUD" => Self::German,
            "AZUREUSGOVERNMENTCLOUD" => Self::UsGovernment,
            _ => return None,
        })
    }

    /// Where its accounts are, and where its principals sign in.
    fn hosts(self) -> (&'static str, &'static str) {
        match self {
            Self::Public => ("core.windows.net", "https://login.microsoftonline.com"),
            Self::China => ("core.chinacloudapi.cn", "https://login.chinacloudapi.cn"),
            Self::German => ("core.cloudapi.de", "https://login.microsoftonline.de"),
            Self::UsGovernment => ("core.usgovcloudapi.net", "https://login.microsoftonline.us"),
        }
    }
}

impl fmt::Debug for S3 {
    /// Without the credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3")
            .field("region", &self.region)
            .field("bucket", &self.bucket)
            .field("key_prefix", &self.key_prefix)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Azure {
    /// Without the credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Azure")
            .field("account_name", &self.account_name)
            .field("container_name", &self.container_name)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

fn settings(text: impl fmt::Display) -> StoreError {
    StoreError::Settings(text.to_string())
}

impl S3 {
    pub(super) fn open(&self) -> Result<Objects, StoreError> {
        if self.bucket.is_empty() {
            return Err(settings("S3 needs a bucket"));
        }
        if self.region.is_empty() && self.endpoint.is_empty() {
            return Err(settings(
                "S3 needs a region, or an endpoint that isn't Amazon's",
            ));
        }
        if self.access_key_id.is_empty() != self.secret_access_key.is_empty() {
            return Err(settings(
                "S3 needs both the access key id and the secret access key, or neither",
            ));
        }
        if !self.role_arn.is_empty()
            && self.web_identity_token_file.is_empty()
            && std::env::var_os("AWS_WEB_IDENTITY_TOKEN_FILE").is_none()
        {
            return Err(settings(
                "a role of AWS is taken on with a web identity token; name its file as well",
            ));
        }
        let mut builder = AmazonS3Builder::from_env()
            .with_http_connector(Connector)
            .with_client_options(patience(&self.endpoint))
            .with_retry(retries())
            .with_bucket_name(&self.bucket)
            .with_virtual_hosted_style_request(!self.force_path_style && self.endpoint.is_empty());
        for (key, value) in [
            (AmazonS3ConfigKey::Region, &self.region),
            (AmazonS3ConfigKey::Endpoint, &self.endpoint),
            (AmazonS3ConfigKey::AccessKeyId, &self.access_key_id),
            (AmazonS3ConfigKey::SecretAccessKey, &self.secret_access_key),
            (AmazonS3ConfigKey::Token, &self.session_token),
            (AmazonS3ConfigKey::RoleArn, &self.role_arn),
            (AmazonS3ConfigKey::RoleSessionName, &self.role_session_name),
            (
                AmazonS3ConfigKey::WebIdentityTokenFile,
                &self.web_identity_token_file,
            ),
            (AmazonS3ConfigKey::StsEndpoint, &self.sts_endpoint),
        ] {
            if !value.is_empty() {
                builder = builder.with_config(key, value);
            }
        }
        if self.access_key_id.is_empty()
            && self.role_arn.is_empty()
            && builder
                .get_config_value(&AmazonS3ConfigKey::AccessKeyId)
                .is_none()
            && let Some(profile) = Profile::read()?
        {
            builder = builder
                .with_access_key_id(profile.id)
                .with_secret_access_key(profile.secret);
            if let Some(token) = profile.token {
                builder = builder.with_token(token);
            }
        }
        if self.enable_kms {
            builder = builder.with_sse_kms_encryption(&self.kms_key);
        } else if self.server_side_encryption {
            // The key has no public name in the library but this.
            let key = "aws_server_side_encryption".parse().map_err(settings)?;
            builder = builder.with_config(key, "AES256");
        }
        let store = builder.build().map_err(settings)?;
        let described = format!(
            "Amazon S3 -> Region: {:?} Bucket: {:?} Key Prefix: {:?}",
            self.region, self.bucket, self.key_prefix
        );
        let only = Some(self.static_snapshot_name.as_str()).filter(|name| !name.is_empty());
        objects(store, &self.key_prefix, only, described)
    }
}

impl Gcs {
    pub(super) fn open(&self) -> Result<Objects, StoreError> {
        if self.bucket.is_empty() {
            return Err(settings("Google Cloud Storage needs a bucket"));
        }
        let mut builder = GoogleCloudStorageBuilder::from_env()
            .with_http_connector(Connector)
            .with_client_options(patience(&self.endpoint))
            .with_retry(retries())
            .with_bucket_name(&self.bucket);
        if !self.endpoint.is_empty() {
            builder = builder
                .with_base_url(&self.endpoint)
                .with_skip_signature(true);
        }
        let store = builder.build().map_err(settings)?;
        let described = format!(
            "Google Cloud Storage -> Bucket: {:?} Prefix: {:?}",
            self.bucket, self.prefix
        );
        objects(store, &self.prefix, None, described)
    }
}

impl Azure {
    pub(super) fn open(&self) -> Result<Objects, StoreError> {
        if self.account_name.is_empty() || self.container_name.is_empty() {
            return Err(settings(
                "Azure Blob Storage needs an account name and a container name",
            ));
        }
        let (suffix, authority) = self.environment.hosts();
        let endpoint = match &self.endpoint[..] {
            "" => format!("https://{}.blob.{suffix}", self.account_name),
            endpoint => endpoint.to_owned(),
        };
        let mut builder = MicrosoftAzureBuilder::from_env()
            .with_http_connector(Connector)
            .with_client_options(patience(&self.endpoint))
            .with_retry(retries())
            .with_account(&self.account_name)
            .with_container_name(&self.container_name)
            .with_authority_host(authority)
            .with_endpoint(endpoint);
        if !self.account_key.is_empty() {
            builder = builder.with_access_key(&self.account_key);
        }
        if !self.service_principal_id.is_empty() {
            builder = builder.with_client_secret_authorization(
                &self.service_principal_id,
                &self.service_principal_secret,
                &self.tenant_id,
            );
        }
        let store = builder.build().map_err(settings)?;
        let described = format!(
            "Azure Blob -> Account: {:?} Container: {:?} Prefix: {:?}",
            self.account_name, self.container_name, self.prefix
        );
        objects(store, &self.prefix, None, described)
    }
}

fn objects(
    store: impl ObjectStore,
    prefix: &str,
    only: Option<&str>,
    described: String,
) -> Result<Objects, StoreError> {
    Objects::new(Arc::new(store), prefix, only, described)
}

/// A request is tried again for so long; the agent tries a whole snapshot again later.
fn retries() -> RetryConfig {
    RetryConfig {
        max_retries: 5,
        retry_timeout: Duration::from_secs(60),
        ..RetryConfig::default()
    }
}

/// Without TLS only where an operator wrote `http://`.
fn patience(endpoint: &str) -> ClientOptions {
    ClientOptions::new().with_allow_http(endpoint.starts_with("http://"))
}

/// Makes connections on ring and the system's authorities, as everything in this program does.
#[derive(Debug)]
struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let failed = |why: Box<dyn std::error::Error + Send + Sync>| object_store::Error::Generic {
            store: "HTTP",
            source: why,
        };
        let is_http = options
            .get_config_value(&object_store::ClientConfigKey::AllowHttp)
            .is_some_and(|value| value == "true");
        let client = client(!is_http).map_err(failed)?;
        Ok(HttpClient::new(client))
    }
}

fn client(https_only: bool) -> Result<reqwest::Client, Box<dyn std::error::Error + Send + Sync>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = rustls_platform_verifier::Verifier::new(Arc::clone(&provider))?;
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(reqwest::Client::builder()
        .https_only(https_only)
        .connect_timeout(Duration::from_secs(10))
        .read_timeout(Duration::from_secs(60))
        .tls_backend_preconfigured(tls)
        .build()?)
}

/// Credentials as the tools of AWS keep them.
struct Profile {
    id: String,
    secret: String,
    token: Option<String>,
}

/// The most that is read of a file of credentials.
const PROFILES_MAX: u64 = 1 << 20;

impl Profile {
    /// The profile that the environment names, if its file is there.
    fn read() -> Result<Option<Self>, StoreError> {
        let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let file = match (var("AWS_SHARED_CREDENTIALS_FILE"), var("HOME")) {
            (Some(file), _) => PathBuf::from(file),
            (None, Some(home)) => PathBuf::from(home).join(".aws/credentials"),
            (None, None) => return Ok(None),
        };
        let name = var("AWS_PROFILE").unwrap_or_else(|| "default".to_owned());
        let mut text = String::new();
        let read = std::fs::File::open(&file).and_then(|opened| {
            std::io::Read::read_to_string(&mut std::io::Read::take(opened, PROFILES_MAX), &mut text)
        });
        match read {
            Ok(_) => Ok(Self::parse(&text, &name)),
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(why) => Err(settings(format_args!(
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
            token,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles() {
        let text = "# c\n[other]\naws_access_key_id = x\naws_secret_access_key=y\n[ default ]\naws_access_key_id = a=b\naws_secret_access_key = s\naws_session_token = t\n[half]\naws_access_key_id = z\n";
        let parse = |name| Profile::parse(text, name).map(|it| (it.id, it.secret, it.token));
        assert_eq!(
            parse("default"),
            Some(("a=b".into(), "s".into(), Some("t".into())))
        );
        assert_eq!(parse("other"), Some(("x".into(), "y".into(), None)));
        assert_eq!(parse("half"), None);
        assert_eq!(parse("none"), None);
    }

    #[test]
    fn settings_that_cannot_be() {
        let good = S3 {
            region: "r".into(),
            bucket: "b".into(),
            access_key_id: "a".into(),
            secret_access_key: "s".into(),
            ..S3::default()
        };
        assert!(good.open().is_ok());
        for bad in [
            S3 {
                bucket: String::new(),
                ..good.clone()
            },
            S3 {
                region: String::new(),
                ..good.clone()
            },
            S3 {
                secret_access_key: String::new(),
                ..good.clone()
            },
            S3 {
                role_arn: "arn".into(),
                ..good.clone()
            },
            S3 {
                key_prefix: "a//b".into(),
                ..good
            },
        ] {
            assert!(
                matches!(bad.open(), Err(StoreError::Settings(_))),
                "{bad:?}"
            );
        }
        assert!(Gcs::default().open().is_err());
        assert!(Azure::default().open().is_err());
        assert_eq!(
            AzureCloud::parse("AzureChinaCloud"),
            Some(AzureCloud::China)
        );
        assert_eq!(AzureCloud::parse("moon"), None);
    }
}
