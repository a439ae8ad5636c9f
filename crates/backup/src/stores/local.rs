//! A folder of this machine.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

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
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "; make room or keep fewer snapshots"
            }
            io::ErrorKind::PermissionDenied => "; let this user write there",
            io::ErrorKind::ReadOnlyFilesystem => "; name a folder that can be written to",
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
        self.remove_stale();
        // Only its owner may read it: it holds every secret of the cluster.
        let file = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .tempfile_in(&self.folder)?;
        // Says that somebody is at it, as long as we live. Where files can't be locked, it is merely not said.
        if let Err(why) = file.as_file().try_lock() {
            tracing::debug!("cannot lock {}: {why}", file.path().display());
        }
        Ok(file)
    }

    /// Removes what those left behind that were killed while they wrote. Failing at it harms nobody.
    fn remove_stale(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let is_unfinished = name
                .to_str()
                .is_some_and(|name| name.starts_with(UNFINISHED));
            if is_unfinished && is_stale(&entry.path()) {
                match fs::remove_file(entry.path()) {
                    Ok(()) => tracing::info!(
                        "removed {}, which was never finished",
                        entry.path().display()
                    ),
                    Err(why) => tracing::debug!("cannot remove {}: {why}", entry.path().display()),
                }
            }
        }
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

/// How old an unfinished file is before it can be stale: somebody may have made it and not have locked it yet.
const STALE_AFTER: Duration = Duration::from_secs(3600);

/// Whether nobody writes such a file any more: it is old, and nobody holds the lock that ends with who writes.
fn is_stale(path: &Path) -> bool {
    let look = || -> io::Result<bool> {
        // Not followed: a link is nothing of ours.
        let metadata = fs::symlink_metadata(path)?;
        let age = metadata.modified()?.elapsed().unwrap_or_default();
        Ok(metadata.is_file() && age > STALE_AFTER && File::open(path)?.try_lock().is_ok())
    };
    look().unwrap_or(false)
}

// Nothing here waits but for the disk, and but for the sync at the end that is never long.
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
        Box::pin(async move {
            // A busy disk may take longer for this than a lock may go without renewal, so it has a thread of its own.
            let store = self.store.clone();
            match tokio::task::spawn_blocking(move || self.publish_now()).await {
                Ok(published) => published,
                Err(ended) => {
                    Err(store.failed("write a snapshot to", &io::Error::other(ended.to_string())))
                }
            }
        })
    }

    fn abandon(self: Box<Self>) -> BoxFuture<'static, ()> {
        // The file goes with its handle.
        Box::pin(async move { drop(self) })
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[tokio::test]
    async fn what_nobody_finishes_is_removed_and_what_somebody_writes_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, age: u64| {
            let path = folder.path().join(name);
            let file = File::create(&path).unwrap();
            let modified = SystemTime::now() - Duration::from_secs(age);
            file.set_modified(modified).unwrap();
            (path, file)
        };
        let (stale, _) = file(".consul-unfinished-stale", 7200);
        let (young, _) = file(".consul-unfinished-young", 60);
        let (held, lock) = file(".consul-unfinished-held", 7200);
        lock.try_lock().unwrap();
        let (strange, _) = file(".other", 7200);
        let store = Local::new(folder.path());
        let name = Name {
            id: 1,
            encrypted: false,
        };
        let upload = store.begin(name).await.unwrap();
        assert!(!stale.exists());
        assert!(young.exists() && held.exists() && strange.exists());
        // Another one leaves the file of this upload alone, however long it takes.
        let ours = fs::read_dir(folder.path()).unwrap().flatten();
        for entry in ours.filter(|entry| entry.path() != stale) {
            let file = File::options().write(true).open(entry.path()).unwrap();
            let long_ago = SystemTime::now() - Duration::from_secs(7200);
            file.set_modified(long_ago).unwrap();
        }
        store.begin(name).await.unwrap().abandon().await;
        assert!(!young.exists() && held.exists());
        upload.publish().await.unwrap();
        assert_eq!(store.list().await.unwrap().len(), 1);
        drop(lock);
    }

    #[test]
    fn full_disks_are_told_with_what_to_do() {
        let store = Local::new(Path::new("/backups"));
        let told = |kind: io::ErrorKind| {
            store
                .failed("write a snapshot to", &kind.into())
                .to_string()
        };
        for (kind, expected) in [
            (
                io::ErrorKind::StorageFull,
                "cannot write a snapshot to /backups: no storage space; make room or keep fewer snapshots",
            ),
            (
                io::ErrorKind::PermissionDenied,
                "cannot write a snapshot to /backups: permission denied; let this user write there",
            ),
        ] {
            assert_eq!(told(kind), expected);
        }
    }

    #[tokio::test]
    async fn a_name_is_given_once_and_only_its_owner_reads_it() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let store = Local::new(folder.path());
        let name = Name {
            id: 1,
            encrypted: false,
        };
        for (content, expected) in [("first", true), ("second", false)] {
            let mut upload = store.begin(name).await.unwrap();
            upload
                .write(Bytes::from_static(content.as_bytes()))
                .await
                .unwrap();
            assert_eq!(upload.publish().await.is_ok(), expected);
        }
        let file = folder.path().join("consul-1.snap");
        assert_eq!(fs::read(&file).unwrap(), b"first");
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600
        );
        // Nothing is left of the other one.
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
