// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Mobile IPv4 (RFC 5944) without I/O: home agent, foreign agent, mobile node, and what they say to one another.
//!
//! Packets and time go in, actions come out: nothing here opens a socket, reads a clock or draws a random number. So the
//! daemon, the tests in simulated time and the fuzzer run the same code. `docs/mobile-ip.md` says what is where, and
//! which of the RFCs' choices were taken.
//!
//! - Codec: [`Message`], [`Extensions`], [`Builder`]; [`Advertisement`] and [`Solicitation`] for ICMP.
//! - Who may: [`Association`], [`Replay`], [`HandoverKey`] (the token of DKM).
#![forbid(unsafe_code)]

mod action;
mod advertise;
mod auth;
mod bucket;
mod builder;
mod code;
mod counters;
mod error;
mod extension;
mod foreign;
mod home;
mod message;
mod node;
pub mod number;
mod octets;
mod packet;
mod replay;
mod revoke;
mod router;
mod time;
mod timers;
mod token;

pub use action::{Action, Event, Predecessor, Reason, Route, Tunnel};
pub use advertise::Link;
pub use auth::{Algorithm, Association, Key, SPI_MIN};
pub use builder::Builder;
pub use code::Code;
pub use counters::Counters;
pub use error::{DecodeError, EncodeError};
pub use extension::{
    Authentication, Extension, Extensions, Item, Pair, PreviousFa, RevocationSupport, Seen,
};
pub use foreign::{ForeignAgent, ForeignConfig, Visitor};
pub use home::{Binding, HomeAgent, HomeConfig, ReverseTunnel, Subscriber};
pub use message::{
    Identification, Message, Reply, Request, RequestFlags, Revocation, RevocationAck,
};
pub use node::{MobileNode, NodeConfig};
pub use packet::{Content, Incoming, Interface, LinkAddress, Packet, Payload};
pub use replay::{Guard, Judgement, Replay, Source};
pub use router::{Advertisement, AgentFlags, MobilityAgent, Prefix, RouterAddress, Solicitation};
pub use time::{Now, Ntp, Random};
pub use token::{Handover, HandoverKey, Prf};
