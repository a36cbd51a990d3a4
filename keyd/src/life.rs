// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A CSA's life as it is asked of the module: an SPI reserved, given keys, and limits changed (docs/wire.md §2.2, §2.5).

use crate::kernel::{malformed, naming, refused, Kernel};
use crate::netlink::Error;
use pfkey::number::{message, satype};
use pfkey::{Csa, CsaExt, CsaId, Lifetime, SpiRequest, State, Writer};
use zeroize::Zeroizing;

/// Writes the UPDATE that gives a larval CSA its keys.
fn fill_message<'b>(buffer: &'b mut [u8], csa: &Csa<'_>) -> Result<&'b [u8], pfkey::Error> {
    let writer = Writer::new(
        buffer,
        message::UPDATE,
        satype::MLESP,
        1,
        std::process::id(),
    )?;
    csa.write(writer)?.finish()
}

/// Writes the UPDATE of a CSA's state, the top of its window if that isn't 0, and the limits that are given.
fn limit_message<'b>(
    buffer: &'b mut [u8],
    id: &CsaId,
    (state, sequence): (State, u64),
    soft: Option<Lifetime>,
    hard: Option<Lifetime>,
) -> Result<&'b [u8], pfkey::Error> {
    let ext = CsaExt {
        state,
        sequence,
        ..naming(id.role)
    };
    let writer = Writer::new(
        buffer,
        message::UPDATE,
        satype::MLESP,
        1,
        std::process::id(),
    )?;
    id.write(writer, &ext)?
        .maybe(hard.map(pfkey::Extension::LifetimeHard))?
        .maybe(soft.map(pfkey::Extension::LifetimeSoft))?
        .finish()
}

impl Kernel {
    /// Reserves an SPI of a terminus here; gives the larval CSA's name.
    pub fn reserve_spi(&mut self, request: &SpiRequest) -> Result<CsaId, Error> {
        let mut buffer = [0; 256];
        let pid = std::process::id();
        let octets = Writer::new(&mut buffer, message::GETSPI, satype::MLESP, 1, pid)
            .and_then(|w| request.write(w))
            .and_then(Writer::finish)
            .map_err(refused)?;
        let mut reserved = None;
        self.ask(octets, &mut |message| {
            reserved = Some(CsaId::from_message(message).map_err(malformed)?);
            Ok(())
        })?;
        reserved.ok_or(Error::Malformed("no SPI in the answer"))
    }

    /// Gives a larval CSA its keys, and whatever else an ADD would.
    pub fn fill_csa(&mut self, csa: &Csa<'_>) -> Result<(), Error> {
        let mut buffer = Zeroizing::new([0; pfkey::MAX_LEN]);
        let octets = fill_message(&mut *buffer, csa).map_err(refused)?;
        self.tell(octets)
    }

    /// Changes a CSA's state, moves the top of its window up to `sequence` if that isn't 0, and replaces the soft limits,
    /// the hard ones, or both, whole.
    pub fn limit_csa(
        &mut self,
        id: &CsaId,
        standing: (State, u64),
        soft: Option<Lifetime>,
        hard: Option<Lifetime>,
    ) -> Result<(), Error> {
        let mut buffer = [0; 512];
        let octets = limit_message(&mut buffer, id, standing, soft, hard).map_err(refused)?;
        self.tell(octets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pfkey::{Address, CsaUpdate, Message, Role};

    #[test]
    fn limits_reach_the_update_and_what_is_not_given_is_not_in_it() {
        let id = CsaId {
            spi: 300,
            src: Address::v4([198, 51, 100, 1]),
            dst: Address::v4([10, 1, 1, 7]),
            role: Role::Terminus,
        };
        let hard = Lifetime {
            allocations: 7,
            ..Lifetime::default()
        };
        let mut buffer = [0; 512];
        let octets = limit_message(&mut buffer, &id, (State::Dying, 9), None, Some(hard)).unwrap();
        let update = CsaUpdate::from_message(&Message::parse(octets).unwrap()).unwrap();
        assert_eq!(
            (update.id, update.state, update.sequence),
            (id, State::Dying, 9)
        );
        assert_eq!((update.soft, update.hard), (None, Some(hard)));
    }

    #[test]
    fn what_fills_a_larval_csa_is_all_that_an_add_holds() {
        let text = r#"[[csa]]
role = "terminus"
spi = 4096
src = "198.51.100.1"
dst = "10.1.1.7"
selector = { dst = "203.0.113.7/32" }
[csa.zone1]
algorithm = "aes128-gcm16-iiv"
key = "000102030405060708090a0b0c0d0e0f"
salt = "00010203"
[csa.zone2]
algorithm = "aes128-gcm16-iiv"
key = "101112131415161718191a1b1c1d1e1f"
salt = "00010203"
"#;
        let entries = crate::csa_file::parse("a test", text).unwrap();
        let csa = entries[0].to_csa().unwrap();
        let mut buffer = [0; pfkey::MAX_LEN];
        let message = Message::parse(fill_message(&mut buffer, &csa).unwrap()).unwrap();
        assert_eq!(message.header().kind, message::UPDATE);
        assert_eq!(Csa::from_message(&message), Ok(csa));
    }
}
