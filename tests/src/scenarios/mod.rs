// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The scenarios, one room a file.

mod attack;
mod bad_packets;
mod device;
mod full_rate;
mod ground;
mod guard;
pub mod handoff;
mod handoff_bad_days;
mod handoff_killed;
mod handoff_recall;
mod handoff_rekey;
mod handoff_snoop;
mod handoff_stream;
mod handoff_tcp;
mod hardship;
mod heard;
mod hold;
mod ipv6;
pub mod keyd;
mod keyd_file;
mod leave;
mod lifetime;
mod limits;
mod malformed_messages;
mod memory;
mod mmlctl;
pub mod mobility;
mod multicast;
mod neighbours;
mod offload;
mod pair;
mod path;
mod ports;
mod readers;
mod relay;
mod sleep;
mod snoop;
mod states;
mod strangers;
mod strongswan;
mod strongswan_life;
mod strongswan_proof;
mod teardown;
mod transport;
mod tunnel;
mod udp;
mod wireless;
mod writing_relay;
mod zone_messages;

use crate::scenario::Scenario;

/// The tables, in the order they run.
const TABLES: &[&[Scenario]] = &[
    ground::TABLE,
    tunnel::TABLE,
    readers::TABLE,
    path::TABLE,
    offload::TABLE,
    guard::TABLE,
    ports::TABLE,
    neighbours::TABLE,
    ipv6::TABLE,
    udp::TABLE,
    transport::TABLE,
    strangers::TABLE,
    bad_packets::TABLE,
    relay::TABLE,
    malformed_messages::TABLE,
    zone_messages::TABLE,
    lifetime::TABLE,
    sleep::TABLE,
    limits::TABLE,
    states::TABLE,
    writing_relay::TABLE,
    mmlctl::TABLE,
    keyd::TABLE,
    device::TABLE,
    full_rate::TABLE,
    keyd_file::TABLE,
    strongswan::TABLE,
    strongswan_proof::TABLE,
    strongswan_life::TABLE,
    mobility::TABLE,
    handoff::TABLE,
    leave::TABLE,
    multicast::TABLE,
    handoff_stream::TABLE,
    handoff_tcp::TABLE,
    handoff_snoop::TABLE,
    handoff_recall::TABLE,
    handoff_bad_days::TABLE,
    handoff_rekey::TABLE,
    heard::TABLE,
    handoff_killed::TABLE,
    hold::TABLE,
    snoop::TABLE,
    teardown::TABLE,
    hardship::TABLE,
    memory::TABLE,
    wireless::TABLE,
];

/// All scenarios, in that order.
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    TABLES.iter().copied().flatten()
}
