//! The table of docs/security.md: each threat has a defence and at least one test, and each test that it names is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A threat, what stands against it, and the cell of its tests.
fn rows(page: &str) -> Vec<[String; 3]> {
    let section =
        page.split("## Threats, defences and their tests").nth(1).expect("the page has the section");
    section
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| threat |"))
        .map(|line| {
            let cells: Vec<_> =
                line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
            cells.try_into().unwrap_or_else(|cells| panic!("three cells: {cells:?}"))
        })
        .collect()
}

/// The file that `file::test` is in: one of `tests/it`, or the source file that it names.
fn file_of(named: &str) -> PathBuf {
    if named.starts_with("src/") {
        let file = root().join(named);
        // Tests of a file may stand beside it, in one of their own.
        let beside = file.with_extension("").join("tests.rs");
        return if beside.is_file() { beside } else { file };
    }
    root().join("tests/it").join(named.replace("::", "/")).with_extension("rs")
}

/// Names of the functions in a file that have an attribute of a test.
fn tests_of(source: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim_start) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some(rest) = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn ")) {
            if is_test {
                found.insert(rest.split(['(', '<']).next().unwrap());
            }
            is_test = false;
        }
    }
    found
}

/// What is wrong with a cell of tests.
fn mistakes(cell: &str, ci: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut count = 0;
    for item in cell.split(", ") {
        count += 1;
        if let Some(named) = item.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')) {
            let Some((file, test)) = named.rsplit_once("::") else {
                wrong.push(format!("{named}: no test"));
                continue;
            };
            let there =
                fs::read_to_string(file_of(file)).is_ok_and(|source| tests_of(&source).contains(test));
            if !there {
                wrong.push(format!("{named} does not exist"));
            }
        } else if let Some((suite, _)) = item.strip_prefix('[').and_then(|rest| rest.split_once("](")) {
            let runs = ci.lines().any(|line| {
                let mut words = line.split_whitespace();
                matches!(words.next(), Some("client" | "suite")) && words.next() == Some(suite)
            });
            if !runs {
                wrong.push(format!(".ci/run has no suite {suite}"));
            }
        } else {
            wrong.push(format!("{item:?} is no test"));
        }
    }
    if count == 0 {
        wrong.push("no test".to_owned());
    }
    wrong
}

#[test]
fn every_threat_has_tests_and_they_exist() {
    let page = fs::read_to_string(root().join("docs/security.md")).unwrap();
    let ci = fs::read_to_string(root().join(".ci/run")).unwrap();
    let rows = rows(&page);
    assert!(rows.len() > 25, "{} threats", rows.len());
    let wrong: Vec<_> = rows
        .iter()
        .flat_map(|[threat, defence, tests]| {
            let mut wrong = mistakes(tests, &ci);
            if defence.is_empty() {
                wrong.push("no defence".to_owned());
            }
            wrong.into_iter().map(move |what| format!("{threat}: {what}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_test_that_is_gone_is_noticed() {
    let ci = "suite tools 900 bash\nclient tls\n";
    assert!(
        mistakes("`security::a_test_that_is_gone_is_noticed`, [tls](../tests/clients/tls)", ci).is_empty()
    );
    assert!(mistakes("`src/dns/request.rs::responses_and_stumps_are_never_answered`", ci).is_empty());
    for gone in
        ["`security::nobody`", "`nowhere::test`", "`security::rows`", "[ssh](x)", "", "`security`", "soon"]
    {
        assert_eq!(mistakes(gone, ci).len(), 1, "{gone:?}");
    }
}
