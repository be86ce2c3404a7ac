//! Every key: what it is called, what it takes, what it is when nobody says, and what it means.
//!
//! One table, from which files are read, defaults are set and the reference is printed. A new key is one entry here.

use toml::de::{DeTable, DeValue};

use super::own::{clients, own, place, secret, upstreams};
use super::value::{self, Value};
use super::{Config, Data};
use crate::dns::forward;
use crate::model::{Address, NodeName};
use crate::store::KeySource;
use crate::tls::Version;

/// One key.
pub struct Key {
    /// The table it stands in; empty for the top.
    pub table: &'static str,
    pub name: &'static str,
    /// As TOML; empty where the default is not a fixed value (`help` says what it is then).
    pub default: &'static str,
    /// Whether SIGHUP takes a new value; otherwise the next start does.
    pub reloads: bool,
    /// One or two sentences.
    pub help: &'static str,
    pub(super) set: fn(&mut Config, &Value<'_>) -> Result<(), String>,
}

/// Sets every default.
pub(super) fn set_defaults(config: &mut Config) {
    for key in all().filter(|key| !key.default.is_empty()) {
        let set = DeValue::parse(key.default)
            .map_err(|e| e.to_string())
            .and_then(|value| (key.set)(config, value.get_ref()));
        debug_assert_eq!(set, Ok(()), "[{}] {}", key.table, key.name);
    }
}

/// The key of this name, if there is one.
pub(super) fn find(table: &str, name: &str) -> Option<&'static Key> {
    all().find(|key| key.table == table && key.name == name)
}

/// The tables of single values.
pub(super) fn is_table(name: &str) -> bool {
    all().any(|key| key.table == name)
}

fn table<'a>(value: &'a Value<'_>) -> Result<&'a DeTable<'a>, String> {
    value.as_table().ok_or_else(|| "a table is expected".to_owned())
}

/// What is set for services: a table of their names, or prefixes with `*`, which become lower case.
fn by_service<T>(
    value: &Value<'_>,
    each: impl Fn(&Value<'_>) -> Result<T, String>,
) -> Result<Vec<(String, T)>, String> {
    value::pairs(table(value)?).map(|(name, value)| Ok((name.to_ascii_lowercase(), each(value)?))).collect()
}

macro_rules! key {
    ($table:literal, $name:literal, $default:literal, $reloads:expr, $help:literal, |$config:ident, $value:ident| $set:expr) => {
        Key {
            table: $table,
            name: $name,
            default: $default,
            reloads: $reloads,
            help: $help,
            set: |$config, $value| {
                $set;
                Ok(())
            },
        }
    };
}

mod limits;
mod steady;
mod telemetry;

const RELOADS: bool = true;
const AT_START: bool = false;

/// All keys, in the order of the reference.
pub fn all() -> impl Iterator<Item = &'static Key> {
    let split = KEYS.iter().position(|key| key.table == "forward").unwrap_or(KEYS.len());
    KEYS[..split].iter().chain(steady::KEYS).chain(&KEYS[split..]).chain(limits::KEYS).chain(telemetry::KEYS)
}

/// Those that stand in no file of their own.
const KEYS: &[Key] = &[
    key!(
        "",
        "node_name",
        "",
        AT_START,
        "The name of this machine in the catalog and in DNS (`<node_name>.node.internal`). Default: the host name.",
        |c, v| { c.node_name = NodeName::parse(value::text(v)?).map_err(|e| e.to_string())? }
    ),
    key!(
        "",
        "node_id",
        "",
        AT_START,
        "The UUID of this machine. Default: made once and kept in the data directory.",
        |c, v| { c.node_id = Some(value::text(v)?.parse().map_err(|e| format!("not a UUID: {e}"))?) }
    ),
    key!(
        "",
        "node_address",
        "",
        AT_START,
        "The address of this machine, for instances registered here without one. Default: what `listen` names; where that is every address, the one that the kernel uses to reach others, else the first of this machine that is not loopback.",
        |c, v| { c.node_address = Some(Address::parse(value::text(v)?).map_err(|e| e.to_string())?) }
    ),
    key!("", "node_meta", "", AT_START, "A table of texts: meta of this machine's node.", |c, v| {
        c.node_meta = value::texts(v)?.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    }),
    key!(
        "",
        "datacenter",
        "\"dc1\"",
        AT_START,
        "The datacenter's name: a label in DNS names, and what clients are told.",
        |c, v| { c.datacenter = label(value::text(v)?)? }
    ),
    key!(
        "",
        "data_dir",
        "",
        AT_START,
        "Where definitions are kept (mode 0700). Default: `$STATE_DIRECTORY`, else `$XDG_STATE_HOME/rollcall`, else `~/.local/state/rollcall`, else `/var/lib/rollcall`.",
        |c, v| { c.data = Data::Dir(value::text(v)?.into()) }
    ),
    key!(
        "",
        "lame_duck",
        "\"0s\"",
        RELOADS,
        "How long everything is still served after SIGTERM, SIGINT or `agent/leave` while `/ready` says 503, so that load balancers and resolvers turn to another server first. A second signal ends it at once; `rollcall restart` does not wait.",
        |c, v| { c.lame_duck = value::wait(v)? }
    ),
    key!(
        "dns",
        "listen",
        "[\"127.0.0.1:8600\"]",
        AT_START,
        "Addresses for DNS, each on UDP and TCP. Port 0 takes a free one; `0.0.0.0` and `[::]` are every address, and answers leave from the one that was asked.",
        |c, v| { c.dns.listen = value::list(v, value::listen)? }
    ),
    key!("dns", "domain", "\"internal\"", AT_START, "The domain of live names.", |c, v| c.dns.domain =
        value::domain(v)?),
    key!("dns", "alt_domains", "[\"consul\"]", AT_START, "Other domains of the same names.", |c, v| {
        c.dns.alt_domains = value::list(v, value::domain)?
    }),
    key!(
        "dns",
        "ttl",
        "\"5s\"",
        RELOADS,
        "The longest TTL of a live answer. An answer's own is shorter where a check could change it sooner.",
        |c, v| { c.dns.ttl = value::ttl(v)? }
    ),
    key!(
        "dns",
        "service_ttl",
        "",
        RELOADS,
        "A table of service names, or prefixes with `*`, to the longest TTL of their answers instead of `ttl`.",
        |c, v| { c.dns.service_ttl = by_service(v, value::ttl)? }
    ),
    key!(
        "dns",
        "a_limit",
        "",
        RELOADS,
        "A table of service names, or prefixes with `*`, to the most addresses that an A or AAAA answer of them has; which ones is drawn for each answer by weight. With 1, clients that sort what they get (RFC 6724) are spread too.",
        |c, v| { c.dns.a_limit = by_service(v, value::count)? }
    ),
    key!(
        "dns",
        "nearest",
        "",
        RELOADS,
        "A table of service names, or prefixes with `*`: clients get their instances in the same zone, if at least so many are healthy there; else those in the same region, if there are as many; else all. See `[locality]`.",
        |c, v| { c.dns.nearest = by_service(v, value::count)? }
    ),
    key!(
        "dns",
        "udp_threads",
        "0",
        AT_START,
        "Threads that answer on each UDP address, each on a socket of its own; 0 means one for each core that we may use.",
        |c, v| { c.dns.udp_threads = value::number(v, 0, 1024)? as usize }
    ),
    key!(
        "dns",
        "payload",
        "1232",
        RELOADS,
        "Octets of the largest UDP answer (RFC 6891), 512 to 4096; larger ones come over TCP.",
        |c, v| { c.dns.payload = value::number(v, 512, 4096)? as u16 }
    ),
    key!("dns", "tcp_connections_max", "10000", RELOADS, "TCP connections at once.", |c, v| {
        c.dns.tcp.connections_max = value::count(v)?
    }),
    key!(
        "dns",
        "tcp_connections_per_client_max",
        "1000",
        RELOADS,
        "TCP connections at once from one address.",
        |c, v| { c.dns.tcp.connections_per_client_max = value::count(v)? }
    ),
    key!(
        "dns",
        "tcp_in_flight_max",
        "64",
        RELOADS,
        "Forwarded queries at once on one TCP connection.",
        |c, v| { c.dns.tcp.in_flight_max = value::count(v)? }
    ),
    key!(
        "dns",
        "tcp_idle",
        "\"10s\"",
        RELOADS,
        "How long a TCP connection may be silent between queries.",
        |c, v| { c.dns.tcp.idle = value::time(v)? }
    ),
    key!(
        "dns",
        "tcp_transfer",
        "\"5s\"",
        RELOADS,
        "How long one query may take to arrive over TCP, or one answer to be taken.",
        |c, v| { c.dns.tcp.transfer = value::time(v)? }
    ),
    key!(
        "http",
        "listen",
        "[\"127.0.0.1:8500\"]",
        AT_START,
        "Addresses for the HTTP API in clear, and Unix sockets (`unix:///run/rollcall/api.sock`), whose callers act for this machine's node. Without `[acl] enabled` there is no password: whoever reaches it can register. `[]` leaves `[https]` alone.",
        |c, v| { c.http.listen_on(value::list(v, |v| value::http_listen(value::text(v)?))?) }
    ),
    key!(
        "http",
        "unix_mode",
        "\"0600\"",
        AT_START,
        "Permission bits of Unix sockets, whatever the umask: who may write may use the API.",
        |c, v| { c.http.unix_access.mode = value::mode(v)? }
    ),
    key!(
        "http",
        "unix_owner",
        "",
        AT_START,
        "Owner of Unix sockets: `user`, `user:group` or `:group`, by name or number. Default: the server's own.",
        |c, v| { (c.http.unix_access.user, c.http.unix_access.group) = value::owner(v)? }
    ),
    key!(
        "http",
        "allowed_hosts",
        "[]",
        RELOADS,
        "Names under which the API may be asked, beside `localhost`, the node's name and any address. Others are refused: a web page could point its own name here.",
        |c, v| { c.http.allowed_hosts = value::list(v, |v| value::text(v).map(str::to_owned))? }
    ),
    key!("http", "ui", "true", RELOADS, "Whether the web page is served at `/ui/`.", |c, v| c.http.ui =
        value::flag(v)?),
    key!("http", "body_max", "\"1MiB\"", RELOADS, "The largest request body.", |c, v| c.http.body_max =
        value::octets(v)?),
    key!("http", "body_wait", "\"10s\"", RELOADS, "How long a request body may take to arrive.", |c, v| c
        .http
        .body_wait =
        value::time(v)?),
    key!(
        "http",
        "import_max",
        "\"1GiB\"",
        RELOADS,
        "The largest body of an import (`PUT /v1/rollcall/import`); `body_wait` bounds the wait for each piece of it.",
        |c, v| { c.http.import_max = value::octets(v)? }
    ),
    key!(
        "http",
        "write_wait",
        "\"30s\"",
        RELOADS,
        "How long a client may take nothing of what it is sent; then it is cut off. Over TCP it must take some 128 KiB in this time, which the system holds for it.",
        |c, v| { c.http.write_wait = value::time(v)? }
    ),
    key!(
        "http",
        "idle",
        "\"60s\"",
        RELOADS,
        "How long a connection may be idle, or take to send a request's head.",
        |c, v| c.http.idle = value::time(v)?
    ),
    key!("http", "connections_max", "20000", RELOADS, "Connections at once.", |c, v| c
        .http
        .connections_max =
        value::count(v)?),
    key!(
        "http",
        "connections_per_client_max",
        "2000",
        RELOADS,
        "Connections at once from one address.",
        |c, v| { c.http.connections_per_client_max = value::count(v)? }
    ),
    key!(
        "https",
        "listen",
        "[]",
        AT_START,
        "Addresses for the HTTP API over TLS; Consul's port for it is 8501. All limits of `[http]` hold for both together.",
        |c, v| { c.https.listen = value::list(v, value::listen)? }
    ),
    key!(
        "https",
        "cert_file",
        "",
        RELOADS,
        "PEM file of the certificate, followed by those between it and its authority.",
        |c, v| { c.https.files.cert = value::text(v)?.into() }
    ),
    key!(
        "https",
        "key_file",
        "",
        RELOADS,
        "PEM file of its key (PKCS#8, PKCS#1 or SEC1), not encrypted.",
        |c, v| { c.https.files.key = value::text(v)?.into() }
    ),
    key!(
        "https",
        "client_ca_file",
        "",
        RELOADS,
        "PEM file of the authorities of clients. When set, a client without a certificate by one of them is refused (mutual TLS).",
        |c, v| { c.https.files.client_ca = Some(value::text(v)?.into()) }
    ),
    key!(
        "https",
        "client_crl_file",
        "",
        RELOADS,
        "PEM file of lists of revoked certificates, one by each authority in a client's chain. A client whose certificate is on it is refused, and at a reload loses the connection that it has.",
        |c, v| { c.https.files.client_crl = Some(value::text(v)?.into()) }
    ),
    key!(
        "https",
        "min_version",
        "\"1.2\"",
        RELOADS,
        "The least version of TLS: `\"1.2\"` or `\"1.3\"`.",
        |c, v| {
            c.https.files.min_version = match value::text(v)? {
                "1.2" => Version::Tls12,
                "1.3" => Version::Tls13,
                other => return Err(format!("{other:?} is not \"1.2\" or \"1.3\"")),
            }
        }
    ),
    key!("https", "handshake_wait", "\"10s\"", RELOADS, "How long a handshake may take.", |c, v| {
        c.https.handshake_wait = value::time(v)?
    }),
    key!(
        "https",
        "handshakes_max",
        "2048",
        RELOADS,
        "Handshakes at once; those beyond are closed.",
        |c, v| { c.https.handshakes_max = value::count(v)? }
    ),
    key!(
        "https",
        "handshakes_per_client_max",
        "256",
        RELOADS,
        "Handshakes at once from one address.",
        |c, v| { c.https.handshakes_per_client_max = value::count(v)? }
    ),
    key!(
        "forward",
        "upstreams",
        "",
        AT_START,
        "Servers that are asked for names that are not ours: `\"system\"` (what `/etc/resolv.conf` names) or addresses. Default: none, and such names are refused.",
        |c, v| { forward(c).upstreams = upstreams(v)? }
    ),
    key!(
        "forward",
        "allow",
        "",
        AT_START,
        "Networks whose questions are forwarded. Default: loopback and private ranges.",
        |c, v| { forward(c).allow = value::list(v, value::network)? }
    ),
    key!(
        "forward",
        "timeout",
        "",
        AT_START,
        "How long one upstream may take for one try; all tries together may take twice that. Default: `\"2s\"`.",
        |c, v| forward(c).timeout = value::time(v)?
    ),
    key!(
        "forward",
        "waiting_max",
        "",
        AT_START,
        "Questions that wait for upstreams at once; those beyond are answered SERVFAIL. Default: 1024.",
        |c, v| { forward(c).waiting_max = value::count(v)? }
    ),
    key!(
        "forward",
        "cache_entries",
        "",
        AT_START,
        "Answers of others that are kept. Default: 10000.",
        |c, v| { forward(c).cache_entries = value::number(v, 0, 10_000_000)? }
    ),
    key!(
        "locality",
        "region",
        "",
        AT_START,
        "The region of this machine. Other nodes say theirs when they are registered (`Locality`), or in their meta `region` and `zone`; an instance may say another.",
        |c, v| { own(c).region = place(value::text(v)?)? }
    ),
    key!("locality", "zone", "", AT_START, "The zone of this machine in its region.", |c, v| {
        own(c).zone = place(value::text(v)?)?
    }),
    key!(
        "locality",
        "clients",
        "",
        RELOADS,
        "A table of networks to where their clients are: `\"10.1.0.0/16\" = \"eu-west/a\"`, or the region alone. The smallest network that has a client's address counts. A client on a node that says its place is there.",
        |c, v| { c.locality.clients = clients(v)? }
    ),
    key!(
        "locality",
        "client_subnet_from",
        "[\"127.0.0.0/8\", \"::1/128\"]",
        RELOADS,
        "Networks of resolvers whose word on the network of their clients is taken (RFC 7871): it is looked up in `clients` instead of the resolver's own address.",
        |c, v| { c.locality.client_subnet_from = value::list(v, value::network)? }
    ),
    key!("store", "cache", "\"32MiB\"", AT_START, "Memory for the pages of the store.", |c, v| c
        .cache_octets =
        value::octets(v)?),
    key!(
        "store",
        "key_file",
        "",
        AT_START,
        "File with the key that the store is encrypted with: 32 octets in base64 (`openssl rand -base64 32`). `ROLLCALL_STORE_KEY` has the key itself, and comes first. A new store is encrypted at once; one that is there by `rollcall store rotate`.",
        |c, v| { c.store_key = KeySource::File(value::text(v)?.into()) }
    ),
    key!(
        "acl",
        "enabled",
        "false",
        RELOADS,
        "Whether access is controlled by tokens ([acl.md](acl.md)). Off, whoever reaches the API may do everything.",
        |c, v| { c.acl.enabled = value::flag(v)? }
    ),
    key!(
        "acl",
        "default_policy",
        "\"allow\"",
        RELOADS,
        "`allow` or `deny`: what holds where no rule of a token speaks.",
        |c, v| {
            c.acl.default_allow = match value::text(v)? {
                "allow" => true,
                "deny" => false,
                other => return Err(format!("{other:?} is neither \"allow\" nor \"deny\"")),
            }
        }
    ),
    key!(
        "acl",
        "initial_management",
        "",
        RELOADS,
        "A token that may do everything, as long as it stands here; better given as `ROLLCALL_ACL_INITIAL_MANAGEMENT`. Default: none, and the first one comes from `PUT /v1/acl/bootstrap`.",
        |c, v| { c.acl.initial_management = Some(secret(v)?) }
    ),
    key!(
        "acl",
        "default_token",
        "",
        RELOADS,
        "The token of requests that bring none. Default: the anonymous token.",
        |c, v| { c.acl.default_token = Some(secret(v)?) }
    ),
    key!(
        "acl",
        "agent_token",
        "",
        RELOADS,
        "The token of the server's own work, as Consul's agents have one. Rollcall's own work needs none; it is kept so that files of a Consul keep their meaning.",
        |c, v| { c.acl.agent_token = Some(secret(v)?) }
    ),
    key!(
        "acl",
        "dns_token",
        "",
        RELOADS,
        "The token that decides what DNS shows. Default: `default_token`, else the anonymous token.",
        |c, v| { c.acl.dns_token = Some(secret(v)?) }
    ),
];

/// A name that is one label in DNS, in lower case.
pub fn label(text: &str) -> Result<String, String> {
    if crate::model::name::is_label(text) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(format!("{text:?} cannot be a label in DNS: letters, digits, - and _, 1 to 63 octets"))
}

/// `[forward]`, with its defaults once one of its keys is set.
fn forward(config: &mut Config) -> &mut forward::Config {
    config.forward.get_or_insert_with(forward::Config::default)
}
