// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Every malformed form of a zone message (`docs/wire.md` §2): refused whole, with a text that names what is wrong.

use anyhow::{ensure, Result};

use super::zone_messages::{a_csa, a_policy, held};
use crate::genl::{self, Genl, Refusal};
use crate::scenario::{Ctx, Scenario};
use crate::zone_message::{self, add, Extension, Message, Role, ANY, HOME_ONLY};
use crate::zone_message::{ADDRESS_DST, ADDRESS_SRC, CSA, RELAY, SA, SELECTOR, X_POLICY};
use crate::zone_message::{ZONE_MAP, ZONE_SA};
use crate::zone_tunnel::{Keys, Options, AES256};

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "malformed-messages-are-refused",
        proves: "every malformed form of a zone message is refused whole, with a text that names what is wrong, and nothing changes",
        seconds: 90,
        run: malformed,
    },
];

/// One malformed message: what is wrong with it, its octets, and a word that the refusal's text must hold.
struct Form {
    what: String,
    octets: Vec<u8>,
    names: &'static str,
}

/// All of them.
#[derive(Default)]
struct Forms(Vec<Form>);

/// How a message may be refused. RFC 2367 §3.1 gives EINVAL for most of it; an unknown type, SA type or algorithm may
/// be told apart.
const ERRNOS: &[i32] = &[
    libc::EINVAL,
    libc::EMSGSIZE,
    libc::EPROTONOSUPPORT,
    libc::EOPNOTSUPP,
    libc::ENOSYS,
];

impl Forms {
    fn push(&mut self, what: impl Into<String>, octets: Vec<u8>, names: &'static str) {
        self.0.push(Form {
            what: what.into(),
            octets,
            names,
        });
    }

    /// `good` with one value of an extension's put in its place.
    fn value(&mut self, good: &Message, (what, number, at, value): &(&str, u16, usize, Value)) {
        let names = name_of(*number);
        let spoiled = good.with(*number, |octets| value.put(octets, *at));
        self.push(*what, spoiled.octets(), names);
    }
}

/// A value as an extension holds it.
#[derive(Clone, Copy)]
enum Value {
    U8(u8),
    U16(u16),
    U32(u32),
    U64(u64),
    /// SPIs and addresses are big-endian, all else is host-endian.
    Be32(u32),
}

impl Value {
    fn put(self, octets: &mut [u8], at: usize) {
        let value = match self {
            Self::U8(value) => vec![value],
            Self::U16(value) => value.to_ne_bytes().to_vec(),
            Self::U32(value) => value.to_ne_bytes().to_vec(),
            Self::U64(value) => value.to_ne_bytes().to_vec(),
            Self::Be32(value) => value.to_be_bytes().to_vec(),
        };
        octets[at..at + value.len()].copy_from_slice(&value);
    }
}

use Value::{Be32, U16, U32, U64, U8};

/// The extensions an ADD must have, and what a refusal calls them.
const REQUIRED: &[(u16, &str)] = &[
    (SA, "SA"),
    (ADDRESS_SRC, "ADDRESS_SRC"),
    (ADDRESS_DST, "ADDRESS_DST"),
    (CSA, "CSA"),
    (SELECTOR, "SELECTOR"),
    (ZONE_MAP, "ZONE_MAP"),
    (ZONE_SA, "ZONE_SA"),
];

fn name_of(number: u16) -> &'static str {
    let required = REQUIRED.iter().find(|(known, _)| *known == number);
    match (required, number) {
        (Some((_, name)), _) => name,
        (None, X_POLICY) => "POLICY",
        (None, RELAY) => "RELAY",
        _ => "",
    }
}

/// Extension, octet within it, value: each wrong by itself.
const CSA_VALUES: &[(&str, u16, usize, Value)] = &[
    ("SPI 0", SA, 0, Be32(0)),
    ("SPI 1", SA, 0, Be32(1)),
    ("SPI 255", SA, 0, Be32(255)),
    ("an unknown address family", ADDRESS_SRC, 4, U16(99)),
    ("an outer address that is a prefix", ADDRESS_DST, 1, U8(24)),
    ("an address prefix of 33", ADDRESS_DST, 1, U8(33)),
    ("the outer destination 0.0.0.0", ADDRESS_DST, 8, Be32(0)),
    (
        "a multicast outer destination",
        ADDRESS_DST,
        8,
        Be32(0xe000_0001),
    ),
    ("role 0", CSA, 0, U8(0)),
    ("role 4", CSA, 0, U8(4)),
    ("mode 0", CSA, 1, U8(0)),
    ("mode 3", CSA, 1, U8(3)),
    ("state 4", CSA, 2, U8(4)),
    ("a reserved octet in CSA", CSA, 3, U8(1)),
    ("a window of 0", CSA, 4, U32(0)),
    ("a window of 63", CSA, 4, U32(63)),
    ("a window of 65,537", CSA, 4, U32(65_537)),
    ("a window of 2^32 - 1", CSA, 4, U32(u32::MAX)),
    ("a sequence number of 2^63", CSA, 16, U64(1 << 63)),
    ("a selector of an unknown family", SELECTOR, 0, U8(99)),
    ("a selector prefix of 33", SELECTOR, 3, U8(33)),
    ("host bits behind a selector's prefix", SELECTOR, 3, U8(8)),
    (
        "ports of a protocol without",
        SELECTOR,
        4,
        Be32(0x01f4_01f4),
    ),
    (
        "a range of ports that falls",
        SELECTOR,
        4,
        Be32(2 << 16 | 1),
    ),
    ("zones that go backwards", ZONE_MAP, 6, U16(0xffff)),
    ("an open last zone", ZONE_MAP, 10, U16(100)),
    ("zone 2 named first", ZONE_MAP, 4, U8(2)),
    ("zone 0's SA", ZONE_SA, 0, U8(0)),
    ("zone 9's SA", ZONE_SA, 0, U8(9)),
    ("a null zone with keys", ZONE_SA, 1, U8(1)),
    ("an unknown flag of a zone", ZONE_SA, 1, U8(2)),
    ("an unknown transform", ZONE_SA, 2, U16(999)),
    ("a key of no bits", ZONE_SA, 4, U16(0)),
    ("a key of 64 bits", ZONE_SA, 4, U16(64)),
    ("a key of 192 bits", ZONE_SA, 4, U16(192)),
    ("a key of 255 bits", ZONE_SA, 4, U16(255)),
    ("a key of 512 bits", ZONE_SA, 4, U16(512)),
    ("no salt", ZONE_SA, 6, U8(0)),
    ("a salt of 3 octets", ZONE_SA, 6, U8(3)),
    ("a salt of 8 octets", ZONE_SA, 6, U8(8)),
    ("no ICV", ZONE_SA, 7, U8(0)),
    ("an ICV of 12 octets", ZONE_SA, 7, U8(12)),
    ("an ICV of 17 octets", ZONE_SA, 7, U8(17)),
];

const POLICY_VALUES: &[(&str, u16, usize, Value)] = &[
    ("a policy of action 3", X_POLICY, 0, U16(3)),
    ("a policy of action 0xffff", X_POLICY, 0, U16(0xffff)),
    ("a policy of direction 0", X_POLICY, 2, U8(0)),
    ("a policy of direction 3", X_POLICY, 2, U8(3)),
    ("host bits behind a policy's prefix", SELECTOR, 3, U8(16)),
];

/// A message whose octets are changed after it is laid out.
fn patched(message: &Message, at: usize, value: Value) -> Vec<u8> {
    let mut octets = message.octets();
    value.put(&mut octets, at);
    octets
}

fn framing(good: &Message, forms: &mut Forms) {
    let whole = good.octets();
    for length in 0..whole.len() {
        forms.push(
            format!("cut off after {length} octets"),
            whole[..length].to_vec(),
            "",
        );
    }
    for more in [1, 4, 7, 8, 16, 400] {
        let long = [&whole[..], &vec![0; more]].concat();
        forms.push(format!("{more} octets too long"), long, "");
    }
    for version in [0, 1, 3, 255] {
        forms.push(
            format!("version {version}"),
            patched(good, 0, U8(version)),
            "",
        );
    }
    for kind in [0, 25, 127, 131, 255] {
        forms.push(
            format!("message type {kind}"),
            patched(good, 1, U8(kind)),
            "",
        );
    }
    for satype in [0, 1, 3, 248, 255] {
        forms.push(
            format!("SA type {satype}"),
            patched(good, 3, U8(satype)),
            "",
        );
    }
    forms.push("a reserved bit in the header", patched(good, 6, U16(1)), "");
    let mut bare = good.clone();
    bare.extensions.clear();
    forms.push("a header alone", bare.octets(), "SA");

    let mut next = 16;
    for extension in &good.extensions {
        let (at, number) = (next, extension.kind);
        let words = (4 + extension.octets.len()).div_ceil(8);
        next += words * 8;
        for length in [0, 0xffff, words as u16 + 1] {
            let what = format!("extension {number} claims {length} words");
            forms.push(what, patched(good, at, U16(length)), "");
        }
        for unknown in [0, 19, 27, 127, 135, 0xffff] {
            let what = format!("extension {number} renamed to {unknown}");
            forms.push(what, patched(good, at + 2, U16(unknown)), "");
        }
    }
}

fn extensions(good: &Message, forms: &mut Forms) {
    for &(kind, name) in REQUIRED {
        forms.push(format!("without {name}"), good.without(kind).octets(), name);
        let mut twice = good.clone();
        let first = good
            .extensions
            .iter()
            .find(|extension| extension.kind == kind);
        twice.extensions.extend(first.cloned());
        forms.push(format!("{name} twice"), twice.octets(), name);
        let short = good.with(kind, |octets| {
            octets.truncate(octets.len().saturating_sub(8))
        });
        forms.push(format!("{name} too short"), short.octets(), name);
        let long = good.with(kind, |octets| octets.extend([0; 8]));
        forms.push(format!("{name} too long"), long.octets(), name);
    }
    for kind in [19, 135, 1000] {
        let mut more = good.clone();
        let octets = vec![0; 12];
        more.extensions.push(Extension { kind, octets });
        forms.push(
            format!("an unknown extension {kind} beside"),
            more.octets(),
            "",
        );
    }
    for count in [0, 1, 3, 255] {
        let spoiled = good.with(ZONE_MAP, |octets| octets[0] = count);
        forms.push(format!("{count} zones"), spoiled.octets(), "ZONE_");
    }
    for form in CSA_VALUES {
        forms.value(good, form);
    }
}

/// Each extension sound, all together not.
fn consistency(forms: &mut Forms) {
    let keys = Keys::new(&Options::default());
    let explicit = Keys::new(&Options {
        ciphers: [AES256; 2],
        ..Options::default()
    });
    let of = |sa, role| add(sa, role, (ANY, HOME_ONLY), 8192, 0);
    let with_last = |mut message: Message, extension| {
        message.extensions.pop();
        message.extensions.push(extension);
        message.octets()
    };
    let beside = |mut message: Message, extension| {
        message.extensions.push(extension);
        message.octets()
    };
    // A relay is never given zone 2's key, not even by mistake.
    let greedy = zone_message::zone_sa(2, Some(&keys.to_mh.zones[1]));
    let greedy = with_last(of(&keys.to_mh, Role::Relay), greedy);
    forms.push("a relay with zone 2's key", greedy, "ZONE_SA");
    let blind = with_last(
        of(&keys.to_mh, Role::Terminus),
        zone_message::zone_sa(2, None),
    );
    forms.push("a terminus without zone 2's key", blind, "ZONE_SA");
    let mut same = keys.to_mh.clone();
    same.zones[1].key = same.zones[0].key.clone();
    let same = of(&same, Role::Terminus).octets();
    forms.push("both zones under one key", same, "ZONE_SA");
    let implicit = beside(
        of(&keys.to_mh, Role::Terminus),
        zone_message::relay(true, 0),
    );
    forms.push("writing with an implicit IV", implicit, "RELAY");
    for (what, number) in [
        ("a terminus with a relay number", 5),
        ("a relay number of 16 bits", 0x8000),
    ] {
        let numbered = zone_message::relay(true, number);
        forms.push(
            what,
            beside(of(&explicit.to_mh, Role::Terminus), numbered),
            "RELAY",
        );
    }
}

fn policies(forms: &mut Forms) {
    let good = a_policy();
    for form in POLICY_VALUES {
        forms.value(&good, form);
    }
    for kind in [X_POLICY, SELECTOR, ADDRESS_DST] {
        let what = format!("a policy without extension {kind}");
        forms.push(what, good.without(kind).octets(), name_of(kind));
    }
}

/// Requests that hold no zone message at all, or none that a command takes.
fn attributes() -> Vec<(&'static str, u8, Vec<u8>)> {
    let pfkey = |octets: &[u8]| genl::attribute(genl::A_PFKEY, octets);
    vec![
        ("no attribute", genl::CMD_PFKEY, Vec::new()),
        ("an empty message", genl::CMD_PFKEY, pfkey(&[])),
        (
            "60,000 octets of ones",
            genl::CMD_PFKEY,
            pfkey(&[0xff; 60_000]),
        ),
        (
            "a setting cut off",
            genl::CMD_SET,
            genl::attribute(genl::A_COUNTER | 0x8000, &[1, 2, 3]),
        ),
        ("command 0", 0, Vec::new()),
        ("command 99", 99, Vec::new()),
    ]
}

/// docs/wire.md 2.1r.
fn malformed(ctx: &mut Ctx) -> Result<()> {
    let mut genl = Genl::open(&ctx.net.ha)?;
    let good = a_csa();
    let mut forms = Forms::default();
    framing(&good, &mut forms);
    extensions(&good, &mut forms);
    consistency(&mut forms);
    policies(&mut forms);
    let before = held(&mut genl)?;
    let mut wrong = Vec::new();
    for Form {
        what,
        octets,
        names,
    } in &forms.0
    {
        match genl.pfkey(octets)? {
            Ok(_) => wrong.push(format!("{what} was accepted")),
            Err(Refusal { errno, text }) if !ERRNOS.contains(&errno) || !text.contains(names) => {
                wrong.push(format!("{what}: errno {errno}, {text:?}"));
            }
            Err(_) => {}
        }
    }
    for (what, command, attributes) in attributes() {
        if genl.request(command, 0, &attributes)?.is_ok() {
            wrong.push(format!("{what} was accepted"));
        }
    }
    let first: Vec<&str> = wrong.iter().take(12).map(String::as_str).collect();
    let count = format!("{} of {} forms", wrong.len(), forms.0.len());
    ensure!(
        wrong.is_empty(),
        "{count} were not refused as they should be: {}",
        first.join("; ")
    );
    let after = held(&mut genl)?;
    ensure!(
        after == before,
        "refused messages changed {before:?} to {after:?}"
    );
    genl::accepted(genl.pfkey(&good.octets())?, "the message they were made of")?;
    genl::accepted(
        genl.pfkey(&a_policy().octets())?,
        "the policy they were made of",
    )?;
    let after = held(&mut genl)?;
    ensure!(
        after == (before.0 + 1, before.1 + 1),
        "the good messages are not there"
    );
    Ok(())
}
