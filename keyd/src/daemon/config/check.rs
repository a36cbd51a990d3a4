// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! From tables to a configuration: what fits together, and what the protocol is told.

use super::file::{self, End, File};
use super::source::{Mistake, Source};
use super::value::{IkeSuite, ZoneCipher};
use super::{credential, parts, Config, Connection, Relays, Role, Start, Tunnel, Zones};
use crate::address::{bits, selector, Prefix};
use crate::daemon::kernel::xfrm_message::has_masks;
use crate::ports::{with_ports, Ports};
use mml_ike::auth::IdMatch;
use mml_ike::config as ike;
use mml_ike::crypto::{Cipher, Method};
use mml_ike::pool::Pool;
use mml_ike::wire::{Encr, TrafficSelector, ZoneTransform};
use pfkey::{Mode, Selector, ZoneMap, WINDOW_DEFAULT, WINDOW_MAX, WINDOW_MIN};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;
use toml::Spanned;

/// Connections a file may have.
const MAX_CONNECTIONS: usize = 65_536;
const IKE_REKEY: Duration = Duration::from_secs(8 * 3600);
const CHILD_REKEY: Duration = Duration::from_secs(50 * 60);
const CHILD_LIFETIME: Duration = Duration::from_secs(3600);
/// How often a message may be sent again.
const TRIES: std::ops::RangeInclusive<u32> = 1..=20;
const LIVENESS: Duration = Duration::from_secs(30);
/// Requests on their way at once between agents (docs/wire.md 3.2t).
const AGENTS_WINDOW: u32 = 64;

pub(super) fn config(source: &Source<'_>, folder: &Path) -> Result<Config, Mistake> {
    let file: File = toml::from_str(source.text).map_err(|error| source.unreadable(&error))?;
    let addresses = file.node.addresses.get_ref();
    if addresses.is_empty()
        || addresses
            .iter()
            .any(|a| a.is_unspecified() || a.is_multicast())
    {
        return Err(source.mistake(
            &file.node.addresses.span(),
            "addresses: not addresses of this node; list at least one, each whole and its own",
        ));
    }
    if file.connection.len() > MAX_CONNECTIONS {
        return Err(source.mistake(&(0..0), "connection: more than 65536 of them"));
    }
    let listen = file.metrics.as_ref().map(|metrics| &metrics.listen);
    if let Some(listen) = listen.filter(|listen| !listen.get_ref().ip().is_loopback()) {
        return Err(source.mistake(
            &listen.span(),
            "listen: metrics are for this machine alone; write a loopback address, for instance `127.0.0.1:9466`",
        ));
    }
    let mut retransmission = ike::Retransmission::default();
    if let Some(tries) = &file.node.tries {
        if !TRIES.contains(tries.get_ref()) {
            return Err(source.mistake(
                &tries.span(),
                "tries: how often a message is sent again, from 1 to 20 (8 is about a minute)",
            ));
        }
        retransmission.tries = *tries.get_ref();
    }
    let checker = Checker {
        source,
        folder,
        file: &file,
    };
    let (mut connections, mut protocol) = (Vec::new(), Vec::new());
    for table in &file.connection {
        if connections
            .iter()
            .any(|one: &Connection| one.name == *table.name.get_ref())
        {
            return Err(checker.at(
                &table.name,
                "name: there is a connection of this name already",
            ));
        }
        let (connection, one) = checker.connection(table)?;
        connections.push(connection);
        protocol.push(ike::Connection {
            rank: protocol.len(),
            ..one
        });
    }
    let mobile_ip = checker.mobile_ip()?;
    let mut ike = ike::Config {
        connections: protocol,
        home: checker.home()?,
        foreign: checker.foreign()?,
        retransmission,
        ..ike::Config::default()
    };
    if let Some(one) = &mobile_ip {
        ike.home.renewal = one.renewal;
    }
    let predistribution = mobile_ip
        .as_ref()
        .and_then(|one| one.predistribution.as_ref());
    if let Some(predistribution) = predistribution {
        predistribution.tell(&mut ike);
    }
    let snoop = checker.snoop()?;
    let hosts = file.home_agent.iter().flat_map(|agent| {
        let agent = agent.get_ref();
        let id = &agent.identity.get_ref().0;
        agent.hosts.iter().map(|host| (*host, id.clone()))
    });
    Ok(Config {
        role: file.node.role,
        alarm_after: file.node.alarm_after.0,
        identity: file.node.identity.0.clone(),
        addresses: addresses.clone(),
        port: file.node.port,
        nat_port: file.node.nat_port,
        control: file.control.socket.clone(),
        control_group: file.control.group,
        metrics: listen.map(|listen| *listen.get_ref()),
        level: file.log.level,
        log_format: file.log.format,
        snoop,
        registered: hosts.collect(),
        mobile_ip,
        device: checker.device()?,
        parts: parts::parts(source, folder, &connections)?,
        connections,
        ike,
    })
}

/// A file that is being checked.
pub(super) struct Checker<'a> {
    pub(super) source: &'a Source<'a>,
    pub(super) folder: &'a Path,
    pub(super) file: &'a File,
}

impl Checker<'_> {
    pub(super) fn at<T>(&self, place: &Spanned<T>, what: impl std::fmt::Display) -> Mistake {
        self.source.mistake(&place.span(), what)
    }

    fn connection(
        &self,
        table: &file::Connection,
    ) -> Result<(Connection, ike::Connection), Mistake> {
        let name = table.name.get_ref();
        let sound = (1..=64).contains(&name.len())
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            && !name.starts_with("0x")
            && name.parse::<u32>().is_err();
        if !sound {
            return Err(self.at(
                &table.name,
                "name: not a name; 1 to 64 letters, digits, `-`, `_` and `.`, and no number",
            ));
        }
        let local = self.local(table)?;
        let tunnel = table.tunnel.as_ref();
        let default = if table.remote.is_some() {
            Start::Now
        } else {
            Start::Peer
        };
        let start = table
            .start
            .as_ref()
            .map_or(default, |start| *start.get_ref());
        if let (Some(start), None, true) = (&table.start, table.remote, start != Start::Peer) {
            return Err(self.at(
                start,
                "start: nobody to begin with; give `remote`, or write `peer`",
            ));
        }
        if let (Some(start), None, Start::Demand) = (&table.start, tunnel, start) {
            return Err(self.at(
                start,
                "start: no packet wants a connection without a tunnel; write `now` or `peer`",
            ));
        }
        let (credential, trust) = credential::read(self.source, self.folder, table)?;
        if matches!(table.remote_identity.get_ref().0, IdMatch::Any)
            && matches!(table.auth.get_ref(), file::Auth::Psk | file::Auth::Key)
        {
            return Err(self.at(
                &table.remote_identity,
                "remote-identity: `*` lets a peer of one secret or key call itself anything; name it",
            ));
        }
        let pair = tunnel
            .map(|tunnel| self.tunnel(tunnel, (local, table)))
            .transpose()?;
        let (tunnel, child) = pair.unzip();
        let (request_address, pool) = match (&table.tunnel, &tunnel) {
            (Some(t), Some(tunnel)) => {
                let family = tunnel.selector.family;
                self.inner_addresses(t.get_ref(), tunnel.mode, start, family)?
            }
            _ => (None, Pool::default()),
        };
        let protocol = ike::Connection {
            local_id: table
                .identity
                .as_ref()
                .unwrap_or(&self.file.node.identity)
                .0
                .clone(),
            remote_id: table.remote_identity.get_ref().0.clone(),
            remote: table.remote,
            credential,
            trust,
            ike: suites(&table.ike),
            window: if child.is_none() { AGENTS_WINDOW } else { 1 },
            child,
            mobike: table.mobike,
            // Between agents no CSA hangs on the IKE SA, so that one of before a restart is of no use to anyone.
            initial_contact: table.initial_contact || tunnel.is_none(),
            liveness: Some(table.liveness.map_or(LIVENESS, |age| age.0)),
            rekey: Some(table.rekey.map_or(IKE_REKEY, |age| age.0)),
            request_address,
            pool,
            rank: 0,
        };
        let connection = Connection {
            name: name.clone(),
            local,
            remote: table.remote,
            start,
            tunnel,
            closed: false,
        };
        Ok((connection, protocol))
    }

    /// The address a connection is spoken from: its own, or the node's first of the peer's family.
    fn local(&self, table: &file::Connection) -> Result<IpAddr, Mistake> {
        let own = self.file.node.addresses.get_ref();
        if let Some(local) = &table.local {
            if !own.contains(local.get_ref()) {
                return Err(self.at(
                    local,
                    "local: not one of the node's `addresses`; add it there",
                ));
            }
            if table
                .remote
                .is_some_and(|remote| remote.is_ipv4() != local.get_ref().is_ipv4())
            {
                return Err(self.at(local, "local: of another family than `remote`"));
            }
            return Ok(*local.get_ref());
        }
        let fits = |a: &&IpAddr| {
            table
                .remote
                .is_none_or(|remote| remote.is_ipv4() == a.is_ipv4())
        };
        own.iter().find(fits).copied().ok_or_else(|| {
            self.at(
                &table.name,
                "remote: none of the node's `addresses` is of its family",
            )
        })
    }

    /// What a tunnel's two sides are: prefixes inside, or in transport mode the two peers.
    fn sides(
        &self,
        table: &Spanned<file::Tunnel>,
        (own, connection): (IpAddr, &file::Connection),
    ) -> Result<(Mode, Prefix, Prefix), Mistake> {
        let t = table.get_ref();
        let Some(mode) = t
            .mode
            .as_ref()
            .filter(|mode| *mode.get_ref() == file::Mode::Transport)
        else {
            return Ok((Mode::Tunnel, t.local, t.remote));
        };
        let Some(peer) = connection.remote else {
            return Err(self.at(
                mode,
                "mode: transport mode is between two addresses; give the connection's `remote`",
            ));
        };
        if connection.mobike {
            return Err(self.at(
                mode,
                "mode: transport mode's addresses are its packets' own and can't move; remove `mobike`, or write `tunnel`",
            ));
        }
        if t.may_write || t.relay.is_some() || !t.standby.is_empty() {
            return Err(self.at(
                mode,
                "mode: transport mode has no relays; remove `relay`, `standby` and `may-write`, or write `tunnel`",
            ));
        }
        let (local, remote) = (Prefix::new(own, bits(own)), Prefix::new(peer, bits(peer)));
        let is_own = |given: Prefix, own| given == Prefix::ANY || given == own;
        if !is_own(t.local, local) || !is_own(t.remote, remote) {
            return Err(self.at(
                mode,
                format!("mode: transport mode is between the peers' own addresses; write {local} and {remote}, or leave `local` and `remote` away"),
            ));
        }
        Ok((Mode::Transport, local, remote))
    }

    fn tunnel(
        &self,
        table: &Spanned<file::Tunnel>,
        between: (IpAddr, &file::Connection),
    ) -> Result<(Tunnel, ike::ChildConfig), Mistake> {
        let t = table.get_ref();
        let (mode, local, remote) = self.sides(table, between)?;
        let packets: Selector = selector(local, remote, t.protocol).ok_or_else(|| {
            self.at(
                table,
                "tunnel: local and remote are of two families; both must be IPv4 or both IPv6",
            )
        })?;
        let packets = with_ports(packets, t.local_port, t.remote_port)
            .map_err(|why| self.at(table, format!("local-port, remote-port: {why}")))?;
        if t.zones != Zones::Required && !has_masks(&packets) {
            return Err(self.at(
                table,
                "local-port, remote-port: plain IPsec has no such range; take one port, or 2^n of them from a multiple of 2^n on, or write `zones = \"required\"`",
            ));
        }
        let lifetime = t.lifetime.map_or(CHILD_LIFETIME, |age| age.0);
        let rekey = match &t.rekey {
            Some(rekey) if rekey.get_ref().0 >= lifetime => {
                return Err(self.at(
                    rekey,
                    "rekey: not before `lifetime`, so it would never come; make it shorter",
                ));
            }
            Some(rekey) => rekey.get_ref().0,
            None => CHILD_REKEY.min(lifetime.mul_f64(0.8)),
        };
        let soft_bytes = t.soft_bytes.as_ref().map_or(0, |bytes| *bytes.get_ref());
        if let Some(soft) = t
            .soft_bytes
            .as_ref()
            .filter(|_| t.hard_bytes != 0 && soft_bytes > t.hard_bytes)
        {
            return Err(self.at(
                soft,
                "soft-bytes: behind `hard-bytes`, so it would never come; make it less",
            ));
        }
        let side = |prefix, ports| traffic(prefix, ports, &packets);
        let child = ike::ChildConfig {
            local_ts: vec![side(local, t.local_port)],
            remote_ts: vec![side(remote, t.remote_port)],
            mode,
            ciphers: match t.esp.as_slice() {
                [] => vec![
                    Cipher::Aes256Gcm,
                    Cipher::Aes128Gcm,
                    Cipher::ChaCha20Poly1305,
                ],
                list => list.iter().map(|one| one.0).collect(),
            },
            methods: vec![Method::X25519, Method::P256],
            additional: Vec::new(),
            zones: self.zones(table, mode)?,
            rekey: Some(rekey),
            lifetime,
        };
        let tunnel = Tunnel {
            selector: packets,
            mode,
            zones: t.zones,
            protect: t.protect,
            priority: t.priority,
            lifetime,
            rekey,
            soft_bytes,
            hard_bytes: t.hard_bytes,
            relays: self.relays(table)?,
            request_address: t
                .request_address
                .as_ref()
                .is_some_and(|asks| *asks.get_ref()),
            pool: !t.pool.is_empty(),
        };
        Ok((tunnel, child))
    }

    fn zones(
        &self,
        table: &Spanned<file::Tunnel>,
        mode: Mode,
    ) -> Result<Option<ike::ZonePolicy>, Mistake> {
        let t = table.get_ref();
        if t.zones == Zones::Off {
            return Ok(None);
        }
        let role = match (t.end, self.file.node.role) {
            (Some(End::Home), _) | (None, Role::Ha | Role::Gateway) => ike::ZoneRole::Home,
            (Some(End::Mobile), _) | (None, Role::Mh | Role::Host) => ike::ZoneRole::Mobile,
            (None, Role::Fa) => {
                return Err(self.at(
                    table,
                    "tunnel: a foreign agent is no end of a CSA; write `zones = \"off\"`, or say which `end` it is",
                ));
            }
        };
        let window = t
            .window
            .as_ref()
            .map_or(WINDOW_DEFAULT, |window| *window.get_ref());
        if let Some(wrong) = t
            .window
            .as_ref()
            .filter(|_| !(WINDOW_MIN..=WINDOW_MAX).contains(&window))
        {
            return Err(self.at(wrong, "window: not from 64 to 65536 packets"));
        }
        let stop = t
            .map
            .as_ref()
            .map_or(pfkey::TRANSPORT_END, |map| map.get_ref().0);
        let map = ZoneMap::new(mode, &[stop, pfkey::END]);
        let map = map.filter(|_| stop == pfkey::TRANSPORT_END || stop != 0 && stop % 2 == 0);
        let place = t.map.as_ref().map_or(table.span(), Spanned::span);
        let map = map.ok_or_else(|| {
            self.source.mistake(
                &place,
                "map: zone 1 stops at `transport-end` or at an even octet from 2 to 256",
            )
        })?;
        let list = |list: &[ZoneCipher]| match list {
            [] => default_transforms(t.may_write),
            list => list.iter().map(|one| one.0).collect(),
        };
        Ok(Some(ike::ZonePolicy {
            required: t.zones == Zones::Required,
            map,
            transforms: vec![list(&t.zone1), list(&t.zone2)],
            replay_window: window,
            may_write: t.may_write,
            role,
        }))
    }

    /// HA: where the host of a tunnel is.
    fn relays(&self, table: &Spanned<file::Tunnel>) -> Result<Option<Relays>, Mistake> {
        let t = table.get_ref();
        let first = t.relay.iter().chain(&t.standby).next();
        let Some(first) = first else { return Ok(None) };
        if self.file.node.role != Role::Ha {
            return Err(self.at(
                first,
                "relay: only a home agent (`role = \"ha\"`) gives CSAs to foreign agents",
            ));
        }
        let home = t
            .remote
            .range()
            .filter(|(address, len)| *len == bits(*address));
        let Some((home, _)) = home else {
            return Err(self.at(first, "relay: `remote` must be the host's one home address"));
        };
        let moves = |host: &Spanned<file::MobilePeer>| {
            IpAddr::V4(*host.get_ref().address.get_ref()) == home
        };
        let mobile = self.file.mobile_ip.as_ref();
        if mobile.is_some_and(|mobile| mobile.get_ref().host.iter().any(moves)) {
            return Err(self.at(
                first,
                "relay: Mobile IP says where this host is, for it is a [[mobile-ip.host]]; remove the key",
            ));
        }
        let address = |name: &Spanned<String>| {
            let agents = &self.file.foreign_agent;
            let agent = agents
                .iter()
                .find(|agent| agent.name.get_ref() == name.get_ref());
            let agent = agent.ok_or_else(|| {
                self.at(name, "relay: no [[foreign-agent]] of this name; add one")
            })?;
            agent.addresses.get_ref().first().copied().ok_or_else(|| {
                self.at(
                    &agent.addresses,
                    "addresses: empty; list the foreign agent's own",
                )
            })
        };
        Ok(Some(Relays {
            home,
            current: t.relay.as_ref().map(address).transpose()?,
            standbys: t.standby.iter().map(address).collect::<Result<_, _>>()?,
        }))
    }
}

/// One side of the tunnel as IKE says it; `any` is of the other side's family.
fn traffic(prefix: Prefix, ports: Ports, packets: &Selector) -> TrafficSelector {
    let everything = crate::address::ip(packets.family, &[0; 16]);
    let (address, len) = prefix.range().unwrap_or((everything, 0));
    let (start_port, end_port) = ports.0.bounds();
    TrafficSelector {
        protocol: packets.protocol,
        start_port,
        end_port,
        ..TrafficSelector::prefix(address, len)
    }
}

fn suites(list: &[IkeSuite]) -> Vec<ike::IkeProposal> {
    if !list.is_empty() {
        return list.iter().map(|one| one.0.clone()).collect();
    }
    let default = [
        "aes256-gcm16/sha384/x25519+ml-kem-768",
        "aes256-gcm16/sha384/x25519",
        "chacha20-poly1305/sha256/x25519",
        "aes128-gcm16/sha256/p256",
    ];
    default
        .into_iter()
        .filter_map(|text| IkeSuite::try_from(text.to_owned()).ok())
        .map(|one| one.0)
        .collect()
}

/// Implicit IVs, which cost nothing; explicit ones where a relay may write, which needs them.
fn default_transforms(may_write: bool) -> Vec<ZoneTransform> {
    let numbers = if may_write {
        [Encr::AES_GCM_16, Encr::CHACHA20_POLY1305]
    } else {
        [Encr::AES_GCM_16_IIV, Encr::CHACHA20_POLY1305_IIV]
    };
    numbers
        .into_iter()
        .map(|encr| ZoneTransform {
            encr,
            key_bits: 256,
        })
        .collect()
}
