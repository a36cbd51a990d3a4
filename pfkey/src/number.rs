// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The numbers of RFC 2367, of Linux's `pfkeyv2.h`, and ours (docs/wire.md §2).

/// `PF_KEY_V2`, the version of every message.
pub const VERSION: u8 = 2;

/// Message types (`sadb_msg_type`).
pub mod message {
    #![expect(missing_docs, reason = "the names are the RFC's and Linux's")]
    pub const GETSPI: u8 = 1;
    pub const UPDATE: u8 = 2;
    pub const ADD: u8 = 3;
    pub const DELETE: u8 = 4;
    pub const GET: u8 = 5;
    pub const ACQUIRE: u8 = 6;
    pub const REGISTER: u8 = 7;
    pub const EXPIRE: u8 = 8;
    pub const FLUSH: u8 = 9;
    pub const DUMP: u8 = 10;
    pub const X_PROMISC: u8 = 11;
    pub const X_PCHANGE: u8 = 12;
    pub const X_SPDUPDATE: u8 = 13;
    pub const X_SPDADD: u8 = 14;
    pub const X_SPDDELETE: u8 = 15;
    pub const X_SPDGET: u8 = 16;
    pub const X_SPDACQUIRE: u8 = 17;
    pub const X_SPDDUMP: u8 = 18;
    pub const X_SPDFLUSH: u8 = 19;
    pub const X_SPDSETIDX: u8 = 20;
    pub const X_SPDEXPIRE: u8 = 21;
    pub const X_SPDDELETE2: u8 = 22;
    pub const X_NAT_T_NEW_MAPPING: u8 = 23;
    pub const X_MIGRATE: u8 = 24;
    /// A CSA changed its state; ours (docs/wire.md 2.2a).
    pub const X_CSA_STATE: u8 = 128;
    /// What is held for a CSA is sent; ours (docs/wire.md 2.2v).
    pub const X_CSA_RESEND: u8 = 129;
    /// What SNOOP knows of a CSA's flows, asked for or given; ours (docs/wire.md 2.2y).
    pub const X_CSA_SNOOP: u8 = 130;

    /// Whether a message of this type exists.
    pub const fn known(number: u8) -> bool {
        matches!(number, GETSPI..=X_MIGRATE | X_CSA_STATE..=X_CSA_SNOOP)
    }
}

/// SA types (`sadb_msg_satype`).
pub mod satype {
    /// Any type, in FLUSH, DUMP and the messages on policies.
    pub const UNSPEC: u8 = 0;
    /// Plain ESP, which lives in XFRM and never here.
    pub const ESP: u8 = 3;
    /// Zone ESP; ours (docs/wire.md 2.2a).
    pub const MLESP: u8 = 249;
}

/// SA states (`sadb_sa_state`).
pub mod sastate {
    #![expect(missing_docs, reason = "the names are the RFC's")]
    pub const LARVAL: u8 = 0;
    pub const MATURE: u8 = 1;
    pub const DYING: u8 = 2;
    pub const DEAD: u8 = 3;
}

/// Extension types (`sadb_ext_type`).
pub mod ext {
    #![expect(missing_docs, reason = "the names are the RFC's and Linux's")]
    pub const SA: u16 = 1;
    pub const LIFETIME_CURRENT: u16 = 2;
    pub const LIFETIME_HARD: u16 = 3;
    pub const LIFETIME_SOFT: u16 = 4;
    pub const ADDRESS_SRC: u16 = 5;
    pub const ADDRESS_DST: u16 = 6;
    pub const ADDRESS_PROXY: u16 = 7;
    pub const KEY_AUTH: u16 = 8;
    pub const KEY_ENCRYPT: u16 = 9;
    pub const IDENTITY_SRC: u16 = 10;
    pub const IDENTITY_DST: u16 = 11;
    pub const SENSITIVITY: u16 = 12;
    pub const PROPOSAL: u16 = 13;
    pub const SUPPORTED_AUTH: u16 = 14;
    pub const SUPPORTED_ENCRYPT: u16 = 15;
    pub const SPIRANGE: u16 = 16;
    pub const X_POLICY: u16 = 18;
    pub const X_NAT_T_TYPE: u16 = 20;
    pub const X_NAT_T_SPORT: u16 = 21;
    pub const X_NAT_T_DPORT: u16 = 22;
    pub const X_NAT_T_OA: u16 = 23;
    pub const ZONE_MAP: u16 = 128;
    pub const ZONE_SA: u16 = 129;
    pub const CSA: u16 = 130;
    pub const SELECTOR: u16 = 131;
    pub const SNOOP: u16 = 132;
    pub const RELAY: u16 = 133;
    pub const BINDING: u16 = 134;
    pub const SNOOP_STATE: u16 = 135;
}

/// What a policy does with a packet (`sadb_x_policy_type`, Linux's `ipsec.h`).
pub mod policy {
    /// Drop it (docs/wire.md 2.4d).
    pub const DISCARD: u16 = 0;
    /// Let it pass in clear (`IPSEC_POLICY_NONE`).
    pub const BYPASS: u16 = 1;
    /// Let it pass sealed or not at all (`IPSEC_POLICY_IPSEC`).
    pub const PROTECT: u16 = 2;
    /// For what arrives.
    pub const DIR_IN: u8 = 1;
    /// For what leaves or is forwarded.
    pub const DIR_OUT: u8 = 2;
}

/// SPIs below this are the IANA's and refused (RFC 4303 §2.1; docs/wire.md 1.1a).
pub const SPI_MIN: u32 = 256;
/// `AF_INET`, the family of a sockaddr and of SELECTOR.
pub const AF_INET: u8 = 2;
/// `AF_INET6`, the family of a sockaddr and of SELECTOR.
pub const AF_INET6: u8 = 10;
