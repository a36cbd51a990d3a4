// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Runs `mmlctl` and reads what it says and makes.
#![allow(dead_code, reason = "each test takes what it needs")]

use keyd::kernel::Kernel;
use keyd::netlink::Error;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

pub fn mmlctl_with(arguments: &[&str], input: &str) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_mmlctl"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may refuse the command line and be gone before it has read anything.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let done = child.wait_with_output().unwrap();
    let text = |octets| String::from_utf8(octets).unwrap();
    Ran {
        code: done.status.code().unwrap(),
        out: text(done.stdout),
        err: text(done.stderr),
    }
}

pub fn mmlctl(arguments: &[&str]) -> Ran {
    mmlctl_with(arguments, "")
}

/// Runs it, expects exit code 2 and one line on standard error, and gives the line.
pub fn usage_error(arguments: &[&str]) -> String {
    let ran = mmlctl(arguments);
    one_line(&ran, 2)
}

pub fn one_line(ran: &Ran, code: i32) -> String {
    assert_eq!((ran.code, ran.out.as_str()), (code, ""), "{}", ran.err);
    assert_eq!(ran.err.matches('\n').count(), 1, "{}", ran.err);
    ran.err
        .trim_end()
        .strip_prefix("mmlctl: ")
        .unwrap_or(&ran.err)
        .to_owned()
}

pub fn new_with(more: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let arguments = [
        "csa",
        "new",
        "--out",
        path,
        "--ha",
        "198.51.100.1",
        "--mh",
        "10.1.1.7",
        "--selector-mh",
        "203.0.113.7/32",
    ];
    let ran = mmlctl(&[&arguments, more].concat());
    assert_eq!(ran.code, 0, "{}", ran.err);
    folder
}

pub fn new() -> TempDir {
    new_with(&[])
}

pub fn text(folder: &TempDir, name: &str) -> String {
    std::fs::read_to_string(folder.path().join(name)).unwrap()
}

/// Every key and salt in the three files, as they are written.
pub fn secrets(folder: &TempDir) -> Vec<String> {
    let all = ["ha.toml", "fa.toml", "mh.toml"]
        .map(|name| text(folder, name))
        .concat();
    let secret = |line: &str| {
        let value = line
            .strip_prefix("key = ")
            .or(line.strip_prefix("salt = "))?;
        Some(value.trim_matches('"').to_owned())
    };
    all.lines().filter_map(secret).collect()
}

pub fn add(path: &Path) -> Vec<String> {
    vec![
        "csa".into(),
        "add".into(),
        "-f".into(),
        path.to_str().unwrap().into(),
    ]
}

pub fn add_error(path: &Path) -> String {
    let arguments = add(path);
    usage_error(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// What needs the absence of the module, which a developer's machine may have.
pub fn no_module() -> bool {
    matches!(Kernel::open(), Err(Error::NoFamily))
}
