//! /v1 as HTTP and JSON.

pub mod http;
