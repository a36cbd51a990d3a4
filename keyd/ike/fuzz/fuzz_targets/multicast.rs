// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Datagrams to a member of a group (docs/wire.md §3.3): kind, length (16 bits), octets; over and over. Those of an even kind
//! come as they are, from anybody; those of an odd one are payloads that the home agent has sealed and signed.
#![no_main]

#[allow(dead_code)]
#[path = "../../tests/common/host.rs"]
mod host;
#[allow(dead_code)]
#[path = "../../tests/common/peer.rs"]
mod peer;
mod permitted;

use libfuzzer_sys::fuzz_target;
use mml_ike::crypto::{Cipher, GroupSealer};
use mml_ike::event::{Event, GroupHeard, Output};
use mml_ike::secret::Secret;
use mml_ike::wire::{
    CsaData, Encr, ExchangeType, GroupKey, GroupStatus, MulticastHeader, Payload,
};
use std::net::SocketAddr;
use std::time::Duration;

const GROUP: (u32, u32) = (7, 1);

fuzz_target!(|octets: &[u8]| {
    let keymat = Secret::new(vec![3; 20]);
    let mut sealer =
        GroupSealer::new(GROUP, Cipher::Aes128Gcm, &keymat, &Secret::new(vec![5; 32])).unwrap();
    let key = GroupKey {
        group: GROUP.0,
        epoch: GROUP.1,
        encr: Encr::AES_GCM_16,
        key: Secret::new(vec![3; 16]),
        salt: Secret::new(vec![3; 4]),
        public: sealer.public(),
    };
    let mut peer = permitted::connected();
    let joined = peer.ask(ExchangeType::CSA_DISTRIBUTE, &[Payload::CsaData(CsaData::GroupKey(key))]);
    let accepted = Payload::CsaData(CsaData::Status(vec![GroupStatus::Accepted]));
    assert_eq!(joined, Some(vec![accepted]));
    let from: SocketAddr = "192.0.2.1:49434".parse().unwrap();
    let to = SocketAddr::new("192.0.2.2".parse().unwrap(), permitted::MULTICAST);
    let mut rest = octets;
    while let [kind, high, low, more @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(more.len());
        let (said, behind) = more.split_at(len);
        rest = behind;
        if let Ok(header) = MulticastHeader::decode(said) {
            assert_eq!(header.encode(), said[..16]);
        }
        let sealed = (kind & 1 == 1).then(|| sealer.seal(said).unwrap());
        let datagram = sealed.as_deref().unwrap_or(said);
        peer.endpoint.handle(datagram, from, to, peer.now, &mut peer.host);
        let mut installs = false;
        while let Some(output) = peer.endpoint.poll() {
            match output {
                Output::Event(Event::RelayUp(csa)) => {
                    installs = true;
                    let identity = csa.identity;
                    assert!(identity.standby && !identity.may_write && identity.relay_number == 0);
                }
                Output::Event(Event::GroupHeard(GroupHeard::Said { .. })) => {
                    assert!(sealed.is_some(), "it is not the home agent's");
                }
                _ => {}
            }
        }
        assert!(!installs || sealed.is_some(), "it is not the home agent's");
        peer.now += Duration::from_secs(1);
        peer.endpoint.tick(peer.now, &mut peer.host);
    }
});
