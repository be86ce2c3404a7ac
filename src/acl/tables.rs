//! All tokens, policies, roles, auth methods and binding rules, as of one moment. Persistent maps: a clone is a few pointers.

use std::sync::Arc;

use arcstr::ArcStr;
use imbl::OrdMap;
use uuid::Uuid;

use super::rules::{self, Rule};
use super::{
    ANONYMOUS, ANONYMOUS_SECRET, Authorizer, Config, GLOBAL_MANAGEMENT, GLOBAL_READ_ONLY, INITIAL, View,
};
use crate::model::acl::{AuthMethod, BindingRule, Digest, Grants, Policy, Role, Token};
use crate::model::{Acl, AclKey, AclKind, Secret};

/// A record and the indexes at which it was made and last changed.
#[derive(Debug)]
pub struct Entry<T> {
    pub value: Arc<T>,
    pub create_index: u64,
    pub modify_index: u64,
}

impl<T> Clone for Entry<T> {
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), create_index: self.create_index, modify_index: self.modify_index }
    }
}

/// A policy, and its rules as they were read.
#[derive(Debug, Clone)]
pub struct PolicyEntry {
    pub entry: Entry<Policy>,
    rules: Arc<[Rule]>,
}

#[derive(Clone)]
pub struct Tables {
    /// Of the last change.
    index: u64,
    tokens: OrdMap<Uuid, Entry<Token>>,
    secrets: OrdMap<Digest, Uuid>,
    policies: OrdMap<Uuid, PolicyEntry>,
    roles: OrdMap<Uuid, Entry<Role>>,
    methods: OrdMap<String, Entry<AuthMethod>>,
    rules: OrdMap<Uuid, Entry<BindingRule>>,
    own: OrdMap<ArcStr, Entry<Secret>>,
    bootstrapped: Option<u64>,
}

/// Everything, for those who manage.
const MANAGEMENT_RULES: &str = r#"acl = "write"
agent_prefix "" { policy = "write" }
event_prefix "" { policy = "write" }
key_prefix "" { policy = "write" }
keyring = "write"
mesh = "write"
node_prefix "" { policy = "write" }
operator = "write"
peering = "write"
query_prefix "" { policy = "write" }
service_prefix "" { policy = "write" intentions = "write" }
session_prefix "" { policy = "write" }
"#;

impl Default for Tables {
    fn default() -> Self {
        let mut tables = Self {
            index: 0,
            tokens: OrdMap::new(),
            secrets: OrdMap::new(),
            policies: OrdMap::new(),
            roles: OrdMap::new(),
            methods: OrdMap::new(),
            rules: OrdMap::new(),
            own: OrdMap::new(),
            bootstrapped: None,
        };
        let read_only = MANAGEMENT_RULES.replace("\"write\"", "\"read\"");
        for (id, name, description, rules) in [
            (
                GLOBAL_MANAGEMENT,
                "global-management",
                "Builtin Policy that grants unlimited access",
                MANAGEMENT_RULES,
            ),
            (
                GLOBAL_READ_ONLY,
                "builtin/global-read-only",
                "Builtin Policy that grants unlimited read-only access to all components",
                &read_only,
            ),
        ] {
            tables.put_policy(
                1,
                &Arc::new(Policy {
                    id,
                    name: name.to_owned(),
                    description: description.to_owned(),
                    rules: rules.to_owned(),
                    datacenters: Vec::new(),
                }),
            );
        }
        tables.index = 0;
        let anonymous = Token {
            accessor: ANONYMOUS,
            secret: Secret::new(ANONYMOUS_SECRET),
            description: "Anonymous Token".to_owned(),
            grants: Grants::default(),
            local: false,
            method: None,
            expires: None,
            created: 0,
        };
        tables.put_token(1, &Arc::new(anonymous));
        tables.index = 0;
        tables
    }
}

impl Tables {
    /// Of the last change; 0 where there never was one.
    pub fn index(&self) -> u64 {
        self.index
    }

    pub fn tokens(&self) -> impl ExactSizeIterator<Item = &Entry<Token>> {
        self.tokens.values()
    }

    pub fn token(&self, accessor: Uuid) -> Option<&Entry<Token>> {
        self.tokens.get(&accessor)
    }

    /// The token of a secret: found by its hash, compared in constant time.
    pub fn token_of(&self, secret: &str) -> Option<&Entry<Token>> {
        let accessor = self.secrets.get(&Secret::digest(secret))?;
        self.tokens.get(accessor).filter(|entry| entry.value.secret.is(secret))
    }

    pub fn policies(&self) -> impl ExactSizeIterator<Item = &Entry<Policy>> {
        self.policies.values().map(|policy| &policy.entry)
    }

    pub fn policy(&self, id: Uuid) -> Option<&Entry<Policy>> {
        self.policies.get(&id).map(|policy| &policy.entry)
    }

    pub fn policy_named(&self, name: &str) -> Option<&Entry<Policy>> {
        self.policies().find(|entry| entry.value.name.eq_ignore_ascii_case(name))
    }

    pub fn roles(&self) -> impl ExactSizeIterator<Item = &Entry<Role>> {
        self.roles.values()
    }

    pub fn role(&self, id: Uuid) -> Option<&Entry<Role>> {
        self.roles.get(&id)
    }

    pub fn role_named(&self, name: &str) -> Option<&Entry<Role>> {
        self.roles().find(|entry| entry.value.name.eq_ignore_ascii_case(name))
    }

    pub fn methods(&self) -> impl ExactSizeIterator<Item = &Entry<AuthMethod>> {
        self.methods.values()
    }

    pub fn method(&self, name: &str) -> Option<&Entry<AuthMethod>> {
        self.methods.get(name)
    }

    pub fn rules(&self) -> impl ExactSizeIterator<Item = &Entry<BindingRule>> {
        self.rules.values()
    }

    pub fn rule(&self, id: Uuid) -> Option<&Entry<BindingRule>> {
        self.rules.get(&id)
    }

    /// What was set for the server itself at run time.
    pub fn own(&self, name: &str) -> Option<&Secret> {
        self.own.get(name).map(|entry| &*entry.value)
    }

    /// The index at which the first management token was given away.
    pub fn bootstrapped(&self) -> Option<u64> {
        self.bootstrapped
    }

    /// How many records there are, those that are always there included.
    pub fn len(&self) -> usize {
        self.tokens.len() + self.policies.len() + self.roles.len() + self.methods.len() + self.rules.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Applies a record as the change of this index.
    pub fn put(&mut self, index: u64, record: &Acl) {
        self.load(record, None, index);
    }

    /// Takes a record from the store, with its indexes.
    pub fn load(&mut self, record: &Acl, create_index: Option<u64>, index: u64) {
        self.index = self.index.max(index);
        match record {
            Acl::Token(token) => self.put_token(index, token),
            Acl::Policy(policy) => self.put_policy(index, policy),
            Acl::Role(role) => put(&mut self.roles, role.id, role.clone(), index),
            Acl::Method(method) => put(&mut self.methods, method.name.clone(), method.clone(), index),
            Acl::Rule(rule) => put(&mut self.rules, rule.id, rule.clone(), index),
            Acl::Bootstrapped => self.bootstrapped = Some(index),
            Acl::Own { name, secret } => put(&mut self.own, name.clone(), Arc::new(secret.clone()), index),
        }
        let Some(made) = create_index else { return };
        match record {
            Acl::Token(token) => made_at(self.tokens.get_mut(&token.accessor), made),
            Acl::Policy(policy) => {
                made_at(self.policies.get_mut(&policy.id).map(|policy| &mut policy.entry), made);
            }
            Acl::Role(role) => made_at(self.roles.get_mut(&role.id), made),
            Acl::Method(method) => made_at(self.methods.get_mut(&method.name), made),
            Acl::Rule(rule) => made_at(self.rules.get_mut(&rule.id), made),
            Acl::Bootstrapped | Acl::Own { .. } => {}
        }
    }

    fn put_token(&mut self, index: u64, token: &Arc<Token>) {
        if let Some(old) = self.tokens.get(&token.accessor) {
            self.secrets.remove(&Secret::digest(old.value.secret.reveal()));
        }
        self.secrets.insert(Secret::digest(token.secret.reveal()), token.accessor);
        put(&mut self.tokens, token.accessor, token.clone(), index);
    }

    /// Rules were read before they were taken; what cannot be read grants nothing, and denies.
    fn put_policy(&mut self, index: u64, policy: &Arc<Policy>) {
        let rules = rules::parse(&policy.rules).unwrap_or_else(|_| denials()).into();
        let create_index = self.policies.get(&policy.id).map_or(index, |old| old.entry.create_index);
        let entry = Entry { value: policy.clone(), create_index, modify_index: index };
        self.policies.insert(policy.id, PolicyEntry { entry, rules });
    }

    pub fn remove(&mut self, index: u64, key: &AclKey) {
        self.index = index;
        let id = Uuid::parse_str(&key.id).unwrap_or_default();
        match key.kind {
            AclKind::Token => {
                if let Some(old) = self.tokens.remove(&id) {
                    self.secrets.remove(&Secret::digest(old.value.secret.reveal()));
                }
            }
            AclKind::Policy => drop(self.policies.remove(&id)),
            AclKind::Role => drop(self.roles.remove(&id)),
            AclKind::Method => drop(self.methods.remove(key.id.as_str())),
            AclKind::Rule => drop(self.rules.remove(&id)),
            AclKind::Bootstrapped => self.bootstrapped = None,
            AclKind::Own => drop(self.own.remove(&key.id)),
        }
    }

    /// All that has to be kept, with the indexes of its making and its last change.
    pub fn stored(&self) -> Vec<(Acl, u64, u64)> {
        let mut all = Vec::new();
        let mut add = |record, made, changed| all.push((record, made, changed));
        let changed = |index: u64| index > 1;
        for e in self.tokens().filter(|e| e.value.accessor != ANONYMOUS || changed(e.modify_index)) {
            add(Acl::Token(e.value.clone()), e.create_index, e.modify_index);
        }
        for e in self.policies().filter(|e| !is_builtin(e.value.id)) {
            add(Acl::Policy(e.value.clone()), e.create_index, e.modify_index);
        }
        self.roles().for_each(|e| add(Acl::Role(e.value.clone()), e.create_index, e.modify_index));
        self.methods().for_each(|e| add(Acl::Method(e.value.clone()), e.create_index, e.modify_index));
        self.rules().for_each(|e| add(Acl::Rule(e.value.clone()), e.create_index, e.modify_index));
        for (name, e) in &self.own {
            let own = Acl::Own { name: name.clone(), secret: Secret::clone(&e.value) };
            add(own, e.create_index, e.modify_index);
        }
        if let Some(index) = self.bootstrapped {
            add(Acl::Bootstrapped, index, index);
        }
        all
    }

    /// What the bearer of a secret may do, in a datacenter; `None` where nobody has it.
    pub fn view(&self, secret: &str, config: &Config, datacenter: &str) -> Option<View> {
        if let Some(initial) = &config.initial_management
            && initial.is(secret)
        {
            let management = self.policies.get(&GLOBAL_MANAGEMENT)?;
            return Some(View::new(Authorizer::new(&*management.rules, config.default_allow), INITIAL, None));
        }
        let token = &self.token_of(secret)?.value;
        let rules = self.rules_of(&token.grants, datacenter);
        let authorizer = Authorizer::new(&rules, config.default_allow);
        Some(View::new(authorizer, token.accessor, token.expires))
    }

    /// All rules that grants come to. Policies and roles that were removed since grant nothing.
    fn rules_of(&self, grants: &Grants, datacenter: &str) -> Vec<Rule> {
        let mut rules = Vec::new();
        self.add_rules(grants, datacenter, &mut rules);
        for role in grants.roles.iter().filter_map(|id| self.roles.get(id)) {
            self.add_rules(&role.value.grants, datacenter, &mut rules);
        }
        rules
    }

    fn add_rules(&self, grants: &Grants, datacenter: &str, rules: &mut Vec<Rule>) {
        let here =
            |all: &[String]| all.is_empty() || all.iter().any(|dc| dc.eq_ignore_ascii_case(datacenter));
        for policy in grants.policies.iter().filter_map(|id| self.policies.get(id)) {
            if here(&policy.entry.value.datacenters) {
                rules.extend_from_slice(&policy.rules);
            }
        }
        for service in grants.services.iter().filter(|service| here(&service.datacenters)) {
            rules.extend(read(&super::service_rules(&service.name)));
        }
        for node in grants.nodes.iter().filter(|node| node.datacenter.eq_ignore_ascii_case(datacenter)) {
            rules.extend(read(&super::node_rules(&node.name)));
        }
    }
}

fn read(text: &str) -> Vec<Rule> {
    rules::parse(text).unwrap_or_else(|_| denials())
}

fn denials() -> Vec<Rule> {
    read(&MANAGEMENT_RULES.replace("\"write\"", "\"deny\""))
}

/// Whether a policy is always there.
pub(super) fn is_builtin(id: Uuid) -> bool {
    [GLOBAL_MANAGEMENT, GLOBAL_READ_ONLY].contains(&id)
}

fn put<K: Ord + Clone, T>(map: &mut OrdMap<K, Entry<T>>, key: K, value: Arc<T>, index: u64) {
    let create_index = map.get(&key).map_or(index, |old| old.create_index);
    map.insert(key, Entry { value, create_index, modify_index: index });
}

fn made_at<T>(entry: Option<&mut Entry<T>>, index: u64) {
    if let Some(entry) = entry {
        entry.create_index = index;
    }
}
