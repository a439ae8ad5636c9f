//! Where a snapshot is, as people write it on a command line: a file, `-`, or the URL of an object in a cloud.
//!
//! `s3://bucket/key`, `gs://bucket/name`, `az://container/name` with the account from the environment, or
//! `az://account.blob.core.windows.net/container/name` with the account in the URL: no container has a dot in its name.
//! What follows the bucket is the object's name as it stands; nothing in it is decoded.
//!
//! The same with a folder or the beginning of names is a place for many, and one of those is the place, a slash and its name.

use std::fmt;
use std::io::{self, Read};
use std::path::PathBuf;

use bytes::{Buf, Bytes};
use futures::TryStreamExt;

use crate::Name;
use crate::stores::{self, Azure, AzureCloud, Content, Destination, Gcs, S3, StoreError, Upload};

/// Looks up a variable of the environment; an empty one is none.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Where one snapshot is read from or written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// Standard input or output; they belong to whoever asks.
    Standard,
    /// A file of this machine, or a device.
    File(PathBuf),
    /// An object in a cloud.
    Object(Box<Object>),
}

/// An object in a cloud, which may be called anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    url: String,
    destination: Destination,
    key: String,
}

/// It names no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotAPlace(String);

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard => f.write_str("-"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Object(object) => object.fmt(f),
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl Location {
    /// Reads what somebody wrote. The account of an Azure container comes from the environment, if it isn't told.
    ///
    /// # Errors
    /// If it is a URL that names no object of a cloud that we know.
    pub fn parse(text: &str, environment: Environment<'_>) -> Result<Self, NotAPlace> {
        if text == "-" {
            return Ok(Self::Standard);
        }
        let Some((cloud, path)) = Cloud::split(text)? else {
            return Ok(Self::File(PathBuf::from(text)));
        };
        let (destination, key) = cloud.place(text, path, environment)?;
        if key.is_empty() || key.ends_with('/') {
            return Err(NotAPlace(format!(
                "{text} names no object; add the object's name to it"
            )));
        }
        Ok(Self::Object(Box::new(Object {
            url: text.to_owned(),
            destination,
            key: key.to_owned(),
        })))
    }

    /// The same place under another file name: `change` gets the last part of its path.
    #[must_use]
    pub fn renamed(self, change: impl FnOnce(&str) -> String) -> Self {
        match self {
            Self::Standard => Self::Standard,
            Self::File(path) => {
                let name = path.file_name().and_then(|name| name.to_str());
                match name.map(change) {
                    Some(name) => Self::File(path.with_file_name(name)),
                    None => Self::File(path),
                }
            }
            Self::Object(object) => {
                let last = |text: &str| text.rfind('/').map_or(0, |at| at + 1);
                let (folder, name) = object.key.split_at(last(&object.key));
                let name = change(name);
                Self::Object(Box::new(Object {
                    key: format!("{folder}{name}"),
                    url: format!("{}{name}", &object.url[..last(&object.url)]),
                    destination: object.destination,
                }))
            }
        }
    }
}

/// Reads where many snapshots are: a folder, or the beginning of their names in a cloud.
///
/// # Errors
/// If it is a URL of no cloud that we know.
pub fn place(text: &str, environment: Environment<'_>) -> Result<Destination, NotAPlace> {
    let Some((cloud, path)) = Cloud::split(text)? else {
        return Ok(Destination::Local(PathBuf::from(text)));
    };
    let (mut destination, prefix) = cloud.place(text, path, environment)?;
    let prefix = prefix.trim_end_matches('/').to_owned();
    match &mut destination {
        Destination::Local(_) => {}
        Destination::S3(settings) => settings.key_prefix = prefix,
        Destination::Gcs(settings) => settings.prefix = prefix,
        Destination::Azure(settings) => settings.prefix = prefix,
    }
    Ok(destination)
}

/// Reads which one of the snapshots of a place is meant: the place, a slash, and its name.
///
/// # Errors
/// If it is a URL of no cloud that we know, or what follows the last slash isn't called like a snapshot.
pub fn place_and_name(
    text: &str,
    environment: Environment<'_>,
) -> Result<(Destination, Name), NotAPlace> {
    let (folder, name) = match text.rfind('/') {
        // The folder above all others is itself a slash.
        Some(0) => ("/", &text[1..]),
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (".", text),
    };
    let name = name
        .parse()
        .map_err(|why| NotAPlace(format!("{name:?} is {why}")))?;
    Ok((place(folder, environment)?, name))
}

/// Whose URL it is.
#[derive(Debug, Clone, Copy)]
enum Cloud {
    Amazon,
    Google,
    Azure,
}

impl Cloud {
    /// The cloud of a URL and what follows the scheme; nothing for the name of a file.
    fn split(text: &str) -> Result<Option<(Self, &str)>, NotAPlace> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Ok(None);
        };
        let cloud = match scheme {
            "s3" => Self::Amazon,
            "gs" => Self::Google,
            "az" => Self::Azure,
            // A path that merely has it in the middle is a path.
            _ if !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => return Ok(None),
            _ => {
                return Err(NotAPlace(format!(
                    "{scheme}:// is no place for snapshots: those are the name of a file, -, s3://bucket/key, \
                     gs://bucket/name and az://container/name"
                )));
            }
        };
        Ok(Some((cloud, rest)))
    }

    /// The bucket, and what follows it.
    fn place<'a>(
        self,
        url: &str,
        path: &'a str,
        environment: Environment<'_>,
    ) -> Result<(Destination, &'a str), NotAPlace> {
        let var = |names: &[&str]| {
            let found = names.iter().find_map(|name| environment(name));
            found.unwrap_or_default()
        };
        let (bucket, rest) = path.split_once('/').unwrap_or((path, ""));
        let bucket_of = |bucket: &str| match bucket {
            "" => Err(NotAPlace(format!("{url} names no bucket"))),
            _ => Ok(bucket.to_owned()),
        };
        match self {
            // Where its region and its endpoint aren't told, the environment is asked when it is opened.
            Self::Amazon => {
                let settings = S3 {
                    bucket: bucket_of(bucket)?,
                    ..S3::default()
                };
                Ok((Destination::S3(settings), rest))
            }
            Self::Google => {
                let endpoint = match environment("STORAGE_EMULATOR_HOST") {
                    Some(host) if !host.contains("://") => format!("http://{host}"),
                    Some(url) => url,
                    None => String::new(),
                };
                let settings = Gcs {
                    bucket: bucket_of(bucket)?,
                    endpoint,
                    ..Gcs::default()
                };
                Ok((Destination::Gcs(settings), rest))
            }
            Self::Azure => {
                let mut settings = Azure::default();
                if let Some((account, domain)) = bucket.split_once('.') {
                    let (container, rest) = rest.split_once('/').unwrap_or((rest, ""));
                    settings.account_name = account.to_owned();
                    settings.container_name = bucket_of(container)?;
                    settings.environment = azure_cloud(domain);
                    settings.endpoint = format!("https://{bucket}");
                    return Ok((Destination::Azure(settings), rest));
                }
                settings.container_name = bucket_of(bucket)?;
                settings.account_name =
                    var(&["AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"]);
                settings.endpoint = var(&["AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"]);
                if settings.account_name.is_empty() {
                    return Err(NotAPlace(format!(
                        "{url} is in an unknown account; set AZURE_STORAGE_ACCOUNT_NAME, or name it as in \
                         az://account.blob.core.windows.net/container/name"
                    )));
                }
                Ok((Destination::Azure(settings), rest))
            }
        }
    }
}

/// Where the accounts of such a domain sign in.
fn azure_cloud(domain: &str) -> AzureCloud {
    let clouds = [
        ("chinacloudapi.cn", AzureCloud::China),
        ("cloudapi.de", AzureCloud::German),
        ("usgovcloudapi.net", AzureCloud::UsGovernment),
    ];
    let found = clouds.iter().find(|(end, _)| domain.ends_with(end));
    found.map_or(AzureCloud::Public, |(_, cloud)| *cloud)
}

/// Stands for the object in calls that want a name; an object of its own has only one.
const ANY: Name = Name {
    id: 0,
    encrypted: false,
};

impl Object {
    fn store(&self, environment: Environment<'_>) -> Result<Box<dyn stores::Store>, StoreError> {
        stores::open_object(&self.destination, &self.key, environment)
    }

    /// Begins to read it, with region, endpoint and credentials from the environment.
    ///
    /// # Errors
    /// If the store doesn't have it, or doesn't let us.
    pub async fn read(&self, environment: Environment<'_>) -> Result<Content, StoreError> {
        let store = self.store(environment)?;
        store.get(ANY).await
    }

    /// Begins to write it. What has the name now keeps it until the new one is published.
    ///
    /// # Errors
    /// If the settings can't be.
    pub async fn begin(&self, environment: Environment<'_>) -> Result<Box<dyn Upload>, StoreError> {
        let store = self.store(environment)?;
        store.begin(ANY).await
    }

    /// Begins to read it from a thread that may wait. A runtime of its own works while somebody reads and at no other time,
    /// so nothing of it piles up; it must not be used inside of another runtime.
    ///
    /// # Errors
    /// If the store doesn't have it, or doesn't let us.
    pub fn reader(&self, environment: Environment<'_>) -> Result<ObjectReader, StoreError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|why| StoreError::Failed {
                what: format!("cannot read {self}"),
                why: why.to_string(),
            })?;
        let content = runtime.block_on(self.read(environment))?;
        Ok(ObjectReader {
            content: Some(content),
            piece: Bytes::new(),
            runtime,
        })
    }
}

/// An object on its way.
pub struct ObjectReader {
    /// Gone once it has ended: it must not be asked again then, and readers are.
    content: Option<Content>,
    piece: Bytes,
    runtime: tokio::runtime::Runtime,
}

impl fmt::Debug for ObjectReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectReader").finish_non_exhaustive()
    }
}

impl Read for ObjectReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !out.is_empty() {
            let Some(content) = &mut self.content else {
                return Ok(0);
            };
            match self.runtime.block_on(content.try_next()) {
                Ok(Some(piece)) => self.piece = piece,
                ended => {
                    self.content = None;
                    ended?;
                }
            }
        }
        let size = out.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut out[..size]);
        Ok(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<String> {
        let known = [
            ("AZURE_STORAGE_ACCOUNT_NAME", "acme"),
            ("STORAGE_EMULATOR_HOST", "localhost:4443"),
        ];
        let found = known.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    }

    fn nothing(_: &str) -> Option<String> {
        None
    }

    fn object(text: &str) -> (Destination, String) {
        match Location::parse(text, &environment) {
            Ok(Location::Object(object)) => {
                assert_eq!(object.to_string(), text);
                (object.destination, object.key)
            }
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn files_are_files() {
        for text in [
            "a.snap",
            "/a/b",
            "./s3://x",
            "a b://c",
            "s3:/bucket/key",
            "",
        ] {
            let location = Location::parse(text, &nothing);
            assert_eq!(location, Ok(Location::File(PathBuf::from(text))), "{text}");
        }
        assert_eq!(Location::parse("-", &nothing), Ok(Location::Standard));
    }

    #[test]
    fn urls_are_objects() {
        let (Destination::S3(s3), key) = object("s3://backups/dc1/a%20b.snap") else {
            panic!("not S3");
        };
        assert_eq!(key, "dc1/a%20b.snap");
        assert_eq!(s3.bucket, "backups");
        let (Destination::Gcs(gcs), key) = object("gs://b/k") else {
            panic!("not Google's");
        };
        assert_eq!((&key[..], &gcs.bucket[..]), ("k", "b"));
        assert_eq!(gcs.endpoint, "http://localhost:4443");
        let (Destination::Azure(azure), key) = object("az://box/x/y.snap") else {
            panic!("not Azure's");
        };
        assert_eq!(
            (
                &key[..],
                &azure.account_name[..],
                &azure.container_name[..],
                &azure.endpoint[..]
            ),
            ("x/y.snap", "acme", "box", "")
        );
        let (Destination::Azure(azure), key) =
            object("az://other.blob.core.chinacloudapi.cn/box/y")
        else {
            panic!("not Azure's");
        };
        assert_eq!(
            (
                &key[..],
                &azure.account_name[..],
                &azure.container_name[..],
                &azure.endpoint[..]
            ),
            (
                "y",
                "other",
                "box",
                "https://other.blob.core.chinacloudapi.cn"
            )
        );
        assert_eq!(azure.environment, AzureCloud::China);
    }

    #[test]
    fn what_names_no_place_is_told_of() {
        for (text, expected) in [
            ("http://x/y", "http:// is no place for snapshots"),
            ("s3://", "s3:// names no bucket"),
            ("s3:///key", "s3:///key names no bucket"),
            ("s3://bucket", "s3://bucket names no object"),
            ("gs://bucket/a/", "gs://bucket/a/ names no object"),
            ("az://a.example.org/", "az://a.example.org/ names no bucket"),
        ] {
            let why = Location::parse(text, &environment).unwrap_err().to_string();
            assert!(why.starts_with(expected), "{text}: {why}");
        }
        let why = Location::parse("az://c/k", &nothing)
            .unwrap_err()
            .to_string();
        assert!(why.contains("set AZURE_STORAGE_ACCOUNT_NAME"), "{why}");
    }

    #[test]
    fn places_and_names_in_them() {
        let (destination, name) =
            place_and_name("s3://b/p/q/consul-7.snap.age", &environment).unwrap();
        assert_eq!(destination, place("s3://b/p/q/", &environment).unwrap());
        assert_eq!(name.to_string(), "consul-7.snap.age");
        let Destination::S3(s3) = destination else {
            panic!("not S3");
        };
        assert_eq!((&s3.bucket[..], &s3.key_prefix[..]), ("b", "p/q"));
        for (text, folder) in [
            ("consul-7.snap", "."),
            ("/consul-7.snap", "/"),
            ("a/b/consul-7.snap", "a/b"),
        ] {
            let (destination, _) = place_and_name(text, &nothing).unwrap();
            assert_eq!(destination, Destination::Local(PathBuf::from(folder)));
        }
        let why = place_and_name("a/b.snap", &nothing).unwrap_err();
        assert!(
            why.to_string()
                .starts_with("\"b.snap\" is not the name of a snapshot")
        );
    }

    #[test]
    fn another_name_in_the_same_place() {
        for (text, expected) in [
            ("-", "-"),
            ("a.snap", "X"),
            ("/a/b.snap", "/a/X"),
            ("s3://b/k", "s3://b/X"),
            ("s3://b/d/k", "s3://b/d/X"),
        ] {
            let location = Location::parse(text, &environment).unwrap();
            let renamed = location.renamed(|_| "X".to_owned());
            assert_eq!(renamed.to_string(), expected);
            assert_eq!(renamed, Location::parse(expected, &environment).unwrap());
        }
    }
}
