//! `/v1/status/`: who leads, who votes. Answered by whoever is asked.

use crate::call::{Answer, Call, json};
use crate::http::Response;

/// The leader's address, or an empty string.
pub(crate) fn leader(call: Call<'_>) -> Result<Answer, Response> {
    Ok(json(&call.api.cluster.peers().leader, call.pretty()).into())
}

/// The addresses of all voters.
pub(crate) fn peers(call: Call<'_>) -> Result<Answer, Response> {
    Ok(json(&call.api.cluster.peers().servers, call.pretty()).into())
}
