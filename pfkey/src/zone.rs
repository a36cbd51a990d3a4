// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The extensions of the zones, 128 to 135 (docs/wire.md §2).

use crate::algorithm::Algorithm;
use crate::error::Error;
use crate::reader::{Cursor, Reader, Secret};
use crate::text::Fault;

/// Zones a map may have here; the data path takes two.
pub const MAX_ZONES: usize = 8;
/// A stop at the end of the transport header (docs/wire.md 1.8a).
pub const TRANSPORT_END: u16 = 0xFFFE;
/// A stop at the end of the datagram: the last zone's.
pub const END: u16 = 0xFFFF;
/// The narrowest replay window, in packets.
pub const WINDOW_MIN: u32 = 64;
/// The widest.
pub const WINDOW_MAX: u32 = 65_536;
/// The window when nobody says anything (docs/wire.md 1.7c).
pub const WINDOW_DEFAULT: u32 = 8_192;
/// Octets of an identity in BINDING.
pub const MAX_BINDING: usize = 1_024;
/// Octets of a SNOOP_STATE: 32 flows (docs/wire.md 3.4a).
pub const MAX_SNOOP_STATE: usize = 2_568;

macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $number:literal $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $variant = $number),+ }

        impl $name {
            /// What this number on the wire means.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some($name::$variant),)+ _ => None }
            }

            /// Its number on the wire.
            pub const fn number(self) -> u8 {
                self as u8
            }

            /// What people call it.
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }

            /// What people call so.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some($name::$variant),)+ _ => None }
            }
        }
    };
}

numbered! {
    /// What a node does with a CSA's packets (docs/wire.md 2.3e).
    Role {
        /// Seals both zones.
        Origin = 1 "origin",
        /// Opens both zones.
        Terminus = 2 "terminus",
        /// Opens zone 1 alone and passes the packet on.
        Relay = 3 "relay",
    }
}

numbered! {
    /// What stands behind the ESP header; numbered as Linux's `IPSEC_MODE_*` (docs/wire.md 1b).
    Mode {
        /// The datagram from its transport header on.
        Transport = 1 "transport",
        /// The whole datagram.
        Tunnel = 2 "tunnel",
    }
}

numbered! {
    /// Where a CSA stands in its life (docs/wire.md 2.3e).
    State {
        /// Its SPI is reserved; it has no keys yet.
        Larval = 0 "larval",
        /// In use.
        Active = 1 "active",
        /// Complete, at a node the mobile host may come to.
        Standby = 2 "standby",
        /// Replaced: opens what is still under way, seals nothing new.
        Dying = 3 "dying",
    }
}

/// ZONE_MAP (docs/wire.md 1.8e, 2.3c).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ZoneMap {
    mode: Mode,
    count: u8,
    stops: [u16; MAX_ZONES],
}

impl ZoneMap {
    /// The map whose zone *i* stops at `stops[i - 1]`: an octet offset below [`TRANSPORT_END`], that, or, for the last
    /// zone and no other, [`END`]. Each stop lies behind the one before. `None` if they don't (docs/wire.md 1.8a).
    pub fn new(mode: Mode, stops: &[u16]) -> Option<Self> {
        let (last, inner) = stops.split_last()?;
        let count = u8::try_from(stops.len()).ok()?;
        let rising = stops
            .iter()
            .zip(stops.iter().skip(1))
            .all(|(stop, next)| stop < next);
        if *last != END || inner.contains(&END) || !rising {
            return None;
        }
        let mut map = ZoneMap {
            mode,
            count,
            stops: [0; MAX_ZONES],
        };
        map.stops.get_mut(..stops.len())?.copy_from_slice(stops);
        Some(map)
    }

    /// Headers in zone 1, payload in zone 2.
    pub const fn default_for(mode: Mode) -> Self {
        ZoneMap {
            mode,
            count: 2,
            stops: [TRANSPORT_END, END, 0, 0, 0, 0, 0, 0],
        }
    }

    /// What the offsets count from.
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// The zones' stops, zone 1 first.
    pub fn stops(&self) -> &[u16] {
        self.stops.get(..usize::from(self.count)).unwrap_or(&[])
    }

    pub(crate) fn decode(mut r: Reader<'_>) -> Result<Self, Fault> {
        let count = r.u8()?;
        let mode = Mode::from_number(r.u8()?).ok_or(Fault::Value)?;
        r.reserved(2)?;
        let mut stops = [0; MAX_ZONES];
        let used = stops.get_mut(..usize::from(count)).ok_or(Fault::Value)?;
        for (zone, stop) in (1..).zip(used.iter_mut()) {
            if r.u8()? != zone {
                return Err(Fault::Value);
            }
            r.reserved(1)?;
            *stop = r.u16()?;
        }
        let map = ZoneMap::new(mode, used).ok_or(Fault::Value)?;
        r.end()?;
        Ok(map)
    }

    pub(crate) fn encode(&self, w: &mut Cursor<'_>) -> Result<(), Error> {
        w.put(&[self.count, self.mode.number(), 0, 0])?;
        for (zone, &stop) in (1..).zip(self.stops()) {
            w.put(&[zone, 0])?;
            w.u16(stop)?;
        }
        Ok(())
    }
}

/// ZONE_SA: the SA of one zone (docs/wire.md 2.3d).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ZoneSa<'a> {
    /// The zone, from 1.
    pub zone: u8,
    /// Its transform and keys; `None` is a null SA: the node can't open this zone.
    pub keys: Option<ZoneKeys<'a>>,
}

/// What a zone is sealed and opened with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ZoneKeys<'a> {
    /// The transform.
    pub algorithm: Algorithm,
    /// The key: 16 or 32 octets.
    pub key: Secret<'a>,
    /// The nonce's first 4 octets.
    pub salt: Secret<'a>,
}

const NULL: u8 = 1;

impl<'a> ZoneSa<'a> {
    /// A null SA: the node can't open this zone.
    pub const fn null(zone: u8) -> Self {
        ZoneSa { zone, keys: None }
    }

    /// Whether key and salt have the lengths the transform asks for.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let Some(keys) = &self.keys else {
            return Ok(());
        };
        let bits = u16::try_from(keys.key.len().saturating_mul(8)).unwrap_or(0);
        if !keys.algorithm.takes_bits(bits) {
            return Err(Error::invalid(
                c"ZONE_SA: the transform has no keys of this length",
            ));
        }
        if keys.salt.len() != crate::SALT_LEN {
            return Err(Error::invalid(c"ZONE_SA: a salt has 4 octets"));
        }
        Ok(())
    }

    pub(crate) fn decode(mut r: Reader<'a>) -> Result<Self, Fault> {
        let zone = r.u8()?;
        if zone == 0 || usize::from(zone) > MAX_ZONES {
            return Err(Fault::Value);
        }
        let (flags, encr, bits) = (r.u8()?, r.u16()?, r.u16()?);
        let (salt_len, icv_len) = (r.u8()?, r.u8()?);
        let keys = match flags {
            NULL => {
                if (encr, bits, salt_len, icv_len) != (0, 0, 0, 0) {
                    return Err(Fault::Value);
                }
                None
            }
            0 => {
                let algorithm = Algorithm::from_encr(encr).ok_or(Fault::Algorithm)?;
                let right = algorithm.takes_bits(bits)
                    && usize::from(salt_len) == crate::SALT_LEN
                    && usize::from(icv_len) == crate::ICV_LEN;
                if !right {
                    return Err(Fault::Value);
                }
                let key = Secret::new(r.bytes(usize::from(bits / 8))?);
                let salt = Secret::new(r.bytes(crate::SALT_LEN)?);
                Some(ZoneKeys {
                    algorithm,
                    key,
                    salt,
                })
            }
            _ => return Err(Fault::Value),
        };
        r.end()?;
        Ok(ZoneSa { zone, keys })
    }

    pub(crate) fn encode(&self, w: &mut Cursor<'_>) -> Result<(), Error> {
        let Some(keys) = &self.keys else {
            w.put(&[self.zone, NULL])?;
            return w.zeros(6);
        };
        // A key too long for the field is refused by whoever reads it.
        let bits = u16::try_from(keys.key.len().saturating_mul(8)).unwrap_or(0);
        w.put(&[self.zone, 0])?;
        w.u16(keys.algorithm.encr())?;
        w.u16(bits)?;
        w.u8(u8::try_from(keys.salt.len()).unwrap_or(0))?;
        w.u8(crate::ICV_LEN as u8)?;
        w.put(keys.key.expose())?;
        w.put(keys.salt.expose())
    }
}

/// CSA: what a composite SA is, beyond its zones (docs/wire.md 2.3e).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CsaExt {
    /// What this node does with it.
    pub role: Role,
    /// Transport or tunnel.
    pub mode: Mode,
    /// Where it stands.
    pub state: State,
    /// The replay window, in packets.
    pub window: u32,
    /// Which CSA of its pair of hosts; later ones are greater.
    pub generation: u32,
    /// Origin: the last number sealed under it. Terminus, relay: the last one seen. 0 for a fresh one.
    pub sequence: u64,
}

impl CsaExt {
    pub(crate) fn decode(mut r: Reader<'_>) -> Result<Self, Fault> {
        let role = Role::from_number(r.u8()?).ok_or(Fault::Value)?;
        let mode = Mode::from_number(r.u8()?).ok_or(Fault::Value)?;
        let state = State::from_number(r.u8()?).ok_or(Fault::Value)?;
        r.reserved(1)?;
        let (window, generation) = (r.u32()?, r.u32()?);
        r.reserved(4)?;
        let sequence = r.u64()?;
        r.end()?;
        Ok(CsaExt {
            role,
            mode,
            state,
            window,
            generation,
            sequence,
        })
    }

    pub(crate) fn encode(&self, w: &mut Cursor<'_>) -> Result<(), Error> {
        w.put(&[
            self.role.number(),
            self.mode.number(),
            self.state.number(),
            0,
        ])?;
        w.u32(self.window)?;
        w.u32(self.generation)?;
        w.zeros(4)?;
        w.u64(self.sequence)
    }
}

/// SNOOP: how a relay repairs losses of this CSA's TCP flows (docs/wire.md 2.3g).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "each says what SNOOP calls it")]
pub struct Snoop {
    pub flags: u16,
    /// Packets kept a flow.
    pub window: u16,
    /// Duplicate acknowledgements before a local retransmission.
    pub threshold: u8,
    pub initial_ms: u32,
    pub min_rto_ms: u32,
    pub persist_ms: u32,
    pub garbage_ms: u32,
    /// Octets kept in all.
    pub bytes: u64,
}

impl Default for Snoop {
    /// What nobody asked otherwise for: the repair starts at the first duplicate, and the time-outs follow the hop
    /// (docs/wire.md 2.1o).
    fn default() -> Self {
        Snoop {
            flags: 0,
            window: 1024,
            threshold: 1,
            initial_ms: 100,
            min_rto_ms: 10,
            persist_ms: 1000,
            garbage_ms: 10_000,
            bytes: 16 << 20,
        }
    }
}

impl Snoop {
    pub(crate) fn decode(mut r: Reader<'_>) -> Result<Self, Fault> {
        let (flags, window, threshold) = (r.u16()?, r.u16()?, r.u8()?);
        r.reserved(3)?;
        let snoop = Snoop {
            flags,
            window,
            threshold,
            initial_ms: r.u32()?,
            min_rto_ms: r.u32()?,
            persist_ms: r.u32()?,
            garbage_ms: r.u32()?,
            bytes: r.u64()?,
        };
        r.end()?;
        Ok(snoop)
    }

    pub(crate) fn encode(&self, w: &mut Cursor<'_>) -> Result<(), Error> {
        w.u16(self.flags)?;
        w.u16(self.window)?;
        w.put(&[self.threshold, 0, 0, 0])?;
        for ms in [
            self.initial_ms,
            self.min_rto_ms,
            self.persist_ms,
            self.garbage_ms,
        ] {
            w.u32(ms)?;
        }
        w.u64(self.bytes)
    }
}

/// RELAY: what a relay may do with zone 1 (docs/wire.md 2.3h).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Relay {
    /// Whether it may rewrite. Origin and terminus must know too: some fields leave AAD 2.
    pub may_write: bool,
    /// The relay's own number under this CSA, 15 bits; 0 at origin and terminus.
    pub number: u16,
    /// Whether packets are held for a handoff: copies of what a relay forwards, and at an origin what finds no way out.
    pub hold: bool,
}

/// RELAY's flags (docs/wire.md 2.3h).
const MAY_WRITE: u16 = 1;
const HOLD: u16 = 2;

impl Relay {
    /// The greatest relay number: the nonce has 15 bits for it.
    pub const NUMBER_MAX: u16 = 0x7FFF;

    pub(crate) fn decode(mut r: Reader<'_>) -> Result<Self, Fault> {
        let (flags, number) = (r.u16()?, r.u16()?);
        r.reserved(4)?;
        if flags & !(MAY_WRITE | HOLD) != 0 || number > Relay::NUMBER_MAX {
            return Err(Fault::Value);
        }
        r.end()?;
        Ok(Relay {
            may_write: flags & MAY_WRITE != 0,
            number,
            hold: flags & HOLD != 0,
        })
    }

    pub(crate) fn encode(&self, w: &mut Cursor<'_>) -> Result<(), Error> {
        let flag = |set, flag| if set { flag } else { 0 };
        w.u16(flag(self.may_write, MAY_WRITE) | flag(self.hold, HOLD))?;
        w.u16(self.number)?;
        w.zeros(4)
    }
}

/// BINDING: the IKE identity a restarted daemon claims the CSA by (docs/wire.md 2.3i).
///
/// Of the 24 reserved bits behind the type the last 16 hold the identity's length in octets: behind 8-octet padding a
/// KEY_ID that ends in zeros could not be told from its padding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Binding<'a> {
    /// IKEv2's ID type (RFC 7296 §3.5).
    pub kind: u8,
    /// The identity, 1 to [`MAX_BINDING`] octets.
    pub data: &'a [u8],
}

impl<'a> Binding<'a> {
    pub(crate) fn decode(mut r: Reader<'a>) -> Result<Self, Fault> {
        let kind = r.u8()?;
        r.reserved(1)?;
        let len = usize::from(r.u16()?);
        if kind == 0 || len == 0 || len > MAX_BINDING {
            return Err(Fault::Value);
        }
        let data = r.bytes(len)?;
        r.end()?;
        Ok(Binding { kind, data })
    }

    pub(crate) fn encode(&self, w: &mut Cursor<'_>) -> Result<(), Error> {
        w.put(&[self.kind, 0])?;
        // An identity too long for the field is refused by whoever reads it.
        w.u16(u16::try_from(self.data.len()).unwrap_or(0))?;
        w.put(self.data)
    }
}

/// SNOOP_STATE: what SNOOP knows of a CSA's flows, as it goes from one foreign agent to the next, in network order
/// (docs/wire.md 2.3n). What is in it is SNOOP's to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnoopState<'a> {
    /// Up to [`MAX_SNOOP_STATE`] octets.
    pub octets: &'a [u8],
}

impl<'a> SnoopState<'a> {
    pub(crate) fn decode(mut r: Reader<'a>) -> Result<Self, Fault> {
        let len = usize::from(r.u16()?);
        r.reserved(2)?;
        if len == 0 || len > MAX_SNOOP_STATE {
            return Err(Fault::Value);
        }
        let octets = r.bytes(len)?;
        r.end()?;
        Ok(SnoopState { octets })
    }

    pub(crate) fn encode(&self, w: &mut Cursor<'_>) -> Result<(), Error> {
        // One too long for the field is refused by whoever reads it.
        w.u16(u16::try_from(self.octets.len()).unwrap_or(0))?;
        w.zeros(2)?;
        w.put(self.octets)
    }
}
