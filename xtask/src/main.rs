//! The one entrance to the project: checks, fixes, benches, simulation.

fn main() {}
