// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Numbers by the names their registry gives them (IANA, "Internet Key Exchange Version 2 (IKEv2) Parameters"), and
//! ours from the private ranges (docs/wire.md 3.2x).
//!
//! Each is an open set: a number without a name is carried like any other.

macro_rules! numbers {
    ($(#[$doc:meta])* $name:ident($int:ty) { $($(#[$item:meta])* $entry:ident = $value:expr,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $int);

        #[expect(missing_docs, reason = "the registry's own names")]
        impl $name {
            $($(#[$item])* pub const $entry: $name = $name($value);)*
        }

        impl ::core::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                match self.0 {
                    $($value => f.write_str(stringify!($entry)),)*
                    other => write!(f, concat!(stringify!($name), "({})"), other),
                }
            }
        }

        impl ::core::fmt::Display for $name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                ::core::fmt::Debug::fmt(self, f)
            }
        }
    };
}

numbers! {
    /// What an exchange is for (RFC 7296 §3.1).
    ExchangeType(u8) {
        IKE_SA_INIT = 34,
        IKE_AUTH = 35,
        CREATE_CHILD_SA = 36,
        INFORMATIONAL = 37,
        /// RFC 9242.
        IKE_INTERMEDIATE = 43,
        /// RFC 9370.
        IKE_FOLLOWUP_KE = 44,
        CSA_DISTRIBUTE = 242,
        NEIGHBOR_NOTIFY = 243,
        CSA_REQUEST = 244,
        CSA_REVOKE = 245,
        CSA_HANDOVER = 246,
        CSA_REPORT = 247,
    }
}

numbers! {
    /// What a payload holds (RFC 7296 §3.2).
    PayloadType(u8) {
        NONE = 0,
        SA = 33,
        KE = 34,
        IDI = 35,
        IDR = 36,
        CERT = 37,
        CERTREQ = 38,
        AUTH = 39,
        NONCE = 40,
        NOTIFY = 41,
        DELETE = 42,
        VENDOR_ID = 43,
        TSI = 44,
        TSR = 45,
        SK = 46,
        CP = 47,
        EAP = 48,
        /// RFC 7383.
        SKF = 53,
        ZONE_MAP = 200,
        SECRET = 201,
        CSA_IDENTITY = 202,
        /// What a CSA exchange says beside the payloads above (docs/ike.md).
        CSA_DATA = 203,
    }
}

numbers! {
    /// What an SPI belongs to (RFC 7296 §3.3.1).
    ProtocolId(u8) {
        NONE = 0,
        IKE = 1,
        AH = 2,
        ESP = 3,
    }
}

numbers! {
    /// What a transform is (RFC 7296 §3.3.2, RFC 9370 §2.2).
    TransformType(u8) {
        ENCR = 1,
        PRF = 2,
        INTEG = 3,
        KE = 4,
        ESN = 5,
        ADDKE1 = 6,
        ADDKE2 = 7,
        ADDKE3 = 8,
        ADDKE4 = 9,
        ADDKE5 = 10,
        ADDKE6 = 11,
        ADDKE7 = 12,
    }
}

numbers! {
    /// An encryption transform (type 1).
    Encr(u16) {
        NULL = 11,
        AES_GCM_16 = 20,
        CHACHA20_POLY1305 = 28,
        /// RFC 8750: the sequence number is the IV.
        AES_GCM_16_IIV = 30,
        CHACHA20_POLY1305_IIV = 31,
    }
}

numbers! {
    /// A pseudorandom function (type 2).
    Prf(u16) {
        HMAC_SHA2_256 = 5,
        HMAC_SHA2_384 = 6,
        HMAC_SHA2_512 = 7,
    }
}

numbers! {
    /// A key exchange method (types 4 and 6 to 12).
    Group(u16) {
        NONE = 0,
        /// NIST P-256.
        ECP_256 = 19,
        /// NIST P-384.
        ECP_384 = 20,
        CURVE25519 = 31,
        ML_KEM_512 = 35,
        ML_KEM_768 = 36,
        ML_KEM_1024 = 37,
    }
}

numbers! {
    /// What kind of name an identity is (RFC 7296 §3.5).
    IdType(u8) {
        IPV4_ADDR = 1,
        FQDN = 2,
        RFC822_ADDR = 3,
        IPV6_ADDR = 5,
        DER_ASN1_DN = 9,
        DER_ASN1_GN = 10,
        KEY_ID = 11,
    }
}

numbers! {
    /// How a certificate is written (RFC 7296 §3.6).
    CertEncoding(u8) {
        X509_SIGNATURE = 4,
        /// RFC 7670: a SubjectPublicKeyInfo.
        RAW_PUBLIC_KEY = 15,
    }
}

numbers! {
    /// How a peer proves who it is (RFC 7296 §3.8).
    AuthMethod(u8) {
        RSA_SIGNATURE = 1,
        SHARED_KEY_MIC = 2,
        ECDSA_SHA256_P256 = 9,
        ECDSA_SHA384_P384 = 10,
        NULL = 13,
        /// RFC 7427.
        DIGITAL_SIGNATURE = 14,
    }
}

numbers! {
    /// What a notification says (RFC 7296 §3.10.1): an error below 16384, a status from there.
    NotifyType(u16) {
        UNSUPPORTED_CRITICAL_PAYLOAD = 1,
        INVALID_IKE_SPI = 4,
        INVALID_MAJOR_VERSION = 5,
        INVALID_SYNTAX = 7,
        INVALID_MESSAGE_ID = 9,
        INVALID_SPI = 11,
        NO_PROPOSAL_CHOSEN = 14,
        INVALID_KE_PAYLOAD = 17,
        AUTHENTICATION_FAILED = 24,
        SINGLE_PAIR_REQUIRED = 34,
        NO_ADDITIONAL_SAS = 35,
        INTERNAL_ADDRESS_FAILURE = 36,
        FAILED_CP_REQUIRED = 37,
        TS_UNACCEPTABLE = 38,
        INVALID_SELECTORS = 39,
        UNACCEPTABLE_ADDRESSES = 40,
        UNEXPECTED_NAT_DETECTED = 41,
        TEMPORARY_FAILURE = 43,
        CHILD_SA_NOT_FOUND = 44,
        STATE_NOT_FOUND = 47,
        INITIAL_CONTACT = 16384,
        SET_WINDOW_SIZE = 16385,
        ADDITIONAL_TS_POSSIBLE = 16386,
        IPCOMP_SUPPORTED = 16387,
        NAT_DETECTION_SOURCE_IP = 16388,
        NAT_DETECTION_DESTINATION_IP = 16389,
        COOKIE = 16390,
        USE_TRANSPORT_MODE = 16391,
        HTTP_CERT_LOOKUP_SUPPORTED = 16392,
        REKEY_SA = 16393,
        ESP_TFC_PADDING_NOT_SUPPORTED = 16394,
        NON_FIRST_FRAGMENTS_ALSO = 16395,
        MOBIKE_SUPPORTED = 16396,
        ADDITIONAL_IP4_ADDRESS = 16397,
        ADDITIONAL_IP6_ADDRESS = 16398,
        NO_ADDITIONAL_ADDRESSES = 16399,
        UPDATE_SA_ADDRESSES = 16400,
        COOKIE2 = 16401,
        NO_NATS_ALLOWED = 16402,
        CHILDLESS_IKEV2_SUPPORTED = 16418,
        IKEV2_FRAGMENTATION_SUPPORTED = 16430,
        SIGNATURE_HASH_ALGORITHMS = 16431,
        INTERMEDIATE_EXCHANGE_SUPPORTED = 16438,
        ADDITIONAL_KEY_EXCHANGE = 16441,
        ZONES_SUPPORTED = 50000,
    }
}

impl NotifyType {
    /// Whether it reports a failure of the exchange it stands in.
    pub fn is_error(self) -> bool {
        self.0 < 16384
    }
}

numbers! {
    /// What a hash is called in SIGNATURE_HASH_ALGORITHMS (RFC 7427 §7).
    HashAlgorithm(u16) {
        SHA1 = 1,
        SHA2_256 = 2,
        SHA2_384 = 3,
        SHA2_512 = 4,
        /// RFC 8420: Ed25519 hashes for itself.
        IDENTITY = 5,
    }
}

numbers! {
    /// What a configuration payload does (RFC 7296 §3.15).
    CfgType(u8) {
        REQUEST = 1,
        REPLY = 2,
        SET = 3,
        ACK = 4,
    }
}

numbers! {
    /// What a configuration attribute holds (RFC 7296 §3.15.1).
    CfgAttribute(u16) {
        INTERNAL_IP4_ADDRESS = 1,
        INTERNAL_IP4_NETMASK = 2,
        INTERNAL_IP4_DNS = 3,
        INTERNAL_IP6_ADDRESS = 8,
        INTERNAL_IP6_DNS = 10,
        INTERNAL_IP4_SUBNET = 13,
        INTERNAL_IP6_SUBNET = 15,
    }
}
