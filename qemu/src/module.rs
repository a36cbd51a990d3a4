// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The kernel module, and the lab's own beside it, built by the kernel's own build system from a copy of the sources.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::build_root::BuildRoot;
use crate::cache::{Cache, Contents};
use crate::error::{Context, Error, Result};
use crate::kernel::Kernel;
use crate::key::{self, Key};
use crate::machine;
use crate::progress;
use crate::workspace::Workspace;

/// Modules of earlier sources that are kept.
const KEEP: usize = 12;

/// Where a tree the user names is seen inside the root.
const NAMED: &str = "/kdir";

/// What is copied, by the same relative path: the module and the two crates linked into it.
const SOURCES: [&str; 3] = ["kmod", "kmod/core/src", "pfkey/src"];

/// The module for users.
pub const MODULE: &str = "mml.ko";
/// What comes out, and of which folder: that, and the wireless link, which only the lab has a use for.
const PRODUCTS: [(&str, &str); 2] = [("kmod", MODULE), ("kmod/lab", "mml_lab.ko")];

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
        .text("recipe", "2");
    for source in SOURCES {
        key = key.tree(source, &workspace.root().join(source), &skipped)?;
    }
    let product = cache.product("module", &key.finish(), |at| {
        build(workspace, cache, root, kernel, at)
    })?;
    cache.prune("module", KEEP)?;
    Ok(PRODUCTS.map(|(_, name)| product.join(name)).to_vec())
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
    let jobs = machine::processors();
    let make = |tree: &str, sources: &str, llvm: &str| {
        let llvm = if kernel.llvm { llvm } else { "" };
        format!(
            "make -C '{tree}' M='{sources}/kmod' KERNELRELEASE='{}' MML_LAB=m {llvm} -j{jobs} modules",
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
    for (folder, name) in PRODUCTS {
        let module = sources.join(folder).join(name);
        if !module.exists() {
            let what = format!("the build of {folder}/ made no {name}");
            return Err(Error::logged(what, log));
        }
        fs::copy(&module, at.join(name)).context(|| format!("copying {}", module.display()))?;
    }
    // The sources were a copy: without them, equal products take little room. Objects stay for `objdump`.
    Ok(Contents::files(&PRODUCTS.map(|(_, name)| name)))
}
