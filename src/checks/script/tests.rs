//! Real programs, and what is left of them.

use std::path::Path;
use std::time::Instant;

use tokio::io::AsyncWriteExt;

use super::*;
use crate::checks::tests::tools_with;
use crate::tls::authority::Authority;

const LONG: Duration = Duration::from_secs(60);

async fn run(args: &[&str], limit: Duration) -> Finding {
    let tools = tools_with(Authority::new().clients());
    let args: Vec<_> = args.iter().map(|arg| (*arg).to_owned()).collect();
    probe(&args, limit, 4096, &tools).await
}

async fn shell(script: &str, limit: Duration) -> Finding {
    run(&["sh", "-c", script], limit).await
}

/// A pipe with a name, which a script opens for writing and its processes inherit: its end is seen here when the last of
/// them has gone.
struct Held {
    folder: tempfile::TempDir,
    read: pipe::Receiver,
}

impl Held {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("held");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let read = pipe::OpenOptions::new().open_receiver(&path).unwrap();
        Self { folder, read }
    }

    fn path(&self) -> String {
        self.folder.path().join("held").display().to_string()
    }

    /// Waits for a line.
    async fn line(&mut self) -> String {
        let mut line = Vec::new();
        loop {
            let octet = tokio::time::timeout(LONG, self.read.read_u8()).await.expect("nothing came");
            match octet.expect("it ended without a line") {
                b'\n' => return String::from_utf8(line).unwrap(),
                octet => line.push(octet),
            }
        }
    }

    /// Waits for the end of all who hold it.
    async fn gone(mut self) {
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(LONG, self.read.read_to_end(&mut rest)).await;
        ended.expect("a process of the script lives on").unwrap();
    }
}

#[tokio::test]
async fn the_exit_code_is_the_status() {
    for (script, status, output) in [
        ("echo fine", Status::Passing, "fine\n"),
        ("echo so so; exit 1", Status::Warning, "so so\n"),
        ("echo bad; exit 2", Status::Critical, "bad\n"),
        ("exit 0", Status::Passing, ""),
        ("exit 1", Status::Warning, "exit status: 1"),
        ("exit 77", Status::Critical, "exit status: 77"),
        ("echo out; echo err >&2; echo out", Status::Passing, "out\nerr\nout\n"),
        ("echo before; kill -9 $$", Status::Critical, "before\nsignal: 9 (SIGKILL)"),
        // Nothing comes on its input, and it ends at once.
        ("cat", Status::Passing, ""),
        ("exec >&- 2>&-; exit 3", Status::Critical, "exit status: 3"),
    ] {
        assert_eq!(shell(script, LONG).await, Finding::new(status, output), "{script}");
    }
}

#[tokio::test]
async fn arguments_are_not_interpreted() {
    let finding = run(&["printf", "%s", "$(id); `id` | * \"'"], LONG).await;
    assert_eq!(finding, Finding::new(Status::Passing, "$(id); `id` | * \"'"));
}

#[tokio::test]
async fn of_much_output_the_last_is_kept() {
    let finding = shell("yes 0123456789abcde | head -c 16000000; echo; echo end", LONG).await;
    assert_eq!(finding.status, Status::Passing);
    let (head, rest) = finding.output.split_once("\n...\n").unwrap();
    assert_eq!(head, "Captured 4096 of 16000005 bytes");
    assert_eq!(rest.len(), 4096);
    assert!(rest.ends_with("abcde\n\nend\n"));
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    for (args, words) in [
        (
            &["/nowhere/at all"][..],
            "cannot run \"/nowhere/at all\": no such file or directory (ScriptArgs begins",
        ),
        (&["no-such-program"], "cannot run \"no-such-program\": no such file or directory"),
        (&["/"], "cannot run \"/\": permission denied (is it executable"),
        (&[], "the script has no program to run"),
        (&["echo", "a\0b"], "cannot run \"echo\": "),
    ] {
        let finding = run(args, LONG).await;
        assert_eq!(finding.status, Status::Critical);
        assert!(finding.output.starts_with(words), "{}", finding.output);
    }
}

#[tokio::test]
async fn time_that_is_up_ends_all_it_started() {
    let mut held = Held::new();
    // Grandchildren that ignore what can be ignored, one of them with the output redirected.
    let script = format!(
        "exec 3>{}; trap '' TERM HUP; (sleep 1000; true) & (sleep 1000; true) >&- 2>&- & echo begun; echo begun >&3; wait",
        held.path()
    );
    let finding = shell(&script, Duration::from_secs(3)).await;
    let text = "Timed out (3s) running check\nbegun\n";
    assert_eq!(finding, Finding::new(Status::Critical, text));
    assert_eq!(held.line().await, "begun");
    held.gone().await;
    let silent = run(&["sleep", "1000"], Duration::from_millis(1500)).await;
    assert_eq!(silent, Finding::new(Status::Critical, "Timed out (1.5s) running check"));
    let endless = run(&["yes"], Duration::from_millis(200)).await;
    assert!(
        endless.output.starts_with("Timed out (200ms) running check\nCaptured 4096 of "),
        "{}",
        endless.output
    );
}

#[tokio::test]
async fn a_probe_that_is_dropped_ends_all_it_started() {
    let mut held = Held::new();
    let script = format!("exec 3>{}; (sleep 1000; true) & echo $$ >&3; wait", held.path());
    let probing = tokio::spawn(async move { shell(&script, LONG).await });
    let leader = held.line().await;
    assert!(Path::new("/proc").join(&leader).exists());
    probing.abort();
    assert!(probing.await.unwrap_err().is_cancelled());
    held.gone().await;
    // Waited for as well, so that it does not stay as a zombie; no event tells of that.
    let begun = Instant::now();
    while Path::new("/proc").join(&leader).exists() {
        assert!(begun.elapsed() < LONG, "process {leader} was not waited for");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn what_it_leaves_behind_is_not_waited_for() {
    let (mut held, told) = (Held::new(), Held::new());
    let mut tell = pipe::OpenOptions::new().read_write(true).open_sender(told.path()).unwrap();
    // The one left behind holds the output open too.
    let script =
        format!("exec 3>{}; (echo left >&3; read line <{}) & echo done; exit 1", held.path(), told.path());
    let finding = shell(&script, LONG).await;
    assert_eq!(finding, Finding::new(Status::Warning, "done\n"));
    assert_eq!(held.line().await, "left");
    // It lives, and ends when it is told to.
    assert!(tokio::time::timeout(Duration::from_millis(50), held.read.read_u8()).await.is_err());
    tell.write_all(b"end\n").await.unwrap();
    held.gone().await;
}

#[tokio::test]
async fn the_environment_is_passed_on() {
    // What cargo sets for tests stands for all that is inherited.
    assert!(std::env::var_os("CARGO_PKG_NAME").is_some());
    assert_eq!(shell("echo $CARGO_PKG_NAME", LONG).await.output, "rollcall\n");
}

#[test]
fn our_own_settings_are_not_passed_on() {
    for (name, own) in [
        ("ROLLCALL_ACL", true),
        ("NOTIFY_SOCKET", true),
        ("PATH", false),
        ("NOTIFY_SOCKETS", false),
        ("", false),
    ] {
        assert_eq!(is_own(OsStr::new(name)), own, "{name}");
    }
}
