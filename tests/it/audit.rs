//! The audit log of a real server: each change has a line with who, what, before, after and what came of it; so has what was refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::server::{PATIENCE, request};

/// A server with an audit log.
struct Audited {
    daemon: Daemon,
    dir: tempfile::TempDir,
    log: PathBuf,
}

const MANAGEMENT: &str = "5ec4e700-0000-4000-8000-5ec4e75ec4e7";

impl Audited {
    fn start(keys: &str, rest: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("audit.log");
        Self::on(dir, &log, keys, rest)
    }

    fn on(dir: tempfile::TempDir, log: &std::path::Path, keys: &str, rest: &str) -> Self {
        let file = dir.path().join("rollcall.toml");
        fs::write(&file, format!("[audit]\nfile = {:?}\n{keys}\n{rest}", log.to_str().unwrap())).unwrap();
        let daemon = Daemon::start(&dir.path().join("data"), &["--config", file.to_str().unwrap()]);
        Self { daemon, dir, log: log.to_owned() }
    }

    async fn ask(&self, method: &str, path: &str, token: &str, body: impl ToString) -> u16 {
        let headers = [("x-consul-token", token), ("x-request-id", path)];
        let headers = if token.is_empty() { &headers[1..] } else { &headers[..] };
        request(self.daemon.http[0], method, path, headers, &body.to_string()).await.status
    }

    fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        // The last one may be under way.
        text.split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    }

    /// Waits until a line is as wanted.
    async fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let looking = async {
            loop {
                if let Some(line) = self.lines().into_iter().find(&wanted) {
                    return line;
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, looking).await;
        found.unwrap_or_else(|_| panic!("no line {what} in {:#?}", self.lines()))
    }

    /// Ends it; all of the log.
    fn end(self) -> Vec<Value> {
        let Self { daemon, dir, log } = self;
        assert!(daemon.end(Signal::SIGTERM).success());
        let text = fs::read_to_string(&log).unwrap();
        drop(dir);
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn of<'a>(lines: &'a [Value], action: &str, kind: &str) -> Vec<&'a Value> {
    let is = |line: &&Value| line["event.action"] == action && line["rollcall.object.kind"] == kind;
    lines.iter().filter(is).collect()
}

#[tokio::test]
async fn a_circuit_that_turns_has_a_line() {
    let server = Audited::start("", "[breaker]\nout = \"200ms\"\n");
    for n in 1..=2 {
        let web = json!({ "Name": "web", "ID": format!("w{n}"), "Port": n });
        assert_eq!(server.ask("PUT", "/v1/agent/service/register", "", web).await, 200);
    }
    let report = json!({ "Reports": [{ "Service": "web", "ID": "w1", "Failure": 10 }] });
    assert_eq!(server.ask("PUT", "/v1/rollcall/report", "", report).await, 200);
    server.until("of its own time", |line| line["event.action"] == "breaker").await;
    let lines = server.end();
    let [opened, tried] = [of(&lines, "report", "instance"), of(&lines, "breaker", "instance")];
    assert_eq!((opened.len(), tried.len()), (1, 1), "{lines:#?}");
    assert_eq!(opened[0]["rollcall.object.id"], "n1/w1");
    let circuit = |line: &Value| (line["rollcall.before"].clone(), line["rollcall.after"].clone());
    assert_eq!(circuit(opened[0]), (json!({ "circuit": "closed" }), json!({ "circuit": "open" })));
    assert_eq!(circuit(tried[0]), (json!({ "circuit": "open" }), json!({ "circuit": "half-open" })));
}

#[tokio::test]
async fn a_change_of_the_log_level_has_what_was_before_and_after() {
    let server = Audited::start("", "");
    for (level, status) in [("debug", 200), ("bogus", 400)] {
        assert_eq!(server.ask("PUT", &format!("/v1/rollcall/log-level?level={level}"), "", "").await, status);
    }
    let lines = server.end();
    let of_it: Vec<_> = lines.iter().filter(|line| line["url.path"] == "/v1/rollcall/log-level").collect();
    let [set, refused] = of_it[..] else { panic!("{lines:#?}") };
    assert_eq!((&set["event.action"], &set["rollcall.outcome"]), (&json!("log-level"), &json!("allowed")));
    let level = |word: &str| json!({ "log_level": word });
    assert_eq!((&set["rollcall.before"], &set["rollcall.after"]), (&level("info"), &level("debug")));
    assert_eq!(set["client.address"], "127.0.0.1");
    assert_eq!(refused["rollcall.outcome"], "refused");
    assert!(
        refused["event.reason"].as_str().unwrap().contains("\"bogus\" is not a log level"),
        "{refused:#}"
    );
}

#[tokio::test]
async fn each_change_has_a_line_with_who_what_before_and_after() {
    let server = Audited::start("", "[[service]]\nname = \"of-the-file\"\n");
    let web = |port: u16| json!({ "Name": "web", "ID": "w", "Port": port, "Check": { "TTL": "50ms", "CheckID": "c" } });
    assert_eq!(server.ask("PUT", "/v1/agent/service/register", "", web(1)).await, 200);
    // The same again changes nothing.
    assert_eq!(server.ask("PUT", "/v1/agent/service/register?again", "", web(1)).await, 200);
    assert_eq!(server.ask("PUT", "/v1/agent/service/register", "", web(2)).await, 200);
    assert_eq!(server.ask("PUT", "/v1/agent/check/pass/c", "", "").await, 200);
    server.until("of expiry", |line| line["event.action"] == "expire-check").await;
    assert_eq!(
        server.ask("PUT", "/v1/agent/service/maintenance/w?enable=true&reason=why", "", "").await,
        200
    );
    assert_eq!(server.ask("PUT", "/v1/agent/service/deregister/w", "", "").await, 200);
    assert_eq!(server.ask("PUT", "/v1/agent/service/deregister/w", "", "").await, 404);
    assert_eq!(server.ask("PUT", "/v1/agent/service/register", "", "{").await, 400);
    let route = "/v1/rollcall/route/of-the-file";
    let subsets = |share: u8| json!({ "Subsets": [format!("x@version=1:{share}"), "of=0"] });
    assert_eq!(server.ask("PUT", route, "", subsets(1)).await, 400, "it has no instance of that");
    let tagged = json!({ "Name": "of-the-file", "ID": "t", "Meta": { "version": "1" } });
    assert_eq!(server.ask("PUT", "/v1/agent/service/register?t", "", tagged).await, 200);
    assert_eq!(server.ask("PUT", route, "", subsets(1)).await, 200);
    assert_eq!(server.ask("PUT", &format!("{route}/undo"), "", "").await, 200);
    let imported = json!({ "rollcall_export": 1, "records": [] });
    let _ = server.ask("PUT", "/v1/rollcall/import", "", imported).await;
    assert_eq!(server.ask("GET", "/v1/agent/services", "", "").await, 200);
    let lines = server.end();

    let put = of(&lines, "register-instance", "instance");
    assert_eq!(put.len(), 3, "one for each change: {put:#?}");
    let (made, changed) = (put[0], put[1]);
    for (name, wanted) in [
        ("message", json!("register-instance instance n1/w: allowed")),
        ("event.type", json!(["creation", "allowed"])),
        ("event.outcome", json!("success")),
        ("rollcall.outcome", json!("allowed")),
        ("rollcall.object.id", json!("n1/w")),
        ("rollcall.before", Value::Null),
        ("client.address", json!("127.0.0.1")),
        ("http.request.id", json!("/v1/agent/service/register")),
        ("http.request.method", json!("PUT")),
        ("url.path", json!("/v1/agent/service/register")),
        ("service.node.name", json!("n1")),
        ("event.dataset", json!("rollcall.audit")),
    ] {
        assert_eq!(made[name], wanted, "{name} in {made:#}");
    }
    assert_eq!(
        (&made["rollcall.after"]["port"], &changed["rollcall.before"]["port"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(
        (&changed["rollcall.after"]["port"], &changed["event.type"][0]),
        (&json!(2), &json!("change"))
    );
    assert!(made["event.sequence"].as_u64() < changed["event.sequence"].as_u64());

    let status = |action| {
        let line = of(&lines, action, "check")[0];
        (
            line["rollcall.before"]["status"].clone(),
            line["rollcall.after"]["status"].clone(),
            line["user.name"].clone(),
        )
    };
    assert_eq!(status("update-check"), (json!("critical"), json!("passing"), Value::Null));
    assert_eq!(status("expire-check"), (json!("passing"), json!("critical"), json!("rollcall")));
    let [refused, set] = of(&lines, "set-route", "route")[..] else { panic!("{lines:#?}") };
    assert_eq!(
        (&refused["rollcall.outcome"], &refused["rollcall.object.id"]),
        (&json!("refused"), &json!("of-the-file"))
    );
    let undone = of(&lines, "undo-route", "route")[0];
    assert_eq!((&set["rollcall.before"], &set["rollcall.after"]["version"]), (&Value::Null, &json!(1)));
    assert_eq!(
        (&undone["rollcall.before"], &undone["rollcall.after"]["version"]),
        (&set["rollcall.after"], &json!(2))
    );
    assert!(undone["rollcall.after"].get("past").is_none(), "{undone:#}");
    let word = of(&lines, "begin-maintenance", "maintenance")[0];
    assert_eq!(word["rollcall.after"]["reason"], "why");
    let gone = of(&lines, "deregister-instance", "instance");
    assert_eq!(
        (&gone[0]["event.type"], &gone[0]["rollcall.after"]),
        (&json!(["deletion", "allowed"]), &Value::Null)
    );
    assert_eq!((&gone[1]["rollcall.outcome"], gone.len()), (&json!("refused"), 2));
    assert!(gone[1]["event.reason"].as_str().unwrap().contains("Unknown service ID"), "{:#}", gone[1]);
    let file = of(&lines, "configuration-file", "instance");
    assert_eq!((file.len(), &file[0]["user.name"]), (1, &json!("rollcall")), "{file:#?}");
    // What could not be read has a line too, and a read has none.
    let unread: Vec<_> = lines.iter().filter(|line| line["event.action"] == "request").collect();
    assert!(
        unread
            .iter()
            .any(|line| line["rollcall.outcome"] == "refused"
                && line["url.path"] == "/v1/agent/service/register"),
        "{unread:#?}"
    );
    assert!(lines.iter().all(|line| line["url.path"] != "/v1/agent/services"));
}

#[tokio::test]
async fn who_is_the_tokens_accessor_and_no_secret_is_told() {
    let acl =
        format!("[acl]\nenabled = true\ndefault_policy = \"deny\"\ninitial_management = {MANAGEMENT:?}\n");
    let server = Audited::start("", &acl);
    let token = json!({ "AccessorID": "acce5500-0000-4000-8000-000000000001", "SecretID": "5ec4e711-0000-4000-8000-5ec4e75ec4e7" });
    assert_eq!(server.ask("PUT", "/v1/acl/token", MANAGEMENT, &token).await, 200);
    let other = token["SecretID"].as_str().unwrap();
    let meta = json!({ "api-key": "5ec4e75ec4e7", "db_pass": "5ec4e75ec4e7", "version": "7" });
    let check = json!({ "Name": "web", "Meta": meta, "Check": { "Interval": "1h",
        "HTTP": "http://u:5ec4e75ec4e7@127.0.0.9:1/x?token=5ec4e75ec4e7&api_key=5ec4e75ec4e7",
        "Header": { "Authorization": ["Bearer 5ec4e75ec4e7"] } } });
    assert_eq!(server.ask("PUT", "/v1/agent/service/register", MANAGEMENT, &check).await, 200);
    assert_eq!(server.ask("PUT", "/v1/agent/service/register", other, &check).await, 403);
    assert_eq!(server.ask("PUT", "/v1/acl/token?x", other, &token).await, 403);
    assert_eq!(server.ask("PUT", "/v1/agent/service/register?y", "5ec4e75ec4e7-unknown", &check).await, 403);
    // Whoever may not read it is told that it is not there; the audit log, that they may not.
    assert_eq!(server.ask("PUT", "/v1/agent/service/deregister/web", other, "").await, 404);
    // A secret where an accessor belongs.
    for (method, below) in [("DELETE", ""), ("PUT", ""), ("PUT", "/clone")] {
        let path = format!("/v1/acl/token/{other}{below}");
        let headers = [("x-consul-token", MANAGEMENT)];
        let answer = request(server.daemon.http[0], method, &path, &headers, "{}").await;
        assert!(answer.status >= 400, "{method} {path}: {}", answer.text());
    }
    let (path, text) = (server.log.clone(), server.dir.path().to_owned());
    let lines = {
        let Audited { daemon, dir, log } = server;
        assert!(daemon.end(Signal::SIGTERM).success());
        let text = fs::read_to_string(&log).unwrap();
        assert!(!text.contains("5ec4e75ec4e7"), "{text}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(dir);
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    assert!(!text.exists());
    let made = of(&lines, "acl-put", "token")[0];
    assert_eq!(made["event.category"], json!(["iam"]));
    assert_eq!(made["rollcall.after"]["secret"], "(hidden)");
    let management = made["user.id"].as_str().unwrap();
    assert!(uuid::Uuid::parse_str(management).is_ok());
    let hidden = lines.iter().filter(|line| line["url.path"] == "/v1/acl/token/(hidden)");
    assert_eq!(hidden.count(), 2, "{lines:#?}");
    let web = of(&lines, "register-instance", "instance")[0];
    assert_eq!(
        web["rollcall.after"]["meta"],
        json!({ "api-key": "(hidden)", "db_pass": "(hidden)", "version": "7" })
    );
    let denied: Vec<_> = lines.iter().filter(|line| line["rollcall.outcome"] == "denied").collect();
    let who: Vec<_> = denied.iter().map(|line| line["user.id"].as_str().unwrap_or("")).collect();
    let accessor = token["AccessorID"].as_str().unwrap();
    assert_eq!(who, [accessor, accessor, "", accessor], "{denied:#?}");
    assert!(denied[0]["event.reason"].as_str().unwrap().contains("lacks permission"), "{:#}", denied[0]);
}

#[tokio::test]
async fn files_are_rotated_at_a_size_bounded_in_number_and_opened_anew_at_a_reload() {
    let server = Audited::start("max_size = 4096\nfiles = 3\n", "");
    for number in 0..40 {
        let service = json!({ "Name": "web", "ID": format!("w{number}"), "Port": 1 });
        assert_eq!(server.ask("PUT", "/v1/agent/service/register", "", service).await, 200);
    }
    server.until("of the last", |line| line["rollcall.object.id"] == "n1/w39").await;
    let names = || {
        let mut names: Vec<_> = fs::read_dir(server.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with("audit"))
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(), ["audit.log", "audit.log.1", "audit.log.2"]);
    for name in names() {
        assert!(fs::metadata(server.dir.path().join(name)).unwrap().len() <= 4096);
    }
    // Another program's rotation.
    fs::rename(&server.log, server.dir.path().join("moved")).unwrap();
    assert_eq!(server.ask("PUT", "/v1/agent/reload", "", "").await, 200);
    let line = server.until("of the reload", |line| line["url.path"] == "/v1/agent/reload").await;
    assert_eq!((&line["rollcall.outcome"], &line["event.reason"]), (&json!("allowed"), &Value::Null));
}

/// A disk that takes nothing: the kernel's, so that a real ENOSPC is met.
#[tokio::test]
async fn a_full_disk_costs_lines_that_are_counted_and_nobody_waits() {
    let dir = tempfile::tempdir().unwrap();
    let full = PathBuf::from("/dev/full");
    let server = Audited::on(dir, &full, "", "");
    for number in 0..20 {
        let service = json!({ "Name": "web", "ID": format!("w{number}") });
        assert_eq!(server.ask("PUT", "/v1/agent/service/register", "", service).await, 200);
    }
    let lost = async {
        loop {
            let metrics = request(server.daemon.http[0], "GET", "/metrics", &[], "").await.text();
            let series = "rollcall_audit_lost_total{reason=\"file\"} ";
            let count = metrics.lines().find_map(|line| line.strip_prefix(series)?.parse::<u64>().ok());
            if count.is_some_and(|count| count >= 20) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, lost).await.expect("lines are counted as lost");
    let told = request(server.daemon.http[0], "GET", "/v1/catalog/service/web", &[], "").await.json();
    assert_eq!(told.as_array().unwrap().len(), 20);
}

/// What an import changes, and what time alone does to a token.
#[tokio::test]
async fn an_import_has_a_line_for_each_thing_and_a_tokens_end_has_one() {
    let acl =
        format!("[acl]\nenabled = true\ndefault_policy = \"deny\"\ninitial_management = {MANAGEMENT:?}\n");
    let server = Audited::start("", &acl);
    let web = json!({ "Name": "web", "ID": "w", "Port": 1 });
    assert_eq!(server.ask("PUT", "/v1/agent/service/register", MANAGEMENT, web).await, 200);
    let headers = [("x-consul-token", MANAGEMENT)];
    let export = request(server.daemon.http[0], "GET", "/v1/rollcall/export", &headers, "").await;
    assert_eq!(server.ask("PUT", "/v1/agent/service/deregister/w", MANAGEMENT, "").await, 200);
    assert_eq!(server.ask("PUT", "/v1/rollcall/import", MANAGEMENT, export.text()).await, 200);
    // The same again finds nothing to do.
    assert_eq!(server.ask("PUT", "/v1/rollcall/import?again", MANAGEMENT, export.text()).await, 200);
    let short = json!({ "AccessorID": "acce5500-0000-4000-8000-000000000002", "ExpirationTTL": "1s" });
    assert_eq!(server.ask("PUT", "/v1/acl/token", MANAGEMENT, short).await, 200);
    server.until("of a token's end", |line| line["event.action"] == "expire-token").await;
    let lines = server.end();

    let imported = of(&lines, "import", "instance");
    assert_eq!(imported.len(), 1, "{imported:#?}");
    let line = imported[0];
    assert_eq!((&line["rollcall.object.id"], &line["rollcall.before"]), (&json!("n1/w"), &Value::Null));
    assert_eq!(line["rollcall.after"]["port"], json!(1));
    assert_eq!(line["url.path"], json!("/v1/rollcall/import"));
    assert!(line["user.id"].is_string() && line["client.address"] == "127.0.0.1", "{line:#}");
    let ended = of(&lines, "expire-token", "token");
    assert_eq!(ended.len(), 1, "{ended:#?}");
    assert_eq!(ended[0]["event.type"], json!(["deletion", "allowed"]));
    assert_eq!((&ended[0]["user.name"], &ended[0]["rollcall.after"]), (&json!("rollcall"), &Value::Null));
    assert_eq!(ended[0]["rollcall.before"]["secret"], "(hidden)");
}
