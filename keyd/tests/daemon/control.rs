// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The control socket: who may speak, what is answered, and what malformed lines come to.

use keyd::daemon::control::{Answer, Client, Failure, Request, Server};
use keyd::daemon::log::Journal;
use serde_json::json;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Answers what comes: its own request back, or no.
async fn echo(mut server: Server) {
    while let Some(asked) = server.asked().await {
        let answer = match &asked.request {
            Request::Initiate { name, .. } if name == "nobody" => {
                Answer::Unknown("nobody: no".into())
            }
            Request::Delete { .. } => Answer::Refused("not now".into()),
            request => Answer::Done(serde_json::to_value(request).unwrap()),
        };
        asked.answer.send(answer).unwrap();
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn requests_are_answered_and_refusals_have_their_kind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control");
    let server = Server::open(&path, false, &Journal::default()).unwrap();
    assert_eq!(mode(&path), 0o600);
    tokio::spawn(echo(server));
    tokio::task::spawn_blocking(move || {
        let mut client = Client::connect(&path).unwrap();
        let answer = client
            .ask(&Request::Rekey {
                what: "0x1000".into(),
                ike: true,
            })
            .unwrap();
        assert_eq!(
            answer,
            json!({ "command": "rekey", "ike": true, "what": "0x1000" })
        );
        let unknown = client.ask(&Request::Initiate {
            name: "nobody".into(),
            wait: 0,
        });
        assert!(matches!(unknown, Err(Failure::Unknown(text)) if text == "nobody: no"));
        let refused = client.ask(&Request::Delete { what: "ha".into() });
        assert!(matches!(refused, Err(Failure::Refused(_))));
        assert!(
            client.ask(&Request::Status).is_ok(),
            "one connection, many requests"
        );
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn lines_that_are_no_requests_are_refused_and_endless_ones_end_the_connection() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control");
    tokio::spawn(echo(
        Server::open(&path, true, &Journal::default()).unwrap(),
    ));
    assert_eq!(mode(&path), 0o660);
    tokio::task::spawn_blocking(move || {
        let stream = UnixStream::connect(&path).unwrap();
        let mut answers = BufReader::new(stream.try_clone().unwrap()).lines();
        for wrong in [
            "",
            "{",
            "[]",
            "{\"command\":\"format\"}",
            "{\"command\":\"rekey\",\"what\":\"x\",\"force\":true}",
        ] {
            writeln!(&stream, "{wrong}").unwrap();
            let answer = answers.next().unwrap().unwrap();
            let answer: Answer = serde_json::from_str(&answer).unwrap();
            assert!(matches!(answer, Answer::Malformed(_)), "{wrong}");
        }
        let endless = vec![b'x'; 70_000];
        // It may be shut in our face.
        let _ = (&stream).write_all(&endless);
        assert!(answers.next().is_none_or(|line| line.is_err()));
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn the_log_has_the_last_lines_and_with_follow_those_to_come() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control");
    let journal = Journal::default();
    for line in 0..1100 {
        journal.add(format!("line {line}"));
    }
    tokio::spawn(echo(Server::open(&path, false, &journal).unwrap()));
    let (started, begun) = tokio::sync::oneshot::channel();
    let client = tokio::task::spawn_blocking(move || {
        let mut client = Client::connect(&path).unwrap();
        client.send(&Request::Log { follow: false }).unwrap();
        let mut lines = Vec::new();
        while let Some(line) = client.answer().unwrap() {
            lines.push(line);
        }
        assert_eq!((lines.len(), &lines[0]), (1000, &json!("line 100")));
        let mut client = Client::connect(&path).unwrap();
        client.send(&Request::Log { follow: true }).unwrap();
        for _ in 0..1000 {
            client.answer().unwrap().unwrap();
        }
        started.send(()).unwrap();
        assert_eq!(client.answer().unwrap(), Some(json!("one more")));
    });
    begun.await.unwrap();
    journal.add("one more".into());
    client.await.unwrap();
}

#[tokio::test]
async fn a_socket_left_behind_is_replaced_a_daemon_that_listens_and_other_files_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let server = Server::open(&path, false, &Journal::default()).unwrap();
    let second = Server::open(&path, false, &Journal::default())
        .err()
        .unwrap();
    assert!(second.contains("a keyd listens there already"), "{second}");
    drop(server);
    assert!(!path.exists(), "it is taken away at the end");
    std::fs::write(&path, "precious").unwrap();
    assert!(Server::open(&path, false, &Journal::default()).is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}
