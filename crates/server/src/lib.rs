//! A server member: write and read pipelines, state machine, restore, leader duties.
