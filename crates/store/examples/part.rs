//! How long servers stand still when a part of a snapshot is committed, and what it takes before:
//! `cargo run --release -p store --example part -- [ROWS]`.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement for people"
)]

use std::time::{Duration, Instant};

use model::{
    Check, Command, Entry, KvOp, KvVerb, Node, Registration, RestoreBegin, RestoreChunk,
    RestoreCommit, RestoreMode, RestorePart, Section, Service, Text, Uuid,
};
use store::archive::{Chunks, Unknown, verify_part, write};
use store::{Applied, Store};

/// A store and where its log has come to.
struct Log(Store, u64);

impl Log {
    fn apply(&mut self, command: Command) -> Applied {
        self.1 += 1;
        let applied = self.0.apply(self.1, 1, Entry { at_ms: 0, command });
        assert!(applied.result.is_ok());
        applied
    }
}

fn key(number: usize, value: &str) -> Command {
    Command::Kv(KvOp {
        verb: KvVerb::Set,
        key: Text::from(format!("app/{number:08}")),
        value: Text::from(value),
        flags: 0,
    })
}

fn service(node: usize, number: usize, port: i64) -> Command {
    let name = Text::from(format!("service-{number}"));
    let check = Check {
        check_id: name.clone(),
        service_id: name.clone(),
        status: Text::from("passing"),
        ..Check::default()
    };
    let registration = Registration {
        node: Node {
            name: Text::from(format!("node-{node}")),
            address: Text::from("10.0.0.1"),
            ..Node::default()
        },
        service: Some(Service {
            id: name.clone(),
            name,
            port,
            ..Service::default()
        }),
        checks: vec![check],
    };
    Command::Register(Box::new(registration))
}

fn measure(what: &str, section: Section, then: Vec<Command>, since: Vec<Command>) {
    let mut log = Log(Store::new(), 0);
    let mut saved = Vec::new();
    for command in then {
        log.apply(command);
    }
    write(&log.0.freeze(), &mut saved).unwrap();
    for command in since {
        log.apply(command);
    }
    log.0.publish();
    let part = RestorePart::new([section].into(), Vec::new(), None, RestoreMode::Replace).unwrap();
    let mut times: Vec<Duration> = Vec::new();
    let mut began = Instant::now();
    let mut lap = |times: &mut Vec<Duration>| {
        times.push(began.elapsed());
        began = Instant::now();
    };
    let verified = verify_part(&saved[..], Unknown::Refuse, Some(&part)).unwrap();
    lap(&mut times);
    let id = Uuid::from_u128(1);
    log.apply(Command::RestoreBegin(RestoreBegin {
        id,
        last_index: verified.last_index,
        snapshot_index: 0,
        part: Some(part.clone()),
    }));
    let mut chunks = Chunks::of_part(&saved[..], Some(part)).unwrap();
    let mut sequence = 0;
    while let Some(records) = chunks.next_chunk().unwrap() {
        log.apply(Command::RestoreChunk(RestoreChunk {
            id,
            sequence,
            records,
        }));
        sequence += 1;
    }
    lap(&mut times);
    log.apply(Command::RestoreCommit(RestoreCommit {
        id,
        chunks: verified.chunks,
        hash: verified.hash,
    }));
    lap(&mut times);
    println!(
        "{what}: checked in {:?}, loaded in {:?}, committed in {:?}",
        times[0], times[1], times[2]
    );
}

fn main() {
    let rows: usize = std::env::args()
        .nth(1)
        .map_or(100_000, |rows| rows.parse().unwrap());
    let value = "x".repeat(256);
    let keys = |from: usize| (from..from + rows).map(|number| key(number, &value));
    let other = (0..rows).map(|number| key(number, "y"));
    let kv = Section::Kv;
    measure("keys, all the same", kv, keys(0).collect(), Vec::new());
    measure("keys, all changed", kv, keys(0).collect(), other.collect());
    let all = KvOp {
        verb: KvVerb::DeleteTree,
        key: Text::default(),
        value: Text::default(),
        flags: 0,
    };
    let gone = std::iter::once(Command::Kv(all)).chain(keys(rows));
    measure(
        "keys, all gone and new",
        kv,
        keys(0).collect(),
        gone.collect(),
    );
    for (what, on_one) in [
        ("services of which ten are on a node", 10),
        ("services of which a thousand are on a node", 1000),
        ("services of which five thousand are on a node", 5000),
    ] {
        let services = |port| {
            let all = 0..rows / 10;
            all.map(move |number| service(number / on_one, number % on_one, port))
        };
        let (then, since) = (services(1).collect(), services(2).collect());
        measure(what, Section::Catalog, then, since);
    }
}
