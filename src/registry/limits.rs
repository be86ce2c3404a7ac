//! What a client can make grow, and how far.

/// Bounds on the registry. Each is a refusal with its name and a counted metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    pub nodes_max: usize,
    pub instances_max: usize,
    pub checks_max: usize,
    /// Checks of one instance, or of one node itself.
    pub checks_per_instance_max: usize,
    pub tags_max: usize,
    pub tag_octets_max: usize,
    /// Meta pairs of one node or instance; Consul's bound.
    pub meta_pairs_max: usize,
    pub meta_key_octets_max: usize,
    pub meta_value_octets_max: usize,
    pub tagged_addresses_max: usize,
    /// Octets of one definition (a node, an instance, a check or a prepared query) as it is stored: what no limit of its own bounds.
    pub definition_octets_max: usize,
    /// Tokens, policies, roles, auth methods and binding rules.
    pub acl_entries_max: usize,
    /// Prepared queries.
    pub queries_max: usize,
    /// Routes of services.
    pub routes_max: usize,
    /// Memory that one template's regular expression may take.
    pub query_regexp_octets_max: usize,
    /// Changes that are kept for those who ask what became of a service, in all and of one; none are kept where it is 0.
    pub history_max: usize,
    pub history_per_service_max: usize,
    /// Reports in one request, requests that one report counts, and pairs of an instance and who reports on it.
    pub reports_max: usize,
    pub report_requests_max: u64,
    pub reporters_max: usize,
    /// Blocking queries that wait at once.
    pub watchers_max: usize,
    /// Requests that wait for the writer.
    pub queue_max: usize,
    /// Proposals that wait for the disk.
    pub commits_waiting_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            nodes_max: 100_000,
            instances_max: 1_000_000,
            checks_max: 2_000_000,
            checks_per_instance_max: 64,
            tags_max: 64,
            tag_octets_max: 255,
            meta_pairs_max: 64,
            meta_key_octets_max: 128,
            meta_value_octets_max: 512,
            tagged_addresses_max: 16,
            definition_octets_max: 131_072,
            acl_entries_max: 100_000,
            queries_max: 8_192,
            routes_max: 10_000,
            query_regexp_octets_max: 262_144,
            history_max: 20_000,
            history_per_service_max: 200,
            reports_max: 1_000,
            report_requests_max: 1_000_000,
            reporters_max: 100_000,
            watchers_max: 16_384,
            queue_max: 4_096,
            commits_waiting_max: 4_096,
        }
    }
}
