//! Handshakes with real servers, whose certificates are made here.

use rcgen::CertificateParams;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::authority::{Authority, self_signed};
use super::*;

/// What a client finds at a server that was given to `host` as its name.
async fn handshake(
    clients: &Clients,
    server: TlsAcceptor,
    host: &str,
    tls: ProbeTls,
    alpn: Protocols,
) -> Result<TlsStream<TcpStream>, String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    let serving = tokio::spawn(async move {
        if let Ok(mut stream) = server.accept(accepted).await {
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    });
    let outcome = clients.stream(stream, host, &tls, alpn).await;
    if outcome.is_err() {
        serving.await.unwrap();
    }
    outcome
}

fn skip_verify() -> ProbeTls {
    ProbeTls { skip_verify: true, ..ProbeTls::default() }
}

#[track_caller]
fn says(outcome: Result<TlsStream<TcpStream>, String>, words: &[&str]) {
    let text = outcome.map(|_| ()).unwrap_err();
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
}

#[tokio::test]
async fn the_right_name_and_a_known_issuer_are_accepted() {
    let authority = Authority::new();
    let clients = authority.clients();
    let local = ProbeTls::default();
    for (certified, host) in [
        ("web.example", "web.example"),
        ("web.example", "web.example."),
        ("web.example", "WEB.example"),
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "[::1]"),
        ("::1", "::1"),
    ] {
        let outcome = handshake(&clients, authority.server(certified, &[]), host, local.clone(), &[]).await;
        assert!(outcome.is_ok(), "{certified} as {host}: {:?}", outcome.err());
    }
    let old = CertificateParams::new(vec!["web.example".to_owned()]).unwrap();
    let old = authority.server_with(old, &[], &[&TLS12]);
    assert!(handshake(&clients, old, "web.example", local, &[]).await.is_ok());
}

#[tokio::test]
async fn another_name_is_refused_unless_it_is_the_one_to_expect() {
    let authority = Authority::new();
    let clients = authority.clients();
    let server = || authority.server("web.example", &[]);
    let outcome = handshake(&clients, server(), "127.0.0.1", ProbeTls::default(), &[]).await;
    says(outcome, &["TLS handshake with 127.0.0.1", "is for web.example,", "TLSServerName"]);
    let named = |name: &str| ProbeTls { server_name: name.to_owned(), ..ProbeTls::default() };
    assert!(handshake(&clients, server(), "127.0.0.1", named("web.example"), &[]).await.is_ok());
    let outcome = handshake(&clients, server(), "web.example", named("other.example"), &[]).await;
    says(outcome, &["TLS handshake with other.example", "is for web.example,"]);
    assert!(handshake(&clients, server(), "127.0.0.1", skip_verify(), &[]).await.is_ok());
    let outcome = handshake(&clients, server(), "127.0.0.1", named("no name"), &[]).await;
    says(outcome, &["\"no name\" is neither a host name nor an address"]);
}

#[tokio::test]
async fn times_and_issuers_are_verified() {
    let authority = Authority::new();
    let clients = authority.clients();
    let dated = |from: i32, to: i32| {
        let mut params = CertificateParams::new(vec!["web.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(to, 1, 1);
        authority.server_with(params, &[], &[&TLS13])
    };
    let outcome = handshake(&clients, dated(2010, 2015), "web.example", ProbeTls::default(), &[]).await;
    says(outcome, &["the certificate expired", "days ago", "TLSSkipVerify"]);
    let outcome = handshake(&clients, dated(3010, 3015), "web.example", ProbeTls::default(), &[]).await;
    says(outcome, &["the certificate is valid only in", "days"]);
    assert!(handshake(&clients, dated(2010, 2015), "web.example", skip_verify(), &[]).await.is_ok());

    let stranger = || Authority::new().server("web.example", &[]);
    let outcome = handshake(&clients, stranger(), "web.example", ProbeTls::default(), &[]).await;
    says(outcome, &["issuer is unknown", "TLSSkipVerify"]);
    assert!(handshake(&clients, stranger(), "web.example", skip_verify(), &[]).await.is_ok());
    let outcome =
        handshake(&clients, self_signed("web.example"), "web.example", ProbeTls::default(), &[]).await;
    says(outcome, &["issuer is unknown"]);
    assert!(handshake(&clients, self_signed("web.example"), "web.example", skip_verify(), &[]).await.is_ok());
}

#[tokio::test]
async fn without_roots_only_verification_fails() {
    let clients = Clients::with_roots(RootCertStore::empty()).unwrap();
    let outcome = handshake(&clients, self_signed("a.example"), "a.example", ProbeTls::default(), &[]).await;
    says(outcome, &["no root certificates", "SSL_CERT_FILE", "TLSSkipVerify"]);
    assert!(handshake(&clients, self_signed("a.example"), "a.example", skip_verify(), &[]).await.is_ok());
}

#[tokio::test]
async fn protocols_are_offered() {
    let authority = Authority::new();
    let clients = authority.clients();
    let server = |alpn: &[&[u8]]| authority.server("web.example", alpn);
    let outcome = handshake(&clients, server(&[b"h2"]), "web.example", ProbeTls::default(), &[b"h2"]).await;
    assert_eq!(outcome.unwrap().get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    let outcome = handshake(&clients, server(&[b"x"]), "web.example", ProbeTls::default(), &[b"h2"]).await;
    says(outcome, &["none of the protocols"]);
    // The settings made for one list are not used for another.
    let outcome = handshake(&clients, server(&[b"h2"]), "web.example", ProbeTls::default(), &[]).await;
    assert_eq!(outcome.unwrap().get_ref().1.alpn_protocol(), None);
    assert_eq!(clients.made.lock().len(), 2);
}

#[tokio::test]
async fn a_target_that_speaks_no_tls_is_named() {
    for (spoken, words) in [("HTTP/1.1 400 Bad Request\r\n\r\n", "not TLS"), ("", "closed the connection")] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut accepted, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            // Takes what is sent first: a close with octets unread would be a reset.
            let mut hello = [0; 2048];
            let _ = accepted.read(&mut hello).await;
            let _ = tokio::io::AsyncWriteExt::write_all(&mut accepted, spoken.as_bytes()).await;
        });
        let clients = Authority::new().clients();
        says(clients.stream(stream, "a.example", &ProbeTls::default(), &[]).await, &[words]);
    }
}

#[test]
fn the_systems_roots_are_read() {
    assert!(Clients::new().is_ok());
}
