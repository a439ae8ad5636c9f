//! Parts of snapshots restored over any state: against the naive model, in two servers at once, and out of every fixture.

use std::collections::BTreeMap;

use ::model::*;
use proptest::prelude::*;
use serde_json::{Value, json};
use store::archive::{Chunks, Unknown, Verified, verify_part};
use store::{Applied, Store};

use crate::archive::{fixture, restore, restored, written};
use crate::checkpoint::{checkpoint, installed};
use crate::decode::{Decoded, decode_state};
use crate::model::{Waiting, cases, check_rows, entries, look, questions};
use crate::naive::Naive;

/// Sends a part of an archive through the log, from the entry behind `log_index` on; what its last entry came to.
pub(crate) fn restore_part(
    store: &mut Store,
    log_index: &mut u64,
    state: &[u8],
    part: &RestorePart,
) -> Applied {
    let verified = verify_part(state, Unknown::Skip, Some(part)).unwrap();
    let mut last = None;
    for command in commands(state, part, &verified) {
        *log_index += 1;
        let entry = Entry { at_ms: 0, command };
        last = Some(store.apply(*log_index, 1, entry));
    }
    last.unwrap()
}

fn commands(state: &[u8], part: &RestorePart, verified: &Verified) -> Vec<Command> {
    let id = Uuid::from_u128(1);
    let mut commands = vec![Command::RestoreBegin(RestoreBegin {
        id,
        last_index: verified.last_index,
        snapshot_index: 0,
        part: Some(part.clone()),
    })];
    let mut chunks = Chunks::of_part(state, Some(part.clone())).unwrap();
    let mut sequence = 0;
    while let Some(records) = chunks.next_chunk().unwrap() {
        commands.push(Command::RestoreChunk(RestoreChunk {
            id,
            sequence,
            records,
        }));
        sequence += 1;
    }
    assert_eq!(sequence, verified.chunks);
    commands.push(Command::RestoreCommit(RestoreCommit {
        id,
        chunks: verified.chunks,
        hash: verified.hash,
    }));
    commands
}

fn part() -> impl Strategy<Value = RestorePart> {
    let sections = prop::sample::subsequence(Section::ALL.to_vec(), 1..=5);
    let prefix =
        || prop::sample::select(vec!["", "a", "a/", "b", "none", "z/"]).prop_map(Text::from);
    let prefixes = prop_oneof![
        3 => Just(Vec::new()),
        2 => prop::collection::vec(prefix(), 1..3),
    ];
    let mode = prop_oneof![Just(RestoreMode::Replace), Just(RestoreMode::Merge)];
    (
        sections,
        prefixes,
        prop::option::weighted(0.3, prefix()),
        mode,
    )
        .prop_filter_map("makes no sense", |(sections, prefixes, into, mode)| {
            RestorePart::new(sections.into_iter().collect(), prefixes, into, mode).ok()
        })
}

proptest! {
    #![proptest_config(cases())]

    /// Whatever happened before the snapshot was taken and since, here or in another cluster.
    #[test]
    fn a_part_is_written_over_what_there_is(
        then in entries(),
        since in entries(),
        is_of_another in prop::bool::weighted(0.3),
        part in part(),
    ) {
        let questions = questions();
        let mut store = Store::new();
        let mut model = Naive::default();
        let mut log_index = 0;
        let mut run = |store: &mut Store, model: &mut Naive, entries: Vec<Entry>| {
            for entry in entries {
                log_index += 1;
                let _ = model.apply(log_index, &entry);
                let _ = store.apply(log_index, 1, entry);
            }
        };
        run(&mut store, &mut model, then);
        let (was, saved) = (model.clone(), written(&store.freeze()));
        if is_of_another {
            (store, model) = (Store::new(), Naive::default());
        }
        run(&mut store, &mut model, since);
        store.publish();
        let mut log_index = store.freeze().log_index();
        let shared = store.shared();
        let mut restarted = installed(&checkpoint(&store.freeze())).unwrap();
        let mut waiting: Vec<Waiting> = Vec::new();
        let nothing = Command::TombstoneReap(0);
        look(&questions, &shared.view(), &shared, &model, &model, &nothing, &mut waiting)?;

        // A key without a name can't be made.
        if verify_part(&saved[..], Unknown::Skip, Some(&part)).is_err() {
            prop_assert!(part.into_prefix().is_some_and(|into| into.is_empty()));
            return Ok(());
        }
        let before = model.clone();
        let begun = log_index;
        let applied = restore_part(&mut store, &mut log_index, &saved, &part);
        let expected = model.restore_part(log_index, &was, &part);
        prop_assert_eq!(applied.index, log_index);
        prop_assert_eq!(applied.result.is_ok(), expected.is_ok(), "{:?}: {:?}", part, applied.result);
        check_rows(&model, &store)?;
        store.publish();
        let commit = Command::RestoreCommit(RestoreCommit { id: Uuid::nil(), chunks: 0, hash: [0; 32] });
        look(&questions, &shared.view(), &shared, &before, &model, &commit, &mut waiting)?;

        // A server that started from a checkpoint meanwhile comes to the same.
        let mut again = begun;
        let other = restore_part(&mut restarted, &mut again, &saved, &part);
        prop_assert_eq!(&other, &applied);
        prop_assert_eq!(checkpoint(&restarted.freeze()), checkpoint(&store.freeze()));

        // The second time there is nothing to do, and nobody is woken.
        if applied.result.is_ok() {
            let settled = written(&store.freeze());
            let applied = restore_part(&mut store, &mut log_index, &saved, &part);
            prop_assert!(applied.result.is_ok());
            model.restore_part(log_index, &was, &part).unwrap();
            check_rows(&model, &store)?;
            prop_assert_eq!(written(&store.freeze()), settled);
            store.publish();
            for old in &waiting {
                prop_assert!(!old.has_changed());
            }
        }
    }
}

/// What a snapshot holds of a section, by what tells things apart, without indexes.
type Held = BTreeMap<String, Value>;

fn held(state: &[u8], section: Section) -> Held {
    let (_, records) = decode_state(state);
    let mut held = Held::new();
    for Decoded {
        kind, mut object, ..
    } in records
    {
        let (of, name) = match kind {
            0 | 6 => (Section::Catalog, object["Node"].to_string()),
            2 => (Section::Kv, object["Key"].to_string()),
            3 => (Section::Sessions, object["ID"].to_string()),
            4 => (Section::Acl, object["ID"].to_string()),
            7 => (Section::Queries, object["ID"].to_string()),
            _ => continue,
        };
        if of != section {
            continue;
        }
        let name = format!(
            "{kind} {name} {} {}",
            object["Service"]["ID"], object["Check"]["CheckID"]
        );
        forget_indexes(&mut object);
        for inner in ["Service", "Check"] {
            if let Some(inner) = object.get_mut(inner) {
                forget_indexes(inner);
            }
        }
        held.insert(name, object);
    }
    held
}

fn forget_indexes(row: &mut Value) {
    if let Some(row) = row.as_object_mut() {
        row.remove("CreateIndex");
        row.remove("ModifyIndex");
    }
}

/// Of every real snapshot, over every other: what was asked for is there, and everything else is as it was.
#[test]
fn only_what_was_asked_for() {
    let names = [
        "empty.snap",
        "full-0.7.1.snap",
        "three-servers.snap",
        "from-1.4.0.snap",
        "large-10k.snap",
    ];
    // As our own, so that what is only said in another way is the same.
    let all = names.map(|name| written(&restored(&fixture(name))));
    let mut changed = 0;
    let [.., large] = &all;
    let full = &all[1];
    for present in &all {
        for wanted in &all {
            for section in Section::ALL {
                // Its ten thousand keys are enough to see once each way.
                let is_large = present == large || wanted == large;
                if is_large && (section != Section::Kv || (present != full && wanted != full)) {
                    continue;
                }
                for mode in [RestoreMode::Replace, RestoreMode::Merge] {
                    changed += usize::from(is_what_was_asked_for(present, wanted, section, mode));
                }
            }
        }
    }
    assert!(changed > 50, "{changed}");
}

/// Whether anything was changed.
fn is_what_was_asked_for(
    present: &[u8],
    wanted: &[u8],
    section: Section,
    mode: RestoreMode,
) -> bool {
    let mut store = Store::new();
    restore(&mut store, present, Unknown::Refuse).unwrap();
    let mut log_index = store.freeze().log_index();
    let part = RestorePart::new([section].into(), Vec::new(), None, mode).unwrap();
    let result = restore_part(&mut store, &mut log_index, wanted, &part).result;
    let after = written(&store.freeze());
    let (had, asked, has) = (
        held(present, section),
        held(wanted, section),
        held(&after, section),
    );
    if let Err(why) = result {
        assert_eq!(section, Section::Sessions, "{why}");
        assert_eq!(after, present);
        return false;
    }
    let mut expected = match mode {
        RestoreMode::Replace => Held::new(),
        RestoreMode::Merge => had.clone(),
    };
    expected.extend(asked.clone());
    if section == Section::Kv {
        for (name, row) in &mut expected {
            let before = had.get(name);
            let index = |row: &Value| row["LockIndex"].as_u64().unwrap();
            let held_by = before.map_or(json!(""), |before| before["Session"].clone());
            let lock_index = index(row).max(before.map_or(0, index));
            row["Session"] = held_by;
            row["LockIndex"] = json!(lock_index);
        }
    }
    if section == Section::Acl {
        let is_anonymous = |row: &Value| row["ID"] == "anonymous";
        let anonymous = had.iter().find(|(_, row)| is_anonymous(row));
        if let Some((name, row)) = anonymous
            && !asked.contains_key(name)
        {
            expected.insert(name.clone(), row.clone());
        }
    }
    if section == Section::Queries {
        let sessions = held(present, Section::Sessions);
        let ids: Vec<Value> = sessions.values().map(|row| row["ID"].clone()).collect();
        expected.retain(|_, row| row["Session"] == "" || ids.contains(&row["Session"]));
    }
    assert_eq!(has, expected, "{section} {mode:?}");
    // The catalog takes sessions along, and they their keys and queries.
    if section != Section::Catalog && section != Section::Sessions {
        for other in Section::ALL {
            if other != section {
                assert_eq!(held(&after, other), held(present, other), "{section}");
            }
        }
    }
    has != had
}
