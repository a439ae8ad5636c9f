//! Which release this is, for programs and for people.

/// The release of the original whose behaviour this program has, as clients look for it.
pub const COMPATIBLE_VERSION: &str = "0.7.1";

/// Our own build, for people.
pub const BUILD: &str = env!("CARGO_PKG_VERSION");

/// The compiler that the sources ask for.
pub const COMPILER: &str = env!("CARGO_PKG_RUST_VERSION");
