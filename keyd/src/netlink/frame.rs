// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Netlink messages and attributes as octets (Linux's `netlink.h`, `genetlink.h`); host-endian, padded to 4.

use zeroize::Zeroizing;

/// Octets of `nlmsghdr`.
pub const HEADER_LEN: usize = 16;
/// Octets of `genlmsghdr`.
pub const GENL_HEADER_LEN: usize = 4;

/// `NLM_F_REQUEST`.
pub const REQUEST: u16 = 0x001;
/// `NLM_F_ACK`.
pub const ACK: u16 = 0x004;
/// `NLM_F_DUMP_INTR`: what is dumped changed meanwhile.
pub const DUMP_INTERRUPTED: u16 = 0x010;
/// `NLM_F_DUMP`.
pub const DUMP: u16 = 0x300;
/// `NLM_F_CAPPED`, in an ack: the request isn't repeated in it.
pub const CAPPED: u16 = 0x100;
/// `NLM_F_ACK_TLVS`, in an ack: attributes follow.
pub const ACK_ATTRIBUTES: u16 = 0x200;

/// `NLMSG_ERROR`.
pub const KIND_ERROR: u16 = 2;
/// `NLMSG_DONE`.
pub const KIND_DONE: u16 = 3;
/// `NLMSG_OVERRUN`.
pub const KIND_OVERRUN: u16 = 4;

/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
/// The bits of an attribute's type that are its number.
const NUMBER: u16 = 0x3FFF;

/// Octets that most requests fit in.
const ROOM: usize = 768;

/// A request being written; overwritten when dropped.
pub struct Request(Zeroizing<Vec<u8>>);

impl Request {
    /// Begins a request of a generic netlink command.
    pub fn new(family: u16, flags: u16, seq: u32, command: u8, version: u8) -> Self {
        Request::with_body(family, flags, seq, &[command, version, 0, 0])
    }

    /// Begins a request of another protocol, with what stands in front of its attributes.
    pub fn with_body(kind: u16, flags: u16, seq: u32, body: &[u8]) -> Self {
        let mut octets = Zeroizing::new(Vec::with_capacity(ROOM));
        octets.extend([0; 4]);
        octets.extend(kind.to_ne_bytes());
        octets.extend((flags | REQUEST).to_ne_bytes());
        octets.extend(seq.to_ne_bytes());
        octets.extend([0; 4]);
        octets.extend(body);
        Request(octets)
    }

    /// Adds an attribute.
    pub fn attribute(mut self, number: u16, value: &[u8]) -> Self {
        self.put(number, value);
        self
    }

    /// Adds an attribute that holds others.
    pub fn nested(mut self, number: u16, inner: &[(u16, &[u8])]) -> Self {
        self.reserve(4);
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend((number | NESTED).to_ne_bytes());
        for (number, value) in inner {
            self.put(*number, value);
        }
        let len = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        self.0[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self
    }

    /// Makes room, and leaves no copy behind.
    fn reserve(&mut self, more: usize) {
        let wanted = self.0.len() + more;
        if wanted > self.0.capacity() {
            let mut octets = Zeroizing::new(Vec::with_capacity(wanted.max(2 * self.0.capacity())));
            octets.extend_from_slice(&self.0);
            self.0 = octets;
        }
    }

    fn put(&mut self, number: u16, value: &[u8]) {
        // Header, value, padding.
        self.reserve(value.len() + 8);
        // A length that doesn't fit its field makes an attribute the kernel refuses.
        let len = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.0.extend(len.to_ne_bytes());
        self.0.extend(number.to_ne_bytes());
        self.0.extend(value);
        let padded = self.0.len().next_multiple_of(4);
        self.0.resize(padded, 0);
    }

    /// The whole request.
    pub fn finish(mut self) -> Zeroizing<Vec<u8>> {
        let len = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&len.to_ne_bytes());
        self.0
    }
}

/// A netlink message that came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message<'a> {
    /// Its type: the family's number, or one of `KIND_*`.
    pub kind: u16,
    /// Its flags.
    pub flags: u16,
    /// The request's number.
    pub seq: u32,
    /// What is behind the header.
    pub body: &'a [u8],
}

impl<'a> Message<'a> {
    /// The attributes behind the generic netlink header.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes(self.body.get(GENL_HEADER_LEN..).unwrap_or(&[]))
    }

    /// The generic netlink command.
    pub fn command(&self) -> Option<u8> {
        self.body.first().copied()
    }
}

/// The messages in what was received; it ends at the first that is malformed.
pub struct Messages<'a>(pub &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let header = self.0.first_chunk::<HEADER_LEN>()?;
        let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, ..] = *header;
        let len = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
        let body = self.0.get(HEADER_LEN..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some(Message {
            kind: u16::from_ne_bytes([k0, k1]),
            flags: u16::from_ne_bytes([f0, f1]),
            seq: u32::from_ne_bytes([s0, s1, s2, s3]),
            body,
        })
    }
}

/// Attributes, each with its number; it ends at the first that is malformed.
#[derive(Clone, Copy)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Attributes<'a> {
    /// The first of this number.
    pub fn find(mut self, number: u16) -> Option<&'a [u8]> {
        self.find_map(|(found, value)| (found == number).then_some(value))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let [l0, l1, n0, n1] = *self.0.first_chunk::<4>()?;
        let len = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = self.0.get(4..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some((u16::from_ne_bytes([n0, n1]) & NUMBER, value))
    }
}

/// A string attribute, without its NUL.
pub fn text(value: &[u8]) -> String {
    let end = value
        .iter()
        .position(|&octet| octet == 0)
        .unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// An errno in an ack or at the end of a dump, and the extended ack's words.
pub fn errno(message: &Message<'_>) -> Option<(i32, Option<String>)> {
    /// `NLMSGERR_ATTR_MSG`.
    const TEXT: u16 = 1;
    let (errno, rest) = message.body.split_first_chunk::<4>()?;
    let errno = i32::from_ne_bytes(*errno).checked_neg()?;
    if message.flags & ACK_ATTRIBUTES == 0 {
        return Some((errno, None));
    }
    let rest = match message.kind {
        KIND_DONE => rest,
        // The request's header follows, and all of the request if it isn't capped.
        _ => {
            let [l0, l1, l2, l3] = *rest.first_chunk::<4>()?;
            let len = match message.flags & CAPPED {
                0 => usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?,
                _ => HEADER_LEN,
            };
            rest.get(len.next_multiple_of(4)..)?
        }
    };
    Some((errno, Attributes(rest).find(TEXT).map(text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_is_read_back_as_written() {
        let request = Request::new(30, ACK, 7, 1, 1)
            .attribute(1, &[1, 2, 3])
            .nested(7, &[(8, b"mss-clamp\0"), (9, &1u64.to_ne_bytes())])
            .finish();
        assert_eq!(request.len() % 4, 0);
        let mut messages = Messages(&request);
        let message = messages.next().unwrap();
        assert_eq!(
            (message.kind, message.flags, message.seq),
            (30, ACK | REQUEST, 7)
        );
        assert_eq!(message.command(), Some(1));
        assert_eq!(message.attributes().find(1), Some(&[1, 2, 3][..]));
        let nested = Attributes(message.attributes().find(7).unwrap());
        assert_eq!(nested.find(8).map(text).as_deref(), Some("mss-clamp"));
        assert_eq!(nested.find(9), Some(&1u64.to_ne_bytes()[..]));
        assert!(messages.next().is_none());
    }

    /// An ack as the kernel writes it: the errno, the request or its header, and the words.
    fn ack(kind: u16, errno: i32, flags: u16, request: &[u8], words: &str) -> Vec<u8> {
        let mut body = errno.to_ne_bytes().to_vec();
        body.extend(request);
        let len = u16::try_from(words.len() + 5).unwrap();
        body.extend(len.to_ne_bytes());
        body.extend(1u16.to_ne_bytes());
        body.extend(words.as_bytes());
        body.push(0);
        let padded = body.len().next_multiple_of(4);
        body.resize(padded, 0);
        let mut octets = u32::try_from(body.len() + HEADER_LEN)
            .unwrap()
            .to_ne_bytes()
            .to_vec();
        octets.extend(kind.to_ne_bytes());
        octets.extend(flags.to_ne_bytes());
        octets.extend([0; 8]);
        octets.extend(body);
        octets
    }

    #[test]
    fn the_kernels_words_are_found_in_every_form_of_ack() {
        let request = Request::new(30, ACK, 7, 1, 1)
            .attribute(1, &[0; 33])
            .finish();
        let words = "ZONE_SA: unknown algorithm";
        let expected = Some((38, Some(words.to_owned())));
        let whole = ack(KIND_ERROR, -38, ACK_ATTRIBUTES, &request, words);
        assert_eq!(errno(&Messages(&whole).next().unwrap()), expected);
        let capped = ack(
            KIND_ERROR,
            -38,
            ACK_ATTRIBUTES | CAPPED,
            &request[..HEADER_LEN],
            words,
        );
        assert_eq!(errno(&Messages(&capped).next().unwrap()), expected);
        let done = ack(KIND_DONE, -38, ACK_ATTRIBUTES, &[], words);
        assert_eq!(errno(&Messages(&done).next().unwrap()), expected);
        let silent = ack(KIND_ERROR, -1, CAPPED, &request[..HEADER_LEN], words);
        assert_eq!(errno(&Messages(&silent).next().unwrap()), Some((1, None)));
    }

    proptest! {
        #[test]
        fn no_octets_make_the_reader_panic(octets in prop::collection::vec(any::<u8>(), 0..200), len in 0u32..64) {
            let mut framed = len.to_ne_bytes().to_vec();
            framed.extend(&octets);
            for octets in [&octets, &framed] {
                for message in Messages(octets).take(100) {
                    for (_, value) in message.attributes().take(100) {
                        let _ = (text(value), Attributes(value).count());
                    }
                    let _ = errno(&message);
                }
            }
        }
    }
}
