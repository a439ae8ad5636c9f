//! A snapshot archive as it comes from a client: gzip, tar, metadata, hashes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut state = Bounded(1 << 20);
    // What is refused is refused with a text, and the text has to be made too.
    if let Err(error) = wire::archive::unpack(bytes, &mut state) {
        let _ = error.to_string();
    }
});

/// Takes so many bytes and then fails: a small input may unpack to gigabytes, which is slow and teaches nothing.
struct Bounded(usize);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self
            .0
            .checked_sub(bytes.len())
            .ok_or(std::io::ErrorKind::FileTooLarge)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
