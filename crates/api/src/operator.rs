//! `/v1/operator/`: who takes part in consensus, and the keys of gossip.

use std::fmt::Write as _;

use model::{KeyringPool, KeyringVerb, Operated, Operation, RaftConfiguration, RaftServer};
use rpc::OperateOptions;

use crate::call::{Answer, Call, collect_json, decoded, json};
use crate::error::{bad_request, failed, refused};
use crate::http::{Response, StatusCode};
use crate::json::{DecodeError, Encode, Reader, decode, object};

/// Who takes part in consensus.
pub(crate) fn raft_configuration(call: Call<'_>) -> Result<Answer, Response> {
    let pretty = call.pretty();
    Ok(operate(
        &call,
        Operation::RaftConfiguration,
        move |operated| match operated {
            Operated::RaftConfiguration(configuration) => json(&configuration, pretty),
            other => unexpected(&other),
        },
    ))
}

/// Takes a server out of consensus.
pub(crate) fn raft_remove_peer(call: Call<'_>) -> Result<Answer, Response> {
    let Some(address) = call.query.filled("address") else {
        return Err(bad_request(
            "Must specify ?address with IP:port of peer to remove",
        ));
    };
    let address = String::from_utf8_lossy(address).into_owned();
    Ok(operate(&call, Operation::RaftRemovePeer(address), |_| {
        Response::new(StatusCode::OK)
    }))
}

/// The keys of gossip, and how many members have each.
pub(crate) fn keys(call: Call<'_>) -> Result<Answer, Response> {
    check_relay_factor(&call)?;
    let pretty = call.pretty();
    Ok(operate(
        &call,
        Operation::Keyring(KeyringVerb::List),
        move |operated| match operated {
            Operated::Keyring(pools) => json(&pools, pretty),
            other => unexpected(&other),
        },
    ))
}

/// Lets all members decrypt with a further key.
pub(crate) fn install_key(call: Call<'_>) -> Result<Answer, Response> {
    change_keys(call, KeyringVerb::Install)
}

/// Lets all members encrypt with another key.
pub(crate) fn use_key(call: Call<'_>) -> Result<Answer, Response> {
    change_keys(call, KeyringVerb::Use)
}

/// Lets all members forget a key.
pub(crate) fn remove_key(call: Call<'_>) -> Result<Answer, Response> {
    change_keys(call, KeyringVerb::Remove)
}

fn change_keys(call: Call<'_>, verb: fn(String) -> KeyringVerb) -> Result<Answer, Response> {
    check_relay_factor(&call)?;
    let options = options(&call);
    let api = call.api.clone();
    Ok(Answer::soon(async move {
        let body = collect_json(&api, call.body).await?;
        let operation = Operation::Keyring(verb(decoded(&body, read_key)?));
        let operated = api.cluster.operate(operation, options).await;
        match operated.map_err(|error| failed(&error))? {
            Operated::Keyring(pools) => match refusals(&pools) {
                Some(text) => Err(refused(text)),
                None => Ok(Response::new(StatusCode::OK)),
            },
            other => Err(unexpected(&other)),
        }
    }))
}

/// What went wrong in each pool, in the form that the original gives to several errors at once, and below each what the members say.
fn refusals(pools: &[KeyringPool]) -> Option<String> {
    let failed = || pools.iter().filter(|pool| !pool.error.is_empty());
    let count = failed().count();
    if count == 0 {
        return None;
    }
    let mut text = format!("{count} error(s) occurred:\n");
    for pool in failed() {
        let _ = write!(text, "\n* {}", pool.error);
        for (member, message) in &pool.messages {
            let _ = write!(text, "\n  {member}: {message}");
        }
    }
    Some(text)
}

/// Answers of members find their way by themselves here; what later clients ask for is checked all the same.
fn check_relay_factor(call: &Call<'_>) -> Result<(), Response> {
    let Some(text) = call.query.filled("relay-factor") else {
        return Ok(());
    };
    let factor = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse::<u8>().ok());
    match factor {
        Some(0..=5) => Ok(()),
        Some(_) => Err(bad_request(
            "Invalid relay factor: Relay factor must be in range: [0, 5]",
        )),
        None => Err(bad_request(format!(
            "Error parsing relay factor: {:?} is no number from 0 to 5",
            String::from_utf8_lossy(text)
        ))),
    }
}

fn operate(
    call: &Call<'_>,
    operation: Operation,
    show: impl FnOnce(Operated) -> Response + Send + 'static,
) -> Answer {
    let options = options(call);
    let cluster = call.api.cluster.clone();
    Answer::soon(async move {
        let operated = cluster.operate(operation, options).await;
        Ok(show(operated.map_err(|error| failed(&error))?))
    })
}

fn options(call: &Call<'_>) -> OperateOptions {
    OperateOptions {
        token: call.token(),
        datacenter: call.datacenter(),
        stale: call.query.has("stale"),
    }
}

fn unexpected(operated: &Operated) -> Response {
    refused(format!("a server answered another question: {operated:?}"))
}

/// `{"Key":"…"}`
fn read_key(reader: &mut Reader<'_>) -> Result<String, DecodeError> {
    let mut key = String::new();
    reader.object(|reader, name| {
        match name {
            b"key" => key = reader.text()?.unwrap_or_default().to_string(),
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    Ok(key)
}

impl Encode for RaftConfiguration {
    fn encode(&self, out: &mut Vec<u8>) {
        object(out, |o| {
            o.field("Servers", &self.servers)
                .field("Index", &self.index);
        });
    }
}

impl Encode for RaftServer {
    fn encode(&self, out: &mut Vec<u8>) {
        object(out, |o| {
            o.field("ID", &self.address)
                .field("Node", &self.node)
                .field("Address", &self.address)
                .field("Leader", &self.leader)
                .field("Voter", &self.voter);
        });
    }
}

impl Encode for KeyringPool {
    fn encode(&self, out: &mut Vec<u8>) {
        object(out, |o| {
            o.field("WAN", &self.wan)
                .field("Datacenter", &self.datacenter);
            if !self.messages.is_empty() {
                o.field("Messages", &self.messages);
            }
            o.field("Keys", &self.keys).field("NumNodes", &self.members);
            if !self.error.is_empty() {
                o.field("Error", &self.error);
            }
        });
    }
}

pub(crate) fn fuzz(bytes: &[u8]) {
    let _ = decode(bytes, read_key);
}
