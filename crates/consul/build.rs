//! Tells the linker in which order the code of the program lies: see `at-rest.ld`.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=at-rest.ld");
    if is_released() && links_with_lld() {
        let folder = env::var("CARGO_MANIFEST_DIR").expect("cargo names the package's folder");
        println!("cargo::rustc-link-arg-bins=-T{folder}/at-rest.ld");
    }
}

/// Other builds are linked often and measured never.
fn is_released() -> bool {
    env::var("PROFILE").is_ok_and(|profile| profile == "release")
}

/// Whether the program is linked as the toolchain does by itself, which on this target is with its own lld. GNU ld takes
/// many minutes for as many patterns, and others do not read such scripts.
fn links_with_lld() -> bool {
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    env::var("TARGET").is_ok_and(|target| target == "x86_64-unknown-linux-gnu")
        && env::var_os("RUSTC_LINKER").is_none()
        && !["link-arg", "linker", "link-self-contained"]
            .iter()
            .any(|flag| flags.contains(flag))
}
