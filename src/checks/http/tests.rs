//! HTTP probes against servers that say what the test tells them to, octet for octet.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Answered, Asked, Stream, probe};
use crate::checks::tests::tools;
use crate::model::{ProbeTls, Status};

/// A server that gives each request the next answer, over as many connections as it takes. An empty answer closes the
/// connection instead.
struct Scripted {
    address: SocketAddr,
    requests: mpsc::UnboundedReceiver<String>,
}

impl Scripted {
    async fn start(answers: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, requests) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut answers = answers.into_iter();
            while let Ok((mut stream, _)) = listener.accept().await {
                while let Some(request) = read_request(&mut stream).await {
                    let _ = seen.send(request);
                    let answer = answers.next().unwrap_or_default();
                    if answer.is_empty() {
                        break;
                    }
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        });
        Self { address, requests }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The requests so far.
    fn requests(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.requests.try_recv().ok()).collect()
    }
}

/// One request with its body; `None` at the end of the connection.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut text = String::new();
    let mut octets = [0; 1024];
    loop {
        let count = stream.read(&mut octets).await.ok().filter(|count| *count > 0)?;
        text.push_str(std::str::from_utf8(&octets[..count]).unwrap());
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
            return Some(text);
        }
    }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn to(status: u16, location: &str) -> String {
    format!("HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n")
}

/// A check as it is when nothing but the URL is given.
struct Given {
    url: String,
    method: &'static str,
    header: BTreeMap<String, Vec<String>>,
    body: &'static str,
    follow_redirects: bool,
    output_max: usize,
    timeout: Duration,
}

impl Given {
    fn new(url: impl Into<String>) -> Self {
        let timeout = Duration::from_secs(10);
        let (method, body, header) = ("GET", "", BTreeMap::new());
        Self { url: url.into(), method, header, body, follow_redirects: true, output_max: 4096, timeout }
    }

    fn header(mut self, name: &str, value: &str) -> Self {
        self.header.entry(name.into()).or_default().push(value.into());
        self
    }

    async fn probe(&self, kept: Option<Stream>) -> Answered {
        let Self { url, method, header, body, follow_redirects, output_max, timeout } = self;
        let (follow_redirects, output_max, tls) = (*follow_redirects, *output_max, &ProbeTls::default());
        let asked = Asked { url, method, header, body, follow_redirects, tls, output_max, traceparent: None };
        probe(&asked, kept, tools(), Instant::now() + *timeout).await
    }
}

#[tokio::test]
async fn asks_as_consul_does_and_keeps_the_connection() {
    let mut server = Scripted::start(vec![ok("fine"), ok("again")]).await;
    let check = Given::new(server.url("/health?deep=1"));
    let first = check.probe(None).await;
    let wanted = format!("HTTP GET {}: 200 OK Output: fine", check.url);
    assert_eq!((first.finding.status, first.finding.output), (Status::Passing, wanted));
    let second = check.probe(first.stream).await;
    assert!(second.finding.output.ends_with("Output: again") && !second.again);
    let host = server.address;
    let wanted = format!(
        "GET /health?deep=1 HTTP/1.1\r\nhost: {host}\r\nuser-agent: Consul Health Check\r\naccept: text/plain, text/*, */*\r\n\r\n"
    );
    assert_eq!(server.requests(), [wanted.clone(), wanted]);
}

#[tokio::test]
async fn who_hangs_up_behind_an_answer_without_saying_so_is_told_of() {
    for (header, told) in [("", true), ("Connection: close\r\n", false)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0, "a request");
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{header}\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let answered = Given::new(url).probe(None).await;
        assert_eq!((answered.finding.status, answered.stream.is_none()), (Status::Passing, true));
        assert_eq!(answered.cut_off, told, "{header}");
    }
}

#[tokio::test]
async fn sends_what_the_check_says() {
    let mut server = Scripted::start(vec![ok("")]).await;
    let url = format!("http://us%40er:pass@{}", server.address);
    let mut check = Given::new(url).header("Host", "web.example").header("X-Two", "a").header("X-Two", "b");
    check =
        check.header("user-agent", "mine").header("Content-Length", "99").header("Transfer-Encoding", "x");
    (check.method, check.body) = ("POST", "{}");
    assert_eq!(check.probe(None).await.finding.status, Status::Passing);
    let request = server.requests().remove(0);
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST / HTTP/1.1\r\n") && body == "{}", "{request}");
    for line in [
        "host: web.example",
        "x-two: a",
        "x-two: b",
        "user-agent: mine",
        "authorization: Basic dXNAZXI6cGFzcw==",
    ] {
        assert!(head.lines().any(|l| l == line), "no {line:?} in {head}");
    }
    let lengths: Vec<_> = head.lines().filter(|line| line.starts_with("content-length")).collect();
    assert_eq!(lengths, ["content-length: 2"]);
    assert!(!head.contains("transfer-encoding"));
}

#[tokio::test]
async fn judges_by_the_status() {
    let table = [
        ("200 OK", Status::Passing),
        ("204 No Content", Status::Passing),
        ("299 Odd But Fine", Status::Passing),
        ("429 Too Many Requests", Status::Warning),
        ("301 Moved Nowhere", Status::Critical),
        ("404 Not Found", Status::Critical),
        ("503 Busy", Status::Critical),
    ];
    for (line, status) in table {
        let server = Scripted::start(vec![format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n")]).await;
        let finding = Given::new(server.url("/")).probe(None).await.finding;
        assert_eq!(finding.status, status, "{line}");
        assert_eq!(finding.output, format!("HTTP GET {}: {line} Output: ", server.url("/")));
    }
}

#[tokio::test]
async fn says_in_gos_words_why_there_was_no_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let refused = Given::new(format!("http://{address}/")).probe(None).await;
    let text = format!("Get \"http://{address}/\": dial tcp {address}: connect: connection refused");
    assert_eq!((refused.finding.output, refused.finding.refused), (text, true));
    let server = Scripted::start(vec![]).await;
    let closed = Given::new(server.url("/")).probe(None).await.finding;
    assert_eq!((closed.output, closed.refused), (format!("Get {:?}: EOF", server.url("/")), false));
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut check = Given::new(format!("http://{}/", silent.local_addr().unwrap()));
    check.timeout = Duration::from_millis(50);
    let answered = check.probe(None).await;
    assert!(answered.timed_out && answered.finding.output.contains("context deadline exceeded"));
    for url in ["no url", "http://", "http://h:99999/", "file:///etc/passwd"] {
        let finding = Given::new(url).probe(None).await.finding;
        assert!(finding.output.starts_with(&format!("Get {url:?}: ")), "{}", finding.output);
        assert_eq!(finding.status, Status::Critical);
    }
}

#[tokio::test]
async fn follows_redirects_as_go_does() {
    // A 302 turns a POST into a GET without a body; a relative place keeps the check's own host.
    let mut server = Scripted::start(vec![to(302, "/b"), ok("here")]).await;
    let mut check = Given::new(server.url("/a")).header("Host", "web.example");
    (check.method, check.body) = ("POST", "{}");
    let answered = check.probe(None).await;
    assert!(answered.finding.output.ends_with("200 OK Output: here") && answered.stream.is_some());
    let requests = server.requests();
    assert!(requests[1].starts_with("GET /b HTTP/1.1\r\nhost: web.example\r\n"), "{}", requests[1]);
    assert!(!requests[1].contains("{}"));
    // A 307 keeps both; an absolute place names its host.
    let mut server = Scripted::start(vec![]).await;
    let place = server.url("/c");
    let mut first = Scripted::start(vec![to(307, &place)]).await;
    let mut check =
        Given::new(first.url("/a")).header("Host", "web.example").header("Authorization", "secret");
    (check.method, check.body) = ("PUT", "{}");
    let answered = check.probe(None).await;
    assert_eq!(answered.finding.output, format!("Put {place:?}: EOF"));
    let request = server.requests().remove(0);
    assert!(
        request.starts_with(&format!(
            "PUT /c HTTP/1.1\r\nauthorization: secret\r\nhost: {}\r\n",
            server.address
        ))
    );
    assert!(request.ends_with("{}") && first.requests().len() == 1);
}

#[tokio::test]
async fn a_redirect_to_another_host_gets_no_secrets() {
    let mut server = Scripted::start(vec![ok("")]).await;
    let elsewhere = format!("http://localhost:{}/", server.address.port());
    let first = Scripted::start(vec![to(302, &elsewhere)]).await;
    let check = Given::new(first.url("/")).header("Authorization", "secret").header("Cookie", "secret");
    let answered = check.header("X-Plain", "sent").probe(None).await;
    assert_eq!(answered.finding.status, Status::Passing, "{}", answered.finding.output);
    assert!(answered.stream.is_none(), "the connection to another target says nothing of this one");
    let request = server.requests().remove(0);
    assert!(!request.contains("secret") && request.contains("x-plain: sent"), "{request}");
}

#[tokio::test]
async fn redirects_end() {
    let mut server = Scripted::start(vec![to(302, "/"); 20]).await;
    let finding = Given::new(server.url("/")).probe(None).await.finding;
    assert_eq!(finding.output, format!("Get {:?}: stopped after 10 redirects", server.url("/")));
    assert_eq!(server.requests().len(), 11);
    let server = Scripted::start(vec![to(302, "/"), to(301, "ftp://elsewhere/"), to(303, "http://[")]).await;
    let mut check = Given::new(server.url("/"));
    check.follow_redirects = false;
    let answered = check.probe(None).await;
    assert_eq!(answered.finding.output, format!("HTTP GET {}: 302 Moved Output: ", check.url));
    check.follow_redirects = true;
    let answered = check.probe(answered.stream).await;
    assert!(answered.finding.output.ends_with("unsupported protocol scheme \"ftp\""));
    let finding = check.probe(None).await.finding;
    assert!(finding.output.contains("failed to parse Location header \"http://[\""), "{}", finding.output);
}

#[tokio::test]
async fn a_body_is_read_as_far_as_it_is_shown() {
    let fits = Scripted::start(vec![ok(&"x".repeat(64))]).await;
    let mut check = Given::new(fits.url("/"));
    check.output_max = 64;
    let answered = check.probe(None).await;
    assert!(answered.finding.output.ends_with(&format!("Output: {}", "x".repeat(64))));
    assert!(answered.stream.is_some());
    let more = Scripted::start(vec![ok(&"x".repeat(65))]).await;
    check.url = more.url("/");
    let answered = check.probe(None).await;
    assert!(answered.finding.output.ends_with(&format!("Output: {}", "x".repeat(64))));
    assert!(answered.stream.is_none(), "what is left of a body is not read");
}

#[tokio::test]
async fn an_endless_body_does_no_harm() {
    // One that floods: the server is stopped by its full socket, the probe does not read on.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let flood = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let mut sent = 0;
        while stream.write_all(&[b'x'; 1 << 16]).await.is_ok() {
            sent += 1 << 16;
        }
        sent
    });
    let answered = Given::new(url).probe(None).await;
    assert_eq!(answered.finding.status, Status::Passing);
    assert!(answered.finding.output.len() < 4200 && answered.stream.is_none());
    let sent = flood.await.unwrap();
    assert!(sent < 64 << 20, "{sent}");
    // One that drips: its status came in time.
    let drip = Scripted::start(vec!["HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\ndrop".into()]).await;
    let mut check = Given::new(drip.url("/"));
    check.timeout = Duration::from_millis(200);
    let answered = check.probe(None).await;
    assert_eq!(answered.finding.output, format!("HTTP GET {}: 200 OK Output: drop", check.url));
    assert!(answered.finding.status == Status::Passing && answered.stream.is_none());
}

#[tokio::test]
async fn nothing_is_kept_when_the_server_does_not_want_it() {
    for answer in [
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nOK",
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nOK",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK and more",
    ] {
        let server = Scripted::start(vec![answer.into()]).await;
        let answered = Given::new(server.url("/")).probe(None).await;
        assert!(answered.finding.output.ends_with("Output: OK"), "{}", answered.finding.output);
        assert!(answered.stream.is_none(), "{answer}");
    }
}

#[tokio::test]
async fn a_kept_connection_that_was_just_closed_is_no_failure() {
    // The second request finds its connection closed (an empty answer) and is sent again.
    let mut server = Scripted::start(vec![ok("one"), String::new(), ok("two")]).await;
    let check = Given::new(server.url("/"));
    let first = check.probe(None).await;
    let second = check.probe(first.stream).await;
    assert!(second.again && second.finding.output.ends_with("Output: two"), "{}", second.finding.output);
    assert_eq!(server.requests().len(), 3);
    // One that is sent on a fresh connection is not.
    let server = Scripted::start(vec![String::new(), ok("")]).await;
    let answered = Given::new(server.url("/")).probe(None).await;
    assert!(!answered.again && answered.finding.status == Status::Critical);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever a target answers, the probe ends with a finding, and only a 2xx passes.
    #[test]
    fn any_answer_is_a_finding(
        begins in prop_oneof![Just(""), Just("HTTP/1.1 "), Just("HTTP/1.1 200 OK\r\n"), Just("HTTP/1.1 302 Found\r\nLocation: ")],
        octets in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let finding = runtime.block_on(async {
            // Port 1 of this address is nobody's: a second try is refused.
            let check = Given::new("http://127.66.6.6:1/");
            let (ours, mut theirs) = tokio::io::duplex(4096);
            theirs.write_all(begins.as_bytes()).await.unwrap();
            theirs.write_all(&octets).await.unwrap();
            theirs.shutdown().await.unwrap();
            check.probe(Some(Box::new(ours))).await.finding
        });
        let good = finding.output.starts_with("HTTP GET http://127.66.6.6:1/: 2");
        prop_assert_eq!(finding.status == Status::Passing, good, "{}", finding.output);
    }
}

#[test]
fn a_connection_is_for_one_server_and_one_way_to_trust_it() {
    let tls = |skip_verify, server_name: &str| ProbeTls { skip_verify, server_name: server_name.into() };
    let plain = tls(false, "");
    let of = |url: &str, tls: &ProbeTls| super::target(url, tls).unwrap();
    assert_eq!(of("http://web.test/a", &plain), of("HTTP://us:pw@WEB.test:80/b?c", &tls(true, "x")));
    let different = [
        of("http://web.test/", &plain),
        of("http://web.test:81/", &plain),
        of("https://web.test/", &plain),
        of("https://web.test/", &tls(true, "")),
        of("https://web.test/", &tls(false, "other.test")),
        of("https://web.test:80/", &plain),
    ];
    let set: std::collections::HashSet<_> = different.iter().collect();
    assert_eq!(set.len(), different.len());
}
