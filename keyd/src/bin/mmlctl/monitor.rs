// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `mmlctl monitor`.

use crate::failure::Failure;
use crate::output::{print, Output};
use keyd::kernel::Kernel;
use keyd::netlink::Error;

pub fn run(output: Output) -> Result<(), Failure> {
    let failure = |error: Error| Failure::kernel("events", &error);
    let mut kernel = Kernel::open().map_err(|e| Failure::kernel("mml", &e))?;
    kernel.listen().map_err(failure)?;
    loop {
        let read = kernel.events(&mut |event| {
            print(&if output.json {
                event.json().to_string()
            } else {
                event.text()
            });
            Ok(())
        });
        match read {
            Ok(()) => {}
            // What is lost is lost; the next ones come all the same.
            Err(Error::Overrun) => eprintln!("mmlctl: {}", Error::Overrun),
            Err(error) => return Err(failure(error)),
        }
    }
}
