//! A server that is alone, in memory, on paused time.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use consensus::MemoryDisk;
use model::{Ask, Command, Error, Index, KvOp, KvVerb, Reply, Text};
use rpc::{
    Answered, ByteStream, Cluster, ReadOptions, RestoreOptions, Restored, SaveOptions,
    WriteOptions, byte_stream,
};
use server::{Config, NoPeers, Parts, Server, Start, SystemClock, WallClock};

/// A server and the way to ask it.
pub(crate) struct Alone {
    pub(crate) server: Server,
    pub(crate) cluster: Cluster,
}

pub(crate) fn config(node: &str) -> Config {
    let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
    Config {
        datacenter: "dc1".to_owned(),
        node_name: node.to_owned(),
        advertise_address: here,
        advertise_address_wan: here,
        server_port: 8300,
        acl: server::Acl::default(),
        session_ttl_min: Duration::from_secs(10),
        hold_max: Config::HOLD_MAX,
        scratch_dir: std::env::temp_dir(),
        compress_threads: 1,
        checking: server::Checking::OnAThread,
        seed: 7,
    }
}

impl Alone {
    pub(crate) async fn start(config: Config) -> Self {
        Self::start_by(config, Arc::new(SystemClock)).await
    }

    /// The same by another clock on the wall.
    pub(crate) async fn start_by(config: Config, clock: Arc<dyn WallClock>) -> Self {
        let log = consensus::Config {
            id: 1,
            address: config.raft_address(),
            ..consensus::Config::default()
        };
        let parts = Parts {
            disk: Arc::new(MemoryDisk::new()),
            transport: Arc::new(NoPeers),
            calls: Arc::new(rpc::NoCalls),
            clock,
            gossip: None,
        };
        let server = Server::start(config, log, parts, Start::Bootstrap)
            .await
            .unwrap();
        server
            .wait_for_leader(Duration::from_secs(60))
            .await
            .unwrap();
        let cluster = server.cluster();
        Self { server, cluster }
    }

    pub(crate) async fn ask<Q: Ask>(&self, question: Q) -> Answered<Q::Answer> {
        self.cluster
            .read(question, ReadOptions::default())
            .await
            .unwrap()
    }

    pub(crate) async fn wait<Q: Ask>(
        &self,
        question: Q,
        index: Index,
        wait: Duration,
    ) -> Answered<Q::Answer> {
        let options = ReadOptions {
            index,
            wait,
            ..ReadOptions::default()
        };
        self.cluster.read(question, options).await.unwrap()
    }

    pub(crate) async fn write(&self, command: Command) -> Result<Reply, Error> {
        self.cluster.write(command, WriteOptions::default()).await
    }

    pub(crate) async fn put(&self, key: &str, value: &str) {
        assert_eq!(self.write(set(key, value)).await, Ok(Reply::Applied(true)));
    }

    pub(crate) async fn restore(&self, archive: &[u8]) -> Result<Restored, Error> {
        self.cluster
            .restore(RestoreOptions::default(), stream(archive.to_vec()))
            .await
    }

    pub(crate) async fn save(&self) -> (Index, Vec<u8>) {
        let mut save = self.cluster.save(SaveOptions::default()).await.unwrap();
        let mut archive = Vec::new();
        while let Some(piece) = save.archive.next().await {
            archive.extend_from_slice(&piece.unwrap());
        }
        (save.meta.index, archive)
    }
}

pub(crate) fn set(key: &str, value: &str) -> Command {
    Command::Kv(KvOp {
        verb: KvVerb::Set,
        key: Text::from(key),
        value: Text::from(value),
        flags: 0,
    })
}

/// A stream that gives these bytes in small pieces.
pub(crate) fn stream(bytes: Vec<u8>) -> ByteStream {
    let (sender, stream) = byte_stream();
    tokio::spawn(async move {
        for piece in bytes.chunks(4000) {
            if !sender.send(Ok(bytes::Bytes::copy_from_slice(piece))).await {
                break;
            }
        }
    });
    stream
}

/// A file of the fixtures.
pub(crate) fn fixture(name: &str) -> Vec<u8> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/snapshots/");
    std::fs::read(format!("{path}{name}")).unwrap()
}

/// A snapshot of so many keys `gen/…`, whose values are so long and all say which generation they are of.
pub(crate) fn generation(generation: usize, keys: usize, length: usize) -> Vec<u8> {
    use wire::msgpack::Encoder;
    let mut state = Vec::new();
    Encoder::new(&mut state)
        .map_len(1)
        .raw(b"LastIndex")
        .uint(50);
    let value = format!("{generation}").repeat(length);
    for number in 0..keys {
        state.push(2);
        Encoder::new(&mut state)
            .map_len(7)
            .raw(b"CreateIndex")
            .uint(40)
            .raw(b"Flags")
            .uint(0)
            .raw(b"Key")
            .raw(format!("gen/{number:06}").as_bytes())
            .raw(b"LockIndex")
            .uint(0)
            .raw(b"ModifyIndex")
            .uint(40)
            .raw(b"Session")
            .raw(b"")
            .raw(b"Value")
            .raw(value.as_bytes());
    }
    let meta = wire::archive::Meta {
        version: 1,
        id: "1-50-0".to_owned(),
        index: 50,
        term: 1,
        size: i64::try_from(state.len()).unwrap(),
        ..wire::archive::Meta::default()
    };
    let compression = wire::archive::Compression {
        workers: 0,
        ..wire::archive::Compression::default()
    };
    let mut writer = wire::archive::Writer::new(Vec::new(), &meta, 0, compression).unwrap();
    std::io::Write::write_all(&mut writer, &state).unwrap();
    writer.finish().unwrap()
}
