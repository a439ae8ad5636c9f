//! A folder of this machine.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use tempfile::NamedTempFile;

use super::{Content, NOTE_MAX, Store, StoreError, Stored, Upload, check_note};
use crate::Name;

/// Snapshots as files of one folder, which is made when the first is written.
#[derive(Debug, Clone)]
pub struct Local {
    folder: PathBuf,
}

/// How unfinished files begin; a folder listing hides them, and rotation doesn't know them.
const UNFINISHED: &str = ".consul-unfinished-";

/// How much is read at once.
const PIECE: usize = 256 << 10;

impl Local {
    /// The store in this folder.
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    fn failed(&self, what: &str, why: &io::Error) -> StoreError {
        let folder = self.folder.display();
        let hint = match why.kind() {
            io::ErrorKind::StorageFull => "; make room or keep fewer snapshots",
            io::ErrorKind::PermissionDenied => "; let this user write there",
            _ => "",
        };
        StoreError::failed(
            format_args!("cannot {what} {folder}"),
            format_args!("{why}{hint}"),
        )
    }

    fn list_now(&self) -> Result<Vec<Stored>, StoreError> {
        let failed = |why| self.failed("list the snapshots in", &why);
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(why) => return Err(failed(why)),
        };
        let mut found = Vec::new();
        let mut notes = BTreeSet::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let file_name = entry.file_name();
            let Some(file_name) = file_name.to_str() else {
                continue;
            };
            notes.extend(Name::of_note(file_name));
            let Ok(name) = file_name.parse() else {
                continue;
            };
            let metadata = match entry.metadata() {
                Ok(metadata) if metadata.is_file() => metadata,
                Ok(_) => continue,
                // Somebody removed it meanwhile.
                Err(why) if why.kind() == io::ErrorKind::NotFound => continue,
                Err(why) => return Err(failed(why)),
            };
            found.push(Stored {
                name,
                size: metadata.len(),
                written: metadata.modified().map_err(failed)?,
                has_note: false,
            });
        }
        for stored in &mut found {
            stored.has_note = notes.contains(&stored.name);
        }
        found.sort_by_key(|stored| stored.name);
        Ok(found)
    }

    fn begin_now(&self, name: Name) -> Result<Unfinished, StoreError> {
        let failed = |why| self.failed("write a snapshot to", &why);
        Ok(Unfinished {
            store: self.clone(),
            path: self.folder.join(name.to_string()),
            file: self.unfinished().map_err(failed)?,
        })
    }

    fn unfinished(&self) -> io::Result<NamedTempFile> {
        fs::create_dir_all(&self.folder)?;
        // Only its owner may read it: it holds every secret of the cluster.
        tempfile::Builder::new()
            .prefix(UNFINISHED)
            .tempfile_in(&self.folder)
    }

    /// Makes a name that was given or taken away survive a crash.
    fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }

    fn write_note_now(&self, name: Name, note: &[u8]) -> Result<(), StoreError> {
        let what = || format!("cannot write the note {}", name.note());
        check_note(what, note.len() as u64)?;
        let write = || {
            let mut file = self.unfinished()?;
            file.write_all(note)?;
            file.as_file().sync_all()?;
            file.persist(self.folder.join(name.note()))?;
            self.sync_folder()
        };
        write().map_err(|why| self.failed("write a note to", &why))
    }

    fn read_note_now(&self, name: Name) -> Result<Option<Bytes>, StoreError> {
        let path = self.folder.join(name.note());
        let what = || format!("cannot read the note {}", path.display());
        let mut note = Vec::new();
        let read = File::open(&path)
            .and_then(|file| file.take(NOTE_MAX as u64 + 1).read_to_end(&mut note));
        match read {
            Ok(_) => check_note(what, note.len() as u64).map(|()| Some(note.into())),
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(why) => Err(StoreError::failed(what(), why)),
        }
    }

    fn get_now(&self, name: Name) -> Result<Content, StoreError> {
        let path = self.folder.join(name.to_string());
        let file = File::open(&path).map_err(|why| match why.kind() {
            io::ErrorKind::NotFound => StoreError::NotFound(path.display().to_string()),
            _ => StoreError::failed(format_args!("cannot open {}", path.display()), why),
        })?;
        let pieces = stream::unfold(Some(file), |file| async {
            let mut file = file?;
            let mut piece = vec![0; PIECE];
            match file.read(&mut piece) {
                Ok(0) => None,
                Ok(read) => {
                    piece.truncate(read);
                    Some((Ok(Bytes::from(piece)), Some(file)))
                }
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {
                    Some((Ok(Bytes::new()), Some(file)))
                }
                Err(why) => Some((Err(why), None)),
            }
        });
        Ok(pieces.fuse().boxed())
    }

    fn remove_now(&self, name: Name) -> Result<(), StoreError> {
        // The note first: a snapshot without one is found again and removed later, a note without a snapshot is not.
        for file in [name.note(), name.to_string()] {
            match fs::remove_file(self.folder.join(file)) {
                Err(why) if why.kind() != io::ErrorKind::NotFound => {
                    return Err(self.failed("remove an old snapshot from", &why));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

// Nothing here waits but for the disk, and whoever writes snapshots has nothing else to do meanwhile.
impl Store for Local {
    fn describe(&self) -> String {
        format!("Local -> Path: {:?}", self.folder)
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Stored>, StoreError>> {
        Box::pin(async { self.list_now() })
    }

    fn begin(&self, name: Name) -> BoxFuture<'_, Result<Box<dyn Upload>, StoreError>> {
        Box::pin(async move {
            let unfinished: Box<dyn Upload> = Box::new(self.begin_now(name)?);
            Ok(unfinished)
        })
    }

    fn get(&self, name: Name) -> BoxFuture<'_, Result<Content, StoreError>> {
        Box::pin(async move { self.get_now(name) })
    }

    fn write_note(&self, name: Name, note: Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.write_note_now(name, &note) })
    }

    fn read_note(&self, name: Name) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        Box::pin(async move { self.read_note_now(name) })
    }

    fn remove(&self, name: Name) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.remove_now(name) })
    }
}

/// A file without its final name.
#[derive(Debug)]
struct Unfinished {
    store: Local,
    path: PathBuf,
    file: NamedTempFile,
}

impl Unfinished {
    fn publish_now(self) -> Result<(), StoreError> {
        let Self { store, path, file } = self;
        let failed = |why| store.failed("write a snapshot to", &why);
        file.as_file().sync_all().map_err(failed)?;
        // A name is only given once; what has it already is somebody's snapshot.
        file.persist_noclobber(&path)
            .map_err(|why| failed(why.error))?;
        store.sync_folder().map_err(failed)
    }
}

impl Upload for Unfinished {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let written = self.file.write_all(&bytes);
            written.map_err(|why| self.store.failed("write a snapshot to", &why))
        })
    }

    fn publish(self: Box<Self>) -> BoxFuture<'static, Result<(), StoreError>> {
        Box::pin(async move { self.publish_now() })
    }

    fn abandon(self: Box<Self>) -> BoxFuture<'static, ()> {
        // The file goes with its handle.
        Box::pin(async move { drop(self) })
    }
}
