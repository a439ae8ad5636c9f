//! Who else gossips here, as far as the faces may see and change it.

use futures::future::BoxFuture;
use model::Coordinate;

use crate::Member;

/// The pool of this datacenter.
///
/// In the program it is gossip; the faces are tested with one that is made up.
pub trait Neighbours: Send + Sync + 'static {
    /// All members, this one included, by name; those that have left or failed are among them until they are forgotten.
    fn members(&self) -> Vec<Member>;

    /// Where this node is in the space of round-trip times; `None` if that is switched off.
    fn coordinate(&self) -> Option<Coordinate>;

    /// Gets to know the members at these addresses, `host`, `host:port` or `[ip]:port`; says how many were reached.
    ///
    /// # Errors
    /// If none was, each with its reason.
    fn join(&self, addresses: Vec<String>) -> BoxFuture<'static, Result<usize, JoinError>>;

    /// Says of a member that has failed that it has left. Nothing happens if it is there, or if there is none.
    fn force_leave(&self, node: String) -> BoxFuture<'static, ()>;
}

/// Why no member was reached: one line for each that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinError(pub Vec<String>);

impl std::fmt::Display for JoinError {
    /// In the form that the original gives to several errors at once.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} error(s) occurred:", self.0.len())?;
        for reason in &self.0 {
            write!(f, "\n* {reason}")?;
        }
        Ok(())
    }
}

impl std::error::Error for JoinError {}
