//! An auth method of type `jwt`: what its configuration asks of a token, and what the token's claims come to (Consul's API, JWT auth
//! method). Pure: keys that come over the network are brought, and so is the time.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::jwt::{Algorithm, Key};
use crate::filter::{self, Fields, Filter, Kind, Root, Test};
use crate::model::acl::{Bind, BindingRule};
use crate::model::duration;

/// The configuration as Consul has it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
struct Body {
    #[serde(rename = "JWTSupportedAlgs")]
    algorithms: Option<Vec<String>>,
    bound_audiences: Option<Vec<String>>,
    bound_issuer: String,
    #[serde(rename = "JWTValidationPubKeys")]
    public_keys: Option<Vec<String>>,
    #[serde(rename = "JWKSURL")]
    jwks_url: String,
    #[serde(rename = "JWKSCACert")]
    jwks_ca: String,
    #[serde(rename = "OIDCDiscoveryURL")]
    discovery_url: String,
    claim_mappings: Option<BTreeMap<String, String>>,
    list_claim_mappings: Option<BTreeMap<String, String>>,
    expiration_leeway: Option<Value>,
    not_before_leeway: Option<Value>,
    clock_skew_leeway: Option<Value>,
}

/// A configuration that was read.
#[derive(Debug)]
pub struct Jwt {
    pub algorithms: Vec<Algorithm>,
    /// Empty where they come from [`Jwt::jwks`].
    pub keys: Vec<Key>,
    /// Where the keys are, and the authorities (PEM) that its server's certificate may be by.
    pub jwks: Option<(String, String)>,
    audiences: Vec<String>,
    issuer: String,
    /// Claim and name.
    values: BTreeMap<String, String>,
    lists: BTreeMap<String, String>,
    /// Seconds: after the expiry, before the beginning, and for clocks that differ.
    leeways: [u64; 3],
}

/// What a token's claims come to: for selectors and names of binding rules.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub values: BTreeMap<String, String>,
    pub lists: BTreeMap<String, Vec<String>>,
}

const FIELDS: Fields = &[("value", Kind::Map(&Kind::Text)), ("list", Kind::Map(&Kind::Texts))];
const LIMITS: filter::Limits = filter::Limits { octets_max: 4096, matches_max: 64 };

impl Jwt {
    /// Reads a configuration; errs with what is wrong.
    pub fn read(config: &Value) -> Result<Self, String> {
        let body: Body = serde_json::from_value(config.clone()).map_err(|e| e.to_string())?;
        if !body.discovery_url.is_empty() {
            return Err("OIDCDiscoveryURL is not served; use JWKSURL or JWTValidationPubKeys".to_owned());
        }
        let keys = body.public_keys.unwrap_or_default();
        let jwks = match (keys.is_empty(), body.jwks_url.is_empty()) {
            (false, true) => None,
            (true, false) => Some((body.jwks_url, body.jwks_ca)),
            _ => {
                return Err(
                    "exactly one of 'JWTValidationPubKeys', 'JWKSURL', or 'OIDCDiscoveryURL' must be set"
                        .to_owned(),
                );
            }
        };
        if let Some((url, _)) = &jwks
            && !url.starts_with("https://")
        {
            return Err(format!("JWKSURL {url:?} is not https"));
        }
        let keys =
            keys.iter().map(|pem| Key::from_pem(pem).map_err(|e| format!("JWTValidationPubKeys: {e}")));
        let words =
            body.algorithms.filter(|words| !words.is_empty()).unwrap_or_else(|| vec!["RS256".to_owned()]);
        let algorithms = words.iter().map(|word| {
            Algorithm::parse(word).ok_or_else(|| format!("JWTSupportedAlgs: unsupported algorithm {word:?}"))
        });
        let leeway = |value: &Option<Value>| leeway(value.as_ref());
        Ok(Self {
            algorithms: algorithms.collect::<Result<_, _>>()?,
            keys: keys.collect::<Result<_, _>>()?,
            jwks,
            audiences: body.bound_audiences.unwrap_or_default(),
            issuer: body.bound_issuer,
            values: body.claim_mappings.unwrap_or_default(),
            lists: body.list_claim_mappings.unwrap_or_default(),
            leeways: [
                leeway(&body.expiration_leeway)?.unwrap_or(150),
                leeway(&body.not_before_leeway)?.unwrap_or(150),
                leeway(&body.clock_skew_leeway)?.unwrap_or(60),
            ],
        })
    }

    /// Judges the claims of a token whose signature is good; `now` is seconds since 1970.
    pub fn judge(&self, claims: &Map<String, Value>, now: u64) -> Result<Identity, String> {
        // RFC 7519 section 2: a NumericDate. One that is no number says nothing that may be passed over.
        let time = |name: &str| match claims.get(name) {
            None => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or_else(|| wrong(name, "number")),
        };
        let [expiry, beginning, skew] = self.leeways.map(|secs| secs as f64);
        let now = now as f64;
        let (expires, begins, issued) = (time("exp")?, time("nbf")?, time("iat")?);
        if expires.is_none() && begins.is_none() && issued.is_none() {
            return Err("no issue time, notBefore, or expiration time encoded in token".to_owned());
        }
        // Unlike Consul's: a token that says nothing of its beginning has begun.
        let begins = begins.or(issued);
        let expires = expires.or(begins.map(|at| at + expiry));
        if expires.is_some_and(|at| now > at + skew + if claims.contains_key("exp") { expiry } else { 0.0 }) {
            return Err("the token is expired".to_owned());
        }
        if begins.is_some_and(|at| now + skew + beginning < at) {
            return Err("the token is not valid yet".to_owned());
        }
        let issuer = claims.get("iss").map(|value| value.as_str().ok_or_else(|| wrong("iss", "text")));
        if issuer.transpose()?.unwrap_or_default() != self.issuer && !self.issuer.is_empty() {
            return Err("invalid issuer (iss) claim".to_owned());
        }
        let audiences = match claims.get("aud") {
            None => Some(Vec::new()),
            Some(Value::String(one)) => Some(vec![one.as_str()]),
            Some(Value::Array(all)) => all.iter().map(Value::as_str).collect(),
            Some(_) => None,
        };
        let audiences = audiences.ok_or_else(|| wrong("aud", "text or list of texts"))?;
        let bound = self.audiences.iter().any(|bound| audiences.contains(&bound.as_str()));
        match (self.audiences.is_empty(), audiences.is_empty()) {
            (true, true) => {}
            (true, false) => return Err("audience claim found in JWT but no audiences are bound".to_owned()),
            _ if !bound => return Err("invalid audience (aud) claim".to_owned()),
            _ => {}
        }
        self.identity(claims)
    }

    fn identity(&self, claims: &Map<String, Value>) -> Result<Identity, String> {
        let mut identity = Identity::default();
        for (claim, name) in &self.values {
            if let Some(value) = find(claims, claim)? {
                let text = text(value).ok_or_else(|| wrong(claim, "text, number or truth value"))?;
                identity.values.insert(name.clone(), text);
            }
        }
        for (claim, name) in &self.lists {
            let list = match find(claims, claim)? {
                None => continue,
                Some(Value::Array(all)) => all.iter().map(text).collect::<Option<Vec<_>>>(),
                Some(one) => text(one).map(|text| vec![text]),
            };
            let list = list.ok_or_else(|| wrong(claim, "list of texts"))?;
            identity.lists.insert(name.clone(), list);
        }
        Ok(identity)
    }
}

/// Seconds; a duration or nanoseconds, where 0 means the default and less means none.
fn leeway(value: Option<&Value>) -> Result<Option<u64>, String> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(nanos)) => Ok(match nanos.as_i64().unwrap_or(0) {
            0 => None,
            nanos => Some(u64::try_from(nanos).unwrap_or(0) / 1_000_000_000),
        }),
        Some(Value::String(text)) => match text.strip_prefix('-') {
            Some(rest) => duration::parse(rest).map(|_| Some(0)).map_err(|e| e.to_string()),
            None => {
                let parsed = duration::parse(text).map_err(|e| e.to_string())?;
                Ok(Some(parsed.as_secs()).filter(|secs| *secs > 0))
            }
        },
        Some(_) => Err("a leeway is a duration such as \"10s\"".to_owned()),
    }
}

/// A claim by its name, or by a JSON pointer (RFC 6901) to one that lies deeper; errs where what it would lie in cannot have it.
fn find<'a>(claims: &'a Map<String, Value>, name: &str) -> Result<Option<&'a Value>, String> {
    let Some(pointer) = name.strip_prefix('/') else { return Ok(claims.get(name)) };
    let mut parts = pointer.split('/').map(|part| part.replace("~1", "/").replace("~0", "~"));
    let mut found = parts.next().and_then(|part| claims.get(&part));
    for part in parts {
        let Some(outer) = found else { return Ok(None) };
        found = match (outer, part.parse::<usize>()) {
            (Value::Object(map), _) => map.get(&part),
            (Value::Array(list), Ok(at)) => list.get(at),
            _ => return Err(format!("claim {name:?}: {part:?} cannot be in what the token has there")),
        };
    }
    Ok(found)
}

/// A claim that is there, but not what it has to be, is not one that is absent.
fn wrong(claim: &str, wanted: &str) -> String {
    format!("claim {claim:?} is no {wanted}")
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

impl Root for Identity {
    fn find(&self, path: &[String], test: Test<'_>) -> bool {
        let (first, rest) = path.split_first().map_or(("", path), |(first, rest)| (first.as_str(), rest));
        match (first, rest.first()) {
            ("value", _) => {
                filter::pairs(self.values.iter().map(|(k, v)| (k.as_str(), v.as_str())), rest, test)
            }
            ("list", None) => filter::among(self.lists.keys().map(String::as_str), test),
            ("list", Some(name)) => match self.lists.get(name) {
                Some(list) => filter::among(list.iter().map(String::as_str), test),
                None => test(filter::Found::Missing),
            },
            _ => false,
        }
    }
}

/// A binding rule's selector; `None` where it has none, and so takes all.
pub fn selector(text: &str) -> Result<Option<Filter>, String> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    Filter::new(text, FIELDS, &LIMITS).map(Some).map_err(|e| e.to_string())
}

/// Checks a binding rule's name: texts and `${value.x}`.
pub fn check_name(name: &str) -> Result<(), String> {
    fill(name, |_| Some(String::new())).map(|_| ())
}

fn fill(name: &str, value: impl Fn(&str) -> Option<String>) -> Result<Option<String>, String> {
    let (mut filled, mut rest) = (String::new(), name);
    while let Some((before, after)) = rest.split_once("${") {
        let (variable, after) =
            after.split_once('}').ok_or_else(|| format!("{name:?}: a \"${{\" is not closed"))?;
        let variable = variable.trim().strip_prefix("value.");
        let variable =
            variable.filter(|v| !v.is_empty() && v.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
        let variable = variable.ok_or_else(|| format!("{name:?}: only ${{value.NAME}} is known"))?;
        let Some(value) = value(variable) else { return Ok(None) };
        filled += before;
        filled += &value;
        rest = after;
    }
    Ok(Some(filled + rest))
}

/// What a rule binds for an identity: the kind and the name; nothing when it does not select it or the name has a value that the
/// identity lacks.
pub fn bound(rule: &BindingRule, identity: &Identity) -> Option<(Bind, String)> {
    let selects = match selector(&rule.selector) {
        Ok(filter) => filter.is_none_or(|filter| filter.matches(identity)),
        Err(_) => false,
    };
    let name = fill(&rule.name, |variable| identity.values.get(variable).cloned()).ok().flatten();
    name.filter(|name| selects && !name.is_empty()).map(|name| (rule.bind, name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn method(more: Value) -> Jwt {
        let mut config = json!({ "JWKSURL": "https://keys.example/", "BoundIssuer": "me", "BoundAudiences": ["us"],
            "ClaimMappings": { "/k8s/name": "name", "admin": "admin" }, "ListClaimMappings": { "groups": "groups" } });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Jwt::read(&config).unwrap()
    }

    fn judge(method: &Jwt, more: Value) -> Result<Identity, String> {
        let mut claims = json!({ "iss": "me", "aud": ["others", "us"], "exp": 1000, "k8s": { "name": "web" }, "groups": ["a", "b"], "admin": true });
        let map = claims.as_object_mut().unwrap();
        map.extend(more.as_object().unwrap().clone());
        map.retain(|_, value| !value.is_null());
        method.judge(map, 900)
    }

    #[test]
    fn claims_are_judged_and_mapped() {
        let plain = method(json!({}));
        let identity = judge(&plain, json!({})).unwrap();
        assert_eq!((identity.values["name"].as_str(), identity.values["admin"].as_str()), ("web", "true"));
        assert_eq!(identity.lists["groups"], ["a", "b"]);
        for (more, wrong) in [
            (json!({ "iss": "you" }), "issuer"),
            (json!({ "iss": null }), "issuer"),
            (json!({ "aud": "others" }), "audience"),
            (json!({ "aud": null }), "audience"),
            (json!({ "exp": 600 }), "expired"),
            (json!({ "nbf": 1200 }), "not valid yet"),
            (json!({ "exp": null }), "no issue time"),
            (json!({ "exp": null, "iat": 600 }), "expired"),
            (json!({ "groups": [[]] }), "no list of texts"),
            (json!({ "groups": { "a": 1 } }), "claim \"groups\" is no list of texts"),
            (json!({ "admin": {} }), "no text"),
            (json!({ "exp": "1000" }), "claim \"exp\" is no number"),
            (json!({ "nbf": "0", "iat": 1 }), "claim \"nbf\" is no number"),
            (json!({ "iat": [1] }), "claim \"iat\" is no number"),
            (json!({ "iss": ["me"] }), "claim \"iss\" is no text"),
            (json!({ "aud": 7 }), "claim \"aud\" is no text or list of texts"),
            (json!({ "aud": ["us", 7] }), "claim \"aud\" is no text or list of texts"),
            (json!({ "k8s": "web" }), "claim \"/k8s/name\": \"name\" cannot be in what"),
            (json!({ "k8s": [{ "name": "web" }] }), "claim \"/k8s/name\""),
            (json!({ "k8s": { "name": ["web"] } }), "claim \"/k8s/name\" is no text"),
        ] {
            assert!(judge(&plain, more.clone()).is_err_and(|e| e.contains(wrong)), "{more}");
        }
        let mut null = json!({ "iss": "me", "aud": "us", "exp": 1000 });
        for claim in ["exp", "iss", "aud", "admin", "groups"] {
            let before = null.as_object_mut().unwrap().insert(claim.into(), Value::Null);
            let said = plain.judge(null.as_object().unwrap(), 900).unwrap_err();
            assert!(said.contains(&format!("claim {claim:?} is no ")), "{said}");
            match before {
                Some(before) => null[claim] = before,
                None => drop(null.as_object_mut().unwrap().remove(claim)),
            }
        }
        let strict =
            method(json!({ "ExpirationLeeway": "-1s", "NotBeforeLeeway": "-1s", "ClockSkewLeeway": -1 }));
        assert!(
            judge(&strict, json!({ "exp": 899 })).is_err() && judge(&strict, json!({ "exp": 901 })).is_ok()
        );
        assert!(judge(&plain, json!({ "exp": 800, "iat": null })).is_ok(), "within the leeway");
        assert!(judge(&method(json!({ "BoundAudiences": [] })), json!({})).is_err());
    }

    #[test]
    fn rules_select_and_fill_names() {
        let identity = judge(&method(json!({})), json!({})).unwrap();
        let rule = |selector: &str, name: &str| BindingRule {
            id: Uuid::nil(),
            description: String::new(),
            method: "m".into(),
            selector: selector.into(),
            bind: Bind::Service,
            name: name.into(),
        };
        let bound = |selector, name| bound(&rule(selector, name), &identity).map(|(_, name)| name);
        assert_eq!(bound("", "x-${value.name}-y").as_deref(), Some("x-web-y"));
        assert_eq!(bound("value.name == web and \"b\" in list.groups", "fixed").as_deref(), Some("fixed"));
        assert_eq!(bound("value.name == db", "fixed"), None);
        assert_eq!(bound("", "${value.missing}"), None);
        assert_eq!(bound("nonsense ==", "x"), None);
        assert!(check_name("a${value.b}").is_ok());
        assert!(
            check_name("${list.b}").is_err()
                && check_name("${value.b").is_err()
                && check_name("${value.}").is_err()
        );
        assert!(selector("other.x == 1").is_err() && selector("value.x == 1").is_ok());
    }

    #[test]
    fn configurations_that_cannot_be_are_refused() {
        for (config, wrong) in [
            (json!({}), "exactly one of"),
            (json!({ "JWKSURL": "http://x/" }), "not https"),
            (
                json!({ "JWKSURL": "https://x/", "JWTSupportedAlgs": ["HS256"] }),
                "unsupported algorithm \"HS256\"",
            ),
            (json!({ "JWKSURL": "https://x/", "JWTSupportedAlgs": ["none"] }), "unsupported algorithm"),
            (json!({ "JWTValidationPubKeys": ["x"] }), "the key cannot be read"),
            (json!({ "OIDCDiscoveryURL": "https://x/" }), "not served"),
            (json!({ "Nope": 1 }), "unknown field"),
        ] {
            assert!(Jwt::read(&config).unwrap_err().contains(wrong), "{config}");
        }
    }
}
