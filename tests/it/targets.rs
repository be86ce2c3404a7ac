//! Where probes may not connect to: no kind of check, spelling, name or redirect leads there.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::server::TestServer;

/// An address of loopback that stands for what is secret, with everything listening that a probe could reach.
struct Secret {
    tcp: TcpListener,
    udp: UdpSocket,
    address: SocketAddr,
}

impl Secret {
    fn new() -> Self {
        let tcp = TcpListener::bind("127.0.0.9:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(address).unwrap();
        tcp.set_nonblocking(true).unwrap();
        udp.set_nonblocking(true).unwrap();
        Self { tcp, udp, address }
    }

    /// Nobody has connected, and nothing has come.
    fn is_untouched(&self) -> bool {
        let would_wait = |error: std::io::Error| error.kind() == ErrorKind::WouldBlock;
        self.tcp.accept().is_err_and(would_wait) && self.udp.recv(&mut [0; 1]).is_err_and(would_wait)
    }
}

async fn output(server: &TestServer, service: &str, status: &str) -> String {
    let wanted = |found: &Value| {
        let checks = found[0]["Checks"].as_array().cloned().unwrap_or_default();
        checks.iter().any(|check| {
            check["ServiceName"] == service && check["Status"] == status && check["Output"] != ""
        })
    };
    let found = server.until(service, wanted).await;
    let checks = found[0]["Checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["ServiceName"] == service).unwrap();
    check["Output"].as_str().unwrap().to_owned()
}

/// Registers a check that is going to change to `to`: a new output alone wakes nobody.
async fn register(server: &TestServer, name: &str, to: &str, mut check: Value) {
    check["Status"] = json!(if to == "critical" { "passing" } else { "critical" });
    check["Interval"] = json!("10m");
    check["Timeout"] = json!("10s");
    server.register(json!({ "Name": name, "Check": check })).await;
}

const METRIC: &str = "rollcall_checks_unmade_total{reason=\"denied target\"}";

#[tokio::test]
async fn a_denied_target_is_critical_and_never_touched_whatever_leads_there() {
    let secret = Secret::new();
    let denying = TestServer::with(|config| {
        config.checks.targets.deny = vec!["127.0.0.9/32".parse().unwrap()];
    });
    let (server, port) = (denying.await, secret.address.port());
    let http = |host: &str| json!({ "HTTP": format!("http://{host}:{port}/") });
    let cases = [
        http("127.0.0.9"),
        http("2130706441"),
        http("0177.0.0.011"),
        http("0x7f.0.0.9"),
        http("0x7f000009"),
        http("127.9"),
        http("[::ffff:127.0.0.9]"),
        http("[::ffff:7f00:9]"),
        json!({ "HTTP": format!("https://127.0.0.9:{port}/"), "TLSSkipVerify": true }),
        json!({ "TCP": format!("127.0.0.9:{port}") }),
        json!({ "TCP": format!("[::ffff:127.0.0.9]:{port}") }),
        json!({ "TCP": format!("2130706441:{port}") }),
        json!({ "TCP": format!("0x7f000009:{port}") }),
        json!({ "TCP": format!("0177.0.0.011:{port}") }),
        json!({ "UDP": format!("127.0.0.9:{port}") }),
        json!({ "GRPC": format!("127.0.0.9:{port}") }),
        json!({ "GRPC": format!("127.0.0.9:{port}/service"), "GRPCUseTLS": true, "TLSSkipVerify": true }),
        json!({ "H2PING": format!("127.0.0.9:{port}"), "H2PingUseTLS": false }),
    ];
    for (number, check) in cases.iter().enumerate() {
        register(&server, &format!("s{number}"), "critical", check.clone()).await;
    }
    for (number, check) in cases.iter().enumerate() {
        let text = output(&server, &format!("s{number}"), "critical").await;
        assert!(
            text.contains("127.0.0.9 is in 127.0.0.9/32, which [checks] deny_targets names"),
            "{check}: {text}"
        );
    }
    assert!(secret.is_untouched());
    assert!(server.metric(METRIC).await >= cases.len() as f64);

    // The same without the key reaches it.
    let open = TestServer::start().await;
    register(&open, "web", "passing", json!({ "TCP": format!("127.0.0.9:{port}") })).await;
    assert!(output(&open, "web", "passing").await.contains("Success"));
    assert!(!secret.is_untouched());
}

#[tokio::test]
async fn a_redirect_leads_no_further_than_a_check() {
    let secret = Secret::new();
    let server =
        TestServer::with(|config| config.checks.targets.deny = vec!["127.0.0.9/32".parse().unwrap()]).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let from = listener.local_addr().unwrap();
    let location = format!("http://2130706441:{}/latest/meta-data/", secret.address.port());
    let redirecting = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 2048]).await;
            let answer = format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    register(&server, "web", "critical", json!({ "HTTP": format!("http://{from}/") })).await;
    let text = output(&server, "web", "critical").await;
    assert!(text.contains("127.0.0.9/32") && text.contains("deny_targets"), "{text}");
    assert!(secret.is_untouched());
    redirecting.abort();
}

#[tokio::test]
async fn metadata_is_denied_by_default_and_an_allow_list_denies_the_rest() {
    let server = TestServer::start().await;
    for (name, check) in [
        ("a", json!({ "HTTP": "http://169.254.169.254/latest/meta-data/iam/security-credentials/" })),
        ("b", json!({ "TCP": "[fe80::1%lo]:80" })),
        ("c", json!({ "UDP": "[fd00:ec2::254]:53" })),
        ("d", json!({ "TCP": "[64:ff9b::a9fe:a9fe]:80" })),
        ("e", json!({ "HTTP": "http://0xa9fea9fe/" })),
        ("f", json!({ "H2PING": "100.100.100.200:80" })),
    ] {
        register(&server, name, "critical", check).await;
        let text = output(&server, name, "critical").await;
        assert!(text.contains("where clouds keep credentials; [checks] allow_targets can name it"), "{text}");
    }
    let program = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let narrow =
        TestServer::with(|config| config.checks.targets.allow = vec!["127.0.0.1/32".parse().unwrap()]);
    let narrow = narrow.await;
    register(&narrow, "in", "passing", json!({ "TCP": program.local_addr().unwrap().to_string() })).await;
    register(&narrow, "out", "critical", json!({ "TCP": "127.0.0.2:9" })).await;
    assert!(output(&narrow, "in", "passing").await.contains("Success"));
    let text = output(&narrow, "out", "critical").await;
    assert!(text.contains("127.0.0.2 is in none of the ranges that [checks] allow_targets names"), "{text}");
}
