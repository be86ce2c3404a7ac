//! HTTP/2 PING checks (RFC 9113 section 6.7): acknowledged is passing.

use std::future::poll_fn;

use h2::Ping;

use super::http2;
use super::probe::{Finding, Tools};
use crate::model::{ProbeTls, Status};

/// Pings once, on a connection of its own. No time limit of its own.
pub(super) async fn probe(address: &str, tls: Option<&ProbeTls>, with: &Tools) -> Finding {
    let pinged = http2::exchange(address, tls, with, |send, mut pings| async move {
        pings.send_ping(Ping::opaque())?;
        let pong = poll_fn(|cx| pings.poll_pong(cx)).await;
        // Without one who may send requests the connection would close.
        drop(send);
        pong
    });
    match pinged.await {
        Ok(_) => Finding::new(Status::Passing, "HTTP2 ping was successful"),
        Err(why) => why.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::super::tests::tools_with;
    use super::*;
    use crate::tls::authority::Authority;

    async fn listen() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        (listener, address)
    }

    /// Serves until the client has gone; h2 answers pings by itself.
    async fn serve<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
        stream: S,
    ) -> Result<(), h2::Error> {
        let mut connection = h2::server::handshake(stream).await?;
        match connection.accept().await {
            Some(Ok(_)) => panic!("a request came"),
            Some(Err(error)) => Err(error),
            None => Ok(()),
        }
    }

    #[tokio::test]
    async fn an_acknowledged_ping_is_passing() {
        let authority = Authority::new();
        let tools = tools_with(authority.clients());
        let (listener, address) = listen().await;
        let plain = async { serve(listener.accept().await.unwrap().0).await };
        let (finding, served) = tokio::join!(probe(&address, None, &tools), plain);
        assert_eq!(finding, Finding::new(Status::Passing, "HTTP2 ping was successful"));
        // The end was a proper goodbye.
        served.unwrap();

        let server = authority.server("web.example", &[b"h2"]);
        let tls = ProbeTls { server_name: "web.example".to_owned(), ..ProbeTls::default() };
        let serving = async { serve(server.accept(listener.accept().await.unwrap().0).await.unwrap()).await };
        let (finding, served) = tokio::join!(probe(&address, Some(&tls), &tools), serving);
        assert_eq!(finding, Finding::new(Status::Passing, "HTTP2 ping was successful"));
        served.unwrap();
    }

    /// What a probe finds at a server that answers its first octets so, and then closes.
    async fn answered_with(octets: &[u8]) -> Finding {
        let tools = tools_with(Authority::new().clients());
        let (listener, address) = listen().await;
        let serving = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await.unwrap();
            let _ = stream.write_all(octets).await;
            let _ = stream.shutdown().await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        };
        let (finding, ()) = tokio::join!(probe(&address, None, &tools), serving);
        assert_eq!((finding.status, finding.refused), (Status::Critical, false), "{}", finding.output);
        finding
    }

    #[tokio::test]
    async fn what_does_not_speak_http2_is_critical() {
        let finding = answered_with(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n").await;
        assert!(finding.output.contains("is not HTTP/2"), "{}", finding.output);
        assert!(finding.output.contains("without TLS on this port?"), "{}", finding.output);
        let finding = answered_with(b"").await;
        assert!(finding.output.contains("closed the connection before it answered"), "{}", finding.output);
        // Settings, then the end: it speaks HTTP/2, and does not answer.
        let finding = answered_with(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
        assert!(finding.output.contains("closed the connection before it answered"), "{}", finding.output);
        // A PING's answer to another question.
        let finding =
            answered_with(&[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 8, 6, 1, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1])
                .await;
        assert!(finding.output.contains("closed the connection before it answered"), "{}", finding.output);
    }

    #[tokio::test]
    async fn a_refusal_is_told_apart() {
        let tools = tools_with(Authority::new().clients());
        let (listener, address) = listen().await;
        drop(listener);
        let finding = probe(&address, None, &tools).await;
        assert!(finding.refused);
        assert_eq!(finding.output, format!("dial tcp {address}: connect: connection refused"));
    }

    #[tokio::test]
    async fn a_silent_server_is_waited_for_and_let_go() {
        let tools = tools_with(Authority::new().clients());
        let (listener, address) = listen().await;
        let accept = async {
            let (mut stream, _): (TcpStream, _) = listener.accept().await.unwrap();
            // The preface has come, so the probe waits for its answer.
            stream.read_exact(&mut [0; 24]).await.unwrap();
            stream
        };
        let mut probing = Box::pin(probe(&address, None, &tools));
        let mut stream = tokio::select! {
            finding = &mut probing => panic!("{finding:?}"),
            stream = accept => stream,
        };
        drop(probing);
        let ended = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut Vec::new())).await;
        assert!(ended.is_ok(), "the connection outlived the probe");
    }
}
