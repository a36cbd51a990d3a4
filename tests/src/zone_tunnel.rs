// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The two-zone tunnel between home agent and mobile host.
//!
//! Scenarios set it up by zone messages of their own, so that they know every key and choose every number; the demo,
//! the benchmarks and the scenarios about `mmlctl` use that, as a person would.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::aead::{self, ZoneKey};
use crate::command;
use crate::csa_file;
use crate::genl::{self, Genl};
use crate::netns::Netns;
use crate::topology::{Topology, HA, HOME, MH};
use crate::traffic;
use crate::tunnel;
use crate::zone_esp::Sa;
use crate::zone_message::{self, Action, Direction, Message, Role, ANY, HOME_ONLY};

/// A zone's transform: ENCR number and octets of key, and `mmlctl`'s name of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cipher {
    pub encr: u16,
    pub key: usize,
    pub name: &'static str,
}

pub const AES128: Cipher = Cipher {
    encr: aead::AES_GCM_16,
    key: 16,
    name: "aes128-gcm16",
};
pub const AES256: Cipher = Cipher {
    encr: aead::AES_GCM_16,
    key: 32,
    name: "aes256-gcm16",
};
pub const CHACHA: Cipher = Cipher {
    encr: aead::CHACHA20,
    key: 32,
    name: "chacha20-poly1305",
};
pub const AES128_IIV: Cipher = Cipher {
    encr: aead::AES_GCM_16_IIV,
    key: 16,
    name: "aes128-gcm16-iiv",
};
pub const AES256_IIV: Cipher = Cipher {
    encr: aead::AES_GCM_16_IIV,
    key: 32,
    name: "aes256-gcm16-iiv",
};
pub const CHACHA_IIV: Cipher = Cipher {
    encr: aead::CHACHA20_IIV,
    key: 32,
    name: "chacha20-poly1305-iiv",
};

/// Every transform there is.
pub const CIPHERS: [Cipher; 6] = [AES128, AES256, CHACHA, AES128_IIV, AES256_IIV, CHACHA_IIV];

/// How to set it up.
#[derive(Clone, Debug)]
pub struct Options {
    pub ciphers: [Cipher; 2],
    /// The zone map's first stop, an octet; None: the end of the transport header.
    pub stop: Option<usize>,
    pub window: u32,
    /// The sequence number both ends start behind.
    pub sequence: u64,
    pub may_write: bool,
    /// Whether the foreign agent gets its CSAs.
    pub relay: bool,
    /// Whether the foreign agent holds what goes to the mobile host, and that what it sends.
    pub hold: bool,
    /// Whether policies protect the home address at both ends.
    pub protect: bool,
    /// Whether the routes lead into mml0.
    pub routes: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ciphers: [AES256_IIV; 2],
            stop: None,
            window: 8192,
            sequence: 0,
            may_write: false,
            relay: true,
            hold: false,
            protect: true,
            routes: true,
        }
    }
}

/// The two directions of one tunnel.
#[derive(Clone)]
pub struct Keys {
    pub to_mh: Sa,
    pub from_mh: Sa,
}

impl Keys {
    /// Fresh ones.
    pub fn new(options: &Options) -> Self {
        let key = |cipher: Cipher| {
            let salt = traffic::random(4);
            ZoneKey {
                encr: cipher.encr,
                key: traffic::random(cipher.key),
                salt: [salt[0], salt[1], salt[2], salt[3]],
            }
        };
        let direction = |source, destination| {
            let spi = traffic::random(4);
            Sa {
                // Never one of the reserved ones, nor of the small ones kernel ESP gets.
                spi: u32::from_be_bytes([spi[0] | 1, spi[1], spi[2], spi[3]]),
                source,
                destination,
                zones: options.ciphers.map(key),
                stop: options.stop,
                may_write: options.may_write,
            }
        };
        Self {
            to_mh: direction(HA, MH),
            from_mh: direction(MH, HA),
        }
    }
}

/// Makes mml0 at both ends and brings it up.
pub fn devices(net: &Topology) -> Result<()> {
    for namespace in [&net.ha, &net.mh] {
        namespace.ip("link add mml0 type mml\nlink set mml0 up")?;
    }
    Ok(())
}

/// Devices, CSAs, policies and routes. Gives the keys.
pub fn set_up(net: &Topology, options: &Options) -> Result<Keys> {
    devices(net)?;
    let keys = load(net, options)?;
    if options.protect {
        protect(net)?;
    }
    if options.routes {
        tunnel::into_tunnel(&net.ha, &net.mh, "mml0")?;
    }
    Ok(keys)
}

/// Makes fresh CSAs and loads them at the three nodes.
pub fn load(net: &Topology, options: &Options) -> Result<Keys> {
    let keys = Keys::new(options);
    let add = |sa: &Sa, role| {
        let selected = if sa.destination == MH {
            (ANY, HOME_ONLY)
        } else {
            (HOME_ONLY, ANY)
        };
        let mut message = zone_message::add(sa, role, selected, options.window, options.sequence);
        let holder = if sa.destination == MH {
            Role::Relay
        } else {
            Role::Origin
        };
        if options.hold && role == holder {
            message.extensions.push(zone_message::hold());
        }
        message
    };
    // Who opens must know before who seals.
    send(
        &net.mh,
        &[
            add(&keys.to_mh, Role::Terminus),
            add(&keys.from_mh, Role::Origin),
        ],
    )?;
    if options.relay {
        send(
            &net.fa1,
            &[
                add(&keys.to_mh, Role::Relay),
                add(&keys.from_mh, Role::Relay),
            ],
        )?;
    }
    send(
        &net.ha,
        &[
            add(&keys.from_mh, Role::Terminus),
            add(&keys.to_mh, Role::Origin),
        ],
    )?;
    Ok(keys)
}

/// The protect policies' priority; lower ones come first, so that scenarios can put others in front.
pub const PRIORITY: u32 = 100;

/// Policies that protect the home address at both ends.
pub fn protect(net: &Topology) -> Result<()> {
    let outwards = |ends| {
        zone_message::policy(
            Action::Protect,
            Direction::Out,
            (ANY, HOME_ONLY),
            0,
            PRIORITY,
            ends,
        )
    };
    send(
        &net.ha,
        &[
            outwards(Some((HA, MH))),
            zone_message::policy(
                Action::Protect,
                Direction::In,
                (HOME_ONLY, ANY),
                0,
                PRIORITY,
                None,
            ),
        ],
    )?;
    send(
        &net.mh,
        &[
            zone_message::policy(
                Action::Protect,
                Direction::Out,
                (HOME_ONLY, ANY),
                0,
                PRIORITY,
                Some((MH, HA)),
            ),
            zone_message::policy(
                Action::Protect,
                Direction::In,
                (ANY, HOME_ONLY),
                0,
                PRIORITY,
                None,
            ),
        ],
    )
}

/// Takes every CSA away, policies stay.
pub fn flush_csas(net: &Topology) -> Result<()> {
    for namespace in [&net.ha, &net.fa1, &net.mh] {
        send(namespace, &[Message::new(zone_message::FLUSH, Vec::new())])?;
    }
    for namespace in [&net.ha, &net.fa1, &net.mh] {
        namespace.keys.are_gone();
    }
    Ok(())
}

/// Changes a setting of a node.
pub fn set(node: &Netns, name: &str, value: u64) -> Result<()> {
    genl::accepted(Genl::open(node)?.set(name, value)?, name)?;
    Ok(())
}

/// A CSA with one of these ends by itself.
const ENDS: [u16; 2] = [zone_message::LIFETIME_HARD, zone_message::LIFETIME_SOFT];

/// Sends zone messages that must be accepted.
pub fn send(namespace: &Netns, messages: &[Message]) -> Result<()> {
    let mut genl = Genl::open(namespace)?;
    for message in messages {
        if message.adds() == Some(Role::Relay) {
            namespace.keys.relays();
        }
        let ends = message
            .extensions
            .iter()
            .any(|one| ENDS.contains(&one.kind));
        if ends || matches!(message.kind, zone_message::DELETE | zone_message::FLUSH) {
            namespace.keys.are_taken();
        }
        let what = format!("zone message {} at {}", message.kind, namespace.name());
        genl::accepted(genl.pfkey(&message.octets())?, &what)?;
    }
    Ok(())
}

/// The keys that the mobile host's kernel holds, as it gives them back to who may ask: whoever captured must know them.
pub fn held_keys(mh: &Netns) -> Result<Keys> {
    let dump = Message::new(zone_message::DUMP, Vec::new());
    let dumped = Genl::open(mh)?.pfkey_with(&dump.octets(), genl::NLM_F_DUMP)?;
    let dumped = genl::accepted(dumped, "DUMP")?;
    let of = |role: Role| {
        dumped
            .iter()
            .find(|csa| {
                zone_message::find(csa, zone_message::CSA)
                    .is_some_and(|octets| octets.first() == Some(&(role as u8)))
            })
            .and_then(|csa| zone_message::read(csa))
            .context("the mobile host's kernel has no pair of CSAs")
    };
    Ok(Keys {
        to_mh: of(Role::Terminus)?,
        from_mh: of(Role::Origin)?,
    })
}

/// Files with fresh keys by `mmlctl`, in a folder of their own: `ha.toml`, `fa.toml`, `mh.toml`.
pub fn new_files(more: &[&str]) -> Result<PathBuf> {
    new_files_between((HA.into(), MH.into()), &format!("{HOME}/32"), more)
}

/// The same between any ends, the home agent's first, for a home prefix.
pub fn new_files_between((ha, mh): (IpAddr, IpAddr), home: &str, more: &[&str]) -> Result<PathBuf> {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let folder = format!(
        "/run/csa-{}",
        NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    );
    let (ha, mh) = (ha.to_string(), mh.to_string());
    let new = ["mmlctl", "csa", "new", "--out", &folder];
    let ends = ["--ha", &ha, "--mh", &mh, "--selector-mh", home];
    command::run(&[&new[..], &ends[..], more].concat())?;
    Ok(PathBuf::from(folder))
}

/// Devices, CSAs, policies and routes, all by `mmlctl`.
pub fn set_up_by_mmlctl(net: &Topology, relay: bool, more: &[&str]) -> Result<Keys> {
    devices(net)?;
    let folder = new_files(more)?;
    let keys = csa_file::read(&folder.join("mh.toml"))?;
    load_files(net, &folder, relay)?;
    Ok(keys)
}

/// CSAs from a folder's files, policies and routes, by `mmlctl`.
pub fn load_files(net: &Topology, folder: &Path, relay: bool) -> Result<()> {
    load_file(&net.mh, &folder.join("mh.toml"))?;
    if relay {
        load_file(&net.fa1, &folder.join("fa.toml"))?;
    }
    load_file(&net.ha, &folder.join("ha.toml"))?;
    let (home, ha, mh) = (format!("{HOME}/32"), HA.to_string(), MH.to_string());
    for (namespace, to_mh, from_mh) in [(&net.ha, "out", "in"), (&net.mh, "in", "out")] {
        mmlctl(
            namespace,
            &[
                "policy",
                "add",
                "--dir",
                to_mh,
                "--protect",
                "--src",
                "0.0.0.0/0",
                "--dst",
                &home,
                "--outer-src",
                &ha,
                "--outer-dst",
                &mh,
            ],
        )?;
        mmlctl(
            namespace,
            &[
                "policy",
                "add",
                "--dir",
                from_mh,
                "--protect",
                "--src",
                &home,
                "--dst",
                "0.0.0.0/0",
                "--outer-src",
                &mh,
                "--outer-dst",
                &ha,
            ],
        )?;
    }
    tunnel::into_tunnel(&net.ha, &net.mh, "mml0")
}

/// Loads one file at a node.
pub fn load_file(namespace: &Netns, file: &Path) -> Result<()> {
    mmlctl(
        namespace,
        &["csa", "add", "-f", file.to_str().context("path")?],
    )?;
    Ok(())
}

/// Runs `mmlctl` at a node.
pub fn mmlctl(namespace: &Netns, arguments: &[&str]) -> Result<String> {
    match arguments {
        ["csa", "flush" | "delete", ..] => namespace.keys.are_taken(),
        ["csa", "add", "-f", file] => {
            let text = std::fs::read_to_string(file).with_context(|| (*file).to_owned())?;
            if text.contains("role = \"relay\"") {
                namespace.keys.relays();
            }
        }
        _ => {}
    }
    namespace.run(&[&["mmlctl"], arguments].concat())
}
