//! Small files that are replaced in one step: the identity, the vote, the mark of a lost tail.

use std::io;
use std::time::Duration;

use crate::disk::Disk;

/// Who this directory belongs to.
pub(crate) const IDENTITY_FILE: &str = "identity";
/// The vote this server gave.
pub(crate) const VOTE_FILE: &str = "vote";
/// Members that an operator named anew.
pub(crate) const RECOVERED_FILE: &str = "recovered";
/// There while this server neither votes nor counts, because its log lost its end.
pub(crate) const LOST_TAIL_FILE: &str = "lost-tail";

const MAGIC: &[u8; 8] = b"consfil1";

/// Magic, checksum and length.
const HEADER: usize = 16;

/// The largest content.
const CONTENT_MAX: usize = 64 << 10;

/// Content with what is needed to recognise it.
pub(crate) fn encode(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("small files are small");
    let mut out = Vec::with_capacity(HEADER + content.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&crc32fast::hash(content).to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(content);
    out
}

/// The content of a small file.
pub(crate) fn decode(bytes: &[u8]) -> Result<&[u8], &'static str> {
    let (header, content) = bytes.split_first_chunk::<HEADER>().ok_or("it is cut off")?;
    if &header[..8] != MAGIC {
        return Err("it does not begin as it should");
    }
    let number = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    if number(12) as usize != content.len() {
        return Err("the length does not match");
    }
    if number(8) != crc32fast::hash(content) {
        return Err("the checksum does not match");
    }
    Ok(content)
}

/// What became of reading a small file.
pub(crate) enum Read {
    Missing,
    Content(Vec<u8>),
    Damaged(&'static str),
}

pub(crate) fn read(disk: &dyn Disk, name: &str) -> io::Result<Read> {
    let file = match disk.open(name) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Read::Missing),
        Err(error) => return Err(error),
    };
    let length = usize::try_from(file.len()?).unwrap_or(usize::MAX);
    if length > HEADER + CONTENT_MAX {
        return Ok(Read::Damaged("it is too long"));
    }
    let mut bytes = vec![0; length];
    file.read_at(0, &mut bytes)?;
    Ok(match decode(&bytes) {
        Ok(content) => Read::Content(content.to_vec()),
        Err(reason) => Read::Damaged(reason),
    })
}

/// Replaces a file: after a crash there is the old content or the new.
pub(crate) async fn replace(disk: &dyn Disk, name: &str, content: &[u8]) -> io::Result<()> {
    put(disk, name, content).await?;
    pause(disk).await;
    disk.sync_dir()
}

/// The same, but for the directory: the caller syncs it.
pub(crate) async fn put(disk: &dyn Disk, name: &str, content: &[u8]) -> io::Result<()> {
    let temporary = format!("{name}.tmp");
    let file = disk.create(&temporary)?;
    file.write_at(0, &encode(content))?;
    pause(disk).await;
    file.sync_data()?;
    disk.rename(&temporary, name)
}

/// Removes a file durably; it is no error if there is none.
pub(crate) fn remove(disk: &dyn Disk, name: &str) -> io::Result<()> {
    match disk.remove(name) {
        Ok(()) => disk.sync_dir(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Sleeps out what a sync takes, on a disk that only pretends.
pub(crate) async fn pause(disk: &dyn Disk) {
    let delay = disk.sync_delay();
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    while disk.is_stalled() {
        tokio::time::sleep(STALL_TICK).await;
    }
}

/// How often it is looked whether a simulated disk works again.
const STALL_TICK: Duration = Duration::from_millis(5);
