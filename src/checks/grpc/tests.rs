//! gRPC probes against real servers on h2.

use std::time::Duration;

use hyper::Response;
use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::checks::tests::tools_with;
use crate::tls::authority::Authority;

/// What a server of the tests answers.
#[derive(Default)]
struct Answers {
    status: StatusCode,
    headers: Vec<(&'static str, &'static str)>,
    /// Absent: the headers end the answer.
    body: Option<Vec<u8>>,
    trailers: Vec<(&'static str, &'static str)>,
}

impl Answers {
    fn message(body: &[u8]) -> Self {
        Self {
            headers: vec![("content-type", "application/grpc")],
            body: Some([&[0, 0, 0, 0, body.len() as u8], body].concat()),
            trailers: vec![("grpc-status", "0")],
            ..Self::default()
        }
    }

    fn trailers_only(headers: &[(&'static str, &'static str)]) -> Self {
        Self { headers: headers.to_vec(), ..Self::default() }
    }
}

fn map(headers: &[(&'static str, &'static str)]) -> HeaderMap {
    headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

/// Serves one request and gives back what was asked.
async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, answers: Answers) -> (Request<()>, Vec<u8>) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    let (request, mut answer) = connection.accept().await.unwrap().unwrap();
    let (head, mut body) = request.into_parts();
    let exchange = async {
        let mut asked = Vec::new();
        while let Some(data) = body.data().await {
            asked.extend_from_slice(&data.unwrap());
        }
        let mut response = Response::new(());
        *response.status_mut() = answers.status;
        *response.headers_mut() = map(&answers.headers);
        let mut stream = answer.send_response(response, answers.body.is_none()).unwrap();
        if let Some(body) = answers.body {
            stream.send_data(body.into(), false).unwrap();
            stream.send_trailers(map(&answers.trailers)).unwrap();
        }
        asked
    };
    let mut exchange = std::pin::pin!(exchange);
    let asked = tokio::select! {
        asked = &mut exchange => asked,
        _ = connection.accept() => panic!("the client left without asking"),
    };
    // Until the client has gone.
    while let Some(Ok(_)) = connection.accept().await {}
    (Request::from_parts(head, ()), asked)
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// What a probe finds where this is answered: its status, and its output with the address as `h:p`.
async fn found(answers: Answers) -> (Status, String) {
    let tools = tools_with(Authority::new().clients());
    let (listener, address) = listen().await;
    let serving = async { serve(listener.accept().await.unwrap().0, answers).await };
    let (finding, _) = tokio::join!(probe(&address, "", None, &tools, None), serving);
    assert!(!finding.refused);
    (finding.status, finding.output.replace(&address, "h:p"))
}

#[tokio::test]
async fn serving_is_passing_and_nothing_else() {
    let critical = |text: &str| (Status::Critical, text.to_owned());
    let serving = found(Answers::message(&[8, 1])).await;
    assert_eq!(serving, (Status::Passing, "gRPC check h:p: success".to_owned()));
    for (body, status) in
        [(&[8, 2][..], "NOT_SERVING"), (&[], "UNKNOWN"), (&[8, 3], "SERVICE_UNKNOWN"), (&[8, 99], "99")]
    {
        let text = format!("gRPC h:p serving status: {status}");
        assert_eq!(found(Answers::message(body)).await, critical(&text));
    }
    assert_eq!(found(Answers::message(&[8])).await, critical("gRPC h:p: the answer is malformed"));
    let (status, text) = found(Answers { body: Some(vec![0; 100_000]), ..Answers::default() }).await;
    assert_eq!(status, Status::Critical);
    assert!(text.contains("longer than 4096 octets"), "{text}");
}

#[tokio::test]
async fn errors_are_told_in_words() {
    for (answers, words) in [
        (
            Answers::trailers_only(&[("grpc-status", "12"), ("grpc-message", "unknown service a%20b")]),
            "rpc error: code = Unimplemented desc = unknown service a b (the target does not serve",
        ),
        (
            Answers { trailers: vec![("grpc-status", "5")], ..Answers::message(&[]) },
            "rpc error: code = NotFound desc =  (the target's health service does not know",
        ),
        (
            Answers::trailers_only(&[("grpc-status", "16")]),
            "code = Unauthenticated desc =  (the target wants",
        ),
        (Answers::trailers_only(&[("grpc-status", "99")]), "rpc error: code = Code(99) desc = "),
        (Answers::trailers_only(&[("grpc-status", "no")]), "rpc error: code = Code(no) desc = "),
        (
            Answers { status: StatusCode::NOT_FOUND, ..Answers::trailers_only(&[]) },
            "HTTP status 404 Not Found instead of an answer (is it a gRPC server?)",
        ),
        (Answers::trailers_only(&[("content-type", "text/html")]), "the answer has no grpc-status"),
    ] {
        let (status, text) = found(answers).await;
        assert_eq!(status, Status::Critical, "{text}");
        assert!(text.starts_with(&format!("gRPC h:p: {words}")) || text.contains(words), "{text}");
    }
}

#[tokio::test]
async fn it_asks_as_grpc_clients_do() {
    let authority = Authority::new();
    let tools = tools_with(authority.clients());
    let (listener, address) = listen().await;
    let serving = async { serve(listener.accept().await.unwrap().0, Answers::message(&[8, 1])).await };
    let (_, (request, asked)) = tokio::join!(probe(&address, "db", None, &tools, None), serving);
    assert_eq!(request.uri().to_string(), format!("http://{address}/grpc.health.v1.Health/Check"));
    assert_eq!(request.method(), "POST");
    assert_eq!(request.headers()["content-type"], "application/grpc");
    assert_eq!(request.headers()["te"], "trailers");
    assert_eq!(asked, [0, 0, 0, 0, 4, 10, 2, b'd', b'b']);

    let server = authority.server("web.example", &[b"h2"]);
    let serving = async {
        let stream = server.accept(listener.accept().await.unwrap().0).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
        serve(stream, Answers::message(&[8, 1])).await
    };
    let tls = ProbeTls { server_name: "web.example".to_owned(), ..ProbeTls::default() };
    let (finding, (request, _)) = tokio::join!(probe(&address, "", Some(&tls), &tools, None), serving);
    assert_eq!(finding.status, Status::Passing, "{}", finding.output);
    assert_eq!(request.uri().to_string(), "https://web.example/grpc.health.v1.Health/Check");
}

#[tokio::test]
async fn what_is_no_grpc_server_is_critical() {
    let tools = tools_with(Authority::new().clients());
    let (listener, address) = listen().await;
    let serving = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await.unwrap();
        let _ = stream.write_all(&[0xff; 512]).await;
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    };
    let (finding, ()) = tokio::join!(probe(&address, "", None, &tools, None), serving);
    assert_eq!(finding.status, Status::Critical);
    assert!(finding.output.contains("is not HTTP/2"), "{}", finding.output);

    // One that accepts and says nothing is waited for: the time limit is the caller's.
    let held = async { listener.accept().await.unwrap() };
    let limited = tokio::time::timeout(Duration::from_millis(200), probe(&address, "", None, &tools, None));
    let (finding, _held) = tokio::join!(limited, held);
    assert!(finding.is_err(), "{finding:?}");

    drop(listener);
    let finding = probe(&address, "", None, &tools, None).await;
    assert!(finding.refused);
    assert_eq!(finding.output, format!("dial tcp {address}: connect: connection refused"));
}

#[test]
fn the_authority_is_a_name_or_an_address_without_zone() {
    let named = ProbeTls { server_name: "web.example".to_owned(), ..ProbeTls::default() };
    for (address, tls, wanted) in [
        ("10.0.0.1:80", None, "10.0.0.1:80"),
        ("10.0.0.1:80", Some(&named), "web.example"),
        ("10.0.0.1:80", Some(&ProbeTls::default()), "10.0.0.1:80"),
        ("[fe80::1%eth0]:80", None, "[fe80::1]:80"),
    ] {
        assert_eq!(authority(address, tls), wanted);
    }
}

proptest! {
    #[test]
    fn whatever_a_server_says_is_judged(
        code in "[ -~]{0,8}",
        told in proptest::collection::vec(0x20u8..0x7f, 0..64),
        body: Vec<u8>,
    ) {
        let headers = [("grpc-status", code.as_bytes()), ("grpc-message", &told)];
        let trailers = headers.into_iter().map(|(name, value)| {
            (name.parse().unwrap(), header::HeaderValue::from_bytes(value).unwrap())
        });
        let status = StatusCode::OK;
        let judged = judge(&Answer { status, headers: HeaderMap::new(), body, trailers: Some(trailers.collect()) });
        if code != "0" {
            let wanted = percent_decode(&told).decode_utf8_lossy().into_owned();
            prop_assert!(judged.unwrap_err().contains(&wanted));
        }
    }
}
