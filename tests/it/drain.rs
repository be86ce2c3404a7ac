//! A drain takes an instance out of answers, and says that it is safe to stop it when nobody is told of it any more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hickory_proto::rr::{RData, RecordType};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;
use tokio::time::Instant;

use crate::daemon::run;
use crate::server::{PATIENCE, TestServer, ask, query, request};

const NAME: &str = "web.service.internal.";

/// Three instances of `web`, whose answers live for a time.
async fn webs(ttl: &str) -> TestServer {
    let ttl = rollcall::model::duration::parse(ttl).unwrap();
    let server = TestServer::with(|config| config.dns.ttl = ttl).await;
    for n in 1..4 {
        server
            .register(json!({ "Name": "web", "ID": format!("web-{n}"), "Address": format!("10.8.0.{n}"), "Port": 80 }))
            .await;
    }
    server
}

impl TestServer {
    async fn drain(&self, id_and_query: &str) -> Value {
        let answer = self.put(&format!("/v1/rollcall/drain/{id_and_query}"), "").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    async fn addresses_of_web(&self) -> Vec<u8> {
        let mut all = last(&ask(self.dns(), &query(NAME, RecordType::A)).await.answers);
        all.sort_unstable();
        all
    }
}

fn last(records: &[hickory_proto::rr::Record]) -> Vec<u8> {
    let octet = |record: &hickory_proto::rr::Record| match &record.data {
        RData::A(a) => a.0.octets()[3],
        other => panic!("{other:?}"),
    };
    records.iter().map(octet).collect()
}

/// Asks all the time; gives the highest TTL of an answer with instance 1, and when the last such question was asked.
async fn ask_on(dns: SocketAddr, end: Arc<AtomicBool>, asked: Arc<AtomicUsize>) -> (u32, Option<Instant>) {
    let (mut highest, mut latest) = (0, None);
    while !end.load(Ordering::Relaxed) {
        let at = Instant::now();
        let answer = ask(dns, &query(NAME, RecordType::A)).await;
        asked.fetch_add(1, Ordering::Relaxed);
        if last(&answer.answers).contains(&1) {
            highest = highest.max(answer.answers[0].ttl);
            latest = Some(at);
        }
    }
    (highest, latest)
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_nobody_is_told_of_it_after_and_the_ttl_is_no_less_than_what_was_given() {
    let server = webs("2s").await;
    let (end, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let askers: Vec<_> =
        (0..4).map(|_| tokio::spawn(ask_on(server.dns(), end.clone(), asked.clone()))).collect();
    let until = async |count: usize| {
        while asked.load(Ordering::Relaxed) < count {
            tokio::task::yield_now().await;
        }
    };
    until(200).await;
    let told = server.drain("web-1").await;
    let drained = Instant::now();
    until(asked.load(Ordering::Relaxed) + 200).await;
    end.store(true, Ordering::Relaxed);
    for asker in askers {
        let (highest, latest) = asker.await.unwrap();
        assert!(latest.is_some_and(|latest| latest < drained), "it was told of before, and not after");
        assert!((1..=2).contains(&highest));
    }
    assert!(told["Threads"].as_u64().unwrap() > 0, "{told}");
    for (key, wanted) in [
        ("ID", json!("web-1")),
        ("Node", json!("n1")),
        ("Service", json!("web")),
        ("ThreadsBehind", json!(0)),
        ("AnswersUnderWay", json!(0)),
        ("TTL", json!("2s")),
        ("Safe", json!(false)),
        ("Deregistered", json!(false)),
    ] {
        assert_eq!(told[key], wanted, "{key} in {told}");
    }
    assert!(told["LeftAt"].is_string() && told["NotProved"].as_array().unwrap().len() == 3, "{told}");
    assert_eq!(server.metric("rollcall_registry_drain_leave_seconds_count").await, 1.0);
    // Explained, and back when it is over.
    let why = server.get("/v1/rollcall/explain?name=web").await.json()["Instances"][0].to_string();
    assert!(why.contains("maintenance") && why.contains("draining"), "{why}");
    assert_eq!(server.addresses_of_web().await, [2, 3]);
    let ended = request(server.http(), "DELETE", "/v1/rollcall/drain/web-1", &[], "").await;
    assert_eq!((ended.status, server.addresses_of_web().await), (200, vec![1, 2, 3]));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_safe_when_the_ttl_is_over() {
    let server = webs("1s").await;
    let begun = Instant::now();
    let told = server.drain("web-1?wait=1h&reason=update").await;
    assert_eq!(told["Safe"], true, "{told}");
    assert_eq!((&told["TTL"], &told["Remaining"]), (&json!("1s"), &json!("0s")));
    assert!(begun.elapsed() >= Duration::from_secs(1), "caches had that long");
    let (text, index) = (server.get("/v1/health/service/web").await.text(), told["Index"].clone());
    assert!(text.contains("\"update\""), "{text}");
    // Once more changes nothing, and proves anew.
    let again = server.drain("web-1?wait=0s").await;
    assert_eq!((&again["Index"], &again["Safe"]), (&index, &json!(false)), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_waits_on_a_connection_holds_it_up() {
    let server = webs("1s").await;
    // Answers of some kilobytes.
    for n in 10..60 {
        server
            .register(json!({ "Name": "web", "ID": format!("web-{n}"), "Address": format!("10.8.0.{n}") }))
            .await;
    }
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let (mut read, mut write) = socket.connect(server.dns()).await.unwrap().into_split();
    const QUESTIONS: usize = 5000;
    let writing = tokio::spawn(async move {
        let question = query(NAME, RecordType::SRV).to_vec().unwrap();
        let framed = [&(question.len() as u16).to_be_bytes()[..], &question].concat();
        for _ in 0..QUESTIONS {
            write.write_all(&framed).await.unwrap();
        }
        write
    });
    // Nobody reads: sooner or later answers from before wait for it.
    let stalled = async {
        for n in 10.. {
            let told = server.drain(&format!("web-{n}")).await;
            if told["LeftAt"].is_null() {
                return (n, told);
            }
        }
        unreachable!()
    };
    let (n, told) = tokio::time::timeout(PATIENCE, stalled).await.expect("it never stalled");
    assert!(told["AnswersUnderWay"].as_u64().unwrap() > 0 && told["ThreadsBehind"] == 0, "{told}");
    assert_eq!((&told["Safe"], &told["SafeAt"]), (&json!(false), &Value::Null), "{told}");
    let reading = tokio::spawn(async move {
        for _ in 0..QUESTIONS {
            read_from(&mut read).await;
        }
    });
    let told = server.drain(&format!("web-{n}?wait=1m")).await;
    assert_eq!((&told["Safe"], &told["AnswersUnderWay"]), (&json!(true), &json!(0)), "{told}");
    reading.await.unwrap();
    drop(writing.await.unwrap());
}

async fn read_from(read: &mut tokio::net::tcp::OwnedReadHalf) {
    use tokio::io::AsyncReadExt;
    let length = read.read_u16().await.unwrap();
    let mut answer = vec![0; length.into()];
    read.read_exact(&mut answer).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn deregistration_can_do_the_same() {
    let server = webs("1s").await;
    let told = server.drain("web-1?deregister&wait=1m").await;
    assert_eq!((&told["Deregistered"], &told["Safe"]), (&json!(true), &json!(true)), "{told}");
    assert_eq!(server.addresses_of_web().await, [2, 3]);
    assert_eq!(server.get("/v1/agent/service/web-1").await.status, 404);
    let again = server.put("/v1/rollcall/drain/web-1?deregister", "").await;
    assert_eq!(again.status, 404, "{}", again.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn longer_ttls_from_before_and_of_prepared_queries_are_waited_for() {
    let mut config = None;
    let mut server = TestServer::with(|own| {
        own.dns.service_ttl = vec![("web".into(), Duration::from_secs(600))];
        config = Some(own.clone());
    })
    .await;
    for id in ["web-1", "web-2"] {
        server.register(json!({ "Name": "web", "ID": id, "Address": "10.8.0.1" })).await;
    }
    assert_eq!(server.drain("web-1").await["TTL"], "10m0s");
    let mut config = config.unwrap();
    config.dns.service_ttl.clear();
    server.running.reload(config).await.unwrap();
    let ttl = server.drain("web-1").await["TTL"].as_str().unwrap().to_owned();
    let ttl = rollcall::model::duration::parse(&ttl).unwrap();
    assert!((Duration::from_secs(590)..Duration::from_secs(602)).contains(&ttl), "{ttl:?}");
    let query = json!({ "Name": "q", "Service": { "Service": "Web" }, "DNS": { "TTL": "20m" } });
    assert_eq!(request(server.http(), "POST", "/v1/query", &[], &query.to_string()).await.status, 200);
    // From when the last answer with it may have been given, which is a moment ago.
    let ttl = server.drain("web-2").await["TTL"].as_str().unwrap().to_owned();
    let ttl = rollcall::model::duration::parse(&ttl).unwrap();
    assert!((Duration::from_secs(1200)..Duration::from_secs(1260)).contains(&ttl), "{ttl:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_put_back_is_not_drained() {
    let server = Arc::new(webs("10m").await);
    for (how, back) in [("", "DELETE /v1/rollcall/drain/web-1"), ("&deregister", "")] {
        let waiting = server.clone();
        let drain =
            tokio::spawn(
                async move { waiting.put(&format!("/v1/rollcall/drain/web-1?wait=1h{how}"), "").await },
            );
        server
            .until("web", |all| {
                how.is_empty() == all.to_string().contains("draining")
                    && (how.is_empty() || all.as_array().unwrap().len() == 2)
            })
            .await;
        match back.split_once(' ') {
            Some((method, path)) => {
                assert_eq!(request(server.http(), method, path, &[], "").await.status, 200)
            }
            None => server.register(json!({ "Name": "web", "ID": "web-1", "Address": "10.8.0.1" })).await,
        }
        let answer = tokio::time::timeout(PATIENCE, drain).await.expect("it goes on").unwrap();
        assert_eq!(
            (answer.status, answer.text().trim()),
            (409, "web-1 on n1 was put back while it was drained")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_refused_and_changes_nothing() {
    let server = webs("10m").await;
    let index = server.get("/v1/health/service/web").await.index();
    let unknown =
        "Unknown service ID \"nobody\". Ensure that the service ID is passed, not the service name.";
    for (path, status, text) in [
        ("nobody", 404, unknown),
        ("nobody?deregister", 404, unknown),
        ("web-1?wait=soon", 400, "Invalid wait: "),
        ("web-1?wait=-1s", 400, "Invalid wait: "),
        ("web-1?wait=25h", 400, "is more than a day"),
        ("web-1?deregister=maybe", 400, "Invalid value for ?deregister"),
        ("web-1?reason=%07", 400, "control character"),
        ("web-1?resaon=x", 400, "Unknown query parameter \"resaon\""),
        ("web-1?node=zz", 404, "node \"zz\" has no service ID \"web-1\""),
    ] {
        let refused = server.put(&format!("/v1/rollcall/drain/{path}"), "").await;
        assert_eq!(refused.status, status, "{path}: {}", refused.text());
        assert!(refused.text().contains(text), "{path}: {}", refused.text());
    }
    assert_eq!(server.get("/v1/health/service/web").await.index(), index);
    assert_eq!(server.addresses_of_web().await, [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn drains_that_wait_have_a_limit() {
    let server = TestServer::with(|config| {
        config.dns.ttl = Duration::from_secs(600);
        config.http.drains_max = 1;
    })
    .await;
    for id in ["web-1", "web-2"] {
        server.register(json!({ "Name": "web", "ID": id, "Address": "10.8.0.1" })).await;
    }
    let at = server.http();
    let waiting =
        tokio::spawn(async move { request(at, "PUT", "/v1/rollcall/drain/web-1?wait=1h", &[], "").await });
    server.until("web", |all| all.to_string().contains("draining")).await;
    let refused = server.put("/v1/rollcall/drain/web-2", "").await;
    assert_eq!(
        (refused.status, refused.text().trim()),
        (429, "1 drains are under way already ([limits] drains_max)")
    );
    assert_eq!(server.metric("rollcall_limit_hits_total{limit=\"drains_max\"}").await, 1.0);
    assert_eq!(server.addresses_of_web().await, [1], "the other is still in");
    waiting.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_drains_waits_and_puts_back() {
    let server = webs("1s").await;
    let at = server.http().to_string();
    let printed = |words: &[&str]| {
        let output = run(&[words, &["--server", &at]].concat());
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let told = printed(&["drain", "web-1", "--wait"]);
    for part in [
        "web-1 on n1 (service web): drained with index ",
        "no answer with it lives longer than 1s",
        "it is safe to stop it\n",
        "not proved: ",
    ] {
        assert!(told.contains(part), "{part:?} in {told}");
    }
    assert_eq!(server.addresses_of_web().await, [2, 3]);
    assert_eq!(printed(&["drain", "web-1", "--undo"]), "web-1 on n1: ended its maintenance (draining)\n");
    assert_eq!(server.addresses_of_web().await, [1, 2, 3]);
    let told: Value = serde_json::from_str(&printed(&["drain", "web-2", "--json"])).unwrap();
    assert_eq!((&told["ID"], &told["Safe"]), (&json!("web-2"), &json!(false)));
    assert!(
        printed(&["deregister", "web-3", "--wait"])
            .contains("web-3 on n1 (service web): deregistered with index ")
    );
    assert_eq!(server.addresses_of_web().await, [1]);
    let refused = run(&["drain", "nobody", "--wait", "--server", &at]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("Unknown service ID \"nobody\""),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_named_is_meant_and_no_other() {
    let server = webs("10m").await;
    let path = "/v1/rollcall/drain/web-1?node=zz";
    let at = server.http().to_string();
    for refused in [
        server.put(path, "").await,
        request(server.http(), "DELETE", path, &[], "").await,
        server.put("/v1/agent/service/deregister/web-1?node=zz", "").await,
        server.put("/v1/agent/service/maintenance/web-1?enable=true&node=zz", "").await,
    ] {
        let text = "node \"zz\" has no service ID \"web-1\"";
        assert_eq!((refused.status, refused.text().trim()), (404, text));
    }
    for words in [&["drain", "web-1"][..], &["deregister", "web-1"]] {
        let output = run(&[words, &["--node", "zz", "--server", &at]].concat());
        assert_eq!(output.status.code(), Some(1), "{words:?}: {output:?}");
    }
    assert_eq!(server.addresses_of_web().await, [1, 2, 3]);
    server.drain("web-1?node=n1").await;
    assert_eq!(server.addresses_of_web().await, [2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_says_whose_word_it_ended_and_what_still_holds() {
    let server = webs("1s").await;
    let at = server.http().to_string();
    let printed = |words: &[&str]| {
        let output = run(&[&["drain"][..], words, &["--server", &at]].concat());
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(printed(&["web-1", "--undo"]), "web-1 on n1 was not drained\n");
    let word = "/v1/agent/service/maintenance/web-1?enable=true&reason=disk";
    assert_eq!(server.put(word, "").await.status, 200);
    let told = printed(&["web-1"]);
    assert!(told.contains("it was in maintenance already, and that reason stays: disk\n"), "{told}");
    assert!(!printed(&["web-2"]).contains("already"));
    assert_eq!(server.put("/v1/agent/maintenance?enable=true&reason=kernel", "").await.status, 200);
    let told = printed(&["web-1", "--undo"]);
    let wanted =
        "web-1 on n1: ended its maintenance (disk)\nit is still out: its node is in maintenance (kernel)\n";
    assert_eq!(told, wanted);
}
