//! The whole registry as one JSON document: `GET /v1/rollcall/export`. Its form is told in [`document`](super::document).

use std::ops::Bound;
use std::sync::Arc;

use arcstr::ArcStr;
use axum::extract::State as Extract;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::document::{Line, VERSION};
use super::in_pieces;
use crate::http::error::Error;
use crate::http::{PIECE_OCTETS, State};
use crate::model::{InstanceId, Maintenance, NodeName, Origin, Record};
use crate::registry::{CheckEntry, NodeEntry, Snapshot};

/// As of one index. What every server has of its own is left out.
pub(super) async fn export(Extract(state): Extract<Arc<State>>) -> Result<Response, Error> {
    let snapshot = state.registry.snapshot();
    let datacenter = state.config.load().datacenter.clone();
    let mut walk = Walk { snapshot, at: None };
    let (mut begun, mut ended) = (false, false);
    let body = in_pieces(move |piece| {
        if !begun {
            begun = true;
            let (index, datacenter) = (walk.snapshot.index(), serde_json::Value::from(&*datacenter));
            let head = format!(
                "{{\"rollcall_export\":{VERSION},\"datacenter\":{datacenter},\"index\":{index},\"records\":["
            );
            piece.extend_from_slice(head.as_bytes());
        }
        if !ended {
            ended = !walk.more(piece);
            if ended {
                walk.snapshot
                    .queries()
                    .for_each(|entry| put(Line::of(Record::Query(entry.query.clone())), piece));
                walk.snapshot
                    .routes()
                    .for_each(|entry| put(Line::of(Record::Route(entry.route.clone())), piece));
                piece.extend_from_slice(b"\n]}\n");
            }
        }
        !ended
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// A way through the registry: each node, then its own checks, then its instances, each with its checks behind it.
struct Walk {
    snapshot: Arc<Snapshot>,
    /// The node that was begun, and the last of its instances that is done.
    at: Option<(NodeName, Option<InstanceId>)>,
}

impl Walk {
    /// Puts about one piece; whether there is more.
    fn more(&mut self, to: &mut Vec<u8>) -> bool {
        let snapshot = self.snapshot.clone();
        let from = self.at.as_ref().map_or_else(String::new, |(node, _)| node.folded().to_owned());
        for node in snapshot.nodes_from(&from) {
            let name = &node.node.name;
            let mut behind = Bound::Unbounded;
            match &self.at {
                Some((at, id)) if at == name => behind = id.clone().map_or(behind, Bound::Excluded),
                begun => {
                    put_node(node, begun.is_none(), to);
                    self.at = Some((name.clone(), None));
                }
            }
            for (id, entry) in node.instances.range((behind, Bound::Unbounded)) {
                if entry.instance.origin == Origin::Own {
                    continue;
                }
                put(Line::of(Record::Instance(entry.instance.clone())), to);
                entry.checks.iter().for_each(|check| put_check(check, to));
                put_maintenance(name, Some(id), entry.maintenance.as_ref(), to);
                self.at = Some((name.clone(), Some(id.clone())));
                if to.len() >= PIECE_OCTETS {
                    return true;
                }
            }
            if to.len() >= PIECE_OCTETS {
                return true;
            }
        }
        false
    }
}

fn put_node(node: &NodeEntry, first: bool, to: &mut Vec<u8>) {
    put_after(if first { "\n" } else { ",\n" }, Line::of(Record::Node(node.node.clone())), to);
    node.own_checks.iter().for_each(|check| put_check(check, to));
    put_maintenance(&node.node.name, None, node.maintenance.as_ref(), to);
}

fn put_maintenance(node: &NodeName, of: Option<&InstanceId>, reason: Option<&ArcStr>, to: &mut Vec<u8>) {
    let Some(reason) = reason.cloned() else { return };
    let word = Maintenance { node: node.clone(), instance: of.cloned(), reason };
    put(Line::of(Record::Maintenance(word)), to);
}

fn put_check(entry: &CheckEntry, to: &mut Vec<u8>) {
    if entry.check.origin == Origin::Own {
        return;
    }
    let record = Record::Check(entry.check.clone());
    put(Line { record, status: Some(entry.status), output: Some(entry.output.as_str().into()) }, to);
}

/// Every line but the first, which is a node's.
fn put(line: Line, to: &mut Vec<u8>) {
    put_after(",\n", line, to);
}

fn put_after(before: &str, line: Line, to: &mut Vec<u8>) {
    to.extend_from_slice(before.as_bytes());
    // Writing to memory does not fail, and all keys are texts.
    let _ = serde_json::to_writer(to, &line);
}
