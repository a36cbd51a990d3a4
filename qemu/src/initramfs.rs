// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The guest's file system: a base made of the build root's programs and the kernel's modules, cached, and a
//! small archive after it with what belongs to one run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::BufWriter;
use std::path::{Component, Path, PathBuf};

use crate::build_root::{self, BuildRoot};
use crate::cache::{Cache, Contents};
use crate::cpio::Archive;
use crate::error::{Context, Error, Result};
use crate::guest::Needs;
use crate::kernel::Kernel;
use crate::key::Key;
use crate::module_list::ModuleList;
use crate::progress;
use crate::workspace::Workspace;

/// Where programs are looked for when only their name is known.
const PROGRAM_PATH: [&str; 2] = ["/usr/bin", "/usr/sbin"];

/// Directories the guest mounts on or its programs write to.
const DIRECTORIES: [&str; 10] = [
    "proc",
    "sys",
    "dev",
    "tmp",
    "run",
    "root",
    "var/log/nginx",
    "var/lib/nginx",
    "var/tmp",
    "etc/nginx",
];

/// Users its programs look up.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/dash\nwww-data:x:33:33:www-data:/var/www:/bin/false\ntcpdump:x:100:100::/:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n";
const GROUP: &str = "root:x:0:\nwww-data:x:33:\ntcpdump:x:100:\nnogroup:x:65534:\n";

/// The base archive for this kernel.
pub fn base(
    workspace: &Workspace,
    cache: &Cache,
    root: &BuildRoot,
    kernel: &Kernel,
    needs: &Needs,
) -> Result<PathBuf> {
    let mut programs = build_root::list(workspace, "guest-programs")?;
    programs.extend(
        needs
            .programs
            .iter()
            .filter_map(|name| find_program(root, name)),
    );
    let mut modules = build_root::list(workspace, "guest-modules")?;
    modules.extend(needs.modules.iter().cloned());
    let key = Key::new("base")
        .text("root", &root.key)
        .text("kernel", &kernel.key)
        .text("programs", &programs.join(" "))
        .text("modules", &modules.join(" "))
        .text("recipe", "1")
        .finish();
    let product = cache.product("base", &key, |at| {
        let step =
            progress::Step::begin(&format!("guest file system for {}", kernel.release), None);
        let made = write_base(cache, root, kernel, &programs, &modules, at);
        match made {
            Ok(()) => step.done(),
            Err(error) => {
                step.failed();
                return Err(error);
            }
        };
        Ok(Contents::files(&["base.cpio"]))
    })?;
    cache.prune("base", 6)?;
    Ok(product.join("base.cpio"))
}

/// The path in the root of a program known by name; what the run brings itself (`mmlctl`) is not there.
fn find_program(root: &BuildRoot, name: &str) -> Option<String> {
    PROGRAM_PATH
        .iter()
        .map(|directory| format!("{directory}/{name}"))
        .find(|path| resolve(&root.path, path).is_some_and(|found| found.is_file()))
}

fn write_base(
    cache: &Cache,
    root: &BuildRoot,
    kernel: &Kernel,
    programs: &[String],
    modules: &[String],
    at: &Path,
) -> Result<()> {
    let stage = at.join("stage");
    fs::create_dir(&stage).context(|| format!("making {}", stage.display()))?;
    stage_modules(cache, root, kernel, modules, &stage)?;
    let path = at.join("base.cpio");
    let name = || format!("writing {}", path.display());
    let file = fs::File::create(&path).context(name)?;
    let mut archive = Archive::new(BufWriter::new(file));
    for link in ["bin", "sbin", "lib", "lib64"] {
        archive.directory(&format!("usr/{link}")).context(name)?;
        archive
            .symlink(link, &format!("usr/{link}"))
            .context(name)?;
    }
    for directory in DIRECTORIES {
        archive.directory(directory).context(name)?;
    }
    archive.device("dev/console", 0o600, 5, 1).context(name)?;
    archive.device("dev/null", 0o666, 1, 3).context(name)?;
    archive
        .file("etc/passwd", 0o644, PASSWD.as_bytes())
        .context(name)?;
    archive
        .file("etc/group", 0o644, GROUP.as_bytes())
        .context(name)?;
    archive
        .file("etc/hosts", 0o644, b"127.0.0.1 localhost\n::1 localhost\n")
        .context(name)?;
    let files = with_libraries(root, programs)?;
    for (inside, host) in &files {
        if host.is_dir() {
            archive
                .tree(host, inside)
                .context(|| format!("packing {inside}"))?;
        } else {
            let data = fs::read(host).context(|| format!("reading {}", host.display()))?;
            let permissions = if is_program(inside) { 0o755 } else { 0o644 };
            archive.file(inside, permissions, &data).context(name)?;
        }
    }
    let taken: BTreeSet<&str> = files
        .keys()
        .filter_map(|path| path.rsplit('/').next())
        .collect();
    for applet in root
        .output(&["/usr/bin/busybox", "--list"])?
        .split_whitespace()
    {
        if !taken.contains(applet) {
            archive
                .symlink(&format!("usr/bin/{applet}"), "/usr/bin/busybox")
                .context(name)?;
        }
    }
    for link in ["modprobe", "insmod", "rmmod", "lsmod", "depmod", "modinfo"] {
        archive
            .symlink(&format!("usr/sbin/{link}"), "/usr/bin/kmod")
            .context(name)?;
    }
    archive
        .symlink("usr/bin/sh", "/usr/bin/dash")
        .context(name)?;
    archive.tree(&stage, "").context(name)?;
    archive.finish().context(name)?;
    cache.remove(&stage)
}

/// Shared libraries are read, programs run; the loader is both.
fn is_program(inside: &str) -> bool {
    inside.starts_with("usr/bin/") || inside.starts_with("usr/sbin/") || inside.contains(".so")
}

/// The programs and files of the list with every library they load, by path in the guest.
fn with_libraries(root: &BuildRoot, programs: &[String]) -> Result<BTreeMap<String, PathBuf>> {
    let script = "for file; do [ -f \"$file\" ] && ldd \"$file\" 2>/dev/null || :; done";
    let mut words = vec!["/bin/sh", "-c", script, "sh"];
    words.extend(programs.iter().map(String::as_str));
    let libraries = libraries(&root.output(&words)?);
    let mut files = BTreeMap::new();
    for path in programs.iter().chain(&libraries) {
        let host = resolve(&root.path, path).ok_or_else(|| {
            Error::check(format!(
                "kbuild/guest-programs names {path}, which the build root lacks"
            ))
        })?;
        files.insert(merged(path), host);
    }
    Ok(files)
}

/// The paths in what ldd(1) prints.
pub fn libraries(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter_map(|line| {
            let line = line.trim();
            let path = line.split_once(" => ").map_or(line, |(_, path)| path);
            path.split(" (0x")
                .next()
                .filter(|path| path.starts_with('/') && line.contains("(0x"))
        })
        .map(str::to_owned)
        .collect()
}

/// The guest has one directory for `/lib` and `/usr/lib`, and so on; archives must not name the links as parents.
pub fn merged(path: &str) -> String {
    let path = path.trim_start_matches('/');
    let top = path.split('/').next().unwrap_or_default();
    if matches!(top, "bin" | "sbin" | "lib" | "lib64") {
        format!("usr/{path}")
    } else {
        path.to_owned()
    }
}

/// The host's path of what `path` means inside the root, links followed there.
pub fn resolve(root: &Path, path: &str) -> Option<PathBuf> {
    let mut pending: Vec<std::ffi::OsString> = parts(Path::new(path));
    pending.reverse();
    let mut inside = PathBuf::new();
    let mut links = 0;
    while let Some(part) = pending.pop() {
        if part == ".." {
            inside.pop();
            continue;
        }
        let next = inside.join(&part);
        let Ok(target) = fs::read_link(root.join(&next)) else {
            inside = next;
            continue;
        };
        links += 1;
        if links > 40 {
            return None;
        }
        if target.is_absolute() {
            inside = PathBuf::new();
        }
        let mut more = parts(&target);
        more.reverse();
        pending.extend(more);
    }
    let host = root.join(inside);
    host.exists().then_some(host)
}

fn parts(path: &Path) -> Vec<std::ffi::OsString> {
    path.components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect()
}

/// Copies the wanted modules, unpacked, with what depmod(8) says of them.
fn stage_modules(
    cache: &Cache,
    root: &BuildRoot,
    kernel: &Kernel,
    wanted: &[String],
    stage: &Path,
) -> Result<()> {
    let directory = stage.join("usr/lib/modules").join(&kernel.release);
    fs::create_dir_all(&directory).context(|| format!("making {}", directory.display()))?;
    let Some(modules) = &kernel.modules else {
        return Ok(());
    };
    for file in [
        "modules.builtin",
        "modules.builtin.modinfo",
        "modules.order",
    ] {
        let from = modules.join(file);
        if from.exists() {
            fs::copy(&from, directory.join(file))
                .context(|| format!("copying {}", from.display()))?;
        }
    }
    let dependencies = fs::read_to_string(modules.join("modules.dep")).unwrap_or_default();
    for path in ModuleList::parse(&dependencies).with_needs(wanted) {
        let target = directory.join(&path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).context(|| format!("making {}", parent.display()))?;
        }
        fs::copy(modules.join(&path), &target).context(|| format!("copying {path}"))?;
    }
    // Unpacked here once, not in every guest, where instructions are dear.
    let script = format!(
        "cd '{}'; find . -name '*.ko.xz' -exec xz -d {{}} +; find . -name '*.ko.zst' -exec zstd -q -d --rm {{}} +; \
         mkdir -p lib; ln -s ../usr/lib/modules lib/modules; depmod -b . '{}'; rm -r lib",
        root.inside(stage),
        kernel.release
    );
    let log = cache.log("base")?;
    progress::run("guest modules", &mut root.script(&[], &script), &log, None).map(|_| ())
}

/// What one run adds: our programs and modules, a tree at its place, and the order.
pub fn for_run(
    base: &Path,
    programs: &[(&str, &Path)],
    kernel: &Kernel,
    modules: &[PathBuf],
    tree: Option<(&Path, &str)>,
    order: &serde_json::Value,
    to: &Path,
) -> Result<()> {
    let mut archive = after_base(base, programs, kernel, modules, to)?;
    let name = || format!("writing {}", to.display());
    if let Some((tree, inside)) = tree {
        archive
            .directory(inside)
            .and_then(|()| archive.tree(tree, inside))
            .context(|| format!("packing {}", tree.display()))?;
    }
    archive
        .file("run.json", 0o644, order.to_string().as_bytes())
        .context(name)?;
    archive.finish().context(name)?;
    Ok(())
}

/// What a guest adds that systemd boots, but for systemd itself.
pub fn for_boot(
    base: &Path,
    programs: &[(&str, &PathBuf)],
    kernel: &Kernel,
    modules: &[PathBuf],
    to: &Path,
) -> Result<()> {
    let programs: Vec<(&str, &Path)> = programs
        .iter()
        .map(|(inside, host)| (*inside, host.as_path()))
        .collect();
    let mut archive = after_base(base, &programs, kernel, modules, to)?;
    let name = || format!("writing {}", to.display());
    archive
        .symlink("init", "/usr/lib/systemd/systemd")
        .context(name)?;
    archive.finish().context(name)?;
    Ok(())
}

/// Begins the archive behind the base.
///
/// The modules stand among the kernel's own, where tools look, and by a short path for `insmod` by hand.
fn after_base(
    base: &Path,
    programs: &[(&str, &Path)],
    kernel: &Kernel,
    modules: &[PathBuf],
    to: &Path,
) -> Result<Archive<BufWriter<fs::File>>> {
    let name = || format!("writing {}", to.display());
    fs::copy(base, to).context(name)?;
    let file = fs::File::options().append(true).open(to).context(name)?;
    let mut archive = Archive::new(BufWriter::new(file));
    let read = |path: &Path| fs::read(path).context(|| format!("reading {}", path.display()));
    for (inside, host) in programs {
        archive.file(inside, 0o755, &read(host)?).context(name)?;
    }
    for module in modules {
        let leaf = module
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let path = format!("{}/updates/{leaf}", kernel.release);
        archive
            .file(&format!("usr/lib/modules/{path}"), 0o644, &read(module)?)
            .context(name)?;
        archive
            .symlink(&format!("usr/lib/modules/{leaf}"), &path)
            .context(name)?;
    }
    Ok(archive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_ldd() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n\tstatically linked\n\tlibx.so => not found\n";
        let found: Vec<String> = libraries(text).into_iter().collect();
        assert_eq!(
            found,
            [
                "/lib/x86_64-linux-gnu/libc.so.6",
                "/lib64/ld-linux-x86-64.so.2"
            ]
        );
    }

    #[test]
    fn links_are_followed_inside_the_root_only() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("usr/lib")).unwrap();
        fs::write(root.join("usr/lib/libx.so.1.2"), "").unwrap();
        std::os::unix::fs::symlink("usr/lib", root.join("lib")).unwrap();
        std::os::unix::fs::symlink("/usr/lib/libx.so.1.2", root.join("usr/lib/libx.so.1")).unwrap();
        std::os::unix::fs::symlink("../../../../etc/passwd", root.join("usr/lib/out")).unwrap();
        assert_eq!(
            resolve(root, "/lib/libx.so.1"),
            Some(root.join("usr/lib/libx.so.1.2"))
        );
        assert_eq!(resolve(root, "/usr/lib/out"), None);
    }

    #[test]
    fn the_merged_directories_have_one_name() {
        assert_eq!(merged("/lib64/ld.so"), "usr/lib64/ld.so");
        assert_eq!(merged("/usr/bin/ip"), "usr/bin/ip");
        assert_eq!(merged("/etc/services"), "etc/services");
    }
}
