//! Names to records: the DNS face of the catalog.
//!
//! Start with [`Listener`], which is told by its [`Config`] how to answer.

mod config;
mod server;

pub use config::Config;
pub use server::Listener;
