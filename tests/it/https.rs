//! HTTPS: who is let in, with what, and what becomes of those who are there when files change.

pub mod authority;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rollcall::config::Config;
use rollcall::tls::{Files, Version};
use rustls::{HandshakeKind, ProtocolVersion};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use self::authority::{Authority, Identity};
use crate::daemon::{Daemon, run};
use crate::server::{Answer, PATIENCE, TestServer};

const REFUSED: &str = "rollcall_http_refused_total";

/// A server with HTTPS beside the plain port, and its authority.
async fn server(change: impl FnOnce(&mut Config, &Authority)) -> (TestServer, Authority) {
    let authority = Authority::new("servers");
    authority.issue("127.0.0.1").write(authority.dir.path(), "server");
    let server = TestServer::with(|config| {
        config.https.listen = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
        config.https.files = files(authority.dir.path());
        change(config, &authority);
    });
    (server.await, authority)
}

fn files(dir: &Path) -> Files {
    Files { cert: dir.join("server.pem"), key: dir.join("server.key"), ..Files::default() }
}

async fn connect(
    to: SocketAddr,
    settings: Arc<rustls::ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(to).await?;
    let name = rustls::pki_types::ServerName::from(to.ip());
    let mut stream = TlsConnector::from(settings).connect(name, stream).await?;
    stream.flush().await?;
    Ok(stream)
}

/// A connection that requests can be sent on, one after the other.
struct Line(SendRequest<Full<Bytes>>);

impl Line {
    async fn open(to: SocketAddr, settings: Arc<rustls::ClientConfig>) -> Result<Self, String> {
        let stream = connect(to, settings).await.map_err(|e| e.to_string())?;
        let made = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = made.map_err(|e| e.to_string())?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    async fn ask(&mut self, method: &str, path: &str, body: &str) -> Result<Answer, String> {
        let request = Request::builder().method(method).uri(path).header("host", "127.0.0.1");
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
        let answer = async {
            let (parts, body) = self.0.send_request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok::<_, hyper::Error>(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
        };
        let answer = tokio::time::timeout(PATIENCE, answer).await.expect("no answer and no end");
        answer.map_err(|e| format!("{e:?}"))
    }
}

/// One request on a connection of its own; the error where there is no answer.
async fn get(to: SocketAddr, settings: Arc<rustls::ClientConfig>, path: &str) -> Result<Answer, String> {
    Line::open(to, settings).await?.ask("GET", path, "").await
}

async fn refused(server: &TestServer, kind: &str) -> f64 {
    server.metric(&format!("{REFUSED}{{reason=\"{kind}\"}}")).await
}

#[tokio::test]
async fn the_api_is_the_same_over_either_version() {
    let (server, authority) = server(|_, _| {}).await;
    let to = server.running.https[0];
    for (number, version) in [&rustls::version::TLS12, &rustls::version::TLS13].into_iter().enumerate() {
        let settings = authority.trusting(None, &[version], &[b"h2", b"http/1.1"]);
        let stream = connect(to, settings.clone()).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        let mut line = Line::open(to, settings).await.unwrap();
        let body = json!({ "Name": format!("web{number}"), "Port": 80 }).to_string();
        let answer = line.ask("PUT", "/v1/agent/service/register", &body).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let over_plain = server.get("/v1/agent/services").await.json();
    assert!(over_plain["web0"].is_object() && over_plain["web1"].is_object(), "{over_plain}");
}

#[tokio::test]
async fn the_least_version_holds_and_the_plain_port_can_be_closed() {
    let (server, authority) = server(|config, _| {
        config.https.files.min_version = Version::Tls13;
        config.http.listen = Vec::new();
    })
    .await;
    assert!(server.running.http.is_empty());
    let to = server.running.https[0];
    let old = authority.trusting(None, &[&rustls::version::TLS12], &[]);
    let why = connect(to, old).await.unwrap_err().to_string();
    assert!(why.contains("ProtocolVersion"), "{why}");
    let new = authority.trusting(None, &[&rustls::version::TLS13], &[]);
    let stream = connect(to, new.clone()).await.unwrap();
    assert_eq!(stream.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    let metrics = get(to, new, "/metrics").await.unwrap().text();
    assert!(metrics.contains(&format!("{REFUSED}{{reason=\"handshake\"}} 1")), "{metrics}");
    server.running.stop().await;
    assert!(TcpStream::connect(to).await.is_err());
}

#[tokio::test]
async fn only_clients_of_the_right_authority_are_let_in() {
    let clients = Authority::new("clients");
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("audit.log");
    let (server, authority) = server(|config, _| {
        config.https.files.client_ca = Some(clients.write_ca("clients.pem"));
        config.audit.file = Some(log.clone());
    })
    .await;
    let to = server.running.https[0];
    let as_client = |identity: Option<&Identity>| authority.trusting(identity, authority::BOTH, &[]);
    let good = clients.issue("client");
    let register = json!({ "Name": "web" }).to_string();
    let mut line = Line::open(to, as_client(Some(&good))).await.unwrap();
    assert_eq!(line.ask("GET", "/v1/agent/services", "").await.unwrap().status, 200);
    let passed = line.ask("PUT", "/v1/agent/service/register", &json!({ "Name": "db" }).to_string()).await;
    assert_eq!(passed.unwrap().status, 200);
    assert_eq!(line.ask("PUT", "/v1/agent/service/deregister/db", "").await.unwrap().status, 200);

    let strangers = Authority::new("strangers");
    let stranger = strangers.issue("client");
    // Of the right name, and by another key.
    let forger = Authority::new("clients").issue("client");
    let old = clients.issue_dated("client", 2010, 2015);
    let before = refused(&server, "handshake").await;
    for (number, identity) in [None, Some(&stranger), Some(&forger), Some(&old)].into_iter().enumerate() {
        for version in authority::BOTH {
            let settings = authority.trusting(identity, &[version], &[]);
            let outcome = match Line::open(to, settings).await {
                Ok(mut line) => {
                    line.ask("PUT", "/v1/agent/service/register", &register).await.map(|a| a.status)
                }
                Err(error) => Err(error),
            };
            assert!(outcome.is_err(), "{number}: {outcome:?}");
        }
    }
    assert_eq!(refused(&server, "handshake").await, before + 8.0);
    assert_eq!(server.get("/v1/agent/services").await.json(), json!({}));
    // A resumed session would not be verified, so there is none.
    let settings = as_client(Some(&good));
    for _ in 0..2 {
        let mut stream = connect(to, settings.clone()).await.unwrap();
        stream
            .write_all(b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        stream.read_to_end(&mut Vec::new()).await.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    }
    // Who did it is who the certificate says.
    server.running.stop().await;
    let audited = std::fs::read_to_string(log).unwrap();
    let subjects: Vec<Value> = audited.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(subjects.len(), 2, "{audited}");
    assert!(subjects.iter().all(|line| line["tls.client.subject"] == "CN=client"), "{audited}");
}

#[tokio::test]
async fn who_is_revoked_is_refused_and_at_a_reload_cut_off() {
    let clients = Authority::new("clients");
    let (first, second) = (clients.issue("first"), clients.issue("second"));
    let crl = clients.revoke(&[&second], "clients.crl");
    let mut config = None;
    let (mut server, authority) = server(|started, _| {
        started.https.files.client_ca = Some(clients.write_ca("clients.pem"));
        started.https.files.client_crl = Some(crl);
        config = Some(started.clone());
    })
    .await;
    let (to, config) = (server.running.https[0], config.unwrap());
    let settings = |who: &Identity| authority.trusting(Some(who), authority::BOTH, &[]);
    assert!(get(to, settings(&second), "/health").await.is_err());
    assert_eq!(refused(&server, "revoked certificate").await, 1.0);
    let third = clients.issue("third");
    let mut kept = Line::open(to, settings(&first)).await.unwrap();
    let mut other = Line::open(to, settings(&third)).await.unwrap();
    for line in [&mut kept, &mut other] {
        assert_eq!(line.ask("GET", "/health", "").await.unwrap().status, 200);
    }

    // One who waits is cut off, too.
    let mut waiting = Line::open(to, settings(&first)).await.unwrap();
    let index = waiting.ask("GET", "/v1/catalog/services", "").await.unwrap().index();
    let waits = tokio::spawn(async move {
        waiting
            .ask("GET", &format!("/v1/catalog/services?wait=10m&index={index}"), "")
            .await
            .map(|a| a.status)
    });
    clients.revoke(&[&first, &second], "clients.crl");
    server.running.reload(config.clone()).await.unwrap();
    assert!(waits.await.unwrap().is_err());
    assert!(kept.ask("GET", "/health", "").await.is_err());
    assert!(get(to, settings(&first), "/health").await.is_err());
    assert_eq!(other.ask("GET", "/health", "").await.unwrap().status, 200, "whoever is not on it stays");
    assert!(refused(&server, "revoked certificate").await >= 4.0);

    // A list of another authority answers for nobody here.
    Authority::new("others").revoke_at(&[], &clients.dir.path().join("clients.crl"));
    server.running.reload(config).await.unwrap();
    assert!(other.ask("GET", "/health", "").await.is_err());
    assert!(get(to, settings(&third), "/health").await.is_err());
}

#[tokio::test]
async fn a_reload_takes_new_files_together_or_none() {
    let mut config = None;
    let (mut server, authority) = server(|started, _| config = Some(started.clone())).await;
    let (to, mut config) = (server.running.https[0], config.unwrap());
    let settings = authority.trusting(None, authority::BOTH, &[]);
    let shown = async |settings: &Arc<rustls::ClientConfig>| {
        let stream = connect(to, settings.clone()).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let first = shown(&settings).await;
    let mut kept = Line::open(to, settings.clone()).await.unwrap();
    assert_eq!(kept.ask("GET", "/health", "").await.unwrap().status, 200);

    let dir = authority.dir.path();
    let renewed = authority.issue("127.0.0.1");
    let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).unwrap();
    config.http.body_max = 4;
    // The certificate is there and its key is not yet: everything stays, other keys too.
    write("server.pem", &renewed.cert);
    for (key, words) in [
        ("", "server.key: there is no private key in it"),
        ("-----BEGIN PRIVATE KEY-----\nnonsense\n-----END PRIVATE KEY-----\n", "server.key: "),
        (authority.issue("127.0.0.1").key.as_str(), "this key does not belong to the certificate in"),
    ] {
        write("server.key", key);
        let error = format!("{:#}", server.running.reload(config.clone()).await.unwrap_err());
        assert!(error.contains(words), "{error}");
        assert_eq!(shown(&settings).await, first);
    }
    std::fs::remove_file(dir.join("server.key")).unwrap();
    let error = format!("{:#}", server.running.reload(config.clone()).await.unwrap_err());
    assert!(error.contains("server.key: cannot be read: No such file"), "{error}");
    assert_eq!(shown(&settings).await, first);
    assert_eq!(server.put("/v1/agent/service/register", "{\"Name\":\"web\"}").await.status, 200);

    write("server.key", &renewed.key);
    server.running.reload(config).await.unwrap();
    let second = shown(&settings).await;
    assert!(second != first && second == renewed.der());
    assert_eq!(kept.ask("GET", "/health", "").await.unwrap().status, 200, "who is there stays");
    assert_eq!(server.put("/v1/agent/service/register", "{\"Name\":\"web\"}").await.status, 413);
}

#[test]
fn files_that_cannot_be_used_say_which_and_why() {
    let authority = Authority::new("servers");
    let dir = authority.dir.path();
    authority.issue("a.example").write(dir, "server");
    let good = files(dir);
    assert!(good.load().unwrap().warnings.is_empty(), "{:?}", good.load().unwrap().warnings);
    let at = |name: &str, text: &str| {
        std::fs::write(dir.join(name), text).unwrap();
        dir.join(name)
    };
    let nonsense = at("nonsense", "no PEM at all\n");
    let cut = at("cut", "-----BEGIN CERTIFICATE-----\nMIIB\n");
    let empty = at("empty", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n");
    let none = "there is no \"-----BEGIN CERTIFICATE-----\" in it";
    let ca = Some(authority.write_ca("ca.pem"));
    for (files, words) in [
        (Files { cert: nonsense.clone(), ..good.clone() }, ["nonsense: ", none]),
        (Files { cert: cut, ..good.clone() }, ["cut: ", "not PEM"]),
        (Files { cert: empty, ..good.clone() }, ["empty: ", "not a certificate"]),
        (Files { cert: dir.to_owned(), ..good.clone() }, [": cannot be read", "directory"]),
        (Files { client_ca: Some(nonsense.clone()), ..good.clone() }, ["nonsense: ", none]),
        (
            Files { client_ca: ca, client_crl: Some(nonsense), ..good.clone() },
            ["nonsense: ", "there is no \"-----BEGIN X509 CRL-----\" in it"],
        ),
    ] {
        let error = files.load().err().expect("it was taken").to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
    // What is merely unwise is said.
    authority.issue_dated("a.example", 2010, 2015).write(dir, "server");
    let warned = good.load().unwrap().warnings;
    assert!(warned.len() == 1 && warned[0].contains("server.pem: the certificate expired"), "{warned:?}");
    authority.issue_dated("a.example", 3010, 3015).write(dir, "server");
    assert!(good.load().unwrap().warnings[0].contains("is valid only in"));
    for mode in [0o644, 0o640] {
        let open = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(dir.join("server.key"), open).unwrap();
        let said = &good.load().unwrap().warnings[1];
        assert!(
            said.ends_with("server.key, the certificate's key, can be opened by others: chmod go= it"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn handshakes_are_bounded_in_time_and_number() {
    let (server, authority) = server(|config, _| {
        config.https.handshakes_per_client_max = 2;
        config.https.handshake_wait = Duration::from_secs(3600);
    })
    .await;
    let to = server.running.https[0];
    let settings = authority.trusting(None, authority::BOTH, &[]);
    let mut kept = Line::open(to, settings.clone()).await.unwrap();
    assert_eq!(kept.ask("GET", "/health", "").await.unwrap().status, 200);
    // Two that say nothing have all places of this address.
    let silent = [TcpStream::connect(to).await.unwrap(), TcpStream::connect(to).await.unwrap()];
    let turned_away = async {
        while connect(to, settings.clone()).await.is_ok() {}
        while server.metric("rollcall_limit_hits_total{limit=\"handshakes_per_client_max\"}").await == 0.0 {}
    };
    tokio::time::timeout(PATIENCE, turned_away).await.unwrap();
    assert_eq!(kept.ask("GET", "/health", "").await.unwrap().status, 200, "others go on");
    drop(silent);
    let again = async { while connect(to, settings.clone()).await.is_err() {} };
    tokio::time::timeout(PATIENCE, again).await.expect("places come back");

    let mut plain = TcpStream::connect(to).await.unwrap();
    plain.write_all(b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").await.unwrap();
    let before = refused(&server, "handshake").await;
    let mut said = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, plain.read_to_end(&mut said)).await.expect("it is kept");
    assert!(!said.starts_with(b"HTTP"), "nothing is said in clear");
    let counted = async { while refused(&server, "handshake").await < before.max(1.0) {} };
    tokio::time::timeout(PATIENCE, counted).await.unwrap();
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_cut_off() {
    let (server, _authority) =
        server(|config, _| config.https.handshake_wait = Duration::from_millis(50)).await;
    let mut slow = TcpStream::connect(server.running.https[0]).await.unwrap();
    // The beginning of a ClientHello.
    slow.write_all(&[22, 3, 1, 2, 0, 1, 0]).await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, slow.read(&mut [0; 16])).await.expect("it is kept");
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    let counted = async { while refused(&server, "slow handshake").await == 0.0 {} };
    tokio::time::timeout(PATIENCE, counted).await.unwrap();
}

#[tokio::test]
async fn our_own_commands_speak_it() {
    let clients = Authority::new("clients");
    let authority = Authority::new("servers");
    let (dir, client_dir) = (authority.dir.path(), clients.dir.path());
    authority.issue("127.0.0.1").write(dir, "server");
    clients.issue("client").write(client_dir, "client");
    let file = dir.join("rollcall.toml");
    let text = format!(
        "[http]\nlisten = []\n[https]\nlisten = [\"127.0.0.1:0\"]\ncert_file = {:?}\nkey_file = {:?}\nclient_ca_file = {:?}\n\
         [dns]\nlisten = [\"127.0.0.1:0\"]\n",
        dir.join("server.pem"),
        dir.join("server.key"),
        clients.write_ca("clients.pem"),
    );
    std::fs::write(&file, text).unwrap();
    let data = dir.join("data");
    let file = file.to_str().unwrap();
    assert!(run(&["check-config", file]).status.success());
    let daemon = Daemon::with(&["--config", file, "--data-dir", data.to_str().unwrap()]);
    assert!(daemon.http.is_empty());
    let at = format!("https://{}", daemon.https[0]);
    let (ca, cert, key) =
        (authority.write_ca("ca.pem"), client_dir.join("client.pem"), client_dir.join("client.key"));
    let [ca, cert, key] = [&ca, &cert, &key].map(|path| path.to_str().unwrap());
    let whole = ["--server", &at, "--ca-file", ca, "--client-cert", cert, "--client-key", key];
    let said = |words: &[&str]| {
        let output = run(words);
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text.into_owned())
    };
    let registered = said(&[&["register", "web", "--port", "80"][..], &whole].concat());
    assert_eq!(registered, (true, "Registered service: web\n".to_owned()));
    let (good, text) = said(&[&["services"][..], &whole].concat());
    assert!(good && text.contains("web"), "{text}");
    for (words, reason) in [
        (&["services", "--server", &at][..], "unknown authority (--ca-file names it)"),
        (&["services", "--server", &at, "--ca-file", ca], "wants a client certificate (--client-cert"),
        (&["services", "--server", &at, "--ca-file", ca, "--client-cert", cert], "needed together"),
        (&["services", "--server", &at, "--ca-file", key], "there is no certificate in it"),
    ] {
        let (good, text) = said(words);
        assert!(!good && text.contains(reason), "{text}");
    }
    std::fs::remove_file(dir.join("server.key")).unwrap();
    let (good, text) = said(&["check-config", file]);
    assert!(!good && text.contains("server.key: cannot be read"), "{text}");
}
