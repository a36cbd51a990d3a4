// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What CSAs hold for a handoff, by hand: at a foreign agent copies of what it forwarded, at the mobile host what finds no
//! way out.

use std::net::{Ipv4Addr, UdpSocket};

use anyhow::{ensure, Context, Result};

use crate::datagrams::{arrived, sends};
use crate::genl::{self, Genl};
use crate::netns::Netns;
use crate::scenario::{Ctx, Scenario};
use crate::stats::Stats;
use crate::topology::{CN, HOME, MH};
use crate::zone_message::{self, Role, State, CSA_RESEND};
pub(super) use crate::zone_tunnel::set;
use crate::zone_tunnel::{mmlctl, Keys, Options};
use crate::{traffic, zone_esp};

pub const TABLE: &[Scenario] = &[
    Scenario {
        name: "relay-holds-what-it-forwarded",
        proves: "a foreign agent sends again, octet for octet, what it forwarded lately and a dead link took; what had arrived is a replay to the host, or isn't sent where the host's last number is told; its time and its octets are bounded, and a CSA without the flag holds nothing",
        seconds: 60,
        run: relay_holds,
    },
    Scenario {
        name: "origin-holds-what-finds-no-way",
        proves: "a mobile host's datagrams that find no way to its home agent leave in their order once there is one: when it is said, with the next datagram, or after their time, and likewise where the link has lost its other end; what its queue held when the link went is sent again behind the last that arrived, by the mark that what is sealed now goes by; where the way ends again meanwhile they wait for the next; one that doesn't fit is told to its sender; those that then find none are dropped and counted",
        seconds: 60,
        run: origin_holds,
    },
    Scenario {
        name: "what-comes-at-once-waits-for-room",
        proves: "where a host has just come to a foreign agent, what the link's queue has no room for waits behind it, in its order, and none is lost; later the queue drops again; what a mobile host held leaves as its own link takes it; what finds no room to wait in is dropped, and overtakes nothing",
        seconds: 90,
        run: waits_for_room,
    },
    Scenario {
        name: "snoop-caches-nothing-that-a-hold-drops",
        proves: "where a host has just come and the foreign agent drops what finds no room to wait in, SNOOP sees those segments as dropped by the link's queue, so that their sender learns of it; the stream arrives whole",
        seconds: 90,
        run: snoop_and_hold,
    },
];

/// A link that takes 6 ms a datagram, and longer where the kernel is slow, and has room for few.
fn slow(ctx: &Ctx) -> String {
    format!("rate {}bit limit 20", (200_000.0 / ctx.patience) as u32)
}

/// A link that takes 60 ms a datagram, and has room for all.
const DEEP: &str = "rate 20kbit limit 1000";
/// Datagrams that come to it at once.
const FLOOD: u32 = 100;

/// Where CSA has the sequence number.
const SEQUENCE: usize = 16;
/// The foreign agent on the mobile host's link.
const FA1: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 1);

/// Datagrams a burst.
const BURST: u32 = 40;
/// The longest that packets can be held: a slow kernel waits for half of it to see that nothing comes any more.
const LONG_MS: u64 = 10_000;

/// Has what is held for a CSA sent; how many packets.
fn resend(node: &Netns, sa: &zone_esp::Sa, role: Role) -> Result<u32> {
    resend_behind(node, sa, role, 0)
}

/// The same of what comes behind this number.
fn resend_behind(node: &Netns, sa: &zone_esp::Sa, role: Role, number: u64) -> Result<u32> {
    let message = zone_message::name(CSA_RESEND, sa, role).with(zone_message::CSA, |octets| {
        octets[SEQUENCE..].copy_from_slice(&number.to_ne_bytes())
    });
    let answers = Genl::open(node)?.pfkey(&message.octets())?;
    let answers = genl::accepted(answers, "X_CSA_RESEND")?;
    let answer = answers.first().context("no answer to X_CSA_RESEND")?;
    let sent = zone_message::find_lifetime(answer, zone_message::LIFETIME_CURRENT);
    Ok(sent
        .context("X_CSA_RESEND's answer counts nothing")?
        .packets)
}

/// The last number that a CSA has sealed or seen.
fn last_number(node: &Netns, sa: &zone_esp::Sa, role: Role) -> Result<u64> {
    let message = zone_message::name(zone_message::GET, sa, role);
    let answers = genl::accepted(Genl::open(node)?.pfkey(&message.octets())?, "GET")?;
    let answer = answers.first().context("no answer to GET")?;
    let csa = zone_message::find(answer, zone_message::CSA).context("GET shows no CSA")?;
    let number = csa.get(SEQUENCE..).and_then(|octets| octets.first_chunk());
    Ok(u64::from_ne_bytes(*number.context("a short CSA")?))
}

fn held(node: &Netns) -> Result<(u64, u64)> {
    let stats = Stats::read(node)?;
    Ok((stats.total("held-packets"), stats.total("held-octets")))
}

fn start(ctx: &Ctx) -> Result<(Keys, [UdpSocket; 2])> {
    let options = Options {
        hold: true,
        ..Options::default()
    };
    let keys = ctx.zone_tunnel(&options)?;
    let near = traffic::udp(&ctx.net.cn, CN, 4001)?;
    let far = traffic::udp(&ctx.net.mh, HOME, 5009)?;
    // Neighbours are found before anything is counted.
    traffic::udp_arrives(&near, &far, b"there")?;
    traffic::udp_arrives(&far, &near, b"back")?;
    Ok((keys, [near, far]))
}

/// docs/wire.md 2.1s, 2.1t, 2.2v, 2.2w, 2.2x.
fn relay_holds(ctx: &mut Ctx) -> Result<()> {
    let (keys, [near, far]) = start(ctx)?;
    let ctx = &*ctx;
    let net = &ctx.net;
    let fa = &net.fa1;
    set(fa, "hold-ms", LONG_MS)?;
    resend(fa, &keys.to_mh, Role::Relay)?;

    // What arrived is a replay.
    let before = Stats::read(&net.mh)?;
    sends(&near, &far, 0..BURST)?;
    let numbers = arrived(ctx, &far)?;
    ensure!(numbers.iter().copied().eq(0..BURST), "{numbers:?} arrived");
    let (packets, _) = held(fa)?;
    ensure!(packets == u64::from(BURST), "{packets} packets are held");
    let sent = resend(fa, &keys.to_mh, Role::Relay)?;
    ensure!(sent == BURST, "{sent} packets were sent again");
    let twice = arrived(ctx, &far)?;
    ensure!(twice.is_empty(), "{twice:?} came twice");
    let replays = Stats::read(&net.mh)?.since(&before).get("replay").copied();
    ensure!(
        replays == Some(u64::from(BURST)),
        "{replays:?} replays at the host"
    );
    ensure!(held(fa)? == (0, 0), "{:?} are held yet", held(fa)?);

    // What a dead link took arrives, in its order, and nothing else where it is told what the host has.
    sends(&near, &far, 0..BURST)?;
    arrived(ctx, &far)?;
    let seen = last_number(&net.mh, &keys.to_mh, Role::Terminus)?;
    net.mh.ip("link set wl1 down")?;
    sends(&near, &far, BURST..2 * BURST)?;
    let numbers = arrived(ctx, &far)?;
    ensure!(numbers.is_empty(), "{numbers:?} arrived by a dead link");
    net.mh.ip("link set wl1 up
        route add 198.51.100.1/32 via 10.1.1.1 src 10.1.1.7")?;
    let sent = resend_behind(fa, &keys.to_mh, Role::Relay, seen)?;
    ensure!(sent == BURST, "{sent} packets were sent again");
    let numbers = arrived(ctx, &far)?;
    ensure!(
        numbers.iter().copied().eq(BURST..2 * BURST),
        "{numbers:?} arrived of what was sent again"
    );
    ensure!(held(fa)? == (0, 0), "{:?} are held yet", held(fa)?);

    // Bounded in time, in octets; off.
    set(fa, "hold-ms", 100)?;
    sends(&near, &far, 0..BURST)?;
    std::thread::sleep(ctx.seconds(1.0));
    ensure!(
        held(fa)? == (0, 0),
        "{:?} are held after their time",
        held(fa)?
    );
    set(fa, "hold-ms", LONG_MS)?;
    set(fa, "hold-bytes", 20_000)?;
    sends(&near, &far, 0..BURST)?;
    arrived(ctx, &far)?;
    let (packets, octets) = held(fa)?;
    ensure!(
        packets > 0 && packets < u64::from(BURST) && octets <= 10_000,
        "{packets} packets of {octets} octets are held"
    );
    let last = resend(fa, &keys.to_mh, Role::Relay)?;
    ensure!(u64::from(last) == packets, "{last} were sent of {packets}");
    set(fa, "hold-ms", 0)?;
    sends(&near, &far, 0..BURST)?;
    arrived(ctx, &far)?;
    ensure!(
        held(fa)? == (0, 0),
        "{:?} are held though it is off",
        held(fa)?
    );

    // Who doesn't hold says so.
    let other = zone_message::name(CSA_RESEND, &keys.from_mh, Role::Relay);
    let refused = Genl::open(fa)?.pfkey(&other.octets())?;
    let errno = refused.err().map(|refusal| refusal.errno);
    ensure!(errno == Some(libc::EOPNOTSUPP), "errno {errno:?}");

    // What is held when the CSA goes goes with it; with the module, too: the frame looks after that.
    set(fa, "hold-ms", LONG_MS)?;
    sends(&near, &far, 0..BURST)?;
    arrived(ctx, &far)?;
    let delete = zone_message::name(zone_message::DELETE, &keys.to_mh, Role::Relay);
    genl::accepted(Genl::open(fa)?.pfkey(&delete.octets())?, "DELETE")?;
    ensure!(held(fa)? == (0, 0), "{:?} outlived their CSA", held(fa)?);
    Ok(())
}

/// docs/wire.md 2.2v, 2.2w.
fn origin_holds(ctx: &mut Ctx) -> Result<()> {
    let (keys, [near, far]) = start(ctx)?;
    let ctx = &*ctx;
    let mh = &ctx.net.mh;
    let way = |there: bool| {
        let what = if there { "add" } else { "del" };
        mh.ip(&format!(
            "route {what} 198.51.100.1/32 via 10.1.1.1 src 10.1.1.7"
        ))
    };
    set(mh, "hold-ms", LONG_MS)?;
    let mut from = 0;
    let mut burst = || {
        let numbers = from..from + BURST;
        from += BURST;
        numbers
    };
    let expect = |numbers: Vec<u32>, of: &std::ops::Range<u32>, when: &str| {
        ensure!(
            numbers.iter().copied().eq(of.clone()),
            "{when}: {numbers:?} arrived of {of:?}"
        );
        Ok(())
    };

    // When it is said.
    way(false)?;
    let numbers = burst();
    let (copies, _) = held(mh)?;
    sends(&far, &near, numbers.clone())?;
    let early = arrived(ctx, &near)?;
    ensure!(early.is_empty(), "{early:?} arrived without a way");
    let (packets, _) = held(mh)?;
    ensure!(
        packets == copies + u64::from(BURST),
        "{packets} packets are held, and {copies} were before"
    );
    way(true)?;
    let sent = resend(mh, &keys.from_mh, Role::Origin)?;
    ensure!(sent == BURST, "{sent} were sent");
    expect(arrived(ctx, &near)?, &numbers, "when it was said")?;

    // With the next one.
    way(false)?;
    let numbers = burst();
    sends(&far, &near, numbers.start..numbers.end - 1)?;
    way(true)?;
    sends(&far, &near, numbers.end - 1..numbers.end)?;
    expect(arrived(ctx, &near)?, &numbers, "with the next one")?;

    // After their time, with nobody to say so.
    set(mh, "hold-ms", 1_000)?;
    way(false)?;
    let numbers = burst();
    sends(&far, &near, numbers.clone())?;
    way(true)?;
    std::thread::sleep(ctx.seconds(1.2));
    expect(arrived(ctx, &near)?, &numbers, "after their time")?;

    // While the link's other end is gone: the route stays, and would lead to where all is dropped.
    set(mh, "hold-ms", LONG_MS)?;
    let fa1 = &ctx.net.fa1;
    fa1.ip("link set wl1 down")?;
    let numbers = burst();
    let (copies, _) = held(mh)?;
    sends(&far, &near, numbers.start..numbers.end - 1)?;
    let (packets, _) = held(mh)?;
    ensure!(
        packets == copies + u64::from(BURST) - 1,
        "{packets} packets are held, and {copies} were before"
    );
    fa1.ip("link set wl1 up
        route add 203.0.113.7/32 via 10.1.1.7")?;
    // What waits until a neighbour is found leaves all at once then.
    let is_found = || traffic::ping_arrives(mh, MH, FA1, b"neighbour");
    is_found()?;
    sends(&far, &near, numbers.end - 1..numbers.end)?;
    expect(arrived(ctx, &near)?, &numbers, "when there was a carrier")?;

    // What its link's queue held when the link went: what hasn't arrived is sent again, and nothing else.
    let ha = &ctx.net.ha;
    let replays = || Ok::<_, anyhow::Error>(Stats::read(ha)?.total("replay"));
    let before = replays()?;
    mh.tc(&format!("qdisc replace dev wl1 root netem {DEEP}"))?;
    let numbers = burst();
    sends(&far, &near, numbers.clone())?;
    mh.ip("link set wl1 down")?;
    mh.tc("qdisc del dev wl1 root")?;
    let mut came = arrived(ctx, &near)?;
    ensure!(came.len() < BURST as usize, "the link sent all of it");
    mh.ip("link set wl1 up
        route add 198.51.100.1/32 via 10.1.1.1 src 10.1.1.7")?;
    let last = last_number(ha, &keys.from_mh, Role::Terminus)?;
    let sent = resend_behind(mh, &keys.from_mh, Role::Origin, last)?;
    ensure!(
        sent as usize + came.len() == BURST as usize,
        "{sent} were sent again, and {} had arrived",
        came.len()
    );
    came.extend(arrived(ctx, &near)?);
    expect(came, &numbers, "from the queue")?;
    ensure!(replays()? == before, "{} replays", replays()? - before);

    // The way ends again while what waited for it waits for room, sealed or not: it waits again.
    let rate = (50_000.0 / ctx.patience) as u32;
    let slow = format!("qdisc replace dev wl1 root netem rate {rate}bit limit 20");
    mh.tc(&slow)?;
    way(false)?;
    let numbers = burst();
    let last = numbers.end - 1;
    sends(&far, &near, numbers.start..last)?;
    way(true)?;
    let sent = resend(mh, &keys.from_mh, Role::Origin)?;
    ensure!(sent == BURST - 1, "{sent} were to be sent");
    way(false)?;
    let mut came = arrived(ctx, &near)?;
    ensure!(came.len() < BURST as usize - 1, "the link took all of it");
    way(true)?;
    sends(&far, &near, last..last + 1)?;
    came.extend(arrived(ctx, &near)?);
    expect(came, &numbers, "when there was a way again")?;

    mh.tc(&format!("qdisc replace dev wl1 root netem {DEEP}"))?;
    let numbers = burst();
    sends(&far, &near, numbers.clone())?;
    mh.ip("link set wl1 down")?;
    mh.tc(&slow)?;
    // What is sent again goes by the mark that all that is sealed here goes by.
    set(mh, "route-mark", 7)?;
    mh.ip("link set wl1 up
        rule add fwmark 7 table 100
        route add 198.51.100.1/32 via 10.1.1.1 src 10.1.1.7 table 100")?;
    is_found()?;
    let mut came = arrived(ctx, &near)?;
    let behind = || last_number(ha, &keys.from_mh, Role::Terminus);
    resend_behind(mh, &keys.from_mh, Role::Origin, behind()?)?;
    fa1.ip("link set wl1 down")?;
    came.extend(arrived(ctx, &near)?);
    ensure!(came.len() < BURST as usize, "the link took all of it");
    fa1.ip("link set wl1 up
        route add 203.0.113.7/32 via 10.1.1.7")?;
    is_found()?;
    let sent = resend_behind(mh, &keys.from_mh, Role::Origin, behind()?)?;
    ensure!(
        sent as usize + came.len() == BURST as usize,
        "{sent} were sent a third time, and {} had arrived",
        came.len()
    );
    came.extend(arrived(ctx, &near)?);
    expect(came, &numbers, "by the link that went twice")?;
    set(mh, "route-mark", 0)?;
    mh.ip("rule del fwmark 7 table 100")?;
    way(true)?;
    mh.tc("qdisc del dev wl1 root")?;

    // What arrived while it waited to be sent again isn't sent.
    let numbers = burst();
    let early = behind()?;
    sends(&far, &near, numbers.clone())?;
    expect(arrived(ctx, &near)?, &numbers, "by the link as it was")?;
    mh.tc(&format!("qdisc replace dev wl1 root netem {DEEP}"))?;
    let sent = resend_behind(mh, &keys.from_mh, Role::Origin, early)?;
    ensure!(sent == BURST, "{sent} were to be sent again");
    let sent = resend_behind(mh, &keys.from_mh, Role::Origin, behind()?)?;
    ensure!(sent == 0, "{sent} were sent again though all had arrived");
    mh.tc("qdisc del dev wl1 root")?;

    // What has waited and doesn't fit the way there is then: its sender is told.
    traffic::dont_fragment(&far)?;
    let large = |fill: u8| far.send_to(&[fill; 1_400], near.local_addr()?);
    way(false)?;
    large(1)?;
    mh.ip("route add 198.51.100.1/32 via 10.1.1.1 src 10.1.1.7 mtu 1300")?;
    let sent = resend(mh, &keys.from_mh, Role::Origin)?;
    ensure!(sent == 1, "{sent} were to be sent");
    let early = traffic::receive(&near, ctx.seconds(0.5))?;
    ensure!(early.is_none(), "it fitted");
    let next = large(2).map_err(|error| error.raw_os_error());
    ensure!(
        next == Err(Some(libc::EMSGSIZE)),
        "{next:?}: its sender wasn't told"
    );
    way(false)?;
    way(true)?;
    set(mh, "hold-ms", 1_000)?;

    // None then: dropped, as without holding.
    let before = Stats::read(mh)?;
    way(false)?;
    sends(&far, &near, burst())?;
    std::thread::sleep(ctx.seconds(1.5));
    ensure!(held(mh)? == (0, 0), "{:?} wait yet", held(mh)?);
    let since = Stats::read(mh)?.since(&before);
    let dropped: u64 = ["no-route", "route-loop"]
        .iter()
        .filter_map(|reason| since.get(*reason))
        .sum();
    ensure!(
        dropped == u64::from(BURST),
        "{dropped} are counted as dropped"
    );
    way(true)?;
    let late = arrived(ctx, &near)?;
    ensure!(late.is_empty(), "{late:?} arrived though they were dropped");
    Ok(())
}

/// docs/wire.md 2.2z.
fn waits_for_room(ctx: &mut Ctx) -> Result<()> {
    let (keys, [near, far]) = start(ctx)?;
    let ctx = &*ctx;
    let (fa, mh) = (&ctx.net.fa1, &ctx.net.mh);
    for (node, hold) in [(fa, 1), (mh, LONG_MS)] {
        set(node, "hold-ms", hold)?;
        node.tc(&format!("qdisc replace dev wl1 root netem {}", slow(ctx)))?;
    }
    let comes = || {
        let update = zone_message::update(&keys.to_mh, Role::Relay, State::Active);
        genl::accepted(Genl::open(fa)?.pfkey(&update.octets())?, "UPDATE")
    };
    let waited = || Ok::<_, anyhow::Error>(Stats::read(fa)?.total("waited-packets"));
    let flood = |from: &UdpSocket, to: &UdpSocket| {
        sends(from, to, 0..FLOOD)?;
        arrived(ctx, to)
    };

    // The host has been there for a while: the queue drops what it has no room for.
    comes()?;
    std::thread::sleep(ctx.seconds(0.1));
    set(fa, "hold-ms", LONG_MS)?;
    let before = waited()?;
    let numbers = flood(&near, &far)?;
    ensure!(
        numbers.len() < FLOOD as usize && waited()? == before,
        "{} of {FLOOD} arrived by a queue of 20, {} have waited",
        numbers.len(),
        waited()? - before
    );

    // It has just come.
    resend(fa, &keys.to_mh, Role::Relay)?;
    arrived(ctx, &far)?;
    comes()?;
    let numbers = flood(&near, &far)?;
    ensure!(numbers.iter().copied().eq(0..FLOOD), "{numbers:?} arrived");
    let waited = waited()? - before;
    ensure!(waited > 0, "none has waited");
    // What has gone on late is held as what went on at once: it may leave with the host.
    let (packets, _) = held(fa)?;
    ensure!(packets == u64::from(FLOOD), "{packets} packets are held");
    let seen = last_number(mh, &keys.to_mh, Role::Terminus)?;
    let sent = resend_behind(fa, &keys.to_mh, Role::Relay, seen)?;
    ensure!(sent == 0, "{sent} were sent again though all were seen");

    // What a mobile host held, and what comes behind it.
    let way = |what: &str| {
        mh.ip(&format!(
            "route {what} 198.51.100.1/32 via 10.1.1.1 src 10.1.1.7"
        ))
    };
    way("del")?;
    sends(&far, &near, 0..FLOOD)?;
    way("add")?;
    let sent = resend(mh, &keys.from_mh, Role::Origin)?;
    ensure!(sent == FLOOD, "{sent} of {FLOOD} were to be sent");
    sends(&far, &near, FLOOD..FLOOD + BURST)?;
    let numbers = arrived(ctx, &near)?;
    ensure!(
        numbers.iter().copied().eq(0..FLOOD + BURST),
        "{numbers:?} arrived from the host"
    );

    // What finds no room to wait in is dropped: nothing overtakes.
    let dropped = |node| Ok::<_, anyhow::Error>(Stats::read(node)?.total("hold-dropped"));
    let orderly = |node, numbers: &[u32], before: u64| {
        let gone = dropped(node)? - before;
        ensure!(
            gone > 0 && numbers.len() as u64 + gone == u64::from(FLOOD) && numbers.is_sorted(),
            "{gone} of {FLOOD} were dropped, {numbers:?} arrived"
        );
        Ok(())
    };
    for node in [fa, mh] {
        set(node, "hold-bytes", 20_000)?;
    }
    comes()?;
    let before = dropped(fa)?;
    orderly(fa, &flood(&near, &far)?, before)?;
    let before = dropped(mh)?;
    way("del")?;
    sends(&far, &near, 0..FLOOD / 10)?;
    way("add")?;
    sends(&far, &near, FLOOD / 10..FLOOD)?;
    orderly(mh, &arrived(ctx, &near)?, before)?;
    Ok(())
}

/// docs/wire.md 2.2z.
fn snoop_and_hold(ctx: &mut Ctx) -> Result<()> {
    let (keys, _sockets) = start(ctx)?;
    let ctx = &*ctx;
    let fa = &ctx.net.fa1;
    let spi = format!("{:#x}", keys.to_mh.spi);
    mmlctl(fa, &["snoop", "set", "--spi", &spi])?;
    // 6 ms a segment, with the link's queue far from full while the hold is.
    let rate = (2_000_000.0 / ctx.patience) as u32;
    fa.tc(&format!(
        "qdisc replace dev wl1 root netem rate {rate}bit limit 100"
    ))?;
    set(fa, "hold-ms", LONG_MS)?;
    set(fa, "hold-bytes", 40_000)?;
    let update = zone_message::update(&keys.to_mh, Role::Relay, State::Active);
    genl::accepted(Genl::open(fa)?.pfkey(&update.octets())?, "UPDATE")?;

    let (near, far) = traffic::tcp_pair(&ctx.net.cn, &ctx.net.mh, HOME, 5001)?;
    traffic::stream_arrives(&near, &far, &traffic::random(300_000))?;
    let stats = Stats::read(fa)?;
    let dropped = stats.total("hold-dropped");
    let seen = stats.total("snoop-queue-full");
    ensure!(dropped > 0, "the hold had room for all of it");
    ensure!(
        seen >= dropped,
        "{dropped} were dropped, and SNOOP saw {seen} of them"
    );
    Ok(())
}
