//! A member that listens and answers from a script of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use model::{Answer, Command, Error, KvEntry, KvGet, KvOp, KvParts, KvVerb, Question, Reply, Text};
use rpc::tls::Tls;
use rpc::{
    Answered, ByteStream, Calls as _, Hop, Listener, ListenerConfig, Meta, Pool, PoolConfig,
    ReadOptions, Refusal, Request, Response, RestoreOptions, Restored, Save, SaveOptions, Serve,
    ServerAddress, StreamError, WriteOptions, byte_stream,
};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

/// Answers by what is asked: a key's value is its own name, `long/N` is N bytes long, an index waits for a wake-up, and so does a write of the key `slow`.
#[derive(Debug, Default)]
pub(crate) struct Echo {
    /// Requests that wait.
    pub(crate) waiting: AtomicUsize,
    /// Commands that were carried out.
    pub(crate) writes: AtomicUsize,
    /// Wakes those who wait.
    pub(crate) wake: Notify,
    /// Pieces of snapshots that were handed out.
    pub(crate) pieces: AtomicUsize,
}

struct Waits(Arc<Echo>);

impl Waits {
    fn new(echo: &Arc<Echo>) -> Self {
        echo.waiting.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(echo))
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The member's answering side.
#[derive(Debug, Clone, Default)]
pub(crate) struct Member(pub(crate) Arc<Echo>);

fn entry(key: &Text) -> KvEntry {
    let value = match key.strip_prefix(b"long/") {
        Some(length) => {
            let length = std::str::from_utf8(length).unwrap().parse().unwrap();
            vec![b'x'; length]
        }
        None => key.to_vec(),
    };
    KvEntry::new(&KvParts {
        key,
        value: &value,
        modify_index: 7,
        ..KvParts::default()
    })
}

impl Serve for Member {
    fn serve(&self, _: Hop, request: Request) -> BoxFuture<'static, Result<Response, Refusal>> {
        let echo = Arc::clone(&self.0);
        Box::pin(async move {
            match request {
                Request::Read(Question::KvGet(KvGet { key }), options) => {
                    if options.index > 0 {
                        let _waits = Waits::new(&echo);
                        let _ = tokio::time::timeout(options.wait, echo.wake.notified()).await;
                    }
                    assert_ne!(key, Text::from("panic"), "as the test asks for");
                    if key == *"never" {
                        std::future::pending::<()>().await;
                    }
                    Ok(Response::Read(Answered {
                        answer: Answer::KvGet(Some(entry(&key))),
                        meta: Meta {
                            index: options.index + 1,
                            known_leader: true,
                            last_contact: Duration::from_millis(3),
                        },
                    }))
                }
                Request::Write(Command::Kv(op), _) => {
                    if op.key == *"slow" {
                        let _waits = Waits::new(&echo);
                        echo.wake.notified().await;
                    }
                    echo.writes.fetch_add(1, Ordering::SeqCst);
                    Ok(Response::Write(Reply::Applied(true)))
                }
                Request::Ping => Ok(Response::Ping),
                Request::Read(..) | Request::Write(..) | Request::Operate(..) => {
                    Err(Refusal::Failed(Error::PermissionDenied))
                }
            }
        })
    }

    /// Without a token, endless pieces; the token `short` gets three and the end, `bad` a failure after one.
    fn save(&self, _: Hop, options: SaveOptions) -> BoxFuture<'static, Result<Save, Refusal>> {
        let echo = Arc::clone(&self.0);
        Box::pin(async move {
            if options.token == *"refused" {
                return Err(Refusal::Failed(Error::PermissionDenied));
            }
            let (sender, archive) = byte_stream();
            tokio::spawn(async move {
                let piece = Bytes::from(vec![7; 100_000]);
                let (count, failure) = match &*options.token {
                    b"short" => (3, None),
                    b"bad" => (1, Some(StreamError("the disk is gone".to_owned()))),
                    _ => (usize::MAX, None),
                };
                for _ in 0..count {
                    if !sender.send(Ok(piece.clone())).await {
                        return;
                    }
                    echo.pieces.fetch_add(1, Ordering::SeqCst);
                }
                if let Some(failure) = failure {
                    sender.send(Err(failure)).await;
                }
            });
            let meta = Meta {
                index: 42,
                ..Meta::default()
            };
            Ok(Save { meta, archive })
        })
    }

    /// Counts the bytes; the token `early` is answered after the first piece.
    fn restore(
        &self,
        _: Hop,
        options: RestoreOptions,
        mut archive: ByteStream,
    ) -> BoxFuture<'static, Result<Restored, Refusal>> {
        Box::pin(async move {
            let mut size = 0;
            while let Some(piece) = archive.next().await {
                match piece {
                    Ok(piece) => size += piece.len() as u64,
                    Err(error) => return Err(Refusal::Failed(Error::Invalid(error.0))),
                }
                if options.token == *"early" {
                    return Err(Refusal::Failed(Error::invalid("no archive at all")));
                }
            }
            Ok(Restored {
                skipped: vec![("bytes".to_owned(), size)],
            })
        })
    }

    fn log_message(&self, message: Bytes) -> BoxFuture<'static, Bytes> {
        Box::pin(async move {
            let length = u64::try_from(message.len()).unwrap();
            Bytes::copy_from_slice(&length.to_le_bytes())
        })
    }
}

/// A member that listens on loopback.
pub(crate) struct Listening {
    pub(crate) member: Member,
    pub(crate) server: ServerAddress,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<()>>,
}

impl Listening {
    pub(crate) async fn start() -> Self {
        Self::start_with(ListenerConfig::default(), None).await
    }

    pub(crate) async fn start_with(config: ListenerConfig, tls: Option<Tls>) -> Self {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), config)
            .await
            .unwrap();
        let member = Member::default();
        let server = server(listener.local_address().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(listener.serve(Arc::new(member.clone()), tls, async {
            let _ = stopped.await;
        }));
        Self {
            member,
            server,
            stop: Some(stop),
            task: Some(task),
        }
    }

    pub(crate) async fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(task) = self.task.take() {
            task.await.unwrap();
        }
    }
}

pub(crate) fn server(address: SocketAddr) -> ServerAddress {
    ServerAddress {
        address,
        node: "s1".to_owned(),
        datacenter: "dc1".to_owned(),
    }
}

pub(crate) fn pool() -> Pool {
    Pool::new(PoolConfig::default(), None, "dc1")
}

pub(crate) fn get(key: &str, index: u64) -> Request {
    let options = ReadOptions {
        index,
        wait: Duration::from_secs(300),
        ..ReadOptions::default()
    };
    Request::Read(Question::KvGet(KvGet { key: key.into() }), options)
}

pub(crate) fn put(key: &str, value: Vec<u8>) -> Request {
    let op = KvOp {
        verb: KvVerb::Set,
        key: key.into(),
        value: value.into(),
        flags: 0,
    };
    Request::Write(Command::Kv(op), WriteOptions::default())
}

/// The value that a server gives for a key.
pub(crate) async fn value(pool: &Pool, server: &ServerAddress, key: &str) -> Vec<u8> {
    let answer = pool.call(server, Hop::First, get(key, 0)).await.unwrap();
    value_of(answer)
}

pub(crate) fn value_of(response: Response) -> Vec<u8> {
    let Response::Read(Answered {
        answer: Answer::KvGet(Some(entry)),
        ..
    }) = response
    else {
        panic!("another answer: {response:?}")
    };
    entry.value().to_vec()
}

/// Returns when the condition holds.
pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(30), async {
        let mut looks = tokio::time::interval(Duration::from_millis(1));
        while !condition() {
            looks.tick().await;
        }
    });
    waited.await.expect("the condition holds in time");
}
