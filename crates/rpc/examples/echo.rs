//! What a call costs: `cargo run --release -p rpc --example echo`.
//!
//! Prints wall time and processor time per call, both ends together, between two threads on loopback: reads of a key with a small value and writes of one, with 1 and with 64 callers, and messages of the log.
#![allow(clippy::print_stdout, reason = "printing is what it is for")]
#![allow(
    clippy::unwrap_used,
    reason = "a measurement that cannot go on says where"
)]

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use model::{Answer, Command, KvEntry, KvGet, KvOp, KvParts, KvVerb, Reply};
use rpc::{
    Answered, ByteStream, Calls as _, Hop, Listener, ListenerConfig, Meta, Pool, PoolConfig,
    ReadOptions, Refusal, Request, Response, RestoreOptions, Restored, Save, SaveOptions, Serve,
    ServerAddress, WriteOptions,
};
use tokio::time::Instant;

struct Echo;

impl Serve for Echo {
    fn serve(&self, _: Hop, request: Request) -> BoxFuture<'static, Result<Response, Refusal>> {
        Box::pin(async move {
            Ok(match request {
                Request::Write(..) => Response::Write(Reply::Applied(true)),
                Request::Read(..) | Request::Operate(..) | Request::Ping => {
                    let entry = KvEntry::new(&KvParts {
                        key: b"bench/key",
                        value: &[b'x'; 64],
                        create_index: 7,
                        modify_index: 8,
                        ..KvParts::default()
                    });
                    Response::Read(Answered {
                        answer: Answer::KvGet(Some(entry)),
                        meta: Meta::default(),
                    })
                }
            })
        })
    }

    fn save(&self, _: Hop, _: SaveOptions) -> BoxFuture<'static, Result<Save, Refusal>> {
        Box::pin(std::future::ready(Err(Refusal::NotLeader)))
    }

    fn restore(
        &self,
        _: Hop,
        _: RestoreOptions,
        _: ByteStream,
    ) -> BoxFuture<'static, Result<Restored, Refusal>> {
        Box::pin(std::future::ready(Err(Refusal::NotLeader)))
    }

    fn log_message(&self, _: Bytes) -> BoxFuture<'static, Bytes> {
        Box::pin(std::future::ready(Bytes::from_static(&[7; 16])))
    }
}

fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap(),
    )
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn listen() -> SocketAddr {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        runtime().block_on(async move {
            let address = "127.0.0.1:0".parse().unwrap();
            let listener = Listener::bind(address, ListenerConfig::default())
                .await
                .unwrap();
            sender.send(listener.local_address().unwrap()).unwrap();
            listener
                .serve(Arc::new(Echo), None, std::future::pending())
                .await;
        });
    });
    receiver.recv().unwrap()
}

fn get() -> Request {
    Request::Read(
        KvGet {
            key: "bench/key".into(),
        }
        .into(),
        ReadOptions::default(),
    )
}

fn put() -> Request {
    let op = KvOp {
        verb: KvVerb::Set,
        key: "bench/key".into(),
        value: vec![b'x'; 64].into(),
        flags: 0,
    };
    Request::Write(Command::Kv(op), WriteOptions::default())
}

async fn measure<F: Future<Output = ()>>(
    what: &str,
    callers: usize,
    total: usize,
    call: impl Fn() -> F,
) {
    let (begun, processor) = (Instant::now(), processor_time());
    let caller = async || {
        for _ in 0..total / callers {
            call().await;
        }
    };
    join_all((0..callers).map(|_| caller())).await;
    let count = u32::try_from(total).unwrap();
    println!(
        "{what}, {callers} callers: {:?} wall, {:?} processor per call",
        begun.elapsed() / count,
        (processor_time() - processor) / count,
    );
}

fn main() {
    let server = ServerAddress {
        address: listen(),
        node: "s1".to_owned(),
        datacenter: "dc1".to_owned(),
    };
    runtime().block_on(async {
        let pool = Pool::new(PoolConfig::default(), None, "dc1");
        for _ in 0..2 {
            for callers in [1, 64] {
                let total = 6_400 * callers.min(50);
                measure("get", callers, total, async || {
                    pool.call(&server, Hop::First, get()).await.unwrap();
                })
                .await;
                measure("put", callers, total, async || {
                    pool.call(&server, Hop::First, put()).await.unwrap();
                })
                .await;
            }
        }
        for size in [100, 256 << 10, 4 << 20] {
            let message = Bytes::from(vec![7; size]);
            let what = format!("log message of {size} bytes");
            measure(&what, 4, 400, async || {
                pool.log_message(server.address, "s1", message.clone())
                    .await
                    .unwrap();
            })
            .await;
        }
        pool.shutdown().await;
    });
}
