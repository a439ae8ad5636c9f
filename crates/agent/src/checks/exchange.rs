//! One request over one connection, which is closed afterwards: nothing of it stays in memory between two questions.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::ops::ControlFlow;
use std::pin::{Pin, pin};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::sleep;

use super::dial;

/// The largest head of an answer.
const HEAD_SIZE_MAX: usize = 32 << 10;

/// After so many bytes the reading pauses, so that a flood leaves this thread to others.
const BREATH: u64 = 1 << 20;

/// What carries bytes both ways.
pub(super) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Why there is no answer, or not all of it.
#[derive(Debug)]
pub(super) struct Broken(String);

impl From<hyper::Error> for Broken {
    fn from(why: hyper::Error) -> Self {
        let mut cause: &(dyn Error + 'static) = &why;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        let cause = match cause.downcast_ref::<io::Error>() {
            Some(why) => dial::reason(why),
            None => cause.to_string(),
        };
        Self(cause)
    }
}

impl From<Infallible> for Broken {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Sends `request` and gives what comes back to `answered`, while the connection is there.
pub(super) async fn ask<T>(
    connection: impl Connection,
    request: Request<String>,
    answered: impl AsyncFnOnce(Response<Incoming>) -> T,
) -> Result<T, Broken> {
    let (mut sender, driver) = http1::Builder::new()
        .max_buf_size(HEAD_SIZE_MAX)
        .handshake(TokioIo::new(connection))
        .await?;
    let mut exchange = pin!(async {
        let response = sender.send_request(request).await?;
        Ok(answered(response).await)
    });
    tokio::select! { biased;
        done = &mut exchange => done,
        // What went wrong there is told to whoever waits for the answer.
        _ = driver => exchange.await,
    }
}

/// Gives `body` to `take` piece by piece, until it ends or `take` has had enough.
pub(super) async fn read<B>(
    body: &mut B,
    mut take: impl FnMut(&[u8]) -> ControlFlow<()>,
) -> Result<(), Broken>
where
    B: Body<Data: AsRef<[u8]>> + Unpin,
    Broken: From<B::Error>,
{
    let mut taken = 0;
    while let Some(frame) = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await {
        let Ok(piece) = frame?.into_data() else {
            continue;
        };
        let piece = piece.as_ref();
        if take(piece).is_break() {
            return Ok(());
        }
        taken += piece.len() as u64;
        if taken >= BREATH {
            taken = 0;
            sleep(Duration::from_millis(1)).await;
        }
    }
    Ok(())
}
