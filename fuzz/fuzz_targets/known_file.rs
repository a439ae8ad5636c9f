//! The file of known members: what is read from it can be written, and reads back as the same.
#![no_main]

use std::sync::Arc;

use gossip::known::{AfterLeave, KnownFile, Medium, MemoryMedium, decode};
use tokio::time::Instant;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    decode(bytes, AfterLeave::Rejoin);

    // An unfinished line at the end makes it written anew.
    let torn = [bytes, b"\nclock: "].concat();
    let medium: Arc<dyn Medium> = Arc::new(MemoryMedium::new(torn));
    let now = Instant::now();
    let (mut file, known) =
        KnownFile::open(Arc::clone(&medium), AfterLeave::Forget, now).expect("memory can be read");
    assert!(file.flush(now).is_none());
    let written = medium.read(usize::MAX).expect("memory can be read").bytes;
    let again = decode(&written, AfterLeave::Forget);
    assert_eq!(again.skipped, 0);
    assert_eq!(again.members, known.members);
    assert_eq!(again.clocks, known.clocks);
    // Its numbers may differ in their last digit.
    assert_eq!(again.coordinate.is_some(), known.coordinate.is_some());
});
