// SPDX-License-Identifier: GPL-2.0-only
//! What a duplicate acknowledgement costs doesn't grow with what is cached (the paper measured ten times a packet's cost
//! for a burst of them).
//!
//! Counted are the looks at cached segments: a copy of the sources counts in the one function they all go through.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

/// Prints the looks that ten duplicates cost, without SACK and with it, one line a duplicate.
const MAIN: &str = r#"
use counting::snoop::*;

struct Nothing;
impl Store for Nothing {
    fn release(&mut self, _: u16) {}
    fn retransmit(&mut self, _: u16) {}
}

fn main() {
    let cached: u32 = std::env::args().nth(1).unwrap().parse().unwrap();
    let empty = Segment {
        seq: 0, len: 0, ack: None, window: 1000, syn: false, fin: false, rst: false, sack: [(0, 0); BLOCKS], blocks: 0,
    };
    let settings = Settings::default();
    for selective in [false, true] {
        let mut slots = vec![Slot::default(); 8192];
        prepare(&mut slots);
        let mut flow = Flow::new(0);
        let store = &mut Nothing;
        for index in 0..=cached {
            let data = Segment { seq: index * 10, len: 10, ..empty };
            flow.data(&mut slots, &data, 0, 0, true, u64::from(index), &settings, store);
        }
        let mut now = 100_000_000;
        let mut ack = Segment { ack: Some(10), ..empty };
        flow.ack(&mut slots, &ack, 0, now, &settings, store);
        for duplicate in 1..=10u32 {
            now += 1_000_000;
            if selective {
                ack.blocks = 1;
                ack.sack[0] = (20, 20 + duplicate * 10);
            }
            counting::snoop::LOOKS.store(0, std::sync::atomic::Ordering::Relaxed);
            flow.ack(&mut slots, &ack, 0, now, &settings, store);
            println!("{}", counting::snoop::LOOKS.load(std::sync::atomic::Ordering::Relaxed));
        }
    }
}
"#;

/// The program with counting sources.
fn build() -> std::path::PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("looks");
    fs::create_dir_all(copy.join("snoop")).expect("directory");
    for entry in fs::read_dir(source.join("snoop")).expect("sources") {
        let file = entry.expect("source").file_name();
        let path = Path::new("snoop").join(&file);
        let mut text = fs::read_to_string(source.join(&path)).expect("source");
        if file == "ring.rs" {
            let at = "fn index(&self, at: u32) -> usize {";
            assert_eq!(text.matches(at).count(), 1);
            let count = "super::LOOKS.fetch_add(1, core::sync::atomic::Ordering::Relaxed);";
            text = text.replace(at, &format!("{at} {count}"));
        }
        if file == "mod.rs" {
            text.push_str(
                "pub static LOOKS: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(0);",
            );
        }
        fs::write(copy.join(path), text).expect("copy");
    }
    let lib = "pub mod snoop; mod ip { pub const TCP: u8 = 6; pub struct Addresses { pub family: u8, pub src: [u8; 16], \
               pub dst: [u8; 16], pub protocol: u8, pub fragment: bool, pub transport: bool, pub header_len: usize, \
               pub total_len: usize } pub fn addresses(_: &[u8]) -> Option<Addresses> { None } }";
    fs::write(copy.join("lib.rs"), lib).expect("lib.rs");
    fs::write(copy.join("main.rs"), MAIN).expect("main.rs");
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    for arguments in [
        "--crate-name counting --crate-type rlib -A warnings lib.rs",
        "--extern counting=libcounting.rlib -o looks main.rs",
    ] {
        let mut command = Command::new(&rustc);
        command
            .current_dir(&copy)
            .args(["--edition", "2021"])
            .args(arguments.split_whitespace());
        assert!(command.status().expect("rustc").success());
    }
    copy.join("looks")
}

#[test]
fn a_duplicate_looks_at_as_many_segments_whatever_is_cached() {
    let program = build();
    let looks = |cached: u32| -> Vec<u64> {
        let output = Command::new(&program)
            .arg(cached.to_string())
            .output()
            .expect("looks");
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).expect("text");
        text.lines()
            .map(|line| line.parse().expect("number"))
            .collect()
    };
    let (few, many) = (looks(50), looks(5_000));
    assert_eq!((few.len(), many.len()), (20, 20));
    // Each of those with SACK searches twice or so for a place, in steps that halve what is left.
    let (few_bare, few_sack) = few.split_at(10);
    let (many_bare, many_sack) = many.split_at(10);
    assert_eq!(few_bare, many_bare);
    assert!(few_bare.iter().all(|looks| *looks < 40), "{few:?}");
    for (few, many) in few_sack.iter().zip(many_sack) {
        assert!(
            *many <= few + 40 && *many < 90,
            "{few_sack:?} {many_sack:?}"
        );
    }
    println!("looks at segments, 50 cached: {few:?}; 5,000 cached: {many:?}");
}
