use std::collections::VecDeque;

use model::{KvGet, KvOp, KvVerb, Text};

use super::*;
use crate::{Meta, NoCalls};

/// Calls that end as they were told to, in order, and say who was asked what.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    ends: VecDeque<(Duration, End)>,
    asked: Vec<(String, Option<Duration>)>,
}

enum End {
    NotSent,
    Broken,
    Failed(Error),
    Done,
}

impl Script {
    fn then(self, after: Duration, end: End) -> Self {
        self.0.lock().unwrap().ends.push_back((after, end));
        self
    }

    fn asked(&self) -> Vec<(String, Option<Duration>)> {
        std::mem::take(&mut self.0.lock().unwrap().asked)
    }
}

impl Calls for Script {
    fn call(
        &self,
        server: &ServerAddress,
        _: Hop,
        request: Request,
    ) -> BoxFuture<'static, Result<Response, CallError>> {
        let wait = match &request {
            Request::Read(_, options) => Some(options.wait),
            _ => None,
        };
        let mut state = self.0.lock().unwrap();
        state.asked.push((server.node.clone(), wait));
        let end = state.ends.pop_front();
        Box::pin(async move {
            let (after, end) = end.unwrap_or((Duration::ZERO, End::NotSent));
            tokio::time::sleep(after).await;
            match end {
                End::NotSent => Err(CallError::NotSent("failed to get conn: refused".into())),
                End::Broken => Err(CallError::Broken("cut".into())),
                End::Failed(error) => Err(Refusal::Failed(error).into()),
                End::Done => Ok(match request {
                    Request::Read(..) => Response::Read(Answered {
                        answer: Answer::KvGet(None),
                        meta: Meta::default(),
                    }),
                    Request::Write(..) => Response::Write(Reply::Nothing),
                    Request::Operate(..) => Response::Operate(Operated::Nothing),
                    Request::Ping => Response::Ping,
                }),
            }
        })
    }

    fn save(
        &self,
        server: &ServerAddress,
        hop: Hop,
        options: SaveOptions,
    ) -> BoxFuture<'static, Result<Save, CallError>> {
        NoCalls.save(server, hop, options)
    }

    fn restore(
        &self,
        server: &ServerAddress,
        hop: Hop,
        options: RestoreOptions,
        archive: ByteStream,
    ) -> BoxFuture<'static, Result<Restored, CallError>> {
        NoCalls.restore(server, hop, options, archive)
    }
}

fn server(node: &str) -> ServerAddress {
    ServerAddress {
        address: ([127, 0, 0, 1], 8300).into(),
        node: node.to_owned(),
        datacenter: "dc1".to_owned(),
    }
}

fn distant(script: &Script, nodes: &[&str]) -> Distant {
    let mut servers = Servers::new(3);
    servers.set(nodes.iter().map(|node| server(node)).collect());
    let order: Vec<_> = nodes.iter().map(|node| server(node)).collect();
    servers.prefer(&order);
    Distant::new(Arc::new(script.clone()), servers)
}

fn write(distant: &Distant) -> BoxFuture<'static, Result<Reply, Error>> {
    let op = KvOp {
        verb: KvVerb::Set,
        key: Text::from("k"),
        value: Text::default(),
        flags: 0,
    };
    distant.write(Command::Kv(op), WriteOptions::default())
}

fn read(distant: &Distant, index: u64) -> BoxFuture<'static, Result<Answered<Answer>, Error>> {
    let options = ReadOptions {
        index,
        wait: Duration::from_secs(300),
        ..ReadOptions::default()
    };
    distant.read(KvGet { key: "k".into() }.into(), options)
}

fn names(asked: Vec<(String, Option<Duration>)>) -> Vec<String> {
    asked.into_iter().map(|(node, _)| node).collect()
}

const NOW: Duration = Duration::ZERO;

#[tokio::test(start_paused = true)]
async fn without_servers_nobody_waits() {
    let started = Instant::now();
    let distant = distant(&Script::default(), &[]);
    assert_eq!(read(&distant, 0).await.unwrap_err(), Error::NoServers);
    assert_eq!(write(&distant).await, Err(Error::NoServers));
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_write_in_flight_is_never_repeated() {
    let script = Script::default().then(NOW, End::Broken);
    let distant = distant(&script, &["a", "b"]);
    let error = write(&distant).await.unwrap_err();
    assert_eq!(error.kind(), &Error::OutcomeUnknown);
    assert_eq!(names(script.asked()), ["a"]);
    assert_eq!(distant.servers().head().unwrap().node, "b");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_was_not_sent_goes_elsewhere() {
    let script = Script::default()
        .then(NOW, End::NotSent)
        .then(NOW, End::Done);
    let distant = distant(&script, &["a", "b"]);
    assert_eq!(write(&distant).await, Ok(Reply::Nothing));
    assert_eq!(names(script.asked()), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_read_looks_for_seven_seconds() {
    let script = Script::default();
    let distant = distant(&script, &["a", "b"]);
    let started = Instant::now();
    let error = read(&distant, 0).await.unwrap_err();
    assert_eq!(error.to_string(), "rpc error: failed to get conn: refused");
    let took = started.elapsed();
    assert!(
        took >= HOLD_MAX && took < HOLD_MAX + Duration::from_secs(1),
        "{took:?}"
    );
    let asked = script.asked();
    assert!((20..200).contains(&asked.len()), "{}", asked.len());
}

#[tokio::test(start_paused = true)]
async fn a_waiting_read_outlives_its_servers() {
    let minute = Duration::from_secs(60);
    let script = Script::default()
        .then(minute, End::Broken)
        .then(minute, End::Broken)
        .then(minute, End::Done);
    let distant = distant(&script, &["a", "b"]);
    read(&distant, 5).await.unwrap();
    let waits: Vec<_> = script
        .asked()
        .into_iter()
        .map(|(_, wait)| wait.unwrap().as_secs())
        .collect();
    assert_eq!(waits, [300, 240, 180]);
}

#[tokio::test(start_paused = true)]
async fn what_was_answered_is_the_answer() {
    let refused = || End::Failed(Error::PermissionDenied);
    let script = Script::default()
        .then(NOW, refused())
        .then(NOW, End::Failed(Error::NoLeader));
    let distant = distant(&script, &["a", "b"]);
    let error = read(&distant, 0).await.unwrap_err();
    assert_eq!(error, Error::PermissionDenied.from_afar());
    assert_eq!(error.to_string(), "rpc error: Permission denied");
    // It is not the server's fault.
    assert_eq!(distant.servers().head().unwrap().node, "a");
    let error = read(&distant, 0).await.unwrap_err();
    assert_eq!(error, Error::NoLeader.from_afar());
    assert_eq!(names(script.asked()), ["a", "a"]);
    assert_eq!(distant.servers().head().unwrap().node, "b");
}

#[tokio::test(start_paused = true)]
async fn a_new_order_begins_with_a_server_that_answers() {
    let script = Script::default()
        .then(PING_TIMEOUT * 2, End::Done)
        .then(NOW, End::NotSent)
        .then(NOW, End::Done);
    let distant = distant(&script, &["a", "b", "c"]);
    distant.draw().await;
    let asked = names(script.asked());
    assert_eq!(asked.len(), 3);
    assert_eq!(distant.servers().head().unwrap().node, asked[2]);
    // Nobody answers: the order stays.
    let before = distant.servers().all().to_vec();
    distant.draw().await;
    assert_eq!(distant.servers().all(), before);
}
