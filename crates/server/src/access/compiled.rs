//! What tokens' rules have been compiled to, so that a request pays for a search and not for a reading.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use model::{AclToken, Authority, Error};

use super::rules;
use crate::config::Acl;

/// How many bytes of rules one generation may hold the policies of; a policy takes a few times as much as its rules.
const GENERATION_MAX: usize = 16 * 1024 * 1024;

/// What a policy costs besides its rules.
const EACH: usize = 256;

/// Policies that were asked for not long ago.
///
/// When the younger generation is full, it becomes the older one, and what is asked for there comes back: so what is in
/// use stays, what isn't goes, and nothing has to be put in order at each request.
#[derive(Default)]
pub(crate) struct Compiled(Mutex<Generations>);

#[derive(Default)]
struct Generations {
    young: BTreeMap<Place, Kept>,
    old: BTreeMap<Place, Kept>,
    /// How large the younger one is.
    size: usize,
}

/// Where the row of a token lies. A row never changes, and the one that is kept beside its policy can't be mistaken for
/// another: neither a token that was written anew nor one that a restore brought has the same place.
type Place = usize;

#[derive(Clone)]
struct Kept {
    row: Arc<AclToken>,
    authority: Result<Authority, Error>,
}

impl Compiled {
    /// What the bearer of a client token may.
    pub(crate) fn get(&self, row: &Arc<AclToken>, config: &Acl) -> Result<Authority, Error> {
        if let Some(kept) = self.generations().find(row) {
            return kept;
        }
        // Not under the lock: others wait for it who need nothing new.
        let authority = compile(row, config);
        self.generations().keep(Kept {
            row: Arc::clone(row),
            authority: authority.clone(),
        });
        authority
    }

    fn generations(&self) -> std::sync::MutexGuard<'_, Generations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn find(&mut self, row: &Arc<AclToken>) -> Option<Result<Authority, Error>> {
        let place = place(row);
        if let Some(kept) = self.young.get(&place) {
            return Some(kept.authority.clone());
        }
        let kept = self.old.remove(&place)?;
        let authority = kept.authority.clone();
        self.keep(kept);
        Some(authority)
    }

    fn keep(&mut self, kept: Kept) {
        let size = kept.row.rules.len() + EACH;
        if self.size + size > GENERATION_MAX {
            self.old = std::mem::take(&mut self.young);
            self.size = 0;
        }
        self.size += size;
        self.young.insert(place(&kept.row), kept);
    }
}

fn place(row: &Arc<AclToken>) -> Place {
    Arc::as_ptr(row).addr()
}

fn compile(row: &AclToken, config: &Acl) -> Result<Authority, Error> {
    match rules::compile(&row.rules, config.default_policy) {
        Ok(policy) => Ok(Authority::limited(policy, config.enforce_version_8)),
        Err(error) => {
            tracing::error!(
                "the rules of the token named {:?} can't be compiled, and whoever brings it is refused: {error}",
                row.name
            );
            // The original fails each request with such a token as well. It can't be written, but a snapshot may bring it.
            Err(Error::Internal(error.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use model::{Access, CLIENT, DefaultPolicy, Resource, Text};

    use super::*;

    fn token(rules: &str) -> Arc<AclToken> {
        Arc::new(AclToken {
            id: Text::from("secret"),
            kind: Text::from(CLIENT),
            rules: Text::from(rules),
            ..AclToken::default()
        })
    }

    fn deny() -> Acl {
        Acl {
            datacenter: "dc1".to_owned(),
            default_policy: DefaultPolicy::Deny,
            ..Acl::default()
        }
    }

    #[test]
    fn each_row_has_its_own() {
        let compiled = Compiled::default();
        let reader = token(r#"key "a" { policy = "read" }"#);
        let writer = token(r#"key "a" { policy = "write" }"#);
        for _ in 0..3 {
            let may = |row, access| {
                let authority = compiled.get(row, &deny()).unwrap();
                authority.allows(Resource::Key, b"a/b", access)
            };
            assert!(may(&reader, Access::Read));
            assert!(!may(&reader, Access::Write));
            assert!(may(&writer, Access::Write));
        }
    }

    #[test]
    fn what_cannot_be_compiled_is_refused() {
        let compiled = Compiled::default();
        let broken = token(r#"key "a" { policy = "nope" }"#);
        for _ in 0..2 {
            let error = compiled.get(&broken, &Acl::default()).unwrap_err();
            assert_eq!(
                error.to_string(),
                r#"Invalid key policy: acl.KeyPolicy{Prefix:"a", Policy:"nope"}"#
            );
        }
    }

    #[test]
    fn it_is_bounded_and_keeps_what_is_in_use() {
        let compiled = Compiled::default();
        let long = "#".repeat(1024 * 1024);
        let used = token(r#"key "a" { policy = "read" }"#);
        for _ in 0..100 {
            compiled.get(&token(&long), &deny()).unwrap();
            compiled.get(&used, &deny()).unwrap();
            let generations = compiled.generations();
            assert!(generations.size <= GENERATION_MAX);
            assert!(generations.young.len() + generations.old.len() <= 40);
            assert!(generations.young.contains_key(&place(&used)));
        }
    }
}
