//! A folder of this machine.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use tempfile::NamedTempFile;

use super::{Content, Store, StoreError, Stored, Upload};
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
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let Some(name) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
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
            });
        }
        found.sort_by_key(|stored| stored.name);
        Ok(found)
    }

    fn begin_now(&self, name: Name) -> Result<Unfinished, StoreError> {
        let failed = |why| self.failed("write a snapshot to", &why);
        fs::create_dir_all(&self.folder).map_err(failed)?;
        // Only its owner may read it: it holds every secret of the cluster.
        let file = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .tempfile_in(&self.folder)
            .map_err(failed)?;
        Ok(Unfinished {
            store: self.clone(),
            path: self.folder.join(name.to_string()),
            file,
        })
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
        Ok(pieces.boxed())
    }

    fn remove_now(&self, name: Name) -> Result<(), StoreError> {
        match fs::remove_file(self.folder.join(name.to_string())) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => {
                Err(self.failed("remove an old snapshot from", &why))
            }
            _ => Ok(()),
        }
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
        File::open(&store.folder)
            .and_then(|folder| folder.sync_all())
            .map_err(failed)
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
