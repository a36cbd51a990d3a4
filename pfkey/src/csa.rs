// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A whole CSA: what ADD must hold, and what DUMP gives back.

use crate::address::Address;
use crate::encap::Encap;
use crate::error::{errno, Error};
use crate::extension::Extension;
use crate::id::outer;
use crate::message::{Message, EXT_HEADER_LEN, HEADER_LEN};
use crate::number::{ext, message, sastate, satype, SPI_MIN};
use crate::selector::Selector;
use crate::standard::{Lifetime, Sa};
use crate::text::Fault;
use crate::writer::Writer;
use crate::zone::{
    Binding, CsaExt, Mode, Relay, Role, Snoop, State, ZoneMap, ZoneSa, TRANSPORT_END, WINDOW_MAX,
    WINDOW_MIN,
};

/// Zones of a CSA on the data path (docs/wire.md 1.8c).
pub const ZONES: usize = 2;
/// Octets of a ZONE_SA in front of key and salt, and of a BINDING in front of the identity (docs/wire.md 2.3d, 2.3i).
const ZONE_SA_HEAD: usize = 8;
const BINDING_HEAD: usize = 4;
/// Octets that zone 1 may have: a stop behind them is never reached.
const ZONE1_MAX: u16 = 256;

/// A CSA as a node holds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Csa<'a> {
    /// The designated SA's SPI, which is in the packets.
    pub spi: u32,
    /// The outer source.
    pub src: Address,
    /// The outer destination, of the same family.
    pub dst: Address,
    /// Role, mode, state, window, generation, sequence.
    pub ext: CsaExt,
    /// The packets inside, in their own direction.
    pub selector: Selector,
    /// Where the zones lie.
    pub map: ZoneMap,
    /// The zones' SAs, zone 1 first; a relay's second is null.
    pub zones: [ZoneSa<'a>; ZONES],
    /// Whether relays may write, and which relay this is.
    pub relay: Relay,
    /// When it ends.
    pub hard: Option<Lifetime>,
    /// When it asks to be replaced.
    pub soft: Option<Lifetime>,
    /// Who may claim it.
    pub binding: Option<Binding<'a>>,
    /// How a relay repairs losses.
    pub snoop: Option<Snoop>,
    /// The UDP ports its packets travel between, where a NAT is on their way (RFC 3948).
    pub encap: Option<Encap>,
}

impl<'a> Csa<'a> {
    /// Takes a CSA from an ADD, and only a whole and consistent one (docs/wire.md 2.2c).
    ///
    /// # Errors
    ///
    /// `EPROTONOSUPPORT` if it is for another SA type; `EINVAL` and a text that names the extension for all else. Whether
    /// the SPI is taken is for the caller to say, with `EEXIST`.
    pub fn from_message(message: &Message<'a>) -> Result<Self, Error> {
        mlesp(message)?;
        let missing = |number| Error::extension(number, Fault::Missing);
        let sa = message.sa().ok_or_else(|| missing(ext::SA))?;
        let ext = message.csa().ok_or_else(|| missing(ext::CSA))?;
        let (src, dst) = outer(message)?;
        let selector = message.selector().ok_or_else(|| missing(ext::SELECTOR))?;
        let map = message.zone_map().ok_or_else(|| missing(ext::ZONE_MAP))?;
        let zone1 = message
            .zone_sa(1)
            .ok_or(Error::invalid(c"ZONE_SA: zone 1's is missing"))?;
        let zone2 = message
            .zone_sa(2)
            .ok_or(Error::invalid(c"ZONE_SA: zone 2's is missing"))?;
        let zone_sas = message
            .extensions()
            .into_iter()
            .filter(|e| e.number() == ext::ZONE_SA);
        if zone_sas.count() != ZONES {
            return Err(Error::invalid(
                c"ZONE_SA: more of them than zones in ZONE_MAP",
            ));
        }
        check_sa(&sa)?;
        let csa = Csa {
            spi: sa.spi,
            src,
            dst,
            ext,
            selector,
            map,
            zones: [zone1, zone2],
            relay: message.relay().unwrap_or_default(),
            hard: message.lifetime_hard(),
            soft: message.lifetime_soft(),
            binding: message.binding(),
            snoop: message.snoop(),
            encap: Encap::from_message(message)?,
        };
        csa.check()?;
        Ok(csa)
    }

    /// Writes it as extensions of an ADD or of an answer to DUMP; keys and all.
    pub fn write<'b>(&self, writer: Writer<'b>) -> Result<Writer<'b>, Error> {
        let [zone1, zone2] = &self.zones;
        let relay = (self.relay != Relay::default()).then_some(Extension::Relay(self.relay));
        writer
            .sa(&Sa::mature(self.spi))?
            .src(&self.src)?
            .dst(&self.dst)?
            .csa(&self.ext)?
            .selector(&self.selector)?
            .zone_map(&self.map)?
            .zone_sa(zone1)?
            .zone_sa(zone2)?
            .maybe(relay)?
            .maybe(self.hard.map(Extension::LifetimeHard))?
            .maybe(self.soft.map(Extension::LifetimeSoft))?
            .maybe(self.binding.map(Extension::Binding))?
            .maybe(self.snoop.map(Extension::Snoop))
            .and_then(|writer| Encap::write(self.encap, writer))
    }

    /// How many octets [`Csa::write_secrets`] writes.
    pub fn secrets_len(&self) -> usize {
        let zone = |sa: &ZoneSa<'_>| {
            let keys = sa.keys.as_ref();
            let secrets = keys.map_or(0, |keys| keys.key.len().saturating_add(keys.salt.len()));
            secrets.saturating_add(ZONE_SA_HEAD)
        };
        let binding = |binding: &Binding<'_>| binding.data.len().saturating_add(BINDING_HEAD);
        self.zones
            .iter()
            .map(zone)
            .chain(self.binding.iter().map(binding))
            .map(|len| len.saturating_add(EXT_HEADER_LEN).next_multiple_of(8))
            .fold(HEADER_LEN, usize::saturating_add)
    }

    /// Writes what is secret in it or of any length, the zones' SAs and the binding, as a message of these alone: what the
    /// kernel keeps of an ADD beside its own state.
    ///
    /// # Errors
    ///
    /// `ENOBUFS` when the buffer is too short.
    pub fn write_secrets<'b>(&self, buffer: &'b mut [u8]) -> Result<&'b [u8], Error> {
        let [zone1, zone2] = &self.zones;
        Writer::new(buffer, message::ADD, satype::MLESP, 0, 0)?
            .zone_sa(zone1)?
            .zone_sa(zone2)?
            .maybe(self.binding.map(Extension::Binding))?
            .finish()
    }

    /// The same CSA with what [`Csa::write_secrets`] wrote.
    ///
    /// # Errors
    ///
    /// What [`Message::parse`] says; `EINVAL` where a zone's SA is missing.
    pub fn with_secrets<'b>(&self, octets: &'b [u8]) -> Result<Csa<'b>, Error> {
        let message = Message::parse(octets)?;
        let zone = |zone| {
            let missing = Error::extension(ext::ZONE_SA, Fault::Missing);
            message.zone_sa(zone).ok_or(missing)
        };
        Ok(Csa {
            zones: [zone(1)?, zone(2)?],
            binding: message.binding(),
            ..*self
        })
    }

    /// Whether its parts fit together, as [`Csa::from_message`] asks.
    pub fn check(&self) -> Result<(), Error> {
        check_spi(self.spi)?;
        check_ext(&self.ext)?;
        check_map(&self.map, self.ext.mode)?;
        self.selector.check()?;
        self.check_zones()?;
        self.check_relay()?;
        self.check_lifetimes()
    }

    /// docs/wire.md 1.2b, 2.3d.
    fn check_zones(&self) -> Result<(), Error> {
        let [zone1, zone2] = &self.zones;
        if zone1.zone != 1 || zone2.zone != 2 {
            return Err(Error::invalid(c"ZONE_SA: zones are numbered from 1"));
        }
        for sa in &self.zones {
            sa.check()?;
        }
        let Some(keys1) = &zone1.keys else {
            return Err(Error::invalid(
                c"ZONE_SA: zone 1's is null, and every role needs its key",
            ));
        };
        match (self.ext.role, &zone2.keys) {
            (Role::Relay, Some(_)) => Err(Error::invalid(
                c"ZONE_SA: a relay's SA of zone 2 must be null",
            )),
            (Role::Relay, None) => Ok(()),
            (_, None) => Err(Error::invalid(
                c"ZONE_SA: zone 2's is null, but only a relay's may be",
            )),
            (_, Some(keys2)) if keys1.key == keys2.key => {
                Err(Error::invalid(c"ZONE_SA: both zones have the same key"))
            }
            (_, Some(_)) => Ok(()),
        }
    }

    fn check_relay(&self) -> Result<(), Error> {
        let [zone1, _] = &self.zones;
        let explicit = zone1.keys.is_some_and(|keys| keys.algorithm.is_explicit());
        // docs/wire.md 1.5a.
        if self.relay.may_write && !explicit {
            return Err(Error::invalid(
                c"RELAY: writing needs an explicit IV in zone 1",
            ));
        }
        if self.ext.role != Role::Relay && self.relay.number != 0 {
            return Err(Error::invalid(c"RELAY: only a relay has a relay number"));
        }
        if self.ext.role == Role::Terminus && self.relay.hold {
            return Err(Error::invalid(
                c"RELAY: a terminus holds nothing for a handoff",
            ));
        }
        if self.ext.role == Role::Relay && self.relay.may_write && self.relay.number == 0 {
            return Err(Error::invalid(
                c"RELAY: a relay that may write needs a relay number",
            ));
        }
        if self.ext.role != Role::Relay && self.snoop.is_some() {
            return Err(Error::invalid(c"SNOOP: only a relay has it"));
        }
        Ok(())
    }

    fn check_lifetimes(&self) -> Result<(), Error> {
        let (Some(hard), Some(soft)) = (self.hard, self.soft) else {
            return Ok(());
        };
        check_lifetimes(&hard, &soft)
    }
}

/// Whether a soft limit lies behind its hard one, where it would never be heard of (docs/wire.md 2.5g).
///
/// # Errors
///
/// `EINVAL` if one does.
pub fn check_lifetimes(hard: &Lifetime, soft: &Lifetime) -> Result<(), Error> {
    let pairs = [
        (soft.allocations.into(), hard.allocations.into()),
        (soft.bytes, hard.bytes),
        (soft.addtime, hard.addtime),
        (soft.usetime, hard.usetime),
    ];
    if pairs.iter().any(|&(soft, hard)| hard != 0 && soft > hard) {
        return Err(Error::invalid(
            c"LIFETIME_SOFT: a limit behind LIFETIME_HARD's",
        ));
    }
    Ok(())
}

pub(crate) fn mlesp(message: &Message<'_>) -> Result<(), Error> {
    if message.header().satype != satype::MLESP {
        return Err(Error {
            errno: errno::EPROTONOSUPPORT,
            text: c"message: SA type is not SADB_X_SATYPE_MLESP (249)",
        });
    }
    Ok(())
}

pub(crate) fn check_spi(spi: u32) -> Result<(), Error> {
    if spi < SPI_MIN {
        return Err(Error::invalid(c"SA: SPIs below 256 are reserved"));
    }
    Ok(())
}

/// docs/wire.md 2.2n.
fn check_sa(sa: &Sa) -> Result<(), Error> {
    if sa.state != sastate::MATURE {
        return Err(Error::invalid(
            c"SA: state must be mature; the CSA extension has the real one",
        ));
    }
    if (sa.replay, sa.auth, sa.encrypt, sa.flags) != (0, 0, 0, 0) {
        return Err(Error::invalid(
            c"SA: replay, algorithms and flags must be 0",
        ));
    }
    Ok(())
}

/// docs/wire.md 1.7c.
fn check_ext(ext: &CsaExt) -> Result<(), Error> {
    if !matches!(ext.state, State::Active | State::Standby) {
        return Err(Error::invalid(c"CSA: a new one is active or standby"));
    }
    if !(WINDOW_MIN..=WINDOW_MAX).contains(&ext.window) {
        return Err(Error::invalid(
            c"CSA: replay window is not within 64 to 65536",
        ));
    }
    check_sequence(ext.sequence)
}

/// Sequence numbers stay below 2^63 (docs/wire.md 1.1b).
pub(crate) fn check_sequence(sequence: u64) -> Result<(), Error> {
    if sequence >> 63 != 0 {
        return Err(Error::invalid(c"CSA: sequence number is not below 2^63"));
    }
    Ok(())
}

/// docs/wire.md 1.8c.
fn check_map(map: &ZoneMap, mode: Mode) -> Result<(), Error> {
    if map.mode() != mode {
        return Err(Error::invalid(c"ZONE_MAP: its mode is not the CSA's"));
    }
    let [stop, _] = map.stops() else {
        return Err(Error::invalid(c"ZONE_MAP: the data path takes two zones"));
    };
    if *stop > ZONE1_MAX && *stop != TRANSPORT_END {
        return Err(Error::invalid(c"ZONE_MAP: zone 1 stops behind octet 256"));
    }
    // docs/wire.md 1.8k.
    if *stop == 0 && mode == Mode::Tunnel {
        return Err(Error::invalid(c"ZONE_MAP: zone 1 is empty in tunnel mode"));
    }
    Ok(())
}
