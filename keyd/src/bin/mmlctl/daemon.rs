// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `mmlctl status`, `sa`, `initiate`, `rekey`, `delete`, `revoke`, `leave`, `log`: the key manager's commands.

use crate::cli::Daemon;
use crate::failure::Failure;
use crate::output::{print, terminal_columns, Output};
use crate::table::Table;
use keyd::daemon::control::{Client, Request};
use serde_json::Value;
use std::fmt::Write;
use std::net::Ipv4Addr;

fn ask(daemon: &Daemon, request: &Request) -> Result<Value, Failure> {
    Ok(Client::connect(&daemon.socket)?.ask(request)?)
}

/// A value without quotes; nothing for null.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn spi(value: &Value) -> String {
    value
        .as_u64()
        .map_or(String::new(), |spi| format!("{spi:#010x}"))
}

/// A time in its two greatest units.
fn age(seconds: &Value) -> String {
    let Some(seconds) = seconds.as_u64() else {
        return String::new();
    };
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest}s"),
        (0, 0, _) => format!("{minutes}m {rest}s"),
        (0, ..) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

fn selector(value: &Value) -> String {
    let side = |side: &str, ports: &str| match &value[ports] {
        Value::Null => text(&value[side]),
        ports => format!("{} port {}", text(&value[side]), text(ports)),
    };
    let (src, dst) = (side("src", "src-ports"), side("dst", "dst-ports"));
    match value["protocol"].as_u64() {
        _ if value["src"].is_null() => String::new(),
        None | Some(0) => format!("{src} → {dst}"),
        Some(protocol) => format!("{src} → {dst} protocol {protocol}"),
    }
}

/// The node in one line.
fn head(status: &Value) -> String {
    let mut line = format!(
        "{} {}, up {}",
        text(&status["role"]),
        text(&status["identity"]),
        age(&status["uptime_seconds"])
    );
    if status["mml"] == false {
        line.push_str("; the kernel module isn't loaded: plain IPsec only");
    }
    let relays = status["relays"].as_u64().unwrap_or(0);
    if relays > 0 {
        // Writing to a String can't fail.
        let _ = write!(line, "; relay CSAs of {relays} pairs");
    }
    let unclaimed = status["unclaimed"].as_u64().unwrap_or(0);
    if unclaimed > 0 {
        let _ = write!(
            line,
            "; {unclaimed} CSAs outlived a restart and wait to be claimed"
        );
    }
    line
}

/// A group of foreign agents that one datagram brings CSAs, in a line: at its home agent, or at a member.
fn group(one: &Value) -> String {
    let number = one["group"].as_u64().unwrap_or(0);
    let head = format!("group {number:#010x}, epoch {}", text(&one["epoch"]));
    let Value::Array(members) = &one["members"] else {
        let said = match &one["last"] {
            Value::Null => "nothing heard yet".to_owned(),
            last => format!("datagram {} heard", text(last)),
        };
        return format!("{head}, of {}: {said}", text(&one["home_agent"]));
    };
    let members: Vec<String> = members.iter().map(text).collect();
    format!(
        "{head}, neighbours of {}: {}; sent: {}",
        text(&one["neighbours_of"]),
        if members.is_empty() {
            "none".to_owned()
        } else {
            members.join(", ")
        },
        text(&one["datagrams"])
    )
}

/// Who has zone 1's keys of which host, at a home agent.
fn keys(status: &Value) -> Table {
    let names = ["host", "csa", "foreign agent", "as", "zone 1's keys"];
    let mut table = Table::new(&names);
    for one in list(&status["keys"]) {
        let state = match one["state"].as_str() {
            Some("sending") => "on their way",
            Some("cast") => "on their way, datagram",
            Some("held") => "held",
            Some("held-by-datagram") => "held, by datagram",
            Some("leaving") => "held, revoked shortly",
            Some("revoking") => "being revoked",
            Some("not-confirmed") => "revoked, no answer",
            Some("not-taken") => "not taken",
            Some("may-have") => "may have them",
            other => other.unwrap_or_default(),
        };
        table.row(vec![
            text(&one["home"]),
            spi(&one["spi"]),
            text(&one["foreign_agent"]),
            text(&one["as"]),
            state.to_owned(),
        ]);
    }
    table
}

/// How much of each visitor's ESP is opened, at a foreign agent.
fn coverage(status: &Value) -> Table {
    let names = [
        "visitor",
        "csas",
        "standby",
        "opened",
        "unopened",
        "without csa",
    ];
    let mut table = Table::new(&names);
    for one in list(&status["coverage"]) {
        let mut row = vec![text(&one["home"])];
        row.extend(["csas", "standby_csas", "opened", "unopened"].map(|key| text(&one[key])));
        row.push(age(&one["without_csa_seconds"]));
        table.row(row);
    }
    table
}

/// What an operator is to look at, a line each.
fn alarm(one: &Value) -> String {
    let what = if one["severe"] == true {
        "ALARM"
    } else {
        "warning"
    };
    let since = age(&one["age_seconds"]);
    format!(
        "{what} ({}), for {since}: {}",
        text(&one["alarm"]),
        text(&one["text"])
    )
}

/// What mobility has to say beside where hosts are.
fn relaying(status: &Value) {
    for one in list(&status["alarms"]) {
        print(&alarm(one));
    }
    for table in [keys(status), coverage(status)] {
        if !table.is_empty() {
            print(&table.render(terminal_columns()));
        }
    }
    match status["esp_without_csa"].as_u64() {
        None | Some(0) => {}
        Some(packets) => print(&format!(
            "ESP packets that passed and no CSA here is for: {packets}"
        )),
    }
}

pub fn status(daemon: &Daemon, output: Output) -> Result<(), Failure> {
    let status = ask(daemon, &Request::Status)?;
    if !output.json {
        print(&head(&status));
        for one in list(&status["mobile"]) {
            let (home, since) = (text(&one["home"]), age(&one["age_seconds"]));
            print(&match &one["care_of"] {
                Value::Null => format!("{home} is at home, for {since}"),
                care_of => format!("{home} is at {}, for {since}", text(care_of)),
            });
        }
    }
    if !output.json {
        list(&status["groups"])
            .iter()
            .for_each(|one| print(&group(one)));
        relaying(&status);
        for one in list(&status["connections"]) {
            if let Some(why) = one["failure"].as_str() {
                print(&format!("{}: {why}", text(&one["name"])));
            }
            if let Some(address) = one["inner_address"].as_str() {
                print(&format!(
                    "{address} is its address inside {}",
                    text(&one["name"])
                ));
            }
        }
    }
    let names = [
        "connection",
        "state",
        "peer",
        "remote",
        "zones",
        "selector",
        "children",
        "for",
    ];
    let mut table = Table::new(&names);
    for one in list(&status["connections"]) {
        let peer = if one["peer"].is_null() {
            &one["remote_identity"]
        } else {
            &one["peer"]
        };
        let zones = match (text(&one["zones"]), &one["both_know_zones"]) {
            (zones, Value::Bool(false)) if !zones.is_empty() => format!("{zones}, peer has none"),
            (zones, _) => zones,
        };
        table.row(vec![
            text(&one["name"]),
            text(&one["state"]),
            text(peer),
            text(&one["remote"]),
            zones,
            selector(&one["selector"]),
            text(&one["children"]),
            age(&one["age_seconds"]),
        ]);
    }
    output.table(&table, "no connections", &status);
    Ok(())
}

pub fn reload(daemon: &Daemon, output: Output) -> Result<(), Failure> {
    let done = ask(daemon, &Request::Reload)?;
    let names = |value: &Value| {
        let names: Vec<String> = list(value).iter().map(text).collect();
        names.join(", ")
    };
    let mut lines = vec![format!("stay as they are: {}", text(&done["kept"]))];
    for (what, key) in [("closed", "closed"), ("new", "new")] {
        if !list(&done[key]).is_empty() {
            lines.push(format!("{what}: {}", names(&done[key])));
        }
    }
    output.say(&lines.join("\n"), &done);
    Ok(())
}

pub fn sa_list(daemon: &Daemon, output: Output) -> Result<(), Failure> {
    let sas = ask(daemon, &Request::SaList)?;
    let names = [
        "kind",
        "connection",
        "spi in",
        "spi out",
        "outer",
        "selector",
        "sealed by",
        "state",
        "for",
        "left",
    ];
    let mut table = Table::new(&names);
    for one in list(&sas) {
        let state = match (&one["sealing"], &one["standby"]) {
            (Value::Bool(true), _) => "sealing",
            (Value::Bool(false), _) => "opening only",
            (_, Value::Bool(true)) => "standby",
            (_, Value::Bool(false)) => "active",
            _ => "",
        };
        let transforms: Vec<String> = list(&one["transforms"]).iter().map(text).collect();
        table.row(vec![
            text(&one["kind"]),
            text(if one["connection"].is_null() {
                &one["peer"]
            } else {
                &one["connection"]
            }),
            spi(&one["spi_in"]),
            spi(&one["spi_out"]),
            format!("{} → {}", text(&one["local"]), text(&one["remote"])),
            selector(&one["selector"]),
            transforms.join(", "),
            state.to_owned(),
            age(&one["age_seconds"]),
            age(&one["seconds_left"]),
        ]);
    }
    output.table(&table, "no SAs", &sas);
    Ok(())
}

pub fn initiate(
    daemon: &Daemon,
    name: &str,
    wait: Option<u64>,
    output: Output,
) -> Result<(), Failure> {
    let request = Request::Initiate {
        name: name.to_owned(),
        wait: wait.unwrap_or(0),
    };
    let answer = ask(daemon, &request)?;
    let said = match answer["begun"].as_str() {
        Some("child") => "its tunnel is begun",
        Some(_) => "begun",
        None if answer["state"] == "up" => "up",
        None => "it is up already",
    };
    output.say(&format!("{name}: {said}"), &answer);
    Ok(())
}

pub fn rekey(daemon: &Daemon, what: &str, ike: bool, output: Output) -> Result<(), Failure> {
    let answer = ask(
        daemon,
        &Request::Rekey {
            what: what.to_owned(),
            ike,
        },
    )?;
    output.say(&format!("{what}: new keys are on their way"), &answer);
    Ok(())
}

pub fn delete(daemon: &Daemon, what: &str, output: Output) -> Result<(), Failure> {
    let answer = ask(
        daemon,
        &Request::Delete {
            what: what.to_owned(),
        },
    )?;
    output.say(&format!("{what}: closed"), &answer);
    Ok(())
}

pub fn revoke(daemon: &Daemon, home: Ipv4Addr, output: Output) -> Result<(), Failure> {
    let answer = ask(daemon, &Request::Revoke { home })?;
    let peer = text(&answer["peer"]);
    let said = if answer["told"] == true {
        format!("its registration has ended; {peer} is told")
    } else {
        format!(
            "its registration has ended here; {peer} can't be told, and has it until its lifetime is over: \
             it takes a [[mobile-ip.peer]] at both agents"
        )
    };
    output.say(&format!("{home}: {said}"), &answer);
    Ok(())
}

pub fn leave(daemon: &Daemon, output: Output) -> Result<(), Failure> {
    let answer = ask(daemon, &Request::Leave)?;
    output.say("it has told its peers, and ended", &answer);
    Ok(())
}

pub fn log(daemon: &Daemon, follow: bool, output: Output) -> Result<(), Failure> {
    let mut client = Client::connect(&daemon.socket)?;
    client.send(&Request::Log { follow })?;
    while let Some(line) = client.answer()? {
        print(&if output.json {
            line.to_string()
        } else {
            text(&line)
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Columns of the narrowest terminal that people have.
    const COLUMNS: usize = 80;

    #[test]
    fn who_has_keys_fits_a_terminal_of_80_columns_with_the_longest_addresses_of_ipv4() {
        let states = [
            "sending",
            "cast",
            "held",
            "held-by-datagram",
            "leaving",
            "revoking",
            "not-confirmed",
            "not-taken",
            "may-have",
        ];
        let held = states.map(|state| {
            json!({ "home": "203.100.113.107", "foreign_agent": "198.151.100.101", "spi": u32::MAX,
                    "as": "standby", "state": state })
        });
        let text = keys(&json!({ "keys": held })).render(Some(COLUMNS));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 1 + states.len(), "side by side: {text}");
        assert!(lines.iter().all(|line| line.chars().count() <= COLUMNS));
        // Each state has words of its own.
        assert!(states
            .iter()
            .all(|state| !text.contains(&format!("{state}-"))));
        assert!(lines[7].ends_with("revoked, no answer"), "{text}");
    }

    #[test]
    fn coverage_fits_a_terminal_of_80_columns() {
        let one = json!({ "home": "203.100.113.107", "csas": 2, "standby_csas": 1, "opened": 999_999_999_999_u64,
                          "unopened": 999_999_999_999_u64, "without_csa_seconds": 5_000 });
        let text = coverage(&json!({ "coverage": [one] })).render(Some(COLUMNS));
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.ends_with("1h 23m\n"), "{text}");
    }

    #[test]
    fn an_alarm_says_what_it_is_and_since_when() {
        let one =
            json!({ "alarm": "mtu", "severe": false, "text": "too small", "age_seconds": 62 });
        assert_eq!(alarm(&one), "warning (mtu), for 1m 2s: too small");
    }
}
