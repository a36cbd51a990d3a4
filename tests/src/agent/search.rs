// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Looks through all of the machine's memory, kernel's and programs', for octets that shall or shan't be there.
//!
//! What is looked for comes under a mask and is compared octet by octet, so that the looking never puts it into memory.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{ensure, Context, Result};

const KCORE: &str = "/proc/kcore";
/// ELF64's program header: its size, its type for memory, and where its fields are.
const HEADER: usize = 56;
const PT_LOAD: u32 = 1;
const CHUNK: usize = 1 << 20;

/// What is looked for: each is `masked ^ mask`.
pub struct Needle<'a> {
    mask: &'a [u8],
    masked: &'a [u8],
}

impl<'a> Needle<'a> {
    /// Takes apart masks and masked octets in turn, each of `length` octets.
    pub fn all(octets: &'a [u8], length: usize) -> Result<Vec<Self>> {
        ensure!(
            length >= 8 && octets.len() % (2 * length) == 0,
            "needles of {length} octets in {}",
            octets.len()
        );
        Ok(octets
            .chunks_exact(2 * length)
            .map(|pair| {
                let (mask, masked) = pair.split_at(length);
                Self { mask, masked }
            })
            .collect())
    }

    fn octet(&self, at: usize) -> Option<u8> {
        Some(self.mask.get(at)? ^ self.masked.get(at)?)
    }

    fn is_at(&self, memory: &[u8]) -> bool {
        memory.len() >= self.mask.len()
            && memory
                .iter()
                .zip(self.mask.iter().zip(self.masked))
                .all(|(octet, (mask, masked))| octet ^ mask == *masked)
    }
}

/// How often each is in memory.
pub fn count(needles: &[Needle<'_>]) -> Result<Vec<u64>> {
    let core = File::open(KCORE).context(KCORE)?;
    let mut found = vec![0; needles.len()];
    let mut looked_at = 0;
    for (offset, length) in memory(&core)? {
        looked_at += length;
        scan(&core, offset, length, needles, &mut found)?;
    }
    ensure!(
        looked_at > 64 << 20,
        "{KCORE} shows only {looked_at} octets of memory"
    );
    Ok(found)
}

/// Offset and length in the file of each piece of the machine's memory. Other pieces are views of the same memory,
/// without a physical address.
fn memory(core: &File) -> Result<Vec<(u64, u64)>> {
    let mut head = [0; 64];
    core.read_exact_at(&mut head, 0).context(KCORE)?;
    let start = word(&head, 32).context("no program headers")?;
    let count = head
        .get(56..58)
        .and_then(|octets| octets.first_chunk())
        .map_or(0, |octets| u16::from_le_bytes(*octets));
    let mut pieces = Vec::new();
    for number in 0..u64::from(count) {
        let mut header = [0; HEADER];
        core.read_exact_at(&mut header, start + number * HEADER as u64)
            .context(KCORE)?;
        let kind = header
            .first_chunk()
            .map(|octets| u32::from_le_bytes(*octets));
        let (offset, physical, length) = (word(&header, 8), word(&header, 24), word(&header, 32));
        if let (Some(PT_LOAD), Some(offset), Some(physical), Some(length)) =
            (kind, offset, physical, length)
        {
            if physical != u64::MAX {
                pieces.push((offset, length));
            }
        }
    }
    Ok(pieces)
}

fn word(octets: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*octets.get(at..)?.first_chunk()?))
}

fn scan(
    core: &File,
    offset: u64,
    length: u64,
    needles: &[Needle<'_>],
    found: &mut [u64],
) -> Result<()> {
    let firsts: [bool; 256] = std::array::from_fn(|octet| {
        needles
            .iter()
            .any(|needle| needle.octet(0).map(usize::from) == Some(octet))
    });
    // What lies across two chunks is seen by keeping the end of one in front of the next.
    let overlap = needles
        .iter()
        .map(|needle| needle.mask.len())
        .max()
        .unwrap_or(1)
        - 1;
    let mut buffer = vec![0; CHUNK + overlap];
    let mut kept = 0;
    let mut at = 0;
    while at < length {
        let wanted = CHUNK.min(usize::try_from(length - at)?);
        let part = buffer.get_mut(kept..kept + wanted).unwrap_or_default();
        let read = core.read_at(part, offset + at).context(KCORE)?;
        if read == 0 {
            break;
        }
        let filled = buffer.get(..kept + read).unwrap_or_default();
        for (place, octet) in filled.iter().enumerate() {
            if firsts.get(usize::from(*octet)) == Some(&true) {
                let rest = filled.get(place..).unwrap_or_default();
                for (needle, count) in needles.iter().zip(found.iter_mut()) {
                    *count += u64::from(needle.is_at(rest));
                }
            }
        }
        let end = kept + read;
        kept = overlap.min(end);
        buffer.copy_within(end - kept..end, 0);
        at += read as u64;
    }
    Ok(())
}
