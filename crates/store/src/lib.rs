//! The replicated state: tables, indexes, versions, watches, apply, snapshots in and out.
//!
//! It answers one question: what is true at index N, and who wants to know?
//! It reads no clock, draws no chance, spawns nothing and knows no log: the same commands give the same state, byte for byte.
//!
//! Start with [`Store`] (the one writer) and [`Shared`] (all readers).
//! A command is applied by the file of its subject in `tables/`; a question is answered by the file of its subject in `reads/`.

mod store;

mod apply;
mod changes;
mod restore;
mod state;
mod tables;

mod reads;
mod view;
mod watch;

mod quote;

pub mod archive;
pub mod checkpoint;
pub mod re2;
mod template;

pub use apply::Effect;
pub use checkpoint::LoadError;
pub use store::{Applied, Store};
pub use view::{Found, Read, Shared, View};
pub use watch::{Subscription, Watch};
