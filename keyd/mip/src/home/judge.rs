// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Whether a registration is granted, and if not, with which code (RFC 5944 §3.8.2).

use super::{Asked, Denied, Granted, HomeAgent, ReverseTunnel};
use crate::action::Predecessor;
use crate::auth::{find, Association};
use crate::code::Code;
use crate::error::DecodeError;
use crate::extension::{Extensions, Pair};
use crate::message::{Identification, Request, RequestFlags};
use crate::number::extension as number;
use crate::packet::TTL_DIRECT;
use crate::replay::Guard;
use crate::time::{Now, Random};
use std::net::Ipv4Addr;

impl HomeAgent {
    /// Authenticity first, then freshness, then what is asked. Nothing is remembered of a request that isn't authentic.
    pub(super) fn judge(
        &mut self,
        asked: &Asked<'_>,
        extensions: Result<&Extensions<'_>, &DecodeError>,
        now: Now,
        random: &mut Random<'_>,
    ) -> Result<Granted, Denied> {
        let request = &asked.request;
        let mut denied = Denied {
            code: Code::HA_UNSPECIFIED,
            reply: Identification::new(now.wall.seconds(), request.identification.low()),
            authentic: false,
            association: None,
            foreign: None,
        };
        let extensions = match extensions {
            Ok(extensions) => extensions,
            Err(error) => return Err(denied.with(malformed(error))),
        };
        let Some(association) = self.mobile(request, extensions) else {
            return Err(denied.with(Code::HA_MOBILE_AUTHENTICATION));
        };
        denied.authentic = true;
        denied.association = Some(association.clone());
        denied.foreign = match self.foreign_agent(request, extensions) {
            Ok(foreign) => foreign,
            Err(code) => return Err(denied.with(code)),
        };

        let began = self.began;
        let guard = self
            .guards
            .entry((request.home, association.spi))
            .or_insert_with(|| Guard::new(began));
        let judgement = guard.judge(association.replay, request.identification, now, random);
        denied.reply = judgement.reply;
        if !judgement.fresh {
            return Err(denied.with(Code::HA_IDENTIFICATION));
        }
        if let Err(code) = self.policy(asked, extensions) {
            return Err(denied.with(code));
        }
        Ok(Granted {
            association,
            foreign: denied.foreign,
            support: extensions.revocation_support(),
            // docs/wire.md 3.2k.
            named: extensions.previous_fa().map(Predecessor::from),
            lifetime: request.lifetime.min(self.config.max_lifetime),
            reply: judgement.reply,
        })
    }

    pub(super) fn mobile(
        &self,
        request: &Request,
        extensions: &Extensions<'_>,
    ) -> Option<Association> {
        let authentication = extensions.authentication(Pair::MobileHome)?;
        let associations = &self.config.subscriber(request.home)?.associations;
        let association = find(associations, authentication.spi)?;
        association
            .verify(&authentication)
            .then(|| association.clone())
    }

    /// The association with the foreign agent; none where there is none and none is claimed.
    fn foreign_agent(
        &self,
        request: &Request,
        extensions: &Extensions<'_>,
    ) -> Result<Option<Association>, Code> {
        let refused = Err(Code::HA_FOREIGN_AUTHENTICATION);
        let associations = self.config.foreign(request.care_of);
        match (extensions.authentication(Pair::ForeignHome), associations) {
            (None, None) => Ok(None),
            (Some(authentication), Some(associations)) => {
                match find(associations, authentication.spi) {
                    Some(one) if one.verify(&authentication) => Ok(Some(one.clone())),
                    _ => refused,
                }
            }
            (None, Some(_)) | (Some(_), None) => refused,
        }
    }

    fn policy(&self, asked: &Asked<'_>, extensions: &Extensions<'_>) -> Result<(), Code> {
        let request = &asked.request;
        if self
            .config
            .subscriber(request.home)
            .is_some_and(|one| one.barred)
        {
            return Err(Code::HA_PROHIBITED);
        }
        if !self.config.addresses.contains(&request.home_agent) {
            return Err(Code::HA_UNKNOWN_ADDRESS);
        }
        if let Some(at) = extensions.critical_vendors().next() {
            let under_mobile = extensions
                .authentication(Pair::MobileHome)
                .is_some_and(|cover| at < cover.start);
            return Err(match under_mobile {
                true => Code::HA_VENDOR_MOBILE,
                false => Code::HA_VENDOR_FOREIGN,
            });
        }
        if request.lifetime == 0 {
            return match request.care_of == request.home && !self.on_home_link(asked) {
                true => Err(Code::HA_PROHIBITED),
                false => Ok(()),
            };
        }
        let flags = request.flags;
        if flags.has(RequestFlags::GRE) || flags.has(RequestFlags::MINIMAL) {
            return Err(Code::HA_ENCAPSULATION);
        }
        match (
            self.config.reverse_tunnel,
            flags.has(RequestFlags::REVERSE_TUNNEL),
        ) {
            (ReverseTunnel::Refused, true) => return Err(Code::HA_REVERSE_TUNNEL),
            (ReverseTunnel::Required, false) => return Err(Code::HA_REVERSE_TUNNEL_MANDATORY),
            _ => {}
        }
        if !self.may_be_care_of(request) {
            return Err(Code::HA_MALFORMED);
        }
        let new = !self.bindings.contains_key(&request.home);
        if new && self.bindings.len() >= self.config.max_bindings {
            return Err(Code::HA_RESOURCES);
        }
        Ok(())
    }

    /// Whether a request comes from the home network's link and hasn't passed a router. Only there a mobile node is at
    /// home: elsewhere an advertisement that was made up has said so, and its request came by a reverse tunnel or was sent
    /// on by somebody. Where the home network is virtual nobody is there.
    fn on_home_link(&self, asked: &Asked<'_>) -> bool {
        let interface = asked.packet.interface;
        let link = self.config.home_link.as_ref();
        link.is_some_and(|link| link.interface == interface) && asked.packet.ttl == TTL_DIRECT
    }

    /// A tunnel to the mobile node's own home address, to ourselves or to a group would swallow or multiply packets.
    fn may_be_care_of(&self, request: &Request) -> bool {
        let care_of = request.care_of;
        let unicast = !(care_of.is_unspecified()
            || care_of.is_multicast()
            || care_of.is_loopback()
            || care_of == Ipv4Addr::BROADCAST);
        let others = !self.config.addresses.contains(&care_of)
            && !self.config.subscribers.contains_key(&care_of);
        unicast && others
    }
}

impl Denied {
    fn with(mut self, code: Code) -> Self {
        self.code = code;
        self
    }
}

fn malformed(error: &DecodeError) -> Code {
    match error {
        DecodeError::Twice(number::MOBILE_HOME) => Code::HA_MOBILE_AUTHENTICATION,
        DecodeError::Twice(number::FOREIGN_HOME) => Code::HA_FOREIGN_AUTHENTICATION,
        _ => Code::HA_MALFORMED,
    }
}
