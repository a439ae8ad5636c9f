//! What an agent does that may open few files.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use crate::process::Agent;

/// A connection as other members make it, if it is served: "requests, version 1", and a ping (`docs/rpc.md`).
fn call(address: SocketAddr) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(&[4, 1, 6, 0, 0, 0, 0, 0, 0, 0, 0]).ok()?;
    let mut pong = [0; 9];
    stream.read_exact(&mut pong).ok()?;
    assert_eq!(pong, [7, 0, 0, 0, 0, 0, 0, 0, 0]);
    Some(stream)
}

#[test]
fn connections_leave_files_for_the_log() {
    let room = tempfile::tempdir().unwrap();
    // 256 are kept for what is no connection, half of the others are for other members, and one address has a quarter of these.
    let agent = Agent::start_with_files(room.path(), 256 + 64);
    let calls: Vec<_> = (0..20).filter_map(|_| call(agent.calls)).collect();
    assert_eq!(calls.len(), 8, "{}", agent.log());
    agent.expect("PUT", "/v1/kv/key", b"value");
}
