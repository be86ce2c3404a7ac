//! What the pages promise, done: the commands of README.md against the real program, its definitions and
//! configurations given to it, its table of paths asked for.
//!
//! The convention: `sh` blocks are run line by line, in the order of the page; a `text` block behind one is
//! what its commands print. A comment `<!-- file: NAME -->` puts the block behind it into a file of that name.
//! `curl` and `dig` are translated to the tests' own clients, so that nothing but Rust is needed. What is not
//! run stands in [`NOT_RUN`]; any other line fails.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Output;

use bytes::Bytes;
use hickory_proto::rr::RecordType;
use http_body_util::Full;
use hyper::Response;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use crate::daemon::{Daemon, rollcall};
use crate::server::{ask, query, request};

/// Lines that need more than Rust, or are what runs this.
const NOT_RUN: &[&str] = &[
    "cargo install --path . --locked",
    "cargo test",
    "go mod init greeter && go get github.com/hashicorp/consul/api@v1.32.1 && go run .",
    "sudo useradd --system --no-create-home rollcall",
    "sudo install -m 755 target/release/rollcall /usr/local/bin/",
    "sudo install -D -m 644 dist/rollcall.toml /etc/rollcall/rollcall.toml",
    "sudo install -m 644 dist/rollcall.service /etc/systemd/system/",
    "sudo systemctl enable --now rollcall",
    "sudo rollcall restart --data-dir /var/lib/rollcall",
    "cargo build --release",
    "sudo apt-get install knot nsd",
    "python3 benches/peers/run.py",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// A fenced block.
struct Block {
    language: String,
    /// The file that it is to be.
    file: Option<String>,
    text: String,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let (mut file, mut open): (Option<String>, Option<Block>) = (None, None);
    for line in page.lines() {
        if let Some(language) = line.strip_prefix("```") {
            match open.take() {
                Some(block) => blocks.push(block),
                None => {
                    open =
                        Some(Block { language: language.to_owned(), file: file.take(), text: String::new() })
                }
            }
        } else if let Some(block) = &mut open {
            block.text += line;
            block.text.push('\n');
        } else if let Some(rest) = line.strip_prefix("<!-- file: ") {
            file = Some(rest.trim_end_matches(" -->").to_owned());
        }
    }
    assert!(open.is_none(), "a block is not closed");
    blocks
}

/// A command line as a shell splits it: blanks, single and double quotes.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for letter in line.chars() {
        match (quote, letter) {
            (Some(open), _) if letter == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    assert!(quote.is_none(), "{line}");
    words.extend(word);
    words
}

/// Who follows the page: a folder, a server, and a program that is checked.
struct Reader {
    dir: TempDir,
    daemon: Option<Daemon>,
    /// What `serve` was started with, for `systemctl start`.
    serve: Vec<String>,
    target: Option<(JoinHandle<()>, SocketAddr)>,
}

impl Reader {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(root().join("zones"), dir.path().join("zones")).unwrap();
        Self { dir, daemon: None, serve: Vec::new(), target: None }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn http(&self) -> SocketAddr {
        self.daemon.as_ref().expect("a server runs").http[0]
    }

    /// The port of the page's program as it really is.
    fn real(&self, text: &str) -> String {
        let port = self.target.as_ref().map_or("9000".to_owned(), |(_, at)| at.port().to_string());
        text.replace("9000", &port)
    }

    /// Runs a line; gives what it prints.
    async fn run(&mut self, line: &str) -> String {
        let words = words(&self.real(line));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match &words[..] {
            ["cargo", "run", "--release", "--", "serve", rest @ ..] | ["rollcall", "serve", rest @ ..] => {
                self.serve = rest.iter().map(|word| (*word).to_owned()).collect();
                self.start()
            }
            ["sudo", "systemctl", "start", "rollcall"] => {
                self.start();
                String::new()
            }
            ["sudo", "systemctl", "stop", "rollcall"] => {
                self.stop();
                String::new()
            }
            ["sudo", "systemctl", "reload", "rollcall"] => {
                self.daemon.as_ref().unwrap().signal(Signal::SIGHUP);
                String::new()
            }
            ["python3", "-m", "http.server", .., "&"] => self.listen().await,
            ["kill", "%1"] => {
                self.target.as_ref().expect("a program runs").0.abort();
                String::new()
            }
            ["curl", rest @ ..] => self.curl(rest).await,
            ["dig", "@127.0.0.1", "-p", "8600", "+short", name, kind] => self.dig(name, kind).await,
            ["sudo", "-u", "rollcall", "rollcall", rest @ ..] | ["rollcall", rest @ ..] => {
                self.rollcall(rest)
            }
            _ => panic!("the page has a command that this test does not know: {line}"),
        }
    }

    /// Starts the server on free ports; what it says, with the ports of the page.
    fn start(&mut self) -> String {
        self.stop();
        let inside = |word: &String| {
            let there = self.dir.path().join(word);
            if there.exists() { there.to_str().unwrap().to_owned() } else { word.clone() }
        };
        let words: Vec<String> = self.serve.iter().map(inside).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let daemon = Daemon::start(&self.data(), &words);
        let mut said: Vec<String> = Vec::new();
        said.extend(
            daemon.dns.iter().map(|at| format!("listening for DNS on {}:8600 (UDP and TCP)", at.ip())),
        );
        said.extend(daemon.http.iter().map(|at| format!("listening for HTTP on {}:8500", at.ip())));
        said.push("ready\n".to_owned());
        self.daemon = Some(daemon);
        said.join("\n")
    }

    fn stop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            assert!(daemon.end(Signal::SIGTERM).success());
        }
    }

    /// A program that answers 200 and keeps its connections, until it is aborted.
    async fn listen(&mut self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            // Its connections go with it, as a process's do.
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let fine =
                    service_fn(async |_| Ok::<_, hyper::Error>(Response::new(Full::new(Bytes::new()))));
                connections.spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), fine),
                );
            }
        });
        self.target = Some((task, at));
        String::new()
    }

    async fn curl(&self, words: &[&str]) -> String {
        let (mut method, mut body, mut url) = ("GET", "", "");
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            match *word {
                "-X" => method = rest.next().unwrap(),
                "--data" => body = rest.next().unwrap(),
                word => url = word,
            }
        }
        let path = url.strip_prefix("http://127.0.0.1:8500").unwrap_or_else(|| panic!("{url}"));
        let answer = request(self.http(), method, path, &[], body).await;
        assert!(answer.status < 300, "{method} {path}: {} {}", answer.status, answer.text());
        answer.text()
    }

    async fn dig(&self, name: &str, kind: &str) -> String {
        let server = self.daemon.as_ref().expect("a server runs").dns[0];
        let kind: RecordType = kind.parse().unwrap();
        let answer = ask(server, &query(&format!("{name}."), kind)).await;
        answer.answers.iter().map(|record| format!("{}\n", record.data)).collect()
    }

    fn rollcall(&self, words: &[&str]) -> String {
        let data = self.data();
        let words = words.iter().map(|word| match *word {
            "/var/lib/rollcall" => data.to_str().unwrap(),
            word => word,
        });
        let mut command = rollcall();
        command.args(words).current_dir(self.dir.path());
        if let Some(daemon) = &self.daemon {
            command.env("ROLLCALL_SERVER", daemon.http[0].to_string());
        }
        let Output { status, stdout, stderr } = command.output().unwrap();
        assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap()
    }

    /// Runs a block and compares what it prints. A read at its end is asked again at each change: what was just
    /// registered, or has just died, is seen when its first probe has ended.
    async fn follow(&mut self, block: &str, wanted: Option<&str>) {
        let lines: Vec<&str> = block.lines().filter(|line| !NOT_RUN.contains(line)).collect();
        let Some((last, before)) = lines.split_last() else { return };
        let mut printed = String::new();
        for line in before {
            printed += &self.run(line).await;
        }
        let Some(wanted) = wanted.map(|text| plain(&self.real(text))) else {
            self.run(last).await;
            return;
        };
        let reads = ["dig ", "rollcall instances ", "rollcall services"];
        let reads = reads.iter().any(|start| last.starts_with(start));
        loop {
            let index = if reads { self.changed(0).await } else { 0 };
            let got = plain(&(printed.clone() + &self.run(last).await));
            if got == wanted {
                return;
            }
            let moved = reads && self.changed(index).await != index;
            assert!(moved, "{block}\nprints\n{got}\nand not\n{wanted}");
        }
    }

    /// The index of all health, once it is not the given one, or soon.
    async fn changed(&self, index: u64) -> u64 {
        let path = format!("/v1/health/state/any?index={index}&wait=20s");
        request(self.http(), "GET", &path, &[], "").await.index()
    }
}

/// Columns may be wider where a port has more digits.
fn plain(text: &str) -> String {
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readmes_commands_do_what_it_says() {
    let text = page("README.md");
    for line in NOT_RUN {
        assert!(text.contains(line), "the page has no {line:?} any more");
    }
    let blocks = blocks(&text);
    let mut reader = Reader::new();
    let mut followed = 0;
    for (at, block) in blocks.iter().enumerate() {
        if let Some(file) = &block.file {
            fs::write(reader.dir.path().join(file), &block.text).unwrap();
        }
        if block.language == "sh" {
            let wanted = blocks.get(at + 1).filter(|next| next.language == "text");
            reader.follow(&block.text, wanted.map(|block| block.text.as_str())).await;
            followed += 1;
        }
    }
    assert!(followed > 10, "the blocks are found");
    reader.stop();
}

#[test]
fn every_configuration_in_the_pages_is_valid() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(root().join("zones"), dir.path().join("zones")).unwrap();
    let check = |what: &str, text: &str| {
        let file = dir.path().join("page.toml");
        fs::write(&file, text).unwrap();
        let output = rollcall().arg("check-config").arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{what}:\n{text}\n{said}");
    };
    let mut found = 0;
    for name in ["README.md", "CONTRIBUTING.md", "docs/configuration.md"] {
        for block in blocks(&page(name)).iter().filter(|block| block.language == "toml") {
            check(name, &block.text);
            found += 1;
        }
    }
    assert!(found >= 5);
    let shipped = page("dist/rollcall.toml");
    check("dist/rollcall.toml", &shipped);
    // What it offers is valid too.
    let is_key = |text: &str| {
        text.starts_with('[')
            || text.split_once(" = ").is_some_and(|(key, _)| {
                key.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_')
            })
    };
    let offered = shipped.lines().map(|line| match line.strip_prefix("# ") {
        Some(text) if is_key(text) => format!("{text}\n"),
        _ => format!("{line}\n"),
    });
    let offered: String = offered.collect();
    let offered = offered.replace("/etc/rollcall/", &format!("{}/", dir.path().display()));
    let made = rcgen::generate_simple_self_signed(vec!["rollcall.example.com".into()]).unwrap();
    for (file, text) in [
        ("server.pem", made.cert.pem()),
        ("server.key", made.signing_key.serialize_pem()),
        ("clients.pem", made.cert.pem()),
    ] {
        fs::write(dir.path().join(file), text).unwrap();
    }
    assert!(offered.lines().filter(|line| is_key(line)).count() > 15);
    check("dist/rollcall.toml, uncommented", &offered);
}

/// The code spans of a table below a heading, up to the next heading.
fn spans<'a>(page: &'a str, heading: &str) -> Vec<&'a str> {
    let section = page.split(&format!("\n{heading}\n")).nth(1).unwrap_or_else(|| panic!("no {heading}"));
    let section = section.split("\n## ").next().unwrap();
    let cells =
        section.lines().filter(|line| line.starts_with("| `")).filter_map(|line| line.split('|').nth(1));
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_of_paths_is_what_is_served() {
    let text = page("README.md");
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&dir.path().join("data"), &[]);
    let mut served = Vec::new();
    for span in spans(&text, "## HTTP API") {
        let path = span.split_once(' ').map_or(span, |(_, path)| path);
        let asked = path.replace("ID", "none").replace("NAME", "none");
        // Some of them stream, and one ends the server.
        let ask = if span.contains(' ') { "OPTIONS" } else { "GET" };
        let answer = request(daemon.http[0], ask, &asked, &[], "").await;
        let said = answer.text();
        if let Some((method, path)) = span.split_once(' ') {
            served.push(path);
            let allowed = answer.header("allow").split(',').any(|allowed| allowed == method);
            assert!(answer.status == 200 && allowed, "{span}: {} {said}", answer.status);
        } else {
            assert!(answer.status == 404 && said.contains("is not served"), "{span}: {said}");
        }
    }
    // And the other way round: no route that the page passes over.
    let mut routes = 0;
    let mut entries = vec![root().join("src/http")];
    while let Some(entry) = entries.pop() {
        if entry.is_dir() {
            entries.extend(fs::read_dir(entry).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let code = fs::read_to_string(entry).unwrap();
        for rest in code.split(".route(\"").skip(1) {
            let route = rest.split(['"', '{']).next().unwrap();
            let listed =
                |path: &&str| if route.ends_with('/') { path.starts_with(route) } else { *path == route };
            assert!(served.iter().any(listed), "README.md does not list {route}");
            routes += 1;
        }
    }
    assert!(routes > 20);
}
