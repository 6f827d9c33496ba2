//! What the files hold that a configuration names: tokens, keys, certificates. The agent reads them, with its rights, and
//! hands them to the process that serves HTTP, which may read no such file. Nothing of it is ever shown.

use std::{fs::File, io::Read, path::Path, path::PathBuf, sync::Arc};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::{
    config::Config,
    http::{
        Settings,
        tls::{self, Pair},
    },
    otlp::{self, OtlpMaterial},
    webhook::Webhook,
};
use crate::client::{self, Client, Target, Trust, read_token};

/// Bytes of a file with certificates.
const MAX_BYTES: u64 = 4 << 20;

/// All that a reload may change.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Material {
    pub(super) token: Option<String>,
    pub(super) tls: Option<Pair>,
    pub(super) incidents: PathBuf,
    pub(super) webhook: Option<Peer>,
    pub(super) otlp: Option<OtlpMaterial>,
}

/// A server that is sent to.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Peer {
    url: String,
    token: Option<String>,
    /// Those that its certificate has to be signed by, where it is encrypted.
    certificates: Option<String>,
}

impl Peer {
    /// Reads its files. `ca_file`: instead of the system's.
    ///
    /// # Errors
    /// A file cannot be read, or the URL is none.
    pub(super) fn read(
        url: &str,
        token_file: Option<&Path>,
        ca_file: Option<&Path>,
    ) -> Result<Peer> {
        let encrypted = Target::parse(url)?.is_encrypted();
        let file = ca_file.unwrap_or(Path::new(client::CA_FILE));
        Ok(Peer {
            url: url.to_owned(),
            token: token_file.map(read_token).transpose()?,
            certificates: encrypted
                .then(|| certificates(file))
                .transpose()
                .with_context(|| format!("cannot read the certificates in {}", file.display()))?,
        })
    }

    /// What asks it.
    ///
    /// # Errors
    /// The certificates are none.
    pub(super) fn client(&self) -> Result<Client> {
        let trust = Trust::Text(self.certificates.as_deref().unwrap_or_default());
        Client::open(&self.url, trust, self.token.clone())
    }
}

/// A text file of certificates or a key. What stands beside them may be in any encoding.
pub(super) fn certificates(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        bail!("it is longer than {MAX_BYTES} bytes");
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

impl Material {
    /// Reads all files.
    ///
    /// # Errors
    /// A file cannot be read. What it holds is not told.
    pub(super) fn read(config: &Config) -> Result<Material> {
        let token = config.token_file.as_deref();
        let (hook, otlp) = (&config.webhook, &config.otlp);
        let webhook = hook.url.as_deref().map(|url| {
            Peer::read(url, hook.token_file.as_deref(), hook.ca_file.as_deref())
                .context("webhook.url")
        });
        Ok(Material {
            token: token.map(read_token).transpose()?,
            tls: tls::read(&config.tls)?,
            incidents: config.incidents.dir.clone(),
            webhook: webhook.transpose()?,
            otlp: OtlpMaterial::read(otlp)?,
        })
    }

    /// What is made of it.
    ///
    /// # Errors
    /// Keys and certificates are none, or do not go together.
    pub(super) fn open(&self) -> Result<Settings> {
        let webhook = self.webhook.as_ref().map(Peer::client);
        let otlp = self.otlp.as_ref().map(otlp::Receiver::open);
        Ok(Settings {
            token: self.token.as_deref().map(Arc::from),
            tls: self.tls.as_ref().map(tls::acceptor).transpose()?,
            incidents: self.incidents.clone(),
            webhook: webhook.transpose().context("webhook")?.map(Webhook::new),
            otlp: otlp.transpose()?,
        })
    }
}
