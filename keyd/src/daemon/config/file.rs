// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The tables of `keyd.toml` as they are written (docs/keyd.md has them with examples). Unknown keys are refused.

use super::value::{Age, EspCipher, Identity, IkeSuite, MapStop, Peer, Pool, ZoneCipher};
use crate::address::Prefix;
use crate::ports::Ports;
use serde::Deserialize;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use toml::Spanned;

/// The whole file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct File {
    pub node: Node,
    #[serde(default)]
    pub control: Control,
    pub metrics: Option<Metrics>,
    #[serde(default)]
    pub log: Log,
    pub snoop: Option<Spanned<Snoop>>,
    #[serde(default)]
    pub connection: Vec<Connection>,
    #[serde(default)]
    pub foreign_agent: Vec<ForeignAgent>,
    #[serde(default)]
    pub home_agent: Vec<Spanned<HomeAgent>>,
    #[serde(default)]
    pub neighbour: Vec<Spanned<Neighbour>>,
    pub mobile_ip: Option<Spanned<MobileIp>>,
    pub device: Option<Spanned<Device>>,
}

/// What a node is.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Home agent: makes CSAs with mobile hosts and gives zone 1 to foreign agents.
    Ha,
    /// Foreign agent: holds relay CSAs.
    Fa,
    /// Mobile host.
    Mh,
    /// Security gateway.
    Gateway,
    /// End host.
    Host,
}

impl Role {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Ha => "ha",
            Role::Fa => "fa",
            Role::Mh => "mh",
            Role::Gateway => "gateway",
            Role::Host => "host",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Node {
    pub role: Role,
    pub identity: Identity,
    pub addresses: Spanned<Vec<IpAddr>>,
    #[serde(default = "ike_port")]
    pub port: u16,
    #[serde(default = "nat_port")]
    pub nat_port: u16,
    pub tries: Option<Spanned<u32>>,
    #[serde(default = "alarm_after")]
    pub alarm_after: Age,
}

/// Longer than a host's CSA takes to follow it, by far.
const fn alarm_after() -> Age {
    Age(Duration::from_secs(10))
}

const fn ike_port() -> u16 {
    500
}

const fn nat_port() -> u16 {
    4500
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Control {
    #[serde(default = "socket")]
    pub socket: PathBuf,
    #[serde(default)]
    pub group: bool,
}

impl Default for Control {
    fn default() -> Self {
        Control {
            socket: socket(),
            group: false,
        }
    }
}

fn socket() -> PathBuf {
    crate::daemon::control::SOCKET.into()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Metrics {
    pub listen: Spanned<SocketAddr>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    #[serde(default)]
    pub level: Level,
    #[serde(default)]
    pub format: LogFormat,
}

/// What a line on standard error looks like.
#[derive(Deserialize, Clone, Copy, Default, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people; whoever takes the lines adds the time.
    #[default]
    Text,
    /// For programs: a JSON object a line, with the time of the system's monotonic clock.
    Json,
}

/// The least severe lines that are logged.
#[derive(Deserialize, Clone, Copy, Default, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "each says what it is")]
pub enum Level {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

/// What is left away is as [`pfkey::Snoop::default`] has it.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Snoop {
    pub window: Option<u16>,
    pub threshold: Option<u8>,
    pub initial_ms: Option<u32>,
    pub min_rto_ms: Option<u32>,
    pub persist_ms: Option<u32>,
    pub garbage_ms: Option<u32>,
    pub bytes: Option<u64>,
}

/// How both sides of a connection prove who they are.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub(super) enum Auth {
    Psk,
    Key,
    Certificate,
}

/// The device that seals, and what leads into it: keyd's to make, if the table is there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Device {
    #[serde(default = "device_name")]
    pub name: Spanned<String>,
    #[serde(default = "yes")]
    pub routes: bool,
}

fn device_name() -> Spanned<String> {
    Spanned::new(0..0, "mml0".to_owned())
}

/// Who begins.
#[derive(Deserialize, Clone, Copy, Default, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// This side, as soon as it runs.
    #[default]
    Now,
    /// This side, when a packet wants it.
    Demand,
    /// The peer.
    Peer,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Connection {
    pub name: Spanned<String>,
    pub remote: Option<IpAddr>,
    pub local: Option<Spanned<IpAddr>>,
    pub identity: Option<Identity>,
    pub remote_identity: Spanned<Peer>,
    pub auth: Spanned<Auth>,
    pub secret_file: Option<Spanned<PathBuf>>,
    pub key_file: Option<Spanned<PathBuf>>,
    pub certificate_file: Option<Spanned<PathBuf>>,
    pub remote_key_file: Option<Spanned<PathBuf>>,
    pub authority_file: Option<Spanned<PathBuf>>,
    #[serde(default)]
    pub ike: Vec<IkeSuite>,
    pub start: Option<Spanned<Start>>,
    pub rekey: Option<Age>,
    pub liveness: Option<Age>,
    #[serde(default)]
    pub mobike: bool,
    #[serde(default)]
    pub initial_contact: bool,
    pub tunnel: Option<Spanned<Tunnel>>,
}

/// What becomes of a peer that knows no zones.
#[derive(Deserialize, Clone, Copy, Default, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub enum Zones {
    /// Nothing.
    Required,
    /// Plain IPsec.
    #[default]
    Preferred,
    /// Plain IPsec, whatever the peer knows.
    Off,
}

impl Zones {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Zones::Required => "required",
            Zones::Preferred => "preferred",
            Zones::Off => "off",
        }
    }
}

/// What is sealed.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    /// Whole datagrams, within others between the two peers.
    Tunnel,
    /// What is behind the IP header of datagrams between the two peers themselves.
    Transport,
}

/// Which end of the CSA, where the node's role doesn't say it.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub(super) enum End {
    Home,
    Mobile,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Tunnel {
    #[serde(default = "any")]
    pub local: Prefix,
    #[serde(default = "any")]
    pub remote: Prefix,
    pub mode: Option<Spanned<Mode>>,
    #[serde(default)]
    pub protocol: u8,
    /// Ports inside, this side's.
    #[serde(default)]
    pub local_port: Ports,
    /// The other side's.
    #[serde(default)]
    pub remote_port: Ports,
    #[serde(default)]
    pub zones: Zones,
    pub end: Option<End>,
    #[serde(default)]
    pub zone1: Vec<ZoneCipher>,
    #[serde(default)]
    pub zone2: Vec<ZoneCipher>,
    pub map: Option<Spanned<MapStop>>,
    pub window: Option<Spanned<u32>>,
    #[serde(default)]
    pub may_write: bool,
    #[serde(default)]
    pub esp: Vec<EspCipher>,
    pub rekey: Option<Spanned<Age>>,
    pub lifetime: Option<Age>,
    pub soft_bytes: Option<Spanned<u64>>,
    #[serde(default)]
    pub hard_bytes: u64,
    #[serde(default = "yes")]
    pub protect: bool,
    #[serde(default = "priority")]
    pub priority: u32,
    pub request_address: Option<Spanned<bool>>,
    #[serde(default)]
    pub pool: Vec<Spanned<Pool>>,
    pub relay: Option<Spanned<String>>,
    #[serde(default)]
    pub standby: Vec<Spanned<String>>,
}

fn any() -> Prefix {
    Prefix::ANY
}

const fn yes() -> bool {
    true
}

/// Behind bypass policies (0), and room for what is added by hand on either side.
const fn priority() -> u32 {
    1000
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ForeignAgent {
    pub name: Spanned<String>,
    pub identity: Peer,
    pub addresses: Spanned<Vec<IpAddr>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HomeAgent {
    pub identity: Spanned<Identity>,
    pub address: Option<Spanned<Ipv4Addr>>,
    pub prefixes: Vec<Prefix>,
    #[serde(default)]
    pub standby: bool,
    #[serde(default)]
    pub hosts: Vec<IpAddr>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Neighbour {
    pub identity: Peer,
    pub addresses: Vec<IpAddr>,
}

/// Mobile IP's authenticators.
#[derive(Deserialize, Clone, Copy, Default, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub(super) enum MobileAlgorithm {
    #[default]
    HmacSha256,
    HmacMd5,
}

/// Whether a mobile host's packets go to its home agent by a tunnel, too.
#[derive(Deserialize, Clone, Copy, Default, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub(super) enum Reverse {
    #[default]
    Required,
    Offered,
    Refused,
}

/// How foreign agents get CSAs beforehand.
#[derive(Deserialize, Clone, Copy, Default, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub(super) enum PredistributeBy {
    /// Each by IKE.
    #[default]
    Sequence,
    /// All by one datagram to a multicast address.
    Multicast,
    /// All by the same datagram, to each one's own address.
    Copies,
}

/// Which keys are whose, `config/mobile.rs` says.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct MobileIp {
    pub links: Option<Spanned<Vec<String>>>,
    pub address: Option<Spanned<Ipv4Addr>>,
    pub lifetime: Option<Spanned<Age>>,
    pub interval: Option<Spanned<Age>>,
    pub reverse_tunnel: Option<Spanned<Reverse>>,
    pub predistribute: Option<Spanned<bool>>,
    pub rekey_after_handoff: Option<Spanned<bool>>,
    pub rekey_holders: Option<Spanned<u16>>,
    pub predistribute_by: Option<Spanned<PredistributeBy>>,
    pub predistribute_group: Option<Spanned<Ipv4Addr>>,
    pub predistribute_port: Option<Spanned<u16>>,
    pub predistribute_ttl: Option<Spanned<u8>>,
    pub predistribute_interface: Option<Spanned<String>>,
    pub handover: Option<Spanned<bool>>,
    pub home: Option<Spanned<Ipv4Addr>>,
    pub home_agent: Option<Spanned<Ipv4Addr>>,
    pub spi: Option<Spanned<u32>>,
    pub secret_file: Option<Spanned<PathBuf>>,
    pub algorithm: Option<Spanned<MobileAlgorithm>>,
    #[serde(default)]
    pub host: Vec<Spanned<MobilePeer>>,
    #[serde(default)]
    pub peer: Vec<Spanned<MobilePeer>>,
}

/// Whom a mobility security association is with.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct MobilePeer {
    pub address: Spanned<Ipv4Addr>,
    pub spi: Spanned<u32>,
    pub secret_file: Spanned<PathBuf>,
    #[serde(default)]
    pub algorithm: MobileAlgorithm,
}
