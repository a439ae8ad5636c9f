//! Encryption, change of keys while the pool runs, and pools that must not mix.

use std::time::Duration;

use gossip::keyring::encode_key;
use gossip::{Config, KeyOperation, Keyring, Status};
use tokio::time::sleep;

use crate::pool::{Pool, address, config, simulate};

const LIMIT: Duration = Duration::from_secs(5);

async fn encrypted(seed: u64, size: usize, key: [u8; 16]) -> Pool {
    let mut pool = Pool::new(seed);
    for index in 0..size {
        let config = Config {
            keyring: Some(Keyring::in_memory(vec![key.to_vec()]).unwrap()),
            ..config(seed, index)
        };
        pool.add(config).await;
        if index > 0 {
            pool.join(index, 0).await;
        }
    }
    pool.wait_for_status(0..size, 0..size, Status::Alive).await;
    pool
}

#[test]
fn a_pool_changes_its_key_while_it_runs() {
    simulate(async {
        let (old, new) = ([1; 16], [2; 16]);
        let mut pool = encrypted(1, 5, old).await;
        assert!(pool.members[0].stats().encrypted);
        let (old, new) = (encode_key(&old), encode_key(&new));
        let member = pool.members[2].clone();

        let unknown = member.keys(KeyOperation::Use(new.clone()), LIMIT).await;
        assert_eq!((unknown.members, unknown.answered), (5, 5));
        assert_eq!(unknown.errors.len(), 5);
        assert_eq!(unknown.errors["m0"], "Requested key is not in the keyring");
        for operation in [
            KeyOperation::Install(new.clone()),
            KeyOperation::Use(new.clone()),
            KeyOperation::Remove(old.clone()),
        ] {
            let report = member.keys(operation.clone(), LIMIT).await;
            assert_eq!(report.answered, 5, "{operation:?}");
            assert!(report.errors.is_empty(), "{operation:?}: {report:?}");
            sleep(Duration::from_secs(10)).await;
        }
        let refused = member.keys(KeyOperation::Remove(new.clone()), LIMIT).await;
        assert_eq!(
            refused.errors["m4"],
            "Removing the primary key is not allowed"
        );
        let keys = member.keys(KeyOperation::List, LIMIT).await.keys;
        assert_eq!(keys.into_iter().collect::<Vec<_>>(), [(new, 5)]);
        assert!(pool.failures(0..5).is_empty());

        // The dead are not asked, and who doesn't answer is not counted as having answered.
        pool.net.kill(address(4));
        let report = member.keys(KeyOperation::List, LIMIT).await;
        assert_eq!((report.members, report.answered), (5, 4));
        pool.wait_for_status(0..4, [4], Status::Failed).await;
        let report = member.keys(KeyOperation::List, LIMIT).await;
        assert_eq!((report.members, report.answered), (4, 4));
    });
}

#[test]
fn bad_keys_are_refused_in_the_words_of_the_original() {
    simulate(async {
        let pool = encrypted(2, 1, [1; 16]).await;
        let cases = [
            ("AAAA", "key size must be 16, 24 or 32 bytes"),
            ("%", "illegal base64 data at input byte 0"),
        ];
        for (key, expected) in cases {
            let operation = KeyOperation::Install(String::from(key));
            let report = pool.members[0].keys(operation, LIMIT).await;
            assert_eq!(report.errors["m0"], expected);
        }
        let plain = Pool::of(3, 2).await;
        let report = plain.members[0].keys(KeyOperation::List, LIMIT).await;
        assert_eq!(
            report.errors["m1"],
            "Keyring is empty (encryption not enabled)"
        );
        let operation = KeyOperation::Install(encode_key(&[1; 16]));
        let report = plain.members[0].keys(operation, LIMIT).await;
        assert_eq!(
            report.errors["m1"],
            "No keyring to modify (encryption not enabled)"
        );
        assert_eq!((report.members, report.answered), (2, 2));
    });
}

#[test]
fn who_has_no_key_stays_outside() {
    simulate(async {
        let mut pool = encrypted(4, 2, [1; 16]).await;
        let other = Config {
            keyring: Some(Keyring::in_memory(vec![vec![9; 32]]).unwrap()),
            ..config(4, 2)
        };
        pool.add(other).await;
        pool.add(config(4, 3)).await;
        for (index, to, why) in [
            (2, 0, "the pool there is encrypted with another key"),
            (3, 0, "the pool there is encrypted, this one is not"),
            (0, 2, "the pool there is encrypted with another key"),
            (0, 3, "the pool there is not encrypted, this one is"),
        ] {
            let joined = pool.members[index].join(&[address(to)], false).await;
            assert_eq!(joined.failures, [(address(to), String::from(why))]);
        }
        sleep(Duration::from_secs(30)).await;
        assert_eq!(pool.members[0].members().len(), 2);
        assert!(pool.members[0].stats().unreadable_packets >= 2);
    });
}

#[test]
fn pools_with_two_labels_never_mix() {
    for is_encrypted in [false, true] {
        simulate(async {
            let mut pool = Pool::new(5);
            for index in 0..6 {
                let label = if index < 3 { "lan:dc1" } else { "wan" };
                let keyring = is_encrypted.then(|| Keyring::in_memory(vec![vec![7; 16]]).unwrap());
                let config = Config {
                    label: String::from(label),
                    keyring,
                    ..config(5, index)
                };
                pool.add(config).await;
            }
            for (index, to) in [(1, 0), (2, 0), (4, 3), (5, 3)] {
                pool.join(index, to).await;
            }
            let mixed = pool.members[0].join(&[address(3)], false).await;
            assert_eq!(
                mixed.failures,
                [(address(3), String::from("the pool there is 'wan'"))]
            );
            sleep(Duration::from_secs(60)).await;
            for member in &pool.members {
                assert_eq!(member.members().len(), 3);
            }
            assert_eq!(pool.members[3].stats().foreign_packets, 1);
        });
    }
}
