//! The UDP socket, which answers from where it was asked.
//!
//! A socket of all addresses of a machine would leave the choice of one to the kernel, which takes that of the way to the client.
//! Clients don't take an answer from elsewhere than they sent the question to.
//! So such a socket is told with each datagram where that went, and tells the kernel with each answer where it comes from; others do without.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::cmsg_space;
use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// The socket.
#[derive(Debug)]
pub(crate) struct Datagrams {
    socket: UdpSocket,
    /// Whether it has all addresses of the machine.
    is_everywhere: bool,
}

/// Who sent a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    /// Which of our addresses it was sent to, where there are several.
    asked_at: Option<IpAddr>,
}

impl Datagrams {
    pub(crate) fn new(socket: UdpSocket) -> io::Result<Self> {
        let address = socket.local_addr()?.ip();
        match address {
            _ if !address.is_unspecified() => {}
            IpAddr::V4(_) => setsockopt(&socket, Ipv4PacketInfo, &true)?,
            // Of datagrams over IPv4 it tells the same.
            IpAddr::V6(_) => setsockopt(&socket, Ipv6RecvPacketInfo, &true)?,
        }
        Ok(Self {
            socket,
            is_everywhere: address.is_unspecified(),
        })
    }

    /// Waits for the next datagram.
    pub(crate) async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Client)> {
        if self.is_everywhere {
            let receive = || receive_at(&self.socket, buffer);
            return self.socket.async_io(Interest::READABLE, receive).await;
        }
        let (length, address) = self.socket.recv_from(buffer).await?;
        Ok((length, Client::at_only_address(address)))
    }

    /// The next datagram, if it is here.
    pub(crate) fn try_receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Client)> {
        if self.is_everywhere {
            let receive = || receive_at(&self.socket, buffer);
            return self.socket.try_io(Interest::READABLE, receive);
        }
        let (length, address) = self.socket.try_recv_from(buffer)?;
        Ok((length, Client::at_only_address(address)))
    }

    /// Answers from where the client sent its question to.
    pub(crate) async fn send(&self, answer: &[u8], client: Client) -> io::Result<()> {
        match client.asked_at {
            Some(from) => {
                let send = || send_from(&self.socket, answer, client.address, from);
                self.socket.async_io(Interest::WRITABLE, send).await
            }
            None => self
                .socket
                .send_to(answer, client.address)
                .await
                .map(|_| ()),
        }
    }
}

impl Client {
    fn at_only_address(address: SocketAddr) -> Self {
        Self {
            address,
            asked_at: None,
        }
    }
}

fn receive_at(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, Client)> {
    let mut control = cmsg_space!(in6_pktinfo);
    let mut buffers = [IoSliceMut::new(buffer)];
    let received = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut buffers,
        Some(&mut control),
        MsgFlags::empty(),
    )?;
    let sender = received.address.as_ref();
    let address = sender
        .and_then(|it| it.as_sockaddr_in().map(|it| SocketAddr::V4((*it).into())))
        .or_else(|| {
            sender.and_then(|it| it.as_sockaddr_in6().map(|it| SocketAddr::V6((*it).into())))
        })
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a datagram of nobody"))?;
    let asked_at = received.cmsgs()?.find_map(|told| match told {
        // Not where it went, which may be everybody's address, but the one of ours that this stands for.
        ControlMessageOwned::Ipv4PacketInfo(info) => Some(IpAddr::V4(Ipv4Addr::from(
            info.ipi_spec_dst.s_addr.to_ne_bytes(),
        ))),
        ControlMessageOwned::Ipv6PacketInfo(info) => {
            Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)))
        }
        _ => None,
    });
    Ok((received.bytes, Client { address, asked_at }))
}

fn send_from(socket: &UdpSocket, answer: &[u8], to: SocketAddr, from: IpAddr) -> io::Result<()> {
    // No interface is named: the way back may be another one.
    let (v4, v6);
    let told = match from {
        IpAddr::V4(from) => {
            v4 = in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: in_addr {
                    s_addr: u32::from_ne_bytes(from.octets()),
                },
                ipi_addr: in_addr { s_addr: 0 },
            };
            ControlMessage::Ipv4PacketInfo(&v4)
        }
        IpAddr::V6(from) => {
            v6 = in6_pktinfo {
                ipi6_addr: in6_addr {
                    s6_addr: from.octets(),
                },
                ipi6_ifindex: 0,
            };
            ControlMessage::Ipv6PacketInfo(&v6)
        }
    };
    sendmsg(
        socket.as_raw_fd(),
        &[IoSlice::new(answer)],
        &[told],
        MsgFlags::empty(),
        Some(&SockaddrStorage::from(to)),
    )?;
    Ok(())
}
