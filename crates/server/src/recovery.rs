//! `peers.json`: an operator names the servers that are left when a majority is lost for good.
//!
//! The file is the original's: a JSON list of `ip:port`. `docs/recovery.md` tells an operator what to do.

use std::fs;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use consensus::{Consensus, Disk, Peer};

/// The largest file that is believed.
const SIZE_MAX: u64 = 64 * 1024;

/// Why the members could not be named anew; the server must not start then.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The file can't be read, or can't be renamed afterwards.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file doesn't say what it should.
    #[error("{}: {reason}; correct or remove it", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The log doesn't allow it.
    #[error(transparent)]
    Log(#[from] consensus::StartError),
}

/// Names the members anew if there is a file that says so, and renames it then, so that it is done once.
///
/// Must be called before the server is started on the same disk; returns the addresses of the new members, or nothing if there is no file.
/// A stop in the middle does no harm: the next start finds the file again.
///
/// # Errors
/// [`RecoveryError`] says what is wrong. The file stays where it is, and the server must not be started, because its operator means it to come back with other members than it would.
pub async fn recover(
    path: &Path,
    log: &consensus::Config,
    disk: Arc<dyn Disk>,
) -> Result<Option<Vec<String>>, RecoveryError> {
    let file = |source| RecoveryError::File {
        path: path.to_owned(),
        source,
    };
    let content = |reason| RecoveryError::Content {
        path: path.to_owned(),
        reason,
    };
    let text = match read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(file(error)),
    };
    let addresses = parse(&text).map_err(content)?;
    let stored = Consensus::stored(log, Arc::clone(&disk)).await?;
    let me = log.peer(stored.id);
    let voters = voters(&addresses, &me, &stored.members).map_err(content)?;
    Consensus::recover(log, disk, voters).await?;
    fs::rename(path, path.with_extension("json.done")).map_err(file)?;
    Ok(Some(addresses.iter().map(SocketAddr::to_string).collect()))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    fs::File::open(path)?
        .take(SIZE_MAX + 1)
        .read_to_end(&mut text)?;
    if text.len() as u64 > SIZE_MAX {
        return Err(io::Error::other("it is too large to be a list of servers"));
    }
    Ok(text)
}

/// The addresses in the file.
fn parse(text: &[u8]) -> Result<Vec<SocketAddr>, String> {
    let listed: Vec<String> = serde_json::from_slice(text).map_err(|error| {
        format!("it must be a JSON list of the servers' \"ip:port\", and is not: {error}")
    })?;
    if listed.is_empty() {
        return Err("it names no server".to_owned());
    }
    let mut addresses = Vec::with_capacity(listed.len());
    for text in listed {
        let address: SocketAddr = text
            .parse()
            .map_err(|_| format!("{text:?} is no \"ip:port\""))?;
        if addresses.contains(&address) {
            return Err(format!("it names {address} twice"));
        }
        addresses.push(address);
    }
    Ok(addresses)
}

/// The members that these addresses stand for: this server itself, and others as the log knows them.
fn voters(addresses: &[SocketAddr], me: &Peer, known: &[Peer]) -> Result<Vec<Peer>, String> {
    let at = |peer: &Peer| peer.address.parse::<SocketAddr>().ok();
    let mut voters = Vec::with_capacity(addresses.len());
    for address in addresses {
        if at(me) == Some(*address) {
            voters.push(me.clone());
            continue;
        }
        let found = known
            .iter()
            .find(|peer| peer.id != me.id && at(peer) == Some(*address));
        let Some(peer) = found else {
            let listed: Vec<&str> = known.iter().map(|peer| peer.address.as_str()).collect();
            return Err(format!(
                "no server was ever at {address}, the log knows {}; a new server joins once there is a leader again",
                listed.join(", ")
            ));
        };
        voters.push(peer.clone());
    }
    if voters.iter().all(|peer| peer.id != me.id) {
        return Err(format!(
            "it does not name this server, {}; one that is not to be a member has to stay down",
            me.address
        ));
    }
    Ok(voters)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(id: u64) -> Peer {
        Peer {
            id,
            address: format!("10.0.0.{id}:8300"),
            name: format!("server-{id}"),
        }
    }

    #[test]
    fn the_list_is_read_or_says_what_is_wrong() {
        let good = parse(br#"["10.0.0.1:8300", "[::1]:8300"]"#).unwrap();
        assert_eq!(good.len(), 2);
        let bad: &[(&[u8], &str)] = &[
            (b"", "JSON list"),
            (b"{}", "JSON list"),
            (b"[1]", "JSON list"),
            (b"\xff", "JSON list"),
            (b"[]", "no server"),
            (br#"["10.0.0.1"]"#, "is no"),
            (br#"["host:8300"]"#, "is no"),
            (br#"["10.0.0.1:8300", "10.0.0.1:8300"]"#, "twice"),
        ];
        for (text, why) in bad {
            let error = parse(text).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn addresses_stand_for_members() {
        let known = [peer(1), peer(2), peer(3)];
        let of = |ids: &[u64]| {
            let addresses: Vec<SocketAddr> = ids
                .iter()
                .map(|id| peer(*id).address.parse().unwrap())
                .collect();
            voters(&addresses, &peer(1), &known)
        };
        assert_eq!(of(&[1]).unwrap(), [peer(1)]);
        assert_eq!(of(&[3, 1]).unwrap(), [peer(3), peer(1)]);
        assert!(
            of(&[2, 3])
                .unwrap_err()
                .contains("does not name this server")
        );
        assert!(of(&[1, 4]).unwrap_err().contains("10.0.0.4:8300"));
        // This server is at another address than the log says.
        let moved = Peer {
            address: "10.0.0.9:8300".to_owned(),
            ..peer(1)
        };
        let here = ["10.0.0.9:8300".parse().unwrap()];
        assert_eq!(voters(&here, &moved, &known).unwrap(), [moved]);
    }

    #[tokio::test]
    async fn without_a_file_nothing_is_done_and_a_bad_one_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.json");
        let disk: Arc<dyn Disk> = Arc::new(consensus::MemoryDisk::new());
        let log = consensus::Config::default();
        let done = recover(&path, &log, Arc::clone(&disk)).await.unwrap();
        assert_eq!(done, None);
        fs::write(&path, "[]").unwrap();
        let error = recover(&path, &log, disk).await.unwrap_err();
        assert!(matches!(error, RecoveryError::Content { .. }), "{error}");
        assert!(path.exists());
    }
}
