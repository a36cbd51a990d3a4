// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Ends that move: by MOBIKE (RFC 4555), or because a NAT changed its mind.

use super::Engine;
use crate::daemon::kernel::{Ends, Error};
use mml_ike::event::{ChildId, IkeId, Time};
use std::net::SocketAddr;

impl Engine {
    /// An IKE SA lies between other ends now, and its children with it.
    pub(super) fn moved(&mut self, id: IkeId, ends: Ends, children: &[ChildId], now: Time) {
        if let Some(ike) = self.host.book.ikes.get_mut(&id) {
            (ike.local, ike.remote) = (ends.src, ends.dst);
            let name = &self.config.connections[ike.connection].name;
            tracing::info!(connection = name, local = %ends.src, remote = %ends.dst, "moved");
        }
        for child in children {
            self.move_child(*child, &ends, now);
        }
    }

    /// The kernel takes packets of a CSA from another address or port than it sends to.
    pub(super) fn new_mapping(&mut self, spi: u32, new: SocketAddr, now: Time) {
        let mut children = self.host.book.children.iter();
        let child = children.find(|(_, child)| child.composite && child.inbound.spi == spi);
        let Some((child, local)) = child.and_then(|(id, child)| Some((*id, child.udp?.0))) else {
            return;
        };
        tracing::info!("a NAT moved the peer of child {} to {new}", child.0);
        let ends = Ends {
            src: local,
            dst: new,
            udp: true,
        };
        self.move_child(child, &ends, now);
    }

    /// Moves a child, by its ends as packets from this node have them. What can't be moved with its counters gets new
    /// keys: a counter must not start again under the same one.
    fn move_child(&mut self, id: ChildId, ends: &Ends, now: Time) {
        let Some(ike) = self.ike_of_child(id) else {
            return;
        };
        if let Err(error) = self.migrate(id, ends) {
            tracing::info!(
                "child {} is rekeyed, since it can't be moved: {error}",
                id.0
            );
            if let Err(error) = self.endpoint.rekey_child(ike, id, now, &mut self.host) {
                tracing::warn!("child {} can't be rekeyed: {error}", id.0);
            }
        }
    }

    /// First where it is opened, then where it is sealed.
    fn migrate(&mut self, id: ChildId, ends: &Ends) -> Result<(), Error> {
        let host = &mut self.host;
        let Some(child) = host.book.children.get(&id) else {
            return Ok(());
        };
        let Some(kernel) = host.kernels.of(child.composite) else {
            return Ok(());
        };
        let moved = host.book.children.change(id, |child| -> Result<(), Error> {
            child.inbound = kernel.migrate(&child.inbound, &ends.back())?;
            child.outbound = kernel.migrate(&child.outbound, ends)?;
            child.udp = ends.udp.then_some((ends.src, ends.dst));
            Ok(())
        });
        moved.transpose()?;
        self.counters.migrated += 1;
        Ok(())
    }
}
