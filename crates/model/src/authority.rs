//! What the bearer of a token may: rules by kind of thing and by how its name begins.
//!
//! Only the two pipelines of `server`, and an agent for what it answers itself, make an [`Authority`] and ask it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Error, Text};

/// A kind of thing that rules speak of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Resource {
    /// Keys, by key.
    Key,
    /// Services, by name.
    Service,
    /// User events, by name.
    Event,
    /// Prepared queries, by name.
    Query,
    /// Nodes, by name (version 8).
    Node,
    /// Sessions, by the name of their node (version 8).
    Session,
    /// Agents, by the name of their node (version 8).
    Agent,
    /// The keys of gossip; the one of them has no name.
    Keyring,
    /// Consensus and its members; no name.
    Operator,
}

impl Resource {
    /// As rules spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Service => "service",
            Self::Event => "event",
            Self::Query => "query",
            Self::Node => "node",
            Self::Session => "session",
            Self::Agent => "agent",
            Self::Keyring => "keyring",
            Self::Operator => "operator",
        }
    }

    /// Whether rules about it are only enforced from version 8 of access control on (`acl_enforce_version_8`).
    pub fn is_of_version_8(self) -> bool {
        matches!(self, Self::Node | Self::Session | Self::Agent)
    }

    /// Whether it has names; rules about others have none.
    pub fn is_named(self) -> bool {
        !matches!(self, Self::Keyring | Self::Operator)
    }
}

/// How far a rule goes; each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Access {
    /// Nothing.
    Deny,
    /// Looking.
    Read,
    /// Changing.
    Write,
}

impl Access {
    /// As rules spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Read => "read",
            Self::Write => "write",
        }
    }

    /// From what rules spell.
    pub fn parse(text: &[u8]) -> Option<Self> {
        match text {
            b"deny" => Some(Self::Deny),
            b"read" => Some(Self::Read),
            b"write" => Some(Self::Write),
            _ => None,
        }
    }
}

/// The rules about one kind of thing: for each beginning of a name how far its bearer may go.
///
/// The longest beginning that fits decides. They lie in order, and each knows the longest other one that it begins with,
/// so a name costs one search and then a step for each rule that encloses the one found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Prefixes(Vec<Prefix>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Prefix {
    begins: Text,
    access: Access,
    /// The place of the rule that decides for what doesn't go on as `begins` does.
    enclosing: Option<usize>,
}

impl Prefixes {
    fn new(rules: BTreeMap<Text, Access>) -> Self {
        let mut sorted: Vec<Prefix> = Vec::with_capacity(rules.len());
        for (begins, access) in rules {
            let mut enclosing = sorted.len().checked_sub(1);
            while let Some(at) = enclosing
                && !begins.starts_with(&sorted[at].begins)
            {
                enclosing = sorted[at].enclosing;
            }
            sorted.push(Prefix {
                begins,
                access,
                enclosing,
            });
        }
        Self(sorted)
    }

    fn longest(&self, name: &[u8]) -> Option<Access> {
        self.longest_before(self.behind(name), name)
    }

    /// The place of the first rule that lies behind this name.
    fn behind(&self, name: &[u8]) -> usize {
        self.0.partition_point(|rule| *rule.begins <= *name)
    }

    /// Whether that place is this one.
    fn is_behind(&self, place: usize, name: &[u8]) -> bool {
        let before = place.checked_sub(1).and_then(|at| self.0.get(at));
        before.is_none_or(|rule| *rule.begins <= *name)
            && (self.0.get(place)).is_none_or(|rule| *rule.begins > *name)
    }

    fn longest_before(&self, behind: usize, name: &[u8]) -> Option<Access> {
        let mut at = behind.checked_sub(1)?;
        loop {
            let rule = &self.0[at];
            if name.starts_with(&rule.begins) {
                return Some(rule.access);
            }
            at = rule.enclosing?;
        }
    }

    /// The rules about names that begin so.
    fn under(&self, prefix: &[u8]) -> impl Iterator<Item = &Prefix> {
        let from = self.0.partition_point(|rule| *rule.begins < *prefix);
        self.0[from..]
            .iter()
            .take_while(move |rule| rule.begins.starts_with(prefix))
    }
}

/// What one token's rules say, and what holds where they say nothing.
///
/// It travels as the plain list of its rules: what is found in it by place is worked out anew wherever it arrives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Plain", into = "Plain")]
pub struct Policy {
    rules: BTreeMap<Resource, Prefixes>,
    otherwise: Access,
}

/// A [`Policy`] as it travels.
#[derive(Serialize, Deserialize)]
struct Plain {
    rules: Vec<(Resource, Text, Access)>,
    otherwise: Access,
}

impl From<Plain> for Policy {
    fn from(plain: Plain) -> Self {
        Self::new(plain.rules, plain.otherwise)
    }
}

impl From<Policy> for Plain {
    fn from(policy: Policy) -> Self {
        let rules = policy.rules.into_iter().flat_map(|(resource, rules)| {
            let rules = rules.0.into_iter();
            rules.map(move |rule| (resource, rule.begins, rule.access))
        });
        Self {
            rules: rules.collect(),
            otherwise: policy.otherwise,
        }
    }
}

impl Policy {
    /// Rules by kind and by beginning of the name (empty for kinds without names), over what holds otherwise.
    pub fn new(
        rules: impl IntoIterator<Item = (Resource, Text, Access)>,
        otherwise: Access,
    ) -> Self {
        let mut sorted: BTreeMap<Resource, BTreeMap<Text, Access>> = BTreeMap::new();
        for (resource, begins, access) in rules {
            // Of two rules about the same the last counts, as in the original.
            sorted.entry(resource).or_default().insert(begins, access);
        }
        Self {
            rules: sorted
                .into_iter()
                .map(|(resource, rules)| (resource, Prefixes::new(rules)))
                .collect(),
            otherwise,
        }
    }

    /// How far it goes for this name.
    pub fn access(&self, resource: Resource, name: &[u8]) -> Access {
        let rules = self.rules.get(&resource);
        rules
            .and_then(|rules| rules.longest(name))
            .unwrap_or(self.otherwise)
    }

    /// Whether it goes so far for every name that begins so.
    pub fn covers(&self, resource: Resource, prefix: &[u8], access: Access) -> bool {
        let mut under = (self.rules.get(&resource).into_iter()).flat_map(|all| all.under(prefix));
        self.access(resource, prefix) >= access && under.all(|rule| rule.access >= access)
    }
}

/// What the bearer of a token may. Asked for every operation, so it costs a pointer to hold.
#[derive(Clone)]
pub struct Authority(Option<Arc<Limits>>);

struct Limits {
    policy: Policy,
    version_8: bool,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_none() {
            "Unlimited"
        } else {
            "Limited"
        })
    }
}

impl Authority {
    /// May everything: tokens are not in use, or it is a management token.
    pub fn unlimited() -> Self {
        Self(None)
    }

    /// May what a policy says; with `version_8` also where nodes, sessions and agents are concerned.
    pub fn limited(policy: Policy, version_8: bool) -> Self {
        Self(Some(Arc::new(Limits { policy, version_8 })))
    }

    /// What limits it; nothing does where everything is allowed.
    pub fn policy(&self) -> Option<&Policy> {
        self.0.as_ref().map(|limits| &limits.policy)
    }

    /// Whether everything is allowed.
    pub fn is_unlimited(&self) -> bool {
        self.0.is_none()
    }

    /// Whether rules about nodes, sessions and agents limit it.
    pub fn is_of_version_8(&self) -> bool {
        self.0.as_ref().is_some_and(|limits| limits.version_8)
    }

    /// Whether nothing is allowed of which no rule speaks.
    pub fn denies_by_default(&self) -> bool {
        let limits = self.0.as_ref();
        limits.is_some_and(|limits| limits.policy.otherwise == Access::Deny)
    }

    /// Whether its bearer may go so far with what has this name.
    pub fn allows(&self, resource: Resource, name: &[u8], access: Access) -> bool {
        match &self.0 {
            None => true,
            Some(limits) if resource.is_of_version_8() && !limits.version_8 => true,
            Some(limits) => limits.policy.access(resource, name) >= access,
        }
    }

    /// The same for many names in their order: most lie between the same two rules as the one before, and need no search.
    pub fn allows_in_order(&self, resource: Resource, access: Access) -> impl FnMut(&[u8]) -> bool {
        let limits = self.0.as_deref();
        let limits = limits.filter(|limits| limits.version_8 || !resource.is_of_version_8());
        let rules = limits.and_then(|limits| limits.policy.rules.get(&resource));
        let otherwise = limits.map_or(Access::Write, |limits| limits.policy.otherwise);
        let mut place = 0;
        move |name| {
            let found = rules.and_then(|rules| {
                if !rules.is_behind(place, name) {
                    place = rules.behind(name);
                }
                rules.longest_before(place, name)
            });
            found.unwrap_or(otherwise) >= access
        }
    }

    /// Whether its bearer may go so far with everything whose name begins so.
    pub fn covers(&self, resource: Resource, prefix: &[u8], access: Access) -> bool {
        match &self.0 {
            None => true,
            Some(limits) if resource.is_of_version_8() && !limits.version_8 => true,
            Some(limits) => limits.policy.covers(resource, prefix, access),
        }
    }

    /// The same as [`allows`](Self::allows), as an error that says which rule was missing.
    ///
    /// # Errors
    /// [`Error::PermissionDeniedBecause`].
    pub fn demand(&self, resource: Resource, name: &[u8], access: Access) -> Result<(), Error> {
        if self.allows(resource, name, access) {
            return Ok(());
        }
        Err(denied(resource, name, access))
    }

    /// The same as [`covers`](Self::covers), as an error that says which rule was missing.
    ///
    /// # Errors
    /// [`Error::PermissionDeniedBecause`].
    pub fn demand_all(
        &self,
        resource: Resource,
        prefix: &[u8],
        access: Access,
    ) -> Result<(), Error> {
        if self.covers(resource, prefix, access) {
            return Ok(());
        }
        Err(denied(resource, prefix, access))
    }

    /// Refuses whoever brings no management token.
    ///
    /// # Errors
    /// [`Error::PermissionDeniedBecause`].
    pub fn demand_management(&self) -> Result<(), Error> {
        if self.is_unlimited() {
            return Ok(());
        }
        Err(Error::PermissionDeniedBecause(
            "this needs a management token".to_owned(),
        ))
    }
}

fn denied(resource: Resource, name: &[u8], access: Access) -> Error {
    let (kind, access) = (resource.as_str(), access.as_str());
    Error::PermissionDeniedBecause(if resource.is_named() {
        let name = String::from_utf8_lossy(name);
        format!("this needs {access} on {kind} {name:?}")
    } else {
        format!("this needs {access} on the {kind}")
    })
}

/// Takes out of an answer what its reader may not see.
///
/// The read pipeline calls it on every answer; a question whose answer lacks it does not compile.
pub trait Filter {
    /// Removes or hides in place.
    fn filter(&mut self, authority: &Authority);
}

/// One of many in an answer, shown or left out as a whole.
pub trait Row {
    /// Whether the bearer of this authority may know of it.
    fn is_visible(&self, authority: &Authority) -> bool;

    /// Hides what of it not everybody may see who may know of it.
    fn redact(&mut self, _: &Authority) {}

    /// Leaves of many those that may be shown.
    fn filter_all(rows: &mut Vec<Self>, authority: &Authority)
    where
        Self: Sized,
    {
        rows.retain_mut(|row| {
            let is_visible = row.is_visible(authority);
            if is_visible {
                row.redact(authority);
            }
            is_visible
        });
    }
}

impl<T: Row> Filter for Vec<T> {
    fn filter(&mut self, authority: &Authority) {
        if authority.is_unlimited() {
            return;
        }
        T::filter_all(self, authority);
    }
}

impl<T: Row> Filter for Option<T> {
    fn filter(&mut self, authority: &Authority) {
        match self {
            Some(row) if row.is_visible(authority) => row.redact(authority),
            Some(_) => *self = None,
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(rules: &[(&str, Access)], otherwise: Access) -> Policy {
        let rules = rules
            .iter()
            .map(|(name, access)| (Resource::Key, Text::from(*name), *access));
        Policy::new(rules, otherwise)
    }

    #[test]
    fn the_longest_beginning_decides() {
        use Access::{Deny, Read, Write};
        let rules = [
            ("", Read),
            ("a", Deny),
            ("a/b", Write),
            ("a/b/c", Deny),
            ("ab", Write),
            ("b", Write),
        ];
        let policy = policy(&rules, Deny);
        for (name, expected) in [
            ("", Read),
            ("x", Read),
            ("a", Deny),
            ("a/", Deny),
            ("a/b", Write),
            ("a/b/", Write),
            ("a/b/c/d", Deny),
            ("a/b/d", Write),
            ("a/c", Deny),
            ("abc", Write),
            ("ac", Deny),
            ("b/x", Write),
            ("c", Read),
        ] {
            assert_eq!(
                policy.access(Resource::Key, name.as_bytes()),
                expected,
                "{name}"
            );
        }
        // In whatever order they really come.
        let authority = Authority::limited(policy.clone(), false);
        let names = [
            "", "a", "a/", "a/b", "a/b/c/d", "a/c", "ab", "abc", "b", "c", "a/b/d", "", "zz",
        ];
        for access in [Deny, Read, Write] {
            let mut allows = authority.allows_in_order(Resource::Key, access);
            for name in names.map(str::as_bytes) {
                assert_eq!(allows(name), authority.allows(Resource::Key, name, access));
            }
            let mut allows = authority.allows_in_order(Resource::Node, access);
            assert!(allows(b"n"), "before version 8 it is open");
            let everything = Authority::unlimited();
            assert!(everything.allows_in_order(Resource::Key, access)(b"a"));
        }
        assert_eq!(policy.access(Resource::Service, b"a/b"), Deny);
        for (prefix, expected) in [
            ("", false),
            ("a/b", false),
            ("a/b/d", true),
            ("ab", true),
            ("b", true),
            ("a", false),
        ] {
            assert_eq!(
                policy.covers(Resource::Key, prefix.as_bytes(), Write),
                expected,
                "{prefix}"
            );
        }
    }

    #[test]
    fn what_version_8_brought_is_open_before_it() {
        let deny = || Policy::new([], Access::Deny);
        let before = Authority::limited(deny(), false);
        assert!(before.allows(Resource::Node, b"n", Access::Write));
        assert!(!before.allows(Resource::Key, b"k", Access::Read));
        let after = Authority::limited(deny(), true);
        assert!(!after.allows(Resource::Node, b"n", Access::Write));
        let error = after
            .demand(Resource::Key, b"a\"b", Access::Write)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "Permission denied: this needs write on key \"a\\\"b\""
        );
        assert!(Authority::unlimited().demand_management().is_ok());
        assert!(after.demand_management().is_err());
    }
}
