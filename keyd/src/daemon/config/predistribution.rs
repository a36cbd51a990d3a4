// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `predistribute-…` of `[mobile-ip]`: how CSAs go to many foreign agents at once (docs/wire.md 3.3l).

use super::check::Checker;
use super::file::{self, PredistributeBy, Role};
use super::source::Mistake;
use mml_ike::config as ike;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::ops::Range;
use toml::Spanned;

/// Of the organization-local scope (RFC 2365 §6.2): a site's routers don't let it out.
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 192, 4, 34);
/// Of the ports that nobody can register (RFC 6335 §6).
const PORT: u16 = 49_434;
/// Routers a datagram may pass.
const TTL: u8 = 8;
/// Port 434 is Mobile IP's registrations'.
const MOBILE_IP_PORT: u16 = 434;

/// How CSAs go to many foreign agents at once, and come from a home agent that sends them so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Predistribution {
    /// This node's own address and port: what a home agent sends from, and where a foreign agent takes copies.
    pub own: SocketAddrV4,
    /// The multicast address; none where copies go to each.
    pub group: Option<Ipv4Addr>,
    /// Routers a datagram may pass.
    pub ttl: u8,
    /// The interface it leaves or comes by; what routes say without.
    pub interface: Option<String>,
    /// Whether this node sends, or listens.
    pub sends: bool,
}

impl Predistribution {
    /// Where datagrams to the group go.
    pub fn group(&self) -> Option<SocketAddrV4> {
        let group = self.group?;
        Some(SocketAddrV4::new(group, self.own.port()))
    }

    /// Tells the protocol of it.
    pub(super) fn tell(&self, protocol: &mut ike::Config) {
        if !self.sends {
            protocol.foreign.multicast = Some(self.own.port());
            return;
        }
        let to = match self.group() {
            Some(group) => ike::Delivery::Group(group.into()),
            None => ike::Delivery::Copies(self.own.port()),
        };
        protocol.home.multicast = Some(ike::Multicast {
            from: SocketAddr::V4(self.own),
            to,
        });
    }
}

impl Checker<'_> {
    pub(super) fn predistribution(
        &self,
        table: &Spanned<file::MobileIp>,
    ) -> Result<Option<Predistribution>, Mistake> {
        let t = table.get_ref();
        let by = t.predistribute_by.as_ref().map(|by| *by.get_ref());
        let by = by.unwrap_or_default();
        let mistake = |place: &Range<usize>, what: &str| self.source.mistake(place, what);
        let of_multicast = [
            ("group", t.predistribute_group.as_ref().map(Spanned::span)),
            ("ttl", t.predistribute_ttl.as_ref().map(Spanned::span)),
            (
                "interface",
                t.predistribute_interface.as_ref().map(Spanned::span),
            ),
        ];
        for (key, place) in of_multicast {
            if let Some(place) = place.filter(|_| by != PredistributeBy::Multicast) {
                let what = format!("predistribute-{key}: of use with `predistribute-by = \"multicast\"` alone; remove it, or write that");
                return Err(mistake(&place, &what));
            }
        }
        if by == PredistributeBy::Sequence {
            return match &t.predistribute_port {
                Some(port) => Err(self.at(
                    port,
                    "predistribute-port: of no use where CSAs are given one by one; remove it, or set `predistribute-by`",
                )),
                None => Ok(None),
            };
        }
        let sends = self.file.node.role == Role::Ha;
        if let Some(said) = t
            .predistribute
            .as_ref()
            .filter(|said| sends && !*said.get_ref())
        {
            return Err(self.at(
                said,
                "predistribute: nothing is given beforehand, so that it makes no difference how; remove `predistribute-by`",
            ));
        }
        let group = t.predistribute_group.as_ref();
        let link_scope = |group: &Ipv4Addr| group.octets()[..3] == [224, 0, 0];
        if let Some(wrong) =
            group.filter(|group| !group.get_ref().is_multicast() || link_scope(group.get_ref()))
        {
            return Err(self.at(
                wrong,
                "predistribute-group: no multicast address that routers forward; write one of your site's own, 239.192.0.0 to 239.255.255.255",
            ));
        }
        if let Some(wrong) = t
            .predistribute_ttl
            .as_ref()
            .filter(|ttl| *ttl.get_ref() == 0)
        {
            return Err(self.at(
                wrong,
                "predistribute-ttl: with 0 nothing leaves this node; write how many routers there are at most",
            ));
        }
        let node = &self.file.node;
        let port = t.predistribute_port.as_ref();
        let taken = [0, MOBILE_IP_PORT, node.port, node.nat_port];
        if let Some(wrong) = port.filter(|port| taken.contains(port.get_ref())) {
            return Err(self.at(
                wrong,
                "predistribute-port: none, or IKE's or Mobile IP's own; write another, the same at home agent and foreign agents",
            ));
        }
        let port = port.map_or(PORT, |port| *port.get_ref());
        Ok(Some(Predistribution {
            own: SocketAddrV4::new(self.mobile_address(table)?, port),
            group: (by == PredistributeBy::Multicast)
                .then(|| group.map_or(GROUP, |group| *group.get_ref())),
            ttl: t
                .predistribute_ttl
                .as_ref()
                .map_or(TTL, |ttl| *ttl.get_ref()),
            interface: t
                .predistribute_interface
                .as_ref()
                .map(|name| name.get_ref().clone()),
            sends,
        }))
    }
}
