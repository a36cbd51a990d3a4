// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What keyd makes of a node's network: the device that seals, and inner addresses (RFC 7296 §2.19).

use super::check::Checker;
use super::file;
use super::source::Mistake;
use super::{Device, Role, Start};
use mml_ike::pool::Pool;
use pfkey::{Family, Mode};
use toml::Spanned;

/// Octets of the longest name of a device (`IFNAMSIZ`, less its NUL).
const NAME_LEN: usize = 15;

impl Checker<'_> {
    /// The device, where it is keyd's to make.
    pub(super) fn device(&self) -> Result<Option<Device>, Mistake> {
        let Some(table) = &self.file.device else {
            return Ok(None);
        };
        if self.file.node.role == Role::Fa {
            return Err(self.at(
                table,
                "device: a foreign agent seals nothing and needs none; remove the table",
            ));
        }
        let name = table.get_ref().name.get_ref();
        let sound = (1..=NAME_LEN).contains(&name.len())
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            && name != "."
            && name != "..";
        if !sound {
            return Err(self.at(
                &table.get_ref().name,
                "name: not a device's name; 1 to 15 letters, digits, `-`, `_` and `.`",
            ));
        }
        Ok(Some(Device {
            name: name.clone(),
            routes: table.get_ref().routes,
        }))
    }

    /// Whether an inner address is asked for, and those there are to give.
    pub(super) fn inner_addresses(
        &self,
        t: &file::Tunnel,
        mode: Mode,
        start: Start,
        family: Family,
    ) -> Result<(Option<Family>, Pool), Mistake> {
        let wants = t.request_address.as_ref().filter(|asks| *asks.get_ref());
        if let Some(asks) = wants {
            if t.local.range().is_some() || mode == Mode::Transport {
                return Err(self.at(
                    asks,
                    "request-address: this side's address inside is known already; remove this, or `local` (or `mode`)",
                ));
            }
            if start == Start::Peer {
                return Err(self.at(
                    asks,
                    "request-address: who begins asks for an address; write `start = \"now\"` or `\"demand\"`",
                ));
            }
            if !t.pool.is_empty() {
                return Err(self.at(
                    asks,
                    "request-address: one side asks for addresses and the other gives them; remove this, or `pool`",
                ));
            }
        }
        if let (Some(first), true) = (t.pool.first(), start != Start::Peer) {
            return Err(self.at(
                first,
                "pool: who begins asks for an address, so it is the peer's to begin; write `start = \"peer\"`",
            ));
        }
        for range in &t.pool {
            let one = range.get_ref().0;
            let within = t.remote.holds(one.first()) && t.remote.holds(one.last());
            if t.remote.range().is_none() || !within {
                return Err(self.at(
                    range,
                    "pool: addresses that are not in `remote`, which says what is sealed; let `remote` be a prefix that has them all",
                ));
            }
        }
        let ranges = t.pool.iter().map(|range| range.get_ref().0).collect();
        Ok((wants.map(|_: &Spanned<bool>| family), Pool(ranges)))
    }
}
