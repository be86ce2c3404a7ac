//! The vocabulary: nodes, instances, checks, and the changes that happen to them.
//!
//! Everything here is a plain value. Names are parsed once, at the door, and carry the proof in their
//! type; no other room is known from here. Consul's JSON lives in `http`, the stored form in
//! [`change`], DNS bytes in `dns`.

pub mod acl;
pub mod address;
pub mod change;
pub mod check;
pub mod duration;
pub mod instance;
pub mod name;
pub mod node;
pub mod packed;
pub mod private;
pub mod query;
pub mod route;
pub mod targets;
pub mod template;

pub use acl::{Acl, AclKey, AclKind, Secret};
pub use address::Address;
pub use change::{Change, CheckKey, Definition, Key, Maintenance, Observation, Record};
pub use check::{Check, CheckKind, Damping, ProbeTls, Status, Terms};
pub use instance::{Extras, Instance, Locality, Origin, Seldom, TaggedAddress, Weights};
pub use name::{CheckId, InstanceId, NameError, NodeName, ServiceName};
pub use node::Node;
pub use packed::{Pairs, Texts};
pub use query::PreparedQuery;
pub use route::Route;
pub use targets::Targets;
pub use template::{Template, TemplateError};
