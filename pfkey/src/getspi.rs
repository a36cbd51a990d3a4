// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! GETSPI: which SPI is asked for, and which may be had.

use crate::address::Address;
use crate::csa::mlesp;
use crate::error::Error;
use crate::id::outer;
use crate::message::Message;
use crate::number::{ext, SPI_MIN};
use crate::standard::SpiRange;
use crate::text::Fault;
use crate::writer::Writer;
use crate::zone::Role;

/// What a GETSPI asks for: an SPI of a terminus, which is who chooses it (RFC 2367 §3.1.1; docs/wire.md 2.2b).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpiRequest {
    /// The outer source, as far as it is known.
    pub src: Address,
    /// The outer destination: this node.
    pub dst: Address,
    /// The SPIs to choose from; none of the reserved ones is among them.
    pub range: SpiRange,
}

impl SpiRequest {
    /// SPIs looked at before none is free.
    pub const CANDIDATES: u32 = 1024;

    /// Takes what is asked for from a GETSPI.
    ///
    /// # Errors
    ///
    /// `EPROTONOSUPPORT` if it is for another SA type; `EINVAL` and a text that names the extension for all else.
    pub fn from_message(message: &Message<'_>) -> Result<Self, Error> {
        mlesp(message)?;
        let (src, dst) = outer(message)?;
        let range = message
            .spirange()
            .ok_or(Error::extension(ext::SPIRANGE, Fault::Missing))?;
        if range.max < SPI_MIN {
            return Err(Error::invalid(c"SPIRANGE: SPIs below 256 are reserved"));
        }
        if message.csa().is_some_and(|csa| csa.role != Role::Terminus) {
            return Err(Error::invalid(
                c"CSA: the terminus alone chooses an SPI; the others are told it",
            ));
        }
        let range = SpiRange {
            min: range.min.max(SPI_MIN),
            max: range.max,
        };
        Ok(SpiRequest { src, dst, range })
    }

    /// Writes it.
    pub fn write<'b>(&self, writer: Writer<'b>) -> Result<Writer<'b>, Error> {
        writer
            .src(&self.src)?
            .dst(&self.dst)?
            .extension(&crate::Extension::SpiRange(self.range))
    }

    /// SPIs of the range to try, each once, from one that `random` picks on.
    pub fn candidates(&self, random: u32) -> impl Iterator<Item = u32> {
        let (min, max) = (self.range.min, self.range.max);
        // As many as there are, less one: all of 32 bits have no number of 32 bits.
        let span = max.saturating_sub(min);
        let start = match span.checked_add(1) {
            Some(count) => random.checked_rem(count).unwrap_or(0),
            None => random,
        };
        (0..=span.min(Self::CANDIDATES.saturating_sub(1))).map(move |step| {
            // The offset modulo `span` + 1, without a sum that could overflow.
            let left = span.saturating_sub(start);
            let offset = if step <= left {
                start.saturating_add(step)
            } else {
                step.saturating_sub(left).saturating_sub(1)
            };
            min.saturating_add(offset)
        })
    }
}
