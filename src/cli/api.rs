//! A client of the HTTP API, as small as the commands need: one request on one connection.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{HOST, HeaderMap};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// How long connecting, and any answer but that of a blocking query, may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which server is asked.
#[derive(Args)]
pub(super) struct Server {
    /// The server's HTTP address
    #[arg(long, value_name = "HOST:PORT", env = "ROLLCALL_SERVER", default_value = "127.0.0.1:8500")]
    pub(super) server: String,
}

impl Server {
    /// Sends a request; gives the answer of a status below 300. `wait` is what a blocking query asks for.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        wait: Duration,
    ) -> anyhow::Result<Response<Incoming>> {
        let request = Request::builder().method(method).uri(path).body(Full::new(Bytes::from(body)))?;
        let answer = exchange(&self.server, request, PATIENCE + wait).await?;
        if answer.status().as_u16() < 300 {
            return Ok(answer);
        }
        let status = answer.status();
        let text = answer.into_body().collect().await?.to_bytes();
        match String::from_utf8_lossy(&text).trim() {
            "" => bail!("the server answers {status}"),
            text => bail!("{text} ({})", status.as_u16()),
        }
    }

    /// A JSON answer with its headers.
    pub(super) async fn get(&self, path: &str, wait: Duration) -> anyhow::Result<(HeaderMap, Value)> {
        let answer = self.send(Method::GET, path, Vec::new(), wait).await?;
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.context("reading the answer")?.to_bytes();
        let value =
            serde_json::from_slice(&body).context("the answer is not JSON; is this a rollcall server?")?;
        Ok((parts.headers, value))
    }

    /// A write.
    pub(super) async fn put(&self, path: &str, body: Vec<u8>) -> anyhow::Result<HeaderMap> {
        Ok(self.send(Method::PUT, path, body, Duration::ZERO).await?.headers().clone())
    }
}

/// One request to a server that is named as people name it, on a connection of its own; any status.
pub(super) async fn exchange<B>(
    server: &str,
    mut request: Request<B>,
    patience: Duration,
) -> anyhow::Result<Response<Incoming>>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let address = address(server);
    let exchange = async {
        let stream = TcpStream::connect(&address).await.with_context(|| {
            format!("cannot reach the server at {address}; is it running, and is --server right?")
        })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        request.headers_mut().insert(HOST, address.parse()?);
        anyhow::Ok(sender.send_request(request).await?)
    };
    let answer = tokio::time::timeout(patience, exchange).await;
    answer.with_context(|| format!("the server at {address} does not answer"))?
}

/// `host:port`, with Consul's port where none is named.
pub(super) fn address(server: &str) -> String {
    let address = server.strip_prefix("http://").unwrap_or(server).trim_end_matches('/');
    let has_port = address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if has_port { address.to_owned() } else { format!("{address}:8500") }
}

/// A text as one part of a path.
pub(super) fn part(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}
