//! The commands while access is controlled, by the real program: the first token, and the ways to bring one.

use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::Value;

use crate::daemon::{Daemon, rollcall};

/// A server that controls access.
fn controlled(dir: &Path, more: &str) -> (Daemon, String) {
    let file = dir.join("rollcall.toml");
    fs::write(&file, format!("[acl]\nenabled = true\ndefault_policy = \"deny\"\n{more}")).unwrap();
    let daemon = Daemon::start(&dir.join("data"), &["--config", file.to_str().unwrap()]);
    let address = daemon.http[0].to_string();
    (daemon, address)
}

/// Runs a command with variables in its environment.
fn run(words: &[&str], address: &str, variables: &[(&str, &str)]) -> Output {
    let mut command = rollcall();
    command.args(words).args(["--server", address]).envs(variables.iter().copied());
    command.stdin(Stdio::null()).output().unwrap()
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// What a command prints that must be done.
fn done(words: &[&str], address: &str, variables: &[(&str, &str)]) -> String {
    let output = run(words, address, variables);
    let (out, err) = texts(&output);
    assert!(output.status.success() && err.is_empty(), "{words:?}: {err}");
    out
}

/// What a command says that must fail.
fn fails(words: &[&str], address: &str, variables: &[(&str, &str)]) -> String {
    let output = run(words, address, variables);
    let (out, err) = texts(&output);
    assert_eq!((output.status.code(), out.as_str()), (Some(1), ""), "{words:?}: {err}");
    err
}

/// Gets the first token; its secret.
fn bootstrap(address: &str) -> String {
    let printed = done(&["acl", "bootstrap"], address, &[]);
    let lines: Vec<Vec<&str>> = printed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(matches!(&lines[..], [a, b] if a[0] == "AccessorID" && b[0] == "SecretID"), "{printed}");
    assert!(lines.iter().all(|line| uuid::Uuid::try_parse(line[1]).is_ok()), "{printed}");
    lines[1][1].to_owned()
}

#[test]
fn the_first_token_is_printed_once_and_opens_the_other_commands() {
    let dir = tempfile::tempdir().unwrap();
    let (_daemon, address) = controlled(dir.path(), "");
    let register = ["register", "web", "--port", "80"];
    let refused = fails(&register, &address, &[]);
    assert!(
        refused.contains("lacks permission 'service:write' on \"web\"") && refused.contains("(403)"),
        "{refused}"
    );
    let secret = bootstrap(&address);
    let again = fails(&["acl", "bootstrap"], &address, &[]);
    assert!(again.contains("ACL bootstrap no longer allowed") && !again.contains(&secret), "{again}");
    // Nobody else's commands are let in by that.
    assert!(fails(&register, &address, &[]).contains("(403)"));
    let with = [("ROLLCALL_HTTP_TOKEN", secret.as_str())];
    assert_eq!(done(&register, &address, &with), "Registered service: web\n");
    let services: Value = serde_json::from_str(&done(&["services", "--json"], &address, &with)).unwrap();
    assert_eq!(services["web"]["passing"], 1, "{services}");
    let seen: Value = serde_json::from_str(&done(&["services", "--json"], &address, &[])).unwrap();
    assert!(seen.get("web").is_none(), "{seen}");
    let kept = dir.path().join("kept");
    let words = ["backup", kept.to_str().unwrap()];
    assert!(fails(&words, &address, &[]).contains("'acl:write'") && !kept.exists());
    done(&words, &address, &with);
    assert!(fs::metadata(&kept).unwrap().len() > 0);
    assert!(fails(&["export"], &address, &[]).contains("'acl:write'"));
    assert!(done(&["export"], &address, &with).contains("\"web\""));
    assert_eq!(done(&["deregister", "web"], &address, &with), "Deregistered service: web\n");
}

#[test]
fn a_flag_goes_before_the_environment_and_a_token_before_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let (_daemon, address) = controlled(dir.path(), "initial_management = \"right-41f0\"\n");
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (right, wrong) = (file("right", "  right-41f0\n"), file("wrong", "wrong-88d2\n"));
    let (token, token_file) = ("ROLLCALL_HTTP_TOKEN", "ROLLCALL_HTTP_TOKEN_FILE");
    for (flags, variables) in [
        (&["--token", "right-41f0"][..], &[][..]),
        (&["--token-file", &right], &[]),
        (&[], &[(token, "right-41f0")]),
        (&[], &[(token_file, right.as_str())]),
        (&["--token", "right-41f0"], &[(token, "wrong-88d2"), (token_file, wrong.as_str())]),
        (&["--token-file", &right], &[(token, "wrong-88d2"), (token_file, wrong.as_str())]),
        (&[], &[(token, "right-41f0"), (token_file, wrong.as_str())]),
        (&[], &[(token, ""), (token_file, right.as_str())]),
    ] {
        // The other way round, so that it is the token that lets in.
        let swapped = |text: &str| match text {
            "right-41f0" => "wrong-88d2".to_owned(),
            "wrong-88d2" => "right-41f0".to_owned(),
            text if text == right => wrong.clone(),
            text if text == wrong => right.clone(),
            text => text.to_owned(),
        };
        let words = [&["export"], flags].concat();
        assert!(done(&words, &address, variables).contains("rollcall_export"), "{words:?} {variables:?}");
        let words: Vec<_> = words.iter().map(|text| swapped(text)).collect();
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let swapped: Vec<_> = variables.iter().map(|(name, value)| (*name, swapped(value))).collect();
        let swapped: Vec<_> = swapped.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let refused = fails(&words, &address, &swapped);
        assert!(refused.contains("ACL not found (403)"), "{words:?} {swapped:?}: {refused}");
        assert!(!refused.contains("wrong-88d2"), "no secret is printed: {refused}");
    }
    let (empty, nowhere) = (file("empty", " \n"), dir.path().join("nowhere"));
    let said = fails(&["export", "--token-file", &empty], &address, &[]);
    assert!(said.contains(&format!("{empty} holds no token")), "{said}");
    let said = fails(&["export", "--token-file", nowhere.to_str().unwrap()], &address, &[]);
    assert!(said.contains("reading the token in") && said.contains("nowhere"), "{said}");
    let said = fails(&["export", "--token", "two\nlines"], &address, &[]);
    assert!(said.contains("the token is no header's value") && !said.contains("lines"), "{said}");
    let both = run(&["export", "--token", "a", "--token-file", &right], &address, &[]);
    assert_eq!(both.status.code(), Some(2), "{}", texts(&both).1);
}

#[test]
fn the_help_shows_no_token_of_the_environment() {
    let mut command = rollcall();
    command.args(["services", "--help"]).env("ROLLCALL_HTTP_TOKEN", "s3cret-77aa");
    let (help, _) = texts(&command.output().unwrap());
    for word in
        ["--token <SECRET>", "--token-file <FILE>", "ROLLCALL_HTTP_TOKEN_FILE]", "ROLLCALL_HTTP_TOKEN]"]
    {
        assert!(help.contains(word), "{word}: {help}");
    }
    assert!(!help.contains("s3cret-77aa"), "{help}");
}
