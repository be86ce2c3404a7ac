//! A whole server in this process, and clients that speak to its sockets.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::header::{HOST, HeaderMap};
use hyper_util::rt::TokioIo;
use rollcall::Running;
use rollcall::config::{Config, Data};
use rollcall::model::ServiceName;
use rollcall::registry::Topic;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

/// How long anything may take before a test is hung rather than slow.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A server with a data directory of its own.
pub struct TestServer {
    pub running: Running,
    pub dir: TempDir,
}

/// An answer over HTTP.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn index(&self) -> u64 {
        self.header("x-consul-index").parse().unwrap()
    }
}

/// The defaults, on free ports of loopback, in a directory.
pub fn config(dir: &TempDir) -> Config {
    let mut config = Config::default();
    config.rename_node(&"n1".parse_name());
    config.data = Data::Dir(dir.path().join("data"));
    config.dns.listen = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
    config.http.listen = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
    config
}

trait ParseName {
    fn parse_name(&self) -> rollcall::model::NodeName;
}
impl ParseName for str {
    fn parse_name(&self) -> rollcall::model::NodeName {
        rollcall::model::NodeName::parse(self).unwrap()
    }
}

/// Starts, and waits for the one change that a start makes: our own node comes back from the store a moment after
/// everything else is there.
async fn start(config: Config) -> Running {
    let running = Box::pin(rollcall::start(config)).await.unwrap();
    let registry = running.registry();
    let nobody = Topic::Service(ServiceName::parse("nobody").unwrap());
    let begun = registry.snapshot().index_of(&nobody);
    registry.wait(&Topic::Nodes, begun, PATIENCE).await.unwrap();
    running
}

impl TestServer {
    /// With the defaults.
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// With changes to the defaults.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(&dir);
        change(&mut config);
        Self { running: start(config).await, dir }
    }

    /// Ends it as an operator would, and starts another on the same directory.
    pub async fn restart(self) -> Self {
        let Self { running, dir } = self;
        running.stop().await;
        Self::on(dir).await
    }

    /// The same, with changes to the defaults.
    pub async fn restart_with(self, change: impl FnOnce(&mut Config)) -> Self {
        let Self { running, dir } = self;
        Box::pin(running.stop()).await;
        let mut config = config(&dir);
        change(&mut config);
        Self { running: Box::pin(start(config)).await, dir }
    }

    /// On a directory that was another server's.
    pub async fn on(dir: tempfile::TempDir) -> Self {
        let config = config(&dir);
        Self { running: start(config).await, dir }
    }

    pub fn http(&self) -> SocketAddr {
        self.running.http[0]
    }

    pub fn dns(&self) -> SocketAddr {
        self.running.dns[0]
    }

    pub async fn get(&self, path: &str) -> Answer {
        request(self.http(), "GET", path, &[], "").await
    }

    pub async fn put(&self, path: &str, body: impl ToString) -> Answer {
        request(self.http(), "PUT", path, &[], &body.to_string()).await
    }

    /// Registers through the agent API; must be taken.
    pub async fn register(&self, definition: Value) {
        let answer = self.put("/v1/agent/service/register", &definition).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, ""), "{definition}");
    }

    /// An answer over UDP without EDNS.
    pub async fn ask(&self, name: &str, kind: RecordType) -> Message {
        ask(self.dns(), &query(name, kind)).await
    }

    /// The value of a metric, or the sum of its series that have these labels; 0 when it was never counted.
    pub async fn metric(&self, series: &str) -> f64 {
        metric(&self.get("/metrics").await.text(), series)
    }

    /// Waits until one of our own services' health changes past an index; the new answer.
    pub async fn wait(&self, path: &str, index: u64) -> Answer {
        let joint = if path.contains('?') { '&' } else { '?' };
        self.get(&format!("{path}{joint}index={index}&wait=20s")).await
    }

    /// Waits, by blocking queries, until a service's health entries are as wanted.
    pub async fn until(&self, service: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let path = format!("/v1/health/service/{service}");
        let whole = async {
            let mut answer = self.get(&path).await;
            while !wanted(&answer.json()) {
                answer = self.wait(&path, answer.index()).await;
            }
            answer.json()
        };
        tokio::time::timeout(PATIENCE, whole)
            .await
            .unwrap_or_else(|_| panic!("{service} never became as wanted"))
    }
}

/// The same in what /metrics showed.
pub fn metric(text: &str, series: &str) -> f64 {
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let labels = labels.trim_end_matches('}');
    let value = |line: &str| {
        let rest = line.strip_prefix(name)?;
        let (shown, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.rsplit_once("} ")?,
            None => ("", rest.strip_prefix(' ')?),
        };
        let has = |wanted: &str| wanted.is_empty() || format!("{shown},").contains(&format!("{wanted},"));
        labels.split(',').all(has).then(|| value.parse::<f64>().unwrap())
    };
    text.lines().filter_map(value).sum()
}

/// One request on one connection. No Content-Type, as curl's users send it.
pub async fn request(
    server: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let answer = tokio::time::timeout(PATIENCE, try_request(server, method, path, headers, body)).await;
    let answer = answer.unwrap_or_else(|_| panic!("{method} {path}: no answer"));
    answer.unwrap_or_else(|e| panic!("{method} {path}: {e}"))
}

/// The same of a server that may have gone.
pub async fn try_request(
    server: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(server).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the task that asks, so that who goes away is gone.
    let _connection = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
    let mut request = Request::builder().method(method).uri(path);
    if headers.iter().all(|(name, _)| !name.eq_ignore_ascii_case("host")) {
        request = request.header(HOST, server.to_string());
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from(body.to_owned())))?;
    let (parts, body) = sender.send_request(request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
}

/// What comes back on a connection until it is closed or the body of the first answer has come.
pub async fn raw(mut stream: TcpStream, sent: &str) -> String {
    let whole = async {
        stream.write_all(sent.as_bytes()).await.unwrap();
        read_answer(&mut stream).await
    };
    tokio::time::timeout(PATIENCE, whole).await.unwrap_or_else(|_| panic!("no end of the answer to {sent:?}"))
}

/// Reads one answer; empty when the connection is closed without one.
pub async fn read_answer(stream: &mut TcpStream) -> String {
    let mut got = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&got).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.to_ascii_lowercase();
            let length =
                length.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
            if length.is_some_and(|length: usize| body.len() >= length) {
                return text;
            }
        }
        match stream.read_buf(&mut got).await {
            Ok(0) | Err(_) => return text,
            Ok(_) => {}
        }
    }
}

/// A query with RD, without EDNS.
pub fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

/// The answer to a message over UDP.
pub async fn ask(server: SocketAddr, message: &Message) -> Message {
    let bytes = exchange(server, &message.to_vec().unwrap()).await;
    let answer = Message::from_vec(&bytes.expect("no answer")).unwrap();
    assert_eq!(answer.metadata.id, message.metadata.id);
    answer
}

/// The octets that come back over UDP; `None` when a later, good query is answered first: there is no answer then.
pub async fn exchange(server: SocketAddr, bytes: &[u8]) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind((server.ip(), 0)).await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(bytes).await.unwrap();
    // A question that is always answered, with an id of its own.
    let mut after = query("internal.", RecordType::SOA);
    while bytes.get(..2) == Some(&after.metadata.id.to_be_bytes()[..]) {
        after = query("internal.", RecordType::SOA);
    }
    socket.send(&after.to_vec().unwrap()).await.unwrap();
    // Both are waited for: what is on its way when a socket closes reaches whoever has its port next.
    let mut found = None;
    loop {
        let mut buffer = vec![0; 65_535];
        let received = tokio::time::timeout(PATIENCE, socket.recv(&mut buffer)).await;
        buffer.truncate(received.expect("no answer at all").unwrap());
        if buffer[..2] == after.metadata.id.to_be_bytes() {
            return found;
        }
        found = Some(buffer);
    }
}

/// The answer to a message over TCP, on a connection of its own.
pub async fn ask_tcp(server: SocketAddr, message: &Message) -> Message {
    let whole = async {
        let mut stream = TcpStream::connect(server).await.unwrap();
        let bytes = message.to_vec().unwrap();
        let framed = [&(bytes.len() as u16).to_be_bytes(), bytes.as_slice()].concat();
        stream.write_all(&framed).await.unwrap();
        read_tcp(&mut stream).await.expect("closed without an answer")
    };
    let bytes = tokio::time::timeout(PATIENCE, whole).await.expect("no answer over TCP");
    Message::from_vec(&bytes).unwrap()
}

/// The next framed message; `None` when the other end has closed.
pub async fn read_tcp(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let length = stream.read_u16().await.ok()?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await.ok()?;
    Some(bytes)
}
