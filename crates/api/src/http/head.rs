//! The head of a request: where it ends, what it says, and what of it is refused.
//!
//! Two programs that read one byte stream differently can be played off against each other
//! (request smuggling), so whatever leaves room for that is refused and the connection closed:
//! a line that ends with a bare LF, a folded header, a space before the colon, more than one
//! `Content-Length` or `Host`, a length that is not plain digits, `Content-Length` together
//! with `Transfer-Encoding`, any coding but `chunked`, and a coding in HTTP/1.0.

use std::ops::Range;

use ::http::{Method, StatusCode};
use memchr::{memchr, memchr_iter};

use super::framing::Framing;

/// Headers that one request may have; more are refused as too large. Far more than any client
/// sends, and it bounds the table on the stack.
const HEADERS_MAX: usize = 128;

/// What the head of a request says. The ranges are positions in its bytes.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) method: Method,
    pub(super) path: Range<usize>,
    pub(super) query: Option<Range<usize>>,
    /// Where the header lines begin.
    pub(super) headers: usize,
    pub(super) framing: Framing,
    /// HTTP/1.1, otherwise 1.0.
    pub(super) is_1_1: bool,
    pub(super) keep_alive: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub(super) expects_continue: bool,
}

/// Why a request is answered by the engine itself, after which the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Malformed,
    HostMissing,
    HostTwice,
    TooLarge,
    Expectation,
    Coding,
}

impl Refusal {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Malformed | Self::HostMissing | Self::HostTwice => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::Coding => StatusCode::NOT_IMPLEMENTED,
        }
    }

    /// The texts of the original, which says why only where a person can mend it.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Malformed => "400 Bad Request",
            Self::HostMissing => "400 Bad Request: missing required Host header",
            Self::HostTwice => "400 Bad Request: too many Host headers",
            Self::TooLarge => "431 Request Header Fields Too Large",
            Self::Expectation => "417 Expectation Failed",
            Self::Coding => "501 Unsupported transfer encoding",
        }
    }
}

/// Where the head ends, if all of it is here. The first `scanned` bytes were looked at before,
/// so that a head which comes byte by byte costs no more than one that comes at once.
pub(super) fn find_end(bytes: &[u8], scanned: usize) -> Result<Option<usize>, Refusal> {
    for offset in memchr_iter(b'\n', &bytes[scanned..]) {
        let at = scanned + offset;
        if at == 0 || bytes[at - 1] != b'\r' {
            return Err(Refusal::Malformed);
        }
        if bytes[..at - 1].ends_with(b"\r\n") {
            return Ok(Some(at + 1));
        }
    }
    Ok(None)
}

/// Reads a head, from the method to the empty line.
pub(super) fn parse(bytes: &[u8]) -> Result<Head, Refusal> {
    let mut table = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut table);
    match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooLarge),
        Ok(_) | Err(_) => return Err(Refusal::Malformed),
    }
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version)
    else {
        return Err(Refusal::Malformed);
    };
    let start = method.len() + 1;
    let (path, query) = split_target(target.as_bytes(), start)?;
    let is_1_1 = minor == 1;
    let mut head = Head {
        method: Method::from_bytes(method.as_bytes()).map_err(|_| Refusal::Malformed)?,
        path,
        query,
        headers: memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1),
        framing: Framing::Empty,
        is_1_1,
        keep_alive: is_1_1,
        expects_continue: false,
    };
    read_headers(&mut head, parsed.headers)?;
    Ok(head)
}

fn read_headers(head: &mut Head, headers: &[httparse::Header<'_>]) -> Result<(), Refusal> {
    let mut hosts = 0;
    let mut length = None;
    let mut chunked = false;
    let mut close = false;
    let mut keep_alive = false;
    for header in headers {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        // By length first: most headers are none of these.
        match header.name.len() {
            4 if is("host") => hosts += 1,
            6 if is("expect") => {
                if !header.value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Refusal::Expectation);
                }
                head.expects_continue = head.is_1_1;
            }
            10 if is("connection") => {
                for token in header.value.split(|byte| *byte == b',') {
                    let token = token.trim_ascii();
                    close |= token.eq_ignore_ascii_case(b"close");
                    keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            14 if is("content-length") => {
                if length.is_some() {
                    return Err(Refusal::Malformed);
                }
                length = Some(parse_length(header.value)?);
            }
            17 if is("transfer-encoding") => {
                if chunked || !head.is_1_1 {
                    return Err(Refusal::Malformed);
                }
                if !header.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Refusal::Coding);
                }
                chunked = true;
            }
            _ => {}
        }
    }
    if hosts > 1 {
        return Err(Refusal::HostTwice);
    }
    if hosts == 0 && head.is_1_1 {
        return Err(Refusal::HostMissing);
    }
    head.framing = match (length, chunked) {
        (Some(_), true) => return Err(Refusal::Malformed),
        (None, true) => Framing::Chunked,
        (Some(0) | None, false) => Framing::Empty,
        (Some(length), false) => Framing::Length(length),
    };
    head.keep_alive = !close && (head.is_1_1 || keep_alive);
    Ok(())
}

fn parse_length(value: &[u8]) -> Result<u64, Refusal> {
    // 18 digits cannot overflow, and are more than anybody will ever send.
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::Malformed);
    }
    Ok(value
        .iter()
        .fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// Path and query of a request target that begins at `start`: `/path?query`,
/// `http://host/path?query` as proxies send it, or `*`.
fn split_target(
    target: &[u8],
    start: usize,
) -> Result<(Range<usize>, Option<Range<usize>>), Refusal> {
    let mark = memchr(b'?', target);
    let path_end = mark.unwrap_or(target.len());
    let path_start = match target {
        [b'/', ..] | b"*" => 0,
        _ => {
            let scheme = target[..path_end]
                .windows(3)
                .position(|window| window == b"://")
                .filter(|at| *at > 0)
                .ok_or(Refusal::Malformed)?;
            let authority = scheme + 3;
            memchr(b'/', &target[authority..path_end]).map_or(path_end, |at| authority + at)
        }
    };
    if !escapes_are_sound(&target[path_start..path_end]) {
        return Err(Refusal::Malformed);
    }
    let query = mark.map(|at| start + at + 1..start + target.len());
    Ok((start + path_start..start + path_end, query))
}

fn escapes_are_sound(path: &[u8]) -> bool {
    memchr_iter(b'%', path).all(|at| {
        path.get(at + 1..at + 3)
            .is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

/// The header lines of a head that [`parse`] found sound, as name and value.
pub(super) fn lines(headers: &[u8]) -> impl Iterator<Item = (&str, &[u8])> {
    let mut rest = headers;
    std::iter::from_fn(move || {
        let end = memchr(b'\n', rest)?;
        let line = &rest[..end];
        rest = &rest[end + 1..];
        let colon = memchr(b':', line)?;
        let name = std::str::from_utf8(&line[..colon]).ok()?;
        Some((name, line[colon + 1..].trim_ascii()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Head, Refusal> {
        assert_eq!(find_end(text.as_bytes(), 0)?, Some(text.len()), "{text:?}");
        parse(text.as_bytes())
    }

    #[test]
    fn says_what_the_head_says() {
        let text = "PUT /v1/kv/a%2Fb?raw&x=/? HTTP/1.1\r\nhost: x\r\ncontent-LENGTH: 12\r\nX-A:  b \r\n\r\n";
        let head = read(text).unwrap();
        assert_eq!(head.method, Method::PUT);
        assert_eq!(&text[head.path], "/v1/kv/a%2Fb");
        assert_eq!(&text[head.query.unwrap()], "raw&x=/?");
        assert_eq!(head.framing, Framing::Length(12));
        assert!(head.is_1_1 && head.keep_alive && !head.expects_continue);
        let headers: Vec<_> = lines(&text.as_bytes()[head.headers..]).collect();
        assert_eq!(
            headers,
            [
                ("host", &b"x"[..]),
                ("content-LENGTH", b"12"),
                ("X-A", b"b")
            ]
        );
    }

    #[test]
    fn takes_every_form_of_target() {
        for (target, path, query) in [
            ("/", "/", None),
            ("/?", "/", Some("")),
            ("*", "*", None),
            ("http://host:1/a/b?c", "/a/b", Some("c")),
            ("http://host", "", None),
            ("http://host?c=/", "", Some("c=/")),
            ("//a//b/../c", "//a//b/../c", None),
            ("/a<b>{c}|d`\\^#e", "/a<b>{c}|d`\\^#e", None),
            ("/schl\u{fc}ssel", "/schl\u{fc}ssel", None),
            ("/?%zz", "/", Some("%zz")),
        ] {
            let text = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
            let head = read(&text).unwrap_or_else(|refusal| panic!("{target}: {refusal:?}"));
            assert_eq!(&text[head.path], path, "{target}");
            assert_eq!(head.query.map(|range| &text[range]), query, "{target}");
        }
    }

    #[test]
    fn keeps_alive_as_asked() {
        for (version, connection, kept) in [
            ("1.1", "", true),
            ("1.1", "Connection: close\r\n", false),
            ("1.1", "Connection: foo, CLOSE\r\n", false),
            ("1.1", "Connection: keep-alive\r\n", true),
            (
                "1.1",
                "Connection: keep-alive\r\nConnection: close\r\n",
                false,
            ),
            ("1.0", "", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
        ] {
            let head = read(&format!(
                "GET / HTTP/{version}\r\nHost: x\r\n{connection}\r\n"
            ));
            assert_eq!(head.unwrap().keep_alive, kept, "{version} {connection:?}");
        }
    }

    #[test]
    fn refuses_what_two_readers_could_read_differently() {
        let host = "Host: x\r\n";
        for (text, refusal) in [
            (
                format!(
                    "GET / HTTP/1.1\r\n{host}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
                ),
                Refusal::Malformed,
            ),
            (
                format!("GET / HTTP/1.1\r\n{host}Content-Length: 1\r\nContent-Length: 1\r\n\r\n"),
                Refusal::Malformed,
            ),
            (
                format!("GET / HTTP/1.1\r\n{host}Content-Length: 1, 1\r\n\r\n"),
                Refusal::Malformed,
            ),
            (
                format!("GET / HTTP/1.1\r\n{host}Content-Length: +1\r\n\r\n"),
                Refusal::Malformed,
            ),
            (
                format!("GET / HTTP/1.1\r\n{host}Content-Length: -1\r\n\r\n"),
                Refusal::Malformed,
            ),
            (
                format!("GET / HTTP/1.1\r\n{host}Content-Length:\r\n\r\n"),
                Refusal::Malformed,
            ),
            (
                format!("GET / HTTP/1.1\r\n{host}Content-Length: 9999999999999999999\r\n\r\n"),
                Refusal::Malformed,
            ),
            (
                format!(
                    "GET / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"
                ),
                Refusal::Malformed,
            ),
            (
                format!("GET / HTTP/1.1\r\n{host}Transfer-Encoding: gzip, chunked\r\n\r\n"),
                Refusal::Coding,
            ),
            (
                format!("GET / HTTP/1.1\r\n{host}Transfer-Encoding: xchunked\r\n\r\n"),
                Refusal::Coding,
            ),
            (
                "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
                Refusal::Malformed,
            ),
            (
                format!("GET / HTTP/1.1\r\n{host}A: b\r\n c\r\n\r\n"),
                Refusal::Malformed,
            ),
            (
                format!("GET / HTTP/1.1\r\n{host}Content-Length : 1\r\n\r\n"),
                Refusal::Malformed,
            ),
            (
                format!("GET / HTTP/1.1\r\n{host}A: b\rc\r\n\r\n"),
                Refusal::Malformed,
            ),
            (
                format!("GET / HTTP/1.1\r\n{host}A: b\0c\r\n\r\n"),
                Refusal::Malformed,
            ),
            (
                format!("GET / HTTP/1.1\r\n{host}: b\r\n\r\n"),
                Refusal::Malformed,
            ),
            (format!("GET / HTTP/1.1\n{host}\r\n"), Refusal::Malformed),
            ("GET / HTTP/1.1\r\nHost: x\n\r\n".into(), Refusal::Malformed),
            ("GET / HTTP/1.1\r\n\r\n".into(), Refusal::HostMissing),
            (
                format!("GET / HTTP/1.1\r\n{host}{host}\r\n"),
                Refusal::HostTwice,
            ),
            (format!("GET / HTTP/2.0\r\n{host}\r\n"), Refusal::Malformed),
            (
                format!("GET / x HTTP/1.1\r\n{host}\r\n"),
                Refusal::Malformed,
            ),
            (format!("GET  / HTTP/1.1\r\n{host}\r\n"), Refusal::Malformed),
            (
                format!("GET /%zz HTTP/1.1\r\n{host}\r\n"),
                Refusal::Malformed,
            ),
            (
                format!("GET /%a HTTP/1.1\r\n{host}\r\n"),
                Refusal::Malformed,
            ),
            (
                format!("GET a/b HTTP/1.1\r\n{host}\r\n"),
                Refusal::Malformed,
            ),
            (
                format!("CONNECT a:1 HTTP/1.1\r\n{host}\r\n"),
                Refusal::Malformed,
            ),
            (
                format!("GET / HTTP/1.1\r\n{host}Expect: something\r\n\r\n"),
                Refusal::Expectation,
            ),
            (format!("G(T / HTTP/1.1\r\n{host}\r\n"), Refusal::Malformed),
            ("hello\r\n\r\n".into(), Refusal::Malformed),
            (
                format!(
                    "GET / HTTP/1.1\r\n{host}{}\r\n",
                    "A: b\r\n".repeat(HEADERS_MAX)
                ),
                Refusal::TooLarge,
            ),
        ] {
            assert_eq!(read(&text).unwrap_err(), refusal, "{text:?}");
        }
    }

    #[test]
    fn finds_the_end_however_the_bytes_come() {
        let text = b"GET / HTTP/1.1\r\nHost: x\r\n\r\nrest";
        for cut in 0..text.len() {
            let expected = (cut >= 27).then_some(27);
            assert_eq!(find_end(&text[..cut], 0), Ok(expected), "{cut}");
            assert_eq!(find_end(&text[..27], cut.min(26)), Ok(Some(27)), "{cut}");
        }
    }
}
