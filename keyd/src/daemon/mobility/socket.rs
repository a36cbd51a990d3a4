// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The sockets of Mobile IP.
//!
//! On the links of mobile hosts, packet sockets: a visitor is known by its link-layer address and never asked for by ARP
//! (RFC 5944 §4.6), registrations there pass by routes and policies as the paper wants (Section III.B), and the time to
//! live tells whether a request has crossed a router. Between agents, one UDP socket; the kernel keeps the ICMP errors about
//! what left by it (IP_RECVERR).

use super::packet::{self, Arrived, PORT};
use super::route_message;
use crate::daemon::udp::AHEAD;
use mml_mip::{Content, LinkAddress, Packet};
use nix::errno::Errno;
use nix::libc;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{
    recvfrom, recvmsg, sendmsg, sendto, setsockopt, sockopt, ControlMessage, ControlMessageOwned,
    LinkAddr, MsgFlags, SockaddrIn,
};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use std::collections::BTreeSet;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Octets of the longest packet that is taken: a message and its headers are far shorter.
const MAX_LEN: usize = 2048;
/// Packets that wait to be looked at; what comes on top is lost, as on the way.
const QUEUE: usize = 256;
/// `ETH_P_IP`.
const ETHER_IP: u16 = 0x0800;
/// `PACKET_OTHERHOST`: for somebody else on the link.
const OTHER_HOST: u8 = 3;
/// To all routers (RFC 1256).
const ALL_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 2);

/// ICMP's Destination Unreachable (RFC 792).
const UNREACHABLE: u8 = 3;

/// What came in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Heard {
    /// A packet.
    Packet(Arrived),
    /// An ICMP error about a datagram that was sent.
    Undelivered(Undelivered),
}

/// An ICMP error about a datagram that was sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Undelivered {
    /// Where the datagram was to go.
    pub destination: Ipv4Addr,
    /// The code of a Destination Unreachable; none for another error.
    pub code: Option<u8>,
    /// What is quoted of it, behind its UDP header.
    pub quoted: Vec<u8>,
}

/// Why a socket can't be had.
#[derive(thiserror::Error, Debug)]
#[error("mobile-ip: {what}: {error}{}", mend(.error))]
pub struct SocketError {
    what: &'static str,
    error: io::Error,
}

fn mend(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another Mobile IP agent runs on it: stop it",
        io::ErrorKind::PermissionDenied => "; it takes CAP_NET_RAW and CAP_NET_BIND_SERVICE",
        _ => "",
    }
}

/// A link of mobile hosts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// What it is called.
    pub name: String,
    /// The kernel's index.
    pub index: u32,
    /// Our first address there and its prefix length; none without.
    pub address: Option<(Ipv4Addr, u8)>,
}

impl Link {
    /// Looks an interface up. If it has the address `preferred`, that is its own.
    ///
    /// # Errors
    /// That there is none of that name, and what mends it.
    pub fn find(name: &str, preferred: Option<Ipv4Addr>) -> Result<Self, String> {
        let index = nix::net::if_::if_nametoindex(name)
            .map_err(|_| format!("mobile-ip: there is no interface {name}; correct `links`, or start keyd after it is made"))?;
        let mut addresses = Vec::new();
        for one in nix::ifaddrs::getifaddrs().map_err(|error| format!("mobile-ip: {error}"))? {
            let address = one.address.as_ref().and_then(|a| a.as_sockaddr_in());
            let mask = one.netmask.as_ref().and_then(|a| a.as_sockaddr_in());
            if let (true, Some(address), Some(mask)) = (one.interface_name == name, address, mask) {
                let len = u32::from(mask.ip()).count_ones();
                addresses.push((address.ip(), u8::try_from(len).unwrap_or(32)));
            }
        }
        let own = addresses.iter().find(|one| Some(one.0) == preferred);
        Ok(Link {
            name: name.to_owned(),
            index,
            address: own.or(addresses.first()).copied(),
        })
    }
}

/// This node's addresses, on whatever interface.
///
/// # Errors
/// The system's.
pub fn own_addresses() -> Result<Vec<Ipv4Addr>, String> {
    let all = nix::ifaddrs::getifaddrs().map_err(|error| format!("mobile-ip: {error}"))?;
    let v4 = all.filter_map(|one| Some(one.address.as_ref()?.as_sockaddr_in()?.ip()));
    Ok(v4.collect())
}

/// The node's sockets.
pub struct Sockets {
    /// Frames leave by it.
    frames: Socket,
    /// Datagrams between agents leave by it.
    routed: Arc<Socket>,
    queue: mpsc::Receiver<Heard>,
}

impl Sockets {
    /// Opens them, and listens: on these links to frames, else to UDP port 434. A node that is no agent
    /// hears frames alone; its port is taken, so that no ICMP message says that nobody listens.
    ///
    /// # Errors
    /// Which socket it was, why, and what mends it.
    pub fn open(links: &[Link], is_agent: bool) -> Result<Self, SocketError> {
        let failed = |what| move |error| SocketError { what, error };
        let tap = failed("the packet socket of its links");
        let socket = |kind, protocol: u16| {
            let protocol = Protocol::from(i32::from(protocol.to_be()));
            Socket::new(Domain::PACKET, kind, Some(protocol))
        };
        let frames = socket(Type::RAW, 0).map_err(tap)?;
        let heard = socket(Type::DGRAM, ETHER_IP).map_err(tap)?;
        frames.set_priority(AHEAD).map_err(tap)?;
        heard.attach_filter(&own_packets()).map_err(tap)?;
        let udp = failed("UDP port 434");
        let routed = Socket::new(Domain::IPV4, Type::DGRAM, None).map_err(udp)?;
        let any = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, PORT));
        if is_agent {
            setsockopt(&routed, sockopt::Ipv4PacketInfo, &true)
                .and_then(|()| setsockopt(&routed, sockopt::Ipv4RecvErr, &true))
                .map_err(|errno| udp(errno.into()))?;
        } else {
            routed.attach_filter(&nothing()).map_err(udp)?;
        }
        routed.bind(&any.into()).map_err(udp)?;
        routed.set_priority(AHEAD).map_err(udp)?;
        if is_agent {
            for address in links.iter().filter_map(|link| link.address) {
                let group = failed("the group of all routers");
                routed
                    .join_multicast_v4(&ALL_ROUTERS, &address.0)
                    .map_err(group)?;
            }
        }
        let routed = Arc::new(routed);
        let (sender, queue) = mpsc::channel(QUEUE);
        let ours: BTreeSet<u32> = links.iter().map(|link| link.index).collect();
        let (to, on) = (sender.clone(), ours.clone());
        spawn("mobile-ip links", move || hear(&heard, &on, &to));
        if is_agent {
            let socket = routed.clone();
            spawn("mobile-ip", move || hear_routed(&socket, &ours, &sender));
        }
        Ok(Sockets {
            frames,
            routed,
            queue,
        })
    }

    /// What comes next.
    pub async fn receive(&mut self) -> Option<Heard> {
        self.queue.recv().await
    }

    /// Sends a packet. One that can't be sent is as good as lost: it is sent again in time.
    pub fn send(&self, packet: &Packet) {
        let sent = match packet.interface {
            Some(interface) => self.send_frame(interface.0, |own| packet::to_frame(packet, own)),
            None => self.send_routed(packet),
        };
        if let Err(error) = sent {
            tracing::debug!(to = %packet.destination, "not sent: {error}");
        }
    }

    /// Tells a link by ARP where an address is; without `link`, here.
    pub fn gratuitous_arp(&self, address: Ipv4Addr, interface: u32, link: Option<LinkAddress>) {
        let sent = self.send_frame(interface, |own| {
            packet::gratuitous_arp(address, link.unwrap_or(own), own)
        });
        if let Err(error) = sent {
            tracing::debug!(%address, "no gratuitous ARP: {error}");
        }
    }

    fn send_frame(
        &self,
        interface: u32,
        build: impl FnOnce(LinkAddress) -> Vec<u8>,
    ) -> io::Result<()> {
        let is_it = |link: &LinkAddr| u32::try_from(link.ifindex()) == Ok(interface);
        let device = nix::ifaddrs::getifaddrs()?
            .filter_map(|one| one.address.as_ref()?.as_link_addr().copied())
            .find(is_it)
            .ok_or_else(|| io::Error::other(format!("interface {interface} is gone")))?;
        let own = LinkAddress(device.addr().unwrap_or_default());
        let frame = build(own);
        sendto(self.frames.as_raw_fd(), &frame, &device, MsgFlags::empty())?;
        Ok(())
    }

    fn send_routed(&self, packet: &Packet) -> io::Result<()> {
        let Content::Udp {
            destination_port,
            octets,
            ..
        } = &packet.content
        else {
            return Err(io::Error::other("ICMP goes by a link"));
        };
        let source = libc::in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: libc::in_addr {
                s_addr: u32::from(packet.source).to_be(),
            },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        let to = SockaddrIn::from(SocketAddrV4::new(packet.destination, *destination_port));
        let send = || {
            sendmsg(
                self.routed.as_raw_fd(),
                &[IoSlice::new(octets)],
                &[ControlMessage::Ipv4PacketInfo(&source)],
                MsgFlags::empty(),
                Some(&to),
            )
        };
        // An ICMP error about another datagram may be told here first, and then this one hasn't left.
        match send() {
            Err(errno) if passes(errno) => send()?,
            done => done?,
        };
        Ok(())
    }
}

fn spawn(name: &str, work: impl FnOnce() -> io::Result<()> + Send + 'static) {
    let told = name.to_owned();
    let done = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            if let Err(error) = work() {
                tracing::error!("{told}: nothing is heard any more: {error}");
            }
        });
    if let Err(error) = done {
        tracing::error!("{name}: no thread to listen: {error}");
    }
}

/// `Err` when the daemon has ended; a packet that finds no room is lost.
fn hand_over(to: &mpsc::Sender<Heard>, heard: Heard) -> Result<(), ()> {
    match to.try_send(heard) {
        Err(mpsc::error::TrySendError::Closed(_)) => Err(()),
        _ => Ok(()),
    }
}

/// Whether the socket goes on after that error.
fn passes(errno: Errno) -> bool {
    matches!(
        errno,
        // A link that goes down is told once; the others are ICMP errors of what was sent, by what Linux makes of their codes.
        Errno::EINTR
            | Errno::EAGAIN
            | Errno::ENETDOWN
            | Errno::ECONNREFUSED
            | Errno::EHOSTUNREACH
            | Errno::ENETUNREACH
            | Errno::EHOSTDOWN
            | Errno::ENONET
            | Errno::ENOPROTOOPT
            | Errno::EOPNOTSUPP
            | Errno::EPROTO
            | Errno::EMSGSIZE
    )
}

/// Frames on our links.
fn hear(socket: &Socket, links: &BTreeSet<u32>, to: &mpsc::Sender<Heard>) -> io::Result<()> {
    let mut buffer = [0; MAX_LEN];
    loop {
        let (len, from) = match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer) {
            Ok(received) => received,
            Err(errno) if passes(errno) => continue,
            Err(errno) => return Err(errno.into()),
        };
        let Some(from) = from.filter(|from| from.pkttype() != OTHER_HOST) else {
            continue;
        };
        let index = u32::try_from(from.ifindex()).unwrap_or(0);
        if !links.contains(&index) {
            continue;
        }
        let link = from.addr().filter(|_| from.halen() == 6).map(LinkAddress);
        let octets = buffer.get(..len).unwrap_or_default();
        if let Some(arrived) = Arrived::parse(octets, index, link) {
            if hand_over(to, Heard::Packet(arrived)).is_err() {
                return Ok(());
            }
        }
    }
}

/// Whether what came in there was in a tunnel of Mobile IP's. Agents speak with each other beside those, and what is in one
/// may be anybody's: its outer header proves nothing.
fn by_tunnel(index: u32) -> bool {
    let name = nix::net::if_::if_indextoname(index).ok();
    let name = name.as_ref().and_then(|name| name.to_str().ok());
    name.and_then(route_message::remote).is_some()
}

/// The next ICMP error that the kernel keeps of a socket; what else it keeps is passed over.
fn undelivered(socket: &Socket) -> io::Result<Option<Undelivered>> {
    let mut buffer = [0; MAX_LEN];
    // The error with its offender's address behind it, and the interface as with any datagram.
    let mut control = nix::cmsg_space!(
        (libc::sock_extended_err, libc::sockaddr_in),
        libc::in_pktinfo
    );
    loop {
        let mut into = [IoSliceMut::new(&mut buffer)];
        let kept = recvmsg::<SockaddrIn>(
            socket.as_raw_fd(),
            &mut into,
            Some(&mut control),
            MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT,
        );
        let message = match kept {
            Ok(message) => message,
            Err(Errno::EAGAIN) => return Ok(None),
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno.into()),
        };
        let Ok(mut about) = message.cmsgs() else {
            continue;
        };
        let error = about.find_map(|one| match one {
            ControlMessageOwned::Ipv4RecvErr(error, _) => Some(error),
            _ => None,
        });
        let Some((destination, error)) = message.address.zip(error) else {
            continue;
        };
        if error.ee_origin != libc::SO_EE_ORIGIN_ICMP {
            continue;
        }
        let len = message.bytes;
        return Ok(Some(Undelivered {
            destination: destination.ip(),
            code: (error.ee_type == UNREACHABLE).then_some(error.ee_code),
            quoted: buffer.get(..len).unwrap_or_default().to_vec(),
        }));
    }
}

/// Waits for a datagram, and hands over the ICMP errors that come meanwhile; `false` when the daemon has ended.
fn errors_until_datagram(socket: &Socket, to: &mpsc::Sender<Heard>) -> io::Result<bool> {
    loop {
        let mut one = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut one, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ready = one[0].revents().unwrap_or(PollFlags::POLLERR);
        if ready.contains(PollFlags::POLLERR) {
            // Told as a socket's error, too, which would come in the place of a datagram.
            let _ = socket.take_error();
            while let Some(one) = undelivered(socket)? {
                if hand_over(to, Heard::Undelivered(one)).is_err() {
                    return Ok(false);
                }
            }
        }
        if ready.contains(PollFlags::POLLIN) {
            return Ok(true);
        }
    }
}

/// Datagrams that didn't come by our links: those have been heard as frames.
fn hear_routed(socket: &Socket, links: &BTreeSet<u32>, to: &mpsc::Sender<Heard>) -> io::Result<()> {
    let mut buffer = [0; MAX_LEN];
    let mut control = nix::cmsg_space!(libc::in_pktinfo);
    while errors_until_datagram(socket, to)? {
        let mut into = [IoSliceMut::new(&mut buffer)];
        let heard = recvmsg::<SockaddrIn>(
            socket.as_raw_fd(),
            &mut into,
            Some(&mut control),
            MsgFlags::MSG_DONTWAIT,
        );
        let message = match heard {
            Ok(message) => message,
            Err(errno) if passes(errno) => continue,
            Err(errno) => return Err(errno.into()),
        };
        let info = message.cmsgs()?.find_map(|one| match one {
            ControlMessageOwned::Ipv4PacketInfo(info) => Some(info),
            _ => None,
        });
        let (Some(from), Some(info)) = (message.address, info) else {
            continue;
        };
        let index = u32::try_from(info.ipi_ifindex).unwrap_or(0);
        let len = message.bytes;
        if links.contains(&index) || by_tunnel(index) {
            continue;
        }
        let arrived = Arrived {
            interface: index,
            source: from.ip(),
            destination: Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)),
            ttl: 0,
            link: None,
            port: Some(from.port()),
            octets: buffer.get(..len).unwrap_or_default().to_vec(),
        };
        if hand_over(to, Heard::Packet(arrived)).is_err() {
            break;
        }
    }
    Ok(())
}

/// A filter that lets nothing in.
fn nothing() -> [SockFilter; 1] {
    [SockFilter::new(RETURN, 0, 0, 0)]
}

/// `BPF_RET | BPF_K`.
const RETURN: u16 = 0x06;

/// A filter over IPv4 packets that lets ICMP 9 and 10 and UDP to port 434 in (`bpf(4)`).
fn own_packets() -> [SockFilter; 13] {
    /// `BPF_LD | BPF_B | BPF_ABS`, `BPF_LD | BPF_H | BPF_ABS`.
    const OCTET: u16 = 0x30;
    const WORD: u16 = 0x28;
    /// `BPF_LDX | BPF_B | BPF_MSH`: the header's length.
    const HEADER: u16 = 0xB1;
    /// `BPF_LD | BPF_B | BPF_IND`, `BPF_LD | BPF_H | BPF_IND`.
    const OCTET_BEHIND: u16 = 0x50;
    const WORD_BEHIND: u16 = 0x48;
    /// `BPF_JMP | BPF_JEQ | BPF_K`, `BPF_JMP | BPF_JSET | BPF_K`.
    const EQUAL: u16 = 0x15;
    const ANY_BIT: u16 = 0x45;
    let step = SockFilter::new;
    [
        // Fragments aren't ours.
        step(WORD, 0, 0, 6),
        step(ANY_BIT, 10, 0, 0x3FFF),
        step(HEADER, 0, 0, 0),
        step(OCTET, 0, 0, 9),
        step(EQUAL, 0, 3, 1),
        // ICMP.
        step(OCTET_BEHIND, 0, 0, 0),
        step(EQUAL, 4, 0, 9),
        step(EQUAL, 3, 4, 10),
        // UDP.
        step(EQUAL, 0, 3, 17),
        step(WORD_BEHIND, 0, 0, 2),
        step(EQUAL, 0, 1, PORT as u32),
        step(RETURN, 0, 0, MAX_LEN as u32),
        step(RETURN, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On this machine alone: a port that was somebody's and is nobody's.
    fn nobodys() -> SocketAddrV4 {
        let gone = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        match gone.local_addr().unwrap() {
            SocketAddr::V4(address) => address,
            SocketAddr::V6(_) => unreachable!("it was bound to an IPv4 address"),
        }
    }

    fn socket() -> Socket {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true).unwrap();
        setsockopt(&socket, sockopt::Ipv4RecvErr, &true).unwrap();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        socket.bind(&any.into()).unwrap();
        socket
    }

    #[test]
    fn a_port_that_nobody_listens_at_is_told_with_what_was_sent_and_keeps_nothing_else_out() {
        let (to, mut queue) = mpsc::channel(8);
        let socket = Arc::new(socket());
        let own = socket.local_addr().unwrap();
        let ear = socket.clone();
        let thread = std::thread::spawn(move || hear_routed(&ear, &BTreeSet::new(), &to));
        for text in [b"one", b"two"] {
            let nobody = SocketAddr::V4(nobodys()).into();
            let send = || socket.send_to(text, &nobody);
            // The second may be told of the first.
            send().or_else(|_| send()).unwrap();
            let other = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            other.send_to(text, own.as_socket().unwrap()).unwrap();
        }
        let mut heard = Vec::new();
        while heard.len() < 4 {
            heard.push(queue.blocking_recv().unwrap());
        }
        let undelivered = |text: &[u8]| {
            Heard::Undelivered(Undelivered {
                destination: Ipv4Addr::LOCALHOST,
                code: Some(3),
                quoted: text.to_vec(),
            })
        };
        let arrived = |text: &[u8]| {
            let is_it = |one: &&Heard| matches!(one, Heard::Packet(one) if one.octets == text);
            heard.iter().filter(is_it).count()
        };
        for text in [b"one", b"two"] {
            assert!(heard.contains(&undelivered(text)), "{heard:?}");
            assert_eq!(arrived(text), 1, "{heard:?}");
        }
        drop(queue);
        // It notices with the next thing that comes.
        socket.send_to(b"end", &own).unwrap();
        thread.join().unwrap().unwrap();
    }
}
