// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! From the home agent to its mobile node (RFC 5944 §3.7.3).

use super::{Due, ForeignAgent, Pending};
use crate::action::{Action, Event, Reason};
use crate::auth::find;
use crate::code::Code;
use crate::error::DecodeError;
use crate::extension::{Extensions, Pair};
use crate::message::{Message, Reply};
use crate::number::{extension as number, INFINITE};
use crate::packet::Incoming;
use crate::time::Now;
use crate::{Builder, Visitor};
use std::time::Duration;

impl ForeignAgent {
    pub(super) fn reply(
        &mut self,
        packet: &Incoming<'_>,
        octets: &[u8],
        reply: &Reply,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let key = (reply.home, reply.identification.low());
        // From whom it was asked, or it isn't an answer.
        let asked = |pending: &&Pending| pending.request.home_agent == packet.source;
        let Some(pending) = self.pending.get(&key).filter(asked).cloned() else {
            self.counters.unexpected += 1;
            return;
        };
        let extensions = match Extensions::parse(octets, Message::Reply(*reply).fixed_len()) {
            Ok(extensions) => extensions,
            Err(DecodeError::Unknown(_)) => {
                self.counters.unknown_extension += 1;
                return;
            }
            Err(error) => {
                self.counters.malformed += 1;
                let code = match error {
                    DecodeError::Twice(number::FOREIGN_HOME) => Code::FA_HOME_AUTHENTICATION,
                    _ => Code::FA_MALFORMED_REPLY,
                };
                self.failed(key, code);
                return;
            }
        };
        let proven = match self.proven(&pending, &extensions) {
            Ok(proven) => proven,
            Err(code) => {
                self.counters.unauthentic += 1;
                self.failed(key, code);
                return;
            }
        };
        if vendors(&extensions) {
            match proven {
                true => {
                    self.settle(key);
                    self.deny(
                        &pending.asker,
                        &pending.request,
                        Code::FA_VENDOR_HOME,
                        actions,
                    );
                }
                false => self.failed(key, Code::FA_VENDOR_HOME),
            }
            return;
        }
        if proven || reply.code.accepted() {
            self.settle(key);
        } else if let Some(pending) = self.pending.get_mut(&key) {
            // The mobile node can tell whose it is; the home agent's own answer may come yet.
            pending.told = true;
        }
        let end = extensions
            .authentication(Pair::MobileHome)
            .map_or(octets.len(), |cover| cover.end);
        let mut builder = Builder::relay(&octets[..end]);
        if let Some(association) = self
            .config
            .mobile
            .get(&reply.home)
            .and_then(|all| all.first())
        {
            builder = builder.authenticate(Pair::MobileForeign, association);
        }
        if reply.code.accepted() {
            self.counters.accepted += 1;
            self.accepted(&pending, reply, &extensions, now, actions);
        } else {
            self.refused(reply.home, reply.code, actions);
        }
        actions.push(Action::Send(
            self.to_visitor(&pending.asker, builder.finish()),
        ));
    }

    /// The request waits no more.
    fn settle(&mut self, key: super::PendingKey) {
        self.pending.remove(&key);
        self.timers.cancel(Due::Timeout(key));
    }

    /// An answer came that may be anybody's: the request waits for a better one, and is denied with that code if none comes.
    fn failed(&mut self, key: super::PendingKey, code: Code) {
        if let Some(pending) = self.pending.get_mut(&key) {
            pending.failed = Some(code);
        }
    }

    /// Whether an association proves whose it is; an error if it proves that it isn't the home agent's.
    fn proven(&self, pending: &Pending, extensions: &Extensions<'_>) -> Result<bool, Code> {
        let associations = self.config.home.get(&pending.request.home_agent);
        let authentication = extensions.authentication(Pair::ForeignHome);
        match (authentication, associations) {
            (Some(authentication), Some(associations)) => find(associations, authentication.spi)
                .filter(|one| one.verify(&authentication))
                .map(|_| true)
                .ok_or(Code::FA_HOME_AUTHENTICATION),
            (None, None) => Ok(false),
            _ => Err(Code::FA_HOME_AUTHENTICATION),
        }
    }

    fn accepted(
        &mut self,
        pending: &Pending,
        reply: &Reply,
        extensions: &Extensions<'_>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let request = &pending.request;
        // More than was asked for isn't taken (RFC 5944 §3.7.3.1).
        let lifetime = reply.lifetime.min(request.lifetime);
        if lifetime == 0 {
            self.turn_out(reply.home, Reason::Deregistered, actions);
            return;
        }
        let expires =
            (lifetime != INFINITE).then(|| now.after(Duration::from_secs(lifetime.into())));
        let visitor = Visitor {
            home: reply.home,
            home_agent: request.home_agent,
            interface: pending.asker.interface,
            link: pending.asker.link,
            expires,
            identification: request.identification,
            reverse_tunnel: request.flags.has(crate::RequestFlags::REVERSE_TUNNEL),
            support: extensions.revocation_support(),
        };
        // Whoever has keys for it makes them ready before its packets come by the routes that follow.
        actions.push(Action::Notify(Event::Visiting {
            home: reply.home,
            home_agent: request.home_agent,
            care_of: self.config.care_of,
            identification: request.identification,
            previous: pending.previous.as_ref().map(|previous| previous.address),
            lifetime,
            renewed: self.visitors.contains_key(&reply.home),
        }));
        self.take_in(visitor, actions);
        self.revoker.cancel((reply.home, request.home_agent));
    }
}

/// Whether it has critical vendor extensions that are for us.
fn vendors(extensions: &Extensions<'_>) -> bool {
    let cover = extensions.authentication(Pair::MobileHome);
    let ours = |at| cover.is_some_and(|cover| at > cover.start);
    extensions.critical_vendors().any(ours)
}
