// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Every rule of docs/wire.md is cited where it is implemented and where it is tested, and what is cited is a rule.
//!
//! A rule has a number in bold in front of it, such as `**1.2a**`; it is cited as `docs/wire.md 1.2a`, several of them
//! with commas between. Whether code does what the rule says is for a reader to judge: this keeps the way there short.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Where the rules are implemented. Tests that stand in these files, behind `#[cfg(test)]`, count as tests.
const IMPLEMENTATION: [&str; 5] = [
    "kmod",
    "pfkey/src",
    "keyd/src",
    "keyd/ike/src",
    "keyd/mip/src",
];
/// Where they are tested.
const TESTS: [&str; 6] = [
    "kmod/core/tests",
    "pfkey/tests",
    "keyd/tests",
    "keyd/ike/tests",
    "keyd/mip/tests",
    "tests/src",
];
/// What lies in the folders of the implementation and is none: tests, fuzz targets, and the lab's own modules.
const NEITHER: [&str; 4] = ["tests", "fuzz", "target", "kmod/lab"];
/// How a citation begins.
const DOCUMENT: &str = "docs/wire.md";

/// What a rule lacks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gap {
    /// It isn't implemented yet, so neither side cites it.
    Implementation,
    /// It is implemented, and no test looks at it.
    Test,
    /// Both sides cite it, but part of it is missing on one of them.
    Part,
}

/// The rules that lack something, and what. Whoever fills a gap takes it out of the list.
const GAPS: &[(&str, Gap, &str)] = &[];

/// A file's name, from the root on, and its text.
type Source = (String, String);

/// The citations of one side: each rule's, as file and line.
type Citations = BTreeMap<String, Vec<String>>;

fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit())
}

/// The section of a rule's number: `1.2a` is of `1.2`.
fn section_of(number: &str) -> Option<&str> {
    let (section, letter) = number.split_at_checked(number.len().checked_sub(1)?)?;
    let sound = letter.as_bytes()[0].is_ascii_lowercase() && section.split('.').all(digits);
    sound.then_some(section)
}

/// The numbers that a line of the document gives: bold text begins with one. It may end on another line.
fn numbers_in(line: &str) -> impl Iterator<Item = &str> {
    line.split("**")
        .skip(1)
        .filter_map(|bold| bold.split(' ').next())
        .filter(|word| section_of(word).is_some())
}

/// The rules of the document, in its order; what is wrong with them goes to `complaints`.
fn rules(document: &str, complaints: &mut Vec<String>) -> Vec<String> {
    let mut rules: Vec<String> = Vec::new();
    let mut section = "";
    for (at, line) in (1..).zip(document.lines()) {
        if let Some(heading) = line.strip_prefix('#') {
            let title = heading.trim_start_matches('#').trim();
            section = title.split(' ').next().unwrap_or("").trim_end_matches('.');
        }
        let numbers: Vec<&str> = numbers_in(line).collect();
        for number in &numbers {
            if section_of(number) != Some(section) {
                complaints.push(format!(
                    "{DOCUMENT}:{at}: rule {number} stands in section {section}"
                ));
            }
            if rules.iter().any(|rule| rule == number) {
                complaints.push(format!("{DOCUMENT}:{at}: a second rule {number}"));
            } else {
                rules.push((*number).to_owned());
            }
        }
        let numbered = section.starts_with(|first: char| first.is_ascii_digit());
        let listed = line
            .split_once(". ")
            .is_some_and(|(number, _)| digits(number));
        let item = line.starts_with("- ") || listed;
        if numbered && item && numbers.is_empty() {
            complaints.push(format!("{DOCUMENT}:{at}: a rule without a number"));
        }
    }
    rules
}

/// Puts the citations of a text into `to`. `first`: the number of its first line.
fn cite(name: &str, first: usize, text: &str, to: &mut Citations) {
    for (at, line) in (first..).zip(text.lines()) {
        for rest in line.split(DOCUMENT).skip(1) {
            let Some(list) = rest.trim_start_matches('`').strip_prefix(' ') else {
                continue;
            };
            for word in list.split(", ") {
                let end = word.find(|c: char| !c.is_ascii_alphanumeric() && c != '.');
                let number = word[..end.unwrap_or(word.len())].trim_end_matches('.');
                if !number.starts_with(|first: char| first.is_ascii_digit()) {
                    break;
                }
                let places = to.entry(number.to_owned()).or_default();
                places.push(format!("{name}:{at}"));
                if end.is_some() {
                    break;
                }
            }
        }
    }
}

/// The citations of implementation and tests.
fn citations(implementation: &[Source], tests: &[Source]) -> [Citations; 2] {
    let [mut implemented, mut tested] = [Citations::new(), Citations::new()];
    for (name, text) in implementation {
        let code = text.find("#[cfg(test)]").unwrap_or(text.len());
        let (code, own_tests) = text.split_at(code);
        cite(name, 1, code, &mut implemented);
        cite(name, code.lines().count().max(1), own_tests, &mut tested);
    }
    for (name, text) in tests {
        cite(name, 1, text, &mut tested);
    }
    [implemented, tested]
}

/// What is wrong with the citations, a line each; nothing if all is well.
fn complaints(
    document: &str,
    implementation: &[Source],
    tests: &[Source],
    gaps: &[(&str, Gap, &str)],
) -> Vec<String> {
    let mut complaints = Vec::new();
    let rules = rules(document, &mut complaints);
    let [implemented, tested] = citations(implementation, tests);
    let known: BTreeSet<&str> = rules.iter().map(String::as_str).collect();
    for (number, places) in implemented.iter().chain(&tested) {
        if !known.contains(number.as_str()) {
            complaints.push(format!(
                "{}: {DOCUMENT} has no rule {number}",
                places.join(", ")
            ));
        }
    }
    for (number, _, _) in gaps {
        if !known.contains(number) {
            complaints.push(format!("the gap of rule {number}, which there isn't"));
        }
    }
    for rule in &rules {
        let gap = gaps
            .iter()
            .find(|(number, _, _)| number == rule)
            .map(|(_, gap, _)| *gap);
        let wanted = (
            gap != Some(Gap::Implementation),
            !matches!(gap, Some(Gap::Implementation | Gap::Test)),
        );
        let sides = [
            ("implementation", wanted.0, implemented.get(rule)),
            ("test", wanted.1, tested.get(rule)),
        ];
        for (side, wanted, places) in sides {
            match (wanted, places) {
                (true, None) => complaints.push(format!("rule {rule} is cited by no {side}")),
                (false, Some(places)) => complaints.push(format!(
                    "rule {rule} is cited as {side} ({}), and listed as having none",
                    places.join(", ")
                )),
                _ => {}
            }
        }
    }
    complaints
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The Rust and C files of a folder and those within it.
fn collect(root: &Path, folder: &str, skip: &[&str], to: &mut Vec<Source>) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(root.join(folder))
        .unwrap_or_else(|error| panic!("{folder}: {error}"))
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        let last = path.file_name().unwrap().to_string_lossy().into_owned();
        let name = format!("{folder}/{last}");
        if skip.iter().any(|skip| *skip == last || *skip == name) {
            continue;
        }
        if path.is_dir() {
            collect(root, &name, skip, to);
        } else if [".rs", ".c"].iter().any(|ending| last.ends_with(ending)) {
            to.push((name, std::fs::read_to_string(&path).unwrap()));
        }
    }
}

/// The document, and the files of both sides.
fn project() -> (String, Vec<Source>, Vec<Source>) {
    let root = root();
    let document = std::fs::read_to_string(root.join(DOCUMENT)).unwrap();
    let [mut implementation, mut tests] = [Vec::new(), Vec::new()];
    for folder in IMPLEMENTATION {
        collect(&root, folder, &NEITHER, &mut implementation);
    }
    for folder in TESTS {
        collect(&root, folder, &["fuzz"], &mut tests);
    }
    (document, implementation, tests)
}

#[test]
fn every_rule_is_cited_where_it_is_implemented_and_where_it_is_tested() {
    let (document, implementation, tests) = project();
    let found = complaints(&document, &implementation, &tests, GAPS);
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// Of each rule: with every citation of it taken out of one side, it is missed there, by its number.
#[test]
fn a_citation_that_is_taken_away_is_missed() {
    let (document, implementation, tests) = project();
    let rules = rules(&document, &mut Vec::new());
    assert!(rules.len() > 150, "{} rules", rules.len());
    let without = |sources: &[Source], rule: &str| -> Vec<Source> {
        let cited = |line: &str| {
            let mut one = Citations::new();
            cite("", 1, line, &mut one);
            one.contains_key(rule)
        };
        let keep = |text: &String| {
            let lines = text.lines().filter(|line| !cited(line));
            lines.collect::<Vec<_>>().join("\n")
        };
        let spoil = |(name, text): &Source| (name.clone(), keep(text));
        sources.iter().map(spoil).collect()
    };
    // One of each section, and of the gaps that have both sides.
    for rule in [
        "1a", "1.2a", "1.9m", "1.11c", "2b", "2.1k", "2.2u", "2.5f", "3.1c", "3.2o", "4b", "5d",
    ] {
        let missed = |implementation: &[Source], tests: &[Source], side: &str| {
            let found = complaints(&document, implementation, tests, GAPS);
            let expected = format!("rule {rule} is cited by no {side}");
            assert!(found.contains(&expected), "{rule}, {side}: {found:?}");
        };
        let spoiled = without(&implementation, rule);
        missed(&spoiled, &tests, "implementation");
        let (spoiled, own) = (without(&tests, rule), without(&implementation, rule));
        missed(&own, &spoiled, "test");
    }
}

#[test]
fn faults_of_document_and_citations_are_named() {
    let document = "# T\n- no rule\n## 1. One\n- **1a** first **1b Second**: x\n2. **1c** y\n### 1.1 Next\n| **1.1a** r | **z** |\n";
    let file = |text: &str| vec![("f.rs".to_owned(), text.to_owned())];
    let code = file("/// Does it (docs/wire.md 1a, 1b).\n// `docs/wire.md` 1c; docs/wire.md §1.\n/// docs/wire.md 1.1a.\n#[cfg(test)]\n// docs/wire.md 1a.\n");
    let tests = file("/// docs/wire.md 1b, 1c, and more\n// docs/wire.md 1.1a\n");
    let all = |document: &str, code: &[Source], tests: &[Source], gaps: &[(&str, Gap, &str)]| {
        complaints(document, code, tests, gaps)
    };
    assert_eq!(all(document, &code, &tests, &[]), [""; 0]);
    let bare = document.replace("- **1a** first", "- first\n- **1a** first");
    assert_eq!(
        all(&bare, &code, &tests, &[]),
        ["docs/wire.md:4: a rule without a number"]
    );
    let twice = document.replace("**1.1a** r", "**1b** r **1.1a**");
    assert_eq!(
        all(&twice, &code, &tests, &[]),
        [
            "docs/wire.md:7: rule 1b stands in section 1.1",
            "docs/wire.md:7: a second rule 1b"
        ]
    );
    let unknown = file("/// docs/wire.md 1b, 1c, 1.1a, 9z and 1.2\n");
    assert_eq!(
        all(document, &code, &unknown, &[]),
        ["f.rs:1: docs/wire.md has no rule 9z"]
    );
    assert_eq!(
        all(document, &code, &file(""), &[("1c", Gap::Test, "")]),
        [
            "rule 1b is cited by no test",
            "rule 1.1a is cited by no test"
        ]
    );
    assert_eq!(
        all(document, &code, &tests, &[("1a", Gap::Implementation, "")]),
        [
            "rule 1a is cited as implementation (f.rs:1), and listed as having none",
            "rule 1a is cited as test (f.rs:4), and listed as having none"
        ]
    );
    assert_eq!(
        all(document, &code, &tests, &[("2a", Gap::Part, "")]),
        ["the gap of rule 2a, which there isn't"]
    );
}
