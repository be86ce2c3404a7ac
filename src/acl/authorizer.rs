//! What a set of rules comes to for one name: the exact name beats the longest prefix, and of rules that are equally
//! specific, deny beats write, and write beats read.

use std::borrow::Cow;
use std::collections::HashMap;

use super::rules::{Access, Resource, Rule, Segment};

/// All rules of one token.
#[derive(Debug, Default)]
pub struct Authorizer {
    tables: HashMap<Resource, Table>,
    /// What is allowed where no rule speaks; never the ACL itself.
    default_allow: bool,
}

/// The rules on one resource.
#[derive(Debug, Default)]
struct Table {
    single: Option<Access>,
    exact: HashMap<String, Access>,
    prefixes: HashMap<String, Access>,
    /// Octets of prefixes that there are, the longest first.
    lengths: Vec<usize>,
}

impl Authorizer {
    pub fn new<'a>(rules: impl IntoIterator<Item = &'a Rule>, default_allow: bool) -> Self {
        let mut tables: HashMap<Resource, Table> = HashMap::new();
        for Rule { resource, segment, access } in rules {
            let table = tables.entry(*resource).or_default();
            let put = |map: &mut HashMap<String, Access>, name: &String| {
                let stands = map.entry(name.clone()).or_insert(*access);
                *stands = (*stands).min(*access);
            };
            match segment {
                Segment::Single => {
                    table.single = Some(table.single.map_or(*access, |stands| stands.min(*access)))
                }
                Segment::Exact(name) => put(&mut table.exact, name),
                Segment::Prefix(name) => put(&mut table.prefixes, name),
            }
        }
        for table in tables.values_mut() {
            table.lengths = table.prefixes.keys().map(String::len).collect();
            table.lengths.sort_unstable_by(|a, b| b.cmp(a));
            table.lengths.dedup();
        }
        Self { tables, default_allow }
    }

    /// Whether something may be done to a resource, by its name; that of a single resource does not matter.
    pub fn allows(&self, resource: Resource, name: &str, wanted: Access) -> bool {
        let granted = self.tables.get(&resource).and_then(|table| table.granted(resource, name));
        match granted {
            Some(access) => access.holds(wanted),
            None => self.default_allow && resource != Resource::Acl,
        }
    }

    /// Whether something may be done to every name of a resource, whatever it is.
    pub fn allows_all(&self, resource: Resource, wanted: Access) -> bool {
        let Some(table) = self.tables.get(&resource) else { return self.default_allow };
        let empty = table.prefixes.get("").copied();
        let rest = empty.map_or(self.default_allow, |access| access.holds(wanted));
        rest && table.exact.values().chain(table.prefixes.values()).all(|access| access.holds(wanted))
    }
}

impl Table {
    fn granted(&self, resource: Resource, name: &str) -> Option<Access> {
        if resource.is_single() {
            return self.single;
        }
        let name: Cow<'_, str> = match name.bytes().any(|b| b.is_ascii_uppercase()) {
            true => name.to_ascii_lowercase().into(),
            false => name.into(),
        };
        if let Some(access) = self.exact.get(&*name) {
            return Some(*access);
        }
        self.lengths.iter().find_map(|length| self.prefixes.get(name.get(..*length)?).copied())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::rules::parse;
    use super::*;

    fn of(text: &str, default_allow: bool) -> Authorizer {
        Authorizer::new(&parse(text).unwrap(), default_allow)
    }

    #[test]
    fn the_exact_name_beats_the_longest_prefix_and_deny_beats_all() {
        let text = r#"service_prefix "" { policy = "read" } service_prefix "web" { policy = "write" }
            service "web-secret" { policy = "deny" } service_prefix "web-s" { policy = "write" } operator = "read""#;
        let both =
            of(&format!("{text} operator = \"write\" service_prefix \"web\" {{ policy = \"deny\" }}"), false);
        let one = of(text, false);
        let may = |a: &Authorizer, name: &str, access| a.allows(Resource::Service, name, access);
        assert!(may(&one, "db", Access::Read) && !may(&one, "db", Access::Write));
        assert!(may(&one, "WEB-1", Access::Write) && may(&one, "web-s1", Access::Write));
        assert!(!may(&one, "Web-Secret", Access::Read));
        assert!(!may(&both, "web-1", Access::Read) && may(&both, "web-s1", Access::Read));
        assert!(both.allows(Resource::Operator, "", Access::Write));
        assert!(!one.allows(Resource::Operator, "", Access::Write));
        assert!(
            !one.allows(Resource::Node, "n", Access::Read)
                && of("", true).allows(Resource::Node, "n", Access::Write)
        );
        assert!(!of("", true).allows(Resource::Acl, "", Access::Read), "the ACL itself is never open");
        assert!(
            !one.allows_all(Resource::Service, Access::Read)
                && of("", true).allows_all(Resource::Node, Access::Read)
        );
        assert!(of(r#"node_prefix "" { policy = "read" }"#, false).allows_all(Resource::Node, Access::Read));
    }

    /// The obvious way: every rule is looked at, the most specific one counts.
    fn plainly(rules: &[Rule], default_allow: bool, resource: Resource, name: &str, wanted: Access) -> bool {
        let mut best: Option<(usize, Access)> = None;
        for rule in rules.iter().filter(|rule| rule.resource == resource) {
            let specific = match &rule.segment {
                Segment::Single => usize::MAX,
                Segment::Exact(exact) if exact == name => usize::MAX,
                Segment::Prefix(prefix) if name.starts_with(prefix.as_str()) => prefix.len(),
                _ => continue,
            };
            let rank = |access: Access| {
                ["deny", "write", "list", "read"].iter().position(|w| Access::parse(w) == Some(access))
            };
            best = match best {
                Some((old, access))
                    if old > specific || (old == specific && rank(access) <= rank(rule.access)) =>
                {
                    Some((old, access))
                }
                _ => Some((specific, rule.access)),
            };
        }
        match (best, wanted) {
            (None, _) => default_allow && resource != Resource::Acl,
            (Some((_, Access::Deny)), _) => false,
            (Some((_, Access::Write)), _) => true,
            (Some((_, access)), wanted) => wanted == Access::Read || access == wanted,
        }
    }

    proptest! {
        #[test]
        fn says_what_the_obvious_way_says(
            rules in prop::collection::vec((0..4u8, any::<bool>(), "[ab]{0,4}", 0..3u8), 0..30),
            names in prop::collection::vec("[ab]{0,5}", 1..10),
            default_allow: bool,
        ) {
            let resources = [Resource::Service, Resource::Node, Resource::Operator, Resource::Acl];
            let granted = [Access::Deny, Access::Read, Access::Write];
            let rules: Vec<Rule> = rules.into_iter().map(|(resource, prefix, name, access)| {
                let resource = resources[usize::from(resource)];
                let segment = match (resource.is_single(), prefix) {
                    (true, _) => Segment::Single,
                    (false, true) => Segment::Prefix(name),
                    (false, false) => Segment::Exact(name),
                };
                Rule { resource, segment, access: granted[usize::from(access)] }
            }).collect();
            let authorizer = Authorizer::new(&rules, default_allow);
            for resource in resources {
                for wanted in [Access::Read, Access::Write] {
                    for name in &names {
                        let plain = plainly(&rules, default_allow, resource, name, wanted);
                        prop_assert_eq!(authorizer.allows(resource, name, wanted), plain, "{:?} {}", resource, name);
                        if !resource.is_single() && authorizer.allows_all(resource, wanted) {
                            prop_assert!(plain);
                        }
                    }
                }
            }
        }
    }
}
