//! What every disk must do; each implementation runs the same list.

use std::io::ErrorKind;
use std::sync::Arc;

use consensus::sim::{Storage, Trace};
use consensus::{Disk, MemoryDisk, RealDisk};

fn suite(disk: &dyn Disk) {
    assert!(disk.list().unwrap().is_empty());
    assert_eq!(disk.open("a").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(disk.remove("a").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(
        disk.rename("a", "b").unwrap_err().kind(),
        ErrorKind::NotFound
    );

    let file = disk.create("a").unwrap();
    assert!(file.is_empty().unwrap());
    file.write_at(10_000, b"later").unwrap();
    file.write_at(5, b"earlier").unwrap();
    assert_eq!(file.len().unwrap(), 10_005);
    let mut bytes = [9; 12];
    file.read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"\0\0\0\0\0earlier");
    file.read_at(9_993, &mut bytes).unwrap();
    assert_eq!(&bytes, b"\0\0\0\0\0\0\0later");
    let behind = file.read_at(9_994, &mut bytes).unwrap_err();
    assert_eq!(behind.kind(), ErrorKind::UnexpectedEof);

    file.set_len(8).unwrap();
    file.set_len(20).unwrap();
    file.read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"\0\0\0\0\0ear\0\0\0\0", "what was cut off is gone");
    file.sync_data().unwrap();

    let zeros = disk.create("zeros").unwrap();
    zeros.write_zeros(300_000).unwrap();
    assert_eq!(zeros.len().unwrap(), 300_000);
    disk.rename("zeros", "b").unwrap();
    disk.sync_dir().unwrap();
    assert_eq!(disk.list().unwrap(), ["a", "b"]);

    // Open files outlive their names.
    disk.rename("b", "a").unwrap();
    file.read_at(5, &mut bytes[..3]).unwrap();
    assert_eq!(&bytes[..3], b"ear");
    assert_eq!(disk.open("a").unwrap().len().unwrap(), 300_000);
    disk.remove("a").unwrap();
    zeros.write_at(0, b"x").unwrap();
    assert!(disk.list().unwrap().is_empty());

    let emptied = disk.create("c").unwrap();
    emptied.write_at(0, b"old").unwrap();
    disk.create("c").unwrap();
    assert!(disk.open("c").unwrap().is_empty().unwrap());
    assert!(!disk.place().is_empty());
}

#[test]
fn a_real_disk() {
    let directory = tempfile::tempdir().unwrap();
    let disk = RealDisk::open(&directory.path().join("new/raft")).unwrap();
    disk.lock().unwrap();
    suite(&disk);
    let other = RealDisk::open(&directory.path().join("new/raft")).unwrap();
    assert_eq!(other.lock().unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(disk);
    other.lock().unwrap();
}

#[test]
fn a_disk_in_memory() {
    suite(&MemoryDisk::new());
}

#[tokio::test(start_paused = true)]
async fn a_simulated_disk() {
    let storage = Storage::new("disk", 1, Trace::begin());
    let disk = Arc::new(storage.attach());
    suite(&*disk);
    storage.crash(true);
    assert!(disk.list().is_err(), "a crashed server writes no more");
    storage.attach().list().unwrap();
}
