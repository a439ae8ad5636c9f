//! Joining, leaving, dying and coming back, and what everybody sees of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gossip::known::{Medium, MemoryMedium};
use gossip::sim::Weather;
use gossip::{Config, Event, EventError, Joined, Status};
use tokio::time::{Instant, sleep, timeout};

use crate::pool::{Pool, address, config, name, simulate};

#[test]
fn one_join_is_enough_and_tells_all() {
    simulate(async {
        let mut pool = Pool::of(1, 3).await;
        let names: Vec<_> = pool.members[2]
            .members()
            .into_iter()
            .map(|m| m.name)
            .collect();
        assert_eq!(names, ["m0", "m1", "m2"]);
        let joined: Vec<_> = pool
            .take_events(0)
            .into_iter()
            .filter_map(|event| match event {
                Event::Joined(member) => Some(member.name),
                _ => None,
            })
            .collect();
        assert_eq!(joined, ["m1", "m2"]);
        assert_eq!(pool.members[0].local().address, address(0));
        assert_eq!(pool.members[0].stats().members, 3);

        // An address that nobody listens on is a failure with a reason, the others count.
        let outcome = pool.members[0].join(&[address(1), address(9)], false).await;
        assert_eq!(outcome.reached, 1);
        assert_eq!(outcome.failures.len(), 1);
        assert_eq!(outcome.failures[0].0, address(9));
        // Itself counts, as in the original: one list of addresses may be given to all.
        let itself = pool.members[0].join(&[address(0)], false).await;
        assert_eq!(itself.reached, 1, "{itself:?}");
        let nobody = pool.members[0].join(&[], false).await;
        assert_eq!(nobody, Joined::default());
    });
}

#[test]
fn who_says_good_bye_has_left_and_not_failed() {
    simulate(async {
        let mut pool = Pool::of(2, 5).await;
        let begun = Instant::now();
        pool.members[4].leave().await;
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert_eq!(pool.members[4].local().status, Status::Left);
        pool.members[4].shutdown().await;
        pool.wait_for_status(0..4, [4], Status::Left).await;
        sleep(Duration::from_secs(60)).await;
        assert!(pool.failures(0..4).is_empty());
        assert_eq!(pool.members[0].stats().left, 1);

        // It comes back under its name.
        pool.restart(4, config(77, 4)).await;
        pool.join(4, 0).await;
        pool.wait_for_status(0..5, [4], Status::Alive).await;
        assert_eq!(pool.members[0].stats().left, 0);
    });
}

#[test]
fn a_good_bye_for_somebody_else_works_on_the_dead_only() {
    simulate(async {
        let mut pool = Pool::of(3, 5).await;
        pool.members[0].force_leave("nobody").await;
        pool.members[0].force_leave("m3").await;
        sleep(Duration::from_secs(5)).await;
        for viewer in 0..5 {
            assert_eq!(pool.status(viewer, 3), Some(Status::Alive), "refuted");
        }
        pool.net.kill(address(4));
        pool.wait_for_status(0..4, [4], Status::Failed).await;
        assert_eq!(pool.members[0].stats().failed, 1);
        pool.members[1].force_leave("m4").await;
        pool.wait_for_status(0..4, [4], Status::Left).await;
        assert_eq!(pool.members[0].stats().failed, 0);
        let left = pool
            .take_events(0)
            .iter()
            .any(|event| matches!(event, Event::Left(member) if member.name == "m4"));
        assert!(left);
    });
}

#[test]
fn a_restart_within_seconds_is_no_failure_and_a_late_one_is_a_return() {
    simulate(async {
        let mut pool = Pool::of(4, 5).await;
        sleep(Duration::from_secs(5)).await;
        pool.restart(4, config(78, 4)).await;
        pool.join(4, 0).await;
        pool.wait_for_status(0..5, 0..5, Status::Alive).await;
        sleep(Duration::from_secs(20)).await;
        assert!(pool.failures(0..5).is_empty());

        pool.net.kill(address(4));
        pool.wait_for_status(0..4, [4], Status::Failed).await;
        let tags = BTreeMap::from([(String::from("role"), String::from("node"))]);
        let config = Config {
            tags: tags.clone(),
            ..config(79, 4)
        };
        pool.restart(4, config).await;
        pool.join(4, 1).await;
        pool.wait_for_status(0..5, 0..5, Status::Alive).await;
        for viewer in 0..4 {
            assert_eq!(pool.members[viewer].member("m4").unwrap().tags, tags);
        }
    });
}

#[test]
fn the_members_file_leads_back_to_the_pool() {
    simulate(async {
        let mut pool = Pool::of(5, 2).await;
        let file: Arc<dyn Medium> = Arc::new(MemoryMedium::default());
        let with_file = |seed| Config {
            known: Some(Arc::clone(&file)),
            ..config(seed, 2)
        };
        pool.add(with_file(5)).await;
        pool.join(2, 0).await;
        pool.wait_for_status(0..3, 0..3, Status::Alive).await;
        sleep(Duration::from_secs(5)).await;
        // The one that it joined through is gone by then.
        pool.net.kill(address(0));
        pool.net.kill(address(2));
        pool.restart(2, with_file(80)).await;
        pool.wait_for_status([1, 2], [1, 2], Status::Alive).await;

        // After a good-bye it stays alone, unless it is told to return.
        pool.members[2].leave().await;
        pool.members[2].shutdown().await;
        pool.restart(2, with_file(81)).await;
        sleep(Duration::from_secs(30)).await;
        assert_eq!(pool.members[2].members().len(), 1);
        pool.members[2].shutdown().await;
    });
}

#[test]
fn rejoin_after_leave_returns_to_the_pool() {
    simulate(async {
        let mut pool = Pool::of(6, 2).await;
        let file: Arc<dyn Medium> = Arc::new(MemoryMedium::default());
        let with_file = |seed| Config {
            known: Some(Arc::clone(&file)),
            rejoin_after_leave: true,
            ..config(seed, 2)
        };
        pool.add(with_file(6)).await;
        pool.join(2, 0).await;
        pool.wait_for_status(0..3, 0..3, Status::Alive).await;
        pool.members[2].leave().await;
        pool.members[2].shutdown().await;
        pool.restart(2, with_file(82)).await;
        pool.wait_for_status(0..3, 0..3, Status::Alive).await;
    });
}

#[test]
fn of_two_members_with_one_name_the_first_stays_until_it_is_gone() {
    simulate(async {
        let mut pool = Pool::of(7, 4).await;
        let rival = Config {
            name: name(3),
            ..config(7, 9)
        };
        pool.add(rival).await;
        let _ = pool.members[4].join(&[address(0)], false).await;
        sleep(Duration::from_secs(60)).await;
        for viewer in 0..4 {
            let seen = pool.members[viewer].member("m3").unwrap();
            assert_eq!((seen.address, seen.status), (address(3), Status::Alive));
        }
        pool.net.kill(address(3));
        let is_rival = || {
            (0..3).all(|viewer| {
                let seen = pool.members[viewer].member("m3").unwrap();
                (seen.address, seen.status) == (address(9), Status::Alive)
            })
        };
        pool.wait("the other to have the name", is_rival).await;
    });
}

#[test]
fn what_a_partition_separates_finds_together_again() {
    simulate(async {
        let mut pool = Pool::of(8, 7).await;
        let (left, right) = ([0, 1, 2].map(address), [3, 4, 5, 6].map(address));
        pool.net.cut(&left, &right);
        pool.net.cut(&right, &left);
        pool.wait_for_status(0..3, 3..7, Status::Failed).await;
        pool.wait_for_status(3..7, 0..3, Status::Failed).await;
        // Longer than the dead are told, so that only reconnecting helps.
        sleep(Duration::from_secs(60)).await;
        pool.net.heal();
        let took = pool.wait_for_status(0..7, 0..7, Status::Alive).await;
        assert!(took < Duration::from_secs(90), "{took:?}");
        pool.failures(0..7);
        sleep(Duration::from_secs(60)).await;
        assert!(pool.failures(0..7).is_empty());
    });
}

#[test]
fn one_way_cuts_and_bad_weather_leave_no_lasting_damage() {
    for seed in 0..5 {
        simulate(async {
            let pool = Pool::of(seed, 6).await;
            pool.net.weather(Weather {
                loss: 0.3,
                repetition: 0.2,
                delay_min: Duration::from_millis(1),
                delay_max: Duration::from_millis(200),
            });
            pool.net.cut(&[address(0)], &[address(1), address(2)]);
            pool.net.cut(&[address(3)], &[address(0)]);
            sleep(Duration::from_secs(120)).await;
            pool.net.heal();
            pool.net.weather(Weather::FAIR);
            pool.wait_for_status(0..6, 0..6, Status::Alive).await;
        });
    }
}

#[test]
fn the_long_gone_are_reaped_everywhere_and_stay_away() {
    simulate(async {
        let mut pool = Pool::new(9);
        for index in 0..4 {
            let config = Config {
                reconnect_timeout: Duration::from_secs(300),
                tombstone_timeout: Duration::from_secs(200),
                ..config(9, index)
            };
            pool.add(config).await;
            if index > 0 {
                pool.join(index, 0).await;
            }
        }
        pool.wait_for_status(0..4, 0..4, Status::Alive).await;
        pool.net.kill(address(3));
        pool.members[2].leave().await;
        pool.members[2].shutdown().await;
        pool.wait_for_status(0..2, [3], Status::Failed).await;
        sleep(Duration::from_secs(700)).await;
        for viewer in 0..2 {
            assert_eq!(pool.members[viewer].members().len(), 2);
            let reaped: Vec<_> = pool
                .take_events(viewer)
                .into_iter()
                .filter_map(|event| match event {
                    Event::Reaped(member) => Some(member.name),
                    _ => None,
                })
                .collect();
            assert_eq!(reaped, ["m2", "m3"]);
        }
    });
}

#[test]
fn who_joins_late_learns_of_the_dead() {
    simulate(async {
        let mut pool = Pool::of(10, 3).await;
        pool.net.kill(address(2));
        pool.wait_for_status(0..2, [2], Status::Failed).await;
        pool.add(config(10, 3)).await;
        pool.join(3, 1).await;
        assert_eq!(pool.status(3, 2), Some(Status::Failed));
    });
}

#[test]
fn a_refused_member_stays_outside_and_is_told_why() {
    simulate(async {
        let mut pool = Pool::new(11);
        for index in 0..2 {
            let config = Config {
                admit: Arc::new(|member| match member.tags.get("dc") {
                    Some(dc) if dc != "dc1" => Err(format!(
                        "Member '{}' part of wrong datacenter '{dc}'",
                        member.name
                    )),
                    _ => Ok(()),
                }),
                ..config(11, index)
            };
            pool.add(config).await;
        }
        pool.join(1, 0).await;
        let tags = BTreeMap::from([(String::from("dc"), String::from("dc2"))]);
        let stranger = Config {
            tags,
            ..config(11, 2)
        };
        pool.add(stranger).await;
        let joined = pool.members[2].join(&[address(0)], false).await;
        assert_eq!(
            joined.failures,
            [(
                address(0),
                String::from("Member 'm2' part of wrong datacenter 'dc2'")
            )]
        );
        sleep(Duration::from_secs(60)).await;
        assert_eq!(pool.members[0].members().len(), 2);
        assert_eq!(pool.members[2].members().len(), 1);
    });
}

#[test]
fn new_tags_reach_all_and_too_many_none() {
    simulate(async {
        let mut pool = Pool::of(12, 5).await;
        let tags = BTreeMap::from([(String::from("vsn"), String::from("3"))]);
        pool.members[2].set_tags(tags.clone()).unwrap();
        pool.wait("tags", || {
            (0..5).all(|viewer| pool.members[viewer].member("m2").unwrap().tags == tags)
        })
        .await;
        let updated = pool
            .take_events(0)
            .iter()
            .any(|event| matches!(event, Event::Updated(member) if member.tags == tags));
        assert!(updated);
        let long = BTreeMap::from([(String::from("a"), "b".repeat(512))]);
        let error = pool.members[2].set_tags(long).unwrap_err();
        assert_eq!(error.to_string(), "tags take 517 bytes, more than 512");
    });
}

#[test]
fn a_user_event_reaches_everybody_once() {
    simulate(async {
        let mut pool = Pool::of(13, 20).await;
        pool.net.weather(Weather {
            loss: 0.1,
            repetition: 0.3,
            ..Weather::FAIR
        });
        let mut times = Vec::new();
        for (index, payload) in ["one", "two", "three"].into_iter().enumerate() {
            let member = &pool.members[index * 3];
            let payload = Bytes::from_static(payload.as_bytes());
            times.push(member.user_event("deploy", payload, false).await.unwrap());
            sleep(Duration::from_secs(5)).await;
        }
        assert!(times.is_sorted() && times[0] < times[2], "{times:?}");
        // What gossip missed, the comparisons bring.
        sleep(Duration::from_secs(120)).await;
        for index in 0..20 {
            let mut seen: Vec<_> = pool
                .take_events(index)
                .into_iter()
                .filter_map(|event| match event {
                    Event::User(event) => Some(event.payload),
                    _ => None,
                })
                .collect();
            seen.sort_unstable();
            assert_eq!(seen, ["one", "three", "two"], "member {index}");
        }
        let long = Bytes::from(vec![0; 507]);
        let refused = pool.members[0].user_event("deploy", long, false).await;
        assert_eq!(refused, Err(EventError::TooLarge));

        // Who joins later gets old events only if it wants them.
        for (index, replay_events) in [(20, false), (21, true)] {
            pool.add(config(13, index)).await;
            pool.members[index].join(&[address(0)], replay_events).await;
            sleep(Duration::from_secs(60)).await;
            let events = pool.take_events(index);
            let seen = events
                .iter()
                .filter(|e| matches!(e, Event::User(_)))
                .count();
            assert_eq!(seen, if replay_events { 3 } else { 0 });
        }
    });
}

#[test]
fn a_subscriber_that_sleeps_learns_how_much_it_missed() {
    simulate(async {
        let mut pool = Pool::of(14, 1).await;
        pool.take_events(0);
        for _ in 0..gossip::EVENTS_QUEUED_MAX + 5 {
            pool.members[0]
                .user_event("e", Bytes::new(), false)
                .await
                .unwrap();
        }
        let events = pool.take_events(0);
        assert_eq!(events[0], Event::Missed(5));
        assert_eq!(events.len(), gossip::EVENTS_QUEUED_MAX + 1);
        pool.members[0].shutdown().await;
        assert_eq!(pool.events[0].next().await, None);
        let closed = pool.members[0].user_event("e", Bytes::new(), false).await;
        assert_eq!(closed, Err(EventError::Closed));
        timeout(Duration::from_secs(1), pool.members[0].leave())
            .await
            .unwrap();
    });
}

#[test]
fn round_trips_become_distances() {
    simulate(async {
        let pool = Pool::of(15, 5).await;
        pool.net.weather(Weather {
            delay_min: Duration::from_millis(9),
            delay_max: Duration::from_millis(11),
            ..Weather::FAIR
        });
        sleep(Duration::from_secs(300)).await;
        let own = pool.members[0].coordinate().unwrap();
        for other in 1..5 {
            let there = pool.members[0].coordinate_of(&name(other)).unwrap();
            let distance = own.distance(&there);
            assert!((0.015..0.025).contains(&distance), "{distance}");
        }
    });
}

/// The same seed twice gives the same events, bit for bit.
#[test]
fn a_seed_replays() {
    let run = |seed| {
        simulate(async {
            let mut pool = Pool::of(seed, 12).await;
            pool.net.weather(Weather {
                loss: 0.05,
                repetition: 0.05,
                delay_min: Duration::from_millis(1),
                delay_max: Duration::from_millis(50),
            });
            pool.net.starve(address(2), Duration::from_secs(7));
            sleep(Duration::from_secs(20)).await;
            pool.net.kill(address(5));
            sleep(Duration::from_secs(20)).await;
            pool.restart(5, config(seed + 1, 5)).await;
            let _ = pool.members[5].join(&[address(1), address(2)], true).await;
            pool.members[7].leave().await;
            sleep(Duration::from_secs(20)).await;
            let kinds: Vec<_> = (0..12)
                .flat_map(|index| pool.take_events(index))
                .map(|event| match event {
                    Event::Joined(member) => format!("joined {}", member.name),
                    Event::Failed(member) => format!("failed {}", member.name),
                    Event::Left(member) => format!("left {}", member.name),
                    _ => String::from("something else"),
                })
                .collect();
            (pool.net.hash(), pool.net.delivered(), kinds)
        })
    };
    assert_eq!(run(100), run(100));
    assert_ne!(run(100).0, run(101).0);
}
