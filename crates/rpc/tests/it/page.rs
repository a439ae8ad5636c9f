//! The bytes that `docs/rpc.md` shows.

use rpc::frame::{self, Kind};
use rpc::{Hop, Refusal, Request, Response};
use wire::compact;

/// The bytes of the page's line that begins with this word.
fn example(word: &str) -> Vec<u8> {
    let page = include_str!("../../../../docs/rpc.md");
    let line = page.lines().find(|line| line.starts_with(word)).unwrap();
    let bytes = line.split_whitespace().skip(1);
    bytes
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect()
}

#[test]
fn the_page_shows_a_ping_and_its_answer() {
    let asked = example("asked ");
    let (preface, rest) = asked.split_at(2);
    assert_eq!(preface, [4, 1]);
    let (ask, size) = frame::decode(rest).unwrap().unwrap();
    assert_eq!((ask.kind, ask.id, size), (Kind::Ask, 1, rest.len()));
    let request: (Hop, Request) = compact::from_slice(ask.payload).unwrap();
    assert_eq!(request, (Hop::First, Request::Ping));

    let answered = example("answered ");
    let (answer, size) = frame::decode(&answered).unwrap().unwrap();
    assert_eq!(
        (answer.kind, answer.id, size),
        (Kind::Answer, 1, answered.len())
    );
    let response: Result<Response, Refusal> = compact::from_slice(answer.payload).unwrap();
    assert!(matches!(response, Ok(Response::Ping)));
}
