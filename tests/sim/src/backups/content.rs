//! What is in a snapshot, for those who check it.

use backup::{KeyDetails, Name, Options};

use super::WRITTEN;
use crate::history::backups::{Held, Store};

/// Loads a snapshot as a restore would, and tells which keys of ours it holds.
pub(super) fn look_into(store: Store, name: Name, content: &[u8]) -> Held {
    let proved = backup::prove(content);
    let keys = KeyDetails {
        depth: 2,
        filter: WRITTEN.as_bytes().to_vec(),
    };
    let options = Options { keys: Some(keys) };
    let report = backup::inspect(content, &options);
    let fault = match (&proved, &report) {
        (Err(why), _) => Some(why.to_string()),
        (_, Err(why)) => Some(why.to_string()),
        (Ok(_), Ok(_)) => None,
    };
    let keys = report.map(|report| report.keys).unwrap_or_default();
    let keys = keys
        .iter()
        .filter_map(|key| key.name.strip_prefix(WRITTEN)?.parse().ok());
    Held {
        store,
        name,
        fault,
        keys: keys.collect(),
    }
}
