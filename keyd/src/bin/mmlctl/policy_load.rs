// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `mmlctl policy load`: a folder of policy files becomes the module's policies, and nothing goes in clear on the way there.
//!
//! Before the first file is read a barrier goes up: discard policies for all of IPv4, asked before any other. It comes down
//! when every policy of every file is in. Whatever goes wrong, a crash of this program included, it stays.

use crate::failure::Failure;
use crate::folder;
use crate::output::{count, Output};
use crate::policy::{self, POLICIES};
use keyd::kernel::Kernel;
use keyd::netlink::Error;
use keyd::policy_file;
use keyd::private_file;
use pfkey::number::policy::DISCARD;
use pfkey::{Policy, PolicyId};
use rustix::io::Errno;
use serde_json::json;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The barrier, as a policy file would have it. In halves, since policies of one direction and selector can't be two, and
/// that for all packets is one that files often have.
const BARRIER: &str = r#"
policy = [
    { dir = "out", action = "discard", dst = "0.0.0.0/1" },
    { dir = "out", action = "discard", dst = "128.0.0.0/1" },
    { dir = "in", action = "discard", src = "0.0.0.0/1" },
    { dir = "in", action = "discard", src = "128.0.0.0/1" },
]
"#;

/// What fails behind the barrier.
const BEHIND: &str = "no IPv4 packet goes in or out until `mmlctl policy load` succeeds or `mmlctl policy flush --yes` lets all through";
/// What fails before anything was touched.
const UNTOUCHED: &str = "the policies that stand were left as they are";

/// Loads the folder.
pub fn run(folder: &Path, output: Output) -> Result<(), Failure> {
    let mut kernel = policy::kernel()?;
    let barrier = policy_file::parse("barrier", BARRIER).map_err(Failure::usage)?;
    let standing = kernel
        .policies()
        .map_err(|e| Failure::kernel(POLICIES, &e))?;
    // Policies that stand protect as well as a barrier while files are read, and a slip in one locks nobody out.
    let guarded = standing.iter().any(|policy| !is_of(policy, &barrier));
    if guarded {
        read_all(folder, &barrier).map_err(|failure| failure.and(UNTOUCHED))?;
    }
    raise(&mut kernel, &barrier)?;
    let loaded =
        replace(&mut kernel, folder, &barrier, &standing).map_err(|failure| failure.and(BEHIND))?;
    lower(&mut kernel, &barrier)?;
    let text = format!(
        "loaded {} from {}",
        count(loaded.len(), "policy", "policies"),
        folder.display()
    );
    output.say(
        &text,
        &json!({ "loaded": loaded.iter().map(keyd::info::policy_json).collect::<Vec<_>>() }),
    );
    Ok(())
}

/// Whether it is one of these, by what makes a policy one: direction and selector.
fn is_of(policy: &Policy, these: &[Policy]) -> bool {
    these.iter().any(|other| {
        policy.ext.direction == other.ext.direction && policy.selector == other.selector
    })
}

/// Adds the barrier; what an earlier load left of one serves.
fn raise(kernel: &mut Kernel, barrier: &[Policy]) -> Result<(), Failure> {
    for policy in barrier {
        match kernel.add_policy(policy) {
            Ok(_) => {}
            Err(Error::Refused { errno, .. }) if errno == Errno::EXIST.raw_os_error() => {}
            Err(error) => return Err(Failure::kernel("barrier", &error)),
        }
    }
    // Somebody's own policy in the barrier's place would be no barrier.
    let policies = kernel
        .policies()
        .map_err(|e| Failure::kernel(POLICIES, &e))?;
    let discards = |policy: &&Policy| is_of(policy, barrier) && policy.ext.kind == DISCARD;
    if policies.iter().filter(discards).count() == barrier.len() {
        Ok(())
    } else {
        Err(Failure::usage(
            "policy load: a policy for half of all addresses stands where the barrier goes; `mmlctl policy list` shows it, delete it first",
        ))
    }
}

/// Behind the barrier: the old ones go, the files' come.
fn replace(
    kernel: &mut Kernel,
    folder: &Path,
    barrier: &[Policy],
    standing: &[Policy],
) -> Result<Vec<Policy>, Failure> {
    let policies = read_all(folder, barrier)?;
    for old in standing.iter().filter(|policy| !is_of(policy, barrier)) {
        kernel
            .delete_policy(&PolicyId::Number(old.ext.id))
            .map_err(|e| Failure::kernel(&policy::name(old), &e))?;
    }
    policies
        .iter()
        .map(|policy| {
            kernel
                .add_policy(policy)
                .map_err(|e| Failure::kernel(&policy::name(policy), &e))
        })
        .collect()
}

fn lower(kernel: &mut Kernel, barrier: &[Policy]) -> Result<(), Failure> {
    for policy in barrier {
        kernel
            .delete_policy(&PolicyId::Selector(policy.ext.direction, policy.selector))
            .map_err(|e| Failure::kernel("barrier", &e).and(BEHIND))?;
    }
    Ok(())
}

/// All policies of all files, in the files' order by name.
fn read_all(folder: &Path, barrier: &[Policy]) -> Result<Vec<Policy>, Failure> {
    let mut all: Vec<Policy> = Vec::new();
    for path in folder::files(folder)? {
        for policy in read(&path)? {
            let complaint = if is_of(&policy, barrier) {
                "halves of all addresses are the barrier's; write `any`, or other prefixes"
            } else if is_of(&policy, &all) {
                "there are two with this direction and selector; keep one"
            } else {
                all.push(policy);
                continue;
            };
            return Err(Failure::usage(format!(
                "{}: {}: {complaint}",
                path.display(),
                policy::name(&policy)
            )));
        }
    }
    Ok(all)
}

/// One file's policies. What others may write says nothing about what must be sealed.
fn read(path: &Path) -> Result<Vec<Policy>, Failure> {
    let name = path.display().to_string();
    let failed = |error| Failure::usage(format!("{name}: {error}"));
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.mode() & 0o022 != 0 {
        return Err(Failure::usage(format!(
            "{name}: others than its owner may write it (mode {:04o}); `chmod go-w` it",
            metadata.mode() & 0o7777
        )));
    }
    let text = private_file::read_text(&mut file, path)?;
    policy_file::parse(&name, &text).map_err(Failure::usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn barrier() -> Vec<Policy> {
        policy_file::parse("barrier", BARRIER).unwrap()
    }

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        }
        folder
    }

    const ANY: &str = "[[policy]]\ndir = \"out\"\naction = \"protect\"\n";
    const NET: &str = "[[policy]]\ndir = \"out\"\naction = \"bypass\"\ndst = \"10.0.0.0/8\"\n";

    #[test]
    fn the_barrier_discards_all_of_ipv4_both_ways_before_anything_else() {
        let barrier = barrier();
        assert_eq!(barrier.len(), 4);
        assert!(barrier
            .iter()
            .all(|policy| policy.ext.kind == DISCARD && policy.ext.priority == 0));
        let names: Vec<String> = barrier.iter().map(policy::name).collect();
        assert_eq!(names[0], "discard out 0.0.0.0/0 → 0.0.0.0/1");
        assert_eq!(names[3], "discard in 128.0.0.0/1 → 0.0.0.0/0");
    }

    #[test]
    fn files_are_read_in_the_order_of_their_names_and_others_are_left_alone() {
        let folder = folder(&[("20-any.toml", ANY), ("10-net.toml", NET), ("README", "x")]);
        let policies = read_all(folder.path(), &barrier()).unwrap();
        let names: Vec<String> = policies.iter().map(policy::name).collect();
        assert_eq!(
            names,
            [
                "bypass out 0.0.0.0/0 → 10.0.0.0/8",
                "protect out 0.0.0.0/0 → 0.0.0.0/0"
            ]
        );
    }

    #[test]
    fn a_broken_file_an_empty_folder_and_a_policy_given_twice_are_refused() {
        let read = |files: &[(&str, &str)]| read_all(folder(files).path(), &barrier()).is_err();
        assert!(read(&[]));
        assert!(read(&[("a.toml", "[[policy]]\ndir = \"out\"\n")]));
        assert!(read(&[("a.toml", ANY), ("b.toml", ANY)]));
        assert!(read(&[(
            "a.toml",
            &ANY.replace("action", "dst = \"128.0.0.0/1\"\naction")
        )]));
        assert!(read_all(Path::new("/nowhere"), &barrier()).is_err());
    }

    #[test]
    fn a_file_that_others_may_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = folder(&[("a.toml", ANY)]);
        let path = folder.path().join("a.toml");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o646)).unwrap();
        assert!(read_all(folder.path(), &barrier()).is_err());
    }
}
