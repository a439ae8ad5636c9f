//! From errors to status codes: the only place that knows which is which.

use model::Error;

use crate::http::{BodyError, Response, StatusCode};
use crate::json::DecodeError;

/// An error of the cluster, as the client sees it.
pub(crate) fn failed(error: &Error) -> Response {
    Response::text(status(error), error.to_string())
}

fn status(error: &Error) -> StatusCode {
    match error.kind() {
        Error::PermissionDenied | Error::PermissionDeniedBecause(_) | Error::AclNotFound => {
            StatusCode::FORBIDDEN
        }
        // The original answers 500 whenever the cause lies behind its own servers; clients retry on it.
        Error::NoLeader
        | Error::NoServers
        | Error::NoPath
        | Error::NotFound(_)
        | Error::Invalid(_)
        | Error::Restored
        | Error::OutcomeUnknown
        | Error::Unavailable(_)
        | Error::Internal(_)
        | Error::Remote(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The request makes no sense.
pub(crate) fn bad_request(text: impl Into<String>) -> Response {
    Response::text(StatusCode::BAD_REQUEST, text.into())
}

/// The request makes no sense to whoever would carry it out.
///
/// Many refusals of the original come from behind its own RPC, and have this status.
pub(crate) fn refused(text: impl Into<String>) -> Response {
    Response::text(StatusCode::INTERNAL_SERVER_ERROR, text.into())
}

/// Whoever asks may not have it.
pub(crate) fn forbidden(text: impl Into<String>) -> Response {
    Response::text(StatusCode::FORBIDDEN, text.into())
}

/// There is no such thing.
pub(crate) fn not_found(text: impl Into<String>) -> Response {
    Response::text(StatusCode::NOT_FOUND, text.into())
}

/// It is larger than what is taken.
pub(crate) fn too_large(text: impl Into<String>) -> Response {
    Response::text(StatusCode::PAYLOAD_TOO_LARGE, text.into())
}

/// The body is not what it should be.
pub(crate) fn not_decoded(error: &DecodeError) -> Response {
    bad_request(format!("Request decode failed: {error}"))
}

/// The body could not be read; `too_long` says what it may be at most.
pub(crate) fn not_read(error: BodyError, too_long: impl FnOnce() -> String) -> Response {
    match error {
        BodyError::TooLarge => too_large(too_long()),
        BodyError::TimedOut => Response::text(StatusCode::REQUEST_TIMEOUT, error.to_string()),
        BodyError::Broken => bad_request(error.to_string()),
    }
}
