// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Everything a guest needs, made in order: root, kernel, module, programs, file system; and guests booted from it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{json, Value};

use crate::build_root::{BuildRoot, Mode};
use crate::cache::Cache;
use crate::channel::Event;
use crate::cli::Shared;
use crate::error::{Error, Result};
use crate::guest::{self, Guest};
use crate::initramfs;
use crate::kernel::{self, Flavour, Kernel};
use crate::machine::{Accel, Clock, Machine, Outcome};
use crate::module;
use crate::newer;
use crate::progress;
use crate::workspace::Workspace;

/// Products of each of the large kinds that are kept, by last use.
const KEEP: usize = 3;

/// The longest a guest may go without a word. In virtual time a busy second costs the host ten and more.
const SILENCE: Duration = Duration::from_secs(240);
const SILENCE_VIRTUAL: Duration = Duration::from_secs(900);
/// The same on its way up: a kernel prints more often than that.
const FIRST_WORD: Duration = Duration::from_secs(60);
const FIRST_WORD_VIRTUAL: Duration = Duration::from_secs(240);

/// A debug kernel under emulation is this many times slower.
const DEBUG_PATIENCE: u32 = 8;

/// The lab, ready to boot guests.
pub struct Lab {
    /// The cache.
    pub cache: Cache,
    root: BuildRoot,
    /// The kernel.
    pub kernel: Kernel,
    /// Our modules for it.
    pub modules: Vec<PathBuf>,
    /// Our programs.
    pub guest: Guest,
    base: PathBuf,
    /// strongSwan of a newer Debian, for guests that are to have it.
    newer: Option<PathBuf>,
    kvm: bool,
    timeout: Option<u64>,
}

impl Lab {
    /// Makes what is missing and looks the rest over.
    pub fn prepare(shared: &Shared, refresh: bool) -> Result<Self> {
        let workspace = Workspace::find()?;
        let mode = Mode::of_caller();
        let cache = Cache::open(mode)?;
        crate::doctor::require(mode, &cache.dir)?;
        let guest_log = cache.log("guest-programs")?;
        // cargo works on the guests' programs while packages come over the network.
        let (root, guest) = std::thread::scope(|scope| {
            let programs = scope.spawn(|| guest::build(&workspace, &guest_log));
            let root = BuildRoot::ensure(&workspace, &cache, mode);
            let guest = programs
                .join()
                .unwrap_or_else(|_| Err(Error::check("building the guest programs panicked")));
            (root, guest)
        });
        let root = root?;
        let kernel = match (&shared.kdir, shared.kernel) {
            (Some(tree), _) => kernel::named(tree)?,
            (None, Flavour::Stock) => kernel::stock(&workspace, &cache, &root, refresh)?,
            (None, Flavour::Debug) => kernel::debug(&workspace, &cache, &root, refresh)?,
        };
        progress::line(&format!("  kernel: {}", kernel.origin));
        for kind in ["root", "debs", "kernel", "tree", "debug"] {
            cache.prune(kind, KEEP)?;
        }
        let modules = module::ensure(&workspace, &cache, &root, &kernel)?;
        let guest = guest?;
        let base = initramfs::base(&workspace, &cache, &root, &kernel, &guest.needs()?)?;
        let mut lab = Lab {
            cache,
            root,
            kernel,
            modules,
            guest,
            base,
            newer: None,
            kvm: false,
            timeout: shared.timeout,
        };
        lab.kvm = lab.choose_accelerator(shared.accel)?;
        Ok(lab)
    }

    fn image(&self) -> Result<&Path> {
        self.kernel.image.as_deref().ok_or_else(|| {
            Error::environment(
                format!(
                    "{} has no arch/x86/boot/bzImage to boot",
                    self.kernel.tree.display()
                ),
                "build it there (make bzImage), or run without --kdir",
            )
        })
    }

    /// `/dev/kvm` may be there and still not run this kernel, so a guest is booted to see.
    fn choose_accelerator(&mut self, accel: Accel) -> Result<bool> {
        if accel == Accel::Tcg || self.kernel.image.is_none() {
            return Ok(false);
        }
        let why = if Path::new("/dev/kvm").exists() {
            self.kvm = true;
            let order = json!({"mode": "list", "names": [], "options": {}});
            let machine = self.machine(
                "kvm-probe",
                Clock::Real { vcpus: 1 },
                &order,
                Duration::from_secs(60),
            )?;
            let step = progress::Step::begin("probing KVM", None);
            let mut hello = false;
            let outcome =
                machine.run(&mut |event| hello |= matches!(event, Ok(Event::Hello { .. })))?;
            if hello && outcome.done == Some(true) {
                step.done();
                return Ok(true);
            }
            step.failed();
            format!(
                "a probe boot failed: {}",
                outcome.failure().unwrap_or_default()
            )
        } else {
            "there is no /dev/kvm".to_owned()
        };
        if accel == Accel::Kvm {
            return Err(Error::environment(
                format!("KVM does not run this kernel: {why}"),
                "use --accel tcg",
            ));
        }
        progress::line(&format!("  KVM is not used: {why}"));
        Ok(false)
    }

    fn machine(
        &self,
        name: &str,
        clock: Clock,
        order: &Value,
        limit: Duration,
    ) -> Result<Machine<'_>> {
        let machine = self.bare_machine(self.cache.run_directory(name)?, clock, limit)?;
        self.file_system(&self.guest.init, order, &machine.initramfs())?;
        Ok(machine)
    }

    /// A machine whose file system is yet to be written.
    pub(crate) fn bare_machine(
        &self,
        directory: PathBuf,
        clock: Clock,
        limit: Duration,
    ) -> Result<Machine<'_>> {
        let slow = if self.kernel.debug { DEBUG_PATIENCE } else { 1 };
        let limit = self
            .timeout
            .map(Duration::from_secs)
            .unwrap_or(limit * slow);
        let (silence, first_word) = match clock {
            Clock::Real { .. } => (SILENCE, FIRST_WORD),
            Clock::Virtual => (SILENCE_VIRTUAL, FIRST_WORD_VIRTUAL),
        };
        Ok(Machine {
            root: &self.root,
            image: self.image()?,
            directory,
            clock,
            kvm: self.kvm && clock != Clock::Virtual,
            memory: if self.kernel.debug { 3072 } else { 1024 },
            limit,
            silence: silence * slow,
            first_word: first_word * slow,
            more: Vec::new(),
            kernel_words: String::new(),
        })
    }

    /// Gives the guests from now on strongSwan of a newer Debian.
    pub fn bring_newer_strongswan(&mut self) -> Result<()> {
        self.newer = Some(newer::ensure(&self.cache, Mode::of_caller())?);
        Ok(())
    }

    /// The root guests are made of and QEMU comes from.
    pub(crate) fn root(&self) -> &BuildRoot {
        &self.root
    }

    /// Writes a guest's file system: our program as process 1, modules and tools, and its order.
    pub(crate) fn file_system(&self, init: &Path, order: &Value, to: &Path) -> Result<()> {
        initramfs::for_run(
            &self.base,
            &[
                ("init", init),
                ("usr/bin/mmlctl", &self.guest.mmlctl),
                ("usr/bin/keyd", &self.guest.keyd),
            ],
            &self.kernel,
            &self.modules,
            self.newer.as_deref().map(|tree| (tree, newer::INSIDE)),
            order,
            to,
        )
    }

    /// The same for a guest that systemd boots; with our modules or without.
    pub(crate) fn boot_file_system(&self, modules: bool, to: &Path) -> Result<()> {
        initramfs::for_boot(
            &self.base,
            &[
                ("usr/bin/lab-program", &self.guest.init),
                ("usr/bin/mmlctl", &self.guest.mmlctl),
            ],
            &self.kernel,
            if modules { &self.modules } else { &[] },
            to,
        )
    }

    /// Boots a guest with an order and gives its events to `on_event`.
    pub fn boot(
        &self,
        name: &str,
        clock: Clock,
        order: &Value,
        limit: Duration,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<Boot> {
        let machine = self.machine(name, clock, order, limit)?;
        let outcome = machine.run_patiently(&mut |event| match event {
            Ok(event) => on_event(event),
            Err(text) => progress::line(&format!("  ?? {text}")),
        })?;
        // The archive is the largest file of a run and is made again from the cache at will.
        let _ = std::fs::remove_file(machine.initramfs());
        Ok(Boot {
            outcome,
            console: machine.console(),
        })
    }

    /// Boots a guest with its console on this terminal.
    pub fn boot_interactive(&self, order: &Value) -> Result<Outcome> {
        let machine = self.machine(
            "shell",
            Clock::Real { vcpus: 2 },
            order,
            Duration::from_secs(0),
        )?;
        let outcome = machine.interactive()?;
        let _ = std::fs::remove_file(machine.initramfs());
        Ok(outcome)
    }
}

/// A boot that has ended.
pub struct Boot {
    /// How.
    pub outcome: Outcome,
    /// Its kernel log.
    pub console: PathBuf,
}
