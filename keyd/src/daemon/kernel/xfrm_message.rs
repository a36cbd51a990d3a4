// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! XFRM's netlink messages (Linux's `xfrm.h`): what is written, and the few that are read.
//!
//! Of our own rather than the crate `netlink-packet-xfrm`: a request holds keys and must be overwritten when it has been
//! sent, and six messages are all there is. Integers are host-endian but for SPIs, ports and addresses.

use super::{Action, Keys, Limits, Role, Rule, Sa, SaId};
use crate::netlink::frame::{self, Attributes, Message, Request};
use mml_ike::crypto::Cipher;
use pfkey::{Family, Mode, PortRange, Selector};
use std::net::IpAddr;
use zeroize::Zeroizing;

/// `XFRM_MSG_*`.
#[expect(missing_docs, reason = "the names are XFRM's")]
pub mod kind {
    pub const NEWSA: u16 = 0x10;
    pub const DELSA: u16 = 0x11;
    pub const GETSA: u16 = 0x12;
    pub const DELPOLICY: u16 = 0x14;
    pub const ALLOCSPI: u16 = 0x16;
    pub const ACQUIRE: u16 = 0x17;
    pub const EXPIRE: u16 = 0x18;
    pub const UPDPOLICY: u16 = 0x19;
    pub const UPDSA: u16 = 0x1a;
}

/// `XFRMNLGRP_*`: multicast groups.
#[expect(missing_docs, reason = "the names are XFRM's")]
pub mod group {
    pub const ACQUIRE: u32 = 1;
    pub const EXPIRE: u32 = 2;
}

/// `XFRMA_*`.
mod attribute {
    pub const ENCAP: u16 = 4;
    pub const TMPL: u16 = 5;
    pub const ALG_AEAD: u16 = 18;
    pub const REPLAY_ESN_VAL: u16 = 23;
}

/// `IPPROTO_ESP`.
const ESP: u8 = 50;
/// `XFRM_MODE_TRANSPORT` and `XFRM_MODE_TUNNEL`.
fn mode_number(mode: Mode) -> u8 {
    match mode {
        Mode::Transport => 0,
        Mode::Tunnel => 1,
    }
}
/// `XFRM_STATE_AF_UNSPEC`: the selector's family is not the tunnel's.
const STATE_AF_UNSPEC: u8 = 32;
/// `XFRM_STATE_ESN`.
const STATE_ESN: u8 = 128;
/// `XFRM_INF`.
const INFINITE: u64 = u64::MAX;
/// `UDP_ENCAP_ESPINUDP` (RFC 3948).
pub const ESP_IN_UDP: u16 = 2;
/// Packets of the replay window of plain SAs.
const WINDOW: u32 = 1024;
/// Bits of the ICV (RFC 4106 §6, RFC 7634 §2).
const ICV_BITS: u32 = 128;

/// `XFRM_POLICY_*`: a policy's direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Direction {
    /// What is delivered here.
    In = 0,
    /// What leaves.
    Out = 1,
    /// What is passed on.
    Forward = 2,
}

fn family(address: IpAddr) -> u16 {
    let family = match address {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    };
    u16::from(family.af())
}

/// A structure being written.
struct Body(Vec<u8>);

impl Body {
    fn new() -> Self {
        Body(Vec::with_capacity(512))
    }

    fn u8(&mut self, values: &[u8]) {
        self.0.extend(values);
    }

    fn u16(&mut self, value: u16) {
        self.0.extend(value.to_ne_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.0.extend(value.to_ne_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend(value.to_ne_bytes());
    }

    fn zeros(&mut self, count: usize) {
        self.0.resize(self.0.len() + count, 0);
    }

    /// `xfrm_address_t`: 16 octets.
    fn address(&mut self, address: IpAddr) {
        self.u8(&crate::address::host(address).octets);
    }

    /// `struct xfrm_id`: 24 octets.
    fn id(&mut self, destination: IpAddr, spi: u32) {
        self.address(destination);
        self.u8(&spi.to_be_bytes());
        self.u8(&[ESP, 0, 0, 0]);
    }

    /// `struct xfrm_selector`: 56 octets.
    fn selector(&mut self, selector: &Selector) {
        self.u8(&selector.dst);
        self.u8(&selector.src);
        for range in [selector.dst_ports, selector.src_ports] {
            // None that isn't masked comes here: `has_masks` is asked first.
            let (port, mask) = masked(range).unwrap_or((0, 0));
            self.u8(&port.to_be_bytes());
            self.u8(&mask.to_be_bytes());
        }
        self.u16(u16::from(selector.family.af()));
        self.u8(&[selector.dst_len, selector.src_len, selector.protocol]);
        self.zeros(3 + 4 + 4);
    }

    /// `struct xfrm_lifetime_cfg`: 64 octets.
    fn limits(&mut self, soft: Limits, hard: Limits) {
        let or_none = |value| if value == 0 { INFINITE } else { value };
        self.u64(or_none(soft.bytes));
        self.u64(or_none(hard.bytes));
        self.u64(INFINITE);
        self.u64(INFINITE);
        // Times are other than octets: 0 is none.
        self.u64(soft.seconds);
        self.u64(hard.seconds);
        self.zeros(16);
    }

    /// `struct xfrm_usersa_info`: 224 octets.
    fn sa_info(&mut self, of: &SaInfo) {
        match &of.selector {
            Some(selector) => self.selector(selector),
            None => self.zeros(56),
        }
        self.id(of.dst, of.spi);
        self.address(of.src);
        self.limits(of.soft, of.hard);
        // Current life-time, statistics, number.
        self.zeros(32 + 12 + 4);
        self.u32(of.reqid);
        self.u16(family(of.dst));
        self.u8(&[mode_number(of.mode), 0, of.flags]);
        self.zeros(7);
    }
}

struct SaInfo {
    selector: Option<Selector>,
    spi: u32,
    src: IpAddr,
    dst: IpAddr,
    soft: Limits,
    hard: Limits,
    reqid: u32,
    mode: Mode,
    flags: u8,
}

/// A range of ports as XFRM says it: the bits behind the mask are any. `None` for a range that isn't so made.
fn masked(range: PortRange) -> Option<(u16, u16)> {
    let (first, last) = range.bounds();
    let behind = first ^ last;
    let aligned = behind & behind.wrapping_add(1) == 0 && first & behind == 0;
    aligned.then_some((first, !behind))
}

/// What [`masked`] made of a range.
fn unmasked(port: u16, mask: u16) -> Option<PortRange> {
    PortRange::new(port & mask, port | !mask).filter(|range| masked(*range) == Some((port, mask)))
}

/// Whether XFRM can say which ports a selector names: all, one, or 2^n from a multiple of 2^n on.
pub fn has_masks(selector: &Selector) -> bool {
    masked(selector.src_ports).is_some() && masked(selector.dst_ports).is_some()
}

/// `XFRM_MSG_ALLOCSPI`: makes a larval SA of that very SPI.
pub fn alloc_spi(seq: u32, spi: u32, src: IpAddr, dst: IpAddr) -> Zeroizing<Vec<u8>> {
    let mut body = Body::new();
    body.sa_info(&SaInfo {
        selector: None,
        spi: 0,
        src,
        dst,
        soft: Limits::default(),
        hard: Limits::default(),
        reqid: 0,
        mode: Mode::Tunnel,
        flags: 0,
    });
    body.u32(spi);
    body.u32(spi);
    Request::with_body(kind::ALLOCSPI, frame::ACK, seq, &body.0).finish()
}

fn algorithm(cipher: Cipher) -> &'static [u8] {
    match cipher {
        Cipher::Aes128Gcm | Cipher::Aes256Gcm => b"rfc4106(gcm(aes))",
        Cipher::ChaCha20Poly1305 => b"rfc7539esp(chacha20,poly1305)",
    }
}

/// `XFRM_MSG_NEWSA`, or `XFRM_MSG_UPDSA` where an SPI was reserved. `None` for a composite SA.
///
/// An inbound SA's selector is left open: the policy checks what was inside, and a selector would refuse what a
/// neighbouring policy of the same template permits.
pub fn new_sa(seq: u32, sa: &Sa, update: bool) -> Option<Zeroizing<Vec<u8>>> {
    let Keys::Plain { cipher, esn, keys } = &sa.keys else {
        return None;
    };
    // In transport mode what is inside is of the outer family, and XFRM takes the flag for a mistake.
    let any_family = match sa.mode {
        Mode::Tunnel => STATE_AF_UNSPEC,
        Mode::Transport => 0,
    };
    let mut body = Body::new();
    body.sa_info(&SaInfo {
        selector: None,
        spi: sa.id.spi,
        src: sa.id.src,
        dst: sa.id.dst,
        soft: sa.soft,
        hard: sa.hard,
        reqid: sa.reqid,
        mode: sa.mode,
        flags: any_family | if *esn { STATE_ESN } else { 0 },
    });
    // `struct xfrm_algo_aead`: name (64 octets), bits of key and salt, bits of the ICV, key, salt.
    let mut aead = Zeroizing::new(Vec::with_capacity(128));
    aead.extend(algorithm(*cipher));
    aead.resize(64, 0);
    let bits = 8 * (keys.key.len() + keys.salt.len());
    aead.extend(u32::try_from(bits).unwrap_or(0).to_ne_bytes());
    aead.extend(ICV_BITS.to_ne_bytes());
    aead.extend(keys.key.expose());
    aead.extend(keys.salt.expose());
    // `struct xfrm_replay_state_esn`: words of the bitmap, four counters, window, bitmap. It carries the window of SAs
    // without ESN too, which is at most 32 packets otherwise.
    let words = WINDOW.div_ceil(32);
    let window = if sa.id.role == Role::Terminus {
        WINDOW
    } else {
        1
    };
    let mut replay = Body::new();
    replay.u32(words);
    replay.zeros(16);
    replay.u32(window);
    replay.zeros(4 * usize::try_from(words).unwrap_or(0));
    let kind = if update { kind::UPDSA } else { kind::NEWSA };
    let mut request = Request::with_body(kind, frame::ACK, seq, &body.0)
        .attribute(attribute::ALG_AEAD, &aead)
        .attribute(attribute::REPLAY_ESN_VAL, &replay.0);
    if let Some((source, destination)) = sa.udp {
        // `struct xfrm_encap_tmpl`: 24 octets.
        let mut encap = Body::new();
        encap.u16(ESP_IN_UDP);
        encap.u8(&source.to_be_bytes());
        encap.u8(&destination.to_be_bytes());
        encap.zeros(2 + 16);
        request = request.attribute(attribute::ENCAP, &encap.0);
    }
    Some(request.finish())
}

/// `struct xfrm_usersa_id`: 24 octets.
fn sa_named(spi: u32, dst: IpAddr) -> Body {
    let mut body = Body::new();
    body.address(dst);
    body.u8(&spi.to_be_bytes());
    body.u16(family(dst));
    body.u8(&[ESP, 0]);
    body
}

/// `XFRM_MSG_DELSA`.
pub fn delete_sa(seq: u32, spi: u32, dst: IpAddr) -> Zeroizing<Vec<u8>> {
    let body = sa_named(spi, dst);
    Request::with_body(kind::DELSA, frame::ACK, seq, &body.0).finish()
}

/// `XFRM_MSG_GETSA`, answered with an `XFRM_MSG_NEWSA`.
pub fn ask_sa(seq: u32, spi: u32, dst: IpAddr) -> Zeroizing<Vec<u8>> {
    let body = sa_named(spi, dst);
    Request::with_body(kind::GETSA, frame::ACK, seq, &body.0).finish()
}

/// `XFRM_MSG_UPDPOLICY`: adds a policy, or puts it in place of the one of its selector.
pub fn policy(seq: u32, rule: &Rule, direction: Direction) -> Zeroizing<Vec<u8>> {
    // `struct xfrm_userpolicy_info`: 168 octets.
    let mut body = Body::new();
    body.selector(&rule.selector);
    body.limits(Limits::default(), Limits::default());
    body.zeros(32);
    body.u32(rule.priority);
    body.u32(0);
    // XFRM_POLICY_ALLOW for both: what a template asks for is asked for.
    body.u8(&[direction as u8, 0, 0, 0]);
    body.zeros(4);
    let request = Request::with_body(kind::UPDPOLICY, frame::ACK, seq, &body.0);
    let (Action::Protect, Some((src, dst))) = (rule.action, rule.outer) else {
        return request.finish();
    };
    // `struct xfrm_user_tmpl`: 64 octets.
    let mut template = Body::new();
    template.id(dst, 0);
    template.u16(family(dst));
    template.zeros(2);
    template.address(src);
    template.u32(rule.reqid);
    // Mode, share, required, padding; then any algorithm of each kind.
    template.u8(&[mode_number(rule.mode), 0, 0, 0]);
    for _ in 0..3 {
        template.u32(u32::MAX);
    }
    request.attribute(attribute::TMPL, &template.0).finish()
}

/// `XFRM_MSG_DELPOLICY`.
pub fn delete_policy(seq: u32, rule: &Rule, direction: Direction) -> Zeroizing<Vec<u8>> {
    // `struct xfrm_userpolicy_id`: 64 octets.
    let mut body = Body::new();
    body.selector(&rule.selector);
    body.u32(0);
    body.u8(&[direction as u8, 0, 0, 0]);
    Request::with_body(kind::DELPOLICY, frame::ACK, seq, &body.0).finish()
}

/// A part of a structure that came.
fn part<const N: usize>(body: &[u8], at: usize) -> Option<[u8; N]> {
    body.get(at..)?.first_chunk::<N>().copied()
}

fn address_at(body: &[u8], at: usize, family: Family) -> Option<IpAddr> {
    Some(crate::address::ip(family, &part(body, at)?))
}

fn family_at(body: &[u8], at: usize) -> Option<Family> {
    let family = u16::from_ne_bytes(part(body, at)?);
    Family::from_af(u8::try_from(family).ok()?)
}

/// The selector of an `XFRM_MSG_ACQUIRE`'s policy: which policy wants an SA.
pub fn acquired(message: &Message<'_>) -> Option<Selector> {
    // `struct xfrm_user_acquire`: id (24), source (16), the packet's selector (56), policy (168), …
    const POLICY: usize = 24 + 16 + 56;
    let body = message.body;
    let family = family_at(body, POLICY + 40)?;
    let [dst_len, src_len, protocol] = part(body, POLICY + 42)?;
    let ports = |at| {
        let [port, mask] = [part(body, at)?, part(body, at + 2)?].map(u16::from_be_bytes);
        unmasked(port, mask)
    };
    let selector = Selector {
        family,
        protocol,
        src_len,
        dst_len,
        src: part(body, POLICY + 16)?,
        dst: part(body, POLICY)?,
        src_ports: ports(POLICY + 36)?,
        dst_ports: ports(POLICY + 32)?,
    };
    selector.is_sound().then_some(selector)
}

/// Of an `XFRM_MSG_EXPIRE`: SPI, source, destination, and whether the hard limit was met.
pub fn expired(message: &Message<'_>) -> Option<(u32, IpAddr, IpAddr, bool)> {
    // `struct xfrm_user_expire`: `struct xfrm_usersa_info` (224), hard (8).
    const INFO: usize = 224;
    let body = message.body;
    let family = family_at(body, 56 + 24 + 16 + 64 + 32 + 12 + 4 + 4)?;
    let spi = u32::from_be_bytes(part(body, 56 + 16)?);
    let [protocol] = part(body, 56 + 20)?;
    let [hard] = part(body, INFO)?;
    let (dst, src) = (address_at(body, 56, family)?, address_at(body, 80, family)?);
    (protocol == ESP).then_some((spi, src, dst, hard != 0))
}

/// Of the `XFRM_MSG_NEWSA` that answers [`ask_sa`]: the last sequence number sealed, and the last seen.
pub fn sequences(message: &Message<'_>) -> Option<(u64, u64)> {
    // `struct xfrm_usersa_info`: 224 octets. `struct xfrm_replay_state_esn`: words of the bitmap, the low halves of out and
    // in, their high halves, the window.
    let state = attributes(message, 224).find(attribute::REPLAY_ESN_VAL)?;
    let half = |at| Some(u64::from(u32::from_ne_bytes(part(state, at)?)));
    let whole = |low, high| Some(half(high)? << 32 | half(low)?);
    Some((whole(4, 12)?, whole(8, 16)?))
}

/// The attributes behind a body of that many octets.
pub fn attributes<'a>(message: &Message<'a>, body: usize) -> Attributes<'a> {
    Attributes(message.body.get(body..).unwrap_or(&[]))
}

/// An outbound or inbound SA by what XFRM names it with.
pub(super) fn sa_id(spi: u32, src: IpAddr, dst: IpAddr, own: impl Fn(IpAddr) -> bool) -> SaId {
    let role = if own(dst) {
        Role::Terminus
    } else {
        Role::Origin
    };
    SaId {
        spi,
        src,
        dst,
        role,
    }
}
