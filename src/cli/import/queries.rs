//! Prepared queries: read from one server, written to another where they differ.

use std::time::Duration;

use anyhow::Context;
use hyper::Method;
use serde_json::Value;

use super::source::Source;
use super::told::Told;
use crate::cli::api::{self, Server};
use crate::cli::show::list;

const PATH: &str = "/v1/query";

/// Writes those that are not there or differ, by their names.
pub(super) async fn import(
    source: &Source,
    to: &Server,
    dry_run: bool,
    told: &mut Told,
) -> anyhow::Result<()> {
    let answer = source.connection().ask(PATH).await?;
    match answer.status.as_u16() {
        200 => {}
        404 => return Ok(()),
        403 => {
            told.refuse("the token may not read prepared queries (query:read)", PATH);
            return Ok(());
        }
        status => {
            told.refuse(&format!("the other server answers {status}"), PATH);
            return Ok(());
        }
    }
    let theirs: Value =
        serde_json::from_slice(&answer.body).context("/v1/query is not what a Consul answers")?;
    let bound = |query: &&Value| query["Session"].as_str().is_some_and(|session| !session.is_empty());
    for query in list(&theirs).iter().filter(bound) {
        told.refuse("it is bound to a session, which Rollcall does not have", name(query));
    }
    let theirs: Vec<&Value> = list(&theirs).iter().filter(|query| !bound(query)).collect();
    if theirs.is_empty() {
        return Ok(());
    }
    let ours = match to.get(PATH, Duration::ZERO).await {
        Ok((_, ours)) => ours,
        Err(error) => {
            for query in theirs {
                told.refuse(&format!("prepared queries are not taken: {error:#}"), name(query));
            }
            return Ok(());
        }
    };
    for query in theirs {
        let mut wanted = plain(query);
        if wanted.get("Token").is_some_and(|token| token.as_str().is_some_and(|t| !t.is_empty())) {
            wanted["Token"] = "".into();
            told.note("a prepared query without its token", name(query));
        }
        let same_name = list(&ours).iter().find(|own| name(own).eq_ignore_ascii_case(name(query)));
        let (method, path, at) = match same_name {
            Some(own) if plain(own) == wanted => {
                told.queries[2] += 1;
                continue;
            }
            Some(own) => {
                (Method::PUT, format!("{PATH}/{}", api::part(own["ID"].as_str().unwrap_or_default())), 1)
            }
            None => (Method::POST, PATH.to_owned(), 0),
        };
        if !dry_run
            && let Err(error) = to.send(method, &path, serde_json::to_vec(&wanted)?, Duration::ZERO).await
        {
            told.refuse(&format!("{error:#}"), name(query));
            continue;
        }
        told.queries[at] += 1;
    }
    Ok(())
}

fn name(query: &Value) -> &str {
    query["Name"].as_str().unwrap_or("?")
}

/// A query without what a server gives it.
fn plain(query: &Value) -> Value {
    let mut query = query.clone();
    if let Some(map) = query.as_object_mut() {
        for key in ["ID", "CreateIndex", "ModifyIndex"] {
            map.remove(key);
        }
        map.retain(|_, value| !value.is_null());
    }
    query
}
