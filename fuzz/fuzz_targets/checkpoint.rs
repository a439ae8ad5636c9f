//! A checkpoint: what a server boots from. The frames are put around the input here, because no mutation would get past
//! their checksums; `frames` is the target for those.
#![no_main]

use store::{Store, checkpoint};
use wire::frame::FrameWriter;

libfuzzer_sys::fuzz_target!(|content: &[u8]| {
    let mut frames = FrameWriter::new(Vec::new());
    frames
        .write_frame(content)
        .expect("an input is shorter than a frame may be");
    match written_again(&frames.into_inner()) {
        Ok(written) => {
            let again = written_again(&written).expect("what was written can be read");
            assert_eq!(again, written, "out and in changes nothing");
        }
        Err(error) => {
            let _ = error.to_string();
        }
    }
});

fn written_again(bytes: &[u8]) -> Result<Vec<u8>, store::LoadError> {
    let mut store = Store::new();
    store.install(&mut &*bytes)?;
    let mut written = Vec::new();
    checkpoint::write(&store.freeze(), &mut written).expect("writing to memory");
    Ok(written)
}
