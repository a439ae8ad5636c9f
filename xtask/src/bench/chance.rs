//! Keys and values that look like real ones, the same in each run.

/// A small generator of pseudo-random numbers (xorshift); good enough to spread keys.
#[derive(Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Hexadecimal text, which deflate halves, as it does configuration values.
    pub(crate) fn value(&mut self, length: usize) -> Vec<u8> {
        let mut value = Vec::with_capacity(length + 16);
        while value.len() < length {
            value.extend_from_slice(format!("{:016x}", self.next()).as_bytes());
        }
        value.truncate(length);
        value
    }
}

/// Standard base64 with padding.
pub(crate) fn base64(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            if digit <= group.len() {
                out.push(DIGITS[(bits >> (18 - 6 * digit)) as usize & 63]);
            } else {
                out.push(b'=');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_everybody_writes_it() {
        for (plain, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("hello", "aGVsbG8="),
        ] {
            let mut out = Vec::new();
            base64(plain.as_bytes(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), encoded);
        }
    }

    #[test]
    fn values_have_their_length_and_differ() {
        let mut chance = Chance::new(1);
        assert_eq!(chance.value(64).len(), 64);
        assert_ne!(chance.value(64), chance.value(64));
        assert!(chance.below(10) < 10);
    }
}
