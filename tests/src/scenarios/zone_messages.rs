// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Zone messages: who may send them, what they may name, and that namespaces are apart.

use anyhow::{bail, ensure, Context, Result};

use crate::genl::{self, Genl, Refusal, EVENTS, NLM_F_DUMP};
use crate::headers;
use crate::holders::Part;
use crate::scenario::{Ctx, Scenario};
use crate::stats::Stats;
use crate::traffic;
use crate::zone_message::{
    self, add, name, policy, Action, Direction, Message, Role, ANY, HOME_ONLY,
};
use crate::zone_tunnel::{Keys, Options};

pub const TABLE: &[Scenario] = &[
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

/// A good ADD.
pub fn a_csa() -> Message {
    add(
        &Keys::new(&Options::default()).to_mh,
        Role::Terminus,
        (ANY, HOME_ONLY),
        8192,
        0,
    )
}

/// A good SPDADD.
pub fn a_policy() -> Message {
    policy(
        Action::Protect,
        Direction::Out,
        (ANY, HOME_ONLY),
        0,
        0,
        Some((crate::topology::HA, crate::topology::MH)),
    )
}

/// What the namespace holds, as two dumps tell (docs/wire.md 2.2m).
pub fn held(genl: &mut Genl) -> Result<(usize, usize)> {
    let csas = genl::accepted(
        genl.pfkey_with(
            &Message::new(zone_message::DUMP, Vec::new()).octets(),
            NLM_F_DUMP,
        )?,
        "DUMP",
    )?
    .len();
    let mut policies = Message::new(zone_message::SPDDUMP, Vec::new());
    policies.satype = 0;
    let policies =
        genl::accepted(genl.pfkey_with(&policies.octets(), NLM_F_DUMP)?, "SPDDUMP")?.len();
    Ok((csas, policies))
}

fn random(ctx: &mut Ctx) -> Result<()> {
    let mut genl = Genl::open(&ctx.net.ha)?;
    let bases = [
        a_csa(),
        a_policy(),
        name(
            zone_message::GET,
            &Keys::new(&Options::default()).to_mh,
            Role::Origin,
        ),
    ]
    .map(|message| message.octets());
    for round in 0..3000usize {
        let dice = traffic::random(16);
        let word = |at: usize| usize::from(u16::from_ne_bytes([dice[at], dice[at + 1]]));
        let mut octets = if round % 8 == 0 {
            traffic::random(word(0) % 600)
        } else {
            bases[word(0) % bases.len()].clone()
        };
        for change in 0..1 + word(2) % 4 {
            if let Some(octet) = octets.get_mut(word(4 + change * 2) % bases[0].len()) {
                *octet = dice[12 + change];
            }
        }
        // Accepted or refused: both are fine, if the module stays sound.
        let _ = genl.pfkey(&octets)?;
    }
    let flush = |kind| {
        Message {
            satype: if kind == zone_message::FLUSH {
                zone_message::MLESP
            } else {
                0
            },
            ..Message::new(kind, Vec::new())
        }
        .octets()
    };
    genl::accepted(genl.pfkey(&flush(zone_message::FLUSH))?, "FLUSH")?;
    genl::accepted(genl.pfkey(&flush(zone_message::SPDFLUSH))?, "SPDFLUSH")?;
    ensure!(
        held(&mut genl)? == (0, 0),
        "a flush left {:?}",
        held(&mut genl)?
    );
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

/// docs/wire.md 2.1a, 2.2o.
fn without_capability(ctx: &mut Ctx) -> Result<()> {
    let keys = ctx.zone_tunnel(&Options::default())?;
    let refusals = as_nobody(ctx, || {
        let mut genl = Genl::open_here()?;
        let mut answers = Vec::new();
        for message in [
            a_csa(),
            a_policy(),
            name(zone_message::GET, &keys.to_mh, Role::Origin),
            name(zone_message::DELETE, &keys.to_mh, Role::Origin),
            Message::new(zone_message::FLUSH, Vec::new()),
        ] {
            answers.push((
                format!("message {}", message.kind),
                genl.pfkey(&message.octets())?.err(),
            ));
        }
        answers.push((
            "DUMP".into(),
            genl.pfkey_with(
                &Message::new(zone_message::DUMP, Vec::new()).octets(),
                NLM_F_DUMP,
            )?
            .err(),
        ));
        answers.push((
            "SPDDUMP".into(),
            genl.pfkey_with(
                &Message::new(zone_message::SPDDUMP, Vec::new()).octets(),
                NLM_F_DUMP,
            )?
            .err(),
        ));
        answers.push((
            "statistics".into(),
            genl.request(genl::CMD_STATS, NLM_F_DUMP, &[])?.err(),
        ));
        answers.push(("a setting".into(), genl.set("mss-clamp", 0)?.err()));
        let joined = genl.join(EVENTS)?;
        answers.push((
            "the group of events".into(),
            joined
                .err()
                .and_then(|error| error.raw_os_error())
                .map(|errno| Refusal {
                    errno,
                    text: String::new(),
                }),
        ));
        Ok(answers)
    })?;
    for (what, refusal) in refusals {
        let errno = refusal
            .with_context(|| format!("{what} was granted to an ordinary user"))?
            .errno;
        ensure!(
            [libc::EPERM, libc::EACCES].contains(&errno),
            "{what}: errno {errno}"
        );
    }
    let stats = Stats::read(&ctx.net.ha)?;
    ensure!(
        stats.total("csas") == 2 && stats.total("setting/mss-clamp") == 1,
        "an ordinary user changed something: {:?}",
        stats.namespace
    );
    Ok(())
}

fn other_namespace(ctx: &mut Ctx) -> Result<()> {
    let keys = ctx.zone_tunnel(&Options::default())?;
    let cn = &ctx.net.cn;
    let mut genl = Genl::open(cn)?;
    ensure!(
        held(&mut genl)? == (0, 0),
        "the correspondent's namespace shows {:?}",
        held(&mut genl)?
    );
    ensure!(
        Stats::read(cn)?.csas.is_empty(),
        "the correspondent's namespace shows statistics of CSAs"
    );
    for kind in [zone_message::GET, zone_message::DELETE] {
        let refusal = genl::refused(
            genl.pfkey(&name(kind, &keys.to_mh, Role::Origin).octets())?,
            "a CSA of another namespace",
        )?;
        ensure!(
            [libc::ESRCH, libc::ENOENT].contains(&refusal.errno),
            "a CSA of another namespace: {refusal}"
        );
    }
    genl::accepted(
        genl.pfkey(&Message::new(zone_message::FLUSH, Vec::new()).octets())?,
        "FLUSH",
    )?;
    genl.join(EVENTS)?.context("joining the events")?;
    // An event at the home agent.
    crate::zone_tunnel::flush_csas(&ctx.net)?;
    let socket = traffic::udp(cn, crate::topology::CN, 4000)?;
    socket.send_to(b"acquire", (crate::topology::HOME, 5000))?;
    ensure!(
        genl.event(traffic::SILENCE)?.is_none(),
        "events of another namespace were heard"
    );
    // The same SPI and addresses in two namespaces are two CSAs.
    genl::accepted(
        genl.pfkey(&add(&keys.to_mh, Role::Terminus, (ANY, HOME_ONLY), 8192, 0).octets())?,
        "the same CSA in another namespace",
    )?;
    cn.keys.are(Part::Twin);
    ensure!(held(&mut genl)?.0 == 1, "it is not there");
    Ok(())
}

/// docs/wire.md 1.7a, 2.1e, 2.2g.
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
    refuse(
        &add(&same_place, Role::Terminus, (ANY, HOME_ONLY), 8192, 0),
        exists,
        "a second terminus of one SPI",
    )?;
    same_place.source = std::net::Ipv4Addr::new(198, 51, 100, 77);
    refuse(
        &add(&same_place, Role::Terminus, (ANY, HOME_ONLY), 8192, 0),
        exists,
        "a second terminus of one SPI from another source",
    )?;
    let again = policy(Action::Bypass, Direction::In, (ANY, HOME_ONLY), 0, 7, None);
    refuse(
        &again,
        exists,
        "a second policy of one direction and selector",
    )?;
    let nobody = &[libc::ESRCH, libc::ENOENT];
    refuse(
        &name(zone_message::GET, &fresh.to_mh, Role::Terminus),
        nobody,
        "GET of a CSA that is not there",
    )?;
    refuse(
        &name(zone_message::DELETE, &fresh.to_mh, Role::Terminus),
        nobody,
        "DELETE of a CSA that is not there",
    )?;
    refuse(
        &name(zone_message::DELETE, &keys.to_mh, Role::Relay),
        nobody,
        "DELETE under another role",
    )?;
    refuse(
        &Message {
            kind: zone_message::SPDDELETE,
            ..policy(Action::Protect, Direction::Out, (ANY, ANY), 0, 0, None)
        },
        nobody,
        "DELETE of a policy that is not there",
    )?;
    let unknown = add(&fresh.to_mh, Role::Terminus, (ANY, HOME_ONLY), 8192, 0)
        .with(zone_message::ZONE_SA, |octets| {
            octets[2..4].copy_from_slice(&12u16.to_ne_bytes())
        });
    let refusal = genl::refused(genl.pfkey(&unknown.octets())?, "AES-CBC for a zone")?;
    ensure!(
        refusal.text.contains("ZONE_SA"),
        "AES-CBC for a zone: {refusal}"
    );
    let setting = genl::refused(genl.set("no-such-setting", 1)?, "an unknown setting")?;
    ensure!(!setting.text.is_empty(), "an unknown setting: {setting}");
    genl::refused(genl.set("mss-clamp", 2)?, "mss-clamp 2")?;
    // docs/wire.md 2.1e: good ones beside a bad one are refused with it, whichever comes first.
    let clamped = || -> Result<u64> { Ok(Stats::read(&ctx.net.mh)?.total("setting/mss-clamp")) };
    let was = clamped()?;
    let other = ("mss-clamp", 1 - was);
    for bad in [("no-such-setting", 1), ("relay-drop-unopened", 7)] {
        for settings in [[other, bad], [bad, other]] {
            genl::refused(genl.set_all(&settings)?, "a good setting and a bad one")?;
        }
    }
    ensure!(
        clamped()? == was,
        "a setting was taken from a refused request"
    );
    genl::accepted(
        genl.set_all(&[other, ("relay-drop-unopened", 0)])?,
        "two settings",
    )?;
    ensure!(clamped()? == other.1, "two good settings were not taken");
    genl::accepted(genl.set("mss-clamp", was)?, "mss-clamp as it was")?;
    ensure!(
        held(&mut genl)? == (2, 2),
        "a refused message changed something: {:?}",
        held(&mut genl)?
    );
    // The relay's place is by source too.
    let mut relay = Genl::open(&ctx.net.fa1)?;
    same_place.source = keys.to_mh.source;
    let refusal = genl::refused(
        relay.pfkey(&add(&same_place, Role::Relay, (ANY, HOME_ONLY), 8192, 0).octets())?,
        "a second relay CSA in one's place",
    )?;
    ensure!(refusal.errno == libc::EEXIST, "{refusal}");
    same_place.source = std::net::Ipv4Addr::new(198, 51, 100, 77);
    genl::accepted(
        relay.pfkey(&add(&same_place, Role::Relay, (ANY, HOME_ONLY), 8192, 0).octets())?,
        "a relay CSA of another source",
    )?;
    Ok(())
}

/// docs/wire.md 2.1c, 2.1d, 2.1g, 2.2j, 2.2o.
fn dump(ctx: &mut Ctx) -> Result<()> {
    let mut genl = Genl::open(&ctx.net.ha)?;
    let all: Vec<Keys> = (0..300).map(|_| Keys::new(&Options::default())).collect();
    for keys in &all {
        genl::accepted(
            genl.pfkey(&add(&keys.from_mh, Role::Terminus, (HOME_ONLY, ANY), 64, 0).octets())?,
            "ADD",
        )?;
    }
    let dumped = genl::accepted(
        genl.pfkey_with(
            &Message::new(zone_message::DUMP, Vec::new()).octets(),
            NLM_F_DUMP,
        )?,
        "DUMP",
    )?;
    ensure!(
        dumped.len() == all.len(),
        "{} of {} CSAs were dumped",
        dumped.len(),
        all.len()
    );
    for keys in &all {
        let secret = &keys.from_mh.zones[1].key;
        ensure!(
            dumped
                .iter()
                .filter(|message| headers::find(message, secret))
                .count()
                == 1,
            "a key is not in the dump once"
        );
    }
    // ADD's own answer has no key in it.
    let keys = Keys::new(&Options::default());
    let answer = genl::accepted(
        genl.pfkey(&add(&keys.to_mh, Role::Origin, (ANY, HOME_ONLY), 8192, 0).octets())?,
        "ADD",
    )?;
    for zone in &keys.to_mh.zones {
        ensure!(
            answer
                .iter()
                .all(|message| !headers::find(message, &zone.key)),
            "the answer to ADD gives a key back"
        );
    }
    // The statistics name each of them, and count what it did.
    let stats = Stats::read(&ctx.net.ha)?;
    ensure!(
        stats.csas.len() == all.len() + 1,
        "the statistics leave CSAs out"
    );
    for keys in &all {
        let ends = [keys.from_mh.source, keys.from_mh.destination];
        let ends = ends.map(|end| end.octets().to_vec());
        let named = stats.csas.iter().find(|csa| csa.spi == keys.from_mh.spi);
        let named = named.context("a CSA has no statistics")?;
        ensure!(
            named.ends == ends,
            "its outer addresses are {:?}",
            named.ends
        );
        ensure!(
            named.role == Role::Terminus as u8,
            "its role is {}",
            named.role
        );
        ensure!(
            named.counters.get("opened-packets") == Some(&0),
            "{named:?}"
        );
    }
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
                        genl::accepted(
                            genl.pfkey(
                                &add(&keys.to_mh, Role::Origin, (ANY, HOME_ONLY), 64, 0).octets(),
                            )?,
                            "ADD",
                        )?;
                        // Another thread may have flushed it meanwhile.
                        let _ = genl
                            .pfkey(&name(zone_message::GET, &keys.to_mh, Role::Origin).octets())?;
                        let _ = genl.pfkey(
                            &policy(
                                Action::Protect,
                                Direction::Out,
                                (ANY, (keys.to_mh.source, 32)),
                                worker,
                                round,
                                None,
                            )
                            .octets(),
                        )?;
                        let _ = held(&mut genl);
                        let _ = genl.pfkey(
                            &name(zone_message::DELETE, &keys.to_mh, Role::Origin).octets(),
                        )?;
                        if round % 10 == 9 {
                            let _ = genl.pfkey(
                                &Message::new(zone_message::SPDFLUSH, Vec::new()).octets(),
                            )?;
                            let _ = genl
                                .pfkey(&Message::new(zone_message::FLUSH, Vec::new()).octets())?;
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|_| bail!("panicked")))
            .collect()
    });
    outcome.into_iter().collect::<Result<Vec<()>>>()?;
    let mut genl = Genl::open(ha)?;
    for kind in [zone_message::FLUSH, zone_message::SPDFLUSH] {
        genl::accepted(
            genl.pfkey(&Message::new(kind, Vec::new()).octets())?,
            "a last flush",
        )?;
    }
    ensure!(
        held(&mut genl)? == (0, 0),
        "something was left: {:?}",
        held(&mut genl)?
    );
    Ok(())
}
