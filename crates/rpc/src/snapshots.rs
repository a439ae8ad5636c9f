//! Snapshots on connections of their own, in both directions and from both ends.
//!
//! A snapshot is sent in pieces and has an explicit end, so that a connection that was cut is never mistaken for one.
//! Nothing is held beyond a few pieces: who doesn't read holds up who writes, through the socket, to the very source.
//! Both ends say every few seconds that they are there while they have nothing else to say, because checking and swapping a large snapshot takes its time.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf, split};
use tokio::time::timeout;
use wire::compact;

use crate::frame::{self, Frame, HEAD_SIZE, Kind, PAYLOAD_MAX};
use crate::link::Link;
use crate::pool::{Dialled, Pool};
use crate::protocol::Protocol;
use crate::{
    ByteStream, CallError, Hop, Meta, Refusal, RestoreOptions, Restored, Save, SaveOptions, Serve,
    ServerAddress, StreamError, WholeSender, byte_stream,
};

/// How often an end that has nothing to say says that it is there.
const SIGN_EVERY: Duration = Duration::from_secs(5);

/// An end that says nothing for so long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// How long a piece may wait to be taken. Whoever reads in the end may be a person with a slow line.
const STALL_MAX: Duration = Duration::from_secs(600);

/// How long the answering end waits for the other to hang up, so that its last words aren't lost.
const FAREWELL_MAX: Duration = Duration::from_secs(10);

/// What a connection for a snapshot begins with.
#[derive(Debug, Serialize, Deserialize)]
enum Wish {
    Save(Hop, SaveOptions),
    Restore(Hop, RestoreOptions),
}

/// Frames that come in.
struct Incoming<R>(Link<R>);

impl<R: AsyncRead + Unpin> Incoming<R> {
    /// The next frame that is more than a sign of life.
    ///
    /// May be dropped and called again: what has come is kept.
    async fn next(&mut self, silence_max: Duration) -> Result<(Kind, Bytes), String> {
        loop {
            match frame::decode(self.0.unread()) {
                Err(error) => return Err(format!("the other side sent {error}")),
                Ok(Some((frame, size))) => {
                    let (kind, payload) = (frame.kind, Bytes::copy_from_slice(frame.payload));
                    self.0.consume(size);
                    if kind != Kind::Ping {
                        return Ok((kind, payload));
                    }
                    continue;
                }
                Ok(None) => {}
            }
            let filled = std::future::poll_fn(|cx| self.0.poll_fill(cx));
            match timeout(silence_max, filled).await {
                Err(_) => return Err("the other side gives no sign of life".to_owned()),
                Ok(Err(error)) => return Err(format!("the connection broke: {error}")),
                Ok(Ok(0)) => return Err("the connection was cut".to_owned()),
                Ok(Ok(_)) => {}
            }
        }
    }

    /// Reads and forgets until the other side hangs up.
    async fn drain(&mut self) {
        while std::future::poll_fn(|cx| {
            let unread = self.0.unread().len();
            self.0.consume(unread);
            self.0.poll_fill(cx)
        })
        .await
        .is_ok_and(|count| count > 0)
        {}
    }
}

/// Frames that go out.
struct Outgoing<W>(W);

impl<W: AsyncWrite + Unpin> Outgoing<W> {
    async fn send(&mut self, kind: Kind, payload: &[u8]) -> Result<(), String> {
        let mut bytes = Vec::with_capacity(HEAD_SIZE + payload.len());
        let id = 0;
        frame::append(&mut bytes, Frame { kind, id, payload });
        self.write(&bytes).await
    }

    async fn send_value<V: Serialize>(&mut self, kind: Kind, value: &V) -> Result<(), String> {
        let payload = compact::to_vec(value).map_err(|error| error.to_string())?;
        if payload.len() > PAYLOAD_MAX {
            return Err(format!("{} bytes are too many for a frame", payload.len()));
        }
        self.send(kind, &payload).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        let written = timeout(STALL_MAX, async {
            self.0.write_all(bytes).await?;
            self.0.flush().await
        });
        match written.await {
            Err(_) => Err("the other side takes nothing".to_owned()),
            Ok(written) => written.map_err(|error| format!("the connection broke: {error}")),
        }
    }

    /// Sends a stream to its end, whichever end it is; says that it is there while nothing comes.
    async fn send_all(&mut self, stream: &mut ByteStream) -> Result<(), String> {
        loop {
            match timeout(SIGN_EVERY, stream.next()).await {
                Err(_) => self.send(Kind::Ping, &[]).await?,
                Ok(Some(Ok(piece))) => {
                    for piece in piece.chunks(PAYLOAD_MAX) {
                        self.send(Kind::Piece, piece).await?;
                    }
                }
                Ok(Some(Err(StreamError(why)))) => {
                    let why = why.as_bytes();
                    let why = why.get(..PAYLOAD_MAX).unwrap_or(why);
                    return self.send(Kind::Broken, why).await;
                }
                Ok(None) => return self.send(Kind::End, &[]).await,
            }
        }
    }

    /// Says that it is there until `work` is done.
    async fn signs_during<F: Future>(&mut self, work: F) -> Result<F::Output, String> {
        let mut work = pin!(work);
        loop {
            match timeout(SIGN_EVERY, &mut work).await {
                Ok(done) => return Ok(done),
                Err(_) => self.send(Kind::Ping, &[]).await?,
            }
        }
    }
}

/// Hands on what comes until the end of the snapshot or of the connection, which is an error to whoever reads.
async fn receive<R: AsyncRead + Unpin>(incoming: &mut Incoming<R>, sender: &WholeSender) {
    loop {
        let piece = match incoming.next(SILENCE_MAX).await {
            Ok((Kind::Piece, piece)) => Ok(piece),
            Ok((Kind::End, _)) => return,
            Ok((Kind::Broken, why)) => Err(StreamError(String::from_utf8_lossy(&why).into_owned())),
            Ok((kind, _)) => Err(StreamError(format!(
                "a frame of kind {kind:?} in a snapshot"
            ))),
            Err(why) => Err(StreamError(format!("{why} before the end of the snapshot"))),
        };
        let is_last = piece.is_err();
        if !sender.send(piece).await || is_last {
            return;
        }
    }
}

fn decode<V: DeserializeOwned>((kind, payload): (Kind, Bytes)) -> Result<V, String> {
    if kind != Kind::Answer {
        return Err(format!(
            "the server sent a frame of kind {kind:?} as its answer"
        ));
    }
    compact::from_slice(&payload).map_err(|error| error.to_string())
}

type Ends = (Incoming<ReadHalf<Dialled>>, Outgoing<WriteHalf<Dialled>>);

/// Connects and says what is wanted.
async fn begin(pool: &Pool, server: &ServerAddress, wish: &Wish) -> Result<Ends, CallError> {
    let dialled = pool.dialer().dial(server.address, &server.datacenter).await;
    let (read, write) = split(dialled.map_err(CallError::NotSent)?);
    let (incoming, mut outgoing) = (Incoming(Link::new(read)), Outgoing(write));
    let said = async {
        outgoing.write(&Protocol::Snapshot.preface()).await?;
        outgoing.send_value(Kind::Ask, wish).await
    };
    said.await.map_err(CallError::Broken)?;
    Ok((incoming, outgoing))
}

/// Asks a server for a snapshot.
pub(crate) async fn save(
    pool: Pool,
    server: ServerAddress,
    hop: Hop,
    options: SaveOptions,
) -> Result<Save, CallError> {
    let wish = Wish::Save(hop, options);
    let (mut incoming, outgoing) = begin(&pool, &server, &wish).await?;
    let answer = incoming.next(SILENCE_MAX).await.and_then(decode);
    let answer: Result<Meta, Refusal> = answer.map_err(CallError::Broken)?;
    let meta = answer?;
    let (sender, archive) = byte_stream();
    // The task may end with the pool.
    let sender = sender.whole();
    pool.spawn(async move {
        // Kept, since an end that closes looks as if nobody wanted the rest.
        let _outgoing = outgoing;
        tokio::select! {
            biased;
            () = sender.closed() => {}
            () = receive(&mut incoming, &sender) => {}
        }
        sender.finish();
    });
    Ok(Save { meta, archive })
}

/// Sends a snapshot to a server.
pub(crate) async fn restore(
    pool: Pool,
    server: ServerAddress,
    hop: Hop,
    options: RestoreOptions,
    mut archive: ByteStream,
) -> Result<Restored, CallError> {
    let wish = Wish::Restore(hop, options);
    let (mut incoming, mut outgoing) = begin(&pool, &server, &wish).await?;
    let mut is_sent = false;
    let answer = {
        let mut answer = pin!(incoming.next(SILENCE_MAX));
        tokio::select! {
            biased;
            // May come before the end, when something is wrong with the beginning.
            answer = &mut answer => answer,
            sent = outgoing.send_all(&mut archive) => {
                is_sent = sent.is_ok();
                // If it broke, the server's last words may have come all the same.
                match timeout(if is_sent { Duration::MAX } else { FAREWELL_MAX }, answer).await {
                    Ok(answer) => answer,
                    Err(_) => Err(sent.err().unwrap_or_default()),
                }
            }
        }
    };
    let answer: Result<Restored, Refusal> = match answer.and_then(decode) {
        Ok(answer) => answer,
        Err(why) if is_sent => return Err(CallError::Broken(why)),
        Err(why) => {
            let text = format!("{why} before all of the snapshot was sent; nothing was changed");
            return Err(CallError::Broken(text));
        }
    };
    Ok(answer?)
}

/// Answers on a connection for a snapshot, and says why it ended.
pub(crate) async fn answer<T>(io: T, serve: Arc<dyn Serve>) -> String
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let (read, write) = split(io);
    let (mut incoming, mut outgoing) = (Incoming(Link::new(read)), Outgoing(write));
    let answered = async {
        let (kind, payload) = incoming.next(FAREWELL_MAX).await?;
        if kind != Kind::Ask {
            return Err(format!("a frame of kind {kind:?} instead of a wish"));
        }
        let wish: Wish = compact::from_slice(&payload).map_err(|error| error.to_string())?;
        match wish {
            Wish::Save(hop, options) => {
                let saving = send_snapshot(serve.save(hop, options), &mut outgoing);
                tokio::select! {
                    biased;
                    sent = saving => sent,
                    () = incoming.drain() => Err("nobody wants the snapshot any more".to_owned()),
                }
            }
            Wish::Restore(hop, options) => {
                let (sender, archive) = byte_stream();
                // Whoever reads may outlive this connection, which may end with the listener.
                let sender = sender.whole();
                let restoring = serve.restore(hop, options, archive);
                let receiving = async {
                    receive(&mut incoming, &sender).await;
                    sender.finish();
                };
                let work = async {
                    let mut restoring = pin!(restoring);
                    tokio::select! {
                        biased;
                        done = &mut restoring => return done,
                        () = receiving => {}
                    }
                    restoring.await
                };
                let done = outgoing.signs_during(work).await?;
                outgoing.send_value(Kind::Answer, &done).await
            }
        }
    };
    match answered.await {
        Ok(()) => {
            // To close with something unread would take the answer back from the wire.
            let farewell = async {
                let _ = outgoing.0.shutdown().await;
                incoming.drain().await;
            };
            let _ = timeout(FAREWELL_MAX, farewell).await;
            "it is done".to_owned()
        }
        Err(why) => why,
    }
}

async fn send_snapshot<W: AsyncWrite + Unpin>(
    saving: impl Future<Output = Result<Save, Refusal>>,
    outgoing: &mut Outgoing<W>,
) -> Result<(), String> {
    match outgoing.signs_during(saving).await? {
        Ok(Save { meta, mut archive }) => {
            let answer: Result<Meta, Refusal> = Ok(meta);
            outgoing.send_value(Kind::Answer, &answer).await?;
            outgoing.send_all(&mut archive).await
        }
        Err(refusal) => {
            let answer: Result<Meta, Refusal> = Err(refusal);
            outgoing.send_value(Kind::Answer, &answer).await
        }
    }
}
