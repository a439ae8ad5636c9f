//! The program `consul`: decode, compose, run, stop.

fn main() {}
