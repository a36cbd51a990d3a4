// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The netlink socket against this machine's kernel: its family of families is always there.

use keyd::netlink::{frame, Error, Socket};

/// `CTRL_CMD_GETFAMILY` and `CTRL_ATTR_FAMILY_NAME`.
const GET_FAMILY: u8 = 3;
const FAMILY_NAME: u16 = 2;

fn ctrl() -> Socket {
    Socket::open("nlctrl", 2, "notify").unwrap()
}

#[test]
fn a_family_is_asked_for_and_answers() {
    let mut names = Vec::new();
    let fill = |r: frame::Request| r.attribute(FAMILY_NAME, b"nlctrl\0");
    ctrl()
        .request(GET_FAMILY, &fill, &mut |message| {
            names.extend(message.attributes().find(FAMILY_NAME).map(frame::text));
            Ok(())
        })
        .unwrap();
    assert_eq!(names, ["nlctrl"]);
}

#[test]
fn a_dump_lists_all_families() {
    let mut names = Vec::new();
    let (mut begun, mut socket) = (0, ctrl());
    for _ in 0..2 {
        socket
            .dump(GET_FAMILY, &|r| r, &mut || begun += 1, &mut |message| {
                names.extend(message.attributes().find(FAMILY_NAME).map(frame::text));
                Ok(())
            })
            .unwrap();
    }
    assert!(begun >= 2);
    assert!(
        names.iter().filter(|name| *name == "nlctrl").count() >= 2,
        "{names:?}"
    );
}

#[test]
fn a_family_that_isnt_there_is_no_module() {
    assert!(matches!(
        Socket::open("mml-none", 1, "events"),
        Err(Error::NoFamily)
    ));
}

#[test]
fn the_kernels_errno_and_words_are_told() {
    let refused = ctrl().request(250, &|r| r, &mut |_| Ok(())).unwrap_err();
    assert_eq!(refused.errno(), Some(95), "{refused}");
    // A name of the wrong type: the kernel's policy check says so in words.
    let refused = ctrl()
        .request(
            GET_FAMILY,
            &|r| r.attribute(FAMILY_NAME, &[b'x'; 64]),
            &mut |_| Ok(()),
        )
        .unwrap_err();
    let Error::Refused { errno, text } = &refused else {
        panic!("{refused}")
    };
    assert!(*errno > 0);
    assert!(
        text.as_deref().is_some_and(|text| !text.is_empty()),
        "{refused}"
    );
}

#[test]
fn a_group_can_be_joined_and_a_missing_one_is_named() {
    ctrl().join("notify").unwrap();
    let mut none = Socket::open("nlctrl", 2, "none").unwrap();
    let error = none.join("events").unwrap_err().to_string();
    assert!(error.contains("no multicast group events"), "{error}");
}
