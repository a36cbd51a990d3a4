// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Inner addresses (RFC 7296 §2.19): those an end point has to give, and who has which.

use crate::event::{IkeId, Time};
use crate::wire::Id;
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// From one address to another, both included, of one family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u32::from(a).into(),
        IpAddr::V6(a) => a.into(),
    }
}

impl AddressRange {
    /// `None` where they are of two families, or the last comes before the first.
    pub fn new(first: IpAddr, last: IpAddr) -> Option<Self> {
        let sound = first.is_ipv4() == last.is_ipv4() && first <= last;
        sound.then_some(AddressRange { first, last })
    }

    /// Its first address.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// Its last.
    pub fn last(&self) -> IpAddr {
        self.last
    }

    fn holds(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.first.is_ipv4() && (self.first..=self.last).contains(&address)
    }

    /// How many addresses it has, as far as anyone counts.
    fn len(&self) -> u64 {
        let more = number(self.last) - number(self.first);
        u64::try_from(more).unwrap_or(u64::MAX).saturating_add(1)
    }

    fn at(&self, place: u64) -> IpAddr {
        let at = number(self.first).saturating_add(place.into());
        match self.first {
            IpAddr::V4(_) => Ipv4Addr::from(u32::try_from(at).unwrap_or(u32::MAX)).into(),
            IpAddr::V6(_) => Ipv6Addr::from(at).into(),
        }
    }
}

/// The inner addresses a connection has to give, one a peer.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Pool(pub Vec<AddressRange>);

impl Pool {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether that address is one of them.
    pub fn holds(&self, address: IpAddr) -> bool {
        self.0.iter().any(|range| range.holds(address))
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        let lengths = self.0.iter().map(AddressRange::len);
        lengths.fold(0, u64::saturating_add)
    }

    fn at(&self, mut place: u64) -> Option<IpAddr> {
        for range in &self.0 {
            match place.checked_sub(range.len()) {
                Some(behind) => place = behind,
                None => return Some(range.at(place)),
            }
        }
        None
    }
}

/// The inner address an IKE SA was given, or has given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Inner {
    /// This side's.
    Own(IpAddr),
    /// The peer's.
    Peers(IpAddr),
}

/// Who has an address.
struct Lease {
    peer: Id,
    /// IKE SAs that it was given by.
    users: BTreeSet<IkeId>,
    /// Nobody else gets it before: a CSA of its may live on without an IKE SA (docs/wire.md 3.2w).
    until: Time,
}

/// Who has which address, of all connections; and the addresses that this side was given.
#[derive(Default)]
pub(crate) struct Leases {
    by_address: HashMap<(usize, IpAddr), Lease>,
    by_peer: HashMap<(usize, Id), IpAddr>,
    /// Where in a pool the next free one is looked for, so that one given back rests for as long as others are free.
    next: HashMap<usize, u64>,
    /// What this side had last, by connection: it is asked for again.
    had: HashMap<usize, IpAddr>,
}

impl Leases {
    /// An address for that peer: the one it has, else the one it asks for, else another; `None` if all are taken.
    pub fn give(
        &mut self,
        (connection, pool): (usize, &Pool),
        peer: &Id,
        asked: Option<IpAddr>,
        ike: IkeId,
        now: Time,
    ) -> Option<IpAddr> {
        let own = self.by_peer.get(&(connection, peer.clone())).copied();
        let own = own.filter(|address| pool.holds(*address));
        let free = |address: &IpAddr| {
            let lease = self.by_address.get(&(connection, *address));
            lease.is_none_or(|lease| lease.users.is_empty() && lease.until <= now)
        };
        let asked = || asked.filter(|address| pool.holds(*address) && free(address));
        let start = self.next.get(&connection).copied().unwrap_or(0);
        let len = pool.len();
        // Of so many some are free.
        let tried = len.min(self.by_address.len() as u64 + 1);
        let mut next = None;
        let mut another = || {
            let places = (0..tried).map(|step| start.wrapping_add(step) % len.max(1));
            let found = places
                .filter_map(|place| Some((place, pool.at(place)?)))
                .find(|(_, address)| free(address));
            let (place, address) = found?;
            next = Some(place.wrapping_add(1) % len.max(1));
            Some(address)
        };
        let address = own.or_else(asked).or_else(&mut another)?;
        if let Some(next) = next {
            self.next.insert(connection, next);
        }
        self.hold(connection, address, peer, Time::ZERO);
        if let Some(lease) = self.by_address.get_mut(&(connection, address)) {
            lease.users.insert(ike);
        }
        Some(address)
    }

    /// The address that peer has, for another IKE SA of its.
    pub fn again(&mut self, connection: usize, peer: &Id, ike: IkeId) -> Option<IpAddr> {
        let address = *self.by_peer.get(&(connection, peer.clone()))?;
        let lease = self.by_address.get_mut(&(connection, address))?;
        lease.users.insert(ike);
        Some(address)
    }

    /// Somebody has that address, whatever comes, until then.
    pub fn hold(&mut self, connection: usize, address: IpAddr, peer: &Id, until: Time) {
        let place = (connection, address);
        let known = self.by_address.get_mut(&place);
        if let Some(lease) = known.filter(|lease| lease.peer == *peer) {
            lease.until = lease.until.max(until);
            return;
        }
        let lease = Lease {
            peer: peer.clone(),
            users: BTreeSet::new(),
            until,
        };
        if let Some(old) = self.by_address.insert(place, lease) {
            self.by_peer.remove(&(connection, old.peer));
        }
        let of_peer = (connection, peer.clone());
        if let Some(old) = self.by_peer.insert(of_peer, address) {
            self.by_address.remove(&(connection, old));
        }
    }

    /// One IKE SA has taken another's place.
    pub fn pass_on(&mut self, connection: usize, address: IpAddr, from: IkeId, to: IkeId) {
        if let Some(lease) = self.by_address.get_mut(&(connection, address)) {
            if lease.users.remove(&from) {
                lease.users.insert(to);
            }
        }
    }

    /// An IKE SA is no more. Nobody else gets its peer's address before `until`, and the peer has it again if it comes before
    /// somebody else needs it.
    pub fn release(&mut self, connection: usize, address: IpAddr, ike: IkeId, until: Time) {
        if let Some(lease) = self.by_address.get_mut(&(connection, address)) {
            if lease.users.remove(&ike) {
                lease.until = lease.until.max(until);
            }
        }
    }

    /// This side was given an address.
    pub fn taken(&mut self, connection: usize, address: IpAddr) {
        self.had.insert(connection, address);
    }

    /// What this side had last.
    pub fn had(&self, connection: usize) -> Option<IpAddr> {
        self.had.get(&connection).copied()
    }

    /// A connection's place is another's now.
    pub fn forget(&mut self, connection: usize) {
        self.by_address.retain(|(of, _), _| *of != connection);
        self.by_peer.retain(|(of, _), _| *of != connection);
        self.next.remove(&connection);
        self.had.remove(&connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn pool(ranges: &[(&str, &str)]) -> Pool {
        let range = |(first, last): &(&str, &str)| AddressRange::new(ip(first), ip(last)).unwrap();
        Pool(ranges.iter().map(range).collect())
    }

    struct Giver {
        leases: Leases,
        pool: Pool,
        ikes: u64,
    }

    impl Giver {
        fn new(pool: Pool) -> Self {
            Giver {
                leases: Leases::default(),
                pool,
                ikes: 0,
            }
        }

        /// The address that peer gets, and the IKE SA it is of.
        fn give(&mut self, peer: &str, asked: Option<&str>, now: u64) -> (Option<IpAddr>, IkeId) {
            self.ikes += 1;
            let ike = IkeId(self.ikes);
            let asked = asked.map(ip);
            let now = Duration::from_secs(now);
            let of = (3, &self.pool);
            let given = self.leases.give(of, &Id::fqdn(peer), asked, ike, now);
            (given, ike)
        }
    }

    #[test]
    fn a_pool_knows_its_addresses_in_order() {
        let pool = pool(&[("10.9.0.254", "10.9.1.1"), ("fd00::1", "fd00::2")]);
        assert_eq!(pool.len(), 6);
        let all: Vec<String> = (0..6).map(|at| pool.at(at).unwrap().to_string()).collect();
        let expected = [
            "10.9.0.254",
            "10.9.0.255",
            "10.9.1.0",
            "10.9.1.1",
            "fd00::1",
            "fd00::2",
        ];
        assert_eq!(all, expected);
        assert_eq!(pool.at(6), None);
        assert!(pool.holds(ip("10.9.1.0")) && !pool.holds(ip("10.9.1.2")));
        assert!(!pool.holds(ip("fd00::3")) && !pool.holds(ip("::ffff:10.9.1.0")));
        assert_eq!(AddressRange::new(ip("10.9.0.2"), ip("10.9.0.1")), None);
        assert_eq!(AddressRange::new(ip("10.9.0.2"), ip("fd00::1")), None);
        let everything = AddressRange::new(ip("::"), ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
        assert_eq!(everything.unwrap().len(), u64::MAX);
    }

    #[test]
    fn a_peer_keeps_its_address_and_nobody_elses_is_given() {
        let mut all = Giver::new(pool(&[("10.9.0.1", "10.9.0.3")]));
        assert_eq!(all.give("a.test", None, 0).0, Some(ip("10.9.0.1")));
        assert_eq!(
            all.give("b.test", Some("10.9.0.1"), 0).0,
            Some(ip("10.9.0.2"))
        );
        assert_eq!(
            all.give("a.test", Some("10.9.0.3"), 0).0,
            Some(ip("10.9.0.1"))
        );
        assert_eq!(
            all.give("c.test", Some("192.0.2.1"), 0).0,
            Some(ip("10.9.0.3"))
        );
        assert_eq!(all.give("d.test", None, 0).0, None);
    }

    #[test]
    fn what_a_peer_asks_for_is_given_if_it_is_free() {
        let mut all = Giver::new(pool(&[("10.9.0.1", "10.9.0.3")]));
        assert_eq!(
            all.give("a.test", Some("10.9.0.3"), 0).0,
            Some(ip("10.9.0.3"))
        );
    }

    #[test]
    fn an_address_rests_until_no_csa_of_its_can_be_left() {
        let mut all = Giver::new(pool(&[("10.9.0.1", "10.9.0.1")]));
        let (given, first) = all.give("a.test", None, 0);
        let second = all.give("a.test", None, 0).1;
        let address = given.unwrap();
        let end = Duration::from_secs(100);
        all.leases.release(3, address, first, end);
        assert_eq!(
            all.give("b.test", None, 200).0,
            None,
            "the other IKE SA has it"
        );
        all.leases.release(3, address, second, end);
        all.leases
            .release(3, address, second, Duration::from_secs(900));
        assert_eq!(all.give("b.test", None, 99).0, None);
        let (again, third) = all.give("a.test", None, 99);
        assert_eq!(again, given);
        all.leases.release(3, address, third, end);
        assert_eq!(all.give("b.test", None, 100).0, given);
        assert_eq!(all.give("a.test", None, 100).0, None);
    }

    #[test]
    fn one_given_back_comes_last() {
        let mut all = Giver::new(pool(&[("10.9.0.1", "10.9.0.3")]));
        let (given, ike) = all.give("a.test", None, 0);
        all.leases.release(3, given.unwrap(), ike, Time::ZERO);
        let next: Vec<_> = ["b.test", "c.test", "d.test"]
            .iter()
            .map(|peer| all.give(peer, None, 1).0.unwrap().to_string())
            .collect();
        assert_eq!(next, ["10.9.0.2", "10.9.0.3", "10.9.0.1"]);
    }

    #[test]
    fn a_successor_has_what_the_ike_sa_had() {
        let mut all = Giver::new(pool(&[("10.9.0.1", "10.9.0.1")]));
        let (given, old) = all.give("a.test", None, 0);
        let address = given.unwrap();
        all.leases.pass_on(3, address, old, IkeId(77));
        all.leases.release(3, address, old, Time::ZERO);
        assert_eq!(all.give("b.test", None, 9).0, None);
        all.leases.release(3, address, IkeId(77), Time::ZERO);
        assert_eq!(all.give("b.test", None, 9).0, given);
    }

    #[test]
    fn what_is_known_from_before_a_restart_is_held_for_its_owner() {
        let mut all = Giver::new(pool(&[("10.9.0.1", "10.9.0.2")]));
        let end = Duration::from_secs(50);
        all.leases.hold(3, ip("10.9.0.1"), &Id::fqdn("a.test"), end);
        assert_eq!(
            all.give("b.test", Some("10.9.0.1"), 1).0,
            Some(ip("10.9.0.2"))
        );
        assert_eq!(all.give("c.test", None, 1).0, None);
        assert_eq!(all.give("a.test", None, 1).0, Some(ip("10.9.0.1")));
        all.leases.forget(3);
        assert_eq!(all.give("c.test", None, 1).0, Some(ip("10.9.0.1")));
    }
}
