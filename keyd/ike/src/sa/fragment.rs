// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Sealing, opening, cutting up and putting together (RFC 7296 §3.14, RFC 7383).

use crate::crypto::{CryptoError, Opener, Sealer, ICV_LEN, IV_LEN};
use crate::secret::Secret;
use crate::wire::reader::{len16, Put};
use crate::wire::{EncryptedFragment, Header, PayloadType, HEADER_LEN, PAYLOAD_HEADER_LEN};
use std::collections::BTreeMap;
use zeroize::Zeroizing;

/// SK's overhead: header, payload header, IV, pad length, ICV.
const SK_OVERHEAD: usize = HEADER_LEN + PAYLOAD_HEADER_LEN + IV_LEN + 1 + ICV_LEN;
/// SKF has a number and a total beside.
const SKF_OVERHEAD: usize = SK_OVERHEAD + 4;
/// Fragments of one message; 64 of the least size IPv6 carries hold any message there is.
const MAX_FRAGMENTS: u16 = 64;
/// Octets put together into one message.
const MAX_MESSAGE: usize = 65_000;
/// Messages being put together at once.
const MAX_PARTIAL: usize = 8;

/// Seals the payloads into one datagram, or, where that is longer than `most` octets, into several.
pub(crate) fn seal(
    sealer: &mut Sealer,
    header: &Header,
    first: PayloadType,
    payloads: &[u8],
    most: Option<usize>,
) -> Result<Vec<Vec<u8>>, CryptoError> {
    let Some(most) = most.filter(|most| payloads.len() + SK_OVERHEAD > *most) else {
        return Ok(vec![one(
            sealer,
            header,
            PayloadType::SK,
            first,
            &[],
            payloads,
        )?]);
    };
    let room = most.saturating_sub(SKF_OVERHEAD).max(64);
    let parts: Vec<&[u8]> = payloads.chunks(room).collect();
    let total = u16::try_from(parts.len()).map_err(|_| CryptoError)?;
    (1..=total)
        .zip(parts)
        .map(|(number, part)| {
            // Only the first says what it holds (§2.5).
            let first = if number == 1 {
                first
            } else {
                PayloadType::NONE
            };
            let numbers = [number.to_be_bytes(), total.to_be_bytes()].concat();
            one(sealer, header, PayloadType::SKF, first, &numbers, part)
        })
        .collect()
}

fn one(
    sealer: &mut Sealer,
    header: &Header,
    kind: PayloadType,
    first: PayloadType,
    numbers: &[u8],
    payloads: &[u8],
) -> Result<Vec<u8>, CryptoError> {
    let body = numbers.len() + IV_LEN + payloads.len() + 1 + ICV_LEN;
    let length = PAYLOAD_HEADER_LEN + body;
    if length > usize::from(u16::MAX) {
        return Err(CryptoError);
    }
    let mut out = Vec::with_capacity(HEADER_LEN + length);
    out.put(&header.encode(kind, HEADER_LEN + length));
    out.put(&[first.0, 0]);
    out.put_u16(len16(length));
    out.put(numbers);
    // No padding: the ciphers need none (RFC 5282 §3).
    let mut plain = Zeroizing::new(Vec::with_capacity(payloads.len() + 1));
    plain.extend_from_slice(payloads);
    plain.push(0);
    let sealed = sealer.seal(&out, &plain)?;
    out.extend_from_slice(&sealed);
    Ok(out)
}

/// Opens the payloads of an SK or SKF whose sealed part is the last `body` octets of the datagram.
pub(crate) fn open(opener: &Opener, datagram: &[u8], body: usize) -> Result<Secret, CryptoError> {
    let at = datagram.len().checked_sub(body).ok_or(CryptoError)?;
    let (aad, sealed) = datagram.split_at(at);
    let plain = opener.open(aad, sealed)?;
    let (padding, rest) = plain.expose().split_last().ok_or(CryptoError)?;
    let len = rest
        .len()
        .checked_sub(usize::from(*padding))
        .ok_or(CryptoError)?;
    Ok(Secret::copy(rest.get(..len).ok_or(CryptoError)?))
}

/// What IntAuth is over: the message as if it had been neither sealed nor cut up (RFC 9242 §3.3.2).
pub(crate) fn intermediate_octets(
    header: &Header,
    first: PayloadType,
    payloads: &[u8],
) -> Zeroizing<Vec<u8>> {
    let length = PAYLOAD_HEADER_LEN + payloads.len();
    let mut out = Zeroizing::new(Vec::with_capacity(HEADER_LEN + length));
    out.put(&header.encode(PayloadType::SK, HEADER_LEN + length));
    out.put(&[first.0, 0]);
    out.put_u16(len16(length));
    out.put(payloads);
    out
}

struct Partial {
    total: u16,
    first: PayloadType,
    parts: BTreeMap<u16, Secret>,
}

/// Messages being put together. Each fragment is opened before it is kept, so only the peer can fill this.
#[derive(Default)]
pub(crate) struct Reassembly(BTreeMap<(bool, u32), Partial>);

impl Reassembly {
    /// Keeps an opened fragment; gives the whole when it was the last one missing.
    pub fn add(
        &mut self,
        header: &Header,
        fragment: &EncryptedFragment,
        opened: Secret,
    ) -> Option<(PayloadType, Secret)> {
        if fragment.total > MAX_FRAGMENTS {
            return None;
        }
        let key = (header.response, header.message_id);
        if !self.0.contains_key(&key) && self.0.len() >= MAX_PARTIAL {
            self.0.pop_first();
        }
        let fresh = || Partial {
            total: fragment.total,
            first: PayloadType::NONE,
            parts: BTreeMap::new(),
        };
        let partial = self.0.entry(key).or_insert_with(fresh);
        // More fragments than before: cut smaller, after path MTU discovery (§2.6). Fewer: an old one, late.
        if fragment.total > partial.total {
            *partial = fresh();
        } else if fragment.total < partial.total {
            return None;
        }
        if fragment.number == 1 {
            partial.first = fragment.first;
        }
        partial.parts.entry(fragment.number).or_insert(opened);
        if partial.parts.len() < usize::from(partial.total) {
            return None;
        }
        let partial = self.0.remove(&key)?;
        let mut whole = Zeroizing::new(Vec::new());
        for part in partial.parts.values() {
            whole.extend_from_slice(part.expose());
        }
        (whole.len() <= MAX_MESSAGE).then(|| (partial.first, Secret::copy(&whole)))
    }

    /// Forgets what of a message was there.
    pub fn forget(&mut self, response: bool, message_id: u32) {
        self.0.remove(&(response, message_id));
    }
}
