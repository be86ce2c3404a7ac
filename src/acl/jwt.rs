//! JSON Web Tokens (RFC 7519) of others: whether one is signed by a key that we were told.
//!
//! A reader of our own over aws-lc-rs' signatures: tokens are three parts of base64url, a header and a set of claims. The algorithm
//! never comes from the token alone: it must be one that is allowed, and each key takes only the algorithms of its own
//! kind, so that neither `none` nor an HMAC keyed with a public key (RFC 8725 section 2.1) is ever looked at. Only the compact form
//! is read; encrypted tokens and those with `crit` headers are refused.

use aws_lc_rs::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use data_encoding::BASE64URL_NOPAD;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::strict::{Strict, is_twice};

/// Octets of a token that is read.
pub const OCTETS_MAX: usize = 64 * 1024;
/// Keys of one set that are kept.
const KEYS_MAX: usize = 256;

/// How a token can be signed (RFC 7518 section 3.1, RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    EdDsa,
}

impl Algorithm {
    const ALL: [(Self, &'static str); 10] = [
        (Self::Rs256, "RS256"),
        (Self::Rs384, "RS384"),
        (Self::Rs512, "RS512"),
        (Self::Ps256, "PS256"),
        (Self::Ps384, "PS384"),
        (Self::Ps512, "PS512"),
        (Self::Es256, "ES256"),
        (Self::Es384, "ES384"),
        (Self::Es512, "ES512"),
        (Self::EdDsa, "EdDSA"),
    ];

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == word).map(|(algorithm, _)| *algorithm)
    }

    fn rsa(self) -> Option<&'static signature::RsaParameters> {
        Some(match self {
            Self::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Self::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Self::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Self::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
            Self::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
            Self::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
            _ => return None,
        })
    }
}

/// A public key, and its name where it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    id: Option<String>,
    form: Form,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    /// RFC 8017's RSAPublicKey.
    Rsa(Vec<u8>),
    /// Modulus and exponent.
    RsaParts(Vec<u8>, Vec<u8>),
    /// Uncompressed points.
    P256(Vec<u8>),
    P384(Vec<u8>),
    P521(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// Why a token, or a key, is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("the token is no JWT: {0}")]
    Malformed(&'static str),
    #[error("the token's algorithm {0:?} is not supported")]
    Algorithm(String),
    /// The key that it names is not among ours.
    #[error("the token's key is not known")]
    UnknownKey,
    #[error("no known key successfully validated the token signature")]
    Signature,
    #[error("the key cannot be read: {0}")]
    Key(&'static str),
}

/// A token that was taken apart; nothing in it is to be believed yet.
pub struct Parts<'a> {
    algorithm: String,
    key: Option<String>,
    signed: &'a str,
    signature: Vec<u8>,
    claims: &'a str,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

/// Takes a token apart.
pub fn read(token: &str) -> Result<Parts<'_>, Fault> {
    if token.len() > OCTETS_MAX {
        return Err(Fault::Malformed("it is too long"));
    }
    let (signed, mac) = token.rsplit_once('.').ok_or(Fault::Malformed("it has no three parts"))?;
    let (header, claims) = signed.split_once('.').ok_or(Fault::Malformed("it has no three parts"))?;
    if claims.contains('.') {
        return Err(Fault::Malformed("it has no three parts"));
    }
    let decode = |part: &str| BASE64URL_NOPAD.decode(part.as_bytes());
    let header = decode(header).map_err(|_| Fault::Malformed("its header is no base64url"))?;
    let header: Header =
        serde_json::from_slice(&header).map_err(|_| Fault::Malformed("its header is no JSON with alg"))?;
    if header.crit.is_some() {
        return Err(Fault::Malformed("it has critical headers that are not known"));
    }
    let signature = decode(mac).map_err(|_| Fault::Malformed("its signature is no base64url"))?;
    Ok(Parts { algorithm: header.alg, key: header.kid, signed, signature, claims })
}

impl Parts<'_> {
    /// Whether the token names a key that is not among these.
    pub fn wants_other(&self, keys: &[Key]) -> bool {
        self.key.is_some() && keys.iter().all(|key| key.id != self.key)
    }

    /// The claims, when the token is signed by one of the keys.
    pub fn verify(&self, keys: &[Key], allowed: &[Algorithm]) -> Result<Map<String, Value>, Fault> {
        let algorithm = Algorithm::parse(&self.algorithm).filter(|algorithm| allowed.contains(algorithm));
        let algorithm = algorithm.ok_or_else(|| Fault::Algorithm(self.algorithm.clone()))?;
        // A key without a name may be any.
        let fits = |key: &&Key| self.key.is_none() || key.id.is_none() || key.id == self.key;
        let mut fitting = keys.iter().filter(fits).peekable();
        if fitting.peek().is_none() {
            return Err(Fault::UnknownKey);
        }
        let signed = self.signed.as_bytes();
        if !fitting.any(|key| key.form.verifies(algorithm, signed, &self.signature)) {
            return Err(Fault::Signature);
        }
        let claims = BASE64URL_NOPAD.decode(self.claims.as_bytes());
        let claims = claims.map_err(|_| Fault::Malformed("its claims are no base64url"))?;
        match serde_json::from_slice(&claims) {
            Ok(Strict(Value::Object(claims))) => Ok(claims),
            Err(error) if is_twice(&error) => Err(Fault::Malformed("it makes a claim twice")),
            _ => Err(Fault::Malformed("its claims are no JSON object")),
        }
    }
}

impl Form {
    fn verifies(&self, algorithm: Algorithm, signed: &[u8], mac: &[u8]) -> bool {
        let verify = |how: &'static dyn signature::VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(how, key).verify(signed, mac).is_ok()
        };
        match (self, algorithm) {
            (Self::Rsa(key), algorithm) => algorithm.rsa().is_some_and(|how| verify(how, key)),
            (Self::RsaParts(n, e), algorithm) => algorithm
                .rsa()
                .is_some_and(|how| RsaPublicKeyComponents { n, e }.verify(how, signed, mac).is_ok()),
            (Self::P256(key), Algorithm::Es256) => verify(&signature::ECDSA_P256_SHA256_FIXED, key),
            (Self::P384(key), Algorithm::Es384) => verify(&signature::ECDSA_P384_SHA384_FIXED, key),
            (Self::P521(key), Algorithm::Es512) => verify(&signature::ECDSA_P521_SHA512_FIXED, key),
            (Self::Ed25519(key), Algorithm::EdDsa) => verify(&signature::ED25519, key),
            _ => false,
        }
    }
}

impl Key {
    /// From PEM with the label `PUBLIC KEY` (RFC 7468 section 13).
    pub fn from_pem(pem: &str) -> Result<Self, Fault> {
        let info = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes());
        let info = info.map_err(|_| Fault::Key("it is no PEM with the label PUBLIC KEY"))?;
        let form =
            public_key(&info).ok_or(Fault::Key("it is neither RSA, P-256, P-384, P-521 nor Ed25519"))?;
        Ok(Self { id: None, form })
    }

    /// The keys of a JWK Set (RFC 7517); those that are of no use here are passed over.
    pub fn from_jwks(text: &[u8]) -> Result<Vec<Self>, Fault> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set = serde_json::from_slice(text).map_err(|_| Fault::Key("it is no JWK Set"))?;
        Ok(set.keys.iter().take(KEYS_MAX).filter_map(jwk).collect())
    }
}

fn jwk(value: &Value) -> Option<Key> {
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    let octets = |name: &str| BASE64URL_NOPAD.decode(text(name)?.trim_end_matches('=').as_bytes()).ok();
    if text("use").is_some_and(|used| used != "sig") {
        return None;
    }
    let point = |size: usize| {
        let (x, y) = (octets("x")?, octets("y")?);
        (x.len() == size && y.len() == size).then(|| [&[4], &x[..], &y].concat())
    };
    let bare = |octets: Vec<u8>| octets.into_iter().skip_while(|octet| *octet == 0).collect::<Vec<u8>>();
    let form = match (text("kty")?, text("crv")) {
        ("RSA", _) => Form::RsaParts(bare(octets("n")?), bare(octets("e")?)),
        ("EC", Some("P-256")) => Form::P256(point(32)?),
        ("EC", Some("P-384")) => Form::P384(point(48)?),
        ("EC", Some("P-521")) => Form::P521(point(66)?),
        ("OKP", Some("Ed25519")) => Form::Ed25519(octets("x").filter(|key| key.len() == 32)?),
        _ => return None,
    };
    Some(Key { id: text("kid").map(str::to_owned), form })
}

/// What a SubjectPublicKeyInfo holds (RFC 5280 section 4.1): a sequence of an algorithm with its parameters, and a bit string.
fn public_key(info: &[u8]) -> Option<Form> {
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
    const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
    const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
    const P521: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x23];
    const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
    let (whole, _) = der(info, 0x30)?;
    let (algorithm, rest) = der(whole, 0x30)?;
    let (key, _) = der(rest, 0x03)?;
    // The first octet counts bits that are not used: none.
    let key = key.split_first().filter(|(unused, _)| **unused == 0).map(|(_, key)| key.to_vec())?;
    let (oid, parameters) = der(algorithm, 0x06)?;
    let curve = || der(parameters, 0x06).map(|(curve, _)| curve);
    match oid {
        RSA => Some(Form::Rsa(key)),
        ED25519 => Some(Form::Ed25519(key)),
        EC => match curve()? {
            P256 => Some(Form::P256(key)),
            P384 => Some(Form::P384(key)),
            P521 => Some(Form::P521(key)),
            _ => None,
        },
        _ => None,
    }
}

/// The contents of a DER element with this tag, and what stands behind it.
fn der(octets: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (first, rest) = octets.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(*length), rest),
        0x81 | 0x82 => {
            let (octets, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (octets.iter().fold(0, |sum, octet| sum << 8 | usize::from(*octet)), rest)
        }
        _ => return None,
    };
    (*first == tag).then(|| rest.split_at_checked(length))?
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn encode(octets: &[u8]) -> String {
        BASE64URL_NOPAD.encode(octets)
    }

    fn token(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
        let signed =
            format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
        let mac = sign(signed.as_bytes());
        format!("{signed}.{}", encode(&mac))
    }

    #[test]
    fn a_claim_that_is_made_twice_is_refused() {
        let ours = Ed25519KeyPair::generate().unwrap();
        let key = Key { id: None, form: Form::Ed25519(ours.public_key().as_ref().to_vec()) };
        let signed = |claims: &str| {
            let signed = format!("{}.{}", encode(br#"{"alg":"EdDSA"}"#), encode(claims.as_bytes()));
            let mac = ours.sign(signed.as_bytes());
            check(
                &format!("{signed}.{}", encode(mac.as_ref())),
                std::slice::from_ref(&key),
                &[Algorithm::EdDsa],
            )
        };
        assert!(signed(r#"{"sub":"a"}"#).is_ok());
        for (claims, why) in [
            (r#"{"sub":"a","sub":"b"}"#, "it makes a claim twice"),
            (r#"{"k":{"ns":"a","ns":"a"}}"#, "it makes a claim twice"),
            (r#"["sub"]"#, "its claims are no JSON object"),
            ("{", "its claims are no JSON object"),
        ] {
            assert_eq!(signed(claims), Err(Fault::Malformed(why)), "{claims}");
        }
    }

    fn check(token: &str, keys: &[Key], allowed: &[Algorithm]) -> Result<Map<String, Value>, Fault> {
        read(token)?.verify(keys, allowed)
    }

    #[test]
    fn only_the_right_key_by_the_right_algorithm_counts() {
        let ours = Ed25519KeyPair::generate().unwrap();
        let point = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let raw = ours.public_key().as_ref();
        let set = json!({ "keys": [
            { "kty": "OKP", "crv": "Ed25519", "x": encode(raw), "kid": "a", "use": "sig" },
            { "kty": "EC", "crv": "P-256", "x": encode(&point.public_key().as_ref()[1..33]), "y": encode(&point.public_key().as_ref()[33..]), "kid": "b" },
            { "kty": "EC", "crv": "P-999", "x": "", "y": "" }, { "kty": "oct", "k": "AAAA" },
        ]});
        let keys = Key::from_jwks(set.to_string().as_bytes()).unwrap();
        assert_eq!(keys.len(), 2);
        let all = [Algorithm::EdDsa, Algorithm::Es256];
        let ed = |message: &[u8]| ours.sign(message).as_ref().to_vec();
        let es = |message: &[u8]| point.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec();
        let claims = json!({ "sub": "x" });
        let good = token(&json!({ "alg": "EdDSA", "kid": "a" }), &claims, ed);
        assert_eq!(Value::Object(check(&good, &keys, &all).unwrap()), claims);
        let good = token(&json!({ "alg": "ES256" }), &claims, es);
        assert!(check(&good, &keys, &all).is_ok());
        assert_eq!(check(&good, &keys, &[Algorithm::EdDsa]), Err(Fault::Algorithm("ES256".into())));
        for (header, fault) in [
            (json!({ "alg": "none" }), Fault::Algorithm("none".into())),
            (json!({ "alg": "HS256", "kid": "a" }), Fault::Algorithm("HS256".into())),
            (json!({ "alg": "ES256", "kid": "a" }), Fault::Signature),
            (json!({ "alg": "EdDSA", "kid": "b" }), Fault::Signature),
            (json!({ "alg": "EdDSA", "kid": "c" }), Fault::UnknownKey),
            (
                json!({ "alg": "EdDSA", "crit": ["x"] }),
                Fault::Malformed("it has critical headers that are not known"),
            ),
            (json!({ "kid": "a" }), Fault::Malformed("its header is no JSON with alg")),
        ] {
            assert_eq!(check(&token(&header, &claims, ed), &keys, &all), Err(fault), "{header}");
        }
        // An HMAC keyed with the public key, and no signature at all.
        let hmac = |message: &[u8]| {
            let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, raw);
            aws_lc_rs::hmac::sign(&key, message).as_ref().to_vec()
        };
        assert!(check(&token(&json!({ "alg": "HS256" }), &claims, hmac), &keys, &all).is_err());
        assert!(check(&token(&json!({ "alg": "EdDSA" }), &claims, hmac), &keys, &all).is_err());
        assert!(check(&token(&json!({ "alg": "EdDSA" }), &claims, |_| vec![]), &keys, &all).is_err());
        // Another's signature, and claims that were changed.
        let other = Ed25519KeyPair::generate().unwrap();
        let foreign =
            token(&json!({ "alg": "EdDSA" }), &claims, |message| other.sign(message).as_ref().to_vec());
        assert_eq!(check(&foreign, &keys, &all), Err(Fault::Signature));
        let mut parts: Vec<String> =
            token(&json!({ "alg": "EdDSA" }), &claims, ed).split('.').map(str::to_owned).collect();
        parts[1] = encode(json!({ "sub": "root" }).to_string().as_bytes());
        assert_eq!(check(&parts.join("."), &keys, &all), Err(Fault::Signature));
    }

    #[test]
    fn what_is_no_token_or_key_is_refused() {
        for text in ["", "a.b", "a.b.c.d", "..", "e30.e30.", "!.e30.e30"] {
            assert!(read(text).is_err(), "{text}");
        }
        assert!(read(&"x".repeat(1 << 20)).is_err());
        assert!(Key::from_pem("no").is_err() && Key::from_jwks(b"{}").is_err());
    }

    proptest! {
        #[test]
        fn nothing_makes_it_fall(text in "[a-zA-Z0-9_.-]{0,80}", info in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = read(&text).map(|parts| parts.verify(&[], &[Algorithm::Rs256]));
            let _ = public_key(&info);
        }
    }
}
