//! What comes over a connection from another member: frames, parts of messages, and the requests in them.
#![no_main]

use rpc::frame::{self, Assembly, Kind, Room};
use rpc::{Hop, Request};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let room = Room::new(1 << 20);
    let mut assembly = Assembly::new(1 << 18, room.clone());
    let mut rest = bytes;
    loop {
        match frame::decode(rest) {
            Err(error) => {
                let _ = error.to_string();
                break;
            }
            Ok(None) => break,
            Ok(Some((frame, size))) => {
                let mut again = Vec::new();
                frame::append(&mut again, frame);
                assert_eq!(again, rest[..size], "out and in changes nothing");
                let taken = match frame.kind {
                    Kind::AskPart | Kind::AnswerPart => assembly.part(frame.id, frame.payload),
                    _ => assembly.last(frame.id, frame.payload).map(|message| {
                        let _ = wire::compact::from_slice::<(Hop, Request)>(&message);
                    }),
                };
                if taken.is_err() {
                    break;
                }
                rest = &rest[size..];
            }
        }
    }
    drop(assembly);
    assert_eq!(room.taken(), 0, "all room is given back");
});
