// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! IKE_SA_INIT (RFC 7296 §1.2) and IKE_INTERMEDIATE (RFC 9242) with its key exchanges (RFC 9370 §2.2.2).

use super::certificates::{few_authorities, requests};
use super::exchange::{Cx, Find, InitRequest, Path, Pending, Reply};
use super::window::Outstanding;
use super::{IkeSa, Nat, Setup, State, Traits, IKE_PORT, NATT_PORT};
use crate::auth::HASHES;
use crate::config::{Config, Connection, IkeProposal};
use crate::crypto::{skeyseed, skeyseed_next, IkeKeys, Method, Pending as Kex};
use crate::event::{Down, IkeId, Time};
use crate::host;
use crate::negotiate::{accept, ike_proposals, select, IkeSuite};
use crate::secret::Secret;
use crate::wire::reader::{octets, Put};
use crate::wire::{
    ExchangeType, Group, HashAlgorithm, Header, KeyExchange, Message, NotifyType, Payload,
};
use ring::digest;
use std::net::SocketAddr;
use std::time::Duration;

/// Octets of our nonces: half the longest PRF's key at least (§2.10).
pub(crate) const NONCE_LEN: usize = 32;
/// Times an IKE_SA_INIT is begun again, for cookies and other methods.
const MAX_AGAIN: u8 = 5;
/// How long an unprotected refusal is held back, in case a true answer comes (§2.21.1).
const DOUBT: Duration = Duration::from_millis(500);
/// ZONES_SUPPORTED's version (docs/wire.md 3.1i).
const ZONES_VERSION: u16 = 1;

/// SHA-256("mml-ipsec 1"), the first 16 octets (docs/wire.md 3.1k).
fn vendor_id() -> Vec<u8> {
    let sum = digest::digest(&digest::SHA256, b"mml-ipsec 1");
    sum.as_ref().iter().take(16).copied().collect()
}

/// SHA-1 of SPIs, address and port (§2.23).
pub(crate) fn nat_hash(spi_i: u64, spi_r: u64, end: SocketAddr) -> Vec<u8> {
    let mut input = Vec::new();
    input.put_u64(spi_i);
    input.put_u64(spi_r);
    input.put(&octets(end.ip()));
    input.put_u16(end.port());
    let sum = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &input);
    sum.as_ref().to_vec()
}

/// Who is behind a NAT, by the peer's hashes. Without hashes nobody.
pub(crate) fn detect_nat(payloads: &[Payload], spis: (u64, u64), path: Path) -> Nat {
    let hashes = |kind| {
        payloads.iter().filter_map(move |payload| match payload {
            Payload::Notify(n) if n.kind == kind => Some(&n.data),
            _ => None,
        })
    };
    let behind = |kind, end| {
        let expected = nat_hash(spis.0, spis.1, end);
        hashes(kind).next().is_some() && !hashes(kind).any(|hash| *hash == expected)
    };
    Nat {
        local: behind(NotifyType::NAT_DETECTION_DESTINATION_IP, path.local),
        remote: behind(NotifyType::NAT_DETECTION_SOURCE_IP, path.remote),
    }
}

pub(crate) fn nat_notifies(spis: (u64, u64), path: Path) -> [Payload; 2] {
    [
        Payload::notify(
            NotifyType::NAT_DETECTION_SOURCE_IP,
            nat_hash(spis.0, spis.1, path.local),
        ),
        Payload::notify(
            NotifyType::NAT_DETECTION_DESTINATION_IP,
            nat_hash(spis.0, spis.1, path.remote),
        ),
    ]
}

/// What both IKE_SA_INIT messages say beside SA, KE and nonce (docs/wire.md 3.2a).
fn abilities(config: &Config, spis: (u64, u64), path: Path, additional: bool) -> Vec<Payload> {
    let mut payloads = nat_notifies(spis, path).to_vec();
    payloads.push(Payload::notify(
        NotifyType::IKEV2_FRAGMENTATION_SUPPORTED,
        [],
    ));
    let hashes: Vec<u8> = HASHES
        .iter()
        .flat_map(|hash| hash.0.to_be_bytes())
        .collect();
    payloads.push(Payload::notify(
        NotifyType::SIGNATURE_HASH_ALGORITHMS,
        hashes,
    ));
    if additional {
        payloads.push(Payload::notify(
            NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED,
            [],
        ));
    }
    if config.zones {
        payloads.push(Payload::VendorId(vendor_id()));
        let zones = [ZONES_VERSION, pfkey::MAX_ZONES as u16];
        let zones: Vec<u8> = zones.iter().flat_map(|n| n.to_be_bytes()).collect();
        payloads.push(Payload::notify(NotifyType::ZONES_SUPPORTED, zones));
    }
    payloads
}

/// docs/wire.md 3.2a.
fn traits(payloads: &[Payload]) -> Traits {
    let has = |kind| payloads.notify(kind).is_some();
    let vendor = vendor_id();
    let ours = |p: &Payload| matches!(p, Payload::VendorId(id) if *id == vendor);
    // Version 1 or one that says it understands it; two zones at least.
    let zones = payloads
        .notify(NotifyType::ZONES_SUPPORTED)
        .is_some_and(|n| {
            matches!(n.data.as_slice(), &[v0, v1, n0, n1]
            if u16::from_be_bytes([v0, v1]) >= ZONES_VERSION && u16::from_be_bytes([n0, n1]) >= 2)
        });
    let hashes = payloads
        .notify(NotifyType::SIGNATURE_HASH_ALGORITHMS)
        .map_or(&[][..], |n| &n.data)
        .chunks_exact(2)
        .map(|pair| HashAlgorithm(u16::from_be_bytes([pair[0], pair[1]])))
        .collect();
    Traits {
        fragmentation: has(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED),
        zones: zones && payloads.iter().any(ours),
        mobike: false,
        childless: has(NotifyType::CHILDLESS_IKEV2_SUPPORTED),
        intermediate: has(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED),
        hashes,
    }
}

fn has_additional(connection: &Connection) -> bool {
    connection.ike.iter().any(|p| !p.additional.is_empty())
}

impl IkeSa {
    /// Begins an IKE SA. `None` when the system has no randomness, or the connection no suite.
    pub fn initiate(id: IkeId, connection: usize, path: Path, cx: &mut Cx<'_>) -> Option<IkeSa> {
        let configured = cx.config.connections.get(connection)?;
        let proposals = ike_proposals(&configured.ike, None);
        let method = *configured.ike.first()?.methods.first()?;
        let spi = host::ike_spi(cx.host);
        let mut sa = IkeSa::new(id, true, path, (spi, 0), cx.now);
        sa.connection = Some(connection);
        sa.ni = host::nonce(cx.host, NONCE_LEN);
        sa.setup = Some(Box::default());
        let (kex, public) = method.begin(cx.host).ok()?;
        let request = InitRequest {
            kex,
            method,
            proposals,
            cookie: None,
            again: 0,
            refusal: None,
        };
        sa.send_init(request, public, cx);
        Some(sa)
    }

    fn send_init(&mut self, request: InitRequest, public: Vec<u8>, cx: &mut Cx<'_>) {
        let Some(connection) = self.connection(cx.config) else {
            return;
        };
        let mut payloads = Vec::new();
        // The cookie comes first (§2.6).
        if let Some(cookie) = &request.cookie {
            payloads.push(Payload::notify(NotifyType::COOKIE, cookie.clone()));
        }
        payloads.push(Payload::Sa(request.proposals.clone()));
        payloads.push(Payload::KeyExchange(KeyExchange {
            group: request.method.group(),
            data: public,
        }));
        payloads.push(Payload::Nonce(self.ni.clone()));
        let additional = has_additional(connection);
        payloads.extend(abilities(cx.config, (self.spi_i, 0), self.path, additional));
        let header = Header {
            spi_r: 0,
            ..self.header(ExchangeType::IKE_SA_INIT, false, 0)
        };
        let octets = Message { header, payloads }.encode();
        if let Some(setup) = &mut self.setup {
            setup.request = octets.clone();
        }
        self.outbox.next_id = 1;
        self.outbox.sent(
            0,
            vec![octets.clone()],
            Pending::Init(Box::new(request)),
            cx.now,
            &cx.config.retransmission,
        );
        self.transmit(vec![octets], cx);
    }

    pub(super) fn init_response(&mut self, octets: &[u8], message: &Message, cx: &mut Cx<'_>) {
        let payloads = message.payloads.as_slice();
        let Some(mut outstanding) = self.outbox.answered(0) else {
            return;
        };
        let Pending::Init(mut request) =
            std::mem::replace(&mut outstanding.pending, Pending::Liveness)
        else {
            return;
        };
        if let Some(cookie) = payloads.notify(NotifyType::COOKIE) {
            if (1..=64).contains(&cookie.data.len()) && request.again < MAX_AGAIN {
                request.cookie = Some(cookie.data.clone());
                return self.begin_again(*request, None, cx);
            }
        }
        if let Some(notify) = payloads.notify(NotifyType::INVALID_KE_PAYLOAD) {
            let method = <[u8; 2]>::try_from(notify.data.as_slice())
                .ok()
                .and_then(|group| Method::from_group(Group(u16::from_be_bytes(group))));
            // Only to one that was offered: else anyone could talk both down to the weakest (§2.6.1, §3.4).
            let offered = |m: &Method| {
                let configured = self.connection(cx.config).map_or(&[][..], |c| &c.ike);
                *m != request.method && configured.iter().any(|p| p.methods.contains(m))
            };
            if let Some(method) = method.filter(offered).filter(|_| request.again < MAX_AGAIN) {
                return self.begin_again(*request, Some(method), cx);
            }
        }
        if let Some(refused) = payloads.error() {
            // Anyone could have sent it. It is believed when nothing better comes.
            if request.refusal.is_none() {
                request.refusal = Some((refused, cx.now + DOUBT));
            }
            return self.await_init(outstanding, request);
        }
        match self.take_init(&request, message) {
            Some((suite, nr, public, traits)) => {
                let InitRequest { kex, .. } = *request;
                self.nr = nr;
                self.spi_r = message.header.spi_r;
                self.traits = traits;
                let Ok(shared) = kex.finish(&public) else {
                    return self.fall(Down::Protocol("the peer's public value is none"), cx);
                };
                self.nat = detect_nat(payloads, (self.spi_i, self.spi_r), self.path);
                if let Some(setup) = &mut self.setup {
                    setup.response = octets.to_vec();
                    setup.additional = suite.additional.iter().copied().collect();
                }
                self.first_keys(suite, &shared, cx);
                // Behind NAT, and where addresses may change, port 4500 (§2.23, RFC 4555 §3.3).
                let mobike = self.connection(cx.config).is_some_and(|c| c.mobike);
                if (self.nat.any() || mobike) && self.path.local.port() == IKE_PORT {
                    self.path.local.set_port(NATT_PORT);
                    self.path.remote.set_port(NATT_PORT);
                }
                self.next_exchange(cx);
            }
            None => self.await_init(outstanding, request),
        }
    }

    /// What a sound answer to IKE_SA_INIT holds.
    fn take_init(
        &self,
        request: &InitRequest,
        message: &Message,
    ) -> Option<(IkeSuite, Vec<u8>, Vec<u8>, Traits)> {
        let payloads = message.payloads.as_slice();
        let suite = IkeSuite::from_proposal(accept(&request.proposals, payloads.sa()?)?)?;
        let ke = payloads.ke()?;
        let traits = traits(payloads);
        let sound = message.header.spi_r != 0
            && suite.method == request.method
            && ke.group == request.method.group()
            && (suite.additional.is_empty() || traits.intermediate);
        sound
            .then(|| {
                (
                    suite,
                    payloads.nonce().unwrap_or_default().to_vec(),
                    ke.data.clone(),
                    traits,
                )
            })
            .filter(|(_, nr, _, _)| !nr.is_empty())
    }

    fn begin_again(&mut self, mut request: InitRequest, method: Option<Method>, cx: &mut Cx<'_>) {
        request.again += 1;
        request.refusal = None;
        request.method = method.unwrap_or(request.method);
        // A new pair also where the method stays: ring's can't be asked for its public value twice, and keeping
        // both would be the only reason to.
        match request.method.begin(cx.host) {
            Ok((kex, public)) => {
                request.kex = kex;
                self.send_init(request, public, cx);
            }
            Err(_) => self.fall(Down::Protocol("the system has no randomness"), cx),
        }
    }

    /// Goes on waiting: what came was no answer.
    fn await_init(&mut self, mut outstanding: Outstanding, request: Box<InitRequest>) {
        outstanding.pending = Pending::Init(request);
        self.outbox.restore(0, outstanding);
    }

    pub(super) fn check_refusal(&mut self, cx: &mut Cx<'_>) {
        let refused = self.outbox.pending().find_map(|pending| match pending {
            Pending::Init(init) => init.refusal.filter(|(_, at)| *at <= cx.now),
            _ => None,
        });
        if let Some((refused, _)) = refused {
            self.fall(Down::Refused(refused), cx);
        }
    }

    fn first_keys(&mut self, suite: IkeSuite, shared: &Secret, cx: &mut Cx<'_>) {
        let seed = skeyseed(suite.prf, &self.ni, &self.nr, shared);
        self.derive(suite, &seed, cx);
    }

    pub(super) fn derive(&mut self, suite: IkeSuite, seed: &Secret, cx: &mut Cx<'_>) {
        let nonces = (self.ni.as_slice(), self.nr.as_slice());
        let spis = (self.spi_i, self.spi_r);
        let keys = IkeKeys::derive(suite.prf, suite.cipher, seed, nonces, spis);
        self.suite = Some(suite);
        if self.protect(keys).is_err() {
            self.fall(Down::Protocol("the suite has no such keys"), cx);
        }
    }

    fn next_keys(&mut self, shared: &Secret, cx: &mut Cx<'_>) {
        let (Some(suite), Some(protection)) = (self.suite.clone(), &self.protection) else {
            return;
        };
        let seed = skeyseed_next(suite.prf, &protection.keys.d, shared, &self.ni, &self.nr);
        self.derive(suite, &seed, cx);
    }

    /// IKE_INTERMEDIATE for each additional key exchange, then IKE_AUTH.
    fn next_exchange(&mut self, cx: &mut Cx<'_>) {
        let next = self.setup.as_mut().and_then(|s| s.additional.pop_front());
        let Some(method) = next else {
            return self.start_auth(cx);
        };
        match method.begin(cx.host) {
            Ok((kex, data)) => {
                let ke = Payload::KeyExchange(KeyExchange {
                    group: method.group(),
                    data,
                });
                let pending = Pending::Intermediate(method, kex);
                self.ask(ExchangeType::IKE_INTERMEDIATE, &[ke], pending, cx);
            }
            Err(_) => self.fall(Down::Protocol("the system has no randomness"), cx),
        }
    }

    pub(super) fn intermediate_response(
        &mut self,
        method: Method,
        kex: Kex,
        payloads: &[Payload],
        cx: &mut Cx<'_>,
    ) {
        if let Some(refused) = payloads.error() {
            return self.fall(Down::Refused(refused), cx);
        }
        let public = payloads.ke().filter(|ke| ke.group == method.group());
        match public.and_then(|ke| kex.finish(&ke.data).ok()) {
            Some(shared) => {
                self.next_keys(&shared, cx);
                self.next_exchange(cx);
            }
            None => self.fall(Down::Protocol("the peer's public value is none"), cx),
        }
    }

    pub(super) fn answer_intermediate(&mut self, payloads: &[Payload], cx: &mut Cx<'_>) -> Reply {
        let method = self.setup.as_mut().and_then(|s| s.additional.pop_front());
        let ke = payloads
            .ke()
            .filter(|ke| Some(ke.group) == method.map(Method::group));
        let (Some(method), Some(ke)) = (method, ke) else {
            let why = Down::Protocol("the peer's additional key exchange is another");
            return Reply::Last(vec![Payload::notify(NotifyType::INVALID_SYNTAX, [])], why);
        };
        match method.respond(&ke.data, cx.host) {
            Ok((data, shared)) => {
                self.next_shared = Some(shared);
                Reply::Now(vec![Payload::KeyExchange(KeyExchange {
                    group: method.group(),
                    data,
                })])
            }
            Err(_) => Reply::Last(
                vec![Payload::notify(NotifyType::INVALID_SYNTAX, [])],
                Down::Protocol("the peer's public value is none"),
            ),
        }
    }

    /// The answer to IKE_INTERMEDIATE was sealed with the keys before; from here on the new ones.
    pub(super) fn after_answer(&mut self, header: &Header, cx: &mut Cx<'_>) {
        if header.exchange == ExchangeType::IKE_INTERMEDIATE {
            if let Some(shared) = self.next_shared.take() {
                self.next_keys(&shared, cx);
            }
        }
    }
}

/// What becomes of a first message.
pub(crate) enum InitAnswer {
    /// Send this; nothing is kept.
    Reply(Vec<u8>),
    /// Send this, and keep this half-open IKE SA.
    New(Vec<u8>, Box<IkeSa>),
    Ignore,
}

/// Answers IKE_SA_INIT. The cookie was seen to before.
pub(crate) fn answer_init(
    octets: &[u8],
    message: &Message,
    path: Path,
    id: IkeId,
    deadline: Time,
    cx: &mut Cx<'_>,
) -> InitAnswer {
    let payloads = message.payloads.as_slice();
    let spi_i = message.header.spi_i;
    let refuse = |kind, data: &[u8]| {
        let header = Header {
            from_initiator: false,
            response: true,
            ..message.header
        };
        let payloads = vec![Payload::notify(kind, data)];
        InitAnswer::Reply(Message { header, payloads }.encode())
    };
    let (Some(theirs), Some(ke), Some(ni)) = (payloads.sa(), payloads.ke(), payloads.nonce())
    else {
        return refuse(NotifyType::INVALID_SYNTAX, &[]);
    };
    let traits = traits(payloads);
    // Who asks is not known yet: any connection that may be meant offers its suites, and asks for its certificates.
    let connections = cx.config.connections.iter();
    let meant = connections.filter(|c| c.remote.is_none_or(|remote| remote == path.remote.ip()));
    let wanted = requests(meant.clone().map(|c| &c.trust));
    let mut configured: Vec<IkeProposal> = Vec::new();
    for proposal in meant.flat_map(|c| &c.ike) {
        // Thousands of peers have few suites among them.
        let may = proposal.additional.is_empty() || traits.intermediate;
        if may && !configured.contains(proposal) {
            configured.push(proposal.clone());
        }
    }
    let chosen = select(&ike_proposals(&configured, None), theirs, Some(ke.group));
    let suite = chosen.as_ref().and_then(IkeSuite::from_proposal);
    let (Some(chosen), Some(suite)) = (chosen, suite) else {
        return refuse(NotifyType::NO_PROPOSAL_CHOSEN, &[]);
    };
    if suite.method.group() != ke.group {
        let group = suite.method.group().0.to_be_bytes();
        return refuse(NotifyType::INVALID_KE_PAYLOAD, &group);
    }
    let Ok((public, shared)) = suite.method.respond(&ke.data, cx.host) else {
        return refuse(NotifyType::INVALID_SYNTAX, &[]);
    };
    let spi_r = host::ike_spi(cx.host);
    let mut sa = IkeSa::new(id, false, path, (spi_i, spi_r), cx.now);
    sa.state = State::HalfOpen(deadline);
    sa.ni = ni.to_vec();
    sa.nr = host::nonce(cx.host, NONCE_LEN);
    sa.nat = detect_nat(payloads, (spi_i, 0), path);
    sa.traits = traits;
    sa.inbox = super::Inbox::new(1);
    let mut answer = vec![
        Payload::Sa(vec![chosen]),
        Payload::KeyExchange(KeyExchange {
            group: suite.method.group(),
            data: public,
        }),
        Payload::Nonce(sa.nr.clone()),
    ];
    let additional = !suite.additional.is_empty();
    answer.extend(abilities(cx.config, (spi_i, spi_r), path, additional));
    answer.push(Payload::notify(NotifyType::CHILDLESS_IKEV2_SUPPORTED, []));
    // Some send a certificate only where they are asked for it (§1.2).
    answer.extend(wanted.into_iter().map(few_authorities));
    let header = sa.header(ExchangeType::IKE_SA_INIT, true, 0);
    let response = Message {
        header,
        payloads: answer,
    }
    .encode();
    sa.setup = Some(Box::new(Setup {
        request: octets.to_vec(),
        response: response.clone(),
        additional: suite.additional.iter().copied().collect(),
        ..Setup::default()
    }));
    sa.first_keys(suite, &shared, cx);
    if sa.is_dead() {
        return InitAnswer::Ignore;
    }
    InitAnswer::New(response, Box::new(sa))
}
