//! The end of an output, however long it is.

/// Takes everything and keeps the last of it.
#[derive(Debug)]
pub struct Tail {
    kept: Vec<u8>,
    max: usize,
    taken: u64,
}

impl Tail {
    /// One that keeps up to `max` bytes.
    pub fn new(max: usize) -> Self {
        Self {
            kept: Vec::new(),
            max,
            taken: 0,
        }
    }

    /// Takes `bytes`, of which only as many as it keeps anyway cost anything.
    pub fn push(&mut self, bytes: &[u8]) {
        self.taken = self.taken.saturating_add(bytes.len() as u64);
        let new = &bytes[bytes.len().saturating_sub(self.max)..];
        let surplus = (self.kept.len() + new.len()).saturating_sub(self.max);
        self.kept.drain(..surplus);
        self.kept.extend_from_slice(new);
    }

    /// How many bytes it has taken.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// What it kept, below a line that says so if that isn't all.
    pub fn into_text(self) -> Vec<u8> {
        let size = self.kept.len();
        if self.taken == size as u64 {
            return self.kept;
        }
        let mut text = format!("Captured {size} of {} bytes\n...\n", self.taken).into_bytes();
        text.extend_from_slice(&self.kept);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last() {
        let cases: [(usize, &[&str], &str); 8] = [
            (4, &[], ""),
            (4, &["ab", "cd"], "abcd"),
            (4, &["ab", "cde"], "Captured 4 of 5 bytes\n...\nbcde"),
            (4, &["abcdefgh"], "Captured 4 of 8 bytes\n...\nefgh"),
            (4, &["abcdefgh", "i"], "Captured 4 of 9 bytes\n...\nfghi"),
            (4, &["a", "bcdefgh", ""], "Captured 4 of 8 bytes\n...\nefgh"),
            (0, &["abc"], "Captured 0 of 3 bytes\n...\n"),
            (0, &[""], ""),
        ];
        for (max, pushed, text) in cases {
            let mut tail = Tail::new(max);
            for part in pushed {
                tail.push(part.as_bytes());
                assert!(tail.kept.len() <= max);
            }
            assert_eq!(tail.into_text(), text.as_bytes(), "{pushed:?}");
        }
    }
}
