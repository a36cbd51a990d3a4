// SPDX-License-Identifier: GPL-2.0-only

//! Composite SAs: what one holds, and how it is found without a shared lock.

use core::sync::atomic::{AtomicBool, AtomicU64, AtomicU8, Ordering};
use kernel::alloc::{flags::*, KBox, KVec};
use kernel::new_spinlock;
use kernel::prelude::*;
use kernel::sync::{Arc, SpinLock};
use mml_core::esp::{self, IvKind};
use mml_core::ip::{Addresses, Ports};
use mml_core::replay::{Replay, Resync};
use mml_core::selector::{PortRange, Selector};
use mml_core::snoop::{Ends as FlowEnds, Settings};
use mml_core::zone::{Mode, ZoneMap};
use pfkey::{CsaExt, Role, State};

use crate::counters::{CsaCounters, Reason};
use crate::crypto::{Aead, Cipher, ICV_LEN};
use crate::ends::{Ends, Outer, Path};
use crate::hold::{Hold, Holder};
use crate::lifetime::Life;
use crate::namespace::Namespace;
use crate::net::DstCache;
use crate::snoop::{Told, Window};
use crate::sync::{self, Alarm, Reader, Table, Timed};

/// The state of a CSA whose life is over: it has no name in messages, and nothing comes after it.
const OVER: u8 = u8::MAX;

/// A zone's SA: its keyed transform, salt and kind of IV (docs/wire.md 1.2b).
pub(crate) struct Zone {
    pub aead: Aead,
    pub salt: [u8; esp::SALT_LEN],
    pub iv: IvKind,
}

/// The most that a relay keeps of a replay window, in packets: what comes later than that it forwards as a router does
/// (docs/wire.md 1.7q).
const RELAY_WINDOW: u32 = 1024;

/// What a zone message gave and nothing else here tells: the zones' keys and the binding, as a zone message of these
/// extensions alone, so that DUMP can give them back. Zeroised when the CSA ends.
pub(crate) struct Kept(KVec<u8>);

impl Kept {
    fn new(csa: &pfkey::Csa<'_>) -> Result<Self> {
        let mut kept = Kept(KVec::from_elem(0, csa.secrets_len(), GFP_KERNEL_ACCOUNT)?);
        csa.write_secrets(&mut kept.0)
            .map_err(|e| Error::from_errno(-e.errno))?;
        Ok(kept)
    }
}

impl core::ops::Drop for Kept {
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
    pub snoop: Option<KBox<Told>>,
}

/// A composite SA. Nothing in it is shared with another one.
#[pin_data]
pub(crate) struct Csa {
    pub id: u64,
    pub role: Role,
    pub map: ZoneMap,
    pub spi: u32,
    pub ends: Ends,
    pub selector: Selector,
    pub generation: u32,
    pub may_write: bool,
    /// A relay's own number.
    relay_number: u16,
    pub zone1: Zone,
    /// `None` at a relay (docs/wire.md 1.2b).
    pub zone2: Option<Zone>,
    state: AtomicU8,
    /// The number it began behind.
    first: u64,
    /// Origin: the last number sealed under it.
    sequence: AtomicU64,
    /// Origin: octets of the datagrams sealed. Relay: how many of its IVs are spent, which begins at 0 when the CSA is
    /// added, and no message sets it (docs/wire.md 1.5h). Terminus: when a new mapping was last told of, in jiffies, 0 for
    /// never; its octets it counts behind its lock.
    spent_or_told: AtomicU64,
    /// An origin's; the others have none to remember.
    pub route: DstCache,
    /// Whether SNOOP looks after its flows, read without the lock.
    snoops: AtomicBool,
    pub window: Arc<Window>,
    #[pin]
    pub life: Life,
    #[pin]
    pub book: SpinLock<Book>,
    pub counters: CsaCounters,
    kept: Kept,
    /// What it holds for a handoff, if it does.
    hold: Option<Holder>,
}

// A reference count stands before it; past 512 octets an allocation is of 1,024. Locks are larger where they are debugged.
#[cfg(not(any(CONFIG_DEBUG_SPINLOCK, CONFIG_PREEMPT_RT)))]
const _: () = assert!(core::mem::size_of::<Csa>() <= 512 - 8);

impl Csa {
    /// Makes a CSA of a checked message. Sleeps.
    ///
    /// # Errors
    ///
    /// `EAFNOSUPPORT` for outer ends of two families, `ENOSYS` for a cipher that the kernel lacks, `ENOMEM`.
    pub(crate) fn new(
        id: u64,
        csa: &pfkey::Csa<'_>,
        alarm: Arc<Alarm>,
        ns: &Namespace,
    ) -> Result<Arc<Csa>> {
        let ends = Ends::new(&Path {
            outer: outer(&csa.src, &csa.dst)?,
            encap: csa.encap,
        });
        let mode = match csa.ext.mode {
            pfkey::Mode::Tunnel => Mode::Tunnel,
            pfkey::Mode::Transport => Mode::Transport,
        };
        let map = ZoneMap::new(mode, csa.map.stops()).map_err(|_| EINVAL)?;
        let selector = selector(&csa.selector).ok_or(EINVAL)?;
        let [first, second] = &csa.zones;
        let zone1 = zone(first)?.ok_or(EINVAL)?;
        let zone2 = zone(second)?;
        let width = match csa.ext.role {
            Role::Relay => csa.ext.window.min(RELAY_WINDOW),
            _ => csa.ext.window,
        };
        // docs/wire.md 1.7f.
        let replay = Replay::starting_at(width, csa.ext.sequence).ok_or(EINVAL)?;
        let mut bits = KVec::new();
        if csa.ext.role != Role::Origin {
            bits.resize(Replay::words(width), 0u64, GFP_KERNEL_ACCOUNT)?;
        }
        let kept = Kept::new(csa)?;
        let book = Book {
            replay,
            bits,
            resync: Resync::default(),
            packets: 0,
            octets: 0,
            snoop: csa.snoop.as_ref().map(boxed).transpose()?,
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
        let relay_number = csa.relay.number;
        let (soft, hard) = (csa.soft, csa.hard);
        let counters = CsaCounters::new(role)?;
        let hold = if csa.relay.hold {
            Some(Hold::new(ns, role == Role::Origin)?)
        } else {
            None
        };
        let route = match role {
            Role::Origin => DstCache::new()?,
            _ => DstCache::none(),
        };
        Arc::pin_init(
            pin_init!(Csa {
                id, role, map, spi, ends, selector, generation, may_write, relay_number, zone1, zone2, route, kept, hold,
                state: AtomicU8::new(state),
                first: sequence,
                sequence: AtomicU64::new(sequence),
                spent_or_told: AtomicU64::new(0),
                snoops,
                window,
                life <- Life::new(soft, hard, alarm),
                book <- new_spinlock!(book, "mml_csa"),
                counters,
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// Its state.
    pub(crate) fn state(&self) -> State {
        State::from_number(self.state.load(Ordering::Relaxed)).unwrap_or(State::Dying)
    }

    /// Changes its state, unless its life is over.
    pub(crate) fn set_state(&self, state: State) {
        let _ = self
            .state
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
                (now != OVER).then_some(state.number())
            });
    }

    /// Ends its life: it neither seals nor opens from now on.
    pub(crate) fn end(&self) {
        self.state.store(OVER, Ordering::Relaxed);
    }

    /// Why it doesn't seal or open.
    pub(crate) fn closed(&self) -> Reason {
        match self.state.load(Ordering::Relaxed) {
            OVER => Reason::Expired,
            _ => Reason::NotActive,
        }
    }

    /// Counts what the packet in hand brings the CSA's packets and octets to, with bottom halves off. `Expired` if that is
    /// past a hard limit (docs/wire.md 2.5d).
    #[inline]
    pub(crate) fn spend(&self, packets: u64, octets: u64) -> Result<(), Reason> {
        if !self.life.is_due(packets, octets) {
            return Ok(());
        }
        let (over, past) = self.life.count(packets, octets);
        if over {
            self.end();
        }
        if past {
            Err(Reason::Expired)
        } else {
            Ok(())
        }
    }

    /// Whether it seals (docs/wire.md 2.2s).
    #[inline]
    pub(crate) fn seals(&self) -> bool {
        self.state.load(Ordering::Relaxed) == State::Active.number()
    }

    /// Whether it opens: dying ones still do, so that what is under way arrives (docs/wire.md 2.2s).
    #[inline]
    pub(crate) fn opens(&self) -> bool {
        let state = self.state.load(Ordering::Relaxed);
        state == State::Active.number() || state == State::Dying.number()
    }

    /// The next `count` sequence numbers for so many octets: the first of them. `Exhausted` once they are used up,
    /// `Expired` past a hard limit. The origin's only atomics (docs/wire.md 1.1b, 2.5e).
    #[inline]
    pub(crate) fn take_numbers(&self, count: u64, octets: u64) -> Result<u64, Reason> {
        let last = self.sequence.fetch_add(count, Ordering::Relaxed);
        let before = self.spent_or_told.fetch_add(octets, Ordering::Relaxed);
        let packets = last.wrapping_sub(self.first).wrapping_add(count);
        self.spend(packets, before.wrapping_add(octets))?;
        // Far past the end it stays refused: 2^63 more would be needed to wrap.
        match last.checked_add(count) {
            Some(end) if esp::seq_valid(end) => Ok(last + 1),
            _ => Err(self.exhausted()),
        }
    }

    /// Its numbers are used up: another CSA, if there is one, seals from now on (docs/wire.md 2.2t).
    #[cold]
    fn exhausted(&self) -> Reason {
        let dies = self.state.compare_exchange(
            State::Active.number(),
            State::Dying.number(),
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        if dies.is_ok() {
            self.life.state_changed();
        }
        Reason::Exhausted
    }

    /// What it holds packets by for a handoff, if it does (docs/wire.md 2.3h).
    #[inline]
    pub(crate) fn hold(&self) -> Option<&Timed<Hold>> {
        self.hold.as_deref()
    }

    /// Its relay number, if it is a relay that may write.
    pub(crate) fn may_write_as_relay(&self) -> Option<u16> {
        (self.role == Role::Relay && self.may_write).then_some(self.relay_number)
    }

    /// Whether this relay may rewrite zone 1, and has an IV left to do it with (docs/wire.md 1.5a).
    #[inline]
    pub(crate) fn writes(&self) -> bool {
        self.role == Role::Relay
            && self.may_write
            && esp::relay_iv(self.relay_number, self.written()).is_some()
    }

    /// The relay's next IV, which nobody gets again; `None` once they are used up (docs/wire.md 1.5h).
    pub(crate) fn relay_iv(&self) -> Option<u64> {
        if self.role != Role::Relay {
            return None;
        }
        // Past the end it stays refused: 2^63 more would be needed to wrap.
        esp::relay_iv(
            self.relay_number,
            self.spent_or_told.fetch_add(1, Ordering::Relaxed),
        )
    }

    /// How many IVs of the relay are spent: packets that it has rewritten.
    #[inline]
    pub(crate) fn written(&self) -> u64 {
        match self.role {
            Role::Relay => self.spent_or_told.load(Ordering::Relaxed),
            Role::Origin | Role::Terminus => 0,
        }
    }

    /// Packets and octets that it has carried here.
    pub(crate) fn carried(&self) -> (u64, u64) {
        let (packets, octets, _) = self.totals();
        if self.role == Role::Origin {
            (packets.saturating_sub(self.first), octets)
        } else {
            (packets, octets)
        }
    }

    /// Whether a new mapping is to be told of: at most one a second (docs/wire.md 2.2i).
    pub(crate) fn mapping_due(&self) -> bool {
        self.role == Role::Terminus && sync::once_a_second(&self.spent_or_told)
    }

    /// How SNOOP treats its flows, if it does.
    pub(crate) fn snoop(&self) -> Option<Told> {
        if !self.snoops() {
            return None;
        }
        let _bh = sync::Bh::off();
        let told = self.book.lock().snoop.as_deref().copied();
        told
    }

    /// Whether SNOOP looks after its flows.
    #[inline]
    pub(crate) fn snoops(&self) -> bool {
        self.snoops.load(Ordering::Relaxed)
    }

    /// See [`Self::snoop`]. `ENOMEM`, and nothing has changed.
    pub(crate) fn set_snoop(&self, told: Told) -> Result {
        let told = KBox::new(told, GFP_KERNEL_ACCOUNT)?;
        let _bh = sync::Bh::off();
        let before = self.book.lock().snoop.replace(told);
        self.snoops.store(true, Ordering::Relaxed);
        drop(before);
        Ok(())
    }

    /// Counts a packet that was dropped, or passed on unopened.
    pub(crate) fn count(&self, ns: &Namespace, reason: Reason) {
        self.counters.count(self.role, reason, &ns.counters);
    }

    /// How often that was.
    pub(crate) fn counted(&self, reason: Reason) -> u64 {
        self.counters.get(self.role, reason)
    }

    /// Packets and octets sealed or opened, and the last number (origin) or the window's top.
    pub(crate) fn totals(&self) -> (u64, u64, u64) {
        if self.role == Role::Origin {
            let last = self.sequence.load(Ordering::Relaxed);
            return (last, self.spent_or_told.load(Ordering::Relaxed), last);
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

    /// The mode it was given.
    fn mode(&self) -> pfkey::Mode {
        match self.map.mode() {
            Mode::Tunnel => pfkey::Mode::Tunnel,
            Mode::Transport => pfkey::Mode::Transport,
        }
    }

    /// How it stands now.
    pub(crate) fn standing(&self) -> CsaExt {
        let (_, _, sequence) = self.totals();
        CsaExt {
            role: self.role,
            mode: self.mode(),
            state: self.state(),
            window: self.window.width(),
            generation: self.generation,
            sequence,
        }
    }

    /// Lends `f` the CSA as a zone message gives it: as it was given but for what has changed since.
    ///
    /// # Errors
    ///
    /// What `f` says.
    pub(crate) fn with_given<T>(
        &self,
        f: impl FnOnce(&pfkey::Csa<'_>) -> Result<T, pfkey::Error>,
    ) -> Result<T, pfkey::Error> {
        let path = self.ends.get();
        let (soft, hard) = self.life.given();
        let s = &self.selector;
        let (src_ports, dst_ports) = s.ports();
        let range = |ports: PortRange| {
            pfkey::PortRange::new(ports.first, ports.last).unwrap_or(pfkey::PortRange::ANY)
        };
        let bare = pfkey::Csa {
            spi: self.spi,
            src: address(path.outer.family, path.outer.src),
            dst: address(path.outer.family, path.outer.dst),
            ext: self.standing(),
            selector: pfkey::Selector {
                family: pfkey::Family::of_version(s.family),
                protocol: s.protocol,
                src_len: s.src_len,
                dst_len: s.dst_len,
                src: s.src,
                dst: s.dst,
                src_ports: range(src_ports),
                dst_ports: range(dst_ports),
            },
            map: pfkey::ZoneMap::new(self.mode(), self.map.stops()).ok_or(pfkey::Error {
                errno: pfkey::errno::EINVAL,
                text: c"ZONE_MAP: not two zones",
            })?,
            zones: [pfkey::ZoneSa::null(1), pfkey::ZoneSa::null(2)],
            relay: pfkey::Relay {
                may_write: self.may_write,
                number: self.relay_number,
                hold: self.hold.is_some(),
            },
            hard,
            soft,
            binding: None,
            snoop: self.snoop().as_ref().map(given),
            encap: path.encap,
        };
        f(&bare.with_secrets(&self.kept.0)?)
    }

    /// The largest datagram, in octets, that an outer path of `mtu` octets carries whole, its own IP header being of `own`
    /// octets, which in transport mode stays outside (docs/wire.md 1.6e, 1.11f).
    #[inline]
    pub(crate) fn inner_mtu(&self, mtu: usize, path: &Path, own: usize) -> usize {
        let ivs = self.zone1.iv.octets() + self.zone2.as_ref().map_or(0, |zone| zone.iv.octets());
        let (outside, own) = match self.map.mode() {
            Mode::Tunnel => (path.outer.header_len(), 0),
            Mode::Transport => (own, own),
        };
        let front = outside + path.udp_len() + esp::HEADER_LEN + ivs;
        let room = mtu.saturating_sub(front + 2 * ICV_LEN);
        // A multiple of 4, of which the trailer takes 2 and the moved checksum 2.
        (room & !3).saturating_sub(esp::TRAILER_LEN + 2) + own
    }
}

fn boxed(given: &pfkey::Snoop) -> Result<KBox<Told>> {
    Ok(KBox::new(told(given)?, GFP_KERNEL_ACCOUNT)?)
}

/// SNOOP's settings as the core has them. `EINVAL` for one out of range (docs/wire.md 2.3g).
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

/// An outer end as the zone message has it.
pub(crate) fn address(family: u8, octets: [u8; 16]) -> pfkey::Address {
    pfkey::Address::host(pfkey::Family::of_version(family), octets)
}

/// The selector as the core has it.
pub(crate) fn selector(s: &pfkey::Selector) -> Option<Selector> {
    let range = |ports: pfkey::PortRange| {
        let (first, last) = ports.bounds();
        PortRange { first, last }
    };
    Selector::new(
        s.family.version(),
        s.protocol,
        s.src,
        s.src_len,
        s.dst,
        s.dst_len,
    )
    .and_then(|selector| selector.with_ports(range(s.src_ports), range(s.dst_ports)))
    .ok()
}

/// docs/wire.md 2.3j.
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
    pub(crate) fn flow(self, outer: &Outer, ends: &FlowEnds) -> u32 {
        let ports = u32::from(ends.src_port) << 16 | u32::from(ends.dst_port);
        let (from, to) = self.ends(outer);
        let src = self.end(ends.family, 4, &ends.src);
        let dst = self.end(ends.family, 5, &ends.dst);
        self.mix(&[from, to, src, dst, ports])
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

    /// The terminus CSA of a packet (docs/wire.md 1.7a).
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
            .find(|csa| csa.spi == spi && csa.ends.are_to(outer))
    }

    /// The relay CSA of a packet (docs/wire.md 1.7a).
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
            .find(|csa| csa.spi == spi && csa.ends.are(outer))
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
            .find(|csa| csa.spi == spi && csa.ends.are(outer))
    }

    /// The CSA that seals a packet: the closest selector's, and of those the newest (docs/wire.md 2.2p, 2.3m).
    #[inline]
    pub(crate) fn origin<'g>(
        &'g self,
        of: &Addresses,
        ports: impl Fn() -> Option<Ports>,
        reader: &'g Reader,
    ) -> Option<&'g Csa> {
        let rank = |csa: &Csa| (csa.selector.closeness(), csa.generation, csa.id);
        let mut best: Option<&Csa> = None;
        for hash in self.seed.places(of) {
            for csa in self.origins.get(hash, reader) {
                if csa.seals()
                    && csa.selector.matches(of, &ports)
                    && best.is_none_or(|b| rank(csa) > rank(b))
                {
                    best = Some(csa);
                }
            }
        }
        best
    }

    /// The CSA that would seal a packet, were its life not over.
    pub(crate) fn ended_origin<'g>(
        &'g self,
        of: &Addresses,
        ports: impl Fn() -> Option<Ports>,
        reader: &'g Reader,
    ) -> Option<&'g Csa> {
        self.seed.places(of).into_iter().find_map(|hash| {
            self.origins
                .get(hash, reader)
                .map(|csa| &**csa)
                .find(|csa| csa.closed() == Reason::Expired && csa.selector.matches(of, &ports))
        })
    }

    /// Whether the place of such a CSA is taken: a terminus' by destination and SPI, the others' by source too.
    pub(crate) fn is_taken(&self, role: Role, spi: u32, outer: &Outer) -> bool {
        Reader::enter(|reader| match role {
            Role::Terminus => self.terminus(outer, spi, reader).is_some(),
            Role::Relay => self.relay(outer, spi, reader).is_some(),
            Role::Origin => self.origin_by_spi(outer, spi, reader).is_some(),
        })
    }

    /// Where a CSA is kept that lies between `outer`.
    fn places(&self, csa: &Csa, outer: &Outer) -> [Option<(&Table<Arc<Csa>>, u32)>; 2] {
        let found = self.seed.terminus(outer, csa.spi);
        match csa.role {
            Role::Terminus => [Some((&self.termini, found)), None],
            Role::Relay => [Some((&self.relays, self.seed.relay(outer, csa.spi))), None],
            Role::Origin => [
                Some((&self.origins_by_spi, found)),
                Some((&self.origins, self.seed.selector(&csa.selector))),
            ],
        }
    }

    /// Makes a CSA findable. The caller holds the writers' lock and has seen that its place is free.
    pub(crate) fn insert(&self, csa: &Arc<Csa>) -> Result {
        for (table, hash) in self
            .places(csa, &csa.ends.get().outer)
            .into_iter()
            .flatten()
        {
            if let Err(e) = table.insert(hash, csa.clone()) {
                self.remove(csa);
                return Err(e);
            }
        }
        Ok(())
    }

    /// Takes a CSA away. The caller holds the writers' lock.
    pub(crate) fn remove(&self, csa: &Csa) {
        for outer in [csa.ends.get().outer, csa.ends.before().outer] {
            for (table, hash) in self.places(csa, &outer).into_iter().flatten() {
                table.remove(hash, |c| c.id == csa.id);
            }
        }
    }

    /// Moves a CSA to other ends. It is found by the old ones too, until it moves again: what is under way between them
    /// arrives. The caller holds the writers' lock and has seen that the new place is free (docs/wire.md 2.2h).
    ///
    /// # Errors
    ///
    /// `ENOMEM`, and nothing has changed.
    pub(crate) fn migrate(&self, csa: &Arc<Csa>, path: &Path) -> Result {
        let (now, before) = (csa.ends.get().outer, csa.ends.before().outer);
        // The first place alone depends on the ends.
        let place = |outer: &Outer| {
            let [first, _] = self.places(csa, outer);
            first
        };
        let listed = path.outer == now || path.outer == before;
        if let Some((table, hash)) = place(&path.outer).filter(|_| !listed) {
            table.insert(hash, csa.clone())?;
        }
        csa.ends.set(path);
        if before != Outer::NONE && before != now && before != path.outer {
            if let Some((table, hash)) = place(&before) {
                table.remove(hash, |c| c.id == csa.id);
            }
        }
        csa.route.reset();
        Ok(())
    }
}
