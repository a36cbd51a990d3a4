// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A policy: what SPDADD must hold, and how SPDDELETE and SPDGET name one.

use crate::address::Address;
use crate::error::Error;
use crate::extension::Extension;
use crate::id::outer;
use crate::message::Message;
use crate::number::{ext, policy};
use crate::selector::Selector;
use crate::standard::PolicyExt;
use crate::text::Fault;
use crate::writer::Writer;

/// What is done with which packets (docs/wire.md 2.2k).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Discard, bypass or protect; direction, number and priority.
    pub ext: PolicyExt,
    /// Which packets.
    pub selector: Selector,
    /// The outer source and destination of the CSA it asks for; only where it protects.
    pub template: Option<(Address, Address)>,
}

impl Policy {
    /// Takes a policy from an X_SPDADD or from an answer to X_SPDGET or X_SPDDUMP.
    ///
    /// # Errors
    ///
    /// `EINVAL` and a text that names the extension.
    pub fn from_message(message: &Message<'_>) -> Result<Self, Error> {
        let ext = policy_ext(message)?;
        let selector = message
            .selector()
            .ok_or(Error::extension(ext::SELECTOR, Fault::Missing))?;
        let template = match (message.src(), message.dst()) {
            (None, None) => None,
            _ => Some(outer(message)?),
        };
        if template.is_some() && ext.kind != policy::PROTECT {
            return Err(Error::invalid(
                c"X_POLICY: only one that protects has outer addresses",
            ));
        }
        Ok(Policy {
            ext,
            selector,
            template,
        })
    }

    /// Writes it as extensions of X_SPDADD or of an answer.
    pub fn write<'b>(&self, writer: Writer<'b>) -> Result<Writer<'b>, Error> {
        writer
            .policy(&self.ext)?
            .selector(&self.selector)?
            .maybe(self.template.map(|(src, _)| Extension::AddressSrc(src)))?
            .maybe(self.template.map(|(_, dst)| Extension::AddressDst(dst)))
    }
}

/// How X_SPDDELETE and X_SPDGET name a policy: by number if X_POLICY's id isn't 0, else by direction and selector
/// (docs/wire.md 2.2l).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PolicyId {
    /// By the module's number for it.
    Number(u32),
    /// By direction and selector, which no two policies share; X_POLICY's type and priority don't matter.
    Selector(u8, Selector),
}

impl PolicyId {
    /// Takes the name from a message.
    ///
    /// # Errors
    ///
    /// `EINVAL` and a text that names the extension. That there is no such policy is for the caller to say, with `ESRCH`.
    pub fn from_message(message: &Message<'_>) -> Result<Self, Error> {
        let ext = policy_ext(message)?;
        if ext.id != 0 {
            return Ok(PolicyId::Number(ext.id));
        }
        let selector = message
            .selector()
            .ok_or(Error::extension(ext::SELECTOR, Fault::Missing))?;
        Ok(PolicyId::Selector(ext.direction, selector))
    }

    /// Writes it.
    pub fn write<'b>(&self, writer: Writer<'b>) -> Result<Writer<'b>, Error> {
        let ext = |direction, id| PolicyExt {
            kind: policy::PROTECT,
            direction,
            id,
            priority: 0,
        };
        match self {
            PolicyId::Number(id) => writer.policy(&ext(policy::DIR_OUT, *id)),
            PolicyId::Selector(direction, selector) => {
                writer.policy(&ext(*direction, 0))?.selector(selector)
            }
        }
    }
}

fn policy_ext(message: &Message<'_>) -> Result<PolicyExt, Error> {
    let ext = message
        .policy()
        .ok_or(Error::extension(ext::X_POLICY, Fault::Missing))?;
    if !matches!(ext.kind, policy::DISCARD | policy::BYPASS | policy::PROTECT) {
        return Err(Error::invalid(
            c"X_POLICY: type is not discard, bypass or protect",
        ));
    }
    if !matches!(ext.direction, policy::DIR_IN | policy::DIR_OUT) {
        return Err(Error::invalid(c"X_POLICY: direction is not in or out"));
    }
    Ok(ext)
}
