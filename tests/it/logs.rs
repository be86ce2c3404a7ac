//! The server's own log lines: the form that programs read, ids of requests, the level while it runs, and no secret in any of it.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::ChildStderr;

use hickory_proto::rr::RecordType;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::daemon::{Daemon, run};
use crate::server::{TestServer, query, request};

/// A server with `[telemetry]` keys, what it wrote so far, and the folder of its file.
struct Logging {
    daemon: Daemon,
    errors: BufReader<ChildStderr>,
    dir: tempfile::TempDir,
}

impl Logging {
    fn start(keys: &str, rest: &str, more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("rollcall.toml");
        std::fs::write(&file, format!("[telemetry]\n{keys}\n{rest}")).unwrap();
        let data = dir.path().join("data");
        let ports = ["--dns", "127.0.0.1:0", "--http", "127.0.0.1:0", "--node", "n1"];
        let own = ["--data-dir", data.to_str().unwrap(), "--config", file.to_str().unwrap()];
        let (daemon, errors) = Daemon::with_errors(&[&ports[..], &own, more].concat());
        Self { daemon, errors: BufReader::new(errors), dir }
    }

    /// Reads on until a line has this in it.
    fn until(&mut self, part: &str) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.errors.read_line(&mut line).unwrap(), 0, "no line with {part}");
            if line.contains(part) {
                return line;
            }
        }
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> u16 {
        request(self.daemon.http[0], method, path, headers, body).await.status
    }

    /// Ends it; all that was not read yet.
    fn rest(mut self) -> String {
        self.daemon.signal(Signal::SIGTERM);
        let mut rest = String::new();
        self.errors.read_to_string(&mut rest).unwrap();
        rest
    }
}

const REQUESTS: &str = "log_format = \"json\"\nlog_level = \"info,rollcall::http::request_log=debug\"";

#[tokio::test]
async fn lines_are_objects_with_the_schemas_names_and_the_requests_id() {
    let mut server = Logging::start(REQUESTS, "", &[]);
    let registered = json!({ "Name": "web", "ID": "web\nid", "Tags": ["a.b"] }).to_string();
    let id = [("x-request-id", "from-the-client")];
    assert_eq!(server.ask("PUT", "/v1/agent/service/register?x=1", &id, &registered).await, 400);
    let line: Value = serde_json::from_str(&server.until("/v1/agent/service/register")).unwrap();
    for (name, wanted) in [
        ("log.level", json!("debug")),
        ("message", json!("request")),
        ("ecs.version", json!("8.11.0")),
        ("log.logger", json!("rollcall::http::request_log")),
        ("event.dataset", json!("rollcall.log")),
        ("service.name", json!("rollcall")),
        ("service.node.name", json!("n1")),
        ("process.pid", json!(server.daemon.child.id())),
        ("http.request.id", json!("from-the-client")),
        ("http.request.method", json!("PUT")),
        ("url.path", json!("/v1/agent/service/register")),
        ("url.query", json!("x=1")),
        ("http.response.status_code", json!(400)),
        ("client.address", json!("127.0.0.1")),
    ] {
        assert_eq!(line[name], wanted, "{name} in {line}");
    }
    assert!(line["event.duration"].as_u64().unwrap() > 0 && line["client.port"].as_u64().unwrap() > 0);
    // Every line of it is one object that begins with a time.
    for line in server.rest().lines() {
        assert!(line.starts_with("{\"@timestamp\":\"2"), "{line}");
        serde_json::from_str::<Value>(line).unwrap();
    }
}

#[tokio::test]
async fn every_answer_has_the_requests_id_the_clients_or_one_of_ours() {
    let server = TestServer::start().await;
    let ask = async |path: &str, id: &str| {
        let headers = [("x-request-id", id)];
        let headers = if id.is_empty() { &headers[..0] } else { &headers[..] };
        let answer = request(server.http(), "GET", path, headers, "").await;
        answer.header("x-request-id").to_owned()
    };
    let ours = |id: &str| id.len() == 32 && id.bytes().all(|octet| octet.is_ascii_hexdigit());
    assert_eq!(ask("/v1/catalog/nodes", "abc-123").await, "abc-123");
    assert_eq!(ask("/nowhere", "abc-123").await, "abc-123", "of what fails, too");
    let (one, other) = (ask("/health", "").await, ask("/health", "").await);
    assert!(ours(&one) && ours(&other) && one != other, "{one} {other}");
    for bad in ["a b", "a,b", &"x".repeat(200)] {
        let answered = ask("/health", bad).await;
        assert!(ours(&answered), "{bad:?}: {answered}");
    }
}

#[tokio::test]
async fn the_level_changes_while_it_runs() {
    let mut server = Logging::start("log_format = \"json\"", "", &[]);
    let address = server.daemon.http[0].to_string();
    let level = |words: &[&str]| run(&[&["log-level", "--server", &address][..], words].concat());
    let shown = level(&[]);
    assert_eq!(String::from_utf8_lossy(&shown.stdout), "info\n", "{shown:?}");
    server.ask("GET", "/v1/catalog/nodes?before", &[], "").await;
    let set = level(&["info,rollcall::http::request_log=debug"]);
    assert_eq!(String::from_utf8_lossy(&set.stdout), "info,rollcall::http::request_log=debug\n", "{set:?}");
    server.ask("GET", "/v1/catalog/nodes?after", &[], "").await;
    let line = server.until("/v1/catalog/nodes");
    assert!(line.contains("\"after\"") && !line.contains("before"), "{line}");
    for bad in ["", "?level=x%3D%3D1", "?level=warning", "?level=info,bogus"] {
        assert_eq!(server.ask("PUT", &format!("/v1/rollcall/log-level{bad}"), &[], "").await, 400, "{bad}");
    }
    // A level that is none would be the end of the log.
    for words in [&["log-level", "warning"][..], &["serve", "--log-level", "warning"]] {
        let refused = run(words);
        let why = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && why.contains("is not a log level: error, warn, info"), "{why}");
    }
    // A reload gives the file its say again.
    server.daemon.signal(Signal::SIGHUP);
    server.until("reloaded");
    server.ask("GET", "/v1/catalog/nodes?last", &[], "").await;
    assert!(!server.rest().contains("\"last\""));
}

#[tokio::test]
async fn a_warning_that_comes_again_and_again_is_one_line_and_a_count() {
    let server = Logging::start("log_format = \"json\"", "", &[]);
    let registered = json!({ "Name": "not.a.label", "ID": "w" }).to_string();
    const TIMES: usize = 50;
    for _ in 0..TIMES {
        assert_eq!(server.ask("PUT", "/v1/agent/service/register", &[], &registered).await, 200);
    }
    let text = server.rest();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let warnings: Vec<_> = lines.iter().filter(|line| line["log.level"] == "warn").collect();
    let count = |line: &Value| line["rollcall.repeated"].as_u64();
    let told: u64 = warnings.iter().filter_map(|line| count(line)).sum();
    let written = warnings.iter().filter(|line| count(line).is_none()).count();
    assert_eq!((written, told), (1, TIMES as u64 - 1), "{text}");
}

/// Everything is logged, tokens stand in headers, queries and bodies, and none of them in the log.
#[tokio::test]
async fn no_secret_is_in_a_log_of_everything() {
    // Somebody whom probes reach, so that what they send would be seen.
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://user:s3cret-url@{}/", target.local_addr().unwrap());
    let acl = "[acl]\nenabled = true\ninitial_management = \"s3cret-of-the-file\"\n[forward]\n";
    let server = Logging::start("log_format = \"json\"\nlog_level = \"trace\"", acl, &[]);
    let management = [("x-consul-token", "s3cret-of-the-file")];
    let bearer = [("authorization", "Bearer s3cret-of-the-file")];
    let wrong = [("x-consul-token", "s3cret-unknown"), ("cookie", "s3cret-cookie")];
    let check = json!({ "Name": "web", "Check": {
        "HTTP": url, "Interval": "10s", "Method": "POST", "Body": "s3cret-body",
        "Header": { "Authorization": ["s3cret-header"] },
    }});
    let grpc = json!({ "Name": "rpc", "Check": { "GRPC": target.local_addr().unwrap().to_string(), "Interval": "10s" } });
    let token = json!({ "SecretID": "5ec4e700-0000-4000-8000-5ec4e75ec4e7", "Description": "d" });
    let prepared = json!({ "Name": "q", "Token": "s3cret-of-query", "Service": { "Service": "web" } });
    let login = json!({ "AuthMethod": "none", "BearerToken": "s3cret-jwt" });
    let own = json!({ "Token": "s3cret-own" });
    for (method, path, headers, body, status) in [
        ("PUT", "/v1/agent/service/register", &management[..], check.to_string(), 200),
        ("PUT", "/v1/agent/service/register", &bearer, grpc.to_string(), 200),
        ("PUT", "/v1/acl/token", &management, token.to_string(), 200),
        ("POST", "/v1/query", &management, prepared.to_string(), 200),
        ("PUT", "/v1/agent/token/dns", &management, own.to_string(), 200),
        ("POST", "/v1/acl/login", &[], login.to_string(), 403),
        ("GET", "/v1/agent/self?token=s3cret-of-the-file", &[], String::new(), 200),
        ("GET", "/v1/agent/self", &wrong, String::new(), 403),
        ("GET", "/v1/acl/tokens", &management, String::new(), 200),
        ("PUT", "/v1/agent/service/register", &management, "{\"s3cret-key\":".to_owned(), 400),
    ] {
        let answered = server.ask(method, path, headers, &body).await;
        assert_eq!(answered, status, "{method} {path}");
    }
    let dns = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    dns.send_to(&query("web.service.consul.", RecordType::A).to_vec().unwrap(), server.daemon.dns[0])
        .await
        .unwrap();
    dns.recv(&mut [0; 512]).await.unwrap();
    // Both probes have come.
    for _ in 0..2 {
        let (mut stream, _) = target.accept().unwrap();
        stream.read_exact(&mut [0; 16]).unwrap();
    }
    let dir = server.dir.path().to_owned();
    let text = server.rest();
    assert!(text.contains("\"trace\"") && text.contains("web.service.consul.") && !dir.exists());
    for line in text.lines() {
        assert!(!line.contains("s3cret") && !line.contains("5ec4e75ec4e7"), "{line}");
    }
}
