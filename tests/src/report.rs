// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The explicit channel to the host: JSON lines over a virtio-serial port.
//!
//! A guest that says nothing has failed, so everything the host shows or judges goes through here, panics included.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use base64::Engine;
use serde_json::{json, Value};

use crate::module::Modules;

/// The name the host gives its port.
const PORT_NAME: &str = "org.mml.report";

/// How long the port may take to appear.
const APPEARS: Duration = Duration::from_secs(20);

static CHANNEL: OnceLock<Mutex<File>> = OnceLock::new();

/// Opens the port. There is no udev in the guest, so the port is found by its name in sysfs.
pub fn open() -> Result<()> {
    let device = Path::new("/dev").join(port()?.file_name().context("a port without a name")?);
    let file = OpenOptions::new()
        .write(true)
        .open(&device)
        .with_context(|| format!("{}", device.display()))?;
    match CHANNEL.get() {
        Some(channel) => *locked(channel) = file,
        None => drop(CHANNEL.set(Mutex::new(file))),
    }
    Ok(())
}

/// The port's directory in sysfs.
fn port() -> Result<PathBuf> {
    for entry in std::fs::read_dir("/sys/class/virtio-ports").context("no virtio-serial port")? {
        let path = entry?.path();
        let name = std::fs::read_to_string(path.join("name")).unwrap_or_default();
        if name.trim() == PORT_NAME {
            return Ok(path);
        }
    }
    anyhow::bail!("no virtio-serial port is named {PORT_NAME}")
}

/// Does something that the port's driver doesn't live through, as the machine's sleep is. Nothing is reported meanwhile.
#[allow(dead_code, reason = "nodes that are guests of their own don't sleep")]
pub fn without<T>(modules: &Modules, during: impl FnOnce() -> Result<T>) -> Result<T> {
    const DRIVER: &str = "/sys/bus/virtio/drivers/virtio_console";
    let device = port()?.join("device").canonicalize()?;
    let device = device.file_name().context("a device without a name")?;
    let tell = |what: &str| {
        std::fs::write(Path::new(DRIVER).join(what), device.as_encoded_bytes())
            .with_context(|| format!("{DRIVER}/{what}"))
    };
    let channel = CHANNEL.get().context("there was no port")?;
    // The port must be closed for its device to go.
    *locked(channel) = OpenOptions::new().write(true).open("/dev/null")?;
    tell("unbind")?;
    let done = during();
    tell("bind")?;
    open_at_start(modules)?;
    done
}

/// A thread that panicked while writing leaves at worst a torn line behind.
fn locked(channel: &Mutex<File>) -> MutexGuard<'_, File> {
    channel
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Opens the port at the guest's start, when it may not have got its driver or its name yet.
pub fn open_at_start(modules: &Modules) -> Result<()> {
    let end = Instant::now() + APPEARS;
    while let Err(error) = open() {
        if modules.has("virtio_console") {
            modules.load("virtio_console")?;
        }
        if Instant::now() > end {
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Sends one event. A host that went away is no reason to stop.
pub fn emit(event: &Value) {
    let line = format!("{event}\n");
    match CHANNEL.get() {
        Some(channel) => {
            let _ = locked(channel).write_all(line.as_bytes());
        }
        None => print!("{line}"),
    }
}

/// What is going on, for the progress bar and the list of commands.
pub fn step(text: impl AsRef<str>) {
    emit(&json!({"event": "step", "text": text.as_ref()}));
}

/// One row of the host's `--json` file; `fields` is an object.
pub fn result(kind: &str, fields: Value) {
    let mut event = json!({"event": "result", "kind": kind});
    if let (Some(event), Some(fields)) = (event.as_object_mut(), fields.as_object()) {
        event.extend(fields.clone());
    }
    emit(&event);
}

/// An artefact for the host, named by a relative path.
pub fn file(name: &str, data: &[u8]) {
    emit(
        &json!({"event": "file", "name": name, "data": base64::engine::general_purpose::STANDARD.encode(data)}),
    );
}
