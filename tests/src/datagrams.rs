// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Numbered datagrams: single ones, and streams of them of which none may be lost.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};

use crate::scenario::Ctx;
use crate::sockets::UdpSocket;
use crate::traffic;

/// Sends these numbers at once.
pub fn sends(from: &UdpSocket, to: &UdpSocket, numbers: std::ops::Range<u32>) -> Result<()> {
    let to = to.local_addr()?;
    for number in numbers {
        from.send_to(&number.to_be_bytes(), to)?;
    }
    Ok(())
}

/// The numbers that come until nothing comes any more.
pub fn arrived(ctx: &Ctx, at: &UdpSocket) -> Result<Vec<u32>> {
    let mut numbers = Vec::new();
    while let Some(data) = traffic::receive(at, ctx.seconds(0.5))? {
        let number = data.as_slice().try_into().context("another datagram")?;
        numbers.push(u32::from_be_bytes(number));
    }
    Ok(numbers)
}

/// Numbered datagrams every two milliseconds from one socket to another, while `f` runs and a little before and after;
/// every one of them arrives.
pub fn streamed<T>(pairs: &[(&UdpSocket, &UdpSocket)], f: impl FnOnce() -> Result<T>) -> Result<T> {
    streamed_but(pairs, 0, f)
}

/// The same, but of each stream so many datagrams may be lost.
pub fn streamed_but<T>(
    pairs: &[(&UdpSocket, &UdpSocket)],
    allowed: usize,
    f: impl FnOnce() -> Result<T>,
) -> Result<T> {
    streamed_accounted(pairs, &|| Ok(allowed), f)
}

/// The same, but how many may be lost is asked when all have been sent.
pub fn streamed_accounted<T>(
    pairs: &[(&UdpSocket, &UdpSocket)],
    allowed: &dyn Fn() -> Result<usize>,
    f: impl FnOnce() -> Result<T>,
) -> Result<T> {
    const PAUSE: Duration = Duration::from_millis(300);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let streams: Vec<_> = pairs
            .iter()
            .map(|(from, to)| {
                let stop = &stop;
                let sent = Arc::new(AtomicU32::new(u32::MAX));
                let all = Arc::clone(&sent);
                let sender = scope.spawn(move || -> Result<u32> {
                    let to = to.local_addr()?;
                    let mut count = 0u32;
                    while !stop.load(Ordering::Acquire) {
                        from.send_to(&count.to_be_bytes(), to)
                            .context("cannot send")?;
                        count += 1;
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    sent.store(count, Ordering::Release);
                    Ok(count)
                });
                // Meanwhile: a socket holds some ten thousand of them, and a slow machine sends more.
                let receiver = scope.spawn(move || all_arrive(to, stop, &all));
                (sender, receiver)
            })
            .collect();
        std::thread::sleep(PAUSE);
        let result = f();
        std::thread::sleep(PAUSE);
        stop.store(true, Ordering::Release);
        for ((sender, receiver), (_, to)) in streams.into_iter().zip(pairs) {
            let panicked = |_| anyhow::anyhow!("a stream panicked");
            let (sent, came) = (sender.join(), receiver.join());
            let (sent, came) = (sent.map_err(panicked)??, came.map_err(panicked)??);
            ensure!(sent > 50, "{sent} datagrams were sent only");
            let missing: Vec<u32> = (0..sent).filter(|number| !came.contains(number)).collect();
            ensure!(
                missing.len() <= allowed()?,
                "of {sent} datagrams to {} {} were lost, the first of them number {:?}",
                to.local_addr()?,
                missing.len(),
                missing.first()
            );
        }
        result
    })
}

/// The numbers that arrive at a socket, until all have that were sent, or none has for two seconds after the last was.
fn all_arrive(to: &UdpSocket, stop: &AtomicBool, sent: &AtomicU32) -> Result<BTreeSet<u32>> {
    const LAST: Duration = Duration::from_secs(2);
    let mut came = BTreeSet::new();
    let mut last: Option<Instant> = None;
    while came.len() < sent.load(Ordering::Acquire) as usize {
        if let Some(data) = traffic::receive(to, Duration::from_millis(50))? {
            let number = data.as_slice().try_into().context("another datagram")?;
            came.insert(u32::from_be_bytes(number));
            last = None;
        } else if stop.load(Ordering::Acquire) {
            let since = *last.get_or_insert_with(Instant::now);
            if since.elapsed() > LAST {
                break;
            }
        }
    }
    Ok(came)
}
