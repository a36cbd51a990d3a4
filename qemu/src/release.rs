// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Which kernel the archive offers: the newest cloud image of a supported series whose source is there too.

use std::collections::BTreeMap;

/// Kernel series the module is built and tested against, oldest first.
pub const SUPPORTED: [(u32, u32); 2] = [(7, 2), (7, 3)];

/// A kernel of the archive, with the packages it consists of.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Release {
    /// What `uname -r` says, such as `7.3.4+deb13-cloud-amd64`.
    pub name: String,
    /// The Debian version, such as `7.3.4-1~bpo13+1`.
    pub version: String,
    /// The packages to unpack: image, modules, configuration, headers.
    pub packages: Vec<String>,
    /// The package of the source, such as `linux-source-7.3`.
    pub source: String,
}

/// The fields of one package in `apt-cache show`.
type Stanza<'a> = BTreeMap<&'a str, &'a str>;

fn stanzas(show: &str) -> Vec<Stanza<'_>> {
    show.split("\n\n")
        .map(|stanza| {
            stanza
                .lines()
                .filter(|line| !line.starts_with(' '))
                .filter_map(|line| line.split_once(": "))
                .collect()
        })
        .filter(|stanza: &Stanza| stanza.contains_key("Package"))
        .collect()
}

/// `7.3.4+deb13-cloud-amd64` → `[7, 3, 4]`.
fn numbers(release: &str) -> Option<Vec<u32>> {
    release
        .split('+')
        .next()?
        .split('.')
        .map(|part| part.parse().ok())
        .collect()
}

/// Chooses from the text of `apt-cache show` over all `linux-*` packages of interest.
///
/// A release counts when its series is supported, its headers and its image are there, and the series' source
/// package has the very same version: the Rust metadata is remade from that source and must match the image.
pub fn choose(show: &str, arch: &str) -> Option<Release> {
    let all = stanzas(show);
    let has = |package: &str, version: &str| {
        all.iter()
            .any(|s| s.get("Package") == Some(&package) && s.get("Version") == Some(&version))
    };
    let mut best: Option<(Vec<u32>, Release)> = None;
    for stanza in &all {
        let (Some(package), Some(version)) = (stanza.get("Package"), stanza.get("Version")) else {
            continue;
        };
        let Some(name) = package.strip_prefix("linux-headers-") else {
            continue;
        };
        if !name.ends_with(&format!("-cloud-{arch}")) {
            continue;
        }
        let Some(number) = numbers(name) else {
            continue;
        };
        let [major, minor, ..] = number[..] else {
            continue;
        };
        let source = format!("linux-source-{major}.{minor}");
        if !SUPPORTED.contains(&(major, minor)) || !has(&source, version) {
            continue;
        }
        // Since 7.x the image is split over four packages; before, linux-image held all of it.
        let packages: Vec<String> = [
            "linux-headers",
            "linux-image",
            "linux-binary",
            "linux-modules",
            "linux-base",
        ]
        .iter()
        .map(|kind| format!("{kind}-{name}"))
        .filter(|package| has(package, version))
        .collect();
        let image = packages
            .iter()
            .any(|p| p.starts_with("linux-image-") || p.starts_with("linux-binary-"));
        if image && best.as_ref().is_none_or(|(top, _)| number > *top) {
            let release = Release {
                name: name.to_owned(),
                version: (*version).to_owned(),
                packages,
                source,
            };
            best = Some((number, release));
        }
    }
    best.map(|(_, release)| release)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(packages: &[(&str, &str)]) -> String {
        packages
            .iter()
            .map(|(name, version)| {
                format!("Package: {name}\nSource: linux\nVersion: {version}\nDescription-en: x\n Package: no\n\n")
            })
            .collect()
    }

    #[test]
    fn the_newest_supported_release_with_matching_source_is_taken() {
        let text = show(&[
            ("linux-headers-7.2.9+deb13-cloud-amd64", "7.2.9-1"),
            ("linux-binary-7.2.9+deb13-cloud-amd64", "7.2.9-1"),
            ("linux-headers-7.2.12+deb13-cloud-amd64", "7.2.12-1"),
            ("linux-binary-7.2.12+deb13-cloud-amd64", "7.2.12-1"),
            ("linux-source-7.2", "7.2.12-1"),
        ]);
        let release = choose(&text, "amd64").unwrap();
        assert_eq!(release.name, "7.2.12+deb13-cloud-amd64");
        assert_eq!(release.source, "linux-source-7.2");
        assert_eq!(release.packages.len(), 2);
    }

    #[test]
    fn an_unsupported_series_or_a_moved_source_is_passed_over() {
        let text = show(&[
            ("linux-headers-8.0.1+deb13-cloud-amd64", "8.0.1-1"),
            ("linux-image-8.0.1+deb13-cloud-amd64", "8.0.1-1"),
            ("linux-source-8.0", "8.0.1-1"),
            ("linux-headers-7.3.4+deb13-cloud-amd64", "7.3.4-1"),
            ("linux-image-7.3.4+deb13-cloud-amd64", "7.3.4-1"),
            ("linux-source-7.3", "7.3.5-1"),
        ]);
        assert_eq!(choose(&text, "amd64"), None);
    }

    #[test]
    fn headers_without_an_image_and_other_architectures_do_not_count() {
        let text = show(&[
            ("linux-headers-7.3.4+deb13-cloud-arm64", "7.3.4-1"),
            ("linux-image-7.3.4+deb13-cloud-arm64", "7.3.4-1"),
            ("linux-headers-7.3.4+deb13-cloud-amd64", "7.3.4-1"),
            ("linux-image-7.3.4+deb13-cloud-amd64-dbg", "7.3.4-1"),
            ("linux-source-7.3", "7.3.4-1"),
        ]);
        assert_eq!(choose(&text, "amd64"), None);
        assert_eq!(
            choose(&text, "arm64").unwrap().name,
            "7.3.4+deb13-cloud-arm64"
        );
    }
}
