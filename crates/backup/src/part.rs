//! What would change if a part of a snapshot were restored.

use std::io::Read;

use model::RestorePart;
use store::archive::{Loader, Unknown, load};

use crate::diff::{Difference, diff_views};
use crate::items::Unreadable;
use crate::pipe::unpack;

/// Tells what restoring a part of `wanted` would change in `present`, which is a snapshot of what there is now.
///
/// It is the restore itself that is carried out, on a state in memory: locks, sessions that end with what they were bound
/// to, and what would be refused are in it. So it holds as much as `present` and the part do.
/// Of what is there now a snapshot doesn't tell which keys must not be locked yet.
///
/// # Errors
/// If one of them can't be read to its end, and [`Unreadable::Refused`] if the restore would be refused.
pub fn diff_part(
    present: impl Read,
    wanted: impl Read,
    part: &RestorePart,
) -> Result<Difference, Unreadable> {
    let before = loaded(present, None)?.into_view();
    let after = loaded(wanted, Some(part))?.onto(&before, part);
    let after = after.map_err(|why| Unreadable::Refused(why.to_string()))?;
    Ok(diff_views(&before, &after))
}

fn loaded(input: impl Read, part: Option<&RestorePart>) -> Result<Loader, Unreadable> {
    let (contents, loaded) = unpack(input, |state| load(state, Unknown::Skip, part));
    contents?;
    loaded.map_err(|why| Unreadable::State(why.to_string()))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use model::{KvParts, RestoreMode, Section, Session, Text, Uuid};
    use store::archive::{Record, Subject};

    use super::*;
    use crate::diff::Change;
    use crate::fixtures::{archive_of, sound};

    fn part(sections: &[Section], mode: RestoreMode) -> RestorePart {
        let sections: BTreeSet<_> = sections.iter().copied().collect();
        RestorePart::new(sections, Vec::new(), None, mode).unwrap()
    }

    fn of_keys(prefix: &str, into: Option<&str>, mode: RestoreMode) -> RestorePart {
        let prefixes = vec![Text::from(prefix)];
        RestorePart::new(
            BTreeSet::from([Section::Kv]),
            prefixes,
            into.map(Text::from),
            mode,
        )
        .unwrap()
    }

    /// What a restore of everything changes, it changes part by part, and no part changes what belongs to another but
    /// what depends on it.
    #[test]
    fn parts_add_up_to_the_whole() {
        let all = sound();
        // Every one of them is restored, over some.
        for (name, present) in all.iter().step_by(7) {
            for (other, wanted) in &all {
                let whole = crate::diff(|| Ok(&present[..]), || Ok(&wanted[..])).unwrap();
                for section in Section::ALL {
                    let only = part(&[section], RestoreMode::Replace);
                    let subjects: &[Subject] = match section {
                        Section::Catalog => &[Subject::Node, Subject::Service, Subject::Check],
                        Section::Sessions => &[Subject::Session],
                        Section::Acl => &[Subject::Token],
                        Section::Kv => &[Subject::Key],
                        Section::Queries => &[Subject::Query],
                    };
                    let found = match diff_part(&present[..], &wanted[..], &only) {
                        Ok(found) => found,
                        Err(Unreadable::Refused(why)) => {
                            assert_eq!(section, Section::Sessions, "{name} {other}: {why}");
                            continue;
                        }
                        Err(why) => panic!("{name} {other} {section}: {why}"),
                    };
                    for subject in subjects {
                        let (ours, theirs) =
                            (found.changes.get(subject), whole.changes.get(subject));
                        if *subject == Subject::Query || *subject == Subject::Token {
                            // Queries end with sessions that don't come along; the anonymous token stays.
                            continue;
                        }
                        let names = |changes: Option<&BTreeMap<String, Change>>, change| {
                            let all = changes.into_iter().flatten();
                            let some = all.filter(|(_, it)| **it == change);
                            some.map(|(name, _)| name.clone()).collect::<BTreeSet<_>>()
                        };
                        for change in [Change::Added, Change::Removed] {
                            assert_eq!(
                                names(ours, change),
                                names(theirs, change),
                                "{name} {other} {section} {change:?}"
                            );
                        }
                        if *subject != Subject::Key {
                            assert_eq!(ours, theirs, "{name} {other} {section}");
                        }
                    }
                    if section == Section::Kv || section == Section::Acl {
                        assert!(found.changes.keys().all(|it| subjects.contains(it)));
                    }
                    let merged = diff_part(
                        &present[..],
                        &wanted[..],
                        &part(&[section], RestoreMode::Merge),
                    );
                    if let Ok(merged) = merged
                        && section != Section::Catalog
                    {
                        let removed = Subject::ALL.map(|it| merged.count(it, Change::Removed));
                        assert_eq!(removed, [0; 8], "{name} {other} {section}");
                    }
                }
            }
        }
    }

    fn key(name: &'static str, value: &'static str) -> Record<'static> {
        Record::Kv(KvParts {
            key: name.as_bytes(),
            value: value.as_bytes(),
            ..KvParts::default()
        })
    }

    fn keys(found: &Difference) -> Vec<(&str, Change)> {
        let changes = found.changes.get(&Subject::Key).into_iter().flatten();
        changes.map(|(name, it)| (name.as_str(), *it)).collect()
    }

    #[test]
    fn keys_by_prefix_and_to_another_one() {
        let present = archive_of(&[
            key("a/1", "x"),
            key("a/2", "x"),
            key("b/1", "x"),
            key("c", "x"),
        ]);
        let wanted = archive_of(&[key("a/1", "y"), key("a/3", "y"), key("c", "y")]);
        let told = |part: RestorePart| {
            let found = diff_part(&present[..], &wanted[..], &part).unwrap();
            keys(&found)
                .into_iter()
                .map(|(name, change)| format!("{name} {change:?}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            told(of_keys("a/", None, RestoreMode::Replace)),
            ["a/1 Changed", "a/2 Removed", "a/3 Added"]
        );
        assert_eq!(
            told(of_keys("a/", None, RestoreMode::Merge)),
            ["a/1 Changed", "a/3 Added"]
        );
        assert_eq!(
            told(of_keys("a/", Some("b/"), RestoreMode::Replace)),
            ["b/1 Changed", "b/3 Added"]
        );
        assert_eq!(
            told(of_keys("a/", Some(""), RestoreMode::Merge)),
            ["1 Added", "3 Added"]
        );
        assert_eq!(told(of_keys("none", None, RestoreMode::Replace)), [""; 0]);
        let broken = &wanted[..wanted.len() - 1];
        diff_part(
            &present[..],
            broken,
            &of_keys("a/", None, RestoreMode::Merge),
        )
        .unwrap_err();
    }

    #[test]
    fn what_would_be_refused_is_told() {
        let session = Record::Session(Session {
            id: Uuid::from_u128(1),
            node: Text::from("nowhere"),
            ..Session::default()
        });
        let (present, wanted) = (archive_of(&[]), archive_of(&[session]));
        let only = part(&[Section::Sessions], RestoreMode::Merge);
        let why = diff_part(&present[..], &wanted[..], &only).unwrap_err();
        assert_eq!(
            why.to_string(),
            "a restore would be refused: session 00000000-0000-0000-0000-000000000001 on node \"nowhere\" can't be \
             restored: Missing node registration; nothing was changed"
        );
    }
}
