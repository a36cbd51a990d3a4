// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What is said of each extension that is refused for its form.

use crate::error::{errno, Error};
use crate::number::ext;
use core::ffi::CStr;

/// What can be wrong with the form of one extension.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// Its length is less than its fields.
    Short,
    /// Its length is more than its fields.
    Long,
    /// It runs past the end of the message.
    Past,
    /// It came twice.
    Duplicate,
    /// It isn't there, and the request needs it.
    Missing,
    /// Reserved fields or padding are not zero.
    Reserved,
    /// A field holds a number that means nothing.
    Value,
    /// An algorithm that isn't there.
    Algorithm,
}

struct Texts {
    short: &'static CStr,
    long: &'static CStr,
    past: &'static CStr,
    duplicate: &'static CStr,
    missing: &'static CStr,
    reserved: &'static CStr,
    value: &'static CStr,
    algorithm: &'static CStr,
}

macro_rules! text {
    ($name:literal, $rest:literal) => {{
        // Made by the compiler: there is no NUL inside, so the second arm is never taken.
        const TEXT: &CStr = match CStr::from_bytes_with_nul(concat!($name, $rest, "\0").as_bytes())
        {
            Ok(text) => text,
            Err(_) => c"extension",
        };
        TEXT
    }};
}

macro_rules! texts {
    ($name:literal) => {{
        static TEXTS: Texts = Texts {
            short: text!($name, ": too short"),
            long: text!($name, ": too long"),
            past: text!($name, ": runs past the end of the message"),
            duplicate: text!($name, ": given twice"),
            missing: text!($name, ": missing"),
            reserved: text!($name, ": reserved field or padding not zero"),
            value: text!($name, ": a field is out of range"),
            algorithm: text!($name, ": unknown algorithm"),
        };
        &TEXTS
    }};
}

fn texts(number: u16) -> &'static Texts {
    match number {
        ext::SA => texts!("SA"),
        ext::LIFETIME_CURRENT => texts!("LIFETIME_CURRENT"),
        ext::LIFETIME_HARD => texts!("LIFETIME_HARD"),
        ext::LIFETIME_SOFT => texts!("LIFETIME_SOFT"),
        ext::ADDRESS_SRC => texts!("ADDRESS_SRC"),
        ext::ADDRESS_DST => texts!("ADDRESS_DST"),
        ext::ADDRESS_PROXY => texts!("ADDRESS_PROXY"),
        ext::KEY_AUTH => texts!("KEY_AUTH"),
        ext::KEY_ENCRYPT => texts!("KEY_ENCRYPT"),
        ext::IDENTITY_SRC => texts!("IDENTITY_SRC"),
        ext::IDENTITY_DST => texts!("IDENTITY_DST"),
        ext::SENSITIVITY => texts!("SENSITIVITY"),
        ext::PROPOSAL => texts!("PROPOSAL"),
        ext::SUPPORTED_AUTH => texts!("SUPPORTED_AUTH"),
        ext::SUPPORTED_ENCRYPT => texts!("SUPPORTED_ENCRYPT"),
        ext::SPIRANGE => texts!("SPIRANGE"),
        ext::X_POLICY => texts!("X_POLICY"),
        ext::X_NAT_T_TYPE => texts!("X_NAT_T_TYPE"),
        ext::X_NAT_T_SPORT => texts!("X_NAT_T_SPORT"),
        ext::X_NAT_T_DPORT => texts!("X_NAT_T_DPORT"),
        ext::X_NAT_T_OA => texts!("X_NAT_T_OA"),
        ext::ZONE_MAP => texts!("ZONE_MAP"),
        ext::ZONE_SA => texts!("ZONE_SA"),
        ext::CSA => texts!("CSA"),
        ext::SELECTOR => texts!("SELECTOR"),
        ext::SNOOP => texts!("SNOOP"),
        ext::RELAY => texts!("RELAY"),
        ext::BINDING => texts!("BINDING"),
        ext::SNOOP_STATE => texts!("SNOOP_STATE"),
        _ => texts!("extension of unknown number"),
    }
}

impl Error {
    /// What `fault` means in the extension of this number.
    pub(crate) fn extension(number: u16, fault: Fault) -> Self {
        let texts = texts(number);
        match fault {
            Fault::Short => Error::invalid(texts.short),
            Fault::Long => Error::invalid(texts.long),
            Fault::Past => Error::invalid(texts.past),
            Fault::Duplicate => Error::invalid(texts.duplicate),
            Fault::Missing => Error::invalid(texts.missing),
            Fault::Reserved => Error::invalid(texts.reserved),
            Fault::Value => Error::invalid(texts.value),
            Fault::Algorithm => Error {
                errno: errno::ENOSYS,
                text: texts.algorithm,
            },
        }
    }
}
