// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! XFRM's messages against those the kernel's own header lays out (`vectors/xfrm.c`), and against the kernel itself where
//! a namespace of its own can be had.

use keyd::daemon::kernel::xfrm_message::{self as wire, Direction};
use keyd::daemon::kernel::{Action, Keys, Limits, Role, Rule, Sa, SaId};
use keyd::netlink::frame::Messages;
use mml_ike::crypto::{Cipher, KeyPair};
use mml_ike::secret::Secret;
use mml_ike::wire::Id;
use pfkey::{Mode, PortRange, Selector};
use std::net::IpAddr;

const SRC: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1));
const DST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
const SPI: u32 = 0xC0FF_EE01;

/// The octets of that name.
fn known(name: &str) -> Vec<u8> {
    let mut lines = include_str!("vectors/xfrm.txt").lines();
    let digits = lines
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .unwrap();
    let octet = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(octet).collect()
}

fn sa(role: Role) -> Sa {
    Sa {
        id: SaId {
            spi: SPI,
            src: SRC,
            dst: DST,
            role,
        },
        selector: selector(),
        standby: false,
        soft: Limits {
            seconds: 3000,
            bytes: 1000,
        },
        hard: Limits {
            seconds: 3600,
            bytes: 0,
        },
        udp: Some((4500, 61_000)),
        mode: Mode::Tunnel,
        reqid: 0x4D4C_0003,
        peer: Id::fqdn("peer.test"),
        keys: Keys::Plain {
            cipher: Cipher::Aes128Gcm,
            esn: true,
            keys: KeyPair {
                key: Secret::new((0..16).collect()),
                salt: Secret::new((16..20).collect()),
            },
        },
    }
}

fn selector() -> Selector {
    let prefix = |text: &str| text.parse().unwrap();
    keyd::address::selector(prefix("10.1.0.0/16"), prefix("203.0.113.7/32"), 6).unwrap()
}

fn rule(inbound: bool) -> Rule {
    Rule {
        inbound,
        action: Action::Protect,
        selector: selector(),
        priority: 1000,
        outer: Some((SRC, DST)),
        reqid: 0x4D4C_0003,
        mode: Mode::Tunnel,
    }
}

#[test]
#[cfg(all(target_endian = "little", target_pointer_width = "64"))]
fn every_message_has_the_octets_of_the_kernels_own_structures() {
    let same = |name: &str, ours: &[u8]| assert_eq!(ours, known(name), "{name}");
    same("allocspi", &wire::alloc_spi(7, SPI, SRC, DST));
    same(
        "newsa-out",
        &wire::new_sa(7, &sa(Role::Origin), false).unwrap(),
    );
    same(
        "updsa-in",
        &wire::new_sa(7, &sa(Role::Terminus), true).unwrap(),
    );
    same("delsa", &wire::delete_sa(7, SPI, DST));
    same("getsa", &wire::ask_sa(7, SPI, DST));
    same(
        "updpolicy-protect",
        &wire::policy(7, &rule(false), Direction::Out),
    );
    let bypass = Rule {
        action: Action::Bypass,
        selector: Selector {
            protocol: 17,
            dst_ports: PortRange::one(500).unwrap(),
            ..selector()
        },
        priority: 0,
        outer: None,
        ..rule(true)
    };
    same("updpolicy-bypass", &wire::policy(7, &bypass, Direction::In));
    same(
        "delpolicy",
        &wire::delete_policy(7, &rule(true), Direction::Forward),
    );
}

/// `XFRM_MODE_TRANSPORT` is 0, and its SA's selector is of the outer family: `XFRM_STATE_AF_UNSPEC` isn't set.
#[test]
fn transport_mode_differs_in_mode_and_flag_alone() {
    let tunnel = sa(Role::Origin);
    let transport = keyd::daemon::kernel::Sa {
        mode: Mode::Transport,
        ..tunnel.clone()
    };
    let [a, b] = [&tunnel, &transport].map(|sa| wire::new_sa(7, sa, false).unwrap());
    let differ = |a: &[u8], b: &[u8]| -> Vec<(usize, u8, u8)> {
        let pairs = a.iter().zip(b).enumerate();
        pairs
            .filter(|(_, (a, b))| a != b)
            .map(|(at, (a, b))| (at, *a, *b))
            .collect()
    };
    // Behind the head of 16 octets: `mode` at 214 of `struct xfrm_usersa_info`, `flags` at 216.
    let expected = [(16 + 214, 1, 0), (16 + 216, a[16 + 216], a[16 + 216] & !32)];
    assert_eq!(differ(&a, &b), expected);
    let other = Rule {
        mode: Mode::Transport,
        ..rule(false)
    };
    let [a, b] = [&rule(false), &other].map(|rule| wire::policy(7, rule, Direction::Out));
    let [(_, 1, 0)] = differ(&a, &b)[..] else {
        panic!("{:?}", differ(&a, &b));
    };
}

#[test]
#[cfg(all(target_endian = "little", target_pointer_width = "64"))]
fn an_sa_that_is_asked_about_tells_how_far_it_has_counted() {
    let octets = known("newsa-told");
    let message = Messages(&octets).next().unwrap();
    assert_eq!(
        wire::sequences(&message),
        Some(((1 << 32) + 5, (2 << 32) + 7))
    );
    let none = known("expire-hard");
    assert_eq!(wire::sequences(&Messages(&none).next().unwrap()), None);
}

#[test]
#[cfg(all(target_endian = "little", target_pointer_width = "64"))]
fn an_acquire_says_which_policy_and_an_expire_which_sa() {
    let octets = known("acquire");
    let message = Messages(&octets).next().unwrap();
    assert_eq!(wire::acquired(&message), Some(selector()));
    let octets = known("expire-hard");
    let message = Messages(&octets).next().unwrap();
    assert_eq!(wire::expired(&message), Some((SPI, SRC, DST, true)));
    for len in 0..octets.len() {
        let mut short = octets[..len].to_vec();
        if let Some(head) = short.first_chunk_mut::<4>() {
            *head = u32::try_from(len).unwrap().to_ne_bytes();
        }
        if let Some(message) = Messages(&short).next() {
            let whole = message.body.len() > 224;
            assert_eq!(wire::expired(&message).is_some(), whole, "{len} octets");
            assert_eq!(wire::acquired(&message), None);
        }
    }
}
