// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `mmlctl stats` and `mmlctl set`.

use crate::cli;
use crate::failure::Failure;
use crate::output::{print, Output};
use crate::snoop;
use crate::table::Table;
use keyd::kernel::{Counters, Kernel};
use pfkey::genl::SETTING_PREFIX;
use serde_json::{json, Map, Value};
use std::io::IsTerminal;
use std::time::Duration;

fn kernel() -> Result<Kernel, Failure> {
    Kernel::open().map_err(|e| Failure::kernel("mml", &e))
}

fn ask(kernel: &mut Kernel) -> Result<Vec<Counters>, Failure> {
    kernel.stats().map_err(|e| Failure::kernel("counters", &e))
}

pub fn run(arguments: &cli::Stats, output: Output) -> Result<(), Failure> {
    let mut kernel = kernel()?;
    let mut counters = ask(&mut kernel)?;
    let Some(seconds) = arguments.watch else {
        show(&counters, None, arguments.all, output);
        return Ok(());
    };
    show(&counters, None, arguments.all, output);
    loop {
        std::thread::sleep(Duration::from_secs(seconds));
        let before = std::mem::replace(&mut counters, ask(&mut kernel)?);
        if !output.json && std::io::stdout().is_terminal() {
            // To the top of an empty screen.
            print("\x1b[H\x1b[2J");
        }
        show(&counters, Some((&before, seconds)), arguments.all, output);
    }
}

/// Whose counters these are, in words.
fn owner(counters: &Counters) -> String {
    match &counters.csa {
        None => "namespace".into(),
        Some(csa) => {
            let role = csa.role.map_or("?", pfkey::Role::name);
            format!("{role} {:#010x} {} → {}", csa.spi, csa.src, csa.dst)
        }
    }
}

fn show(counters: &[Counters], before: Option<(&[Counters], u64)>, all: bool, output: Output) {
    if output.json {
        print(&json(counters).to_string());
        return;
    }
    let blocks: Vec<String> = counters
        .iter()
        .map(|counters| block(counters, before, all))
        .collect();
    print(blocks.join("\n").trim_end());
}

fn block(counters: &Counters, before: Option<(&[Counters], u64)>, all: bool) -> String {
    let old = |name: &str| {
        let (before, seconds) = before?;
        let before = before.iter().find(|other| other.csa == counters.csa)?;
        let (_, value) = before.values.iter().find(|(other, _)| other == name)?;
        Some((*value, seconds))
    };
    let mut table = Table::new(if before.is_some() {
        &["counter", "value", "a second"]
    } else {
        &["counter", "value"]
    });
    let shown = counters
        .values
        .iter()
        .filter(|(name, value)| !name.starts_with(SETTING_PREFIX) && (all || *value != 0));
    for (name, value) in shown {
        let mut row = vec![name.clone(), value.to_string()];
        row.extend(
            old(name)
                .map(|(old, seconds)| (value.saturating_sub(old) / seconds.max(1)).to_string()),
        );
        table.row(row);
    }
    let body = if table.is_empty() {
        "all counters are 0\n".into()
    } else {
        table.render(None)
    };
    let body: String = body.lines().map(|line| format!("  {line}\n")).collect();
    format!("{}\n{body}", owner(counters))
}

fn json(counters: &[Counters]) -> Value {
    let values = |counters: &Counters, settings: bool| {
        let of_kind = counters
            .values
            .iter()
            .filter(|(name, _)| name.starts_with(SETTING_PREFIX) == settings);
        of_kind
            .map(|(name, value)| {
                (
                    name.trim_start_matches(SETTING_PREFIX).to_owned(),
                    json!(value),
                )
            })
            .collect::<Map<_, _>>()
    };
    let namespace = counters.iter().find(|counters| counters.csa.is_none());
    let csas = counters.iter().filter_map(|counters| {
        let csa = counters.csa.as_ref()?;
        Some(json!({
            "spi": csa.spi,
            "src": csa.src.to_string(),
            "dst": csa.dst.to_string(),
            "role": csa.role.map(pfkey::Role::name),
            "counters": values(counters, false),
        }))
    });
    json!({
        "namespace": namespace.map(|namespace| values(namespace, false)),
        "settings": namespace.map(|namespace| values(namespace, true)),
        "csas": csas.collect::<Vec<_>>(),
    })
}

/// The settings as the module holds them.
fn settings(kernel: &mut Kernel) -> Result<Vec<(String, u64)>, Failure> {
    let counters = ask(kernel)?;
    let namespace = counters.into_iter().find(|counters| counters.csa.is_none());
    let values = namespace
        .map(|namespace| namespace.values)
        .unwrap_or_default();
    Ok(values
        .into_iter()
        .filter_map(|(name, value)| Some((name.strip_prefix(SETTING_PREFIX)?.to_owned(), value)))
        .collect())
}

pub fn set(name: Option<&str>, value: Option<&str>, output: Output) -> Result<(), Failure> {
    let (Some(name), Some(value)) = (name, value) else {
        let settings = settings(&mut kernel()?)?;
        let mut table = Table::new(&["setting", "value"]);
        for (name, value) in &settings {
            table.row(vec![name.clone(), value.to_string()]);
        }
        let json: Map<String, Value> = settings
            .into_iter()
            .map(|(name, value)| (name, json!(value)))
            .collect();
        output.table(&table, "no settings", &Value::Object(json));
        return Ok(());
    };
    let number = match number(value) {
        Ok(number) => number,
        Err(_) if name.ends_with("-interface") => snoop::index(value)?.into(),
        Err(error) => return Err(Failure::usage(format!("{name}: {error}"))),
    };
    kernel()?
        .set(name, number)
        .map_err(|e| Failure::kernel(name, &e))?;
    output.say(
        &format!("{name} is {number}"),
        &json!({ "name": name, "value": number }),
    );
    Ok(())
}

fn number(text: &str) -> Result<u64, String> {
    match text {
        "on" | "true" | "yes" => Ok(1),
        "off" | "false" | "no" => Ok(0),
        text => text
            .parse()
            .map_err(|_| format!("`{text}` is not a value: a number, or on or off")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(sealed: u64) -> Vec<Counters> {
        let values = vec![
            ("sealed".to_owned(), sealed),
            ("replay".to_owned(), 0),
            ("setting/mss-clamp".to_owned(), 1),
        ];
        vec![Counters { csa: None, values }]
    }

    #[test]
    fn zeros_and_settings_are_left_out() {
        assert_eq!(
            block(&namespace(7)[0], None, false),
            "namespace\n  COUNTER  VALUE\n  sealed   7\n"
        );
        assert_eq!(
            block(&namespace(0)[0], None, false),
            "namespace\n  all counters are 0\n"
        );
        assert!(block(&namespace(7)[0], None, true).contains("replay   0"));
    }

    #[test]
    fn watching_shows_the_difference_a_second() {
        let before = namespace(10);
        let text = block(&namespace(30)[0], Some((&before, 2)), false);
        assert!(text.contains("sealed   30     10"), "{text}");
    }

    #[test]
    fn json_has_settings_apart() {
        let json = json(&namespace(7));
        assert_eq!(json["namespace"]["sealed"], 7);
        assert_eq!(json["settings"]["mss-clamp"], 1);
        assert!(json["namespace"].get("setting/mss-clamp").is_none());
    }

    #[test]
    fn values_are_numbers_or_words() {
        assert_eq!(
            (number("on"), number("off"), number("64")),
            (Ok(1), Ok(0), Ok(64))
        );
        assert!(number("-1").is_err() && number("").is_err());
    }
}
