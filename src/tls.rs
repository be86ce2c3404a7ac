//! Certificates and client settings.
