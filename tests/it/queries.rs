//! Prepared queries: made, changed, carried out over HTTP and in DNS, and kept.

use std::collections::BTreeSet;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, RecordType};
use serde_json::{Value, json};

use crate::server::{Answer, TestServer, ask, ask_tcp, query, request};

impl TestServer {
    async fn post(&self, path: &str, body: Value) -> Answer {
        request(self.http(), "POST", path, &[], &body.to_string()).await
    }

    async fn delete(&self, path: &str) -> Answer {
        request(self.http(), "DELETE", path, &[], "").await
    }

    /// Makes a query; its id.
    async fn prepare(&self, definition: Value) -> String {
        let answer = self.post("/v1/query", definition.clone()).await;
        assert_eq!(answer.status, 200, "{definition}: {}", answer.text());
        let told = answer.json();
        assert_eq!(told.as_object().unwrap().len(), 1, "{told}");
        told["ID"].as_str().unwrap().to_owned()
    }

    async fn refused(&self, definition: Value) -> (u16, String) {
        let answer = self.post("/v1/query", definition).await;
        (answer.status, answer.text())
    }

    /// The ids of the instances that a query comes to.
    async fn executed(&self, name: &str) -> BTreeSet<String> {
        let answer = self.get(&format!("/v1/query/{name}/execute")).await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        ids(&answer.json()).into_iter().collect()
    }

    /// Three instances of `db` with tags, meta and checks of their own, one each on this node, `n2` and `n3`.
    async fn three(&self) {
        for (at, tags, status) in [
            (1, json!(["primary", "v1.2"]), "passing"),
            (2, json!(["replica", "v1.2"]), "warning"),
            (3, json!(["replica", "Slow"]), "passing"),
        ] {
            let node = if at == 1 { "n1".to_owned() } else { format!("n{at}") };
            let taken = self
                .put(
                    "/v1/catalog/register",
                    json!({
                        "Node": node, "Address": format!("10.0.0.{at}"), "NodeMeta": { "rack": format!("r{at}") },
                        "Service": {
                            "Service": "DB", "ID": format!("db-{at}"), "Tags": tags, "Port": 5430 + at,
                            "Address": format!("10.1.0.{at}"), "Meta": { "shard": format!("s{}", at % 2) },
                        },
                        "Checks": [
                            { "CheckID": format!("c{at}"), "Name": "c", "Status": status, "ServiceID": format!("db-{at}") },
                        ],
                    }),
                )
                .await;
            assert_eq!(taken.status, 200, "{}", taken.text());
        }
    }
}

fn ids(executed: &Value) -> Vec<String> {
    let nodes = executed["Nodes"].as_array().unwrap();
    nodes.iter().map(|node| node["Service"]["ID"].as_str().unwrap().to_owned()).collect()
}

fn set(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

fn addresses(message: &Message) -> BTreeSet<String> {
    message.answers.iter().map(|record| record.data.to_string()).collect()
}

/// The kind of "no" an answer is; its SOA is in the authority section.
fn negative(message: &Message) -> ResponseCode {
    assert!(message.answers.is_empty(), "{message:?}");
    assert!(matches!(&message.authorities[..], [soa] if matches!(soa.data, RData::SOA(_))), "{message:?}");
    message.metadata.response_code
}

#[tokio::test]
async fn a_query_is_made_read_changed_and_removed() {
    let server = TestServer::start().await;
    let before = server.get("/v1/query").await;
    assert_eq!((before.json(), before.header("x-consul-knownleader")), (json!([]), "true"));
    let id = server
        .prepare(json!({
            "Name": "Main.db", "Token": "",
            "Service": {
                "Service": "db", "Failover": { "NearestN": 1, "Datacenters": ["dc2"] }, "OnlyPassing": true,
                "IgnoreCheckIDs": ["x"], "Near": "_agent", "Tags": ["a", "!b"], "NodeMeta": { "k": "v" },
                "ServiceMeta": { "m": "w" },
            },
            "DNS": { "TTL": "10s" },
        }))
        .await;
    let one = server.get(&format!("/v1/query/{id}")).await;
    let shown = one.json();
    let indexes = (shown[0]["CreateIndex"].clone(), shown[0]["ModifyIndex"].clone());
    assert_eq!(
        shown,
        json!([{
            "ID": id, "Name": "Main.db", "Session": "", "Token": "",
            "Template": { "Type": "", "Regexp": "", "RemoveEmptyTags": false },
            "Service": {
                "Service": "db", "Failover": { "NearestN": 1, "Datacenters": ["dc2"], "Targets": null },
                "OnlyPassing": true, "IgnoreCheckIDs": ["x"], "Near": "_agent", "Tags": ["a", "!b"],
                "NodeMeta": { "k": "v" }, "ServiceMeta": { "m": "w" }, "Connect": false, "Peer": "",
            },
            "DNS": { "TTL": "10s" }, "CreateIndex": indexes.0, "ModifyIndex": indexes.1,
        }])
    );
    assert_eq!(one.index(), indexes.1.as_u64().unwrap());
    // One who waits for it is woken when it changes, and not before.
    let path = format!("/v1/query/{id}");
    let (woken, changed) = tokio::join!(server.wait(&path, one.index()), async {
        server.prepare(json!({ "Name": "other", "Service": { "Service": "db" } })).await;
        server.put(&path, json!({ "ID": "ignored", "Name": "new", "Service": { "Service": "web" } })).await
    });
    assert_eq!((changed.status, changed.text().as_str()), (200, ""));
    assert_eq!((&woken.json()[0]["Name"], &woken.json()[0]["CreateIndex"]), (&json!("new"), &indexes.0));
    assert_eq!(woken.json()[0]["Service"]["Tags"], Value::Null);
    assert_eq!(server.get("/v1/query").await.json().as_array().unwrap().len(), 2);
    let gone = server.delete(&path).await;
    assert_eq!((gone.status, gone.text().as_str()), (200, ""));
    for path in [path.clone(), "/v1/query/new/execute".into(), "/v1/query/new/explain".into()] {
        let answer = server.get(&path).await;
        assert_eq!((answer.status, answer.text().as_str()), (404, "Query not found"), "{path}");
    }
    let again = server.delete(&path).await;
    assert_eq!(
        (again.status, again.text()),
        (500, format!("Cannot modify non-existent prepared query: '{id}'"))
    );
}

#[tokio::test]
async fn what_is_wrong_is_refused_in_consuls_words() {
    let server = TestServer::start().await;
    let invalid = |text: &str| (500, format!("Invalid prepared query: {text}"));
    let with = |service: Value| json!({ "Name": "q", "Service": service });
    for (definition, expected) in [
        (json!({}), invalid("Must be bound to a session")),
        (json!({ "Service": { "Service": "a" } }), invalid("Must be bound to a session")),
        (json!({ "Name": "q" }), invalid("Must provide a Service name to query")),
        (with(json!({ "Service": "a", "Failover": { "NearestN": -1 } })), invalid("Bad NearestN '-1', must be >= 0")),
        (
            with(json!({ "Service": "a", "Failover": { "NearestN": 1, "Targets": [{ "Peer": "p" }] } })),
            invalid("Targets cannot be populated with NearestN or Datacenters"),
        ),
        (
            json!({ "Name": "q", "Service": { "Service": "a" }, "DNS": { "TTL": "5" } }),
            invalid("Bad DNS TTL '5': time: missing unit in duration \"5\""),
        ),
        (json!({ "Name": "q", "Service": { "Service": "a" }, "DNS": { "TTL": "-5s" } }), invalid("DNS TTL '-5s', must be >=0")),
        (with(json!({ "Service": "a", "Connect": true })), invalid("Connect is not served: Rollcall does discovery, not the service mesh")),
        (with(json!({ "Service": "a", "Namespace": "x" })), invalid("Namespaces are a Consul Enterprise feature")),
        (
            json!({ "Session": "nope", "Service": { "Service": "a" } }),
            (500, "raft apply failed: failed session lookup: index error: UUID must be 36 characters".into()),
        ),
        (
            json!({ "Session": "adf4238a-882b-9ddc-4a9d-5b6758e4159e", "Service": { "Service": "a" } }),
            (500, "raft apply failed: invalid session".into()),
        ),
        (json!({ "ID": "x", "Name": "q" }), (500, "ID must be empty when creating a new prepared query".into())),
        (
            json!({ "Name": "q", "Template": { "Type": "other" }, "Service": { "Service": "a" } }),
            (500, "raft apply failed: Bad Template.Type 'other'".into()),
        ),
        (
            json!({ "Template": { "Type": "name_prefix_match" }, "Service": { "Service": "${nope}" } }),
            (500, "raft apply failed: Bad format '${nope}' in Service.Service: ${nope} is none of ${name.full}, ${name.prefix}, ${name.suffix}, ${match(N)}, ${agent.segment}".into()),
        ),
        (json!({ "Nope": 1 }), (400, "Request decode failed: json: unknown field \"Nope\"".into())),
    ] {
        assert_eq!(server.refused(definition.clone()).await, expected, "{definition}");
    }
    let (status, text) = server
        .refused(json!({ "Template": { "Type": "name_prefix_match", "Regexp": "(" }, "Service": { "Service": "a" } }))
        .await;
    assert!(status == 500 && text.starts_with("raft apply failed: Bad Regexp: "), "{text}");
    assert_eq!(server.get("/v1/query").await.json(), json!([]), "nothing was kept");
    // Names and ids are one space.
    let id = server.prepare(json!({ "Name": "Taken", "Service": { "Service": "a" } })).await;
    for (name, what) in [("taken", "name"), (id.as_str(), "ID")] {
        let expected = (500, format!("raft apply failed: name '{name}' aliases an existing query {what}"));
        assert_eq!(server.refused(json!({ "Name": name, "Service": { "Service": "a" } })).await, expected);
    }
    let every = json!({ "Template": { "Type": "name_prefix_match" }, "Service": { "Service": "a" } });
    server.prepare(every.clone()).await;
    let expected = (500, "raft apply failed: a query template with an empty name already exists".to_owned());
    assert_eq!(server.refused(every).await, expected);
    let missing = "11111111-1111-1111-1111-111111111111";
    for (path, expected) in [
        ("nope", (500, "failed prepared query lookup: index error: UUID must be 36 characters".to_owned())),
        (missing, (404, "Query not found".to_owned())),
        ("x/execute?limit=z", (500, "Bad limit: strconv.Atoi: parsing \"z\": invalid syntax".to_owned())),
        ("x/execute?dc=dc2", (500, "No path to datacenter".to_owned())),
    ] {
        let answer = server.get(&format!("/v1/query/{path}")).await;
        assert_eq!((answer.status, answer.text()), expected, "{path}");
    }
    let put = server
        .put(&format!("/v1/query/{missing}"), json!({ "Name": "x", "Service": { "Service": "a" } }))
        .await;
    assert_eq!(
        (put.status, put.text()),
        (500, format!("Cannot modify non-existent prepared query: '{missing}'"))
    );
    for (method, path, allow) in [
        ("PUT", "/v1/query", "OPTIONS,GET,POST"),
        ("POST", "/v1/query/x", "OPTIONS,GET,PUT,DELETE"),
        ("PUT", "/v1/query/x/execute", "OPTIONS,GET"),
        ("DELETE", "/v1/query/x/explain", "OPTIONS,GET"),
    ] {
        let answer = request(server.http(), method, path, &[], "").await;
        let expected = (405, allow, format!("method {method} not allowed"));
        assert_eq!((answer.status, answer.header("allow"), answer.text()), expected, "{method} {path}");
    }
}

#[tokio::test]
async fn every_condition_counts_over_http_and_in_dns() {
    let server = TestServer::start().await;
    server.three().await;
    for (name, wanted, expected) in [
        ("all", json!({}), &["1", "2", "3"][..]),
        ("passing", json!({ "OnlyPassing": true }), &["1", "3"]),
        ("ignoring", json!({ "OnlyPassing": true, "IgnoreCheckIDs": ["c2"] }), &["1", "2", "3"]),
        ("tags", json!({ "Tags": ["REPLICA", "v1.2"] }), &["2"]),
        ("but", json!({ "Tags": ["replica", "!slow"] }), &["2"]),
        ("rack", json!({ "NodeMeta": { "rack": "r3" } }), &["3"]),
        ("shard", json!({ "ServiceMeta": { "shard": "s1" } }), &["1", "3"]),
        ("none", json!({ "Tags": ["nobody"] }), &[]),
    ] {
        let mut service = wanted;
        service["Service"] = json!("db");
        let id = server.prepare(json!({ "Name": name, "Service": service })).await;
        let of = |prefix: &str| expected.iter().map(|at| format!("{prefix}{at}")).collect::<BTreeSet<_>>();
        for by in [name, &id] {
            assert_eq!(server.executed(by).await, of("db-"), "{name}");
            for domain in ["query.internal.", "QUERY.dc1.consul."] {
                let answer = server.ask(&format!("{by}.{domain}"), RecordType::A).await;
                assert_eq!(addresses(&answer), of("10.1.0."), "{by}.{domain}");
                if expected.is_empty() {
                    assert_eq!(negative(&answer), ResponseCode::NoError, "the name exists");
                }
            }
        }
        let srv = server.ask(&format!("_{name}._tcp.query.internal."), RecordType::SRV).await;
        let ports = srv.answers.iter().map(|record| match &record.data {
            RData::SRV(srv) => srv.port.to_string(),
            other => panic!("{other}"),
        });
        assert_eq!(ports.collect::<BTreeSet<_>>(), of("543"), "{name}");
    }
    let whole = server.get("/v1/query/all/execute?limit=2").await;
    assert_eq!(ids(&whole.json()).len(), 2);
    let told = whole.json();
    for (key, value) in [
        ("Service", json!("db")),
        ("DNS", json!({ "TTL": "" })),
        ("Datacenter", json!("dc1")),
        ("Failovers", json!(0)),
        ("KnownLeader", json!(true)),
    ] {
        assert_eq!(told[key], value, "{key}");
    }
    let own = told["Nodes"][0]["Service"]["ID"].as_str().unwrap().replace("db-", "c");
    let checks = told["Nodes"][0]["Checks"].as_array().unwrap();
    assert!(checks.iter().any(|check| check["CheckID"] == own), "{checks:?}");
    assert_eq!(told["Index"].as_u64(), Some(whole.index()));
    assert_eq!(whole.header("x-consul-effective-consistency"), "leader");
    let texts = server.ask("all.query.internal.", RecordType::TXT).await;
    assert_eq!(texts.answers.len(), 2, "as the service's: {texts:?}");
    assert_eq!(
        server.ask("all.query.internal.", RecordType::MX).await.metadata.response_code,
        ResponseCode::NoError
    );
}

#[tokio::test]
async fn instances_come_in_every_order_or_the_nearest_first() {
    let server = TestServer::start().await;
    server.three().await;
    server.prepare(json!({ "Name": "any", "Service": { "Service": "db" } })).await;
    server.prepare(json!({ "Name": "near", "Service": { "Service": "db", "Near": "N3" } })).await;
    let (mut first, mut near) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..64 {
        first.insert(ids(&server.get("/v1/query/any/execute").await.json()).swap_remove(0));
        near.insert(ids(&server.get("/v1/query/near/execute").await.json()).swap_remove(0));
    }
    assert_eq!((first, near), (set(&["db-1", "db-2", "db-3"]), set(&["db-3"])));
    for (name, query, expected) in [
        ("near", "near=n2", "db-2"),
        ("any", "near=_agent", "db-1"),
        ("near", "near=_agent", "db-1"),
        ("any", "near=_agent&node=n2", "db-2"),
    ] {
        let found = ids(&server.get(&format!("/v1/query/{name}/execute?{query}")).await.json());
        assert_eq!(found[0], expected, "{name} {query}");
        let nearest = server.get(&format!("/v1/query/{name}/execute?{query}&limit=1")).await;
        assert_eq!(ids(&nearest.json()), [expected]);
    }
    let passed_on = [("x-forwarded-for", "10.0.0.2, 10.9.9.9")];
    let by_address = request(server.http(), "GET", "/v1/query/any/execute?near=_ip", &passed_on, "").await;
    assert_eq!(ids(&by_address.json())[0], "db-2");
    for _ in 0..16 {
        let answer = server.ask("near.query.internal.", RecordType::A).await;
        assert_eq!(answer.answers[0].data.to_string(), "10.1.0.3");
        let answer = server.ask("near.query.internal.", RecordType::SRV).await;
        assert!(answer.answers[0].data.to_string().contains("5433"), "{answer:?}");
    }
}

#[tokio::test]
async fn templates_answer_for_names_that_begin_like_theirs() {
    let server = TestServer::start().await;
    server.three().await;
    let template = |name: &str, regexp: &str, service: Value| {
        let terms = json!({ "Type": "name_prefix_match", "Regexp": regexp, "RemoveEmptyTags": true });
        json!({ "Name": name, "Template": terms, "Service": service })
    };
    server
        .prepare(template(
            "geo-",
            "^geo-(.*?)-([^\\-]*?)$",
            json!({ "Service": "${match(1)}", "Tags": ["${match(2)}"] }),
        ))
        .await;
    server.prepare(template("", "", json!({ "Service": "${name.full}" }))).await;
    server.prepare(template("geo-fixed", "", json!({ "Service": "db", "Tags": ["${name.suffix}"] }))).await;
    server
        .prepare(json!({ "Name": "geo-db-static", "Service": { "Service": "db", "OnlyPassing": true } }))
        .await;
    server
        .prepare(template(
            "dotted",
            "^dotted-(.+)[.](.+)$",
            json!({ "Service": "${match(2)}", "Tags": ["${match(1)}"] }),
        ))
        .await;
    for (name, service, tags, expected) in [
        ("geo-db-primary", "db", json!(["primary"]), &["db-1"][..]),
        ("geo-db-", "db", Value::Null, &["db-1", "db-2", "db-3"]),
        ("DB", "DB", Value::Null, &["db-1", "db-2", "db-3"]),
        ("geo-fixedreplica", "db", json!(["replica"]), &["db-2", "db-3"]),
        ("geo-db-static", "db", Value::Null, &["db-1", "db-3"]),
        ("dotted-slow.db", "db", json!(["slow"]), &["db-3"]),
        ("nobody", "nobody", Value::Null, &[]),
    ] {
        let told = server.get(&format!("/v1/query/{name}/explain")).await;
        let query = &told.json()["Query"];
        assert_eq!(
            (&query["Service"]["Service"], &query["Service"]["Tags"]),
            (&json!(service), &tags),
            "{name}"
        );
        assert_eq!(told.header("x-consul-lastcontact"), "0");
        assert_eq!(server.executed(name).await, set(expected), "{name}");
        let answer = server.ask(&format!("{name}.query.internal."), RecordType::SRV).await;
        assert_eq!(answer.answers.len(), expected.len(), "{name}: DNS agrees");
        if expected.is_empty() {
            assert_eq!(negative(&answer), ResponseCode::NoError, "a name below may match a template");
        }
    }
    let unknown = server.get("/v1/query/nobody/execute").await;
    assert_eq!(unknown.json()["Nodes"], json!([]));
}

#[tokio::test]
async fn names_that_lead_nowhere_do_not_exist_and_those_above_others_do() {
    let server = TestServer::start().await;
    server.three().await;
    server.prepare(json!({ "Name": "a.b.db", "Service": { "Service": "db" } })).await;
    server.prepare(json!({ "Name": "lost", "Service": { "Service": "nobody" } })).await;
    for (name, code) in [
        ("query", ResponseCode::NoError),
        ("_tcp.query", ResponseCode::NoError),
        ("db.query", ResponseCode::NoError),
        ("b.DB.query", ResponseCode::NoError),
        ("lost.query", ResponseCode::NoError),
        ("nope.query", ResponseCode::NXDomain),
        ("x.a.b.db.query", ResponseCode::NXDomain),
        ("a.db.query", ResponseCode::NXDomain),
        ("lost.query.dc2", ResponseCode::NXDomain),
    ] {
        assert_eq!(negative(&server.ask(&format!("{name}.internal."), RecordType::A).await), code, "{name}");
    }
    assert_eq!(server.ask("A.b.DB.query.internal.", RecordType::A).await.answers.len(), 3);
    // One label with dots in it is another name than three labels.
    assert_eq!(
        negative(&server.ask(r"a\.b\.db.query.internal.", RecordType::A).await),
        ResponseCode::NXDomain
    );
}

#[tokio::test]
async fn its_ttl_replaces_the_ceiling_and_never_outlives_a_check() {
    let server = TestServer::start().await;
    server.three().await;
    server
        .register(json!({
            "Name": "web", "Address": "10.2.0.1", "Check": { "TTL": "20s", "Status": "passing" },
        }))
        .await;
    for (name, service, ttl, expected) in
        [("long", "db", "1m", 60), ("none", "db", "", 5), ("zero", "db", "0s", 0), ("short", "web", "1m", 20)]
    {
        server
            .prepare(json!({ "Name": name, "Service": { "Service": service }, "DNS": { "TTL": ttl } }))
            .await;
        let answer = server.ask(&format!("{name}.query.internal."), RecordType::A).await;
        assert!(answer.answers.iter().all(|record| record.ttl == expected), "{name}: {answer:?}");
        assert_eq!(server.get(&format!("/v1/query/{name}/execute")).await.json()["DNS"]["TTL"], ttl);
    }
}

#[tokio::test]
async fn queries_outlive_the_server_and_stand_in_backups() {
    let server = TestServer::start().await;
    server.three().await;
    let id = server
        .prepare(json!({
            "Name": "kept", "Token": "secret", "Template": { "Type": "name_prefix_match", "Regexp": "^kept-(.*)$" },
            "Service": { "Service": "${match(1)}" }, "DNS": { "TTL": "7s" },
        }))
        .await;
    let gone = server.prepare(json!({ "Name": "gone", "Service": { "Service": "db" } })).await;
    server.delete(&format!("/v1/query/{gone}")).await;
    let before = server.get("/v1/query").await.json();
    let backup = server.get("/v1/rollcall/backup").await.text();
    assert!(backup.contains(&id) && !backup.contains(&gone), "{backup}");
    let server = server.restart().await;
    assert_eq!(server.get("/v1/query").await.json(), before);
    assert_eq!(server.executed("kept-db").await, set(&["db-1", "db-2", "db-3"]));
    assert_eq!(server.ask("kept-db.query.internal.", RecordType::A).await.answers.len(), 3);
    // And once more, from the database alone.
    let server = server.restart().await;
    assert_eq!(server.get("/v1/query").await.json(), before);
    let (loaded, _) = rollcall::store::read_backup(backup.as_bytes()).unwrap();
    let queries =
        loaded.records.iter().filter(|stored| format!("{:?}", stored.record).contains("PreparedQuery"));
    assert_eq!(queries.count(), 1);
    assert!(!format!("{:?}", loaded.records).contains("secret"), "a token is in no log");
}

#[tokio::test]
async fn the_limits_are_reached_counted_and_undone() {
    let server = TestServer::with(|config| {
        config.limits.queries_max = 2;
        config.limits.query_regexp_octets_max = 20_000;
        config.limits.definition_octets_max = 4_000;
    })
    .await;
    let plain = |name: &str| json!({ "Name": name, "Service": { "Service": "db" } });
    let first = server.prepare(plain("one")).await;
    let large = json!({ "Name": "large", "Service": { "Service": "x".repeat(5_000) } });
    let (status, text) = server.refused(large).await;
    assert!(status == 400 && text.contains("[limits] definition_octets_max"), "{text}");
    let greedy = json!({
        "Name": "greedy", "Template": { "Type": "name_prefix_match", "Regexp": r"^(\w{1,200}){1,9}$" },
        "Service": { "Service": "db" },
    });
    let (status, text) = server.refused(greedy).await;
    assert!(status == 500 && text.contains("size limit"), "{text}");
    server.prepare(plain("two")).await;
    let (status, text) = server.refused(plain("three")).await;
    assert_eq!(
        (status, text.as_str()),
        (400, "prepared queries: 3: at most 2 are allowed ([limits] queries_max)")
    );
    assert_eq!(server.metric("rollcall_limit_hits_total{limit=\"queries_max\"}").await, 1.0);
    assert_eq!(
        server.put(&format!("/v1/query/{first}"), plain("uno")).await.status,
        200,
        "changed, not added"
    );
    server.delete(&format!("/v1/query/{first}")).await;
    server.prepare(plain("three")).await;
    let long = "x".repeat(4_000);
    assert_eq!(server.get(&format!("/v1/query/{long}/execute")).await.status, 404);
}

#[tokio::test]
async fn many_at_once_make_one_of_each_name() {
    let server = TestServer::start().await;
    let made =
        (0..32).map(|_| server.post("/v1/query", json!({ "Name": "one", "Service": { "Service": "db" } })));
    let made = futures_util::future::join_all(made).await;
    assert_eq!(made.iter().filter(|answer| answer.status == 200).count(), 1);
    assert_eq!(server.get("/v1/query").await.json().as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn over_tcp_and_udp_and_of_any_type_answers_are_the_same() {
    let server = TestServer::start().await;
    server.three().await;
    server.prepare(json!({ "Name": "db", "Service": { "Service": "db" } })).await;
    for kind in [RecordType::A, RecordType::SRV, RecordType::TXT, RecordType::ANY, RecordType::AAAA] {
        let (named, direct) = (query("db.query.internal.", kind), query("db.service.internal.", kind));
        let [udp, tcp] = [ask(server.dns(), &named).await, ask_tcp(server.dns(), &named).await];
        let service = ask(server.dns(), &direct).await;
        assert_eq!(addresses(&udp), addresses(&tcp), "{kind}");
        assert_eq!(addresses(&udp), addresses(&service), "{kind}: as the service's");
        assert_eq!(udp.additionals.len(), service.additionals.len(), "{kind}");
    }
}
