//! What of a record is not shown. Pure.
//!
//! By name, at any depth: what is stored under a name that holds a secret is replaced, and what stands beside it stays. What
//! a probe sends (headers, bodies, arguments of scripts, passwords and queries of URLs) often holds one and is not shown either.

use serde_json::Value;
use url::Url;

const HIDDEN: &str = "(hidden)";
/// Parts of names, in lower case and without what stands between words.
const PARTS: [&str; 12] = [
    "secret",
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "token",
    "jwt",
    "apikey",
    "accesskey",
    "privatekey",
    "authorization",
    "credential",
];
/// Last words of names.
const WORDS: [&str; 2] = ["auth", "pass"];
/// What a probe sends.
const SENT: [&str; 2] = ["header", "body"];

/// Replaces them.
pub(super) fn hide(value: &mut Value) {
    match value {
        Value::Object(object) => {
            for (name, inner) in object.iter_mut() {
                let folded = name.to_ascii_lowercase();
                match inner {
                    _ if is_secret(&folded) => conceal(inner),
                    _ if SENT.contains(&folded.as_str()) => conceal(inner),
                    // The program is no secret.
                    Value::Array(args) if folded == "args" => args.iter_mut().skip(1).for_each(conceal),
                    Value::String(text) if folded.ends_with("url") => *text = bare(text),
                    inner => hide(inner),
                }
            }
        }
        Value::Array(all) => all.iter_mut().for_each(hide),
        _ => {}
    }
}

/// Whether a name (in lower case) is of what holds a secret.
fn is_secret(name: &str) -> bool {
    let between = ['-', '_', '.'];
    let whole = name.replace(between, "");
    let last = name.rsplit(between).next().unwrap_or_default();
    PARTS.iter().any(|part| whole.contains(part)) || WORDS.contains(&last)
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

/// A URL without its user and its query.
fn bare(text: &str) -> String {
    // What is none may be anything.
    let Ok(mut url) = Url::parse(text) else {
        return if text.is_empty() { String::new() } else { HIDDEN.to_owned() };
    };
    if url.password().is_none() && url.username().is_empty() && url.query().is_none() {
        return text.to_owned();
    }
    // Fails for URLs that have no host, and those have no password.
    let _ = (url.set_username(""), url.set_password(None));
    let query = url.query().map(|_| HIDDEN);
    url.set_query(query);
    url.to_string()
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
            "kind": { "url": "https://h/x?(hidden)", "header": { "Authorization": [hidden], "Accept": [hidden] }, "body": hidden, "method": "POST" },
            "args": ["/bin/check", hidden, hidden], "name": "web", "token": "", "list": [{ "Token": hidden }],
        });
        assert_eq!(value, wanted);
    }

    #[test]
    fn a_name_is_one_of_a_secret_however_it_is_written() {
        for name in [
            "db_password",
            "api-key",
            "apikey",
            "API_KEY",
            "x.api.key",
            "passwd",
            "pwd",
            "db-pwd",
            "credential",
            "Credentials",
            "private_key",
            "aws_access_key",
            "auth",
            "basic-auth",
            "db_pass",
            "passphrase",
            "SecretID",
        ] {
            let mut value = json!({ name: "x" });
            hide(&mut value);
            assert_eq!(value, json!({ name: "(hidden)" }));
        }
        for name in [
            "author",
            "auth_method",
            "authmethod",
            "passing",
            "monkey",
            "key",
            "keyed",
            "accessor",
            "version",
        ] {
            let mut value = json!({ name: "x" });
            hide(&mut value);
            assert_eq!(value, json!({ name: "x" }));
        }
    }

    #[test]
    fn of_a_url_the_user_and_the_query_are_hidden() {
        for (url, shown) in [
            ("http://u:pw@h/?token=x&api_key=y", "http://h/?(hidden)"),
            ("http://h/x?k=v#f", "http://h/x?(hidden)#f"),
            ("http://h", "http://h"),
            ("http://u@h:81/a", "http://h:81/a"),
            ("h/?token=x", "(hidden)"),
            ("", ""),
        ] {
            let mut value = json!({ "url": url, "jwksurl": url });
            hide(&mut value);
            assert_eq!(value, json!({ "url": shown, "jwksurl": shown }), "{url}");
        }
    }
}
