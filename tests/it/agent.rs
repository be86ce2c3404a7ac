//! `/v1/agent`, beside services and checks: who answers, its log and metrics, reloading and leaving.

use std::fs;
use std::path::{Path, PathBuf};

use http_body_util::BodyExt;
use hyper::Request;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::server::{Answer, PATIENCE, TestServer, request};

/// The real program with a configuration file.
struct Configured {
    daemon: Daemon,
    file: PathBuf,
    dir: tempfile::TempDir,
}

impl Configured {
    fn start(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("rollcall.toml");
        fs::write(&file, text).unwrap();
        let data = dir.path().join("data");
        let daemon = Daemon::start(&data, &["--config", file.to_str().unwrap()]);
        Self { daemon, file, dir }
    }

    async fn get(&self, path: &str) -> Answer {
        request(self.daemon.http[0], "GET", path, &[], "").await
    }

    async fn put(&self, path: &str, body: impl ToString) -> Answer {
        request(self.daemon.http[0], "PUT", path, &[], &body.to_string()).await
    }
}

/// A streamed answer, read line by line.
struct Lines {
    body: hyper::body::Incoming,
    read: String,
    _connection: tokio_util::task::AbortOnDropHandle<Result<(), hyper::Error>>,
}

impl Lines {
    async fn of(server: &Configured, path: &str) -> Self {
        let stream = tokio::net::TcpStream::connect(server.daemon.http[0]).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
        let request = Request::builder().uri(path).header("host", "localhost");
        let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        Self { body: answer.into_body(), read: String::new(), _connection: connection }
    }

    /// The next line with this in it.
    async fn until(&mut self, wanted: &str) -> String {
        let whole = async {
            loop {
                while let Some((line, rest)) = self.read.split_once('\n') {
                    let (line, rest) = (line.to_owned(), rest.to_owned());
                    self.read = rest;
                    if line.contains(wanted) {
                        return line;
                    }
                }
                let frame = self.body.frame().await.expect("the stream ended").unwrap();
                self.read.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
            }
        };
        tokio::time::timeout(PATIENCE, whole).await.unwrap_or_else(|_| panic!("no line with {wanted:?}"))
    }
}

#[tokio::test]
async fn self_members_version_and_host_have_what_clients_read() {
    let server = TestServer::with(|config| {
        config.node_meta = [("rack".to_owned(), "7".to_owned())].into();
    })
    .await;
    server.register(json!({ "Name": "web", "Check": { "TTL": "1h" } })).await;
    let shown = server.get("/v1/agent/self").await.json();
    assert_eq!(
        [&shown["Config"]["NodeName"], &shown["Config"]["Datacenter"], &shown["Config"]["Server"]],
        [&json!("n1"), &json!("dc1"), &json!(true)]
    );
    assert!(shown["Config"]["Version"].as_str().unwrap().starts_with("1."));
    assert_eq!(shown["DebugConfig"]["SerfAdvertiseAddrLAN"], "tcp://127.0.0.1:8301");
    assert_eq!(
        [&shown["DebugConfig"]["ACLEnabled"], &shown["DebugConfig"]["ACLsEnabled"]],
        [&json!(false); 2]
    );
    assert_eq!(shown["DebugConfig"]["EncryptKey"], "hidden");
    assert_eq!(shown["DebugConfig"]["DNSDomain"], "internal.");
    assert_eq!([&shown["Stats"]["consul"]["server"], &shown["Stats"]["raft"]["num_peers"]], ["true", "0"]);
    assert_eq!([&shown["Stats"]["agent"]["services"], &shown["Stats"]["agent"]["checks"]], ["1", "1"]);
    assert_eq!(
        (&shown["Meta"], &shown["xDS"]["Ports"]),
        (&json!({ "rack": "7" }), &json!({ "Plaintext": -1, "TLS": -1 }))
    );
    let every_stat_is_a_text = shown["Stats"]
        .as_object()
        .unwrap()
        .values()
        .all(|of| of.as_object().unwrap().values().all(Value::is_string));
    assert!(every_stat_is_a_text, "{}", shown["Stats"]);
    let members = server.get("/v1/agent/members?wan=1").await.json();
    assert_eq!(members, json!([shown["Member"]]));
    let tags = &members[0]["Tags"];
    assert_eq!([&tags["role"], &tags["dc"], &tags["acls"], &tags["segment"]], ["consul", "dc1", "0", ""]);
    assert!(tags["build"].as_str().unwrap().contains(":rollcall-"), "{tags}");
    assert_eq!(server.get("/v1/agent/members?segment=other").await.text(), "[]");
    for (filter, count) in [
        ("Name == n1", 1),
        ("Tags[\"dc\"] == dc1 and Status == 1", 1),
        ("Tags.role == node", 0),
        ("Port != 8301", 0),
        ("x in Tags", 0),
    ] {
        let asked = filter.replace(' ', "%20").replace('"', "%22").replace(['[', ']'], "%5B");
        let asked = asked.replacen("dc%22%5B", "dc%22%5D", 1);
        let found = server.get(&format!("/v1/agent/members?filter={asked}")).await;
        assert_eq!(found.json().as_array().unwrap().len(), count, "{filter}: {}", found.text());
    }
    assert_eq!(server.get("/v1/agent/members?filter=Nope%20==%20a").await.status, 500);
    let version = server.get("/v1/agent/version").await.json();
    assert_eq!(version["HumanVersion"], shown["Config"]["Version"]);
    let host = server.get("/v1/agent/host").await.json();
    assert!(
        host["Memory"]["total"].as_u64().unwrap() > 0 && !host["CPU"].as_array().unwrap().is_empty(),
        "{host}"
    );
    assert!(
        host["CollectionTime"].as_u64().unwrap() > 0 && host["Disk"]["total"].as_u64().unwrap() > 0,
        "{host}"
    );
    assert_eq!(host["Host"]["os"], "linux");
}

#[tokio::test]
async fn metrics_come_as_consuls_json_and_as_prometheus_text() {
    let server = TestServer::start().await;
    server.register(json!({ "Name": "web" })).await;
    let shown = server.get("/v1/agent/metrics").await.json();
    let find = |list: &str, name: &str| {
        let found = shown[list].as_array().unwrap().iter().find(|one| one["Name"] == name).cloned();
        found.unwrap_or_else(|| panic!("{name}: {shown}"))
    };
    assert_eq!(find("Gauges", "rollcall.registry.instances")["Value"], 1.0);
    assert!(find("Counters", "rollcall.store.commits")["Count"].as_f64().unwrap() >= 1.0);
    assert!(find("Samples", "rollcall.http.request_duration_seconds")["Count"].as_f64().unwrap() >= 1.0);
    assert!(shown["Timestamp"].as_str().unwrap().ends_with(" +0000 UTC"));
    let text = server.get("/v1/agent/metrics?format=prometheus").await;
    assert!(text.header("content-type").starts_with("text/plain"), "{}", text.header("content-type"));
    assert!(text.text().contains("\nrollcall_registry_instances 1\n"));
}

#[tokio::test]
async fn metrics_are_streamed_a_line_each_the_first_at_once() {
    let server = Configured::start("");
    let line = Lines::of(&server, "/v1/agent/metrics/stream").await.until("Timestamp").await;
    let shown: Value = serde_json::from_str(&line).unwrap();
    assert!(!shown["Gauges"].as_array().unwrap().is_empty(), "{shown}");
}

#[tokio::test]
async fn the_log_is_followed_at_a_level_and_in_a_form_of_ones_own() {
    let server = Configured::start("");
    for (path, text) in
        [("loglevel=zz", "Unknown log level: zz"), ("logjson=maybe", "Invalid value for ?logjson")]
    {
        let answer = server.get(&format!("/v1/agent/monitor?{path}")).await;
        assert_eq!((answer.status, answer.text().as_str()), (400, text));
    }
    let mut text = Lines::of(&server, "/v1/agent/monitor").await;
    let mut json = Lines::of(&server, "/v1/agent/monitor?loglevel=debug&logjson=true").await;
    let mut errors = Lines::of(&server, "/v1/agent/monitor?loglevel=err").await;
    // One that never reads keeps nobody waiting, and nothing of it grows without end.
    let _silent = Lines::of(&server, "/v1/agent/monitor?loglevel=trace").await;
    for number in 0..300 {
        let body = json!({ "Name": format!("a b {number}") });
        assert_eq!(server.put("/v1/agent/service/register", body).await.status, 200);
    }
    let line = text.until("a b 299").await;
    assert!(line.contains("Z [WARN]  rollcall.http.route: service name"), "{line}");
    let line: Value = serde_json::from_str(&json.until("a b 299").await).unwrap();
    assert_eq!((&line["@level"], &line["@module"]), (&json!("warn"), &json!("rollcall.http.route")));
    // Somebody wants debug lines, and only they get them: every connection that is cut is one.
    let refused = server.put("/v1/agent/reload", "").await;
    assert_eq!((refused.status, refused.text().as_str()), (200, ""));
    fs::write(&server.file, "nonsense\n").unwrap();
    assert_eq!(server.put("/v1/agent/reload", "").await.status, 500);
    let line = errors.until("not reloaded").await;
    assert!(line.contains("[ERROR] rollcall.cli.serve: "), "{line}");
}

#[tokio::test]
async fn who_may_follow_the_log_is_limited_and_places_come_back() {
    let server = Configured::start("[limits]\nmonitors_max = 1\n");
    let first = Lines::of(&server, "/v1/agent/monitor").await;
    let second = server.get("/v1/agent/monitor").await;
    assert_eq!(
        (second.status, second.text().contains("[limits] monitors_max")),
        (429, true),
        "{}",
        second.text()
    );
    let metrics = server.get("/metrics").await.text();
    assert!(metrics.contains("rollcall_limit_hits_total{limit=\"monitors_max\"} 1"), "{metrics}");
    drop(first);
    let freed = async {
        while request(server.daemon.http[0], "HEAD", "/v1/agent/monitor", &[], "").await.status != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, freed).await.expect("the place does not come back");
}

#[tokio::test]
async fn a_reload_over_http_is_as_one_by_signal_all_or_nothing() {
    let server = Configured::start("[[service]]\nname = \"db\"\nport = 1\n");
    let port = async || server.get("/v1/catalog/service/db").await.json()[0]["ServicePort"].clone();
    fs::write(&server.file, "datacenter = \"dc9\"\n[[service]]\nname = \"db\"\nport = 2\n").unwrap();
    let answer = server.put("/v1/agent/reload", "").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, ""));
    let warning = answer.header("x-rollcall-warning");
    assert_eq!(warning, "these keys differ and wait for the next start: datacenter");
    assert_eq!(port().await, 2);
    fs::write(&server.file, "[[service]]\nname = \"db\"\nport = 70000\n[dns]\nttl = 7\n").unwrap();
    let answer = server.put("/v1/agent/reload", "").await;
    let said = answer.text();
    assert_eq!((answer.status, said.contains("nothing was changed")), (500, true), "{said}");
    assert!(said.contains("rollcall.toml:1: [[service]]: ") && said.contains("[dns] ttl: "), "{said}");
    assert_eq!(port().await, 2);
    assert_eq!(server.get("/v1/agent/reload").await.status, 405);
}

#[tokio::test]
async fn leaving_ends_the_process_cleanly_with_all_that_was_acknowledged() {
    let mut server = Configured::start("");
    assert_eq!(server.put("/v1/agent/service/register", json!({ "Name": "kept" })).await.status, 200);
    let left = server.put("/v1/agent/leave", "").await;
    assert_eq!((left.status, left.text().as_str()), (200, ""));
    let child = &mut server.daemon.child;
    let ended = async {
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let status = tokio::time::timeout(PATIENCE, ended).await.expect("it does not end");
    assert_eq!(status.code(), Some(0));
    let again = Daemon::start(Path::new(&server.dir.path().join("data")), &[]);
    let services = request(again.http[0], "GET", "/v1/agent/services", &[], "").await.json();
    assert_eq!(services["kept"]["Service"], "kept");
}

#[tokio::test]
async fn force_leave_takes_failed_nodes_out_and_others_with_prune() {
    let server = TestServer::start().await;
    for (node, status) in [("failed", "critical"), ("alive", "passing")] {
        let body = json!({ "Node": node, "Address": "192.0.2.1", "Service": { "Service": "web", "ID": node },
            "Check": { "CheckID": "ping", "Name": "ping", "Status": status } });
        assert_eq!(server.put("/v1/catalog/register", body).await.text(), "true");
    }
    let nodes = async || {
        let nodes = server.get("/v1/catalog/nodes").await.json();
        nodes
            .as_array()
            .unwrap()
            .iter()
            .map(|node| node["Node"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    for node in ["nope", "", "a%00b"] {
        let answer = server.put(&format!("/v1/agent/force-leave/{node}?prune"), "").await;
        assert_eq!(answer.status, 500, "{node}");
        assert!(answer.text().starts_with("agent: No node found with name '"), "{}", answer.text());
    }
    for (path, left) in [
        ("alive", vec!["alive", "failed", "n1"]),
        ("FAILED", vec!["alive", "n1"]),
        ("n1?prune", vec!["alive", "n1"]),
        ("alive?prune=maybe", vec!["alive", "n1"]),
        ("alive?prune", vec!["n1"]),
    ] {
        let answer = server.put(&format!("/v1/agent/force-leave/{path}"), "").await;
        assert_eq!(answer.status, if path.contains("maybe") { 400 } else { 200 }, "{}", answer.text());
        assert_eq!(nodes().await, left, "{path}");
    }
    assert_eq!(server.get("/v1/catalog/service/web").await.text(), "[]");
}

#[tokio::test]
async fn an_empty_check_id_is_one_that_is_not_there() {
    let server = TestServer::start().await;
    for what in ["deregister", "pass", "warn", "fail"] {
        let answer = server.put(&format!("/v1/agent/check/{what}/"), "").await;
        let text = "Unknown check ID \"\". Ensure that the check ID is passed, not the check name.";
        assert_eq!((answer.status, answer.text().as_str()), (404, text), "{what}");
    }
    let answer = server.put("/v1/agent/check/update/", json!({ "Status": "passing" })).await;
    assert_eq!(answer.status, 404, "{}", answer.text());
}
