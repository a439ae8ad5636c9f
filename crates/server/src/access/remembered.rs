//! What another datacenter said about tokens.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use model::{Authority, Text};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

/// How many tokens are remembered, as many as the original does; with more, all are asked for anew.
const TOKENS_MAX: usize = 256;

/// What the deciding datacenter said, by the digest of the token: how long a search takes must not tell of others' tokens.
#[derive(Default)]
pub(crate) struct Remembered(Mutex<BTreeMap<Digest, Standing>>);

type Digest = [u8; 32];

struct Standing {
    authority: Authority,
    /// Until when it is believed without asking.
    until: Instant,
}

impl Remembered {
    /// What was said not long ago.
    pub(crate) fn believed(&self, token: &Text, now: Instant) -> Option<Authority> {
        let standings = self.standings();
        let standing = standings.get(&digest(token))?;
        (now < standing.until).then(|| standing.authority.clone())
    }

    /// What was said last, however long ago.
    pub(crate) fn last_known(&self, token: &Text) -> Option<Authority> {
        Some(self.standings().get(&digest(token))?.authority.clone())
    }

    /// Notes what was said.
    pub(crate) fn keep(&self, token: &Text, authority: Authority, until: Instant) {
        let token = digest(token);
        let mut standings = self.standings();
        if standings.len() >= TOKENS_MAX && !standings.contains_key(&token) {
            standings.clear();
        }
        standings.insert(token, Standing { authority, until });
    }

    /// It was said that there is no such token, which is final.
    pub(crate) fn forget(&self, token: &Text) {
        self.standings().remove(&digest(token));
    }

    fn standings(&self) -> MutexGuard<'_, BTreeMap<Digest, Standing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn digest(token: &[u8]) -> Digest {
    Sha256::digest(token).into()
}

#[cfg(test)]
mod tests {
    use tokio::time::Duration;

    use super::*;

    #[test]
    fn what_was_said_is_believed_for_a_while_and_known_for_longer() {
        let remembered = Remembered::default();
        let (token, now) = (Text::from("t"), Instant::now());
        assert!(remembered.last_known(&token).is_none());
        remembered.keep(
            &token,
            Authority::unlimited(),
            now + Duration::from_secs(30),
        );
        assert!(remembered.believed(&token, now).is_some());
        let later = now + Duration::from_secs(30);
        assert!(remembered.believed(&token, later).is_none());
        assert!(remembered.last_known(&token).is_some());
        remembered.forget(&token);
        assert!(remembered.last_known(&token).is_none());
    }

    #[test]
    fn there_are_only_so_many() {
        let remembered = Remembered::default();
        for number in 0..TOKENS_MAX * 3 {
            let token = Text::from(number.to_string());
            remembered.keep(&token, Authority::unlimited(), Instant::now());
        }
        assert_eq!(remembered.standings().len(), TOKENS_MAX);
    }
}
