//! What can go wrong between the caller and the agent.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;

/// Why a call failed. The texts are the ones that scripts around the original's tools look for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address makes no sense.
    #[error("invalid address {0:?}")]
    Address(String),
    /// TLS can't be spoken as configured.
    #[error("{0}")]
    Tls(String),
    /// A file of certificates or a key can't be used.
    #[error("{what} {}: {why}", file.display())]
    File {
        /// What it should hold.
        what: &'static str,
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The token or another value can't be sent in a header.
    #[error("the {0} can't be sent in an HTTP header")]
    Header(&'static str),
    /// The key can't be written in a URL.
    #[error("the key {0:?} can't be asked for over HTTP")]
    Key(String),
    /// No answer came.
    #[error("{verb} {url}: {why}")]
    Request {
        /// `Get`, `Put` or `Delete`.
        verb: &'static str,
        /// What was asked.
        url: String,
        /// What happened instead of an answer.
        why: String,
    },
    /// The agent answered that it didn't do it.
    #[error("Unexpected response code: {code} ({body})")]
    Unexpected {
        /// The HTTP status.
        code: u16,
        /// The beginning of the answer's body.
        body: String,
    },
    /// The server restores snapshots as a whole only.
    #[error("the agent can't restore a part of a snapshot; nothing was changed")]
    NoParts,
    /// The answer ended early or didn't arrive in time.
    #[error("{0}")]
    Body(String),
    /// The answer isn't what the protocol says.
    #[error("the agent's answer makes no sense: {0}")]
    Decode(String),
    /// The answer is larger than the caller wants to hold.
    #[error("the agent's answer is larger than {0} bytes")]
    TooLarge(u64),
}

/// What happened on the way, in few words: the innermost reason that says something.
pub(crate) fn reason(why: &reqwest::Error, dialled: &str) -> String {
    let mut innermost = why.source();
    let mut system = None;
    while let Some(cause) = innermost {
        if let Some(found) = cause.downcast_ref::<io::Error>() {
            system = Some(found);
        }
        match cause.source() {
            Some(deeper) => innermost = Some(deeper),
            None => break,
        }
    }
    if let Some(text) = system.and_then(tls_reason) {
        return text;
    }
    let text = match (system.map(io::Error::kind), innermost) {
        (Some(io::ErrorKind::ConnectionRefused), _) => "connection refused".to_owned(),
        (Some(io::ErrorKind::ConnectionReset), _) => "connection reset by peer".to_owned(),
        (Some(io::ErrorKind::NotFound), _) => "no such file or directory".to_owned(),
        (Some(io::ErrorKind::PermissionDenied), _) => "permission denied".to_owned(),
        // The original distinguishes an answer that never began from one that broke off.
        (Some(io::ErrorKind::UnexpectedEof), _) if why.is_request() => "EOF".to_owned(),
        (Some(io::ErrorKind::UnexpectedEof), _) => "unexpected EOF".to_owned(),
        _ if why.is_timeout() => "i/o timeout".to_owned(),
        (_, Some(cause)) => cause.to_string(),
        (_, None) => why.to_string(),
    };
    if why.is_connect() {
        format!("dial {dialled}: connect: {text}")
    } else {
        text
    }
}

/// What was wrong about TLS, if that was it.
fn tls_reason(error: &io::Error) -> Option<String> {
    use rustls::{AlertDescription, Error};

    // One such error may lie in another, and its `source` would skip what it holds.
    let held = error.get_ref()?;
    if let Some(deeper) = held.downcast_ref::<io::Error>() {
        return tls_reason(deeper);
    }
    let why = held.downcast_ref::<Error>()?;
    Some(match why {
        Error::InvalidMessage(_) => "TLS: what answers there doesn't speak it".to_owned(),
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "TLS: the agent demands a client certificate".to_owned()
        }
        Error::AlertReceived(alert) => format!("TLS: the agent refused: {alert:?}"),
        _ => format!("TLS: {why}"),
    })
}
