// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The files of nodes between which a mobile host moves.

use super::net::{connection, node, secret};
use std::path::Path;

/// Home agent, mobile host and foreign agents, each the others' neighbour, in this order, by their addresses; what
/// `[mobile-ip]` has besides at the home agent, and at each foreign agent.
pub fn texts(
    folder: &Path,
    ha: &str,
    mh: &str,
    foreign: &[String],
    [at_home, abroad]: [&str; 2],
) -> Vec<String> {
    secret(folder, "mobile.key", "correct horse battery staple");
    let association = "spi = 256\nsecret-file = \"mobile.key\"\n";
    let agent = |fa: usize| {
        let (name, address) = (format!("fa{}", fa + 1), &foreign[fa]);
        format!("[[foreign-agent]]\nname = \"{name}\"\nidentity = \"{name}.test\"\naddresses = [\"{address}\"]\n")
            + &connection(&name, address, &format!("{name}.test"), "")
    };
    let to_mh =
        "start = \"peer\"\n[connection.tunnel]\nremote = \"203.0.113.7\"\nzones = \"required\"\n";
    let ha_text = node("ha", "ha.test", ha)
        + &format!(
            "[mobile-ip]\n{at_home}[[mobile-ip.host]]\naddress = \"203.0.113.7\"\n{association}"
        )
        + &(0..foreign.len()).map(agent).collect::<String>()
        + &connection("mh", mh, "mh.test", to_mh);
    let mh_text = node("mh", "mh.test", mh)
        + &format!(
            "[mobile-ip]\nlinks = [\"lo\"]\nhome = \"203.0.113.7\"\nhome-agent = \"{ha}\"\n{association}"
        )
        + &connection(
            "ha",
            ha,
            "ha.test",
            "[connection.tunnel]\nlocal = \"203.0.113.7\"\nzones = \"required\"\n",
        );
    let next = |own: usize, other: usize| {
        let (name, address) = (format!("fa{}", other + 1), &foreign[other]);
        let start = if other < own {
            "start = \"peer\"\n"
        } else {
            ""
        };
        format!("[[neighbour]]\nidentity = \"{name}.test\"\naddresses = [\"{address}\"]\n")
            + &connection(&name, address, &format!("{name}.test"), start)
    };
    let fa_text = |own: usize| {
        let others = (0..foreign.len()).filter(|other| *other != own);
        node("fa", &format!("fa{}.test", own + 1), &foreign[own])
            + &format!("[mobile-ip]\nlinks = [\"lo\"]\n{abroad}")
            + "[[home-agent]]\nidentity = \"ha.test\"\nprefixes = [\"203.0.113.0/24\"]\nstandby = true\n"
            + &connection("ha", ha, "ha.test", "start = \"peer\"\n")
            + &others.map(|other| next(own, other)).collect::<String>()
    };
    let all = (0..foreign.len()).map(fa_text);
    [ha_text, mh_text].into_iter().chain(all).collect()
}
