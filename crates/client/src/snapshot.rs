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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures::future::BoxFuture;
    use futures::{FutureExt, TryStreamExt};
    use model::{RestoreMode, Section, Text};

    use super::*;
    use crate::transport::{Body, Pieces, Request, Transport};
    use crate::{Config, Response};

    /// An agent that answers all the same, and notes what was asked and how much came with it.
    #[derive(Debug)]
    struct Agent {
        status: u16,
        body: &'static str,
        asked: Arc<Mutex<Vec<String>>>,
    }

    impl Transport for Agent {
        fn send(&self, request: Request) -> BoxFuture<'_, io::Result<Response>> {
            async move {
                let asked = format!("{} {}", request.method(), request.uri());
                let body = match request.into_body() {
                    Body::Whole(bytes) => bytes.to_vec(),
                    Body::Pieces(pieces) => {
                        let all: Vec<Bytes> = pieces.try_collect().await?;
                        all.concat()
                    }
                };
                let asked = format!("{asked} {}", String::from_utf8_lossy(&body));
                self.asked.lock().unwrap().push(asked);
                let answer = Bytes::from_static(self.body.as_bytes());
                let pieces = futures::stream::iter([Ok(answer)]);
                let mut response = Response::new(Pieces::new(pieces));
                *response.status_mut() = http::StatusCode::from_u16(self.status).unwrap();
                Ok(response)
            }
            .boxed()
        }
    }

    async fn restore(
        status: u16,
        body: &'static str,
        part: Option<RestorePart>,
    ) -> (Result<Vec<Skipped>, Error>, Vec<String>) {
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let agent = Agent {
            status,
            body,
            asked: Arc::clone(&asked),
        };
        let client = Client::over(agent, Config::default()).unwrap();
        let options = RestoreOptions {
            part,
            ..RestoreOptions::default()
        };
        let archive = futures::stream::iter([Ok(Bytes::from_static(b"archive"))]);
        let restored = client.snapshot_restore(archive, &options).await;
        let asked = asked.lock().unwrap().clone();
        (restored, asked)
    }

    fn part(prefix: &[u8], into: Option<&str>) -> RestorePart {
        let sections = [Section::Kv, Section::Acl].into();
        let into = into.map(Text::from);
        RestorePart::new(sections, vec![Text::from(prefix)], into, RestoreMode::Merge).unwrap()
    }

    #[tokio::test]
    async fn a_part_is_asked_for_where_nobody_takes_it_for_everything() {
        let (restored, asked) = restore(200, "", None).await;
        assert_eq!(restored.unwrap(), []);
        assert!(asked[0].ends_with("/v1/snapshot archive"), "{asked:?}");

        let wanted = part(b"a b/", Some("\u{e9}"));
        let (restored, asked) = restore(200, r#"{"Skipped":[]}"#, Some(wanted)).await;
        assert_eq!(restored.unwrap(), []);
        let url = "/v1/snapshot/part?only=acl%2Ckv&mode=merge&kv-prefix=a+b%2F&into-prefix=%C3%A9";
        assert!(asked[0].ends_with(&format!("{url} archive")), "{asked:?}");
    }

    /// The original has nothing there, and something before it may answer whatever is asked.
    #[tokio::test]
    async fn who_knows_no_parts_is_not_believed() {
        let (refused, _) = restore(404, "", Some(part(b"a", None))).await;
        assert!(matches!(refused, Err(Error::NoParts)), "{refused:?}");
        let (refused, _) = restore(200, "", Some(part(b"a", None))).await;
        assert!(matches!(refused, Err(Error::Decode(_))), "{refused:?}");
        let (refused, _) = restore(400, "no such part", Some(part(b"a", None))).await;
        assert!(matches!(refused, Err(Error::Unexpected { code: 400, .. })));
    }

    #[tokio::test]
    async fn a_prefix_that_can_not_be_written_is_not_replaced_by_another() {
        let (refused, asked) = restore(200, "", Some(part(b"\xff", None))).await;
        assert!(matches!(refused, Err(Error::Key(_))), "{refused:?}");
        assert!(asked.is_empty());
    }
}
