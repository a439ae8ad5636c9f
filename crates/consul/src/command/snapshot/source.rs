//! What commands read snapshots from: a file, standard input or an object; encrypted or not.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use backup::seal::{Identities, Opened};
use backup::{ArchiveError, Location, Unreadable};

use super::progress::Progress;
use crate::config::reason;
use crate::console::Console;
use crate::flags::{Flag, Parsed, Value};

/// For whatever reads a snapshot.
pub(super) const IDENTITY: &[Flag] = &[Flag::new(
    "identity",
    Value::Text(""),
    "file",
    "With what an encrypted snapshot is opened: a file of secret keys, as age-keygen writes it. Snapshots that aren't \
     encrypted need none.",
)];

/// The place that a word of the command line names.
pub(super) fn location(word: &str, console: &Console<'_>) -> Result<Location, String> {
    Location::parse(word, &console.lookup()).map_err(|why| format!("Error: {why}"))
}

/// What opens encrypted snapshots, if the flags name it.
pub(super) fn identities(parsed: &Parsed) -> Result<Option<Identities>, String> {
    let file = parsed.text("identity");
    if file.is_empty() {
        return Ok(None);
    }
    Identities::from_file(Path::new(file))
        .map(Some)
        .map_err(|why| format!("Error reading identity file {file}: {why}"))
}

/// A snapshot that is read once, from front to end.
pub(super) struct Source<'a> {
    /// What it holds, decrypted.
    pub(super) reader: Opened<Box<dyn Read + Send + 'a>>,
    /// How long it is, if that is known before.
    pub(super) size: Option<u64>,
}

impl<'a> Source<'a> {
    pub(super) fn open(
        location: &Location,
        identities: Option<&Identities>,
        console: &'a mut Console<'_>,
    ) -> Result<Self, String> {
        let (reader, size) = raw(location, console)?;
        let reader = Opened::new(reader, identities).map_err(|why| opening(location, &why))?;
        Ok(Self { reader, size })
    }
}

type Raw<'a> = Box<dyn Read + Send + 'a>;

fn raw<'a>(
    location: &Location,
    console: &'a mut Console<'_>,
) -> Result<(Raw<'a>, Option<u64>), String> {
    Ok(match location {
        Location::Standard => (Box::new(&mut *console.input), None),
        Location::File(path) => {
            let (file, metadata) = open_file(path)?;
            let size = metadata.is_file().then_some(metadata.len());
            (Box::new(file), size)
        }
        Location::Object(object) => {
            let reader = object.reader(&console.lookup());
            let reader = reader.map_err(|why| opening(location, &why))?;
            (Box::new(reader), None)
        }
    })
}

fn opening(location: &Location, why: &dyn std::fmt::Display) -> String {
    format!("Error opening snapshot file: {location}: {why}")
}

fn open_file(path: &Path) -> Result<(File, fs::Metadata), String> {
    File::open(path)
        .and_then(|opened| {
            let metadata = opened.metadata()?;
            // Reading a directory fails later and less clearly.
            if metadata.is_dir() {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            Ok((opened, metadata))
        })
        .map_err(|why| {
            let path = path.display();
            format!("Error opening snapshot file: open {path}: {}", reason(&why))
        })
}

/// A snapshot that can be read more than once, as it came: what is encrypted is encrypted here as well.
#[derive(Debug)]
pub(super) struct Held {
    file: Arc<File>,
}

impl Held {
    /// Takes hold of a snapshot. What is no file of this machine is copied into one without a name.
    pub(super) fn take(location: &Location, console: &mut Console<'_>) -> Result<Self, String> {
        if let Location::File(path) = location {
            let (file, metadata) = open_file(path)?;
            if metadata.is_file() {
                return Ok(Self::of(file));
            }
        }
        let mut progress = Progress::new("Reading", None, console);
        let (mut reader, _) = raw(location, console)?;
        let failed =
            |why: io::Error| format!("Error reading snapshot file: {location}: {}", reason(&why));
        let mut scratch = tempfile::tempfile().map_err(failed)?;
        let mut counted = Counted {
            inner: &mut reader,
            progress: &mut progress,
        };
        io::copy(&mut counted, &mut scratch).map_err(failed)?;
        Ok(Self::of(scratch))
    }

    /// Takes hold of a file that nobody writes to any more.
    pub(super) fn of(file: File) -> Self {
        Self {
            file: Arc::new(file),
        }
    }

    /// Reads it from its beginning.
    pub(super) fn open(
        &self,
        identities: Option<&Identities>,
    ) -> Result<Opened<impl Read + Send + use<>>, Unreadable> {
        let whole = Whole {
            file: Arc::clone(&self.file),
            at: 0,
        };
        Opened::new(whole, identities)
            .map_err(|why| Unreadable::Archive(ArchiveError::Source(why.into())))
    }
}

/// A reader of its own of a file that others read as well.
struct Whole {
    file: Arc<File>,
    at: u64,
}

impl Read for Whole {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(out, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Tells how much was read.
struct Counted<'a, R> {
    inner: R,
    progress: &'a mut Progress,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(out)?;
        self.progress.advance(read);
        Ok(read)
    }
}
