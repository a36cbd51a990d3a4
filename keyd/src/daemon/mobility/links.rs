// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Which links are up, as the kernel says it: at first all of them, then each that changes.

use super::route_message as wire;
use crate::netlink::{Error, Line};
use netlink_sys::protocols::NETLINK_ROUTE;
use std::collections::BTreeMap;
use tokio::sync::mpsc;

/// A link, by its index, and whether it is up and has a carrier.
pub type Change = (u32, bool);

/// Listens to the kernel in a thread of its own.
///
/// # Errors
/// The system's.
pub fn watch() -> Result<mpsc::UnboundedReceiver<Change>, Error> {
    // Events first, so that nothing is missed between the two.
    let mut events = Line::open(NETLINK_ROUTE)?;
    events.join(wire::GROUP_LINK)?;
    let (sender, changes) = mpsc::unbounded_channel();
    let done = std::thread::Builder::new()
        .name("links".to_owned())
        .spawn(move || {
            let mut known = BTreeMap::new();
            // It ends with the daemon, or when the kernel can't be heard any more.
            let Err(error) = listen(&mut events, &mut known, &sender);
            tracing::error!("nothing is heard of links any more: {error}");
        });
    done.map_err(Error::Io)?;
    Ok(changes)
}

enum Never {}

fn listen(
    events: &mut Line,
    known: &mut BTreeMap<u32, bool>,
    to: &mpsc::UnboundedSender<Change>,
) -> Result<Never, Error> {
    let mut tell = |message: &crate::netlink::frame::Message<'_>| {
        if let Some((index, up)) = wire::link(message) {
            if known.insert(index, up).unwrap_or(false) != up {
                // The daemon is ending when nobody takes it.
                let _ = to.send((index, up));
            }
        }
        Ok(())
    };
    let all = || Line::open(NETLINK_ROUTE);
    all()?.exchange(&wire::links, &mut tell)?;
    loop {
        match events.events(&mut tell) {
            Ok(()) => {}
            // What was missed is seen in how things stand.
            Err(Error::Overrun) => {
                all()?.exchange(&wire::links, &mut tell)?;
            }
            Err(error) => return Err(error),
        }
    }
}
