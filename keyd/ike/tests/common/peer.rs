// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A peer that can say anything: it sets an IKE SA up by a shared secret, and then sends what it is told to.

use super::host::TestHost;
use mml_ike::crypto::{skeyseed, Cipher, Hash, IkeKeys, Method, Opener, Sealer};
use mml_ike::event::Output;
use mml_ike::negotiate::IkeSuite;
use mml_ike::wire::{
    decode_payloads, encode_payloads, Auth, AuthMethod, Encr, ExchangeType, Group, Header, Id,
    KeyExchange, Message, NotifyType, Payload, PayloadType, Prf, Proposal, ProtocolId,
    TrafficSelector, Transform,
};
use mml_ike::Endpoint;
use std::net::SocketAddr;
use std::time::Duration;

pub struct RawPeer {
    pub endpoint: Endpoint,
    pub host: TestHost,
    pub now: Duration,
    pub next_id: u32,
    pub outputs: Vec<Output>,
    spi_i: u64,
    spi_r: u64,
    sealer: Option<Sealer>,
    opener: Option<Opener>,
}

const NI: [u8; 32] = [0x11; 32];

impl RawPeer {
    fn ends() -> (SocketAddr, SocketAddr) {
        (
            "192.0.2.1:500".parse().unwrap(),
            "192.0.2.2:500".parse().unwrap(),
        )
    }

    fn header(&self, exchange: ExchangeType) -> Header {
        Header {
            spi_i: self.spi_i,
            spi_r: self.spi_r,
            exchange,
            from_initiator: true,
            response: false,
            message_id: self.next_id,
        }
    }

    /// Hands a datagram over; what is sent back.
    pub fn hand_over(&mut self, octets: &[u8]) -> Option<Vec<u8>> {
        let (from, to) = Self::ends();
        self.endpoint
            .handle(octets, from, to, self.now, &mut self.host);
        let mut answer = None;
        while let Some(output) = self.endpoint.poll() {
            if let Output::Send(datagram) = &output {
                answer = Some(datagram.octets.clone());
            }
            self.outputs.push(output);
        }
        answer
    }

    fn proposal(protocol: ProtocolId, spi: Vec<u8>) -> Proposal {
        let mut transforms = vec![Transform::encr(Encr::AES_GCM_16, Some(128))];
        if protocol == ProtocolId::IKE {
            transforms.push(Transform::prf(Prf::HMAC_SHA2_256));
            transforms.push(Transform::ke(Group::CURVE25519));
        } else {
            transforms.push(Transform::esn(true));
        }
        Proposal {
            number: 1,
            protocol,
            spi,
            transforms,
        }
    }

    /// The payloads that ask for a plain child.
    pub fn child(spi: u32) -> Vec<Payload> {
        let any = TrafficSelector::any("0.0.0.0".parse().unwrap());
        vec![
            Payload::Sa(vec![Self::proposal(
                ProtocolId::ESP,
                spi.to_be_bytes().to_vec(),
            )]),
            Payload::TsInitiator(vec![any]),
            Payload::TsResponder(vec![any]),
        ]
    }

    /// Sets an IKE SA and a child of inbound SPI 0x1000 up as `id`, with `more` in the first message.
    pub fn connect(endpoint: Endpoint, id: &Id, psk: &[u8], more: Vec<Payload>) -> Self {
        let mut peer = RawPeer {
            endpoint,
            host: TestHost::new(77),
            now: Duration::from_secs(1),
            next_id: 0,
            outputs: Vec::new(),
            spi_i: 0x0102_0304_0506_0708,
            spi_r: 0,
            sealer: None,
            opener: None,
        };
        let (kex, data) = Method::X25519.begin(&mut peer.host).unwrap();
        let mut payloads = vec![
            Payload::Sa(vec![Self::proposal(ProtocolId::IKE, vec![])]),
            Payload::KeyExchange(KeyExchange {
                group: Group::CURVE25519,
                data,
            }),
            Payload::Nonce(NI.to_vec()),
        ];
        payloads.extend(more);
        let header = peer.header(ExchangeType::IKE_SA_INIT);
        let request = Message { header, payloads }.encode();
        let answer = peer.hand_over(&request).expect("an answer");
        let answer = Message::decode(&answer).unwrap();
        peer.spi_r = answer.header.spi_r;
        let (mut nr, mut public, mut suite) = (vec![], vec![], None);
        for payload in answer.payloads {
            match payload {
                Payload::Nonce(nonce) => nr = nonce,
                Payload::KeyExchange(ke) => public = ke.data,
                Payload::Sa(list) => suite = IkeSuite::from_proposal(&list[0]),
                _ => {}
            }
        }
        assert_eq!(suite.expect("a suite").cipher, Cipher::Aes128Gcm);
        let shared = kex.finish(&public).unwrap();
        let prf = Hash::Sha256;
        let seed = skeyseed(prf, &NI, &nr, &shared);
        let spis = (peer.spi_i, peer.spi_r);
        let keys = IkeKeys::derive(prf, Cipher::Aes128Gcm, &seed, (&NI, &nr), spis);
        peer.sealer = Some(Sealer::new(Cipher::Aes128Gcm, &keys.ei).unwrap());
        peer.opener = Some(Opener::new(Cipher::Aes128Gcm, &keys.er).unwrap());
        let maced = prf.prf(keys.pi.expose(), &[&id.body()]);
        let pad = prf.prf(psk, &[b"Key Pad for IKEv2"]);
        let proof = prf.prf(pad.expose(), &[&request, &nr, maced.expose()]);
        let mut payloads = vec![
            Payload::IdInitiator(id.clone()),
            Payload::Auth(Auth {
                method: AuthMethod::SHARED_KEY_MIC,
                data: proof.expose().to_vec(),
            }),
        ];
        payloads.extend(Self::child(0x1000));
        peer.next_id = 1;
        let answer = peer
            .ask(ExchangeType::IKE_AUTH, &payloads)
            .expect("an answer");
        assert!(
            answer.iter().any(|p| matches!(p, Payload::Auth(_))),
            "{answer:?}"
        );
        peer
    }

    /// Sends sealed payloads; the payloads that come back.
    pub fn ask(&mut self, exchange: ExchangeType, payloads: &[Payload]) -> Option<Vec<Payload>> {
        let (first, octets) = encode_payloads(payloads);
        self.ask_octets(exchange, first, &octets)
    }

    /// Sends any octets as what SK holds.
    pub fn ask_octets(
        &mut self,
        exchange: ExchangeType,
        first: PayloadType,
        octets: &[u8],
    ) -> Option<Vec<Payload>> {
        let header = self.header(exchange);
        self.next_id = self.next_id.wrapping_add(1);
        let length = 28 + 4 + 8 + octets.len() + 1 + 16;
        let mut datagram = header.encode(PayloadType::SK, length).to_vec();
        datagram.extend([first.0, 0]);
        datagram.extend(u16::try_from(length - 28).ok()?.to_be_bytes());
        let plain = [octets, &[0]].concat();
        let sealed = self.sealer.as_mut()?.seal(&datagram, &plain).ok()?;
        datagram.extend(sealed);
        let answer = self.hand_over(&datagram)?;
        let at = 32;
        let message = Message::decode(&answer).ok()?;
        let Some(Payload::Encrypted(sk)) = message.payloads.first() else {
            return None;
        };
        let plain = self.opener.as_ref()?.open(&answer[..at], &sk.body).ok()?;
        let (_, plain) = plain.expose().split_last()?;
        decode_payloads(sk.first, plain, true).ok()
    }
}

/// The first error among payloads.
pub fn error(payloads: &[Payload]) -> Option<NotifyType> {
    payloads.iter().find_map(|p| match p {
        Payload::Notify(n) if n.kind.is_error() => Some(n.kind),
        _ => None,
    })
}
