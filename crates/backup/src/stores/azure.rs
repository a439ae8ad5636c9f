//! Azure Blob Storage, in each of Microsoft's clouds.

use std::fmt;

use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};

use super::{Objects, Patience, StoreError, http, retries};
use crate::location::Environment;

/// Azure Blob Storage.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Azure {
    /// The storage account.
    pub account_name: String,
    /// Its key; empty to use the service principal, else the environment (`AZURE_…`), else the machine's identity.
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

/// What the environment may say of who we are, for the library.
const VARIABLES: [(&str, AzureConfigKey); 9] = [
    ("AZURE_STORAGE_ACCOUNT_KEY", AzureConfigKey::AccessKey),
    ("AZURE_STORAGE_ACCESS_KEY", AzureConfigKey::AccessKey),
    ("AZURE_STORAGE_KEY", AzureConfigKey::AccessKey),
    ("AZURE_STORAGE_SAS_TOKEN", AzureConfigKey::SasKey),
    ("AZURE_CLIENT_ID", AzureConfigKey::ClientId),
    ("AZURE_CLIENT_SECRET", AzureConfigKey::ClientSecret),
    ("AZURE_TENANT_ID", AzureConfigKey::AuthorityId),
    (
        "AZURE_FEDERATED_TOKEN_FILE",
        AzureConfigKey::FederatedTokenFile,
    ),
    ("IDENTITY_ENDPOINT", AzureConfigKey::MsiEndpoint),
];

impl Azure {
    pub(super) fn open(
        &self,
        environment: Environment<'_>,
        patience: Patience,
    ) -> Result<Objects, StoreError> {
        let wrong = |text: &str| Err(StoreError::Settings(text.to_owned()));
        if self.account_name.is_empty() || self.container_name.is_empty() {
            return wrong("Azure Blob Storage needs an account name and a container name");
        }
        let has_principal = !self.service_principal_secret.is_empty();
        if has_principal && (self.service_principal_id.is_empty() || self.tenant_id.is_empty()) {
            return wrong("a service principal of Azure needs its id, its secret and its tenant");
        }
        let (suffix, authority) = self.environment.hosts();
        let authority = environment("AZURE_AUTHORITY_HOST").unwrap_or_else(|| authority.to_owned());
        let endpoint = match &self.endpoint[..] {
            "" => format!("https://{}.blob.{suffix}", self.account_name),
            endpoint => endpoint.to_owned(),
        };
        let mut builder = MicrosoftAzureBuilder::new()
            .with_http_connector(http::Connector { patience })
            .with_client_options(http::options(&endpoint))
            .with_retry(retries(patience))
            .with_account(&self.account_name)
            .with_container_name(&self.container_name)
            .with_authority_host(authority.trim_end_matches('/'))
            .with_endpoint(endpoint);
        // What the settings name goes before all of the environment.
        if !self.account_key.is_empty() {
            builder = builder.with_access_key(&self.account_key);
        } else if has_principal {
            builder = builder.with_client_secret_authorization(
                &self.service_principal_id,
                &self.service_principal_secret,
                &self.tenant_id,
            );
        } else {
            for (name, key) in VARIABLES {
                if let Some(value) = environment(name) {
                    builder = builder.with_config(key, value);
                }
            }
            // Without a secret they say which of the machine's identities is meant, or whom a token of Kubernetes stands for.
            for (key, value) in [
                (AzureConfigKey::ClientId, &self.service_principal_id),
                (AzureConfigKey::AuthorityId, &self.tenant_id),
            ] {
                if !value.is_empty() {
                    builder = builder.with_config(key, value);
                }
            }
        }
        let store = builder.build().map_err(|why| {
            StoreError::Settings(format!(
                "Azure's settings can't be: {}",
                super::told::chain(&why)
            ))
        })?;
        let described = format!(
            "Azure Blob -> Account: {:?} Container: {:?} Prefix: {:?}",
            self.account_name, self.container_name, self.prefix
        );
        let objects = Objects::new(std::sync::Arc::new(store), &self.prefix, None, described)?;
        Ok(objects.with_patience(patience))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clouds_have_names() {
        for (name, cloud) in [
            ("", Some(AzureCloud::Public)),
            ("AzurePublicCloud", Some(AzureCloud::Public)),
            ("AZURECHINACLOUD", Some(AzureCloud::China)),
            ("AzureGermanCloud", Some(AzureCloud::German)),
            ("AzureUSGovernmentCloud", Some(AzureCloud::UsGovernment)),
            ("moon", None),
        ] {
            assert_eq!(AzureCloud::parse(name), cloud, "{name}");
        }
    }
}
