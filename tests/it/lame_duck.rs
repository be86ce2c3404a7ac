//! A server that was told to stop: served on for a while, not ready any more.

use std::fs;

use hickory_proto::rr::RecordType;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::daemon::Daemon;
use crate::server::{Answer, PATIENCE, ask, query, request};

struct Duck {
    daemon: Daemon,
    _dir: tempfile::TempDir,
}

impl Duck {
    fn start(lame_duck: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("rollcall.toml");
        fs::write(&file, format!("lame_duck = {lame_duck:?}\n")).unwrap();
        let daemon = Daemon::start(&dir.path().join("data"), &["--config", file.to_str().unwrap()]);
        Self { daemon, _dir: dir }
    }

    async fn get(&self, path: &str) -> Answer {
        request(self.daemon.http[0], "GET", path, &[], "").await
    }

    async fn put(&self, path: &str, body: &str) -> Answer {
        request(self.daemon.http[0], "PUT", path, &[], body).await
    }

    /// Until it says that it is about to stop.
    async fn told(&self) -> Answer {
        let looking = async {
            loop {
                let ready = self.get("/ready").await;
                if ready.status != 200 {
                    return ready;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, looking).await.unwrap()
    }

    /// How it ended, within the patience.
    async fn ended(mut self) -> std::process::ExitStatus {
        let waiting = tokio::task::spawn_blocking(move || self.daemon.child.wait().unwrap());
        tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_served_on_while_it_is_not_ready_and_a_second_signal_ends_it() {
    let duck = Duck::start("1h");
    assert_eq!(duck.get("/ready").await.status, 200);
    duck.daemon.signal(Signal::SIGTERM);
    let told = duck.told().await;
    assert_eq!(told.status, 503);
    let text = told.text();
    let left = text.strip_prefix("everything is served, but this server stops in ");
    let left: f64 = left.unwrap_or_else(|| panic!("{text}")).split(' ').next().unwrap().parse().unwrap();
    assert!((3000.0..=3600.0).contains(&left), "{text}");
    assert_eq!(duck.get("/health").await.status, 200);
    // Changes are taken, and answered with.
    let web = json!({ "Name": "web", "Address": "10.0.0.1", "Port": 80 }).to_string();
    assert_eq!(duck.put("/v1/agent/service/register", &web).await.status, 200);
    let answer = ask(duck.daemon.dns[0], &query("web.service.internal.", RecordType::A)).await;
    assert_eq!(answer.answers.len(), 1, "{answer}");
    let reload = duck.put("/v1/agent/reload", "").await;
    assert!(reload.status >= 400 && reload.text().contains("about to stop"), "{}", reload.text());
    duck.daemon.signal(Signal::SIGINT);
    assert!(duck.ended().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_by_itself_after_its_time() {
    let duck = Duck::start("300ms");
    let begun = std::time::Instant::now();
    duck.daemon.signal(Signal::SIGTERM);
    assert!(duck.ended().await.success());
    assert!(begun.elapsed() >= std::time::Duration::from_millis(300), "{:?}", begun.elapsed());
}
