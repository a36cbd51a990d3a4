// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Cookies (RFC 7296 §2.6): nothing is kept of an initiator that has not shown it receives at its address.

use crate::crypto::Hash;
use crate::event::Time;
use crate::host::Host;
use crate::secret::Secret;
use crate::wire::reader::octets;
use std::net::SocketAddr;
use std::time::Duration;

/// How long a secret makes cookies; it checks them as long again.
const SECRET_TIME: Duration = Duration::from_secs(60);

/// The secrets cookies are made of.
#[derive(Default)]
pub(super) struct Cookies {
    current: Option<(u8, Secret, Time)>,
    previous: Option<(u8, Secret)>,
}

impl Cookies {
    /// The cookie for a first message: version ‖ prf(secret, Ni | address | port | SPIi).
    pub fn make(
        &mut self,
        ni: &[u8],
        from: SocketAddr,
        spi_i: u64,
        now: Time,
        host: &mut dyn Host,
    ) -> Vec<u8> {
        let stale = |(_, _, born): &(u8, Secret, Time)| *born + SECRET_TIME <= now;
        if self.current.as_ref().is_none_or(stale) {
            let version = self.current.as_ref().map_or(0, |(v, ..)| v.wrapping_add(1));
            self.previous = self.current.take().map(|(v, secret, _)| (v, secret));
            let secret = Secret::new(crate::host::nonce(host, 32));
            self.current = Some((version, secret, now));
        }
        let Some((version, secret, _)) = &self.current else {
            return Vec::new();
        };
        let sum = sum(secret, ni, from, spi_i);
        [&[*version], sum.expose()].concat()
    }

    /// Whether a cookie is one made for this first message.
    pub fn check(&self, cookie: &[u8], ni: &[u8], from: SocketAddr, spi_i: u64, now: Time) -> bool {
        let Some((version, tag)) = cookie.split_first() else {
            return false;
        };
        let current = self
            .current
            .as_ref()
            .filter(|(_, _, born)| now < *born + 2 * SECRET_TIME)
            .map(|(v, secret, _)| (v, secret));
        let previous = self.previous.as_ref().map(|(v, secret)| (v, secret));
        let mut secrets = current.into_iter().chain(previous);
        let Some((_, secret)) = secrets.find(|(v, _)| *v == version) else {
            return false;
        };
        Hash::Sha256.verify(
            secret.expose(),
            &parts(ni, from, spi_i).each_ref().map(Vec::as_slice),
            tag,
        )
    }
}

fn parts(ni: &[u8], from: SocketAddr, spi_i: u64) -> [Vec<u8>; 4] {
    [
        ni.to_vec(),
        octets(from.ip()),
        from.port().to_be_bytes().to_vec(),
        spi_i.to_be_bytes().to_vec(),
    ]
}

fn sum(secret: &Secret, ni: &[u8], from: SocketAddr, spi_i: u64) -> Secret {
    let parts = parts(ni, from, spi_i);
    Hash::Sha256.prf(secret.expose(), &parts.each_ref().map(Vec::as_slice))
}
