//! `/v1/agent/`: this node itself. Answered here, never asked of the cluster.

use std::convert::Infallible;

use ::agent::{Agent, Bearer, Member, MemberStatus, Role, Severity, Start};
use bytes::Bytes;
use futures::StreamExt;
use model::{Access, Error, Resource};

use crate::call::{Answer, Call, json};
use crate::error::{bad_request, failed, refused};
use crate::http::{Response, StatusCode};
use crate::json::{Encode, object};

impl Call<'_> {
    /// On whose word this is asked of this agent alone.
    pub(crate) fn bearer(&self) -> impl Future<Output = Result<Bearer, Response>> + Send + use<> {
        let (agent, token) = (self.api.agent.clone(), self.token());
        async move {
            let bearer = agent.tokens().bearer(&token).await;
            bearer.map_err(|error| denied(&error))
        }
    }

    /// Answers so if whoever asks may go so far with this agent.
    pub(crate) fn of_agent(
        &self,
        access: Access,
        answer: impl Future<Output = Result<Response, Response>> + Send + 'static,
    ) -> Answer {
        let (agent, bearer) = (self.api.agent.clone(), self.bearer());
        Answer::soon(async move {
            let node = agent.node().as_bytes();
            let demanded = bearer.await?.demand(Resource::Agent, node, access);
            demanded.map_err(|error| denied(&error))?;
            answer.await
        })
    }
}

/// What somebody is told who may not have what they asked of this agent; whoever runs it finds it in the log.
pub(crate) fn denied(error: &Error) -> Response {
    tracing::warn!("a request to this agent was refused: {error}");
    failed(error)
}

/// Configuration, membership and figures of this node.
pub(crate) fn this(call: Call<'_>) -> Result<Answer, Response> {
    let (agent, pretty) = (call.api.agent.clone(), call.pretty());
    Ok(call.of_agent(Access::Read, async move { Ok(json(&This(&agent), pretty)) }))
}

/// Everybody that gossips here, as far as whoever asks may see nodes.
///
/// The pool of other datacenters has no members yet; for an agent that keeps no state the original shows none at all.
pub(crate) fn members(call: Call<'_>) -> Result<Answer, Response> {
    let (agent, pretty) = (call.api.agent.clone(), call.pretty());
    let (wan, bearer) = (is_of_the_wide_area(&call), call.bearer());
    Ok(Answer::soon(async move {
        let bearer = bearer.await?;
        let members = match (wan, agent.identity().role) {
            (false, _) => {
                let mut members = agent.neighbours().members();
                members.retain(|member| {
                    bearer.allows(Resource::Node, member.name.as_bytes(), Access::Read)
                });
                Some(members)
            }
            (true, Role::Server(_)) => Some(Vec::new()),
            (true, Role::Client) => None,
        };
        Ok(json(&members, pretty))
    }))
}

/// Gets to know a further member, and through it the others.
pub(crate) fn join(call: Call<'_>) -> Result<Answer, Response> {
    let agent = call.api.agent.clone();
    let wan = is_of_the_wide_area(&call);
    let address = String::from_utf8_lossy(call.argument).into_owned();
    Ok(call.of_agent(Access::Write, async move {
        if wan {
            return Err(refused(match agent.identity().role {
                Role::Client => "Must be a server to join WAN cluster",
                Role::Server(_) => "this version does not join other datacenters",
            }));
        }
        let joined = agent.neighbours().join(vec![address]).await;
        joined.map_err(|error| refused(error.to_string()))?;
        Ok(Response::new(StatusCode::OK))
    }))
}

/// Says of a member that has failed that it has left. The original answers 200 whoever is named.
pub(crate) fn force_leave(call: Call<'_>) -> Result<Answer, Response> {
    let agent = call.api.agent.clone();
    let node = String::from_utf8_lossy(call.argument).into_owned();
    Ok(call.of_agent(Access::Write, async move {
        agent.neighbours().force_leave(node).await;
        Ok(Response::new(StatusCode::OK))
    }))
}

/// Leaves the cluster and stops.
pub(crate) fn leave(call: Call<'_>) -> Result<Answer, Response> {
    let agent = call.api.agent.clone();
    Ok(call.of_agent(Access::Write, async move {
        agent.leave().await.map_err(refused)?;
        Ok(Response::new(StatusCode::OK))
    }))
}

/// Reads the configuration again.
pub(crate) fn reload(call: Call<'_>) -> Result<Answer, Response> {
    let agent = call.api.agent.clone();
    Ok(call.of_agent(Access::Write, async move {
        agent.reload().await.map_err(refused)?;
        Ok(Response::new(StatusCode::OK))
    }))
}

/// The last lines of the log, and then those that follow, until the client has seen enough.
pub(crate) fn monitor(call: Call<'_>) -> Result<Answer, Response> {
    let level = match call.query.filled("loglevel") {
        None => Severity::Info,
        Some(name) => {
            let name = String::from_utf8_lossy(name);
            Severity::named(&name)
                .ok_or_else(|| bad_request(format!("Unknown log level: {name}")))?
        }
    };
    let agent = call.api.agent.clone();
    Ok(call.of_agent(Access::Read, async move {
        let lines = agent.journal().follow(level);
        let pieces = futures::stream::unfold(lines, |mut lines| async move {
            let line = lines.next().await?;
            let piece = Bytes::from(format!("{line}\n"));
            Some((Ok::<_, Infallible>(piece), lines))
        });
        let response = Response::new(StatusCode::OK)
            .with_header("Content-Type", "text/plain; charset=utf-8")
            .with_stream(pieces.boxed());
        Ok(response)
    }))
}

/// The original looks only at whether the parameter says anything.
fn is_of_the_wide_area(call: &Call<'_>) -> bool {
    call.query.filled("wan").is_some()
}

struct This<'a>(&'a Agent);

impl Encode for This<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        object(out, |o| {
            o.field("Config", &Settings(self.0))
                .field("Coord", &self.0.neighbours().coordinate())
                .field("Member", &self.0.member())
                .field("Stats", &self.0.stats());
            let settings = self.0.settings();
            if !settings.node_meta.is_empty() {
                o.field("Meta", &settings.node_meta);
            }
        });
    }
}

/// The configuration by the names that the original's fields have.
struct Settings<'a>(&'a Agent);

impl Encode for Settings<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        let (identity, settings) = (self.0.identity(), self.0.settings());
        let (is_server, bootstrap, expect) = match identity.role {
            Role::Server(Start::Bootstrap) => (true, true, 0),
            Role::Server(Start::Expect(count)) => (true, false, count),
            Role::Server(Start::Join) => (true, false, 0),
            Role::Client => (false, false, 0),
        };
        let address = identity.address.to_string();
        let address_wan = identity.address_wan.to_string();
        let nanos = |span: std::time::Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        let ports = &settings.ports;
        object(out, |o| {
            o.field("DevMode", &settings.dev)
                .object("Performance", |o| {
                    o.field("RaftMultiplier", &u64::from(settings.raft_multiplier));
                })
                .field("Bootstrap", &bootstrap)
                .field("BootstrapExpect", &u64::from(expect))
                .field("Server", &is_server)
                .field("Datacenter", &identity.datacenter)
                .field("DataDir", &settings.data_dir)
                .field("Domain", &settings.domain)
                .field("LogLevel", &settings.log_level)
                .field("NodeName", &identity.node)
                .field("ClientAddr", &settings.client_addr)
                .field("BindAddr", &settings.bind_addr)
                .field("AdvertiseAddr", &address)
                .field("AdvertiseAddrWan", &address_wan)
                .object("TaggedAddresses", |o| {
                    o.field("lan", &address).field("wan", &address_wan);
                })
                .object("Ports", |o| {
                    o.field("DNS", &switched(ports.dns))
                        .field("HTTP", &switched(ports.http))
                        .field("HTTPS", &switched(ports.https))
                        .field("SerfLan", &ports.serf_lan)
                        .field("SerfWan", &ports.serf_wan)
                        .field("Server", &ports.server);
                })
                .field("LeaveOnTerm", &settings.leave_on_terminate)
                .field("SkipLeaveOnInt", &settings.skip_leave_on_interrupt)
                .field("Protocol", &settings.protocol)
                .field("PidFile", &settings.pid_file)
                .field(
                    "CheckUpdateInterval",
                    &nanos(settings.check_update_interval),
                )
                .field("ACLDatacenter", &settings.acl_datacenter)
                .field("ACLTTL", &nanos(settings.acl_ttl))
                .field("ACLDefaultPolicy", &settings.acl_default_policy)
                .field("ACLDownPolicy", &settings.acl_down_policy)
                .field("ACLEnforceVersion8", &settings.acl_enforce_version_8)
                .field("DisableCoordinates", &settings.disable_coordinates)
                .field("SessionTTLMin", &nanos(settings.session_ttl_min))
                .object("HTTPAPIResponseHeaders", |o| {
                    for (name, value) in &settings.http_api_response_headers {
                        o.entry(name.as_bytes(), value);
                    }
                })
                .field("Revision", &identity.revision)
                .field("Version", &identity.version)
                .field("VersionPrerelease", &identity.prerelease)
                .field("Build", &identity.build);
        });
    }
}

/// What is switched off has port -1.
fn switched(port: u16) -> i64 {
    if port == 0 { -1 } else { i64::from(port) }
}

impl Encode for Member {
    fn encode(&self, out: &mut Vec<u8>) {
        let status: u8 = match self.status {
            MemberStatus::Alive => 1,
            MemberStatus::Leaving => 2,
            MemberStatus::Left => 3,
            MemberStatus::Failed => 4,
        };
        object(out, |o| {
            o.field("Name", &self.name)
                .field("Addr", &self.address.to_string())
                .field("Port", &self.port)
                .field("Tags", &self.tags)
                .field("Status", &status)
                .field("ProtocolMin", &self.protocol.min)
                .field("ProtocolMax", &self.protocol.max)
                .field("ProtocolCur", &self.protocol.current)
                .field("DelegateMin", &self.delegate.min)
                .field("DelegateMax", &self.delegate.max)
                .field("DelegateCur", &self.delegate.current);
        });
    }
}
