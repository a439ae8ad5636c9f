use proptest::prelude::*;

use super::*;

fn framed(payloads: &[&[u8]]) -> Vec<u8> {
    let mut writer = FrameWriter::new(Vec::new());
    for payload in payloads {
        writer.write_frame(payload).unwrap();
    }
    let offset = writer.offset();
    let bytes = writer.into_inner();
    assert_eq!(offset, bytes.len() as u64);
    bytes
}

/// The payloads up to the first error, and the error.
fn read(bytes: &[u8]) -> (Vec<Vec<u8>>, Option<FrameError>) {
    let mut reader = FrameReader::new(bytes);
    let mut payloads = Vec::new();
    loop {
        match reader.next_frame() {
            Ok(Some(payload)) => payloads.push(payload.to_vec()),
            Ok(None) => return (payloads, None),
            Err(error) => return (payloads, Some(error)),
        }
    }
}

#[test]
fn a_frame_is_length_checksum_payload() {
    assert_eq!(
        framed(&[b"abc"]),
        [3, 0, 0, 0, 0x33, 0x5d, 0xe1, 0x66, b'a', b'b', b'c']
    );
    assert_eq!(framed(&[b""]), [0, 0, 0, 0, 0x1c, 0xdf, 0x44, 0x21]);
}

#[test]
fn a_cut_is_torn_and_says_where() {
    let bytes = framed(&[b"first", b"", b"third"]);
    for length in 0..bytes.len() {
        let (payloads, error) = read(&bytes[..length]);
        let (whole, begins) = match length {
            0..13 => (0, 0),
            13..21 => (1, 13),
            _ => (2, 21),
        };
        assert_eq!(payloads.len(), whole, "cut at {length}");
        match error {
            None => assert_eq!(length, begins, "cut at {length}"),
            Some(FrameError::Torn { offset }) => assert_eq!(offset, begins as u64),
            Some(error) => panic!("cut at {length}: {error}"),
        }
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let bytes = framed(&[b"first", b"second"]);
    for bit in 0..8 * bytes.len() {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let (payloads, error) = read(&flipped);
        assert_eq!(payloads.len(), usize::from(bit / 8 >= 13), "bit {bit}");
        assert!(error.is_some(), "bit {bit}");
    }
}

#[test]
fn zeros_are_damage() {
    let (payloads, error) = read(&[0; 64]);
    assert!(payloads.is_empty());
    assert!(matches!(error, Some(FrameError::Damaged { offset: 0 })));
}

#[test]
fn lengths_are_bounded_on_both_sides() {
    let (_, error) = read(&[0xff; 64]);
    assert!(matches!(
        error,
        Some(FrameError::TooLong {
            offset: 0,
            length: u32::MAX
        })
    ));
    let longest = vec![7; PAYLOAD_SIZE_MAX];
    let (payloads, error) = read(&framed(&[&longest]));
    assert!(error.is_none());
    assert_eq!(payloads, std::slice::from_ref(&longest));
    let error = FrameWriter::new(Vec::new())
        .write_frame(&[longest, vec![7]].concat())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "a frame of 16777217 bytes is longer than 16777216"
    );
}

proptest! {
    #[test]
    fn what_goes_in_comes_out(payloads: Vec<Vec<u8>>) {
        let slices: Vec<_> = payloads.iter().map(Vec::as_slice).collect();
        let (read, error) = read(&framed(&slices));
        prop_assert!(error.is_none());
        prop_assert_eq!(read, payloads);
    }

    #[test]
    fn any_bytes_end_in_an_answer(bytes: Vec<u8>) {
        read(&bytes);
    }
}
