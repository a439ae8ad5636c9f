//! What this node knows and does.
