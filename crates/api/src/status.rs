//! `/v1/status/`: who leads, who votes. Answered by whichever server is asked.

use model::Peers;

use crate::call::{Answer, Call, json};
use crate::error::failed;
use crate::http::Response;

/// The leader's address, or an empty string.
pub(crate) fn leader(call: Call<'_>) -> Result<Answer, Response> {
    Ok(ask(&call, |peers, pretty| json(&peers.leader, pretty)))
}

/// The addresses of all voters.
pub(crate) fn peers(call: Call<'_>) -> Result<Answer, Response> {
    Ok(ask(&call, |peers, pretty| json(&peers.servers, pretty)))
}

fn ask(call: &Call<'_>, render: fn(&Peers, bool) -> Response) -> Answer {
    let pretty = call.pretty();
    let cluster = call.api.cluster.clone();
    Answer::soon(async move {
        let peers = cluster.peers().await.map_err(|error| failed(&error))?;
        Ok(render(&peers, pretty))
    })
}
