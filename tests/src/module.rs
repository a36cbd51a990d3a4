// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Kernel modules: loading with what they depend on, unloading.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use nix::errno::Errno;
use nix::kmod::{delete_module, finit_module, DeleteModuleFlags, ModuleInitFlags};

/// MODULE_INIT_COMPRESSED_FILE of `<linux/module.h>`: the kernel unpacks the file itself.
const COMPRESSED: u32 = 4;

/// The module tree of the running kernel.
pub struct Modules {
    /// Path of each module by its name.
    paths: HashMap<String, PathBuf>,
    /// Names each one needs, from modules.dep; without it, only `mml` can't be missing anything.
    needs: HashMap<String, Vec<String>>,
}

impl Modules {
    /// Finds every module under /lib/modules, and modules.dep if the image has one.
    pub fn find() -> Result<Self> {
        let release = nix::sys::utsname::uname()?
            .release()
            .to_string_lossy()
            .into_owned();
        let root = PathBuf::from("/lib/modules").join(release);
        let mut modules = Self {
            paths: HashMap::new(),
            needs: HashMap::new(),
        };
        modules.walk(&root);
        if let Ok(text) = std::fs::read_to_string(root.join("modules.dep")) {
            for line in text.lines() {
                if let Some((module, needs)) = line.split_once(':') {
                    modules.needs.insert(
                        name_of(Path::new(module)),
                        needs
                            .split_whitespace()
                            .map(|path| name_of(Path::new(path)))
                            .collect(),
                    );
                }
            }
        }
        Ok(modules)
    }

    fn walk(&mut self, folder: &Path) {
        let Ok(entries) = std::fs::read_dir(folder) else {
            return;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.walk(&path);
            } else if path.to_string_lossy().contains(".ko") {
                self.paths.insert(name_of(&path), path);
            }
        }
    }

    pub fn has(&self, name: &str) -> bool {
        self.paths.contains_key(name)
    }

    /// Loads a module after what it needs. One that is loaded or built in already is passed over.
    pub fn load(&self, name: &str) -> Result<()> {
        self.load_with(name, "")
    }

    pub fn load_with(&self, name: &str, parameters: &str) -> Result<()> {
        if is_loaded(name) {
            return Ok(());
        }
        let path = self
            .paths
            .get(name)
            .with_context(|| format!("the guest image has no module {name}"))?;
        // modules.dep lists needs outermost first, each before what it needs itself.
        for need in self.needs.get(name).into_iter().flatten().rev() {
            if !is_loaded(need) {
                self.insert(need, "")?;
            }
        }
        debug_assert!(path.exists());
        self.insert(name, parameters)
    }

    fn insert(&self, name: &str, parameters: &str) -> Result<()> {
        let path = self
            .paths
            .get(name)
            .with_context(|| format!("the guest image has no module {name}"))?;
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let plain = path.extension().is_some_and(|extension| extension == "ko");
        let flags = if plain {
            ModuleInitFlags::empty()
        } else {
            ModuleInitFlags::from_bits_retain(COMPRESSED)
        };
        match finit_module(&file, &std::ffi::CString::new(parameters)?, flags) {
            Ok(()) | Err(Errno::EEXIST) => Ok(()),
            Err(errno) => bail!("cannot load {name}: {errno}"),
        }
    }
}

/// `kernel/net/xfrm/xfrm_user.ko.xz` is `xfrm_user`; file names may have dashes where names have underscores.
fn name_of(path: &Path) -> String {
    let file = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    file.split('.').next().unwrap_or_default().replace('-', "_")
}

pub fn is_loaded(name: &str) -> bool {
    Path::new("/sys/module").join(name).join("refcnt").exists()
}

/// Asks once for a module to go.
pub fn try_unload(name: &str) -> nix::Result<()> {
    let name = std::ffi::CString::new(name).map_err(|_| Errno::EINVAL)?;
    delete_module(&name, DeleteModuleFlags::O_NONBLOCK)
}

/// Unloads a module. References that a namespace's end still holds go within moments, so EAGAIN and EBUSY are asked
/// again until `patience` is over.
pub fn unload(name: &str, patience: Duration) -> Result<()> {
    let end = Instant::now() + patience;
    loop {
        match try_unload(name) {
            Ok(()) | Err(Errno::ENOENT) => return Ok(()),
            Err(Errno::EAGAIN | Errno::EBUSY) if Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(50))
            }
            Err(errno) => {
                let references = std::fs::read_to_string(format!("/sys/module/{name}/refcnt"))
                    .unwrap_or_default();
                bail!(
                    "cannot unload {name}: {errno}; {} references are left",
                    references.trim()
                )
            }
        }
    }
}
