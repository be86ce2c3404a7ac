//! What of a record is not shown. Pure.
//!
//! By name, at any depth: what is stored under a name that holds a secret is replaced, and what stands beside it stays. What
//! a probe sends (headers, bodies, arguments of scripts, passwords in URLs) often holds one and is not shown either.

use serde_json::Value;
use url::Url;

const HIDDEN: &str = "(hidden)";
/// Parts of names, in lower case.
const NAMES: [&str; 6] = ["secret", "password", "token", "jwt", "privatekey", "authorization"];
/// What a probe sends.
const SENT: [&str; 2] = ["header", "body"];

/// Replaces them.
pub(super) fn hide(value: &mut Value) {
    match value {
        Value::Object(object) => {
            for (name, inner) in object.iter_mut() {
                let folded = name.to_ascii_lowercase();
                match inner {
                    _ if NAMES.iter().any(|part| folded.contains(part)) => conceal(inner),
                    _ if SENT.contains(&folded.as_str()) => conceal(inner),
                    // The program is no secret.
                    Value::Array(args) if folded == "args" => args.iter_mut().skip(1).for_each(conceal),
                    Value::String(text) if folded == "url" => *text = without_password(text),
                    inner => hide(inner),
                }
            }
        }
        Value::Array(all) => all.iter_mut().for_each(hide),
        _ => {}
    }
}

/// Texts; what they are under stays.
fn conceal(value: &mut Value) {
    match value {
        Value::String(text) if !text.is_empty() => HIDDEN.clone_into(text),
        Value::Array(all) => all.iter_mut().for_each(conceal),
        Value::Object(object) => object.values_mut().for_each(conceal),
        _ => {}
    }
}

fn without_password(text: &str) -> String {
    match Url::parse(text) {
        Ok(mut url) if url.password().is_some() || !url.username().is_empty() => {
            // Fails for URLs that have no host, and those have no password.
            let _ = (url.set_username(""), url.set_password(None));
            url.to_string()
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_hidden_and_what_stands_beside_them_stays() {
        let mut value = json!({
            "secret": "x", "accessor": "a", "config": { "JWTValidationPubKeys": ["k"], "OIDCClientSecret": "x", "BoundIssuer": "i" },
            "kind": { "url": "https://user:pass@h/x?y=1", "header": { "Authorization": ["Bearer x"], "Accept": ["y"] }, "body": "x", "method": "POST" },
            "args": ["/bin/check", "--password", "x"], "name": "web", "token": "", "list": [{ "Token": "x" }],
        });
        hide(&mut value);
        let hidden = "(hidden)";
        let wanted = json!({
            "secret": hidden, "accessor": "a", "config": { "JWTValidationPubKeys": [hidden], "OIDCClientSecret": hidden, "BoundIssuer": "i" },
            "kind": { "url": "https://h/x?y=1", "header": { "Authorization": [hidden], "Accept": [hidden] }, "body": hidden, "method": "POST" },
            "args": ["/bin/check", hidden, hidden], "name": "web", "token": "", "list": [{ "Token": hidden }],
        });
        assert_eq!(value, wanted);
    }
}
