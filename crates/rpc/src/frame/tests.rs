use proptest::prelude::*;

use super::*;

fn kind() -> impl Strategy<Value = Kind> {
    proptest::sample::select(Kind::ALL.as_slice())
}

#[test]
fn a_length_that_was_told_is_not_believed() {
    let mut bytes = vec![1, 7, 0, 0, 0];
    bytes.extend_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(decode(&bytes), Err(FrameError::TooLong(u32::MAX)));
    assert_eq!(decode(&[0; HEAD_SIZE]), Err(FrameError::Kind(0)));
}

#[test]
fn unfinished_messages_are_bounded_in_number_length_and_sum() {
    let room = Room::new(100);
    let mut assembly = Assembly::new(60, Arc::clone(&room));
    assembly.part(1, &[1; 60]).unwrap();
    assert_eq!(assembly.part(1, &[1]), Err(FrameError::MessageTooLong(60)));
    assert_eq!(assembly.part(2, &[2; 50]), Err(FrameError::NoRoom));
    assert_eq!(
        assembly.last(3, &[3; 61]),
        Err(FrameError::MessageTooLong(60))
    );
    drop(assembly);
    assert_eq!(room.taken(), 0);

    let mut assembly = Assembly::new(60, Arc::clone(&room));
    for id in 0..8 {
        assembly.part(id, &[]).unwrap();
    }
    assert_eq!(assembly.part(8, &[]), Err(FrameError::TooManyParted));
    assert_eq!(assembly.last(0, &[5]), Ok(vec![5]));
    assert_eq!(assembly.part(8, &[1]), Ok(()));
    assert_eq!(room.taken(), 1);
}

proptest! {
    #[test]
    fn what_goes_in_comes_out(kind in kind(), id: u32, payload: Vec<u8>, rest: Vec<u8>) {
        let frame = Frame { kind, id, payload: &payload };
        let mut bytes = Vec::new();
        append(&mut bytes, frame);
        for length in 0..bytes.len() {
            prop_assert_eq!(decode(&bytes[..length]), Ok(None));
        }
        let size = bytes.len();
        bytes.extend_from_slice(&rest);
        prop_assert_eq!(decode(&bytes), Ok(Some((frame, size))));
    }

    #[test]
    fn any_bytes_end_in_an_answer(bytes: Vec<u8>) {
        let _ = decode(&bytes);
    }
}
