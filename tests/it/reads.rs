//! How reads are asked and answered beside their content: methods, headers, form, and listings that are long.

use std::io::Read;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::server::{PATIENCE, TestServer, request};

/// Every read of the catalog and of health, with something to show.
const READS: [&str; 9] = [
    "/v1/catalog/nodes",
    "/v1/catalog/services",
    "/v1/catalog/service/web",
    "/v1/catalog/node/n1",
    "/v1/catalog/node-services/n1",
    "/v1/health/service/web",
    "/v1/health/checks/web",
    "/v1/health/node/n1",
    "/v1/health/state/any",
];

async fn world() -> TestServer {
    let server = TestServer::start().await;
    server
        .register(json!({ "Name": "web", "Port": 80, "Tags": ["a\"{}[],:\\", "b"], "Meta": { "k": "v" },
                            "Check": { "TTL": "1h", "Status": "passing" } }))
        .await;
    server
}

fn inflated(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(octets).read_to_end(&mut out).unwrap();
    out
}

#[tokio::test]
async fn every_read_has_its_methods_and_headers() {
    let server = world().await;
    for path in READS {
        let get = server.get(path).await;
        for (header, value) in [
            ("x-consul-lastcontact", "0"),
            ("x-consul-knownleader", "true"),
            ("x-consul-query-backend", "blocking-query"),
            ("x-consul-effective-consistency", "leader"),
            ("x-consul-default-acl-policy", "allow"),
            ("vary", "Accept-Encoding"),
            ("content-type", "application/json"),
            ("x-cache", ""),
            ("age", ""),
            ("content-encoding", ""),
        ] {
            assert_eq!(get.header(header), value, "{path} {header}");
        }
        assert!(get.status == 200 && get.index() > 0 && !get.body.ends_with(b"\n"), "{path}");
        let cached = server.get(&format!("{path}?cached")).await;
        assert_eq!((cached.header("x-cache"), cached.header("age")), ("HIT", "0"), "{path}");
        for (asked, consistency) in [("stale", "stale"), ("consistent", "consistent"), ("leader", "leader")] {
            let answer = server.get(&format!("{path}?{asked}&near=_agent&max_stale=5s")).await;
            assert_eq!(answer.header("x-consul-effective-consistency"), consistency, "{path}");
        }
        // HEAD is GET without the body, length and all.
        let head = request(server.http(), "HEAD", path, &[], "").await;
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        let of_all = |answer: &crate::server::Answer| {
            let mut headers = answer.headers.clone();
            // These are of one answer.
            headers.remove("date");
            headers.remove("x-request-id");
            headers
        };
        assert_eq!(of_all(&head), of_all(&get), "{path}");
        assert_eq!(head.header("content-length"), get.body.len().to_string(), "{path}");
        for wrong in ["PUT", "POST", "DELETE", "PATCH"] {
            let answer = request(server.http(), wrong, path, &[], "").await;
            assert_eq!(
                (answer.status, answer.text()),
                (405, format!("method {wrong} not allowed")),
                "{path}"
            );
            assert_eq!(answer.header("allow"), "OPTIONS,GET", "{path}");
        }
        let options = request(server.http(), "OPTIONS", path, &[], "").await;
        assert_eq!((options.status, options.header("allow"), options.body.len()), (200, "OPTIONS,GET", 0));
    }
    let datacenters = server.get("/v1/catalog/datacenters?cached").await;
    assert_eq!((datacenters.header("x-cache"), datacenters.header("x-consul-index")), ("HIT", ""));
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused_on_every_read() {
    let server = world().await;
    let enterprise = |what: &str, name: &str, feature: &str| {
        format!("Invalid {what}: {name:?} - {feature} are a Consul Enterprise feature")
    };
    for path in READS {
        for (query, status, text) in [
            ("ns=default", 400, enterprise("query parameter", "ns", "Namespaces")),
            ("partition=default", 400, enterprise("query parameter", "partition", "Partitions")),
            ("dc=dc9", 500, "No path to datacenter".into()),
            ("dc=dc1&datacenter=dc9", 500, "No path to datacenter".into()),
            ("index=18446744073709551616", 400, "Invalid index".into()),
            ("index=-1", 400, "Invalid index".into()),
            ("index=1&wait=10", 400, "Invalid wait time".into()),
            ("index=1&wait=10y", 400, "Invalid wait time".into()),
            ("max_stale=x", 400, "Invalid max_stale value \"x\"".into()),
            (
                "stale&consistent",
                400,
                "Cannot specify ?stale with ?consistent, conflicting semantics.".into(),
            ),
            (
                "cached&consistent",
                400,
                "Cannot specify ?cached with ?consistent, conflicting semantics.".into(),
            ),
        ] {
            let answer = server.get(&format!("{path}?{query}")).await;
            assert_eq!((answer.status, answer.text()), (status, text), "{path}?{query}");
            assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
        }
        for (header, value, text) in [
            ("x-consul-namespace", "default", enterprise("header", "X-Consul-Namespace", "Namespaces")),
            ("x-consul-partition", "default", enterprise("header", "X-Consul-Partition", "Partitions")),
            ("cache-control", "max-age=x", "Invalid Cache-Control header.".into()),
        ] {
            let answer = request(server.http(), "GET", path, &[(header, value)], "").await;
            assert_eq!((answer.status, answer.text()), (400, text), "{path} {header}");
        }
        let good = [("cache-control", "max-age=30, stale-if-error=60, no-cache")];
        assert_eq!(request(server.http(), "GET", path, &good, "").await.status, 200, "{path}");
        // Ten years are as long as the longest wait; nothing waits on an index that has passed.
        assert_eq!(server.get(&format!("{path}?index=1&wait=87600h")).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn the_indented_form_is_the_same_value_by_four_spaces() {
    let server = world().await;
    for path in READS.into_iter().chain(["/v1/agent/services", "/v1/agent/self", "/v1/status/peers"]) {
        let joint = if path.contains('?') { '&' } else { '?' };
        let (plain, pretty) = (server.get(path).await, server.get(&format!("{path}{joint}pretty")).await);
        let mut expected = Vec::new();
        let format = serde_json::ser::PrettyFormatter::with_indent(b"    ");
        serde::Serialize::serialize(
            &plain.json(),
            &mut serde_json::Serializer::with_formatter(&mut expected, format),
        )
        .unwrap();
        expected.push(b'\n');
        assert_eq!(pretty.text(), String::from_utf8(expected).unwrap(), "{path}");
        assert_eq!(pretty.header("content-length"), pretty.body.len().to_string());
    }
    let refused = server.get("/v1/health/service/?pretty").await;
    assert_eq!(refused.text(), "Missing service name", "a text is not indented");
}

#[tokio::test]
async fn long_answers_are_compressed_for_those_who_take_it() {
    let server = world().await;
    let gzip = [("accept-encoding", "gzip, deflate")];
    let short = request(server.http(), "GET", "/v1/status/peers", &gzip, "").await;
    assert_eq!((short.header("content-encoding"), short.header("vary")), ("", "Accept-Encoding"));
    for number in 0..20 {
        server.register(json!({ "Name": "web", "ID": format!("web-{number}") })).await;
    }
    for path in ["/v1/health/service/web", "/v1/agent/services?pretty", "/metrics"] {
        let plain = server.get(path).await;
        assert!(plain.body.len() > 1400 && plain.header("content-encoding").is_empty());
        let small = request(server.http(), "GET", path, &gzip, "").await;
        assert_eq!((small.status, small.header("content-encoding")), (200, "gzip"), "{path}");
        assert_eq!(small.header("content-length"), small.body.len().to_string());
        assert!(small.body.len() < plain.body.len() / 2, "{path}");
        let text = inflated(&small.body);
        if path.starts_with("/v1/") {
            assert_eq!(text, plain.body, "{path}");
        }
        let not = request(server.http(), "GET", path, &[("accept-encoding", "gzip;q=0")], "").await;
        assert_eq!(not.header("content-encoding"), "", "{path}");
    }
}

#[tokio::test]
async fn a_listing_of_thousands_comes_whole_in_every_form() {
    let server = TestServer::start().await;
    let count = 3000;
    for number in 0..count {
        let body = json!({ "Node": "n2", "Address": "10.0.0.2", "Service": { "Service": "web", "ID": format!("web-{number:05}"),
            "Tags": [format!("t{}", number % 7)], "Meta": { "n": number.to_string() } } });
        assert_eq!(server.put("/v1/catalog/register", body).await.text(), "true");
    }
    let gzip = [("accept-encoding", "gzip")];
    for path in ["/v1/health/service/web", "/v1/catalog/service/web", "/v1/catalog/node-services/n2"] {
        let rows = |value: &Value| value.get("Services").unwrap_or(value).as_array().unwrap().len();
        let plain = server.get(path).await;
        assert!(plain.body.len() > 500_000 && plain.header("content-length").is_empty(), "{path}");
        assert_eq!(rows(&plain.json()), count, "{path}");
        let small = request(server.http(), "GET", path, &gzip, "").await;
        assert_eq!(small.header("content-encoding"), "gzip");
        assert!(small.body.len() < plain.body.len() / 5);
        assert_eq!(inflated(&small.body), plain.body, "{path}");
        let pretty = request(server.http(), "GET", &format!("{path}?pretty"), &gzip, "").await;
        let pretty = inflated(&pretty.body);
        assert!(pretty.ends_with(b"}\n") || pretty.ends_with(b"]\n"), "{path}");
        assert_eq!(serde_json::from_slice::<Value>(&pretty).unwrap(), plain.json(), "{path}");
        let head = request(server.http(), "HEAD", path, &[], "").await;
        assert_eq!((head.status, head.body.len()), (200, 0));
    }
    let filter = "ServiceMeta.n%20matches%20%2272$%22%20and%20t1%20in%20ServiceTags";
    let some = server.get(&format!("/v1/catalog/service/web?filter={filter}")).await.json();
    let expected = (0..count).filter(|n| n % 100 == 72 && n % 7 == 1).count();
    assert_eq!((some.as_array().unwrap().len(), expected > 0), (expected, true));
}

#[tokio::test]
async fn tags_and_node_meta_are_all_asked_for() {
    let server = TestServer::start().await;
    for (node, rack, os) in [("n2", "1", "linux"), ("n3", "1", "bsd")] {
        let body = json!({ "Node": node, "Address": "10.0.0.2", "NodeMeta": { "rack": rack, "os": os, "u": "a:b" },
            "Service": { "Service": "web", "Tags": ["Blue", os] } });
        server.put("/v1/catalog/register", body).await;
    }
    for (query, count) in [
        ("tag=blue", 2),
        ("tag=blue&tag=BSD", 1),
        ("tag=blue&tag=green", 0),
        ("node-meta=rack:1", 2),
        ("node-meta=rack:1&node-meta=os:bsd", 1),
        ("node-meta=rack:1&node-meta=os:other", 0),
        ("node-meta=u:a:b", 2),
        ("node-meta=rack", 0),
    ] {
        for path in ["/v1/catalog/service/web", "/v1/health/service/web"] {
            let answer = server.get(&format!("{path}?{query}")).await;
            assert_eq!(answer.json().as_array().unwrap().len(), count, "{path}?{query}");
        }
    }
    let nodes = server.get("/v1/catalog/nodes?node-meta=rack:1&node-meta=os:bsd").await.json();
    assert_eq!((nodes.as_array().unwrap().len(), &nodes[0]["Node"]), (1, &json!("n3")));
}

#[tokio::test]
async fn a_node_is_found_by_a_part_of_its_id_that_no_other_has() {
    let server = TestServer::start().await;
    for (node, id) in
        [("n2", "40e4a748-2192-161a-0510-9bf59fe950b5"), ("n3", "40e4ffff-2192-161a-0510-9bf59fe950b5")]
    {
        server.put("/v1/catalog/register", json!({ "Node": node, "ID": id, "Address": "10.0.0.2" })).await;
    }
    for (asked, found) in [
        ("40e4a", "n2"),
        ("40E4F", "n3"),
        ("40e4a748-2192-161a-0510-9bf59fe950b5", "n2"),
        ("N2", "n2"),
        ("40e4", ""),
        ("4", ""),
        ("40e4b", ""),
    ] {
        let node = server.get(&format!("/v1/catalog/node/{asked}")).await.json();
        assert_eq!(node["Node"]["Node"].as_str().unwrap_or(""), found, "{asked}");
    }
}

#[tokio::test]
async fn a_client_that_reads_nothing_keeps_no_listing() {
    let server = TestServer::with(|config| config.http.write_wait = Duration::from_millis(300)).await;
    let meta: serde_json::Map<String, Value> =
        (0..60).map(|n| (format!("k{n}"), json!("x".repeat(500)))).collect();
    for number in 0..300 {
        let body = json!({ "Node": "n2", "Address": "10.0.0.2",
            "Service": { "Service": "web", "ID": format!("web-{number}"), "Meta": meta } });
        assert_eq!(server.put("/v1/catalog/register", body).await.text(), "true");
    }
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(server.http()).await.unwrap();
    stream.write_all(b"GET /v1/catalog/service/web HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let cut = async {
        while server.metric("rollcall_http_refused_total{reason=\"slow reader\"}").await != 1.0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, cut).await.expect("it is never left");
    let mut got = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut got))
        .await
        .expect("the connection has no end");
    assert!(
        got.starts_with(b"HTTP/1.1 200") && !got.ends_with(b"0\r\n\r\n"),
        "the answer does not look whole"
    );
    let others = server.get("/v1/catalog/service/web").await.json();
    assert_eq!(others.as_array().unwrap().len(), 300, "who reads gets it");
}
