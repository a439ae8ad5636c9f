//! Snapshots that go to an S3 store: what the program takes to send them, whatever their size.
//!
//! The store is one on loopback that throws away what it is sent and says that it has it, so that its own speed and memory
//! don't count.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};

use super::Setting;
use super::kv::load_keys;
use super::process::Agent;
use super::snapshots::Run;
use super::table::Measure;

const SIZE: usize = 512;
const MEGABYTE: f64 = 1e6;

/// So many keys, and what the figures are called.
const SNAPSHOTS: [(u64, [&str; 3]); 2] = [
    (
        200_000,
        [
            "snapshot save to S3, a small one",
            "small: sent",
            "small: peak memory",
        ],
    ),
    (
        1_000_000,
        [
            "snapshot save to S3, a large one",
            "large: sent",
            "large: peak memory",
        ],
    ),
];

pub(super) fn save(setting: &Setting) -> Result<Vec<Measure>> {
    let mut measures = Vec::new();
    let agent = setting.agent()?;
    for (keys, [length, pace, memory]) in SNAPSHOTS {
        load_keys(agent.address, keys, SIZE, keys)?;
        agent.settle()?;
        let store = Sink::start()?;
        let run = save_once(setting, &agent, &store)?;
        let sent = count(store.received.load(Ordering::Relaxed)) / MEGABYTE;
        measures.extend([
            Measure::shown(length, "MB", sent),
            Measure::shown(pace, "MB/s", sent / run.took.as_secs_f64()),
            Measure::at_most(memory, "MB", run.peak / MEGABYTE, 64.0),
        ]);
    }
    Ok(measures)
}

/// What no snapshot of ours is too large for.
#[allow(
    clippy::cast_precision_loss,
    reason = "bytes of a few snapshots are far below 2^53"
)]
fn count(bytes: u64) -> f64 {
    bytes as f64
}

fn save_once(setting: &Setting, agent: &Agent, store: &Sink) -> Result<Run> {
    let mut command = Command::new(&setting.program);
    command
        .args(["snapshot", "save"])
        .arg(format!("-http-addr={}", agent.address))
        .arg("s3://bench/one.snap")
        .env("AWS_S3_ENDPOINT", format!("http://{}", store.address))
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", "bench")
        .env("AWS_SECRET_ACCESS_KEY", "bench");
    Run::of(&mut command, 0)
}

/// A store that keeps nothing.
struct Sink {
    address: SocketAddr,
    /// How many bytes of objects it was sent.
    received: Arc<AtomicU64>,
}

impl Sink {
    /// Its threads end with the connections; the one that waits for those ends with this program.
    fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("opening a port")?;
        let address = listener.local_addr()?;
        let received = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&received);
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let counted = Arc::clone(&counted);
                // A connection that breaks shows in the program's exit code.
                std::thread::spawn(move || drop(serve(socket, &counted)));
            }
        });
        Ok(Self { address, received })
    }
}

/// Answers the requests of one connection.
fn serve(socket: TcpStream, received: &AtomicU64) -> Result<()> {
    let mut answers = socket.try_clone()?;
    let mut requests = BufReader::with_capacity(1 << 20, socket);
    loop {
        let mut first = String::new();
        if requests.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let mut length = 0;
        loop {
            let mut line = String::new();
            if requests.read_line(&mut line)? <= 2 {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse()?;
            }
        }
        let body = requests.by_ref().take(length);
        let read = std::io::copy(&mut { body }, &mut std::io::sink())?;
        if read != length {
            bail!("a request broke off");
        }
        answers.write_all(answer(&first, length, received).as_bytes())?;
    }
}

/// What a store says to a request of this first line.
fn answer(first: &str, length: u64, received: &AtomicU64) -> String {
    let of = |body: &str| {
        let length = body.len();
        format!("HTTP/1.1 200 OK\r\netag: \"e\"\r\ncontent-length: {length}\r\n\r\n{body}")
    };
    match first.split(' ').next() {
        Some("POST") if first.contains("?uploads") => {
            of("<InitiateMultipartUploadResult><Bucket>bench</Bucket>\
             <Key>one.snap</Key><UploadId>1</UploadId></InitiateMultipartUploadResult>")
        }
        Some("POST") => of(
            "<CompleteMultipartUploadResult><Bucket>bench</Bucket><Key>one.snap</Key>\
             <ETag>e</ETag></CompleteMultipartUploadResult>",
        ),
        // All of it is there.
        Some("HEAD") => {
            let length = received.load(Ordering::Relaxed);
            format!(
                "HTTP/1.1 200 OK\r\netag: \"e\"\r\nlast-modified: Mon, 23 Nov 2026 00:00:00 GMT\r\ncontent-length: \
                 {length}\r\n\r\n"
            )
        }
        _ => {
            received.fetch_add(length, Ordering::Relaxed);
            of("")
        }
    }
}
