// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `mmlctl policy`.

use crate::cli::{self, Packets, PolicyAdd};
use crate::failure::Failure;
use crate::output::{count, Output};
use crate::policy_load;
use crate::table::Table;
use keyd::address::selector;
use keyd::info::{policy_json, selector_text, template_text};
use keyd::kernel::Kernel;
use keyd::policy_file::{self, Action, Direction, Entry};
use keyd::ports::with_ports;
use keyd::private_file;
use pfkey::number::policy;
use pfkey::{Policy, PolicyId};
use serde_json::json;
use std::io::{IsTerminal, Write};
use std::path::Path;

/// What kernel errors are about when no policy is named.
pub const POLICIES: &str = "policies";

pub fn run(command: cli::Policy, output: Output) -> Result<(), Failure> {
    match command {
        cli::Policy::Add(arguments) => add(&arguments, output),
        cli::Policy::Load { folder } => policy_load::run(&folder, output),
        cli::Policy::List => list(output),
        cli::Policy::Delete { id, dir, packets } => delete(id, dir.as_deref(), &packets, output),
        cli::Policy::Flush { yes } => flush(yes, output),
    }
}

pub fn kernel() -> Result<Kernel, Failure> {
    Kernel::open().map_err(|e| Failure::kernel("mml", &e))
}

/// A policy on one line.
pub fn name(policy: &Policy) -> String {
    let (action, dir) = (
        Action::word(policy.ext.kind),
        Direction::word(policy.ext.direction),
    );
    format!("{action} {dir} {}", selector_text(&policy.selector))
}

fn direction(word: &str) -> Direction {
    // clap has let through no other words.
    if word == "in" {
        Direction::In
    } else {
        Direction::Out
    }
}

fn add(arguments: &PolicyAdd, output: Output) -> Result<(), Failure> {
    let policies = match &arguments.file {
        Some(path) => read(path)?,
        None => vec![given(arguments).map_err(Failure::usage)?],
    };
    let mut kernel = kernel()?;
    let mut added: Vec<Policy> = Vec::new();
    for policy in &policies {
        match kernel.add_policy(policy) {
            Ok(policy) => added.push(policy),
            Err(error) => {
                // All or none: half of a set of policies is not what anybody meant.
                for policy in &added {
                    let _ = kernel
                        .delete_policy(&PolicyId::Selector(policy.ext.direction, policy.selector));
                }
                let failure = Failure::kernel(&name(policy), &error);
                return Err(if policies.len() > 1 {
                    failure.and("nothing was added")
                } else {
                    failure
                });
            }
        }
    }
    let lines: Vec<String> = added
        .iter()
        .map(|policy| format!("added policy {}: {}", policy.ext.id, name(policy)))
        .collect();
    output.say(
        &lines.join("\n"),
        &json!({ "added": added.iter().map(policy_json).collect::<Vec<_>>() }),
    );
    Ok(())
}

fn read(path: &Path) -> Result<Vec<Policy>, Failure> {
    let (name, text) = if path == Path::new("-") {
        let name = "standard input".to_owned();
        let text = private_file::read_text(&mut std::io::stdin().lock(), Path::new(&name))?;
        (name, text)
    } else {
        let name = path.display().to_string();
        let mut file =
            std::fs::File::open(path).map_err(|e| Failure::usage(format!("{name}: {e}")))?;
        let text = private_file::read_text(&mut file, path)?;
        (name, text)
    };
    policy_file::parse(&name, &text).map_err(Failure::usage)
}

fn given(arguments: &PolicyAdd) -> Result<Policy, String> {
    let action = match (arguments.bypass, arguments.discard) {
        (true, _) => Action::Bypass,
        (_, true) => Action::Discard,
        _ => Action::Protect,
    };
    let entry = Entry {
        dir: direction(arguments.dir.as_deref().unwrap_or("out")),
        action,
        src: arguments.packets.src,
        dst: arguments.packets.dst,
        protocol: arguments.packets.proto,
        src_port: arguments.packets.src_port,
        dst_port: arguments.packets.dst_port,
        priority: arguments.priority,
        outer_src: arguments.outer_src,
        outer_dst: arguments.outer_dst,
    };
    entry.to_policy()
}

/// All policies, in the order they are asked.
fn sorted(kernel: &mut Kernel) -> Result<Vec<Policy>, Failure> {
    let mut policies = kernel
        .policies()
        .map_err(|e| Failure::kernel(POLICIES, &e))?;
    policies.sort_by_key(|policy| (policy.ext.direction, policy.ext.priority, policy.ext.id));
    Ok(policies)
}

fn list(output: Output) -> Result<(), Failure> {
    let policies = sorted(&mut kernel()?)?;
    let mut table = Table::new(&["id", "dir", "action", "priority", "packets", "outer"]);
    for policy in &policies {
        table.row(vec![
            policy.ext.id.to_string(),
            Direction::word(policy.ext.direction).into(),
            Action::word(policy.ext.kind).into(),
            policy.ext.priority.to_string(),
            selector_text(&policy.selector),
            template_text(policy),
        ]);
    }
    let json = json!(policies.iter().map(policy_json).collect::<Vec<_>>());
    output.table(&table, "no policies: everything goes in clear", &json);
    Ok(())
}

fn delete(
    id: Option<u32>,
    dir: Option<&str>,
    packets: &Packets,
    output: Output,
) -> Result<(), Failure> {
    let id = match (id, dir) {
        (Some(0), _) => {
            return Err(Failure::usage(
                "policy 0: numbers begin with 1; `mmlctl policy list` has them all",
            ))
        }
        (Some(id), _) => PolicyId::Number(id),
        (None, dir) => {
            let selector =
                selector(packets.src, packets.dst, packets.proto).ok_or(Failure::usage(
                    "--src and --dst are of two families; both must be IPv4 or both IPv6",
                ))?;
            let selector =
                with_ports(selector, packets.src_port, packets.dst_port).map_err(Failure::usage)?;
            PolicyId::Selector(direction(dir.unwrap_or("out")).number(), selector)
        }
    };
    let mut kernel = kernel()?;
    let policies = sorted(&mut kernel)?;
    let is_meant = |policy: &&Policy| match &id {
        PolicyId::Number(number) => policy.ext.id == *number,
        PolicyId::Selector(direction, selector) => {
            policy.ext.direction == *direction && policy.selector == *selector
        }
    };
    let Some(policy) = policies.iter().find(is_meant) else {
        return Err(Failure::usage(
            "there is no such policy; `mmlctl policy list` has them all",
        ));
    };
    kernel
        .delete_policy(&id)
        .map_err(|e| Failure::kernel(&name(policy), &e))?;
    let clear = consequences(std::slice::from_ref(policy), policies.len() == 1);
    let text = std::iter::once(format!(
        "deleted policy {}: {}",
        policy.ext.id,
        name(policy)
    ))
    .chain(clear);
    output.say(
        &text.collect::<Vec<_>>().join("\n"),
        &json!({ "deleted": [policy_json(policy)] }),
    );
    Ok(())
}

/// What goes in clear, or goes at all, once these policies are gone.
fn consequences(policies: &[Policy], all: bool) -> Vec<String> {
    let unless = if all {
        ""
    } else {
        ", unless another policy covers it"
    };
    policies
        .iter()
        .filter_map(|policy| {
            match policy.ext.kind {
                policy::PROTECT => Some("what was sealed or dropped"),
                policy::DISCARD => Some("what was dropped"),
                _ => None,
            }
            .map(|was| {
                let dir = Direction::word(policy.ext.direction);
                format!(
                    "in clear from now on: {dir} {} ({was}){unless}",
                    selector_text(&policy.selector)
                )
            })
        })
        .collect()
}

fn flush(yes: bool, output: Output) -> Result<(), Failure> {
    let mut kernel = kernel()?;
    let policies = sorted(&mut kernel)?;
    let clear = consequences(&policies, true);
    if !clear.is_empty() && !yes {
        ask(&clear)?;
    }
    kernel
        .flush_policies()
        .map_err(|e| Failure::kernel(POLICIES, &e))?;
    let deleted = format!("deleted {}", count(policies.len(), "policy", "policies"));
    // Whoever was asked has read it already.
    let text = if yes {
        [vec![deleted], clear.clone()].concat().join("\n")
    } else {
        deleted
    };
    output.say(&text, &json!({ "deleted": policies.iter().map(policy_json).collect::<Vec<_>>(), "in_clear": clear }));
    Ok(())
}

/// Asks at the terminal whether that is meant.
fn ask(clear: &[String]) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(format!(
            "policy flush: nobody here to ask, and what {} covered would go in clear; say --yes if it may",
            count(clear.len(), "policy", "policies")
        )));
    }
    eprintln!("{}", clear.join("\n"));
    eprint!("Flush all policies? [y/N] ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(|e| Failure::usage(format!("terminal: {e}")))?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::usage("policy flush: not done")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyd::ports::Ports;

    #[test]
    fn a_flush_names_all_that_will_go_in_clear_and_no_bypass() {
        let policy = |action, dst: &str| {
            let entry = Entry {
                dir: Direction::Out,
                action,
                src: keyd::address::Prefix::ANY,
                dst: dst.parse().unwrap(),
                protocol: 0,
                src_port: Ports::ANY,
                dst_port: Ports::ANY,
                priority: 0,
                outer_src: None,
                outer_dst: None,
            };
            entry.to_policy().unwrap()
        };
        let policies = [
            policy(Action::Protect, "10.0.0.0/8"),
            policy(Action::Bypass, "10.1.0.0/16"),
            policy(Action::Discard, "10.2.0.0/16"),
        ];
        let text = consequences(&policies, true);
        assert_eq!(text.len(), 2);
        assert_eq!(
            text[0],
            "in clear from now on: out 0.0.0.0/0 → 10.0.0.0/8 (what was sealed or dropped)"
        );
        assert!(text[1].contains("10.2.0.0/16"));
    }
}
