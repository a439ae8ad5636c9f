//! Sources: nothing unfinished, nothing ignored, no names that say nothing, no waiting by the clock in tests.

use super::{File, Finding, Tree};

/// Module names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &[
    "util", "utils", "common", "helper", "helpers", "misc", "types",
];

/// What may not stand in a source. Written in two halves, so that this file doesn't break its own rule.
const UNFINISHED: &[(&str, &str)] = &[
    (concat!("to", "do!("), "unfinished"),
    (concat!("unimple", "mented!("), "unfinished"),
    (
        concat!("#[ig", "nore"),
        "an ignored test; assert what it does now and say what is wrong",
    ),
];

/// Folders that only one machine has.
const MACHINE_PATHS: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/fa", "rm/"),
    concat!("/ho", "me/"),
    concat!("/Us", "ers/"),
    concat!("/ro", "ot/"),
    concat!("bash_", "jobs"),
    concat!("../sha", "red"),
];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.files {
        findings.extend(machine_paths(file));
        if file.path.ends_with(".rs") {
            findings.extend(name(file));
            findings.extend(unfinished(file));
            findings.extend(reasons(file));
            findings.extend(waiting_in_tests(file));
        }
    }
    findings
}

fn name(file: &File) -> Option<Finding> {
    let parts: Vec<&str> = file.path.trim_end_matches(".rs").split('/').collect();
    if let Some(part) = parts.iter().find(|part| EMPTY_NAMES.contains(part)) {
        return Some(Finding::new(
            &file.path,
            0,
            format!("the name {part} says nothing about what is inside"),
        ));
    }
    // `crates/<name>/tests/<file>.rs` is a binary of its own and links the crate once more.
    (parts.len() == 4 && parts[0] == "crates" && parts[2] == "tests").then(|| {
        Finding::new(
            &file.path,
            0,
            "integration tests are modules of tests/it/main.rs",
        )
    })
}

fn unfinished(file: &File) -> impl Iterator<Item = Finding> {
    lines(&file.text).flat_map(move |(at, line)| {
        UNFINISHED
            .iter()
            .filter(|(mark, _)| line.contains(mark))
            .map(move |(_, what)| Finding::new(&file.path, at, *what))
    })
}

fn machine_paths(file: &File) -> impl Iterator<Item = Finding> {
    lines(&file.text).filter_map(move |(at, line)| {
        let path = MACHINE_PATHS.iter().find(|path| {
            line.match_indices(**path).any(|(start, _)| {
                // `/v1/work/` and `network/` are not folders of a machine.
                let before = line[..start].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || "_.-/{}".contains(c))
            })
        })?;
        Some(Finding::new(
            &file.path,
            at,
            format!("{path} exists on one machine only"),
        ))
    })
}

/// Every `allow` and `expect` of a lint says why.
fn reasons(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    for word in [concat!("al", "low("), concat!("ex", "pect(")] {
        for opening in ["#[", "#!["] {
            let opening = format!("{opening}{word}");
            for (start, _) in file.text.match_indices(&opening) {
                let attribute = file.text[start..].split("]").next().unwrap_or_default();
                let in_comment = file.text[..start]
                    .rsplit('\n')
                    .next()
                    .is_some_and(|line| line.trim_start().starts_with("//"));
                if !in_comment && !attribute.contains("reason") {
                    let at = file.text[..start].matches('\n').count() + 1;
                    findings.push(Finding::new(
                        &file.path,
                        at,
                        "an allowed lint needs a reason",
                    ));
                }
            }
        }
    }
    findings
}

/// Tests wait for a condition with a deadline, or on paused time.
fn waiting_in_tests(file: &File) -> Vec<Finding> {
    let paused = ["start_paused", "time::pause(", "testkit::sim"]
        .iter()
        .any(|word| file.text.contains(word));
    let mut findings = Vec::new();
    for (at, line) in tests_of(file) {
        if line.trim_start().starts_with("//") {
            continue;
        }
        if line.contains(concat!("thread::sl", "eep"))
            || (!paused && line.contains(concat!("time::sl", "eep(")))
        {
            findings.push(Finding::new(
                &file.path,
                at,
                "a test that sleeps; wait for a condition with a deadline",
            ));
        }
        if let Some((_, address)) = line.split_once("bind(\"")
            && let Some((_, port)) = address
                .split('"')
                .next()
                .unwrap_or_default()
                .rsplit_once(':')
            && port != "0"
        {
            findings.push(Finding::new(
                &file.path,
                at,
                "a fixed port in a test; bind port 0",
            ));
        }
    }
    findings
}

/// The lines of a file that are test code.
fn tests_of(file: &File) -> impl Iterator<Item = (usize, &str)> {
    let whole = file.path.contains("/tests/") || file.path.ends_with("/tests.rs");
    // The module of tests stands last in its file.
    let start = file
        .text
        .find("#[cfg(test)]\nmod tests {")
        .map(|start| file.text[..start].matches('\n').count() + 1);
    lines(&file.text).filter(move |(at, _)| whole || start.is_some_and(|start| *at > start))
}

fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(at, line)| (at + 1, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        check(&Tree::of(&[(path, text)]))
            .into_iter()
            .map(|finding| format!("{}: {}", finding.line, finding.what))
            .collect()
    }

    #[test]
    fn names_that_say_nothing_are_found() {
        for path in [
            "crates/store/src/util.rs",
            "crates/api/src/common/mod.rs",
            "xtask/src/helpers.rs",
        ] {
            assert_eq!(found(path, "").len(), 1, "{path}");
        }
        assert_eq!(
            found("crates/store/src/utility_bill.rs", ""),
            Vec::<String>::new()
        );
    }

    #[test]
    fn integration_tests_are_one_binary() {
        assert_eq!(found("crates/store/tests/restore.rs", "").len(), 1);
        assert_eq!(
            found("crates/store/tests/it/main.rs", ""),
            Vec::<String>::new()
        );
    }

    #[test]
    fn unfinished_work_is_found() {
        for (mark, _) in UNFINISHED {
            assert_eq!(found("a.rs", &format!("\n{mark}")).len(), 1, "{mark}");
            assert_eq!(found("a.txt", mark), Vec::<String>::new());
        }
    }

    #[test]
    fn folders_of_one_machine_are_found() {
        let folder = MACHINE_PATHS[0];
        assert_eq!(found("a.md", &format!("see {folder}x")).len(), 1);
        assert_eq!(
            found("a.md", &format!("`/v1{folder}x` and net{}", &folder[1..])),
            Vec::<String>::new()
        );
    }

    #[test]
    fn an_allowed_lint_needs_a_reason_even_over_several_lines() {
        let (opening, closing) = (concat!("#[al", "low("), ")]");
        assert_eq!(
            found("a.rs", &format!("\n{opening}dead_code{closing}")),
            ["2: an allowed lint needs a reason"]
        );
        assert_eq!(
            found(
                "a.rs",
                &format!("{opening}\n dead_code,\n reason = \"x\"\n{closing}")
            ),
            Vec::<String>::new()
        );
        assert_eq!(
            found("a.rs", &format!("//! {opening}dead_code{closing}")),
            Vec::<String>::new()
        );
    }

    #[test]
    fn tests_do_not_wait_by_the_clock() {
        let (thread, task) = (
            concat!("thread::sl", "eep(x)"),
            concat!("tokio::time::sl", "eep(x)"),
        );
        for line in [thread, task] {
            assert_eq!(found("crates/a/tests/it/main.rs", line).len(), 1, "{line}");
            assert_eq!(found("crates/a/src/lib.rs", line), Vec::<String>::new());
            let module = format!("fn f() {{}}\n#[cfg(test)]\nmod tests {{\n{line}\n}}");
            assert_eq!(found("crates/a/src/lib.rs", &module).len(), 1, "{line}");
        }
        assert_eq!(
            found(
                "crates/a/tests/it/main.rs",
                &format!("start_paused\n{task}")
            ),
            Vec::<String>::new()
        );
    }

    #[test]
    fn ports_in_tests_are_free_ones() {
        let bind = |port: &str| format!("{}127.0.0.1:{port}\")", concat!("bind", "(\""));
        assert_eq!(found("crates/a/tests/it/main.rs", &bind("8500")).len(), 1);
        assert_eq!(
            found("crates/a/tests/it/main.rs", &bind("0")),
            Vec::<String>::new()
        );
    }
}
