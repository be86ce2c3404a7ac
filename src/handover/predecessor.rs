//! The successor's side: what the server before it gives.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};

use super::channel::Channel;
use super::{Message, Sockets, VERSION};

/// How long the server before us may take to stop answering DNS. What it still waits for then are others' answers.
const SILENT_WITHIN: Duration = Duration::from_secs(2);

/// The server before us.
pub struct Predecessor(Channel);

/// What it leaves, apart from its definitions.
pub struct Inheritance {
    pub sockets: Sockets,
    /// Its data directory; absent when it keeps nothing.
    pub data: Option<PathBuf>,
}

impl Predecessor {
    /// Takes the socket pair's end from standard input, which then leads nowhere. Must be called inside a runtime.
    pub fn on_stdin() -> anyhow::Result<Self> {
        let end = take_stdin().context("taking standard input")?;
        Self::new(end).context("this flag is for `rollcall restart`, which starts the server with it")
    }

    fn new(end: OwnedFd) -> io::Result<Self> {
        Channel::new(end).map(Self)
    }

    /// Waits for the sockets.
    pub async fn sockets(&self) -> anyhow::Result<Inheritance> {
        let (data, mut missing) = match self.next().await? {
            (Message::Begin { version: VERSION, data, sockets }, _) => (data, sockets),
            (Message::Begin { version, .. }, _) => bail!(
                "the running server hands over by form {version}, this one by form {VERSION}: stop it and start anew"
            ),
            (other, _) => return Err(unexpected(&other)),
        };
        let mut sockets = Sockets::default();
        while missing > 0 {
            let (described, descriptors) = match self.next().await? {
                (Message::Sockets { sockets }, descriptors) => (sockets, descriptors),
                (other, _) => return Err(unexpected(&other)),
            };
            let count = descriptors.len();
            if described.len() != count || !(1..=missing).contains(&count) {
                bail!("{count} descriptors came for {} sockets of {missing}", described.len());
            }
            missing -= count;
            described.iter().zip(descriptors).for_each(|(what, fd)| sockets.add(what, fd));
        }
        Ok(Inheritance { sockets, data })
    }

    /// Says that we have all that can be had before the store; returns when that is ours, with the state of a server that keeps
    /// nothing.
    pub async fn prepared(&self) -> anyhow::Result<Option<File>> {
        self.0.send(&Message::Prepared, &[]).context("the running server has gone")?;
        match self.next().await? {
            (Message::Yours, descriptors) => Ok(descriptors.into_iter().next().map(File::from)),
            (other, _) => Err(unexpected(&other)),
        }
    }

    /// Says that we answer DNS, and returns when the server before us does not any more: it has said so, or has ended.
    pub async fn ready(&self) {
        if self.0.send(&Message::Ready, &[]).is_err() {
            return;
        }
        // Whatever comes or does not: it has given us everything.
        let _ = tokio::time::timeout(SILENT_WITHIN, self.0.receive()).await;
    }

    /// Says why we give up.
    pub fn give_up(&self, reason: String) {
        // It may have gone.
        let _ = self.0.send(&Message::Failed { reason }, &[]);
    }

    async fn next(&self) -> anyhow::Result<(Message, Vec<OwnedFd>)> {
        let received = self.0.receive().await.context("hearing from the running server")?;
        received.context("the running server has gone")
    }
}

fn unexpected(message: &Message) -> anyhow::Error {
    anyhow::anyhow!("the running server said {message:?} out of turn")
}

fn take_stdin() -> io::Result<OwnedFd> {
    let end = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_that_is_ready_waits_for_the_server_before_it_to_be_silent_or_gone() {
        for says_so in [true, false] {
            let (server, end) = Channel::pair().unwrap();
            let predecessor = Predecessor::new(end).unwrap();
            let mut ready = Box::pin(predecessor.ready());
            let told = tokio::select! {
                biased;
                () = &mut ready => panic!("it did not wait"),
                told = server.receive() => told.unwrap(),
            };
            assert!(matches!(told, Some((Message::Ready, _))));
            tokio::select! {
                biased;
                () = &mut ready => panic!("it did not wait"),
                () = std::future::ready(()) => {}
            }
            if says_so {
                server.send(&Message::Silent, &[]).unwrap();
            } else {
                drop(server);
            }
            ready.await;
        }
    }
}
