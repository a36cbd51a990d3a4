// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `mmlctl csa load`: every file of a folder, as `csa add` loads one.

use crate::csa;
use crate::failure::Failure;
use crate::folder;
use crate::output::Output;
use std::path::Path;

/// Loads the folder. A CSA that is missing is no leak (what policies protect is dropped without one), so one bad file
/// doesn't keep the others back; it is told, and decides the exit code.
pub fn run(folder: &Path, output: Output) -> Result<(), Failure> {
    let mut first = None;
    for path in folder::files(folder)? {
        if let Err(failure) = csa::add(&path, false, output) {
            match first {
                None => first = Some(failure),
                Some(_) => {
                    failure.report(output);
                }
            }
        }
    }
    first.map_or(Ok(()), Err)
}
