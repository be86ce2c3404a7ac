//! One file, read key by key, so that every error is found in one go.

use std::path::Path;

use serde_json::Value as Json;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::definitions::{self, Found, Place};
use super::{Config, ConfigError, Zone, keys, value};

/// Takes a file's keys and zones; gives its definitions back, to be read when all keys are known.
pub(super) fn keys(
    config: &mut Config,
    file: &Path,
    text: &str,
    errors: &mut Vec<ConfigError>,
) -> Vec<Found> {
    let (table, broken) = DeTable::parse_recoverable(text);
    let line = |at: usize| 1 + text.as_bytes()[..at.min(text.len())].iter().filter(|b| **b == b'\n').count();
    let mut wrong = |at: usize, reason: String| {
        errors.push(ConfigError { file: file.to_owned(), line: line(at), reason });
    };
    for error in &broken {
        wrong(error.span().map_or(0, |span| span.start), error.message().to_owned());
    }
    let mut found = Vec::new();
    let defined = |at: usize, key: &'static str, value: &DeValue<'_>| Found {
        place: Place { file: file.to_owned(), line: line(at) },
        key,
        table: json(value),
    };
    for (key, value) in table.get_ref() {
        let (name, at) = (key.get_ref().as_ref(), key.span().start);
        match (name, value.get_ref()) {
            // `[checks]` holds settings; a list of that name, definitions.
            (name, value @ DeValue::Table(_))
                if !keys::is_table(name)
                    && let Some(key) = definitions::key(name) =>
            {
                found.push(defined(at, key, value));
            }
            (name, DeValue::Array(items)) if let Some(key) = definitions::key(name) => {
                found.extend(items.iter().map(|item| defined(item.span().start, key, item.get_ref())));
            }
            ("zone", DeValue::Array(items)) => {
                for item in items.iter() {
                    match zone(item, file) {
                        Ok(zone) => config.zones.push(zone),
                        Err(reason) => wrong(item.span().start, format!("[[zone]]: {reason}")),
                    }
                }
            }
            (_, DeValue::Table(inner)) if keys::is_table(name) => {
                for (key, value) in inner {
                    if let Err(reason) = set(config, name, key.get_ref(), value.get_ref()) {
                        wrong(key.span().start, reason);
                    }
                }
            }
            ("service" | "services" | "check" | "checks" | "zone", _) => {
                wrong(at, format!("{name} is a list: write [[{name}]]"));
            }
            (_, value) => {
                if let Err(reason) = set(config, "", name, value) {
                    wrong(at, reason);
                }
            }
        }
    }
    found
}

pub(super) fn set(config: &mut Config, table: &str, name: &str, value: &DeValue<'_>) -> Result<(), String> {
    let shown = if table.is_empty() { name.to_owned() } else { format!("[{table}] {name}") };
    let Some(key) = keys::find(table, name) else { return Err(unknown(table, name, &shown)) };
    (key.set)(config, value).map_err(|reason| format!("{shown}: {reason}"))
}

/// What the key may have been meant to be.
fn unknown(table: &str, name: &str, shown: &str) -> String {
    let elsewhere = keys::all().find(|key| key.name == name);
    let tables = || keys::all().map(|key| key.table).filter(|table| !table.is_empty());
    match elsewhere {
        Some(key) if key.table.is_empty() => {
            format!("unknown key {shown}; {name} stands at the top, above all tables")
        }
        Some(key) => format!("unknown key {shown}; {name} stands in [{}]", key.table),
        None if !table.is_empty() => {
            let known = keys::all().filter(|key| key.table == table).map(|key| key.name);
            format!("unknown key {shown}; [{table}] knows {}", known.collect::<Vec<_>>().join(", "))
        }
        None => {
            let mut known: Vec<_> = keys::all().filter(|k| k.table.is_empty()).map(|k| k.name).collect();
            known.extend(tables());
            known.extend(["service", "check", "zone"]);
            known.dedup();
            format!("unknown key {shown}; known here: {}", known.join(", "))
        }
    }
}

/// `name` and `file`; a relative file is looked for beside the configuration file.
fn zone(item: &Spanned<DeValue<'_>>, config_file: &Path) -> Result<Zone, String> {
    let table = item.get_ref().as_table().ok_or("a table with name and file is expected")?;
    let (mut name, mut file) = (None, None);
    for (key, value) in value::pairs(table) {
        match key {
            "name" => name = Some(value::domain(value)?),
            "file" => file = Some(value::text(value)?),
            other => return Err(format!("unknown key {other}; a zone has name and file")),
        }
    }
    let (Some(name), Some(file)) = (name, file) else {
        return Err("name and file are both needed".to_owned());
    };
    let folder = config_file.parent().unwrap_or(Path::new(""));
    Ok(Zone { name, file: folder.join(file) })
}

/// The same value as JSON, which definitions are read from whichever way they come.
fn json(value: &DeValue<'_>) -> Json {
    match value {
        DeValue::String(text) => Json::from(text.as_ref()),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).map_or(Json::Null, Json::from)
        }
        DeValue::Float(number) => number.as_str().parse::<f64>().map_or(Json::Null, Json::from),
        DeValue::Boolean(flag) => Json::from(*flag),
        DeValue::Datetime(time) => Json::from(time.to_string()),
        DeValue::Array(items) => items.iter().map(|item| json(item.get_ref())).collect(),
        DeValue::Table(table) => value::pairs(table)
            .map(|(key, value)| (key.to_owned(), json(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rollcall.toml");
        std::fs::write(&file, text).unwrap();
        let shown = |e: &ConfigError| format!("{}: {}", e.line, e.reason);
        Config::load(&[file]).map_err(|errors| errors.iter().map(shown).collect())
    }

    #[test]
    fn every_error_is_found_at_once_with_its_line() {
        let errors = read(
            "node_name = 7\ndatacentre = \"x\"\n[dns]\nttl = \"5\"\nlisten = [\"nowhere\"]\ndata_dir = \"/x\"\n\
             [http]\nbody_max = \"1 MB\"\n[[service]]\nname = \"db\"\nporte = 5\n[[zone]]\nname = \"a.example\"\n",
        );
        let errors = errors.unwrap_err();
        for expected in [
            "1: node_name: 7 is not a string",
            "2: unknown key datacentre",
            "4: [dns] ttl: time: missing unit",
            "5: [dns] listen: \"nowhere\" is not an IP address and a port",
            "6: unknown key [dns] data_dir; data_dir stands at the top",
            "8: [http] body_max: \"1 MB\" is not a size",
            "9: [[service]]: ",
            "12: [[zone]]: name and file are both needed",
        ] {
            assert!(errors.iter().any(|error| error.starts_with(expected)), "{expected}\n{errors:#?}");
        }
        assert_eq!(errors.len(), 8, "{errors:#?}");
    }

    #[test]
    fn broken_toml_names_its_line() {
        let errors = read("[dns]\nttl = \n[http]\nlisten = [\n").unwrap_err();
        assert!(errors.iter().any(|error| error.starts_with("2: ")), "{errors:#?}");
    }

    #[test]
    fn services_use_consuls_keys_in_snake_case() {
        let config = read(
            "node_name = \"n9\"\n[[service]]\nname = \"db\"\nport = 5432\ntags = [\"a\"]\nmeta = { Some_Key = \"v\" }\n\
             [service.check]\nhttp = \"http://127.0.0.1:1/\"\ninterval = \"10s\"\nderegister_critical_service_after = \"1m\"\n\
             tls_skip_verify = true\n[[zone]]\nname = \"Example.test\"\nfile = \"z/example.zone\"\n",
        );
        let config = config.unwrap();
        let (instance, checks) = &config.services[0];
        assert_eq!((instance.node.as_str(), instance.port, instance.id.as_str()), ("n9", 5432, "db"));
        assert_eq!(instance.meta.get("Some_Key"), Some("v"));
        assert_eq!(checks[0].deregister_after, Some(std::time::Duration::from_secs(60)));
        assert_eq!(config.zones[0].name.to_ascii(), "example.test.");
        assert!(config.zones[0].file.ends_with("z/example.zone"));
    }

    /// The rooms have defaults of their own, for those who start them without a configuration.
    #[test]
    fn the_rooms_own_defaults_are_the_keys() {
        let config = Config::default();
        assert_eq!(config.limits, crate::registry::Limits::default());
        assert_eq!(config.dns.tcp, crate::dns::TcpLimits::default());
        assert_eq!(config.checks, crate::checks::Config::default());
        assert_eq!(config.log, crate::telemetry::logs::Config::default());
    }

    #[test]
    fn forwarding_has_defaults_once_it_is_there() {
        assert_eq!(read("").unwrap().forward, None);
        let forward =
            read("[forward]\nupstreams = [\"192.0.2.1\", \"[2001:db8::1]:5353\"]").unwrap().forward.unwrap();
        assert_eq!(forward.upstreams[0].to_string(), "192.0.2.1:53");
        assert_eq!(forward.upstreams[1].to_string(), "[2001:db8::1]:5353");
        assert!(forward.allow.contains(&"10.0.0.0/8".parse().unwrap()));
        let system = read("[forward]\nupstreams = [\"system\"]").unwrap().forward.unwrap();
        assert!(system.upstreams.is_empty());
        assert!(read("[forward]\nupstreams = []").is_err());
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn any_text_is_read_without_harm(text in "(\\[\\[?(dns|http|service|zone|x)\\]?\\]\n|[a-z_]{1,9} ?= ?(\"[ -~]{0,9}\"|[0-9\\[\\]{},.]{0,9})\n|[ -~]{0,20}\n){0,12}") {
            let (mut config, mut errors) = (Config::default(), Vec::new());
            let found = keys(&mut config, Path::new("f"), &text, &mut errors);
            definitions::take(&mut config, found, &mut errors);
        }
    }
}
