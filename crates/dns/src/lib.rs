//! Names to records: the DNS face of the catalog.
//!
//! Start with [`Config`].

mod config;

pub use config::Config;
