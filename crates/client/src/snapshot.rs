//! Snapshots: `/v1/snapshot`, streamed both ways, never whole in memory.

use std::io;

use bytes::Bytes;
use futures::TryStream;
use reqwest::Method;

use crate::request::Question;
use crate::transport::Response;
use crate::{Client, Error, Meta, QueryOptions, WriteOptions};

/// A snapshot that is arriving.
#[derive(Debug)]
pub struct SnapshotDownload {
    /// What the headers said; the index is the one that the snapshot was taken at.
    pub meta: Meta,
    client: Client,
    response: Response,
}

/// Records that a restore left out, on request.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Skipped {
    /// Of which type.
    pub r#type: String,
    /// How many.
    pub count: u64,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Restored {
    skipped: Vec<Skipped>,
}

/// How a restore is made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoreOptions {
    /// Where to, and with which token.
    pub write: WriteOptions,
    /// Whether records of unknown types are left out instead of refused.
    pub skip_unknown: bool,
}

impl SnapshotDownload {
    /// The next piece of the archive, or `None` when it is complete.
    ///
    /// # Errors
    /// When the connection breaks off before the end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        self.client.chunk(&mut self.response).await
    }
}

impl Client {
    /// Has a snapshot taken. Only token, datacenter and staleness of the options count.
    ///
    /// # Errors
    /// When no answer came, or the snapshot was refused.
    pub async fn snapshot_save(&self, options: &QueryOptions) -> Result<SnapshotDownload, Error> {
        let question = Question::new(Method::GET, "/v1/snapshot")
            .parameters(options.parameters())
            .token(&options.token);
        let response = self.send_ok(question).await?;
        Ok(SnapshotDownload {
            meta: Self::meta(&response),
            client: self.clone(),
            response,
        })
    }

    /// Restores the archive that `archive` yields. When this returns, the servers have it.
    ///
    /// # Errors
    /// When no answer came, or the archive was refused; the cluster then keeps what it had.
    pub async fn snapshot_restore<S>(
        &self,
        archive: S,
        options: &RestoreOptions,
    ) -> Result<Vec<Skipped>, Error>
    where
        S: TryStream<Ok = Bytes, Error = io::Error> + Send + 'static,
    {
        let mut question = Question::new(Method::PUT, "/v1/snapshot")
            .parameters(options.write.parameters())
            .token(&options.write.token)
            .stream(archive);
        if options.skip_unknown {
            question = question.parameter("skip-unknown", "");
        }
        let response = self.send_ok(question).await?;
        if !options.skip_unknown {
            return Ok(Vec::new());
        }
        // A server of the original answers nothing; it knows no such option and skips nothing.
        let body = self.bytes(response).await?;
        if body.is_empty() {
            return Ok(Vec::new());
        }
        let answer: Restored =
            serde_json::from_slice(&body).map_err(|why| Error::Decode(why.to_string()))?;
        Ok(answer.skipped)
    }
}
