//! Sockets that systemd opened, and what it is told.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use super::{addresses, register, restart};
use crate::server::{PATIENCE, ask_tcp, query};

/// The program as systemd starts it: with these as descriptors 3, 4 and 5. A shell puts them there, and knows its number.
fn activated(sockets: [OwnedFd; 3], names: &str, dir: &Path, words: &[&str]) -> Child {
    let script = r#"exec 3<&0 4<&1 5<&2 0</dev/null 1>"$LOG" 2>&1
        LISTEN_PID=$$ LISTEN_FDS=3 exec "$@""#;
    let [first, second, third] = sockets.map(Stdio::from);
    Command::new("sh")
        .args(["-c", script, "sh", env!("CARGO_BIN_EXE_rollcall"), "serve", "--node", "n1", "--data-dir"])
        .arg(dir.join("data"))
        .args(words)
        .env("LISTEN_FDNAMES", names)
        .env("NOTIFY_SOCKET", dir.join("notify"))
        .env("LOG", dir.join("log"))
        .stdin(first)
        .stdout(second)
        .stderr(third)
        .spawn()
        .unwrap()
}

fn told(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 500];
    let length = socket.recv(&mut buffer).expect("systemd was told nothing");
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

/// Ended when dropped.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A free port, bound on UDP and TCP.
fn pair() -> (SocketAddr, UdpSocket, TcpListener) {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let dns = tcp.local_addr().unwrap();
        if let Ok(udp) = UdpSocket::bind(dns) {
            return (dns, udp, tcp);
        }
    }
}

/// Which listener is for DNS is seen by its address, or by its name.
#[tokio::test]
async fn sockets_of_systemd_are_served_and_handed_on() {
    for names in ["rollcall.socket:rollcall.socket:rollcall.socket", "http:dns:dns"] {
        served_and_handed_on(names).await;
    }
}

async fn served_and_handed_on(names: &str) {
    let dir = tempfile::tempdir().unwrap();
    let notify = UnixDatagram::bind(dir.path().join("notify")).unwrap();
    notify.set_read_timeout(Some(PATIENCE)).unwrap();
    let (dns, udp, tcp) = pair();
    let api = TcpListener::bind("127.0.0.1:0").unwrap();
    let http = api.local_addr().unwrap();
    let sockets = [api.into(), udp.into(), tcp.into()];
    let mut server =
        Ends(activated(sockets, names, dir.path(), &["--dns", "127.0.0.1:1", "--http", "127.0.0.1:2"]));
    assert_eq!(told(&notify), "READY=1");
    register(http, json!({ "Name": "web", "Port": 1 })).await;
    let all_there = async || {
        assert_eq!(addresses(dns, "web").await, 1);
        let answer = ask_tcp(dns, &query("web.service.internal.", hickory_proto::rr::RecordType::A)).await;
        assert_eq!(answer.answers.len(), 1);
    };
    all_there().await;
    let data = dir.path().join("data");
    let later = restart(&["--data-dir", data.to_str().unwrap()]);
    assert_eq!(told(&notify), format!("MAINPID={}", later.0));
    assert_eq!(told(&notify), "READY=1");
    assert!(server.0.wait().unwrap().success());
    all_there().await;
    register(http, json!({ "Name": "more", "Port": 1 })).await;
}

#[test]
fn sockets_that_make_no_server_are_refused() {
    let cases = [
        ("http:dns:http", "on UDP for DNS, and not on TCP: add ListenStream="),
        ("dns:x:x", "on TCP for DNS, and not on UDP: add ListenDatagram="),
        ("x:http:x", "a datagram socket for HTTP; use ListenStream="),
    ];
    for (names, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        let ((_, udp, tcp), api) = (pair(), TcpListener::bind("127.0.0.1:0").unwrap());
        let sockets = [api.into(), udp.into(), tcp.into()];
        let mut server = Ends(activated(sockets, names, dir.path(), &[]));
        assert_eq!(server.0.wait().unwrap().code(), Some(1), "{names}");
        let said = std::fs::read_to_string(dir.path().join("log")).unwrap();
        assert!(said.contains(expected), "{names}: {said}");
    }
}
