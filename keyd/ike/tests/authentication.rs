// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Raw keys and certificates: who gets in, and who doesn't.

mod common;

use common::host::TestHost;
use common::sim::*;
use mml_ike::auth::{
    holds_address, AuthError, Authorities, Credential, IdMatch, PublicKey, SigningKey, Trust,
};
use mml_ike::config::{Config, Connection};
use mml_ike::event::Event;
use mml_ike::wire::{CertEncoding, CertReq, Id, Message, Payload};
use rcgen::{
    date_time_ymd, BasicConstraints, CertificateParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
    PKCS_ED25519,
};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// A date within every certificate made here: 1 July 2030.
const TODAY: u64 = 1_909_094_400;

fn key_of(algorithm: &'static rcgen::SignatureAlgorithm) -> (KeyPair, Arc<SigningKey>) {
    let pair = KeyPair::generate_for(algorithm).unwrap();
    let key = SigningKey::from_pkcs8(&pair.serialize_der(), &TestHost::new(1)).unwrap();
    (pair, Arc::new(key))
}

fn rsa() -> Arc<SigningKey> {
    let key = include_bytes!("vectors/rsa-2048-test-key.pk8");
    Arc::new(SigningKey::from_pkcs8(key, &TestHost::new(1)).unwrap())
}

fn raw(local: &Arc<SigningKey>, remote: &Arc<SigningKey>, c: &mut Connection) {
    c.credential = Credential::RawKey(Arc::clone(local));
    c.trust = Trust::RawKey(PublicKey::from_spki(&remote.public()).unwrap());
}

#[test]
fn every_kind_of_key_signs_and_is_checked() {
    let keys = [
        key_of(&PKCS_ED25519).1,
        key_of(&PKCS_ECDSA_P256_SHA256).1,
        key_of(&PKCS_ECDSA_P384_SHA384).1,
        rsa(),
    ];
    for a in &keys {
        for b in &keys {
            up(pair_with(1, |c, first| {
                if first {
                    raw(a, b, c)
                } else {
                    raw(b, a, c)
                }
            }));
        }
    }
}

#[test]
fn another_key_than_the_one_known_is_refused() {
    let (known, other) = (key_of(&PKCS_ED25519).1, key_of(&PKCS_ED25519).1);
    let b = key_of(&PKCS_ED25519).1;
    let mut net = pair_with(2, |c, first| {
        if first {
            raw(&other, &b, c)
        } else {
            raw(&b, &known, c)
        }
    });
    assert_eq!(refusal(&mut net), Some(AuthError::Signature));
}

#[test]
fn a_shared_secret_does_not_stand_in_for_a_key() {
    let b = key_of(&PKCS_ED25519).1;
    let mut net = pair_with(3, |c, first| {
        if !first {
            let secret = c.credential.clone();
            raw(&b, &b, c);
            c.credential = secret;
        }
    });
    assert_eq!(refusal(&mut net), Some(AuthError::Method));
}

/// What node 1 finds wrong with node 0.
fn refusal(net: &mut Net) -> Option<AuthError> {
    net.initiate(0, 1);
    net.run(30 * SECOND);
    assert!(net
        .nodes
        .iter()
        .all(|n| n.kernel.is_empty() && n.endpoint.is_empty()));
    net.nodes[1].find(|e| match e {
        Event::AuthenticationFailed { why, .. } => Some(*why),
        _ => None,
    })
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        Authority(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    fn der(&self) -> Vec<u8> {
        self.0.der().to_vec()
    }

    /// An authority below this one.
    fn below(&self, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        Authority(CertifiedIssuer::signed_by(params, key, &self.0).unwrap())
    }

    fn issue(&self, key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["a.test".into()]).unwrap();
        change(&mut params);
        params.signed_by(key, &self.0).unwrap().der().to_vec()
    }
}

/// Node 0 has a certificate from `authority`; node 1 trusts `trusted`, and proves itself by a raw key.
fn with_certificate(
    seed: u64,
    trusted: &Authority,
    chain: Vec<Vec<u8>>,
    key: &Arc<SigningKey>,
    id: Id,
) -> Net {
    let b = key_of(&PKCS_ED25519).1;
    let authorities = Authorities::new([trusted.der().as_slice()]).unwrap();
    let trust = Trust::Authorities(Arc::new(authorities));
    let mut net = pair_with(seed, |c, first| {
        if first {
            raw(key, &b, c);
            c.credential = Credential::Certificate(Arc::clone(key), chain.clone());
            c.local_id = id.clone();
        } else {
            c.credential = Credential::RawKey(Arc::clone(&b));
            c.trust = trust.clone();
            c.remote_id = IdMatch::Any;
        }
    });
    let now = net.now;
    net.nodes[1].endpoint.set_wall_clock(TODAY, now);
    net
}

#[test]
fn certificates_of_every_kind_get_in() {
    let root = Authority::new("root");
    for algorithm in [
        &PKCS_ED25519,
        &PKCS_ECDSA_P256_SHA256,
        &PKCS_ECDSA_P384_SHA384,
    ] {
        let (pair, key) = key_of(algorithm);
        let chain = vec![root.issue(&pair, |_| {})];
        up(with_certificate(4, &root, chain, &key, Id::fqdn("a.test")));
    }
}

/// RFC 7296 §1.2, §3.7: some send a certificate only where they were asked for it.
#[test]
fn who_answers_names_its_authorities_in_its_first_message() {
    let root = Authority::new("root");
    let (pair, key) = key_of(&PKCS_ED25519);
    let chain = vec![root.issue(&pair, |_| {})];
    let mut net = with_certificate(19, &root, chain, &key, Id::fqdn("a.test"));
    let seen: Rc<RefCell<Vec<Payload>>> = Rc::default();
    let log = Rc::clone(&seen);
    net.filter(move |number, datagram| {
        if number == 1 {
            let message = Message::decode(&datagram.octets).unwrap();
            log.borrow_mut().extend(message.payloads);
        }
        Fate::Pass
    });
    up(net);
    let hashes = Authorities::new([root.der().as_slice()]).unwrap().hashes();
    let wanted = Payload::CertReq(CertReq {
        encoding: CertEncoding::X509_SIGNATURE,
        authorities: hashes,
    });
    assert!(seen.borrow().contains(&wanted));
}

#[test]
fn a_chain_with_an_authority_between_gets_in_and_without_it_does_not() {
    let root = Authority::new("root");
    let between = root.below("between");
    let (pair, key) = key_of(&PKCS_ED25519);
    let end = between.issue(&pair, |_| {});
    let whole = vec![end.clone(), between.der()];
    up(with_certificate(5, &root, whole, &key, Id::fqdn("a.test")));
    let mut net = with_certificate(6, &root, vec![end], &key, Id::fqdn("a.test"));
    assert_eq!(refusal(&mut net), Some(AuthError::Certificate));
}

#[test]
fn a_certificate_is_refused_when_it_is_expired_untrusted_or_anothers() {
    let root = Authority::new("root");
    let (pair, key) = key_of(&PKCS_ED25519);
    let id = || Id::fqdn("a.test");
    let expired = root.issue(&pair, |p| {
        p.not_before = date_time_ymd(2020, 1, 1);
        p.not_after = date_time_ymd(2021, 1, 1);
    });
    let mut net = with_certificate(7, &root, vec![expired], &key, id());
    assert_eq!(refusal(&mut net), Some(AuthError::Certificate));

    let untrusted = Authority::new("root").issue(&pair, |_| {});
    let mut net = with_certificate(8, &root, vec![untrusted], &key, id());
    assert_eq!(refusal(&mut net), Some(AuthError::Certificate));

    let good = root.issue(&pair, |_| {});
    let mut net = with_certificate(9, &root, vec![good.clone()], &key, Id::fqdn("ha.test"));
    assert_eq!(refusal(&mut net), Some(AuthError::Name));

    let stolen = key_of(&PKCS_ED25519).1;
    let mut net = with_certificate(10, &root, vec![good], &stolen, id());
    assert_eq!(refusal(&mut net), Some(AuthError::Signature));

    let for_mail = root.issue(&pair, |p| {
        p.extended_key_usages = vec![ExtendedKeyUsagePurpose::EmailProtection];
    });
    let mut net = with_certificate(11, &root, vec![for_mail], &key, id());
    assert_eq!(refusal(&mut net), Some(AuthError::Certificate));

    let mut net = with_certificate(12, &root, vec![], &key, id());
    assert_eq!(refusal(&mut net), Some(AuthError::Certificate));
}

#[test]
fn a_clock_that_is_wrong_refuses_what_is_not_valid_by_it() {
    let root = Authority::new("root");
    let (pair, key) = key_of(&PKCS_ED25519);
    let chain = vec![root.issue(&pair, |p| p.not_before = date_time_ymd(2029, 1, 1))];
    let mut net = with_certificate(13, &root, chain, &key, Id::fqdn("a.test"));
    let now = net.now;
    net.nodes[1].endpoint.set_wall_clock(1_000_000_000, now);
    assert_eq!(refusal(&mut net), Some(AuthError::Certificate));
}

#[test]
fn an_address_and_a_distinguished_name_are_names_too() {
    let root = Authority::new("root");
    let (pair, key) = key_of(&PKCS_ECDSA_P256_SHA256);
    let address: std::net::IpAddr = "192.0.2.1".parse().unwrap();
    let chain = vec![root.issue(&pair, |p| {
        p.subject_alt_names = vec![rcgen::SanType::IpAddress(address)];
        p.distinguished_name = rcgen::DistinguishedName::new();
        p.distinguished_name.push(DnType::CommonName, "host a");
    })];
    up(with_certificate(
        14,
        &root,
        chain.clone(),
        &key,
        Id::from(address),
    ));
    assert!(
        holds_address(&chain[0], address),
        "what makes it the FA of that address"
    );
    assert!(!holds_address(&chain[0], "192.0.2.77".parse().unwrap()));
    // CN=host a, a UTF8String.
    let mut dn = vec![
        0x30, 0x11, 0x31, 0x0f, 0x30, 0x0d, 0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, 0x06,
    ];
    dn.extend(b"host a");
    let id = Id {
        kind: mml_ike::wire::IdType::DER_ASN1_DN,
        data: dn,
    };
    up(with_certificate(15, &root, chain.clone(), &key, id));
    let other: std::net::IpAddr = "192.0.2.77".parse().unwrap();
    let mut net = with_certificate(16, &root, chain, &key, Id::from(other));
    assert_eq!(refusal(&mut net), Some(AuthError::Name));
}

#[test]
fn a_large_chain_goes_in_fragments() {
    let root = Authority::new("root");
    let between = root.below(&"a long name ".repeat(40));
    let (pair, key) = key_of(&PKCS_ECDSA_P384_SHA384);
    let chain = vec![between.issue(&pair, |_| {}), between.der()];
    let mut net = with_certificate(17, &root, chain, &key, Id::fqdn("a.test"));
    net.initiate(0, 1);
    net.run(SECOND);
    net.assert_same(0, 1);
    assert!(net.carried > 4, "IKE_AUTH was cut up");
}

#[test]
fn no_secret_is_shown_by_any_event_or_configuration() {
    let net = up(pair(18));
    let config: &Config = net.nodes[0].endpoint.config();
    let shown = format!("{:?} {config:?}", net.nodes[0].events);
    assert!(!shown.contains("open secret"));
    assert!(
        shown.contains("Secret(16 octets)"),
        "keys are there, and only their size is shown"
    );
    let octets = format!("{:?}", b"an open secret".as_slice());
    assert!(!shown.contains(octets.trim_matches(['[', ']'])));
}
