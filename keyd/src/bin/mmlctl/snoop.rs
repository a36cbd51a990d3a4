// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `mmlctl snoop`.

use crate::cli::{self, SnoopFile, SnoopSet, Which};
use crate::csa::{find, kernel, name};
use crate::failure::Failure;
use crate::output::{count, print, Output};
use crate::table::Table;
use keyd::kernel::{Flow, Kernel};
use pfkey::{Role, Snoop};
use serde_json::{json, Map, Value};
use std::io::{IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

/// What the names of SNOOP's counters and settings begin with.
const PREFIX: &str = "snoop-";
/// What a flow's row shows, and its heading.
const COLUMNS: [(&str, &str); 7] = [
    ("segments-kept", "kept"),
    ("cached", "cached"),
    ("retransmitted-duplicate", "by duplicate"),
    ("retransmitted-sack", "by SACK"),
    ("retransmitted-timer", "by timer"),
    ("suppressed", "suppressed"),
    ("idle-ms", "idle ms"),
];

pub fn run(command: cli::Snoop, output: Output) -> Result<(), Failure> {
    match command {
        cli::Snoop::Set(arguments) => match arguments.spi {
            Some(spi) => set_csa(spi, &arguments, output),
            None => set_plain(&arguments, output),
        },
        cli::Snoop::Export(arguments) => export(&arguments, output),
        cli::Snoop::Import(arguments) => import(&arguments, output),
        cli::Snoop::Flows { watch } => again(watch, output, |kernel, _| show_flows(kernel, output)),
        cli::Snoop::Stats { watch } => {
            let mut last = None;
            again(watch, output, |kernel, seconds| {
                let counters = counters(kernel)?;
                show_counters(&counters, last.as_deref(), seconds, output);
                last = Some(counters);
                Ok(())
            })
        }
    }
}

/// Calls `f` once, or every so many seconds.
fn again(
    watch: Option<u64>,
    output: Output,
    mut f: impl FnMut(&mut Kernel, u64) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut kernel = kernel()?;
    let seconds = watch.unwrap_or(0);
    f(&mut kernel, seconds)?;
    while watch.is_some() {
        std::thread::sleep(Duration::from_secs(seconds));
        if !output.json && std::io::stdout().is_terminal() {
            // To the top of an empty screen.
            print("\x1b[H\x1b[2J");
        }
        f(&mut kernel, seconds)?;
    }
    Ok(())
}

fn set_csa(spi: u32, arguments: &SnoopSet, output: Output) -> Result<(), Failure> {
    let which = Which {
        spi,
        src: arguments.src,
        dst: arguments.dst,
        role: Some(Role::Relay),
    };
    let (mut kernel, csa) = find(&which)?;
    let default = Snoop::default();
    let snoop = Snoop {
        flags: 0,
        window: arguments.window.unwrap_or(default.window),
        threshold: arguments.threshold.unwrap_or(default.threshold),
        initial_ms: arguments.initial_ms.unwrap_or(default.initial_ms),
        min_rto_ms: arguments.min_rto_ms.unwrap_or(default.min_rto_ms),
        persist_ms: arguments.persist_ms.unwrap_or(default.persist_ms),
        garbage_ms: arguments.garbage_ms.unwrap_or(default.garbage_ms),
        bytes: arguments.bytes.unwrap_or(default.bytes),
    };
    let name = name(&csa.id);
    kernel
        .snoop_csa(&csa.id, csa.ext.state, &snoop)
        .map_err(|e| Failure::kernel(&name, &e))?;
    output.say(
        &format!("{name}: SNOOP looks after its TCP flows"),
        &json!({ "updated": csa.json() }),
    );
    Ok(())
}

impl SnoopFile {
    /// The relay's CSA that is meant.
    fn which(&self) -> Which {
        Which {
            spi: self.spi,
            src: self.src,
            dst: self.dst,
            role: Some(Role::Relay),
        }
    }

    fn failed(&self, error: &std::io::Error) -> Failure {
        Failure::usage(format!("{}: {error}", self.file.display()))
    }
}

fn export(arguments: &SnoopFile, output: Output) -> Result<(), Failure> {
    let (mut kernel, csa) = find(&arguments.which())?;
    let name = name(&csa.id);
    let state = kernel
        .snoop_state(&csa.id)
        .map_err(|e| Failure::kernel(&name, &e))?;
    let mut options = std::fs::OpenOptions::new();
    // Who speaks with whom is nobody else's business.
    options.write(true).create(true).truncate(true).mode(0o600);
    options
        .open(&arguments.file)
        .and_then(|mut file| file.write_all(&state))
        .map_err(|error| arguments.failed(&error))?;
    let file = arguments.file.display().to_string();
    output.say(
        &format!("{name}: what SNOOP knows of its flows is in {file}"),
        &json!({ "exported": csa.json(), "file": file, "octets": state.len() }),
    );
    Ok(())
}

fn import(arguments: &SnoopFile, output: Output) -> Result<(), Failure> {
    let mut state = Vec::new();
    // One octet more shows that it is too long.
    let most = pfkey::MAX_SNOOP_STATE as u64 + 1;
    std::fs::File::open(&arguments.file)
        .and_then(|file| file.take(most).read_to_end(&mut state))
        .map_err(|error| arguments.failed(&error))?;
    if state.len() > pfkey::MAX_SNOOP_STATE {
        return Err(Failure::usage(format!(
            "{}: longer than {} octets, so nothing that `mmlctl snoop export` wrote",
            arguments.file.display(),
            pfkey::MAX_SNOOP_STATE
        )));
    }
    let (mut kernel, csa) = find(&arguments.which())?;
    let name = name(&csa.id);
    let flows = kernel
        .take_over_snoop(&csa.id, &state)
        .map_err(|e| Failure::kernel(&name, &e))?;
    output.say(
        &format!(
            "{name}: {} taken over",
            count(flows as usize, "flow", "flows")
        ),
        &json!({ "imported": csa.json(), "flows": flows }),
    );
    Ok(())
}

fn set_plain(arguments: &SnoopSet, output: Output) -> Result<(), Failure> {
    let index = arguments.device.as_deref().map(index).transpose()?;
    let given: Vec<(&str, u64)> = [
        ("snoop-window", arguments.window.map(u64::from)),
        ("snoop-threshold", arguments.threshold.map(u64::from)),
        ("snoop-initial-ms", arguments.initial_ms.map(u64::from)),
        ("snoop-min-rto-ms", arguments.min_rto_ms.map(u64::from)),
        ("snoop-persist-ms", arguments.persist_ms.map(u64::from)),
        ("snoop-garbage-ms", arguments.garbage_ms.map(u64::from)),
        ("snoop-bytes", arguments.bytes),
        ("snoop-flows", arguments.flows.map(u64::from)),
        ("snoop-interface", index.map(u64::from)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect();
    if given.is_empty() {
        return Err(Failure::usage(
            "nothing to set; give --device, or one of the settings that --help lists",
        ));
    }
    kernel()?
        .set_all(&given)
        .map_err(|e| Failure::kernel("SNOOP", &e))?;
    let words: Vec<String> = given
        .iter()
        .map(|(name, value)| format!("{name} is {value}"))
        .collect();
    let json: Map<String, Value> = given
        .iter()
        .map(|(name, value)| ((*name).to_owned(), json!(value)))
        .collect();
    output.say(&words.join("\n"), &Value::Object(json));
    Ok(())
}

/// An interface's index; 0 for none.
/// The index of an interface of this namespace, by its name; 0 for `none`.
pub fn index(name: &str) -> Result<u32, Failure> {
    if name == "none" {
        return Ok(0);
    }
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    );
    socket
        .and_then(|socket| rustix::net::netdevice::name_to_index(socket, name))
        .map_err(|error| {
            Failure::usage(format!(
                "{name}: {error}; `ip link` lists this namespace's interfaces, and none ends it"
            ))
        })
}

fn counters(kernel: &mut Kernel) -> Result<Vec<(String, u64)>, Failure> {
    let all = kernel
        .stats()
        .map_err(|e| Failure::kernel("counters", &e))?;
    let namespace = all.into_iter().find(|counters| counters.csa.is_none());
    let values = namespace
        .map(|namespace| namespace.values)
        .unwrap_or_default();
    Ok(values
        .into_iter()
        .filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?.to_owned(), value)))
        .collect())
}

fn show_counters(
    counters: &[(String, u64)],
    last: Option<&[(String, u64)]>,
    seconds: u64,
    output: Output,
) {
    let json: Map<String, Value> = counters
        .iter()
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect();
    let mut table = Table::new(if last.is_some() {
        &["counter", "value", "a second"]
    } else {
        &["counter", "value"]
    });
    for (name, value) in counters {
        let mut row = vec![name.clone(), value.to_string()];
        if let Some(last) = last {
            let old = last.iter().find(|(other, _)| other == name);
            let more = old.map_or(0, |(_, old)| value.saturating_sub(*old));
            row.push((more / seconds.max(1)).to_string());
        }
        table.row(row);
    }
    output.table(&table, "no counters", &Value::Object(json));
}

fn show_flows(kernel: &mut Kernel, output: Output) -> Result<(), Failure> {
    let flows = kernel.flows().map_err(|e| Failure::kernel("flows", &e))?;
    let headings: Vec<&'static str> = ["from", "to", "inside"]
        .into_iter()
        .chain(COLUMNS.iter().map(|(_, heading)| *heading))
        .collect();
    let mut table = Table::new(&headings);
    for flow in &flows {
        let inside = match flow.outer {
            Some((src, dst)) => format!("{src} → {dst}"),
            None => "plain".to_owned(),
        };
        let mut row = vec![flow.src.to_string(), flow.dst.to_string(), inside];
        row.extend(COLUMNS.iter().map(|(name, _)| value(flow, name)));
        table.row(row);
    }
    let json = flows.iter().map(json_of).collect::<Vec<_>>();
    output.table(&table, "no flows", &json!({ "flows": json }));
    Ok(())
}

fn value(flow: &Flow, name: &str) -> String {
    let found = flow.values.iter().find(|(other, _)| other == name);
    found.map_or_else(|| "-".to_owned(), |(_, value)| value.to_string())
}

fn json_of(flow: &Flow) -> Value {
    let mut json = Map::new();
    json.insert("src".into(), json!(flow.src.to_string()));
    json.insert("dst".into(), json!(flow.dst.to_string()));
    if let Some((src, dst)) = flow.outer {
        json.insert("outer-src".into(), json!(src.to_string()));
        json.insert("outer-dst".into(), json!(dst.to_string()));
    }
    for (name, value) in &flow.values {
        json.insert(name.clone(), json!(value));
    }
    Value::Object(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_shown_with_the_csa_it_is_in() {
        let flow = Flow {
            outer: Some(([198, 51, 100, 1].into(), [10, 1, 1, 7].into())),
            src: ([192, 0, 2, 10], 80).into(),
            dst: ([203, 0, 113, 7], 40_000).into(),
            values: vec![("cached".into(), 7), ("suppressed".into(), 3)],
        };
        let json = json_of(&flow);
        assert_eq!(json["outer-dst"], "10.1.1.7");
        assert_eq!(json["dst"], "203.0.113.7:40000");
        assert_eq!(json["cached"], 7);
        assert_eq!(value(&flow, "suppressed"), "3");
        assert_eq!(value(&flow, "idle-ms"), "-");
    }

    #[test]
    fn no_interface_has_the_index_0() {
        assert_eq!(index("none").ok(), Some(0));
        assert!(index("no-such-interface").is_err());
    }
}
