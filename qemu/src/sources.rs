// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The host's own apt sources, read for the Debian mirror it already uses.
//!
//! The lab brings no mirror address along: a host with a nearby mirror keeps using it. Both formats of
//! sources.list(5) are read: one-line files (`*.list`) and deb822 files (`*.sources`).

use std::path::Path;

/// One `deb` source: an address and the suites and components it is used for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The archive's address.
    pub uri: String,
    /// Suites, such as `trixie` and `trixie-updates`.
    pub suites: Vec<String>,
    /// Components, such as `main`.
    pub components: Vec<String>,
    /// The keyring or key named for it, if any.
    pub signed_by: Option<String>,
}

/// Suites that Debian itself publishes: what tells its archive from a third party's.
const SUITES: [&str; 11] = [
    "buster",
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "sid",
    "testing",
    "stable",
    "oldstable",
    "unstable",
];

/// Parses a file of one-line sources.
pub fn parse_list(text: &str) -> Vec<Source> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim();
    let mut rest = line
        .strip_prefix("deb")?
        .strip_prefix([' ', '\t'])?
        .trim_start();
    let mut signed_by = None;
    if let Some(options) = rest.strip_prefix('[') {
        let (inside, after) = options.split_once(']')?;
        signed_by = inside
            .split_whitespace()
            .find_map(|option| option.strip_prefix("signed-by="))
            .map(str::to_owned);
        rest = after;
    }
    let mut words = rest.split_whitespace().map(str::to_owned);
    let (uri, suite) = (words.next()?, words.next()?);
    Some(Source {
        uri,
        suites: vec![suite],
        components: words.collect(),
        signed_by,
    })
}

/// Parses a deb822 file: stanzas of `Field: value`, continued by indented lines.
pub fn parse_deb822(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    for stanza in stanzas(text) {
        let words = |field: &str| -> Vec<String> {
            stanza
                .iter()
                .filter(|(name, _)| name.eq_ignore_ascii_case(field))
                .flat_map(|(_, value)| value.split_whitespace().map(str::to_owned))
                .collect()
        };
        let disabled = words("Enabled")
            .first()
            .is_some_and(|v| v == "no" || v == "false");
        if disabled || !words("Types").iter().any(|t| t == "deb") {
            continue;
        }
        for uri in words("URIs") {
            sources.push(Source {
                uri,
                suites: words("Suites"),
                components: words("Components"),
                signed_by: words("Signed-By").into_iter().next(),
            });
        }
    }
    sources
}

fn stanzas(text: &str) -> Vec<Vec<(String, String)>> {
    let mut all = vec![Vec::<(String, String)>::new()];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let last = all.len() - 1;
        if line.trim().is_empty() {
            all.push(Vec::new());
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = all[last].last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            all[last].push((name.trim().to_owned(), value.trim().to_owned()));
        }
    }
    all.retain(|stanza| !stanza.is_empty());
    all
}

/// How surely a source is Debian's own archive; `None` when it is not.
fn likeness(source: &Source) -> Option<u32> {
    let http = source.uri.starts_with("http://") || source.uri.starts_with("https://");
    let uri = source.uri.trim_end_matches('/');
    if !http
        || !uri.ends_with("/debian")
        || !source.components.iter().any(|c| c == "main")
        || !source.suites.iter().any(|s| SUITES.contains(&s.as_str()))
    {
        return None;
    }
    // A third party may call its archive `…/debian bookworm main` too, but it signs with its own key.
    let own_key = source
        .signed_by
        .as_deref()
        .is_some_and(|key| !key.contains("debian-archive"));
    let updates = source.suites.iter().any(|s| s.ends_with("-updates"));
    Some(if own_key { 0 } else { 2 } + u32::from(updates))
}

/// The mirror of the Debian archive among these sources, without a slash at its end.
pub fn debian_mirror(sources: &[Source]) -> Option<String> {
    let mut best: Option<(u32, &Source)> = None;
    for source in sources {
        if let Some(score) = likeness(source) {
            if best.is_none_or(|(top, _)| score > top) {
                best = Some((score, source));
            }
        }
    }
    best.map(|(_, source)| source.uri.trim_end_matches('/').to_owned())
}

/// Every source of an apt configuration directory such as `/etc/apt`.
pub fn read(apt: &Path) -> Vec<Source> {
    let mut files = vec![apt.join("sources.list")];
    if let Ok(entries) = std::fs::read_dir(apt.join("sources.list.d")) {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files.sort();
    let mut sources = Vec::new();
    for file in files {
        let Ok(text) = std::fs::read_to_string(&file) else {
            continue;
        };
        match file.extension().and_then(|e| e.to_str()) {
            Some("list") => sources.extend(parse_list(&text)),
            Some("sources") => sources.extend(parse_deb822(&text)),
            _ => {}
        }
    }
    sources
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deb822_file_gives_its_debian_mirror() {
        let text = "Types: deb deb-src\n# a comment\nURIs: http://mirror.example/debian/\nSuites: bookworm bookworm-updates\n\
                    Components: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n\
                    Types: deb\nURIs: http://mirror.example/debian-security\nSuites: bookworm-security\nComponents: main\n";
        let sources = parse_deb822(text);
        assert_eq!(sources.len(), 2);
        assert_eq!(
            debian_mirror(&sources).as_deref(),
            Some("http://mirror.example/debian")
        );
    }

    #[test]
    fn a_one_line_file_with_options_is_read() {
        let text = "deb-src http://a.example/debian trixie main\n\
                    deb [arch=amd64 signed-by=/k.gpg] https://b.example/debian trixie main contrib # near\n";
        let sources = parse_list(text);
        assert_eq!(sources.len(), 1);
        assert_eq!(sources[0].signed_by.as_deref(), Some("/k.gpg"));
        assert_eq!(sources[0].components, ["main", "contrib"]);
        assert_eq!(
            debian_mirror(&sources).as_deref(),
            Some("https://b.example/debian")
        );
    }

    #[test]
    fn third_parties_are_not_taken_for_debian() {
        let text = "deb https://vendor.example/debian/12/prod bookworm main\n\
                    deb https://vendor.example/linux/debian bookworm stable\n\
                    deb [signed-by=/usr/share/keyrings/vendor.gpg] https://db.example/repo/debian bookworm main\n\
                    deb http://near.example/debian bookworm main\n";
        let sources = parse_list(text);
        assert_eq!(
            debian_mirror(&sources).as_deref(),
            Some("http://near.example/debian")
        );
        assert_eq!(
            debian_mirror(&parse_list("deb http://ubuntu.example/ubuntu noble main\n")),
            None
        );
    }

    #[test]
    fn continued_fields_and_disabled_stanzas_are_understood() {
        let text = "Types: deb\nURIs: http://m.example/debian\nSuites:\n trixie\n trixie-updates\nComponents: main\n\n\
                    Types: deb\nEnabled: no\nURIs: http://off.example/debian\nSuites: trixie\nComponents: main\n";
        let sources = parse_deb822(text);
        assert_eq!(sources.len(), 1);
        assert_eq!(sources[0].suites, ["trixie", "trixie-updates"]);
    }
}
