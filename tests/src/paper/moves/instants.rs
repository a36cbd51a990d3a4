// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! When what happened: microseconds from the mobile host's solicitation on, from captures at the nodes and from the key
//! managers' logs.

use anyhow::{ensure, Context, Result};
use serde_json::{json, Map, Value};

use super::ground::Ground;
use super::journal::{self, Said};
use crate::captured::Captured;
use crate::headers::{self, Ip};
use crate::paper::run::Keys;

/// ICMP types of RFC 1256.
const ADVERTISEMENT: u8 = 9;
const SOLICITATION: u8 = 10;
/// UDP port and message types of RFC 5944.
const MOBILE_IP: u16 = 434;
const REQUEST: u8 = 1;
const REPLY: u8 = 3;
/// UDP port of IKE, and exchange types: RFC 7296 §3.1 and docs/wire.md 3.1d, 3.1f.
const IKE: u16 = 500;
const IKE_SA_INIT: u8 = 34;
const IKE_AUTH: u8 = 35;
const CSA_DISTRIBUTE: u8 = 242;
const CSA_REQUEST: u8 = 244;
/// The IKE header: where its exchange type and flags stand, and the flag of a response.
const EXCHANGE: usize = 18;
const FLAGS: usize = 19;
const RESPONSE: u8 = 0x20;

/// What a packet is, as far as these tables go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Icmp(u8),
    Registration(u8),
    Ike { exchange: u8, response: bool },
}

fn what(ip: &Ip<'_>) -> Option<What> {
    match ip.protocol {
        headers::ICMP => Some(What::Icmp(*ip.payload.first()?)),
        headers::UDP => {
            let (source, destination) = ip.ports()?;
            let data = ip.data()?;
            match (source, destination) {
                (MOBILE_IP, _) | (_, MOBILE_IP) => Some(What::Registration(*data.first()?)),
                (IKE, IKE) => Some(What::Ike {
                    exchange: *data.get(EXCHANGE)?,
                    response: data.get(FLAGS)? & RESPONSE != 0,
                }),
                _ => None,
            }
        }
        _ => None,
    }
}

/// What was seen of one initialisation or handoff.
pub struct Seen {
    keys: Keys,
    /// Its beginning, on the monotonic clock.
    since: i64,
    /// By capture: time and kind of what came.
    packets: Vec<(String, Vec<(i64, What)>)>,
    /// What the key managers said: mobile host, the foreign agent the host is at, the other one.
    said: [Vec<Said>; 3],
    /// The host's link, and the names of the foreign agent's capture and the other one's.
    link: &'static str,
    agents: [&'static str; 2],
}

fn ike(exchange: u8, response: bool) -> What {
    What::Ike { exchange, response }
}

impl Seen {
    pub fn new(ground: &Ground<'_>, captured: Vec<Captured>, since: i64) -> Result<Self> {
        let of = |one: Captured| {
            let packets = one.packets.iter().filter_map(|packet| {
                let at = ground.clock.monotonic(packet.time);
                Some((at, what(&packet.header()?)?))
            });
            let packets = packets.filter(|(at, _)| *at >= since).collect();
            (one.name.clone(), packets)
        };
        let [here, other] = ground.agents();
        let here_name = ground.here().name;
        Ok(Self {
            keys: ground.keys,
            since,
            packets: captured.into_iter().map(of).collect(),
            said: [&ground.nodes.mh, here, other].map(|keyd| journal::since(keyd, since)),
            link: ground.here().link,
            agents: [here_name, if here_name == "fa1" { "fa2" } else { "fa1" }],
        })
    }

    /// When this was first seen there, not before a time.
    fn first(&self, capture: &str, wanted: What, from: i64) -> Option<i64> {
        let (_, packets) = self.packets.iter().find(|(name, _)| name == capture)?;
        packets
            .iter()
            .find(|(at, what)| *at >= from && *what == wanted)
            .map(|(at, _)| *at)
    }

    fn must(&self, capture: &str, wanted: What, from: i64) -> Result<i64> {
        self.first(capture, wanted, from)
            .with_context(|| format!("no {wanted:?} was seen at {capture}"))
    }

    /// From the link's coming up to the host's being registered, each step after the one before.
    fn registration(&self) -> Result<(i64, Map<String, Value>)> {
        let [here, _] = self.agents;
        let solicited = self.must(self.link, What::Icmp(SOLICITATION), self.since)?;
        let mut at = solicited;
        let mut instants = Map::new();
        let mut put = |name: &str, at: i64| {
            instants.insert(name.to_owned(), json!(at - solicited));
        };
        put("up", self.since);
        for (name, capture, wanted) in [
            ("requested", self.link, What::Registration(REQUEST)),
            ("relayed", here, What::Registration(REQUEST)),
            ("arrived", "ha", What::Registration(REQUEST)),
            ("answered", "ha", What::Registration(REPLY)),
            ("returned", here, What::Registration(REPLY)),
            ("replied", self.link, What::Registration(REPLY)),
        ] {
            at = self.must(capture, wanted, at)?;
            put(name, at);
        }
        // An advertisement that the agent sends of itself, since its link came up, is as good as the answer.
        let advertised = self.must(self.link, What::Icmp(ADVERTISEMENT), self.since)?;
        put("advertised", advertised);
        let registered = journal::must(&self.said[0], &["registered in"], "the mobile host")?;
        ensure!(registered >= at, "registered before the reply came");
        put("registered", registered);
        Ok((solicited, instants))
    }

    /// When the registration's reply came back to the foreign agent, on the monotonic clock.
    pub fn returned(&self) -> Result<i64> {
        self.must(self.agents[0], What::Registration(REPLY), self.since)
    }

    /// An IKE SA with a child, as the mobile host sees it.
    fn child(&self, solicited: i64, instants: &mut Map<String, Value>) -> Result<()> {
        let mut at = solicited;
        for (name, wanted) in [
            ("begun", ike(IKE_SA_INIT, false)),
            ("agreed", ike(IKE_SA_INIT, true)),
            ("proving", ike(IKE_AUTH, false)),
            ("proved", ike(IKE_AUTH, true)),
        ] {
            at = self.must(self.link, wanted, at)?;
            instants.insert(name.to_owned(), json!(at - solicited));
        }
        let up = journal::must(&self.said[0], &[" is up: "], "the mobile host")?;
        instants.insert("child".to_owned(), json!(up - solicited));
        Ok(())
    }

    /// Zone 1's keys at the foreign agent the host is at.
    fn relay(&self, solicited: i64, instants: &mut Map<String, Value>) -> Result<()> {
        let [_, here, _] = &self.said;
        let up = journal::must(here, &["relay CSA", " is u"], "the foreign agent")?;
        instants.insert("relay".to_owned(), json!(up - solicited));
        let [name, _] = self.agents;
        for (instant, response) in [("distributed", false), ("taken", true)] {
            if let Some(at) = self.first(name, ike(CSA_DISTRIBUTE, response), solicited) {
                instants.insert(instant.to_owned(), json!(at - solicited));
            }
        }
        Ok(())
    }

    /// DKM's request and its answer, at both foreign agents.
    fn request(&self, solicited: i64, instants: &mut Map<String, Value>) -> Result<()> {
        let [here, other] = self.agents;
        for (name, capture, response) in [
            ("asked", here, false),
            ("heard", other, false),
            ("gave", other, true),
            ("given", here, true),
        ] {
            let at = self.must(capture, ike(CSA_REQUEST, response), solicited)?;
            instants.insert(name.to_owned(), json!(at - solicited));
        }
        Ok(())
    }

    /// The instants of an initialisation.
    pub fn initialisation(&self) -> Result<Value> {
        let (solicited, mut instants) = self.registration()?;
        if self.keys != Keys::None {
            self.child(solicited, &mut instants)?;
        }
        if self.keys.has_zones() {
            self.relay(solicited, &mut instants)?;
        }
        Ok(instants.into())
    }

    /// The instants of a handoff.
    pub fn handoff(&self) -> Result<Value> {
        let (solicited, mut instants) = self.registration()?;
        match self.keys {
            // What is needed is there: the tunnel, and by PKD the foreign agent's keys.
            Keys::None | Keys::Esp | Keys::Pkd => {}
            Keys::EspAnew => self.child(solicited, &mut instants)?,
            Keys::Late => self.relay(solicited, &mut instants)?,
            Keys::Dkm => {
                self.relay(solicited, &mut instants)?;
                self.request(solicited, &mut instants)?;
            }
        }
        Ok(instants.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::{IpDraft, UDP};
    use std::net::Ipv4Addr;

    #[test]
    fn packets_are_told_apart_by_their_clear_headers() {
        let (a, b) = (Ipv4Addr::new(10, 1, 2, 1), Ipv4Addr::new(10, 1, 1, 1));
        let udp = |ports: [u16; 2], data: &[u8]| {
            let mut payload = Vec::new();
            for word in [ports[0], ports[1], 8 + data.len() as u16, 0] {
                payload.extend(word.to_be_bytes());
            }
            payload.extend(data);
            IpDraft::new(a, b, UDP).write(&payload)
        };
        let of = |packet: &[u8]| what(&Ip::parse(packet).unwrap());
        let mut header = [0; 28];
        header[EXCHANGE] = CSA_REQUEST;
        assert_eq!(of(&udp([500, 500], &header)), Some(ike(CSA_REQUEST, false)));
        header[FLAGS] = 0x28;
        assert_eq!(of(&udp([500, 500], &header)), Some(ike(CSA_REQUEST, true)));
        assert_eq!(of(&udp([500, 500], &header[..18])), None);
        assert_eq!(
            of(&udp([434, 30_000], &[3, 0])),
            Some(What::Registration(REPLY))
        );
        assert_eq!(of(&udp([53, 53], &[1])), None);
        let icmp = headers::icmp(10, 0, [0; 4], &[]);
        let packet = IpDraft::new(a, b, headers::ICMP).write(&icmp);
        assert_eq!(of(&packet), Some(What::Icmp(SOLICITATION)));
    }
}
