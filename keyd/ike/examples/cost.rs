// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What exchanges cost in processing, both sides together, and an IKE SA with its CSA in memory.
//!
//!     cargo run --release -p mml-ike --example cost

#[allow(dead_code)]
#[path = "../tests/common/host.rs"]
mod host;

use host::TestHost;
use mml_ike::auth::{Credential, IdMatch, Trust};
use mml_ike::config::{ChildConfig, Config, Connection, IkeProposal, ZonePolicy, ZoneRole};
use mml_ike::crypto::{Cipher, Hash, Method};
use mml_ike::event::{IkeId, Output};
use mml_ike::pool::Pool;
use mml_ike::secret::Secret;
use mml_ike::wire::{Encr, Id, TrafficSelector, ZoneTransform};
use mml_ike::Endpoint;
use pfkey::{Mode, ZoneMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const NOW: Duration = Duration::from_secs(1);

fn config(local: Id, remote: IdMatch, zones: Option<ZoneRole>) -> Config {
    let any = TrafficSelector::any("0.0.0.0".parse().expect("an address"));
    let secret = || Secret::copy(b"an open secret");
    let transform = ZoneTransform {
        encr: Encr::AES_GCM_16_IIV,
        key_bits: 128,
    };
    let policy = |role| ZonePolicy {
        required: true,
        map: ZoneMap::default_for(Mode::Tunnel),
        transforms: vec![vec![transform]; 2],
        replay_window: 8192,
        may_write: false,
        role,
    };
    Config {
        connections: vec![Connection {
            local_id: local,
            remote_id: remote,
            remote: None,
            credential: Credential::Psk(secret()),
            trust: Trust::Psk(secret()),
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
                zones: zones.map(policy),
                rekey: None,
                lifetime: Duration::from_secs(3600),
            }),
            window: 1,
            mobike: false,
            initial_contact: false,
            liveness: None,
            rekey: None,
            request_address: None,
            pool: Pool::default(),
            rank: 0,
        }],
        zones: zones.is_some(),
        ..Config::default()
    }
}

struct Side {
    endpoint: Endpoint,
    host: TestHost,
}

impl Side {
    fn new(config: Config, seed: u64) -> Self {
        Side {
            endpoint: Endpoint::new(config),
            host: TestHost::new(seed),
        }
    }
}

/// Carries datagrams to and fro until there are none.
fn exchange(a: &mut Side, b: &mut Side) {
    loop {
        let mut quiet = true;
        for back in [false, true] {
            let (from, to) = if back {
                (&mut *b, &mut *a)
            } else {
                (&mut *a, &mut *b)
            };
            while let Some(output) = from.endpoint.poll() {
                if let Output::Send(d) = output {
                    quiet = false;
                    to.endpoint
                        .handle(&d.octets, d.from, d.to, NOW, &mut to.host);
                }
            }
        }
        if quiet {
            return;
        }
    }
}

fn ends() -> (SocketAddr, SocketAddr) {
    (
        "192.0.2.1:500".parse().expect("an address"),
        "192.0.2.2:500".parse().expect("an address"),
    )
}

fn set_up(a: &mut Side, b: &mut Side) -> IkeId {
    let (from, to) = ends();
    let ike = a
        .endpoint
        .initiate(0, from, to, NOW, &mut a.host)
        .expect("a connection");
    exchange(a, b);
    ike
}

/// Octets this process has in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = status
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

fn timed(what: &str, times: u32, mut run: impl FnMut()) {
    run();
    let begun = Instant::now();
    (0..times).for_each(|_| run());
    println!("{what}: {:?}", begun.elapsed() / times);
}

fn pair(zones: bool, seed: u64) -> (Side, Side) {
    let (a, b) = (Id::fqdn("a.test"), Id::fqdn("b.test"));
    let role = |role| zones.then_some(role);
    (
        Side::new(
            config(
                a.clone(),
                IdMatch::Exactly(b.clone()),
                role(ZoneRole::Mobile),
            ),
            seed,
        ),
        Side::new(
            config(b, IdMatch::Exactly(a), role(ZoneRole::Home)),
            seed + 1,
        ),
    )
}

fn main() {
    for zones in [false, true] {
        let what = if zones { "with zones" } else { "plain" };
        let mut seed = 1;
        timed(&format!("set-up, {what}, X25519, PSK"), 500, || {
            seed += 2;
            let (mut a, mut b) = pair(zones, seed);
            let ike = set_up(&mut a, &mut b);
            assert_eq!(a.endpoint.children(ike).len(), 1);
        });
        let (mut a, mut b) = pair(zones, 1);
        let ike = set_up(&mut a, &mut b);
        timed(&format!("child rekeyed, {what}"), 500, || {
            let child = a.endpoint.children(ike)[0].0;
            a.endpoint
                .rekey_child(ike, child, NOW, &mut a.host)
                .expect("a child");
            exchange(&mut a, &mut b);
            assert_eq!(a.endpoint.children(ike).len(), 1);
        });
    }
    let many = 10_000;
    let home = config(
        Id::fqdn("ha.test"),
        IdMatch::Within("mh.test".into()),
        Some(ZoneRole::Home),
    );
    let mut home = Side::new(home, 1);
    let mut grown = 0;
    for n in 0..many {
        // The hosts are forgotten as soon as they are up; what they had comes back as the next one's.
        let id = Id::fqdn(&format!("host{n}.mh.test"));
        let remote = IdMatch::Exactly(Id::fqdn("ha.test"));
        let mut host = Side::new(config(id, remote, Some(ZoneRole::Mobile)), 100 + n);
        set_up(&mut host, &mut home);
        if n == 100 {
            grown = resident();
        }
    }
    assert_eq!(home.endpoint.established().count() as u64, many);
    let each = (resident() - grown) / (many - 101);
    println!("memory an IKE SA with its CSA, of {many}: {each} octets");
}
