// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! As much DER as an AlgorithmIdentifier and a SubjectPublicKeyInfo need.

use crate::wire::reader::Reader;

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const NULL: u8 = 0x05;
pub(super) const OID: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;

/// The element in front: its tag and contents.
pub(super) fn element<'a>(r: &mut Reader<'a>) -> Option<(u8, &'a [u8])> {
    let tag = r.u8().ok()?;
    let len = match r.u8().ok()? {
        short @ ..=0x7F => usize::from(short),
        0x81 => usize::from(r.u8().ok()?),
        0x82 => usize::from(r.u16().ok()?),
        _ => return None,
    };
    Some((tag, r.bytes(len).ok()?))
}

/// The contents of the element in front, if it has that tag.
pub(super) fn expect<'a>(r: &mut Reader<'a>, tag: u8) -> Option<&'a [u8]> {
    element(r)
        .filter(|(found, _)| *found == tag)
        .map(|(_, contents)| contents)
}

/// The contents of the one element that these octets are.
pub(super) fn whole(octets: &[u8], tag: u8) -> Option<&[u8]> {
    let mut r = Reader::new(octets);
    let contents = expect(&mut r, tag)?;
    r.is_empty().then_some(contents)
}

/// An element of that tag.
pub(super) fn wrap(tag: u8, contents: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match contents.len() {
        len @ ..=0x7F => out.push(len as u8),
        len @ ..=0xFF => out.extend([0x81, len as u8]),
        len => {
            out.push(0x82);
            out.extend(crate::wire::reader::len16(len).to_be_bytes());
        }
    }
    out.extend_from_slice(contents);
    out
}
