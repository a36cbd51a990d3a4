// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A guest that is one node: it does what the conductor asks, with the same code that serves nodes which are namespaces.

mod node;
mod objects;
mod search;
pub mod wire;

use std::collections::HashMap;
use std::fs::File;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use anyhow::{anyhow, Context, Result};

use crate::config::RunConfig;
use crate::kernel_log::KernelLog;
use crate::module::Modules;
use crate::netns::Netns;
use crate::report;
use node::Ground;
use objects::Object;
use wire::{Reply, Request};

/// The agent.
struct Agent {
    ground: Mutex<Ground>,
    node: RwLock<Option<Arc<Netns>>>,
    objects: Mutex<HashMap<u32, Arc<Object>>>,
    next: AtomicU32,
}

/// A reply and the octets that go with it.
type Answer = (Reply, Vec<u8>);

/// A thread that panicked has told so; what it held is as good as it was.
fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves until the conductor says it is over.
pub fn serve(config: &RunConfig, modules: Modules) -> Result<bool> {
    let name: &'static str = config
        .node
        .clone()
        .context("the order names no node")?
        .leak();
    modules.load("virtio_net")?;
    let mut port = wire::open_port(wire::AGENT)?;
    let replies = Arc::new(Mutex::new(port.try_clone()?));
    let agent = Arc::new(Agent {
        ground: Mutex::new(Ground {
            name,
            links: config.links.clone(),
            modules,
            log: KernelLog::from_now()?,
        }),
        node: RwLock::new(None),
        objects: Mutex::new(HashMap::new()),
        next: AtomicU32::new(1),
    });
    report::step(format!("node {name} waits for the conductor"));
    loop {
        let (number, request, octets) = wire::receive::<Request>(&mut port)?;
        if matches!(request, Request::PowerOff) {
            reply(&replies, number, &(Reply::Done, Vec::new()));
            return Ok(true);
        }
        // Each on a thread of its own: what waits must not keep the rest waiting.
        let (agent, replies) = (Arc::clone(&agent), Arc::clone(&replies));
        std::thread::spawn(move || {
            let answer = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                agent.answer(&request, &octets)
            }))
            .unwrap_or_else(|_| Err(anyhow!("the agent panicked at {request:?}")));
            let answer = answer.unwrap_or_else(|error| {
                let errno = error
                    .chain()
                    .find_map(|cause| cause.downcast_ref::<std::io::Error>()?.raw_os_error());
                let text = format!("{error:#}");
                (Reply::Failed { text, errno }, Vec::new())
            });
            reply(&replies, number, &answer);
        });
    }
}

fn reply(port: &Mutex<File>, number: u32, (reply, octets): &Answer) {
    if let Err(error) = wire::send(&mut hold(port), number, reply, octets) {
        report::step(format!("a reply was lost: {error:#}"));
    }
}

impl Agent {
    fn node(&self) -> Result<Arc<Netns>> {
        let node = self.node.read().unwrap_or_else(PoisonError::into_inner);
        node.clone().context("the node has not begun")
    }

    fn keep(&self, object: Object) -> Reply {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        hold(&self.objects).insert(id, Arc::new(object));
        Reply::Opened(id)
    }

    fn object(&self, id: u32) -> Result<Arc<Object>> {
        let found = hold(&self.objects).get(&id).cloned();
        found.with_context(|| format!("there is no object {id}"))
    }

    fn answer(&self, request: &Request, octets: &[u8]) -> Result<Answer> {
        let bare = |reply| Ok((reply, Vec::new()));
        match request {
            Request::Hello | Request::PowerOff => bare(Reply::Done),
            Request::Begin => {
                let node = hold(&self.ground).begin()?;
                *self.node.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(node));
                bare(Reply::Done)
            }
            Request::End => {
                let mut ground = hold(&self.ground);
                // Sockets keep their namespace, and so its links.
                hold(&self.objects).clear();
                *self.node.write().unwrap_or_else(PoisonError::into_inner) = None;
                ground.end()?;
                bare(Reply::Done)
            }
            Request::Put { path, mode } => {
                objects::put(path, *mode, octets)?;
                bare(Reply::Done)
            }
            Request::Get { path } => {
                let octets = std::fs::read(path).with_context(|| path.clone())?;
                Ok((Reply::Done, octets))
            }
            Request::Search { length } => {
                let needles = search::Needle::all(octets, *length)?;
                bare(Reply::Found(search::count(&needles)?))
            }
            Request::Close { id } => {
                hold(&self.objects).remove(id);
                bare(Reply::Done)
            }
            Request::Run { .. } | Request::Sysctl { .. } => {
                bare(objects::run(&*self.node()?, request)?)
            }
            Request::Accept { id } => bare(self.keep(self.object(*id)?.accept()?)),
            _ => match objects::id(request) {
                Some(id) => {
                    let object = self.object(id)?;
                    if matches!(
                        request,
                        Request::Finish { .. } | Request::Kill { .. } | Request::Captured { .. }
                    ) {
                        hold(&self.objects).remove(&id);
                    }
                    object.answer(request, octets)
                }
                None => bare(self.keep(Object::open(&*self.node()?, request)?)),
            },
        }
    }
}
