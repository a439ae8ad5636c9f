//! Snapshots: `/v1/snapshot`, streamed both ways, never whole in memory.

use std::io;

use bytes::Bytes;
use futures::TryStream;
use model::RestorePart;
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
    /// What is restored and how, if not everything.
    pub part: Option<RestorePart>,
}

/// A part in the words of the API.
fn parameters(part: &RestorePart) -> Result<Vec<(&'static str, String)>, Error> {
    let sections: Vec<&str> = part.sections().iter().map(|it| it.name()).collect();
    let mut parameters = vec![
        ("only", sections.join(",")),
        ("mode", part.mode().name().to_owned()),
    ];
    let prefixes = part.prefixes().iter().map(|it| ("kv-prefix", it));
    for (name, prefix) in prefixes.chain(part.into_prefix().map(|it| ("into-prefix", it))) {
        // Another prefix in its place would be another part.
        let text =
            std::str::from_utf8(prefix).map_err(|_| Error::Key(prefix.to_lossy().into_owned()))?;
        parameters.push((name, text.to_owned()));
    }
    Ok(parameters)
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

    /// Restores the archive that `archive` yields, or a part of it. When this returns, the servers have it.
    ///
    /// # Errors
    /// When no answer came, or the archive was refused; the cluster then keeps what it had.
    /// [`Error::NoParts`] from a server of the original when a part is wanted; it restores nothing then.
    pub async fn snapshot_restore<S>(
        &self,
        archive: S,
        options: &RestoreOptions,
    ) -> Result<Vec<Skipped>, Error>
    where
        S: TryStream<Ok = Bytes, Error = io::Error> + Send + 'static,
    {
        // A server that knows no parts, as the original, would restore everything if it were asked at the usual path.
        let (path, of_part) = match &options.part {
            None => ("/v1/snapshot", Vec::new()),
            Some(part) => ("/v1/snapshot/part", parameters(part)?),
        };
        let mut question = Question::new(Method::PUT, path)
            .parameters(options.write.parameters())
            .parameters(of_part)
            .token(&options.write.token)
            .stream(archive);
        if options.skip_unknown {
            question = question.parameter("skip-unknown", "");
        }
        let is_part = options.part.is_some();
        let response = match self.send_ok(question).await {
            Err(Error::Unexpected { code: 404, .. }) if is_part => return Err(Error::NoParts),
            response => response?,
        };
        if !options.skip_unknown && !is_part {
            return Ok(Vec::new());
        }
        // A server of the original answers nothing; it knows no such option and skips nothing.
        let body = self.bytes(response).await?;
        if body.is_empty() && !is_part {
            return Ok(Vec::new());
        }
        let answer: Restored =
            serde_json::from_slice(&body).map_err(|why| Error::Decode(why.to_string()))?;
        Ok(answer.skipped)
    }
}
