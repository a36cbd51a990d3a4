// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The daemon's end of the control socket.

use super::{Answer, Request, MAX_LINE};
use crate::daemon::log::Journal;
use serde_json::Value;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{broadcast, mpsc, oneshot, Semaphore};
use tokio::task::JoinSet;

/// Connections at once.
const MAX_CLIENTS: usize = 64;

/// A command, and where its answer goes.
pub struct Asked {
    /// What is asked.
    pub request: Request,
    /// For the answer.
    pub answer: oneshot::Sender<Answer>,
}

/// The socket; it is taken away when dropped.
pub struct Server {
    path: PathBuf,
    queue: mpsc::Receiver<Asked>,
    /// A place for each that is connected.
    places: Arc<Semaphore>,
    /// Who listens; it ends with the socket.
    listener: JoinSet<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It is in nobody's way: the next daemon takes it away.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Server {
    /// Makes the socket, for its owner alone or for its group too, and listens.
    ///
    /// # Errors
    /// In words: another daemon listens there, or the system's reason.
    pub fn open(path: &Path, group: bool, journal: &Journal) -> Result<Self, String> {
        let wrong = |what: &str, error: io::Error| format!("{}: {what}: {error}", path.display());
        if let Ok(data) = std::fs::symlink_metadata(path) {
            if !data.file_type().is_socket() {
                return Err(format!(
                    "{}: there is something else than a socket; choose another `socket` in [control]",
                    path.display()
                ));
            }
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(format!(
                    "{}: a keyd listens there already; stop it first",
                    path.display()
                ));
            }
            std::fs::remove_file(path)
                .map_err(|error| wrong("the old socket can't be removed", error))?;
        }
        // Nobody may connect between the making of the socket and the setting of its mode.
        let mode = if group { 0o660 } else { 0o600 };
        let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
        let made = UnixListener::bind(path);
        rustix::process::umask(before);
        let listener = made.map_err(|error| wrong("the control socket can't be made", error))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
            .map_err(|error| wrong("its mode can't be set", error))?;
        let (sender, queue) = mpsc::channel(MAX_CLIENTS);
        let mut listeners = JoinSet::new();
        let places = Arc::new(Semaphore::new(MAX_CLIENTS));
        listeners.spawn(accept(listener, sender, journal.clone(), places.clone()));
        Ok(Server {
            path: path.to_owned(),
            queue,
            places,
            listener: listeners,
        })
    }

    /// The next command.
    pub async fn asked(&mut self) -> Option<Asked> {
        self.queue.recv().await
    }

    /// Takes nobody in any more, and waits until everybody who was answered has gone, but not for longer than that.
    pub async fn close(mut self, patience: Duration) {
        self.queue.close();
        // Each is told that the daemon is ending.
        while self.queue.try_recv().is_ok() {}
        self.listener.shutdown().await;
        let all = u32::try_from(MAX_CLIENTS).unwrap_or(u32::MAX);
        // Who follows the log doesn't go.
        let _ = tokio::time::timeout(patience, self.places.acquire_many(all)).await;
    }
}

async fn accept(
    listener: UnixListener,
    sender: mpsc::Sender<Asked>,
    journal: Journal,
    places: Arc<Semaphore>,
) {
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (sender, journal) = (sender.clone(), journal.clone());
                tokio::spawn(async move {
                    let _place = place;
                    // A client that is gone wants no answer.
                    let _ = serve(stream, &sender, &journal).await;
                });
            }
            Err(error) => {
                tracing::warn!("the control socket: {error}");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn say(to: &mut OwnedWriteHalf, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    to.write_all(&line).await
}

/// The next line; `None` at the end, or when one is too long.
async fn line(from: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let most = u64::try_from(MAX_LINE).unwrap_or(u64::MAX);
    from.take(most).read_until(b'\n', &mut line).await?;
    Ok((line.last() == Some(&b'\n')).then_some(line))
}

async fn serve(
    stream: UnixStream,
    sender: &mpsc::Sender<Asked>,
    journal: &Journal,
) -> io::Result<()> {
    let (from, mut to) = stream.into_split();
    let mut from = BufReader::new(from);
    while let Some(line) = line(&mut from).await? {
        match serde_json::from_slice(&line) {
            Ok(Request::Log { follow }) => return log(&mut to, &mut from, journal, follow).await,
            Ok(request) => {
                let (answer, answered) = oneshot::channel();
                if sender.send(Asked { request, answer }).await.is_err() {
                    return Ok(());
                }
                let answer = answered
                    .await
                    .unwrap_or_else(|_| Answer::Refused("the daemon is ending".into()));
                say(&mut to, &answer).await?;
            }
            Err(error) => {
                say(
                    &mut to,
                    &Answer::Malformed(format!("not a request: {error}")),
                )
                .await?
            }
        }
    }
    Ok(())
}

/// Lines of the log until there are no more, or, following it, until the client goes.
async fn log(
    to: &mut OwnedWriteHalf,
    from: &mut BufReader<OwnedReadHalf>,
    journal: &Journal,
    follow: bool,
) -> io::Result<()> {
    let (lines, mut next) = journal.follow();
    for line in lines {
        say(to, &Answer::Done(Value::String(line))).await?;
    }
    if !follow {
        return Ok(());
    }
    let mut octet = [0];
    loop {
        let line = tokio::select! {
            line = next.recv() => line,
            gone = from.read(&mut octet) => match gone? {
                0 => return Ok(()),
                _ => continue,
            },
        };
        match line {
            Ok(line) => say(to, &Answer::Done(Value::String(line))).await?,
            Err(broadcast::error::RecvError::Lagged(lost)) => {
                let line = format!("… {lost} lines are left out");
                say(to, &Answer::Done(Value::String(line))).await?;
            }
            Err(broadcast::error::RecvError::Closed) => return Ok(()),
        }
    }
}
