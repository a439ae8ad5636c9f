//! How members call each other: the [`Cluster`] that everyone above asks.
//!
//! A [`Cluster`] is a small handle around one object-safe trait, [`Backend`], that carries a closed pair of question and answer; the typed calls wrap and unwrap.
//! A backend in the same process never serializes.
//! This crate decides nothing: no policy of retries, no access control.
//!
//! Start with [`Cluster`]; a further way to reach servers is one more [`Backend`].

mod calls;
mod cluster;
mod stream;

mod answering;
mod connection;
pub mod frame;
mod link;
mod listener;
mod pool;
mod protocol;
mod snapshots;
pub mod tls;

pub use calls::{CallError, Calls, Hop, NoCalls, Refusal, Request, Response, Serve, ServerAddress};
pub use cluster::{
    Answered, Backend, Cluster, Consistency, Meta, OperateOptions, ReadOptions, RestoreOptions,
    Restored, Save, SaveOptions, WriteOptions,
};
pub use listener::{Listener, ListenerConfig};
pub use pool::{Pool, PoolConfig};
pub use stream::{Bodies, ByteSender, ByteStream, StreamError, byte_stream};
