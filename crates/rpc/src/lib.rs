//! How members call each other: the [`Cluster`] that everyone above asks.
//!
//! A [`Cluster`] is a small handle around one object-safe trait, [`Backend`], that carries a closed pair of question and answer; the typed calls wrap and unwrap.
//! A backend in the same process never serializes.
//! This crate decides neither who may nor who leads; [`Distant`] alone asks again, and only what can do no harm twice.
//!
//! Below it lie [`Calls`] and [`Serve`], the two ends of a call to a certain member.
//! [`Pool`] and [`Listener`] join them over TCP in the words of [`frame`] and `docs/rpc.md`; the simulator joins them in memory.
//!
//! Start with [`Cluster`]; a further way to reach servers is one more [`Backend`], a further request a variant of [`Request`].

mod cluster;

mod calls;

mod stream;

mod distant;

mod servers;

mod pool;

mod connection;

mod listener;

mod sources;

mod answering;

mod snapshots;

mod link;

pub mod event;

pub mod frame;

mod protocol;

pub mod tls;

pub use calls::{CallError, Calls, Hop, NoCalls, Refusal, Request, Response, Serve, ServerAddress};
pub use cluster::{
    Answered, Backend, Cluster, Consistency, Meta, OperateOptions, ReadOptions, RestoreOptions,
    Restored, Save, SaveOptions, WriteOptions,
};
pub use distant::{Distant, HOLD_MAX};
pub use listener::{Listener, ListenerConfig};
pub use pool::{Pool, PoolConfig};
pub use servers::Servers;
pub use stream::{Bodies, ByteSender, ByteStream, StreamError, WholeSender, byte_stream};
