// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Choosing a suite (RFC 7296 §2.7, §3.3), selectors (§2.9), and zones (docs/wire.md §3.2).

use crate::config::{ChildConfig, IkeProposal, ZonePolicy};
use crate::crypto::{Cipher, Hash, Method, ZoneKeyLengths};
use crate::wire::{
    Encr, Group, Prf, Proposal, ProtocolId, TrafficSelector, Transform, TransformType,
    ZoneMapPayload, ZoneTransform,
};
use pfkey::Algorithm;

/// The algorithms of an IKE SA.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IkeSuite {
    /// What seals SK.
    pub cipher: Cipher,
    /// The PRF.
    pub prf: Hash,
    /// The key exchange of IKE_SA_INIT, or of the rekeying.
    pub method: Method,
    /// The additional key exchanges that take place (RFC 9370).
    pub additional: Vec<Method>,
}

impl IkeSuite {
    /// The suite one chosen proposal is.
    pub fn from_proposal(proposal: &Proposal) -> Option<Self> {
        let encr = proposal.of(TransformType::ENCR).next()?;
        let prf = proposal.of(TransformType::PRF).next()?;
        let ke = proposal.of(TransformType::KE).next()?;
        Some(IkeSuite {
            cipher: Cipher::from_encr(Encr(encr.id), encr.key_bits)?,
            prf: Hash::from_prf(Prf(prf.id))?,
            method: Method::from_group(Group(ke.id))?,
            additional: additional(proposal)?,
        })
    }
}

/// The additional key exchanges of a chosen proposal; NONE is one that doesn't take place.
pub(crate) fn additional(proposal: &Proposal) -> Option<Vec<Method>> {
    let chosen = (TransformType::ADDKE1.0..=TransformType::ADDKE7.0)
        .filter_map(|kind| proposal.of(TransformType(kind)).next());
    chosen
        .filter(|transform| transform.id != Group::NONE.0)
        .map(|transform| Method::from_group(Group(transform.id)))
        .collect()
}

/// The proposals of an IKE SA, with the sender's SPI where it is rekeyed.
pub(crate) fn ike_proposals(configured: &[IkeProposal], spi: Option<u64>) -> Vec<Proposal> {
    let spi = spi.map_or(Vec::new(), |spi| spi.to_be_bytes().to_vec());
    (1u8..)
        .zip(configured)
        .map(|(number, one)| {
            let mut transforms = Vec::new();
            transforms.extend(one.ciphers.iter().map(|cipher| encr(*cipher)));
            transforms.extend(one.prfs.iter().map(|prf| Transform::prf(prf.prf_number())));
            transforms.extend(one.methods.iter().map(|m| Transform::ke(m.group())));
            transforms.extend(addke(&one.additional));
            Proposal {
                number,
                protocol: ProtocolId::IKE,
                spi: spi.clone(),
                transforms,
            }
        })
        .collect()
}

/// The transforms of additional key exchanges, ADDKE1 first.
fn addke(additional: &[Vec<Method>]) -> impl Iterator<Item = Transform> + '_ {
    let kinds = TransformType::ADDKE1.0..=TransformType::ADDKE7.0;
    kinds.zip(additional).flat_map(|(kind, methods)| {
        let transform = move |m: &Method| Transform::new(TransformType(kind), m.group().0);
        methods.iter().map(transform)
    })
}

fn encr(cipher: Cipher) -> Transform {
    let (encr, bits) = cipher.encr();
    Transform::encr(encr, bits)
}

/// The one proposal of an ESP child. `esn` are the kinds of sequence number on offer; `exchange` says that
/// CREATE_CHILD_SA asks, which may have a key exchange of its own (IKE_AUTH's child has the IKE SA's, §1.2).
pub(crate) fn esp_proposals(
    child: &ChildConfig,
    spi: u32,
    exchange: bool,
    esn: &[bool],
) -> Vec<Proposal> {
    let mut transforms: Vec<_> = child.ciphers.iter().map(|cipher| encr(*cipher)).collect();
    if exchange {
        transforms.extend(child.methods.iter().map(|m| Transform::ke(m.group())));
        transforms.extend(addke(&child.additional));
    }
    transforms.extend(esn.iter().map(|esn| Transform::esn(*esn)));
    vec![Proposal {
        number: 1,
        protocol: ProtocolId::ESP,
        spi: spi.to_be_bytes().to_vec(),
        transforms,
    }]
}

/// The first of ours that goes with one of theirs, cut down to one transform a kind, with their number and SPI.
///
/// `ke` is the method whose public value came along: it is taken if it is one of ours, so that no round trip is lost.
pub(crate) fn select(
    ours: &[Proposal],
    theirs: &[Proposal],
    ke: Option<Group>,
) -> Option<Proposal> {
    ours.iter().find_map(|our| {
        let matching = |their: &&Proposal| our.protocol == their.protocol;
        theirs
            .iter()
            .filter(matching)
            .find_map(|their| combine(our, their, ke))
    })
}

fn combine(ours: &Proposal, theirs: &Proposal, ke: Option<Group>) -> Option<Proposal> {
    let mut kinds: Vec<TransformType> = Vec::new();
    for transform in theirs.transforms.iter().chain(&ours.transforms) {
        if !kinds.contains(&transform.kind) {
            kinds.push(transform.kind);
        }
    }
    kinds.sort();
    let mut transforms = Vec::new();
    for kind in kinds {
        let both = |our: &&Transform| {
            theirs.of(kind).any(|their| {
                (their.id, their.key_bits) == (our.id, our.key_bits) && !their.unknown_attribute
            })
        };
        let hinted = ke.filter(|_| kind == TransformType::KE);
        let chosen = ours
            .of(kind)
            .filter(both)
            .find(|our| hinted.is_some_and(|group| our.id == group.0))
            .or_else(|| ours.of(kind).find(both));
        match chosen {
            Some(transform) => transforms.push(*transform),
            None => {
                // A kind only they have is left out if they offer to go without (NONE, 0; not so for ESN, where 0 is
                // a choice).
                let ours_has = ours.of(kind).next().is_some();
                let none = theirs.of(kind).find(|t| t.id == 0);
                match none {
                    Some(none) if !ours_has && kind != TransformType::ESN => transforms.push(*none),
                    _ => return None,
                }
            }
        }
    }
    Some(Proposal {
        number: theirs.number,
        protocol: theirs.protocol,
        spi: theirs.spi.clone(),
        transforms,
    })
}

/// The answer to our proposals, if it is one of them cut down to one transform a kind (§2.7).
pub(crate) fn accept<'a>(ours: &[Proposal], answer: &'a [Proposal]) -> Option<&'a Proposal> {
    let [chosen] = answer else { return None };
    let our = ours
        .iter()
        .find(|our| our.number == chosen.number && our.protocol == chosen.protocol)?;
    let offered = |t: &Transform| {
        our.of(t.kind)
            .any(|o| (o.id, o.key_bits) == (t.id, t.key_bits))
    };
    let once = |t: &Transform| chosen.of(t.kind).count() == 1;
    let complete = our
        .transforms
        .iter()
        .all(|t| chosen.of(t.kind).next().is_some());
    (complete && chosen.transforms.iter().all(|t| offered(t) && once(t))).then_some(chosen)
}

/// An ESP child's chosen transforms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EspSuite {
    /// What seals it.
    pub cipher: Cipher,
    /// Whether sequence numbers have 64 bits.
    pub esn: bool,
}

impl EspSuite {
    pub(crate) fn from_proposal(proposal: &Proposal) -> Option<Self> {
        let encr = proposal.of(TransformType::ENCR).next()?;
        let esn = proposal.of(TransformType::ESN).next()?;
        Some(EspSuite {
            cipher: Cipher::from_encr(Encr(encr.id), encr.key_bits)?,
            esn: esn.id == 1,
        })
    }

    pub(crate) fn lengths(&self) -> ZoneKeyLengths {
        ZoneKeyLengths {
            key: self.cipher.key_len(),
            salt: self.cipher.keymat_len() - self.cipher.key_len(),
        }
    }
}

/// The ESP SPI in a proposal.
pub(crate) fn esp_spi(proposal: &Proposal) -> Option<u32> {
    let spi = u32::from_be_bytes(proposal.spi.as_slice().try_into().ok()?);
    (spi > 255).then_some(spi)
}

/// What of the peer's selectors the configuration permits, in the peer's order (§2.9). Empty: TS_UNACCEPTABLE.
pub(crate) fn narrow(theirs: &[TrafficSelector], ours: &[TrafficSelector]) -> Vec<TrafficSelector> {
    let mut narrowed: Vec<TrafficSelector> = Vec::new();
    for their in theirs {
        for both in ours.iter().filter_map(|our| our.intersect(their)) {
            if !narrowed.iter().any(|have| have.covers(&both)) {
                narrowed.push(both);
            }
        }
    }
    narrowed
}

/// Whether an answer's selectors lie within those asked for.
pub(crate) fn is_within(answer: &[TrafficSelector], asked: &[TrafficSelector]) -> bool {
    !answer.is_empty()
        && answer
            .iter()
            .all(|ts| asked.iter().any(|ask| ask.covers(ts)))
}

/// A zone's chosen transform, if it is one that is spoken here.
pub(crate) fn zone_algorithm(transform: &ZoneTransform) -> Option<Algorithm> {
    Algorithm::from_encr(transform.encr.0).filter(|a| a.takes_bits(transform.key_bits))
}

/// Octets of each zone's key and salt.
pub(crate) fn zone_lengths(transforms: &[ZoneTransform]) -> Vec<ZoneKeyLengths> {
    let lengths = |transform: &ZoneTransform| ZoneKeyLengths {
        key: usize::from(transform.key_bits / 8),
        salt: pfkey::SALT_LEN,
    };
    transforms.iter().map(lengths).collect()
}

/// What a request's Zone Map says to ours: the first transform of ours each zone's candidates have. `None`: no zones
/// (docs/wire.md 3.1a).
pub(crate) fn select_zones(
    policy: &ZonePolicy,
    theirs: &ZoneMapPayload,
) -> Option<Vec<ZoneTransform>> {
    if policy.map != theirs.map || policy.transforms.len() != theirs.transforms.len() {
        return None;
    }
    let pick = |(ours, theirs): (&Vec<ZoneTransform>, &Vec<ZoneTransform>)| {
        ours.iter()
            .find(|our| theirs.contains(our) && zone_algorithm(our).is_some())
            .copied()
    };
    policy
        .transforms
        .iter()
        .zip(&theirs.transforms)
        .map(pick)
        .collect()
}

/// A response's choice, if it is one of what `policy` offered (docs/wire.md 3.1a).
pub(crate) fn accept_zones(
    policy: &ZonePolicy,
    answer: &ZoneMapPayload,
) -> Option<Vec<ZoneTransform>> {
    if policy.map != answer.map || policy.transforms.len() != answer.transforms.len() {
        return None;
    }
    let only = |(ours, chosen): (&Vec<ZoneTransform>, &Vec<ZoneTransform>)| match chosen.as_slice()
    {
        [one] if ours.contains(one) && zone_algorithm(one).is_some() => Some(*one),
        _ => None,
    };
    policy
        .transforms
        .iter()
        .zip(&answer.transforms)
        .map(only)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours() -> Vec<IkeProposal> {
        vec![IkeProposal {
            ciphers: vec![Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305],
            prfs: vec![Hash::Sha256, Hash::Sha384],
            methods: vec![Method::X25519, Method::P256],
            additional: vec![],
        }]
    }

    #[test]
    fn the_best_of_ours_that_they_have_is_chosen() {
        let mut theirs = ours();
        theirs[0].ciphers.reverse();
        theirs[0].prfs = vec![Hash::Sha384];
        let chosen = select(
            &ike_proposals(&ours(), None),
            &ike_proposals(&theirs, Some(9)),
            None,
        )
        .unwrap();
        let suite = IkeSuite::from_proposal(&chosen).unwrap();
        assert_eq!(
            (suite.cipher, suite.prf, suite.method),
            (Cipher::Aes256Gcm, Hash::Sha384, Method::X25519)
        );
        assert_eq!(chosen.spi, 9u64.to_be_bytes());
        assert!(accept(&ike_proposals(&theirs, None), &[chosen]).is_some());
    }

    #[test]
    fn the_method_whose_value_came_along_is_taken_if_it_is_ours() {
        let wire = ike_proposals(&ours(), None);
        let chosen = |ke| {
            IkeSuite::from_proposal(&select(&wire, &wire, ke).unwrap())
                .unwrap()
                .method
        };
        assert_eq!(chosen(Some(Group::ECP_256)), Method::P256);
        assert_eq!(chosen(Some(Group::ECP_384)), Method::X25519);
    }

    #[test]
    fn a_kind_they_insist_on_and_we_lack_is_no_match_but_an_offer_to_go_without_is() {
        let mut theirs = ike_proposals(&ours(), None);
        theirs[0]
            .transforms
            .push(Transform::new(TransformType::ADDKE1, Group::ML_KEM_768.0));
        assert_eq!(select(&ike_proposals(&ours(), None), &theirs, None), None);
        theirs[0]
            .transforms
            .push(Transform::new(TransformType::ADDKE1, 0));
        let chosen = select(&ike_proposals(&ours(), None), &theirs, None).unwrap();
        assert_eq!(IkeSuite::from_proposal(&chosen).unwrap().additional, vec![]);
    }

    #[test]
    fn an_unknown_attribute_makes_a_transform_another() {
        let mut theirs = ike_proposals(&ours(), None);
        theirs[0].transforms[0].unknown_attribute = true;
        let chosen = select(&ike_proposals(&ours(), None), &theirs, None).unwrap();
        assert_eq!(
            IkeSuite::from_proposal(&chosen).unwrap().cipher,
            Cipher::ChaCha20Poly1305
        );
    }

    #[test]
    fn an_answer_with_two_of_a_kind_or_one_never_offered_is_refused() {
        let wire = ike_proposals(&ours(), None);
        assert!(accept(&wire, &wire).is_none(), "not cut down");
        let mut chosen = select(&wire, &wire, None).unwrap();
        chosen.transforms[0] = Transform::encr(Encr::AES_GCM_16, Some(128));
        assert!(accept(&wire, &[chosen]).is_none());
    }

    #[test]
    fn selectors_are_narrowed_to_what_both_want() {
        let net = |a: &str, bits| TrafficSelector::prefix(a.parse().unwrap(), bits);
        let all = net("0.0.0.0", 0);
        assert_eq!(
            narrow(&[all], &[net("10.1.0.0", 16)]),
            vec![net("10.1.0.0", 16)]
        );
        assert_eq!(
            narrow(&[net("10.1.2.0", 24)], &[net("10.1.0.0", 16)]),
            vec![net("10.1.2.0", 24)]
        );
        assert_eq!(
            narrow(&[net("10.2.0.0", 24)], &[net("10.1.0.0", 16)]),
            vec![]
        );
        let tcp = all.with(6, 443);
        assert_eq!(narrow(&[all], &[tcp]), vec![tcp]);
        assert!(is_within(&[tcp], &[all]) && !is_within(&[all], &[tcp]) && !is_within(&[], &[all]));
    }
}
