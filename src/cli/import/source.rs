//! The server that is read: one connection, used again for each request.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper::header::{HOST, HeaderMap};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::cli::api::{self, Trust};

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A Consul's HTTP API.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) address: String,
    /// Where TLS is spoken.
    trust: Option<Trust>,
    token: Option<String>,
}

/// A connection to it.
pub(super) struct Connection<'a> {
    source: &'a Source,
    sender: Option<SendRequest<Empty<Bytes>>>,
}

/// An answer, whatever its status.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Source {
    /// `trust` counts where the URL is `https`.
    pub(super) fn new(url: &str, token: Option<&str>, trust: Trust) -> anyhow::Result<Self> {
        let bare = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")).unwrap_or(url);
        if !url.starts_with("unix:") && bare.trim_end_matches('/').contains('/') {
            bail!("{url}: name the server alone, such as http://consul:8500");
        }
        let (address, tls) = api::address(url)?;
        Ok(Self { address, trust: tls.then_some(trust), token: token.map(str::to_owned) })
    }

    pub(super) fn connection(&self) -> Connection<'_> {
        Connection { source: self, sender: None }
    }
}

impl Connection<'_> {
    pub(super) fn address(&self) -> &str {
        &self.source.address
    }

    pub(super) fn has_token(&self) -> bool {
        self.source.token.is_some()
    }

    /// The answer to a GET that must be 200. Errs in words for people.
    pub(super) async fn get(&mut self, path: &str) -> anyhow::Result<Answer> {
        let answer = self.ask(path).await?;
        let address = &self.source.address;
        let text = String::from_utf8_lossy(&answer.body);
        match answer.status.as_u16() {
            200 => Ok(answer),
            403 => bail!(
                "{address} does not let us read {path}: {}; give a token with --from-token",
                text.trim()
            ),
            404 => bail!("{address} does not know {path}; is it a Consul?"),
            status => bail!("{address} answers {status} to {path}: {}", text.trim()),
        }
    }

    /// The answer to a GET. A kept connection that was closed meanwhile is opened again.
    pub(super) async fn ask(&mut self, path: &str) -> anyhow::Result<Answer> {
        let kept = self.sender.is_some();
        match self.try_ask(path).await {
            Err(_) if kept => {
                self.sender = None;
                self.try_ask(path).await
            }
            outcome => outcome,
        }
    }

    async fn try_ask(&mut self, path: &str) -> anyhow::Result<Answer> {
        let address = &self.source.address;
        let exchange = async {
            let mut sender = match self.sender.take() {
                Some(sender) => sender,
                None => {
                    let stream = TcpStream::connect(address)
                        .await
                        .with_context(|| format!("cannot reach {address}"))?;
                    let stream = match &self.source.trust {
                        None => Box::new(stream),
                        Some(trust) => trust
                            .secure(stream, address)
                            .await
                            .with_context(|| format!("cannot reach {address}"))?,
                    };
                    let (sender, connection) =
                        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
                    tokio::spawn(connection);
                    sender
                }
            };
            sender.ready().await?;
            let mut request = Request::builder().uri(path).header(HOST, address);
            if let Some(token) = &self.source.token {
                request = request.header("x-consul-token", token);
            }
            let answer = sender.send_request(request.body(Empty::new())?).await.map_err(api::refused);
            let answer = answer.with_context(|| format!("{address} does not speak HTTP as a Consul does"))?;
            let (parts, body) = answer.into_parts();
            let body = body.collect().await.with_context(|| format!("{address} broke off at {path}"))?;
            self.sender = Some(sender);
            anyhow::Ok(Answer { status: parts.status, headers: parts.headers, body: body.to_bytes() })
        };
        let answer = tokio::time::timeout(PATIENCE, exchange).await;
        answer.with_context(|| format!("{address} does not answer {path}"))?
    }
}
