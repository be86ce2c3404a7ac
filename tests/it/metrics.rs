//! What /metrics shows: the page that tells of it, and that nobody outside can make series.

use std::collections::BTreeSet;
use std::path::Path;

use hickory_proto::op::Message;
use hickory_proto::rr::{Name, RecordType};
use rollcall::telemetry::metrics::reference;
use serde_json::{Value, json};
use tokio::net::{TcpStream, UdpSocket};

use crate::server::{PATIENCE, TestServer, query, raw, request};

const BEGIN: &str = "## All of them\n\n";

/// docs/metrics.md has what the code says, and a server has what the page says.
#[tokio::test]
async fn the_page_is_what_a_server_shows() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (words, tables) = page.split_once(BEGIN).expect("the tables' heading");
    let made = reference::markdown();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, format!("{words}{BEGIN}{made}")).unwrap();
    } else {
        assert_eq!(tables, made, "UPDATE=1 cargo test --test it metrics::the_page writes it anew");
    }
    let server = TestServer::start().await;
    server.register(json!({ "Name": "web", "Address": "10.0.0.1" })).await;
    server.ask("web.service.internal.", RecordType::A).await;
    let shown = reference::read(&server.get("/metrics").await.text());
    let told = reference::all();
    assert_eq!(shown.keys().collect::<Vec<_>>(), told.keys().collect::<Vec<_>>());
    for (name, shown) in shown {
        let told = &told[&name];
        assert_eq!((&shown.kind, &shown.help), (&told.kind, &told.help), "{name}");
        for (label, values) in shown.labels {
            let (_, known) = told.labels.iter().find(|(known, _)| *known == label).expect(&label);
            assert!(values.iter().all(|value| known.contains(value)), "{name} {label} {values:?}");
        }
    }
}

/// The names of all series, with their labels.
async fn series(server: &TestServer) -> BTreeSet<String> {
    let text = server.get("/metrics").await.text();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
}

/// All that a stranger can name, with `mark` in it.
async fn attack(server: &TestServer, mark: &str) {
    let names = [
        format!("{mark}\",evil=\"1"),
        format!("{mark}\\n# TYPE evil counter"),
        format!("{mark}}} 1\nevil 1"),
        format!("{mark}-\u{fc}\u{202e}"),
        mark.to_owned(),
    ];
    for name in &names {
        let taken =
            |answer: crate::server::Answer| assert!([200, 400].contains(&answer.status), "{answer:?}");
        let definition = json!({
            "Name": name, "ID": name, "Tags": [name], "Meta": { "key": name }, "Address": "10.0.0.1",
            "Check": { "Name": name, "CheckID": name, "TTL": "10s", "Status": "passing" },
        });
        taken(server.put("/v1/agent/service/register", &definition).await);
        let node = json!({ "Node": name, "Address": "10.0.0.2", "Service": { "Service": name, "ID": name } });
        taken(server.put("/v1/catalog/register", &node).await);
        let check: Value = json!({ "Name": name, "TCP": "127.0.0.1:1", "Interval": "1h" });
        taken(server.put("/v1/agent/check/register", &check).await);
    }
    let path = format!("/v1/{mark}/catalog?filter={mark}%22&token={mark}&dc={mark}&index={mark}");
    for method in ["GET", "PUT", "BREW"] {
        request(server.http(), method, &path, &[("X-Consul-Token", mark)], "{").await;
        request(server.http(), method, &format!("/v1/health/service/{mark}"), &[("Origin", mark)], "").await;
    }
    let stream = TcpStream::connect(server.http()).await.unwrap();
    raw(stream, &format!("GET /{mark} HTTP/1.1\r\nHost: {mark}\r\nConnection: close\r\n\r\n")).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server.dns()).await.unwrap();
    // Every type there is room for in an octet, and some beyond.
    for kind in (0..=255).chain([256, 257, 32768, 65280, 65535]) {
        for domain in ["service.internal.", "example."] {
            let name: Name = format!("{mark}.{domain}").parse().unwrap();
            let mut bytes = query(&name.to_string(), RecordType::A).to_vec().unwrap();
            let at = bytes.len() - 4;
            bytes[at..at + 2].copy_from_slice(&u16::to_be_bytes(kind));
            answered(&socket, &bytes).await;
            // And each as an opcode and a class.
            bytes[2] = (bytes[2] & 0x87) | ((kind as u8 & 0xf) << 3);
            bytes[at + 3] = kind as u8;
            answered(&socket, &bytes).await;
        }
    }
}

/// Sends octets, and a question behind them from the same socket, so to the same thread: its answer shows that the octets
/// were counted.
async fn answered(socket: &UdpSocket, bytes: &[u8]) {
    let last = query("internal.", RecordType::SOA);
    socket.send(bytes).await.unwrap();
    socket.send(&last.to_vec().unwrap()).await.unwrap();
    let mut buffer = [0; 4096];
    let both = async {
        loop {
            let length = socket.recv(&mut buffer).await.unwrap();
            if Message::from_vec(&buffer[..length]).is_ok_and(|answer| answer.metadata.id == last.metadata.id)
            {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, both).await.expect("no answer");
}

#[tokio::test]
async fn no_name_that_a_client_chooses_makes_a_series() {
    let server = TestServer::start().await;
    attack(&server, "mallory").await;
    let before = series(&server).await;
    assert!(before.iter().any(|name| name.contains("type=\"other\"")), "{before:#?}");
    attack(&server, "trudy").await;
    let after = series(&server).await;
    assert_eq!(after.difference(&before).collect::<Vec<_>>(), [""; 0]);
    for hostile in ["mallory", "trudy", "evil"] {
        assert!(!after.iter().any(|name| name.contains(hostile)), "{hostile}");
    }
    // Those of DNS are bounded by the values of their labels; all others are there from the start.
    let fresh = series(&TestServer::start().await).await;
    let new: Vec<_> = after.difference(&fresh).collect();
    assert!(
        !new.is_empty() && new.iter().all(|name| name.starts_with("rollcall_dns_answers_total{")),
        "{new:#?}"
    );
}
