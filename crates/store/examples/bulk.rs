//! How fast transactions of 64 keys are applied, how much memory a million keys take, and what it costs to wait.
//!
//! `cargo run --release -p store --example bulk [keys]`

#![allow(clippy::disallowed_methods, reason = "it measures time")]
#![allow(clippy::print_stdout, reason = "it is a program")]

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Instant;

use model::{Command, Entry, KvGet, KvOp, KvVerb, Node, Registration, Service, Text};
use store::{Read, Store, Subscription, Watch};

const OPS: u64 = 64;
const TXNS_PER_BATCH: u64 = 16;

fn main() {
    let keys: u64 = std::env::args()
        .nth(1)
        .and_then(|count| count.parse().ok())
        .unwrap_or(1_000_000);
    let mut store = Store::new();
    let mut log_index = 0;
    wait_for_one_key();
    services_of_one_node();
    for round in [
        "load",
        "overwrite",
        "overwrite",
        "overwrite at random",
        "fallible",
    ] {
        let mut spent = std::time::Duration::ZERO;
        for first in (0..keys).step_by(usize::try_from(OPS * TXNS_PER_BATCH).unwrap_or(1024)) {
            let batch: Vec<Command> = (0..TXNS_PER_BATCH)
                .map(|txn| transaction(round, first + txn * OPS, keys))
                .collect();
            let started = Instant::now();
            for command in batch {
                log_index += 1;
                let entry = Entry { at_ms: 0, command };
                assert!(store.apply(log_index, 1, entry).result.is_ok());
            }
            store.publish();
            spent += started.elapsed();
        }
        let seconds = spent.as_secs_f64();
        println!(
            "{round}: {keys} keys in {seconds:.2} s, {:.0} keys/s, {} MB resident, {} keys",
            keys as f64 / seconds,
            resident_kb() / 1024,
            store.shared().view().key_count()
        );
    }
}

/// Ten thousand wait for one key.
fn wait_for_one_key() {
    let mut store = Store::new();
    let shared = store.shared();
    let view = shared.view();
    let mut watch = Watch::on();
    let key = Text::from("bulk/000000000");
    KvGet { key }.read(&view, &mut watch);
    let before = resident_kb();
    let mut waiting: Vec<Subscription> = (0..10_000)
        .map(|_| shared.subscribe(&view, &watch))
        .collect();
    let mut context = Context::from_waker(Waker::noop());
    for subscription in &mut waiting {
        assert!(pin!(subscription.changed()).poll(&mut context).is_pending());
    }
    let each = (resident_kb() - before) * 1024 / 10_000;
    let command = transaction("load", 0, 64);
    let entry = Entry { at_ms: 0, command };
    assert!(store.apply(1, 1, entry).result.is_ok());
    let started = Instant::now();
    store.publish();
    let woken = waiting.iter().filter(|one| one.has_changed()).count();
    println!(
        "{woken} waiting for one key: {each} bytes each, woken in {:?}",
        started.elapsed()
    );
}

/// A node with very many services.
fn services_of_one_node() {
    let mut store = Store::new();
    let started = Instant::now();
    for number in 1..=5_000 {
        let registration = Registration {
            node: Node {
                name: Text::from("node"),
                address: Text::from("10.0.0.1"),
                ..Node::default()
            },
            service: Some(Service {
                id: Text::from(format!("service-{number}")),
                name: Text::from(format!("service-{number}")),
                ..Service::default()
            }),
            checks: Vec::new(),
        };
        let command = Command::Register(Box::new(registration));
        let entry = Entry { at_ms: 0, command };
        assert!(store.apply(number, 1, entry).result.is_ok());
        store.publish();
    }
    println!("5000 services of one node: {:?}", started.elapsed());
}

fn transaction(round: &str, first: u64, keys: u64) -> Command {
    let op = |number: u64| {
        let number = match round {
            "overwrite at random" => number.wrapping_mul(6_364_136_223_846_793_005) % keys,
            _ => number % keys,
        };
        let mut value = vec![b'v'; 256];
        value[..8].copy_from_slice(&number.to_le_bytes());
        KvOp {
            // A transaction that can fail keeps the tables as they were.
            verb: match round {
                "fallible" if number.is_multiple_of(64) => KvVerb::Get,
                _ => KvVerb::Set,
            },
            key: Text::from(format!("bulk/{number:09}")),
            value: Text::from(value),
            flags: 0,
        }
    };
    Command::Txn((first..first + OPS).map(op).collect())
}

fn resident_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse::<u64>().ok())
        .unwrap_or(0)
}
