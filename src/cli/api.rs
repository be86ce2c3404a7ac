//! A client of the HTTP API, as small as the commands need: one request on one connection.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
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
    server: String,
    /// The token to ask with; better given by the environment or a file, where other users of the machine do not see it
    #[arg(long, value_name = "SECRET", env = "ROLLCALL_HTTP_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A file that holds the token
    #[arg(long, value_name = "FILE", env = "ROLLCALL_HTTP_TOKEN_FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
}

impl Server {
    /// What the server is told of who asks.
    fn token(&self) -> anyhow::Result<Option<String>> {
        let Some(file) = &self.token_file else { return Ok(self.token.clone()) };
        let text = std::fs::read_to_string(file);
        let text = text.with_context(|| format!("reading the token in {}", file.display()))?;
        Ok(Some(text.trim().to_owned()))
    }

    /// Sends a request; gives the answer of a status below 300. `wait` is what a blocking query asks for.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        wait: Duration,
    ) -> anyhow::Result<Response<Incoming>> {
        let address = self.server.strip_prefix("http://").unwrap_or(&self.server).trim_end_matches('/');
        let token = self.token()?;
        let has_port = address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let address = if has_port { address.to_owned() } else { format!("{address}:8500") };
        let exchange = async {
            let stream = TcpStream::connect(&address).await.with_context(|| {
                format!("cannot reach the server at {address}; is it running, and is --server right?")
            })?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            let mut request = Request::builder().method(method).uri(path).header(HOST, &address);
            if let Some(token) = &token {
                request = request.header("x-consul-token", token);
            }
            anyhow::Ok(sender.send_request(request.body(Full::new(Bytes::from(body)))?).await?)
        };
        let answer = tokio::time::timeout(PATIENCE + wait, exchange).await;
        let answer = answer.with_context(|| format!("the server at {address} does not answer"))??;
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

/// A text as one part of a path.
pub(super) fn part(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}
