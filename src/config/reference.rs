//! The reference of all keys, printed from the table that files are read by.

use super::keys;

const HEAD: &str = "# Configuration

One or more files (`--config FILE`, again for more; a directory stands for its `*.toml` files, and Consul's `*.json`, in the order
of their names). A later file's key replaces an earlier one's; services and zones add up. Flags beat the environment
(`ROLLCALL_HTTP`, `ROLLCALL_DNS`, `ROLLCALL_DATA_DIR`, ...; see `rollcall serve --help`), and that beats the files.
`rollcall check-config FILE` shows every error at once. Unknown keys are errors.

SIGHUP reads the files again, all or nothing: a bad file leaves the running state as it was and says why. Keys marked
*reload* take effect then, the others at the next start. Services, zones and their files are read again too.

This page is printed from the code (`rollcall check-config --reference`) and compared with it by a test.
";

const TAIL: &str = "
## `[[service]]`

A definition owned by the file: one instance on this machine, with Consul's keys in snake_case (or as its API spells them).
It cannot be changed over HTTP; it goes when it leaves the file. `[service]`, `[[services]]`, `[check]` and `[[checks]]` are read too,
as Consul names them: a check on its own is of this machine, or of the service whose id its `service_id` names. An id that is
defined twice is an error that names both places.

```toml
[[service]]
name = \"db\"                        # all of Consul's: id, tags, address, port, meta, weights, check, checks, ...
port = 5432
tags = [\"primary\"]

[service.check]
tcp = \"127.0.0.1:5432\"
interval = \"5s\"

[[check]]
name = \"replication\"
service_id = \"db\"
ttl = \"30s\"
```

## Consul's own files

A `*.json` file is one of Consul's: `service`, `services`, `check` and `checks` are read as above, `node_name`, `node_id`, `node_meta` and
`datacenter` mean what they mean here. Other keys of Consul's agent are passed over, and named in a warning with the key to write here;
but what keeps somebody out there (`acl`, `tls`, `verify_incoming`, `http_config`, a closed port, ...) is an error, since without
it more would be open here. HCL is not read: a directory that has `*.hcl` files is refused.

## `[[zone]]`

Static authoritative records from a master file (RFC 1035). A relative file is looked for beside the configuration
file. Two zones, or a zone and a live domain, cannot have the same name, nor may a zone lie above or below a live domain.

```toml
[[zone]]
name = \"example.test\"
file = \"zones/example.test.zone\"
```
";

/// `docs/configuration.md`.
pub fn markdown() -> String {
    let mut page = HEAD.to_owned();
    let mut table = None;
    for key in keys::all() {
        if table != Some(key.table) {
            table = Some(key.table);
            let title =
                if key.table.is_empty() { "Top level".to_owned() } else { format!("`[{}]`", key.table) };
            page += &format!("\n## {title}\n\n| key | default | | meaning |\n|---|---|---|---|\n");
        }
        let default = if key.default.is_empty() { String::new() } else { format!("`{}`", key.default) };
        let reload = if key.reloads { "*reload*" } else { "" };
        page += &format!("| `{}` | {default} | {reload} | {} |\n", key.name, key.help);
    }
    page + TAIL
}
