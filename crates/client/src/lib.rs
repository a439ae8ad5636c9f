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
mod base64;
mod catalog;
mod clock;
mod coordinate;
mod error;
mod event;
mod health;
mod holding;
mod hook;
mod kv;
mod lock;
mod operator;
mod options;
mod path;
mod registration;
mod request;
mod semaphore;
mod session;
mod snapshot;
mod tls;
mod transport;
mod watch;

pub use address::Address;
pub use agent::{AgentService, LogStream, Maintenance, Member};
pub use catalog::{CatalogNode, CatalogServices};
pub use coordinate::{Coordinate, CoordinateEntry, DatacenterCoordinates};
pub use error::Error;
pub use event::{NewEvent, UserEvent};
pub use health::{HealthCheck, HealthService, ServiceEntry};
pub use holding::{LockError, Loss};
pub use hook::{Hook, HookConfig};
pub use kv::{DeleteCondition, KvPair, KvPut, PutCondition};
pub use lock::{Cleanup, HeldLock, LOCK_FLAGS, Lock, LockOptions};
pub use model::{PartError, PartWish, RestoreMode, RestorePart, Section};
pub use operator::{KeyChange, Keyring, RaftConfiguration, RaftServer};
pub use options::{Answer, Consistency, Meta, QueryOptions, Wait, WriteOptions};
pub use registration::{CheckStatus, NewService, NewTtlCheck};
pub use request::{Client, Config, Credentials};
pub use semaphore::{HeldSlot, SEMAPHORE_FLAGS, Semaphore, SemaphoreOptions};
pub use session::{NewSession, Session, SessionBehavior, SessionEnd, SessionEntry};
pub use snapshot::{RestoreOptions, Skipped, SnapshotDownload};
pub use tls::Tls;
pub use transport::{Body, Pieces, Request, Response, Transport};
pub use watch::{Change, Failure, Plan, PlanError, Source, Watch, Watched};

/// Reads `null` as nothing: that is how the original writes an empty list or map that nobody made.
fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: serde::Deserialize<'de> + Default,
{
    Ok(<Option<T> as serde::Deserialize>::deserialize(deserializer)?.unwrap_or_default())
}
