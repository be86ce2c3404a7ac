//! The command line: what it prints, how it ends, and what goes before what.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Output, Stdio};

use hickory_proto::rr::RecordType;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::daemon::{Daemon, rollcall, run};
use crate::server::{Answer, PATIENCE, ask, query, request};

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A command that must be done; what it prints.
fn done(words: &[&str]) -> String {
    let output = run(words);
    assert!(output.status.success(), "{words:?}: {}", err(&output));
    assert_eq!(err(&output), "", "{words:?}");
    out(&output)
}

/// A command that must fail with a status; what it says.
fn fails(words: &[&str], status: i32) -> String {
    let output = run(words);
    assert_eq!(output.status.code(), Some(status), "{words:?}: {} {}", out(&output), err(&output));
    err(&output)
}

async fn get(daemon: &Daemon, path: &str) -> Answer {
    request(daemon.http[0], "GET", path, &[], "").await
}

#[test]
fn serve_says_what_it_listens_on_and_then_that_it_is_ready() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = rollcall();
    let data = dir.path().to_str().unwrap();
    let words = [
        "serve",
        "--data-dir",
        data,
        "--node",
        "n7",
        "--http",
        "127.0.0.1:0",
        "--http",
        "[::1]:0",
        "--dns",
        "127.0.0.1:0",
    ];
    let mut child = command.args(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        lines.push(line.unwrap());
        if lines.last().unwrap() == "ready" {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(lines[0], format!("rollcall {version}, node n7, definitions in {data}"));
    let port = |line: &str, before: &str, after: &str| {
        let port = line.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
        port.unwrap_or_else(|| panic!("{line}")).parse::<u16>().unwrap()
    };
    assert!(port(&lines[1], "listening for DNS on 127.0.0.1:", " (UDP and TCP)") > 0);
    assert!(port(&lines[2], "listening for HTTP on 127.0.0.1:", "") > 0);
    assert!(port(&lines[3], "listening for HTTP on [::1]:", "") > 0);
    assert_eq!(lines[4], "ready");
}

#[test]
fn sigterm_and_sigint_end_it_with_status_0() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let dir = tempfile::tempdir().unwrap();
        let status = Daemon::start(dir.path(), &[]).end(signal);
        assert_eq!(status.code(), Some(0), "{signal}: {status}");
    }
}

#[tokio::test]
async fn a_server_whose_output_nobody_reads_goes_on() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = rollcall();
    command.args([
        "serve",
        "--ephemeral",
        "--dns",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
        "--log-format",
        "json",
    ]);
    let mut child = command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let bound = log.by_ref().find(|line| line.contains("UDP sockets")).unwrap();
    let bound: Value = serde_json::from_str(&bound).unwrap();
    // This is what it fails to print when it is ready.
    log.by_ref().find(|line| line.contains("cannot print")).unwrap();
    let answer = ask(
        bound["rollcall.address"].as_str().unwrap().parse().unwrap(),
        &query("internal.", RecordType::SOA),
    )
    .await;
    assert_eq!(answer.answers.len(), 1);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// A server with a configuration file, whose standard error is read line by line.
struct Configured {
    daemon: Daemon,
    file: PathBuf,
    log: std::sync::mpsc::Receiver<String>,
    _dir: tempfile::TempDir,
}

impl Configured {
    fn start(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("rollcall.toml");
        let data = dir.path().join("data");
        fs::write(&file, text).unwrap();
        let words = ["--config", file.to_str().unwrap(), "--data-dir", data.to_str().unwrap()];
        let ports = ["--dns", "127.0.0.1:0", "--http", "127.0.0.1:0", "--log-format", "human"];
        let (mut daemon, errors) = Daemon::with_errors(&[&words[..], &ports].concat());
        let (sender, log) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                // The test may have ended.
                let _ = sender.send(line);
            }
        });
        daemon.dns.truncate(1);
        Self { daemon, file, log, _dir: dir }
    }

    /// Writes a new file, sends SIGHUP, and gives the log up to a line with this in it.
    fn reload(&self, text: &str, until: &str) -> String {
        fs::write(&self.file, text).unwrap();
        self.daemon.signal(Signal::SIGHUP);
        let mut said = String::new();
        loop {
            let line = self.log.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no {until:?} in {said}"));
            said.push_str(&line);
            said.push('\n');
            if line.contains(until) {
                return said;
            }
        }
    }
}

#[tokio::test]
async fn sighup_takes_definitions_ttls_and_limits() {
    let first = "node_name = \"n1\"\n[[service]]\nname = \"db\"\nport = 1\n[[service]]\nname = \"old\"\n";
    let server = Configured::start(first);
    let daemon = &server.daemon;
    let asked = async |name: &str| {
        let query = query(&format!("{name}.service.internal."), RecordType::SRV);
        ask(daemon.dns[0], &query).await
    };
    let answer = asked("db").await;
    assert_eq!((answer.answers.len(), answer.answers[0].ttl), (1, 5));
    // A client may not touch what the file owns.
    let owned = request(daemon.http[0], "PUT", "/v1/agent/service/deregister/db", &[], "").await;
    assert!(owned.status == 409 && owned.text().contains("configuration file"), "{}", owned.text());
    let second = "node_name = \"n1\"\ndatacenter = \"dc9\"\n[dns]\nttl = \"3s\"\n[limits]\ntags_max = 1\n\
                  [[service]]\nname = \"db\"\nport = 2\n[[service]]\nname = \"new\"\n";
    let said = server.reload(second, "reloaded");
    assert!(said.contains("these keys differ and wait for the next start: datacenter"), "{said}");
    let db = get(daemon, "/v1/catalog/service/db").await.json();
    assert_eq!((&db[0]["ServicePort"], &db[0]["Datacenter"]), (&json!(2), &json!("dc1")));
    assert_eq!(
        get(daemon, "/v1/catalog/services").await.json(),
        json!({ "consul": [], "db": [], "new": [] })
    );
    assert_eq!(asked("db").await.answers[0].ttl, 3);
    let body = json!({ "Name": "web", "Tags": ["a", "b"] }).to_string();
    let refused = request(daemon.http[0], "PUT", "/v1/agent/service/register", &[], &body).await;
    assert!(refused.status == 400 && refused.text().contains("[limits] tags_max"), "{}", refused.text());
}

#[tokio::test]
async fn a_bad_file_at_sighup_changes_nothing() {
    let good = "node_name = \"n1\"\n[[service]]\nname = \"db\"\nport = 1\n";
    let server = Configured::start(good);
    let state = async || {
        let paths = ["/v1/catalog/service/db", "/v1/catalog/services", "/v1/health/state/any"];
        let mut all: Vec<Value> = Vec::new();
        for path in paths {
            all.push(get(&server.daemon, path).await.json());
        }
        all
    };
    let before = state().await;
    for (bad, what) in [
        ("[dns]\nttl = \"1s\"\n[[service]]\nname = \"db\"\nport = 70000\n", "rollcall.toml:3: [[service]]: "),
        ("[[service]]\nname = \"other\"\n[dns]\nttl = 7\n", "rollcall.toml:4: [dns] ttl: "),
        ("nonsense\n", "rollcall.toml:1: "),
        (
            "[[zone]]\nname = \"example.test\"\nfile = \"nowhere.zone\"\n[[service]]\nname = \"other\"\n",
            "nowhere.zone",
        ),
        // More than a limit allows, with the limit in the same file.
        ("[limits]\ntags_max = 1\n[[service]]\nname = \"db\"\ntags = [\"a\", \"b\"]\n", "tags_max"),
    ] {
        let said = server.reload(bad, what);
        assert!(said.contains("not reloaded, nothing was changed"), "{said}");
        assert_eq!(state().await, before, "{bad}");
    }
    let body = json!({ "Name": "web", "Tags": ["a", "b"] }).to_string();
    let taken = request(server.daemon.http[0], "PUT", "/v1/agent/service/register", &[], &body).await;
    assert_eq!(taken.status, 200, "the limit of a refused file is not in force");
    server.reload("node_name = \"n1\"\n[[service]]\nname = \"db\"\nport = 9\n", "reloaded");
    assert_eq!(get(&server.daemon, "/v1/catalog/service/db").await.json()[0]["ServicePort"], 9);
}

#[test]
fn check_config_finds_every_error_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rollcall.toml");
    let text = "node_nam = \"x\"\n[dns]\nttl = \"5\"\n[http]\nlisten = [\"nowhere\"]\n[[service]]\nname = \"db\"\nport = 70000\n";
    fs::write(&file, text).unwrap();
    let shown = file.to_str().unwrap();
    let output = run(&["check-config", shown]);
    assert_eq!(output.status.code(), Some(1));
    let lines: Vec<String> = out(&output).lines().map(str::to_owned).collect();
    let expected =
        [(1, "unknown key node_nam"), (3, "[dns] ttl: "), (5, "[http] listen: "), (6, "[[service]]: ")];
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, reason) in expected {
        let start = format!("{shown}:{line}: {reason}");
        assert!(lines.iter().any(|line| line.starts_with(&start)), "{start}: {lines:#?}");
    }
    assert!(err(&output).contains("4 errors"), "{}", err(&output));
    fs::write(&file, "[[zone]]\nname = \"example.test\"\nfile = \"z\"\n").unwrap();
    let output = run(&["check-config", shown]);
    assert!(output.status.code() == Some(1) && out(&output).contains("/z: "), "{}", out(&output));
    fs::write(&file, "[dns]\nttl = \"5s\"\n").unwrap();
    assert_eq!(done(&["check-config", shown]), "Configuration is valid!\n");
    assert!(fails(&["serve", "--config", "/nowhere.toml"], 1).contains("/nowhere.toml"));
}

#[tokio::test]
async fn people_register_list_and_deregister() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), &[]);
    let address = daemon.http[0].to_string();
    let with = |words: &[&str]| done(&[words, &["--server", &address]].concat());
    let words = [
        "register",
        "web",
        "--id",
        "web/1",
        "--address",
        "10.0.0.5",
        "--port",
        "80",
        "--tag",
        "a",
        "--tag",
        "b",
        "--meta",
        "k=v=w",
        "--check-ttl",
        "1h",
    ];
    assert_eq!(with(&words), "Registered service: web\n");
    let shown = get(&daemon, "/v1/agent/service/web%2F1").await.json();
    assert_eq!(
        [&shown["Service"], &shown["Port"], &shown["Address"], &shown["Tags"], &shown["Meta"]],
        [&json!("web"), &json!(80), &json!("10.0.0.5"), &json!(["a", "b"]), &json!({ "k": "v=w" })]
    );
    let probes =
        ["register", "probed", "--check-http", "http://127.0.0.1:1/", "--interval", "1m", "--timeout", "2s"];
    with(&probes);
    let check = get(&daemon, "/v1/health/checks/probed").await.json()[0].clone();
    assert_eq!(
        [&check["Type"], &check["Interval"], &check["Timeout"]],
        [&json!("http"), &json!("1m0s"), &json!("2s")]
    );
    assert!(with(&["register", "a.b"]).contains("Warning: service name \"a.b\" cannot be asked for in DNS"));
    let file = dir.path().join("definition.json");
    fs::write(&file, json!({ "name": "from-file", "Port": 7 }).to_string()).unwrap();
    let text = with(&["register", "--file", file.to_str().unwrap()]);
    assert_eq!(text, "Registered service: from-file\n");

    let table = with(&["services"]);
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    let titles = "SERVICE INSTANCES PASSING WARNING CRITICAL MAINTENANCE CIRCUIT OPEN GUARDED TAGS";
    assert_eq!(lines[0], titles.split(' ').collect::<Vec<_>>());
    assert!(lines.contains(&vec!["web", "1", "0", "0", "1", "0", "0", "0", "a,b"]), "{table}");
    assert!(lines.contains(&vec!["from-file", "1", "1", "0", "0", "0", "0", "0"]), "{table}");
    let services: Value = serde_json::from_str(&with(&["services", "--json"])).unwrap();
    let counts = json!({ "passing": 0, "warning": 0, "critical": 1, "maintenance": 0, "circuit_open": 0, "guarded": 0, "tags": ["a", "b"] });
    assert_eq!(services["web"], counts);
    let table = with(&["instances", "web"]);
    assert!(
        table.lines().nth(1).unwrap().starts_with("web/1  n1    10.0.0.5  80    critical  out  a,b"),
        "{table}"
    );
    let instances: Value = serde_json::from_str(&with(&["instances", "web", "--json"])).unwrap();
    assert_eq!(instances[0]["Service"]["ID"], "web/1");

    assert_eq!(with(&["deregister", "web/1"]), "Deregistered service: web/1\n");
    assert_eq!(get(&daemon, "/v1/catalog/service/web").await.text(), "[]");
    let unknown = fails(&["deregister", "nope", "--server", &address], 1);
    assert!(unknown.contains("Unknown service ID \"nope\""), "{unknown}");
    assert!(fails(&["instances", "nope", "--server", &address], 1).contains("no service \"nope\""));
    assert!(
        fails(&["register", "bad", "--address", "0.0.0.0", "--server", &address], 1)
            .contains("Invalid service address")
    );
}

#[tokio::test]
async fn tables_say_who_is_out_of_dns_and_why_though_its_checks_pass() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), &[]);
    let address = daemon.http[0].to_string();
    let put = async |path: &str, body: Value| {
        let answer = request(daemon.http[0], "PUT", path, &[], &body.to_string()).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    };
    for id in ["fine", "away", "open", "timed", "said"] {
        let mut web = json!({ "Name": "web", "ID": id, "Address": "10.0.0.1", "Port": 80 });
        if ["timed", "said"].contains(&id) {
            web["Check"] = json!({ "TTL": "1h" });
        }
        put("/v1/agent/service/register", web).await;
    }
    put("/v1/agent/service/maintenance/away?enable=true", Value::Null).await;
    put("/v1/agent/check/update/service:said", json!({ "Status": "critical", "Output": "one\ntwo\n" })).await;
    put("/v1/rollcall/report", json!({ "Reports": [{ "Service": "web", "ID": "open", "Failure": 10 }] }))
        .await;
    let table = done(&["services", "--server", &address]);
    let row = table.lines().find(|line| line.starts_with("web")).unwrap();
    assert_eq!(
        row.split_whitespace().collect::<Vec<_>>(),
        ["web", "5", "2", "0", "2", "1", "1", "0"],
        "{table}"
    );
    let table = done(&["instances", "web", "--server", &address]);
    let row = |id: &str| {
        let line = table.lines().find(|line| line.starts_with(id)).unwrap();
        let words: Vec<&str> = line.split_whitespace().skip(4).collect();
        words.join(" ")
    };
    assert_eq!(row("fine"), "passing in");
    assert_eq!(row("away"), "maintenance out no reason given");
    assert!(row("open").starts_with("passing out its circuit is open"), "{table}");
    assert_eq!(row("timed"), "critical out waits for PUT /v1/agent/check/pass/service:timed");
    assert_eq!(row("said"), "critical out one two");
}

#[test]
fn watch_shows_a_service_again_at_every_change() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), &[]);
    let address = daemon.http[0].to_string();
    let mut command = rollcall();
    let mut child =
        command.args(["watch", "web", "--server", &address]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut until = |wanted: &str| {
        loop {
            let line = lines.next().expect("it ended").unwrap();
            if line.starts_with(wanted) {
                return;
            }
        }
    };
    until("web: 0 instances");
    done(&["register", "web", "--server", &address]);
    until("web: 1 instance,");
    done(&["deregister", "web", "--server", &address]);
    until("web: 0 instances");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn the_version_is_printed_and_what_is_unknown_ends_with_status_2() {
    let version = format!("rollcall {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(done(&["version"]), version);
    assert_eq!(done(&["--version"]), version);
    for words in [
        &["serve", "--nonsense"][..],
        &["nonsense"],
        &[],
        &["serve", "--http", "nowhere"],
        &["serve", "--ephemeral", "--data-dir", "/x"],
        &["serve", "--node", ""],
        &["register"],
        &["register", "web", "--port", "70000"],
        &["ponder", "x"],
    ] {
        assert!(!fails(words, 2).is_empty(), "{words:?}");
    }
}

#[test]
fn no_server_there_is_said_in_words() {
    // A port that is taken, where nobody listens.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap().to_string();
    for words in [
        &["services"][..],
        &["instances", "web"],
        &["register", "web"],
        &["deregister", "web"],
        &["backup", "/nowhere/x"],
    ] {
        let said = fails(&[words, &["--server", &address]].concat(), 1);
        assert!(said.contains(&format!("cannot reach the server at {address}")), "{words:?}: {said}");
        assert!(said.contains("is it running"), "{said}");
    }
}

#[tokio::test]
async fn flags_go_before_the_environment_and_that_before_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rollcall.toml");
    let text = "node_name = \"of-file\"\ndatacenter = \"dcf\"\n[dns]\nlisten = [\"127.0.0.1:0\"]\n[http]\nlisten = [\"127.0.0.1:0\"]\n";
    fs::write(&file, text).unwrap();
    let shown = async |variables: &[(&str, &str)], more: &[&str]| {
        let mut command = rollcall();
        command.envs(variables.iter().copied());
        let words = ["--ephemeral", "--config", file.to_str().unwrap()];
        let daemon = Daemon::of(command, &[&words[..], more].concat());
        let config = get(&daemon, "/v1/agent/self").await.json()["Config"].clone();
        (config["NodeName"].as_str().unwrap().to_owned(), config["Datacenter"].as_str().unwrap().to_owned())
    };
    let of = |node: &str, datacenter: &str| (node.to_owned(), datacenter.to_owned());
    assert_eq!(shown(&[], &[]).await, of("of-file", "dcf"));
    let variables = [("ROLLCALL_NODE", "of-env"), ("ROLLCALL_DATACENTER", "dce")];
    assert_eq!(shown(&variables, &[]).await, of("of-env", "dce"));
    assert_eq!(shown(&variables, &["--node", "of-flag"]).await, of("of-flag", "dce"));
}

#[test]
fn a_port_that_is_taken_is_said_with_the_remedy() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let said = fails(&["serve", "--ephemeral", "--dns", "127.0.0.1:0", "--http", &address], 1);
    assert!(
        said.contains(&format!("cannot listen for HTTP on {address}")) && said.contains("--http"),
        "{said}"
    );
}
