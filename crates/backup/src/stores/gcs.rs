//! Google Cloud Storage.

use std::sync::Arc;

use object_store::StaticCredentialProvider;
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder, GoogleConfigKey};

use super::{Objects, Patience, StoreError, http, retries};
use crate::location::Environment;

/// Google Cloud Storage, with the application's default credentials: the file that `GOOGLE_APPLICATION_CREDENTIALS` names,
/// else what Google's tools keep, else what the machine has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gcs {
    /// The bucket.
    pub bucket: String,
    /// How names begin.
    pub prefix: String,
    /// Where the store is, if it isn't Google's; it is told who we are only if `GOOGLE_APPLICATION_CREDENTIALS` is set.
    pub endpoint: String,
}

impl Gcs {
    pub(super) fn open(
        &self,
        environment: Environment<'_>,
        patience: Patience,
    ) -> Result<Objects, StoreError> {
        if self.bucket.is_empty() {
            let why = "Google Cloud Storage needs a bucket";
            return Err(StoreError::Settings(why.to_owned()));
        }
        let mut builder = GoogleCloudStorageBuilder::new()
            .with_http_connector(http::Connector { patience })
            .with_client_options(http::options(&self.endpoint))
            .with_retry(retries(patience))
            .with_bucket_name(&self.bucket);
        let credentials = environment("GOOGLE_APPLICATION_CREDENTIALS");
        if !self.endpoint.is_empty() {
            // An emulation asks nobody who he is, unless somebody says it.
            builder = builder.with_base_url(&self.endpoint);
        }
        if let Some(file) = credentials {
            builder = builder.with_config(GoogleConfigKey::ApplicationCredentials, file);
        } else if !self.endpoint.is_empty() {
            let nobody = GcpCredential {
                bearer: String::new(),
            };
            let nobody = Arc::new(StaticCredentialProvider::new(nobody));
            builder = builder
                .with_skip_signature(true)
                // The library skips it only for some requests.
                .with_credentials(nobody);
        }
        let store = builder.build().map_err(StoreError::settings)?;
        let described = format!(
            "Google Cloud Storage -> Bucket: {:?} Prefix: {:?}",
            self.bucket, self.prefix
        );
        let objects = Objects::new(Arc::new(store), &self.prefix, None, described)?;
        Ok(objects.with_patience(patience))
    }
}
