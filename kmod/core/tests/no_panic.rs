// SPDX-License-Identifier: GPL-2.0-only
//! No path of the crate ends in a panic: not one call to `core::panicking` is left in what the compiler makes of it.
//!
//! In the kernel a panic is a BUG. Lints forbid the obvious ones; this looks at the machine code, with overflow checks on
//! so that a sum the optimiser can't bound shows up too.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

/// Copies a folder of sources. Inline functions are compiled where they are used, which is not here: the copy's are
/// ordinary ones. (Leaves the compiler would inline by itself stay out: a function with a check in it is no leaf.) So are
/// generic ones, which only a caller's types make code of: `Store` is called through a pointer.
fn make_ordinary(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("directory");
    for entry in fs::read_dir(from).expect("src") {
        let path = entry.expect("entry").path();
        let copy = to.join(path.file_name().expect("name"));
        if path.is_dir() {
            make_ordinary(&path, &copy);
            continue;
        }
        let text = fs::read_to_string(&path)
            .expect("source")
            .replace("#[inline]", "")
            .replace("<S: Store>", "")
            .replace("<'_, S>", "<'_>")
            .replace("Scene<'a, S: Store>", "Scene<'a>")
            .replace("&'a mut S,", "&'a mut dyn Store,")
            .replace("store: &mut S", "store: &mut dyn Store");
        fs::write(copy, text).expect("copy");
    }
}

#[test]
fn the_machine_code_has_no_call_to_a_panic() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("machine-code");
    make_ordinary(&source, &copy);
    let assembly = copy.join("mml_core.s");
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let flags =
        "--edition 2021 --crate-name mml_core --crate-type rlib --emit asm -O -C panic=abort \
                 -C overflow-checks=on -C codegen-units=1";
    let mut command = Command::new(rustc);
    command
        .args(flags.split_whitespace())
        .arg("-o")
        .arg(&assembly)
        .arg(copy.join("lib.rs"));
    assert!(command.status().expect("rustc").success());

    let text = fs::read_to_string(assembly).expect("assembly");
    let functions = text.lines().filter(|line| line.contains(".globl")).count();
    assert!(functions > 20, "only {functions} functions were compiled");
    let panics: Vec<_> = text
        .lines()
        .filter(|line| line.contains("panicking"))
        .collect();
    assert!(panics.is_empty(), "{panics:#?}");
}
