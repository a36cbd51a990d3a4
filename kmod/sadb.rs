// SPDX-License-Identifier: GPL-2.0-only

//! Composite SAs: what one holds, and how it is found without a shared lock.

use core::sync::atomic::{AtomicBool, AtomicU64, AtomicU8, Ordering};
use kernel::alloc::{flags::*, KVec};
use kernel::new_spinlock;
use kernel::prelude::*;
use kernel::sync::{Arc, SpinLock};
use mml_core::esp::{self, IvKind};
use mml_core::ip::{self, Addresses};
use mml_core::replay::{Replay, Resync};
use mml_core::selector::Selector;
use mml_core::snoop::{Ends, Settings};
use mml_core::zone::{Mode, ZoneMap};
use pfkey::{Role, State};

use crate::counters::Counters;
use crate::crypto::{Aead, Cipher, ICV_LEN};
use crate::net::DstCache;
use crate::snoop::{Told, Window};
use crate::sync::{self, Reader, Table};

/// The outer ends of a CSA, in the direction of its packets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outer {
    /// 4 or 6; 0 for none.
    pub family: u8,
    /// IPv4 in the first four octets, the rest zero, as everywhere.
    pub src: [u8; 16],
    pub dst: [u8; 16],
}

impl Outer {
    /// Of what isn't in a CSA.
    pub(crate) const NONE: Outer = Outer {
        family: 0,
        src: [0; 16],
        dst: [0; 16],
    };

    /// Between two IPv4 addresses.
    #[inline]
    pub(crate) fn v4(src: [u8; 4], dst: [u8; 4]) -> Self {
        Outer {
            family: 4,
            src: ip::v4(src),
            dst: ip::v4(dst),
        }
    }

    /// Between two IPv6 addresses.
    #[inline]
    pub(crate) fn v6(src: [u8; 16], dst: [u8; 16]) -> Self {
        Outer {
            family: 6,
            src,
            dst,
        }
    }

    /// Those that an IP header has.
    #[inline]
    pub(crate) fn of(header: &[u8]) -> Option<Self> {
        match ip::version(header) {
            4 => {
                let [_, _, _, _, _, _, _, _, _, _, _, _, s0, s1, s2, s3, d0, d1, d2, d3] =
                    *header.first_chunk::<{ ip::V4_MIN }>()?;
                Some(Self::v4([s0, s1, s2, s3], [d0, d1, d2, d3]))
            }
            6 => {
                let addresses = header.get(8..)?;
                Some(Self::v6(
                    *addresses.first_chunk()?,
                    *addresses.get(16..)?.first_chunk()?,
                ))
            }
            _ => None,
        }
    }

    /// The other way round.
    pub(crate) fn reversed(&self) -> Self {
        Outer {
            family: self.family,
            src: self.dst,
            dst: self.src,
        }
    }

    /// Octets of such a header, without options or extension headers.
    #[inline]
    pub(crate) fn header_len(&self) -> usize {
        if self.family == 4 {
            ip::V4_MIN
        } else {
            ip::V6_LEN
        }
    }

    /// An address as it stands on the wire: 4 octets or 16.
    pub(crate) fn octets<'a>(&self, address: &'a [u8; 16]) -> &'a [u8] {
        let len = if self.family == 4 { 4 } else { 16 };
        address.get(..len).unwrap_or(address)
    }

    /// Whether it is the same, compared in words.
    #[inline]
    pub(crate) fn is(&self, other: &Outer) -> bool {
        let words = |it: &Outer| (u128::from_ne_bytes(it.dst), u128::from_ne_bytes(it.src));
        self.family == other.family && words(self) == words(other)
    }

    /// Whether what `header` heads goes to the same destination.
    #[inline]
    fn is_to(&self, other: &Outer) -> bool {
        self.family == other.family
            && u128::from_ne_bytes(self.dst) == u128::from_ne_bytes(other.dst)
    }
}

/// A zone's SA: its keyed transform, salt and kind of IV.
pub(crate) struct Zone {
    pub aead: Aead,
    pub salt: [u8; esp::SALT_LEN],
    pub iv: IvKind,
}

/// What a zone message gave, kept so that DUMP can give it back. Zeroised when the CSA ends.
pub(crate) struct Message(KVec<u8>);

impl Message {
    /// The ADD, whole.
    pub(crate) fn octets(&self) -> &[u8] {
        &self.0
    }
}

impl core::ops::Drop for Message {
    fn drop(&mut self) {
        sync::zeroise(&mut self.0);
    }
}

/// The book-keeping of a receiver, behind the CSA's one lock.
pub(crate) struct Book {
    pub replay: Replay,
    pub bits: KVec<u64>,
    pub resync: Resync,
    pub packets: u64,
    pub octets: u64,
    /// A relay's: how SNOOP treats its flows.
    pub snoop: Option<Told>,
}

/// A composite SA. Nothing in it is shared with another one.
#[pin_data]
pub(crate) struct Csa {
    pub id: u64,
    pub role: Role,
    pub map: ZoneMap,
    pub spi: u32,
    pub outer: Outer,
    pub selector: Selector,
    pub generation: u32,
    pub may_write: bool,
    pub zone1: Zone,
    /// `None` at a relay.
    pub zone2: Option<Zone>,
    pub created: u64,
    state: AtomicU8,
    /// Origin: the last number sealed under it.
    sequence: AtomicU64,
    /// Origin: octets of the datagrams sealed.
    octets: AtomicU64,
    pub route: DstCache,
    /// Whether SNOOP looks after its flows, read without the lock.
    snoops: AtomicBool,
    pub window: Arc<Window>,
    #[pin]
    pub book: SpinLock<Book>,
    pub counters: Counters,
    message: Message,
}

impl Csa {
    /// Makes a CSA of a checked message. Sleeps.
    ///
    /// # Errors
    ///
    /// `EAFNOSUPPORT` for outer ends of two families, `EOPNOTSUPP` for transport mode, `ENOSYS` for a cipher that the kernel lacks, `ENOMEM`.
    pub(crate) fn new(id: u64, csa: &pfkey::Csa<'_>, message: &[u8]) -> Result<Arc<Csa>> {
        let outer = outer(&csa.src, &csa.dst)?;
        if csa.ext.mode != pfkey::Mode::Tunnel {
            return Err(EOPNOTSUPP);
        }
        let map = ZoneMap::new(Mode::Tunnel, csa.map.stops()).map_err(|_| EINVAL)?;
        let selector = selector(&csa.selector).ok_or(EINVAL)?;
        let [first, second] = &csa.zones;
        let zone1 = zone(first)?.ok_or(EINVAL)?;
        let zone2 = zone(second)?;
        let replay = Replay::starting_at(csa.ext.window, csa.ext.sequence).ok_or(EINVAL)?;
        let mut bits = KVec::new();
        if csa.ext.role != Role::Origin {
            bits.resize(Replay::words(csa.ext.window), 0u64, GFP_KERNEL_ACCOUNT)?;
        }
        let mut copy = KVec::new();
        copy.extend_from_slice(message, GFP_KERNEL_ACCOUNT)?;
        let message = Message(copy);
        let book = Book {
            replay,
            bits,
            resync: Resync::default(),
            packets: 0,
            octets: 0,
            snoop: csa.snoop.as_ref().map(told).transpose()?,
        };
        let snoops = AtomicBool::new(book.snoop.is_some());
        let window = Window::new(csa.ext.sequence, csa.ext.window)?;
        let (spi, role, state, sequence) = (
            csa.spi,
            csa.ext.role,
            csa.ext.state.number(),
            csa.ext.sequence,
        );
        let (generation, may_write) = (csa.ext.generation, csa.relay.may_write);
        let route = DstCache::new()?;
        Arc::pin_init(
            pin_init!(Csa {
                id, role, map, spi, outer, selector, generation, may_write, zone1, zone2, route, message,
                created: sync::now(),
                state: AtomicU8::new(state),
                sequence: AtomicU64::new(sequence),
                octets: AtomicU64::new(0),
                snoops,
                window,
                book <- new_spinlock!(book, "mml_csa"),
                counters: Counters::new(),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// Its state.
    pub(crate) fn state(&self) -> State {
        State::from_number(self.state.load(Ordering::Relaxed)).unwrap_or(State::Dying)
    }

    /// Changes its state.
    pub(crate) fn set_state(&self, state: State) {
        self.state.store(state.number(), Ordering::Relaxed);
    }

    /// Whether it seals.
    #[inline]
    pub(crate) fn seals(&self) -> bool {
        self.state.load(Ordering::Relaxed) == State::Active.number()
    }

    /// Whether it opens: dying ones still do, so that what is under way arrives.
    #[inline]
    pub(crate) fn opens(&self) -> bool {
        let state = self.state.load(Ordering::Relaxed);
        state == State::Active.number() || state == State::Dying.number()
    }

    /// The next `count` sequence numbers: the first of them, or `None` once they are used up. The origin's one atomic.
    #[inline]
    pub(crate) fn take_numbers(&self, count: u64, octets: u64) -> Option<u64> {
        let last = self.sequence.fetch_add(count, Ordering::Relaxed);
        self.octets.fetch_add(octets, Ordering::Relaxed);
        // Far past the end it stays refused: 2^63 more would be needed to wrap.
        esp::seq_valid(last.checked_add(count)?).then(|| last + 1)
    }

    /// How SNOOP treats its flows, if it does.
    pub(crate) fn snoop(&self) -> Option<Told> {
        if !self.snoops() {
            return None;
        }
        let _bh = sync::Bh::off();
        let told = self.book.lock().snoop;
        told
    }

    /// Whether SNOOP looks after its flows.
    #[inline]
    pub(crate) fn snoops(&self) -> bool {
        self.snoops.load(Ordering::Relaxed)
    }

    /// See [`Self::snoop`].
    pub(crate) fn set_snoop(&self, told: Told) {
        let _bh = sync::Bh::off();
        self.book.lock().snoop = Some(told);
        self.snoops.store(true, Ordering::Relaxed);
    }

    /// Packets and octets sealed or opened, and the last number (origin) or the window's top.
    pub(crate) fn totals(&self) -> (u64, u64, u64) {
        if self.role == Role::Origin {
            let last = self.sequence.load(Ordering::Relaxed);
            return (last, self.octets.load(Ordering::Relaxed), last);
        }
        let _bh = sync::Bh::off();
        let book = self.book.lock();
        (book.packets, book.octets, book.replay.top())
    }

    /// Raises the top of the window, never lowers it.
    pub(crate) fn raise(&self, top: u64) {
        let _bh = sync::Bh::off();
        let mut book = self.book.lock();
        if top > book.replay.top() {
            if let Some(replay) = Replay::starting_at(book.replay.width(), top) {
                book.replay = replay;
                book.bits.iter_mut().for_each(|word| *word = 0);
                self.window.set(top);
            }
        }
    }

    /// The ADD that made it.
    pub(crate) fn message(&self) -> &[u8] {
        self.message.octets()
    }

    /// The largest inner datagram, in octets, that an outer path of `mtu` octets carries whole.
    #[inline]
    pub(crate) fn inner_mtu(&self, mtu: usize) -> usize {
        let ivs = self.zone1.iv.octets() + self.zone2.as_ref().map_or(0, |zone| zone.iv.octets());
        let room =
            mtu.saturating_sub(self.outer.header_len() + esp::HEADER_LEN + ivs + 2 * ICV_LEN);
        // A multiple of 4, of which the trailer takes 2 and the moved checksum 2.
        (room & !3).saturating_sub(esp::TRAILER_LEN + 2)
    }
}

/// SNOOP's settings as the core has them. `EINVAL` for one out of range.
pub(crate) fn told(given: &pfkey::Snoop) -> Result<Told> {
    let settings = Settings::new(
        given.window,
        given.threshold,
        given.initial_ms,
        given.min_rto_ms,
        given.persist_ms,
        given.garbage_ms,
    )
    .map_err(|_| EINVAL)?;
    if given.flags != 0 || given.bytes == 0 {
        return Err(EINVAL);
    }
    Ok(Told {
        settings,
        bytes: given.bytes,
    })
}

/// SNOOP's settings as the zone message has them.
pub(crate) fn given(told: &Told) -> pfkey::Snoop {
    let ms = |ns: u64| (ns / 1_000_000) as u32;
    pfkey::Snoop {
        flags: 0,
        window: told.settings.window,
        threshold: told.settings.threshold,
        initial_ms: ms(told.settings.initial),
        min_rto_ms: ms(told.settings.minimum),
        persist_ms: ms(told.settings.persist),
        garbage_ms: ms(told.settings.garbage),
        bytes: told.bytes,
    }
}

/// The outer ends that a zone message gives. `EAFNOSUPPORT` if they are of two families.
pub(crate) fn outer(src: &pfkey::Address, dst: &pfkey::Address) -> Result<Outer> {
    if src.family != dst.family {
        return Err(EAFNOSUPPORT);
    }
    Ok(Outer {
        family: src.family.version(),
        src: src.octets,
        dst: dst.octets,
    })
}

/// The selector as the core has it.
pub(crate) fn selector(s: &pfkey::Selector) -> Option<Selector> {
    Selector::new(
        s.family.version(),
        s.protocol,
        s.src,
        s.src_len,
        s.dst,
        s.dst_len,
    )
    .ok()
}

fn zone(sa: &pfkey::ZoneSa<'_>) -> Result<Option<Zone>> {
    let Some(keys) = &sa.keys else {
        return Ok(None);
    };
    let cipher = if keys.algorithm.is_aes() {
        Cipher::AesGcm
    } else {
        Cipher::ChaCha20Poly1305
    };
    let iv = if keys.algorithm.is_explicit() {
        IvKind::Explicit
    } else {
        IvKind::Implicit
    };
    let salt = *keys.salt.expose().first_chunk().ok_or(EINVAL)?;
    let aead =
        Aead::new(cipher, keys.key.expose()).map_err(|e| if e == ENOENT { ENOSYS } else { e })?;
    Ok(Some(Zone { aead, salt, iv }))
}

/// The seed of the tables' hashes, drawn when the module starts.
#[derive(Clone, Copy)]
pub(crate) struct Seed(u32);

impl Seed {
    /// A fresh one.
    pub(crate) fn draw() -> Self {
        Seed(sync::random())
    }

    #[inline]
    fn mix(self, words: &[u32]) -> u32 {
        let mut hash = self.0;
        for word in words {
            hash = (hash.rotate_left(5) ^ word).wrapping_mul(0x9E37_79B1);
        }
        hash ^ (hash >> 15)
    }

    /// A terminus or origin, by outer destination and SPI.
    #[inline]
    pub(crate) fn terminus(self, outer: &Outer, spi: u32) -> u32 {
        self.mix(&[self.end(outer.family, 0, &outer.dst), spi])
    }

    /// A relay, by outer source too.
    #[inline]
    pub(crate) fn relay(self, outer: &Outer, spi: u32) -> u32 {
        let (src, dst) = self.ends(outer);
        self.mix(&[src, dst, spi])
    }

    #[inline]
    fn ends(self, outer: &Outer) -> (u32, u32) {
        (
            self.end(outer.family, 6, &outer.src),
            self.end(outer.family, 0, &outer.dst),
        )
    }

    /// An IPv4 address as it is, an IPv6 address mixed.
    #[inline]
    fn end(self, family: u8, class: u32, address: &[u8; 16]) -> u32 {
        if family == 6 {
            return self.host(class, address);
        }
        let [a, b, c, d, ..] = *address;
        u32::from_ne_bytes([a, b, c, d])
    }

    #[inline]
    fn host(self, class: u32, address: &[u8; 16]) -> u32 {
        let [a, b, c, d, e, f, g, h, ..] = *address;
        let [.., i, j, k, l, m, n, o, p] = *address;
        self.mix(&[
            class,
            u32::from_ne_bytes([a, b, c, d]),
            u32::from_ne_bytes([e, f, g, h]),
            u32::from_ne_bytes([i, j, k, l]),
            u32::from_ne_bytes([m, n, o, p]),
        ])
    }

    /// A flow, by the outer ends it comes between and its own.
    #[inline]
    pub(crate) fn flow(self, outer: &Outer, ends: &Ends) -> u32 {
        let ports = u32::from(ends.src_port) << 16 | u32::from(ends.dst_port);
        // IPv4 addresses are one word and zeros.
        let word = |class, address: &[u8; 16]| match u128::from_le_bytes(*address) {
            short if short >> 32 == 0 => short as u32,
            _ => self.host(class, address),
        };
        let (from, to) = self.ends(outer);
        self.mix(&[from, to, word(4, &ends.src), word(5, &ends.dst), ports])
    }

    /// Where something with this selector is kept: by its destination if that is one host, else by its source if that
    /// is, else with all others.
    pub(crate) fn selector(self, selector: &Selector) -> u32 {
        let bits = if selector.family == 4 { 32 } else { 128 };
        if selector.dst_len == bits {
            self.host(1, &selector.dst)
        } else if selector.src_len == bits {
            self.host(2, &selector.src)
        } else {
            self.mix(&[3])
        }
    }

    /// The three places where a selector that covers the packet can be.
    #[inline]
    pub(crate) fn places(self, of: &Addresses) -> [u32; 3] {
        [self.host(1, &of.dst), self.host(2, &of.src), self.mix(&[3])]
    }
}

/// The CSAs of a namespace that the packet path looks up.
pub(crate) struct Sadb {
    pub seed: Seed,
    pub termini: Table<Arc<Csa>>,
    pub relays: Table<Arc<Csa>>,
    pub origins: Table<Arc<Csa>>,
    pub origins_by_spi: Table<Arc<Csa>>,
}

impl Sadb {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Sadb {
            seed: Seed::draw(),
            termini: Table::new(),
            relays: Table::new(),
            origins: Table::new(),
            origins_by_spi: Table::new(),
        }
    }

    /// The terminus CSA of a packet.
    #[inline]
    pub(crate) fn terminus<'g>(
        &'g self,
        outer: &Outer,
        spi: u32,
        reader: &'g Reader,
    ) -> Option<&'g Csa> {
        self.termini
            .get(self.seed.terminus(outer, spi), reader)
            .map(|csa| &**csa)
            .find(|csa| csa.spi == spi && csa.outer.is_to(outer))
    }

    /// The relay CSA of a packet.
    #[inline]
    pub(crate) fn relay<'g>(
        &'g self,
        outer: &Outer,
        spi: u32,
        reader: &'g Reader,
    ) -> Option<&'g Csa> {
        self.relays
            .get(self.seed.relay(outer, spi), reader)
            .map(|csa| &**csa)
            .find(|csa| csa.spi == spi && csa.outer.is(outer))
    }

    /// The origin CSA whose packet an ICMP error tells of.
    pub(crate) fn origin_by_spi<'g>(
        &'g self,
        outer: &Outer,
        spi: u32,
        reader: &'g Reader,
    ) -> Option<&'g Csa> {
        self.origins_by_spi
            .get(self.seed.terminus(outer, spi), reader)
            .map(|csa| &**csa)
            .find(|csa| csa.spi == spi && csa.outer.is(outer))
    }

    /// The CSA that seals a packet: the closest selector's, and of those the newest.
    #[inline]
    pub(crate) fn origin<'g>(&'g self, of: &Addresses, reader: &'g Reader) -> Option<&'g Csa> {
        let rank = |csa: &Csa| {
            (
                u16::from(csa.selector.src_len) + u16::from(csa.selector.dst_len),
                csa.generation,
                csa.id,
            )
        };
        let mut best: Option<&Csa> = None;
        for hash in self.seed.places(of) {
            for csa in self.origins.get(hash, reader) {
                if csa.seals()
                    && csa.selector.matches(of)
                    && best.is_none_or(|b| rank(csa) > rank(b))
                {
                    best = Some(csa);
                }
            }
        }
        best
    }

    /// Whether the place of such a CSA is taken: a terminus' by destination and SPI, the others' by source too.
    pub(crate) fn is_taken(&self, role: Role, spi: u32, outer: &Outer) -> bool {
        Reader::enter(|reader| match role {
            Role::Terminus => self.terminus(outer, spi, reader).is_some(),
            Role::Relay => self.relay(outer, spi, reader).is_some(),
            Role::Origin => self.origin_by_spi(outer, spi, reader).is_some(),
        })
    }

    fn places(&self, csa: &Csa) -> [Option<(&Table<Arc<Csa>>, u32)>; 2] {
        match csa.role {
            Role::Terminus => [
                Some((&self.termini, self.seed.terminus(&csa.outer, csa.spi))),
                None,
            ],
            Role::Relay => [
                Some((&self.relays, self.seed.relay(&csa.outer, csa.spi))),
                None,
            ],
            Role::Origin => [
                Some((
                    &self.origins_by_spi,
                    self.seed.terminus(&csa.outer, csa.spi),
                )),
                Some((&self.origins, self.seed.selector(&csa.selector))),
            ],
        }
    }

    /// Makes a CSA findable. The caller holds the writers' lock and has seen that its place is free.
    pub(crate) fn insert(&self, csa: &Arc<Csa>) -> Result {
        for (table, hash) in self.places(csa).into_iter().flatten() {
            if let Err(e) = table.insert(hash, csa.clone()) {
                self.remove(csa);
                return Err(e);
            }
        }
        Ok(())
    }

    /// Takes a CSA away. The caller holds the writers' lock.
    pub(crate) fn remove(&self, csa: &Csa) {
        for (table, hash) in self.places(csa).into_iter().flatten() {
            table.remove(hash, |c| c.id == csa.id);
        }
    }
}
