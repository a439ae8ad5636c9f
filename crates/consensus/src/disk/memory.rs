//! Files in memory, for `-dev`: nothing survives the process.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, File, Workers};

/// Bytes per page. Pages of zeros take no memory, so a zeroed segment costs what was written into it.
const PAGE: usize = 4096;

/// A directory in memory.
#[derive(Debug, Default)]
pub struct MemoryDisk {
    files: Mutex<BTreeMap<String, Arc<MemoryFile>>>,
}

impl MemoryDisk {
    /// An empty directory.
    pub fn new() -> Self {
        Self::default()
    }
}

#[derive(Debug, Default)]
struct MemoryFile {
    content: Mutex<Content>,
}

#[derive(Debug, Default)]
struct Content {
    len: u64,
    pages: BTreeMap<u64, Box<[u8; PAGE]>>,
}

/// A panic while the lock was held cannot leave these maps half changed in a way that matters more than the panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn missing(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no file {name}"))
}

impl Disk for MemoryDisk {
    fn lock(&self) -> io::Result<()> {
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(lock(&self.files).keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = lock(&self.files)
            .get(name)
            .cloned()
            .ok_or_else(|| missing(name))?;
        Ok(file)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = Arc::new(MemoryFile::default());
        lock(&self.files).insert(String::from(name), Arc::clone(&file));
        Ok(file)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        lock(&self.files)
            .remove(name)
            .map(drop)
            .ok_or_else(|| missing(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = lock(&self.files);
        let file = files.remove(from).ok_or_else(|| missing(from))?;
        files.insert(String::from(to), file);
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn place(&self) -> String {
        String::from("memory")
    }

    fn is_volatile(&self) -> bool {
        true
    }

    fn workers(&self) -> Workers {
        Workers::Tasks
    }
}

/// Splits `len` bytes at `offset` into pieces that each lie in one page: page number, place in it, length.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let mut offset = offset;
    let mut left = len;
    std::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let place = usize::try_from(offset % PAGE as u64).expect("less than a page");
        let length = left.min(PAGE - place);
        let piece = (offset / PAGE as u64, place, length);
        offset += length as u64;
        left -= length;
        Some(piece)
    })
}

impl File for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.content).len)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let content = lock(&self.content);
        let inside = offset
            .checked_add(out.len() as u64)
            .is_some_and(|end| end <= content.len);
        if !inside {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut done = 0;
        for (page, place, length) in pieces(offset, out.len()) {
            let out = &mut out[done..done + length];
            match content.pages.get(&page) {
                Some(bytes) => out.copy_from_slice(&bytes[place..place + length]),
                None => out.fill(0),
            }
            done += length;
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = offset
            .checked_add(bytes.len() as u64)
            .ok_or(io::ErrorKind::FileTooLarge)?;
        let mut content = lock(&self.content);
        let mut done = 0;
        for (page, place, length) in pieces(offset, bytes.len()) {
            let bytes = &bytes[done..done + length];
            done += length;
            let is_new = !content.pages.contains_key(&page);
            if is_new && bytes.iter().all(|byte| *byte == 0) {
                continue;
            }
            let target = content
                .pages
                .entry(page)
                .or_insert_with(|| Box::new([0; PAGE]));
            target[place..place + length].copy_from_slice(bytes);
        }
        content.len = content.len.max(end);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut content = lock(&self.content);
        content.pages.split_off(&len.div_ceil(PAGE as u64));
        let place = usize::try_from(len % PAGE as u64).expect("less than a page");
        if place > 0
            && let Some(page) = content.pages.get_mut(&(len / PAGE as u64))
        {
            page[place..].fill(0);
        }
        content.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}
