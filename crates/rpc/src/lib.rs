//! How members call each other; today the Cluster trait everyone above asks.
