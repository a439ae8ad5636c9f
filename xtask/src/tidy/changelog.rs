//! The form of the change log: releases, kinds of change, sentences.

use super::{Finding, Tree};

const PATH: &str = "CHANGELOG.md";
const KINDS: &[&str] = &[
    "Added",
    "Changed",
    "Different on purpose",
    "Not there yet",
    "Fixed",
    "Removed",
    "Security",
];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let Some(text) = tree.text(PATH) else {
        return vec![Finding::new(PATH, 0, "missing")];
    };
    let mut findings = Vec::new();
    let mut find = |line: usize, what: String| findings.push(Finding::new(PATH, line, what));
    let mut releases = 0;
    let mut kind = None;
    // An entry may go on over indented lines; it is judged by where it ends.
    let mut entry: Option<(usize, &str)> = None;
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line));
    for (at, line) in lines.chain([(0, "")]) {
        if line.starts_with("  ") && entry.is_some() {
            entry = entry.map(|(start, _)| (start, line));
            continue;
        }
        if let Some((start, last)) = entry.take()
            && !last.trim_end().ends_with(['.', '`'])
        {
            find(
                start,
                "an entry is a sentence and ends with a full stop".to_owned(),
            );
        }
        if let Some(name) = line.strip_prefix("## ") {
            releases += 1;
            kind = None;
            if releases == 1 && name != "Unreleased" {
                find(at, "the first release must be Unreleased".to_owned());
            } else if releases > 1 && !is_release(name) {
                find(
                    at,
                    format!("{name:?} is not of the form 1.2.3 – 2026-01-31"),
                );
            }
        } else if let Some(name) = line.strip_prefix("### ") {
            kind = Some(name);
            if !KINDS.contains(&name) {
                find(at, format!("{name:?} is not one of {}", KINDS.join(", ")));
            }
        } else if line.starts_with("- ") {
            if kind.is_none() {
                find(at, "an entry belongs under a kind of change".to_owned());
            }
            entry = Some((at, line));
        } else if line.starts_with("* ") {
            find(at, "entries begin with \"- \"".to_owned());
        }
    }
    if releases == 0 {
        find(0, "no section for what is unreleased".to_owned());
    }
    findings
}

/// `1.2.3 – 2026-01-31`
fn is_release(name: &str) -> bool {
    let Some((version, date)) = name.split_once(" – ") else {
        return false;
    };
    let numbers = |text: &str, separator: char| {
        text.split(separator)
            .filter(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
            .count()
    };
    numbers(version, '.') == 3 && date.len() == 10 && numbers(date, '-') == 3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<usize> {
        check(&Tree::of(&[(PATH, text)]))
            .into_iter()
            .map(|finding| finding.line)
            .collect()
    }

    #[test]
    fn the_form_passes() {
        let text = "# Change log\n\nWhat changed.\n\n## Unreleased\n\n### Added\n\n- One thing,\n  over two lines.\n- Another.\n\n## 1.0.0 – 2026-01-31\n\n### Fixed\n\n- A fix.\n";
        assert_eq!(lines(text), Vec::<usize>::new());
    }

    #[test]
    fn what_is_off_is_found_by_its_line() {
        let cases: &[(&str, &[usize])] = &[
            ("# Change log\n", &[0]),
            ("## 1.0.0 – 2026-01-31\n", &[1]),
            ("## Unreleased\n## 1.0\n", &[2]),
            ("## Unreleased\n### Tweaks\n", &[2]),
            ("## Unreleased\n- An entry.\n", &[2]),
            (
                "## Unreleased\n### Added\n- no full stop\n\n- A\n  b\n",
                &[3, 5],
            ),
            ("## Unreleased\n### Added\n* A star.\n", &[3]),
        ];
        for (text, expected) in cases {
            assert_eq!(lines(text), *expected, "{text:?}");
        }
        assert_eq!(check(&Tree::default()).len(), 1);
    }
}
