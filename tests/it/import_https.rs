//! `rollcall import --from https://...`: another server behind a private authority, with and without client certificates.

use std::path::Path;
use std::process::Output;

use serde_json::json;

use crate::daemon::{Daemon, rollcall};
use crate::https::authority::Authority;
use crate::server::request;

/// A server whose API is served over TLS, and over plain HTTP so that it can be filled.
fn secure(dir: &Path, more: &str) -> Daemon {
    let file = dir.join("rollcall.toml");
    let (cert, key) = (dir.join("server.pem"), dir.join("server.key"));
    let text = format!(
        "[https]\nlisten = [\"127.0.0.1:0\"]\ncert_file = {cert:?}\nkey_file = {key:?}\n{more}\n[dns]\nlisten = [\"127.0.0.1:0\"]\n"
    );
    std::fs::write(&file, text).unwrap();
    let words = ["--config", file.to_str().unwrap(), "--ephemeral", "--http", "127.0.0.1:0", "--node", "old"];
    Daemon::with(&words)
}

async fn import(words: Vec<String>, variables: Vec<(&'static str, String)>) -> Output {
    let mut command = rollcall();
    for name in ["CONSUL_CACERT", "CONSUL_CLIENT_CERT", "CONSUL_CLIENT_KEY", "CONSUL_TLS_SERVER_NAME"] {
        command.env_remove(name);
    }
    command.arg("import").args(words).envs(variables);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_behind_a_private_authority_is_taken_over() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    servers.issue("127.0.0.1").write(servers.dir.path(), "server");
    clients.issue("importer").write(clients.dir.path(), "importer");
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let (ca, clients_ca) = (path(&servers.write_ca("ca.pem")), clients.write_ca("clients.pem"));
    let (cert, key) =
        (path(&clients.dir.path().join("importer.pem")), path(&clients.dir.path().join("importer.key")));
    let open = secure(servers.dir.path(), "");
    let closed = secure(servers.dir.path(), &format!("client_ca_file = {clients_ca:?}"));
    for old in [&open, &closed] {
        let body = json!({"Node": "h1", "Address": "10.0.0.1", "Service": {"Service": "web", "Port": 80}});
        let made = request(old.http[0], "PUT", "/v1/catalog/register", &[], &body.to_string()).await;
        assert_eq!(made.status, 200, "{}", made.text());
    }
    let flags = |words: &[(&str, &String)]| {
        words.iter().flat_map(|(flag, value)| [(*flag).to_owned(), (*value).clone()]).collect::<Vec<_>>()
    };
    let shown = [("--from-client-cert", &cert), ("--from-client-key", &key)];
    let authority = ("--from-ca-file", &ca);
    for (old, words, variables, good) in [
        (&open, flags(&[authority]), vec![], Ok(())),
        (&open, flags(&[("--ca-file", &ca)]), vec![], Ok(())),
        (&open, vec![], vec![("CONSUL_CACERT", ca.clone())], Ok(())),
        (&open, vec![], vec![("ROLLCALL_CACERT", ca.clone())], Ok(())),
        (&closed, flags(&[authority, shown[0], shown[1]]), vec![], Ok(())),
        (
            &closed,
            vec![],
            vec![
                ("CONSUL_CACERT", ca.clone()),
                ("CONSUL_CLIENT_CERT", cert.clone()),
                ("CONSUL_CLIENT_KEY", key.clone()),
            ],
            Ok(()),
        ),
        (
            &open,
            vec![],
            vec![],
            Err("the server's certificate is by an unknown authority (--ca-file names it)"),
        ),
        (&closed, flags(&[authority]), vec![], Err("wants a client certificate (--client-cert")),
        (&closed, flags(&[authority, shown[0]]), vec![], Err("needed together")),
        (
            &open,
            flags(&[authority, ("--from-tls-server-name", &"x.example".to_owned())]),
            vec![],
            Err("x.example"),
        ),
    ] {
        let new =
            Daemon::with(&["--ephemeral", "--dns", "127.0.0.1:0", "--http", "127.0.0.1:0", "--node", "new"]);
        let from = format!("https://{}", old.https[0]);
        let all =
            [flags(&[("--from", &from), ("--server", &new.http[0].to_string())]), words.clone()].concat();
        let output = import(all, variables.clone()).await;
        let text = said(&output);
        let found = request(new.http[0], "GET", "/v1/catalog/service/web", &[], "").await.json();
        match good {
            Ok(()) => {
                assert!(output.status.success(), "{words:?} {variables:?}: {text}");
                assert_eq!(found[0]["Node"], "h1");
            }
            Err(why) => {
                assert!(
                    output.status.code() == Some(1) && text.contains(why),
                    "{words:?} {variables:?}: {text}"
                );
                assert!(text.contains("nothing was changed"), "{text}");
                assert_eq!(found, json!([]));
            }
        }
    }
    // What is in the environment for another import is in nobody's way.
    let file = servers.dir.path().join("export.json");
    std::fs::write(&file, r#"{"rollcall_export":1,"records":[]}"#).unwrap();
    let words = flags(&[("--file", &path(&file)), ("--server", &open.http[0].to_string())]);
    let output =
        import(words, vec![("CONSUL_CACERT", ca.clone()), ("CONSUL_HTTP_TOKEN", "x".to_owned())]).await;
    assert!(output.status.success(), "{}", said(&output));
    // To a port that speaks the other protocol.
    for from in [format!("https://{}", open.http[0]), format!("http://{}", open.https[0])] {
        let words = flags(&[("--from", &from), ("--server", &open.http[0].to_string()), authority]);
        let output = import(words, vec![]).await;
        assert!(
            output.status.code() == Some(1) && said(&output).contains("nothing was changed"),
            "{}",
            said(&output)
        );
    }
}
