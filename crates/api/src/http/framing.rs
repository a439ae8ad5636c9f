//! Where the body of a request ends, and what of the bytes belongs to it.

/// How the body of a request is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Empty,
    /// So many bytes, at least one.
    Length(u64),
    Chunked,
}

/// Bytes of chunk extensions and trailers that one body may have. We ignore them all, and
/// no client of the original sends any.
const IGNORED_MAX: usize = 16 << 10;

/// Takes a body out of the bytes of a connection.
#[derive(Debug)]
pub(super) struct Decoder {
    state: State,
    ignored: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Done,
    Length(u64),
    ChunkSize { size: u64, digits: u8 },
    ChunkExtension { size: u64 },
    ChunkSizeLf { size: u64 },
    ChunkData(u64),
    ChunkDataCr,
    ChunkDataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
}

const CHUNK_START: State = State::ChunkSize { size: 0, digits: 0 };

/// What came is no chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl Decoder {
    pub(super) fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Empty => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => CHUNK_START,
        };
        Self { state, ignored: 0 }
    }

    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// How many bytes are still to come, if that is known.
    pub(super) fn rest(&self) -> Option<u64> {
        match self.state {
            State::Done => Some(0),
            State::Length(rest) => Some(rest),
            _ => None,
        }
    }

    /// Appends to `out` what of `input` is body, and says how many bytes of `input` are used
    /// up: all of them, unless the body ends or breaks before.
    pub(super) fn decode(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, Malformed> {
        let before = out.len();
        let mut at = 0;
        while at < input.len() && self.state != State::Done {
            match self.state {
                State::Length(rest) => {
                    let taken = take(&input[at..], rest, out);
                    at += taken;
                    self.state = match rest - taken as u64 {
                        0 => State::Done,
                        rest => State::Length(rest),
                    };
                }
                State::ChunkData(rest) => {
                    let taken = take(&input[at..], rest, out);
                    at += taken;
                    self.state = match rest - taken as u64 {
                        0 => State::ChunkDataCr,
                        rest => State::ChunkData(rest),
                    };
                }
                state => {
                    match self.step(state, input[at]) {
                        Ok(next) => self.state = next,
                        // What came before is handed over first, however the bytes came.
                        Err(Malformed) if out.len() > before => break,
                        Err(malformed) => return Err(malformed),
                    }
                    at += 1;
                }
            }
        }
        Ok(at)
    }

    fn step(&mut self, state: State, byte: u8) -> Result<State, Malformed> {
        Ok(match (state, byte) {
            // 15 digits cannot overflow.
            (
                State::ChunkSize {
                    size,
                    digits: digits @ 0..15,
                },
                _,
            ) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                State::ChunkSize {
                    size: size << 4 | digit,
                    digits: digits + 1,
                }
            }
            (State::ChunkSize { size, digits: 1.. }, b';') => State::ChunkExtension { size },
            (State::ChunkSize { size, digits: 1.. } | State::ChunkExtension { size }, b'\r') => {
                State::ChunkSizeLf { size }
            }
            (State::ChunkSizeLf { size: size @ 1.. }, b'\n') => State::ChunkData(size),
            (State::ChunkSizeLf { size: 0 } | State::TrailerLf, b'\n') => State::TrailerStart,
            (State::ChunkDataCr, b'\r') => State::ChunkDataLf,
            (State::ChunkDataLf, b'\n') => CHUNK_START,
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::Trailer, b'\r') => State::TrailerLf,
            (State::EndLf, b'\n') => State::Done,
            (State::ChunkExtension { .. }, _) if byte != b'\n' => self.ignore(state)?,
            (State::TrailerStart | State::Trailer, _) if byte != b'\n' => {
                self.ignore(State::Trailer)?
            }
            _ => return Err(Malformed),
        })
    }

    fn ignore(&mut self, state: State) -> Result<State, Malformed> {
        self.ignored += 1;
        if self.ignored > IGNORED_MAX {
            Err(Malformed)
        } else {
            Ok(state)
        }
    }
}

/// Appends up to `limit` bytes, and says how many.
fn take(input: &[u8], limit: u64, out: &mut Vec<u8>) -> usize {
    let taken = usize::try_from(limit).map_or(input.len(), |limit| limit.min(input.len()));
    out.extend_from_slice(&input[..taken]);
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNKED: &[u8] =
        b"5\r\nhello\r\n00000A;x=\"y\"\r\n, dear wor\r\n2\r\nld\r\n0\r\nT: u\r\nV: w\r\n\r\n";

    #[test]
    fn a_chunked_body_may_be_cut_anywhere() {
        let stream = [CHUNKED, b"GET /"].concat();
        for first in 0..CHUNKED.len() {
            for second in first..CHUNKED.len() {
                let mut decoder = Decoder::new(Framing::Chunked);
                let mut out = Vec::new();
                assert_eq!(decoder.decode(&stream[..first], &mut out), Ok(first));
                assert_eq!(
                    decoder.decode(&stream[first..second], &mut out),
                    Ok(second - first)
                );
                assert!(!decoder.is_done());
                let last = decoder.decode(&stream[second..], &mut out);
                assert_eq!(last, Ok(CHUNKED.len() - second));
                assert!(decoder.is_done());
                assert_eq!(out, b"hello, dear world");
            }
        }
    }

    #[test]
    fn a_body_of_known_length_ends_there() {
        let mut decoder = Decoder::new(Framing::Length(5));
        let mut out = Vec::new();
        assert_eq!(decoder.decode(b"hel", &mut out), Ok(3));
        assert_eq!(decoder.rest(), Some(2));
        assert_eq!(decoder.decode(b"loGET", &mut out), Ok(2));
        assert!(decoder.is_done());
        assert_eq!(out, b"hello");
    }

    #[test]
    fn what_is_not_chunked_is_refused() {
        let extension = format!("1;{}\r\n", "x".repeat(IGNORED_MAX + 1));
        let trailer = format!("0\r\n{}", "a: b\r\n".repeat(IGNORED_MAX / 4 + 1));
        for text in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            " 1\r\n",
            "1 \r\n",
            "1\n",
            "1\rx",
            "1;\n",
            "1\r\nab",
            "1\r\na\n",
            "1\r\na\rb",
            "1000000000000000\r\n",
            "0\r\n\n",
            "0\r\na\n",
            "0\r\n\rx",
            &extension,
            &trailer,
        ] {
            let mut decoder = Decoder::new(Framing::Chunked);
            let mut out = Vec::new();
            let mut outcome = Ok(0);
            let mut rest = text.as_bytes();
            while let Ok(used) = outcome {
                rest = &rest[used..];
                outcome = decoder.decode(rest, &mut out);
            }
            assert_eq!(outcome, Err(Malformed), "{text:?}");
        }
    }
}
