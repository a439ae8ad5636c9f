//! What Consul talks about: the nouns, the commands that change them, the questions one may ask.
//!
//! This crate does no I/O, reads no clock and knows neither HTTP nor a file format.
//! Its types derive `serde` for the replicated log and the checkpoint, and for nothing else: JSON and archive shapes live at their edges.
//!
//! Start with [`Command`] (everything that changes state) and [`Question`] (everything that may be read); both are closed lists.
//! A new noun is one file here, its variants in those lists, and a file of the same name on the floors above.
//!
//! ```
//! use model::{KvGet, Question, Text};
//! let question: Question = KvGet { key: Text::from("config/db") }.into();
//! assert!(matches!(question, Question::KvGet(_)));
//! ```

mod acl;
mod authority;
mod catalog;
mod command;
mod coordinate;
mod duration;
mod error;
mod event;
mod guard;
mod health;
mod kv;
mod lookup;
mod operator;
mod part;
mod query;
mod question;
mod quote;
pub mod re2;
mod restore;
mod session;
mod text;
mod txn;

pub use acl::*;
pub use authority::*;
pub use catalog::*;
pub use command::*;
pub use coordinate::*;
pub use duration::*;
pub use error::*;
pub use event::*;
pub use guard::*;
pub use health::*;
pub use kv::*;
pub use lookup::*;
pub use operator::*;
pub use part::*;
pub use query::*;
pub use question::*;
pub use quote::go_quoted;
pub use restore::*;
pub use session::*;
pub use text::*;
pub use txn::*;
pub use uuid::Uuid;

/// The position of a change, as users see it: the log's index plus the offset that restores have added.
///
/// 0 stands for "never".
pub type Index = u64;

/// Reads a UUID in its 36-character form and in no other.
///
/// The original does the same for session and query ids, so braces, missing hyphens and other spellings are refused.
pub fn parse_uuid(text: &[u8]) -> Option<Uuid> {
    if text.len() != 36 {
        return None;
    }
    Uuid::try_parse_ascii(text).ok()
}
