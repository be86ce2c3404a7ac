//! The instances of a service, as its listings go through them: with the tags and the node meta that were asked for.

use std::sync::Arc;

use crate::http::listing::{Listing, Rows};
use crate::http::near::MaybeNear;
use crate::http::query::Params;
use crate::http::shape::has_meta;
use crate::registry::{InstanceEntry, NodeEntry, Snapshot};

/// What `write` puts for each instance that has all the tags, whatever their case, and is on a node with the meta
/// (`?node-meta=`), the nearest first where that was asked for.
pub(in crate::http) fn list(
    snapshot: &Arc<Snapshot>,
    service: &str,
    params: &Params,
    (tags, near): (Vec<String>, &MaybeNear),
    mut write: impl FnMut(&NodeEntry, &InstanceEntry, &mut Rows<'_>) + Send + 'static,
) -> Listing {
    let service = snapshot.service(&service.to_ascii_lowercase());
    let mut entries: Vec<_> =
        service.into_iter().flat_map(|service| service.instances.values().cloned()).collect();
    near.sort_instances(snapshot, &mut entries);
    let (meta, snapshot) = (params.node_meta_owned(), snapshot.clone());
    Listing::array(entries, move |entry, rows| {
        let own = &entry.instance.tags;
        let has_tags = tags.iter().all(|tag| own.iter().any(|own| own.eq_ignore_ascii_case(tag)));
        let node = snapshot.node(entry.instance.node.folded()).filter(|node| has_meta(node, &meta));
        if let Some(node) = node.filter(|_| has_tags) {
            write(node, &entry, rows);
        }
    })
}
