//! The store from outside.

mod script;
mod waking;
