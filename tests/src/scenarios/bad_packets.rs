// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Bad packets by raw socket from the backbone: each dropped, counted under its reason, never delivered.

use anyhow::{ensure, Context, Result};

use super::attack::Attack;
use crate::headers::{self, fix_ip_checksum, IpDraft};
use crate::scenario::{Ctx, Scenario};
use crate::stats::Watch;
use crate::topology::CN;
use crate::traffic;
use crate::zone_esp::{outer, Draft, RELAY_IV, W};
use crate::zone_tunnel::{Cipher, Options, AES256, AES256_IIV, CHACHA};

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "truncated-at-every-length",
        proves: "a packet cut off at every length is dropped and counted, whatever its IVs",
        seconds: 90,
        run: truncated,
    },
    Scenario {
        name: "every-bit-flipped-once",
        proves: "a packet with any one bit flipped is dropped and counted, and leaves the original acceptable",
        seconds: 120,
        run: flipped,
    },
    Scenario {
        name: "wrong-spi-is-not-ours",
        proves: "a packet of another SPI, reserved ones included, is left to the kernel's own ESP and delivered by nobody",
        seconds: 60,
        run: wrong_spi,
    },
    Scenario {
        name: "replayed-packets-are-dropped",
        proves: "a packet is delivered once however often it comes, and number 0 never",
        seconds: 60,
        run: replayed,
    },
    Scenario {
        name: "reordered-past-the-window-is-dropped",
        proves: "what comes in any order within the window is delivered once, what comes behind it is dropped",
        seconds: 60,
        run: reordered,
    },
    Scenario {
        name: "malformed-but-authentic-packets-are-dropped",
        proves: "what a holder of both keys sends against the format (L1, flags, padding, next header, lengths, selector, IVs) is dropped, each under its own reason",
        seconds: 60,
        run: malformed,
    },
    Scenario {
        name: "zones-of-two-packets-do-not-mix",
        proves: "zone 1 of one packet with zone 2 of another is dropped, whichever number the mixture bears",
        seconds: 60,
        run: mixed,
    },
    Scenario {
        name: "padding-and-dummies-are-swallowed",
        proves: "traffic flow padding inside is trimmed, longer padding accepted, and dummy packets vanish, counted as that",
        seconds: 60,
        run: padding,
    },
];

/// The kinds of packet whose lengths differ.
const KINDS: [[Cipher; 2]; 3] = [[AES256_IIV; 2], [AES256; 2], [CHACHA, AES256_IIV]];

fn options(ciphers: [Cipher; 2]) -> Options {
    Options {
        ciphers,
        relay: false,
        ..Options::default()
    }
}

/// docs/wire.md 1.9b.
fn truncated(ctx: &mut Ctx) -> Result<()> {
    let mut attack = Attack::prepare(ctx, &options(KINDS[0]))?;
    for ciphers in KINDS {
        attack.rekey(&options(ciphers))?;
        let whole = attack.draft(10, b"truncated").seal(&attack.sa)?;
        let watch = Watch::start(&ctx.net.mh)?;
        for length in 0..whole.len() {
            attack.inject(&whole[..length])?;
        }
        // Without a whole SPI it is nobody's: the kernel's ESP drops it.
        attack.all_dropped(&watch, whole.len() as u64 - 4)?;
        attack.inject(&whole)?;
        attack.delivered(b"truncated")?;
    }
    Ok(())
}

/// docs/wire.md 1.7b.
fn flipped(ctx: &mut Ctx) -> Result<()> {
    let mut attack = Attack::prepare(ctx, &options(KINDS[0]))?;
    for ciphers in KINDS {
        attack.rekey(&options(ciphers))?;
        let good = attack.draft(10, b"flip").seal(&attack.sa)?;
        let watch = Watch::start(&ctx.net.mh)?;
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 0x80 >> (bit % 8);
            attack.inject(&bad)?;
        }
        // Those with a bit of the SPI flipped are not this CSA's.
        attack.all_dropped(&watch, good.len() as u64 * 8 - 32)?;
        attack.inject(&good)?;
        attack.delivered(b"flip")?;
    }
    Ok(())
}

/// docs/wire.md 1.7a, 1.9d.
fn wrong_spi(ctx: &mut Ctx) -> Result<()> {
    let attack = Attack::prepare(ctx, &Options::default())?;
    let watch = Watch::start(&ctx.net.mh)?;
    for spi in [
        0,
        1,
        255,
        256,
        attack.sa.spi ^ 1,
        attack.sa.spi.swap_bytes(),
        u32::MAX,
    ] {
        if spi != attack.sa.spi {
            attack.inject(
                &Draft {
                    spi,
                    ..attack.draft(20, b"wrong")
                }
                .seal(&attack.sa)?,
            )?;
        }
    }
    attack.silent()?;
    watch.expect(&[])?;
    // The right SPI to another of the host's addresses is not this CSA's either.
    let mut elsewhere = attack.sa.clone();
    elsewhere.destination = std::net::Ipv4Addr::new(10, 1, 2, 7);
    let packet = outer(
        &elsewhere,
        &attack.draft(21, b"elsewhere").seal(&attack.sa)?,
    );
    traffic::send_raw(&attack.core, &packet)?;
    attack.silent()?;
    watch.expect(&[])
}

/// docs/wire.md 1.9l.
fn replayed(ctx: &mut Ctx) -> Result<()> {
    let attack = Attack::prepare(ctx, &options(KINDS[0]))?;
    let watch = Watch::start(&ctx.net.mh)?;
    for sequence in 2..40 {
        let packet = attack
            .draft(sequence, &sequence.to_be_bytes())
            .seal(&attack.sa)?;
        for _ in 0..3 {
            attack.inject(&packet)?;
        }
        attack.delivered(&sequence.to_be_bytes())?;
    }
    attack.silent()?;
    watch.expect(&[("replay", 2 * 38)])?;
    attack.dropped_for(
        "replay",
        "number 0",
        &attack.draft(0, b"zero").seal(&attack.sa)?,
    )?;
    attack.dropped_for(
        "replay",
        "the very first",
        &attack.draft(1, b"first").seal(&attack.sa)?,
    )
}

/// docs/wire.md 1.7c, 1.9l.
fn reordered(ctx: &mut Ctx) -> Result<()> {
    const WINDOW: u64 = 64;
    let attack = Attack::prepare(
        ctx,
        &Options {
            window: WINDOW as u32,
            ..options(KINDS[0])
        },
    )?;
    const TOP: u64 = 1000;
    let watch = Watch::start(&ctx.net.mh)?;
    let send = |sequence: u64| {
        attack.inject(
            &attack
                .draft(sequence, &sequence.to_be_bytes())
                .seal(&attack.sa)?,
        )
    };
    send(TOP)?;
    attack.delivered(&TOP.to_be_bytes())?;
    // In steps of 27, which is odd, through all 63 below the top.
    for step in 0..WINDOW {
        let sequence = TOP - step * 27 % WINDOW;
        send(sequence)?;
        if sequence != TOP {
            attack.delivered(&sequence.to_be_bytes())?;
        }
    }
    watch.expect(&[("replay", 1)])?;
    for sequence in [TOP - WINDOW, TOP - WINDOW - 1, 500, 2, 1] {
        send(sequence)?;
    }
    attack.silent()?;
    // A low half below the window is taken for one of the next high half (RFC 4303, appendix A2.2), under whose nonce
    // it fails its ICV.
    watch.expect(&[("replay", 1), ("icv1", 5)])?;
    // A jump ahead moves the window; only a good packet can make it jump.
    let mut forged = attack.draft(100_000, b"jump").seal(&attack.sa)?;
    if let Some(last) = forged.last_mut() {
        *last ^= 1;
    }
    attack.dropped_for("icv2", "a forged jump", &forged)?;
    send(TOP + 1)?;
    attack.delivered(&(TOP + 1).to_be_bytes())
}

/// docs/wire.md 1.7b, 1.9c, 1.9e, 1.9f, 1.9g, 1.9h, 1.9i, 1.9k, 1.9n, 1.9o, 1.9q, 1.9s, 1.9t.
fn malformed(ctx: &mut Ctx) -> Result<()> {
    let mut attack = Attack::prepare(ctx, &options(KINDS[0]))?;
    let mut sequence = 100;
    let mut next = |attack: &Attack<'_>| {
        sequence += 1;
        attack.draft(sequence, b"malformed payload")
    };
    let mut cases: Vec<(&str, String, Draft)> = Vec::new();
    for bit in 1..8 {
        cases.push((
            "flags",
            format!("flag bit {bit}"),
            Draft {
                flags: 1 << bit,
                ..next(&attack)
            },
        ));
    }
    cases.push((
        "iv-w",
        "W without an IV to bear it".into(),
        Draft {
            flags: W,
            ..next(&attack)
        },
    ));
    for protocol in [4, 6, 255] {
        cases.push((
            "protocol",
            format!("protocol {protocol} in the clear"),
            Draft {
                protocol,
                ..next(&attack)
            },
        ));
    }
    let mut long = Draft::new(&attack.sa, 0, &attack.datagram(&[7; 600]));
    long.sequence = next(&attack).sequence;
    long.ivs = [long.sequence; 2];
    let moved: Vec<u8> = long
        .rest
        .drain(..long.rest.len().min(257 - long.zone1.len()))
        .collect();
    long.zone1.extend(moved);
    long.l1 = long.zone1.len() as u16;
    long.pad(0);
    cases.push(("l1", format!("L1 = {}", long.l1), long));
    for (what, l1) in [
        ("the IP header alone", 20usize),
        ("half of it", 10),
        ("nothing", 0),
        ("more than the headers", 36),
    ] {
        let mut draft = next(&attack);
        let whole = attack.datagram(b"malformed payload");
        draft.zone1 = whole[..l1].to_vec();
        draft.rest = whole[l1..].to_vec();
        draft.l1 = l1 as u16;
        draft.pad(0);
        cases.push(("zone-map", format!("zone 1 is {what}"), draft));
    }
    let mut draft = next(&attack);
    draft.pad(8);
    draft.padding[3] ^= 1;
    cases.push(("padding", "padding that is not 1, 2, 3".into(), draft));
    let mut draft = next(&attack);
    draft.pad_length = 255;
    cases.push((
        "padding",
        "more padding than there are octets".into(),
        draft,
    ));
    let mut draft = next(&attack);
    draft.padding.push(draft.pad_length + 1);
    draft.pad_length += 1;
    cases.push(("alignment", "zones that are no multiple of 4".into(), draft));
    for next_header in [0, 17, 50, 255] {
        cases.push((
            "next-header",
            format!("next header {next_header}"),
            Draft {
                next_header,
                ..next(&attack)
            },
        ));
    }
    let mut draft = next(&attack);
    let total = 20 + 8 + 17u16;
    draft.zone1[2..4].copy_from_slice(&(total + 1).to_be_bytes());
    fix_ip_checksum(&mut draft.zone1[..20]);
    draft.pad(0);
    draft.padding.clear();
    draft.rest.truncate(draft.rest.len() / 4 * 4 + 2);
    draft.pad_length = 0;
    cases.push((
        "inner-length",
        "an inner length above what came".into(),
        draft,
    ));
    let mut draft = next(&attack);
    draft.zone1[2..4].copy_from_slice(&19u16.to_be_bytes());
    // By the order of docs/wire.md §1 the map is asked first, and it finds no header to count from.
    cases.push((
        "zone-map",
        "an inner length below its own header".into(),
        draft,
    ));

    let strangers = [
        (
            CN,
            std::net::Ipv4Addr::new(203, 0, 113, 8),
            "another host's address",
        ),
        (
            CN,
            std::net::Ipv4Addr::new(10, 1, 1, 7),
            "the outer address",
        ),
    ];
    for (source, destination, what) in strangers {
        let datagram = IpDraft::new(source, destination, headers::UDP).write(&headers::udp(
            source,
            4000,
            destination,
            5000,
            b"stranger",
        ));
        let sequence = next(&attack).sequence;
        cases.push((
            "selector",
            format!("for {what}"),
            Draft::new(&attack.sa, sequence, &datagram),
        ));
    }
    for (reason, what, draft) in &cases {
        attack.dropped_for(reason, what, &draft.seal(&attack.sa)?)?;
    }
    attack.silent()?;
    attack.inject(&attack.draft(900, b"still alive").seal(&attack.sa)?)?;
    attack.delivered(b"still alive")?;

    // With explicit IVs there is more to get wrong.
    attack.rekey(&options([AES256; 2]))?;
    let mut sequence = 100;
    let mut next = || {
        sequence += 1;
        attack.draft(sequence, b"malformed payload")
    };
    let off = |draft: Draft, ivs: [u64; 2]| Draft {
        ivs: [
            draft.sequence.wrapping_add(ivs[0]),
            draft.sequence.wrapping_add(ivs[1]),
        ],
        ..draft
    };
    let cases = [
        (
            "seq-mismatch",
            "zone 1's IV is another number",
            off(next(), [1, 0]),
        ),
        (
            "seq-mismatch",
            "zone 2's IV is another number",
            off(next(), [0, 1]),
        ),
        (
            "seq-mismatch",
            "both IVs are of another high half",
            off(next(), [1 << 32, 1 << 32]),
        ),
        ("iv-w", "W without bit 63", Draft { flags: W, ..next() }),
        ("iv-w", "bit 63 without W", off(next(), [RELAY_IV, 0])),
        ("iv-w", "bit 63 in zone 2's IV", off(next(), [0, RELAY_IV])),
        (
            "write-unpermitted",
            "a rewritten zone 1 where no relay may write",
            Draft {
                flags: W,
                ..off(next(), [RELAY_IV, 0])
            },
        ),
    ];
    for (reason, what, draft) in &cases {
        attack.dropped_for(reason, what, &draft.seal(&attack.sa)?)?;
    }
    attack.silent()
}

/// docs/wire.md 1.3b.
fn mixed(ctx: &mut Ctx) -> Result<()> {
    let mut attack = Attack::prepare(ctx, &options(KINDS[0]))?;
    for ciphers in KINDS {
        attack.rekey(&options(ciphers))?;
        // Same sizes, so that only the binding can tell.
        let (one, two) = (
            attack.draft(10, b"number one"),
            attack.draft(11, b"number two"),
        );
        let key1 = &attack.sa.zones[0];
        let (zone2_of_one, zone2_of_two) =
            (one.seal_zone2(&attack.sa)?, two.seal_zone2(&attack.sa)?);
        attack.dropped_for(
            if attack.sa.zones[1].explicit() {
                "seq-mismatch"
            } else {
                "icv2"
            },
            "zone 2 of the later packet",
            &one.seal_over(key1, &zone2_of_two)?,
        )?;
        attack.dropped_for(
            if attack.sa.zones[1].explicit() {
                "seq-mismatch"
            } else {
                "icv2"
            },
            "zone 2 of the earlier packet",
            &two.seal_over(key1, &zone2_of_one)?,
        )?;
        // The same number twice, with other contents, by an origin that broke the rule: still no mixture.
        let again = attack.draft(10, b"NUMBER ONE");
        let (good, mixture) = (one.seal(&attack.sa)?, again.seal_over(key1, &zone2_of_one)?);
        // UDP's header is the same but for the checksum, which was moved: zone 1 is the same, so this is `one` itself.
        ensure!(good == mixture, "zone 1 depends on the payload");
        attack.inject(&good)?;
        attack.delivered(b"number one")?;
        attack.dropped_for(
            "replay",
            "the other of the same number",
            &again.seal(&attack.sa)?,
        )?;
    }
    Ok(())
}

/// docs/wire.md 1.6c, 1.6d, 1.9p.
fn padding(ctx: &mut Ctx) -> Result<()> {
    let attack = Attack::prepare(ctx, &options(KINDS[0]))?;
    let mut sequence = 10;
    for more in [0u8, 4, 100, 252] {
        sequence += 1;
        let mut draft = attack.draft(sequence, b"padded");
        draft.pad(0);
        let least = draft.pad_length;
        draft.pad((more.saturating_sub(least)) & !3);
        attack.inject(&draft.seal(&attack.sa)?)?;
        attack
            .delivered(b"padded")
            .with_context(|| format!("{} octets of padding", draft.pad_length))?;
    }
    for tfc in [1usize, 7, 300, 900] {
        sequence += 1;
        let mut draft = attack.draft(sequence, b"trimmed");
        draft.rest.extend(vec![0xaa; tfc]);
        draft.pad(0);
        attack.inject(&draft.seal(&attack.sa)?)?;
        attack
            .delivered(b"trimmed")
            .with_context(|| format!("{tfc} octets of traffic flow padding"))?;
    }
    let watch = Watch::start(&ctx.net.mh)?;
    for _ in 0..3 {
        sequence += 1;
        attack.inject(
            &Draft {
                next_header: 59,
                ..attack.draft(sequence, b"dummy")
            }
            .seal(&attack.sa)?,
        )?;
    }
    attack.silent()?;
    watch.expect(&[("dummy", 3)])
}
