//! The log of requests and queries: nothing unless asked for, and never a secret.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};

use hickory_proto::rr::RecordType;
use nix::sys::signal::Signal;

use super::daemon::Daemon;
use super::wire;

/// What a server with this log level wrote to standard error while it was asked two questions.
fn logged(level: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("log.toml");
    std::fs::write(&config, format!("[telemetry]\nlog_level = \"{level}\"\nlog_format = \"json\"\n"))
        .unwrap();
    let config = config.to_str().unwrap();
    let words =
        ["--ephemeral", "--dns", "127.0.0.1:0", "--http", "127.0.0.1:0", "--node", "n1", "--config", config];
    let (daemon, mut errors) = Daemon::with_errors(&words);
    let dns = UdpSocket::bind("127.0.0.1:0").unwrap();
    dns.send_to(&wire::query("Web.service.consul.", RecordType::SRV), daemon.dns[0]).unwrap();
    dns.recv(&mut [0; 512]).unwrap();
    let mut dns = TcpStream::connect(daemon.dns[0]).unwrap();
    dns.write_all(&wire::framed(&wire::query("tcp.service.consul.", RecordType::A))).unwrap();
    dns.read_exact(&mut [0; 2]).unwrap();
    get(daemon.http[0], "/v1/catalog/services?token=s3cret&stale");
    get(daemon.http[0], "/v1/acl/token/s3cret");
    daemon.end(Signal::SIGTERM);
    let mut text = String::new();
    errors.read_to_string(&mut text).unwrap();
    text
}

fn get(address: SocketAddr, path: &str) {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: probe/1\r\nX-Consul-Token: s3cret\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
}

fn line<'a>(text: &'a str, part: &str) -> &'a str {
    text.lines().find(|line| line.contains(part)).unwrap_or_else(|| panic!("no {part} in {text}"))
}

#[test]
fn a_request_and_a_query_leave_a_line_each_without_a_secret() {
    let text = logged("info,rollcall::http::request_log=debug,rollcall::dns::query_log=trace");
    assert!(!text.contains("s3cret"), "{text}");
    let request = line(&text, "/v1/catalog/services");
    for part in [
        r#""http.request.method":"GET""#,
        r#""url.query":"token=(hidden)&stale""#,
        r#""http.response.status_code":200"#,
        r#""user_agent.original":"probe/1""#,
        r#""client.address":"127.0.0.1""#,
    ] {
        assert!(request.contains(part), "{part} in {request}");
    }
    line(&text, "/v1/acl/token/(hidden)");
    let query = line(&text, "Web.service.consul.");
    assert!(
        query.contains(r#""dns.question.type":"SRV""#) && query.contains(r#""network.transport":"udp""#),
        "{query}"
    );
    assert!(line(&text, "tcp.service.consul.").contains(r#""network.transport":"tcp""#));
}

#[test]
fn nothing_is_logged_unless_asked_for() {
    let text = logged("info");
    assert!(!text.contains("/v1/catalog/services") && !text.contains("service.consul"), "{text}");
}
