//! Writing the old dialect.

/// Appends values to a byte vector, each in the one form that the original writes it in.
///
/// The methods return the encoder, so that a key and its value stand on one line.
/// The caller answers for the structure: as many values after [`Encoder::map_len`] and [`Encoder::array_len`] as were announced.
#[derive(Debug)]
pub struct Encoder<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Encoder<'a> {
    /// Appends to `out`; what it holds already stays.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// A map of `len` pairs follows.
    pub fn map_len(&mut self, len: usize) -> &mut Self {
        self.container(len, 0x80, 0xde, 0xdf)
    }

    /// An array of `len` values follows.
    pub fn array_len(&mut self, len: usize) -> &mut Self {
        self.container(len, 0x90, 0xdc, 0xdd)
    }

    /// Text or bytes.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        match length(bytes.len()) {
            len @ 0..=31 => self.out.push(0xa0 | low_byte(len)),
            len => {
                if let Ok(len) = u16::try_from(len) {
                    self.marked(0xda, len.to_be_bytes());
                } else {
                    self.marked(0xdb, len.to_be_bytes());
                }
            }
        }
        self.out.extend_from_slice(bytes);
        self
    }

    /// An integer that is not negative, in its shortest form.
    pub fn uint(&mut self, value: u64) -> &mut Self {
        if let Ok(byte) = u8::try_from(value) {
            if byte < 0x80 {
                self.out.push(byte);
            } else {
                self.marked(0xcc, [byte]);
            }
        } else if let Ok(short) = u16::try_from(value) {
            self.marked(0xcd, short.to_be_bytes());
        } else if let Ok(word) = u32::try_from(value) {
            self.marked(0xce, word.to_be_bytes());
        } else {
            self.marked(0xcf, value.to_be_bytes());
        }
        self
    }

    /// An integer in its shortest form; one that is not negative is written as [`Encoder::uint`] does.
    pub fn int(&mut self, value: i64) -> &mut Self {
        if let Ok(value) = u64::try_from(value) {
            return self.uint(value);
        }
        if let Ok(byte) = i8::try_from(value) {
            if byte >= -32 {
                self.out.extend_from_slice(&byte.to_be_bytes());
            } else {
                self.marked(0xd0, byte.to_be_bytes());
            }
        } else if let Ok(short) = i16::try_from(value) {
            self.marked(0xd1, short.to_be_bytes());
        } else if let Ok(word) = i32::try_from(value) {
            self.marked(0xd2, word.to_be_bytes());
        } else {
            self.marked(0xd3, value.to_be_bytes());
        }
        self
    }

    /// A floating point number, always as a double.
    pub fn f64(&mut self, value: f64) -> &mut Self {
        self.marked(0xcb, value.to_be_bytes());
        self
    }

    /// A truth value.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.out.push(if value { 0xc3 } else { 0xc2 });
        self
    }

    /// Nothing: an absent pointer, list, map or value.
    pub fn nil(&mut self) -> &mut Self {
        self.out.push(0xc0);
        self
    }

    fn container(&mut self, len: usize, fixed: u8, short: u8, long: u8) -> &mut Self {
        match length(len) {
            len @ 0..=15 => self.out.push(fixed | low_byte(len)),
            len => {
                if let Ok(len) = u16::try_from(len) {
                    self.marked(short, len.to_be_bytes());
                } else {
                    self.marked(long, len.to_be_bytes());
                }
            }
        }
        self
    }

    fn marked<const N: usize>(&mut self, marker: u8, bytes: [u8; N]) {
        self.out.push(marker);
        self.out.extend_from_slice(&bytes);
    }
}

/// The dialect has no form for a longer length, and everything that gets here was bounded far below it.
fn length(len: usize) -> u32 {
    u32::try_from(len).expect("a value of the state is shorter than 4 GiB")
}

fn low_byte(len: u32) -> u8 {
    len.to_le_bytes()[0]
}
