//! Tokens.

use std::sync::Arc;

use imbl::OrdMap;
use model::{
    ANONYMOUS, AclToken, ApplyResult, CLIENT, Error, MANAGEMENT, Reply, RestoreMode, Text,
};
use sha2::{Digest as _, Sha256};

use crate::apply::Change;
use crate::changes::Kind;
use crate::restore::replaces;
use crate::tables::Table;

/// Tokens, by id.
#[derive(Debug, Clone, Default)]
pub(crate) struct Acls {
    rows: OrdMap<Text, Arc<AclToken>>,
    /// The same by the digest of the id. What somebody brings is only ever looked for here: a search among the ids
    /// themselves takes longer the more of a secret was guessed, and one among digests tells nothing.
    by_digest: OrdMap<Digest, Arc<AclToken>>,
}

/// SHA-256 of a token's id.
type Digest = [u8; 32];

fn digest(id: &[u8]) -> Digest {
    Sha256::digest(id).into()
}

impl Acls {
    /// Puts a token in its place.
    pub(crate) fn insert(&mut self, token: AclToken) {
        let token = Arc::new(token);
        self.by_digest.insert(digest(&token.id), Arc::clone(&token));
        self.rows.insert(token.id.clone(), token);
    }

    /// Takes a token away.
    pub(crate) fn remove(&mut self, id: &[u8]) -> Option<Arc<AclToken>> {
        self.by_digest.remove(&digest(id))?;
        self.rows.remove(id)
    }

    /// The token of this id.
    pub(crate) fn get(&self, id: &[u8]) -> Option<&Arc<AclToken>> {
        self.by_digest.get(&digest(id))
    }

    /// All of them, by id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<AclToken>> {
        self.rows.values()
    }
}

/// Ids that mean a policy rather than a token.
const ROOTS: [&str; 3] = ["allow", "deny", "manage"];

impl Change<'_> {
    /// Writes a token.
    pub(crate) fn set_token(&mut self, mut token: AclToken) -> ApplyResult {
        if token.id.is_empty() {
            return Err(Error::invalid("ACL ID must be set"));
        }
        if token.kind != CLIENT && token.kind != MANAGEMENT {
            return Err(Error::invalid("Invalid ACL Type"));
        }
        if ROOTS.iter().any(|root| token.id == *root) {
            return Err(Error::PermissionDeniedBecause(
                "Cannot modify root ACL".to_owned(),
            ));
        }
        let before = self.state.acls.get(&token.id);
        token.create_index = before.map_or(self.index, |token| token.create_index);
        let id = token.id.clone();
        self.put_token(token);
        Ok(Reply::Id(id))
    }

    /// Writes the tokens that a snapshot has and removes those it lacks, if it replaces.
    ///
    /// The anonymous one is always there, and goes no more than when somebody wants to delete it.
    pub(crate) fn restore_tokens(&mut self, loaded: &Acls, mode: RestoreMode) {
        if replaces(mode) {
            let rows = self.state.acls.iter().map(|token| token.id.clone());
            let doomed: Vec<Text> = rows
                .filter(|id| *id != ANONYMOUS && loaded.get(id).is_none())
                .collect();
            for id in doomed {
                self.remove_token(&id);
            }
        }
        for token in loaded.iter() {
            let before = self.state.acls.get(&token.id);
            let wanted = AclToken {
                create_index: before.map_or(self.index, |before| before.create_index),
                modify_index: before.map_or(self.index, |before| before.modify_index),
                ..(**token).clone()
            };
            if before.is_none_or(|before| **before != wanted) {
                self.put_token(wanted);
            }
        }
    }

    fn put_token(&mut self, mut token: AclToken) {
        token.modify_index = self.index;
        let id = token.id.clone();
        self.state.acls.insert(token);
        self.wrote(Table::Acls);
        self.wake(Kind::Acl, &id);
    }

    /// Removes a token, if it is there.
    pub(crate) fn delete_token(&mut self, id: &Text) -> ApplyResult {
        if *id == ANONYMOUS {
            return Err(Error::PermissionDeniedBecause(
                "Cannot delete anonymous token".to_owned(),
            ));
        }
        self.remove_token(id);
        Ok(Reply::Nothing)
    }

    fn remove_token(&mut self, id: &Text) {
        if self.state.acls.remove(id).is_some() {
            self.wrote(Table::Acls);
            self.note(Kind::Acl, id);
            self.deleted();
        }
    }
}
