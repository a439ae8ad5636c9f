//! How waiting ends: no gap, no leak, and nobody woken who did not ask.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use model::*;
use store::{Read, Store, Watch};

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn set(store: &mut Store, log_index: u64, key: &str) {
    let command = Command::Kv(KvOp {
        verb: KvVerb::Set,
        key: Text::from(key),
        value: Text::default(),
        flags: 0,
    });
    store.apply(log_index, 1, Entry { at_ms: 0, command });
}

#[test]
fn what_comes_between_reading_and_waiting_is_not_lost() {
    let mut store = Store::new();
    let shared = store.shared();
    let view = shared.view();
    let mut watch = Watch::on();
    KvGet {
        key: Text::from("k"),
    }
    .read(&view, &mut watch);
    set(&mut store, 1, "k");
    store.publish();
    let subscription = shared.subscribe(&view, &watch);
    assert!(subscription.has_changed());
}

#[test]
fn a_waker_is_called_once_after_the_version_is_visible() {
    let mut store = Store::new();
    let shared = store.shared();
    let view = shared.view();
    let mut watch = Watch::on();
    KvList {
        prefix: Text::from("a/"),
    }
    .read(&view, &mut watch);
    let mut subscription = shared.subscribe(&view, &watch);
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    let mut context = Context::from_waker(&waker);
    let mut changed = pin!(subscription.changed());
    assert!(changed.as_mut().poll(&mut context).is_pending());

    set(&mut store, 1, "a/b");
    assert_eq!(count.0.load(Ordering::SeqCst), 0, "not published yet");
    store.publish();
    assert_eq!(count.0.load(Ordering::SeqCst), 1);
    assert_eq!(shared.view().log_index(), 1);
    set(&mut store, 2, "a/b");
    store.publish();
    assert_eq!(count.0.load(Ordering::SeqCst), 1);
    assert_eq!(changed.as_mut().poll(&mut context), Poll::Ready(()));
}

#[test]
fn prefixes_of_a_key_are_found_and_others_are_not() {
    let cases = [
        ("", true),
        ("a", true),
        ("a/b", true),
        ("a/b/c", true),
        ("a/b/c/d", false),
        ("a/a", false),
        ("a/c", false),
        ("b", false),
        ("a/b/b", false),
    ];
    let mut store = Store::new();
    let shared = store.shared();
    let view = shared.view();
    let subscriptions: Vec<_> = cases
        .iter()
        .map(|(prefix, expected)| {
            let mut watch = Watch::on();
            KvList {
                prefix: Text::from(*prefix),
            }
            .read(&view, &mut watch);
            (prefix, shared.subscribe(&view, &watch), expected)
        })
        .collect();
    set(&mut store, 1, "a/b/c");
    store.publish();
    for (prefix, subscription, expected) in subscriptions {
        assert_eq!(subscription.has_changed(), *expected, "{prefix:?}");
    }
}

/// Readers that wait for each change miss none, whatever falls between their reading and their waiting.
#[test]
fn no_wakeup_is_lost() {
    const WRITES: u64 = 20_000;
    let mut store = Store::new();
    let shared = store.shared();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let shared = shared.clone();
            scope.spawn(move || {
                let (woken, wakes) = mpsc::channel();
                let waker = Waker::from(Arc::new(Send(woken)));
                let mut context = Context::from_waker(&waker);
                let mut since = 1;
                while since < WRITES {
                    let view = shared.view();
                    let mut watch = Watch::on();
                    let key = Text::from("k");
                    let found = KvGet { key }.read(&view, &mut watch);
                    if found.is_news(since) {
                        since = found.index;
                        continue;
                    }
                    let mut subscription = shared.subscribe(&view, &watch);
                    let mut changed = pin!(subscription.changed());
                    while changed.as_mut().poll(&mut context).is_pending() {
                        let deadline = Duration::from_secs(60);
                        wakes.recv_timeout(deadline).expect("a change is told");
                    }
                }
            });
        }
        for log_index in 1..=WRITES {
            set(
                &mut store,
                log_index,
                if log_index % 3 == 0 || log_index == WRITES {
                    "k"
                } else {
                    "other"
                },
            );
            store.publish();
        }
    });
}

struct Send(mpsc::Sender<()>);

impl Wake for Send {
    fn wake(self: Arc<Self>) {
        // Whoever waited may have left.
        let _ = self.0.send(());
    }
}

#[test]
fn off_costs_nothing_and_waits_for_nothing() {
    let mut store = Store::new();
    let shared = store.shared();
    let view = shared.view();
    let mut watch = Watch::off();
    KvGet {
        key: Text::from("k"),
    }
    .read(&view, &mut watch);
    let subscription = shared.subscribe(&view, &watch);
    set(&mut store, 1, "k");
    store.publish();
    assert!(!subscription.has_changed());
}

/// Five thousand services are watched, and a hundred changes elsewhere wake none of them.
#[test]
fn watchers_of_services_sleep_through_changes_elsewhere() {
    let mut store = Store::new();
    let shared = store.shared();
    let register = |store: &mut Store, log_index: u64, number: u64| {
        let registration = Registration {
            node: Node {
                name: Text::from(format!("node-{number}")),
                address: Text::from("10.0.0.1"),
                ..Node::default()
            },
            service: Some(Service {
                id: Text::from("s"),
                name: Text::from(format!("service-{number}")),
                ..Service::default()
            }),
            checks: Vec::new(),
        };
        let command = Command::Register(Box::new(registration));
        let entry = Entry { at_ms: 0, command };
        store.apply(log_index, 1, entry).result.unwrap();
    };
    for number in 1..=5000 {
        register(&mut store, number, number);
    }
    store.publish();
    let view = shared.view();
    let subscriptions: Vec<_> = (1..=5000)
        .map(|number| {
            let mut watch = Watch::on();
            let found = HealthService {
                service: Text::from(format!("service-{number}")),
                tag: None,
                passing_only: true,
            }
            .read(&view, &mut watch);
            assert!(!found.is_news(found.index), "nothing since the header");
            shared.subscribe(&view, &watch)
        })
        .collect();
    for number in 1..=100 {
        register(&mut store, 5000 + number, 6000 + number % 7);
        store.publish();
    }
    let woken = subscriptions.iter().filter(|s| s.has_changed()).count();
    assert_eq!(woken, 0);
    register(&mut store, 5101, 17);
    store.publish();
    let woken = subscriptions.iter().filter(|s| s.has_changed()).count();
    assert_eq!(woken, 1);
}

/// However many services a node has, each shows the node as it is, and its watchers are told.
#[test]
fn services_of_crowded_nodes_show_their_node() {
    for count in [1, 63, 64, 65, 66, 130] {
        let mut store = Store::new();
        let shared = store.shared();
        let mut log_index = 0;
        let mut apply = |store: &mut Store, command| {
            log_index += 1;
            let entry = Entry { at_ms: 0, command };
            store.apply(log_index, 1, entry).result.unwrap();
            store.publish();
            log_index
        };
        let register = |address: &str, service: Option<u64>| {
            Command::Register(Box::new(Registration {
                node: Node {
                    name: Text::from("n"),
                    address: Text::from(address),
                    ..Node::default()
                },
                service: service.map(|number| Service {
                    id: Text::from(format!("id-{number}")),
                    name: Text::from(format!("service-{number}")),
                    ..Service::default()
                }),
                checks: Vec::new(),
            }))
        };
        let health = |number: u64| HealthService {
            service: Text::from(format!("service-{number}")),
            tag: None,
            passing_only: false,
        };
        for number in 0..count {
            apply(&mut store, register("10.0.0.1", Some(number)));
        }
        // One goes and comes, so that the limit is passed twice.
        for _ in 0..2 {
            let what = Deregister::Service(Text::from("id-0"));
            let node = Text::from("N");
            apply(
                &mut store,
                Command::Deregister(Deregistration { node, what }),
            );
            apply(&mut store, register("10.0.0.1", None));
            apply(&mut store, register("10.0.0.1", Some(0)));
        }
        for address in ["10.0.0.1", "10.0.0.2"] {
            let view = shared.view();
            let subscriptions: Vec<_> = (0..count)
                .map(|number| {
                    let mut watch = Watch::on();
                    health(number).read(&view, &mut watch);
                    shared.subscribe(&view, &watch)
                })
                .collect();
            let index = apply(&mut store, register(address, None));
            assert!(subscriptions.iter().all(|one| one.has_changed()));
            for number in 0..count {
                let found = health(number).read(&shared.view(), &mut Watch::off());
                assert_eq!(found.changed, index, "service {number} of {count}");
                let node = &found.answer[0].node;
                assert_eq!(node.address, address, "service {number} of {count}");
                assert_eq!(node.modify_index, index, "service {number} of {count}");
            }
        }
    }
}
