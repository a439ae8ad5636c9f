//! Clusters of the real program on this machine: started, wounded, healed, and asked as clients ask.
//!
//! [`Cluster`] is some [`Agent`]s, each a process with a loopback address and a folder of its own.
//! If it is [routed](Plan::routed), every agent tells the others a [`relay`]'s address as its own, so that all that goes
//! between agents goes through this process, which can cut, stall, delay, drop, double and reorder it.
//! [`Clients`] use the cluster through any server, note what they were told as a history of the crate `simulation`, and
//! its checkers judge it.
//!
//! What others think of its agents is asked of others: a [`Tool`] is a program of this machine that knows nothing of us,
//! like [`Dig`], run beside the agents or left out, with a word about it, where it isn't installed.
//!
//! Start with `tests/it/main.rs`: each module there is one kind of trouble. A new one is a module and a line in its list.
//!
//! What is deliberately absent: simulated anything. Chance decides when things go wrong, and a seed repeats what it
//! decided, but not what the machine did meanwhile; `simulation` is for failures that replay bit for bit.

pub mod relay;

mod agent;
mod chance;
mod clients;
mod dig;
mod form;
mod patience;
mod program;
mod tool;

pub use agent::{Agent, Ended, Ports, Spec, free_ports};
pub use chance::{Chance, number};
pub use clients::{Clients, Told, What};
pub use dig::{Dig, Reply};
pub use form::{Cluster, Home, Plan, own_address};
pub use patience::{PATIENCE, until};
pub use program::{Printed, consul, program};
pub use testkit::http::{Answer, Client, request};
pub use tool::{Tool, tool};
