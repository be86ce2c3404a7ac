//! The keys of what decides who is healthy: `[checks]`, `[guard]`, `[slow_start]`, `[breaker]`.

use super::{AT_START, Key, RELOADS, by_service, value};
use crate::config::value::Value;

/// A number of requests.
fn number(value: &Value<'_>, least: u64) -> Result<u32, String> {
    Ok(value::number(value, least, 1_000_000)? as u32)
}

/// They stand before `[forward]` in the reference.
pub(super) const KEYS: &[Key] = &[
    key!(
        "checks",
        "script",
        "false",
        AT_START,
        "Whether script checks may be registered and run. Whoever reaches the API can then run programs here.",
        |c, v| { c.checks.script = value::flag(v)? }
    ),
    key!(
        "checks",
        "in_flight_max",
        "512",
        AT_START,
        "Probes at once, and eight times as many that have taken longer than 100 ms; those that are due beyond wait.",
        |c, v| c.checks.in_flight_max = value::count(v)?
    ),
    key!(
        "checks",
        "kept_max",
        "10000",
        AT_START,
        "Connections kept open between probes of HTTP checks, one for each target however many checks it has. Checks of targets beyond lose only the instant notice of a crash.",
        |c, v| { c.checks.kept_max = value::count(v)? }
    ),
    key!(
        "checks",
        "names_max",
        "10000",
        AT_START,
        "Names of targets whose addresses are remembered while their TTL lasts; names beyond are looked up for each probe.",
        |c, v| { c.checks.names_max = value::count(v)? }
    ),
    key!(
        "checks",
        "allow_targets",
        "[]",
        AT_START,
        "Networks that probes may connect to. When there are any, all others are denied; of ranges that have an address the longest decides. Where a cloud keeps its machines' credentials (`169.254.0.0/16`, `fe80::/10` and other addresses of metadata services) has to be named by itself; for fetches of an auth method's keys, too, which are not narrowed otherwise.",
        |c, v| { c.checks.targets.allow = value::list(v, value::network)? }
    ),
    key!(
        "checks",
        "deny_targets",
        "[]",
        AT_START,
        "Networks that probes, and fetches of an auth method's keys (`JWKSURL`), may not connect to, by whatever name, redirect or spelling they are led there; such a check is critical.",
        |c, v| { c.checks.targets.deny = value::list(v, value::network)? }
    ),
    key!(
        "checks",
        "flap_max",
        "0",
        AT_START,
        "Falls to critical after which a check counts as flapping: it is held critical until it passed for `flap_steady`. A fall itself is never delayed. 0: never. A check's own `FlapMax`, `FlapLeak` and `FlapSteady` come first.",
        |c, v| { c.checks.flapping.max = value::number(v, 0, u64::from(u32::MAX))? as u32 }
    ),
    key!(
        "checks",
        "flap_leak",
        "\"1m\"",
        AT_START,
        "How long it takes until one fall is forgotten.",
        |c, v| { c.checks.flapping.leak = value::time(v)? }
    ),
    key!(
        "checks",
        "flap_steady",
        "\"30s\"",
        AT_START,
        "How long a flapping check must pass, without a failure, until it counts as passing.",
        |c, v| { c.checks.flapping.steady = value::time(v)? }
    ),
    key!(
        "checks",
        "cut_off_hosts",
        "3",
        AT_START,
        "Hosts that must be lost, one after another and nobody reached meanwhile, until they are most of those that were alive, for the server to take itself for cut off: then failures of the network do not count, and statuses stay. Targets on this machine are not looked at. A machine that has lost its interface or its route knows at once. 0: never.",
        |c, v| { c.checks.cut_off.hosts = value::number(v, 0, u64::from(u32::MAX))? as usize }
    ),
    key!(
        "checks",
        "cut_off_hold",
        "\"1m\"",
        AT_START,
        "How long statuses are held at most while the server takes itself for cut off.",
        |c, v| { c.checks.cut_off.hold = value::time(v)? }
    ),
    key!(
        "guard",
        "share",
        "0",
        RELOADS,
        "Percent of a service's healthy instances: when more of them become critical within `window`, DNS goes on to give them for `hold`, marked as stale (RFC 8914). HTTP shows what was found. 0: never.",
        |c, v| { c.guard.share = value::number(v, 0, 99)? as u8 }
    ),
    key!(
        "guard",
        "service_share",
        "",
        RELOADS,
        "A table of service names, or prefixes with `*`, to their own `share`.",
        |c, v| { c.guard.service_share = by_service(v, |v| Ok(value::number(v, 0, 99)? as u8))? }
    ),
    key!(
        "guard",
        "server_share",
        "0",
        RELOADS,
        "The same for the whole server: percent of all instances that are registered. 0: never.",
        |c, v| { c.guard.server_share = value::number(v, 0, 99)? as u8 }
    ),
    key!(
        "guard",
        "window",
        "\"30s\"",
        RELOADS,
        "Instances that become critical within so long count together.",
        |c, v| { c.guard.window = value::time(v)? }
    ),
    key!(
        "guard",
        "hold",
        "\"5m\"",
        RELOADS,
        "How long instances are kept at most. It ends sooner when enough are healthy again.",
        |c, v| { c.guard.hold = value::time(v)? }
    ),
    key!(
        "guard",
        "service_hold",
        "",
        RELOADS,
        "A table of service names, or prefixes with `*`, to their own `hold`.",
        |c, v| { c.guard.service_hold = by_service(v, value::time)? }
    ),
    key!(
        "guard",
        "instances_min",
        "2",
        RELOADS,
        "A service that had fewer healthy instances, or a server that has fewer registered, is not guarded: who is alone and fails is out.",
        |c, v| { c.guard.instances_min = value::count(v)? }
    ),
    key!(
        "slow_start",
        "window",
        "\"0s\"",
        RELOADS,
        "How long the weight of an instance rises to its whole, after it was registered or came back, in SRV records and in how often its address comes first. Beside others that have all of theirs; alone it makes no difference. 0s: at once.",
        |c, v| { c.slow_start.window = value::wait(v)? }
    ),
    key!(
        "slow_start",
        "service_window",
        "",
        RELOADS,
        "A table of service names, or prefixes with `*`, to their own `window`.",
        |c, v| { c.slow_start.service_window = by_service(v, value::wait)? }
    ),
    key!(
        "slow_start",
        "begin",
        "10",
        RELOADS,
        "Percent of its weight that an instance has at the beginning.",
        |c, v| { c.slow_start.begin = value::number(v, 1, 99)? as u8 }
    ),
    key!(
        "breaker",
        "window",
        "\"10s\"",
        RELOADS,
        "How far back reported requests count (`PUT /v1/rollcall/report`).",
        |c, v| { c.breaker.window.all = value::time(v)? }
    ),
    key!(
        "breaker",
        "service_window",
        "",
        RELOADS,
        "A table of service names, or prefixes with `*`, to their own `window`.",
        |c, v| { c.breaker.window.services = by_service(v, value::time)? }
    ),
    key!(
        "breaker",
        "requests",
        "10",
        RELOADS,
        "Reported requests to an instance within `window` that it takes for its circuit to open. 0: none ever opens.",
        |c, v| { c.breaker.requests.all = number(v, 0)? }
    ),
    key!(
        "breaker",
        "service_requests",
        "",
        RELOADS,
        "A table of service names, or prefixes with `*`, to their own `requests`.",
        |c, v| { c.breaker.requests.services = by_service(v, |v| number(v, 0))? }
    ),
    key!("breaker", "failing", "60", RELOADS, "Percent of them that must have failed.", |c, v| {
        c.breaker.failing.all = value::number(v, 1, 100)? as u8
    }),
    key!(
        "breaker",
        "service_failing",
        "",
        RELOADS,
        "A table of service names, or prefixes with `*`, to their own `failing`.",
        |c, v| { c.breaker.failing.services = by_service(v, |v| Ok(value::number(v, 1, 100)? as u8))? }
    ),
    key!(
        "breaker",
        "out",
        "\"10s\"",
        RELOADS,
        "How long an instance is out of DNS then. After that it is given with the lowest weight.",
        |c, v| { c.breaker.out.all = value::time(v)? }
    ),
    key!(
        "breaker",
        "service_out",
        "",
        RELOADS,
        "A table of service names, or prefixes with `*`, to their own `out`.",
        |c, v| { c.breaker.out.services = by_service(v, value::time)? }
    ),
    key!(
        "breaker",
        "trial",
        "5",
        RELOADS,
        "Requests reported from then on that decide whether it has its weight again or is out again.",
        |c, v| { c.breaker.trial.all = number(v, 1)? }
    ),
    key!(
        "breaker",
        "service_trial",
        "",
        RELOADS,
        "A table of service names, or prefixes with `*`, to their own `trial`.",
        |c, v| { c.breaker.trial.services = by_service(v, |v| number(v, 1))? }
    ),
];
