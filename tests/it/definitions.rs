//! Definitions in a configuration directory: ours in TOML, Consul's in JSON, together.

use std::fs;
use std::path::Path;

use hickory_proto::rr::RecordType;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::daemon::{Daemon, run};
use crate::server::{Answer, ask, query, request};

struct Served {
    daemon: Daemon,
    dir: tempfile::TempDir,
}

impl Served {
    fn start(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let served = dir.path().join("consul.d");
        fs::create_dir(&served).unwrap();
        files.iter().for_each(|(name, text)| fs::write(served.join(name), text).unwrap());
        let daemon = Daemon::start(&dir.path().join("data"), &["--config", served.to_str().unwrap()]);
        Self { daemon, dir }
    }

    fn folder(&self) -> std::path::PathBuf {
        self.dir.path().join("consul.d")
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder().join(name), text).unwrap();
    }

    async fn put(&self, path: &str, body: &str) -> Answer {
        request(self.daemon.http[0], "PUT", path, &[], body).await
    }

    async fn get(&self, path: &str) -> Value {
        request(self.daemon.http[0], "GET", path, &[], "").await.json()
    }

    async fn ports(&self, service: &str) -> Vec<u64> {
        let found = self.get(&format!("/v1/catalog/service/{service}")).await;
        found.as_array().unwrap().iter().map(|entry| entry["ServicePort"].as_u64().unwrap()).collect()
    }
}

const OURS: &str = "[[service]]\nname = \"db\"\nport = 5432\n[dns]\nttl = \"3s\"\n";
const CONSULS: &str = r#"{"server": true, "data_dir": "/opt/consul",
    "services": [{"ID": "w1", "Name": "web", "Port": 80, "checks": [{"ttl": "1h", "status": "passing"}]},
        {"id": "w2", "name": "web", "port": 81}]}"#;
const CHECKS: &str = "[[check]]\nname = \"disk\"\nttl = \"1h\"\nstatus = \"passing\"\n\
    [[checks]]\nid = \"beat\"\nname = \"beat\"\nservice_id = \"w2\"\nttl = \"1h\"\n";

#[tokio::test]
async fn toml_and_consuls_json_are_one_and_the_files_own_what_they_define() {
    let served =
        Served::start(&[("10-ours.toml", OURS), ("20-web.json", CONSULS), ("30-checks.toml", CHECKS)]);
    assert_eq!((served.ports("db").await, served.ports("web").await), (vec![5432], vec![80, 81]));
    let answer = ask(served.daemon.dns[0], &query("web.service.consul.", RecordType::SRV)).await;
    assert_eq!(answer.answers.len(), 1, "w2's check has not passed yet");
    assert_eq!(answer.answers[0].ttl, 3);
    let node = served.get("/v1/health/node/n1").await;
    let ids: Vec<_> =
        node.as_array().unwrap().iter().map(|check| check["CheckID"].as_str().unwrap()).collect();
    assert!(ids.contains(&"disk") && ids.contains(&"beat"), "{ids:?}");
    assert_eq!(served.put("/v1/agent/check/pass/beat", "").await.status, 200);
    let answer = ask(served.daemon.dns[0], &query("web.service.consul.", RecordType::SRV)).await;
    assert_eq!(answer.answers.len(), 2);
    for path in [
        "/v1/agent/service/deregister/w1",
        "/v1/agent/check/deregister/disk",
        "/v1/agent/check/deregister/beat",
    ] {
        let refused = served.put(path, "").await;
        assert!(
            refused.status == 409 && refused.text().contains("configuration file"),
            "{path}: {}",
            refused.text()
        );
    }
    let body = json!({"Node": "n1", "ServiceID": "w1"}).to_string();
    assert_eq!(served.put("/v1/catalog/deregister", &body).await.status, 409);
    // An export has them, and an import leaves them to their file.
    let export = request(served.daemon.http[0], "GET", "/v1/rollcall/export", &[], "").await.text();
    let report = served.put("/v1/rollcall/import", &export).await.json();
    assert_eq!((&report["FileOwned"], &report["Refused"]), (&json!(6), &json!([])), "{report}");
}

#[tokio::test]
async fn a_reload_takes_all_files_or_none() {
    let served =
        Served::start(&[("10-ours.toml", OURS), ("20-web.json", CONSULS), ("30-checks.toml", CHECKS)]);
    served.write("20-web.json", r#"{"service": {"name": "web", "id": "w2", "port": 82}}"#);
    served.write("40-more.json", r#"{"service": {"name": "more", "port": "x"}}"#);
    let refused = served.put("/v1/agent/reload", "").await;
    assert!(
        refused.status >= 400 && refused.text().contains("40-more.json:1: [[service]]: "),
        "{}",
        refused.text()
    );
    assert_eq!(served.ports("web").await, [80, 81]);
    served.write("40-more.json", r#"{"service": {"name": "more", "port": 9}}"#);
    let taken = served.put("/v1/agent/reload", "").await;
    assert_eq!(taken.status, 200, "{}", taken.text());
    assert_eq!((served.ports("web").await, served.ports("more").await), (vec![82], vec![9]));
    let past = served.get("/v1/rollcall/history/more").await;
    assert_eq!(
        (&past["Changes"][0]["Cause"], &past["Changes"][0]["Actor"]),
        (&json!("reload"), &json!("rollcall"))
    );
    fs::remove_file(served.folder().join("30-checks.toml")).unwrap();
    assert_eq!(served.put("/v1/agent/reload", "").await.status, 200);
    let node = served.get("/v1/health/node/n1").await;
    let ids: Vec<_> =
        node.as_array().unwrap().iter().map(|check| check["CheckID"].as_str().unwrap()).collect();
    assert_eq!(ids, ["serfHealth"], "checks that left the files are gone");
}

fn checked(folder: &Path) -> (Option<i32>, String) {
    let output = run(&["check-config", folder.to_str().unwrap()]);
    (output.status.code(), String::from_utf8_lossy(&output.stdout).replace(folder.to_str().unwrap(), "DIR"))
}

#[test]
fn check_config_tells_all_errors_of_a_directory_and_both_places_of_an_id() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    write("a.toml", "[[service]]\nname = \"db\"\n");
    write(
        "b.json",
        "{\"services\": [\n{\"name\": \"web\"},\n{\"name\": \"db\"}],\n\"check\": {\"name\": \"x\", \"ttl\": \"1s\"}}",
    );
    write(
        "c.toml",
        "[[check]]\nname = \"x\"\nttl = \"1s\"\n[[services]]\nname = \"c\"\n[[services.checks]]\nid = \"x\"\nttl = \"1s\"\n",
    );
    write("d.json", "{\n\"acl\": {\"enabled\": true},\n\"server\": true, \"ui\": true}");
    write("notes.txt", "not read");
    let (status, said) = checked(dir.path());
    assert_eq!(status, Some(1));
    let expected = [
        "warning: DIR/d.json: keys of Consul's agent are passed over: server, ui",
        "DIR/b.json:3: [[services]]: the service id \"db\" is taken already, at DIR/a.toml:1",
        "DIR/b.json:4: [[check]]: the check id \"x\" is taken already, at DIR/c.toml:4",
        "DIR/c.toml:1: [[check]]: the check id \"x\" is taken already, at DIR/c.toml:4",
    ];
    for line in expected {
        assert!(said.lines().any(|own| own == line), "{line:?} is not in {said}");
    }
    assert!(said.contains("DIR/d.json:2: acl is Consul's and not taken"), "{said}");
    assert_eq!(said.lines().count(), 5, "{said}");
    write("e.hcl", "service { name = \"x\" }");
    assert!(checked(dir.path()).1.contains("DIR/e.hcl: HCL is not read"));
    for name in ["b.json", "c.toml", "d.json", "e.hcl"] {
        fs::remove_file(dir.path().join(name)).unwrap();
    }
    assert_eq!(checked(dir.path()), (Some(0), "Configuration is valid!\n".to_owned()));
}

/// A guard that judged the instances of a file before they were there would find none.
#[tokio::test]
async fn a_routes_guard_survives_a_restart_of_a_service_that_a_file_defines() {
    let text = "[[service]]\nname = \"web\"\nid = \"b\"\ntags = [\"blue\"]\n[[service]]\nname = \"web\"\nid = \"g\"\ntags = [\"green\"]\n";
    let Served { daemon, dir } = Served::start(&[("web.toml", text)]);
    const ROUTE: &str = "/v1/rollcall/route/web";
    let put = async |http, body: Value| request(http, "PUT", ROUTE, &[], &body.to_string()).await.status;
    assert_eq!(put(daemon.http[0], json!({ "Subsets": ["blue=1"] })).await, 200);
    let guarded = json!({ "Subsets": ["green=1000000"], "Over": "1h", "AbortIfUnhealthy": "20%" });
    assert_eq!(put(daemon.http[0], guarded).await, 200);
    assert!(daemon.end(Signal::SIGTERM).success());
    let (served, data) = (dir.path().join("consul.d"), dir.path().join("data"));
    let daemon = Daemon::start(&data, &["--config", served.to_str().unwrap()]);
    let get = async |index: u64| {
        let path = format!("{ROUTE}?index={index}&wait=20s");
        request(daemon.http[0], "GET", &path, &[], "").await
    };
    // Its steps show that it was looked at since.
    let mut answer = get(0).await;
    for _ in 0..2 {
        answer = get(answer.index()).await;
    }
    let route = answer.json();
    assert_eq!((&route["Version"], &route["Why"]), (&json!(2), &json!("set")), "{route:#}");
}
