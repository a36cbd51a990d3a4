// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the daemon can be told and asked by the control socket.

use super::book::{Child, Relay};
use super::{Engine, Task};
use crate::daemon::config::value::peer_text;
use crate::daemon::config::Start;
use crate::daemon::control::Request;
use crate::info::selector_json;
use mml_ike::event::{ChildId, Custody, Holding, IkeId, Time};
use serde_json::{json, Value};
use std::net::Ipv4Addr;
use std::time::Duration;

/// Why a command was not carried out.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Nothing of that name or SPI.
    #[error("{0}")]
    Unknown(String),
    /// Not as things stand.
    #[error("{0}")]
    Refused(String),
}

/// How a connection stands that was begun.
#[derive(Clone, PartialEq, Debug)]
pub enum Standing {
    /// It is up, with its child if it has a tunnel: as `status` tells of it.
    Up(Value),
    /// It may come up yet; why it didn't so far, if it failed before.
    Coming(Option<String>),
    /// It won't, unless it is begun anew: why.
    Failed(String),
}

/// What a command is about.
enum What {
    Connection(usize),
    Child(ChildId),
}

/// An SPI as people write it: decimal, or `0x…`.
fn spi(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn age(since: Time, now: Time) -> u64 {
    now.saturating_sub(since).as_secs()
}

fn refused(error: mml_ike::Refused) -> Refusal {
    Refusal::Refused(error.to_string())
}

impl Engine {
    /// Carries out a command; `Log` is not the engine's.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn command(&mut self, request: &Request, now: Time) -> Result<Value, Refusal> {
        let answer = match request {
            Request::Status => {
                self.review(now);
                Ok(self.status(now))
            }
            Request::SaList => Ok(self.sa_list(now)),
            Request::Initiate { name, .. } => self.initiate(name, now),
            Request::Rekey { what, ike } => self.rekey(what, *ike, now),
            Request::Delete { what } => self.delete(what, now),
            Request::Log { .. } | Request::Reload | Request::Revoke { .. } | Request::Leave => {
                Err(Refusal::Refused("not the engine's".into()))
            }
        };
        self.collect(now);
        answer
    }

    fn what(&self, what: &str) -> Result<What, Refusal> {
        if let Some(connection) = self.config.connection(what) {
            return Ok(What::Connection(connection));
        }
        let child = spi(what).and_then(|spi| self.host.book.child_by_spi(spi));
        child.map(What::Child).ok_or_else(|| {
            Refusal::Unknown(format!(
                "{what}: no connection of this name and no SA of this SPI; `mmlctl status` and `mmlctl sa list` have them"
            ))
        })
    }

    fn initiate(&mut self, name: &str, now: Time) -> Result<Value, Refusal> {
        let connection = self.config.connection(name).ok_or_else(|| {
            Refusal::Unknown(format!(
                "{name}: no connection of this name; `mmlctl status` has them"
            ))
        })?;
        let one = &self.config.connections[connection];
        if one.remote.is_none() {
            return Err(Refusal::Refused(format!(
                "{name}: its peer may be anywhere, so that it can't be begun here; give it `remote`"
            )));
        }
        let tunnel = one.tunnel.is_some();
        match self.host.book.ike_of(connection) {
            None => {
                self.begin(connection, now);
                Ok(json!({ "connection": name, "begun": "ike" }))
            }
            Some(ike) if tunnel && self.host.book.children_of(connection).next().is_none() => {
                let host = &mut self.host;
                self.endpoint
                    .create_child(ike, now, host)
                    .map_err(refused)?;
                host.book.failures.remove(&connection);
                Ok(json!({ "connection": name, "begun": "child" }))
            }
            Some(_) => Ok(json!({ "connection": name, "begun": Value::Null })),
        }
    }

    fn rekey(&mut self, what: &str, ike: bool, now: Time) -> Result<Value, Refusal> {
        let children: Vec<(IkeId, ChildId)> = match self.what(what)? {
            What::Child(_) if ike => {
                return Err(Refusal::Refused(format!(
                    "{what}: --ike wants the name of a connection"
                )))
            }
            What::Child(child) => self
                .ike_of_child(child)
                .map(|ike| (ike, child))
                .into_iter()
                .collect(),
            What::Connection(connection) => {
                let children = self.host.book.children_of(connection);
                let children: Vec<_> = children.map(|(id, child)| (child.ike, id)).collect();
                if ike || children.is_empty() {
                    let ike = self.host.book.ike_of(connection).ok_or_else(|| {
                        Refusal::Refused(format!(
                            "{what}: it is not up; `mmlctl initiate {what}` begins it"
                        ))
                    })?;
                    self.endpoint
                        .rekey_ike(ike, now, &mut self.host)
                        .map_err(refused)?;
                    return Ok(json!({ "rekeying": ["ike"] }));
                }
                children
            }
        };
        let mut rekeying = Vec::new();
        for (ike, child) in children {
            self.endpoint
                .rekey_child(ike, child, now, &mut self.host)
                .map_err(refused)?;
            rekeying.extend(
                self.host
                    .book
                    .children
                    .get(&child)
                    .map(|child| child.inbound.spi),
            );
        }
        Ok(json!({ "rekeying": rekeying }))
    }

    fn delete(&mut self, what: &str, now: Time) -> Result<Value, Refusal> {
        match self.what(what)? {
            What::Child(child) => {
                let ike = self.ike_of_child(child);
                let ike =
                    ike.ok_or_else(|| Refusal::Refused(format!("{what}: it is going already")))?;
                match self.endpoint.delete_child(ike, child, now, &mut self.host) {
                    Ok(()) => {}
                    // Its IKE SA was lost: nobody is to be told.
                    Err(_) => self.child_down(child, Duration::ZERO, now),
                }
                Ok(json!({ "deleted": [what] }))
            }
            What::Connection(connection) => {
                let book = &self.host.book;
                let up = book
                    .ikes
                    .iter()
                    .filter(|(_, ike)| ike.connection == connection)
                    .map(|(id, _)| *id);
                let begun = book
                    .starting
                    .iter()
                    .filter(|(_, of)| **of == connection)
                    .map(|(id, _)| *id);
                let ikes: Vec<IkeId> = up.chain(begun).collect();
                if ikes.is_empty() {
                    return Err(Refusal::Refused(format!("{what}: it is not up")));
                }
                let deleted: Vec<u64> = ikes.iter().map(|ike| ike.0).collect();
                for ike in ikes {
                    self.endpoint
                        .delete_ike(ike, now, &mut self.host)
                        .map_err(refused)?;
                }
                Ok(json!({ "deleted": deleted }))
            }
        }
    }

    /// Closes all IKE SAs, and with them all SAs, before `--flush`.
    pub fn close_all(&mut self, now: Time) {
        let book = &self.host.book;
        let ikes: Vec<IkeId> = book
            .ikes
            .keys()
            .chain(book.starting.keys())
            .copied()
            .collect();
        for ike in ikes {
            if let Err(error) = self.endpoint.delete_ike(ike, now, &mut self.host) {
                tracing::debug!("IKE SA {} can't be closed: {error}", ike.0);
            }
        }
        self.collect(now);
    }

    /// HA, FA: whether zone 1's keys of hosts whose registrations have ended are still to go from a foreign agent, or from
    /// here: their home agent says that.
    pub fn keys_to_go(&self, homes: &[Ipv4Addr]) -> bool {
        let goes = |one: &Holding| matches!(one.custody, Custody::Leaving | Custody::Revoking);
        let mut holdings = self.endpoint.holdings();
        let mut homes = homes.iter();
        holdings.any(|one| goes(&one)) || homes.any(|home| self.relays_for((*home).into()))
    }

    /// How a connection stands that somebody waits for.
    pub fn standing(&self, name: &str, now: Time) -> Standing {
        let Some(at) = self.config.connection(name) else {
            return Standing::Failed("it was taken out of the file".into());
        };
        let book = &self.host.book;
        let up = book.ike_of(at).is_some();
        let whole =
            self.config.connections[at].tunnel.is_none() || book.children_of(at).next().is_some();
        if up && whole {
            return Standing::Up(self.connection_status(at, now));
        }
        let again = self.tasks.values().any(|task| *task == Task::Initiate(at));
        let coming = again || book.starting.values().any(|of| *of == at);
        match book.failures.get(&at) {
            Some(why) if !coming => Standing::Failed(why.clone()),
            why => Standing::Coming(why.cloned()),
        }
    }

    fn connection_status(&self, at: usize, now: Time) -> Value {
        let book = &self.host.book;
        let one = &self.config.connections[at];
        let ike = book
            .ike_of(at)
            .and_then(|id| Some((id, book.ikes.get(&id)?)));
        let begun = book.starting.values().any(|of| *of == at);
        let tunnel = one.tunnel.as_ref();
        json!({
            "name": one.name,
            "state": match (&ike, begun) {
                (Some(_), _) => "up",
                (None, true) => "connecting",
                (None, false) => "down",
            },
            "failure": book.failures.get(&at),
            "start": match one.start {
                Start::Now => "now",
                Start::Demand => "demand",
                Start::Peer => "peer",
            },
            "remote_identity": peer_text(&self.config.ike.connections[at].remote_id),
            "peer": ike.map(|(_, ike)| ike.peer.to_string()),
            "local": ike.map(|(_, ike)| ike.local.to_string()),
            "remote": ike.map(|(_, ike)| ike.remote.to_string()),
            "ike": ike.map(|(id, _)| id.0),
            "both_know_zones": ike.map(|(_, ike)| ike.zones),
            "age_seconds": ike.map(|(_, ike)| age(ike.since, now)),
            "zones": tunnel.map(|tunnel| tunnel.zones.name()),
            "selector": tunnel.map(|tunnel| selector_json(&tunnel.selector)),
            "inner_address": self.given.get(&at).map(ToString::to_string),
            "children": book.children_of(at).count(),
        })
    }

    fn status(&self, now: Time) -> Value {
        let book = &self.host.book;
        let all = self.config.connections.iter().enumerate();
        let connections = all
            .filter(|(_, one)| !one.closed)
            .map(|(at, _)| self.connection_status(at, now));
        let mobile = book.mobile.iter().map(|(home, place)| {
            json!({
                "home": home.to_string(),
                "care_of": place.care_of.map(|address| address.to_string()),
                "age_seconds": age(place.since, now),
            })
        });
        json!({
            "role": self.config.role.name(),
            "identity": self.config.identity.to_string(),
            "addresses": self.config.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "mml": self.host.kernels.mml.is_some(),
            "xfrm": self.host.kernels.xfrm.is_some(),
            "uptime_seconds": now.as_secs(),
            "connections": connections.collect::<Vec<_>>(),
            "mobile": mobile.collect::<Vec<_>>(),
            "groups": self.groups(),
            "alarms": self.alarms_status(now),
            "keys": self.keys_status(),
            "coverage": self.coverage_status(now),
            "esp_without_csa": self.coverage.total().no_csa,
            "children": book.children.len(),
            "relays": book.relays.len(),
            "unclaimed": book.orphans.len(),
        })
    }

    fn sa_list(&self, now: Time) -> Value {
        let book = &self.host.book;
        let child = |(id, child): (&ChildId, &Child)| {
            json!({
                "child": id.0,
                "ike": child.ike.0,
                "connection": self.config.connections[child.connection].name,
                "kind": if child.composite { "composite" } else { "plain" },
                "spi_in": child.inbound.spi,
                "spi_out": child.outbound.spi,
                "local": child.outbound.src.to_string(),
                "remote": child.outbound.dst.to_string(),
                "selector": selector_json(&child.selector),
                "transforms": child.transforms,
                "generation": child.generation,
                "sealing": child.sealing,
                "age_seconds": age(child.since, now),
                "seconds_left": age(now, child.ends),
            })
        };
        let relay = |relay: &Relay| {
            json!({
                "kind": "relay",
                "spi_in": relay.inbound.spi,
                "spi_out": relay.outbound.spi,
                "local": relay.outbound.src.to_string(),
                "remote": relay.outbound.dst.to_string(),
                "selector": selector_json(&relay.selector),
                "transforms": [relay.transform],
                "generation": relay.generation,
                "standby": relay.standby,
                "age_seconds": age(relay.since, now),
            })
        };
        let mut list: Vec<Value> = book.children.iter().map(child).collect();
        let mut relays: Vec<&Relay> = book.relays.values().collect();
        relays.sort_by_key(|relay| (relay.outbound.dst, relay.outbound.spi));
        list.extend(relays.into_iter().map(relay));
        list.extend(book.orphans.iter().map(|orphan| {
            json!({
                "kind": "unclaimed",
                "spi_in": orphan.inbound.sa.id.spi,
                "spi_out": orphan.outbound.sa.id.spi,
                "local": orphan.outbound.sa.id.src.to_string(),
                "remote": orphan.outbound.sa.id.dst.to_string(),
                "selector": selector_json(&orphan.outbound.sa.selector),
                "peer": orphan.inbound.sa.peer.to_string(),
            })
        }));
        Value::Array(list)
    }
}
