// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! One extension of a message: its number and what it holds.

use crate::address::Address;
use crate::error::Error;
use crate::number::ext;
use crate::reader::{Cursor, Reader};
use crate::selector::Selector;
use crate::standard::{
    Identity, Key, Lifetime, NatPort, NatType, PolicyExt, Proposal, Sa, Sensitivity, SpiRange,
    Supported,
};
use crate::text::Fault;
use crate::zone::{Binding, CsaExt, Relay, Snoop, SnoopState, ZoneMap, ZoneSa};

macro_rules! extensions {
    ($($number:ident $variant:ident $body:ident $(<$life:lifetime>)?;)+) => {
        /// An extension, decoded. The names are those of [`crate::number::ext`].
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[expect(missing_docs, reason = "each names what it holds")]
        pub enum Extension<'a> { $($variant($body $(<$life>)?)),+ }

        impl<'a> Extension<'a> {
            /// Its number on the wire.
            pub const fn number(&self) -> u16 {
                match self { $(Extension::$variant(_) => ext::$number),+ }
            }

            /// Reads the octets behind the header of an extension of this number; `None` if there is no such number.
            pub(crate) fn decode(number: u16, body: &'a [u8]) -> Option<Result<Self, Fault>> {
                let reader = Reader::new(body);
                match number {
                    $(ext::$number => Some($body::decode(reader).map(Extension::$variant)),)+
                    _ => None,
                }
            }

            pub(crate) fn encode(&self, w: &mut Cursor<'_>) -> Result<(), Error> {
                match self { $(Extension::$variant(body) => body.encode(w)),+ }
            }
        }
    };
}

extensions! {
    SA Sa Sa;
    LIFETIME_CURRENT LifetimeCurrent Lifetime;
    LIFETIME_HARD LifetimeHard Lifetime;
    LIFETIME_SOFT LifetimeSoft Lifetime;
    ADDRESS_SRC AddressSrc Address;
    ADDRESS_DST AddressDst Address;
    ADDRESS_PROXY AddressProxy Address;
    KEY_AUTH KeyAuth Key<'a>;
    KEY_ENCRYPT KeyEncrypt Key<'a>;
    IDENTITY_SRC IdentitySrc Identity<'a>;
    IDENTITY_DST IdentityDst Identity<'a>;
    SENSITIVITY Sensitivity Sensitivity<'a>;
    PROPOSAL Proposal Proposal<'a>;
    SUPPORTED_AUTH SupportedAuth Supported<'a>;
    SUPPORTED_ENCRYPT SupportedEncrypt Supported<'a>;
    SPIRANGE SpiRange SpiRange;
    X_POLICY Policy PolicyExt;
    X_NAT_T_TYPE NatType NatType;
    X_NAT_T_SPORT NatSport NatPort;
    X_NAT_T_DPORT NatDport NatPort;
    X_NAT_T_OA NatOa Address;
    ZONE_MAP ZoneMap ZoneMap;
    ZONE_SA ZoneSa ZoneSa<'a>;
    CSA Csa CsaExt;
    SELECTOR Selector Selector;
    SNOOP Snoop Snoop;
    RELAY Relay Relay;
    BINDING Binding Binding<'a>;
    SNOOP_STATE SnoopState SnoopState<'a>;
}
