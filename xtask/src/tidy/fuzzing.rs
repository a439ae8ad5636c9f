//! Fuzz targets: each is built, and each starts from seeds.

use super::{Finding, Tree};

const MANIFEST: &str = "fuzz/Cargo.toml";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let manifest = tree.text(MANIFEST).unwrap_or_default();
    for file in tree
        .files
        .iter()
        .filter(|file| file.path.starts_with("fuzz/fuzz_targets/"))
    {
        let name = file
            .path
            .trim_start_matches("fuzz/fuzz_targets/")
            .trim_end_matches(".rs");
        if !manifest.contains(&format!("name = \"{name}\"")) {
            findings.push(Finding::new(
                MANIFEST,
                0,
                format!("fuzz target {name} is not built"),
            ));
        }
        let corpus = format!("fuzz/corpus/{name}/");
        if !tree.files.iter().any(|file| file.path.starts_with(&corpus)) {
            findings.push(Finding::new(&file.path, 0, format!("no seeds in {corpus}")));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_built_and_has_seeds() {
        let tree = Tree::of(&[
            (MANIFEST, "[[bin]]\nname = \"one\"\n"),
            ("fuzz/fuzz_targets/one.rs", ""),
            ("fuzz/fuzz_targets/two.rs", ""),
            ("fuzz/corpus/one/seed", ""),
        ]);
        let whats: Vec<String> = check(&tree)
            .into_iter()
            .map(|finding| finding.what)
            .collect();
        assert_eq!(
            whats,
            [
                "fuzz target two is not built",
                "no seeds in fuzz/corpus/two/"
            ]
        );
    }
}
