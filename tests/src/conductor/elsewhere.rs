// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What takes doing where nodes are guests of their own: files are carried, and every kernel is asked for complaints.

use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result};

use crate::agents;
use crate::netns::Netns;
use crate::wire::Request;

/// Makes a file of this guest be at a node, by the same path and with the same permissions.
pub fn carry(node: &Netns, path: &str) -> Result<()> {
    let octets = std::fs::read(path).with_context(|| path.to_owned())?;
    let mode = std::fs::metadata(path)
        .with_context(|| path.to_owned())?
        .permissions()
        .mode()
        & 0o777;
    let path = path.to_owned();
    node.node().ask(&Request::Put { path, mode }, &octets)?;
    Ok(())
}

/// Reads a file of a node.
pub fn read(node: &Netns, path: &str) -> Result<Vec<u8>> {
    let path = path.to_owned();
    Ok(node.node().ask(&Request::Get { path }, &[])?.octets)
}

/// Waits until the nodes of a scenario have gone, and says what was wrong with any of their kernels.
pub fn settle() -> Result<()> {
    agents::settle()
}
