//! What strangers can send in a pool without keys, and what it must not do.

use super::*;
use crate::exchange::Known;
use crate::exchange::{Given, Standing};
use foca::{Header, Message};

fn event(ltime: u64) -> UserEvent {
    UserEvent {
        ltime,
        name: String::from("deploy"),
        payload: Bytes::new(),
        coalesce: false,
    }
}

/// Delivers sections as somebody who knows the label would send them.
fn deliver(pool: &mut Pool, now: Instant, from: SocketAddr, sections: &[u8]) {
    let mut chance = ChaCha8Rng::seed_from_u64(1);
    let bytes = pool.envelope.wrap(sections, &mut chance);
    pool.datagram(now, from, &bytes);
}

fn core(src: Identity, dst: Identity, message: Message<Identity>) -> Vec<u8> {
    let header = Header {
        src,
        src_incarnation: 0,
        dst,
        message,
    };
    let mut sections = Vec::new();
    packet::put_core(&encode_header(&header), &mut sections);
    sections
}

/// Where datagrams go, and their sections.
fn sent(pool: &mut Pool) -> Vec<(SocketAddr, Bytes)> {
    let outputs = pool.outputs();
    let sent = outputs.into_iter().filter_map(|output| match output {
        Output::Send { to, bytes } => Some((to, bytes)),
        _ => None,
    });
    let sent: Vec<_> = sent.collect();
    sent.into_iter()
        .map(|(to, bytes)| (to, pool.envelope.unwrap(&bytes).unwrap()))
        .collect()
}

const LAST: u32 = u32::MAX;

#[tokio::test(start_paused = true)]
async fn no_packet_uses_up_the_lives_of_a_name() {
    let now = Instant::now();
    // The others.
    let lies: &[&[&str]] = &[
        &["alive 1 0 1", "down 4294967295 0"],
        &["alive 1 0 1", "left 4294967295 0"],
        &["alive 1 0 1", "alive 4294967295 0 1"],
        &["alive 1 0 1", "alive 1 0 4294967295"],
        &["alive 4294967295 0 1", "alive 1 0 1"],
        &["alive 1 0 4294967295", "alive 1 0 1"],
    ];
    for heard in lies {
        let mut pool = pool("a", 1, now);
        for word in *heard {
            tell(&mut pool, now, word);
        }
        assert_eq!(seen(&pool), "alive 1 0 1, shown alive", "{heard:?}");
        let ping = Message::Ping(1);
        let forged = Identity {
            generation: LAST,
            ..alive(1, 0, 1).identity
        };
        let sections = core(forged, pool.local.identity, ping);
        deliver(&mut pool, now, address(2), &sections);
        assert_eq!(seen(&pool), "alive 1 0 1, shown alive", "{heard:?}, a ping");
    }
    // Somebody unknown who is said to be gone.
    let mut other = pool("a", 1, now);
    let gone = Known {
        alive: alive(LAST, 0, 1),
        record_generation: LAST,
        standing: Standing::Down,
        is_forced: false,
        age: 0,
    };
    let given = Given {
        members: vec![gone],
        events: Vec::new(),
    };
    other.take(now, &given, None).unwrap();
    assert_eq!(seen(&other), "unknown");
    // The victim itself.
    let mut victim = pool("b", 2, now);
    for word in [
        "down 4294967295 0",
        "alive 4294967295 0 1",
        "alive 1 0 4294967295",
    ] {
        tell(&mut victim, now, word);
        let local = &victim.local;
        assert!(local.identity.generation < 10, "after {word}: {local:?}");
        assert!(local.record.revision < 10, "after {word}: {local:?}");
    }
    let generation = victim.local.identity.generation;
    tell(&mut victim, now, &format!("down {generation} 0"));
    assert_eq!(victim.local.identity.generation, generation + 1);
}

#[tokio::test(start_paused = true)]
async fn a_forged_good_bye_is_taken_back_by_the_next_word_of_the_victim() {
    let now = Instant::now();
    let mut other = pool("a", 1, now);
    for (word, expected) in [
        ("alive 1 0 1", "alive 1 0 1, shown alive"),
        ("leave 4294967295 4294967295", "alive 1 0 1, shown leaving"),
        ("leave 4294967295 4294967294", "alive 1 0 1, shown leaving"),
        ("alive 1 0 2", "alive 1 0 2, shown alive"),
    ] {
        tell(&mut other, now, word);
        assert_eq!(seen(&other), expected, "after {word}");
    }
    let mut victim = pool("b", 2, now);
    tell(&mut victim, now, "leave 4294967295 4294967295");
    let record = &victim.local.record;
    assert_eq!((record.revision, record.leaving), (2, false));
    // What the others pass on is about what they know, so the victim answers it once.
    tell(&mut victim, now, "leave 1 1");
    assert_eq!(victim.local.record.revision, 2);
}

#[tokio::test(start_paused = true)]
async fn no_packet_ends_a_clock() {
    let now = Instant::now();
    let mut pool = pool("a", 1, now);
    pool.hear_event(event(LTIME_MAX - 1));
    pool.witness_member_time(LTIME_MAX - 1);
    let far = Clocks {
        member: LTIME_MAX - 1,
        event: LTIME_MAX - 1,
        query: LTIME_MAX - 1,
    };
    let own = alive(1, 0, 1);
    let compare = crate::exchange::Compare {
        is_join: false,
        own,
        clocks: far,
        members: Vec::new(),
        events: Vec::new(),
    };
    let request = Request::Compare(Box::new(compare)).encode();
    let request = pool
        .envelope
        .wrap(&request, &mut ChaCha8Rng::seed_from_u64(1));
    let _ = pool.asked(now, address(2), &request);
    pool.outputs();
    let clocks = pool.clocks();
    assert!(
        clocks.event < 100 && clocks.member < 100 && clocks.query < 100,
        "{clocks:?}"
    );
    let time = pool.user_event(String::from("deploy"), Bytes::new(), false);
    let told = pool.outputs();
    let is_told = told
        .iter()
        .any(|output| matches!(output, Output::Tell(Event::User(event)) if event.ltime == time));
    assert!(is_told);
}

#[tokio::test(start_paused = true)]
async fn clocks_of_the_file_are_believed_up_to_a_bound() {
    let now = Instant::now();
    let mut pool = pool("a", 1, now);
    let end = Clocks {
        member: u64::MAX,
        event: u64::MAX,
        query: u64::MAX,
    };
    pool.remember(end, None);
    pool.set_tags(BTreeMap::from([(String::from("a"), String::from("b"))]));
    pool.ask_keys(&KeyOperation::List, 1);
    pool.outputs();
    pool.user_event(String::from("deploy"), Bytes::new(), false);
    let is_told = |output: &Output| matches!(output, Output::Tell(Event::User(_)));
    assert!(pool.outputs().iter().any(is_told));
    assert!(pool.clocks().member < LTIME_MAX);
}

#[tokio::test(start_paused = true)]
async fn strangers_get_little_and_no_news() {
    let now = Instant::now();
    let mut pool = pool("a", 1, now);
    tell(&mut pool, now, "alive 1 0 1");
    pool.user_event(String::from("deploy"), Bytes::new(), false);
    let waiting = pool.queue.turns_left();
    pool.outputs();
    // Who are you?
    let who = Item::Who.encode();
    for _ in 0..10_000 {
        deliver(&mut pool, now, address(9), &who);
    }
    let answers = sent(&mut pool);
    assert!((1..=200).contains(&answers.len()), "{}", answers.len());
    // Somebody of the past of a known member, a rival of one, and somebody unknown.
    let past = Identity {
        generation: 0,
        ..alive(1, 0, 1).identity
    };
    let unknown = Identity {
        id: Id(5),
        ..alive(1, 0, 1).identity
    };
    let mut rival = alive(2, 0, 1);
    rival.identity.address = address(9);
    let to = pool.local.identity;
    for _ in 0..1000 {
        for sections in [
            core(past, to, Message::Ping(1)),
            core(unknown, to, Message::Ping(1)),
            Item::Alive(rival.clone()).encode().to_vec(),
        ] {
            deliver(&mut pool, now, address(9), &sections);
        }
    }
    for (to, sections) in sent(&mut pool) {
        assert_eq!(to, address(9), "whoever asked, and nobody else");
        assert!(sections.len() < 200, "{}", sections.len());
    }
    assert_eq!(
        pool.queue.turns_left(),
        waiting,
        "the news wait for members"
    );
}

#[tokio::test(start_paused = true)]
async fn nobody_is_probed_where_a_packet_says_it_is() {
    let now = Instant::now();
    let mut pool = pool("a", 1, now);
    tell(&mut pool, now, "alive 1 0 1");
    let mut known = alive(1, 0, 1).identity;
    known.address = address(77);
    let stranger = Identity { id: Id(5), ..known };
    pool.outputs();
    for third in [known, stranger] {
        for message in [
            Message::PingReq {
                target: third,
                probe_number: 1,
            },
            Message::IndirectAck {
                target: third,
                probe_number: 1,
            },
        ] {
            let sections = core(alive(1, 0, 1).identity, pool.local.identity, message);
            deliver(&mut pool, now, address(2), &sections);
        }
    }
    let places: Vec<_> = sent(&mut pool).into_iter().map(|(to, _)| to).collect();
    assert!(!places.contains(&address(77)), "{places:?}");
    // Whoever asked still hears that this member is well.
    assert!(!pool.relays.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_name_changes_hands_only_after_its_holder_had_time_to_object() {
    let mut now = Instant::now();
    let mut pool = pool("a", 1, now);
    tell(&mut pool, now, "alive 1 0 1");
    tell(&mut pool, now, "down 1 0");
    let mut rival = alive(2, 0, 1);
    rival.identity.address = address(9);
    pool.hear_alive(now, &rival, 2);
    let ping = core(rival.identity, pool.local.identity, Message::Ping(1));
    deliver(&mut pool, now, address(9), &ping);
    let end = Down {
        identity: rival.identity,
        incarnation: 0,
        left: false,
    };
    pool.hear_down(now, end);
    assert_eq!(pool.entries[&Id::of("b")].identity, alive(1, 0, 1).identity);
    tell(&mut pool, now, "alive 2 0 1");
    assert_eq!(seen(&pool), "alive 2 0 1, shown alive");
    // Once that time is over it does.
    tell(&mut pool, now, "down 2 0");
    for _ in 0..200 {
        now += Duration::from_millis(20);
        pool.notice(now);
        pool.tick(now);
    }
    rival.identity.generation = 3;
    pool.hear_alive(now, &rival, 3);
    assert_eq!(pool.entries[&Id::of("b")].identity, rival.identity);
}

#[tokio::test(start_paused = true)]
async fn a_member_has_one_timer_however_often_it_is_suspected() {
    let now = Instant::now();
    let mut pool = pool("a", 1, now);
    tell(&mut pool, now, "alive 1 0 1");
    for incarnation in 0..20_000 {
        tell(&mut pool, now, &format!("suspect 1 {incarnation}"));
    }
    // Those that look closer are few and short.
    assert!(pool.timers.len() < 50, "{}", pool.timers.len());
}

#[tokio::test(start_paused = true)]
async fn who_was_forgotten_is_new_to_the_failure_detector_too() {
    let now = Instant::now();
    let mut pool = pool("a", 1, now);
    for word in ["alive 1 0 1", "down 1 0", "down 2 0"] {
        tell(&mut pool, now, word);
    }
    pool.forget(Id::of("b"));
    tell(&mut pool, now, "alive 1 0 1");
    assert_eq!(seen(&pool), "alive 1 0 1, shown alive");
    let watched: Vec<_> = pool
        .core
        .iter_members()
        .map(|member| *member.id())
        .collect();
    assert_eq!(watched, [alive(1, 0, 1).identity]);
}
