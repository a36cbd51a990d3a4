// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What scenarios with bad packets share: an attacker who makes them, and a victim who must not see them.

use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};

use crate::headers::{self, IpDraft};
use crate::scenario::Ctx;
use crate::sockets::{Socket, UdpSocket};
use crate::stats::Watch;
use crate::topology::{CN, HOME};
use crate::traffic;
use crate::zone_esp::{outer, Draft, Sa};
use crate::zone_tunnel::{self, Options};

/// An attacker on the backbone, and the mobile host's socket that must stay silent.
pub struct Attack<'a> {
    pub ctx: &'a Ctx<'a>,
    pub sa: Sa,
    pub core: Socket,
    receiver: UdpSocket,
}

impl<'a> Attack<'a> {
    /// Takes the direction to the mobile host, which the home agent does not use meanwhile.
    pub fn prepare(ctx: &'a Ctx<'a>, options: &Options) -> Result<Self> {
        let keys = ctx.zone_tunnel(options)?;
        Self::with(ctx, keys.to_mh)
    }

    fn with(ctx: &'a Ctx<'a>, sa: Sa) -> Result<Self> {
        let attack = Self {
            ctx,
            sa,
            core: traffic::raw(ctx.net.core()?, 255)?,
            receiver: traffic::udp(&ctx.net.mh, HOME, 5000)?,
        };
        // A good packet first: it proves that the attacker's packets are right but for what is wrong with them, and
        // makes the neighbours known.
        attack.inject(&attack.draft(1, b"first").seal(&attack.sa)?)?;
        attack.delivered(b"first")?;
        Ok(attack)
    }

    /// Other keys under the same topology.
    pub fn rekey(&mut self, options: &Options) -> Result<()> {
        zone_tunnel::flush_csas(&self.ctx.net)?;
        self.sa = zone_tunnel::load(&self.ctx.net, options)?.to_mh;
        self.inject(&self.draft(1, b"first").seal(&self.sa)?)?;
        self.delivered(b"first")
    }

    /// A datagram that would reach the receiver.
    pub fn datagram(&self, data: &[u8]) -> Vec<u8> {
        IpDraft::new(CN, HOME, headers::UDP).write(&headers::udp(CN, 4000, HOME, 5000, data))
    }

    /// A good packet, to be spoiled.
    pub fn draft(&self, sequence: u64, data: &[u8]) -> Draft {
        Draft::new(&self.sa, sequence, &self.datagram(data))
    }

    pub fn inject(&self, esp: &[u8]) -> Result<()> {
        traffic::send_raw(&self.core, &outer(&self.sa, esp))
    }

    /// The receiver gets exactly this next.
    pub fn delivered(&self, data: &[u8]) -> Result<()> {
        let received = traffic::receive(&self.receiver, traffic::ARRIVES)?.with_context(|| {
            format!(
                "a good packet ({:?}) was not delivered",
                String::from_utf8_lossy(data)
            )
        })?;
        ensure!(received == data, "delivered {received:02x?}");
        Ok(())
    }

    /// The receiver gets nothing.
    pub fn silent(&self) -> Result<()> {
        traffic::silent(&self.receiver)
    }

    /// Waits until as many packets are counted as dropped, then checks that none was delivered.
    pub fn all_dropped(&self, watch: &Watch<'_>, count: u64) -> Result<()> {
        let end = Instant::now() + self.ctx.seconds(5.0);
        while watch.dropped()? < count && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.silent()?;
        let dropped = watch.dropped()?;
        ensure!(
            dropped == count,
            "{count} packets were injected and {dropped} counted: {:?}",
            watch.grown()?
        );
        Ok(())
    }

    /// One spoiled packet is dropped for exactly this reason.
    pub fn dropped_for(&self, reason: &str, what: &str, esp: &[u8]) -> Result<()> {
        let watch = Watch::start(&self.ctx.net.mh)?;
        self.inject(esp)?;
        let end = Instant::now() + self.ctx.seconds(2.0);
        while watch.dropped()? == 0 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        watch
            .expect(&[(reason, 1)])
            .with_context(|| what.to_owned())
    }
}
