//! Documents: one first-level heading each, and what they name exists.

use super::{Finding, Tree};

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree
        .ending_in(".md")
        .filter(|file| !file.path.starts_with("fixtures/"))
    {
        findings.extend(headings(&file.path, &file.text));
        for (line, name) in quoted(&file.text) {
            if looks_like_a_path(tree, name) && !exists(tree, &file.path, name) {
                findings.push(Finding::new(
                    &file.path,
                    line,
                    format!("{name} does not exist"),
                ));
            }
        }
        for (line, target) in links(&file.text) {
            if !exists(tree, &file.path, target) {
                findings.push(Finding::new(
                    &file.path,
                    line,
                    format!("the link to {target} leads nowhere"),
                ));
            }
        }
    }
    findings
}

fn headings(path: &str, text: &str) -> Option<Finding> {
    let lines: Vec<usize> = prose(text)
        .filter(|(_, line)| line.starts_with("# "))
        .map(|(at, _)| at)
        .collect();
    match lines.as_slice() {
        [_] => None,
        [] => Some(Finding::new(path, 0, "no first-level heading")),
        [_, second, ..] => Some(Finding::new(path, *second, "a second first-level heading")),
    }
}

/// Lines outside of code blocks, counted from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    text.lines().enumerate().filter_map(move |(at, line)| {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
            return None;
        }
        (!in_code).then_some((at + 1, line))
    })
}

fn quoted(text: &str) -> impl Iterator<Item = (usize, &str)> {
    prose(text).flat_map(|(at, line)| {
        line.split('`')
            .skip(1)
            .step_by(2)
            .map(move |name| (at, name))
    })
}

/// Targets of links that stay in the project.
fn links(text: &str) -> impl Iterator<Item = (usize, &str)> {
    prose(text).flat_map(|(at, line)| {
        line.split("](").skip(1).filter_map(move |rest| {
            let target = rest.split(')').next()?.split('#').next()?;
            (!target.is_empty() && !target.contains("://") && !target.starts_with("mailto:"))
                .then_some((at, target))
        })
    })
}

/// Whether a quoted text is meant as a file or folder of this project, and not as a URL, a type or a file on
/// somebody's server: it begins in a folder that we have, or it ends as our sources and documents do.
fn looks_like_a_path(tree: &Tree, name: &str) -> bool {
    let odd = |c: char| c.is_whitespace() || "<>*{}$=?,;:|\"'()…[]&#!%".contains(c);
    if name.is_empty()
        || name.contains(odd)
        || name.starts_with(['/', '-'])
        || name.starts_with("..")
    {
        return false;
    }
    let ours = [".rs", ".md", ".toml"]
        .iter()
        .any(|ending| name.len() > ending.len() && name.ends_with(ending));
    match name.trim_end_matches('/').split_once('/') {
        Some((first, _)) => {
            ours || tree.folders.contains(first)
                || tree.folders.contains(&format!("crates/{first}"))
        }
        None => ours,
    }
}

/// Paths count from the root, from the document, or from a crate's name (`store/src/lib.rs`); a bare file name
/// stands for any file of that name, as in "`kv.rs` on every floor".
fn exists(tree: &Tree, document: &str, name: &str) -> bool {
    let name = name.trim_start_matches("./").trim_end_matches('/');
    let beside = match document.rsplit_once('/') {
        Some((folder, _)) => format!("{folder}/{name}"),
        None => name.to_owned(),
    };
    if tree.has(name) || tree.has(&beside) || tree.has(&format!("crates/{name}")) {
        return true;
    }
    if let Some(rest) = name.strip_prefix("../") {
        return tree.has(rest);
    }
    let ending = format!("/{name}");
    !name.contains('/') && tree.files.iter().any(|file| file.path.ends_with(&ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whats(document: &str) -> Vec<String> {
        let tree = Tree::of(&[
            ("README.md", document),
            ("deny.toml", ""),
            ("crates/store/src/tables/kv.rs", ""),
            ("docs/log.md", "# Log\n\n[back](../README.md)\n"),
            (
                "fixtures/snapshots/notes.md",
                "no heading, `crates/none.rs`",
            ),
        ]);
        check(&tree)
            .into_iter()
            .map(|finding| finding.to_string())
            .collect()
    }

    #[test]
    fn what_is_not_a_path_of_ours_is_left_alone() {
        let document = "# A\n`/v1/kv/foo` `application/json` `data/raft` `meta.json` `a.b::c` `x/<name>.rs` `--out x.rs`\n[site](https://example.com) [below](#part)\n";
        assert_eq!(whats(document), Vec::<String>::new());
    }

    #[test]
    fn paths_are_found_from_the_root_from_a_crate_and_by_bare_name() {
        let document = "# A\n`deny.toml` `docs/log.md` `docs/` `store/src/tables/` `crates/store` `kv.rs` [log](docs/log.md#part)\n";
        assert_eq!(whats(document), Vec::<String>::new());
    }

    #[test]
    fn what_is_named_and_missing_is_found() {
        let document =
            "# A\n`store/src/none.rs`\n`docs/none`\n`none.toml`\n[there](docs/none.md)\n";
        assert_eq!(
            whats(document),
            [
                "README.md:2: store/src/none.rs does not exist",
                "README.md:3: docs/none does not exist",
                "README.md:4: none.toml does not exist",
                "README.md:5: the link to docs/none.md leads nowhere",
            ],
        );
    }

    #[test]
    fn headings_in_code_do_not_count() {
        assert_eq!(
            whats("# A\n```\n# not a heading, `docs/none`\n```\n"),
            Vec::<String>::new()
        );
        assert_eq!(
            whats("# A\n\n# B\n"),
            ["README.md:3: a second first-level heading"]
        );
        assert_eq!(whats("## A\n"), ["README.md: no first-level heading"]);
    }
}
