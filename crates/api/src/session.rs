//! `/v1/session/`: sessions, which hold locks.

use std::time::Duration;

use model::{
    Behavior, Command, GoDuration, Operated, Operation, Reply, SERF_HEALTH, Session, SessionInfo,
    SessionList, SessionNode, SessionStanding, Text, Uuid, parse_uuid,
};
use rpc::OperateOptions;

use crate::call::{Answer, Call, collect_json, decoded_if_any, json};
use crate::error::{failed, not_found, refused};
use crate::http::Response;
use crate::json::{DecodeError, Encode, Object, Reader, decode, object};

const MISSING_SESSION: &str = "Missing session";

/// How long a key stays locked after a session that says nothing about it.
const LOCK_DELAY_DEFAULT: GoDuration = GoDuration(15_000_000_000);

/// Creates a session.
pub(crate) fn create(call: Call<'_>) -> Result<Answer, Response> {
    let options = call.write_options();
    let pretty = call.pretty();
    let api = call.api.clone();
    Ok(Answer::soon(async move {
        let body = collect_json(&api, call.body).await?;
        let wish = decoded_if_any(&body, Wish::read)?;
        drop(body);
        let Some(behavior) = Behavior::parse(&wish.behavior) else {
            return Err(refused(format!(
                "Invalid Behavior setting '{}'",
                wish.behavior
            )));
        };
        let session = Session {
            name: wish.name,
            node: wish.node.unwrap_or_else(|| Text::from(api.agent.node())),
            checks: wish.checks.unwrap_or_else(|| vec![Text::from(SERF_HEALTH)]),
            lock_delay: wish.lock_delay.unwrap_or(LOCK_DELAY_DEFAULT).0,
            behavior,
            ttl: wish.ttl,
            ..Session::default()
        };
        let written = api
            .cluster
            .write(Command::SessionCreate(Box::new(session)), options)
            .await;
        let reply = written.map_err(|error| failed(&error))?;
        Ok(json(&Created(&reply), pretty))
    }))
}

/// Ends a session; there need not be one.
pub(crate) fn destroy(call: Call<'_>) -> Result<Answer, Response> {
    let options = call.write_options();
    let id = id(&call)?;
    let pretty = call.pretty();
    let cluster = call.api.cluster.clone();
    Ok(Answer::soon(async move {
        let written = cluster.write(Command::SessionDestroy(id), options).await;
        written.map_err(|error| failed(&error))?;
        Ok(json(&true, pretty))
    }))
}

/// Says that whoever holds the session is still there.
pub(crate) fn renew(call: Call<'_>) -> Result<Answer, Response> {
    let options = OperateOptions {
        token: call.token(),
        datacenter: call.datacenter(),
        stale: false,
    };
    let id = id(&call)?;
    let pretty = call.pretty();
    let cluster = call.api.cluster.clone();
    Ok(Answer::soon(async move {
        let operated = cluster.operate(Operation::SessionRenew(id), options).await;
        match operated.map_err(|error| failed(&error))? {
            Operated::Session(Some(session)) => Ok(json(&[session], pretty)),
            Operated::Session(None) => Err(not_found(format!("Session id '{id}' not found"))),
            _ => Err(refused("the servers answered another question")),
        }
    }))
}

/// One session, or an empty list.
pub(crate) fn info(call: Call<'_>) -> Result<Answer, Response> {
    let options = call.read_options()?;
    let id = id(&call)?;
    let pretty = call.pretty();
    Ok(call.ask(SessionInfo { id }, options, move |standing| {
        json(standing.as_slice(), pretty)
    }))
}

/// The sessions of a node.
pub(crate) fn node(call: Call<'_>) -> Result<Answer, Response> {
    let options = call.read_options()?;
    let node = Text::from(call.argument_or("Missing node name")?);
    Ok(call.ask_json(SessionNode { node }, options))
}

/// All sessions.
pub(crate) fn list(call: Call<'_>) -> Result<Answer, Response> {
    let options = call.read_options()?;
    Ok(call.ask_json(SessionList, options))
}

/// The argument as an id; what is none is a 500, as it is behind the original's RPC.
fn id(call: &Call<'_>) -> Result<Uuid, Response> {
    let text = call.argument_or(MISSING_SESSION)?;
    parse_uuid(text).ok_or_else(|| {
        let shown = String::from_utf8_lossy(text);
        refused(format!("failed session lookup: {shown:?} is no UUID"))
    })
}

/// What a client may say about a session that it wants.
#[derive(Default)]
struct Wish {
    name: Text,
    node: Option<Text>,
    checks: Option<Vec<Text>>,
    lock_delay: Option<GoDuration>,
    behavior: Text,
    ttl: Text,
}

impl Wish {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut wish = Self::default();
        reader.object(|reader, name| {
            match name {
                b"name" => wish.name = reader.text()?.unwrap_or_default(),
                b"node" => wish.node = reader.text()?,
                b"checks" => wish.checks = reader.texts()?,
                b"lockdelay" => wish.lock_delay = reader.duration()?.map(seconds_if_small),
                b"behavior" => wish.behavior = reader.text()?.unwrap_or_default(),
                b"ttl" => wish.ttl = reader.text()?.unwrap_or_default(),
                _ => reader.skip()?,
            }
            Ok(())
        })?;
        Ok(wish)
    }
}

/// The original takes a number below a thousand for seconds, since nobody means nanoseconds.
fn seconds_if_small(delay: GoDuration) -> GoDuration {
    if delay.0 < 1_000 {
        GoDuration(delay.0.saturating_mul(1_000_000_000))
    } else {
        delay
    }
}

/// The id of what was created.
pub(crate) struct Created<'a>(pub(crate) &'a Reply);

impl Encode for Created<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        let none = Text::default();
        let id = match self.0 {
            Reply::Id(id) => id,
            Reply::Nothing | Reply::Applied(_) | Reply::Txn(_) => &none,
        };
        object(out, |o| {
            o.field("ID", id);
        });
    }
}

impl Encode for Session {
    fn encode(&self, out: &mut Vec<u8>) {
        object(out, |o| fields(self, o));
    }
}

/// With what the original doesn't tell: how long it has, if whoever answered knows.
impl Encode for SessionStanding {
    fn encode(&self, out: &mut Vec<u8>) {
        object(out, |o| {
            fields(&self.session, o);
            if let Some(left) = self.left {
                // To the millisecond, for what is told is on its way for longer than that.
                let left =
                    Duration::from_millis(u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
                o.field("TTLLeft", GoDuration::from(left).to_string().as_str());
            }
        });
    }
}

fn fields(session: &Session, o: &mut Object<'_>) {
    o.field("ID", &session.id)
        .field("Name", &session.name)
        .field("Node", &session.node)
        .field("Checks", &session.checks)
        .field("LockDelay", &session.lock_delay)
        .field("Behavior", session.behavior.as_str())
        .field("TTL", &session.ttl)
        .field("CreateIndex", &session.create_index)
        .field("ModifyIndex", &session.modify_index);
}

pub(crate) fn fuzz(bytes: &[u8]) {
    let _ = decode(bytes, Wish::read);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_delays() {
        for (body, nanos) in [
            (&br#"{"LockDelay":"15s"}"#[..], 15_000_000_000),
            (br#"{"LockDelay":5}"#, 5_000_000_000),
            (br#"{"LockDelay":999}"#, 999_000_000_000),
            (br#"{"LockDelay":1000}"#, 1_000),
            (br#"{"LockDelay":"5ns"}"#, 5_000_000_000),
            (br#"{"LockDelay":0}"#, 0),
            (br#"{"LockDelay":-1}"#, -1_000_000_000),
        ] {
            let wish = decode(body, Wish::read).unwrap();
            assert_eq!(
                wish.lock_delay,
                Some(GoDuration(nanos)),
                "{}",
                body.escape_ascii()
            );
        }
    }
}
