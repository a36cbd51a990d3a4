// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The payloads, one type each (RFC 7296 §3.3–3.16, RFC 7383, docs/wire.md §3.1).

use super::reader::{len16, len8, Put, Reader};
use super::zone::{CsaData, CsaIdentity, SecretPayload, ZoneMapPayload};
use super::{
    sa, ts, AuthMethod, CertEncoding, CfgAttribute, CfgType, Error, Group, IdType, NotifyType,
    PayloadType, Proposal, ProtocolId, TrafficSelector,
};
use std::fmt;

/// The shortest and longest nonce (RFC 7296 §3.9), in octets.
pub const NONCE_LEN: std::ops::RangeInclusive<usize> = 16..=256;

/// A public value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyExchange {
    /// Of which method.
    pub group: Group,
    /// As that method writes it.
    pub data: Vec<u8>,
}

/// An identity, as IDi and IDr carry it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    /// What kind of name it is.
    pub kind: IdType,
    /// The name.
    pub data: Vec<u8>,
}

impl Id {
    /// Host name.
    pub fn fqdn(name: &str) -> Self {
        Id {
            kind: IdType::FQDN,
            data: name.as_bytes().to_vec(),
        }
    }

    /// The octets AUTH is over: the payload without its generic header (§2.15).
    pub fn body(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4 + self.data.len());
        out.put(&[self.kind.0, 0, 0, 0]);
        out.put(&self.data);
        out
    }

    fn decode(mut r: Reader<'_>) -> Result<Self, Error> {
        let kind = IdType(r.u8()?);
        r.bytes(3)?;
        let data = r.rest().to_vec();
        let sound = match kind {
            IdType::IPV4_ADDR => data.len() == 4,
            IdType::IPV6_ADDR => data.len() == 16,
            _ => true,
        };
        if !sound {
            return Err(Error::Value("identity's length"));
        }
        Ok(Id { kind, data })
    }
}

impl From<std::net::IpAddr> for Id {
    fn from(address: std::net::IpAddr) -> Self {
        Id {
            kind: if address.is_ipv4() {
                IdType::IPV4_ADDR
            } else {
                IdType::IPV6_ADDR
            },
            data: super::reader::octets(address),
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kind, self.data.as_slice()) {
            (IdType::IPV4_ADDR, &[a, b, c, d]) => {
                write!(f, "{}", std::net::Ipv4Addr::new(a, b, c, d))
            }
            (IdType::IPV6_ADDR, octets) if octets.len() == 16 => {
                let octets: [u8; 16] = octets.try_into().unwrap_or_default();
                write!(f, "{}", std::net::Ipv6Addr::from(octets))
            }
            (IdType::FQDN | IdType::RFC822_ADDR, octets) if octets.is_ascii() => {
                // Escaped: a log line is no place for a peer's control characters.
                write!(f, "{}", octets.escape_ascii())
            }
            (kind, octets) => {
                write!(f, "{kind}:")?;
                octets.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
            }
        }
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Id({self})")
    }
}

/// A certificate or bare key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cert {
    /// How it is written.
    pub encoding: CertEncoding,
    /// DER.
    pub data: Vec<u8>,
}

/// Which certificates the sender would take.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertReq {
    /// How they should be written.
    pub encoding: CertEncoding,
    /// SHA-1 hashes of the trusted CAs' SubjectPublicKeyInfo, 20 octets each; none for any, or for raw keys.
    pub authorities: Vec<[u8; 20]>,
}

/// The proof of an identity.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Auth {
    /// How it is proved.
    pub method: AuthMethod,
    /// As the method writes it.
    pub data: Vec<u8>,
}

/// A notification.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notify {
    /// Whose SPI follows; NONE without one.
    pub protocol: ProtocolId,
    /// An SPI, or nothing.
    pub spi: Vec<u8>,
    /// What it says.
    pub kind: NotifyType,
    /// More of it.
    pub data: Vec<u8>,
}

impl Notify {
    /// One that concerns no SPI.
    pub fn new(kind: NotifyType, data: impl Into<Vec<u8>>) -> Self {
        Notify {
            protocol: ProtocolId::NONE,
            spi: Vec::new(),
            kind,
            data: data.into(),
        }
    }

    /// One about the ESP SA of that SPI.
    pub fn about(kind: NotifyType, spi: u32) -> Self {
        Notify {
            protocol: ProtocolId::ESP,
            spi: spi.to_be_bytes().to_vec(),
            kind,
            data: Vec::new(),
        }
    }

    /// The ESP SPI it concerns.
    pub fn esp_spi(&self) -> Option<u32> {
        let octets = self.spi.as_slice().try_into().ok()?;
        (self.protocol == ProtocolId::ESP).then(|| u32::from_be_bytes(octets))
    }

    fn decode(mut r: Reader<'_>) -> Result<Self, Error> {
        let protocol = ProtocolId(r.u8()?);
        let spi_len = usize::from(r.u8()?);
        let kind = NotifyType(r.u16()?);
        Ok(Notify {
            protocol,
            spi: r.bytes(spi_len)?.to_vec(),
            kind,
            data: r.rest().to_vec(),
        })
    }
}

/// Which SAs the sender has deleted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Delete {
    /// The IKE SA itself.
    Ike,
    /// ESP SAs, by the SPIs of the sender's inbound half.
    Esp(Vec<u32>),
    /// SAs of another protocol, of which there are none here.
    Other(ProtocolId),
}

impl Delete {
    fn decode(mut r: Reader<'_>) -> Result<Self, Error> {
        let protocol = ProtocolId(r.u8()?);
        let (size, count) = (r.u8()?, r.u16()?);
        let delete = match (protocol, size) {
            (ProtocolId::IKE, 0) if count == 0 => Delete::Ike,
            (ProtocolId::ESP, 4) => {
                let spis: Result<_, _> = (0..count).map(|_| r.u32()).collect();
                Delete::Esp(spis?)
            }
            (ProtocolId::IKE | ProtocolId::ESP, _) => {
                return Err(Error::Value("delete's SPI size"))
            }
            _ => {
                r.bytes(usize::from(size) * usize::from(count))?;
                Delete::Other(protocol)
            }
        };
        r.end()?;
        Ok(delete)
    }
}

/// A configuration payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Configuration {
    /// Asked, answered, set or acknowledged.
    pub kind: CfgType,
    /// Attributes with their values; empty where one is asked for.
    pub attributes: Vec<(CfgAttribute, Vec<u8>)>,
}

impl Configuration {
    fn decode(mut r: Reader<'_>) -> Result<Self, Error> {
        let kind = CfgType(r.u8()?);
        r.bytes(3)?;
        let mut attributes = Vec::new();
        while !r.is_empty() {
            let (attribute, len) = (r.u16()? & 0x7FFF, usize::from(r.u16()?));
            attributes.push((CfgAttribute(attribute), r.bytes(len)?.to_vec()));
        }
        Ok(Configuration { kind, attributes })
    }
}

/// SK: payloads, sealed. It comes last in its message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Encrypted {
    /// The type of the first payload within.
    pub first: PayloadType,
    /// IV, ciphertext, ICV.
    pub body: Vec<u8>,
}

/// SKF: a part of sealed payloads (RFC 7383 §2.5). It comes last in its message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EncryptedFragment {
    /// The type of the first payload within; NONE in all but the first fragment.
    pub first: PayloadType,
    /// Which part, from 1.
    pub number: u16,
    /// Of how many.
    pub total: u16,
    /// IV, ciphertext, ICV.
    pub body: Vec<u8>,
}

/// One payload.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "each is named as its payload")]
pub enum Payload {
    Sa(Vec<Proposal>),
    KeyExchange(KeyExchange),
    IdInitiator(Id),
    IdResponder(Id),
    Cert(Cert),
    CertReq(CertReq),
    Auth(Auth),
    Nonce(Vec<u8>),
    Notify(Notify),
    Delete(Delete),
    VendorId(Vec<u8>),
    TsInitiator(Vec<TrafficSelector>),
    TsResponder(Vec<TrafficSelector>),
    Configuration(Configuration),
    /// Carried whole: no EAP method is spoken here.
    Eap(Vec<u8>),
    Encrypted(Encrypted),
    EncryptedFragment(EncryptedFragment),
    ZoneMap(ZoneMapPayload),
    Secret(SecretPayload),
    CsaIdentity(CsaIdentity),
    CsaData(CsaData),
    /// A payload nobody here knows, and not critical.
    Unknown(PayloadType, Vec<u8>),
}

impl Payload {
    /// A notification that concerns no SPI.
    pub fn notify(kind: NotifyType, data: impl Into<Vec<u8>>) -> Self {
        Payload::Notify(Notify::new(kind, data))
    }

    /// Its number.
    pub fn kind(&self) -> PayloadType {
        match self {
            Payload::Sa(_) => PayloadType::SA,
            Payload::KeyExchange(_) => PayloadType::KE,
            Payload::IdInitiator(_) => PayloadType::IDI,
            Payload::IdResponder(_) => PayloadType::IDR,
            Payload::Cert(_) => PayloadType::CERT,
            Payload::CertReq(_) => PayloadType::CERTREQ,
            Payload::Auth(_) => PayloadType::AUTH,
            Payload::Nonce(_) => PayloadType::NONCE,
            Payload::Notify(_) => PayloadType::NOTIFY,
            Payload::Delete(_) => PayloadType::DELETE,
            Payload::VendorId(_) => PayloadType::VENDOR_ID,
            Payload::TsInitiator(_) => PayloadType::TSI,
            Payload::TsResponder(_) => PayloadType::TSR,
            Payload::Configuration(_) => PayloadType::CP,
            Payload::Eap(_) => PayloadType::EAP,
            Payload::Encrypted(_) => PayloadType::SK,
            Payload::EncryptedFragment(_) => PayloadType::SKF,
            Payload::ZoneMap(_) => PayloadType::ZONE_MAP,
            Payload::Secret(_) => PayloadType::SECRET,
            Payload::CsaIdentity(_) => PayloadType::CSA_IDENTITY,
            Payload::CsaData(_) => PayloadType::CSA_DATA,
            Payload::Unknown(kind, _) => *kind,
        }
    }

    pub(super) fn decode(
        kind: PayloadType,
        critical: bool,
        next: PayloadType,
        body: &[u8],
        private: bool,
    ) -> Result<Self, Error> {
        let mut r = Reader::new(body);
        Ok(match kind {
            PayloadType::SA => Payload::Sa(sa::decode(r)?),
            PayloadType::KE => {
                let group = Group(r.u16()?);
                r.u16()?;
                Payload::KeyExchange(KeyExchange {
                    group,
                    data: r.rest().to_vec(),
                })
            }
            PayloadType::IDI => Payload::IdInitiator(Id::decode(r)?),
            PayloadType::IDR => Payload::IdResponder(Id::decode(r)?),
            PayloadType::CERT => Payload::Cert(Cert {
                encoding: CertEncoding(r.u8()?),
                data: r.rest().to_vec(),
            }),
            PayloadType::CERTREQ => {
                let encoding = CertEncoding(r.u8()?);
                let mut authorities = Vec::new();
                while let Ok(hash) = r.array::<20>() {
                    authorities.push(hash);
                }
                Payload::CertReq(CertReq {
                    encoding,
                    authorities,
                })
            }
            PayloadType::AUTH => {
                let method = AuthMethod(r.u8()?);
                r.bytes(3)?;
                Payload::Auth(Auth {
                    method,
                    data: r.rest().to_vec(),
                })
            }
            PayloadType::NONCE if NONCE_LEN.contains(&body.len()) => Payload::Nonce(body.to_vec()),
            PayloadType::NONCE => return Err(Error::Value("nonce's length")),
            PayloadType::NOTIFY => Payload::Notify(Notify::decode(r)?),
            PayloadType::DELETE => Payload::Delete(Delete::decode(r)?),
            PayloadType::VENDOR_ID => Payload::VendorId(body.to_vec()),
            PayloadType::TSI => Payload::TsInitiator(ts::decode(r)?),
            PayloadType::TSR => Payload::TsResponder(ts::decode(r)?),
            PayloadType::CP => Payload::Configuration(Configuration::decode(r)?),
            PayloadType::EAP => Payload::Eap(body.to_vec()),
            PayloadType::SK => Payload::Encrypted(Encrypted {
                first: next,
                body: body.to_vec(),
            }),
            PayloadType::SKF => {
                let (number, total) = (r.u16()?, r.u16()?);
                // §2.6: neither is zero, nor the number above the total.
                if number == 0 || number > total {
                    return Err(Error::Value("fragment's number"));
                }
                Payload::EncryptedFragment(EncryptedFragment {
                    first: next,
                    number,
                    total,
                    body: r.rest().to_vec(),
                })
            }
            PayloadType::ZONE_MAP if private => Payload::ZoneMap(ZoneMapPayload::decode(r)?),
            PayloadType::SECRET if private => Payload::Secret(SecretPayload::decode(r)?),
            PayloadType::CSA_IDENTITY if private => Payload::CsaIdentity(CsaIdentity::decode(r)?),
            PayloadType::CSA_DATA if private => Payload::CsaData(CsaData::decode(r)?),
            _ if critical => return Err(Error::Critical(kind)),
            _ => Payload::Unknown(kind, body.to_vec()),
        })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Payload::Sa(proposals) => sa::encode(proposals, out),
            Payload::KeyExchange(ke) => {
                out.put_u16(ke.group.0);
                out.put_u16(0);
                out.put(&ke.data);
            }
            Payload::IdInitiator(id) | Payload::IdResponder(id) => out.put(&id.body()),
            Payload::Cert(cert) => {
                out.put_u8(cert.encoding.0);
                out.put(&cert.data);
            }
            Payload::CertReq(request) => {
                out.put_u8(request.encoding.0);
                request.authorities.iter().for_each(|hash| out.put(hash));
            }
            Payload::Auth(auth) => {
                out.put(&[auth.method.0, 0, 0, 0]);
                out.put(&auth.data);
            }
            Payload::Notify(notify) => {
                out.put(&[notify.protocol.0, len8(notify.spi.len())]);
                out.put_u16(notify.kind.0);
                out.put(&notify.spi);
                out.put(&notify.data);
            }
            Payload::Delete(Delete::Ike) => out.put(&[ProtocolId::IKE.0, 0, 0, 0]),
            Payload::Delete(Delete::Esp(spis)) => {
                out.put(&[ProtocolId::ESP.0, 4]);
                out.put_u16(len16(spis.len()));
                spis.iter().for_each(|spi| out.put_u32(*spi));
            }
            Payload::Delete(Delete::Other(protocol)) => out.put(&[protocol.0, 0, 0, 0]),
            Payload::TsInitiator(selectors) | Payload::TsResponder(selectors) => {
                ts::encode(selectors, out);
            }
            Payload::Configuration(cp) => {
                out.put(&[cp.kind.0, 0, 0, 0]);
                for (attribute, value) in &cp.attributes {
                    out.put_u16(attribute.0);
                    out.put_u16(len16(value.len()));
                    out.put(value);
                }
            }
            Payload::Nonce(body)
            | Payload::VendorId(body)
            | Payload::Eap(body)
            | Payload::Unknown(_, body) => out.put(body),
            Payload::Encrypted(sk) => out.put(&sk.body),
            Payload::EncryptedFragment(skf) => {
                out.put_u16(skf.number);
                out.put_u16(skf.total);
                out.put(&skf.body);
            }
            Payload::ZoneMap(map) => map.encode(out),
            Payload::Secret(secret) => secret.encode(out),
            Payload::CsaIdentity(identity) => identity.encode(out),
            Payload::CsaData(data) => data.encode(out),
        }
    }
}
