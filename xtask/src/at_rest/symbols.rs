//! The functions of a program, and what their sections were called in the object files.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::cargo::output;

/// A function as the program's file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) address: u64,
    pub(super) size: u64,
    pub(super) name: String,
}

/// All functions of a program that wasn't stripped.
pub(super) fn functions(program: &Path) -> Result<Vec<Function>> {
    let listing = output(Command::new("readelf").arg("-sW").arg(program))?;
    let found: Vec<Function> = listing.lines().filter_map(function).collect();
    if found.len() < 1000 {
        bail!(
            "{} has {} functions: it was stripped",
            program.display(),
            found.len()
        );
    }
    Ok(found)
}

/// Number, value, size, type, binding, visibility, section, name.
fn function(line: &str) -> Option<Function> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, value, size, "FUNC", _, _, section, name] = words[..] else {
        return None;
    };
    let address = u64::from_str_radix(value, 16).ok()?;
    // Those of other libraries have no section here.
    let size = size.parse().ok().filter(|size| *size > 0)?;
    (section != "UND").then(|| Function {
        address,
        size,
        name: name.to_owned(),
    })
}

/// The parts of a name, each a piece of a pattern: modules, types, the function. One behind the other they fit all
/// functions of that name whatever the hash of their crate or of themselves.
pub(super) fn parts(name: &str) -> Vec<String> {
    let Some(path) = name.strip_prefix("_ZN").and_then(elements) else {
        return vec![without_crate_hashes(name)];
    };
    let mut parts = Vec::new();
    let mut before = "_ZN".to_owned();
    for element in path {
        let length = element.len();
        let inner = ["_$LT$", "drop_in_place$LT$"]
            .into_iter()
            .find_map(|opening| {
                let rest = element.strip_prefix(opening)?;
                rest.contains("..").then_some((opening, rest))
            });
        match inner {
            // The path of a type is taken apart as well, and the length before it, which then says nothing, left out.
            Some((opening, mut rest)) => {
                let mut opening = format!("{before}*{opening}");
                for _ in 0..3 {
                    let Some((module, more)) = rest.split_once("..") else {
                        break;
                    };
                    if module.contains("$GT$") || more.starts_with('_') {
                        break;
                    }
                    parts.push(format!("{opening}{module}.."));
                    opening = String::new();
                    rest = more;
                }
                before = format!("{opening}{rest}");
                if !before.is_empty() {
                    parts.push(std::mem::take(&mut before));
                }
            }
            None => parts.push(format!("{}{length}{element}", std::mem::take(&mut before))),
        }
    }
    parts
}

/// The elements of a legacy name behind `_ZN`, without the hash at its end.
fn elements(mut text: &str) -> Option<Vec<&str>> {
    let mut elements = Vec::new();
    while !text.starts_with('E') {
        let digits = text.find(|letter: char| !letter.is_ascii_digit())?;
        let length: usize = text[..digits].parse().ok()?;
        let element = text.get(digits..digits.checked_add(length)?)?;
        text = &text[digits + length..];
        elements.push(element);
    }
    let hash = elements.pop()?;
    (hash.len() == 17 && hash.starts_with('h') && !elements.is_empty()).then_some(elements)
}

/// A name of the newer kind names each crate with a hash of its version.
fn without_crate_hashes(name: &str) -> String {
    if !name.starts_with("_R") {
        return name.to_owned();
    }
    let mut out = String::new();
    let mut rest = name;
    while let Some(at) = rest.find("Cs") {
        let (before, after) = rest.split_at(at + 2);
        out.push_str(before);
        let end = after
            .find(|letter: char| !letter.is_ascii_alphanumeric())
            .unwrap_or(after.len());
        if after[end..].starts_with('_') && end > 4 {
            out.push('*');
            rest = &after[end..];
        } else {
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_parts() {
        for (name, expected) in [
            (
                "_ZN5tokio4task5spawn17h0123456789abcdefE",
                &["_ZN5tokio", "4task", "5spawn"][..],
            ),
            (
                "_ZN34_$LT$a..b..C$u20$as$u20$d..E$GT$$x4drop17h0123456789abcdefE",
                &[
                    "_ZN*_$LT$a..",
                    "b..",
                    "C$u20$as$u20$d..",
                    "E$GT$$x",
                    "4drop",
                ],
            ),
            (
                "_ZN4core3ptr30drop_in_place$LT$a..B$GT$$GT$$17h0123456789abcdefE",
                &["_ZN4core", "3ptr", "*drop_in_place$LT$a..", "B$GT$$GT$$"],
            ),
            ("memcpy", &["memcpy"]),
            ("_RNvCsgEmfK2I1SDS_4core3one", &["_RNvCs*_4core3one"]),
        ] {
            assert_eq!(parts(name), expected, "{name}");
        }
    }

    #[test]
    fn lines_of_the_listing() {
        let line = "  17: 0000000000001a40    33 FUNC    LOCAL  DEFAULT   14 main";
        let found = function(line).unwrap();
        assert_eq!(
            (found.address, found.size, &found.name[..]),
            (0x1a40, 33, "main")
        );
        assert_eq!(
            function("  17: 0000000000001a40    33 OBJECT  LOCAL  DEFAULT   14 main"),
            None
        );
        assert_eq!(
            function("   2: 0000000000000000     0 FUNC    GLOBAL DEFAULT  UND getenv"),
            None
        );
    }
}
