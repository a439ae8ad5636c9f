//! Simulated clock, network, disk; a fake Cluster; script runner. Tests only.
