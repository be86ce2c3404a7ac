//! TCP checks: a connection is passing, with TLS the handshake too.
//!
//! The connection is closed at once. Kept, it would tell of a crash, but a server that serves one connection at a time
//! would serve nobody else meanwhile, and no protocol is known by which to say that this one will stay silent.

use tokio::io::AsyncWriteExt;

use super::connect;
use super::probe::{Finding, Tools};
use crate::model::{ProbeTls, Status};

/// Connects once. No time limit of its own.
pub(super) async fn probe(address: &str, tls: Option<&ProbeTls>, with: &Tools) -> Finding {
    match connect::open(address, tls, &[], with).await {
        Ok(mut stream) => {
            // With TLS this says goodbye, so that the target logs no truncation.
            let _ = stream.shutdown().await;
            let how = if tls.is_some() { "TCP+TLS" } else { "TCP" };
            Finding::new(Status::Passing, format!("{how} connect {address}: Success"))
        }
        Err(why) => why.into(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::super::tests::tools_with;
    use super::*;
    use crate::tls::authority::Authority;

    #[tokio::test]
    async fn a_connection_is_passing_and_closed_at_once() {
        let tools = tools_with(Authority::new().clients());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (finding, accepted) = tokio::join!(probe(&address, None, &tools), listener.accept());
        assert_eq!(finding, Finding::new(Status::Passing, format!("TCP connect {address}: Success")));
        assert_eq!(accepted.unwrap().0.read(&mut [0]).await.unwrap(), 0);
        drop(listener);
        let finding = probe(&address, None, &tools).await;
        assert!(finding.refused);
        assert_eq!(finding.output, format!("dial tcp {address}: connect: connection refused"));
    }

    #[tokio::test]
    async fn with_tls_the_handshake_counts() {
        let authority = Authority::new();
        let tools = tools_with(authority.clients());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        for (name, passes) in [("127.0.0.1", true), ("web.example", false)] {
            let server = authority.server(name, &[]);
            let serve = async {
                let (stream, _) = listener.accept().await.unwrap();
                let mut stream = server.accept(stream).await?;
                // An end without goodbye is an error here.
                stream.read_to_end(&mut Vec::new()).await
            };
            let tls = ProbeTls::default();
            let (finding, served) = tokio::join!(probe(&address, Some(&tls), &tools), serve);
            assert_eq!(served.is_ok(), passes, "{name}: {served:?}");
            let status = if passes { Status::Passing } else { Status::Critical };
            assert_eq!((finding.status, finding.refused), (status, false), "{}", finding.output);
            let text =
                if passes { format!("TCP+TLS connect {address}: Success") } else { "web.example".into() };
            assert!(finding.output.contains(&text), "{}", finding.output);
        }
    }
}
