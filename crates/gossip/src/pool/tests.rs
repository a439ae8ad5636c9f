//! The machine by hand: what is heard in which order, and what hostile packets do to it.

mod forged;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::identity::encode_header;
use crate::item::Suspect;
use crate::member::Versions;

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 8301))
}

fn pool(name: &str, last: u8, now: Instant) -> Pool {
    Pool::new(
        Config {
            seed: u64::from(last),
            ..Config::new(name, address(last), "test")
        },
        address(last),
        now,
    )
}

fn alive(generation: u32, incarnation: u16, revision: u32) -> Alive {
    let versions = Versions {
        min: 1,
        max: 5,
        current: 2,
    };
    let record = Record {
        revision,
        time: 1,
        leaving: false,
        name: String::from("b"),
        tags: BTreeMap::from([(String::from("revision"), revision.to_string())]),
        protocol: versions,
        delegate: versions,
    };
    Alive {
        identity: Identity {
            id: Id::of("b"),
            generation,
            address: address(2),
        },
        incarnation,
        record: Arc::new(record),
    }
}

/// News about b, in the words of the table below.
fn tell(pool: &mut Pool, now: Instant, word: &str) {
    let numbers: Vec<u32> = word
        .split_whitespace()
        .skip(1)
        .map(|number| number.parse().unwrap())
        .collect();
    let incarnation = |at: usize| u16::try_from(numbers[at]).unwrap();
    let identity = |generation| Identity {
        generation,
        ..alive(1, 0, 1).identity
    };
    match word.split_whitespace().next().unwrap() {
        "alive" => {
            let heard = alive(numbers[0], incarnation(1), numbers[2]);
            pool.hear_alive(now, &heard, numbers[0]);
        }
        "suspect" => pool.hear_suspect(
            now,
            Suspect {
                identity: identity(numbers[0]),
                incarnation: incarnation(1),
                from: Id(9),
            },
        ),
        "down" | "left" => pool.hear_down(
            now,
            Down {
                identity: identity(numbers[0]),
                incarnation: incarnation(1),
                left: word.starts_with("left"),
            },
        ),
        "leave" => pool.hear_leave(
            now,
            Leave {
                id: Id::of("b"),
                generation: numbers[0],
                revision: numbers[1],
                time: 1,
            },
        ),
        other => panic!("what is {other}?"),
    }
}

fn seen(pool: &Pool) -> String {
    let Some(entry) = pool.entries.get(&Id::of("b")) else {
        return String::from("unknown");
    };
    let standing = match entry.standing {
        Swim::Alive => "alive",
        Swim::Suspect(_) => "suspect",
        Swim::Down { left: false, .. } => "down",
        Swim::Down { left: true, .. } => "left",
    };
    format!(
        "{standing} {} {} {}, shown {}",
        entry.identity.generation, entry.incarnation, entry.record.revision, entry.status
    )
}

#[tokio::test(start_paused = true)]
async fn the_later_news_are_true_in_whatever_order_they_come() {
    let now = Instant::now();
    // What is heard one after another, and what is seen then: generation, incarnation, record.
    let table: &[(&[&str], &str)] = &[
        (&["suspect 1 0"], "unknown"),
        (&["down 1 0"], "unknown"),
        (&["alive 1 0 1"], "alive 1 0 1, shown alive"),
        (&["alive 1 0 2", "alive 1 0 1"], "alive 1 0 2, shown alive"),
        (&["alive 1 3 1", "alive 1 2 2"], "alive 1 3 2, shown alive"),
        (
            &["alive 1 0 1", "suspect 1 0"],
            "suspect 1 0 1, shown alive",
        ),
        (&["alive 1 1 1", "suspect 1 0"], "alive 1 1 1, shown alive"),
        (
            &["alive 1 0 1", "suspect 1 0", "alive 1 0 1"],
            "suspect 1 0 1, shown alive",
        ),
        (
            &["alive 1 0 1", "suspect 1 0", "alive 1 1 1"],
            "alive 1 1 1, shown alive",
        ),
        (
            &["alive 1 0 1", "suspect 1 5", "alive 1 5 1"],
            "suspect 1 5 1, shown alive",
        ),
        (
            &["alive 1 0 1", "down 1 0", "alive 1 9 1"],
            "down 1 0 1, shown alive",
        ),
        (
            &["alive 1 0 1", "down 1 0", "alive 2 0 1"],
            "alive 2 0 1, shown alive",
        ),
        (&["alive 2 0 1", "down 1 0"], "alive 2 0 1, shown alive"),
        (&["alive 2 0 1", "suspect 1 0"], "alive 2 0 1, shown alive"),
        (&["alive 1 0 1", "left 1 0"], "left 1 0 1, shown left"),
        (
            &["alive 1 0 1", "down 1 0", "left 1 0"],
            "left 1 0 1, shown left",
        ),
        (
            &["alive 1 0 1", "left 1 0", "down 1 0"],
            "left 1 0 1, shown left",
        ),
        (&["alive 1 0 1", "leave 1 1"], "alive 1 0 1, shown leaving"),
        (
            &["alive 1 0 1", "leave 1 1", "alive 1 0 2"],
            "alive 1 0 2, shown alive",
        ),
        (&["alive 1 0 2", "leave 1 1"], "alive 1 0 2, shown alive"),
        (
            &["alive 1 0 1", "leave 1 1", "down 1 0"],
            "left 1 0 1, shown left",
        ),
        (
            &["alive 1 0 1", "down 1 0", "leave 1 1"],
            "left 1 0 1, shown left",
        ),
        (
            &["alive 1 0 1", "left 1 0", "alive 2 0 2"],
            "alive 2 0 2, shown alive",
        ),
    ];
    for (heard, expected) in table {
        let mut pool = pool("a", 1, now);
        for word in *heard {
            tell(&mut pool, now, word);
        }
        assert_eq!(seen(&pool), *expected, "{heard:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refutation_is_a_later_incarnation_and_a_death_a_later_life() {
    let now = Instant::now();
    let mut pool = pool("b", 2, now);
    for (word, expected) in [
        ("suspect 1 0", (1, 1)),
        ("suspect 1 0", (1, 1)),
        ("suspect 1 4", (1, 5)),
        ("down 1 5", (2, 0)),
        ("down 1 5", (2, 0)),
        ("suspect 1 5", (2, 0)),
        ("down 7 0", (8, 0)),
    ] {
        tell(&mut pool, now, word);
        let local = &pool.local;
        assert_eq!(
            (local.identity.generation, local.incarnation),
            expected,
            "after {word}"
        );
        assert_eq!(*pool.core.identity(), local.identity);
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_was_held_up_accuses_nobody() {
    let mut now = Instant::now();
    let mut pool = pool("a", 1, now);
    tell(&mut pool, now, "alive 1 0 1");
    tell(&mut pool, now, "suspect 1 0");
    // Held up for a minute, again and again, with a moment in between: too short to hear a refutation.
    for _ in 0..100 {
        now += Duration::from_secs(60);
        pool.notice(now);
        pool.tick(now);
        assert!(seen(&pool).starts_with("suspect"), "{}", seen(&pool));
        now += Duration::from_millis(1);
        pool.notice(now);
        pool.tick(now);
    }
    // And with time to look, it is over soon.
    for _ in 0..600 {
        now += Duration::from_millis(10);
        pool.notice(now);
        pool.tick(now);
    }
    assert!(seen(&pool).starts_with("down"), "{}", seen(&pool));
}

/// Whatever arrives in a frame that is right, nothing panics and nothing grows without bound.
#[tokio::test(start_paused = true)]
async fn hostile_packets_are_survived() {
    let mut now = Instant::now();
    let mut chance = ChaCha8Rng::seed_from_u64(7);
    let mut pools = [pool("a", 1, now), pool("b", 2, now), pool("c", 3, now)];
    let mut heard: Vec<Vec<u8>> = Vec::new();
    let mut asked: Vec<Vec<u8>> = Vec::new();
    pools[0].join(now, address(2), 1, true);
    pools[2].join(now, address(2), 1, true);
    pools[0].user_event(String::from("e"), Bytes::new(), false);
    for round in 0..20_000 {
        now += Duration::from_millis(20);
        for at in 0..pools.len() {
            pools[at].notice(now);
            pools[at].tick(now);
            for output in pools[at].outputs() {
                match output {
                    Output::Send { to, bytes } => {
                        let content = pools[at].envelope.unwrap(&bytes).unwrap();
                        heard.push(content.to_vec());
                        if let Some(other) = (1..4).find(|last| address(*last) == to) {
                            let from = address(u8::try_from(at).unwrap() + 1);
                            pools[usize::from(other) - 1].datagram(now, from, &bytes);
                        }
                    }
                    Output::Exchange {
                        to,
                        request,
                        purpose,
                    } => {
                        let content = pools[at].envelope.unwrap(&request).unwrap();
                        asked.push(content.to_vec());
                        let Some(other) = (1..4).find(|last| address(*last) == to) else {
                            continue;
                        };
                        let answer = pools[usize::from(other) - 1].asked(now, to, &request);
                        let answer = match answer {
                            Asked::Answered(bytes) => Ok(bytes),
                            Asked::Ignored | Asked::Change(_) => {
                                Err(std::io::Error::other("refused"))
                            }
                        };
                        pools[at].answered(now, to, purpose, answer);
                    }
                    _ => {}
                }
            }
        }
        heard.drain(..heard.len().saturating_sub(200));
        asked.drain(..asked.len().saturating_sub(50));
        // Something that was said once, with some bytes changed and pieces swapped, in a frame that is right.
        let victim = round % 2;
        for (said, is_request) in [(&heard, false), (&asked, true)] {
            if said.is_empty() {
                continue;
            }
            let mut content = said[chance.random_range(0..said.len())].clone();
            for _ in 0..chance.random_range(0..4) {
                let at = chance.random_range(0..content.len());
                content[at] = chance.random();
            }
            let bytes = pools[victim].envelope.wrap(&content, &mut chance);
            if is_request {
                let _ = pools[victim].asked(now, address(9), &bytes);
                let purpose = Purpose::Compare;
                let _ = pools[victim].answered(now, address(9), purpose, Ok(bytes));
            } else {
                pools[victim].datagram(now, address(9), &bytes);
            }
        }
    }
    for pool in &pools {
        assert!(pool.queue.intents() <= 4096);
        assert!(pool.relays.len() <= 1024);
        assert_eq!(*pool.core.identity(), pool.local.identity);
    }
    // They still work.
    assert!(pools[2].stats().members >= 3);
}

#[tokio::test(start_paused = true)]
async fn a_stranger_s_ping_is_answered_and_it_is_asked_who_it_is() {
    let now = Instant::now();
    let mut pool = pool("a", 1, now);
    pool.outputs();
    let stranger = alive(1, 0, 1).identity;
    let ping = foca::Header {
        src: stranger,
        src_incarnation: 0,
        dst: pool.local.identity,
        message: foca::Message::Ping(5),
    };
    let mut content = Vec::new();
    packet::put_core(&encode_header(&ping), &mut content);
    let bytes = pool
        .envelope
        .wrap(&content, &mut ChaCha8Rng::seed_from_u64(1));
    pool.datagram(now, stranger.address, &bytes);
    let mut kinds = Vec::new();
    for output in pool.outputs() {
        if let Output::Send { to, bytes } = output {
            assert_eq!(to, stranger.address);
            let content = pool.envelope.unwrap(&bytes).unwrap();
            kinds.push(content[0]);
        }
    }
    assert_eq!(kinds, [packet::CORE, 8]);
    assert_eq!(seen(&pool), "unknown");
}
