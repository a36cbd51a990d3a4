// SPDX-License-Identifier: GPL-2.0-only

//! The zone message: PF_KEYv2, extended, over generic netlink (docs/wire.md §2). Requests change CSAs and policies,
//! dumps list them, events tell of them.

use kernel::alloc::{flags::*, KVec};
use kernel::prelude::*;
use mml_core::ip::{Addresses, Ports};
use mml_core::snoop::States;
use mml_core::zone::Mode;
use pfkey::number::{message as kind, policy, satype};
use pfkey::{
    genl, Csa as CsaMessage, CsaId, CsaUpdate, Lifetime, Message, Migrate, NewMapping,
    Policy as PolicyMessage, PolicyExt, PolicyId, PortRange, Role, SnoopState, SpiRequest, Writer,
};

use crate::ends::{Outer, Path};
use crate::larval::Larval;
use crate::namespace::Namespace;
use crate::netlink::{self, Dump, Request};
use crate::policy::Policy;
use crate::relay_number::Given;
use crate::sadb::{self, Csa};
use crate::snoop::Told;
use crate::sync;

/// The bit of a dump's cursor that says all but larval CSAs were listed.
const LARVALS: u64 = 1 << 63;

/// A buffer for one message, zeroised when dropped: it may hold keys.
struct Octets(KVec<u8>);

/// Octets of any message that holds neither keys nor a binding.
const SHORT: usize = 512;

impl Octets {
    fn new(len: usize) -> Result<Self> {
        Ok(Octets(KVec::from_elem(0, len, GFP_KERNEL)?))
    }
}

impl Drop for Octets {
    fn drop(&mut self) {
        sync::zeroise(&mut self.0);
    }
}

fn refuse(request: &mut Request<'_>, error: pfkey::Error) -> Error {
    request.say(error.text);
    Error::from_errno(-error.errno)
}

/// Handles a request whole, or refuses it whole with RFC 2367's errno and a text that names the extension
/// (docs/wire.md 2.1r).
pub(crate) fn request(request: &mut Request<'_>) -> Result {
    let Some(octets) = request.attribute(genl::A_PFKEY) else {
        request.say(c"attribute PFKEY: missing");
        return Err(EINVAL);
    };
    let message = Message::parse(octets).map_err(|e| refuse(request, e))?;
    match message.header().kind {
        kind::GETSPI => get_spi(request, &message),
        kind::ADD => add(request, &message, false),
        kind::UPDATE if fills(request, &message) => add(request, &message, true),
        kind::UPDATE => update(request, &message),
        kind::DELETE => delete(request, &message),
        kind::GET => get(request, &message),
        kind::X_MIGRATE => migrate(request, &message),
        kind::X_CSA_RESEND => resend(request, &message),
        kind::X_CSA_SNOOP => snoop(request, &message),
        kind::FLUSH => flush(request, &message),
        kind::X_SPDADD => policy_add(request, &message),
        kind::X_SPDDELETE => policy_delete(request, &message),
        kind::X_SPDGET => policy_get(request, &message),
        // docs/wire.md 2.2m.
        kind::X_SPDFLUSH => {
            request.ns.remove_policies(|_| true);
            answer(request, &message, |w| Ok(w))
        }
        kind::DUMP | kind::X_SPDDUMP => {
            request.say(c"message: DUMP is asked for as a netlink dump");
            Err(EINVAL)
        }
        _ => {
            request.say(c"message: the kernel does not take this type");
            Err(EOPNOTSUPP)
        }
    }
}

/// Answers with the request's header and what `f` writes (docs/wire.md 2.1c).
fn answer(
    request: &mut Request<'_>,
    message: &Message<'_>,
    f: impl for<'b> FnOnce(Writer<'b>) -> Result<Writer<'b>, pfkey::Error>,
) -> Result {
    answer_of(SHORT, request, message, f)
}

fn answer_of(
    len: usize,
    request: &mut Request<'_>,
    message: &Message<'_>,
    f: impl for<'b> FnOnce(Writer<'b>) -> Result<Writer<'b>, pfkey::Error>,
) -> Result {
    let mut buffer = Octets::new(len)?;
    let written = Writer::with_header(&mut buffer.0, message.header())
        .and_then(f)
        .and_then(Writer::finish);
    let octets = written.map_err(|e| refuse(request, e))?;
    request.reply(octets)
}

fn named(csa: &Csa, id: &CsaId) -> bool {
    csa.spi == id.spi
        && csa.role == id.role
        && sadb::outer(&id.src, &id.dst).is_ok_and(|outer| csa.ends.get().outer == outer)
}

fn find(ns: &Namespace, id: &CsaId) -> Option<kernel::sync::Arc<Csa>> {
    ns.config
        .lock()
        .csas
        .iter()
        .find(|csa| named(csa, id))
        .cloned()
}

/// Reserves an SPI: a larval CSA of a terminus (docs/wire.md 2.2b).
fn get_spi(request: &mut Request<'_>, message: &Message<'_>) -> Result {
    let asked = SpiRequest::from_message(message).map_err(|e| refuse(request, e))?;
    let outer = sadb::outer(&asked.src, &asked.dst).inspect_err(|_| {
        request.say(c"ADDRESS_SRC: source and destination are of two families");
    })?;
    let sadb = &request.ns.sadb;
    let reserved = request
        .ns
        .reserve(&asked, |spi| sadb.is_taken(Role::Terminus, spi, &outer));
    let larval = reserved.inspect_err(|e| {
        let text = match *e {
            e if e == EEXIST => c"SPIRANGE: none of it is free",
            e if e == ENOSPC => c"SPIRANGE: this network namespace has reserved as many as it may",
            _ => return,
        };
        request.say(text);
    })?;
    answer(request, message, |w| larval.id.write(w, &larval.ext()))
}

/// Whether an UPDATE gives a larval CSA its keys (docs/wire.md 2.2r).
fn fills(request: &Request<'_>, message: &Message<'_>) -> bool {
    message.zone_sa(1).is_some()
        && CsaId::from_message(message).is_ok_and(|id| request.ns.larval(&id).is_some())
}

/// Adds a CSA; `fills`: in the place of a larval one (docs/wire.md 2.2c).
fn add(request: &mut Request<'_>, message: &Message<'_>, fills: bool) -> Result {
    let csa = CsaMessage::from_message(message).map_err(|e| refuse(request, e))?;
    if let Some(given) = &csa.snoop {
        check_snoop(request, given)?;
    }
    let outer = match sadb::outer(&csa.src, &csa.dst) {
        Ok(outer) => outer,
        Err(e) => {
            request.say(c"ADDRESS_SRC: source and destination are of two families");
            return Err(e);
        }
    };
    if csa.ext.mode == pfkey::Mode::Transport {
        check_transport(request, &csa)?;
    }
    let given = Given::by(&csa);
    if let Some(given) = given {
        request.ns.give_number(given).inspect_err(|e| {
            let text = match *e {
                e if e == EALREADY => {
                    c"RELAY: this number was given for this CSA before; its counter must not begin again"
                }
                e if e == ENOSPC => c"RELAY: this network namespace has had as many numbers as it may",
                _ => return,
            };
            request.say(text);
        })?;
    }
    let (ns, alarm) = (request.ns, request.ns.alarm.clone());
    let (spi, role) = (csa.spi, csa.ext.role);
    let added = request
        .ns
        .add_csa(spi, role, &outer, &csa.dst, fills, |id| {
            Csa::new(id, &csa, alarm, ns)
        });
    let added = added.inspect_err(|e| {
        if let Some(given) = given {
            request.ns.take_number_back(given);
        }
        let text = match *e {
            e if e == EEXIST => c"SA: this SPI is taken for this destination and role",
            e if e == ENOSPC => c"CSA: this network namespace has as many as it may",
            e if e == ENOSYS => c"ZONE_SA: the kernel has no such cipher",
            _ => return,
        };
        request.say(text);
    })?;
    let id = CsaId {
        spi: csa.spi,
        src: csa.src,
        dst: csa.dst,
        role: csa.ext.role,
    };
    added.life.begin();
    arrives(request.ns, &added);
    state_event(request.ns, &added);
    answer(request, message, |w| id.write(w, &csa.ext))
}

/// Refuses what transport mode can't be: its CSAs join two hosts, whose addresses are the packets' own, and a relay of them
/// has nothing to do (docs/wire.md 1.11c).
fn check_transport(request: &mut Request<'_>, csa: &CsaMessage<'_>) -> Result {
    if csa.ext.role == Role::Relay {
        request.say(c"CSA: a relay of transport mode can't see where segments end; give it to the end points alone");
        return Err(EOPNOTSUPP);
    }
    let selector = &csa.selector;
    let bits = csa.src.family.bits();
    if selector.family != csa.src.family
        || (selector.src_len, selector.dst_len) != (bits, bits)
        || (selector.src, selector.dst) != (csa.src.octets, csa.dst.octets)
    {
        request.say(
            c"SELECTOR: in transport mode its source and destination are the CSA's own addresses",
        );
        return Err(EINVAL);
    }
    Ok(())
}

/// Refuses settings of SNOOP that are out of range.
fn check_snoop(request: &mut Request<'_>, given: &pfkey::Snoop) -> Result<Told> {
    sadb::told(given).inspect_err(|_| {
        request.say(
            c"SNOOP: window 1 to 8192, threshold at least 1, times 1 ms to 1 h with garbage not below persist, bytes not 0, flags 0",
        )
    })
}

/// docs/wire.md 2.2d.
fn update(request: &mut Request<'_>, message: &Message<'_>) -> Result {
    let update = CsaUpdate::from_message(message).map_err(|e| refuse(request, e))?;
    let told = match &update.snoop {
        Some(given) => Some(check_snoop(request, given)?),
        None => None,
    };
    let Some(csa) = find(request.ns, &update.id) else {
        return missing(request);
    };
    if !csa.life.may_change(update.soft, update.hard) {
        request.say(c"LIFETIME_SOFT: a limit behind LIFETIME_HARD's");
        return Err(EINVAL);
    }
    if let Some(told) = told {
        request.ns.set_snoop(&csa, told)?;
    }
    if update.hard.is_some() || update.soft.is_some() {
        csa.life.change(update.soft, update.hard);
    }
    csa.set_state(update.state);
    if update.sequence != 0 && csa.role != Role::Origin {
        csa.raise(update.sequence);
    }
    arrives(request.ns, &csa);
    state_event(request.ns, &csa);
    answer(request, message, |w| Ok(w))
}

/// A relay that is active, now or again, has a host come to it (docs/wire.md 2.2z).
fn arrives(ns: &Namespace, csa: &Csa) {
    if let Some(hold) = csa
        .hold()
        .filter(|_| csa.role == Role::Relay && csa.opens())
    {
        hold.arrives(ns);
    }
}

/// docs/wire.md 2.2h.
fn migrate(request: &mut Request<'_>, message: &Message<'_>) -> Result {
    let given = Migrate::from_message(message).map_err(|e| refuse(request, e))?;
    let Some(csa) = find(request.ns, &given.id) else {
        return missing(request);
    };
    let path = Path {
        outer: sadb::outer(&given.src, &given.dst)?,
        encap: given.encap,
    };
    // docs/wire.md 1.11c.
    if csa.map.mode() == Mode::Transport && path.outer != csa.ends.get().outer {
        request.say(c"SELECTOR: the addresses of a transport mode CSA are its packets' own; only its ports can change");
        return Err(EOPNOTSUPP);
    }
    request.ns.migrate(&csa, &path).inspect_err(|e| {
        if *e == EEXIST {
            request.say(c"SELECTOR: another CSA of this SPI and role lies there");
        }
    })?;
    migrate_event(request.ns, &csa, &given);
    state_event(request.ns, &csa);
    answer(request, message, |w| Ok(w))
}

/// Sends what is held for a CSA, of copies those behind the number that the other end has seen; the answer's
/// LIFETIME_CURRENT counts the packets and their octets (docs/wire.md 2.2v).
fn resend(request: &mut Request<'_>, message: &Message<'_>) -> Result {
    let id = CsaId::from_message(message).map_err(|e| refuse(request, e))?;
    let Some(csa) = find(request.ns, &id) else {
        return missing(request);
    };
    let Some(hold) = csa.hold() else {
        request
            .say(c"RELAY: this CSA holds nothing; it is added with its hold flag where it shall");
        return Err(EOPNOTSUPP);
    };
    let seen = message.csa().map_or(0, |ext| ext.sequence);
    let (packets, octets) = hold.resend(request.ns, (seen != 0).then_some(seen as u32));
    let sent = Lifetime {
        allocations: packets as u32,
        bytes: octets,
        ..Lifetime::default()
    };
    answer(request, message, |w| {
        id.write(w, &csa.standing())?.lifetime_current(&sent)
    })
}

/// Says what SNOOP knows of a CSA's flows, or has it take over what another foreign agent knew of them; the answer's
/// LIFETIME_CURRENT counts those then (docs/wire.md 2.2y).
fn snoop(request: &mut Request<'_>, message: &Message<'_>) -> Result {
    let id = CsaId::from_message(message).map_err(|e| refuse(request, e))?;
    let given = message.snoop_state();
    let states = given.map(|given| States::parse(given.octets)).transpose();
    let states = states.map_err(|absurd| {
        request.say(absurd.0);
        EINVAL
    })?;
    let ns = request.ns;
    // No flow is made behind the back of who takes the CSA away.
    let config = ns.config.lock();
    let Some(csa) = config.csas.iter().find(|csa| named(csa, &id)) else {
        return missing(request);
    };
    if !csa.snoops() {
        request.say(c"SNOOP: this CSA is not looked after; an UPDATE with SNOOP changes that");
        return Err(EOPNOTSUPP);
    }
    let standing = csa.standing();
    let Some(states) = states else {
        let octets = ns.snoop.states(csa)?;
        drop(config);
        return answer_of(pfkey::MAX_LEN, request, message, |w| {
            id.write(w, &standing)?
                .snoop_state(&SnoopState { octets: &octets })
        });
    };
    let taken = ns.snoop.take_over(ns, csa, states).inspect_err(|_| {
        request.say(c"SNOOP_STATE: a flow that can't come in this CSA");
    })?;
    drop(config);
    let taken = Lifetime {
        allocations: taken,
        ..Lifetime::default()
    };
    answer(request, message, |w| {
        id.write(w, &standing)?.lifetime_current(&taken)
    })
}

/// Tells that a CSA goes on between other ends (docs/wire.md 2.1q). From process context.
fn migrate_event(ns: &Namespace, csa: &Csa, moved: &Migrate) {
    let Ok(mut buffer) = Octets::new(SHORT) else {
        return;
    };
    let written = Writer::new(&mut buffer.0, kind::X_MIGRATE, satype::MLESP, 0, 0)
        .and_then(|w| moved.write(w, &csa.standing()))
        .and_then(Writer::finish);
    if let Ok(octets) = written {
        netlink::event(ns, octets);
    }
}

/// Tells that a CSA's packets come from another address and port than it says. From softirq, at most once a second a CSA
/// (docs/wire.md 2.2i).
pub(crate) fn new_mapping(ns: &Namespace, csa: &Csa, path: &Path, (from, port): (&Outer, u16)) {
    let Some(encap) = path.encap.filter(|_| csa.mapping_due()) else {
        return;
    };
    let mapping = NewMapping {
        spi: csa.spi,
        old: (
            sadb::address(path.outer.family, path.outer.src),
            encap.sport,
        ),
        new: (sadb::address(from.family, from.src), port),
    };
    let mut buffer = [0; 256];
    let written = Writer::new(&mut buffer, kind::X_NAT_T_NEW_MAPPING, satype::MLESP, 0, 0)
        .and_then(|w| mapping.write(w))
        .and_then(Writer::finish);
    if let Ok(octets) = written {
        netlink::event(ns, octets);
    }
}

fn missing(request: &mut Request<'_>) -> Result {
    request.say(c"SA: there is no such CSA");
    Err(ESRCH)
}

/// docs/wire.md 2.2g.
fn delete(request: &mut Request<'_>, message: &Message<'_>) -> Result {
    let id = CsaId::from_message(message).map_err(|e| refuse(request, e))?;
    let gone = request.ns.remove_csas(|csa| named(csa, &id))?;
    let larval = id.role == Role::Terminus
        && request
            .ns
            .forget(|l| l.id.spi == id.spi && l.id.dst.octets == id.dst.octets)
            > 0;
    if gone.is_empty() && !larval {
        return missing(request);
    }
    answer(request, message, |w| Ok(w))
}

/// docs/wire.md 2.2g.
fn get(request: &mut Request<'_>, message: &Message<'_>) -> Result {
    let id = CsaId::from_message(message).map_err(|e| refuse(request, e))?;
    if let Some(csa) = find(request.ns, &id) {
        return answer_of(pfkey::MAX_LEN, request, message, |w| write(w, &csa));
    }
    match request.ns.larval(&id) {
        Some(larval) => answer(request, message, |w| larval.id.write(w, &larval.ext())),
        None => missing(request),
    }
}

/// docs/wire.md 2.2j.
fn flush(request: &mut Request<'_>, message: &Message<'_>) -> Result {
    if !matches!(message.header().satype, satype::MLESP | satype::UNSPEC) {
        request.say(c"message: SA type is not SADB_X_SATYPE_MLESP (249)");
        return Err(EPROTONOSUPPORT);
    }
    request.ns.remove_csas(|_| true)?;
    request.ns.forget(|_| true);
    answer(request, message, |w| Ok(w))
}

/// A CSA as GET and DUMP show it: as it was given, its standing, and what it has carried.
fn write<'b>(w: Writer<'b>, csa: &Csa) -> Result<Writer<'b>, pfkey::Error> {
    csa.with_given(|given| given.write(w))?
        .lifetime_current(&current(csa))
}

/// What a CSA has carried, and since when.
fn current(csa: &Csa) -> Lifetime {
    let (packets, octets) = csa.carried();
    csa.life.current(packets, octets)
}

/// Tells of a CSA, by a message of this type: its name, its standing, and what `more` writes. From process context.
fn csa_event(
    ns: &Namespace,
    kind: u8,
    csa: &Csa,
    more: impl for<'b> FnOnce(Writer<'b>) -> Result<Writer<'b>, pfkey::Error>,
) {
    let Ok(mut buffer) = Octets::new(SHORT) else {
        return;
    };
    let outer = csa.ends.get().outer;
    let id = CsaId {
        spi: csa.spi,
        src: sadb::address(outer.family, outer.src),
        dst: sadb::address(outer.family, outer.dst),
        role: csa.role,
    };
    let written = Writer::new(&mut buffer.0, kind, satype::MLESP, 0, 0)
        .and_then(|w| id.write(w, &csa.standing()))
        .and_then(more)
        .and_then(Writer::finish);
    if let Ok(octets) = written {
        netlink::event(ns, octets);
    }
}

/// Tells of a CSA's state. From process context, as what tells of CSAs is (docs/wire.md 2.2f).
pub(crate) fn state_event(ns: &Namespace, csa: &Csa) {
    csa_event(ns, kind::X_CSA_STATE, csa, |w| Ok(w));
}

/// Tells that a CSA has come to its hard limit, or to its soft one: the limits of that kind, and what it has carried
/// (docs/wire.md 2.2e).
pub(crate) fn expire(ns: &Namespace, csa: &Csa, is_hard: bool) {
    let (soft, hard) = csa.life.given();
    csa_event(ns, kind::EXPIRE, csa, |w| {
        let w = w.lifetime_current(&current(csa))?;
        if is_hard {
            w.lifetime_hard(&hard.unwrap_or_default())
        } else {
            w.lifetime_soft(&soft.unwrap_or_default())
        }
    });
}

/// Tells that a reserved SPI was given no keys in time (docs/wire.md 2.2r).
pub(crate) fn expire_larval(ns: &Namespace, larval: &Larval) {
    let mut buffer = [0; 512];
    let written = Writer::new(&mut buffer, kind::EXPIRE, satype::MLESP, 0, 0)
        .and_then(|w| larval.id.write(w, &larval.ext()))
        .and_then(|w| w.lifetime_hard(&Larval::limit()))
        .and_then(Writer::finish);
    if let Ok(octets) = written {
        netlink::event(ns, octets);
    }
}

/// docs/wire.md 2.2k.
fn policy_add(request: &mut Request<'_>, message: &Message<'_>) -> Result {
    let given = PolicyMessage::from_message(message).map_err(|e| refuse(request, e))?;
    let added = request.ns.add_policy(&given).inspect_err(|e| {
        let text = match *e {
            e if e == EEXIST => c"SELECTOR: it has a policy in this direction already",
            e if e == ENOSPC => c"X_POLICY: this network namespace has as many as it may",
            e if e == ENODEV => c"X_POLICY: the module is being unloaded",
            _ => return,
        };
        request.say(text);
    })?;
    let written = added.given;
    answer(request, message, |w| written.write(w))
}

fn is(policy: &Policy, id: &PolicyId) -> bool {
    match id {
        PolicyId::Number(number) => policy.id == *number,
        PolicyId::Selector(direction, selector) => {
            policy.given.ext.direction == *direction && policy.given.selector == *selector
        }
    }
}

/// docs/wire.md 2.2l.
fn policy_delete(request: &mut Request<'_>, message: &Message<'_>) -> Result {
    let id = PolicyId::from_message(message).map_err(|e| refuse(request, e))?;
    if request.ns.remove_policies(|policy| is(policy, &id)) == 0 {
        request.say(c"X_POLICY: there is no such policy");
        return Err(ESRCH);
    }
    answer(request, message, |w| Ok(w))
}

/// docs/wire.md 2.2l.
fn policy_get(request: &mut Request<'_>, message: &Message<'_>) -> Result {
    let id = PolicyId::from_message(message).map_err(|e| refuse(request, e))?;
    let found = request
        .ns
        .config
        .lock()
        .policies
        .iter()
        .find(|l| is(&l.policy, &id))
        .map(|l| l.policy.given);
    let Some(given) = found else {
        request.say(c"X_POLICY: there is no such policy");
        return Err(ESRCH);
    };
    answer(request, message, |w| given.write(w))
}

/// Lists CSAs (DUMP) or policies (X_SPDDUMP), keys and all: the capability was asked for. The cursor is the number of
/// the last one listed, so that what is added or taken away meanwhile upsets nothing
/// (docs/wire.md 2.1c, 2.2j, 2.2m, 2.2o).
pub(crate) fn dump(dump: &mut Dump<'_>) -> Result {
    let message = match dump.attribute(genl::A_PFKEY) {
        Some(octets) => Message::parse(octets).map_err(|e| Error::from_errno(-e.errno))?,
        None => return Err(EINVAL),
    };
    let mut buffer = Octets::new(pfkey::MAX_LEN)?;
    let ns = dump.ns;
    let config = ns.config.lock();
    match message.header().kind {
        kind::DUMP => {
            let from = dump.cursor();
            let start = config.csas.partition_point(|csa| csa.id <= from);
            for csa in config.csas.get(start..).unwrap_or(&[]) {
                let w = Writer::with_header(&mut buffer.0, message.header());
                let octets = w
                    .and_then(|w| write(w, csa))
                    .and_then(Writer::finish)
                    .map_err(|_| EINVAL)?;
                dump.message(genl::CMD_PFKEY, |fields| fields.put(genl::A_PFKEY, octets))?;
                dump.set_cursor(csa.id);
            }
            // The larval ones come behind all others, by the cursors from this bit on.
            let from = dump.cursor().checked_sub(LARVALS).unwrap_or(0);
            for larval in config.larvals.iter().filter(|l| l.number > from) {
                let octets = Writer::with_header(&mut buffer.0, message.header())
                    .and_then(|w| larval.id.write(w, &larval.ext()))
                    .and_then(Writer::finish)
                    .map_err(|_| EINVAL)?;
                dump.message(genl::CMD_PFKEY, |fields| fields.put(genl::A_PFKEY, octets))?;
                dump.set_cursor(LARVALS | larval.number);
            }
            Ok(())
        }
        kind::X_SPDDUMP => {
            let from = dump.cursor();
            let start = config
                .policies
                .partition_point(|l| u64::from(l.policy.id) <= from);
            for listed in config.policies.get(start..).unwrap_or(&[]) {
                let w = Writer::with_header(&mut buffer.0, message.header());
                let octets = w
                    .and_then(|w| listed.policy.given.write(w))
                    .and_then(Writer::finish)
                    .map_err(|_| EINVAL)?;
                dump.message(genl::CMD_PFKEY, |fields| fields.put(genl::A_PFKEY, octets))?;
                dump.set_cursor(u64::from(listed.policy.id));
            }
            Ok(())
        }
        _ => Err(EINVAL),
    }
}

/// Asks for a CSA: the policy, its template, and the packet's own ends, ports included where it shows some. From any context, at most once a second a policy
/// (docs/wire.md 2.4a).
pub(crate) fn acquire(ns: &Namespace, asking: &Policy, of: &Addresses, ports: Option<Ports>) {
    if asking.given.ext.kind != policy::PROTECT || !asking.acquire_due() {
        return;
    }
    let mut buffer = [0; 512];
    let family = pfkey::Family::of_version(of.family);
    let port = |which: fn(Ports) -> u16| {
        ports
            .and_then(|ports| PortRange::one(which(ports)))
            .unwrap_or(PortRange::ANY)
    };
    let selector = pfkey::Selector {
        family,
        protocol: of.protocol,
        src_len: family.bits(),
        dst_len: family.bits(),
        src: of.src,
        dst: of.dst,
        src_ports: port(|ports| ports.src),
        dst_ports: port(|ports| ports.dst),
    };
    let given = &asking.given;
    let message = PolicyMessage {
        ext: PolicyExt { ..given.ext },
        selector,
        template: given.template,
    };
    let written = Writer::new(&mut buffer, kind::ACQUIRE, satype::MLESP, asking.id, 0)
        .and_then(|w| message.write(w))
        .and_then(Writer::finish);
    if let Ok(octets) = written {
        netlink::event(ns, octets);
    }
}
