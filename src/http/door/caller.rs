//! Whose node a call to the agent API acts for.
//!
//! Consul runs an agent on each machine; here many machines share one server. A call from this
//! machine acts for our own node. One from another address acts for that machine: the node named by
//! `?node=`, else the node named as the address, made on first use with that address. So the
//! same program on ten hosts, each registering `web-8080`, gives ten instances. Over a Unix socket it is always
//! this machine that calls.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;

use crate::http::State;
use crate::http::error::Error;
use crate::http::query::Params;
use crate::model::NodeName;
use crate::registry::Caller;

/// The two ends of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    pub remote: SocketAddr,
    pub local: SocketAddr,
    pub over: Over,
}

/// What a connection is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    Tcp,
    Tls,
    /// A file of this machine; both ends are loopback.
    Unix,
}

impl Peer {
    /// Whether the other end is this machine: loopback, or an address of ours calling itself.
    pub fn is_here(&self) -> bool {
        let (remote, local) = (self.remote.ip().to_canonical(), self.local.ip().to_canonical());
        remote.is_loopback() || remote == local
    }

    /// The other end's address; IPv4 also when it came over IPv6.
    pub fn address(&self) -> IpAddr {
        self.remote.ip().to_canonical()
    }
}

/// The caller's node, and whether it is this machine.
#[derive(Debug, Clone)]
pub(in crate::http) struct Whose {
    pub(in crate::http) caller: Caller,
    pub(in crate::http) here: bool,
}

impl FromRequestParts<Arc<State>> for Whose {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<State>) -> Result<Self, Error> {
        let ConnectInfo(peer) = ConnectInfo::<Peer>::from_request_parts(parts, state)
            .await
            .map_err(|_| Error::server("the connection has no peer"))?;
        let named = Params::from_request_parts(parts, state).await?;
        let named = named.get("node").filter(|name| !name.is_empty());
        whose(peer, named, &state.config.load().node)
    }
}

fn whose(peer: Peer, named: Option<&str>, own: &NodeName) -> Result<Whose, Error> {
    let here = peer.is_here();
    let node = match named {
        Some(name) => NodeName::parse(name)?,
        None if here => own.clone(),
        None => NodeName::parse(&peer.address().to_string())?,
    };
    let address = (node != *own).then(|| peer.address());
    Ok(Whose { caller: Caller { node, address, named: named.is_some() }, here })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_our_node_others_are_theirs() {
        let own = NodeName::parse("n1").unwrap();
        let case = |remote: &str, named: Option<&str>| {
            let local = "10.0.0.1:8500".parse().unwrap();
            let peer = Peer { remote: remote.parse().unwrap(), local, over: Over::Tcp };
            let Whose { caller, here } = whose(peer, named, &own).unwrap();
            (caller.node.to_string(), caller.address.map(|ip| ip.to_string()), here)
        };
        let other = |name: &str| (name.to_owned(), Some("10.0.0.2".to_owned()), false);
        assert_eq!(case("127.0.0.1:9", None), ("n1".into(), None, true));
        assert_eq!(case("[::1]:9", None), ("n1".into(), None, true));
        assert_eq!(case("10.0.0.1:9", None), ("n1".into(), None, true));
        assert_eq!(case("10.0.0.2:9", None), other("10.0.0.2"));
        assert_eq!(case("[::ffff:10.0.0.2]:9", None), other("10.0.0.2"));
        assert_eq!(case("10.0.0.2:9", Some("web-host")), other("web-host"));
        assert_eq!(case("10.0.0.2:9", Some("N1")), ("N1".into(), None, false));
    }
}
