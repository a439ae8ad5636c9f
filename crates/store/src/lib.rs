//! The replicated state: tables, indexes, versions, watches, apply, snapshots in and out.
//!
//! It answers one question: what is true at index N, and who wants to know?
//! It reads no clock, draws no chance, spawns nothing and knows no log: the same commands give the same state, byte for byte.
//!
//! Start with [`Store`] (the one writer) and [`Shared`] (all readers).
//! A command is applied by the file of its subject in `tables/`; a question is answered by the file of its subject in `reads/`.
//! A new question is an `impl Read` there; a new table is a file in `tables/` and what the compiler then asks for.
//!
//! ```
//! use model::{Command, Entry, KvGet, KvOp, KvVerb, Text};
//! use store::{Read, Store, Watch};
//!
//! let mut store = Store::new();
//! let shared = store.shared();
//!
//! // Ask, and remember what was touched.
//! let view = shared.view();
//! let mut watch = Watch::on();
//! let question = KvGet { key: Text::from("config/db") };
//! assert!(question.read(&view, &mut watch).answer.is_none());
//! let subscription = shared.subscribe(&view, &watch);
//!
//! // An entry of the log is applied, and made visible.
//! let op = KvOp { verb: KvVerb::Set, key: question.key.clone(), value: Text::from("x"), flags: 0 };
//! let applied = store.apply(1, 1, Entry { at_ms: 0, command: Command::Kv(op) });
//! assert!(applied.result.is_ok());
//! store.publish();
//!
//! // Who waits is woken, and finds news.
//! assert!(subscription.has_changed());
//! let found = question.read(&shared.view(), &mut Watch::off());
//! assert!(found.is_news(view.index().max(1) - 1));
//! assert_eq!(found.index, applied.index);
//! ```

mod store;

mod apply;
mod changes;
mod restore;
mod state;
mod tables;

mod facts;
mod reads;
mod view;
mod watch;

pub mod archive;
pub mod checkpoint;
mod template;

pub use apply::Effect;
pub use checkpoint::LoadError;
pub use store::{Applied, Store};
pub use template::check_template_size;
pub use view::{Found, Read, Shared, View};
pub use watch::{Subscription, Watch};
