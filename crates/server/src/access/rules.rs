//! What a token's rules mean: from the text that somebody wrote to a policy.
//!
//! ```text
//! key "app/" { policy = "write" }     # also service, event, query, node, session, agent
//! operator = "read"                   # also keyring
//! ```
//!
//! What is not known is passed over, since rules of other releases lie in people's snapshots.

use std::fmt;

use model::{Access, DefaultPolicy, Policy, Resource, Text, go_quoted};

use super::hcl::{self, Item, Malformed, Value};

/// The kinds of thing in the order in which the original looks at them, which decides of several mistakes which one is told.
const KINDS: [Resource; 9] = [
    Resource::Agent,
    Resource::Key,
    Resource::Node,
    Resource::Service,
    Resource::Session,
    Resource::Event,
    Resource::Query,
    Resource::Keyring,
    Resource::Operator,
];

/// Why rules can't be, in the original's words as far as it is known how it would have put them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RulesError {
    /// They can't be read.
    Malformed(String),
    /// One of them says neither `deny` nor `read` nor `write`.
    Policy {
        kind: Resource,
        name: Text,
        policy: Text,
    },
}

impl From<Malformed> for RulesError {
    fn from(error: Malformed) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl fmt::Display for RulesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(why) => write!(f, "Failed to parse ACL rules: {why}"),
            Self::Policy { kind, name, policy } => {
                let (called, policy) = (kind.as_str(), go_quoted(policy));
                write!(f, "Invalid {called} policy: ")?;
                // The original shows its own types here, and people search for these texts.
                let (rule, field) = match kind {
                    Resource::Key => ("KeyPolicy", "Prefix"),
                    Resource::Service => ("ServicePolicy", "Name"),
                    Resource::Event => ("EventPolicy", "Event"),
                    Resource::Query => ("PreparedQueryPolicy", "Prefix"),
                    Resource::Node => ("NodePolicy", "Name"),
                    Resource::Session => ("SessionPolicy", "Node"),
                    Resource::Agent => ("AgentPolicy", "Node"),
                    Resource::Keyring | Resource::Operator => return f.write_str(&policy),
                };
                let name = go_quoted(name);
                write!(f, "acl.{rule}{{{field}:{name}, Policy:{policy}}}")
            }
        }
    }
}

/// Reads rules, over what holds where they say nothing.
pub(crate) fn compile(text: &[u8], otherwise: DefaultPolicy) -> Result<Policy, RulesError> {
    let rules = read(text)?;
    Ok(Policy::new(rules, otherwise.access()))
}

/// Reads rules, each about what begins with its name.
pub(super) fn read(text: &[u8]) -> Result<Vec<(Resource, Text, Access)>, RulesError> {
    let items = hcl::read(text)?;
    let mut written = Vec::new();
    for kind in KINDS {
        let mut found = Found {
            text,
            kind,
            written: &mut written,
        };
        let of_kind = || (items.iter()).filter(|item| is_named(item, kind.as_str()));
        if !kind.is_named() {
            of_kind().try_for_each(|item| found.setting(item))?;
            continue;
        }
        // First those with a name of their own, as the original has it: of two rules about the same the last counts.
        for item in of_kind().filter(|item| item.names.len() > 1) {
            found.rule(&item.names[1..], item)?;
        }
        for item in of_kind().filter(|item| item.names.len() == 1) {
            found.block(item, &item.value)?;
        }
    }
    let judged = written.into_iter().map(|(kind, name, policy)| {
        let access = Access::parse(&policy);
        access
            .map(|access| (kind, name.clone(), access))
            .ok_or(RulesError::Policy { kind, name, policy })
    });
    judged.collect()
}

/// Whether an item is about this; the original compares without regard to case.
fn is_named(item: &Item, name: &str) -> bool {
    (item.names.first()).is_some_and(|first| first.eq_ignore_ascii_case(name.as_bytes()))
}

/// Gathers the rules about one kind of thing.
struct Found<'a> {
    text: &'a [u8],
    kind: Resource,
    written: &'a mut Vec<(Resource, Text, Text)>,
}

impl Found<'_> {
    /// `operator = "read"`. An empty one is as good as none.
    fn setting(&mut self, item: &Item) -> Result<(), RulesError> {
        match &item.value {
            Value::Null => {}
            Value::Literal(policy) if item.names.len() == 1 => {
                if !policy.is_empty() {
                    self.write(b"", policy);
                }
            }
            _ => return Err(self.malformed(item, "is a string")),
        }
        Ok(())
    }

    /// All rules in one: `key { "a" { … } "b" { … } }`, and most of what JSON can spell.
    fn block(&mut self, item: &Item, value: &Value) -> Result<(), RulesError> {
        match value {
            Value::Null => Ok(()),
            Value::Object(items) => items
                .iter()
                .try_for_each(|inner| self.rule(&inner.names, inner)),
            Value::List(values) => values.iter().try_for_each(|value| self.block(item, value)),
            Value::Literal(_) => Err(self.malformed(item, "is a block")),
        }
    }

    /// One rule: what is left of its names, and what is said about it.
    fn rule(&mut self, names: &[Vec<u8>], item: &Item) -> Result<(), RulesError> {
        let name = names.first().map_or(&b""[..], Vec::as_slice);
        // A second name is a block of no known kind within the rule, which says nothing about it then.
        if names.len() > 1 {
            self.write(name, b"");
            return Ok(());
        }
        self.said(name, &item.value)
    }

    fn said(&mut self, name: &[u8], value: &Value) -> Result<(), RulesError> {
        match value {
            Value::Object(items) => {
                let mut policy = &b""[..];
                for inner in items.iter().filter(|inner| is_named(inner, "policy")) {
                    match &inner.value {
                        Value::Literal(said) if inner.names.len() == 1 => policy = said,
                        Value::Null => {}
                        _ => return Err(self.malformed(inner, "has a policy that is a string")),
                    }
                }
                self.write(name, policy);
                Ok(())
            }
            Value::List(values) => values.iter().try_for_each(|value| self.said(name, value)),
            // `key { policy = "read" }`: the original takes that for a rule about names that begin with "policy".
            Value::Literal(said) if name.eq_ignore_ascii_case(b"policy") => {
                self.write(name, said);
                Ok(())
            }
            Value::Literal(_) | Value::Null => {
                self.write(name, b"");
                Ok(())
            }
        }
    }

    fn write(&mut self, name: &[u8], policy: &[u8]) {
        let rule = (self.kind, Text::from(name), Text::from(policy));
        self.written.push(rule);
    }

    fn malformed(&self, item: &Item, expected: &str) -> RulesError {
        let what = format!("a rule about {} {expected}", self.kind.as_str());
        hcl::malformed(self.text, item.place, what).into()
    }
}

/// Reads rules, and compares what they allow with what a look at each of them says.
pub(crate) fn fuzz(text: &[u8]) {
    let Ok(rules) = read(text) else {
        return;
    };
    // Many rules are many comparisons of many names, and show nothing that a few don't.
    let rules = &rules[..rules.len().min(64)];
    let otherwise = Access::Deny;
    let policy = Policy::new(rules.iter().cloned(), otherwise);
    let of_kind = |kind| rules.iter().filter(move |rule| rule.0 == kind);
    for (kind, name, _) in rules {
        let longer = [name, &b"x"[..]].concat();
        let shorter = &name[..name.len() / 2];
        for name in [name, &longer[..], shorter] {
            // Of those that are as long the last counts, which is what `max_by_key` gives.
            let longest = of_kind(*kind)
                .filter(|rule| name.starts_with(&rule.1))
                .max_by_key(|rule| rule.1.len());
            let access = longest.map_or(otherwise, |rule| rule.2);
            assert_eq!(policy.access(*kind, name), access);
            for wanted in [Access::Read, Access::Write] {
                let covers = access >= wanted
                    && of_kind(*kind)
                        .filter(|rule| rule.1.starts_with(name))
                        .all(|rule| policy.access(*kind, &rule.1) >= wanted);
                assert_eq!(policy.covers(*kind, name, wanted), covers);
            }
        }
    }
}

#[cfg(test)]
mod tests;
