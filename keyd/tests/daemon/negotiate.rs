// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Two daemons make SAs: composite ones, plain ones, or none.

use super::net::{address, connection, folder, node, Net};
use keyd::daemon::kernel::{Action, Keys, Sa, Zones};
use pfkey::Role;

const HOME: &str = "203.0.113.7/32";

/// HA (node 0) and MH (node 1), which begins; `ha` and `mh` go into their tunnels.
pub fn pair(test: u8, ha: &str, mh: &str) -> [String; 2] {
    let (at_ha, at_mh) = (address(test, 1), address(test, 2));
    let to_mh = format!("start = \"peer\"\n[connection.tunnel]\nremote = \"{HOME}\"\n{ha}");
    let to_ha = format!("[connection.tunnel]\nlocal = \"{HOME}\"\n{mh}");
    [
        node("ha", "ha.test", &at_ha) + &connection("mh", &at_mh, "mh.test", &to_mh),
        node("mh", "mh.test", &at_mh) + &connection("ha", &at_ha, "ha.test", &to_ha),
    ]
}

pub async fn start(pair: [String; 2]) -> Net {
    let folder = folder();
    let mut net = Net::new();
    for text in pair {
        net.start(&text, folder.path()).await;
    }
    net
}

pub fn zones(sa: &Sa) -> &Zones {
    match &sa.keys {
        Keys::Zones(zones) => zones,
        Keys::Plain { .. } => panic!("a plain SA"),
    }
}

/// One side's way out is the other's way in.
fn assert_mirrored(out: &Sa, inbound: &Sa) {
    assert_eq!(
        (out.id.spi, out.id.src, out.id.dst),
        (inbound.id.spi, inbound.id.src, inbound.id.dst)
    );
    assert_eq!(out.selector, inbound.selector);
}

#[tokio::test]
async fn ha_and_mh_make_a_composite_sa_and_install_it_in_mml_alone() {
    let mut net = start(pair(1, "", "")).await;
    net.until("a CSA at both", |nodes| {
        nodes.iter().all(|node| node.mml.state().sas.len() == 2)
    })
    .await;
    let [ha, mh] = &net.nodes[..] else { panic!() };
    for (a, b) in [(ha, mh), (mh, ha)] {
        let (out, inbound) = (a.mml.one(Role::Origin), b.mml.one(Role::Terminus));
        assert_mirrored(&out, &inbound);
        assert!(!out.standby && !inbound.standby);
        assert_eq!(zones(&out).zones, zones(&inbound).zones);
        assert_eq!(zones(&out).zones.len(), 2);
        assert_eq!((zones(&out).generation, zones(&out).window), (1, 8192));
        assert!(out.hard.seconds == 3600 && out.soft.seconds < 3600);
    }
    assert_eq!(ha.mml.one(Role::Origin).peer.to_string(), "mh.test");
    for node in [ha, mh] {
        assert!(node.xfrm.state().sas.is_empty());
        assert!(node.xfrm.state().rules.is_empty(), "mml guards");
        assert!(
            node.xfrm.state().reserved.is_empty(),
            "the SPI is given back"
        );
        let rules = node.mml.state().rules.clone();
        let protect = rules.iter().filter(|rule| rule.action == Action::Protect);
        assert_eq!(protect.count(), 2);
    }
}
