// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What is asked of the module, and what it says: CSAs, policies, counters, settings, events.

use crate::info::{CsaInfo, Event};
use crate::netlink::frame::{self, Attributes};
use crate::netlink::{Error, Socket};
use pfkey::number::{message, satype};
use pfkey::{
    genl, Csa, CsaExt, CsaId, Message, Mode, Policy, PolicyId, Role, Snoop, SnoopState, State,
    Writer,
};
use socket2::SockFilter;
use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;
use zeroize::Zeroizing;

/// Octets that an ADD has at most beside its keys and its binding.
const OPEN_LEN: usize = 512;

/// A CSA's counters, or the namespace's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Whose they are; `None` for the namespace.
    pub csa: Option<CounterOwner>,
    /// Names and values in the module's order.
    pub values: Vec<(String, u64)>,
}

/// Which CSA counters are of.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each says what it is")]
pub struct CounterOwner {
    pub spi: u32,
    pub src: IpAddr,
    pub dst: IpAddr,
    pub role: Option<Role>,
}

/// A TCP flow that SNOOP looks after, in the direction of its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The outer ends of the CSA that it comes in; `None` for plain TCP.
    pub outer: Option<(IpAddr, IpAddr)>,
    /// Where its data comes from.
    pub src: SocketAddr,
    /// Where its data goes.
    pub dst: SocketAddr,
    /// How it stands and what it has counted, in the module's order.
    pub values: Vec<(String, u64)>,
}

/// The module of this network namespace.
pub struct Kernel {
    socket: Socket,
}

/// This program's number, which messages carry; asked for once.
fn own_pid() -> u32 {
    static PID: OnceLock<u32> = OnceLock::new();
    *PID.get_or_init(std::process::id)
}

/// Writes the ADD of a CSA.
pub fn add_message<'b>(
    buffer: &'b mut [u8],
    csa: &Csa<'_>,
    seq: u32,
) -> Result<&'b [u8], pfkey::Error> {
    let writer = Writer::new(buffer, message::ADD, satype::MLESP, seq, own_pid())?;
    csa.write(writer)?.finish()
}

/// Writes the X_SPDADD of a policy.
pub fn policy_message<'b>(
    buffer: &'b mut [u8],
    policy: &Policy,
    seq: u32,
) -> Result<&'b [u8], pfkey::Error> {
    let writer = Writer::new(buffer, message::X_SPDADD, satype::UNSPEC, seq, own_pid())?;
    policy.write(writer)?.finish()
}

/// The CSA extension of a message that only names a CSA: all but the role is ignored.
pub(crate) fn naming(role: Role) -> CsaExt {
    CsaExt {
        role,
        mode: Mode::Tunnel,
        state: State::Active,
        window: 0,
        generation: 0,
        sequence: 0,
    }
}

/// A message that can't be written is a mistake of ours; it looks like the kernel's refusal.
pub(crate) fn refused(error: pfkey::Error) -> Error {
    Error::Refused {
        errno: error.errno,
        text: Some(error.to_string()),
    }
}

pub(crate) fn malformed(_: pfkey::Error) -> Error {
    Error::Malformed("a zone message of another version")
}

impl Kernel {
    /// Finds the module.
    pub fn open() -> Result<Self, Error> {
        let socket = Socket::open(genl::FAMILY_NAME, genl::VERSION, genl::GROUP_EVENTS_NAME)?;
        Ok(Kernel { socket })
    }

    /// Sends one zone message and gives the answer's messages to `answer`.
    pub(crate) fn ask(
        &mut self,
        octets: &[u8],
        answer: &mut dyn FnMut(&Message<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        // The module answers what it has done (docs/wire.md 2.1c); an acknowledgement would say nothing more.
        self.socket.ask(
            genl::CMD_PFKEY,
            &|r| r.attribute(genl::A_PFKEY, octets),
            &mut |m| zone(m, answer),
        )
    }

    pub(crate) fn tell(&mut self, octets: &[u8]) -> Result<(), Error> {
        self.ask(octets, &mut |_| Ok(()))
    }

    fn list(
        &mut self,
        kind: u8,
        satype: u8,
        restart: &mut dyn FnMut(),
        answer: &mut dyn FnMut(&Message<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut buffer = [0; pfkey::HEADER_LEN];
        let octets = bare(&mut buffer, kind, satype)?;
        let fill = |r: frame::Request| r.attribute(genl::A_PFKEY, octets);
        self.socket
            .dump(genl::CMD_PFKEY, &fill, restart, &mut |m| zone(m, answer))
    }

    /// Adds a CSA.
    pub fn add_csa(&mut self, csa: &Csa<'_>) -> Result<(), Error> {
        let mut buffer = Zeroizing::new(vec![0; csa.secrets_len() + OPEN_LEN]);
        let octets = add_message(&mut buffer, csa, 1).map_err(refused)?;
        self.tell(octets)
    }

    fn csa_request(
        &mut self,
        kind: u8,
        id: &CsaId,
        ext: &CsaExt,
        answer: &mut dyn FnMut(&Message<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut buffer = [0; 512];
        let writer = Writer::new(&mut buffer, kind, satype::MLESP, 1, own_pid());
        let octets = writer
            .and_then(|w| id.write(w, ext))
            .and_then(Writer::finish)
            .map_err(refused)?;
        self.ask(octets, answer)
    }

    /// Whether there is this CSA.
    pub fn has_csa(&mut self, id: &CsaId) -> Result<bool, Error> {
        match self.csa_request(message::GET, id, &naming(id.role), &mut |_| Ok(())) {
            Ok(()) => Ok(true),
            Err(Error::Refused {
                errno: pfkey::errno::ESRCH,
                ..
            }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes a CSA away.
    pub fn delete_csa(&mut self, id: &CsaId) -> Result<(), Error> {
        self.csa_request(message::DELETE, id, &naming(id.role), &mut |_| Ok(()))
    }

    /// Changes a CSA's state, and moves the top of its window up to `sequence` if that isn't 0.
    pub fn update_csa(&mut self, id: &CsaId, state: State, sequence: u64) -> Result<(), Error> {
        self.limit_csa(id, (state, sequence), None, None)
    }

    /// Lets a CSA go on between other outer ends.
    pub fn migrate_csa(&mut self, to: &pfkey::Migrate) -> Result<(), Error> {
        let mut buffer = [0; 512];
        let octets = Writer::new(&mut buffer, message::X_MIGRATE, satype::MLESP, 0, 0)
            .and_then(|w| to.write(w, &naming(to.id.role)))
            .and_then(Writer::finish)
            .map_err(refused)?;
        self.tell(octets)
    }

    /// Has what is held for a CSA sent, by the routes there are now; of copies those behind number `seen`, with 0 all of
    /// a relay's and none of an origin's (docs/wire.md 2.2v). How many packets that is.
    pub fn resend_csa(&mut self, id: &CsaId, seen: u64) -> Result<u32, Error> {
        let mut packets = 0;
        let ext = CsaExt {
            sequence: seen,
            ..naming(id.role)
        };
        self.csa_request(message::X_CSA_RESEND, id, &ext, &mut |answer| {
            packets = answer.lifetime_current().map_or(0, |sent| sent.allocations);
            Ok(())
        })?;
        Ok(packets)
    }

    /// What SNOOP knows of a relay's CSA's flows, as the module writes it (docs/wire.md 2.2y).
    pub fn snoop_state(&mut self, id: &CsaId) -> Result<Vec<u8>, Error> {
        let mut state = None;
        self.csa_request(message::X_CSA_SNOOP, id, &naming(id.role), &mut |answer| {
            state = answer.snoop_state().map(|state| state.octets.to_vec());
            Ok(())
        })?;
        state.ok_or(Error::Malformed("an answer without SNOOP's state"))
    }

    /// Has SNOOP take over what another foreign agent's knew of a CSA's flows (docs/wire.md 2.2y). Of how many it did.
    pub fn take_over_snoop(&mut self, id: &CsaId, state: &[u8]) -> Result<u32, Error> {
        let state = SnoopState { octets: state };
        let mut buffer = [0; pfkey::MAX_LEN];
        let octets = Writer::new(&mut buffer, message::X_CSA_SNOOP, satype::MLESP, 0, 0)
            .and_then(|w| id.write(w, &naming(id.role)))
            .and_then(|w| w.snoop_state(&state))
            .and_then(Writer::finish)
            .map_err(refused)?;
        let mut flows = 0;
        self.ask(octets, &mut |answer| {
            flows = answer
                .lifetime_current()
                .map_or(0, |taken| taken.allocations);
            Ok(())
        })?;
        Ok(flows)
    }

    /// Gives a relay's CSA other settings of SNOOP, which hold for new flows; its state stays `state`.
    pub fn snoop_csa(&mut self, id: &CsaId, state: State, snoop: &Snoop) -> Result<(), Error> {
        let ext = CsaExt {
            state,
            ..naming(id.role)
        };
        let mut buffer = [0; pfkey::MAX_LEN];
        let octets = Writer::new(&mut buffer, message::UPDATE, satype::MLESP, 0, 0)
            .and_then(|w| id.write(w, &ext))
            .and_then(|w| w.snoop(snoop))
            .and_then(Writer::finish)
            .map_err(refused)?;
        self.tell(octets)
    }

    /// All CSAs.
    pub fn csas(&mut self) -> Result<Vec<CsaInfo>, Error> {
        let list = std::cell::RefCell::new(Vec::new());
        self.list(
            message::DUMP,
            satype::MLESP,
            &mut || list.borrow_mut().clear(),
            &mut |message| {
                list.borrow_mut()
                    .push(CsaInfo::from_message(message).map_err(malformed)?);
                Ok(())
            },
        )?;
        Ok(list.into_inner())
    }

    /// One CSA.
    pub fn csa(&mut self, id: &CsaId) -> Result<CsaInfo, Error> {
        let mut found = None;
        self.csa_request(message::GET, id, &naming(id.role), &mut |message| {
            found = Some(CsaInfo::from_message(message).map_err(malformed)?);
            Ok(())
        })?;
        found.ok_or(Error::Malformed("an answer without a CSA"))
    }

    /// All CSAs with their keys, as `take` makes something of each: of the CSA, and of when it was made (seconds since
    /// 1970). What it makes nothing of is left out, and so are those that are neither active nor standby.
    pub fn whole_csas<T>(
        &mut self,
        take: &mut dyn FnMut(&Csa<'_>, Option<u64>) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let list = std::cell::RefCell::new(Vec::new());
        self.list(
            message::DUMP,
            satype::MLESP,
            &mut || list.borrow_mut().clear(),
            &mut |message| {
                let since = message.lifetime_current().map(|current| current.addtime);
                if let Ok(csa) = Csa::from_message(message) {
                    list.borrow_mut().extend(take(&csa, since));
                }
                Ok(())
            },
        )?;
        Ok(list.into_inner())
    }

    /// Takes all CSAs away.
    pub fn flush_csas(&mut self) -> Result<(), Error> {
        let mut buffer = [0; pfkey::HEADER_LEN];
        let octets = bare(&mut buffer, message::FLUSH, satype::MLESP)?;
        self.tell(octets)
    }

    /// Adds a policy; gives it as the module holds it, numbered.
    pub fn add_policy(&mut self, policy: &Policy) -> Result<Policy, Error> {
        let mut buffer = [0; 512];
        let octets = policy_message(&mut buffer, policy, 1).map_err(refused)?;
        let mut added = *policy;
        self.ask(octets, &mut |message| {
            added = Policy::from_message(message).map_err(malformed)?;
            Ok(())
        })?;
        Ok(added)
    }

    /// Takes a policy away.
    pub fn delete_policy(&mut self, id: &PolicyId) -> Result<(), Error> {
        let mut buffer = [0; 512];
        let writer = Writer::new(
            &mut buffer,
            message::X_SPDDELETE,
            satype::UNSPEC,
            1,
            own_pid(),
        );
        let octets = writer
            .and_then(|w| id.write(w))
            .and_then(Writer::finish)
            .map_err(refused)?;
        self.tell(octets)
    }

    /// All policies.
    pub fn policies(&mut self) -> Result<Vec<Policy>, Error> {
        let list = std::cell::RefCell::new(Vec::new());
        self.list(
            message::X_SPDDUMP,
            satype::UNSPEC,
            &mut || list.borrow_mut().clear(),
            &mut |message| {
                list.borrow_mut()
                    .push(Policy::from_message(message).map_err(malformed)?);
                Ok(())
            },
        )?;
        Ok(list.into_inner())
    }

    /// Takes all policies away.
    pub fn flush_policies(&mut self) -> Result<(), Error> {
        let mut buffer = [0; pfkey::HEADER_LEN];
        let octets = bare(&mut buffer, message::X_SPDFLUSH, satype::UNSPEC)?;
        self.tell(octets)
    }

    /// The namespace's counters and settings, then each CSA's counters.
    pub fn stats(&mut self) -> Result<Vec<Counters>, Error> {
        let list = std::cell::RefCell::new(Vec::new());
        self.socket.dump(
            genl::CMD_STATS,
            &|r| r,
            &mut || list.borrow_mut().clear(),
            &mut |message| {
                let counters =
                    counters(message.attributes()).ok_or(Error::Malformed("counters of nobody"))?;
                merge(&mut list.borrow_mut(), counters);
                Ok(())
            },
        )?;
        Ok(list.into_inner())
    }

    /// Changes a setting.
    pub fn set(&mut self, name: &str, value: u64) -> Result<(), Error> {
        self.set_all(&[(name, value)])
    }

    /// Changes several settings: all of them, or none if one of them is unknown or out of range.
    pub fn set_all(&mut self, settings: &[(&str, u64)]) -> Result<(), Error> {
        self.socket.request(
            genl::CMD_SET,
            &|request| {
                settings.iter().fold(request, |request, (name, value)| {
                    let name = [name.as_bytes(), &[0]].concat();
                    let value = value.to_ne_bytes();
                    request.nested(
                        genl::A_COUNTER,
                        &[(genl::A_NAME, &name), (genl::A_VALUE, &value)],
                    )
                })
            },
            &mut |_| Ok(()),
        )
    }

    /// SNOOP's flows.
    pub fn flows(&mut self) -> Result<Vec<Flow>, Error> {
        let list = std::cell::RefCell::new(Vec::new());
        self.socket.dump(
            genl::CMD_STATS,
            &|r| r.attribute(genl::A_STATS_SCOPE, b"flow\0"),
            &mut || list.borrow_mut().clear(),
            &mut |message| {
                let flow =
                    flow(message.attributes()).ok_or(Error::Malformed("a flow of nobody"))?;
                list.borrow_mut().push(flow);
                Ok(())
            },
        )?;
        Ok(list.into_inner())
    }

    /// Begins to listen for events.
    pub fn listen(&mut self) -> Result<(), Error> {
        self.socket.join(genl::GROUP_EVENTS_NAME)
    }

    /// The same, of these messages alone. Each event that comes wakes a thread, and most tell of what this program did itself.
    pub fn listen_for(&mut self, kinds: &[u8]) -> Result<(), Error> {
        self.socket.filter(&events_of(kinds))?;
        self.listen()
    }

    /// Waits for events and gives them to `event`.
    pub fn events(
        &mut self,
        event: &mut dyn FnMut(Event) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.socket.events(&mut |m| {
            zone(m, &mut |message| {
                event(Event::from_message(message).map_err(malformed)?)
            })
        })
    }
}

/// A filter over the module's events that lets those in whose zone message is of one of `kinds`.
fn events_of(kinds: &[u8]) -> Vec<SockFilter> {
    /// `BPF_LD | BPF_B | BPF_ABS`, `BPF_JMP | BPF_JEQ | BPF_K`, `BPF_RET | BPF_K`.
    const OCTET: u16 = 0x30;
    const EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    /// Behind the headers of netlink, generic netlink and the one attribute there is, and the version.
    const KIND: u32 = (frame::HEADER_LEN + frame::GENL_HEADER_LEN + 4 + 1) as u32;
    let step = SockFilter::new;
    let mut steps = vec![step(OCTET, 0, 0, KIND)];
    for kind in kinds {
        // Not this one: past the next step.
        steps.push(step(EQUAL, 0, 1, u32::from(*kind)));
        steps.push(step(RETURN, 0, 0, u32::MAX));
    }
    steps.push(step(RETURN, 0, 0, 0));
    steps
}

/// A message without extensions.
fn bare(buffer: &mut [u8], kind: u8, satype: u8) -> Result<&[u8], Error> {
    Writer::new(buffer, kind, satype, 1, own_pid())
        .and_then(Writer::finish)
        .map_err(refused)
}

/// Gives the zone message of a netlink message to `f`.
fn zone(
    message: &frame::Message<'_>,
    f: &mut dyn FnMut(&Message<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let octets = message
        .attributes()
        .find(genl::A_PFKEY)
        .ok_or(Error::Malformed("no zone message in it"))?;
    f(&Message::parse(octets).map_err(malformed)?)
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
    }
}

fn counters(attributes: Attributes<'_>) -> Option<Counters> {
    let csa = match attributes
        .find(genl::A_STATS_SCOPE)
        .map(frame::text)?
        .as_str()
    {
        "namespace" => None,
        _ => Some(CounterOwner {
            spi: u32::from_be_bytes(attributes.find(genl::A_SPI)?.try_into().ok()?),
            src: address(attributes.find(genl::A_SRC)?)?,
            dst: address(attributes.find(genl::A_DST)?)?,
            role: attributes
                .find(genl::A_ROLE)?
                .first()
                .copied()
                .and_then(Role::from_number),
        }),
    };
    Some(Counters {
        csa,
        values: values(attributes),
    })
}

/// Names and values of a message's counters.
fn values(attributes: Attributes<'_>) -> Vec<(String, u64)> {
    attributes
        .filter(|(number, _)| *number == genl::A_COUNTER)
        .filter_map(|(_, counter)| {
            let counter = Attributes(counter);
            let value = counter.find(genl::A_VALUE)?.try_into().ok()?;
            Some((
                frame::text(counter.find(genl::A_NAME)?),
                u64::from_ne_bytes(value),
            ))
        })
        .collect()
}

fn flow(attributes: Attributes<'_>) -> Option<Flow> {
    let outer = match (attributes.find(genl::A_SRC), attributes.find(genl::A_DST)) {
        (Some(src), Some(dst)) => Some((address(src)?, address(dst)?)),
        _ => None,
    };
    let mut values = values(attributes);
    let mut port = |name: &str| {
        let at = values.iter().position(|(other, _)| other == name)?;
        u16::try_from(values.remove(at).1).ok()
    };
    let (source, destination) = (port("source-port")?, port("destination-port")?);
    Some(Flow {
        outer,
        src: (address(attributes.find(genl::A_INNER_SRC)?)?, source).into(),
        dst: (address(attributes.find(genl::A_INNER_DST)?)?, destination).into(),
        values,
    })
}

/// Adds counters to the list; those of one owner may come in several messages.
fn merge(list: &mut Vec<Counters>, counters: Counters) {
    match list.last_mut() {
        Some(last) if last.csa == counters.csa => last.values.extend(counters.values),
        _ => list.push(counters),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::frame::{Messages, Request};

    #[test]
    fn counters_are_read_with_their_owner() {
        let value = 7u64.to_ne_bytes();
        let counter: [(u16, &[u8]); 2] = [(genl::A_NAME, b"replay\0"), (genl::A_VALUE, &value)];
        let octets = Request::new(30, 0, 1, genl::CMD_STATS, 1)
            .attribute(genl::A_STATS_SCOPE, b"csa\0")
            .attribute(genl::A_SPI, &0x1234_5678u32.to_be_bytes())
            .attribute(genl::A_SRC, &[198, 51, 100, 1])
            .attribute(genl::A_DST, &[10, 1, 1, 7])
            .attribute(genl::A_ROLE, &[3])
            .nested(genl::A_COUNTER, &counter)
            .nested(genl::A_COUNTER, &counter)
            .finish();
        let message = Messages(&octets).next().unwrap();
        let read = counters(message.attributes()).unwrap();
        let owner = read.csa.clone().unwrap();
        assert_eq!((owner.spi, owner.role), (0x1234_5678, Some(Role::Relay)));
        assert_eq!(owner.dst, IpAddr::from([10, 1, 1, 7]));
        assert_eq!(
            read.values,
            [("replay".to_owned(), 7), ("replay".to_owned(), 7)]
        );
        let mut list = vec![];
        merge(&mut list, read.clone());
        merge(&mut list, read);
        assert_eq!((list.len(), list[0].values.len()), (1, 4));
    }

    #[test]
    fn of_the_modules_events_those_that_are_wanted_come() {
        let (to, from) = std::os::unix::net::UnixDatagram::pair().unwrap();
        to.set_nonblocking(true).unwrap();
        let wanted = [message::ACQUIRE, message::EXPIRE];
        let filter = events_of(&wanted);
        socket2::SockRef::from(&to).attach_filter(&filter).unwrap();
        let mut came = Vec::new();
        for kind in 0..=u8::MAX {
            let mut zone = [0; pfkey::HEADER_LEN];
            zone[..2].copy_from_slice(&[2, kind]);
            let octets = Request::new(30, 0, 0, genl::CMD_PFKEY, 1)
                .attribute(genl::A_PFKEY, &zone)
                .finish();
            from.send(&octets).unwrap();
            let mut buffer = [0; 512];
            if let Ok(len) = to.recv(&mut buffer) {
                assert_eq!(buffer[..len], octets[..]);
                came.push(kind);
            }
        }
        assert_eq!(came, wanted);
    }

    #[test]
    fn counters_of_nobody_are_refused() {
        let octets = Request::new(30, 0, 1, genl::CMD_STATS, 1)
            .attribute(genl::A_STATS_SCOPE, b"csa\0")
            .finish();
        assert!(counters(Messages(&octets).next().unwrap().attributes()).is_none());
        assert!(counters(Attributes(&[])).is_none());
    }
}
