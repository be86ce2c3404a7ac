//! What clients define, from Consul's JSON to the model.

mod damping;
mod here;

use std::collections::BTreeMap;
use std::time::Duration;

use here::is_this_server;
use serde::Deserialize;

use super::decode::{GoDuration, Kind, Shape, decode_snake};
use super::error::Error;
use super::text;
use crate::model::address::AddressError;
use crate::model::check::OUTPUT_OCTETS_MAX;
use crate::model::name::is_label;
use crate::model::{
    Address, Check, CheckId, CheckKind, Extras, Instance, InstanceId, Locality, NodeName, Origin, Pairs,
    ProbeTls, ServiceName, Status, TaggedAddress, Terms, Weights,
};

/// `PUT /v1/agent/service/register`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct ServiceBody {
    #[serde(rename = "ID")]
    id: String,
    pub(super) name: String,
    kind: String,
    tags: Vec<String>,
    address: String,
    tagged_addresses: BTreeMap<String, TaggedAddressBody>,
    meta: BTreeMap<String, String>,
    port: i64,
    socket_path: String,
    weights: Option<WeightsBody>,
    enable_tag_override: bool,
    locality: Option<LocalityBody>,
    proxy: Option<serde_json::Value>,
    connect: Option<serde_json::Value>,
    check: Option<CheckBody>,
    checks: Vec<CheckBody>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct TaggedAddressBody {
    address: String,
    port: i64,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct WeightsBody {
    passing: i64,
    warning: i64,
}

impl Default for WeightsBody {
    fn default() -> Self {
        Self { passing: 1, warning: 1 }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct LocalityBody {
    region: String,
    zone: String,
}

impl From<&LocalityBody> for Locality {
    fn from(body: &LocalityBody) -> Self {
        Self { region: body.region.clone(), zone: body.zone.clone() }
    }
}

/// A check of a service, a check on its own (`PUT /v1/agent/check/register`), or a catalog check's `Definition`.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct CheckBody {
    #[serde(rename = "CheckID")]
    check_id: String,
    #[serde(rename = "ID")]
    id: String,
    pub(super) name: String,
    notes: String,
    #[serde(rename = "ServiceID")]
    pub(super) service_id: String,
    pub(super) status: String,
    #[serde(rename = "HTTP")]
    http: String,
    header: BTreeMap<String, Vec<String>>,
    method: String,
    body: String,
    disable_redirects: bool,
    #[serde(rename = "TCP")]
    tcp: String,
    #[serde(rename = "TCPUseTLS")]
    tcp_use_tls: bool,
    #[serde(rename = "UDP")]
    udp: String,
    #[serde(rename = "GRPC")]
    grpc: String,
    #[serde(rename = "GRPCUseTLS")]
    grpc_use_tls: bool,
    #[serde(rename = "H2PING")]
    h2ping: String,
    #[serde(rename = "H2PingUseTLS")]
    h2ping_use_tls: Option<bool>,
    #[serde(rename = "TTL")]
    ttl: Option<GoDuration>,
    script_args: Vec<String>,
    #[serde(rename = "DockerContainerID")]
    docker_container_id: String,
    alias_node: String,
    alias_service: String,
    #[serde(rename = "OSService")]
    os_service: String,
    #[serde(rename = "TLSServerName")]
    tls_server_name: String,
    #[serde(rename = "TLSSkipVerify")]
    tls_skip_verify: bool,
    interval: Option<GoDuration>,
    timeout: Option<GoDuration>,
    success_before_passing: i64,
    failures_before_warning: i64,
    failures_before_critical: i64,
    flap_max: Option<i64>,
    flap_leak: Option<GoDuration>,
    flap_steady: Option<GoDuration>,
    deregister_critical_service_after: Option<GoDuration>,
    output_max_size: i64,
}

const TAGGED_ADDRESS: Shape =
    Shape { fields: &[("Address", Kind::Plain), ("Port", Kind::Plain)], aliases: &[], lax: false };
const WEIGHTS: Shape =
    Shape { fields: &[("Passing", Kind::Plain), ("Warning", Kind::Plain)], aliases: &[], lax: false };
pub(super) const LOCALITY: Shape =
    Shape { fields: &[("Region", Kind::Plain), ("Zone", Kind::Plain)], aliases: &[], lax: false };

const CHECK_FIELDS: &[(&str, Kind)] = &[
    ("CheckID", Kind::Plain),
    ("ID", Kind::Plain),
    ("Name", Kind::Plain),
    ("Notes", Kind::Plain),
    ("ServiceID", Kind::Plain),
    ("Token", Kind::Plain),
    ("Status", Kind::Plain),
    ("HTTP", Kind::Plain),
    ("Header", Kind::Plain),
    ("Method", Kind::Plain),
    ("Body", Kind::Plain),
    ("DisableRedirects", Kind::Plain),
    ("TCP", Kind::Plain),
    ("TCPUseTLS", Kind::Plain),
    ("UDP", Kind::Plain),
    ("GRPC", Kind::Plain),
    ("GRPCUseTLS", Kind::Plain),
    ("H2PING", Kind::Plain),
    ("H2PingUseTLS", Kind::Plain),
    ("TTL", Kind::Plain),
    ("ScriptArgs", Kind::Plain),
    ("Shell", Kind::Plain),
    ("DockerContainerID", Kind::Plain),
    ("AliasNode", Kind::Plain),
    ("AliasService", Kind::Plain),
    ("OSService", Kind::Plain),
    ("TLSServerName", Kind::Plain),
    ("TLSSkipVerify", Kind::Plain),
    ("Interval", Kind::Plain),
    ("Timeout", Kind::Plain),
    ("SuccessBeforePassing", Kind::Plain),
    ("FailuresBeforeWarning", Kind::Plain),
    ("FailuresBeforeCritical", Kind::Plain),
    ("FlapMax", Kind::Plain),
    ("FlapLeak", Kind::Plain),
    ("FlapSteady", Kind::Plain),
    ("DeregisterCriticalServiceAfter", Kind::Plain),
    ("OutputMaxSize", Kind::Plain),
];
const CHECK_ALIASES: &[(&str, &str)] = &[
    ("args", "ScriptArgs"),
    ("script_args", "ScriptArgs"),
    ("deregister_critical_service_after", "DeregisterCriticalServiceAfter"),
    ("docker_container_id", "DockerContainerID"),
    ("tls_server_name", "TLSServerName"),
    ("tls_skip_verify", "TLSSkipVerify"),
    ("tcp_use_tls", "TCPUseTLS"),
    ("grpc_use_tls", "GRPCUseTLS"),
    ("h2ping_use_tls", "H2PingUseTLS"),
    ("service_id", "ServiceID"),
    ("disable_redirects", "DisableRedirects"),
];
/// Of a [`CheckBody`].
pub(super) const CHECK: Shape = Shape { fields: CHECK_FIELDS, aliases: CHECK_ALIASES, lax: false };
/// Of a catalog check's `Definition`, which has its own lax decoder in Consul.
pub(super) const CHECK_DEFINITION: Shape = Shape { fields: CHECK_FIELDS, aliases: CHECK_ALIASES, lax: true };

/// Of a [`ServiceBody`].
pub(super) const SERVICE: Shape = Shape {
    fields: &[
        ("ID", Kind::Plain),
        ("Name", Kind::Plain),
        ("Kind", Kind::Plain),
        ("Tags", Kind::Plain),
        ("Address", Kind::Plain),
        ("TaggedAddresses", Kind::Map(&TAGGED_ADDRESS)),
        ("Meta", Kind::Plain),
        ("Port", Kind::Plain),
        ("SocketPath", Kind::Plain),
        ("Weights", Kind::Object(&WEIGHTS)),
        ("Token", Kind::Plain),
        ("EnableTagOverride", Kind::Plain),
        ("Locality", Kind::Object(&LOCALITY)),
        ("Proxy", Kind::Plain),
        ("Connect", Kind::Plain),
        ("Check", Kind::Object(&CHECK)),
        ("Checks", Kind::List(&CHECK)),
    ],
    aliases: &[("enable_tag_override", "EnableTagOverride"), ("tagged_addresses", "TaggedAddresses")],
    lax: false,
};

/// What a catalog registration calls `Service`; its other fields are a [`ServiceBody`]'s.
pub(super) const CATALOG_SERVICE: Shape = Shape {
    fields: &[
        ("ID", Kind::Plain),
        ("Service", Kind::Plain),
        ("Kind", Kind::Plain),
        ("Tags", Kind::Plain),
        ("Address", Kind::Plain),
        ("TaggedAddresses", Kind::Map(&TAGGED_ADDRESS)),
        ("Meta", Kind::Plain),
        ("Port", Kind::Plain),
        ("SocketPath", Kind::Plain),
        ("Weights", Kind::Object(&WEIGHTS)),
        ("EnableTagOverride", Kind::Plain),
        ("Locality", Kind::Object(&LOCALITY)),
        ("Proxy", Kind::Plain),
        ("Connect", Kind::Plain),
        ("PeerName", Kind::Plain),
        ("CreateIndex", Kind::Plain),
        ("ModifyIndex", Kind::Plain),
    ],
    aliases: &[("Name", "Service")],
    lax: false,
};

/// Below it, Consul raises an interval to it, and so do we: more often helps nobody.
const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Where definitions end up, and what is allowed there.
pub(super) struct Context<'a> {
    pub(super) node: &'a NodeName,
    pub(super) origin: Origin,
    pub(super) scripts: bool,
    /// The caller is this machine, so that its `localhost` is ours.
    pub(super) here: bool,
}

impl ServiceBody {
    /// The instance and its checks, and warnings for the client.
    pub(super) fn build(self, of: &Context<'_>) -> Result<(Instance, Vec<Check>, Vec<String>), Error> {
        if self.name.is_empty() {
            return Err(Error::bad("Missing service name"));
        }
        let service = ServiceName::parse(&self.name)?;
        let id = InstanceId::parse(if self.id.is_empty() { &self.name } else { &self.id })?;
        let mut warnings = name_warnings(&service, &self.tags)?;
        for (key, mesh) in [("Proxy", &self.proxy), ("Connect", &self.connect)] {
            if mesh.as_ref().is_some_and(|value| value.as_object().is_none_or(|object| !object.is_empty())) {
                warnings.push(format!("{key} is ignored: the service mesh is not served"));
            }
        }
        check_meta("Service", &self.meta)?;
        let bodies: Vec<CheckBody> = self.check.into_iter().chain(self.checks).collect();
        let mut checks = Vec::new();
        for (number, body) in (1..).zip(&bodies) {
            let generated =
                if bodies.len() == 1 { format!("service:{id}") } else { format!("service:{id}:{number}") };
            let name = format!("Service '{service}' check");
            let check = body.build(of, Some(&id), &generated, &name, &mut warnings)?;
            if checks.iter().any(|other: &Check| other.id == check.id) {
                return Err(Error::bad(format!(
                    "Invalid check: two checks have the ID {:?}",
                    check.id.as_str()
                )));
            }
            checks.push(check);
        }
        let mut tagged_addresses = BTreeMap::new();
        for (tag, body) in self.tagged_addresses {
            let port = port(body.port)?;
            tagged_addresses.insert(tag, TaggedAddress { address: service_address(&body.address)?, port });
        }
        let locality = self.locality.as_ref().map(Locality::from);
        let extras = Extras { kind: self.kind, tagged_addresses, socket_path: self.socket_path, locality };
        let instance = Instance {
            node: of.node.clone(),
            id,
            service,
            tags: self.tags.iter().collect(),
            address: (!self.address.is_empty()).then(|| service_address(&self.address)).transpose()?,
            meta: Pairs::from(&self.meta),
            port: port(self.port)?,
            weights: weights(self.weights)?,
            enable_tag_override: self.enable_tag_override,
            origin: of.origin,
            extras: extras.into(),
        };
        text::of_instance(&instance)?;
        Ok((instance, checks, warnings))
    }
}

/// A service of a configuration file, with its checks and warnings; errs in words. `scripts` says whether script checks are
/// allowed.
pub fn service_of_file(
    table: &serde_json::Value,
    node: &NodeName,
    scripts: bool,
) -> Result<(Instance, Vec<Check>, Vec<String>), String> {
    let body: ServiceBody = decode_snake(&SERVICE, table.clone())?;
    let of = Context { node, origin: Origin::File, scripts, here: true };
    body.build(&of).map_err(|error| error.text)
}

/// A check of a configuration file that stands on its own, of the node or of the service that it names, and warnings.
pub fn check_of_file(
    table: &serde_json::Value,
    node: &NodeName,
    scripts: bool,
) -> Result<(Check, Vec<String>), String> {
    let body: CheckBody = decode_snake(&CHECK, table.clone())?;
    if body.name.is_empty() {
        return Err("Missing check name".to_owned());
    }
    let instance = (!body.service_id.is_empty()).then(|| InstanceId::parse(&body.service_id));
    let instance = instance.transpose().map_err(|e| e.to_string())?;
    let of = Context { node, origin: Origin::File, scripts, here: true };
    let mut warnings = Vec::new();
    let check = body.build(&of, instance.as_ref(), &body.name, &body.name, &mut warnings);
    check.map(|check| (check, warnings)).map_err(|error| error.text)
}

impl CheckBody {
    /// The check, with the id and name it gets when it has none of its own.
    pub(super) fn build(
        &self,
        of: &Context<'_>,
        instance: Option<&InstanceId>,
        default_id: &str,
        default_name: &str,
        warnings: &mut Vec<String>,
    ) -> Result<Check, Error> {
        let invalid = |text: &str| Error::bad(format!("Invalid check: {text}"));
        let id = [&self.check_id, &self.id].into_iter().find(|id| !id.is_empty());
        let initial = match self.status.as_str() {
            "" => Status::Critical,
            text => Status::parse(text)
                .ok_or_else(|| Error::bad("Status for checks must 'passing', 'warning', 'critical'"))?,
        };
        let mut interval = self.interval.map_or(Duration::ZERO, |d| d.0);
        let kind = self.kind(of, interval)?;
        let probes = !matches!(kind, CheckKind::Ttl { .. } | CheckKind::Alias { .. } | CheckKind::External);
        if probes && interval < INTERVAL_MIN {
            warnings.push(format!("the interval {interval:?} was raised to {INTERVAL_MIN:?}"));
            interval = INTERVAL_MIN;
        }
        let default_timeout = if matches!(kind, CheckKind::Script { .. }) { 30 } else { 10 };
        let timeout = self.timeout.map(|d| d.0).filter(|timeout| !timeout.is_zero());
        let count = |number: i64, key: &str| {
            u32::try_from(number)
                .map_err(|_| invalid(&format!("{key} {number} is not between 0 and {}", u32::MAX)))
        };
        let failures_before_warning = count(self.failures_before_warning, "FailuresBeforeWarning")?;
        let failures_before_critical = count(self.failures_before_critical, "FailuresBeforeCritical")?;
        if failures_before_warning > failures_before_critical.max(1) {
            return Err(invalid("FailuresBeforeWarning can't be higher than FailuresBeforeCritical"));
        }
        let output_max = usize::try_from(self.output_max_size);
        let output_max = output_max.map_err(|_| invalid("MaxOutputMaxSize must be positive"))?;
        let deregister_after = self.deregister_critical_service_after.map(|d| d.0).filter(|d| !d.is_zero());
        let terms = Terms {
            name: if self.name.is_empty() { default_name.to_owned() } else { self.name.clone() },
            notes: self.notes.clone(),
            kind,
            interval: if probes { interval } else { Duration::ZERO },
            timeout: timeout.unwrap_or(Duration::from_secs(default_timeout)),
            success_before_passing: count(self.success_before_passing, "SuccessBeforePassing")?,
            failures_before_warning,
            failures_before_critical,
            damping: self.damping(probes)?,
            deregister_after,
            output_max: if output_max == 0 { OUTPUT_OCTETS_MAX } else { output_max.min(OUTPUT_OCTETS_MAX) },
            initial,
            origin: of.origin,
        };
        let id = CheckId::parse(id.map_or(default_id, String::as_str))?;
        let check = Check { node: of.node.clone(), id, instance: instance.cloned(), terms: terms.into() };
        text::of_check(&check).map(|()| check)
    }

    /// Whether anything is defined that could be run.
    pub(super) fn defines_a_probe(&self) -> bool {
        [&self.http, &self.tcp, &self.udp, &self.grpc, &self.h2ping].iter().any(|text| !text.is_empty())
    }

    fn kind(&self, of: &Context<'_>, interval: Duration) -> Result<CheckKind, Error> {
        let invalid = |text: &str| Error::bad(format!("Invalid check: {text}"));
        let ttl = self.ttl.map_or(Duration::ZERO, |d| d.0);
        if !interval.is_zero() && !ttl.is_zero() {
            return Err(invalid("Interval and TTL cannot both be specified"));
        }
        let kind = self.probe_kind();
        if !self.alias_node.is_empty() || !self.alias_service.is_empty() {
            if !interval.is_zero() {
                return Err(invalid("Interval cannot be set for Alias checks"));
            }
            if !ttl.is_zero() {
                return Err(invalid("TTL must be not be set for Alias checks"));
            }
            return self.alias(of);
        }
        if !self.docker_container_id.is_empty() {
            return Err(invalid("Docker checks are not served; use an HTTP, TCP or script check"));
        }
        if !self.os_service.is_empty() {
            return Err(invalid("OSService checks are not served; use an HTTP, TCP or script check"));
        }
        let Some(kind) = kind else {
            if ttl.is_zero() {
                return Err(invalid("TTL must be > 0 for TTL checks"));
            }
            return Ok(CheckKind::Ttl { ttl });
        };
        if !ttl.is_zero() {
            return Err(invalid("a check is either a TTL check or a probe, not both"));
        }
        if interval.is_zero() {
            return Err(invalid(
                "Interval must be > 0 for Script, HTTP, H2PING, TCP, UDP or OSService checks",
            ));
        }
        if matches!(kind, CheckKind::Script { .. }) && !of.scripts {
            return Err(Error::server(
                "Scripts are disabled on this agent from remote calls; to enable, configure 'enable_script_checks' to \
                 true ([checks] script = true)",
            ));
        }
        check_target(&kind, of.here)?;
        Ok(kind)
    }

    /// What is probed, in Consul's order of precedence.
    fn probe_kind(&self) -> Option<CheckKind> {
        let tls =
            || ProbeTls { skip_verify: self.tls_skip_verify, server_name: self.tls_server_name.clone() };
        let when = |on: bool| on.then(tls);
        let given = |text: &String| (!text.is_empty()).then(|| text.clone());
        if let Some(target) = given(&self.grpc) {
            let (address, service) = target.split_once('/').unwrap_or((&target, ""));
            let (address, service) = (address.to_owned(), service.to_owned());
            return Some(CheckKind::Grpc { address, service, tls: when(self.grpc_use_tls) });
        }
        if let Some(url) = given(&self.http) {
            let method = given(&self.method).map_or_else(|| "GET".to_owned(), |m| m.to_ascii_uppercase());
            return Some(CheckKind::Http {
                url,
                method,
                header: self.header.clone(),
                body: self.body.clone(),
                follow_redirects: !self.disable_redirects,
                tls: tls(),
            });
        }
        if let Some(address) = given(&self.tcp) {
            return Some(CheckKind::Tcp { address, tls: when(self.tcp_use_tls) });
        }
        if let Some(address) = given(&self.udp) {
            return Some(CheckKind::Udp { address });
        }
        if !self.script_args.is_empty() {
            return Some(CheckKind::Script { args: self.script_args.clone() });
        }
        let address = given(&self.h2ping)?;
        Some(CheckKind::H2Ping { address, tls: when(self.h2ping_use_tls.unwrap_or(true)) })
    }

    fn alias(&self, of: &Context<'_>) -> Result<CheckKind, Error> {
        let node =
            if self.alias_node.is_empty() { of.node.clone() } else { NodeName::parse(&self.alias_node)? };
        let instance = (!self.alias_service.is_empty()).then(|| InstanceId::parse(&self.alias_service));
        Ok(CheckKind::Alias { node, instance: instance.transpose()? })
    }
}

/// Octets of a check's output as it can be after a probe has put its own words before it.
pub(super) const CHECK_OUTPUT_OCTETS_MAX: usize = 4 * OUTPUT_OCTETS_MAX;

/// The rules for a node that comes as the model has it.
pub(super) fn node_rules(node: &crate::model::Node) -> Result<(), Error> {
    check_meta("Node", &node.meta)?;
    text::of_node(node)
}

/// The rules for an instance that comes as the model has it.
pub(super) fn instance_rules(instance: &Instance) -> Result<(), Error> {
    let tags: Vec<String> = instance.tags.iter().map(str::to_owned).collect();
    name_warnings(&instance.service, &tags)?;
    let meta = instance.meta.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    check_meta("Service", &meta)?;
    text::of_instance(instance)?;
    let (passing, warning) = (instance.weights.passing, instance.weights.warning);
    weights(Some(WeightsBody { passing: passing.into(), warning: warning.into() })).map(drop)
}

/// The rules for a check that comes as the model has it.
pub(super) fn check_rules(check: &Check, scripts: bool) -> Result<(), Error> {
    let invalid = |text: String| Err(Error::bad(format!("Invalid check: {text}")));
    let probes = !matches!(check.kind, CheckKind::Ttl { .. } | CheckKind::Alias { .. } | CheckKind::External);
    match &check.kind {
        CheckKind::Script { .. } if !scripts => {
            return invalid("scripts are disabled here; [checks] script = true allows them".to_owned());
        }
        CheckKind::Script { args } if args.is_empty() => {
            return invalid("a script has a program".to_owned());
        }
        CheckKind::Ttl { ttl } if ttl.is_zero() => {
            return invalid("TTL must be > 0 for TTL checks".to_owned());
        }
        _ if probes && check.interval < INTERVAL_MIN => {
            return invalid(format!("its interval is below {INTERVAL_MIN:?}"));
        }
        _ if probes && check.timeout.is_zero() => return invalid("its timeout is zero".to_owned()),
        _ if check.output_max > OUTPUT_OCTETS_MAX => {
            return invalid(format!("its output_max is above {OUTPUT_OCTETS_MAX}"));
        }
        _ => {}
    }
    if check.failures_before_warning > check.failures_before_critical.max(1) {
        return invalid("FailuresBeforeWarning can't be higher than FailuresBeforeCritical".to_owned());
    }
    text::of_check(check)?;
    check_target(&check.kind, true)
}

/// A target that can be parsed, and is not the caller's own loopback seen from here.
fn check_target(kind: &CheckKind, here: bool) -> Result<(), Error> {
    let invalid = |text: String| Error::bad(format!("Invalid check: {text}"));
    let host = match kind {
        CheckKind::Http { url, method, header, .. } => {
            let uri: axum::http::Uri =
                url.parse().map_err(|e| invalid(format!("the URL {url:?} cannot be parsed: {e}")))?;
            if !matches!(uri.scheme_str(), Some("http" | "https")) {
                return Err(invalid(format!("the URL {url:?} must begin with http:// or https://")));
            }
            if axum::http::Method::from_bytes(method.as_bytes()).is_err() {
                return Err(invalid(format!("{method:?} is no HTTP method")));
            }
            for (name, values) in header {
                let good = axum::http::HeaderName::from_bytes(name.as_bytes()).is_ok()
                    && values.iter().all(|value| axum::http::HeaderValue::from_str(value).is_ok());
                if !good {
                    return Err(invalid(format!("the header {name:?} is malformed")));
                }
            }
            uri.host().unwrap_or_default().to_owned()
        }
        CheckKind::Tcp { address, .. }
        | CheckKind::Udp { address }
        | CheckKind::Grpc { address, .. }
        | CheckKind::H2Ping { address, .. } => {
            let parts = address
                .rsplit_once(':')
                .filter(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0));
            let (host, _) = parts.ok_or_else(|| {
                invalid(format!("{address:?} is not host:port (such as \"192.0.2.1:5432\")"))
            })?;
            host.to_owned()
        }
        _ => return Ok(()),
    };
    if is_this_server(&host) && !here {
        return Err(invalid(format!(
            "{host} would be this server, not you: name the address at which your service can be reached from here"
        )));
    }
    Ok(())
}

/// Names that DNS cannot show are served over HTTP only, and the client is told.
fn name_warnings(service: &ServiceName, tags: &[String]) -> Result<Vec<String>, Error> {
    let mut warnings = Vec::new();
    if !service.is_label() {
        warnings.push(format!(
            "service name {:?} cannot be asked for in DNS (letters, digits, - and _, at most 63); it is served over HTTP only",
            service.as_str()
        ));
    }
    for tag in tags {
        if tag.chars().any(char::is_control) {
            return Err(Error::bad(format!("tag {tag:?} contains a control character")));
        }
        if !tag.split('.').all(is_label) {
            warnings.push(format!("tag {tag:?} cannot be asked for in DNS; it is served over HTTP only"));
        }
    }
    Ok(warnings)
}

/// Consul's rules for meta keys; lengths and number are the registry's limits.
pub(super) fn check_meta(of: &str, meta: &BTreeMap<String, String>) -> Result<(), Error> {
    for (key, value) in meta {
        let why = match () {
            () if key.is_empty() => "Key cannot be blank",
            () if !key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') => {
                "Key contains invalid characters"
            }
            () if key.to_ascii_lowercase().starts_with("consul-") => {
                "Key prefix 'consul-' is reserved for internal use"
            }
            () if value.chars().any(|c| c.is_control() && c != '\t' && c != '\n') => {
                "Value contains a control character"
            }
            () => continue,
        };
        return Err(Error::bad(format!(
            "Invalid {of} Meta: Couldn't load metadata pair ('{}', '{}'): {why}",
            key.escape_debug(),
            value.escape_debug()
        )));
    }
    Ok(())
}

fn service_address(text: &str) -> Result<Address, Error> {
    Address::parse(text).map_err(|e| match e {
        AddressError::Unspecified(_) => Error::bad("Invalid service address"),
        e => Error::bad(format!("Invalid service address: {e}")),
    })
}

fn port(port: i64) -> Result<u16, Error> {
    u16::try_from(port)
        .map_err(|_| Error::bad(format!("Invalid service port {port}: must be between 0 and 65535")))
}

fn weights(body: Option<WeightsBody>) -> Result<Weights, Error> {
    let WeightsBody { passing, warning } = body.unwrap_or_default();
    let invalid = |text: &str| Error::bad(format!("Invalid Weights: {text}"));
    if passing < 1 {
        return Err(invalid("Passing must be greater than 0"));
    }
    if warning < 0 {
        return Err(invalid("Warning must be greater or equal than 0"));
    }
    match (u16::try_from(passing), u16::try_from(warning)) {
        (Ok(passing), Ok(warning)) => Ok(Weights { passing, warning }),
        _ => Err(invalid("DNS Weight must be between 0 and 65535")),
    }
}

/// A catalog registration's service, whose name stands under `Service`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct CatalogServiceBody {
    service: String,
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

impl CatalogServiceBody {
    /// The same as an agent's.
    pub(super) fn into_service(self) -> Result<ServiceBody, Error> {
        if self.service.is_empty() {
            let with_id = self.rest.get("ID").and_then(|id| id.as_str()).is_some_and(|id| !id.is_empty());
            let when = if with_id { " when service ID is provided" } else { "" };
            return Err(Error::server(format!("Must provide service name (Service.Service){when}")));
        }
        let body: Result<ServiceBody, _> = serde_json::from_value(serde_json::Value::Object(self.rest));
        let mut body = body.map_err(|e| Error::bad(format!("Request decode failed: json: {e}")))?;
        body.name = self.service;
        // Go's client writes weights that nobody set as zeros.
        body.weights = body.weights.filter(|weights| (weights.passing, weights.warning) != (0, 0));
        Ok(body)
    }
}
