//! Runs seeds of the simulation; `cargo xtask sim` calls it.

fn main() {}
