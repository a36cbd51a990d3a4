// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The daemon's loop: sockets, clock, kernel events, commands and signals around the engine.

use super::config::{Config, Role};
use super::control::{Answer, Asked, Request, Server};
use super::device::Device;
use super::engine::{Engine, Kernels, Refusal};
use super::farewell;
use super::kernel::{Error, Kernel, KernelEvent, Mml, Xfrm};
use super::log::Journal;
use super::metrics;
use super::mobility::{links, mtu, Mobility};
use super::udp::Sockets;
use super::waits::Waits;
use mml_ike::event::Time;
use serde_json::{json, Value};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio::signal::unix::{signal, SignalKind};
use tokio::sync::{mpsc, oneshot};

/// How long clients of the control socket are waited for that were told of the end.
const CLIENTS: Duration = Duration::from_secs(1);
/// How long a scraper of metrics may take.
const SCRAPE: Duration = Duration::from_secs(5);
/// How often the clock for certificates is looked at, and what interfaces carry.
const WALL_CLOCK: Duration = Duration::from_secs(60);

/// Why the daemon didn't run.
#[derive(thiserror::Error, Debug)]
pub enum RunError {
    /// Something of the system: a socket, a signal.
    #[error("{0}")]
    System(String),
    /// The kernel lacks something, or the permission is missing.
    #[error("{0}")]
    Kernel(String),
}

/// How it is run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// At its end all SAs are closed and all policies taken away.
    pub flush: bool,
}

/// The kernels of this network namespace.
///
/// # Errors
/// Without permission. A kernel that isn't there is left out.
pub fn kernels() -> Result<Kernels, RunError> {
    fn take<K: Kernel + 'static>(
        name: &str,
        opened: Result<K, Error>,
    ) -> Result<Option<Box<dyn Kernel>>, RunError> {
        match opened {
            Ok(kernel) => Ok(Some(Box::new(kernel))),
            Err(error) if error.is_permission() => Err(RunError::Kernel(error.to_string())),
            Err(error) => {
                tracing::warn!("{name}: {error}");
                Ok(None)
            }
        }
    }
    Ok(Kernels {
        mml: take("mml", Mml::open())?,
        xfrm: take("xfrm", Xfrm::open())?,
    })
}

/// Listens to both kernels, each in a thread of its own: netlink's sockets wait.
fn listen(own: Vec<IpAddr>) -> mpsc::UnboundedReceiver<KernelEvent> {
    let (sender, events) = mpsc::unbounded_channel();
    let to = sender.clone();
    let spawn = |name: &str, work: Box<dyn FnOnce() -> Result<(), Error> + Send>| {
        let name = name.to_owned();
        let done = std::thread::Builder::new()
            .name(name.clone())
            .spawn(move || {
                if let Err(error) = work() {
                    tracing::warn!("{name}: no events any more: {error}");
                }
            });
        if let Err(error) = done {
            tracing::warn!("no thread for the kernel's events: {error}");
        }
    };
    spawn(
        "mml",
        Box::new(move || {
            Mml::listen(&mut |event| {
                // The daemon is ending when nobody takes it.
                let _ = to.send(event);
            })
        }),
    );
    spawn(
        "xfrm",
        Box::new(move || {
            Xfrm::listen(&own, &mut |event| {
                let _ = sender.send(event);
            })
        }),
    );
    events
}

fn unix() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// What is heard of links, where anything hangs on them.
fn watched(wanted: bool) -> Result<Option<mpsc::UnboundedReceiver<links::Change>>, RunError> {
    let watch = wanted.then(links::watch).transpose();
    watch.map_err(|error| RunError::System(format!("links can't be watched: {error}")))
}

/// The device that seals, where it is keyd's to make.
fn device(config: &Config, kernels: &Kernels) -> Result<Option<Device>, RunError> {
    let Some(of) = &config.device else {
        return Ok(None);
    };
    if kernels.mml.is_none() {
        tracing::warn!(
            device = of.name,
            "there is none without the kernel module; XFRM needs none, but a route"
        );
        return Ok(None);
    }
    Device::open(config, of).map(Some).map_err(RunError::System)
}

/// What comes by a source that may not be there.
async fn next<T>(source: &mut Option<mpsc::UnboundedReceiver<T>>) -> Option<T> {
    match source {
        Some(source) => source.recv().await,
        None => std::future::pending().await,
    }
}

/// Mobile IP makes tokens of keys that key management has, and its routing lets packets follow a host.
fn hand_over(engine: &mut Engine, mobility: &mut Option<Mobility>, now: Time) {
    let (keys, orders) = (engine.handover_keys(), engine.orders());
    let Some(mobility) = mobility else {
        return;
    };
    for (fa, key) in keys {
        mobility.handover_key(fa, key);
    }
    for order in orders {
        let done = mobility.order(&order, now);
        engine.ordered(&order, done, now);
    }
}

/// What is sealed is led into the device; by then policies say that it goes sealed or not at all.
fn lead_in(engine: &mut Engine, device: &mut Option<Device>) {
    if let (Some(device), Some(plan)) = (device, engine.device_plan()) {
        device.apply(plan);
    }
}

/// What an operator should know of the interfaces.
fn advise(engine: &mut Engine, now: Time) {
    let Some(mobile) = &engine.config().mobile_ip else {
        return;
    };
    match mtu::look(mobile, &engine.config().tunnel_ends()) {
        Ok(advice) => engine.advised(advice, now),
        Err(error) => tracing::debug!("what interfaces carry isn't known: {error}"),
    }
}

pub(super) async fn send_all(engine: &mut Engine, sockets: &Sockets) {
    while let Some(datagram) = engine.datagram() {
        sockets
            .send(datagram.from, datagram.to, &datagram.octets)
            .await;
    }
}

/// Reads the file again. One that is wrong changes nothing.
fn reload(engine: &mut Engine, file: &Path, now: Time) -> Result<Value, String> {
    let done = Config::read(file)
        .map_err(|mistake| mistake.to_string())
        .and_then(|new| {
            let done = engine.reload(new, now);
            done.map_err(|why| format!("{}: {why}", file.display()))
        });
    done.inspect_err(|why| {
        tracing::error!("the file isn't taken up, and what was read before stays in force:");
        // It shows the line of the file.
        for line in why.lines() {
            tracing::error!("{line}");
        }
    })
}

/// Ends a host's registration, by word of the operator.
fn revoke(
    engine: &mut Engine,
    mobility: &mut Option<Mobility>,
    home: Ipv4Addr,
    now: Time,
) -> Result<Value, Refusal> {
    let Some(mobility) = mobility
        .as_mut()
        .filter(|_| engine.config().role != Role::Mh)
    else {
        return Err(Refusal::Refused(
            "only home agents and foreign agents under Mobile IP have registrations to end; `mmlctl leave` ends a mobile host's own".into(),
        ));
    };
    let done = mobility.revoke(home, now, &mut |event| engine.mobile_event(event, now));
    let done = done.map_err(|_| {
        Refusal::Unknown(format!(
            "{home}: it isn't registered here; `mmlctl status` has who is"
        ))
    })?;
    if !done.told {
        tracing::warn!(%home, peer = %done.peer, "the other agent can't be told that the registration has ended: there is no [[mobile-ip.peer]] for it, or it doesn't know of revocation");
    }
    Ok(json!({ "revoked": home, "peer": done.peer, "told": done.told }))
}

fn answer(
    (engine, mobility): (&mut Engine, &mut Option<Mobility>),
    waits: &mut Waits,
    file: &Path,
    asked: Asked,
    now: Time,
) {
    let done = match &asked.request {
        Request::Reload => reload(engine, file, now).map_err(Refusal::Refused),
        Request::Revoke { home } => revoke(engine, mobility, *home, now),
        request => engine.command(request, now),
    };
    let answer = match done {
        Ok(value) => match &asked.request {
            // What is up already is nothing to wait for.
            Request::Initiate { name, wait } if *wait > 0 && !value["begun"].is_null() => {
                return waits.add(name, *wait, asked.answer, now);
            }
            _ => Answer::Done(value),
        },
        Err(Refusal::Unknown(text)) => Answer::Unknown(text),
        Err(Refusal::Refused(text)) => Answer::Refused(text),
    };
    // A client that is gone wants none.
    let _ = asked.answer.send(answer);
}

/// Scrapers of metrics: each wants the text of the moment.
fn metrics_page(listener: TcpListener) -> mpsc::Receiver<oneshot::Sender<String>> {
    let (sender, wanted) = mpsc::channel::<oneshot::Sender<String>>(4);
    tokio::spawn(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let sender = sender.clone();
            tokio::spawn(async move {
                let (text, ready) = oneshot::channel();
                if sender.send(text).await.is_ok() {
                    if let Ok(text) = ready.await {
                        // A scraper that is gone, or slow, comes again.
                        let _ =
                            tokio::time::timeout(SCRAPE, metrics::serve(&mut stream, &text)).await;
                    }
                }
            });
        }
    });
    wanted
}

/// Runs a node until a signal ends it; `file` is where `config` was read, and is read again at SIGHUP.
///
/// # Errors
/// [`RunError`]. Nothing was changed in the kernel if a socket or the permission was missing.
pub async fn run(
    config: Config,
    file: &Path,
    journal: Journal,
    options: Options,
) -> Result<(), RunError> {
    let system = |error: &dyn std::fmt::Display| RunError::System(error.to_string());
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| system(&e))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| system(&e))?;
    let mut hang_up = signal(SignalKind::hangup()).map_err(|e| system(&e))?;
    // The control socket first: where another keyd runs, nothing is touched.
    let mut server =
        Server::open(&config.control, config.control_group, &journal).map_err(RunError::System)?;
    let mut sockets = Sockets::open(&config.addresses, config.port, config.nat_port)
        .await
        .map_err(|e| system(&e))?;
    let mobile = config.mobile_ip.as_ref();
    if let Some(one) = mobile.and_then(|mobile| mobile.predistribution.as_ref()) {
        sockets.open_predistribution(one).map_err(|e| system(&e))?;
    }
    let mut scrapers = match config.metrics {
        Some(address) => {
            let listener = TcpListener::bind(address)
                .await
                .map_err(|error| RunError::System(format!("metrics on {address}: {error}")))?;
            Some(metrics_page(listener))
        }
        None => None,
    };
    let kernels = kernels()?;
    let mut events = listen(config.addresses.clone());
    let start = Instant::now();
    let mut mobility = match &config.mobile_ip {
        Some(one) => {
            let opened = Mobility::open(one, start.elapsed());
            Some(opened.map_err(RunError::System)?)
        }
        None => None,
    };
    let mut device = device(&config, &kernels)?;
    let mut links = watched(mobility.is_some() || device.is_some())?;
    let mut engine = Engine::new(config, kernels, start.elapsed())
        .map_err(|error| RunError::Kernel(error.to_string()))?;
    engine.set_wall_clock(unix(), start.elapsed());
    if let Some(mobility) = &mut mobility {
        let now = start.elapsed();
        mobility.resume(now, &mut |event| engine.mobile_event(event, now));
    }
    tracing::info!(
        role = engine.config().role.name(),
        identity = %engine.config().identity,
        "keyd {} runs",
        env!("CARGO_PKG_VERSION")
    );
    let mut wall_clock = tokio::time::interval(WALL_CLOCK);
    let mut waits = Waits::default();
    let mut leaving = None;
    loop {
        hand_over(&mut engine, &mut mobility, start.elapsed());
        lead_in(&mut engine, &mut device);
        send_all(&mut engine, &sockets).await;
        waits.settle(&engine, start.elapsed());
        let mobility_due = mobility.as_ref().and_then(Mobility::next_deadline);
        let due = [mobility_due, engine.next_deadline(), waits.next_deadline()];
        let due = due
            .into_iter()
            .flatten()
            .min()
            .map(|at| tokio::time::Instant::from_std(start + at));
        let timer = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let scraper = async {
            match &mut scrapers {
                Some(scrapers) => scrapers.recv().await,
                None => std::future::pending().await,
            }
        };
        let mobile = async {
            match &mut mobility {
                Some(mobility) => mobility.receive().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => {
                // What is wrong is in the log.
                let _ = reload(&mut engine, file, start.elapsed());
            }
            received = sockets.receive() => match received {
                Some(one) => engine.handle(&one.octets, one.from, one.to, start.elapsed()),
                None => break,
            },
            Some(heard) = mobile => {
                if let Some(mobility) = &mut mobility {
                    let now = start.elapsed();
                    mobility.tell_seen(Some(&heard), now, |host| engine.seen(host));
                    mobility.handle(&heard, now, &mut |event| engine.mobile_event(event, now));
                }
            }
            Some((index, up)) = next(&mut links) => {
                if let Some(device) = device.as_mut().filter(|_| up) {
                    device.link_up(index);
                }
                if let Some(mobility) = &mut mobility {
                    let now = start.elapsed();
                    mobility.tell_seen(None, now, |host| engine.seen(host));
                    mobility.link(index, up, now, &mut |event| engine.mobile_event(event, now));
                    advise(&mut engine, now);
                }
            }
            () = timer => {
                let now = start.elapsed();
                if let Some(mobility) = &mut mobility {
                    if mobility.next_deadline().is_some_and(|due| due <= now) {
                        mobility.tell_seen(None, now, |host| engine.seen(host));
                    }
                    mobility.tick(now, &mut |event| engine.mobile_event(event, now));
                }
                engine.tick(now);
            }
            Some(event) = events.recv() => engine.kernel_event(event, start.elapsed()),
            Some(asked) = server.asked() => {
                if asked.request == Request::Leave {
                    leaving = Some(asked.answer);
                    break;
                }
                let node = (&mut engine, &mut mobility);
                answer(node, &mut waits, file, asked, start.elapsed());
            }
            Some(text) = scraper => {
                let _ = text.send(metrics::render(&engine));
            }
            _ = wall_clock.tick() => {
                engine.set_wall_clock(unix(), start.elapsed());
                // The first comes at once.
                advise(&mut engine, start.elapsed());
            }
        }
    }
    if options.flush || leaving.is_some() {
        tracing::info!("ending; SAs are closed, and policies taken away");
        farewell::say(&mut engine, &mut sockets, &mut mobility, start).await;
        if let Some(device) = &mut device {
            device.flush();
        }
    } else {
        tracing::info!("ending; SAs and policies stay as they are");
    }
    if let Some(leaving) = leaving {
        // A client that is gone wants no answer.
        let _ = leaving.send(Answer::Done(Value::Bool(true)));
        server.close(CLIENTS).await;
    }
    Ok(())
}
