//! The `/v1` API from the caller's side: addresses, tokens, keys, snapshots, the agent's view of itself.
//!
//! This crate knows no server crate; what it knows of the protocol is what any program on the network knows.
//! The command line and the snapshot agent stand on it, and so can other people's programs.
//! JSON shapes are its own types and exist only here.
//!
//! Start with [`Client`]; each subject's calls are in the file of that name.
//! One more call is a method there that goes through [`Client`]'s one way of asking.
//!
//! ```no_run
//! # async fn example() -> Result<(), client::Error> {
//! use client::{Client, Config, QueryOptions};
//!
//! let client = Client::new(Config::default())?;
//! let answer = client.kv_get("config/db", &QueryOptions::default()).await?;
//! if let Some(pair) = answer.value {
//!     println!("{} bytes, changed at {}", pair.value.len(), pair.modify_index);
//! }
//! # Ok(())
//! # }
//! ```

mod address;
mod agent;
mod error;
mod kv;
mod options;
mod request;
mod snapshot;

pub use address::Address;
pub use error::Error;
pub use kv::{DeleteCondition, KvPair, KvPut, PutCondition};
pub use options::{Answer, Consistency, Meta, QueryOptions, Wait, WriteOptions};
pub use request::{Client, Config, Credentials};
pub use snapshot::{RestoreOptions, Skipped, SnapshotDownload};
