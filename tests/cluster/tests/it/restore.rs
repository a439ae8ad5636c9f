//! A restore in a live cluster whose servers die meanwhile.

use std::time::{Duration, Instant};

use cluster::{Agent, Chance, Cluster, Plan, request};
use simulation::archive::{MARKS, archive};

/// Which restore a server's keys tell of.
fn generation(agent: &Agent) -> u64 {
    let answer = agent.ask("GET", "/v1/kv/gen/?recurse&stale", b"");
    let rows = answer.json().as_array().cloned().unwrap_or_default();
    let mut told: Vec<String> = rows
        .iter()
        .map(|row| row["Value"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert!([0, MARKS].contains(&told.len()), "{} marks", told.len());
    told.dedup();
    assert!(told.len() < 2, "marks of several restores");
    let Some(coded) = told.first() else { return 0 };
    let bytes = base64_simd::STANDARD.decode_to_vec(coded);
    let text = String::from_utf8(bytes.expect("a value in base64"));
    let text = text.expect("a number");
    text.trim_start_matches('0').parse().expect("a number")
}

#[test]
fn a_restore_whose_leader_dies_leaves_the_old_state_or_the_new_one_everywhere() {
    let mut chance = Chance::seeded();
    let mut cluster = Cluster::form(&Plan::servers(3));
    cluster.wait_for_voters(&[0, 1, 2]);
    let patience = Duration::from_secs(30);
    let start = Instant::now();
    // Every fifth is a large one, of several entries of the log.
    cluster.agents[0].get("PUT", "/v1/snapshot", &archive(5));
    let usual = start.elapsed();
    let mut before = 5;
    let mut outcomes = [0, 0];
    for wanted in [10, 15, 20] {
        let leader = cluster.leader();
        let through = chance.place(3);
        let address = cluster.agents[through].spec.http();
        let micros = u64::try_from(usual.as_micros()).unwrap();
        let moment = Duration::from_micros(chance.between(micros / 10, micros));
        let told = std::thread::scope(|scope| {
            let restore = scope
                .spawn(move || request(address, "PUT", "/v1/snapshot", &archive(wanted), patience));
            // Any moment of the restore is as good as another, and none announces itself.
            let end = Instant::now() + moment;
            while Instant::now() < end && !restore.is_finished() {
                std::thread::park_timeout(Duration::from_micros(200));
            }
            cluster.agents[leader].kill();
            restore.join().unwrap()
        });
        cluster.start(leader);
        cluster.wait_until_writable();
        cluster.wait_until_alike();
        let states: Vec<u64> = cluster.agents.iter().map(generation).collect();
        let after = states[0];
        assert_eq!(states, [after; 3]);
        assert!([before, wanted].contains(&after), "{after} is neither");
        if let Ok(answer) = &told {
            let is_done = answer.status == 200;
            assert!(
                !is_done || after == wanted,
                "an acknowledged restore is gone"
            );
            println!("{wanted}: {} {}", answer.status, answer.text());
        }
        outcomes[usize::from(after == wanted)] += 1;
        // Again, and it is done, whatever became of it before.
        cluster.agents[through].get("PUT", "/v1/snapshot", &archive(wanted));
        cluster.wait_until_alike();
        let states: Vec<u64> = cluster.agents.iter().map(generation).collect();
        assert_eq!(states, [wanted; 3]);
        before = wanted;
    }
    println!(
        "{} kept the old state, {} got the new one",
        outcomes[0], outcomes[1]
    );
    // The duties of the leader begin anew on the restored state.
    cluster.wait_for_catalog(&["s0", "s1", "s2"]);
}
