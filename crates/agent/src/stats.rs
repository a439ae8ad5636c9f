//! Figures of the running parts.

use std::collections::BTreeMap;

/// The figures of one part: names and what people read.
pub type Section = BTreeMap<String, String>;

/// The parts, by name: `raft`, `runtime` and so on.
pub type Sections = BTreeMap<String, Section>;

/// Where the figures come from; whoever composes the program knows all its parts.
pub trait Stats: Send + Sync + 'static {
    /// The figures of this moment. Called for every request that asks: it must neither block nor take long.
    fn sections(&self) -> Sections;
}

impl<F> Stats for F
where
    F: Fn() -> Sections + Send + Sync + 'static,
{
    fn sections(&self) -> Sections {
        self()
    }
}
