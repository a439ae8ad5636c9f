//! `meta.json`: where in the log the snapshot was taken, and by whom.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::msgpack::Encoder;

/// The lengths of the JSON object at which releases of the original up to 1.4.0 don't read the newline after it, and so compute another hash than the one listed.
///
/// They are the fill levels of the original's read buffer as it grows.
/// Without the newline there is nothing to leave unread.
const LENGTHS_WITHOUT_NEWLINE: [usize; 3] = [512, 1536, 3584];

/// The metadata of a snapshot, as plain as the file has it.
///
/// Only `version`, `index` and `size` matter to a restore; a restored cluster keeps its own servers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta {
    /// The version of this metadata, 1.
    pub version: i64,
    /// An opaque name: term, index and Unix time in milliseconds, joined by dashes.
    pub id: String,
    /// The index in the log of the last entry that the state contains.
    pub index: u64,
    /// The term of that entry.
    pub term: u64,
    /// The voters in an older form, see [`Meta::encode_peers`].
    pub peers: String,
    /// The servers of the cluster.
    pub configuration: Configuration,
    /// The index in the log of the entry that brought the configuration.
    pub configuration_index: u64,
    /// The length of the state in bytes.
    pub size: i64,
}

/// The servers of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Configuration {
    /// The servers; none is written as null.
    #[serde(rename = "Servers", serialize_with = "null_if_empty")]
    pub servers: Vec<Server>,
}

/// One server of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Server {
    /// Whether it votes.
    #[serde(rename = "Suffrage")]
    pub suffrage: Suffrage,
    /// Its name in the log: its address in 0.7.1, later a UUID.
    #[serde(rename = "ID")]
    pub id: String,
    /// Where the others reach it.
    #[serde(rename = "Address")]
    pub address: String,
}

/// A server's part in elections, as the number that the file has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Suffrage(
    /// 0 votes, 1 doesn't, 2 is about to.
    pub i64,
);

impl Suffrage {
    /// The server votes.
    pub const VOTER: Self = Self(0);
    /// The server follows the log without a vote.
    pub const NON_VOTER: Self = Self(1);
}

/// Why a sound archive can't be restored; the texts are the original's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unrestorable {
    /// Metadata of another version.
    #[error("Raft error when restoring snapshot: unsupported snapshot version {0}")]
    Version(i64),
    /// Metadata without a version, which the original notices one step later.
    #[error(
        "Raft error when restoring snapshot: failed to create snapshot: unsupported snapshot version 0"
    )]
    NoVersion,
    /// The state is not as long as the metadata says.
    #[error(
        "Raft error when restoring snapshot: failed to write snapshot, size didn't match ({actual} != {expected})"
    )]
    Size {
        /// What the archive holds.
        actual: u64,
        /// What the metadata says.
        expected: i64,
    },
}

impl Meta {
    /// Whether a state of `state_size` bytes under this metadata can be restored.
    ///
    /// This is apart from [`super::verify`], because looking into an archive is fine where restoring it is not.
    pub fn check_restorable(&self, state_size: u64) -> Result<(), Unrestorable> {
        match self.version {
            1 => {}
            0 => return Err(Unrestorable::NoVersion),
            version => return Err(Unrestorable::Version(version)),
        }
        if u64::try_from(self.size) != Ok(state_size) {
            return Err(Unrestorable::Size {
                actual: state_size,
                expected: self.size,
            });
        }
        Ok(())
    }

    /// The value of `peers` for these voters, each as `ip:port`: a MessagePack array of strings, in base64.
    pub fn encode_peers<'a>(voters: impl ExactSizeIterator<Item = &'a str>) -> String {
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&mut bytes);
        encoder.array_len(voters.len());
        for voter in voters {
            encoder.raw(voter.as_bytes());
        }
        base64_simd::STANDARD.encode_to_string(&bytes)
    }

    /// The file as it goes into the archive.
    pub(super) fn encode(&self) -> Vec<u8> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Fields<'a> {
            version: i64,
            #[serde(rename = "ID")]
            id: &'a str,
            index: u64,
            term: u64,
            peers: &'a str,
            configuration: &'a Configuration,
            configuration_index: u64,
            size: i64,
        }
        let mut bytes = serde_json::to_vec(&Fields {
            version: self.version,
            id: &self.id,
            index: self.index,
            term: self.term,
            peers: &self.peers,
            configuration: &self.configuration,
            configuration_index: self.configuration_index,
            size: self.size,
        })
        .expect("numbers and strings always have a JSON form");
        if !LENGTHS_WITHOUT_NEWLINE.contains(&bytes.len()) {
            bytes.push(b'\n');
        }
        bytes
    }

    /// Reads the first JSON value of `bytes` with the habits of the original's decoder:
    /// unknown keys are ignored, absent and null ones are zero, and the case of a key doesn't matter.
    /// The error is the text after `failed to decode snapshot metadata: `.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<Value>();
        let value = match values.next() {
            None => return Err("EOF".into()),
            Some(Err(error)) if error.is_eof() => return Err("unexpected EOF".into()),
            Some(Err(error)) => return Err(error.to_string()),
            Some(Ok(value)) => value,
        };
        let mut meta = Self::default();
        let Some(fields) = object(&value, "the metadata")? else {
            return Ok(meta);
        };
        for (key, value) in fields {
            match key.to_ascii_lowercase().as_str() {
                "version" => meta.version = signed(value, "Version")?,
                "id" => meta.id = text(value, "ID")?,
                "index" => meta.index = unsigned(value, "Index")?,
                "term" => meta.term = unsigned(value, "Term")?,
                "peers" => meta.peers = text(value, "Peers")?,
                "configuration" => meta.configuration = configuration(value)?,
                "configurationindex" => {
                    meta.configuration_index = unsigned(value, "ConfigurationIndex")?;
                }
                "size" => meta.size = signed(value, "Size")?,
                _ => {}
            }
        }
        Ok(meta)
    }
}

fn configuration(value: &Value) -> Result<Configuration, String> {
    let mut configuration = Configuration::default();
    for (key, value) in object(value, "Configuration")?.into_iter().flatten() {
        if key.eq_ignore_ascii_case("servers") {
            configuration.servers = match value {
                Value::Null => Vec::new(),
                Value::Array(servers) => servers.iter().map(server).collect::<Result<_, _>>()?,
                _ => return Err("Servers is not an array".into()),
            };
        }
    }
    Ok(configuration)
}

fn server(value: &Value) -> Result<Server, String> {
    let mut server = Server::default();
    for (key, value) in object(value, "a server")?.into_iter().flatten() {
        match key.to_ascii_lowercase().as_str() {
            "suffrage" => server.suffrage = Suffrage(signed(value, "Suffrage")?),
            "id" => server.id = text(value, "ID")?,
            "address" => server.address = text(value, "Address")?,
            _ => {}
        }
    }
    Ok(server)
}

fn object<'a>(value: &'a Value, name: &str) -> Result<Option<&'a Map<String, Value>>, String> {
    match value {
        Value::Null => Ok(None),
        Value::Object(fields) => Ok(Some(fields)),
        _ => Err(format!("{name} is not an object")),
    }
}

fn text(value: &Value, name: &str) -> Result<String, String> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        _ => Err(format!("{name} is not a string")),
    }
}

fn signed(value: &Value, name: &str) -> Result<i64, String> {
    if value.is_null() {
        return Ok(0);
    }
    value
        .as_i64()
        .ok_or_else(|| format!("{name} is not an integer of 64 bits"))
}

fn unsigned(value: &Value, name: &str) -> Result<u64, String> {
    if value.is_null() {
        return Ok(0);
    }
    value
        .as_u64()
        .ok_or_else(|| format!("{name} is not an unsigned integer of 64 bits"))
}

fn null_if_empty<S: serde::Serializer>(servers: &[Server], to: S) -> Result<S::Ok, S::Error> {
    if servers.is_empty() {
        to.serialize_none()
    } else {
        to.collect_seq(servers)
    }
}
