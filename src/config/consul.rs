//! Consul's own definition files, in JSON: `service`, `services`, `check`, `checks`.
//!
//! Who moves from Consul names its configuration directory, so other keys of Consul's agent stand there too. What means the
//! same here (`node_name`, `node_id`, `node_meta`, `datacenter`) is taken. What concerns Consul's own company of servers,
//! or has its place in our files, is passed over with one warning for each file that says where it belongs: without it
//! we serve less, or on loopback. What keeps somebody out (`acl`, `tls`, `http_config`, a port that is closed) is an
//! error: passing over it would leave open what the file closes. A key that Consul does not know is an error too: it may
//! be a misspelt `services`.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value as Json;
use serde_json::value::RawValue;

use super::definitions::{self, Found, Place};
use super::{Config, ConfigError, read};

/// Keys that mean the same in our files.
const SAME: [&str; 4] = ["node_name", "node_id", "node_meta", "datacenter"];

/// Keys that are passed over, and where that belongs in our files; empty where it belongs nowhere.
const PASSED_OVER: &[(&str, &str)] = &[
    ("addresses", "[http] listen, [dns] listen"),
    ("advertise_addr", "node_address"),
    ("advertise_addr_ipv4", "node_address"),
    ("advertise_addr_ipv6", "node_address"),
    ("advertise_addr_wan", ""),
    ("advertise_addr_wan_ipv4", ""),
    ("advertise_addr_wan_ipv6", ""),
    ("advertise_reconnect_timeout", ""),
    ("alt_domain", "[dns] alt_domains"),
    ("auto_config", ""),
    ("auto_encrypt", ""),
    ("auto_reload_config", ""),
    ("autopilot", ""),
    ("bind_addr", "node_address"),
    ("bootstrap", ""),
    ("bootstrap_expect", ""),
    ("cache", ""),
    ("check_output_max_size", "output_max_size of a check"),
    ("check_update_interval", ""),
    ("client_addr", "[http] listen, [dns] listen"),
    ("cloud", ""),
    ("config_entries", ""),
    ("connect", ""),
    ("data_dir", "data_dir, a directory of our own"),
    ("default_query_time", ""),
    ("disable_anonymous_signature", ""),
    ("disable_coordinates", ""),
    ("disable_host_node_id", ""),
    ("disable_keyring_file", ""),
    ("disable_remote_exec", ""),
    ("disable_update_check", ""),
    ("discard_check_output", "output_max_size of a check"),
    ("discovery_max_stale", ""),
    ("dns_config", "[dns]"),
    ("domain", "[dns] domain, alt_domains"),
    ("enable_agent_tls_for_checks", ""),
    ("enable_central_service_config", ""),
    ("enable_debug", ""),
    ("enable_local_script_checks", "[checks] script"),
    ("enable_script_checks", "[checks] script"),
    ("enable_syslog", ""),
    ("encrypt", ""),
    ("encrypt_verify_incoming", ""),
    ("encrypt_verify_outgoing", ""),
    ("experiments", ""),
    ("gossip_lan", ""),
    ("gossip_wan", ""),
    ("leave_on_terminate", ""),
    ("license_path", ""),
    ("limits", "[limits], [http]"),
    ("locality", "locality of a service"),
    ("log_file", ""),
    ("log_json", "[telemetry] log_format"),
    ("log_level", "[telemetry] log_level"),
    ("log_rotate_bytes", ""),
    ("log_rotate_duration", ""),
    ("log_rotate_max_files", ""),
    ("max_query_time", ""),
    ("peering", ""),
    ("performance", ""),
    ("pid_file", ""),
    ("ports", "[http] listen, [dns] listen"),
    ("primary_datacenter", ""),
    ("primary_gateways", ""),
    ("primary_gateways_interval", ""),
    ("protocol", ""),
    ("raft_boltdb", ""),
    ("raft_logstore", ""),
    ("raft_protocol", ""),
    ("raft_snapshot_interval", ""),
    ("raft_snapshot_threshold", ""),
    ("raft_trailing_logs", ""),
    ("read_replica", ""),
    ("reconnect_timeout", ""),
    ("reconnect_timeout_wan", ""),
    ("recursors", "[forward] upstreams"),
    ("rejoin_after_leave", ""),
    ("reporting", ""),
    ("retry_interval", ""),
    ("retry_interval_wan", ""),
    ("retry_join", ""),
    ("retry_join_wan", ""),
    ("retry_max", ""),
    ("retry_max_wan", ""),
    ("rpc", ""),
    ("segment", ""),
    ("segments", ""),
    ("serf_lan", ""),
    ("serf_wan", ""),
    ("server", ""),
    ("server_rejoin_age_max", ""),
    ("session_ttl_min", ""),
    ("skip_leave_on_interrupt", ""),
    ("start_join", ""),
    ("start_join_wan", ""),
    ("syslog_facility", ""),
    ("telemetry", ""),
    ("translate_wan_addrs", ""),
    ("ui", ""),
    ("ui_config", ""),
    ("ui_content_path", ""),
    ("ui_dir", ""),
    ("use_streaming_backend", ""),
    ("watches", "rollcall watch"),
    ("xds", ""),
];

/// Keys that keep somebody out, and where that belongs in our files.
const KEEPS_OUT: &[(&str, &str)] = &[
    ("acl", "[acl]"),
    ("acl_agent_master_token", "[acl]"),
    ("acl_agent_token", "[acl]"),
    ("acl_datacenter", "[acl]"),
    ("acl_default_policy", "[acl]"),
    ("acl_down_policy", "[acl]"),
    ("acl_enable_key_list_policy", "[acl]"),
    ("acl_master_token", "[acl]"),
    ("acl_token", "[acl]"),
    ("acl_ttl", "[acl]"),
    ("ca_file", "[https]"),
    ("ca_path", "[https]"),
    ("cert_file", "[https]"),
    ("disable_http_unprintable_char_filter", "[http]"),
    ("http_config", "[http], [acl]"),
    ("key_file", "[https]"),
    ("tls", "[https]"),
    ("tls_cipher_suites", "[https]"),
    ("tls_min_version", "[https]"),
    ("tls_prefer_server_cipher_suites", "[https]"),
    ("unix_sockets", "[http]"),
    ("verify_incoming", "[https]"),
    ("verify_incoming_https", "[https]"),
    ("verify_incoming_rpc", "[https]"),
    ("verify_outgoing", "[https]"),
    ("verify_server_hostname", "[https]"),
];

/// Keys and values of an object in their order; values as they stand in the text.
struct Pairs<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Pairs<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of definitions")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<'de>, A::Error> {
                let mut pairs = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, &RawValue>()? {
                    pairs.push((Cow::Owned(key), value));
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// Takes a file's keys; gives its definitions back.
pub(super) fn keys(
    config: &mut Config,
    file: &Path,
    text: &str,
    errors: &mut Vec<ConfigError>,
) -> Vec<Found> {
    let mut found = Vec::new();
    let mut wrong = |line: usize, reason: String| {
        errors.push(ConfigError { file: file.to_owned(), line, reason });
    };
    let pairs = match serde_json::from_str::<Pairs<'_>>(text) {
        Ok(Pairs(pairs)) => pairs,
        Err(e) => {
            let reason = e.to_string();
            let reason = reason.rsplit_once(" at line ").map_or(reason.as_str(), |(reason, _)| reason);
            wrong(e.line(), reason.to_owned());
            return found;
        }
    };
    let mut passed_over = Vec::new();
    for (name, raw) in pairs {
        let line = line(text, raw);
        let folded = name.to_ascii_lowercase();
        if raw.get() == "null" {
            continue;
        }
        if let Some(key) = definitions::key(&folded) {
            match definitions(file, text, raw, key) {
                Ok(more) => found.extend(more),
                Err(reason) => wrong(line, format!("{key}: {reason}")),
            }
        } else if SAME.contains(&folded.as_str()) {
            if let Err(reason) = same(config, &folded, raw) {
                wrong(line, reason);
            }
        } else if let Some(instead) = keeps_out(&folded, raw) {
            wrong(
                line,
                format!(
                    "{folded} is Consul's and not taken, and without it more would be open here than there: write \
                     {instead} in a TOML file, and read the definitions from a file or directory without this key"
                ),
            );
        } else if let Some((key, instead)) = PASSED_OVER.iter().find(|(key, _)| *key == folded) {
            let instead = if instead.is_empty() { String::new() } else { format!(" (here: {instead})") };
            passed_over.push(format!("{key}{instead}"));
        } else {
            wrong(
                line,
                format!("unknown key {name}; definitions stand under service, services, check, checks"),
            );
        }
    }
    if !passed_over.is_empty() {
        let (file, keys) = (file.display(), passed_over.join(", "));
        config.warnings.push(format!("{file}: keys of Consul's agent are passed over: {keys}"));
    }
    found
}

/// Where in our files a key belongs that keeps somebody out, if it is one and does.
fn keeps_out(key: &str, raw: &RawValue) -> Option<&'static str> {
    // A port that is closed, a socket in place of one.
    let closes = raw.get().contains("-1") || raw.get().contains("unix:");
    if ["ports", "addresses"].contains(&key) && closes {
        return Some("[http] listen");
    }
    KEEPS_OUT.iter().find(|(known, _)| *known == key).map(|(_, instead)| *instead)
}

/// A key that means what our key of that name means.
fn same(config: &mut Config, key: &str, raw: &RawValue) -> Result<(), String> {
    let value: toml::Value = serde_json::from_str(raw.get()).map_err(|e| format!("{key}: {e}"))?;
    let text = value.to_string();
    let value = toml::de::DeValue::parse(&text).map_err(|e| format!("{key}: {}", e.message()))?;
    read::set(config, "", key, value.get_ref())
}

/// One definition, or each of a list.
fn definitions(file: &Path, text: &str, raw: &RawValue, key: &'static str) -> Result<Vec<Found>, String> {
    let one = |raw: &RawValue| {
        let table: Json = serde_json::from_str(raw.get()).map_err(|e| e.to_string())?;
        if !table.is_object() {
            return Err("an object is expected".to_owned());
        }
        Ok(Found { place: Place { file: file.to_owned(), line: line(text, raw) }, key, table })
    };
    if raw.get().starts_with('[') {
        let items: Vec<&RawValue> = serde_json::from_str(raw.get()).map_err(|e| e.to_string())?;
        return items.into_iter().map(one).collect();
    }
    Ok(vec![one(raw)?])
}

/// The line on which a value stands that is a part of a text.
fn line(text: &str, part: &RawValue) -> usize {
    let at = (part.get().as_ptr() as usize).saturating_sub(text.as_ptr() as usize).min(text.len());
    1 + text.as_bytes()[..at].iter().filter(|b| **b == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Config, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("web.json");
        std::fs::write(&file, text).unwrap();
        let (config, errors) = Config::read(&[file]);
        (config, errors.iter().map(|e| format!("{}: {}", e.line, e.reason)).collect())
    }

    #[test]
    fn consuls_definitions_are_taken_in_either_spelling() {
        let (config, errors) = read(
            r#"{
  "node_name": "n9", "Datacenter": "dc7", "node_meta": {"rack": "a \"b\""},
  "service": {"ID": "w1", "name": "web", "Port": 80, "enable_tag_override": true,
    "tagged_addresses": {"lan": {"address": "192.0.2.1", "port": 81}}, "weights": {"passing": 5, "warning": 2},
    "token": "x", "check": {"http": "http://127.0.0.1:1/", "Interval": "10s", "success_before_passing": 2}},
  "services": [{"name": "db", "checks": [{"TTL": "30s"}, {"tcp": "127.0.0.1:2", "interval": "5s"}]}],
  "check": {"name": "disk", "ttl": "1m"},
  "checks": [{"id": "more", "name": "more", "service_id": "db", "ttl": "1m", "deregister_critical_service_after": "1h"}]
}"#,
        );
        assert_eq!(errors, [""; 0]);
        assert_eq!((config.node_name.as_str(), config.datacenter.as_str()), ("n9", "dc7"));
        assert_eq!(config.node_meta["rack"], "a \"b\"");
        let (web, checks) = &config.services[0];
        assert_eq!((web.id.as_str(), web.port, web.weights.passing, web.node.as_str()), ("w1", 80, 5, "n9"));
        assert!(web.enable_tag_override && web.extras.tagged_addresses["lan"].port == 81);
        assert_eq!((checks.len(), checks[0].success_before_passing), (1, 2));
        let ids: Vec<_> = config.services[1].1.iter().map(|check| check.id.as_str()).collect();
        assert_eq!(ids, ["service:db:1", "service:db:2", "more"]);
        assert_eq!(config.node_checks[0].id.as_str(), "disk");
    }

    #[test]
    fn every_error_has_its_line_and_what_keeps_somebody_out_is_one() {
        let (config, errors) = read(
            "{\n\"service\": {\"name\": \"a\", \"prot\": 1},\n\"services\": [\n{\"name\": \"b\"},\n{\"name\": \"\"},\n7],\n\
             \"servces\": [],\n\"acl\": {\"enabled\": true},\n\"ports\": {\"http\": -1},\n\"server\": true,\n\
             \"datacenter\": \"a b\",\n\"data_dir\": \"/opt/consul\",\n\"checks\": [{\"name\": \"c\", \"service_id\": \"zz\", \
             \"ttl\": \"1s\"}]\n}",
        );
        for expected in [
            "2: [[service]]: json: unknown field \"prot\"",
            "3: services: an object is expected",
            "7: unknown key servces",
            "8: acl is Consul's and not taken",
            "9: ports is Consul's and not taken",
            "11: datacenter: \"a b\" cannot be a label",
            "13: [[checks]]: no file defines the service id \"zz\"",
        ] {
            assert!(errors.iter().any(|error| error.starts_with(expected)), "{expected}\n{errors:#?}");
        }
        assert_eq!(errors.len(), 7, "{errors:#?}");
        let [warning] = &config.warnings[..] else { panic!("{:?}", config.warnings) };
        let keys = "keys of Consul's agent are passed over: server, data_dir (here: data_dir, a directory of our own)";
        assert!(warning.ends_with(keys), "{warning}");
        let (_, errors) = read("{\n\"service\": {\n");
        assert_eq!(errors, ["3: EOF while parsing an object"]);
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,200}", key in "[a-z_]{0,8}", value in "\\PC{0,40}") {
            let mut config = Config::default();
            let nested = format!("{{\"{key}\": {value}, \"services\": [{value}]}}");
            for text in [text, nested] {
                let _ = keys(&mut config, Path::new("x.json"), &text, &mut Vec::new());
            }
        }
    }
}
