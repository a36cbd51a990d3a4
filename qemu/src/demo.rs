// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `cargo lab demo`: a file from the correspondent to the mobile host, three ways, and who could read what; then over a
//! lossy link, and what the foreign agent makes of it.

use std::path::Path;
use std::time::Duration;

use serde_json::{json, Map, Value};

use crate::bench::failed_checks;
use crate::cli::Shared;
use crate::collect::Collect;
use crate::error::{Context, Error, Result};
use crate::guest;
use crate::machine::Clock;
use crate::network::{self, Topology};
use crate::plot;
use crate::scatter;
use crate::setup::Lab;
use crate::table;
use crate::workspace::Workspace;

/// The longest the guest may run, by the wall clock.
const LIMIT: Duration = Duration::from_secs(900);

/// The same for six guests and their conductor.
const LIMIT_GUESTS: Duration = Duration::from_secs(1800);

const NETWORK: &str = "
      192.0.2.0/24      198.51.100.0/30      198.51.100.4/30      10.1.1.0/24
  cn ------------- ha ------------------ core ---------------- fa1 ~ ~ wl1 ~ ~ .
                                         |                                     mh  203.0.113.7
                                         |    198.51.100.8/30     10.1.2.0/24  :   (home address)
                                         +-------------------- fa2 ~ ~ wl2 ~ ~ '

  cn    correspondent: serves a file over HTTP (nginx)
  ha    home agent: seals what goes to the mobile host, two zones with two keys
  core  the network between; sees what anyone sees
  fa1   foreign agent: holds the key of zone 1 (headers), and not that of zone 2 (payload)
  mh    mobile host: fetches the file (curl); nobody but it and the home agent can read it

The file goes three times: plain, through the kernel's own ESP, through two-zone ESP. That one's keys are negotiated by
keyd, the key manager, at ha, mh and fa1. Every link is captured.
";

const THEN_REPAIR: &str = "\
Then its beginning goes over a wireless link of 2 Mb/s that gets one bit in 65,536 wrong, 100 ms away: through the
kernel's ESP, through two-zone ESP, and through two-zone ESP whose foreign agent repairs the losses (SNOOP).
In the end the mobile host moves from fa1 to fa2 in the middle of the transfer, and the tunnel goes with it.
";

const THEN_SEARCH: &str = "\
While the last tunnel stands, all the memory of every guest is searched for its keys.
";

/// Fields of a search for keys and their headings.
const HOLDER_COLUMNS: [(&str, &str); 3] = [
    ("node", "machine"),
    ("zone1", "zone 1's keys"),
    ("zone2", "zone 2's keys"),
];

/// Fields of a transfer and their headings.
const COLUMNS: [(&str, &str); 6] = [
    ("config", "transfer"),
    ("bytes", "octets"),
    ("sha256_ok", "arrived whole"),
    ("goodput_kbps", "goodput kb/s"),
    ("overhead_octets", "overhead octets"),
    ("mss", "MSS"),
];

/// Fields of a transfer over the lossy link and their headings.
const REPAIR_COLUMNS: [(&str, &str); 7] = [
    ("config", "over the lossy link"),
    ("bytes", "octets"),
    ("sha256_ok", "arrived whole"),
    ("seconds", "seconds"),
    ("goodput_kbps", "goodput kb/s"),
    ("lost", "packets lost"),
    ("sent_again_locally", "sent again by fa1"),
];

/// Runs the command.
pub fn command(
    out: &Path,
    bytes: Option<u64>,
    real: bool,
    topology: Topology,
    shared: &Shared,
) -> Result<()> {
    topology.takes(shared.kernel)?;
    let (ground, then) = match topology {
        Topology::Namespaces => ("One guest, six nodes in network namespaces", THEN_REPAIR),
        Topology::Guests => (
            "Six guests, each a node with a kernel of its own",
            THEN_SEARCH,
        ),
    };
    println!("{ground}, real programs, kernel-made packets:\n{NETWORK}{then}");
    let lab = Lab::prepare(shared, false)?;
    std::fs::create_dir_all(out).context(|| format!("making {}", out.display()))?;
    let mut options = Map::new();
    if let Some(bytes) = bytes {
        options.insert("bytes".into(), json!(bytes));
    }
    let order = json!({"mode": "demo", "names": [], "options": options});
    let (clock, clock_name) = match (topology, real) {
        (Topology::Guests, _) => (Clock::Real { vcpus: 1 }, "real, 1 vCPU a guest"),
        (_, true) => (Clock::Real { vcpus: 2 }, "real, 2 vCPUs"),
        (_, false) => (Clock::Virtual, "virtual: 1 instruction = 1 ns"),
    };
    let conductor = match topology {
        Topology::Namespaces => None,
        Topology::Guests => {
            let log = lab.cache.log("guest-programs")?;
            Some(guest::conductor(&Workspace::find()?, &log)?)
        }
    };
    let mut collect = Collect::begin("the demo", Some(out), true);
    let mut on_event = |event| collect.event(event);
    let boot = match &conductor {
        None => lab.boot("demo", clock, &order, LIMIT, &mut on_event)?,
        Some(program) => network::boot(
            &lab,
            program,
            "demo-guests",
            &order,
            LIMIT_GUESTS,
            &mut on_event,
        )?,
    };
    let failure = boot.outcome.failure();
    collect.end(failure.is_none());
    collect.report.expect("transfer");
    let last_act = match topology {
        Topology::Namespaces => "repair",
        Topology::Guests => "holder",
    };
    collect.report.expect(last_act);
    if topology == Topology::Namespaces {
        collect.report.expect("handoff");
    }
    collect.report.expect("check");
    collect.report.set("kernel", lab.kernel.release.as_str());
    collect.report.set("clock", clock_name);
    let _ = std::fs::copy(&boot.console, out.join("console.log"));
    std::fs::write(out.join("commands.txt"), collect.script())
        .context(|| format!("writing to {}", out.display()))?;
    show(&collect);
    let transfers = collect.report.all("transfer");
    let svg = out.join("goodput.svg");
    if !transfers.is_empty() {
        plot::transfers(transfers, &svg)?;
    }
    let repairs = collect.report.all("repair");
    if !repairs.is_empty() {
        plot::repairs(repairs, &out.join("repair.svg"))?;
    }
    collect.report.write(Some(&out.join("demo.json")))?;
    collect.report.write(shared.json.as_deref())?;
    if let Some(why) = failure {
        let said = collect
            .steps
            .last()
            .map(|text| format!(" (last: {text})"))
            .unwrap_or_default();
        return Err(Error::logged(
            format!("the demo failed: {why}{said}"),
            boot.console,
        ));
    }
    judge(&collect, last_act)?;
    closing(out, topology);
    Ok(())
}

/// The rows of one kind under their headings.
fn rows(collect: &Collect, kind: &str, columns: &[(&str, &str)]) -> String {
    let headings: Vec<&str> = columns.iter().map(|(_, heading)| *heading).collect();
    let rows: Vec<Vec<String>> = collect
        .report
        .all(kind)
        .iter()
        .map(|row| {
            columns
                .iter()
                .map(|(field, _)| table::cell(row.get(*field)))
                .collect()
        })
        .collect();
    table::render(&headings, &rows)
}

fn show(collect: &Collect) {
    println!("\n{}", rows(collect, "transfer", &COLUMNS));
    if !collect.report.all("repair").is_empty() {
        println!("{}", rows(collect, "repair", &REPAIR_COLUMNS));
    }
    for handoff in collect.report.all("handoff") {
        println!("{}", moved(handoff));
    }
    if !collect.report.all("holder").is_empty() {
        println!("{}", rows(collect, "holder", &HOLDER_COLUMNS));
    }
    println!("Who could read what, each line checked against the captures and the foreign agent's counters:\n");
    for check in collect.report.all("check") {
        let ok = check["ok"].as_bool() == Some(true);
        println!(
            "  {} {}",
            if ok { "ok" } else { "NO" },
            table::cell(check.get("name"))
        );
        if let Some(detail) = check["detail"].as_str().filter(|detail| !detail.is_empty()) {
            println!("       {detail}");
        }
    }
}

/// The handoff, drawn.
fn moved(handoff: &Value) -> String {
    let number = |name: &str| handoff.get(name).and_then(Value::as_f64);
    let points: Vec<(f64, f64)> = handoff
        .get("sent")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|point| Some((point[0].as_f64()? / 1000.0, point[1].as_f64()? / 1000.0)))
        .collect();
    let moved = number("moved_us").unwrap_or_default() / 1000.0;
    let gap = number("gap_us").unwrap_or_default() / 1000.0;
    let chart = scatter::render(
        &points,
        moved,
        &format!(
            "thousand octets sent by cn; the host moves from fa1 to fa2 at the line of dots, its radio away for {gap:.1} ms"
        ),
        "ms",
    );
    let bytes = number("bytes").unwrap_or_default();
    let seconds = number("seconds").unwrap_or_default();
    let still = number("interruption_us").unwrap_or_default() / 1000.0;
    format!(
        "{}\n  {bytes:.0} octets in {seconds:.2} s, one connection, one tunnel, two foreign agents; nothing was sent for {still:.0} ms\n",
        chart.unwrap_or_default()
    )
}

fn judge(collect: &Collect, last_act: &str) -> Result<()> {
    if let Some(first) = collect.complaints.first() {
        return Err(Error::check(first.clone()));
    }
    let transfers = collect.report.all("transfer");
    let repairs = collect.report.all("repair");
    let checks = collect.report.all("check");
    if transfers.is_empty() || collect.report.all(last_act).is_empty() || checks.is_empty() {
        return Err(Error::check("the guest reported no transfers or no checks"));
    }
    let broken: Vec<&Value> = transfers
        .iter()
        .chain(repairs)
        .filter(|t| t["sha256_ok"].as_bool() != Some(true))
        .collect();
    if !broken.is_empty() {
        let names: Vec<String> = broken
            .iter()
            .map(|t| table::cell(t.get("config")))
            .collect();
        return Err(Error::check(format!(
            "the file did not arrive whole: {}",
            names.join(", ")
        )));
    }
    failed_checks(checks)
}

fn closing(out: &Path, topology: Topology) {
    let out = out.display();
    let second = match topology {
        Topology::Namespaces => "\n  repair.svg      the second",
        Topology::Guests => "",
    };
    println!(
        "
All of it holds. In {out}/:
  goodput.svg     the first table, drawn{second}
  demo.json       the tables and the checks, for programs
  captures/       what each link carried: tcpdump -nr {out}/captures/FILE
  commands.txt    every command the guest ran
  console.log     the guest's kernel log

What to type next:
  cargo lab shell          the same network, at a prompt: ping, tcpdump, mmlctl csa list
  cargo lab test --list    what is proven, line by line; cargo lab test proves it
  cargo lab bench          how fast, beside kernel ESP and WireGuard
  cargo lab paper --quick  what SNOOP repairs, at more error rates and for other senders"
    );
}
