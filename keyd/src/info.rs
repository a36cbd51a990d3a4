// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the module tells of CSAs, policies and events, without the keys.

use crate::address::{ip, prefixes};
use crate::lifetime;
use crate::policy_file::{Action, Direction};
use crate::ports::{suffix, Ports};
use pfkey::number::message;
use pfkey::{
    CsaExt, CsaId, Encap, Lifetime, Message, Migrate, NewMapping, Policy, PortRange, Relay,
    Selector,
};
use serde_json::{json, Value};
use std::net::IpAddr;

/// A CSA as it is listed.
#[derive(Clone, Debug)]
pub struct CsaInfo {
    /// Its name.
    pub id: CsaId,
    /// Mode, state, window, generation, sequence.
    pub ext: CsaExt,
    /// The packets inside.
    pub selector: Option<Selector>,
    /// Where the zones stop.
    pub stops: Vec<u16>,
    /// The transforms of the zones; `null` where the node has no key.
    pub zones: Vec<&'static str>,
    /// What relays may do.
    pub relay: Relay,
    /// The UDP ports of its packets, in their own direction.
    pub encap: Option<Encap>,
    /// What it has carried.
    pub current: Option<Lifetime>,
    /// When it ends.
    pub hard: Option<Lifetime>,
    /// When it asks to be replaced.
    pub soft: Option<Lifetime>,
}

impl CsaInfo {
    /// Takes it from an answer or an event.
    pub fn from_message(message: &Message<'_>) -> Result<Self, pfkey::Error> {
        let id = CsaId::from_message(message)?;
        let zones = (1..).map_while(|zone| message.zone_sa(zone));
        let zones = zones.map(|zone| match zone.keys {
            Some(keys) => keys
                .algorithm
                .name(u16::try_from(keys.key.len() * 8).unwrap_or(0)),
            None => "null",
        });
        // `CsaId` has made sure that there is one.
        let ext = message.csa().ok_or(pfkey::Error {
            errno: pfkey::errno::EINVAL,
            text: c"CSA: missing",
        })?;
        Ok(CsaInfo {
            id,
            ext,
            selector: message.selector(),
            stops: message
                .zone_map()
                .map(|map| map.stops().to_vec())
                .unwrap_or_default(),
            zones: zones.collect(),
            relay: message.relay().unwrap_or_default(),
            encap: Encap::from_message(message)?,
            current: message.lifetime_current(),
            hard: message.lifetime_hard(),
            soft: message.lifetime_soft(),
        })
    }

    /// The outer source.
    pub fn src(&self) -> IpAddr {
        ip(self.id.src.family, &self.id.src.octets)
    }

    /// The outer destination.
    pub fn dst(&self) -> IpAddr {
        ip(self.id.dst.family, &self.id.dst.octets)
    }

    /// The zones' stops in words.
    pub fn map(&self) -> Vec<String> {
        let word = |stop: &u16| match *stop {
            pfkey::TRANSPORT_END => "transport-end".to_owned(),
            pfkey::END => "end".to_owned(),
            octets => octets.to_string(),
        };
        self.stops.iter().map(word).collect()
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        json!({
            "spi": self.id.spi,
            "src": self.src().to_string(),
            "dst": self.dst().to_string(),
            "role": self.id.role.name(),
            "mode": self.ext.mode.name(),
            "state": self.ext.state.name(),
            "window": self.ext.window,
            "generation": self.ext.generation,
            "sequence": self.ext.sequence,
            "udp": self.encap.map(|e| json!({ "src-port": e.sport, "dst-port": e.dport })),
            "selector": self.selector.as_ref().map(selector_json),
            "map": self.map(),
            "zones": self.zones,
            "may_write": self.relay.may_write,
            "relay_number": self.relay.number,
            "hold": self.relay.hold,
            "packets": self.current.map(|current| current.allocations),
            "bytes": self.current.map(|current| current.bytes),
            "since": self.current.map(|current| current.addtime),
            "used_since": self.current.map(|current| current.usetime).filter(|then| *then != 0),
            "hard": lifetime::json(self.hard),
            "soft": lifetime::json(self.soft),
        })
    }
}

/// A selector as JSON; ports that are any are null.
pub fn selector_json(selector: &Selector) -> Value {
    let (src, dst) = prefixes(selector);
    let ports = |range: PortRange| (!range.is_any()).then(|| Ports(range).to_string());
    json!({
        "src": src.to_string(),
        "dst": dst.to_string(),
        "protocol": selector.protocol,
        "src-ports": ports(selector.src_ports),
        "dst-ports": ports(selector.dst_ports),
    })
}

/// A selector on one line.
pub fn selector_text(selector: &Selector) -> String {
    let (src, dst) = prefixes(selector);
    let (src_ports, dst_ports) = (suffix(selector.src_ports), suffix(selector.dst_ports));
    match selector.protocol {
        0 => format!("{src} → {dst}"),
        protocol => format!("{src}{src_ports} → {dst}{dst_ports} protocol {protocol}"),
    }
}

/// A policy's outer addresses on one line, or nothing.
pub fn template_text(policy: &Policy) -> String {
    policy.template.map_or(String::new(), |(src, dst)| {
        format!(
            "{} → {}",
            ip(src.family, &src.octets),
            ip(dst.family, &dst.octets)
        )
    })
}

/// A policy as JSON.
pub fn policy_json(policy: &Policy) -> Value {
    let template = policy.template.map(|(src, dst)| {
        json!({ "src": ip(src.family, &src.octets).to_string(), "dst": ip(dst.family, &dst.octets).to_string() })
    });
    json!({
        "id": policy.ext.id,
        "dir": Direction::word(policy.ext.direction),
        "action": Action::word(policy.ext.kind),
        "priority": policy.ext.priority,
        "selector": selector_json(&policy.selector),
        "outer": template,
    })
}

/// Something the module said on its own account.
#[derive(Debug)]
pub enum Event {
    /// A protect policy wants a CSA for a packet.
    Acquire(Policy),
    /// A CSA came to a limit: the hard one (true) or the soft one.
    Expire(CsaInfo, bool),
    /// A CSA is new, or changed its state.
    State(CsaInfo),
    /// A CSA goes on between other ends.
    Migrate(Migrate),
    /// A NAT has given a CSA's peer another address or port.
    NewMapping(NewMapping),
    /// Another message, by its type.
    Other(u8),
}

impl Event {
    /// Takes it from a message.
    pub fn from_message(message: &Message<'_>) -> Result<Self, pfkey::Error> {
        Ok(match message.header().kind {
            message::ACQUIRE => Event::Acquire(Policy::from_message(message)?),
            message::EXPIRE => Event::Expire(
                CsaInfo::from_message(message)?,
                message.lifetime_hard().is_some(),
            ),
            message::X_CSA_STATE => Event::State(CsaInfo::from_message(message)?),
            message::X_MIGRATE => Event::Migrate(Migrate::from_message(message)?),
            message::X_NAT_T_NEW_MAPPING => Event::NewMapping(NewMapping::from_message(message)?),
            other => Event::Other(other),
        })
    }

    /// On one line.
    pub fn text(&self) -> String {
        let csa = |csa: &CsaInfo| {
            format!(
                "{} {:#010x} {} → {}",
                csa.id.role.name(),
                csa.id.spi,
                csa.src(),
                csa.dst()
            )
        };
        match self {
            Event::Acquire(policy) => {
                let outer = template_text(policy);
                let outer = if outer.is_empty() {
                    outer
                } else {
                    format!(", outer {outer}")
                };
                format!(
                    "acquire  {}{outer} (policy {})",
                    selector_text(&policy.selector),
                    policy.ext.id
                )
            }
            Event::Expire(info, hard) => format!(
                "expire   {} ({} limit)",
                csa(info),
                if *hard { "hard" } else { "soft" }
            ),
            Event::State(info) => format!("state    {} is {}", csa(info), info.ext.state.name()),
            Event::Migrate(moved) => {
                let [src, dst] = [moved.src, moved.dst].map(|end| ip(end.family, &end.octets));
                format!(
                    "migrate  {} {:#010x} goes on from {src} to {dst}",
                    moved.id.role.name(),
                    moved.id.spi
                )
            }
            Event::NewMapping(mapping) => {
                let [old, new] = [mapping.old, mapping.new].map(peer);
                format!(
                    "mapping  {:#010x} comes from {new}, no longer {old}",
                    mapping.spi
                )
            }
            Event::Other(kind) => format!("message  of type {kind}"),
        }
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        match self {
            Event::Acquire(policy) => json!({ "event": "acquire", "policy": policy_json(policy) }),
            Event::Expire(info, hard) => {
                json!({ "event": "expire", "hard": hard, "csa": info.json() })
            }
            Event::State(info) => json!({ "event": "state", "csa": info.json() }),
            Event::Migrate(moved) => {
                let [src, dst] =
                    [moved.src, moved.dst].map(|end| ip(end.family, &end.octets).to_string());
                json!({
                    "event": "migrate",
                    "role": moved.id.role.name(),
                    "spi": moved.id.spi,
                    "src": src,
                    "dst": dst,
                    "udp": moved.encap.map(|e| json!({ "src-port": e.sport, "dst-port": e.dport })),
                })
            }
            Event::NewMapping(mapping) => {
                let [old, new] = [mapping.old, mapping.new].map(|end| peer(end).to_string());
                json!({ "event": "new-mapping", "spi": mapping.spi, "old": old, "new": new })
            }
            Event::Other(kind) => json!({ "event": "message", "type": kind }),
        }
    }
}

/// A peer's address and port.
fn peer((address, port): (pfkey::Address, u16)) -> std::net::SocketAddr {
    (ip(address.family, &address.octets), port).into()
}
