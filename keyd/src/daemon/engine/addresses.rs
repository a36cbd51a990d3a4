// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Inner addresses that peers give and get (RFC 7296 §2.19), and what leads into the device.

use super::Engine;
use crate::address;
use crate::daemon::device::plan::Plan;
use mml_ike::event::{IkeId, Time};
use std::net::IpAddr;
use std::time::Duration;

impl Engine {
    /// What is to lead into the device, if that may have changed since it was last asked for, and if it is keyd's.
    pub fn device_plan(&mut self) -> Option<Plan> {
        let changed = std::mem::take(&mut self.replan);
        (changed && self.config.device.is_some()).then(|| Plan::of(&self.config, &self.given))
    }

    /// A peer gave this node an address.
    pub(super) fn address_given(&mut self, ike: IkeId, address: IpAddr) {
        let Some(connection) = self.host.book.ikes.get(&ike).map(|ike| ike.connection) else {
            return;
        };
        if self.given.insert(connection, address) == Some(address) {
            return;
        }
        self.replan = true;
        let name = self.name(connection);
        tracing::info!(connection = name, %address, "the peer gives an inner address");
        if self.config.device.is_none() {
            tracing::warn!(
                connection = name,
                "there is no `[device]` to have it; give it to an interface yourself"
            );
        }
    }

    /// After a restart: who has which address is what the CSAs say that are still there.
    pub(super) fn addresses_read_back(&mut self, now: Time) {
        for orphan in &self.host.book.orphans {
            let Some(connection) = orphan.connection else {
                continue;
            };
            let one = &self.config.ike.connections[connection];
            let (local, remote) = address::prefixes(&orphan.outbound.sa.selector);
            let own = one.request_address.is_some();
            let side = if own { local } else { remote };
            let Some((address, _)) = side.range() else {
                continue;
            };
            if !own && !one.pool.holds(address) {
                continue;
            }
            let left = orphan.outbound.left.map(Duration::from_secs);
            let lifetime = one.child.as_ref().map(|child| child.lifetime);
            let until = now + left.or(lifetime).unwrap_or_default();
            let peer = &orphan.inbound.sa.peer;
            self.endpoint.hold_address(connection, peer, address, until);
            if own {
                self.given.insert(connection, address);
            }
        }
    }
}
