//! What there is in a datacenter: `/v1/catalog/`.

use std::collections::BTreeMap;

use reqwest::Method;
use serde::{Deserialize, Serialize};

use crate::request::Question;
use crate::{Answer, Client, Error, QueryOptions};

/// A node.
///
/// It is written as the original's client writes it, in this order of fields.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CatalogNode {
    /// Its name.
    pub node: String,
    /// Where it is.
    pub address: String,
    /// Where else it is, by kind of network; `None` if nobody said.
    pub tagged_addresses: Option<BTreeMap<String, String>>,
}

/// The names of services, each with the tags that any of its instances has.
pub type CatalogServices = BTreeMap<String, Option<Vec<String>>>;

impl Client {
    /// The nodes of a datacenter.
    ///
    /// # Errors
    /// When no answer came, or not the expected one.
    pub async fn catalog_nodes(
        &self,
        options: &QueryOptions,
    ) -> Result<Answer<Vec<CatalogNode>>, Error> {
        let question = Question::new(Method::GET, "/v1/catalog/nodes");
        self.read(question, options).await
    }

    /// The services of a datacenter.
    ///
    /// # Errors
    /// When no answer came, or not the expected one.
    pub async fn catalog_services(
        &self,
        options: &QueryOptions,
    ) -> Result<Answer<CatalogServices>, Error> {
        let question = Question::new(Method::GET, "/v1/catalog/services");
        self.read(question, options).await
    }
}
