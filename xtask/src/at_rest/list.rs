//! Functions that ran, as few patterns as fit them and little else.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::symbols::{Function, parts};

/// How much of the code that a pattern for many functions fits must have run.
const SHARE: f64 = 0.75;

/// Names below one beginning.
#[derive(Debug, Default)]
struct Branch {
    below: BTreeMap<String, Self>,
    /// Bytes of code of all functions from here on, and of those that ran.
    all: u64,
    run: u64,
    /// How many names end here or below, of those that ran.
    names: usize,
    /// In full, those that ran and end here: what is generic is there once for each of its types.
    instances: BTreeSet<String>,
}

impl Branch {
    fn add(&mut self, parts: &[String], function: &Function, has_run: bool) {
        self.all += function.size;
        if has_run {
            self.run += function.size;
        }
        match parts {
            [first, rest @ ..] => {
                let below = self.below.entry(first.clone()).or_default();
                below.add(rest, function, has_run);
            }
            [] if has_run => drop(self.instances.insert(function.name.clone())),
            [] => {}
        }
    }

    fn count(&mut self) -> usize {
        let below: usize = self.below.values_mut().map(Self::count).sum();
        self.names = below + usize::from(self.below.is_empty() && self.run > 0);
        self.names
    }

    fn patterns(&self, before: &str, out: &mut Patterns) {
        if self.run == 0 {
            return;
        }
        let is_mostly_run = self.run as f64 >= SHARE * self.all as f64;
        let is_a_name = self.below.is_empty();
        // All names at once is no pattern.
        if is_mostly_run && !before.is_empty() && (is_a_name || self.names > 1) {
            out.precise.insert(before.to_owned());
            return;
        }
        // Of few of many types: their hash tells them apart, until the compiler or a dependency is another.
        if !self.instances.is_empty() {
            out.precise.extend(self.instances.iter().cloned());
            out.otherwise.insert(before.to_owned());
        }
        for (part, branch) in &self.below {
            branch.patterns(&format!("{before}{part}"), out);
        }
    }
}

/// Patterns of names of functions.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Patterns {
    /// What fits all that ran, and little else.
    pub(super) precise: BTreeSet<String>,
    /// What fits those that are told apart by their hash, when the hash isn't what it was.
    pub(super) otherwise: BTreeSet<String>,
}

/// Patterns that fit all that `ran`.
pub(super) fn patterns(functions: &[Function], ran: &BTreeSet<u64>) -> Patterns {
    let mut root = Branch::default();
    for function in functions {
        let has_run = ran.contains(&function.address);
        root.add(&parts(&function.name), function, has_run);
    }
    root.count();
    let mut found = Patterns::default();
    root.patterns("", &mut found);
    found
}

/// The linker's script, from groups of patterns and what they are.
pub(super) fn script<'a>(
    groups: impl IntoIterator<Item = &'a (&'a str, BTreeSet<String>)>,
) -> String {
    let mut text = HEAD.to_owned();
    let mut written = BTreeSet::new();
    for (what, patterns) in groups {
        let _ = write!(text, "\n    /* {what} */\n    *(\n");
        for pattern in patterns {
            // The first group has it.
            if written.insert(pattern.clone()) {
                let _ = writeln!(text, "      .text.*{pattern}*");
            }
        }
        text.push_str("    )\n");
    }
    text.push_str("  }\n}\nINSERT BEFORE .text;\n");
    text
}

/// Bytes of code that patterns fit, for people.
pub(super) fn fitted(functions: &[Function], groups: &[(&str, BTreeSet<String>)]) -> u64 {
    let mut root = BTreeSet::new();
    for (_, patterns) in groups {
        root.extend(patterns.iter().map(String::as_str));
    }
    let fits = |function: &&Function| {
        if root.contains(function.name.as_str()) {
            return true;
        }
        let mut before = String::new();
        parts(&function.name).iter().any(|part| {
            before.push_str(part);
            root.contains(before.as_str())
        })
    };
    functions
        .iter()
        .filter(fits)
        .map(|function| function.size)
        .sum()
}

const HEAD: &str = "\
/* The order of the program's code: what runs in an agent at rest comes first and lies together.

   The kernel maps sixty-four kilobytes around each page that runs, and all that is mapped counts as memory of the
   process. So a small function amid code that nobody calls costs as much as a large one, and the few thousand
   functions of an agent at rest, spread over the whole program, cost three times their size.

   Made by `cargo xtask at-rest`: listed are functions that ran in client agents, in snapshot agents and in servers,
   alone and in threes, between their start and some seconds of rest, as breakpoints on all functions found them; and in
   place of functions the module or type they belong to, where most of its code is among them. Patterns are names of
   the object file, without the hash at their end, so that versions of dependencies do not matter. The first pattern that
   fits decides.

   Code that is not listed follows after it: that costs memory if it runs at rest, and nothing else. A pattern that fits
   nothing costs nothing. `cargo xtask bench idle cluster-client` shows when a list made anew would pay. */

SECTIONS
{
  .text.at_rest :
  {
";

#[cfg(test)]
mod tests {
    use super::*;

    fn function(address: u64, size: u64, name: &str) -> Function {
        Function {
            address,
            size,
            name: format!("_ZN{name}17h0123456789abcdefE"),
        }
    }

    #[test]
    fn modules_stand_for_what_mostly_ran() {
        let functions = [
            function(1, 60, "1a1b1c"),
            function(2, 30, "1a1b1d"),
            function(3, 10, "1a1b1e"),
            function(4, 90, "1a1f1g"),
            function(5, 90, "1a1f1h"),
            function(6, 500, "1a1i"),
            function(7, 50, "1a1i"),
        ];
        let other = "_ZN1a1i17hfedcba9876543210E".to_owned();
        let mut functions = functions.to_vec();
        functions.push(Function {
            address: 8,
            size: 40,
            name: other.clone(),
        });
        let ran = BTreeSet::from([1, 2, 4, 8]);
        let found = patterns(&functions, &ran);
        assert_eq!(
            found,
            Patterns {
                precise: BTreeSet::from(["_ZN1a1b".to_owned(), "_ZN1a1f1g".to_owned(), other]),
                otherwise: BTreeSet::from(["_ZN1a1i".to_owned()]),
            }
        );
        let groups = [("some", found.precise)];
        assert_eq!(fitted(&functions, &groups), 230);
        let script = script(&groups);
        assert!(
            script.contains("/* some */\n    *(\n      .text.*_ZN1a1b*\n      .text.*_ZN1a1f1g*\n")
        );
    }
}
