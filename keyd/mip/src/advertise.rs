// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Advertising an agent on one link (RFC 5944 §2.3): periodically, and to who solicits.

use crate::bucket::Bucket;
use crate::number::{icmp, ALL_SYSTEMS};
use crate::packet::{Content, Incoming, Interface, Packet, TTL_LINK};
use crate::router::{Advertisement, AgentFlags, MobilityAgent, RouterAddress};
use crate::time::{Now, Random};
use std::net::Ipv4Addr;
use std::time::Duration;

/// A link that is advertised on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The interface.
    pub interface: Interface,
    /// Our address on it.
    pub address: Ipv4Addr,
    /// Its prefix length in bits.
    pub prefix_len: u8,
    /// Between multicast advertisements, give or take a tenth. An advertisement holds for three of these, in whole
    /// seconds, one at least (RFC 5944 §2.3).
    pub interval: Duration,
    /// Solicitations answered a second; what is beyond brings the next multicast one forward instead.
    pub answers_per_second: u32,
}

/// Between multicast advertisements, however many solicit.
const LEAST_GAP: Duration = Duration::from_millis(500);

/// Between those for a link that came up.
const LEAST_GAP_UP: Duration = Duration::from_millis(100);

/// The first sequence number after 0xFFFF (RFC 5944 §2.3.2): what is below tells of a restart.
const ROLL_OVER: u16 = 256;

/// What is said on a link, beside the link's own.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    pub(crate) flags: u16,
    pub(crate) lifetime: u16,
    pub(crate) care_of: Vec<Ipv4Addr>,
}

#[derive(Clone, Debug)]
pub(crate) struct Advertiser {
    pub(crate) link: Link,
    sequence: u16,
    next: Option<Duration>,
    last: Option<Duration>,
    /// When the link came up last, or the advertisement that is due for it.
    up: Option<Duration>,
    answers: Bucket,
}

impl Advertiser {
    /// The first advertisement is due at once.
    pub(crate) fn new(link: Link, now: Now) -> Self {
        Advertiser {
            answers: Bucket::new(link.answers_per_second),
            link,
            sequence: 0,
            next: Some(now.monotonic),
            last: None,
            up: None,
        }
    }

    pub(crate) fn next(&self) -> Option<Duration> {
        self.next
    }

    pub(crate) fn tick(
        &mut self,
        offer: &Offer,
        now: Now,
        random: &mut Random<'_>,
    ) -> Option<Packet> {
        if self.next? > now.monotonic {
            return None;
        }
        // Between 0.9 and 1.1 of the interval, so that neighbours don't fall in step.
        let spread = f64::from(random()) / f64::from(u32::MAX);
        self.next = Some(now.after(self.link.interval.mul_f64(0.9 + 0.2 * spread)));
        self.last = Some(now.monotonic);
        self.packet(offer, ALL_SYSTEMS, None)
    }

    /// The link is up: what was said on it lately nobody heard. One that goes up and down is advertised on now and then only.
    pub(crate) fn up(&mut self, now: Now) {
        let earliest = self
            .up
            .map_or(now.monotonic, |last| last.saturating_add(LEAST_GAP_UP))
            .max(now.monotonic);
        self.up = Some(earliest);
        self.next = self.next.map(|next| next.min(earliest));
    }

    /// Brings the next multicast advertisement forward.
    pub(crate) fn soon(&mut self, now: Now) {
        let earliest = self
            .last
            .map_or(now.monotonic, |last| last.saturating_add(LEAST_GAP))
            .max(now.monotonic);
        self.next = self.next.map(|next| next.min(earliest));
    }

    /// The answer to a solicitation: at once and to the one who asked.
    pub(crate) fn solicited(
        &mut self,
        offer: &Offer,
        from: &Incoming<'_>,
        now: Now,
    ) -> Option<Packet> {
        if !self.answers.take(now.monotonic) {
            self.soon(now);
            return None;
        }
        let destination = match from.source.is_unspecified() {
            true => ALL_SYSTEMS,
            false => from.source,
        };
        let link = from.link_source.filter(|_| destination != ALL_SYSTEMS);
        self.packet(offer, destination, link)
    }

    /// One advertisement with sequence number 0 to a visitor alone: its registration is gone (RFC 3543 §4.1).
    pub(crate) fn revoked(
        &self,
        offer: &Offer,
        visitor: Ipv4Addr,
        link: Option<crate::packet::LinkAddress>,
    ) -> Option<Packet> {
        let mut once = self.clone();
        once.sequence = 0;
        once.packet(offer, visitor, link)
    }

    fn packet(
        &mut self,
        offer: &Offer,
        destination: Ipv4Addr,
        link: Option<crate::packet::LinkAddress>,
    ) -> Option<Packet> {
        let sequence = self.sequence;
        self.sequence = sequence.checked_add(1).unwrap_or(ROLL_OVER);
        let holds = (self.link.interval * 3).as_secs_f64().ceil();
        let octets = Advertisement {
            code: icmp::ROUTES_ALL,
            lifetime: holds.clamp(1.0, 9000.0) as u16,
            routers: vec![RouterAddress {
                address: self.link.address,
                preference: 0,
            }],
            agent: Some(MobilityAgent {
                sequence,
                lifetime: offer.lifetime,
                flags: AgentFlags(offer.flags),
                care_of: offer.care_of.clone(),
            }),
            prefixes: vec![self.link.prefix_len],
        }
        .emit()
        .ok()?;
        Some(Packet {
            interface: Some(self.link.interface),
            link_destination: link,
            source: self.link.address,
            destination,
            ttl: TTL_LINK,
            content: Content::Icmp(octets),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Payload;
    use crate::time::Ntp;

    fn at(ms: u64) -> Now {
        Now {
            monotonic: Duration::from_millis(ms),
            wall: Ntp(0),
        }
    }

    fn advertiser() -> (Advertiser, Offer) {
        let link = Link {
            interface: Interface(1),
            address: Ipv4Addr::new(10, 1, 1, 1),
            prefix_len: 24,
            interval: Duration::from_secs(1),
            answers_per_second: 2,
        };
        let offer = Offer {
            flags: AgentFlags::FOREIGN,
            lifetime: 600,
            care_of: vec![link.address],
        };
        (Advertiser::new(link, at(0)), offer)
    }

    fn sequence(packet: &Packet) -> u16 {
        let Content::Icmp(octets) = &packet.content else {
            panic!("not ICMP")
        };
        Advertisement::parse(octets)
            .expect("sound")
            .agent
            .expect("an agent's")
            .sequence
    }

    #[test]
    fn the_sequence_number_counts_from_0_and_rolls_over_to_256() {
        let (mut advertiser, offer) = advertiser();
        let mut now = 0;
        let mut random = || 7;
        let mut seen = Vec::new();
        for _ in 0..0x1_0002 {
            seen.push(sequence(
                &advertiser.tick(&offer, at(now), &mut random).expect("due"),
            ));
            now += 1101;
        }
        assert_eq!(seen[..2], [0, 1]);
        assert_eq!(seen[0xFFFE..], [0xFFFE, 0xFFFF, 256, 257]);
    }

    #[test]
    fn solicitations_are_answered_at_a_bounded_rate_and_the_rest_by_one_multicast() {
        let (mut advertiser, offer) = advertiser();
        let mut random = || u32::MAX;
        assert!(advertiser.tick(&offer, at(0), &mut random).is_some());
        let from = Incoming {
            interface: Interface(1),
            source: Ipv4Addr::new(203, 0, 113, 7),
            destination: crate::number::ALL_ROUTERS,
            ttl: 1,
            link_source: None,
            payload: Payload::Icmp(&[]),
        };
        let answers = (0..50).filter_map(|_| advertiser.solicited(&offer, &from, at(10)));
        let destinations: Vec<_> = answers.map(|packet| packet.destination).collect();
        assert_eq!(destinations, [from.source; 2]);
        assert_eq!(advertiser.next(), Some(Duration::from_millis(500)));
        let packet = advertiser.tick(&offer, at(500), &mut random).expect("due");
        assert_eq!(packet.destination, ALL_SYSTEMS);
    }
}
