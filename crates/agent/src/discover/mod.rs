//! Finding the agents to join by asking the cloud which machines carry a tag.
//!
//! A provider is one file here, a line of [`PROVIDERS`], a variant of [`Config`] and the keys of the configuration
//! that feed it, `retry_join_<name>.<option>`.
//! It never keeps anything between two questions: credentials expire, so each attempt begins with fresh ones.
//! Every answer is bounded in size, every question in time, and no secret appears in an error or in a `Debug` text.

pub mod ec2;
pub mod gce;
mod http;
mod signature;
#[cfg(test)]
mod stand_in;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use futures::future::BoxFuture;

/// How long one search may take, all its questions together.
pub const SEARCH_TIME_MAX: Duration = Duration::from_secs(60);

/// The most addresses that one search returns; more are cut off with a line in the log, since any of them will do.
pub const ADDRESSES_MAX: usize = 10_000;

/// Whoever knows the addresses of agents.
pub trait Discover: fmt::Debug + Send + Sync {
    /// What to call it in the log, such as `EC2`.
    fn name(&self) -> &'static str;

    /// Asks for the addresses of this moment; an empty list is an answer too.
    /// It may be asked again at any time, and must then look afresh.
    fn addresses(&self) -> BoxFuture<'_, Result<Vec<IpAddr>, DiscoverError>>;
}

/// What the configuration says of one provider: option and value, both without their group.
pub type Options<'a> = BTreeMap<&'a str, &'a str>;

/// A kind of cloud that can be asked.
#[derive(Debug, Clone, Copy)]
pub struct Provider {
    /// Its name in the configuration: the group is `retry_join_<name>`.
    pub name: &'static str,
    /// The options it knows.
    pub options: &'static [&'static str],
    /// Reads the options; `None` when they don't ask for this provider, a text for the user when they make no sense.
    pub read: fn(&Options<'_>) -> Result<Option<Config>, String>,
}

/// Every kind of cloud.
pub const PROVIDERS: &[Provider] = &[
    Provider {
        name: "ec2",
        options: ec2::OPTIONS,
        read: ec2::Config::read,
    },
    Provider {
        name: "gce",
        options: gce::OPTIONS,
        read: gce::Config::read,
    },
];

/// A search that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Config {
    /// Among instances of Amazon EC2.
    Ec2(ec2::Config),
    /// Among instances of Google Compute Engine.
    Gce(gce::Config),
}

impl Config {
    /// The search, ready to be made.
    ///
    /// Where it asks, and with which credentials of the surroundings, follows from this process's environment.
    pub fn open(&self) -> Box<dyn Discover> {
        match self {
            Self::Ec2(config) => Box::new(ec2::Ec2::new(
                config.clone(),
                ec2::Surroundings::of_this_process(),
            )),
            Self::Gce(config) => Box::new(gce::Gce::new(
                config.clone(),
                gce::Surroundings::of_this_process(),
            )),
        }
    }
}

/// Why a search found out nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiscoverError {
    /// No answer came, or not in time.
    #[error("asking {service}: {why}")]
    Unreachable {
        /// Who was asked.
        service: &'static str,
        /// What went wrong.
        why: String,
    },
    /// The answer was no.
    #[error("{service} refused: status {status}{code}")]
    Refused {
        /// Who was asked.
        service: &'static str,
        /// The HTTP status.
        status: u16,
        /// The service's own word for the reason, after a blank; may be empty.
        code: String,
    },
    /// The answer makes no sense.
    #[error("the answer of {service} makes no sense: {why}")]
    Malformed {
        /// Who was asked.
        service: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The answer is larger than anything that would make sense.
    #[error("the answer of {service} is larger than {max} bytes")]
    TooLarge {
        /// Who was asked.
        service: &'static str,
        /// The bound.
        max: usize,
    },
    /// There is nothing to identify ourselves with, or it can't be used.
    #[error("{0}")]
    Credentials(String),
    /// The search as a whole took too long.
    #[error("no result within {} seconds", SEARCH_TIME_MAX.as_secs())]
    Overdue,
}

/// Runs a search within its time, and cuts what it found to size.
async fn search(
    name: &'static str,
    questions: impl Future<Output = Result<Vec<IpAddr>, DiscoverError>>,
) -> Result<Vec<IpAddr>, DiscoverError> {
    let found = tokio::time::timeout(SEARCH_TIME_MAX, questions).await;
    let mut addresses = found.map_err(|_| DiscoverError::Overdue)??;
    if addresses.len() > ADDRESSES_MAX {
        tracing::warn!(
            "agent: {name} knows {} instances; the first {ADDRESSES_MAX} are tried",
            addresses.len()
        );
        addresses.truncate(ADDRESSES_MAX);
    }
    Ok(addresses)
}

/// A secret: it can be used, and not be seen.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` from being shown.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself.
    fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<hidden>")
    }
}

/// The value of an environment variable, if it has one that is text.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Reads a small text file of credentials.
fn read_credentials_file(path: &std::path::Path) -> std::io::Result<String> {
    use std::io::{Error, ErrorKind, Read as _};
    const SIZE_MAX: u64 = 256 << 10;
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    // Opening a pipe would wait for its writer, and reading a device has no end.
    if !file.metadata()?.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "not a regular file"));
    }
    if file.take(SIZE_MAX + 1).read_to_string(&mut text)? as u64 > SIZE_MAX {
        return Err(Error::new(
            ErrorKind::InvalidData,
            "larger than any file of credentials",
        ));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_read_their_options() {
        for provider in PROVIDERS {
            assert_eq!((provider.read)(&Options::new()), Ok(None));
            assert!(provider.options.is_sorted());
        }
        let given = Options::from([("tag_key", "role"), ("tag_value", "consul")]);
        let config = (PROVIDERS[0].read)(&given).unwrap().unwrap();
        assert_eq!(config.open().name(), "EC2");
        let given = Options::from([("tag_value", "consul")]);
        let config = (PROVIDERS[1].read)(&given).unwrap().unwrap();
        assert_eq!(config.open().name(), "GCE");
    }

    #[tokio::test(start_paused = true)]
    async fn a_search_ends() {
        let endless = search("X", std::future::pending());
        assert_eq!(endless.await, Err(DiscoverError::Overdue));
        let many = vec![IpAddr::from([10, 0, 0, 1]); ADDRESSES_MAX + 1];
        let cut = search("X", async { Ok(many) }).await.unwrap();
        assert_eq!(cut.len(), ADDRESSES_MAX);
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Secret::new("abc")), "<hidden>");
    }
}
