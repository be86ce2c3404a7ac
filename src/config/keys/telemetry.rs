//! Keys of `[telemetry]` and `[audit]`.

use super::{AT_START, Key, RELOADS};
use crate::config::value;
use crate::telemetry::logs;

pub(super) const KEYS: &[Key] = &[
    key!(
        "telemetry",
        "log_level",
        "\"info\"",
        RELOADS,
        "`error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,rollcall::dns=debug`. \
         `rollcall::http::request_log=debug` writes a line for each HTTP request, `rollcall::dns::query_log=trace` for each query.",
        |c, v| { c.log.level = logs::level(value::text(v)?)? }
    ),
    key!(
        "telemetry",
        "log_format",
        "\"auto\"",
        AT_START,
        "`human`, `json`, or `auto`: human on a terminal, else JSON.",
        |c, v| { c.log.format = logs::Format::parse(value::text(v)?)? }
    ),
    key!(
        "audit",
        "file",
        "",
        AT_START,
        "The audit log: a line of JSON for each change and each refused request. Made with mode 0600, appended to, opened anew at a reload. Default: none is kept.",
        |c, v| { c.audit.file = Some(value::text(v)?.into()) }
    ),
    key!(
        "audit",
        "max_size",
        "\"64MiB\"",
        AT_START,
        "Octets at which a new file begins; the old one becomes `<file>.1`.",
        |c, v| { c.audit.octets_max = value::octets(v)? }
    ),
    key!(
        "audit",
        "files",
        "8",
        AT_START,
        "Files that are kept, with the one that is written; the oldest goes.",
        |c, v| { c.audit.files_max = value::count(v)? }
    ),
];
