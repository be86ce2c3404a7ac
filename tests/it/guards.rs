//! A browser is no way in: Host, Origin, and no CORS.

use serde_json::json;

use crate::server::{TestServer, raw, request};

#[tokio::test]
async fn a_page_whose_name_points_here_can_neither_read_nor_write() {
    let server = TestServer::start().await;
    server.register(json!({ "Name": "web" })).await;
    let before = crate::http::catalog(&server).await;
    for host in [
        "evil.example",
        "evil.example:8500",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "[::1]evil.example",
    ] {
        for (method, path) in [
            ("GET", "/v1/catalog/services"),
            ("GET", "/metrics"),
            ("PUT", "/v1/agent/service/deregister/web"),
            ("OPTIONS", "/v1/agent/service/register"),
        ] {
            let answer = request(server.http(), method, path, &[("host", host)], "").await;
            assert_eq!(answer.status, 403, "{host} {method} {path}");
            assert!(answer.text().contains("[http] allowed_hosts"), "{}", answer.text());
        }
    }
    assert_eq!(crate::http::catalog(&server).await, before);
    assert_eq!(server.metric("rollcall_http_refused_total{reason=\"guard\"}").await, 20.0);
    for host in ["localhost:1", "127.0.0.1", "[::1]:8500", "N1", "n1.:8500"] {
        let answer = request(server.http(), "GET", "/v1/catalog/services", &[("host", host)], "").await;
        assert_eq!(answer.status, 200, "{host}");
    }
}

#[tokio::test]
async fn the_hosts_that_are_allowed_are_let_in() {
    let server = TestServer::with(|config| config.http.allowed_hosts = vec!["roll.example.com".into()]).await;
    let asked =
        async |host| request(server.http(), "GET", "/v1/status/leader", &[("host", host)], "").await.status;
    assert_eq!((asked("Roll.Example.com:80").await, asked("example.com").await), (200, 403));
}

#[tokio::test]
async fn writes_of_another_sites_page_are_refused() {
    let server = TestServer::start().await;
    let before = crate::http::catalog(&server).await;
    let here = format!("http://{}", server.http());
    let body = json!({ "Name": "web" }).to_string();
    for (headers, status) in [
        (vec![("origin", "http://evil.example")], 403),
        (vec![("origin", "null")], 403),
        (vec![("sec-fetch-site", "cross-site")], 403),
        // What a form of another page can send without asking first.
        (vec![("origin", "https://evil.example"), ("content-type", "text/plain")], 403),
    ] {
        let answer = request(server.http(), "PUT", "/v1/agent/service/register", &headers, &body).await;
        assert_eq!(answer.status, status, "{headers:?}");
    }
    assert_eq!(crate::http::catalog(&server).await, before);
    let same = [("origin", here.as_str())];
    let answer = request(server.http(), "PUT", "/v1/agent/service/register", &same, &body).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn no_answer_allows_another_origin_to_read_it() {
    let server = TestServer::start().await;
    let asked = [("origin", "http://evil.example"), ("access-control-request-method", "PUT")];
    for (method, path) in [
        ("GET", "/v1/catalog/services"),
        ("OPTIONS", "/v1/agent/service/register"),
        ("PUT", "/v1/agent/service/register"),
        ("GET", "/nope"),
    ] {
        let answer = request(server.http(), method, path, &asked, "").await;
        let cors: Vec<_> =
            answer.headers.keys().filter(|name| name.as_str().starts_with("access-control")).collect();
        assert!(cors.is_empty(), "{method} {path}: {cors:?}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
}

#[tokio::test]
async fn a_request_that_names_a_foreign_target_is_refused() {
    let server = TestServer::start().await;
    let stream = tokio::net::TcpStream::connect(server.http()).await.unwrap();
    let sent = "GET http://evil.example/v1/catalog/services HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    let answer = raw(stream, sent).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
}
