// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Whether a machine that boots lets anything out before its policies hold: systemd boots a guest with `mml-policy.service`,
//! a program sends from the first moment on, and QEMU writes down all that leaves.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::channel::Event;
use crate::error::{Context, Result};
use crate::machine::{Clock, Outcome};
use crate::network::BOOT_WORDS;
use crate::progress::Step;
use crate::setup::Lab;
use crate::systemd::{self, File, Unit};
use crate::workspace::Workspace;

/// The longest a guest may run.
const LIMIT: Duration = Duration::from_secs(400);

/// What the sender's datagrams hold: to where a policy protects, and to where none does.
const PROTECTED: &str = "mml-boot-to-a-protected-host";
const OPEN: &str = "mml-boot-to-any-other-host";

/// What services say goes to the kernel's log: there is no journal.
const SYSTEMD_WORDS: &str =
    "systemd.default_standard_output=kmsg systemd.show_status=0 systemd.log_color=0";

/// `modprobe` finds the lab's module without an index made anew.
const MODPROBE: &str = "install mml /usr/sbin/insmod /usr/lib/modules/mml.ko\n";

/// Policies for one network, whatever else the machine does.
const POLICIES: &str = "\
[[policy]]
dir = \"out\"
action = \"protect\"
dst = \"203.0.113.0/24\"

[[policy]]
dir = \"in\"
action = \"protect\"
src = \"203.0.113.0/24\"
";

/// Sends from before the modules are loaded until the end.
const SENDER: &str = "\
[Unit]
DefaultDependencies=no
[Service]
ExecStart=/usr/bin/lab-program --send 203.0.113.9 mml-boot-to-a-protected-host 192.0.2.9 mml-boot-to-any-other-host
[Install]
WantedBy=sysinit.target
";

/// What brings the link up. Its neighbour is known, so that what is sent leaves at once.
const NETWORK: &str = "\
[Unit]
After=network-pre.target systemd-modules-load.service
Before=network.target
Wants=network.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/ip -batch /etc/lab-network
[Install]
WantedBy=multi-user.target
";
const ADDRESSES: &str = "\
link set eth0 up
address add 10.9.0.1/24 dev eth0
neighbour add 10.9.0.2 lladdr 52:54:00:00:ff:02 dev eth0
route add default via 10.9.0.2
";

/// Tells the lab how it went, and ends.
const REPORT: &str = "\
[Unit]
After=network.target networking.service stray-network.service mml-policy.service
[Service]
Type=oneshot
ExecStart=/usr/bin/dash /etc/lab-report
[Install]
WantedBy=multi-user.target
";
const REPORT_SCRIPT: &str = r#"
sleep 4
port=$(grep -lx org.mml.report /sys/class/virtio-ports/*/name)
port=${port%/name}
exec 3>"/dev/${port##*/}"
state() { systemctl is-active "$1" || true; }
policies=$(mmlctl --json policy list 2>/dev/null) || policies=null
printf '{"event":"result","kind":"boot","policy":"%s","network":"%s","stray":"%s","policies":%s}\n' \
	"$(state mml-policy.service)" "$(state networking.service)" "$(state stray-network.service)" \
	"$(printf %s "$policies" | tr -d '\n')" >&3
echo '{"event":"done","ok":true}' >&3
busybox poweroff -f
"#;

/// One boot.
pub struct Case {
    /// Its name among the scenarios.
    pub name: &'static str,
    /// What holds if it passes.
    pub proves: &'static str,
    broken_file: bool,
    module: bool,
    enabled: bool,
    /// Whether something that doesn't ask for our unit brings the link up as well.
    stray: bool,
    /// The states of the unit and of the network.
    policy: &'static str,
    network: &'static str,
    /// Whether datagrams to protected and other hosts are seen on the link.
    seen: [bool; 2],
    /// How many policies the module holds; None without the module.
    policies: Option<usize>,
}

/// All boots.
pub const CASES: [Case; 5] = [
    Case {
        name: "boot-without-the-unit-sends-in-clear",
        proves: "a machine whose policies nobody loads sends in clear, and the capture shows it: what the other boots are held against",
        broken_file: false,
        module: true,
        enabled: false,
        stray: false,
        policy: "inactive",
        network: "active",
        seen: [true, true],
        policies: None,
    },
    Case {
        name: "boot-loads-policies-before-the-network",
        proves: "with mml-policy.service nothing goes in clear to protected hosts from the first packet on, and the rest of the network works",
        broken_file: false,
        module: true,
        enabled: true,
        stray: false,
        policy: "active",
        network: "active",
        seen: [false, true],
        policies: Some(2),
    },
    Case {
        name: "boot-with-a-broken-file-sends-nothing",
        proves: "if one policy file is wrong, what brings links up doesn't start and the module discards all: nothing leaves",
        broken_file: true,
        module: true,
        enabled: true,
        stray: false,
        policy: "failed",
        network: "inactive",
        seen: [false, false],
        policies: Some(4),
    },
    Case {
        name: "boot-with-a-broken-file-and-a-stray-network-sends-nothing",
        proves: "if one policy file is wrong and a link comes up in spite of it, the module alone lets nothing out",
        broken_file: true,
        module: true,
        enabled: true,
        stray: true,
        policy: "failed",
        network: "inactive",
        seen: [false, false],
        policies: Some(4),
    },
    Case {
        name: "boot-without-the-module-starts-no-network",
        proves: "if the module can't be loaded, what brings links up doesn't start: nothing leaves",
        broken_file: false,
        module: false,
        enabled: true,
        stray: false,
        policy: "failed",
        network: "inactive",
        seen: [false, false],
        policies: None,
    },
];

/// The boots that names mean, whole or in part, and the names that mean scenarios, as `is_scenario` says; without names all
/// boots.
pub fn named(
    names: &[String],
    is_scenario: &dyn Fn(&str) -> bool,
) -> (Vec<&'static Case>, Vec<String>) {
    let whole = |name: &str| CASES.iter().any(|case| case.name == name);
    let means = |case: &Case, name: &String| {
        case.name == name || (!whole(name) && case.name.contains(name.as_str()))
    };
    let boots: Vec<&Case> = CASES
        .iter()
        .filter(|case| names.is_empty() || names.iter().any(|name| means(case, name)))
        .collect();
    let rest = names
        .iter()
        .filter(|name| is_scenario(name) || !boots.iter().any(|case| means(case, name)))
        .cloned()
        .collect();
    (boots, rest)
}

/// Runs one; why it failed, or nothing.
pub fn run(lab: &Lab, case: &Case) -> Result<(Option<String>, f64)> {
    let tree = systemd::ensure(&lab.cache, lab.root())?;
    let directory = lab.cache.run_directory("boot")?;
    let mut machine = lab.bare_machine(directory, Clock::Real { vcpus: 1 }, LIMIT)?;
    let capture = machine.directory.join("link.pcap");
    machine.kernel_words = format!("{BOOT_WORDS} {SYSTEMD_WORDS}");
    machine.memory = machine.memory.min(512);
    // systemd comes before anything of ours.
    machine.first_word = machine.silence;
    machine.more = [
        "-netdev",
        // A sink: restricted, it takes everything and passes nothing on.
        "user,id=link,restrict=on",
        "-device",
        "virtio-net-pci,netdev=link,romfile=",
        "-object",
        &format!(
            "filter-dump,id=dump,netdev=link,file={}",
            lab.root().inside(&capture)
        ),
    ]
    .map(str::to_owned)
    .to_vec();
    lab.boot_file_system(case.module, &machine.initramfs())?;
    systemd::append(
        lab.root(),
        &tree,
        &units(case)?,
        &files(case),
        &machine.initramfs(),
    )?;
    let mut result = None;
    let mut step = Step::begin(case.name, None);
    let outcome = machine.run(&mut |event| match event {
        Ok(Event::Result { kind, fields }) if kind == "boot" => result = Some(fields),
        Ok(_) => {}
        Err(text) => step.at(None, &text),
    })?;
    let _ = std::fs::remove_file(machine.initramfs());
    let why = judge(case, &outcome, result.map(Value::Object), &capture)?;
    let why = why.map(|why| format!("{why}; the kernel log is {}", machine.console().display()));
    if why.is_none() {
        step.done();
    } else {
        step.failed();
    }
    Ok((why, outcome.seconds))
}

fn units(case: &Case) -> Result<Vec<Unit>> {
    let folder = Workspace::find()?.root().join("keyd/systemd");
    let ours = |name: &'static str| -> Result<Unit> {
        let path = folder.join(name);
        Ok(Unit {
            name,
            text: std::fs::read_to_string(&path)
                .context(|| format!("reading {}", path.display()))?,
            enabled: case.enabled,
        })
    };
    let lab = |name, text: &str, enabled| Unit {
        name,
        text: text.to_owned(),
        enabled,
    };
    Ok(vec![
        ours("mml-policy.service")?,
        ours("mml-csa.service")?,
        lab("lab-sender.service", SENDER, true),
        lab("networking.service", NETWORK, true),
        lab("stray-network.service", NETWORK, case.stray),
        lab("lab-report.service", REPORT, true),
    ])
}

fn files(case: &Case) -> Vec<File> {
    let file = |path: &str, text: &str| File {
        path: path.to_owned(),
        permissions: 0o644,
        text: text.to_owned(),
    };
    let mut files = vec![
        file("etc/modules-load.d/lab.conf", "virtio_net\n"),
        file("etc/lab-network", ADDRESSES),
        file("etc/lab-report", REPORT_SCRIPT),
        file("etc/mml/policies.d/10-home.toml", POLICIES),
    ];
    if case.module {
        files.push(file("etc/modprobe.d/lab.conf", MODPROBE));
    }
    if case.broken_file {
        let text = POLICIES.replace("protect\"", "protekt\"");
        files.push(file("etc/mml/policies.d/20-broken.toml", &text));
    }
    files
}

/// What is wrong with how it went.
fn judge(
    case: &Case,
    outcome: &Outcome,
    result: Option<Value>,
    capture: &Path,
) -> Result<Option<String>> {
    if let Some(why) = outcome.failure() {
        return Ok(Some(why));
    }
    let Some(result) = result else {
        return Ok(Some("the guest reported no result".into()));
    };
    let stray = if case.stray { "active" } else { "inactive" };
    for (what, wanted) in [
        ("policy", case.policy),
        ("network", case.network),
        ("stray", stray),
    ] {
        let is = result[what].as_str().unwrap_or_default();
        if is != wanted {
            return Ok(Some(format!("{what} is {is}, not {wanted}")));
        }
    }
    let count = result["policies"].as_array().map(Vec::len);
    if count != case.policies {
        return Ok(Some(format!(
            "the module holds {count:?} policies, not {:?}",
            case.policies
        )));
    }
    let octets = std::fs::read(capture).context(|| format!("reading {}", capture.display()))?;
    for (marker, wanted) in [PROTECTED, OPEN].into_iter().zip(case.seen) {
        let count = occurrences(&octets, marker.as_bytes());
        if (count > 0) != wanted {
            return Ok(Some(format!(
                "{count} packets with {marker:?} left the machine (capture: {})",
                capture.display()
            )));
        }
    }
    Ok(None)
}

fn occurrences(octets: &[u8], needle: &[u8]) -> usize {
    octets
        .windows(needle.len())
        .filter(|window| *window == needle)
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sender_sends_what_the_capture_is_searched_for() {
        assert!(SENDER.contains(PROTECTED) && SENDER.contains(OPEN));
        assert_eq!(occurrences(b"xabab", b"ab"), 2);
    }

    #[test]
    fn a_name_means_a_boot_a_scenario_or_both() {
        let names =
            |list: &[&str]| -> Vec<String> { list.iter().map(|n| (*n).to_owned()).collect() };
        let is_scenario = |name: &str| "relay-module".contains(name);
        assert_eq!(named(&[], &is_scenario).0.len(), CASES.len());
        let (boots, rest) = named(&names(&["boot-without-the-module"]), &is_scenario);
        assert_eq!((boots.len(), rest.len()), (1, 0));
        let (boots, rest) = named(
            &names(&["boot-with-a-broken-file-sends-nothing"]),
            &is_scenario,
        );
        assert_eq!((boots.len(), rest.len()), (1, 0));
        let (boots, rest) = named(&names(&["module", "nothing-of-all"]), &is_scenario);
        assert_eq!(
            (boots.len(), rest),
            (1, names(&["module", "nothing-of-all"]))
        );
    }

    #[test]
    fn one_boot_shows_that_a_leak_would_be_seen() {
        assert!(CASES.iter().any(|case| case.seen[0]));
        assert!(CASES
            .iter()
            .filter(|case| case.enabled)
            .all(|case| !case.seen[0]));
    }
}
