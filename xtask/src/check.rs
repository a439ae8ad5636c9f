//! `check`, which changes nothing, and `fix`, its writing twin.

use anyhow::{Result, bail};

use crate::arguments::Arguments;
use crate::cargo::{cargo, has, output, root, run};
use crate::steps::Steps;
use crate::tidy;

/// Everything a change must pass. The hook and CI call this and nothing else.
pub(crate) fn check(arguments: Arguments) -> Result<()> {
    arguments.nothing_more()?;
    let mut steps = Steps::default();
    steps.run("format", || format(&["--check"]));
    steps.run("tidy", house_rules);
    steps.run("lints", || {
        run(&mut cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ]))
    });
    steps.run("documentation", || {
        run(
            cargo(&["doc", "--workspace", "--no-deps", "--locked", "--quiet"])
                .env("RUSTDOCFLAGS", "-D warnings"),
        )
    });
    steps.run("tests", tests);
    steps.run("examples in documentation", || {
        run(&mut cargo(&[
            "test",
            "--workspace",
            "--doc",
            "--locked",
            "--quiet",
        ]))
    });
    steps.finish()
}

/// Mends what a machine can mend.
pub(crate) fn fix(arguments: Arguments) -> Result<()> {
    arguments.nothing_more()?;
    let mut steps = Steps::default();
    steps.run("lints", || {
        run(&mut cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--fix",
            "--allow-dirty",
            "--allow-staged",
        ]))
    });
    steps.run("format", || format(&[]));
    steps.finish()
}

/// The house rules alone.
pub(crate) fn tidy(arguments: Arguments) -> Result<()> {
    arguments.nothing_more()?;
    house_rules()
}

fn house_rules() -> Result<()> {
    let metadata = output(&mut cargo(&[
        "metadata",
        "--no-deps",
        "--format-version",
        "1",
        "--locked",
        "--offline",
    ]))?;
    let findings = tidy::findings(&tidy::Tree::read(&root())?, &tidy::members(&metadata)?);
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => Ok(()),
        1 => bail!("one house rule is broken"),
        n => bail!("house rules are broken in {n} places"),
    }
}

/// The workspace, and the fuzz targets, which are not in it.
fn format(flags: &[&str]) -> Result<()> {
    for words in [
        ["fmt", "--all"].as_slice(),
        &["fmt", "--manifest-path", "fuzz/Cargo.toml"],
    ] {
        run(cargo(words).args(flags))?;
    }
    Ok(())
}

/// All tests but the examples in documentation, which nextest can't run.
fn tests() -> Result<()> {
    let mut command = if has("nextest") {
        cargo(&[
            "nextest",
            "run",
            "--workspace",
            "--locked",
            "--no-fail-fast",
        ])
    } else {
        cargo(&[
            "test",
            "--workspace",
            "--all-targets",
            "--locked",
            "--no-fail-fast",
        ])
    };
    run(never_write(&mut command))
}

/// Keeps the test libraries from writing beside the sources: a check that changes files checks something else.
pub(crate) fn never_write(command: &mut std::process::Command) -> &mut std::process::Command {
    command
        .env("INSTA_UPDATE", "no")
        .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "true")
}
