//! What can be asked of the registry, and how it refuses.

use std::net::IpAddr;
use std::sync::Arc;

use arcstr::ArcStr;
use uuid::Uuid;

use crate::acl::Denied;
use crate::model::acl::Token;
use crate::model::route::{Guard, Subset};
use crate::model::{
    Acl, AclKey, Check, CheckId, Instance, InstanceId, Maintenance, Node, NodeName, PreparedQuery, Route,
    ServiceName, Status, TemplateError,
};

/// Who asks, through the agent API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The node that the caller acts for.
    pub node: NodeName,
    /// The caller's address: that of its node, if the node has to be made. `None` for our own node.
    pub address: Option<IpAddr>,
    /// The request names the node: what is elsewhere is not meant.
    pub named: bool,
}

impl Caller {
    /// Whether the node has the name that a call from another machine gets where it names none: that of its address.
    pub(super) fn is_its_address(&self) -> bool {
        let other = self.address.filter(|address| !address.is_loopback());
        other.is_some_and(|address| self.node.folded() == address.to_string())
    }
}

/// A request to change something.
#[derive(Debug, Clone)]
pub enum Command {
    /// Puts an instance and its checks. Checks that are not named stay unless `replace_checks`. Every value's `node` is
    /// the caller's.
    RegisterInstance {
        caller: Caller,
        instance: Instance,
        checks: Vec<Check>,
        replace_checks: bool,
    },
    /// Removes an instance and its checks: the caller's, else the only one of that id elsewhere.
    DeregisterInstance {
        caller: Caller,
        id: InstanceId,
    },
    /// Puts one check, of an instance (`check.instance`) or of the caller's node.
    RegisterCheck {
        caller: Caller,
        check: Check,
    },
    DeregisterCheck {
        caller: Caller,
        id: CheckId,
    },
    /// Sets (`Some` reason) or ends maintenance of an instance, or of the caller's node.
    Maintain {
        caller: Caller,
        instance: Option<InstanceId>,
        reason: Option<ArcStr>,
    },
    /// A client's word on its TTL check; restarts its timer.
    UpdateTtl {
        caller: Caller,
        id: CheckId,
        status: Status,
        output: Arc<str>,
    },
    /// The catalog API: puts a node (unless `skip_node`), an instance, and checks with the status that they have now,
    /// which counts where nobody here probes.
    CatalogRegister {
        node: Node,
        skip_node: bool,
        instance: Option<Instance>,
        checks: Vec<Seen>,
    },
    /// The catalog API: removes an instance, a check, or (neither named) a node with all it has. What is unknown is no
    /// error.
    CatalogDeregister {
        node: NodeName,
        instance: Option<InstanceId>,
        check: Option<CheckId>,
    },
    /// Makes a prepared query, or (not `new`) replaces the one of its id.
    PutQuery {
        query: PreparedQuery,
        new: bool,
    },
    RemoveQuery {
        id: Uuid,
    },
    /// Changes the route of a service.
    Route {
        service: ServiceName,
        steer: Steer,
    },
    /// What an export or another registry has.
    Import(Brought),
    /// The definitions that the configuration file owns, all of them; those of an earlier file go. Not stored.
    SetFileDefinitions {
        instances: Vec<Instance>,
        checks: Vec<Check>,
    },
    /// Tokens, policies and what belongs to them.
    Acl(AclCommand),
}

/// A change of access control.
#[derive(Debug, Clone)]
pub enum AclCommand {
    /// The first management token; given away once.
    Bootstrap { token: Arc<Token> },
    /// A new record, or (unless `create`) another form of one that is there.
    Put { record: Acl, create: bool },
    /// What is not there is no error.
    Remove(AclKey),
}

/// A change of a route. Each is a new version.
#[derive(Debug, Clone)]
pub enum Steer {
    /// Takes `over` milliseconds from the shares of now to these.
    Set { subsets: Vec<Subset>, strict: bool, over: u64, guard: Option<Guard> },
    /// The former version again.
    Undo { why: Option<String> },
    /// All instances answer.
    Clear,
    /// A route as another server had it.
    Bring(Box<Route>),
}

/// A part of an import: a node, an instance of it, checks and words of maintenance that are all of that instance, or all of the
/// node itself. What is here already stays as it is where it is the same; an instance that its own program registered with
/// us stays where the import has it from a catalog.
#[derive(Debug, Clone, Default)]
pub struct Brought {
    pub node: Option<Node>,
    pub instance: Option<Instance>,
    pub checks: Vec<Seen>,
    pub maintenance: Vec<Maintenance>,
}

/// A check, and how it stood where it comes from: for one that is new here, or whose status always comes from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub check: Check,
    pub status: Status,
    pub output: Arc<str>,
}

/// Why a command changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Text as Consul's.
    #[error("Unknown service ID {0:?}. Ensure that the service ID is passed, not the service name.")]
    UnknownInstance(String),
    #[error("Unknown check ID {0:?}. Ensure that the check ID is passed, not the check name.")]
    UnknownCheck(String),
    /// A check names an instance that is not there.
    #[error("ServiceID {0:?} does not exist")]
    NoSuchInstance(String),
    #[error("CheckID {0:?} does not have associated TTL")]
    NotTtl(String),
    /// The request has named the node.
    #[error("node {node:?} has no {kind} ID {id:?}")]
    NotThere { kind: &'static str, id: String, node: String },
    #[error("{kind} ID {id:?} is registered on several nodes ({nodes}); name one with ?node= (--node)")]
    Ambiguous { kind: &'static str, id: String, nodes: String },
    #[error("{kind} ID {id:?} is defined in the configuration file; change it there and reload the server")]
    FileOwned { kind: &'static str, id: String },
    #[error("{kind} ID {id:?} is this server's own, and no request changes it")]
    Ours { kind: &'static str, id: String },
    /// Whoever asks may not. Text as Consul's.
    #[error("{0}")]
    Denied(Denied),
    /// Whoever asks may neither change nor read it: what is said of what is not there.
    #[error("{0}")]
    Hidden(Box<Self>),
    /// A catalog request with `SkipNodeUpdate` for a node that is not there.
    #[error("node {0:?} does not exist; register it with its address first")]
    UnknownNode(String),
    /// Text as Consul's.
    #[error("Permission denied: ACL bootstrap no longer allowed (reset index: {0})")]
    Bootstrapped(u64),
    #[error("Unknown service {0:?}")]
    UnknownService(String),
    #[error("service {0:?} has no route, and had none")]
    NoRoute(String),
    #[error("Invalid route: {0}")]
    Route(String),
    /// Right as it is written, and not as things stand.
    #[error("{0}")]
    RouteNow(String),
    #[error("{0}")]
    AclInvalid(String),
    #[error("{0}")]
    AclNotFound(String),
    #[error("Cannot modify non-existent prepared query: '{0}'")]
    UnknownQuery(Uuid),
    /// Another prepared query is found under that name.
    #[error("raft apply failed: name '{name}' aliases an existing query {what}")]
    QueryName { name: String, what: &'static str },
    #[error("raft apply failed: a query template with an empty name already exists")]
    QueryOfAll,
    #[error("raft apply failed: {0}")]
    Template(#[from] TemplateError),
    #[error("{what} {count}: at most {max} are allowed ([limits] {key})")]
    Limit { what: String, count: usize, max: usize, key: &'static str },
    #[error("{max} requests are waiting to be stored already; try again ([limits] queue_max)")]
    Busy { max: usize },
    #[error("{max} blocking queries are waiting already; try again later ([limits] watchers_max)")]
    TooManyWatchers { max: usize },
    /// The store cannot take definitions now.
    #[error("cannot store the change: {0}")]
    Unavailable(Arc<str>),
}

impl From<Denied> for Refused {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}
