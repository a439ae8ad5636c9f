//! Regular expressions in the original's syntax, as query templates and filters bring them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    match model::re2::compile(bytes) {
        Ok(expression) => {
            let _ = expression.is_match(b"web-primary.eu-1");
        }
        Err(error) => {
            let _ = error.to_string();
        }
    }
});
