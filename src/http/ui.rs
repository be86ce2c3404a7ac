//! The web page: `GET /ui/`. Plain files in `ui/`, which stand in the program; no build makes them, and they load nothing from
//! elsewhere. All that they show and do goes through the API, with the token that somebody gives them.
//!
//! The policy that goes with each of them (Content Security Policy, level 3) allows scripts, styles and requests of this server alone, and
//! nothing that stands in the page itself: what a service says of itself cannot run there.

use std::sync::Arc;

use axum::Router;
use axum::extract::State as Extract;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};

use super::State;
use super::error::Error;
use super::route::{Rest, get};
use crate::model::name::fnv1a;

/// A file: its name, its content type, what is in it.
type File = (&'static str, &'static str, &'static str);

const SCRIPT: &str = "text/javascript; charset=utf-8";
const PAGE: &str = "index.html";
const FILES: &[File] = &[
    ("api.js", SCRIPT, include_str!("ui/api.js")),
    ("app.js", SCRIPT, include_str!("ui/app.js")),
    ("ask.js", SCRIPT, include_str!("ui/ask.js")),
    ("dom.js", SCRIPT, include_str!("ui/dom.js")),
    ("history.js", SCRIPT, include_str!("ui/history.js")),
    ("icon.svg", "image/svg+xml", include_str!("ui/icon.svg")),
    (PAGE, "text/html; charset=utf-8", include_str!("ui/index.html")),
    ("list.js", SCRIPT, include_str!("ui/list.js")),
    ("lists.js", SCRIPT, include_str!("ui/lists.js")),
    ("route.js", SCRIPT, include_str!("ui/route.js")),
    ("service.js", SCRIPT, include_str!("ui/service.js")),
    ("store.js", SCRIPT, include_str!("ui/store.js")),
    ("style.css", "text/css; charset=utf-8", include_str!("ui/style.css")),
];

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .route(
            "/ui",
            get(async || ([(header::CONTENT_TYPE, "application/json")], Redirect::permanent("/ui/"))),
        )
        .route("/ui/", get(file))
        .route("/ui/{*file}", get(file))
}

async fn file(
    Extract(state): Extract<Arc<State>>,
    Rest(name): Rest,
    headers: HeaderMap,
) -> Result<Response, Error> {
    if !state.config.load().ui {
        return Err(Error::not_found("the web page is switched off ([http] ui)"));
    }
    let name = if name.is_empty() { PAGE } else { name.as_str() };
    let found = FILES.iter().find(|(known, ..)| *known == name);
    let Some((_, kind, text)) = found else {
        return Err(Error::not_found(format!("the web page has no file {name:?}; it is at /ui/")));
    };
    let tag = format!("\"{:016x}\"", fnv1a(text.bytes()));
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|given| given.as_bytes() == tag.as_bytes());
    let mut response = match known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => ([(header::CONTENT_TYPE, *kind)], *text).into_response(),
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // Of a new version, all files are the new ones.
        (header::CACHE_CONTROL, "no-cache"),
        (header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_folder_is_there_and_nothing_is_loaded_from_elsewhere() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/ui");
        let mut names: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, FILES.iter().map(|(name, ..)| *name).collect::<Vec<_>>());
        for (name, _, text) in FILES {
            let elsewhere = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!elsewhere.contains("://"), "{name} names another origin");
            for markup in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
                assert!(!text.contains(markup), "{name}: {markup} makes markup or code of a text");
            }
        }
        let page = FILES.iter().find(|(name, ..)| *name == PAGE).unwrap().2;
        assert!(!page.contains(" style=") && !page.contains(" on") && page.matches("<script").count() == 1);
    }
}
