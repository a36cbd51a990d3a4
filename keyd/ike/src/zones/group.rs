// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Groups: one CSA each, as CSA_DISTRIBUTE and the answer to CSA_REQUEST carry them (docs/wire.md 3.1d, 3.1f).

use crate::crypto::{Hash, KeyPair};
use crate::event::RelayCsa;
use crate::negotiate::zone_algorithm;
use crate::secret::Secret;
use crate::wire::{
    CsaIdentity, Direction, Encr, Payload, Prf, SecretPayload, TrafficSelector, ZoneMapPayload,
};

/// The zone of SECRET that K_FA goes as (docs/ike.md).
const K_FA_ZONE: u8 = 0;

/// A group as it comes: what its relay needs, and K_FA with the PRF that makes tokens of it.
pub(crate) struct Group {
    pub csa: RelayCsa,
    pub k_fa: Option<(Hash, Secret)>,
}

/// The payloads of a group.
pub(crate) fn payloads(
    csa: &RelayCsa,
    zones: &ZoneMapPayload,
    k_fa: Option<(Hash, Secret)>,
) -> Vec<Payload> {
    let secret = |direction, keys: &KeyPair| {
        Payload::Secret(SecretPayload {
            direction,
            zone: 1,
            encr: csa.transform.encr,
            key: keys.key.clone(),
            salt: keys.salt.clone(),
        })
    };
    let mut payloads = vec![
        Payload::CsaIdentity(csa.identity),
        Payload::TsInitiator(csa.ts_source.clone()),
        Payload::TsResponder(csa.ts_home.clone()),
        Payload::ZoneMap(zones.clone()),
        secret(Direction::Out, &csa.keys_out),
        secret(Direction::In, &csa.keys_in),
    ];
    if let Some((prf, key)) = k_fa {
        payloads.push(Payload::Secret(SecretPayload {
            direction: Direction::Out,
            zone: K_FA_ZONE,
            encr: Encr(prf.prf_number().0),
            key,
            salt: Secret::default(),
        }));
    }
    payloads
}

/// Cuts payloads into groups, each from its CSA Identity on.
pub(crate) fn split(payloads: &[Payload]) -> Vec<&[Payload]> {
    let starts: Vec<usize> = payloads
        .iter()
        .enumerate()
        .filter(|(_, payload)| matches!(payload, Payload::CsaIdentity(_)))
        .map(|(at, _)| at)
        .collect();
    let ends = starts.iter().skip(1).copied().chain([payloads.len()]);
    starts
        .iter()
        .zip(ends)
        .filter_map(|(start, end)| payloads.get(*start..end))
        .collect()
}

/// What the group's payloads say, if they go together.
pub(crate) fn parse(payloads: &[Payload]) -> Option<Group> {
    let mut identity: Option<CsaIdentity> = None;
    let (mut source, mut home, mut map) = (None, None, None);
    let (mut out, mut into, mut k_fa) = (None, None, None);
    for payload in payloads {
        match payload {
            Payload::CsaIdentity(one) => identity = Some(*one),
            Payload::TsInitiator(list) => source = Some(list),
            Payload::TsResponder(list) => home = Some(list),
            Payload::ZoneMap(one) => map = Some(one),
            Payload::Secret(secret) => match (secret.zone, secret.direction) {
                (K_FA_ZONE, _) => k_fa = Some(secret),
                (1, Direction::Out) => out = Some(secret),
                (1, Direction::In) => into = Some(secret),
                // A relay is not to have it.
                _ => return None,
            },
            _ => {}
        }
    }
    let (identity, map, home) = (identity?, map?, home?);
    let Some([transform]) = map.transforms.first().map(Vec::as_slice) else {
        return None;
    };
    zone_algorithm(transform)?;
    let keys = |secret: &SecretPayload| {
        let sound = secret.encr == transform.encr
            && secret.key.len() == usize::from(transform.key_bits / 8)
            && secret.salt.len() == pfkey::SALT_LEN;
        sound.then(|| KeyPair {
            key: secret.key.clone(),
            salt: secret.salt.clone(),
        })
    };
    let k_fa = match k_fa {
        Some(secret) => Some((Hash::from_prf(Prf(secret.encr.0))?, secret.key.clone())),
        None => None,
    };
    let sound = identity.spi_in > 255
        && identity.spi_out > 255
        && map.map.mode() == identity.mode
        && !home.is_empty();
    sound.then_some(())?;
    Some(Group {
        csa: RelayCsa {
            identity,
            ts_source: source?.clone(),
            ts_home: home.clone(),
            map: map.map,
            transform: *transform,
            keys_out: keys(out?)?,
            keys_in: keys(into?)?,
        },
        k_fa,
    })
}

/// Whether the selectors are of that host alone, or hold it.
pub(crate) fn is_of(selectors: &[TrafficSelector], home: std::net::IpAddr) -> bool {
    selectors.iter().any(|ts| ts.holds(home))
}
