//! /v1 as HTTP and JSON.
