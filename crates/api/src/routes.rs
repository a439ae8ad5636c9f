//! From a request to its handler: the one table of everything under `/v1/`, and how paths are read.
//!
//! The original routes by prefix on the decoded path, checks methods per handler, and redirects paths that could be written shorter; clients see all of that.

use std::borrow::Cow;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use ::agent::Agent;
use futures::future::BoxFuture;
use metrics::Histogram;
use model::Text;
use rpc::Cluster;
use tokio::sync::Semaphore;

use crate::call::{Answer, Call, Handler};
use crate::config::Config;
use crate::http::{HeaderValue, Method, Reaction, Request, Response, Service, StatusCode};
use crate::options::Chance;
use crate::percent::{self, Part};
use crate::query_string::QueryString;
use crate::{
    acl, agent, catalog, coordinate, event, figures, health, kv, local, operator, query, session,
    snapshot, status, txn,
};
use Path::{Exact, Under};
use Policy::{Read, Stream, Write};
use Verb::{Any, Delete, Get, Post, Put};

/// A line of the table.
struct Route {
    verb: Verb,
    path: Path,
    policy: Policy,
    handler: Handler,
}

/// Which methods a line is for.
#[derive(Clone, Copy)]
enum Verb {
    /// All of them: most handlers of the original do not look.
    Any,
    Get,
    Put,
    Post,
    Delete,
}

/// Which paths a line is for.
#[derive(Clone, Copy)]
enum Path {
    /// This one.
    Exact(&'static str),
    /// All that begin so; the rest is the handler's argument.
    Under(&'static str),
}

/// What becomes of an answer that takes its time.
#[derive(Clone, Copy)]
enum Policy {
    /// Nothing is lost when it is dropped because nobody waits for it any more.
    Read,
    /// It is carried through, and its body is held while it is.
    Write,
    /// It is carried through, and its body passes by.
    Stream,
}

const fn on(verb: Verb, path: Path, policy: Policy, handler: Handler) -> Route {
    Route {
        verb,
        path,
        policy,
        handler,
    }
}

/// Every endpoint.
const ROUTES: &[Route] = &[
    on(Get, Under(KV), Read, kv::get),
    on(Put, Under(KV), Write, kv::put),
    on(Delete, Under(KV), Write, kv::delete),
    // a transaction that only reads may be dropped as well, but which it is shows only in its body
    on(Put, Exact("/v1/txn"), Write, txn::txn),
    on(Any, Under("/v1/health/service/"), Read, health::service),
    on(Any, Under("/v1/health/node/"), Read, health::node),
    on(Any, Under("/v1/health/checks/"), Read, health::checks),
    on(Any, Under("/v1/health/state/"), Read, health::state),
    on(Any, Exact("/v1/catalog/register"), Write, catalog::register),
    on(
        Any,
        Exact("/v1/catalog/deregister"),
        Write,
        catalog::deregister,
    ),
    on(
        Any,
        Exact("/v1/catalog/datacenters"),
        Read,
        catalog::datacenters,
    ),
    on(Any, Exact("/v1/catalog/nodes"), Read, catalog::nodes),
    on(Any, Exact("/v1/catalog/services"), Read, catalog::services),
    on(Any, Under("/v1/catalog/service/"), Read, catalog::service),
    on(Any, Under("/v1/catalog/node/"), Read, catalog::node),
    on(Put, Exact("/v1/session/create"), Write, session::create),
    on(Put, Under("/v1/session/destroy/"), Write, session::destroy),
    on(Put, Under("/v1/session/renew/"), Write, session::renew),
    on(Any, Under("/v1/session/info/"), Read, session::info),
    on(Any, Under("/v1/session/node/"), Read, session::node),
    on(Any, Exact("/v1/session/list"), Read, session::list),
    on(Post, Exact("/v1/query"), Write, query::create),
    on(Get, Exact("/v1/query"), Read, query::list),
    on(Get, Under("/v1/query/"), Read, query::get),
    on(Put, Under("/v1/query/"), Write, query::update),
    on(Delete, Under("/v1/query/"), Write, query::delete),
    on(Put, Exact("/v1/acl/create"), Write, acl::create),
    on(Put, Exact("/v1/acl/update"), Write, acl::update),
    on(Put, Under("/v1/acl/destroy/"), Write, acl::destroy),
    on(Put, Under("/v1/acl/clone/"), Write, acl::clone),
    on(Any, Under("/v1/acl/info/"), Read, acl::info),
    on(Any, Exact("/v1/acl/list"), Read, acl::list),
    on(Any, Exact("/v1/acl/replication"), Read, acl::replication),
    on(Put, Under("/v1/event/fire/"), Write, event::fire),
    on(Any, Exact("/v1/event/list"), Read, event::list),
    on(
        Any,
        Exact("/v1/coordinate/datacenters"),
        Read,
        coordinate::datacenters,
    ),
    on(Any, Exact("/v1/coordinate/nodes"), Read, coordinate::nodes),
    on(Any, Exact("/v1/status/leader"), Read, status::leader),
    on(Any, Exact("/v1/status/peers"), Read, status::peers),
    on(Any, Exact("/v1/agent/self"), Read, agent::this),
    on(Any, Exact("/v1/agent/members"), Read, agent::members),
    on(Any, Under("/v1/agent/join/"), Write, agent::join),
    on(
        Any,
        Under("/v1/agent/force-leave/"),
        Write,
        agent::force_leave,
    ),
    on(Put, Exact("/v1/agent/leave"), Write, agent::leave),
    on(Put, Exact("/v1/agent/reload"), Write, agent::reload),
    on(Get, Exact("/v1/agent/monitor"), Read, agent::monitor),
    on(Get, Exact("/v1/agent/metrics"), Read, figures::metrics),
    on(Any, Exact("/v1/agent/services"), Read, local::services),
    on(Any, Exact("/v1/agent/checks"), Read, local::checks),
    on(
        Any,
        Exact("/v1/agent/check/register"),
        Write,
        local::register_check,
    ),
    on(
        Any,
        Under("/v1/agent/check/deregister/"),
        Write,
        local::deregister_check,
    ),
    on(Any, Under("/v1/agent/check/pass/"), Write, local::pass),
    on(Any, Under("/v1/agent/check/warn/"), Write, local::warn),
    on(Any, Under("/v1/agent/check/fail/"), Write, local::fail),
    on(Put, Under("/v1/agent/check/update/"), Write, local::update),
    on(
        Any,
        Exact("/v1/agent/service/register"),
        Write,
        local::register_service,
    ),
    on(
        Any,
        Under("/v1/agent/service/deregister/"),
        Write,
        local::deregister_service,
    ),
    on(
        Put,
        Under("/v1/agent/service/maintenance/"),
        Write,
        local::service_maintenance,
    ),
    on(
        Put,
        Exact("/v1/agent/maintenance"),
        Write,
        local::node_maintenance,
    ),
    on(
        Get,
        Exact("/v1/operator/raft/configuration"),
        Read,
        operator::raft_configuration,
    ),
    on(
        Delete,
        Exact("/v1/operator/raft/peer"),
        Write,
        operator::raft_remove_peer,
    ),
    on(Get, Exact("/v1/operator/keyring"), Read, operator::keys),
    on(
        Post,
        Exact("/v1/operator/keyring"),
        Write,
        operator::install_key,
    ),
    on(Put, Exact("/v1/operator/keyring"), Write, operator::use_key),
    on(
        Delete,
        Exact("/v1/operator/keyring"),
        Write,
        operator::remove_key,
    ),
    on(Get, Exact("/v1/snapshot"), Read, snapshot::save),
    on(Put, Exact("/v1/snapshot"), Stream, snapshot::restore),
    on(
        Put,
        Exact("/v1/snapshot/part"),
        Stream,
        snapshot::restore_part,
    ),
];

/// Every endpoint: its method, `ANY` where the handler doesn't look, and its path, which goes on if it ends in a slash.
pub fn endpoints() -> impl Iterator<Item = (&'static str, &'static str)> {
    ROUTES.iter().map(|route| {
        let method = match route.verb {
            Any => "ANY",
            Get => "GET",
            Put => "PUT",
            Post => "POST",
            Delete => "DELETE",
        };
        let (Exact(path) | Under(path)) = route.path;
        (method, path)
    })
}

/// The methods whose requests are timed.
const METHODS: [Method; 5] = [
    Method::GET,
    Method::PUT,
    Method::POST,
    Method::DELETE,
    Method::HEAD,
];

/// The figures of a line: `consul.http.GET.v1.kv._`, as the original calls them.
fn timers(route: &Route) -> [Histogram; METHODS.len()] {
    let path = match route.path {
        Exact(path) => path.to_owned(),
        Under(prefix) => format!("{prefix}_"),
    };
    let path = path.replace('/', ".");
    METHODS.map(|method| {
        if route.verb.is(&method) {
            metrics::histogram!(format!("consul.http.{method}{path}"))
        } else {
            Histogram::noop()
        }
    })
}

/// Runs from the moment at which a request was read.
struct Timer {
    histogram: Histogram,
    began: Instant,
}

impl Timer {
    /// The answer is there.
    fn stop(self) {
        // In milliseconds, as the original's.
        self.histogram
            .record(self.began.elapsed().as_secs_f64() * 1000.0);
    }
}

/// What follows is a key, and opaque: `..`, `//` and an encoded `/` are bytes of it like any others.
const KV: &str = "/v1/kv/";

/// A subject that is switched off answers 401, whatever is asked of it.
fn switched_off(config: &Config, path: &[u8]) -> Option<&'static str> {
    if config.acl_datacenter.is_empty() && path.starts_with(b"/v1/acl/") {
        return Some("ACL support disabled");
    }
    if config.disable_coordinates && path.starts_with(b"/v1/coordinate/") {
        return Some("Coordinate support disabled");
    }
    None
}

/// `/v1` over a cluster, on an agent. Made by [`service`](crate::service).
#[derive(Debug)]
pub struct Api {
    pub(crate) cluster: Cluster,
    pub(crate) agent: Agent,
    pub(crate) config: Config,
    pub(crate) chance: Chance,
    /// So that a request that names no datacenter costs no allocation for saying so.
    pub(crate) empty: Text,
    headers: RwLock<Headers>,
    /// How long each line of the table takes, by method: in the order of [`ROUTES`], and of [`METHODS`].
    timers: Vec<[Histogram; METHODS.len()]>,
    /// Room for large bodies, in bytes.
    room: Arc<Semaphore>,
}

/// Bodies up to this size are not counted: together with their connections they are bounded well enough.
const SMALL_BODY: usize = 16 * 1024;

impl Api {
    pub(crate) fn new(cluster: Cluster, agent: Agent, config: Config) -> Self {
        let headers = response_headers(&config.response_headers);
        Self {
            cluster,
            agent,
            chance: Chance::new(config.seed),
            empty: Text::default(),
            headers: RwLock::new(headers),
            timers: ROUTES.iter().map(timers).collect(),
            room: Arc::new(Semaphore::new(config.bodies_bytes_max as usize)),
            config,
        }
    }
}

impl Service for Arc<Api> {
    fn call(&self, mut request: Request) -> Reaction {
        let body = request.take_body();
        // One that does not say its length may be as long as it is let.
        let length = body
            .length()
            .and_then(|length| usize::try_from(length).ok());
        let length = length.unwrap_or(usize::MAX).min(self.config.json_bytes_max);
        // The engine lets no bad escape through; a path that had one would be none of ours.
        let Some(path) = percent::decode(request.path(), Part::Path) else {
            return Response::new(StatusCode::BAD_REQUEST).into();
        };
        if !path.starts_with(KV.as_bytes())
            && let Some(clean) = cleaned(&path)
        {
            return moved(&request, &clean).into();
        }
        let began = Instant::now();
        let (place, argument) = match find(request.method(), &path) {
            Found::Route(place, argument) => (place, argument),
            Found::OtherMethods => {
                let status = match switched_off(&self.config, &path) {
                    Some(text) => Response::text(StatusCode::UNAUTHORIZED, text),
                    None => Response::new(StatusCode::METHOD_NOT_ALLOWED),
                };
                return with_headers(status, &self.headers()).into();
            }
            Found::ParentOf(subtree) => return moved(&request, subtree).into(),
            Found::Nothing if *path == *b"/" => {
                return Response::text(StatusCode::OK, "Consul Agent").into();
            }
            Found::Nothing => return Response::new(StatusCode::NOT_FOUND).into(),
        };
        let route = &ROUTES[place];
        let timer = Timer {
            histogram: self.timer(place, request.method()),
            began,
        };
        let answer = if let Some(text) = switched_off(&self.config, &path) {
            Response::text(StatusCode::UNAUTHORIZED, text).into()
        } else if let Some(query) = QueryString::parse(request.query()) {
            let call = Call {
                api: self,
                request: &request,
                argument,
                query,
                body,
            };
            (route.handler)(call).unwrap_or_else(Answer::Now)
        } else {
            Response::new(StatusCode::INTERNAL_SERVER_ERROR).into()
        };
        match (answer, route.policy) {
            (Answer::Now(response), _) => {
                timer.stop();
                with_headers(response, &self.headers()).into()
            }
            (Answer::Soon(response), Read) => Reaction::Park(self.finished(timer, response)),
            (Answer::Soon(response), Write) => {
                Reaction::Later(self.finished(timer, self.in_room(length, response)))
            }
            (Answer::Soon(response), Stream) => Reaction::Later(self.finished(timer, response)),
        }
    }
}

impl Api {
    /// The same answer once there is room for a body of this length; until then nobody reads it.
    fn in_room(
        &self,
        length: usize,
        response: BoxFuture<'static, Response>,
    ) -> BoxFuture<'static, Response> {
        if length <= SMALL_BODY {
            return response;
        }
        let room = Arc::clone(&self.room);
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        let length = length.min(self.config.bodies_bytes_max);
        Box::pin(async move {
            // It is never closed; and without it the answer would come all the same.
            let _room = room.acquire_many_owned(length).await;
            response.await
        })
    }

    /// The same answer with the configured headers, and timed.
    fn finished(
        &self,
        timer: Timer,
        response: BoxFuture<'static, Response>,
    ) -> BoxFuture<'static, Response> {
        let headers = self.headers();
        Box::pin(async move {
            let response = response.await;
            timer.stop();
            with_headers(response, &headers)
        })
    }

    /// Sends these headers with every answer from now on.
    pub fn set_response_headers(&self, headers: &[(String, String)]) {
        let headers = response_headers(headers);
        *self.headers.write().unwrap_or_else(PoisonError::into_inner) = headers;
    }

    fn headers(&self) -> Headers {
        let headers = self.headers.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&headers)
    }

    fn timer(&self, place: usize, method: &Method) -> Histogram {
        let method = METHODS.iter().position(|known| known == method);
        match method {
            Some(method) => self.timers[place][method].clone(),
            None => Histogram::noop(),
        }
    }
}

/// The configured headers, ready to be sent.
type Headers = Arc<[(Cow<'static, str>, HeaderValue)]>;

fn response_headers(configured: &[(String, String)]) -> Headers {
    let fit = configured.iter().filter(|(name, _)| is_configurable(name));
    fit.map(|(name, value)| {
        (
            Cow::Owned(title_case(name)),
            HeaderValue::from(value.clone()),
        )
    })
    .collect()
}

/// Whether a header may be configured.
///
/// What a body is and where it ends is not for configuration to say: with `text/html` on every answer a browser would run what an error repeats of its request.
fn is_configurable(name: &str) -> bool {
    const OURS: [&str; 5] = [
        "Content-Type",
        "X-Content-Type-Options",
        "Content-Length",
        "Transfer-Encoding",
        "Connection",
    ];
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let is_fit = !name.is_empty()
        && name.bytes().all(is_name)
        && !OURS.iter().any(|ours| ours.eq_ignore_ascii_case(name));
    if !is_fit {
        tracing::warn!("the response header {name:?} can't be configured and is left out");
    }
    is_fit
}

/// The name as the original writes it: `X-Frame-Options`.
fn title_case(name: &str) -> String {
    let mut upper = true;
    let case = |c: char| {
        let cased = if upper {
            c.to_ascii_uppercase()
        } else {
            c.to_ascii_lowercase()
        };
        upper = c == '-';
        cased
    };
    name.chars().map(case).collect()
}

/// The configured headers do not replace those that the answer needs.
fn with_headers(mut response: Response, headers: &[(Cow<'static, str>, HeaderValue)]) -> Response {
    for (name, value) in headers {
        if response.header(name).is_none() {
            response.set_header(name.clone(), value.clone());
        }
    }
    response
}

enum Found<'a> {
    /// The line at this place, and what follows its path.
    Route(usize, &'a [u8]),
    /// The path is known, but not with this method.
    OtherMethods,
    /// The path lacks only the slash of this one.
    ParentOf(&'static [u8]),
    Nothing,
}

fn find<'a>(method: &Method, path: &'a [u8]) -> Found<'a> {
    let mut found = Found::Nothing;
    for (place, route) in ROUTES.iter().enumerate() {
        let argument = match route.path {
            Exact(exact) if *path == *exact.as_bytes() => &[],
            Under(prefix) => match path.strip_prefix(prefix.as_bytes()) {
                Some(argument) => argument,
                None => {
                    if prefix.as_bytes().strip_suffix(b"/") == Some(path)
                        && matches!(found, Found::Nothing)
                    {
                        found = Found::ParentOf(prefix.as_bytes());
                    }
                    continue;
                }
            },
            Exact(_) => continue,
        };
        if route.verb.is(method) {
            return Found::Route(place, argument);
        }
        found = Found::OtherMethods;
    }
    found
}

impl Verb {
    fn is(self, method: &Method) -> bool {
        match self {
            Any => true,
            Get => method == Method::GET,
            Put => method == Method::PUT,
            Post => method == Method::POST,
            Delete => method == Method::DELETE,
        }
    }
}

/// The path without empty, `.` and `..` segments; `None` if it has none.
///
/// A key is left alone as soon as what stands before it is clean.
fn cleaned(path: &[u8]) -> Option<Vec<u8>> {
    let is_clean = |segment: &[u8]| !matches!(segment, b"" | b"." | b"..");
    let (first, last) = (path.first() == Some(&b'/'), path.last() == Some(&b'/'));
    let inner = path.strip_prefix(b"/").unwrap_or(path);
    let inner = inner.strip_suffix(b"/").unwrap_or(inner);
    if first && (path.len() == 1 || inner.split(|byte| *byte == b'/').all(is_clean)) {
        return None;
    }
    let mut out = Vec::with_capacity(path.len() + 1);
    let mut rest = path;
    while !rest.is_empty() {
        let len = memchr::memchr(b'/', rest).unwrap_or(rest.len());
        let (segment, after) = rest.split_at(len);
        rest = after.strip_prefix(b"/").unwrap_or(after);
        match segment {
            b"" | b"." => {}
            b".." => out.truncate(memchr::memrchr(b'/', &out).unwrap_or(0)),
            _ => {
                out.push(b'/');
                out.extend_from_slice(segment);
            }
        }
        if out == b"/v1/kv" && !after.is_empty() {
            out.push(b'/');
            out.extend_from_slice(rest);
            return Some(out);
        }
    }
    if out.is_empty() || last {
        out.push(b'/');
    }
    Some(out)
}

/// A redirect to this path, with the request's own query string.
fn moved(request: &Request, path: &[u8]) -> Response {
    let mut location = String::new();
    percent::encode(path, Part::Path, &mut location);
    if let Some(query) = request.query() {
        location.push('?');
        // Nothing but visible ASCII belongs into a header.
        for byte in query {
            match byte {
                0x21..0x7f => location.push(char::from(*byte)),
                _ => percent::encode(&[*byte], Part::Path, &mut location),
            }
        }
    }
    let response = Response::new(StatusCode::MOVED_PERMANENTLY);
    if request.method() != Method::GET {
        return response.with_header("Location", location);
    }
    let mut body = String::from("<a href=\"");
    for character in location.chars() {
        match character {
            '<' => body.push_str("&lt;"),
            '>' => body.push_str("&gt;"),
            '&' => body.push_str("&amp;"),
            '"' => body.push_str("&#34;"),
            '\'' => body.push_str("&#39;"),
            _ => body.push(character),
        }
    }
    body.push_str("\">Moved Permanently</a>.\n\n");
    response
        .with_header("Location", location)
        .with_header("Content-Type", "text/html; charset=utf-8")
        .with_body(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleans_paths() {
        for (path, expected) in [
            ("/", None),
            ("/v1/agent/self", None),
            ("/v1/catalog/service/", None),
            ("/v1/catalog/service/a.b", None),
            ("", Some("/")),
            ("*", Some("/*")),
            ("//", Some("/")),
            ("//v1/agent/self", Some("/v1/agent/self")),
            ("/v1//agent/self", Some("/v1/agent/self")),
            ("/v1/./agent/self/", Some("/v1/agent/self/")),
            ("/v1/x/../agent/self", Some("/v1/agent/self")),
            ("/../../v1", Some("/v1")),
            ("/..", Some("/")),
            ("/v1/catalog/service//", Some("/v1/catalog/service/")),
            // a key stays as it is
            ("//v1/kv/a//b/../c/", Some("/v1/kv/a//b/../c/")),
            ("//v1/kv", Some("/v1/kv")),
        ] {
            let clean = cleaned(path.as_bytes()).map(|clean| String::from_utf8(clean).unwrap());
            assert_eq!(clean.as_deref(), expected, "{path}");
        }
    }
}
