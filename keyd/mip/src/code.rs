// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Codes of a Registration Reply (RFC 5944 §3.4, RFC 3024 §3.4, RFC 3115 §4).

use std::fmt;

/// How a registration was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(pub u8);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        impl Code {
            $($(#[$doc])* pub const $name: Code = Code($value);)*

            /// What the code says in words; none for one that isn't known here.
            pub fn text(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    /// Accepted.
    ACCEPTED = 0, "registration accepted";
    /// Accepted, in place of the binding there was.
    ACCEPTED_ONE_BINDING = 1, "registration accepted, but simultaneous mobility bindings unsupported";
    /// FA: no reason given.
    FA_UNSPECIFIED = 64, "foreign agent: reason unspecified";
    /// FA: its policy says no.
    FA_PROHIBITED = 65, "foreign agent: administratively prohibited";
    /// FA: full.
    FA_RESOURCES = 66, "foreign agent: insufficient resources";
    /// FA: the Mobile-Foreign authenticator is missing or wrong.
    FA_MOBILE_AUTHENTICATION = 67, "foreign agent: mobile node failed authentication";
    /// FA: the reply's Foreign-Home authenticator is missing or wrong.
    FA_HOME_AUTHENTICATION = 68, "foreign agent: home agent failed authentication";
    /// FA: longer than it advertises; the reply's lifetime is the longest.
    FA_LIFETIME = 69, "foreign agent: requested lifetime too long";
    /// FA: the request can't be read.
    FA_MALFORMED_REQUEST = 70, "foreign agent: poorly formed request";
    /// FA: the reply can't be read.
    FA_MALFORMED_REPLY = 71, "foreign agent: poorly formed reply";
    /// FA: neither minimal encapsulation nor GRE.
    FA_ENCAPSULATION = 72, "foreign agent: requested encapsulation unavailable";
    /// FA: no reverse tunnel.
    FA_REVERSE_TUNNEL = 74, "foreign agent: requested reverse tunnel unavailable";
    /// FA: a reverse tunnel or nothing.
    FA_REVERSE_TUNNEL_MANDATORY = 75, "foreign agent: reverse tunnel is mandatory and 'T' bit not set";
    /// FA: the request has passed a router (its TTL isn't 255).
    FA_TOO_DISTANT = 76, "foreign agent: mobile node too distant";
    /// FA: not one of its care-of addresses.
    FA_CARE_OF = 77, "foreign agent: invalid care-of address";
    /// FA: the home agent didn't answer.
    FA_TIMEOUT = 78, "foreign agent: registration timeout";
    /// FA: only direct delivery.
    FA_DELIVERY = 79, "foreign agent: delivery style not supported";
    /// FA: ICMP said so.
    FA_NETWORK_UNREACHABLE = 80, "foreign agent: home network unreachable";
    /// FA: ICMP said so.
    FA_HOST_UNREACHABLE = 81, "foreign agent: home agent host unreachable";
    /// FA: ICMP said so.
    FA_PORT_UNREACHABLE = 82, "foreign agent: home agent port unreachable";
    /// FA: ICMP said so, in another way.
    FA_UNREACHABLE = 88, "foreign agent: home agent unreachable";
    /// FA: a critical vendor extension of the mobile node's isn't known.
    FA_VENDOR_MOBILE = 100, "foreign agent: unable to interpret a critical vendor extension of the mobile node's";
    /// FA: a critical vendor extension of the home agent's isn't known.
    FA_VENDOR_HOME = 101, "foreign agent: unable to interpret a critical vendor extension of the home agent's";
    /// HA: no reason given.
    HA_UNSPECIFIED = 128, "home agent: reason unspecified";
    /// HA: its policy says no.
    HA_PROHIBITED = 129, "home agent: administratively prohibited";
    /// HA: full.
    HA_RESOURCES = 130, "home agent: insufficient resources";
    /// HA: the Mobile-Home authenticator is missing or wrong.
    HA_MOBILE_AUTHENTICATION = 131, "home agent: mobile node failed authentication";
    /// HA: the Foreign-Home authenticator is missing or wrong.
    HA_FOREIGN_AUTHENTICATION = 132, "home agent: foreign agent failed authentication";
    /// HA: a replay, or a clock that is off.
    HA_IDENTIFICATION = 133, "home agent: registration Identification mismatch";
    /// HA: the request can't be read.
    HA_MALFORMED = 134, "home agent: poorly formed request";
    /// HA: more care-of addresses than it keeps. This home agent keeps one and says [`Code::ACCEPTED_ONE_BINDING`].
    HA_TOO_MANY = 135, "home agent: too many simultaneous mobility bindings";
    /// HA: not its address; the reply has one that is.
    HA_UNKNOWN_ADDRESS = 136, "home agent: unknown home agent address";
    /// HA: no reverse tunnel.
    HA_REVERSE_TUNNEL = 137, "home agent: requested reverse tunnel unavailable";
    /// HA: a reverse tunnel or nothing.
    HA_REVERSE_TUNNEL_MANDATORY = 138, "home agent: reverse tunnel is mandatory and 'T' bit not set";
    /// HA: neither minimal encapsulation nor GRE.
    HA_ENCAPSULATION = 139, "home agent: requested encapsulation unavailable";
    /// HA: a critical vendor extension of the mobile node's isn't known.
    HA_VENDOR_MOBILE = 140, "home agent: unable to interpret a critical vendor extension of the mobile node's";
    /// HA: a critical vendor extension of the foreign agent's isn't known.
    HA_VENDOR_FOREIGN = 141, "home agent: unable to interpret a critical vendor extension of the foreign agent's";
    /// FA: no unicast address of another node's.
    FA_HOME_AGENT_ADDRESS = 194, "foreign agent: invalid home agent address";
}

impl Code {
    /// Whether the registration holds.
    pub fn accepted(self) -> bool {
        self.0 <= 1
    }

    /// Whether the foreign agent says so itself; such a reply has no Mobile-Home authenticator.
    pub fn by_foreign_agent(self) -> bool {
        matches!(self.0, 64..=127 | 194)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text() {
            Some(text) => write!(f, "{text} ({})", self.0),
            None => write!(f, "code {}", self.0),
        }
    }
}
