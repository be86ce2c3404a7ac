//! Files that hold secrets and that others may open: told at the start, with what to do about it.

use std::fs::{self, Permissions};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::signal::Signal;

use crate::daemon::{Daemon, run};

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// What a server says from its start to its end.
fn log(file: &Path, data: &Path) -> String {
    let words = ["--config", file.to_str().unwrap(), "--data-dir", data.to_str().unwrap(), "--node", "n1"];
    let ports = ["--dns", "127.0.0.1:0", "--http", "127.0.0.1:0", "--log-format", "human"];
    let (mut daemon, mut errors) = Daemon::with_errors(&[&words[..], &ports].concat());
    daemon.signal(Signal::SIGTERM);
    let mut text = String::new();
    errors.read_to_string(&mut text).unwrap();
    assert!(daemon.child.wait().unwrap().success());
    text
}

#[test]
fn who_may_open_a_key_or_a_token_is_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (file, key, plain) = (at("rollcall.toml"), at("store.key"), at("plain.toml"));
    fs::write(&key, KEY).unwrap();
    fs::write(&plain, "datacenter = \"dc1\"\n").unwrap();
    fs::set_permissions(&plain, Permissions::from_mode(0o644)).unwrap();
    let text =
        format!("[store]\nkey_file = {key:?}\n[acl]\nenabled = true\ninitial_management = \"s3cret-7f\"\n");
    fs::write(&file, text).unwrap();
    let said = |what: &Path, kind: &str| {
        format!("{}, {kind}, can be opened by others: chmod go= it", what.display())
    };
    let (of_key, of_file) = (said(&key, "the key of the store"), said(&file, "which holds tokens"));
    for (mode, warned) in [(0o600, false), (0o640, true), (0o644, true)] {
        for path in [&file, &key] {
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
        let log = log(&file, &at("data"));
        for warning in [&of_key, &of_file] {
            assert_eq!(log.contains(warning), warned, "{mode:o} {warning}: {log}");
        }
        let checked = run(&["check-config", file.to_str().unwrap()]);
        let checked = String::from_utf8(checked.stdout).unwrap();
        assert_eq!(checked.contains(&of_file), warned, "{checked}");
        assert!(!log.contains("s3cret-7f") && !checked.contains("s3cret-7f"));
    }
    // A file without secrets may be as open as it likes; only the one that names the token is spoken of.
    let both = run(&["check-config", plain.to_str().unwrap(), file.to_str().unwrap()]);
    let both = String::from_utf8(both.stdout).unwrap();
    assert!(both.contains(&of_file) && !both.contains("plain.toml"), "{both}");
}
