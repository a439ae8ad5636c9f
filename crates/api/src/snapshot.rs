//! `/v1/snapshot`: everything at once, out and in. Streamed: neither way is anything held whole.

use futures::StreamExt;
use model::{PartWish, RestorePart};
use rpc::{ByteSender, RestoreOptions, SaveOptions, StreamError, byte_stream};

use crate::call::{Answer, Call, json, with_meta};
use crate::error::{bad_request, failed, refused};
use crate::http::{Body, Response, StatusCode};
use crate::json::{Encode, object};

/// Takes a snapshot and sends it.
pub(crate) fn save(call: Call<'_>) -> Result<Answer, Response> {
    let options = SaveOptions {
        token: call.token(),
        datacenter: call.datacenter(),
        stale: call.query.has("stale"),
    };
    let cluster = call.api.cluster.clone();
    Ok(Answer::soon(async move {
        let save = cluster
            .save(options)
            .await
            .map_err(|error| failed(&error))?;
        let pieces = futures::stream::unfold(save.archive, |mut archive| async move {
            archive.next().await.map(|piece| (piece, archive))
        });
        let response = Response::new(StatusCode::OK)
            .with_header("Content-Type", "application/x-gzip")
            .with_stream(pieces.boxed());
        Ok(with_meta(response, &save.meta))
    }))
}

/// Parameters that name a part.
const OF_PARTS: [&str; 5] = ["only", "skip", "kv-prefix", "into-prefix", "mode"];

/// Replaces everything by the snapshot in the body.
pub(crate) fn restore(call: Call<'_>) -> Result<Answer, Response> {
    if let Some(name) = OF_PARTS.into_iter().find(|name| call.query.has(name)) {
        // The original takes no notice of such a parameter, and of a habit of giving it here nobody would be safe there.
        return Err(bad_request(format!(
            "{name} is a parameter of /v1/snapshot/part; this path restores everything"
        )));
    }
    restore_what(call, None)
}

/// Restores a part of the snapshot in the body.
///
/// It has a path of its own since the original, and whoever else knows no parts, refuses that one.
pub(crate) fn restore_part(call: Call<'_>) -> Result<Answer, Response> {
    let prefixes: Vec<&[u8]> = call.query.all("kv-prefix").collect();
    let part = RestorePart::parse(PartWish {
        only: call.query.get("only"),
        skip: call.query.get("skip"),
        kv_prefixes: &prefixes,
        into_prefix: call.query.get("into-prefix"),
        mode: call.query.get("mode"),
    });
    let part = part.map_err(|error| bad_request(error.to_string()))?;
    restore_what(call, Some(part))
}

fn restore_what(call: Call<'_>, part: Option<RestorePart>) -> Result<Answer, Response> {
    if call.query.has("stale") {
        return Err(refused("stale not allowed for restore"));
    }
    let skip_unknown = call.query.has("skip-unknown");
    // Who asked for a part is told that this is what happened, as by no server that knows none.
    let tells = skip_unknown || part.is_some();
    let pretty = call.pretty();
    let options = RestoreOptions {
        token: call.token(),
        datacenter: call.datacenter(),
        skip_unknown,
        part,
    };
    let cluster = call.api.cluster.clone();
    Ok(Answer::soon(async move {
        let (sender, archive) = byte_stream();
        let restore = std::pin::pin!(cluster.restore(options, archive));
        let pump = std::pin::pin!(pump(call.body, sender));
        // The restore has the last word: it may refuse before it has read all, or go on long after.
        let outcome = match futures::future::select(restore, pump).await {
            futures::future::Either::Left((outcome, _)) => outcome,
            futures::future::Either::Right(((), restore)) => restore.await,
        };
        let restored = outcome.map_err(|error| failed(&error))?;
        if !tells {
            return Ok(Response::new(StatusCode::OK));
        }
        Ok(json(&Skipped(&restored.skipped), pretty))
    }))
}

/// What was left out, for those who asked for it; the original's answer to a restore is empty.
struct Skipped<'a>(&'a [(String, u64)]);

impl Encode for Skipped<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        let kinds: Vec<SkippedKind<'_>> = self.0.iter().map(SkippedKind).collect();
        object(out, |o| {
            o.field("Skipped", &kinds);
        });
    }
}

struct SkippedKind<'a>(&'a (String, u64));

impl Encode for SkippedKind<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        let (kind, count) = self.0;
        object(out, |o| {
            o.field("Type", kind.as_str()).field("Count", count);
        });
    }
}

/// Hands the body over, piece by piece, until it ends or nobody wants more.
async fn pump(mut body: Body, archive: ByteSender) {
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|error| StreamError(error.to_string()));
        let is_broken = piece.is_err();
        if !archive.send(piece).await || is_broken {
            return;
        }
    }
}
