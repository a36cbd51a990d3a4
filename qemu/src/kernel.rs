// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Kernels: the stock image with a tree that has its Rust metadata, the debug kernel, or a tree the user names.
//!
//! Debian's headers package ships no Rust metadata. It is remade, exactly, from the same source, configuration and
//! toolchain, so that a module built against it loads into the unmodified image (see `docs/`).

use std::fs;
use std::path::{Path, PathBuf};

use crate::archive::{self, Packages};
use crate::build_root::BuildRoot;
use crate::cache::{Cache, Contents};
use crate::error::{Context, Error, Result};
use crate::key::Key;
use crate::machine;
use crate::progress;
use crate::workspace::Workspace;

/// Lines the build of the metadata prints.
const TREE_LINES: u64 = 220;

/// Lines the build of the debug kernel prints.
const DEBUG_LINES: u64 = 2020;

/// Which kernel the guests run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Flavour {
    /// Debian's own, unmodified.
    Stock,
    /// KASAN, UBSAN, lockdep, kmemleak and fault injection, from the same source; 20 minutes once.
    Debug,
}

/// A kernel to boot and to build modules for.
pub struct Kernel {
    /// What `uname -r` says in the guest.
    pub release: String,
    /// One line for the user: what it is and where it comes from.
    pub origin: String,
    /// The image QEMU loads; a named tree need not have one.
    pub image: Option<PathBuf>,
    /// The directory of its modules (`lib/modules/<release>`), or of `modules.builtin` alone.
    pub modules: Option<PathBuf>,
    /// The tree modules are built against.
    pub tree: PathBuf,
    /// Whether it was built with LLVM, and modules must be too.
    pub llvm: bool,
    /// The compiler that built its Rust parts, as its configuration names it; for a tree the user names. Modules must be
    /// built by the very same one: the build root's when it is, else the host's.
    pub rustc: Option<String>,
    /// Slow: every time-out is stretched.
    pub debug: bool,
    /// The key of the tree: an ingredient of modules.
    pub key: String,
}

/// Where the source package of these packages lies.
fn source_package(packages: &Packages) -> Result<String> {
    let prefix = format!("{}_", packages.release.source);
    let entries = fs::read_dir(&packages.directory)
        .context(|| format!("{}", packages.directory.display()))?;
    entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .find(|name| name.starts_with(&prefix))
        .ok_or_else(|| {
            Error::check(format!(
                "{} is not among the packages",
                packages.release.source
            ))
        })
}

/// Where the recipes are seen inside the root.
const RECIPES: &str = "/kbuild";

/// Unpacks the kernel's source.
fn unpack(
    workspace: &Workspace,
    root: &BuildRoot,
    packages: &Packages,
    tree: &Path,
    title: &str,
    log: &Path,
) -> Result<()> {
    let package = root.inside(&packages.directory.join(source_package(packages)?));
    let script = format!("{RECIPES}/unpack-source");
    let mut command = root.command(
        &[(&workspace.kbuild(), RECIPES)],
        &[&script, &package, &root.inside(tree)],
    );
    progress::run(title, &mut command, log, None).map(|_| ())
}

/// The stock kernel: its image and modules unpacked, its tree prepared.
pub fn stock(
    workspace: &Workspace,
    cache: &Cache,
    root: &BuildRoot,
    refresh: bool,
) -> Result<Kernel> {
    let packages = archive::ensure(cache, root, refresh)?;
    let release = &packages.release;
    let key = Key::new("kernel")
        .text("packages", &packages.key)
        .text("recipe", "1")
        .finish();
    let product = cache.product("kernel", &key, |at| {
        unpack_image(cache, root, &packages, at)
    })?;
    let tree_key = Key::new("tree")
        .text("kernel", &key)
        .text("toolchain", &root.toolchain)
        .file("unpack", &workspace.kbuild().join("unpack-source"))?
        .file("prepare", &workspace.kbuild().join("prepare-tree"))?
        .finish();
    let tree = cache.product("tree", &tree_key, |at| {
        prepare(workspace, cache, root, &packages, &product, at)
    })?;
    Ok(Kernel {
        release: release.name.clone(),
        origin: format!(
            "Debian {} {} (linux {}), unmodified",
            archive::ARCH,
            release.name,
            release.version
        ),
        image: Some(product.join("vmlinuz")),
        modules: Some(product.join("lib/modules").join(&release.name)),
        tree: tree.join("linux"),
        llvm: false,
        rustc: None,
        debug: false,
        key: tree_key,
    })
}

fn unpack_image(
    cache: &Cache,
    root: &BuildRoot,
    packages: &Packages,
    at: &Path,
) -> Result<Contents> {
    let log = cache.log("kernel")?;
    let name = &packages.release.name;
    // The layout changed during 7.x: image and configuration lie in /boot or beside the modules.
    let script = format!(
        "cd '{at}'; for deb in '{debs}'/*.deb; do case \"$deb\" in */linux-source-*) ;; *) dpkg-deb -x \"$deb\" x ;; esac; done; \
         first() {{ for file; do [ -e \"$file\" ] && {{ echo \"$file\"; return; }}; done; echo \"none of $*\" >&2; return 1; }}; \
         modules=$(first x/usr/lib/modules/{name} x/lib/modules/{name}); \
         cp \"$(first x/boot/vmlinuz-{name} $modules/vmlinuz)\" vmlinuz; \
         cp \"$(first x/boot/config-{name} $modules/config)\" config; \
         cp x/usr/src/linux-headers-{name}/Module.symvers .; \
         rm -f $modules/vmlinuz $modules/config $modules/System.map $modules/build $modules/source; \
         mkdir -p lib/modules; mv $modules lib/modules/{name}; rm -rf x; depmod -b . {name}",
        at = root.inside(at),
        debs = root.inside(&packages.directory),
    );
    progress::run(
        &format!("kernel {name}: image and modules"),
        &mut root.script(&[], &script),
        &log,
        None,
    )?;
    Ok(Contents::files(&["vmlinuz", "config", "Module.symvers"]).and_directories(&["lib"]))
}

fn prepare(
    workspace: &Workspace,
    cache: &Cache,
    root: &BuildRoot,
    packages: &Packages,
    product: &Path,
    at: &Path,
) -> Result<Contents> {
    let log = cache.log("tree")?;
    let name = &packages.release.name;
    let tree = at.join("linux");
    unpack(
        workspace,
        root,
        packages,
        &tree,
        &format!("kernel {name}: source"),
        &log,
    )?;
    let inside = |path: &Path| root.inside(path);
    let script = format!("{RECIPES}/prepare-tree");
    let words = [
        script,
        name.clone(),
        inside(&packages.directory.join(source_package(packages)?)),
        inside(&product.join("config")),
        inside(&product.join("Module.symvers")),
        inside(&tree),
    ];
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut command = root.command(&[(&workspace.kbuild(), RECIPES)], &words);
    progress::run(
        &format!("kernel {name}: Rust metadata"),
        &mut command,
        &log,
        Some(TREE_LINES),
    )?;
    Ok(tree_contents(&[]))
}

fn tree_contents(more: &[&str]) -> Contents {
    let mut files = vec![
        "linux/.config",
        "linux/Module.symvers",
        "linux/include/config/auto.conf",
        "linux/include/generated/autoconf.h",
        "linux/rust/libcore.rmeta",
        "linux/rust/libkernel.rmeta",
        "linux/rust/libbindings.rmeta",
        "linux/scripts/mod/modpost",
    ];
    files.extend(more);
    Contents::files(&files).and_directories(&[
        "linux/include",
        "linux/rust",
        "linux/scripts",
        "linux/arch/x86/include",
    ])
}

/// The debug kernel, built from the same source as the stock one.
pub fn debug(
    workspace: &Workspace,
    cache: &Cache,
    root: &BuildRoot,
    refresh: bool,
) -> Result<Kernel> {
    let packages = archive::ensure(cache, root, refresh)?;
    let fragment = workspace.kbuild().join("debug.config");
    let key = Key::new("debug")
        .text("source", &packages.release.version)
        .text("toolchain", &root.toolchain)
        .file("config", &fragment)?
        .text("recipe", "1")
        .finish();
    let product = cache.product("debug", &key, |at| {
        build_debug(workspace, cache, root, &packages, &fragment, at)
    })?;
    let release = product.join("linux/include/config/kernel.release");
    let release =
        fs::read_to_string(&release).context(|| format!("reading {}", release.display()))?;
    let release = release.trim().to_owned();
    Ok(Kernel {
        origin: format!(
            "debug kernel {release} from {} {}",
            packages.release.source, packages.release.version
        ),
        release,
        image: Some(product.join("linux/arch/x86/boot/bzImage")),
        modules: Some(product.join("modules")),
        tree: product.join("linux"),
        llvm: true,
        rustc: None,
        debug: true,
        key,
    })
}

fn build_debug(
    workspace: &Workspace,
    cache: &Cache,
    root: &BuildRoot,
    packages: &Packages,
    fragment: &Path,
    at: &Path,
) -> Result<Contents> {
    let log = cache.log("debug")?;
    unpack(
        workspace,
        root,
        packages,
        &at.join("linux"),
        "debug kernel: source",
        &log,
    )?;
    let wanted = at.join("debug.config");
    fs::copy(fragment, &wanted).context(|| format!("copying {}", fragment.display()))?;
    let tree = root.inside(&at.join("linux"));
    let configure = format!(
        "cd '{tree}'; make LLVM=-19 KCONFIG_ALLCONFIG='{}' allnoconfig",
        root.inside(&wanted)
    );
    progress::run(
        "debug kernel: configuration",
        &mut root.script(&[], &configure),
        &log,
        None,
    )?;
    let dotconfig = at.join("linux/.config");
    let text =
        fs::read_to_string(&dotconfig).context(|| format!("reading {}", dotconfig.display()))?;
    let asked = fs::read_to_string(&wanted).context(|| format!("reading {}", wanted.display()))?;
    let refused = refused(&asked, &text);
    if !refused.is_empty() {
        let what = format!(
            "kbuild/debug.config asks for what this kernel does not take: {}",
            refused.join(" ")
        );
        return Err(Error::logged(what, log));
    }
    // Object files are not needed to build modules, and are most of the tree's size.
    let build = format!(
        "cd '{tree}'; make LLVM=-19 -j{} all; mkdir ../modules; cp modules.builtin modules.builtin.modinfo modules.order ../modules; \
         find . -name '*.o' ! -path './tools/*' ! -path './scripts/*' -delete",
        machine::processors()
    );
    progress::run(
        "debug kernel: building",
        &mut root.script(&[], &build),
        &log,
        Some(DEBUG_LINES),
    )?;
    Ok(tree_contents(&[
        "linux/arch/x86/boot/bzImage",
        "modules/modules.builtin",
    ]))
}

/// Options of a fragment that did not come out as asked.
fn refused(asked: &str, got: &str) -> Vec<String> {
    let got: std::collections::HashSet<&str> = got.lines().collect();
    asked
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("CONFIG_"))
        .filter(|line| match line.strip_suffix("=n") {
            Some(name) => got.iter().any(|l| l.starts_with(&format!("{name}="))),
            None => !got.contains(line),
        })
        .map(str::to_owned)
        .collect()
}

/// `CONFIG_RUSTC_VERSION_TEXT="rustc 1.85.1 (4eb161250 2025-03-15) …"` → `1.85.1`.
fn rustc_version(config: &str) -> Option<String> {
    let text = config
        .lines()
        .find_map(|line| line.strip_prefix("CONFIG_RUSTC_VERSION_TEXT=\"rustc "))?;
    text.split([' ', '"']).next().map(str::to_owned)
}

/// A kernel tree the user names: modules are built against it, and its own image is booted when it has one.
pub fn named(tree: &Path) -> Result<Kernel> {
    let missing = |what: &str| {
        Error::environment(
            format!("{} is no kernel tree that modules can be built against: no {what}", tree.display()),
            "build it there first: make olddefconfig prepare modules_prepare, and Module.symvers from its build",
        )
    };
    let tree = tree.canonicalize().map_err(|_| missing("such directory"))?;
    let release = fs::read_to_string(tree.join("include/config/kernel.release"))
        .map_err(|_| missing("include/config/kernel.release"))?;
    let config = fs::read_to_string(tree.join(".config")).map_err(|_| missing(".config"))?;
    let on = |option: &str| config.lines().any(|line| line == format!("{option}=y"));
    if !on("CONFIG_RUST") {
        return Err(missing("CONFIG_RUST=y in its .config"));
    }
    let image = tree.join("arch/x86/boot/bzImage");
    Ok(Kernel {
        release: release.trim().to_owned(),
        origin: format!("kernel tree {}", tree.display()),
        image: image.exists().then_some(image),
        modules: tree.join("modules.builtin").exists().then(|| tree.clone()),
        llvm: on("CONFIG_CC_IS_CLANG"),
        rustc: rustc_version(&config),
        debug: on("CONFIG_KASAN"),
        key: Key::new("named")
            .text("release", release.trim())
            .file("config", &tree.join(".config"))?
            .finish(),
        tree,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_did_not_come_out_are_named() {
        let asked = "# note\nCONFIG_A=y\nCONFIG_B=y\nCONFIG_C=n\nCONFIG_D=n\nCONFIG_E=400\n";
        let got =
            "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=y\n# CONFIG_D is not set\nCONFIG_E=400\n";
        assert_eq!(refused(asked, got), ["CONFIG_B=y", "CONFIG_C=n"]);
    }

    #[test]
    fn the_compiler_of_a_tree_is_read_from_its_configuration() {
        let config = "CONFIG_X=y\nCONFIG_RUSTC_VERSION_TEXT=\"rustc 1.85.1 (4eb161250 2025-03-15) (built from a source tarball)\"\n";
        assert_eq!(rustc_version(config).as_deref(), Some("1.85.1"));
        assert_eq!(rustc_version("CONFIG_X=y\n"), None);
    }

    #[test]
    fn a_directory_that_is_no_kernel_tree_is_an_environment_failure() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(named(dir.path()).err().unwrap().exit_code(), 3);
        std::fs::create_dir_all(dir.path().join("include/config")).unwrap();
        std::fs::write(dir.path().join("include/config/kernel.release"), "7.3.4\n").unwrap();
        std::fs::write(
            dir.path().join(".config"),
            "CONFIG_RUST=y\nCONFIG_CC_IS_CLANG=y\n",
        )
        .unwrap();
        let kernel = named(dir.path()).unwrap();
        assert!(kernel.llvm && kernel.image.is_none());
        assert_eq!(kernel.release, "7.3.4");
    }
}
