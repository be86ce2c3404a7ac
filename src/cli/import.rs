//! `rollcall import`: an export, or what a running Consul's catalog has, sent to a running server.
//!
//! Both are one road: a Consul's catalog is read over its API and written as the document that an import takes, while it is
//! read. The server checks the whole before it changes anything, and says what it did.

mod consul;
mod queries;
mod source;
mod told;

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::{Method, Request};
use serde_json::Value;
use tokio::sync::mpsc;

use super::api::{Server, Trust};
use super::block_on;
use crate::tls::ApiFiles;
use source::Source;
use told::Told;

/// Flags of `import`.
#[derive(Args)]
pub(super) struct Arguments {
    /// A running Consul (or Rollcall) to take over, such as http://consul:8500
    #[arg(long, value_name = "URL", required_unless_present = "file", conflicts_with = "file")]
    from: Option<String>,
    /// The ACL token to read the other server with
    #[arg(long, value_name = "TOKEN", env = "CONSUL_HTTP_TOKEN", hide_env_values = true)]
    from_token: Option<String>,
    /// PEM file of the authorities that the other server's certificate may be by [default: --ca-file, else the system's]
    #[arg(long, value_name = "FILE", env = "CONSUL_CACERT")]
    from_ca_file: Option<PathBuf>,
    /// PEM file of the certificate that is shown to the other server
    #[arg(long, value_name = "FILE", env = "CONSUL_CLIENT_CERT")]
    from_client_cert: Option<PathBuf>,
    /// PEM file of its key
    #[arg(long, value_name = "FILE", env = "CONSUL_CLIENT_KEY")]
    from_client_key: Option<PathBuf>,
    /// The name that the other server's certificate has to be for [default: the address's]
    #[arg(long, value_name = "NAME", env = "CONSUL_TLS_SERVER_NAME")]
    from_tls_server_name: Option<String>,
    /// An export; - is standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Say what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Remove what came through the catalog before and is not there any more
    #[arg(long)]
    prune: bool,
    #[command(flatten)]
    server: Server,
}

/// Pieces that wait for the connection.
const WAITING_MAX: usize = 4;
const PIECE_OCTETS: usize = 64 * 1024;
/// How long reading, sending and carrying out may take together.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

type Pieces = mpsc::Sender<io::Result<Bytes>>;

/// Prints what was done. Errs when something was refused.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let told = block_on(import(arguments))?;
    told.print()
}

async fn import(arguments: &Arguments) -> anyhow::Result<Told> {
    let source = arguments.source().transpose()?;
    let (pieces, mut queue) = mpsc::channel(WAITING_MAX);
    let reading = {
        let (source, file, prune) = (source.clone(), arguments.file.clone(), arguments.prune);
        tokio::spawn(async move {
            let outcome = match (source, file) {
                (Some(source), _) => consul::read(source, prune, &pieces).await,
                (None, Some(file)) => send_file(&file, pieces.clone()).await,
                (None, None) => Err(anyhow!("name --from or --file")),
            };
            if outcome.is_err() {
                // The server must not take what there is for the whole.
                let _ = pieces.send(Err(io::Error::other("reading broke off"))).await;
            }
            outcome
        })
    };
    let body = futures_util::stream::poll_fn(move |context| queue.poll_recv(context));
    let body = StreamBody::new(futures_util::StreamExt::map(body, |piece| piece.map(Frame::data)));
    let path = format!(
        "/v1/rollcall/import?dry-run={}&prune={}",
        u8::from(arguments.dry_run),
        u8::from(arguments.prune)
    );
    let request = Request::builder().method(Method::PUT).uri(path).body(body)?;
    let sent = arguments.server.exchange(request, PATIENCE).await;
    let read = reading.await.map_err(|e| anyhow!("reading broke off: {e}"))?;
    let mut told = match (read, &sent) {
        (Ok(told), _) => told,
        // The server said more: it reads no further than to the first mistake.
        (Err(_), Ok(answer)) if answer.status().as_u16() >= 300 => Told::default(),
        (Err(error), _) => return Err(error.context("nothing was changed")),
    };
    told.report = answer(sent).await?;
    told.dry_run = arguments.dry_run;
    if let Some(source) = source {
        queries::import(&source, &arguments.server, arguments.dry_run, &mut told).await?;
    }
    Ok(told)
}

impl Arguments {
    /// The other server, where one is named.
    fn source(&self) -> Option<anyhow::Result<Source>> {
        let files = ApiFiles {
            ca: self.from_ca_file.clone().or_else(|| self.server.ca_file()),
            cert: self.from_client_cert.clone(),
            key: self.from_client_key.clone(),
        };
        let trust = Trust { files, name: self.from_tls_server_name.clone() };
        self.from.as_deref().map(|from| Source::new(from, self.from_token.as_deref(), trust))
    }
}

/// What the server did.
async fn answer(sent: anyhow::Result<hyper::Response<hyper::body::Incoming>>) -> anyhow::Result<Value> {
    let unknown = "the connection to the server broke; what was taken by then is not known: run it again, what is there \
                   already changes nothing";
    let answer = sent.context("sending to the server")?;
    let status = answer.status();
    let text = answer.into_body().collect().await.context(unknown)?.to_bytes();
    let report = serde_json::from_slice::<Value>(&text).ok().filter(|report| report["Services"].is_object());
    match report {
        Some(report) => Ok(report),
        None if status.as_u16() == 404 => bail!("this server takes no imports; is --server a Rollcall?"),
        None => bail!("{} ({})", String::from_utf8_lossy(&text).trim(), status.as_u16()),
    }
}

async fn send_file(file: &Path, pieces: Pieces) -> anyhow::Result<Told> {
    let file = file.to_owned();
    let reading = tokio::task::spawn_blocking(move || {
        let mut from: Box<dyn Read> = if file.as_os_str() == "-" {
            Box::new(io::stdin().lock())
        } else {
            Box::new(std::fs::File::open(&file).with_context(|| format!("opening {}", file.display()))?)
        };
        let mut buffer = vec![0; PIECE_OCTETS];
        loop {
            let count = from.read(&mut buffer).with_context(|| format!("reading {}", file.display()))?;
            if count == 0 {
                return Ok(Told::default());
            }
            // The server has answered already, and says why.
            if pieces.blocking_send(Ok(Bytes::copy_from_slice(&buffer[..count]))).is_err() {
                return Ok(Told::default());
            }
        }
    });
    reading.await?
}
