//! Encryption of what is served.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

use crate::agent::{config::Tls, material};

/// Certificates (the server's own first) and its private key, PEM.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::agent) struct Pair {
    certificates: String,
    key: String,
}

/// Reads what the configuration names, or makes it; `None`: nothing is encrypted.
///
/// # Errors
/// Certificate or key cannot be read.
pub(in crate::agent) fn read(config: &Tls) -> Result<Option<Pair>> {
    let (Some(cert), Some(key)) = (&config.cert_file, &config.key_file) else {
        return config.self_signed.then(self_signed).transpose();
    };
    Ok(Some(Pair {
        certificates: material::certificates(cert)
            .with_context(|| format!("tls.cert_file: cannot read {}", cert.display()))?,
        key: material::certificates(key)
            .with_context(|| format!("tls.key_file: cannot read {}", key.display()))?,
    }))
}

/// What encrypts connections.
///
/// # Errors
/// They are none, or do not go together. They are not told.
pub(in crate::agent) fn acceptor(pair: &Pair) -> Result<TlsAcceptor> {
    let certificates = CertificateDer::pem_slice_iter(pair.certificates.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .context("tls.cert_file: there is no certificate in it")?;
    if certificates.is_empty() {
        bail!("tls.cert_file: there is no certificate in it");
    }
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes())
        .context("tls.key_file: there is no key in it")?;
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .context("tls: certificate and key do not go together")?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn self_signed() -> Result<Pair> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let mut names = vec!["localhost".to_owned()];
    let host = host.trim();
    if !host.is_empty()
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b))
    {
        names.push(host.to_owned());
    }
    let made =
        rcgen::generate_simple_self_signed(names).context("tls: cannot make a certificate")?;
    Ok(Pair {
        certificates: made.cert.pem(),
        key: made.signing_key.serialize_pem(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_pair_is_refused_and_not_told() {
        let made = self_signed().unwrap();
        assert!(acceptor(&made).is_ok());
        let other = self_signed().unwrap();
        let secret = "a-secret-beside-it";
        for (certificates, key, word) in [
            (secret, &*made.key, "tls.cert_file"),
            (&*made.certificates, secret, "tls.key_file"),
            (&*made.certificates, &*other.key, "do not go together"),
        ] {
            let pair = Pair {
                certificates: certificates.into(),
                key: key.into(),
            };
            let Err(error) = acceptor(&pair) else {
                panic!("{word}");
            };
            let error = format!("{error:#}");
            assert!(error.contains(word) && !error.contains(secret), "{error}");
        }
    }
}
