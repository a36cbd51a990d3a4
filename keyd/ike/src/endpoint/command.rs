// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What an end point can be told to do.

use super::{unix, Cx, Endpoint};
use crate::crypto::Hash;
#[cfg(doc)]
use crate::event::Event;
use crate::event::{AdoptedCsa, ChildId, Down, IkeId, Time};
use crate::host::Host;
use crate::sa::exchange::{CsaPurpose, CsaTask, Path, Task};
use crate::sa::{IkeSa, State};
use crate::secret::Secret;
use crate::wire::{Ask, CsaData, ExchangeType, Id, Neighbour, Payload, SnoopState, MAX_GROUPS};
use crate::zones::access;
use std::net::{IpAddr, SocketAddr};

/// Why a command was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// There is no such connection, or it has no suite.
    #[error("there is no such connection, or it offers no suite")]
    Connection,
    /// There is no such IKE SA, or it isn't up.
    #[error("there is no such IKE SA, or it is not up")]
    Ike,
    /// There is no such child.
    #[error("there is no such child")]
    Child,
    /// The peer, or the connection, doesn't allow it.
    #[error("the peer, or the connection, does not allow it")]
    Ability,
}

impl Endpoint {
    /// Begins an IKE SA with the peer at `to`; what comes of it is said by events.
    ///
    /// # Errors
    /// [`Refused::Connection`] when there is nothing to begin with.
    pub fn initiate(
        &mut self,
        connection: usize,
        from: SocketAddr,
        to: SocketAddr,
        now: Time,
        host: &mut dyn Host,
    ) -> Result<IkeId, Refused> {
        self.initiate_with(connection, None, from, to, now, host)
    }

    /// The same with `peer` and nobody else, of those that a connection may be with.
    ///
    /// # Errors
    /// As above.
    pub fn initiate_with(
        &mut self,
        connection: usize,
        peer: Option<&Id>,
        from: SocketAddr,
        to: SocketAddr,
        now: Time,
        host: &mut dyn Host,
    ) -> Result<IkeId, Refused> {
        let id = self.new_id();
        let path = Path {
            local: from,
            remote: to,
        };
        let mut cx = cx!(self, now, host);
        let mut sa = IkeSa::initiate(id, connection, path, &mut cx).ok_or(Refused::Connection)?;
        sa.expected = peer.cloned();
        self.insert(Box::new(sa), now);
        Ok(id)
    }

    fn task(
        &mut self,
        ike: IkeId,
        task: Task,
        now: Time,
        host: &mut dyn Host,
    ) -> Result<(), Refused> {
        if !self.sas.get(&ike).is_some_and(|sa| sa.is_up()) {
            return Err(Refused::Ike);
        }
        self.with(ike, now, host, |sa, cx| sa.want(task, cx));
        Ok(())
    }

    fn has_child(&self, ike: IkeId, child: ChildId) -> Result<(), Refused> {
        let sa = self.sas.get(&ike).ok_or(Refused::Ike)?;
        let has = sa.children.iter().any(|one| one.id == child);
        if has {
            Ok(())
        } else {
            Err(Refused::Child)
        }
    }

    /// Makes another child of the connection's kind.
    ///
    /// # Errors
    /// [`Refused::Ike`], [`Refused::Connection`] without a child in it.
    pub fn create_child(
        &mut self,
        ike: IkeId,
        now: Time,
        host: &mut dyn Host,
    ) -> Result<(), Refused> {
        let sa = self.sas.get(&ike).ok_or(Refused::Ike)?;
        let connection = sa.connection(&self.config);
        if connection.is_none_or(|c| c.child.is_none()) {
            return Err(Refused::Connection);
        }
        self.task(ike, Task::NewChild, now, host)
    }

    /// Makes a child in that one's place.
    ///
    /// # Errors
    /// [`Refused::Ike`], [`Refused::Child`].
    pub fn rekey_child(
        &mut self,
        ike: IkeId,
        child: ChildId,
        now: Time,
        host: &mut dyn Host,
    ) -> Result<(), Refused> {
        self.has_child(ike, child)?;
        self.task(ike, Task::RekeyChild(child, None), now, host)
    }

    /// Closes a child.
    ///
    /// # Errors
    /// [`Refused::Ike`], [`Refused::Child`].
    pub fn delete_child(
        &mut self,
        ike: IkeId,
        child: ChildId,
        now: Time,
        host: &mut dyn Host,
    ) -> Result<(), Refused> {
        self.has_child(ike, child)?;
        self.task(ike, Task::DeleteChildren(vec![child]), now, host)
    }

    /// Makes an IKE SA in that one's place.
    ///
    /// # Errors
    /// [`Refused::Ike`].
    pub fn rekey_ike(&mut self, ike: IkeId, now: Time, host: &mut dyn Host) -> Result<(), Refused> {
        self.task(ike, Task::RekeyIke(None), now, host)
    }

    /// Closes an IKE SA and its children, or gives up beginning it.
    ///
    /// # Errors
    /// [`Refused::Ike`].
    pub fn delete_ike(
        &mut self,
        ike: IkeId,
        now: Time,
        host: &mut dyn Host,
    ) -> Result<(), Refused> {
        let sa = self.sas.get(&ike).ok_or(Refused::Ike)?;
        if sa.state == State::Starting {
            // There is nothing the peer could be told by.
            self.with(ike, now, host, |sa, cx| sa.fall(Down::Deleted, cx));
            return Ok(());
        }
        self.task(ike, Task::DeleteIke, now, host)
    }

    /// Asks whether the peer lives.
    ///
    /// # Errors
    /// [`Refused::Ike`].
    pub fn probe(&mut self, ike: IkeId, now: Time, host: &mut dyn Host) -> Result<(), Refused> {
        self.task(ike, Task::Liveness, now, host)
    }

    /// This side is at `from` now, or the peer at `to` (RFC 4555).
    ///
    /// # Errors
    /// [`Refused::Ability`] without MOBIKE, or as the IKE SA's responder.
    pub fn move_to(
        &mut self,
        ike: IkeId,
        from: SocketAddr,
        to: SocketAddr,
        now: Time,
        host: &mut dyn Host,
    ) -> Result<(), Refused> {
        match self.with(ike, now, host, |sa, cx| sa.move_to(from, to, cx)) {
            Some(true) => Ok(()),
            Some(false) => Err(Refused::Ability),
            None => Err(Refused::Ike),
        }
    }

    fn csa_task(
        &mut self,
        ike: IkeId,
        exchange: ExchangeType,
        data: CsaData,
        purpose: CsaPurpose,
        now: Time,
        host: &mut dyn Host,
    ) -> Result<(), Refused> {
        let sa = self.sas.get(&ike).ok_or(Refused::Ike)?;
        if !(self.config.zones && sa.traits.zones) {
            return Err(Refused::Ability);
        }
        let task = CsaTask {
            exchange,
            payloads: vec![Payload::CsaData(data)],
            purpose,
        };
        self.task(ike, Task::Csa(task), now, host)
    }

    /// Says that CSAs the kernel still has are this side's, after a restart (docs/wire.md 3.2v).
    ///
    /// # Errors
    /// [`Refused::Ike`]; [`Refused::Ability`] when the peer knows no zones.
    pub fn claim(
        &mut self,
        ike: IkeId,
        csas: Vec<AdoptedCsa>,
        now: Time,
        host: &mut dyn Host,
    ) -> Result<(), Refused> {
        let sa = self.sas.get(&ike).ok_or(Refused::Ike)?;
        if !(self.config.zones && sa.traits.zones) {
            return Err(Refused::Ability);
        }
        self.task(ike, Task::Claim(csas), now, host)
    }

    /// An inner address that stood before a restart: of a peer, which has it again, and nobody else before `until`; or this
    /// side's own, which is asked for again.
    pub fn hold_address(&mut self, connection: usize, peer: &Id, address: IpAddr, until: Time) {
        let Some(one) = self.config.connections.get(connection) else {
            return;
        };
        if one.pool.holds(address) {
            self.leases.hold(connection, address, peer, until);
        } else if one.request_address.is_some() {
            self.leases.taken(connection, address);
        }
    }

    /// HA: where a host is, and the FAs it may go to next (PKD). CSAs are given and taken accordingly, those to come too.
    pub fn set_relays(
        &mut self,
        home: IpAddr,
        current: Option<IpAddr>,
        standbys: Vec<IpAddr>,
        now: Time,
        host: &mut dyn Host,
    ) {
        self.home.set_relays(home, current, standbys);
        self.settle(now, host);
    }

    /// HA: the FA that a host has come to may have its CSAs from the FA before (DKM), whether or not it is given them here
    /// (docs/wire.md 3.2k). To be said before [`Endpoint::set_relays`].
    pub fn handed_on(&mut self, home: IpAddr, fa: IpAddr) {
        self.home.handed_on(home, fa);
    }

    /// HA: that FA is to be none any more. While it is known still it is told to drop what it has, and what it knew gets fresh
    /// keys (docs/wire.md 3.5b).
    pub fn expel(&mut self, fa: IpAddr, now: Time, host: &mut dyn Host) {
        self.home.expel(fa);
        self.settle(now, host);
    }

    /// FA: a host is registered here, its HA being `agent`: that one may give its CSAs.
    pub fn register(&mut self, home: IpAddr, agent: Id) {
        self.foreign.register(home, agent);
    }

    /// FA: a host is here, by the registration with that Identification. Nobody is handed it over by an older one.
    pub fn arrived(&mut self, home: IpAddr, identification: u64) {
        self.foreign.arrived(home, identification);
    }

    /// FA: a host left.
    pub fn deregister(&mut self, home: IpAddr) {
        self.foreign.deregister(home);
    }

    /// FA: whether a relay CSA, by its outer destination and its SPI from the HA, is known here; one of before a restart isn't.
    pub fn holds_relay(&self, destination: IpAddr, spi: u32) -> bool {
        self.foreign.holds(destination, spi)
    }

    /// FA: a relay CSA was taken away from the kernel.
    pub fn forget_relay(&mut self, destination: IpAddr, spi: u32) {
        self.foreign.forget(destination, spi);
    }

    /// FA: a host isn't here that a previous FA may have handed a CSA on for. That goes, unless the HA has given it since.
    pub fn disown(&mut self, home: IpAddr) {
        self.foreign.disown(home, &mut self.out);
    }

    /// FA: tells an HA its neighbours, 32 at most.
    ///
    /// # Errors
    /// [`Refused::Ike`]; [`Refused::Ability`] when the peer knows no zones.
    pub fn notify_neighbours(
        &mut self,
        ike: IkeId,
        mut list: Vec<Neighbour>,
        now: Time,
        host: &mut dyn Host,
    ) -> Result<(), Refused> {
        list.truncate(MAX_GROUPS);
        let data = CsaData::Neighbours(list);
        let exchange = ExchangeType::NEIGHBOR_NOTIFY;
        self.csa_task(ike, exchange, data, CsaPurpose::Neighbours, now, host)
    }

    /// New FA: asks the previous one for a host's CSA (DKM).
    ///
    /// # Errors
    /// [`Refused::Ike`]; [`Refused::Ability`] when the peer knows no zones.
    pub fn request_csa(
        &mut self,
        ike: IkeId,
        ask: Ask,
        now: Time,
        host: &mut dyn Host,
    ) -> Result<(), Refused> {
        let purpose = CsaPurpose::Request(ask.home);
        let exchange = ExchangeType::CSA_REQUEST;
        self.csa_task(ike, exchange, CsaData::Ask(ask), purpose, now, host)
    }

    /// New FA or HA: asks the previous FA for a host's held packets, and SNOOP's state (docs/wire.md 3.1h).
    ///
    /// # Errors
    /// [`Refused::Ike`]; [`Refused::Ability`] when the peer knows no zones.
    pub fn request_handover(
        &mut self,
        ike: IkeId,
        ask: Ask,
        now: Time,
        host: &mut dyn Host,
    ) -> Result<(), Refused> {
        let purpose = CsaPurpose::Handover(ask.home);
        let exchange = ExchangeType::CSA_HANDOVER;
        self.csa_task(ike, exchange, CsaData::Ask(ask), purpose, now, host)
    }

    /// Previous FA: SNOOP's states, [`MAX_STATES`](crate::wire::MAX_STATES) at most, in answer to [`Event::HandoverAsked`].
    pub fn answer_handover(
        &mut self,
        ike: IkeId,
        message_id: u32,
        states: Vec<SnoopState>,
        now: Time,
        host: &mut dyn Host,
    ) {
        self.handovers
            .retain(|(_, of, id)| (*of, *id) != (ike, message_id));
        let payload = Payload::CsaData(CsaData::SnoopStates(states));
        self.with(ike, now, host, |sa, cx| {
            sa.answer(ExchangeType::CSA_HANDOVER, message_id, &[payload], cx);
        });
    }

    /// MH: the token that lets `new_fa` have the CSA from `previous_fa`, for the previous-FA extension of the registration
    /// with that Identification (docs/wire.md §3.2). `None` without such a CSA, or with one that outlived a restart.
    pub fn token(
        &self,
        child: ChildId,
        previous_fa: IpAddr,
        new_fa: IpAddr,
        home: IpAddr,
        identification: u64,
    ) -> Option<Secret> {
        let (prf, k_fa) = self.handover_key(child, previous_fa)?;
        Some(access::token(prf, &k_fa, new_fa, home, identification))
    }

    /// MH: K_FA of the FA with that address under a CSA, and the function that makes tokens with it
    /// (docs/wire.md 3.2h, 3.2i). `None` without such a CSA, or with one that outlived a restart.
    pub fn handover_key(&self, child: ChildId, fa: IpAddr) -> Option<(Hash, Secret)> {
        let mut children = self.sas.values().flat_map(|sa| &sa.children);
        let composite = children.find(|one| one.id == child)?.composite.as_ref()?;
        if composite.k_ho.is_empty() {
            return None;
        }
        let prf = composite.prf;
        let key = crate::crypto::k_fa(prf, &composite.k_ho, fa, composite.generation);
        Some((prf, key))
    }
}
