//! The proof of a snapshot where it lies: it is downloaded, opened, loaded, and compared with what was received.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use tokio::time::timeout;

use super::checker::Checker;
use super::take::{STORE_SILENCE, in_time};
use super::{Checking, Outcome};
use crate::seal::{Identities, Opened};
use crate::stores::Store;
use crate::{Name, Proof, Unreadable, prove};

/// What a snapshot should turn out to be.
#[derive(Debug)]
pub(super) struct Expected<'a> {
    pub(super) name: Name,
    /// How long it is where it lies.
    pub(super) size: u64,
    /// What was received.
    pub(super) received: &'a Proof,
    /// What opens it, if it is encrypted.
    pub(super) identities: Option<&'a Identities>,
}

/// Why a snapshot can't be said to be what was sent.
enum Doubt {
    /// It could not be read.
    Unread(String),
    /// It was, and isn't.
    Wrong(String),
}

/// Looks at a snapshot where it lies.
pub(super) async fn verify(
    store: &Arc<dyn Store>,
    expected: &Expected<'_>,
    checking: Checking,
) -> Outcome {
    match look(store, expected, checking).await {
        Ok(()) => Outcome::Verified,
        Err(Doubt::Unread(why)) => Outcome::Unverified(why),
        Err(Doubt::Wrong(why)) => {
            let place = store.describe();
            Outcome::Wrong(format!("{place}: {} {why}", expected.name))
        }
    }
}

async fn look(
    store: &Arc<dyn Store>,
    expected: &Expected<'_>,
    checking: Checking,
) -> Result<(), Doubt> {
    let stored = in_time(STORE_SILENCE, store, store.get(expected.name));
    let stored = stored.await.map_err(Doubt::Unread)?;
    let identities = expected.identities.cloned();
    let work = move |read: Box<dyn Read + Send>| load(read, identities.as_ref());
    let (checker, mut content) = Checker::watch(checking, work, stored);
    let arrived = pass(store, &mut content).await;
    drop(content);
    let judgement = checker.finish().await;
    // An archive that broke off on its way is no news about what lies there.
    let size = arrived.map_err(Doubt::Unread)?;
    let loaded = judgement.map_err(|why| Doubt::Wrong(format!("can't be restored: {why}")))?;
    if let Some(text) = difference(expected.received, &loaded) {
        return Err(Doubt::Wrong(text));
    }
    if size != expected.size {
        let sent = expected.size;
        let text = format!("has {size} bytes there, and {sent} were sent");
        return Err(Doubt::Wrong(text));
    }
    Ok(())
}

/// Takes all of it, and says how long it was.
async fn pass(store: &Arc<dyn Store>, content: &mut crate::stores::Content) -> Result<u64, String> {
    let mut size = 0;
    loop {
        let broken = |why: io::Error| format!("{}: {why}", store.describe());
        let piece: Option<io::Result<Bytes>> = (timeout(STORE_SILENCE, content.next()).await)
            .map_err(|_| broken(io::Error::other("it stopped in the middle of the snapshot")))?;
        match piece.transpose().map_err(broken)? {
            Some(piece) => size += piece.len() as u64,
            None => return Ok(size),
        }
    }
}

fn load(input: impl Read, identities: Option<&Identities>) -> Result<Proof, Unreadable> {
    match identities {
        None => prove(input),
        Some(_) => {
            let opened = Opened::new(input, identities);
            prove(opened.map_err(|why| Unreadable::State(why.to_string()))?)
        }
    }
}

/// In which way what was loaded isn't what was received.
fn difference(received: &Proof, loaded: &Proof) -> Option<String> {
    if received.meta != loaded.meta || received.state_size != loaded.state_size {
        let (index, found) = (received.meta.index, loaded.meta.index);
        let text = format!("is another snapshot there: of index {found}, and {index} was sent");
        return Some(text);
    }
    if received.digest == loaded.digest {
        return None;
    }
    let kinds: BTreeSet<&str> = (received.digest.counts.keys())
        .chain(loaded.digest.counts.keys())
        .copied()
        .collect();
    let count = |proof: &Proof, kind: &str| {
        let count = proof.digest.counts.get(kind);
        count.copied().unwrap_or_default()
    };
    let differing: Vec<String> = (kinds.into_iter())
        .filter(|kind| count(received, kind) != count(loaded, kind))
        .map(|kind| {
            format!(
                "{} {kind} of {}",
                count(loaded, kind),
                count(received, kind)
            )
        })
        .collect();
    Some(if differing.is_empty() {
        "loads as another state than was received".to_owned()
    } else {
        format!("loads as another state: {}", differing.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest;
    use crate::fixtures::sound;

    #[test]
    fn in_which_way_they_differ() {
        let mut proofs = sound();
        let one = digest(&proofs.remove(0).1[..]).unwrap();
        assert_eq!(difference(&one, &one), None);
        let mut other = one.clone();
        other.digest.sum[0] ^= 1;
        let text = "loads as another state than was received";
        assert_eq!(difference(&one, &other).as_deref(), Some(text));
        let (&kind, &count) = one.digest.counts.iter().next().unwrap();
        other.digest.counts.insert(kind, count + 1);
        other.digest.counts.insert("zebras", 1);
        let text = format!(
            "loads as another state: {} {kind} of {count}, 1 zebras of 0",
            count + 1
        );
        assert_eq!(difference(&one, &other), Some(text));
        other.meta.index += 1;
        assert!(
            difference(&one, &other)
                .unwrap()
                .contains("another snapshot")
        );
    }
}
