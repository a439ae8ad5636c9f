//! Old snapshots go when a new one has come.

use super::Place;
use super::mandate::Mandate;
use super::take::{STORE_SILENCE, in_time};
use crate::Name;

/// Takes away what a place doesn't keep, while it is ours to do so, and says what couldn't be done.
///
/// `saved` stays whatever the rule says, and so does everything that is later.
pub(super) async fn rotate(
    place: &Place,
    saved: Name,
    mandate: &Mandate<'_>,
    newest: &mut Option<u64>,
) -> Result<(), String> {
    if place.retention.keeps_all() {
        return Ok(());
    }
    let store = &place.store;
    let stored = in_time(STORE_SILENCE, store, store.list()).await?;
    let names: Vec<Name> = stored.iter().map(|stored| stored.name).collect();
    // It may not have been known: the next number comes after it, or what is new would soon be taken for old.
    *newest = (*newest).max(names.iter().map(|name| name.id).max());
    for name in place.retention.expired(&names) {
        if name >= saved {
            continue;
        }
        // Another one may know better by now what is old.
        if !mandate.holds() {
            return Ok(());
        }
        in_time(STORE_SILENCE, store, store.remove(name)).await?;
        tracing::debug!("Removed snapshot {}", name.id);
    }
    Ok(())
}
