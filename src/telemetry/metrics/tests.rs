//! Names, units, help texts and labels as Prometheus wants them, without its own tool (which `.ci/run metrics` asks).

use super::reference::{self, Shown};
use super::*;

fn answer() -> Answer {
    Answer { r#type: "A", rcode: "NOERROR", transport: "udp", path: "fast" }
}

#[test]
fn both_text_forms_name_counters_as_they_want_them() {
    let metrics = Metrics::default();
    metrics.dns.answered(answer(), 1);
    let (open, text) = (metrics.encode(), metrics.encode_text());
    assert!(open.contains("# TYPE rollcall_dns_answers counter\n") && open.ends_with("# EOF\n"));
    assert!(text.contains("# TYPE rollcall_dns_answers_total counter\n") && !text.contains("EOF"));
    assert!(text.contains("# HELP rollcall_dns_answers_total Answers"));
    let labels = "type=\"A\",rcode=\"NOERROR\",transport=\"udp\",path=\"fast\"";
    let sample = format!("rollcall_dns_answers_total{{{labels}}} 1\n");
    assert!(open.contains(&sample) && text.contains(&sample), "{text}");
}

/// <https://prometheus.io/docs/practices/naming/>
fn faults(name: &str, Shown { help, kind, labels }: &Shown) -> Vec<String> {
    const OTHER_UNITS: [&str; 16] = [
        "ms",
        "us",
        "ns",
        "milliseconds",
        "microseconds",
        "minutes",
        "hours",
        "days",
        "octets",
        "kb",
        "mb",
        "bits",
        "kilobytes",
        "percent",
        "sec",
        "s",
    ];
    let words: Vec<_> = name.split('_').collect();
    let plain = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let mut faults = Vec::new();
    let mut want = |holds: bool, what: &str| {
        if !holds {
            faults.push(format!("{name}: {what}"));
        }
    };
    want(plain(name) && words[0] == "rollcall" && words.len() > 2, "rollcall_ROOM_WHAT in lower case");
    want(words.iter().all(|word| !word.is_empty()), "words are parted by one _");
    want(!words.iter().any(|word| OTHER_UNITS.contains(word)), "seconds and bytes are the units");
    want(
        !words.iter().any(|word| ["counter", "gauge", "histogram", "summary", "info"].contains(word))
            || name.ends_with("_info"),
        "the type is no part of the name",
    );
    want((kind == "counter") == name.ends_with("_total"), "_total is for counters");
    want(["counter", "gauge", "histogram"].contains(&kind.as_str()), "a type");
    want(
        kind != "histogram" || name.ends_with("_seconds") || name.ends_with("_bytes"),
        "a histogram has a unit at its end",
    );
    want(!["_count", "_sum", "_bucket"].iter().any(|end| name.ends_with(end)), "endings of histograms");
    want(help.len() > 10 && help.ends_with('.'), "a help text");
    for (label, values) in labels {
        want(plain(label) && !["le", "job", "instance"].contains(&label.as_str()), "a label's name");
        want(values.iter().all(|value| !value.is_empty() && !value.contains(['"', ',', '\\'])), "values");
        want(values.len() <= 48, "few values");
    }
    faults
}

#[test]
fn names_units_and_help_texts_are_as_prometheus_wants_them() {
    let metrics = reference::all();
    assert!(metrics.len() > 30, "{metrics:#?}");
    let faults: Vec<_> = metrics.iter().flat_map(|(name, shown)| faults(name, shown)).collect();
    assert!(faults.is_empty(), "{faults:#?}");
    // It would find what is wrong.
    let wrong = Shown { help: String::new(), kind: "counter".into(), labels: vec![("le".into(), vec![])] };
    assert_eq!(faults_of(&wrong, "rollcall_dns_wait_ms"), 4);
}

fn faults_of(shown: &Shown, name: &str) -> usize {
    faults(name, shown).len()
}

#[test]
fn each_metric_is_told_once_before_its_samples() {
    let text = Metrics::default().encode_text();
    let told = |what: &str| {
        let lines = text.lines().filter_map(|line| line.strip_prefix(what)?.split(' ').next());
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let (mut help, kinds) = (told("# HELP "), told("# TYPE "));
    assert_eq!(help, kinds);
    help.sort();
    help.dedup();
    assert_eq!(help.len(), kinds.len(), "a name is there twice");
    let mut series: Vec<_> = text.lines().filter_map(|line| Some(line.rsplit_once(' ')?.0)).collect();
    series.retain(|line| !line.starts_with('#'));
    let all = series.len();
    series.sort_unstable();
    series.dedup();
    assert_eq!(series.len(), all, "a series is there twice");
}

#[test]
fn what_is_no_value_of_a_label_makes_no_series() {
    let metrics = Metrics::default();
    metrics.dns.answered(answer(), 1);
    let series = |text: String| {
        let mut names: Vec<_> =
            text.lines().filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect();
        names.sort();
        names
    };
    let before = series(metrics.encode_text());
    metrics.dns.answered(Answer { path: "evil\"", ..answer() }, 1);
    metrics.http.answered("/evil", 200, Duration::ZERO);
    metrics.http.refused("evil");
    metrics.limits.hit("evil");
    metrics.checks.probed("evil", "evil", Duration::ZERO);
    let text = metrics.encode_text();
    assert!(text.contains("rollcall_limit_hits_total{limit=\"other\"} 1\n"), "{text}");
    let after = series(text);
    assert_eq!(after.len(), before.len() + 1, "general is a path");
    assert!(!after.iter().any(|name| name.contains("evil")));
}

#[test]
fn sizes_are_counted_where_they_fit() {
    let metrics = Metrics::default();
    let mut tally = SizeTally::default();
    [0, 64, 65, 512, 513, 65_535].into_iter().for_each(|octets| tally.add(octets));
    metrics.dns.sized("udp", &mut tally);
    metrics.dns.sized("udp", &mut tally);
    let text = metrics.encode_text();
    let lines = [("64", 2), ("128", 3), ("512", 4), ("1232", 5), ("65535", 6), ("+Inf", 6)];
    for (bound, count) in lines {
        let bucket = text.lines().filter(|line| line.starts_with("rollcall_dns_answer_size_bytes_bucket{"));
        let mut bucket = bucket.filter(|line| line.contains("\"udp\""));
        let line = bucket.find(|line| line.contains(&format!("le=\"{bound}")));
        assert!(line.is_some_and(|line| line.ends_with(&format!("}} {count}"))), "{bound}: {line:?}");
    }
    assert!(text.contains("rollcall_dns_answer_size_bytes_sum{transport=\"udp\"} 66689.0\n"), "{text}");
    assert!(text.contains("rollcall_dns_answer_size_bytes_count{transport=\"tcp\"} 0\n"), "{text}");
}
