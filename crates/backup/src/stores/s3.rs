//! Amazon S3 and what speaks like it: where the bucket is, who we are there, and how it encrypts.

use std::fmt;
use std::net::IpAddr;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};

use super::{Objects, Patience, StoreError, http, retries};
use crate::location::Environment;

mod credentials;

use credentials::{Source, Sts};

/// Amazon S3, or what speaks like it.
///
/// What is empty comes from the environment (`AWS_…`), then from `~/.aws/credentials`, then from the container's or the
/// machine's role.
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
    /// Whether the bucket is named in the path instead of in the host, as it is anyhow where no host can be named so.
    pub force_path_style: bool,
    /// Whether the store encrypts what it keeps, with keys of its own.
    pub server_side_encryption: bool,
    /// Whether it does so with KMS.
    pub enable_kms: bool,
    /// With which of KMS's keys; empty for its default one.
    pub kms_key: String,
    /// The one key of all snapshots, which then overwrite each other; empty for a new one each.
    pub static_snapshot_name: String,
    /// A role to take on, with the other credentials or with a token.
    pub role_arn: String,
    /// What its sessions are called.
    pub role_session_name: String,
    /// The file with the token that proves who may take it on.
    pub web_identity_token_file: String,
    /// Where roles are given, if not at Amazon's.
    pub sts_endpoint: String,
    /// Where this machine's own credentials are asked for, if not where every instance of EC2 does.
    pub iam_endpoint: String,
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

/// The name of the roles' sessions, unless settings give another one.
const SESSION_NAME: &str = "consul-snapshot";

impl S3 {
    pub(super) fn open(
        &self,
        environment: Environment<'_>,
        patience: Patience,
    ) -> Result<Objects, StoreError> {
        let wrong = |text: &str| Err(StoreError::Settings(text.to_owned()));
        if self.bucket.is_empty() {
            return wrong("S3 needs a bucket");
        }
        let place = self.place(environment)?;
        let source = credentials::plan(self, environment)?;
        let client = |is_http: bool| {
            let connector = http::Connector { patience };
            connector.client(!is_http).map_err(StoreError::settings)
        };
        let mut builder = AmazonS3Builder::new()
            .with_http_connector(http::Connector { patience })
            .with_client_options(http::options(&place.endpoint))
            .with_retry(retries(patience))
            .with_region(&place.region)
            .with_bucket_name(&self.bucket)
            .with_endpoint(&place.endpoint)
            .with_virtual_hosted_style_request(place.is_host)
            // One at a time is all that is ever removed, and not every store knows how to remove many.
            .with_config(AmazonS3ConfigKey::DisableBulkDelete, "true")
            .with_imdsv1_fallback();
        if let Source::Instance {
            endpoint: Some(endpoint),
        } = &source
        {
            builder = builder.with_metadata_endpoint(endpoint);
        }
        let sts = Sts {
            endpoint: place.sts.clone(),
            region: place.region.clone(),
            client: client(place.sts.starts_with("http://"))?,
        };
        let lent = match source {
            Source::Instance { .. } => None,
            Source::Keys(keys) => Some(keys.into_provider()?),
            Source::Token(token) => Some(sts.by_token(token)),
            // It is of this machine, so it need not be safe from those between.
            Source::Container(container) => Some(container.into_provider(client(true)?)),
        };
        if let Some(lent) = lent {
            builder = builder.with_credentials(lent);
        }
        if let Some(role) = credentials::role(self, environment) {
            let own = builder.clone().build().map_err(StoreError::settings)?;
            builder = builder.with_credentials(sts.by_credentials(role, own.credentials()));
        }
        if self.enable_kms || self.server_side_encryption {
            let kind = if self.enable_kms { "aws:kms" } else { "AES256" };
            builder = encrypted(builder, "aws_server_side_encryption", kind)?;
        }
        if self.enable_kms && !self.kms_key.is_empty() {
            builder = encrypted(builder, "aws_sse_kms_key_id", &self.kms_key)?;
        }
        let store = builder.build().map_err(StoreError::settings)?;
        let described = format!(
            "Amazon S3 -> Region: {:?} Bucket: {:?} Key Prefix: {:?}",
            place.region, self.bucket, self.key_prefix
        );
        let only = Some(self.static_snapshot_name.as_str()).filter(|name| !name.is_empty());
        let objects = Objects::new(
            std::sync::Arc::new(store),
            &self.key_prefix,
            only,
            described,
        )?;
        Ok(objects.with_patience(patience))
    }

    fn place(&self, environment: Environment<'_>) -> Result<Place, StoreError> {
        let var = |names: &[&str]| names.iter().find_map(|name| environment(name));
        let given = |setting: &str, names: &[&str]| {
            let setting = Some(setting.to_owned()).filter(|setting| !setting.is_empty());
            setting.or_else(|| var(names))
        };
        let endpoint = given(
            &self.endpoint,
            &["AWS_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"],
        );
        let region = given(&self.region, &["AWS_REGION", "AWS_DEFAULT_REGION"]);
        if region.is_none() && endpoint.is_none() {
            return Err(StoreError::Settings(
                "S3 needs a region, or an endpoint that isn't Amazon's".to_owned(),
            ));
        }
        // What stores that aren't Amazon's take for granted.
        let region = region.unwrap_or_else(|| "us-east-1".to_owned());
        let domain = if region.starts_with("cn-") {
            "amazonaws.com.cn"
        } else {
            "amazonaws.com"
        };
        let sts = given(&self.sts_endpoint, &["AWS_ENDPOINT_URL_STS"]);
        let sts = sts.unwrap_or_else(|| format!("https://sts.{region}.{domain}"));
        let endpoint = endpoint.unwrap_or_else(|| format!("https://s3.{region}.{domain}"));
        let mut endpoint = address(&endpoint)?;
        let in_path = self.force_path_style
            || var(&["AWS_S3_FORCE_PATH_STYLE"])
                .is_some_and(|value| value == "true" || value == "1");
        let is_host = !in_path && can_be_host(&endpoint, &self.bucket);
        if is_host {
            let host = endpoint.host_str().unwrap_or_default();
            let host = format!("{}.{host}", self.bucket);
            endpoint
                .set_host(Some(&host))
                .map_err(StoreError::settings)?;
        }
        Ok(Place {
            region,
            endpoint: endpoint.as_str().trim_end_matches('/').to_owned(),
            is_host,
            sts: address(&sts)?.into(),
        })
    }
}

/// Where everything is.
#[derive(Debug)]
struct Place {
    region: String,
    endpoint: String,
    /// Whether the bucket is part of the endpoint's host already.
    is_host: bool,
    sts: String,
}

/// An address as people write it: without a scheme it is one of HTTPS.
fn address(text: &str) -> Result<reqwest::Url, StoreError> {
    let full = match text.contains("://") {
        true => text.to_owned(),
        false => format!("https://{text}"),
    };
    let url: Result<reqwest::Url, _> = full.parse();
    match url {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        _ => Err(StoreError::Settings(format!(
            "{text:?} can't be the address of a store: it is like https://host or http://host:port"
        ))),
    }
}

/// Whether a host can have the bucket's name before its own. An address or a bare name can't, and no certificate names what
/// has dots in it.
fn can_be_host(endpoint: &reqwest::Url, bucket: &str) -> bool {
    let host = endpoint.host_str().unwrap_or_default();
    let is_address = host.starts_with('[') || host.parse::<IpAddr>().is_ok();
    let is_label = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    host.contains('.') && !is_address && bucket.bytes().all(is_label)
}

fn encrypted(
    builder: AmazonS3Builder,
    key: &str,
    value: &str,
) -> Result<AmazonS3Builder, StoreError> {
    // The keys have no public names in the library but these.
    let key: AmazonS3ConfigKey = key.parse().map_err(StoreError::settings)?;
    Ok(builder.with_config(key, value))
}

#[cfg(test)]
mod tests;
