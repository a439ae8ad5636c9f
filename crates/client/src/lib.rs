//! The /v1 API from the caller side.
