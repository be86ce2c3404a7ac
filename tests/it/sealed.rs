//! The store under a key: nothing readable on disk, no other key will do, another key by command, and damage that is told.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use nix::sys::signal::Signal;
use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use rollcall::store::{Config, Embedded, Loaded, Store, StoreKey};
use serde_json::json;

use crate::daemon::{Daemon, rollcall};
use crate::server::request;

/// Two keys, and what must not be seen.
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const OTHER: &str = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";
const SECRETS: [&str; 4] = ["secret-service", "secret-meta-value", "secret-output", "secret-check"];

struct Place {
    dir: tempfile::TempDir,
    data: PathBuf,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let place = Self { dir, data };
        for (name, key) in [("key", KEY), ("other", OTHER)] {
            fs::write(place.at(name), format!("{key}\n")).unwrap();
            fs::set_permissions(place.at(name), fs::Permissions::from_mode(0o600)).unwrap();
        }
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, key: Option<&str>) -> Command {
        let mut command = rollcall();
        command.env("ROLLCALL_DATA_DIR", &self.data);
        key.map(|key| command.env("ROLLCALL_STORE_KEY", key));
        command
    }

    fn start(&self, key: Option<&str>) -> Daemon {
        let words = ["--dns", "127.0.0.1:0", "--http", "127.0.0.1:0", "--node", "n1"];
        Daemon::of(self.command(key), &words)
    }

    /// What a command says, and whether it was done.
    fn run(&self, key: Option<&str>, words: &[&str]) -> (bool, String) {
        let Output { status, stdout, stderr } = self.command(key).args(words).output().unwrap();
        let said = String::from_utf8_lossy(&stdout) + String::from_utf8_lossy(&stderr);
        (status.success(), said.into_owned())
    }

    fn refused(&self, key: Option<&str>) -> String {
        let words = ["serve", "--dns", "127.0.0.1:0", "--http", "127.0.0.1:0"];
        // The database keeps books of its own in its file, also when it is only opened.
        let others =
            || self.octets().into_iter().filter(|(path, _)| !path.ends_with("registry.redb")).collect();
        let before: Vec<_> = others();
        let (done, said) = self.run(key, &words);
        assert!(!done, "{said}");
        assert!(before == others(), "nothing is changed");
        said
    }

    fn octets(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files: Vec<_> =
            fs::read_dir(&self.data).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.is_file());
        files.sort();
        files.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }

    /// The secrets that can be read in the data directory.
    fn seen(&self) -> Vec<&'static str> {
        let files = self.octets();
        assert!(files.len() >= 2, "database and journal");
        let has = |secret: &str| files.iter().any(|(_, octets)| contains(octets, secret));
        SECRETS.into_iter().filter(|secret| has(secret)).collect()
    }

    fn load(&self, key: Option<&str>) -> Result<Loaded, String> {
        let config = Config { data_dir: self.data.clone(), cache_bytes: 1 << 20 };
        let key = key.map(|key| StoreKey::parse(key).unwrap());
        let log = tokio::sync::mpsc::unbounded_channel().0;
        let store = Embedded::open_with_key(&config, key.as_ref(), log, Default::default());
        store.and_then(|store| store.load()).map_err(|e| e.to_string())
    }
}

fn contains(octets: &[u8], text: &str) -> bool {
    octets.windows(text.len()).any(|part| part == text.as_bytes())
}

/// Registers what is secret, and lets a check say something secret.
async fn fill(daemon: &Daemon) {
    let check = json!({ "CheckID": "secret-check", "TTL": "1h" });
    let body = json!({ "Name": "secret-service", "Meta": { "k": "secret-meta-value" }, "Check": check });
    let http = daemon.http[0];
    let answer = request(http, "PUT", "/v1/agent/service/register", &[], &body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let path = "/v1/agent/check/pass/secret-check?note=secret-output";
    assert_eq!(request(http, "PUT", path, &[], "").await.status, 200);
    // A status is written a moment later; a backup writes what waits first.
    assert_eq!(request(http, "GET", "/v1/rollcall/backup", &[], "").await.status, 200);
}

async fn is_there(daemon: &Daemon) {
    let found = request(daemon.http[0], "GET", "/v1/health/service/secret-service", &[], "").await.json();
    assert_eq!(found[0]["Service"]["Meta"]["k"], "secret-meta-value", "{found}");
    let checks = found[0]["Checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["CheckID"] == "secret-check").unwrap();
    assert_eq!((&check["Status"], &check["Output"]), (&json!("passing"), &json!("secret-output")), "{found}");
}

#[tokio::test]
async fn with_a_key_nothing_readable_is_on_disk_and_all_is_there_again() {
    for key in [None, Some(KEY)] {
        let place = Place::new();
        let wanted = if key.is_some() { vec![] } else { SECRETS.to_vec() };
        // In the journal, as a crash leaves it.
        let daemon = place.start(key);
        let check = json!({ "Name": "secret-service", "Meta": { "k": "secret-meta-value" } }).to_string();
        let answer = request(daemon.http[0], "PUT", "/v1/agent/service/register", &[], &check).await;
        assert_eq!(answer.status, 200);
        daemon.end(Signal::SIGKILL);
        assert_eq!(place.seen().contains(&"secret-service"), key.is_none());
        // In the database.
        let daemon = place.start(key);
        fill(&daemon).await;
        assert!(daemon.end(Signal::SIGTERM).success());
        assert_eq!(place.seen(), wanted, "{key:?}");
        let daemon = place.start(key);
        is_there(&daemon).await;
    }
}

#[tokio::test]
async fn no_other_key_will_do_and_the_start_says_so() {
    let place = Place::new();
    let daemon = place.start(Some(KEY));
    fill(&daemon).await;
    daemon.end(Signal::SIGTERM);
    let said = place.refused(Some(OTHER));
    assert!(said.contains("encrypted with another key: with key ") && !said.contains(OTHER), "{said}");
    let said = place.refused(None);
    assert!(
        said.contains("the registry is encrypted, and there is no key for it: set [store] key_file"),
        "{said}"
    );
    let said = place.refused(Some("short"));
    assert!(said.contains("ROLLCALL_STORE_KEY: a key is 32 octets in base64"), "{said}");
    // From a file, which is beaten by the environment.
    let file = place.at("rollcall.toml");
    fs::write(&file, format!("[store]\nkey_file = {:?}\n", place.at("key"))).unwrap();
    let words =
        ["--config", file.to_str().unwrap(), "--dns", "127.0.0.1:0", "--http", "127.0.0.1:0", "--node", "n1"];
    let daemon = Daemon::of(place.command(None), &words);
    is_there(&daemon).await;
    drop(daemon);
    let (done, said) = place.run(Some(OTHER), &[&["serve"][..], &words].concat());
    assert!(!done && said.contains("another key"), "{said}");
    fs::remove_file(place.at("key")).unwrap();
    let (done, said) = place.run(None, &[&["serve"][..], &words].concat());
    assert!(!done && said.contains("the key of the store in ") && said.contains("No such file"), "{said}");
}

#[tokio::test]
async fn a_plain_store_is_encrypted_changed_and_made_plain_by_command() {
    let place = Place::new();
    let daemon = place.start(None);
    fill(&daemon).await;
    let busy = place.run(Some(KEY), &["store", "rotate", "--from-plain"]);
    assert!(!busy.0 && busy.1.contains("in use by another rollcall"), "{}", busy.1);
    daemon.end(Signal::SIGKILL);
    let said = place.refused(Some(KEY));
    assert!(
        said.contains("is not encrypted, but there is a key") && said.contains("rollcall store rotate"),
        "{said}"
    );
    let mut was = None;
    let [key, other] = ["key", "other"].map(|name| place.at(name).to_str().unwrap().to_owned());
    for (configured, words, now) in [
        (Some(KEY), &["--from-plain"][..], Some(KEY)),
        (Some(KEY), &["--new-key-file", &other], Some(OTHER)),
        (Some(KEY), &["--old-key-file", &other], Some(KEY)),
        (None, &["--old-key-file", &key, "--to-plain"], None),
    ] {
        let command = [&["store", "rotate"][..], words].concat();
        // A start gives our own node a new index.
        let before = place.load(was).unwrap();
        was = now;
        let (done, said) = place.run(configured, &command);
        assert!(done && said.contains(" definitions in "), "{words:?}: {said}");
        assert_eq!(place.seen().is_empty(), now.is_some(), "{words:?}");
        let (done, said) = place.run(configured, &command);
        assert!(done && said.contains("already"), "again {words:?}: {said}");
        let after = place.load(now).unwrap();
        assert_eq!((&after.records, &after.statuses), (&before.records, &before.statuses));
        assert!(after.index >= before.index);
        let daemon = place.start(now);
        is_there(&daemon).await;
        daemon.end(Signal::SIGTERM);
    }
    for (configured, words, reason) in [
        (None, &["--new-key-file", &key, "--old-key-file", &other][..], "the registry is not encrypted"),
        (None, &[], "say what is to change"),
        (None, &["--from-plain"], "there is no key to encrypt it with"),
        (None, &["--from-plain", "--new-key-file", "/nowhere"], "No such file"),
    ] {
        let (done, said) = place.run(configured, &[&["store", "rotate"][..], words].concat());
        assert!(!done && said.contains(reason), "{words:?}: {said}");
    }
}

/// A store of many definitions, so that writing it takes a while.
fn large(place: &Place) -> Loaded {
    let daemon = place.start(None);
    drop(daemon);
    let mut loaded = place.load(None).unwrap();
    for number in 0..2000 {
        let record = json!({ "node": { "name": format!("node-{number}"), "address": "10.0.0.1",
                                       "meta": { "k": "v".repeat(400) } } });
        loaded.records.push(rollcall::store::Stored {
            record: serde_json::from_value(record).unwrap(),
            create_index: 1,
            modify_index: 2,
        });
    }
    let mut bytes = Vec::new();
    rollcall::store::write_backup(&loaded, uuid::Uuid::nil(), &mut bytes).unwrap();
    fs::write(place.at("large.backup"), bytes).unwrap();
    let (done, said) = place.run(None, &["restore", place.at("large.backup").to_str().unwrap(), "--replace"]);
    assert!(done, "{said}");
    place.load(None).unwrap()
}

#[test]
fn a_change_of_key_that_is_killed_anywhere_loses_nothing_and_is_finished_by_the_same_command() {
    let place = Place::new();
    let before = large(&place);
    let (mut now, mut kills, mut done) = (None, 0, 0);
    let mut after = Duration::ZERO;
    // From plain to one key, to the other and back, each killed at moments that come later and later.
    for to in [Some(KEY), Some(OTHER), Some(KEY)] {
        let file = |key: Option<&str>| place.at(if key == Some(KEY) { "key" } else { "other" });
        loop {
            let mut command = place.command(None);
            command.args(["store", "rotate", "--new-key-file"]).arg(file(to));
            match now {
                None => command.arg("--from-plain"),
                Some(_) => command.arg("--old-key-file").arg(file(now)),
            };
            let mut child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
            std::thread::sleep(after);
            let ended = child.try_wait().unwrap();
            child.kill().unwrap();
            child.wait().unwrap();
            if ended.is_some_and(|status| status.success()) {
                done += 1;
                break;
            }
            kills += 1;
            after += Duration::from_millis(2) + after / 4;
            // Whole, under one of both; this takes no lock from the next run.
            let there = place.load(now).or_else(|_| place.load(to)).unwrap();
            assert!(there.records == before.records, "after {after:?}");
        }
        (now, after) = (to, Duration::ZERO);
        assert!(place.load(now).unwrap().records == before.records);
        assert!(!place.data.join("registry.redb.new").exists());
    }
    assert!(kills >= 3 && done == 3, "{kills} kills");
}

#[tokio::test]
async fn what_was_broken_off_after_the_last_step_leaves_no_readable_journal() {
    let place = Place::new();
    let daemon = place.start(None);
    fill(&daemon).await;
    assert!(daemon.end(Signal::SIGTERM).success());
    let journal = place.data.join("registry.journal");
    let readable = fs::read(&journal).unwrap();
    assert!(contains(&readable, "secret-service"));
    for finish in ["the command", "a start"] {
        assert!(place.run(Some(KEY), &["store", "rotate", "--from-plain"]).0);
        fs::write(&journal, &readable).unwrap();
        if finish == "a start" {
            let daemon = place.start(Some(KEY));
            is_there(&daemon).await;
            daemon.end(Signal::SIGTERM);
        } else {
            let (done, said) = place.run(Some(KEY), &["store", "rotate", "--from-plain"]);
            assert!(done && said.contains("already"), "{said}");
        }
        assert!(place.seen().is_empty(), "{finish}");
        assert!(place.run(Some(KEY), &["store", "rotate", "--to-plain"]).0);
    }
}

const RECORDS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("records");
const META: TableDefinition<&str, u128> = TableDefinition::new("meta");

/// Changes the entries of a stopped server's database.
fn tamper(place: &Place, change: impl FnOnce(&mut Vec<(Vec<u8>, Vec<u8>)>)) {
    let database = redb::Database::open(place.data.join("registry.redb")).unwrap();
    let read = database.begin_read().unwrap();
    let table = read.open_table(RECORDS).unwrap();
    let mut entries: Vec<(Vec<u8>, Vec<u8>)> = table
        .iter()
        .unwrap()
        .map(|entry| entry.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())).unwrap())
        .collect();
    drop((table, read));
    change(&mut entries);
    let write = database.begin_write().unwrap();
    let mut table = write.open_table(RECORDS).unwrap();
    for (key, value) in &entries {
        table.insert(key.as_slice(), value.as_slice()).unwrap();
    }
    drop(table);
    write.commit().unwrap();
}

#[tokio::test]
async fn entries_that_were_changed_or_swapped_end_the_start() {
    let place = Place::new();
    let daemon = place.start(Some(KEY));
    fill(&daemon).await;
    daemon.end(Signal::SIGTERM);
    let whole = fs::read(place.data.join("registry.redb")).unwrap();
    let damaged = "is damaged, or stands in another's place";
    tamper(&place, |entries| {
        assert!(entries.len() >= 3);
        let (first, rest) = entries.split_first_mut().unwrap();
        std::mem::swap(&mut first.1, &mut rest[0].1);
    });
    assert!(place.refused(Some(KEY)).contains(damaged));
    fs::write(place.data.join("registry.redb"), &whole).unwrap();
    tamper(&place, |entries| *entries[0].1.last_mut().unwrap() ^= 1);
    let said = place.refused(Some(KEY));
    assert!(said.contains(damaged) && SECRETS.iter().all(|secret| !said.contains(secret)), "{said}");
    let (done, said) = place.run(Some(KEY), &["store", "rotate", "--to-plain"]);
    assert!(!done && said.contains(damaged), "{said}");
    // One that claims to be plain is not taken under a key.
    fs::write(place.data.join("registry.redb"), &whole).unwrap();
    let database = redb::Database::open(place.data.join("registry.redb")).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(META).unwrap().insert("format", 3).unwrap();
    write.commit().unwrap();
    drop(database);
    assert!(place.refused(Some(KEY)).contains("is not encrypted, but there is a key"));
    fs::write(place.data.join("registry.redb"), &whole).unwrap();
    is_there(&place.start(Some(KEY))).await;
}

#[tokio::test]
async fn backups_are_encrypted_too_and_need_the_key() {
    let place = Place::new();
    let daemon = place.start(Some(KEY));
    fill(&daemon).await;
    let backup = place.at("backup");
    let shown = backup.to_str().unwrap();
    // One that was broken off is replaced, not written through.
    let elsewhere = place.at("elsewhere");
    std::os::unix::fs::symlink(&elsewhere, place.at("backup.partial")).unwrap();
    let server = daemon.http[0].to_string();
    let (done, said) = place.run(None, &["backup", shown, "--server", &server]);
    assert!(done, "{said}");
    assert!(!elsewhere.exists());
    assert_eq!(fs::metadata(&backup).unwrap().mode() & 0o777, 0o600);
    let octets = fs::read(&backup).unwrap();
    assert!(octets.starts_with(b"{\"sealed\"") && SECRETS.iter().all(|secret| !contains(&octets, secret)));
    drop(daemon);

    let after = Place::new();
    let (done, said) = after.run(None, &["restore", shown]);
    assert!(!done && said.contains("it is encrypted: give the key"), "{said}");
    let (done, said) = after.run(Some(OTHER), &["restore", shown]);
    assert!(!done && said.contains("encrypted with another key"), "{said}");
    assert!(!after.data.exists(), "nothing is made");
    let key = place.at("key");
    let (done, said) =
        after.run(Some(OTHER), &["restore", shown, "--backup-key-file", key.to_str().unwrap()]);
    assert!(done, "{said}");
    assert!(after.load(Some(KEY)).is_err());
    is_there(&after.start(Some(OTHER))).await;
}

#[tokio::test]
async fn files_are_private_whatever_the_umask_and_an_open_directory_is_told_of() {
    let place = Place::new();
    let start = |place: &Place| {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "umask 0; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_rollcall")]);
        for (name, _) in rollcall().get_envs() {
            command.env_remove(name);
        }
        let log = fs::File::create(place.at("log")).unwrap();
        command.env("ROLLCALL_DATA_DIR", &place.data).stderr(log);
        Daemon::of(command, &["--dns", "127.0.0.1:0", "--http", "127.0.0.1:0"])
    };
    let daemon = start(&place);
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&place.data), 0o700);
    let mut seen = 0;
    for entry in fs::read_dir(&place.data).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        seen += 1;
    }
    assert!(seen >= 3, "database, journal and control socket");
    drop(daemon);
    let log = || fs::read_to_string(place.at("log")).unwrap();
    assert!(!log().contains("others may write"), "{}", log());
    fs::set_permissions(&place.data, fs::Permissions::from_mode(0o777)).unwrap();
    drop(start(&place));
    assert!(log().contains("others may write to"), "{}", log());
}

#[tokio::test]
async fn a_restart_passes_the_key_on() {
    let place = Place::new();
    let daemon = place.start(Some(KEY));
    fill(&daemon).await;
    let (done, said) = place.run(None, &["restart"]);
    assert!(done, "{said}");
    is_there(&daemon).await;
    let pid = said.lines().last().and_then(|line| line.split(' ').find_map(|word| word.parse().ok()));
    let pid = nix::unistd::Pid::from_raw(pid.unwrap());
    nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
    while nix::sys::signal::kill(pid, None).is_ok() && stat(pid.as_raw()).is_some_and(|state| state != 'Z') {
        tokio::task::yield_now().await;
    }
    assert!(place.seen().is_empty());
}

/// A process's state (proc(5)).
fn stat(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.chars().next()
}
