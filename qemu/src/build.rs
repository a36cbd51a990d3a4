// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `cargo lab build` and `cargo lab clean`.

use std::path::Path;

use serde_json::json;

use crate::build_root::Mode;
use crate::cache::Cache;
use crate::cli::Shared;
use crate::error::Result;
use crate::report::Report;
use crate::setup::Lab;

/// Makes everything and says where it is.
pub fn command(refresh: bool, shared: &Shared) -> Result<()> {
    let lab = Lab::prepare(shared, refresh)?;
    println!("kernel   {}", lab.kernel.origin);
    if let Some(image) = &lab.kernel.image {
        println!("image    {}", image.display());
    }
    println!("tree     {}", lab.kernel.tree.display());
    for module in &lab.modules {
        if module.ends_with(crate::module::MODULE) {
            println!("module   {}", module.display());
        } else {
            println!("lab      {} (the guests' wireless link)", module.display());
        }
    }
    println!("tools    {}", lab.guest.mmlctl.display());
    println!(
        "\nThe module loads into this very kernel anywhere: insmod mml.ko. Next: cargo lab demo"
    );
    let mut report = Report::default();
    report.set("kernel", lab.kernel.release.as_str());
    report.set("origin", lab.kernel.origin.as_str());
    report.set("image", json!(lab.kernel.image));
    report.set("tree", json!(lab.kernel.tree));
    report.set("modules", json!(lab.modules));
    report.set("mmlctl", json!(lab.guest.mmlctl));
    report.write(shared.json.as_deref())
}

/// Empties the cache.
pub fn clean(kind: Option<&str>, json: Option<&Path>) -> Result<()> {
    let cache = Cache::open(Mode::of_caller())?;
    let directory = cache.dir.clone();
    let removed = cache.clean(kind)?;
    println!(
        "removed {} entries from {}",
        removed.len(),
        directory.display()
    );
    let mut report = Report::default();
    report.set("removed", json!(removed));
    report.write(json)
}
