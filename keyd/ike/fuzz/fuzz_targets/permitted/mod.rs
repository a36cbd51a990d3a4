// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! An end point that permits its peer everything that can be permitted, and that peer.

use super::peer::RawPeer;
use mml_ike::auth::{Credential, IdMatch, Trust};
use mml_ike::config::{
    Agent, ChildConfig, Config, Connection, HomeAgent, IkeProposal, Prefix, ZonePolicy, ZoneRole,
};
use mml_ike::crypto::{Cipher, Hash, Method};
use mml_ike::pool::Pool;
use mml_ike::secret::Secret;
use mml_ike::wire::{Encr, Id, NotifyType, Payload, TrafficSelector, ZoneTransform};
use mml_ike::Endpoint;
use pfkey::{Mode, ZoneMap};
use std::time::Duration;

/// Where datagrams to groups come in.
pub const MULTICAST: u16 = 49_434;

const PSK: &[u8] = b"an open secret";

/// Everything permitted to the peer that can be.
fn config() -> Config {
    let any = TrafficSelector::any("0.0.0.0".parse().unwrap());
    let encr = |encr| ZoneTransform { encr, key_bits: 128 };
    let transforms = vec![encr(Encr::AES_GCM_16), encr(Encr::AES_GCM_16_IIV)];
    let mut config = Config {
        connections: vec![Connection {
            local_id: Id::fqdn("b.test"),
            remote_id: IdMatch::Any,
            remote: None,
            credential: Credential::Psk(Secret::copy(PSK)),
            trust: Trust::Psk(Secret::copy(PSK)),
            ike: vec![IkeProposal {
                ciphers: vec![Cipher::Aes128Gcm],
                prfs: vec![Hash::Sha256],
                methods: vec![Method::X25519],
                additional: vec![],
            }],
            child: Some(ChildConfig {
                local_ts: vec![any],
                remote_ts: vec![any],
                mode: Mode::Tunnel,
                ciphers: vec![Cipher::Aes128Gcm],
                methods: vec![],
                additional: vec![],
                zones: Some(ZonePolicy {
                    required: false,
                    map: ZoneMap::default_for(Mode::Tunnel),
                    transforms: vec![transforms.clone(), transforms],
                    replay_window: 64,
                    may_write: true,
                    role: ZoneRole::Home,
                }),
                rekey: Some(Duration::from_secs(5)),
                lifetime: Duration::from_secs(30),
            }),
            window: 64,
            mobike: true,
            initial_contact: false,
            liveness: Some(Duration::from_secs(3)),
            rekey: Some(Duration::from_secs(7)),
            request_address: None,
            // Addresses are asked for in IKE_AUTH, which the peer has behind it.
            pool: Pool::default(),
            rank: 0,
        }],
        ..Config::default()
    };
    let agent = Agent {
        identity: IdMatch::Any,
        addresses: vec!["192.0.2.1".parse().unwrap()],
    };
    config.home.foreign_agents = vec![agent.clone()];
    config.foreign.neighbours = vec![agent];
    config.foreign.home_agents = vec![HomeAgent {
        identity: IdMatch::Any,
        prefixes: vec![Prefix { address: "0.0.0.0".parse().unwrap(), bits: 0 }],
        standby: true,
        addresses: Vec::new(),
    }];
    config.foreign.multicast = Some(MULTICAST);
    config
}

/// The peer, with its IKE SA and a child up.
pub fn connected() -> RawPeer {
    let abilities = vec![
        Payload::VendorId(vec![
            0x54, 0x76, 0x79, 0xbe, 0x81, 0x5b, 0xec, 0xbb, 0x1c, 0x10, 0x74, 0x24, 0xe0, 0xe2, 0x84, 0xb8,
        ]),
        Payload::notify(NotifyType::ZONES_SUPPORTED, [0, 1, 0, 2]),
    ];
    RawPeer::connect(Endpoint::new(config()), &Id::fqdn("a.test"), PSK, abilities)
}
