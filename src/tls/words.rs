//! Why a handshake failed, in words for whoever runs the service, with what to do about it.

use std::io;

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error};

const SECS_PER_DAY: u64 = 86_400;
/// Names of a certificate that are shown.
const NAMES_SHOWN_MAX: usize = 5;

pub(super) fn explain(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(error) => protocol(error),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the target closed the connection (does it speak TLS on this port?)".to_owned()
        }
        None => error.to_string(),
    }
}

fn protocol(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => certificate(error),
        Error::InvalidMessage(_) => {
            "what came is not TLS (does the target speak TLS on this port?)".to_owned()
        }
        Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            "the target speaks TLS, but none of the protocols that are needed over it".to_owned()
        }
        Error::AlertReceived(AlertDescription::UnrecognisedName) => {
            "the target does not know this name (TLSServerName names another)".to_owned()
        }
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "the target wants a client certificate, which checks do not have".to_owned()
        }
        Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            "the target speaks neither TLS 1.2 nor 1.3".to_owned()
        }
        Error::AlertReceived(alert) => format!("the target refused it with alert {alert:?}"),
        error => error.to_string(),
    }
}

/// What a server of ours said in TLS instead of an answer, if it did.
pub fn refusal(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let error = error.downcast_ref::<io::Error>()?;
    error.get_ref()?.is::<Error>().then(|| server(error))
}

/// Why a server of ours was not reached by a command.
pub(super) fn server(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "the server's certificate is by an unknown authority (--ca-file names it)".to_owned()
        }
        Some(Error::InvalidCertificate(error)) => {
            format!("the server's certificate cannot be accepted: {error}")
        }
        Some(Error::AlertReceived(AlertDescription::CertificateRequired)) => {
            "the server wants a client certificate (--client-cert and --client-key)".to_owned()
        }
        Some(Error::AlertReceived(AlertDescription::CertificateRevoked)) => {
            "the client certificate was revoked".to_owned()
        }
        Some(Error::InvalidMessage(_)) => "what came is not TLS (is it a port of plain HTTP?)".to_owned(),
        Some(Error::AlertReceived(alert)) => format!("the server refused it with alert {alert:?}"),
        _ => error.to_string(),
    }
}

/// Why a client was refused by a server of ours.
pub(super) fn client(error: &Error) -> String {
    match error {
        Error::NoCertificatesPresented => {
            "the client shows no certificate, which is required here".to_owned()
        }
        Error::InvalidCertificate(error) => match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the client's certificate has expired".to_owned()
            }
            CertificateError::UnknownIssuer => {
                "the client's certificate is not by an authority in client_ca_file".to_owned()
            }
            CertificateError::UnknownRevocationStatus => {
                "client_crl_file has no list by the issuer of the client's certificate, or of one above it"
                    .to_owned()
            }
            CertificateError::Revoked => "the client's certificate was revoked".to_owned(),
            error => format!("the client's certificate cannot be accepted: {error}"),
        },
        Error::InvalidMessage(_) => "what came is not TLS (is this a client of plain HTTP?)".to_owned(),
        Error::AlertReceived(alert) => format!("the client gave up with alert {alert:?}"),
        error => error.to_string(),
    }
}

fn certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::Expired => "the certificate has expired (TLSSkipVerify accepts it)".to_owned(),
        CertificateError::ExpiredContext { time, not_after } => {
            let ago = days(*not_after, *time);
            format!("the certificate expired {ago} ago (renew it; TLSSkipVerify accepts it)")
        }
        CertificateError::NotValidYet => {
            "the certificate is not valid yet (is a clock wrong? TLSSkipVerify accepts it)".to_owned()
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            let ahead = days(*time, *not_before);
            format!("the certificate is valid only in {ahead} (is a clock wrong? TLSSkipVerify accepts it)")
        }
        CertificateError::NotValidForName => {
            "the certificate is for another name (TLSServerName names the one to expect)".to_owned()
        }
        CertificateError::NotValidForNameContext { presented, .. } => format!(
            "the certificate is for {}, not for this name (TLSServerName names the one to expect)",
            names(presented)
        ),
        CertificateError::UnknownIssuer => {
            "the certificate's issuer is unknown to this machine (add its CA to the system's roots and restart; \
             TLSSkipVerify accepts it)"
                .to_owned()
        }
        CertificateError::Revoked => "the certificate was revoked by its issuer".to_owned(),
        CertificateError::BadSignature => {
            "the certificate's signature is not by the issuer it names (TLSSkipVerify accepts it)".to_owned()
        }
        error => format!("the certificate cannot be accepted: {error} (TLSSkipVerify accepts it)"),
    }
}

/// The time from one moment to another, in words: whole days, or less than one.
fn days(from: UnixTime, to: UnixTime) -> String {
    match to.as_secs().saturating_sub(from.as_secs()) / SECS_PER_DAY {
        0 => "less than a day".to_owned(),
        1 => "a day".to_owned(),
        days => format!("{days} days"),
    }
}

/// What a certificate is for, as webpki names it: `DnsName("a.example")`, `IpAddress(192.0.2.1)`.
fn names(presented: &[String]) -> String {
    let bare = |name: &String| {
        let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
        inner.trim_matches('"').to_owned()
    };
    let shown: Vec<_> = presented.iter().take(NAMES_SHOWN_MAX).map(bare).collect();
    match presented.len().saturating_sub(NAMES_SHOWN_MAX) {
        _ if shown.is_empty() => "no name".to_owned(),
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
