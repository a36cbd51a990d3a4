// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The end that peers are told of: `keyd run --flush`, `mmlctl leave`.

use super::engine::Engine;
use super::mobility::Mobility;
use super::run::send_all;
use super::udp::Sockets;
use mml_mip::Event;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// How long peers are waited for, at each step.
const FAREWELL: Duration = Duration::from_secs(2);

/// Closes all, waits a moment for the peers to hear of it, and takes everything out of the kernel. An agent ends registrations
/// first, so that keys are revoked by the IKE SAs there are; a mobile host deregisters last, since its IKE goes by its home
/// agent's tunnel.
pub(super) async fn say(
    engine: &mut Engine,
    sockets: &mut Sockets,
    mobility: &mut Option<Mobility>,
    start: Instant,
) {
    if let Some(mobility) = mobility {
        end_registrations(engine, sockets, mobility, start).await;
    }
    close(engine, sockets, start).await;
    if let Some(mobility) = mobility {
        deregister(engine, mobility, start).await;
        mobility.flush();
    }
}

/// An agent has the other agents told that hosts are registered by it no more, and sees zone 1's keys go with that.
async fn end_registrations(
    engine: &mut Engine,
    sockets: &mut Sockets,
    mobility: &mut Mobility,
    start: Instant,
) {
    let now = start.elapsed();
    let told = mobility.close(now, &mut |event| engine.mobile_event(event, now));
    let homes: Vec<Ipv4Addr> = told.iter().map(|(home, _)| *home).collect();
    let mut awaited = told;
    let end = tokio::time::Instant::now() + FAREWELL;
    while !awaited.is_empty() || engine.keys_to_go(&homes) {
        send_all(engine, sockets).await;
        let due = [mobility.next_deadline(), engine.next_deadline()];
        let due = due.into_iter().flatten().min();
        let due = due.map_or(end, |at| tokio::time::Instant::from_std(start + at));
        tokio::select! {
            () = tokio::time::sleep_until(end) => break,
            () = tokio::time::sleep_until(due) => {
                let now = start.elapsed();
                mobility.tick(now, &mut |event| engine.mobile_event(event, now));
                engine.tick(now);
            }
            received = sockets.receive() => match received {
                Some(one) => engine.handle(&one.octets, one.from, one.to, start.elapsed()),
                None => break,
            },
            Some(heard) = mobility.receive() => {
                let now = start.elapsed();
                mobility.handle(&heard, now, &mut |event| {
                    if let Event::RevocationConfirmed { home, peer } = event {
                        awaited.retain(|one| one != &(*home, *peer));
                    }
                    engine.mobile_event(event, now);
                });
            }
        }
    }
    for (home, peer) in awaited {
        tracing::warn!(%home, %peer, "the other agent doesn't say in time that it knows of the registration's end");
    }
    send_all(engine, sockets).await;
}

async fn close(engine: &mut Engine, sockets: &mut Sockets, start: Instant) {
    engine.close_all(start.elapsed());
    let end = tokio::time::Instant::now() + FAREWELL;
    while !engine.book().ikes.is_empty() {
        send_all(engine, sockets).await;
        tokio::select! {
            () = tokio::time::sleep_until(end) => break,
            received = sockets.receive() => match received {
                Some(one) => engine.handle(&one.octets, one.from, one.to, start.elapsed()),
                None => break,
            },
        }
    }
    engine.flush();
}

/// A mobile host tells its home agent that it leaves, and waits a moment for the answer.
async fn deregister(engine: &mut Engine, mobility: &mut Mobility, start: Instant) {
    let now = start.elapsed();
    if !mobility.leave(now, &mut |event| engine.mobile_event(event, now)) {
        return;
    }
    let end = tokio::time::Instant::now() + FAREWELL;
    let mut left = false;
    while !left {
        let due = mobility.next_deadline();
        let due = due.map_or(end, |at| tokio::time::Instant::from_std(start + at));
        tokio::select! {
            () = tokio::time::sleep_until(end) => break,
            // It is sent again where the first was lost.
            () = tokio::time::sleep_until(due) => {
                let now = start.elapsed();
                mobility.tick(now, &mut |event| engine.mobile_event(event, now));
            }
            Some(heard) = mobility.receive() => {
                let now = start.elapsed();
                mobility.handle(&heard, now, &mut |event| {
                    left |= *event == Event::Left;
                    engine.mobile_event(event, now);
                });
            }
        }
    }
    if !left {
        tracing::warn!("the home agent doesn't say in time that it knows that this host leaves");
    }
}
