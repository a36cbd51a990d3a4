// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A file that seals is used once, whoever tries and however often.

use keyd::private_file::{create, loaded_path, Error, PrivateFile};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Barrier;

#[test]
fn a_file_is_spent_by_one_of_many() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..50 {
        let path = folder.path().join(format!("{round}.toml"));
        create(&path, "text").unwrap();
        let (barrier, won) = (Barrier::new(8), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let file = PrivateFile::read(&path).unwrap();
                    barrier.wait();
                    match file.spend() {
                        Ok(loaded) => {
                            assert_eq!(loaded, loaded_path(&path));
                            won.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => assert!(matches!(error, Error::Spent { .. }), "{error}"),
                    }
                });
            }
        });
        assert_eq!(won.into_inner(), 1);
        assert!(!path.exists() && loaded_path(&path).exists());
        assert!(matches!(PrivateFile::read(&path), Err(Error::Spent { .. })));
    }
}

#[test]
fn a_file_put_back_under_its_name_is_still_spent() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ha.toml");
    create(&path, "text").unwrap();
    let loaded = PrivateFile::read(&path).unwrap().spend().unwrap();
    std::fs::copy(&loaded, &path).unwrap();
    let again = PrivateFile::read(&path).unwrap();
    assert!(matches!(again.spend(), Err(Error::Spent { .. })));
    assert!(path.exists() && loaded.exists());
}

#[test]
fn a_file_exchanged_after_it_was_read_is_not_taken_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ha.toml");
    create(&path, "one").unwrap();
    let file = PrivateFile::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    create(
        &folder.path().join("another"),
        "keeps the inode from coming back",
    )
    .unwrap();
    create(&path, "two").unwrap();
    let spent = file.spend();
    // The inode may have come back all the same, and then there is nothing to tell the two apart by.
    if spent.is_err() {
        assert!(matches!(spent, Err(Error::Changed(_))));
    }
}

#[test]
fn a_relative_name_without_a_folder_can_be_spent() {
    // The folder to be written to the disk is then the current one.
    let name = format!("single-use-{}.toml", std::process::id());
    let path = std::path::Path::new(&name);
    create(path, "text").unwrap();
    let spent = PrivateFile::read(path).unwrap().spend().unwrap();
    std::fs::remove_file(spent).unwrap();
}
