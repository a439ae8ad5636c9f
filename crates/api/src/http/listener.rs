//! The sockets on which an engine listens.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rpc::tls;
use socket2::{Domain, SockAddr, Socket, TcpKeepalive, Type};

/// Connections that the kernel holds ready for us; beyond, clients wait for their handshake.
const BACKLOG: i32 = 1024;

/// After this time of silence the kernel asks whether the peer is still there, as the original
/// has it.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// A socket that listens. Clones share it, so that several threads can accept from it; a unix
/// socket's file goes when the last of them is dropped.
#[derive(Clone, Debug)]
pub struct Listener(Arc<Inner>);

#[derive(Debug)]
enum Inner {
    Tcp(std::net::TcpListener),
    Tls(std::net::TcpListener, tls::Incoming),
    Unix {
        socket: std::os::unix::net::UnixListener,
        _file: SocketFile,
    },
}

/// Whose a unix socket is, and who may connect to it. What is `None` stays as the process
/// makes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnixSocketOptions {
    /// Numeric id of the owner.
    pub user: Option<u32>,
    /// Numeric id of the group.
    pub group: Option<u32>,
    /// Permission bits.
    pub mode: Option<u32>,
}

impl Listener {
    /// Listens on a TCP address; port 0 takes any free one.
    pub fn tcp(address: SocketAddr) -> io::Result<Self> {
        Ok(Self(Arc::new(Inner::Tcp(Self::bind(address)?))))
    }

    /// Listens on a TCP address for connections inside of TLS. Which certificates are shown and
    /// demanded is up to `incoming`; a handshake counts as an open connection, and is bounded in
    /// time and number there.
    pub fn https(address: SocketAddr, incoming: tls::Incoming) -> io::Result<Self> {
        Ok(Self(Arc::new(Inner::Tls(Self::bind(address)?, incoming))))
    }

    fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        // Linux hands these down to the accepted sockets: it saves three calls for each.
        socket.set_tcp_nodelay(true)?;
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE)
            .with_interval(KEEPALIVE);
        socket.set_tcp_keepalive(&keepalive)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    }

    /// Listens on a unix socket. A socket that is there already is replaced, since a process
    /// that was killed leaves one behind; anything else that has the name is left alone.
    pub fn unix(path: &Path, options: &UnixSocketOptions) -> io::Result<Self> {
        match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.file_type().is_socket() => fs::remove_file(path)?,
            Ok(_) => {
                let text = format!("{} exists and is not a socket", path.display());
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::unix(path)?)?;
        let file = SocketFile::of(path)?;
        // Nobody can connect before `listen`, so nobody slips in before the permissions hold.
        if options.user.is_some() || options.group.is_some() {
            chown(path, options.user, options.group)?;
        }
        if let Some(mode) = options.mode {
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        }
        socket.listen(BACKLOG)?;
        Ok(Self(Arc::new(Inner::Unix {
            socket: socket.into(),
            _file: file,
        })))
    }

    /// The address of a TCP listener, with the port that was taken; `None` for a unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &*self.0 {
            Inner::Tcp(socket) | Inner::Tls(socket, _) => socket.local_addr().ok(),
            Inner::Unix { .. } => None,
        }
    }

    /// Prepares for accepting on this thread's runtime.
    pub(super) fn acceptor(&self) -> io::Result<Acceptor> {
        Ok(match &*self.0 {
            Inner::Tcp(socket) => {
                Acceptor::Tcp(tokio::net::TcpListener::from_std(socket.try_clone()?)?)
            }
            Inner::Tls(socket, incoming) => Acceptor::Tls(
                tokio::net::TcpListener::from_std(socket.try_clone()?)?,
                incoming.clone(),
            ),
            Inner::Unix { socket, .. } => {
                Acceptor::Unix(tokio::net::UnixListener::from_std(socket.try_clone()?)?)
            }
        })
    }
}

/// A listener on one runtime.
#[derive(Debug)]
pub(super) enum Acceptor {
    Tcp(tokio::net::TcpListener),
    Tls(tokio::net::TcpListener, tls::Incoming),
    Unix(tokio::net::UnixListener),
}

/// What came in.
#[derive(Debug)]
pub(super) enum Accepted {
    Tcp(tokio::net::TcpStream, SocketAddr),
    /// Before its handshake.
    Tls(tokio::net::TcpStream, SocketAddr, tls::Incoming),
    Unix(tokio::net::UnixStream),
}

impl Acceptor {
    pub(super) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        match self {
            Self::Tcp(listener) => listener
                .poll_accept(cx)
                .map_ok(|(stream, peer)| Accepted::Tcp(stream, peer)),
            Self::Tls(listener, incoming) => listener
                .poll_accept(cx)
                .map_ok(|(stream, peer)| Accepted::Tls(stream, peer, incoming.clone())),
            Self::Unix(listener) => listener
                .poll_accept(cx)
                .map_ok(|(stream, _)| Accepted::Unix(stream)),
        }
    }
}

/// The file of a unix socket that we made. Removed when dropped, unless somebody replaced it.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            identity: identity(path)?,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!("cannot remove socket {}: {error}", self.path.display());
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn accepted_sockets_have_the_options_of_their_listener() {
        let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let acceptor = listener.acceptor().unwrap();
        let _client = tokio::net::TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let accepted = std::future::poll_fn(|cx| acceptor.poll_accept(cx))
            .await
            .unwrap();
        let Accepted::Tcp(stream, _) = accepted else {
            panic!("not TCP")
        };
        assert!(stream.nodelay().unwrap());
        let socket = socket2::SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE);
    }
}
