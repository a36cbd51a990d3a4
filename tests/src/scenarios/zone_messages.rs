// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Zone messages: malformed ones are refused whole, by callers without the right too, and namespaces are apart.

use anyhow::{bail, ensure, Context, Result};

use crate::genl::{self, Genl, Refusal, EVENTS, NLM_F_DUMP};
use crate::headers;
use crate::scenario::{Ctx, Scenario};
use crate::stats::Stats;
use crate::traffic;
use crate::zone_message::{self, add, name, policy, Action, Direction, Extension, Message, Role, ANY, HOME_ONLY};
use crate::zone_tunnel::{Keys, Options, AES256};

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "malformed-messages-are-refused",
        proves: "every malformed form of a zone message is refused whole, with a text that names what is wrong, and nothing changes",
        seconds: 90,
        run: malformed,
    },
    Scenario {
        name: "random-messages-are-harmless",
        proves: "thousands of damaged and random messages neither crash the module nor leave anything behind",
        seconds: 120,
        run: random,
    },
    Scenario {
        name: "without-capability-everything-is-refused",
        proves: "without CAP_NET_ADMIN over the namespace, requests, dumps and the group of events are refused",
        seconds: 60,
        run: without_capability,
    },
    Scenario {
        name: "other-namespaces-see-nothing",
        proves: "CSAs, policies, counters and events of one namespace are not to be seen or touched from another",
        seconds: 60,
        run: other_namespace,
    },
    Scenario {
        name: "duplicates-and-strangers-are-refused",
        proves: "a second CSA in one's place, a second policy of one selector, an unknown CSA, an unknown setting and an unknown algorithm are refused",
        seconds: 60,
        run: duplicates,
    },
    Scenario {
        name: "dump-gives-back-what-was-added",
        proves: "a dump gives every CSA back with its keys, many more of them than fit one netlink message",
        seconds: 60,
        run: dump,
    },
    Scenario {
        name: "add-and-delete-race-harmlessly",
        proves: "threads that add, delete, dump and flush CSAs and policies at once leave nothing behind",
        seconds: 120,
        run: race,
    },
];

fn a_csa() -> Message {
    add(&Keys::new(&Options::default()).to_mh, Role::Terminus, (ANY, HOME_ONLY), 8192, 0)
}

fn a_policy() -> Message {
    policy(Action::Protect, Direction::Out, (ANY, HOME_ONLY), 0, 0, Some((crate::topology::HA, crate::topology::MH)))
}

/// What the namespace holds, as two dumps tell.
fn held(genl: &mut Genl) -> Result<(usize, usize)> {
    let csas = genl::accepted(genl.pfkey_with(&Message::new(zone_message::DUMP, Vec::new()).octets(), NLM_F_DUMP)?, "DUMP")?.len();
    let mut policies = Message::new(zone_message::SPDDUMP, Vec::new());
    policies.satype = 0;
    let policies = genl::accepted(genl.pfkey_with(&policies.octets(), NLM_F_DUMP)?, "SPDDUMP")?.len();
    Ok((csas, policies))
}

/// One malformed message: what is wrong, its octets, the errno and a word its text must hold.
struct Case {
    what: String,
    octets: Vec<u8>,
    errno: &'static [i32],
    names: &'static str,
}

const INVALID: &[i32] = &[libc::EINVAL];
const EITHER: &[i32] = &[libc::EINVAL, libc::EMSGSIZE, libc::EPROTONOSUPPORT, libc::EOPNOTSUPP, libc::ENOSYS];

fn case(what: impl Into<String>, octets: Vec<u8>, errno: &'static [i32], names: &'static str) -> Case {
    Case { what: what.into(), octets, errno, names }
}

/// A message whose octets are changed after it is laid out.
fn patched(message: &Message, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut octets = message.octets();
    change(&mut octets);
    octets
}

const NAMES: &[(u16, &str)] = &[
    (zone_message::SA, "SA"),
    (zone_message::ADDRESS_SRC, "ADDRESS_SRC"),
    (zone_message::ADDRESS_DST, "ADDRESS_DST"),
    (zone_message::CSA, "CSA"),
    (zone_message::SELECTOR, "SELECTOR"),
    (zone_message::ZONE_MAP, "ZONE_MAP"),
    (zone_message::ZONE_SA, "ZONE_SA"),
];

fn framing(good: &Message, cases: &mut Vec<Case>) {
    let whole = good.octets();
    for length in 0..whole.len() {
        cases.push(case(format!("cut off after {length} octets"), whole[..length].to_vec(), EITHER, ""));
    }
    for more in [1, 4, 7, 8, 16, 400] {
        cases.push(case(format!("{more} octets too long"), patched(good, |octets| octets.extend(vec![0; more])), EITHER, ""));
    }
    for version in [0, 1, 3, 255] {
        cases.push(case(format!("version {version}"), Message { version, ..good.clone() }.octets(), EITHER, ""));
    }
    for kind in [0, 25, 127, 129, 255] {
        cases.push(case(format!("message type {kind}"), Message { kind, ..good.clone() }.octets(), EITHER, ""));
    }
    for satype in [0, 1, 3, 248, 255] {
        cases.push(case(format!("SA type {satype}"), Message { satype, ..good.clone() }.octets(), EITHER, ""));
    }
    cases.push(case("reserved bits in the header", Message { reserved: 1, ..good.clone() }.octets(), EITHER, ""));
    cases.push(case("a header alone", Message { extensions: Vec::new(), ..good.clone() }.octets(), INVALID, "SA"));
    let mut extension_at = 16;
    for extension in &good.extensions {
        let at = extension_at;
        extension_at += (4 + extension.octets.len()).next_multiple_of(8);
        let number = extension.kind;
        for length in [0u16, 0xffff, ((extension.octets.len() + 4).div_ceil(8) + 1) as u16] {
            cases.push(case(
                format!("extension {number} claims {length} words"),
                patched(good, |octets| octets[at..at + 2].copy_from_slice(&length.to_ne_bytes())),
                EITHER,
                "",
            ));
        }
        for unknown in [0u16, 19, 27, 127, 135, 0xffff] {
            cases.push(case(
                format!("extension {number} renamed to {unknown}"),
                patched(good, |octets| octets[at + 2..at + 4].copy_from_slice(&unknown.to_ne_bytes())),
                EITHER,
                "",
            ));
        }
    }
}

fn extensions(good: &Message, cases: &mut Vec<Case>) {
    for &(kind, text) in NAMES {
        cases.push(case(format!("without {text}"), good.without(kind).octets(), INVALID, text));
        let mut twice = good.clone();
        twice.extensions.extend(good.extensions.iter().find(|extension| extension.kind == kind).cloned());
        cases.push(case(format!("{text} twice"), twice.octets(), INVALID, text));
        cases.push(case(format!("{text} too short"), good.with(kind, |octets| octets.truncate(octets.len().saturating_sub(8))).octets(), INVALID, text));
        cases.push(case(format!("{text} too long"), good.with(kind, |octets| octets.extend([0; 8])).octets(), INVALID, text));
    }
    let kind = |number| Extension { kind: number, octets: vec![0; 12] };
    for unknown in [19u16, 135, 1000] {
        let mut more = good.clone();
        more.extensions.push(kind(unknown));
        cases.push(case(format!("an unknown extension {unknown} beside"), more.octets(), EITHER, ""));
    }
    let mut values = |what: &str, number: u16, at: usize, octets: &[u8], errno: &'static [i32], names: &'static str| {
        cases.push(case(
            what,
            good.with(number, |extension| {
                if let Some(place) = extension.get_mut(at..at + octets.len()) {
                    place.copy_from_slice(octets);
                }
            })
            .octets(),
            errno,
            names,
        ));
    };
    use zone_message::{ADDRESS_DST, ADDRESS_SRC, CSA, SA, SELECTOR, ZONE_MAP, ZONE_SA};
    for spi in [0u32, 1, 255] {
        values(&format!("SPI {spi}"), SA, 0, &spi.to_be_bytes(), INVALID, "SA");
    }
    values("an address family nobody knows", ADDRESS_SRC, 4, &99u16.to_ne_bytes(), EITHER, "ADDRESS_SRC");
    values("an outer address that is a prefix", ADDRESS_DST, 1, &[24], INVALID, "ADDRESS_DST");
    values("a prefix longer than the address", ADDRESS_DST, 1, &[33], INVALID, "ADDRESS_DST");
    values("the outer destination 0.0.0.0", ADDRESS_DST, 8, &[0; 4], INVALID, "ADDRESS_DST");
    values("a multicast outer destination", ADDRESS_DST, 8, &[224, 0, 0, 1], INVALID, "ADDRESS_DST");
    for role in [0, 4, 255] {
        values(&format!("role {role}"), CSA, 0, &[role], INVALID, "CSA");
    }
    for mode in [0, 3] {
        values(&format!("mode {mode}"), CSA, 1, &[mode], INVALID, "CSA");
    }
    values("state 4", CSA, 2, &[4], INVALID, "CSA");
    values("a reserved octet in CSA", CSA, 3, &[1], INVALID, "CSA");
    for window in [0u32, 63, 65_537, u32::MAX] {
        values(&format!("a window of {window}"), CSA, 4, &window.to_ne_bytes(), INVALID, "CSA");
    }
    values("a sequence number past 2^63", CSA, 16, &(1u64 << 63).to_ne_bytes(), INVALID, "CSA");
    values("a selector of an unknown family", SELECTOR, 0, &[99], INVALID, "SELECTOR");
    values("a selector prefix of 33", SELECTOR, 3, &[33], INVALID, "SELECTOR");
    values("host bits behind a selector's prefix", SELECTOR, 3, &[8], INVALID, "SELECTOR");
    for count in [0, 1, 3, 255] {
        values(&format!("{count} zones"), ZONE_MAP, 0, &[count], EITHER, "ZONE_");
    }
    values("zones that go backwards", ZONE_MAP, 6, &0xffffu16.to_ne_bytes(), INVALID, "ZONE_MAP");
    values("an open last zone", ZONE_MAP, 10, &100u16.to_ne_bytes(), INVALID, "ZONE_MAP");
    values("zone 2 named first", ZONE_MAP, 4, &[2], INVALID, "ZONE_MAP");
    values("zone 0's SA", ZONE_SA, 0, &[0], INVALID, "ZONE_SA");
    values("zone 9's SA", ZONE_SA, 0, &[9], INVALID, "ZONE_SA");
    values("a null zone with keys", ZONE_SA, 1, &[1], INVALID, "ZONE_SA");
    values("an unknown flag of a zone", ZONE_SA, 1, &[2], INVALID, "ZONE_SA");
    values("an unknown transform", ZONE_SA, 2, &999u16.to_ne_bytes(), &[libc::EINVAL, libc::ENOSYS, libc::EPROTONOSUPPORT, libc::ENOENT, libc::EOPNOTSUPP], "ZONE_SA");
    for bits in [0u16, 64, 192, 255, 512, 0xffff] {
        values(&format!("a key of {bits} bits"), ZONE_SA, 4, &bits.to_ne_bytes(), INVALID, "ZONE_SA");
    }
    for octets in [0, 3, 5, 8] {
        values(&format!("a salt of {octets} octets"), ZONE_SA, 6, &[octets], INVALID, "ZONE_SA");
    }
    for octets in [0, 8, 12, 17] {
        values(&format!("an ICV of {octets} octets"), ZONE_SA, 7, &[octets], INVALID, "ZONE_SA");
    }
}

fn consistency(cases: &mut Vec<Case>) {
    let keys = Keys::new(&Options::default());
    let terminus = |sa| add(sa, Role::Terminus, (ANY, HOME_ONLY), 8192, 0);
    // A relay is never given zone 2's key, not even by mistake.
    let mut greedy = add(&keys.to_mh, Role::Relay, (ANY, HOME_ONLY), 8192, 0);
    greedy.extensions.pop();
    greedy.extensions.push(zone_message::zone_sa(2, Some(&keys.to_mh.zones[1])));
    cases.push(case("a relay with zone 2's key", greedy.octets(), INVALID, "ZONE_SA"));
    let mut blind = terminus(&keys.to_mh);
    blind.extensions.pop();
    blind.extensions.push(zone_message::zone_sa(2, None));
    cases.push(case("a terminus without zone 2's key", blind.octets(), INVALID, "ZONE_SA"));
    let mut same = keys.to_mh.clone();
    same.zones[1].key = same.zones[0].key.clone();
    cases.push(case("both zones under one key", terminus(&same).octets(), INVALID, "ZONE_SA"));
    let writing = |sa| {
        let mut message = terminus(sa);
        message.extensions.push(zone_message::relay(true, 0));
        message
    };
    cases.push(case("writing with an implicit IV", writing(&keys.to_mh).octets(), INVALID, "RELAY"));
    let explicit = Keys::new(&Options { ciphers: [AES256; 2], ..Options::default() });
    let mut numbered = terminus(&explicit.to_mh);
    numbered.extensions.push(zone_message::relay(true, 5));
    cases.push(case("a terminus with a relay number", numbered.octets(), INVALID, "RELAY"));
    let mut wide = terminus(&explicit.to_mh);
    wide.extensions.push(zone_message::relay(true, 0x8000));
    cases.push(case("a relay number of 16 bits", wide.octets(), INVALID, "RELAY"));
}

fn policies(cases: &mut Vec<Case>) {
    let good = a_policy();
    let mut values = |what: &str, number: u16, at: usize, octets: &[u8], names: &'static str| {
        cases.push(case(what, good.with(number, |extension| extension[at..at + octets.len()].copy_from_slice(octets)).octets(), INVALID, names));
    };
    values("a policy of action 3", zone_message::X_POLICY, 0, &3u16.to_ne_bytes(), "POLICY");
    values("a policy of action 0xffff", zone_message::X_POLICY, 0, &0xffffu16.to_ne_bytes(), "POLICY");
    values("a policy of direction 0", zone_message::X_POLICY, 2, &[0], "POLICY");
    values("a policy of direction 3", zone_message::X_POLICY, 2, &[3], "POLICY");
    values("host bits behind a policy's prefix", zone_message::SELECTOR, 3, &[16], "SELECTOR");
    cases.push(case("a policy without X_POLICY", good.without(zone_message::X_POLICY).octets(), INVALID, "POLICY"));
    cases.push(case("a policy without SELECTOR", good.without(zone_message::SELECTOR).octets(), INVALID, "SELECTOR"));
    cases.push(case("half a template", good.without(zone_message::ADDRESS_DST).octets(), INVALID, "ADDRESS_DST"));
}

fn malformed(ctx: &mut Ctx) -> Result<()> {
    let mut genl = Genl::open(&ctx.net.ha)?;
    let good = a_csa();
    let mut cases = Vec::new();
    framing(&good, &mut cases);
    extensions(&good, &mut cases);
    consistency(&mut cases);
    policies(&mut cases);
    let before = held(&mut genl)?;
    let mut wrong = Vec::new();
    for case in &cases {
        match genl.pfkey(&case.octets)? {
            Ok(_) => wrong.push(format!("{} was accepted", case.what)),
            Err(Refusal { errno, text }) => {
                if !case.errno.contains(&errno) || !text.contains(case.names) || (text.is_empty() && !case.names.is_empty()) {
                    wrong.push(format!("{}: errno {errno}, {text:?}", case.what));
                }
            }
        }
    }
    // No attribute, an empty one, one too many octets for a message, and commands there are not.
    for (command, attributes) in [
        (genl::CMD_PFKEY, Vec::new()),
        (genl::CMD_PFKEY, genl::attribute(genl::A_PFKEY, &[])),
        (genl::CMD_PFKEY, genl::attribute(genl::A_PFKEY, &[0xff; 60_000])),
        (genl::CMD_SET, Vec::new()),
        (genl::CMD_SET, genl::attribute(genl::A_COUNTER | 0x8000, &[1, 2, 3])),
        (0, Vec::new()),
        (99, Vec::new()),
    ] {
        let length = attributes.len();
        if genl.request(command, 0, &attributes)?.is_ok() && command != genl::CMD_SET {
            wrong.push(format!("command {command} with {length} octets of attributes was accepted"));
        }
    }
    ensure!(wrong.is_empty(), "{} of {} malformed messages were not refused as they should be: {}", wrong.len(), cases.len(), wrong.iter().take(12).cloned().collect::<Vec<_>>().join("; "));
    ensure!(held(&mut genl)? == before, "a refused message changed something: {:?}", held(&mut genl)?);
    genl::accepted(genl.pfkey(&good.octets())?, "the message all the malformed ones were made of")?;
    genl::accepted(genl.pfkey(&a_policy().octets())?, "the policy")?;
    ensure!(held(&mut genl)? == (before.0 + 1, before.1 + 1), "the good messages are not there");
    Ok(())
}

fn random(ctx: &mut Ctx) -> Result<()> {
    let mut genl = Genl::open(&ctx.net.ha)?;
    let bases = [a_csa(), a_policy(), name(zone_message::GET, &Keys::new(&Options::default()).to_mh, Role::Origin)].map(|message| message.octets());
    for round in 0..3000usize {
        let dice = traffic::random(16);
        let word = |at: usize| usize::from(u16::from_ne_bytes([dice[at], dice[at + 1]]));
        let mut octets = if round % 8 == 0 { traffic::random(word(0) % 600) } else { bases[word(0) % bases.len()].clone() };
        for change in 0..1 + word(2) % 4 {
            if let Some(octet) = octets.get_mut(word(4 + change * 2) % bases[0].len()) {
                *octet = dice[12 + change];
            }
        }
        // Accepted or refused: both are fine, if the module stays sound.
        let _ = genl.pfkey(&octets)?;
    }
    let flush = |kind| Message { satype: if kind == zone_message::FLUSH { zone_message::MLESP } else { 0 }, ..Message::new(kind, Vec::new()) }.octets();
    genl::accepted(genl.pfkey(&flush(zone_message::FLUSH))?, "FLUSH")?;
    genl::accepted(genl.pfkey(&flush(zone_message::SPDFLUSH))?, "SPDFLUSH")?;
    ensure!(held(&mut genl)? == (0, 0), "a flush left {:?}", held(&mut genl)?);
    Ok(())
}

/// Drops every capability of the calling thread by becoming an ordinary user there.
fn as_nobody<T: Send>(ctx: &Ctx, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    ctx.net.ha.enter(|| {
        // The system call itself, since glibc's wrapper would change every thread of the process.
        crate::sys::become_user_on_this_thread(65_534)?;
        f()
    })
}

fn without_capability(ctx: &mut Ctx) -> Result<()> {
    let keys = ctx.zone_tunnel(&Options::default())?;
    let refusals = as_nobody(ctx, || {
        let mut genl = Genl::open_here()?;
        let mut answers = Vec::new();
        for message in [a_csa(), a_policy(), name(zone_message::GET, &keys.to_mh, Role::Origin), name(zone_message::DELETE, &keys.to_mh, Role::Origin), Message::new(zone_message::FLUSH, Vec::new())] {
            answers.push((format!("message {}", message.kind), genl.pfkey(&message.octets())?.err()));
        }
        answers.push(("DUMP".into(), genl.pfkey_with(&Message::new(zone_message::DUMP, Vec::new()).octets(), NLM_F_DUMP)?.err()));
        answers.push(("SPDDUMP".into(), genl.pfkey_with(&Message::new(zone_message::SPDDUMP, Vec::new()).octets(), NLM_F_DUMP)?.err()));
        answers.push(("statistics".into(), genl.request(genl::CMD_STATS, NLM_F_DUMP, &[])?.err()));
        answers.push(("a setting".into(), genl.set("mss-clamp", 0)?.err()));
        let joined = genl.join(EVENTS)?;
        answers.push(("the group of events".into(), joined.err().and_then(|error| error.raw_os_error()).map(|errno| Refusal { errno, text: String::new() })));
        Ok(answers)
    })?;
    for (what, refusal) in refusals {
        let errno = refusal.with_context(|| format!("{what} was granted to an ordinary user"))?.errno;
        ensure!([libc::EPERM, libc::EACCES].contains(&errno), "{what}: errno {errno}");
    }
    let stats = Stats::read(&ctx.net.ha)?;
    ensure!(stats.total("csas") == 2 && stats.total("setting/mss-clamp") == 1, "an ordinary user changed something: {:?}", stats.namespace);
    Ok(())
}

fn other_namespace(ctx: &mut Ctx) -> Result<()> {
    let keys = ctx.zone_tunnel(&Options::default())?;
    let cn = &ctx.net.cn;
    let mut genl = Genl::open(cn)?;
    ensure!(held(&mut genl)? == (0, 0), "the correspondent's namespace shows {:?}", held(&mut genl)?);
    ensure!(Stats::read(cn)?.csas.is_empty(), "the correspondent's namespace shows statistics of CSAs");
    for kind in [zone_message::GET, zone_message::DELETE] {
        let refusal = genl::refused(genl.pfkey(&name(kind, &keys.to_mh, Role::Origin).octets())?, "a CSA of another namespace")?;
        ensure!([libc::ESRCH, libc::ENOENT].contains(&refusal.errno), "a CSA of another namespace: {refusal}");
    }
    genl::accepted(genl.pfkey(&Message::new(zone_message::FLUSH, Vec::new()).octets())?, "FLUSH")?;
    genl.join(EVENTS)?.context("joining the events")?;
    // An event at the home agent.
    crate::zone_tunnel::flush_csas(&ctx.net)?;
    let socket = traffic::udp(cn, crate::topology::CN, 4000)?;
    socket.send_to(b"acquire", (crate::topology::HOME, 5000))?;
    ensure!(genl.event(traffic::SILENCE)?.is_none(), "events of another namespace were heard");
    // The same SPI and addresses in two namespaces are two CSAs.
    genl::accepted(genl.pfkey(&add(&keys.to_mh, Role::Terminus, (ANY, HOME_ONLY), 8192, 0).octets())?, "the same CSA in another namespace")?;
    ensure!(held(&mut genl)?.0 == 1, "it is not there");
    Ok(())
}

fn duplicates(ctx: &mut Ctx) -> Result<()> {
    let keys = ctx.zone_tunnel(&Options::default())?;
    let mut genl = Genl::open(&ctx.net.mh)?;
    let mut refuse = |message: &Message, errnos: &[i32], what: &str| -> Result<()> {
        let refusal = genl::refused(genl.pfkey(&message.octets())?, what)?;
        ensure!(errnos.contains(&refusal.errno), "{what}: {refusal}");
        Ok(())
    };
    let exists = &[libc::EEXIST];
    let fresh = Keys::new(&Options::default());
    let mut same_place = fresh.to_mh.clone();
    same_place.spi = keys.to_mh.spi;
    refuse(&add(&same_place, Role::Terminus, (ANY, HOME_ONLY), 8192, 0), exists, "a second terminus of one SPI")?;
    same_place.source = std::net::Ipv4Addr::new(198, 51, 100, 77);
    refuse(&add(&same_place, Role::Terminus, (ANY, HOME_ONLY), 8192, 0), exists, "a second terminus of one SPI from another source")?;
    let again = policy(Action::Bypass, Direction::In, (ANY, HOME_ONLY), 0, 7, None);
    refuse(&again, exists, "a second policy of one direction and selector")?;
    let nobody = &[libc::ESRCH, libc::ENOENT];
    refuse(&name(zone_message::GET, &fresh.to_mh, Role::Terminus), nobody, "GET of a CSA that is not there")?;
    refuse(&name(zone_message::DELETE, &fresh.to_mh, Role::Terminus), nobody, "DELETE of a CSA that is not there")?;
    refuse(&name(zone_message::DELETE, &keys.to_mh, Role::Relay), nobody, "DELETE under another role")?;
    refuse(&Message { kind: zone_message::SPDDELETE, ..policy(Action::Protect, Direction::Out, (ANY, ANY), 0, 0, None) }, nobody, "DELETE of a policy that is not there")?;
    let unknown = add(&fresh.to_mh, Role::Terminus, (ANY, HOME_ONLY), 8192, 0).with(zone_message::ZONE_SA, |octets| octets[2..4].copy_from_slice(&12u16.to_ne_bytes()));
    let refusal = genl::refused(genl.pfkey(&unknown.octets())?, "AES-CBC for a zone")?;
    ensure!(refusal.text.contains("ZONE_SA"), "AES-CBC for a zone: {refusal}");
    let setting = genl::refused(genl.set("no-such-setting", 1)?, "an unknown setting")?;
    ensure!(!setting.text.is_empty(), "an unknown setting: {setting}");
    genl::refused(genl.set("mss-clamp", 2)?, "mss-clamp 2")?;
    ensure!(held(&mut genl)? == (2, 2), "a refused message changed something: {:?}", held(&mut genl)?);
    // The relay's place is by source too.
    let mut relay = Genl::open(&ctx.net.fa1)?;
    same_place.source = keys.to_mh.source;
    let refusal = genl::refused(relay.pfkey(&add(&same_place, Role::Relay, (ANY, HOME_ONLY), 8192, 0).octets())?, "a second relay CSA in one's place")?;
    ensure!(refusal.errno == libc::EEXIST, "{refusal}");
    same_place.source = std::net::Ipv4Addr::new(198, 51, 100, 77);
    genl::accepted(relay.pfkey(&add(&same_place, Role::Relay, (ANY, HOME_ONLY), 8192, 0).octets())?, "a relay CSA of another source")?;
    Ok(())
}

fn dump(ctx: &mut Ctx) -> Result<()> {
    let mut genl = Genl::open(&ctx.net.ha)?;
    let all: Vec<Keys> = (0..300).map(|_| Keys::new(&Options::default())).collect();
    for keys in &all {
        genl::accepted(genl.pfkey(&add(&keys.from_mh, Role::Terminus, (HOME_ONLY, ANY), 64, 0).octets())?, "ADD")?;
    }
    let dumped = genl::accepted(genl.pfkey_with(&Message::new(zone_message::DUMP, Vec::new()).octets(), NLM_F_DUMP)?, "DUMP")?;
    ensure!(dumped.len() == all.len(), "{} of {} CSAs were dumped", dumped.len(), all.len());
    for keys in &all {
        let secret = &keys.from_mh.zones[1].key;
        ensure!(dumped.iter().filter(|message| headers::find(message, secret)).count() == 1, "a key is not in the dump once");
    }
    // ADD's own answer has no key in it.
    let keys = Keys::new(&Options::default());
    let answer = genl::accepted(genl.pfkey(&add(&keys.to_mh, Role::Origin, (ANY, HOME_ONLY), 8192, 0).octets())?, "ADD")?;
    for zone in &keys.to_mh.zones {
        ensure!(answer.iter().all(|message| !headers::find(message, &zone.key)), "the answer to ADD gives a key back");
    }
    ensure!(Stats::read(&ctx.net.ha)?.csas.len() == 301, "the statistics leave CSAs out");
    Ok(())
}

fn race(ctx: &mut Ctx) -> Result<()> {
    let threads = 4;
    let ha = &ctx.net.ha;
    let outcome: Vec<Result<()>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                scope.spawn(move || -> Result<()> {
                    let mut genl = Genl::open(ha)?;
                    for round in 0..60 {
                        let keys = Keys::new(&Options::default());
                        genl::accepted(genl.pfkey(&add(&keys.to_mh, Role::Origin, (ANY, HOME_ONLY), 64, 0).octets())?, "ADD")?;
                        // Another thread may have flushed it meanwhile.
                        let _ = genl.pfkey(&name(zone_message::GET, &keys.to_mh, Role::Origin).octets())?;
                        let _ = genl.pfkey(&policy(Action::Protect, Direction::Out, (ANY, (keys.to_mh.source, 32)), worker, round, None).octets())?;
                        let _ = held(&mut genl);
                        let _ = genl.pfkey(&name(zone_message::DELETE, &keys.to_mh, Role::Origin).octets())?;
                        if round % 10 == 9 {
                            let _ = genl.pfkey(&Message::new(zone_message::SPDFLUSH, Vec::new()).octets())?;
                            let _ = genl.pfkey(&Message::new(zone_message::FLUSH, Vec::new()).octets())?;
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| bail!("panicked"))).collect()
    });
    outcome.into_iter().collect::<Result<Vec<()>>>()?;
    let mut genl = Genl::open(ha)?;
    for kind in [zone_message::FLUSH, zone_message::SPDFLUSH] {
        genl::accepted(genl.pfkey(&Message::new(kind, Vec::new()).octets())?, "a last flush")?;
    }
    ensure!(held(&mut genl)? == (0, 0), "something was left: {:?}", held(&mut genl)?);
    Ok(())
}
