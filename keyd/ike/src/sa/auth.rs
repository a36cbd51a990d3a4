// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! IKE_AUTH (RFC 7296 §1.2, §2.15), childless too (RFC 6023), and the inner address (§2.19).

use super::certificates::{certificates, certs, own_certificate, requests};
use super::child_answer::Asked;
use super::exchange::{ChildRequest, Cx, Effect, Find, Pending, Refusal, Reply};
use super::{IkeSa, State};
use crate::auth::{AuthError, IdMatch, SignedOctets, Trust};
use crate::config::Connection;
use crate::event::{ChildFailure, Down, Event};
use crate::negotiate::IkeSuite;
use crate::pool::Inner;
use crate::wire::{
    Auth, AuthMethod, CfgAttribute, CfgType, Configuration, ExchangeType, Header, Id, NotifyType,
    Payload,
};
use pfkey::Family;
use std::net::IpAddr;

/// The most requests at once that are taken from a peer's SET_WINDOW_SIZE, and announced (docs/wire.md 3.2t).
const MAX_WINDOW: u32 = 64;

fn auth(payloads: &[Payload]) -> Option<&Auth> {
    payloads.iter().find_map(|payload| match payload {
        Payload::Auth(auth) => Some(auth),
        _ => None,
    })
}

fn identity(payloads: &[Payload], initiator: bool) -> Option<&Id> {
    payloads.iter().find_map(|payload| match payload {
        Payload::IdInitiator(id) if initiator => Some(id),
        Payload::IdResponder(id) if !initiator => Some(id),
        _ => None,
    })
}

impl IkeSa {
    fn int_auth(&self, message_id: u32) -> Vec<u8> {
        match &self.setup {
            Some(setup) if !setup.int_auth.0.is_empty() => [
                setup.int_auth.0.expose(),
                setup.int_auth.1.expose(),
                &message_id.to_be_bytes(),
            ]
            .concat(),
            _ => Vec::new(),
        }
    }

    /// Proves this side (`proving`), or checks the other.
    fn with_signed<T>(
        &self,
        of_initiator: bool,
        id: &Id,
        message_id: u32,
        then: impl FnOnce(&SignedOctets<'_>, crate::crypto::Hash) -> Result<T, AuthError>,
    ) -> Result<T, AuthError> {
        let (Some(setup), Some(protection), Some(suite)) =
            (&self.setup, &self.protection, &self.suite)
        else {
            return Err(AuthError::Method);
        };
        let intermediate = self.int_auth(message_id);
        let signed = SignedOctets {
            message: if of_initiator {
                &setup.request
            } else {
                &setup.response
            },
            nonce: if of_initiator { &self.nr } else { &self.ni },
            sk_p: if of_initiator {
                &protection.keys.pi
            } else {
                &protection.keys.pr
            },
            id,
            intermediate: &intermediate,
        };
        then(&signed, suite.prf)
    }

    pub(super) fn start_auth(&mut self, cx: &mut Cx<'_>) {
        let Some(connection) = self.connection(cx.config) else {
            return;
        };
        if connection.child.is_none() && !self.traits.childless {
            return self.fall(
                Down::Protocol("the peer takes no IKE SA without a child"),
                cx,
            );
        }
        let zones = connection
            .child
            .as_ref()
            .and_then(|child| child.zones.as_ref());
        if zones.is_some_and(|zones| zones.required) && !self.knows_zones(cx) {
            return self.fall(Down::NoZones, cx);
        }
        let mut payloads = vec![Payload::IdInitiator(connection.local_id.clone())];
        payloads.extend(certificates(&connection.credential));
        payloads.extend(requests(std::iter::once(&connection.trust)));
        let expected = match &connection.remote_id {
            IdMatch::Exactly(id) => Some(id.clone()),
            _ => self.expected.clone(),
        };
        payloads.extend(expected.clone().map(Payload::IdResponder));
        let proof = self.with_signed(
            true,
            &connection.local_id,
            self.outbox.next_id,
            |signed, prf| {
                let hashes = &self.traits.hashes;
                signed.prove(prf, &connection.credential, hashes, cx.host)
            },
        );
        match proof {
            Ok(auth) => payloads.push(Payload::Auth(auth)),
            Err(why) => return self.fall(Down::Authentication(why), cx),
        }
        if connection.initial_contact {
            payloads.push(Payload::notify(NotifyType::INITIAL_CONTACT, []));
        }
        if let Some(family) = connection.request_address {
            let had = self.connection.and_then(|index| cx.leases.had(index));
            payloads.push(Payload::Configuration(Configuration {
                kind: CfgType::REQUEST,
                attributes: vec![asked_address(family, had)],
            }));
        }
        if let (Some(index), Some(peer)) = (self.connection, &expected) {
            // Nobody asks for an address here; the peer may have one of before.
            let again = cx.leases.again(index, peer, self.id);
            self.inner = again.map(Inner::Peers).or(self.inner);
        }
        payloads.extend(self.offers(connection, cx));
        // Whoever has no address yet has to ask for one.
        let has_packets = connection.pool.is_empty() || self.inner.is_some();
        let child = if connection.child.is_some() && has_packets {
            match self.child_request(None, None, false, cx) {
                Some((request, child)) => {
                    payloads.extend(child);
                    Some(Box::new(request))
                }
                None => return self.fall(Down::Protocol("the kernel has no SPI"), cx),
            }
        } else {
            None
        };
        self.ask(ExchangeType::IKE_AUTH, &payloads, Pending::Auth(child), cx);
    }

    /// MOBIKE and the window, as both IKE_AUTH messages say them.
    fn offers(&self, connection: &Connection, cx: &Cx<'_>) -> Vec<Payload> {
        let mut payloads = Vec::new();
        if connection.mobike {
            payloads.push(Payload::notify(NotifyType::MOBIKE_SUPPORTED, []));
        }
        if connection.window > 1 && self.knows_zones(cx) {
            let window = connection.window.min(MAX_WINDOW).to_be_bytes();
            payloads.push(Payload::notify(NotifyType::SET_WINDOW_SIZE, window));
        }
        payloads
    }

    fn take_offers(&mut self, payloads: &[Payload], cx: &Cx<'_>) {
        let Some(connection) = self.connection(cx.config) else {
            return;
        };
        let (mobike, window) = (connection.mobike, connection.window);
        self.traits.mobike = mobike && payloads.notify(NotifyType::MOBIKE_SUPPORTED).is_some();
        let announced = payloads
            .notify(NotifyType::SET_WINDOW_SIZE)
            .and_then(|n| <[u8; 4]>::try_from(n.data.as_slice()).ok());
        if let Some(announced) = announced {
            self.outbox.window = u32::from_be_bytes(announced).clamp(1, MAX_WINDOW);
        }
        if self.knows_zones(cx) {
            self.inbox.window = window.clamp(1, MAX_WINDOW);
        }
    }

    /// Both sides have proved who they are.
    fn up(&mut self, peer: Id, certificate: Option<Vec<u8>>, cx: &mut Cx<'_>) {
        self.state = State::Up;
        self.setup = None;
        self.peer = Some(peer.clone());
        self.certificate = certificate;
        self.announced = true;
        self.schedule_rekey(cx);
        cx.event(Event::IkeUp {
            ike: self.id,
            connection: self.connection.unwrap_or_default(),
            peer,
            zones: self.knows_zones(cx),
            local: self.path.local,
            remote: self.path.remote,
        });
        cx.effects.push_back(Effect::Up(self.id));
    }

    pub(super) fn auth_response(
        &mut self,
        child: Option<Box<ChildRequest>>,
        payloads: &[Payload],
        cx: &mut Cx<'_>,
    ) {
        let message_id = self.outbox.next_id - 1;
        let (Some(auth), Some(id)) = (auth(payloads), identity(payloads, false)) else {
            let why = payloads.error().map_or(
                Down::Protocol("the peer's IKE_AUTH has no AUTH"),
                Down::Refused,
            );
            return self.fall(why, cx);
        };
        let Some(connection) = self.connection(cx.config) else {
            return;
        };
        let certs = certs(payloads);
        let expected = self.expected.as_ref().is_none_or(|one| one == id);
        let checked = if connection.remote_id.matches(id) && expected {
            self.with_signed(false, id, message_id, |signed, prf| {
                signed.check(prf, &connection.trust, auth, &certs, cx.unix)
            })
        } else {
            Err(AuthError::Name)
        };
        if let Err(why) = checked {
            // The peer thinks it is up; it is told, and not waited for (§2.21.2).
            let header = self.header(ExchangeType::INFORMATIONAL, false, self.outbox.next_id);
            let notify = Payload::notify(NotifyType::AUTHENTICATION_FAILED, []);
            if let Ok(datagrams) = self.seal(&header, &[notify], cx) {
                self.transmit(datagrams, cx);
            }
            cx.event(Event::AuthenticationFailed {
                remote: self.path.remote,
                peer: id.clone(),
                why,
            });
            return self.fall(Down::Authentication(why), cx);
        }
        let certificate = own_certificate(&connection.trust, &certs);
        let id = id.clone();
        self.take_offers(payloads, cx);
        self.up(id, certificate, cx);
        self.take_configuration(payloads, cx);
        if let Some(request) = child {
            match payloads.error() {
                Some(refused) => cx.event(Event::ChildFailed {
                    ike: self.id,
                    spi_in: Some(request.spi_in),
                    why: ChildFailure::Refused(refused),
                }),
                None => self.finish_child(request, payloads, false, cx),
            }
        }
    }

    fn take_configuration(&mut self, payloads: &[Payload], cx: &mut Cx<'_>) {
        let Some(cp) = payloads.cp().filter(|cp| cp.kind == CfgType::REPLY) else {
            return;
        };
        let addresses: Vec<IpAddr> = cp.attributes.iter().filter_map(inner_address).collect();
        let wanted = self
            .connection(cx.config)
            .and_then(|one| one.request_address);
        let fits = |address: &&IpAddr| address.is_ipv4() == (wanted == Some(Family::V4));
        // Who asked for none takes none.
        if let (Some(address), Some(index), Some(_)) =
            (addresses.iter().find(fits), self.connection, wanted)
        {
            self.inner = Some(Inner::Own(*address));
            cx.leases.taken(index, *address);
            cx.event(Event::InnerAddress {
                ike: self.id,
                address: *address,
            });
        }
    }

    pub(super) fn answer_auth(
        &mut self,
        header: &Header,
        payloads: &[Payload],
        cx: &mut Cx<'_>,
    ) -> Reply {
        let failed = |why| {
            Reply::Last(
                vec![Payload::notify(NotifyType::AUTHENTICATION_FAILED, [])],
                Down::Authentication(why),
            )
        };
        // The additional key exchanges come first, all of them.
        let pending = self.setup.as_ref().is_none_or(|s| !s.additional.is_empty());
        let Some(id) = identity(payloads, true).filter(|_| !pending) else {
            return Reply::Last(
                vec![Payload::notify(NotifyType::INVALID_SYNTAX, [])],
                Down::Protocol("the peer's IKE_AUTH names nobody, or comes too early"),
            );
        };
        let certs = certs(payloads);
        let checked = auth(payloads).ok_or(AuthError::Method).and_then(|auth| {
            let index = self.choose_connection(id, identity(payloads, false), auth, cx)?;
            let connection = cx.config.connections.get(index).ok_or(AuthError::Unknown)?;
            self.with_signed(true, id, header.message_id, |signed, prf| {
                signed.check(prf, &connection.trust, auth, &certs, cx.unix)
            })?;
            Ok((index, connection))
        });
        let (index, connection) = match checked {
            Ok(found) => found,
            Err(why) => {
                cx.event(Event::AuthenticationFailed {
                    remote: self.path.remote,
                    peer: id.clone(),
                    why,
                });
                return failed(why);
            }
        };
        let proof = self.with_signed(
            false,
            &connection.local_id,
            header.message_id,
            |signed, prf| {
                let hashes = &self.traits.hashes;
                signed.prove(prf, &connection.credential, hashes, cx.host)
            },
        );
        let proof = match proof {
            Ok(proof) => proof,
            Err(why) => return failed(why),
        };
        self.connection = Some(index);
        let mut answer = vec![Payload::IdResponder(connection.local_id.clone())];
        answer.extend(certificates(&connection.credential));
        answer.push(Payload::Auth(proof));
        self.take_offers(payloads, cx);
        answer.extend(self.offers(connection, cx));
        let certificate = own_certificate(&connection.trust, &certs);
        self.up(id.clone(), certificate, cx);
        if payloads.notify(NotifyType::INITIAL_CONTACT).is_some() {
            cx.effects
                .push_back(Effect::InitialContact(self.id, id.clone()));
        }
        if payloads.sa().is_none() {
            return Reply::Now(answer);
        }
        let child = self
            .give_address(connection, payloads, id, cx)
            .and_then(|cp| {
                answer.extend(cp);
                let asked = Asked {
                    payloads,
                    exchange: false,
                    rekeys: None,
                };
                self.answer_child(&asked, cx)
            });
        match child {
            Ok((payloads, draft, shared)) => {
                answer.extend(payloads);
                // The keys of IKE_AUTH's child come from the IKE SA's own nonces.
                self.raise_child(*draft, &shared, header, cx);
            }
            Err(refusal) => answer.push(refusal.payload()),
        }
        Reply::Now(answer)
    }

    /// The first connection that takes this identity, proved this way, with the suite there is.
    fn choose_connection(
        &self,
        id: &Id,
        idr: Option<&Id>,
        auth: &Auth,
        cx: &Cx<'_>,
    ) -> Result<usize, AuthError> {
        let takes = |c: &Connection| {
            c.remote
                .is_none_or(|remote| remote == self.path.remote.ip())
                && c.remote_id.matches(id)
                && idr.is_none_or(|idr| *idr == c.local_id)
                && self.suite.as_ref().is_some_and(|suite| has_suite(c, suite))
        };
        let psk = auth.method == AuthMethod::SHARED_KEY_MIC;
        let proved = |c: &Connection| psk == matches!(c.trust, Trust::Psk(_));
        let all = &cx.config.connections;
        if !all.iter().any(takes) {
            return Err(AuthError::Unknown);
        }
        all.iter()
            .enumerate()
            .filter(|(_, c)| takes(c) && proved(c))
            .min_by_key(|(_, c)| c.rank)
            .map(|(index, _)| index)
            .ok_or(AuthError::Method)
    }

    /// An inner address, if one is asked for and there is a pool: the one the peer had, or a free one (§2.19).
    fn give_address(
        &mut self,
        connection: &Connection,
        payloads: &[Payload],
        id: &Id,
        cx: &mut Cx<'_>,
    ) -> Result<Option<Payload>, Refusal> {
        let Some(index) = self.connection else {
            return Ok(None);
        };
        if connection.request_address.is_some() {
            // Who asks for addresses has what it was given before, if the other side begins.
            self.inner = cx.leases.had(index).map(Inner::Own);
        }
        if connection.pool.is_empty() {
            return Ok(None);
        }
        // Without an address of its own it would have those of all others (§2.19).
        let asked = payloads
            .cp()
            .filter(|cp| cp.kind == CfgType::REQUEST)
            .ok_or(Refusal::from(NotifyType::FAILED_CP_REQUIRED))?;
        let had = asked.attributes.iter().find_map(inner_address);
        let address = cx
            .leases
            .give((index, &connection.pool), id, had, self.id, cx.now)
            .ok_or(Refusal::from(NotifyType::INTERNAL_ADDRESS_FAILURE))?;
        self.inner = Some(Inner::Peers(address));
        Ok(Some(Payload::Configuration(Configuration {
            kind: CfgType::REPLY,
            attributes: vec![address_attribute(address)],
        })))
    }
}

/// An address as an attribute holds it; an IPv6 one comes with its prefix length (§3.15.1).
fn address_attribute(address: IpAddr) -> (CfgAttribute, Vec<u8>) {
    match address {
        IpAddr::V4(a) => (CfgAttribute::INTERNAL_IP4_ADDRESS, a.octets().to_vec()),
        IpAddr::V6(a) => (
            CfgAttribute::INTERNAL_IP6_ADDRESS,
            [&a.octets()[..], &[128]].concat(),
        ),
    }
}

/// A request for an address: the one had before, or any.
fn asked_address(family: Family, had: Option<IpAddr>) -> (CfgAttribute, Vec<u8>) {
    let had = had.filter(|had| had.is_ipv4() == (family == Family::V4));
    match (had, family) {
        (Some(had), _) => address_attribute(had),
        (None, Family::V4) => (CfgAttribute::INTERNAL_IP4_ADDRESS, Vec::new()),
        (None, Family::V6) => (CfgAttribute::INTERNAL_IP6_ADDRESS, Vec::new()),
    }
}

fn inner_address((attribute, value): &(CfgAttribute, Vec<u8>)) -> Option<IpAddr> {
    match *attribute {
        CfgAttribute::INTERNAL_IP4_ADDRESS => {
            <[u8; 4]>::try_from(value.as_slice()).ok().map(IpAddr::from)
        }
        CfgAttribute::INTERNAL_IP6_ADDRESS => value
            .first_chunk::<16>()
            .map(|octets| IpAddr::from(*octets)),
        _ => None,
    }
}

/// Whether the connection offers the suite that was chosen before it was known whose it is.
fn has_suite(connection: &Connection, suite: &IkeSuite) -> bool {
    connection.ike.iter().any(|one| {
        // An additional exchange may be left out only if the connection has none.
        one.ciphers.contains(&suite.cipher)
            && one.prfs.contains(&suite.prf)
            && one.methods.contains(&suite.method)
            && one.additional.len() == suite.additional.len()
            && one
                .additional
                .iter()
                .zip(&suite.additional)
                .all(|(methods, method)| methods.contains(method))
    })
}
