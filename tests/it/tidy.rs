//! House rules: who may know whom, how long files and functions are, and pages that must fit the code.

use std::fs;
use std::path::{Path, PathBuf};

/// The table of ARCHITECTURE.md: a room and the rooms it may know. `telemetry` may be known by all.
const ROOMS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("acl", &["filter", "model"]),
    ("audit", &["model"]),
    ("gently", &[]),
    ("store", &["model", "gently"]),
    ("registry", &["acl", "audit", "model", "pace", "store", "gently"]),
    ("select", &["acl", "model", "registry"]),
    ("dns", &["acl", "model", "pace", "registry", "select", "gently"]),
    ("filter", &[]),
    ("http", &["acl", "audit", "model", "pace", "registry", "select", "filter", "tls"]),
    ("checks", &["model", "registry", "tls"]),
    ("tls", &["model"]),
    ("telemetry", &["pace"]),
    ("pace", &[]),
    (
        "config",
        &[
            "acl", "audit", "model", "registry", "select", "dns", "http", "checks", "store", "filter",
            "handover", "otlp", "tls",
        ],
    ),
    ("handover", &[]),
    ("otlp", &["model", "pace", "tls"]),
    ("cli", &["config", "model", "store", "handover", "tls"]),
];
/// Crates that one room, or one file of another, keeps to itself.
const KEPT: &[(&str, &[&str])] = &[
    ("hickory_", &["dns", "checks/names.rs"]),
    ("redb", &["store"]),
    ("axum", &["http"]),
    ("clap", &["cli"]),
    ("toml::", &["config"]),
    ("rustix", &["handover", "gently", "checks"]),
];

const LINES_MAX: usize = 700;
const LINES_MEDIAN_MAX: usize = 180;
const FUNCTION_LINES_MAX: usize = 70;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut folders = vec![root().join("src")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                // The files of the web page have rules of their own.
                if path.extension().is_none_or(|end| end != "rs") {
                    continue;
                }
                let text = fs::read_to_string(&path).unwrap();
                // Tests may know more.
                if path.ends_with("tests.rs") {
                    continue;
                }
                let code = text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned();
                found.push((path.strip_prefix(root().join("src")).unwrap().to_owned(), code));
            }
        }
    }
    assert!(found.len() > 40, "the sources are found");
    found
}

fn room(path: &Path) -> String {
    path.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

fn code_lines(code: &str) -> impl Iterator<Item = &str> {
    code.lines().filter(|line| !line.trim_start().starts_with("//"))
}

/// What code names of the crate, one by one or in a group: `crate::a::b`, `crate::{a::{b, c}, d as e}`.
fn named(code: &str) -> Vec<String> {
    let mut all = Vec::new();
    for (at, start) in code.match_indices("crate::") {
        // `rollcall_crate::` would be another.
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + start.len()..];
        let first = |text: &str| {
            let text = text.trim_start();
            text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>()
        };
        let Some(group) = rest.strip_prefix('{') else {
            all.push(first(rest));
            continue;
        };
        let (mut depth, mut begins) = (0, 0);
        for (at, c) in group.char_indices() {
            match c {
                '}' | ',' if depth == 0 => {
                    all.push(first(&group[begins..at]));
                    begins = at + 1;
                    if c == '}' {
                        break;
                    }
                }
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
        }
    }
    all.retain(|name| !name.is_empty());
    all
}

#[test]
fn names_of_the_crate_are_seen_in_groups_too() {
    for (code, expected) in [
        ("use crate::http::door;", &["http"][..]),
        ("use crate::{dns, http, select};", &["dns", "http", "select"]),
        (
            "pub(crate) use crate::{\n    acl::{Tables, View},\n    dns::{self, zone::{Zones}} as d,\n    store,\n};",
            &["acl", "dns", "store"],
        ),
        ("let a = crate::checks::x(crate::tls::Y); othercrate::b();", &["checks", "tls"]),
        ("use crate::{self as all};", &["self"]),
        ("use crate::http;\nuse crate::dns as d;", &["http", "dns"]),
    ] {
        assert_eq!(named(code), expected, "{code}");
    }
}

#[test]
fn rooms_know_only_whom_they_may() {
    let mut wrong = Vec::new();
    for (path, code) in sources() {
        let room = room(&path);
        let Some((_, may)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            assert!(["lib", "main"].contains(&room.as_str()), "{} is in no room", path.display());
            continue;
        };
        let lines: Vec<&str> = code_lines(&code).collect();
        for named in named(&lines.join("\n")) {
            let is_room = ROOMS.iter().any(|(name, _)| *name == named);
            if is_room && named != room && named != "telemetry" && !may.contains(&named.as_str()) {
                wrong.push(format!("{} knows {named}", path.display()));
            }
        }
        for line in lines {
            for (krate, places) in KEPT {
                let may = places.iter().any(|place| *place == room || path == Path::new(place));
                if line.contains(krate) && !may {
                    wrong.push(format!("{}: {}", path.display(), line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn files_and_functions_stay_short() {
    let sources = sources();
    let mut lengths: Vec<usize> = sources.iter().map(|(_, code)| code.lines().count()).collect();
    lengths.sort_unstable();
    let median = lengths[lengths.len() / 2];
    assert!(median <= LINES_MEDIAN_MAX, "the median file has {median} lines");
    for (path, code) in &sources {
        let count = code.lines().count();
        assert!(count <= LINES_MAX, "{} has {count} lines", path.display());
        let mut begun: Option<(usize, usize)> = None;
        for (number, line) in code.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let words = line.trim_start();
            let starts =
                ["fn ", "pub fn ", "pub(super) fn ", "async fn ", "pub async fn ", "pub(super) async fn "]
                    .iter()
                    .any(|start| words.starts_with(start));
            if starts && !line.trim_end().ends_with(';') && !line.trim_end().ends_with('}') {
                begun = Some((number, indent));
            } else if let Some((start, outer)) = begun
                && indent == outer
                && words == "}"
            {
                let length = number - start + 1;
                assert!(
                    length <= FUNCTION_LINES_MAX,
                    "{}:{} has a function of {length} lines",
                    path.display(),
                    start + 1
                );
                begun = None;
            }
        }
    }
}

#[test]
fn every_source_file_says_what_it_is() {
    for (path, code) in sources() {
        assert!(code.starts_with("//!"), "{} has no header", path.display());
    }
}

#[test]
fn the_reference_of_keys_is_what_the_code_prints() {
    let page = fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    assert_eq!(
        page.trim_end(),
        rollcall::config::reference::markdown().trim_end(),
        "print it anew: rollcall check-config --reference > docs/configuration.md"
    );
}

/// `[text](target)` of files in the repository lead somewhere.
#[test]
fn links_in_pages_lead_somewhere() {
    let mut pages: Vec<PathBuf> = vec![root().to_owned(), root().join("docs")]
        .into_iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    pages.sort();
    assert!(pages.len() >= 3);
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for rest in text.split("](").skip(1) {
            let target = rest.split(')').next().unwrap().split('#').next().unwrap();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let path = page.parent().unwrap().join(target);
            assert!(path.exists(), "{} links to {target}, which is not there", page.display());
        }
    }
}
