//! What DNS answers to a name, and why: `GET /v1/rollcall/explain?name=&type=&from=`.
//!
//! The explanation is made in DNS, by the functions that decide there; this is its form in JSON. Whoever may not read everything gets
//! what DNS would answer with their token.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, State as Extract};
use axum::response::Response;
use serde_json::{Value, json};

use crate::http::State;
use crate::http::door::caller::Peer;
use crate::http::error::Error;
use crate::http::query::Params;
use crate::http::route;
use crate::select::explanation::Judged;
use crate::select::{Explanation, Inquiry};

pub(super) async fn explain(
    Extract(state): Extract<Arc<State>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    params: Params,
) -> Result<Response, Error> {
    let text = |name: &str| params.get(name).unwrap_or_default().to_owned();
    let from = match params.get("from").filter(|text| !text.is_empty()) {
        Some(text) => {
            text.parse::<IpAddr>().map_err(|_| Error::bad(format!("Invalid address {text:?} in ?from")))?
        }
        None => peer.address(),
    };
    let inquiry = Inquiry { name: text("name"), kind: text("type"), from };
    let explained = (state.explainer)(&inquiry, &params.asker.view).map_err(Error::bad)?;
    Ok(route::json(&shown(&inquiry, &explained)))
}

fn shown(inquiry: &Inquiry, explained: &Explanation) -> Value {
    let Explanation { name, kind, rcode, answers, authorities, additionals, .. } = explained;
    let mut value = json!({
        "Name": name,
        "Type": kind,
        "From": inquiry.from,
        "Rcode": rcode,
        "Answers": answers,
        "Authorities": authorities,
        "Additionals": additionals,
        "Octets": explained.octets,
        "Index": explained.index,
        "Serial": explained.serial,
        "Said": explained.said,
    });
    if let Some(service) = &explained.service {
        value["Service"] = json!(service);
        value["Instances"] = explained.instances.iter().map(instance).collect();
    }
    if let Some((ttl, why)) = &explained.ttl {
        value["TTL"] = json!(ttl);
        value["TTLReason"] = json!(why);
    }
    value
}

fn instance(judged: &Judged) -> Value {
    json!({
        "Node": judged.node,
        "ID": judged.id,
        "Addresses": judged.addresses,
        "Port": judged.port,
        "Weight": judged.weight,
        "In": judged.why.is_in(),
        "Why": judged.why.as_str(),
        "Reason": judged.told,
    })
}
