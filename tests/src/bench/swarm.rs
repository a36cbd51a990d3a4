// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Many IKE peers in one thread: the protocol's end points with a socket each, and no kernel behind them. They are the company
//! that a measured key manager has; what they install is nobody's concern.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::ops::Range;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use mml_ike::config::Config;
use mml_ike::event::{Event, GroupHeard, IkeId, Output};
use mml_ike::host::Host;
use mml_ike::Endpoint;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use ring::rand::{SecureRandom, SystemRandom};

use crate::netns::Netns;
use crate::traffic;

/// IKE's port.
const PORT: u16 = 500;
/// Octets of the longest datagram.
const LONGEST: usize = 65_535;
/// Nobody says anything any more when nothing has come for so long.
const QUIET: Duration = Duration::from_millis(20);
/// What an exchange may take.
const PATIENCE: Duration = Duration::from_secs(20);

struct Chance(SystemRandom);

impl Host for Chance {
    fn fill(&mut self, out: &mut [u8]) {
        out.copy_from_slice(&traffic::random(out.len()));
    }

    fn secure(&self) -> &dyn SecureRandom {
        &self.0
    }
}

struct Member {
    endpoint: Endpoint,
    socket: UdpSocket,
    address: SocketAddr,
}

impl Member {
    /// Does what its end point wants done.
    fn carries_out(&mut self, given: &mut usize, cast: &mut usize) -> Result<()> {
        while let Some(output) = self.endpoint.poll() {
            match output {
                Output::Send(datagram) => {
                    self.socket.send_to(&datagram.octets, datagram.to)?;
                }
                Output::Event(Event::RelayUp(_)) => *given += 1,
                Output::Event(Event::GroupHeard(GroupHeard::Said { taken, .. })) => *cast += taken,
                Output::Event(_) => {}
            }
        }
        Ok(())
    }
}

/// All of them.
pub struct Swarm {
    members: Vec<Member>,
    host: Chance,
    start: Instant,
    /// Relay CSAs that members which are foreign agents were given.
    pub given: usize,
    /// How many of those by one datagram for all.
    pub cast: usize,
    /// Where datagrams for all come in, and what they are sent to.
    group: Option<(UdpSocket, SocketAddr)>,
}

impl Swarm {
    pub fn new() -> Self {
        Swarm {
            members: Vec::new(),
            host: Chance(SystemRandom::new()),
            start: Instant::now(),
            given: 0,
            cast: 0,
            group: None,
        }
    }

    /// One more at an address of that node; its number.
    pub fn join(&mut self, node: &Netns, address: Ipv4Addr, config: Config) -> Result<usize> {
        let address = SocketAddr::new(address.into(), PORT);
        let socket = node.enter(|| Ok(UdpSocket::bind(address)?))?;
        socket.set_nonblocking(true)?;
        self.members.push(Member {
            endpoint: Endpoint::new(config),
            socket,
            address,
        });
        Ok(self.members.len() - 1)
    }

    /// Members hear what is sent to a group on a node's interface with that address.
    pub fn listen(&mut self, node: &Netns, on: Ipv4Addr, group: SocketAddrV4) -> Result<()> {
        let socket = node.enter(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, group.port()))?;
            socket.join_multicast_v4(group.ip(), &on)?;
            Ok(socket)
        })?;
        socket.set_nonblocking(true)?;
        self.group = Some((socket, group.into()));
        Ok(())
    }

    /// All of them do for so long what comes to be done.
    pub fn serve(&mut self, duration: Duration) -> Result<()> {
        let end = Instant::now() + duration;
        let mut buffer = vec![0; LONGEST];
        loop {
            let now = self.start.elapsed();
            let mut due = self.start + now + duration;
            for member in &mut self.members {
                if member.endpoint.next_deadline().is_some_and(|at| at <= now) {
                    member.endpoint.tick(now, &mut self.host);
                }
                member.carries_out(&mut self.given, &mut self.cast)?;
                if let Some(at) = member.endpoint.next_deadline() {
                    due = due.min(self.start + at);
                }
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let mut waiting: Vec<PollFd<'_>> = self
                .members
                .iter()
                .map(|member| &member.socket)
                .chain(self.group.as_ref().map(|(socket, _)| socket))
                .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN))
                .collect();
            let pause = left.min(due.saturating_duration_since(Instant::now()));
            // To the next millisecond, or a deadline would be waited for without a pause.
            let pause = pause + Duration::from_millis(1);
            poll(
                &mut waiting,
                PollTimeout::try_from(pause).context("a pause")?,
            )?;
            let now = self.start.elapsed();
            for member in &mut self.members {
                while let Ok((len, from)) = member.socket.recv_from(&mut buffer) {
                    let octets = buffer.get(..len).unwrap_or_default();
                    let to = member.address;
                    member
                        .endpoint
                        .handle(octets, from, to, now, &mut self.host);
                }
            }
            while let Some((len, from, to)) = self
                .group
                .as_ref()
                .and_then(|(socket, to)| Some((socket.recv_from(&mut buffer).ok()?, *to)))
                .map(|((len, from), to)| (len, from, to))
            {
                let octets = buffer.get(..len).unwrap_or_default();
                for member in &mut self.members {
                    member
                        .endpoint
                        .handle(octets, from, to, now, &mut self.host);
                }
            }
        }
    }

    /// One begins its connection with a peer, which is up when this returns, and so is what others were told for it.
    pub fn begin(&mut self, member: usize, peer: Ipv4Addr, others: Range<usize>) -> Result<IkeId> {
        let now = self.start.elapsed();
        let one = self.members.get_mut(member).context("no such member")?;
        let to = SocketAddr::new(IpAddr::V4(peer), PORT);
        let ike = one
            .endpoint
            .initiate(0, one.address, to, now, &mut self.host)?;
        self.settle(member, &others)?;
        let up = self.members[member]
            .endpoint
            .established()
            .any(|id| id == ike);
        ensure!(up, "member {member} is not up");
        Ok(ike)
    }

    /// One rekeys its child; others are told.
    pub fn rekey(&mut self, member: usize, ike: IkeId, others: Range<usize>) -> Result<()> {
        let now = self.start.elapsed();
        let one = self.members.get_mut(member).context("no such member")?;
        let before = one.endpoint.children(ike);
        let (child, ..) = *before.first().context("it has no child")?;
        one.endpoint.rekey_child(ike, child, now, &mut self.host)?;
        self.settle(member, &others)?;
        let after = self.members[member].endpoint.children(ike);
        ensure!(
            after.len() == 1 && after[0].0 != child,
            "its child is the old one"
        );
        Ok(())
    }

    /// Carries their datagrams to and fro until nothing comes any more.
    fn settle(&mut self, member: usize, others: &Range<usize>) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        let mut buffer = vec![0; LONGEST];
        let all = self.members.iter_mut().enumerate();
        let mut members: Vec<&mut Member> = all
            .filter(|(at, _)| *at == member || others.contains(at))
            .map(|(_, one)| one)
            .collect();
        loop {
            ensure!(Instant::now() < end, "they go on and on");
            let now = self.start.elapsed();
            for member in &mut members {
                member.carries_out(&mut self.given, &mut self.cast)?;
            }
            let mut waiting: Vec<PollFd<'_>> = members
                .iter()
                .map(|member| PollFd::new(member.socket.as_fd(), PollFlags::POLLIN))
                .collect();
            let timeout = PollTimeout::try_from(QUIET).context("a short time")?;
            if poll(&mut waiting, timeout)? == 0 {
                return Ok(());
            }
            let ready: Vec<bool> = waiting
                .iter()
                .map(|one| one.any().unwrap_or_default())
                .collect();
            for (member, _) in members.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
                while let Ok((len, from)) = member.socket.recv_from(&mut buffer) {
                    let octets = buffer.get(..len).unwrap_or_default();
                    let to = member.address;
                    member
                        .endpoint
                        .handle(octets, from, to, now, &mut self.host);
                }
            }
        }
    }
}
