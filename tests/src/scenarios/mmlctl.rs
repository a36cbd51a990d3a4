// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `mmlctl` as a person uses it: fresh files, single use, bad files, what it shows and what it never shows.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use crate::command::Finished;
use crate::netns::Netns;
use crate::scenario::{Ctx, Scenario};
use crate::stats::Stats;
use crate::topology::{CN, HOME};
use crate::traffic;
use crate::zone_tunnel::{self, mmlctl};

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "mmlctl-sets-up-a-working-tunnel",
        proves: "files made and loaded by mmlctl give a tunnel that carries everything, and its statistics are the module's",
        seconds: 90,
        run: works,
    },
    Scenario {
        name: "origin-file-is-single-use",
        proves: "a file that seals is renamed once loaded and refused ever after; a relay's may be loaded again",
        seconds: 60,
        run: single_use,
    },
    Scenario {
        name: "bad-configs-get-one-clear-line",
        proves: "missing, readable-by-others, unknown, short, long and garbled configuration is refused with one line that names the file, shows no key and changes nothing",
        seconds: 90,
        run: bad_configs,
    },
    Scenario {
        name: "mmlctl-shows-no-keys",
        proves: "no list, no statistics and no event shows a key, and a flush says what will go in clear",
        seconds: 60,
        run: shows_no_keys,
    },
    Scenario {
        name: "mmlctl-monitor-shows-acquire",
        proves: "the monitor tells of a CSA that is wanted while traffic waits for it",
        seconds: 60,
        run: monitor,
    },
];

fn works(ctx: &mut Ctx) -> Result<()> {
    for (round, more) in [
        &[][..],
        &[
            "--map",
            "40",
            "--zone1",
            "chacha20-poly1305",
            "--zone2",
            "aes128-gcm16-iiv",
            "--window",
            "128",
        ],
        &["--may-write"],
    ]
    .iter()
    .enumerate()
    {
        if round > 0 {
            for namespace in [&ctx.net.ha, &ctx.net.fa1, &ctx.net.mh] {
                mmlctl(namespace, &["csa", "flush"])?;
                mmlctl(namespace, &["policy", "flush", "--yes"])?;
                if namespace.name() != "fa1" {
                    namespace.ip("link del mml0")?;
                }
            }
        }
        zone_tunnel::set_up_by_mmlctl(&ctx.net, true, more).with_context(|| format!("{more:?}"))?;
        super::tunnel::everything(ctx, &traffic::random(16))
            .with_context(|| format!("{more:?}"))?;
        let stats = Stats::read(&ctx.net.fa1)?;
        ensure!(
            stats.total("relayed-packets") > 0,
            "{more:?}: the foreign agent opened nothing"
        );
    }
    let ours = Stats::read(&ctx.net.ha)?;
    let said = mmlctl(&ctx.net.ha, &["stats", "--json"])?;
    let said: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
    let text = said.to_string();
    for name in ["sealed-packets", "opened-packets"] {
        let number = ours.total(name);
        ensure!(
            number > 0 && text.contains(&format!("\"{name}\":{number}")),
            "`mmlctl stats --json` does not say {name} {number}: {text}"
        );
    }
    let listed: Value = serde_json::from_str(&mmlctl(&ctx.net.ha, &["csa", "list", "--json"])?)?;
    ensure!(
        listed.to_string().matches("\"spi\"").count() == 2,
        "`csa list` shows {listed}"
    );
    Ok(())
}

fn attempt(namespace: &Netns, arguments: &[&str]) -> Result<Finished> {
    namespace.attempt(&[&["mmlctl"], arguments].concat())
}

/// Refused, in one line on standard error that names `what`.
fn refused(namespace: &Netns, arguments: &[&str], what: &str) -> Result<String> {
    let said = attempt(namespace, arguments)?;
    let lines: Vec<&str> = said
        .stderr
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    ensure!(
        !said.success,
        "`mmlctl {}` was accepted",
        arguments.join(" ")
    );
    ensure!(
        lines.len() == 1,
        "`mmlctl {}` says {} lines: {:?}",
        arguments.join(" "),
        lines.len(),
        said.stderr
    );
    ensure!(
        said.stderr.contains(what),
        "`mmlctl {}` does not name {what}: {}",
        arguments.join(" "),
        said.stderr.trim()
    );
    ensure!(
        !said.stderr.contains("panicked"),
        "mmlctl panicked: {}",
        said.stderr
    );
    Ok(said.stderr)
}

fn single_use(ctx: &mut Ctx) -> Result<()> {
    let folder = zone_tunnel::new_files(&[])?;
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    for name in ["ha.toml", "mh.toml", "fa.toml"] {
        let mode = std::fs::metadata(path(name))?.permissions().mode() & 0o777;
        ensure!(mode == 0o600, "{name} has mode {mode:o}");
    }
    for (namespace, name) in [(&ctx.net.ha, "ha.toml"), (&ctx.net.mh, "mh.toml")] {
        mmlctl(namespace, &["csa", "add", "-f", &path(name)])?;
        ensure!(!Path::new(&path(name)).exists(), "{name} is still there");
        let loaded = path(&format!("{name}.loaded"));
        ensure!(Path::new(&loaded).exists(), "{name}.loaded is not there");
        mmlctl(namespace, &["csa", "flush"])?;
        refused(namespace, &["csa", "add", "-f", &path(name)], name)?;
        refused(namespace, &["csa", "add", "-f", &loaded], name)?;
        ensure!(
            Stats::read(namespace)?.csas.is_empty(),
            "a used file was loaded again"
        );
    }
    let relay = path("fa.toml");
    mmlctl(&ctx.net.fa1, &["csa", "add", "-f", &relay])?;
    mmlctl(&ctx.net.fa1, &["csa", "flush"])?;
    mmlctl(&ctx.net.fa1, &["csa", "add", "-f", &relay]).context("a relay's file again")?;
    // New files never overwrite old ones.
    let again = ctx.net.ha.attempt(&[
        "mmlctl",
        "csa",
        "new",
        "--out",
        &folder.to_string_lossy(),
        "--ha",
        "198.51.100.1",
        "--mh",
        "10.1.1.7",
        "--selector-mh",
        "203.0.113.7/32",
    ])?;
    ensure!(!again.success, "fresh files were put over {relay}");
    Ok(())
}

fn bad_configs(ctx: &mut Ctx) -> Result<()> {
    let ha = &ctx.net.ha;
    refused(
        ha,
        &["csa", "add", "-f", "/run/not-there.toml"],
        "/run/not-there.toml",
    )?;
    refused(ha, &["csa", "add", "-f", "/run"], "/run")?;
    let folder = zone_tunnel::new_files(&[])?;
    let good = std::fs::read_to_string(folder.join("ha.toml"))?;
    let key = good
        .lines()
        .find_map(|line| line.strip_prefix("key = \""))
        .and_then(|rest| rest.strip_suffix('"'))
        .context("no key in a fresh file")?
        .to_owned();
    let salt = good
        .lines()
        .find_map(|line| line.strip_prefix("salt = \""))
        .and_then(|rest| rest.strip_suffix('"'))
        .context("no salt in a fresh file")?
        .to_owned();
    let half = &key[..key.len() / 2];
    let cases: Vec<(&str, String)> = vec![
        ("an empty file", String::new()),
        ("no TOML", "[[csa".into()),
        (
            "an unknown field",
            good.replacen("role =", "colour = \"red\"\nrole =", 1),
        ),
        ("an unknown table", format!("{good}\n[extra]\na = 1\n")),
        (
            "an unknown role",
            good.replacen("\"origin\"", "\"sender\"", 1),
        ),
        ("no role", good.replacen("role = \"origin\"\n", "", 1)),
        (
            "an unknown algorithm",
            good.replacen("aes256-gcm16-iiv", "rot13", 1),
        ),
        ("a key of half the length", good.replacen(&key, half, 1)),
        (
            "a key of twice the length",
            good.replacen(&key, &format!("{key}{key}"), 1),
        ),
        (
            "a key that is no hexadecimal",
            good.replacen(
                &key,
                &key.replacen(|digit: char| digit.is_ascii_hexdigit(), "x", 1),
                1,
            ),
        ),
        ("an odd number of digits", good.replacen(&key, &key[1..], 1)),
        ("a short salt", good.replacen(&salt, "00", 1)),
        (
            "a reserved SPI",
            good.replacen("spi = 0x", "spi = 7 # 0x", 1),
        ),
        ("no address", good.replacen("198.51.100.1", "home", 1)),
        (
            "a window of 1",
            good.replacen("window = 8192", "window = 1", 1),
        ),
        (
            "host bits in a selector",
            good.replacen("203.0.113.7/32", "203.0.113.7/24", 1),
        ),
        ("octets that are no text", "\u{0}\u{1}\u{2}".into()),
    ];
    for (what, text) in &cases {
        ensure!(*text != good, "{what}: the file is not spoiled");
        let file = "/run/bad.toml";
        let _ = std::fs::remove_file(file);
        std::fs::write(file, text)?;
        std::fs::set_permissions(file, Permissions::from_mode(0o600))?;
        let said =
            refused(ha, &["csa", "add", "-f", file], file).with_context(|| (*what).to_owned())?;
        for secret in [&key[..16], &key[key.len() - 16..], &salt] {
            ensure!(
                !said.contains(secret),
                "{what}: the message shows a secret: {said}"
            );
        }
        ensure!(Path::new(file).exists(), "{what}: the file was used up");
    }
    for mode in [0o644, 0o640, 0o604, 0o666] {
        let file = "/run/open.toml";
        let _ = std::fs::remove_file(file);
        std::fs::write(file, &good)?;
        std::fs::set_permissions(file, Permissions::from_mode(mode))?;
        refused(ha, &["csa", "add", "-f", file], file).with_context(|| format!("mode {mode:o}"))?;
    }
    ensure!(
        Stats::read(ha)?.csas.is_empty(),
        "a bad file left CSAs behind"
    );
    refused(
        ha,
        &["policy", "add", "-f", "/run/not-there.toml"],
        "/run/not-there.toml",
    )?;
    std::fs::write("/run/policy.toml", "[[policy]]\ndir = \"sideways\"\n")?;
    std::fs::set_permissions("/run/policy.toml", Permissions::from_mode(0o600))?;
    refused(
        ha,
        &["policy", "add", "-f", "/run/policy.toml"],
        "/run/policy.toml",
    )?;
    ensure!(
        Stats::read(ha)?.total("policies") == 0,
        "a bad file left policies behind"
    );
    // The good file, last: nothing above used it up.
    mmlctl(
        ha,
        &[
            "csa",
            "add",
            "-f",
            &folder.join("ha.toml").to_string_lossy(),
        ],
    )?;
    Ok(())
}

fn shows_no_keys(ctx: &mut Ctx) -> Result<()> {
    let keys = zone_tunnel::set_up_by_mmlctl(&ctx.net, true, &[])?;
    traffic::ping_arrives(&ctx.net.cn, CN, HOME, b"works")?;
    let spi = format!("{:#x}", keys.to_mh.spi);
    let secrets: Vec<String> = [&keys.to_mh, &keys.from_mh]
        .iter()
        .flat_map(|sa| &sa.zones)
        .map(|zone| {
            zone.key
                .iter()
                .map(|octet| format!("{octet:02x}"))
                .collect()
        })
        .collect();
    let mut shown = String::new();
    for arguments in [
        &["csa", "list"][..],
        &["csa", "list", "--json"],
        &["csa", "show", &spi],
        &["csa", "show", &spi, "--json"],
        &["policy", "list"],
        &["policy", "list", "--json"],
        &["stats"],
        &["set"],
    ] {
        let text = mmlctl(&ctx.net.ha, arguments)?;
        ensure!(
            !text.trim().is_empty(),
            "`mmlctl {}` says nothing",
            arguments.join(" ")
        );
        shown.push_str(&text.to_lowercase());
    }
    for secret in &secrets {
        ensure!(!shown.contains(&secret[..16]), "a key is shown");
    }
    let flush = attempt(&ctx.net.ha, &["policy", "flush", "--yes"])?;
    let said = flush.stdout + &flush.stderr;
    ensure!(
        flush.success && said.contains("clear"),
        "a flush of policies does not say what goes in clear: {said}"
    );
    ensure!(
        said.contains(&HOME.to_string()),
        "it does not name what: {said}"
    );
    Ok(())
}

fn monitor(ctx: &mut Ctx) -> Result<()> {
    zone_tunnel::devices(&ctx.net)?;
    zone_tunnel::protect(&ctx.net)?;
    let monitor = ctx.net.ha.background(&["mmlctl", "monitor"])?;
    std::thread::sleep(ctx.seconds(1.0));
    let cn = traffic::udp(&ctx.net.cn, CN, 4000)?;
    for _ in 0..5 {
        cn.send_to(b"wanted", (HOME, 5000))?;
    }
    std::thread::sleep(ctx.seconds(0.5));
    let said = monitor.stop()?.stdout;
    ensure!(
        said.to_lowercase().contains("acquire") || said.to_lowercase().contains("want"),
        "the monitor said {said:?}"
    );
    ensure!(
        said.contains("10.1.1.7"),
        "the monitor does not name the other end: {said}"
    );
    Ok(())
}
