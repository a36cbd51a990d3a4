// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The conductor's side of its lines to the nodes' agents.

use std::collections::HashMap;
use std::fs::File;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{mpsc, Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{anyhow, bail, ensure, Context, Result};

use crate::report;
use crate::wire::{self, Reply, Request};

/// The nodes, as the host names their ports.
pub const NAMES: [&str; 6] = ["cn", "ha", "core", "fa1", "fa2", "mh"];
/// What the conductor's ports are named with, the node's name behind it.
const PORT: &str = "org.mml.node.";

/// How long guests may take to boot, all at once on a machine of two processors that has other work.
const BOOT: Duration = Duration::from_secs(420);
/// How long any one request may take; the longest are transfers.
const REQUEST: Duration = Duration::from_secs(300);

static NODES: OnceLock<HashMap<&'static str, Arc<Node>>> = OnceLock::new();

/// A node's guest.
pub struct Node {
    pub name: &'static str,
    port: Mutex<File>,
    waiting: Mutex<HashMap<u32, mpsc::Sender<Answer>>>,
    next: AtomicU32,
    ending: Mutex<Option<JoinHandle<Result<()>>>>,
    /// What was wrong when nodes went away.
    wrong: Mutex<Vec<String>>,
}

/// What an agent answered.
pub struct Answer {
    pub reply: Reply,
    pub octets: Vec<u8>,
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens the lines and waits until all nodes are up.
pub fn connect() -> Result<()> {
    let mut nodes = HashMap::new();
    for name in NAMES {
        let port = wire::open_port(&format!("{PORT}{name}"))?;
        let mut reading = port.try_clone()?;
        let node = Arc::new(Node {
            name,
            port: Mutex::new(port),
            waiting: Mutex::new(HashMap::new()),
            next: AtomicU32::new(1),
            ending: Mutex::new(None),
            wrong: Mutex::new(Vec::new()),
        });
        let listening = Arc::clone(&node);
        std::thread::spawn(move || {
            while let Ok((number, reply, octets)) = wire::receive::<Reply>(&mut reading) {
                let waiting = hold(&listening.waiting).remove(&number);
                if let Some(waiting) = waiting {
                    let _ = waiting.send(Answer { reply, octets });
                }
            }
            report::step(format!("the line to {name} broke"));
        });
        nodes.insert(name, node);
    }
    let hellos: Vec<_> = NAMES
        .iter()
        .filter_map(|name| nodes.get(name).cloned())
        .map(|node| {
            std::thread::spawn(move || {
                node.ask_within(&Request::Hello, &[], BOOT)?;
                report::step(format!("{} is up", node.name));
                Ok::<_, anyhow::Error>(())
            })
        })
        .collect();
    for hello in hellos {
        hello
            .join()
            .unwrap_or_else(|_| bail!("a thread panicked"))
            .context("not all nodes came up")?;
    }
    ensure!(NODES.set(nodes).is_ok(), "the nodes are connected already");
    Ok(())
}

/// The node of this name.
pub fn node(name: &str) -> Result<Arc<Node>> {
    let nodes = NODES.get().context("the nodes are not connected")?;
    let node = nodes.get(name).cloned();
    node.with_context(|| format!("there is no node {name}"))
}

fn all() -> impl Iterator<Item = &'static Arc<Node>> {
    NODES.get().into_iter().flat_map(HashMap::values)
}

/// Waits until every node that is going has gone, and says what was wrong with any.
pub fn settle() -> Result<()> {
    let mut wrong = Vec::new();
    for node in all() {
        node.settle();
        wrong.append(&mut hold(&node.wrong));
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Lets every guest power off.
pub fn dismiss() {
    for node in all() {
        let _ = node.ask(&Request::PowerOff, &[]);
    }
}

impl Node {
    /// Asks and waits for the answer; what could not be done is an error.
    pub fn ask(&self, request: &Request, octets: &[u8]) -> Result<Answer> {
        self.ask_within(request, octets, REQUEST)
    }

    fn ask_within(&self, request: &Request, octets: &[u8], patience: Duration) -> Result<Answer> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = mpsc::channel();
        hold(&self.waiting).insert(number, sender);
        wire::send(&mut hold(&self.port), number, request, octets)
            .with_context(|| self.name.to_owned())?;
        let answer = receiver.recv_timeout(patience).map_err(|_| {
            anyhow!(
                "{} did not answer within {} s: {request:?}",
                self.name,
                patience.as_secs()
            )
        })?;
        match answer.reply {
            Reply::Failed { text, errno } => {
                let error = match errno {
                    // Kept as what it was, so that callers may look at it.
                    Some(errno) => {
                        anyhow::Error::from(std::io::Error::from_raw_os_error(errno)).context(text)
                    }
                    None => anyhow!("{text}"),
                };
                Err(error.context(format!("at {}", self.name)))
            }
            _ => Ok(answer),
        }
    }

    /// Opens something that is closed when what this gives is dropped.
    pub fn open(self: &Arc<Self>, request: Request) -> Result<Held> {
        match self.ask(&request, &[])?.reply {
            Reply::Opened(id) => Ok(Held {
                node: Arc::clone(self),
                id,
            }),
            other => bail!("{} answered {other:?} to {request:?}", self.name),
        }
    }

    /// Begins anew, once its last end is over.
    pub fn begin(&self) -> Result<()> {
        self.settle();
        self.ask(&Request::Begin, &[])?;
        Ok(())
    }

    /// Begins to end. Nodes end at the same time, each in its own.
    pub fn end(self: &Arc<Self>) {
        let node = Arc::clone(self);
        let thread = std::thread::spawn(move || node.ask(&Request::End, &[]).map(|_| ()));
        *hold(&self.ending) = Some(thread);
    }

    fn settle(&self) {
        let Some(thread) = hold(&self.ending).take() else {
            return;
        };
        if let Err(error) = thread.join().unwrap_or_else(|_| bail!("a thread panicked")) {
            hold(&self.wrong).push(format!("{error:#}"));
        }
    }
}

/// Something an agent holds open.
pub struct Held {
    node: Arc<Node>,
    id: u32,
}

impl Held {
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Asks the agent that holds it.
    pub fn ask(&self, request: &Request, octets: &[u8]) -> Result<Answer> {
        self.node.ask(request, octets)
    }

    /// Something that comes out of it.
    pub fn open(&self, request: Request) -> Result<Self> {
        self.node.open(request)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // The answer is of no use, and nobody waits for it.
        let number = self.node.next.fetch_add(1, Ordering::Relaxed);
        let _ = wire::send(
            &mut hold(&self.node.port),
            number,
            &Request::Close { id: self.id },
            &[],
        );
    }
}
