// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What an agent holds open for the conductor: programs, captures, sockets.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{bail, Context, Result};
use socket2::Socket;

use super::wire::{Reply, Request};
use super::{hold, Answer};
use crate::capture::Capture;
use crate::command::{self, Background, Finished};
use crate::genl::Genl;
use crate::netns::Netns;
use crate::traffic;

/// One of them.
pub enum Object {
    Program(Mutex<Option<Background>>),
    Capture(Mutex<Option<Capture>>),
    Genl(Mutex<Genl>),
    Udp(UdpSocket),
    Raw(Socket),
    Listener(TcpListener),
    Stream(TcpStream),
}

/// Which of them a request is for; None for one that opens it.
pub fn id(request: &Request) -> Option<u32> {
    match request {
        Request::Runs { id }
        | Request::Finish { id }
        | Request::Kill { id }
        | Request::Captured { id }
        | Request::Ask { id, .. }
        | Request::Join { id, .. }
        | Request::Event { id, .. }
        | Request::UdpSend { id, .. }
        | Request::UdpReceive { id, .. }
        | Request::RawSend { id }
        | Request::RawReceive { id, .. }
        | Request::Accept { id }
        | Request::Write { id }
        | Request::Read { id, .. }
        | Request::Shutdown { id }
        | Request::Close { id } => Some(*id),
        _ => None,
    }
}

/// Runs a program, or sets a sysctl.
pub fn run(node: &Netns, request: &Request) -> Result<Reply> {
    match request {
        Request::Run { argv, input } => {
            let words: Vec<&str> = argv.iter().map(String::as_str).collect();
            let shown = format!("{}$ {}", node.name(), argv.join(" "));
            let finished = node.enter(|| command::finish(&shown, &words, input.as_deref()))?;
            Ok(finished_reply(finished))
        }
        Request::Sysctl { key, value } => {
            node.sysctl(key, value)?;
            Ok(Reply::Done)
        }
        other => bail!("{other:?} is nothing to run"),
    }
}

fn finished_reply(finished: Finished) -> Reply {
    Reply::Finished {
        success: finished.success,
        stdout: finished.stdout,
        stderr: finished.stderr,
    }
}

/// Writes a file, with the folder it belongs in.
pub fn put(path: &str, mode: u32, octets: &[u8]) -> Result<()> {
    if let Some(folder) = Path::new(path).parent() {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)
        .with_context(|| path.to_owned())?;
    file.write_all(octets).with_context(|| path.to_owned())
}

impl Object {
    /// Opens what a request asks for.
    pub fn open(node: &Netns, request: &Request) -> Result<Self> {
        Ok(match request {
            Request::Start { argv } => {
                let words: Vec<&str> = argv.iter().map(String::as_str).collect();
                Self::Program(Mutex::new(Some(node.background(&words)?)))
            }
            Request::Capture { interface, name } => {
                Self::Capture(Mutex::new(Some(Capture::start(node, interface, name)?)))
            }
            Request::Genl => Self::Genl(Mutex::new(Genl::open(node)?)),
            Request::Udp { address, port } => Self::Udp(traffic::udp(node, *address, *port)?),
            Request::Raw { protocol } => Self::Raw(traffic::raw(node, *protocol)?),
            Request::Listen { address, port } => {
                let address = SocketAddrV4::new(*address, *port);
                Self::Listener(node.enter(|| Ok(TcpListener::bind(address)?))?)
            }
            Request::Connect { address, port } => {
                let address = SocketAddrV4::new(*address, *port).into();
                Self::Stream(
                    node.enter(|| Ok(TcpStream::connect_timeout(&address, traffic::ARRIVES)?))?,
                )
            }
            other => bail!("{other:?} opens nothing"),
        })
    }

    /// The next connection of a listener.
    pub fn accept(&self) -> Result<Self> {
        match self {
            Self::Listener(listener) => Ok(Self::Stream(listener.accept()?.0)),
            _ => bail!("only a listener accepts"),
        }
    }

    /// Does what a request asks of it.
    pub fn answer(&self, request: &Request, octets: &[u8]) -> Result<Answer> {
        let bare = |reply| Ok((reply, Vec::new()));
        match (self, request) {
            (Self::Program(program), _) => bare(program_answer(program, request)?),
            (Self::Capture(capture), Request::Captured { .. }) => {
                let capture = hold(capture).take().context("the capture has ended")?;
                Ok((Reply::Done, capture.stop()?.octets()))
            }
            (Self::Genl(genl), _) => genl_answer(&mut hold(genl), request, octets),
            (Self::Udp(socket), Request::UdpSend { to, .. }) => {
                socket.send_to(octets, to)?;
                bare(Reply::Done)
            }
            (Self::Udp(socket), Request::UdpReceive { millis, .. }) => Ok(came(traffic::receive(
                socket,
                Duration::from_millis(*millis),
            )?)),
            (Self::Raw(socket), Request::RawSend { .. }) => {
                traffic::send_raw(socket, octets)?;
                bare(Reply::Done)
            }
            (Self::Raw(socket), Request::RawReceive { millis, .. }) => {
                Ok(came(raw_receive(socket, Duration::from_millis(*millis))?))
            }
            (Self::Stream(stream), _) => stream_answer(stream, request, octets),
            _ => bail!("{request:?} does not fit what it names"),
        }
    }
}

fn came(octets: Option<Vec<u8>>) -> Answer {
    match octets {
        Some(octets) => (Reply::Done, octets),
        None => (Reply::Nothing, Vec::new()),
    }
}

fn raw_receive(mut socket: &Socket, patience: Duration) -> Result<Option<Vec<u8>>> {
    let mut buffer = vec![0; 65_536];
    socket.set_read_timeout(Some(patience.max(Duration::from_millis(1))))?;
    match socket.read(&mut buffer) {
        Ok(length) => {
            buffer.truncate(length);
            Ok(Some(buffer))
        }
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn program_answer(program: &Mutex<Option<Background>>, request: &Request) -> Result<Reply> {
    let mut program = hold(program);
    Ok(match request {
        Request::Runs { .. } => Reply::Yes(program.as_mut().is_some_and(Background::runs)),
        Request::Finish { .. } => {
            finished_reply(program.take().context("the program has ended")?.finish()?)
        }
        Request::Kill { .. } => {
            finished_reply(program.take().context("the program has ended")?.stop()?)
        }
        other => bail!("{other:?} is nothing for a program"),
    })
}

fn genl_answer(genl: &mut Genl, request: &Request, octets: &[u8]) -> Result<Answer> {
    match request {
        Request::Ask { command, flags, .. } => match genl.request(*command, *flags, octets)? {
            Ok(answers) => Ok((
                Reply::Answers(answers.iter().map(Vec::len).collect()),
                answers.concat(),
            )),
            Err(refusal) => Ok((
                Reply::Refused {
                    errno: refusal.errno,
                    text: refusal.text,
                },
                Vec::new(),
            )),
        },
        Request::Join { group, .. } => {
            genl.join(group)??;
            Ok((Reply::Done, Vec::new()))
        }
        Request::Event { millis, .. } => Ok(came(genl.event(Duration::from_millis(*millis))?)),
        other => bail!("{other:?} is nothing for netlink"),
    }
}

fn stream_answer(mut stream: &TcpStream, request: &Request, octets: &[u8]) -> Result<Answer> {
    match request {
        Request::Write { .. } => {
            stream.write_all(octets)?;
            Ok((Reply::Done, Vec::new()))
        }
        Request::Read { most, .. } => {
            let mut buffer = vec![0; *most];
            let length = stream.read(&mut buffer)?;
            buffer.truncate(length);
            Ok((Reply::Done, buffer))
        }
        Request::Shutdown { .. } => {
            stream.shutdown(Shutdown::Write)?;
            Ok((Reply::Done, Vec::new()))
        }
        other => bail!("{other:?} is nothing for a stream"),
    }
}
