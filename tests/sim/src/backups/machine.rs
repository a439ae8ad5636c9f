//! A machine on which snapshot agents run: the consul agent there with its face, and the way to it from a process.
//!
//! Between the two lies everything but sockets: the real client, the real `/v1` of the real agent, which reaches the servers
//! over the simulated network.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use agent::{
    Events, FiguresSnapshot, Journal, Member, Neighbours, Parts, Sections, Settings, Tokens, Wish,
};
use api::http::{Reaction, ResponseBody, Service};
use bytes::Bytes;
use client::{Body, Pieces, Request, Response, Transport};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use http::{HeaderName, HeaderValue};
use model::Pairs;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tokio::sync::{mpsc, oneshot};

use super::process::Process;
use super::witness::Witness;
use crate::agents::{Agent, Machine};
use crate::check::Violation;
use crate::world::Death;

/// A machine and what runs there.
pub(super) struct Host {
    pub(super) machine: Machine,
    running: Mutex<Option<Running>>,
}

struct Running {
    agent: Agent,
    face: Face,
}

/// The face of an agent that runs.
#[derive(Clone)]
struct Face {
    api: Arc<api::Api>,
    death: Arc<Death>,
}

impl Host {
    pub(super) fn new(machine: Machine) -> Self {
        Self {
            machine,
            running: Mutex::default(),
        }
    }

    fn running<T>(&self, look: impl FnOnce(&mut Option<Running>) -> T) -> T {
        look(&mut self.running.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Starts the consul agent, which has forgotten what was registered there.
    pub(super) async fn start(&self, chance: &mut ChaCha8Rng) -> Result<(), Violation> {
        let definitions = agent::Definitions::default();
        let started = self.machine.start(definitions, Pairs::new(), chance);
        let agent = started.await?;
        let identity = self.machine.identity();
        let settings = Settings::default();
        let (wishes, wished) = mpsc::channel::<Wish>(1);
        drop(wished);
        let parts = Parts {
            neighbours: Box::new(Alone(identity.member(&settings))),
            journal: Journal::default(),
            wishes,
            stats: Box::new(Sections::new),
            figures: Box::new(FiguresSnapshot::default),
            local: agent.local.clone(),
            tokens: Tokens::unjudged(),
            events: Events::default(),
        };
        let config = api::Config {
            seed: chance.random(),
            ..api::Config::default()
        };
        let this = agent::Agent::new(identity, settings, parts);
        let face = Face {
            api: api::service(agent.cluster.clone(), this, config),
            death: Arc::default(),
        };
        self.running(|running| *running = Some(Running { agent, face }));
        Ok(())
    }

    /// The consul agent is killed.
    pub(super) fn kill(&self) {
        if let Some(Running { agent, face }) = self.running(Option::take) {
            face.death.strike();
            self.machine.kill(agent);
        }
    }

    fn face(&self) -> Option<Face> {
        self.running(|running| running.as_ref().map(|running| running.face.clone()))
    }
}

/// What the snapshot agent has no use for.
struct Alone(Member);

impl Neighbours for Alone {
    fn members(&self) -> Vec<Member> {
        vec![self.0.clone()]
    }

    fn coordinate(&self) -> Option<model::Coordinate> {
        None
    }

    fn join(&self, _: Vec<String>) -> BoxFuture<'static, Result<usize, agent::JoinError>> {
        Box::pin(async { Ok(0) })
    }

    fn force_leave(&self, _: String) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }
}

/// The way from a process to the consul agent of its machine.
pub(super) struct Loopback {
    pub(super) host: Arc<Host>,
    pub(super) process: Process,
    /// Who notes what is of interest, if that is wanted.
    pub(super) witness: Option<Witness>,
}

impl fmt::Debug for Loopback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Loopback")
    }
}

impl Transport for Loopback {
    fn send(&self, request: Request) -> BoxFuture<'_, io::Result<Response>> {
        self.carry(request).boxed()
    }
}

impl Loopback {
    async fn carry(&self, request: Request) -> io::Result<Response> {
        self.process.awake().await;
        let face = self.host.face().ok_or_else(|| {
            io::Error::other("dial tcp 127.0.0.1:8500: connect: connection refused")
        })?;
        let (head, body) = request.into_parts();
        let body = whole(body).await?;
        let target = head.uri.path_and_query();
        let target = target.map_or("/", http::uri::PathAndQuery::as_str);
        let mut headers = Vec::new();
        for (name, value) in &head.headers {
            headers.push((name.as_str(), value.to_str().map_err(io::Error::other)?));
        }
        let asked = api::http::Request::new(&head.method, target, &headers, body)
            .ok_or_else(|| io::Error::other("a client can't send this"))?;
        let witness = self.witness.as_ref();
        let call = witness.map(|witness| {
            let call = witness.called(&self.process, &head.method, target);
            (witness, call)
        });
        let broken = || io::Error::other("EOF");
        let answer = async {
            match face.api.call(asked) {
                Reaction::Now(answer) => Ok(answer),
                Reaction::Park(answer) => Ok(answer.await),
                Reaction::Later(answer) => {
                    // It is carried through, whether or not the caller is still there.
                    let (tell, told) = oneshot::channel();
                    tokio::spawn(async move { tell.send(answer.await) });
                    told.await.map_err(|_| broken())
                }
            }
        };
        let answer = tokio::select! {
            biased;
            () = face.death.come() => Err(broken()),
            answer = answer => answer,
        }?;
        self.process.awake().await;
        let status = answer.status;
        let mut fields = http::HeaderMap::new();
        for (name, value) in answer.headers() {
            let name = HeaderName::try_from(name).map_err(io::Error::other)?;
            let value = HeaderValue::try_from(value.to_string()).map_err(io::Error::other)?;
            fields.insert(name, value);
        }
        let body = match answer.body {
            ResponseBody::Full(body) => {
                if let Some((witness, call)) = call {
                    witness.answered(&self.process, call, status, &body);
                }
                Pieces::new(futures::stream::iter([Ok(body)]))
            }
            ResponseBody::Stream(pieces) => {
                let pieces = pieces.map_err(io::Error::other);
                let state = (pieces, face.death, self.process.clone());
                Pieces::new(futures::stream::unfold(state, |state| async {
                    let (mut pieces, death, process) = state;
                    let piece = tokio::select! {
                        biased;
                        () = death.come() => Some(Err(io::Error::other("unexpected EOF"))),
                        piece = pieces.next() => piece,
                    };
                    process.awake().await;
                    piece.map(|piece| (piece, (pieces, death, process)))
                }))
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = fields;
        Ok(response)
    }
}

/// All of a body: what simulated clients send is short.
async fn whole(body: Body) -> io::Result<Bytes> {
    match body {
        Body::Whole(bytes) => Ok(bytes),
        Body::Pieces(mut pieces) => {
            let mut all = Vec::new();
            while let Some(piece) = pieces.try_next().await? {
                all.extend_from_slice(&piece);
            }
            Ok(all.into())
        }
    }
}
