//! The keys of `[limits]`: how far what others can make grow may grow.

use super::{AT_START, Key, RELOADS};
use crate::config::value;

pub(super) const KEYS: &[Key] = &[
    key!("limits", "nodes_max", "100000", RELOADS, "Nodes.", |c, v| c.limits.nodes_max = value::count(v)?),
    key!("limits", "reports_max", "1000", RELOADS, "Reports in one `PUT /v1/rollcall/report`.", |c, v| {
        c.limits.reports_max = value::count(v)?
    }),
    key!("limits", "report_requests_max", "1000000", RELOADS, "Requests that one report counts.", |c, v| {
        c.limits.report_requests_max = value::count(v)? as u64
    }),
    key!(
        "limits",
        "reporters_max",
        "100000",
        RELOADS,
        "Pairs of an instance and who reported on it within the window that are remembered; more are refused.",
        |c, v| { c.limits.reporters_max = value::count(v)? }
    ),
    key!("limits", "instances_max", "1000000", RELOADS, "Instances of all services.", |c, v| c
        .limits
        .instances_max =
        value::count(v)?),
    key!("limits", "checks_max", "2000000", RELOADS, "Checks.", |c, v| c.limits.checks_max =
        value::count(v)?),
    key!(
        "limits",
        "checks_per_instance_max",
        "64",
        RELOADS,
        "Checks of one instance, or of one node itself.",
        |c, v| { c.limits.checks_per_instance_max = value::count(v)? }
    ),
    key!("limits", "tags_max", "64", RELOADS, "Tags of one instance.", |c, v| c.limits.tags_max =
        value::count(v)?),
    key!("limits", "tag_octets_max", "255", RELOADS, "Octets of one tag.", |c, v| c.limits.tag_octets_max =
        value::count(v)?),
    key!("limits", "meta_pairs_max", "64", RELOADS, "Meta pairs of one node or instance.", |c, v| c
        .limits
        .meta_pairs_max =
        value::count(v)?),
    key!("limits", "meta_key_octets_max", "128", RELOADS, "Octets of a meta key.", |c, v| c
        .limits
        .meta_key_octets_max =
        value::count(v)?),
    key!("limits", "meta_value_octets_max", "512", RELOADS, "Octets of a meta value.", |c, v| c
        .limits
        .meta_value_octets_max =
        value::count(v)?),
    key!("limits", "tagged_addresses_max", "16", RELOADS, "Tagged addresses of one instance.", |c, v| c
        .limits
        .tagged_addresses_max =
        value::count(v)?),
    key!(
        "limits",
        "definition_octets_max",
        "131072",
        RELOADS,
        "Octets of one definition (a node, an instance, a check or a prepared query) as it is stored: what no limit of its own bounds.",
        |c, v| c.limits.definition_octets_max = value::count(v)?
    ),
    key!("limits", "queries_max", "8192", RELOADS, "Prepared queries.", |c, v| c.limits.queries_max =
        value::count(v)?),
    key!("limits", "routes_max", "10000", RELOADS, "Routes of services.", |c, v| c.limits.routes_max =
        value::count(v)?),
    key!(
        "limits",
        "query_regexp_octets_max",
        "262144",
        RELOADS,
        "Memory that the regular expression of one prepared query template may take, once compiled.",
        |c, v| c.limits.query_regexp_octets_max = value::count(v)?
    ),
    key!(
        "limits",
        "acl_entries_max",
        "100000",
        RELOADS,
        "Tokens, policies, roles, auth methods and binding rules together.",
        |c, v| c.limits.acl_entries_max = value::count(v)?
    ),
    key!("limits", "watchers_max", "16384", AT_START, "Blocking queries that wait at once.", |c, v| c
        .limits
        .watchers_max =
        value::count(v)?),
    key!("limits", "queue_max", "4096", AT_START, "Requests that wait for the writer.", |c, v| c
        .limits
        .queue_max =
        value::count(v)?),
    key!("limits", "filter_octets_max", "16384", RELOADS, "Octets of a `?filter=` expression.", |c, v| c
        .filter
        .octets_max =
        value::count(v)?),
    key!(
        "limits",
        "filter_matches_max",
        "256",
        RELOADS,
        "Comparisons in a `?filter=` expression.",
        |c, v| c.filter.matches_max = value::count(v)?
    ),
    key!("limits", "commits_waiting_max", "4096", RELOADS, "Changes that wait for the disk.", |c, v| c
        .limits
        .commits_waiting_max =
        value::count(v)?),
    key!(
        "limits",
        "history_max",
        "20000",
        RELOADS,
        "Changes kept for `rollcall history`; 0: none.",
        |c, v| c.limits.history_max = value::count_or_none(v)?
    ),
    key!("limits", "history_per_service_max", "200", RELOADS, "Of them, of one service.", |c, v| c
        .limits
        .history_per_service_max =
        value::count(v)?),
    key!(
        "limits",
        "backups_max",
        "4",
        RELOADS,
        "Backups at once; each has a thread while it is read.",
        |c, v| c.http.backups_max = value::count(v)?
    ),
    key!(
        "limits",
        "requests_per_client_max",
        "0",
        RELOADS,
        "HTTP requests a second from one address (of IPv6, one /64), as many at once; those beyond are 429 with `Retry-After`. 0: no limit. `/health`, `/ready` and Unix sockets have none.",
        |c, v| c.http.requests_per_client_max = value::count_or_none(v)?
    ),
    key!("limits", "streams_max", "1024", RELOADS, "Clients of the stream of changes at once.", |c, v| c
        .http
        .streams_max =
        value::count(v)?),
    key!("limits", "drains_max", "256", RELOADS, "Drains that wait at once.", |c, v| c.http.drains_max =
        value::count(v)?),
    key!(
        "limits",
        "events_max",
        "65536",
        RELOADS,
        "Changes that are kept for clients of the stream that come back; who was away for longer is told to read anew.",
        |c, v| c.http.events_max = value::count(v)?
    ),
    key!(
        "limits",
        "audit_lines_max",
        "8192",
        AT_START,
        "Lines of the audit log that wait for the disk; those beyond are lost and counted.",
        |c, v| c.audit.lines_max = value::count(v)?
    ),
    key!(
        "limits",
        "trace_spans_max",
        "4096",
        AT_START,
        "Spans that wait to be sent to the collector; those beyond are dropped and counted.",
        |c, v| c.otlp.spans_max = value::count(v)?
    ),
    key!(
        "limits",
        "traces_per_second_max",
        "100",
        RELOADS,
        "Traces that begin here in a second and are recorded; of those beyond, which are counted, nothing is recorded. 0 is no bound. Traces of callers are theirs.",
        |c, v| c.otlp.sampling.per_second = value::number(v, 0, u32::MAX.into())? as u32
    ),
    key!("limits", "monitors_max", "16", RELOADS, "Clients that follow the log at once.", |c, v| c
        .http
        .monitors_max =
        value::count(v)?),
    key!(
        "limits",
        "monitor_lines_max",
        "512",
        RELOADS,
        "Log lines that wait for a client that follows the log; those beyond are counted, and it is told.",
        |c, v| c.http.monitor_lines_max = value::count(v)?
    ),
];
