// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `mmlctl csa`.

use crate::cli::{self, Which};
use crate::csa_load;
use crate::failure::Failure;
use crate::output::{count, Output};
use crate::table::Table;
use keyd::address::Prefix;
use keyd::csa_file::{self, Entry};
use keyd::fresh::Plan;
use keyd::info::{selector_text, CsaInfo};
use keyd::kernel::Kernel;
use keyd::lifetime;
use keyd::private_file::{self, loaded_path, PrivateFile};
use pfkey::{Algorithm, Csa, CsaId, Role};
use serde_json::json;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// What kernel errors are about when no CSA is named.
const CSAS: &str = "CSAs";

pub fn run(command: cli::Csa, output: Output) -> Result<(), Failure> {
    match command {
        cli::Csa::New(arguments) => new(&arguments, output),
        cli::Csa::Add { file, fresh } => add(&file, fresh, output),
        cli::Csa::Load { folder } => csa_load::run(&folder, output),
        cli::Csa::List => list(output),
        cli::Csa::Show(which) => show(&which, output),
        cli::Csa::Update {
            which,
            state,
            sequence,
            limits,
        } => {
            let (mut kernel, csa) = find(&which)?;
            let name = name(&csa.id);
            kernel
                .limit_csa(&csa.id, (state, sequence), limits.soft(), limits.hard())
                .map_err(|e| Failure::kernel(&name, &e))?;
            output.say(
                &format!("{name} is {}", state.name()),
                &json!({ "updated": csa.json(), "state": state.name() }),
            );
            Ok(())
        }
        cli::Csa::Migrate {
            which,
            to_src,
            to_dst,
            udp,
        } => migrate(&which, to_src, to_dst, udp, output),
        cli::Csa::Resend { which, seen } => {
            let (mut kernel, csa) = find(&which)?;
            let name = name(&csa.id);
            let packets = kernel
                .resend_csa(&csa.id, seen)
                .map_err(|e| Failure::kernel(&name, &e))?;
            output.say(
                &format!(
                    "{name}: {} sent",
                    count(packets as usize, "held packet", "held packets")
                ),
                &json!({ "resent": csa.json(), "packets": packets }),
            );
            Ok(())
        }
        cli::Csa::Delete(which) => {
            let (mut kernel, csa) = find(&which)?;
            let name = name(&csa.id);
            kernel
                .delete_csa(&csa.id)
                .map_err(|e| Failure::kernel(&name, &e))?;
            output.say(
                &format!("deleted {name}"),
                &json!({ "deleted": [csa.json()] }),
            );
            Ok(())
        }
        cli::Csa::Flush => flush(output),
    }
}

pub fn kernel() -> Result<Kernel, Failure> {
    Kernel::open().map_err(|e| Failure::kernel("mml", &e))
}

/// Moves a CSA to other ends.
fn migrate(
    which: &cli::Which,
    to_src: Option<std::net::IpAddr>,
    to_dst: Option<std::net::IpAddr>,
    udp: Option<pfkey::Encap>,
    output: Output,
) -> Result<(), Failure> {
    let (mut kernel, csa) = find(which)?;
    let name = name(&csa.id);
    let (src, dst) = (
        to_src.unwrap_or_else(|| csa.src()),
        to_dst.unwrap_or_else(|| csa.dst()),
    );
    let to = pfkey::Migrate {
        id: csa.id,
        src: keyd::address::host(src),
        dst: keyd::address::host(dst),
        encap: udp,
    };
    kernel
        .migrate_csa(&to)
        .map_err(|e| Failure::kernel(&name, &e))?;
    let ports = udp.map_or(String::new(), |udp| {
        format!(" in UDP {} → {}", udp.sport, udp.dport)
    });
    output.say(
        &format!("{name} goes on as {src} → {dst}{ports}"),
        &json!({
            "migrated": csa.json(),
            "src": src.to_string(),
            "dst": dst.to_string(),
            "udp": udp.map(|udp| json!({ "src-port": udp.sport, "dst-port": udp.dport })),
        }),
    );
    Ok(())
}

/// Seconds since 1970.
fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// A CSA on one line.
pub fn name(id: &CsaId) -> String {
    let ip = |address: &pfkey::Address| keyd::address::ip(address.family, &address.octets);
    format!(
        "{} {:#010x} {} → {}",
        id.role.name(),
        id.spi,
        ip(&id.src),
        ip(&id.dst)
    )
}

fn new(arguments: &cli::New, output: Output) -> Result<(), Failure> {
    if arguments.ha == arguments.mh {
        return Err(Failure::usage(
            "--ha and --mh are the same address; the tunnel needs two ends",
        ));
    }
    if arguments.ha.is_ipv4() != arguments.mh.is_ipv4() {
        return Err(Failure::usage(
            "--ha and --mh are of two families; both must be IPv4 or both IPv6",
        ));
    }
    let default = if arguments.may_write {
        Algorithm::AesGcm16
    } else {
        Algorithm::AesGcm16Iiv
    };
    let host =
        |address: std::net::IpAddr| Prefix::new(address, if address.is_ipv4() { 32 } else { 128 });
    let (selector_mh, selector_cn) = match arguments.selector_mh {
        Some(selector_mh) => (selector_mh, arguments.selector_cn),
        None => (host(arguments.mh), host(arguments.ha)),
    };
    let plan = Plan {
        ha: arguments.ha,
        mh: arguments.mh,
        selector_mh,
        selector_cn,
        protocol: arguments.proto,
        ports_mh: arguments.port_mh,
        ports_cn: arguments.port_cn,
        zones: [arguments.zone1.unwrap_or((default, 256)), arguments.zone2],
        map: arguments.map,
        window: arguments.window,
        may_write: arguments.may_write,
        relay_number: arguments.relay_number,
        generation: arguments.generation,
        udp: arguments.udp,
        transport: arguments.transport,
    };
    let files = plan
        .files(&ring::rand::SystemRandom::new())
        .map_err(Failure::usage)?;
    // What the module would refuse isn't written.
    for (name, text) in &files {
        csa_file::parse(name, text).map_err(Failure::usage)?;
    }
    let folder = &arguments.out;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|e| {
            Failure::usage(format!(
                "{}: {e}; name a folder that can be made",
                folder.display()
            ))
        })?;
    let paths: Vec<PathBuf> = files.iter().map(|(name, _)| folder.join(name)).collect();
    for path in paths
        .iter()
        .flat_map(|path| [path.clone(), loaded_path(path)])
    {
        if path.symlink_metadata().is_ok() {
            return Err(Failure::usage(format!(
                "{}: it is there already; name another folder, or remove it",
                path.display()
            )));
        }
    }
    for (index, (path, (_, text))) in paths.iter().zip(&files).enumerate() {
        if let Err(error) = private_file::create(path, text) {
            // Part of a set is of no use to anybody.
            for made in paths.iter().take(index) {
                let _ = std::fs::remove_file(made);
            }
            return Err(error.into());
        }
    }
    let names: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let text = format!(
        "made {}\neach is for one node, and those that seal are single-use: load with `mmlctl csa add -f FILE` there",
        names.join(", ")
    );
    output.say(&text, &json!({ "files": names }));
    Ok(())
}

/// Where CSAs are read from.
enum Source {
    File(PrivateFile),
    Stdin,
}

pub fn add(path: &Path, fresh: bool, output: Output) -> Result<(), Failure> {
    let (name_of, source, entries) = read(path)?;
    let single_use = entries.iter().any(Entry::is_single_use);
    if single_use && matches!(source, Source::Stdin) && !fresh {
        return Err(Failure::usage(
            "standard input: it holds keys that seal, which may be loaded once; load them from a file, or vouch with --fresh that they never were",
        ));
    }
    let csas = in_order(&name_of, &entries)?;
    let mut kernel = kernel()?;
    // All that can be known to fail fails before a file is spent.
    for csa in &csas {
        let id = id(csa);
        if kernel
            .has_csa(&id)
            .map_err(|e| Failure::kernel(&name_of, &e))?
        {
            return Err(Failure::usage(format!(
                "{name_of}: {} is loaded already; `mmlctl csa delete {:#x}` first",
                name(&id),
                id.spi
            )));
        }
    }
    let spent = load(&mut kernel, &csas, &source, &name_of)?;
    report(&csas, spent.as_deref(), output);
    Ok(())
}

fn read(path: &Path) -> Result<(String, Source, Vec<Entry>), Failure> {
    if path == Path::new("-") {
        let name = "standard input".to_owned();
        let text = private_file::read_text(&mut std::io::stdin().lock(), Path::new(&name))?;
        let entries = csa_file::parse(&name, &text).map_err(Failure::usage)?;
        return Ok((name, Source::Stdin, entries));
    }
    let file = PrivateFile::read(path)?;
    let name = path.display().to_string();
    let entries = csa_file::parse(&name, &file.text).map_err(Failure::usage)?;
    Ok((name, Source::File(file), entries))
}

/// The CSAs, those that seal last: whatever else is refused is refused before a file is spent.
fn in_order<'a>(name_of: &str, entries: &'a [Entry]) -> Result<Vec<(&'a Entry, Csa<'a>)>, Failure> {
    let mut csas = Vec::with_capacity(entries.len());
    for entry in entries {
        let csa = entry
            .to_csa()
            .map_err(|error| Failure::usage(format!("{name_of}: {error}")))?;
        let taken = |(_, other): &(&Entry, Csa<'_>)| {
            (other.spi, other.dst, other.ext.role) == (csa.spi, csa.dst, csa.ext.role)
                && other.src == csa.src
        };
        if csas.iter().any(taken) {
            return Err(Failure::usage(format!(
                "{name_of}: {} is in it twice; remove one",
                name(&id_of(&csa))
            )));
        }
        csas.push((entry, csa));
    }
    csas.sort_by_key(|(entry, _)| entry.is_single_use());
    Ok(csas)
}

fn id_of(csa: &Csa<'_>) -> CsaId {
    CsaId {
        spi: csa.spi,
        src: csa.src,
        dst: csa.dst,
        role: csa.ext.role,
    }
}

fn id((_, csa): &(&Entry, Csa<'_>)) -> CsaId {
    id_of(csa)
}

/// Loads them all or none. The file is spent before the first key that seals leaves us, and stays so.
fn load(
    kernel: &mut Kernel,
    csas: &[(&Entry, Csa<'_>)],
    source: &Source,
    name_of: &str,
) -> Result<Option<PathBuf>, Failure> {
    let mut spent = None;
    for (index, (entry, csa)) in csas.iter().enumerate() {
        let mut step = || {
            if let (Source::File(file), true, None) = (source, entry.is_single_use(), &spent) {
                spent = Some(file.spend()?);
            }
            kernel
                .add_csa(csa)
                .map_err(|e| Failure::kernel(&format!("{name_of}: {}", name(&id_of(csa))), &e))
        };
        if let Err(failure) = step() {
            for loaded in csas.iter().take(index) {
                let _ = kernel.delete_csa(&id(loaded));
            }
            let failure = failure.and("nothing was loaded");
            return Err(match spent {
                Some(path) => failure.and(&format!(
                    "the file stays spent ({}), for its keys may have been used: make fresh ones with `mmlctl csa new`",
                    path.display()
                )),
                None => failure,
            });
        }
    }
    Ok(spent)
}

fn report(csas: &[(&Entry, Csa<'_>)], spent: Option<&Path>, output: Output) {
    let mut lines: Vec<String> = csas
        .iter()
        .map(|csa| format!("added {}", name(&id(csa))))
        .collect();
    if let Some(path) = spent {
        lines.push(format!("the file is spent: it is {} now", path.display()));
    }
    let added: Vec<_> = csas
        .iter()
        .map(|csa| {
            let id = id(csa);
            json!({
                "spi": id.spi,
                "role": id.role.name(),
                "src": keyd::address::ip(id.src.family, &id.src.octets).to_string(),
                "dst": keyd::address::ip(id.dst.family, &id.dst.octets).to_string(),
            })
        })
        .collect();
    output.say(
        &lines.join("\n"),
        &json!({ "added": added, "spent": spent.map(|path| path.display().to_string()) }),
    );
}

fn list(output: Output) -> Result<(), Failure> {
    let csas = kernel()?.csas().map_err(|e| Failure::kernel(CSAS, &e))?;
    let mut table = Table::new(&[
        "spi", "role", "state", "outer", "inner", "zones", "sequence", "bytes", "left",
    ]);
    for csa in &csas {
        table.row(vec![
            format!("{:#010x}", csa.id.spi),
            csa.id.role.name().into(),
            csa.ext.state.name().into(),
            format!("{} → {}", csa.src(), csa.dst()),
            csa.selector.as_ref().map(selector_text).unwrap_or_default(),
            csa.zones.join(" + "),
            csa.ext.sequence.to_string(),
            csa.current
                .map(|current| current.bytes.to_string())
                .unwrap_or_default(),
            lifetime::left(csa.hard, csa.current, now()),
        ]);
    }
    let json = json!(csas.iter().map(CsaInfo::json).collect::<Vec<_>>());
    output.table(
        &table,
        "no CSAs; `mmlctl csa new` makes some, `mmlctl csa add -f FILE` loads them",
        &json,
    );
    Ok(())
}

/// The one CSA that is meant.
pub fn find(which: &Which) -> Result<(Kernel, CsaInfo), Failure> {
    let mut kernel = kernel()?;
    let csas = kernel.csas().map_err(|e| Failure::kernel(CSAS, &e))?;
    let csa = choose(csas, which)?;
    Ok((kernel, csa))
}

fn choose(csas: Vec<CsaInfo>, which: &Which) -> Result<CsaInfo, Failure> {
    let is_meant = |csa: &CsaInfo| {
        csa.id.spi == which.spi
            && which.src.is_none_or(|src| csa.src() == src)
            && which.dst.is_none_or(|dst| csa.dst() == dst)
            && which.role.is_none_or(|role| csa.id.role == role)
    };
    let mut meant: Vec<CsaInfo> = csas.into_iter().filter(is_meant).collect();
    let spi = which.spi;
    match (meant.pop(), meant.is_empty()) {
        (Some(csa), true) => Ok(csa),
        (None, _) => Err(Failure::usage(format!(
            "{spi:#010x}: there is no such CSA; `mmlctl csa list` has them all"
        ))),
        (Some(last), false) => {
            let names: Vec<String> = meant
                .iter()
                .chain([&last])
                .map(|csa| name(&csa.id))
                .collect();
            Err(Failure::usage(format!(
                "{spi:#010x}: it could be any of {}; add --role, --src or --dst",
                names.join(", ")
            )))
        }
    }
}

fn show(which: &Which, output: Output) -> Result<(), Failure> {
    let (_, csa) = find(which)?;
    let mut table = Table::new(&["what", "value"]);
    let relay = match (csa.relay.may_write, csa.id.role) {
        (false, _) => "may not write".to_owned(),
        (true, Role::Relay) => format!("may write, as number {}", csa.relay.number),
        (true, _) => "may write".to_owned(),
    };
    let rows = [
        ("SPI", format!("{:#010x}", csa.id.spi)),
        ("role", csa.id.role.name().into()),
        ("mode", csa.ext.mode.name().into()),
        ("state", csa.ext.state.name().into()),
        ("outer", format!("{} → {}", csa.src(), csa.dst())),
        (
            "inner",
            csa.selector.as_ref().map(selector_text).unwrap_or_default(),
        ),
        ("zones end at", csa.map().join(", ")),
        ("transforms", csa.zones.join(", ")),
        ("relays", relay),
        (
            "holds",
            if csa.relay.hold {
                "packets for a handoff"
            } else {
                "nothing"
            }
            .to_owned(),
        ),
        ("generation", csa.ext.generation.to_string()),
        ("replay window", format!("{} packets", csa.ext.window)),
        ("sequence number", csa.ext.sequence.to_string()),
        (
            "carried",
            csa.current.map_or("unknown".into(), |c| {
                format!("{} packets, {} octets", c.allocations, c.bytes)
            }),
        ),
        ("hard limit", lifetime::text(csa.hard)),
        ("left", lifetime::left(csa.hard, csa.current, now())),
        ("soft limit", lifetime::text(csa.soft)),
    ];
    for (what, value) in rows {
        table.row(vec![what.into(), value]);
    }
    output.table(&table, "", &csa.json());
    Ok(())
}

fn flush(output: Output) -> Result<(), Failure> {
    let mut kernel = kernel()?;
    let csas = kernel.csas().map_err(|e| Failure::kernel(CSAS, &e))?;
    let protected = kernel
        .policies()
        .map_err(|e| Failure::kernel("policies", &e))?;
    let protected = protected
        .iter()
        .filter(|policy| policy.ext.kind == pfkey::number::policy::PROTECT)
        .count();
    kernel.flush_csas().map_err(|e| Failure::kernel(CSAS, &e))?;
    let dropped = match (csas.len(), protected) {
        (0, _) | (_, 0) => String::new(),
        (_, policies) => {
            format!(
                "; what {} covers is dropped until there are new ones",
                count(policies, "protect policy", "protect policies")
            )
        }
    };
    let text = format!("deleted {}{dropped}", count(csas.len(), "CSA", "CSAs"));
    output.say(
        &text,
        &json!({ "deleted": csas.iter().map(CsaInfo::json).collect::<Vec<_>>() }),
    );
    Ok(())
}
