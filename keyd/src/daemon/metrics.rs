// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What happened, in numbers, as Prometheus reads them (its text format 0.0.4).

use super::engine::Engine;
use std::fmt::Write;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

macro_rules! counters {
    ($($name:ident $help:literal),+ $(,)?) => {
        /// What happened since the daemon began.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct Counters {
            $(#[doc = $help] pub $name: u64,)+
        }

        impl Counters {
            /// Names, what they count, and how many there were.
            pub fn list(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((stringify!($name), $help, self.$name)),+]
            }
        }
    };
}

counters! {
    received "Datagrams received",
    sent "Datagrams sent",
    initiated "IKE SAs begun by this side",
    ike_up "IKE SAs set up",
    ike_down "IKE SAs that ended or were never set up",
    authentication_failed "Peers that could not prove who they are",
    composite_up "Composite SAs installed",
    plain_up "Plain child SAs installed",
    child_down "Child SAs taken away",
    child_failed "Child SAs that were asked for and not to be had",
    install_failed "SAs the kernel refused",
    rekeyed "Child SAs that replaced another",
    renewed "Child SAs to be replaced because of who knows zone 1's keys",
    claimed "Composite SAs claimed after a restart",
    migrated "Composite SAs moved to other addresses",
    relay_up "Relay CSAs installed",
    relay_down "Relay CSAs revoked or over",
    distributed "CSAs that a foreign agent took",
    distribution_failed "CSAs that a foreign agent did not take",
    predistributed "CSAs that went to a group of foreign agents by one datagram",
    predistribution_missed "CSAs that a member of a group did not get by its datagram, and got by itself",
    group_datagrams "Datagrams of a home agent to a group of foreign agents",
    group_repeated "Datagrams to a group that had come before",
    group_forged "Datagrams to a group that were not the home agent's",
    handed_on "CSAs that the previous foreign agent handed on to this one",
    handed_over "Hosts whose held packets followed them to the next foreign agent",
    flows_taken_over "Flows whose SNOOP's state the previous foreign agent gave along",
    revoked "CSAs that a foreign agent has dropped, as it says",
    revocation_unconfirmed "CSAs that a foreign agent was to drop and did not answer",
    alarms "Alarms that began",
    without_relay "Rekeyings that went on without the relay",
    acquires "Packets that asked for an SA",
    expires "Limits that SAs came to",
}

/// All metrics of a node.
pub fn render(engine: &Engine) -> String {
    let mut text = String::new();
    for (name, help, value) in engine.counters.list() {
        // Writing to a String can't fail.
        let _ = write!(text, "# HELP keyd_{name}_total {help}\n# TYPE keyd_{name}_total counter\nkeyd_{name}_total {value}\n");
    }
    let book = engine.book();
    let composite = book
        .children
        .values()
        .filter(|child| child.composite)
        .count();
    let (coverage, total) = (engine.coverage().visitors(), engine.coverage().total());
    let uncovered = coverage.values().filter(|one| one.active == 0);
    for (name, help, value) in [
        (
            "esp_opened",
            "Sealed packets whose zone 1 the module opened on their way",
            total.opened,
        ),
        (
            "esp_without_csa",
            "Sealed packets that passed under SPIs that no CSA is for",
            total.no_csa,
        ),
    ] {
        let _ = write!(text, "# HELP keyd_{name}_total {help}\n# TYPE keyd_{name}_total counter\nkeyd_{name}_total {value}\n");
    }
    let gauges = [
        ("active_alarms", "Alarms there are", engine.alarm_count()),
        ("visitors", "Mobile hosts that are here", coverage.len()),
        (
            "visitors_without_csa",
            "Mobile hosts that are here without a CSA",
            uncovered.count(),
        ),
        ("ike_sas", "IKE SAs that are up", book.ikes.len()),
        ("composite_sas", "Composite SAs there are", composite),
        (
            "plain_sas",
            "Plain child SAs there are",
            book.children.len() - composite,
        ),
        ("relay_csas", "Relay CSAs there are", book.relays.len()),
        (
            "unclaimed_csas",
            "CSAs that outlived a restart and are not claimed",
            book.orphans.len(),
        ),
        (
            "half_open_ike_sas",
            "IKE SAs whose peer has proved nothing yet",
            engine.endpoint().half_open(),
        ),
    ];
    for (name, help, value) in gauges {
        let _ = write!(
            text,
            "# HELP keyd_{name} {help}\n# TYPE keyd_{name} gauge\nkeyd_{name} {value}\n"
        );
    }
    text
}

/// Octets of a request that are read: more than any scraper sends.
const MAX_REQUEST: usize = 8192;

/// Reads an HTTP request from `stream` and answers it with `text`: whatever the path, there is one page.
///
/// # Errors
/// The stream's.
pub async fn serve(
    stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin),
    text: &str,
) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut part = [0; 1024];
    while !request.windows(4).any(|octets| octets == b"\r\n\r\n") && request.len() < MAX_REQUEST {
        match stream.read(&mut part).await? {
            0 => break,
            len => request.extend(part.iter().take(len)),
        }
    }
    let is_get = request.starts_with(b"GET ");
    let (status, body) = if is_get {
        ("200 OK", text)
    } else {
        ("405 Method Not Allowed", "")
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}
