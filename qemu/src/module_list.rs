// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The kernel's modules and what each needs, from `modules.dep`.

use std::collections::{BTreeMap, BTreeSet};

/// The content of a `modules.dep`.
pub struct ModuleList {
    /// Path and needed paths, by name with underscores.
    modules: BTreeMap<String, (String, Vec<String>)>,
}

/// `kernel/net/ipv4/esp4.ko.xz` → `esp4`, `-` and `_` being the same in module names.
fn name_of(path: &str) -> String {
    let leaf = path.rsplit('/').next().unwrap_or(path);
    leaf.split(".ko").next().unwrap_or(leaf).replace('-', "_")
}

impl ModuleList {
    /// Reads lines of `path: needed path…`.
    pub fn parse(text: &str) -> Self {
        let modules = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(path, needs)| {
                let needs = needs.split_whitespace().map(str::to_owned).collect();
                (name_of(path), (path.to_owned(), needs))
            })
            .collect();
        ModuleList { modules }
    }

    /// The paths of these modules and all they need; names that are built in or absent are passed over.
    pub fn with_needs(&self, names: &[String]) -> BTreeSet<String> {
        let mut paths = BTreeSet::new();
        for name in names {
            if let Some((path, needs)) = self.modules.get(&name.replace('-', "_")) {
                paths.insert(path.clone());
                paths.extend(needs.iter().cloned());
            }
        }
        paths
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_brings_what_it_needs_and_a_built_in_one_nothing() {
        let text = "kernel/a/x-y.ko.xz: kernel/b/z.ko.xz kernel/b/w.ko.xz\nkernel/b/z.ko.xz: kernel/b/w.ko.xz\nkernel/b/w.ko.xz:\nkernel/c/q.ko:\n";
        let list = ModuleList::parse(text);
        let paths: Vec<String> = list
            .with_needs(&["x_y".into(), "builtin".into()])
            .into_iter()
            .collect();
        assert_eq!(
            paths,
            ["kernel/a/x-y.ko.xz", "kernel/b/w.ko.xz", "kernel/b/z.ko.xz"]
        );
    }
}
