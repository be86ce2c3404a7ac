//! A client of the HTTP API, as small as the commands need: one request on one connection.

use std::error::Error as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{HOST, HeaderMap};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::tls::{ApiFiles, ApiTls};

/// How long connecting, and any answer but that of a blocking query, may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The port of the API where none is given; and with TLS.
const PORT: u16 = 8500;
const PORT_TLS: u16 = 8501;

/// Which server is asked.
#[derive(Args)]
pub(super) struct Server {
    /// The server's address: HOST:PORT, http://HOST:PORT, https://HOST:PORT or unix:///PATH
    #[arg(
        long,
        visible_alias = "http-addr",
        value_name = "ADDR",
        env = "ROLLCALL_SERVER",
        default_value = "127.0.0.1:8500"
    )]
    server: String,
    /// The token to ask with; better given by the environment or a file, where other users of the machine do not see it [env:
    /// ROLLCALL_HTTP_TOKEN]
    // Not by `env = ...`: a flag would conflict with the other's variable instead of going before it.
    #[arg(long, value_name = "SECRET")]
    token: Option<String>,
    /// A file that holds the token [env: ROLLCALL_HTTP_TOKEN_FILE]
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// PEM file of the authorities that the server's certificate may be by [default: the system's]
    #[arg(long, value_name = "FILE", env = "ROLLCALL_CACERT")]
    ca_file: Option<PathBuf>,
    /// PEM file of the certificate that is shown to the server
    #[arg(long, value_name = "FILE", env = "ROLLCALL_CLIENT_CERT")]
    client_cert: Option<PathBuf>,
    /// PEM file of its key
    #[arg(long, value_name = "FILE", env = "ROLLCALL_CLIENT_KEY")]
    client_key: Option<PathBuf>,
    /// The name that the server's certificate has to be for [default: the address's]
    #[arg(long, value_name = "NAME", env = "ROLLCALL_TLS_SERVER_NAME")]
    tls_server_name: Option<String>,
}

/// Where a server is.
#[derive(Debug, PartialEq, Eq)]
enum Place<'a> {
    Unix(&'a str),
    /// `host:port`, and whether TLS is spoken there.
    Tcp(String, bool),
}

fn place(server: &str) -> Place<'_> {
    if let Some(path) = server.strip_prefix("unix://") {
        return Place::Unix(path);
    }
    let (rest, tls) = match server.strip_prefix("https://") {
        Some(rest) => (rest, true),
        None => (server.strip_prefix("http://").unwrap_or(server), false),
    };
    let address = rest.trim_end_matches('/');
    let has_port = address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let port = if tls { PORT_TLS } else { PORT };
    Place::Tcp(if has_port { address.to_owned() } else { format!("{address}:{port}") }, tls)
}

/// A connection to a server.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Server {
    /// What the server is told of who asks: by a flag, else by the environment, where the token goes before the file.
    fn token(&self) -> anyhow::Result<Option<String>> {
        let variable = |name: &str| std::env::var_os(name).filter(|text| !text.is_empty());
        let file = match (&self.token, &self.token_file) {
            (Some(token), _) => return Ok(Some(token.clone())),
            (None, Some(file)) => Some(file.clone()),
            (None, None) => match variable("ROLLCALL_HTTP_TOKEN") {
                Some(token) => {
                    let token = token.into_string();
                    return token.map(Some).map_err(|_| anyhow!("ROLLCALL_HTTP_TOKEN is not UTF-8"));
                }
                None => variable("ROLLCALL_HTTP_TOKEN_FILE").map(PathBuf::from),
            },
        };
        let Some(file) = file else { return Ok(None) };
        let text = std::fs::read_to_string(&file);
        let text = text.with_context(|| format!("reading the token in {}", file.display()))?;
        match text.trim() {
            "" => bail!("{} holds no token", file.display()),
            token => Ok(Some(token.to_owned())),
        }
    }

    /// Connects; the connection, and what is said in `Host`.
    async fn connect(&self) -> anyhow::Result<(Box<dyn Stream>, String)> {
        let failed =
            || format!("cannot reach the server at {}; is it running, and is --server right?", self.server);
        let (address, tls) = match place(&self.server) {
            Place::Unix(path) => {
                let stream = UnixStream::connect(path).await.with_context(failed)?;
                return Ok((Box::new(stream), "localhost".to_owned()));
            }
            Place::Tcp(address, tls) => (address, tls),
        };
        let stream = TcpStream::connect(&address).await.with_context(|| {
            format!("cannot reach the server at {address}; is it running, and is --server right?")
        })?;
        if !tls {
            return Ok((Box::new(stream), address));
        }
        let (ca, cert, key) = (self.ca_file.clone(), self.client_cert.clone(), self.client_key.clone());
        let trust = Trust { files: ApiFiles { ca, cert, key }, name: self.tls_server_name.clone() };
        Ok((trust.secure(stream, &address).await?, address))
    }

    /// The authorities that are named by a flag or the environment.
    pub(super) fn ca_file(&self) -> Option<PathBuf> {
        self.ca_file.clone()
    }

    /// One request on a connection of its own; any status.
    pub(super) async fn exchange<B>(
        &self,
        mut request: Request<B>,
        patience: Duration,
    ) -> anyhow::Result<Response<Incoming>>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if let Some(token) = self.token()? {
            request
                .headers_mut()
                .insert("x-consul-token", token.parse().context("the token is no header's value")?);
        }
        let exchange = async {
            let (stream, host) = self.connect().await?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            request.headers_mut().insert(HOST, host.parse()?);
            let answer = sender.send_request(request).await;
            answer.map_err(refused)
        };
        let answer = tokio::time::timeout(patience, exchange).await;
        answer.with_context(|| format!("the server at {} does not answer", self.server))?
    }

    /// Sends a request; gives the answer of a status below 300. `wait` is what a blocking query asks for.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        wait: Duration,
    ) -> anyhow::Result<Response<Incoming>> {
        let request = Request::builder().method(method).uri(path).body(Full::new(Bytes::from(body)))?;
        let answer = self.exchange(request, PATIENCE + wait).await?;
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

/// With TLS 1.3 a server that does not take the certificate says so when it is asked.
pub(super) fn refused(error: hyper::Error) -> anyhow::Error {
    match error.source().and_then(crate::tls::refusal) {
        Some(why) => anyhow!("{why}"),
        None => error.into(),
    }
}

/// Whom a server has to prove to be, and what it is shown.
#[derive(Debug, Clone, Default)]
pub(super) struct Trust {
    pub(super) files: ApiFiles,
    /// What the certificate has to be for, where it is not the address.
    pub(super) name: Option<String>,
}

impl Trust {
    /// The handshake with the server at `host:port`.
    pub(super) async fn secure(&self, stream: TcpStream, address: &str) -> anyhow::Result<Box<dyn Stream>> {
        let settings = ApiTls::load(&self.files).map_err(|why| anyhow!("{why}"))?;
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let stream = settings.stream(stream, self.name.as_deref().unwrap_or(host)).await;
        Ok(Box::new(stream.map_err(|why| anyhow!("{why}"))?))
    }
}

/// `host:port` of a server, with Consul's port where none is named, and whether it speaks TLS.
pub(super) fn address(server: &str) -> anyhow::Result<(String, bool)> {
    match place(server) {
        Place::Tcp(address, tls) => Ok((address, tls)),
        Place::Unix(_) => bail!("{server}: only http:// and https:// are read from here"),
    }
}

/// A text as one part of a path.
pub(super) fn part(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_named_as_consuls_clients_name_one() {
        for (text, wanted) in [
            ("127.0.0.1", Place::Tcp("127.0.0.1:8500".into(), false)),
            ("http://n1:1/", Place::Tcp("n1:1".into(), false)),
            ("https://n1", Place::Tcp("n1:8501".into(), true)),
            ("https://[::1]:9", Place::Tcp("[::1]:9".into(), true)),
            ("unix:///run/api.sock", Place::Unix("/run/api.sock")),
        ] {
            assert_eq!(place(text), wanted, "{text}");
        }
    }
}
