use std::time::Duration;

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

/// Members that measure each other at random, with the round trips of a table in seconds. Returns the mean and the
/// largest relative error of all estimates.
fn converge(table: &[Vec<f64>], cycles: usize) -> (f64, f64) {
    let count = table.len();
    let mut chance = ChaCha8Rng::seed_from_u64(7);
    let mut clients: Vec<Client> = (0..count).map(|seed| Client::new(seed as u64)).collect();
    for _ in 0..cycles {
        for from in 0..count {
            let to = (from + chance.random_range(1..count)) % count;
            let other = clients[to].coordinate().clone();
            let round_trip = Duration::from_secs_f64(table[from][to]);
            clients[from]
                .update(&to.to_string(), &other, round_trip)
                .unwrap();
        }
    }
    let mut errors = Vec::new();
    for from in 0..count {
        for to in 0..from {
            let estimate = clients[from]
                .coordinate()
                .distance(clients[to].coordinate());
            errors.push((estimate - table[from][to]).abs() / table[from][to]);
        }
    }
    let mean = errors.iter().sum::<f64>() / errors.len() as f64;
    (mean, errors.into_iter().fold(0.0, f64::max))
}

fn table(count: usize, mut round_trip: impl FnMut(usize, usize) -> f64) -> Vec<Vec<f64>> {
    (0..count)
        .map(|from| (0..count).map(|to| round_trip(from, to)).collect())
        .collect()
}

#[test]
fn a_line_is_found() {
    let line = table(10, |a, b| 0.010 * a.abs_diff(b) as f64);
    let (mean, largest) = converge(&line, 1000);
    assert!(mean < 0.005 && largest < 0.05, "{mean} {largest}");
}

#[test]
fn a_grid_is_found() {
    let grid = table(25, |a, b| {
        let across = (a % 5).abs_diff(b % 5) as f64;
        let down = (a / 5).abs_diff(b / 5) as f64;
        0.010 * across.hypot(down)
    });
    let (mean, largest) = converge(&grid, 1000);
    assert!(mean < 0.005 && largest < 0.05, "{mean} {largest}");
}

#[test]
fn two_clusters_are_told_apart() {
    let halves = table(25, |a, b| if a % 2 == b % 2 { 0.001 } else { 0.010 });
    let (mean, largest) = converge(&halves, 1000);
    assert!(mean < 0.005 && largest < 0.05, "{mean} {largest}");
}

#[test]
fn round_trips_of_chance_are_met_on_the_average() {
    let mut chance = ChaCha8Rng::seed_from_u64(3);
    let drawn = table(25, |_, _| 0.010 + 0.010 * chance.random::<f64>());
    let random = table(25, |a, b| drawn[a.min(b)][a.max(b)]);
    let (mean, largest) = converge(&random, 1000);
    assert!(mean < 0.2 && largest < 1.0, "{mean} {largest}");
}

#[test]
fn the_same_seed_gives_the_same_place() {
    let walk = |seed| {
        let mut client = Client::new(seed);
        for step in 1..100 {
            let other = Coordinate::default();
            client
                .update("peer", &other, Duration::from_millis(step))
                .unwrap();
        }
        client.coordinate().clone()
    };
    assert_eq!(walk(1), walk(1));
    assert_ne!(walk(1), walk(2));
}

#[test]
fn distances_add_height_and_corrections_that_keep_time_going() {
    let at = |x: f64, height: f64, adjustment: f64| {
        let mut coordinate = Coordinate {
            height,
            adjustment,
            ..Coordinate::default()
        };
        coordinate.vec[2] = x;
        coordinate
    };
    let cases = [
        (at(0.0, 1.0, 0.0), at(3.0, 2.0, 0.0), 6.0),
        (at(-1.0, 0.5, 0.25), at(1.0, 0.5, 0.25), 3.5),
        (at(0.0, 0.5, -0.25), at(1.0, 0.5, -0.25), 1.5),
        (at(0.0, 0.5, -2.0), at(1.0, 0.5, 0.0), 2.0),
    ];
    for (a, b, expected) in cases {
        assert_eq!(a.distance(&b), expected);
        assert_eq!(b.distance(&a), expected);
    }
}

#[test]
fn one_step_is_what_the_rules_say() {
    let mut client = Client::new(1);
    let mut other = Coordinate::default();
    other.vec[0] = 0.1;
    let after = client
        .update("peer", &other, Duration::from_millis(200))
        .unwrap()
        .clone();
    // Both are equally unsure, so a quarter of one half of the difference, away from the other.
    let distance = 0.1 + 2.0 * HEIGHT_MIN;
    let force = 0.125 * (0.2 - distance);
    assert!((after.vec[0] + force).abs() < 1e-6, "{after:?}");
    assert!(after.vec[1..].iter().all(|part| *part == 0.0));
    let error = 0.125 * (0.2 - distance) / 0.2 + 1.5 * 0.875;
    assert!((after.error - error).abs() < 1e-9, "{after:?}");
    let height = HEIGHT_MIN + 2.0 * HEIGHT_MIN * force / 0.1;
    assert!((after.height - height).abs() < 1e-9, "{after:?}");
    let shortfall = 0.2 - (0.1 + force + height + HEIGHT_MIN);
    assert!(
        (after.adjustment - shortfall / 40.0).abs() < 1e-9,
        "{after:?}"
    );
}

#[test]
fn a_single_late_packet_moves_nobody() {
    let mut steady = Client::new(1);
    let mut surprised = Client::new(1);
    let other = Coordinate::default();
    let usual = Duration::from_millis(10);
    for late in [usual, usual, Duration::from_secs(5), usual, usual] {
        steady.update("peer", &other, usual).unwrap();
        surprised.update("peer", &other, late).unwrap();
    }
    assert_eq!(steady.coordinate(), surprised.coordinate());
}

#[test]
fn a_peer_that_is_forgotten_begins_anew() {
    let mut client = Client::new(1);
    let other = Coordinate::default();
    for _ in 0..3 {
        client
            .update("peer", &other, Duration::from_millis(10))
            .unwrap();
    }
    client.forget("peer");
    assert_eq!(client.typical("peer", 1.0), 1.0);
}

#[test]
fn what_is_kept_of_peers_is_bounded() {
    let mut client = Client::new(1);
    for peer in 0..PEERS_MAX + 10 {
        client.typical(&peer.to_string(), 0.1);
    }
    assert_eq!(client.latencies.len(), PEERS_MAX);
}

#[test]
fn a_coordinate_that_cannot_be_is_refused_and_changes_nothing() {
    let with = |change: fn(&mut Coordinate)| {
        let mut coordinate = Coordinate::default();
        change(&mut coordinate);
        coordinate
    };
    let cases = [
        (with(|c| c.vec.clear()), CoordinateError::Dimensions(0)),
        (with(|c| c.vec.push(0.0)), CoordinateError::Dimensions(9)),
        (with(|c| c.vec[3] = f64::NAN), CoordinateError::Bounds),
        (with(|c| c.vec[3] = f64::INFINITY), CoordinateError::Bounds),
        (with(|c| c.vec[3] = -1e300), CoordinateError::Bounds),
        (with(|c| c.error = -1.5), CoordinateError::Bounds),
        (with(|c| c.error = f64::NAN), CoordinateError::Bounds),
        (with(|c| c.height = -1.0), CoordinateError::Bounds),
        (with(|c| c.height = f64::INFINITY), CoordinateError::Bounds),
        (
            with(|c| c.adjustment = f64::NEG_INFINITY),
            CoordinateError::Bounds,
        ),
    ];
    let mut client = Client::new(1);
    for (other, expected) in cases {
        let refused = client.update("peer", &other, Duration::from_millis(1));
        assert_eq!(refused.unwrap_err(), expected, "{other:?}");
        assert!(client.restore(other).is_err());
    }
    let long = Duration::from_millis(10_001);
    assert_eq!(
        client
            .update("peer", &Coordinate::default(), long)
            .unwrap_err(),
        CoordinateError::RoundTrip(long)
    );
    assert_eq!(*client.coordinate(), Coordinate::default());
    assert!(client.latencies.is_empty());
}

#[test]
fn a_place_from_before_a_restart_is_gone_on_from() {
    let mut before = Client::new(1);
    let mut other = Coordinate::default();
    other.vec[0] = 0.05;
    for _ in 0..50 {
        before
            .update("peer", &other, Duration::from_millis(30))
            .unwrap();
    }
    let mut after = Client::new(2);
    after.restore(before.coordinate().clone()).unwrap();
    assert_eq!(after.coordinate(), before.coordinate());
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(0.0),
        Just(1e-6),
        Just(1.1e-6),
        Just(ERROR_MAX),
        Just(REACH_MAX),
        Just(-REACH_MAX),
        -REACH_MAX..REACH_MAX,
        -1e-3..1e-3,
        any::<f64>(),
    ]
}

fn hostile() -> impl Strategy<Value = Coordinate> {
    (
        prop::collection::vec(number(), 7..10),
        number(),
        number(),
        number(),
    )
        .prop_map(|(vec, error, adjustment, height)| Coordinate {
            vec,
            error,
            adjustment,
            height,
        })
}

/// Mostly coordinates that are taken.
fn sly() -> impl Strategy<Value = Coordinate> {
    (
        prop::collection::vec(-REACH_MAX..=REACH_MAX, DIMENSIONS),
        0.0..=ERROR_MAX,
        -REACH_MAX..=REACH_MAX,
        0.0..=REACH_MAX,
        prop_oneof![Just(0.0), Just(1e-7), Just(1.0)],
    )
        .prop_map(|(vec, error, adjustment, height, scale)| Coordinate {
            vec: vec.into_iter().map(|part| part * scale).collect(),
            error: error * scale,
            adjustment: adjustment * scale,
            height,
        })
}

proptest! {
    #[test]
    fn whatever_peers_say_we_stay_in_bounds(
        steps in prop::collection::vec(
            (prop_oneof![hostile(), sly()], 0u64..20_000_000, 0u8..3),
            0..200,
        )
    ) {
        let mut client = Client::new(1);
        for (other, micros, peer) in steps {
            let round_trip = Duration::from_micros(micros);
            let _ = client.update(&peer.to_string(), &other, round_trip);
            prop_assert_eq!(client.coordinate().check(), Ok(()));
            prop_assert!(client.coordinate().height >= HEIGHT_MIN);
            if other.check().is_ok() {
                let distance = client.coordinate().distance(&other);
                prop_assert!(distance.is_finite() && distance >= 0.0);
            }
        }
    }
}

#[test]
fn a_member_that_was_led_astray_finds_back() {
    let mut client = Client::new(1);
    let mut far = Coordinate {
        error: 0.0,
        ..Coordinate::default()
    };
    far.vec[0] = REACH_MAX;
    for _ in 0..100 {
        let _ = client.update("liar", &far, Duration::from_micros(1));
    }
    assert!(client.coordinate().vec[0] > 10.0);
    let honest = Coordinate {
        error: 0.1,
        ..Coordinate::default()
    };
    for _ in 0..1000 {
        let _ = client.update("honest", &honest, Duration::from_millis(1));
    }
    let distance = client.coordinate().distance(&honest);
    assert!(distance < 0.01, "{distance}");
}
