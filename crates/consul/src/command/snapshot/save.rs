//! `consul snapshot save`: the state of a cluster in a file, which appears only when it is whole and sound.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Seek, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use backup::seal::{Recipient, sealed};
use backup::stores::{Content, Upload};
use backup::{ArchiveError, Location, Options, Report};
use bytes::Bytes;
use client::{Client, SnapshotDownload};
use futures::{StreamExt, TryStreamExt};
use tempfile::NamedTempFile;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::progress::Progress;
use super::{about_places, only_argument, source};
use crate::command::{FAILED, OK, http};
use crate::config::reason;
use crate::console::Console;
use crate::flags::{Flag, Parsed, Syntax, Value};

/// For whatever writes a snapshot.
pub(super) const ENCRYPT_TO: &[Flag] = &[Flag::new(
    "encrypt-to",
    Value::Many,
    "recipient",
    "Encrypts the snapshot in the age format, so that only the owner of this public key can open it: age1…, as \
     age-keygen prints it. Given several times, any one of the owners can.",
)];

pub(in crate::command) const SAVE: Syntax = Syntax {
    name: "snapshot save",
    arguments: "FILE",
    summary: "Saves the state of a cluster to a file",
    about: about_places!(
        "Saves the whole state of the cluster to a file: keys, services, sessions, tokens and queries. The file \
         appears under its name only when it is complete, checked and safely stored; what had the name before keeps \
         it until then. Only its owner may read it."
    ),
    example: "consul snapshot save backup.snap\n\
              consul snapshot save -append-filename=dc,version backup.snap\n\
              consul snapshot save -encrypt-to=age1… s3://backups/dc1.snap.age\n\
              consul snapshot save - | gpg --encrypt -r ops > backup.snap.gpg",
    flags: &[
        ENCRYPT_TO,
        &[Flag::new(
            "append-filename",
            Value::Text(""),
            "parts",
            "Puts something of the agent between the file's name and its extension: any of version, dc, node and \
             status (leader, follower or client), with commas in between. The name that came of it is told.",
        )],
        http::AGENT,
        http::DATACENTER,
        http::STALE,
    ],
};

pub(in crate::command) fn save(parsed: &Parsed, console: &mut Console<'_>) -> u8 {
    // Where the snapshot itself goes to standard output, nothing else may.
    let to_output = parsed.arguments == ["-"];
    let outcome = Wish::read(parsed, console).and_then(|wish| {
        let client = http::client(parsed, console).map_err(|why| http::cannot_connect(&why))?;
        http::wait_for(save_to(wish, &client, parsed, console))
    });
    match (outcome, to_output) {
        (Ok(saved), false) => console.say(saved),
        (Ok(saved), true) => console.note(saved),
        (Err(why), false) => return http::failed(console, why),
        (Err(why), true) => {
            console.note(why);
            return FAILED;
        }
    }
    OK
}

/// What somebody wants to have saved where.
struct Wish {
    location: Location,
    recipients: Vec<Recipient>,
    name_parts: Vec<NamePart>,
}

impl Wish {
    fn read(parsed: &Parsed, console: &Console<'_>) -> Result<Self, String> {
        let location = source::location(only_argument(parsed)?, console)?;
        let recipients = recipients(parsed)?;
        let name_parts = match parsed.text("append-filename") {
            "" => Vec::new(),
            parts => parts
                .split(',')
                .map(|part| NamePart::parse(part.trim()))
                .collect::<Result<Vec<_>, _>>()?,
        };
        if location == Location::Standard && !name_parts.is_empty() {
            return Err("-append-filename needs a file; standard output has no name".to_owned());
        }
        Ok(Self {
            location,
            recipients,
            name_parts,
        })
    }
}

/// Whom the flags want a snapshot to be encrypted to.
pub(super) fn recipients(parsed: &Parsed) -> Result<Vec<Recipient>, String> {
    let given = parsed.in_order().filter(|(name, _)| *name == "encrypt-to");
    given
        .map(|(_, text)| (text.parse()).map_err(|why| format!("Error in -encrypt-to: {why}")))
        .collect()
}

/// Something of the agent that is asked, for the name of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NamePart {
    Version,
    Datacenter,
    Node,
    Status,
}

impl NamePart {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(match text {
            "version" => Self::Version,
            "dc" => Self::Datacenter,
            "node" => Self::Node,
            "status" => Self::Status,
            other => {
                return Err(format!(
                    "Unknown part {other:?} in -append-filename: there are version, dc, node and status"
                ));
            }
        })
    }

    fn of(self, agent: &About) -> &str {
        match self {
            Self::Version => &agent.version,
            Self::Datacenter => &agent.datacenter,
            Self::Node => &agent.node,
            Self::Status => agent.status,
        }
    }
}

/// What an agent says of itself.
struct About {
    version: String,
    datacenter: String,
    node: String,
    status: &'static str,
}

impl About {
    async fn ask(client: &Client) -> Result<Self, client::Error> {
        let (node, datacenter) = client.agent_place().await?;
        let stats: BTreeMap<_, _> = client.agent_stats().await?;
        let stat = |section: &str, name: &str| {
            let section = stats.get(section);
            section.and_then(|section| section.get(name).cloned())
        };
        let is = |name| stat("consul", name).is_some_and(|value| value == "true");
        Ok(Self {
            version: stat("build", "version").unwrap_or_default(),
            datacenter,
            node,
            status: match (is("server"), is("leader")) {
                (_, true) => "leader",
                (true, false) => "follower",
                (false, false) => "client",
            },
        })
    }
}

/// A file's name with more in front of its extension.
fn appended(name: &str, parts: &[&str]) -> String {
    let (stem, extension) = match name.rfind('.') {
        // What begins with a dot has no extension by that.
        None | Some(0) => (name, ""),
        Some(dot) => name.split_at(dot),
    };
    let parts = parts.iter().filter(|part| !part.is_empty());
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    let parts = parts.map(|part| part.replace(|c| !plain(c), "_"));
    let more: String = parts.map(|part| format!("-{part}")).collect();
    format!("{stem}{more}{extension}")
}

async fn save_to(
    wish: Wish,
    client: &Client,
    parsed: &Parsed,
    console: &mut Console<'_>,
) -> Result<String, String> {
    let Wish {
        mut location,
        recipients,
        name_parts,
    } = wish;
    let saving = |why| format!("Error saving snapshot: {why}");
    let has_parts = !name_parts.is_empty();
    if has_parts {
        let agent = About::ask(client).await.map_err(saving)?;
        let parts: Vec<&str> = name_parts.iter().map(|part| part.of(&agent)).collect();
        location = location.renamed(|name| appended(name, &parts));
    }
    // The request comes first: a refused one must not leave a trace.
    let download = client
        .snapshot_save(&http::query_options(parsed))
        .await
        .map_err(saving)?;
    let index = download.meta.index;
    let progress = Progress::new("Saving", None, console);
    store(checked(download, progress), &recipients, &location, console).await?;
    let saved = format!("Saved and verified snapshot to index {index}");
    Ok(if has_parts {
        format!("{saved} in {location}")
    } else {
        saved
    })
}

fn creating(file: &Path, why: &io::Error) -> String {
    let file = file.display();
    format!("Error creating snapshot file: open {file}: {}", reason(why))
}

fn writing(why: &io::Error) -> String {
    format!("Error writing snapshot file: {}", reason(why))
}

/// Stores a snapshot, encrypted if there are recipients. It has its name when this returns without an error, and no name
/// otherwise; nor has it one if a signal ends the program.
pub(super) async fn store(
    content: Content,
    recipients: &[Recipient],
    location: &Location,
    console: &mut Console<'_>,
) -> Result<(), String> {
    let mut sink = Sink::begin(location, console).await?;
    let content = if recipients.is_empty() {
        content
    } else {
        sealed(content, recipients)
    };
    if let Sink::Scratch { .. } = sink {
        // What goes to a stream of the console is only collected at first; a signal ends the program without more ado.
        fill(&mut sink, content).await?;
        return match sink.publish().await? {
            Some(held) => held.copy_to(console).map_err(|why| writing(&why)),
            None => Ok(()),
        };
    }
    if let Err(why) = http::unless_stopped(fill(&mut sink, content)).await {
        // Parts of an object would lie in the store, unseen and paid for. Who doesn't want to wait for that says so again.
        let abandoning = async {
            sink.abandon().await;
            Ok(())
        };
        let _ = http::unless_stopped(abandoning).await;
        return Err(why);
    }
    http::unless_stopped(sink.publish()).await.map(drop)
}

async fn fill(sink: &mut Sink, mut content: Content) -> Result<(), String> {
    while let Some(piece) = content.try_next().await.map_err(|why| why.to_string())? {
        sink.write(piece).await?;
    }
    Ok(())
}

/// A snapshot as it arrives; it ends without an error only if it is sound. The errors are for people as they are.
pub(super) fn checked(download: SnapshotDownload, progress: Progress) -> Content {
    let state = (download, progress, Some(Check::begin()));
    let pieces = futures::stream::try_unfold(state, async |(mut download, mut progress, check)| {
        // Gone when the verdict was good.
        let Some(mut check) = check else {
            return Ok(None);
        };
        let piece = download
            .chunk()
            .await
            .map_err(|why| io::Error::other(format!("Error writing snapshot file: {why}")))?;
        if let Some(piece) = &piece
            && check.pass(piece.clone()).await
        {
            progress.advance(piece.len());
            let state = (download, progress, Some(check));
            return Ok(Some((piece.clone(), state)));
        }
        progress.finish();
        check.finish().await?;
        match piece {
            None => Ok(None),
            // Who judges reads to the end, so it can't have liked what has more behind it.
            Some(_) => Err(io::Error::other(
                "Error verifying snapshot file: it goes on behind its end",
            )),
        }
    });
    pieces.boxed()
}

/// A thread that reads a snapshot which passes by.
struct Check {
    sender: Option<mpsc::Sender<Bytes>>,
    verdict: JoinHandle<Result<Report, ArchiveError>>,
}

impl Check {
    fn begin() -> Self {
        let (sender, pieces) = backup::to_thread();
        let work = move || backup::inspect(pieces, &Options::default());
        Self {
            sender: Some(sender),
            verdict: tokio::task::spawn_blocking(work),
        }
    }

    /// Whether the thread wants to see more.
    async fn pass(&mut self, piece: Bytes) -> bool {
        match &self.sender {
            Some(sender) => sender.send(piece).await.is_ok(),
            None => false,
        }
    }

    async fn finish(mut self) -> io::Result<()> {
        self.sender = None;
        let fault = match self.verdict.await {
            Ok(Ok(report)) => report.fault,
            Ok(Err(why)) => Some(why.to_string()),
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(ended) => Some(ended.to_string()),
            },
        };
        match fault {
            None => Ok(()),
            Some(why) => Err(io::Error::other(format!(
                "Error verifying snapshot file: {why}"
            ))),
        }
    }
}

/// What a snapshot is written to before it is known to be good.
enum Sink {
    /// A file without its name.
    File {
        scratch: NamedTempFile,
        path: PathBuf,
    },
    /// A file that never gets a name; what is in it goes to a stream in the end, where nothing can be taken back.
    Scratch { scratch: File, to: Option<File> },
    /// An object that isn't there yet.
    Object(Box<dyn Upload>),
}

/// A good snapshot that is still to be written to a device, a pipe, or standard output.
struct Held {
    scratch: File,
    to: Option<File>,
}

impl Sink {
    async fn begin(location: &Location, console: &Console<'_>) -> Result<Self, String> {
        match location {
            Location::Standard => Self::scratch(None),
            Location::File(path) => Self::file(path),
            Location::Object(object) => object
                .begin(&console.lookup())
                .await
                .map(Self::Object)
                .map_err(|why| format!("Error writing snapshot: {why}")),
        }
    }

    fn scratch(to: Option<File>) -> Result<Self, String> {
        let scratch = tempfile::tempfile().map_err(|why| creating(&std::env::temp_dir(), &why))?;
        Ok(Self::Scratch { scratch, to })
    }

    fn file(file: &Path) -> Result<Self, String> {
        let failed = |why: io::Error| creating(file, &why);
        // A link is followed, so that it is its target that is replaced.
        let path = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
        if let Ok(metadata) = fs::metadata(&path) {
            let kind = metadata.file_type();
            if kind.is_dir() {
                return Err(failed(io::ErrorKind::IsADirectory.into()));
            }
            if kind.is_char_device() || kind.is_block_device() || kind.is_fifo() || kind.is_socket()
            {
                // It can't be replaced, only written to.
                let device = fs::OpenOptions::new().write(true).open(&path);
                return Self::scratch(Some(device.map_err(failed)?));
            }
        }
        let scratch = tempfile::Builder::new()
            .prefix(".consul-snapshot-")
            .tempfile_in(folder_of(&path))
            .map_err(failed)?;
        Ok(Self::File { scratch, path })
    }

    async fn write(&mut self, piece: Bytes) -> Result<(), String> {
        match self {
            Self::File { scratch, .. } => scratch.write_all(&piece).map_err(|why| writing(&why)),
            Self::Scratch { scratch, .. } => scratch.write_all(&piece).map_err(|why| writing(&why)),
            Self::Object(upload) => upload
                .write(piece)
                .await
                .map_err(|why| format!("Error writing snapshot: {why}")),
        }
    }

    /// Gives the snapshot its name, if it can have one.
    async fn publish(self) -> Result<Option<Held>, String> {
        match self {
            Self::File { scratch, path } => {
                publish(scratch, &path).map_err(|why| writing(&why))?;
                Ok(None)
            }
            Self::Scratch { mut scratch, to } => {
                scratch.rewind().map_err(|why| writing(&why))?;
                Ok(Some(Held { scratch, to }))
            }
            Self::Object(upload) => {
                let published = upload.publish().await;
                published.map_err(|why| format!("Error writing snapshot: {why}"))?;
                Ok(None)
            }
        }
    }

    async fn abandon(self) {
        match self {
            // The files go with their handles.
            Self::File { .. } | Self::Scratch { .. } => {}
            Self::Object(upload) => upload.abandon().await,
        }
    }
}

impl Held {
    fn copy_to(mut self, console: &mut Console<'_>) -> io::Result<()> {
        match &mut self.to {
            Some(device) => io::copy(&mut self.scratch, device).map(drop),
            None => {
                io::copy(&mut self.scratch, console.output)?;
                console.output.flush()
            }
        }
    }
}

/// Gives a complete file its name, so that after a power cut there is the old file or the new one.
fn publish(scratch: NamedTempFile, path: &Path) -> io::Result<()> {
    scratch.as_file().sync_all()?;
    scratch.persist(path).map_err(|why| why.error)?;
    File::open(folder_of(path))?.sync_all()
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
