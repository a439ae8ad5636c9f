//! Who may import whom: the table in `ARCHITECTURE.md` against the manifests.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Finding, Tree};

const MAP: &str = "ARCHITECTURE.md";
const HEADING: &str = "## Allowed edges";

/// A crate of the workspace and which others its manifest names.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) name: String,
    /// Where its manifest lies, from the root.
    pub(crate) manifest: String,
    pub(crate) imports: BTreeSet<String>,
    pub(crate) imports_in_tests: BTreeSet<String>,
}

/// The members that `cargo metadata --no-deps` lists.
pub(crate) fn members(metadata: &str) -> Result<Vec<Member>> {
    let metadata: Value = serde_json::from_str(metadata).context("reading cargo metadata")?;
    let root = metadata["workspace_root"]
        .as_str()
        .context("cargo metadata without a root")?;
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata without packages")?;
    let name_of = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
    let names: BTreeSet<String> = packages.iter().map(name_of).collect();
    let mut members = Vec::new();
    for package in packages {
        let manifest = package["manifest_path"].as_str().unwrap_or_default();
        let manifest = manifest
            .strip_prefix(root)
            .unwrap_or(manifest)
            .trim_start_matches('/');
        let mut member = Member {
            name: name_of(package),
            manifest: manifest.to_owned(),
            ..Member::default()
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let name = name_of(dependency);
            // A crate of the registry may carry the name of one of ours; ours have a path.
            // Tests may ask for their own crate with another feature; that is no edge.
            if !names.contains(&name) || dependency["path"].is_null() || name == member.name {
                continue;
            }
            if dependency["kind"] == "dev" {
                member.imports_in_tests.insert(name);
            } else {
                member.imports.insert(name);
            }
        }
        members.push(member);
    }
    members.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(members)
}

pub(super) fn check(tree: &Tree, members: &[Member]) -> Vec<Finding> {
    let Some(map) = tree.text(MAP) else {
        return vec![Finding::new(MAP, 0, "missing")];
    };
    let (allowed, mut findings) = table(map);
    if allowed.is_empty() {
        findings.push(Finding::new(MAP, 0, format!("no table under {HEADING:?}")));
        return findings;
    }
    for member in members {
        let Some(row) = allowed.get(&member.name) else {
            findings.push(Finding::new(
                MAP,
                0,
                format!("crate {} is not in the table of allowed edges", member.name),
            ));
            continue;
        };
        let manifest = &member.manifest;
        for name in member.imports.difference(&row.imports) {
            findings.push(Finding::new(
                manifest,
                0,
                format!("{} may not import {name}", member.name),
            ));
        }
        for name in &member.imports_in_tests {
            if !row.imports.contains(name) && !row.imports_in_tests.contains(name) {
                findings.push(Finding::new(
                    manifest,
                    0,
                    format!("the tests of {} may not import {name}", member.name),
                ));
            }
        }
        if tree
            .text(manifest)
            .is_some_and(|text| !text.contains("[lints]\nworkspace = true"))
        {
            findings.push(Finding::new(
                manifest,
                0,
                "the workspace's lints are not taken over",
            ));
        }
    }
    for (name, row) in &allowed {
        if !members.iter().any(|member| member.name == *name) {
            findings.push(Finding::new(
                MAP,
                row.line,
                format!("{name} is not a crate of the workspace"),
            ));
        }
    }
    findings
}

#[derive(Debug, Default)]
struct Row {
    line: usize,
    imports: BTreeSet<String>,
    imports_in_tests: BTreeSet<String>,
}

/// Rows of `| crate | may import | and in tests |`, names in backticks.
fn table(map: &str) -> (BTreeMap<String, Row>, Vec<Finding>) {
    let mut rows = BTreeMap::new();
    let mut findings = Vec::new();
    let section = map
        .lines()
        .enumerate()
        .skip_while(|(_, line)| *line != HEADING)
        .skip(1)
        .take_while(|(_, line)| !line.starts_with('#'));
    for (at, line) in section {
        if !line.starts_with("| `") {
            continue;
        }
        let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
        let &[name, imports, imports_in_tests, ..] = cells.as_slice() else {
            findings.push(Finding::new(
                MAP,
                at + 1,
                "a row of the edge table needs three cells",
            ));
            continue;
        };
        for name in quoted(name) {
            let row = Row {
                line: at + 1,
                imports: quoted(imports).collect(),
                imports_in_tests: quoted(imports_in_tests).collect(),
            };
            if rows.insert(name.clone(), row).is_some() {
                findings.push(Finding::new(
                    MAP,
                    at + 1,
                    format!("{name} stands twice in the edge table"),
                ));
            }
        }
    }
    (rows, findings)
}

/// What stands between backticks.
fn quoted(cell: &str) -> impl Iterator<Item = String> {
    cell.split('`').skip(1).step_by(2).map(String::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "# Map\n\n## Allowed edges\n\n| crate | may import | and in tests |\n| --- | --- | --- |\n| `model` | – | – |\n| `store` | `model`, `wire` | `testkit` |\n\n## Next\n\n| `other` | `table` | – |\n";

    fn member(name: &str, imports: &[&str], imports_in_tests: &[&str]) -> Member {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Member {
            name: name.to_owned(),
            manifest: format!("crates/{name}/Cargo.toml"),
            imports: set(imports),
            imports_in_tests: set(imports_in_tests),
        }
    }

    fn whats(members: &[Member]) -> Vec<String> {
        check(&Tree::of(&[(MAP, TABLE)]), members)
            .into_iter()
            .map(|finding| finding.what)
            .collect()
    }

    #[test]
    fn what_the_table_allows_passes() {
        let members = [
            member("model", &[], &[]),
            member("store", &["model"], &["testkit", "wire"]),
        ];
        assert_eq!(whats(&members), Vec::<String>::new());
    }

    #[test]
    fn what_it_does_not_allow_is_named() {
        let members = [
            member("model", &["wire"], &["store"]),
            member("store", &["testkit"], &[]),
        ];
        assert_eq!(
            whats(&members),
            [
                "model may not import wire",
                "the tests of model may not import store",
                "store may not import testkit"
            ],
        );
    }

    #[test]
    fn table_and_workspace_name_the_same_crates() {
        let members = [member("model", &[], &[]), member("extra", &[], &[])];
        assert_eq!(
            whats(&members),
            [
                "crate extra is not in the table of allowed edges",
                "store is not a crate of the workspace"
            ],
        );
    }

    #[test]
    fn a_map_without_the_table_does_not_pass() {
        let tree = Tree::of(&[(MAP, "# Map\n")]);
        assert_eq!(check(&tree, &[]).len(), 1);
        assert_eq!(check(&Tree::default(), &[]).len(), 1);
    }

    #[test]
    fn metadata_tells_tests_from_the_rest_and_ours_from_the_registry() {
        let metadata = r#"{"workspace_root": "/x", "packages": [
            {"name": "store", "manifest_path": "/x/crates/store/Cargo.toml", "dependencies": [
                {"name": "model", "kind": null, "path": "/x/model"},
                {"name": "testkit", "kind": "dev", "path": "/x/testkit"},
                {"name": "store", "kind": "dev", "path": "/x/store"},
                {"name": "serde", "kind": null},
                {"name": "wire", "kind": null}]},
            {"name": "model", "dependencies": []},
            {"name": "wire", "dependencies": []},
            {"name": "testkit", "dependencies": []}]}"#;
        let members = members(metadata).unwrap();
        assert_eq!(members[1], member("store", &["model"], &["testkit"]));
        assert_eq!(members.len(), 4);
    }
}
