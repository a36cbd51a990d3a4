// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The kernel module, built by the kernel's own build system from a copy of the sources.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::build_root::BuildRoot;
use crate::cache::{Cache, Contents};
use crate::error::{Context, Error, Result};
use crate::kernel::Kernel;
use crate::key::{self, Key};
use crate::progress;
use crate::workspace::Workspace;

/// Modules of earlier sources that are kept.
const KEEP: usize = 12;

/// Where a tree the user names is seen inside the root.
const NAMED: &str = "/kdir";

/// What is copied, by the same relative path: the module and the two crates linked into it.
const SOURCES: [&str; 3] = ["kmod", "kmod/core/src", "pfkey/src"];

/// Folders that belong to cargo, not to the module.
fn skipped(leaf: &str) -> bool {
    matches!(leaf, "core" | "target" | "fuzz" | "tests" | "benches") || leaf.starts_with('.')
}

/// The modules built from the checkout for this kernel, by path.
pub fn ensure(
    workspace: &Workspace,
    cache: &Cache,
    root: &BuildRoot,
    kernel: &Kernel,
) -> Result<Vec<PathBuf>> {
    let mut key = Key::new("module")
        .text("kernel", &kernel.key)
        .text("toolchain", &root.toolchain)
        .text("recipe", "1");
    for source in SOURCES {
        key = key.tree(source, &workspace.root().join(source), &skipped)?;
    }
    let product = cache.product("module", &key.finish(), |at| {
        build(workspace, cache, root, kernel, at)
    })?;
    cache.prune("module", KEEP)?;
    modules_in(&product)
}

fn modules_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let is_module = |path: &PathBuf| path.extension().is_some_and(|e| e == "ko");
    let mut found: Vec<PathBuf> = fs::read_dir(directory)
        .context(|| format!("reading {}", directory.display()))?
        .flatten()
        .map(|entry| entry.path())
        .filter(is_module)
        .collect();
    found.sort();
    Ok(found)
}

fn copy_sources(workspace: &Workspace, to: &Path) -> Result<()> {
    for source in SOURCES {
        let from = workspace.root().join(source);
        for file in key::files(&from, &skipped)? {
            let relative = file.strip_prefix(&from).unwrap_or(&file);
            let target = to.join(source).join(relative);
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent).context(|| format!("making {}", parent.display()))?;
            }
            fs::copy(&file, &target).context(|| format!("copying {}", file.display()))?;
        }
    }
    Ok(())
}

fn build(
    workspace: &Workspace,
    cache: &Cache,
    root: &BuildRoot,
    kernel: &Kernel,
    at: &Path,
) -> Result<Contents> {
    let log = cache.log(if kernel.debug {
        "module-debug"
    } else {
        "module"
    })?;
    let sources = at.join("build");
    copy_sources(workspace, &sources)?;
    let jobs = std::thread::available_parallelism()
        .map(usize::from)
        .unwrap_or(1);
    let make = |tree: &str, sources: &str, llvm: &str| {
        let llvm = if kernel.llvm { llvm } else { "" };
        format!(
            "make -C '{tree}' M='{sources}/kmod' KERNELRELEASE='{}' {llvm} -j{jobs} modules",
            kernel.release
        )
    };
    let mut command = if kernel.tree.starts_with(&cache.dir) {
        root.script(
            &[],
            &make(
                &root.inside(&kernel.tree),
                &root.inside(&sources),
                "LLVM=-19",
            ),
        )
    } else if kernel
        .rustc
        .as_ref()
        .is_none_or(|version| root.toolchain.contains(&format!("rustc {version}")))
    {
        root.script(
            &[(&kernel.tree, NAMED)],
            &make(NAMED, &root.inside(&sources), "LLVM=-19"),
        )
    } else {
        let mut command = Command::new("sh");
        let tree = kernel.tree.display().to_string();
        command.args([
            "-euc",
            &make(&tree, &sources.display().to_string(), "LLVM=1"),
        ]);
        command
    };
    progress::run(
        &format!("module for {}", kernel.release),
        &mut command,
        &log,
        None,
    )?;
    let mut contents = Contents::default();
    for module in modules_in(&sources.join("kmod"))? {
        let name = module
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        fs::copy(&module, at.join(&name)).context(|| format!("copying {}", module.display()))?;
        contents.files.push(name);
    }
    if !contents.files.iter().any(|name| name == "mml.ko") {
        return Err(Error::logged("the build of kmod/ made no mml.ko", log));
    }
    // The sources were a copy: without them, equal products take little room. Objects stay for `objdump`.
    Ok(contents)
}
