//! A client of HTTP/1.1, encrypted or not: one connection a request, everything bounded.

use std::{fmt, io::Read, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use bytes::BytesMut;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
        pki_types::{
            CertificateDer, ServerName, UnixTime,
            pem::{self, PemObject},
        },
    },
};

/// Where Debian and others keep the certificates that are believed.
pub(crate) const CA_FILE: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Time for a connection, and for the head of an answer.
const LIMIT: Duration = Duration::from_secs(10);
/// Bytes of an answer that is read whole.
const MAX_ANSWER: usize = 4 << 20;
const MAX_TOKEN: u64 = 4 << 10;
/// The shortest token that is one.
const LEAST_TOKEN: usize = 16;

/// Where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    encrypted: bool,
    host: String,
    port: u16,
    path: String,
}

impl Target {
    /// Reads a URL.
    ///
    /// # Errors
    /// It is none of `http` or `https`.
    pub fn parse(url: &str) -> Result<Target> {
        let uri: hyper::Uri = url.parse().with_context(|| format!("`{url}` is no URL"))?;
        let encrypted = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => bail!("`{url}` is neither http:// nor https://"),
        };
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        if host.is_empty() {
            bail!("`{url}` names no host");
        }
        Ok(Target {
            encrypted,
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(if encrypted { 443 } else { 80 }),
            path: uri
                .path_and_query()
                .map_or("/", |path| path.as_str())
                .to_owned(),
        })
    }

    /// Is it on this host, so that nobody reads along?
    pub fn is_local(&self) -> bool {
        let address = self.host.parse::<std::net::IpAddr>();
        self.host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }

    /// Is what is sent there encrypted?
    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }
}

/// Without what may be a secret: a path.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.encrypted { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

/// Whose certificates are believed.
#[derive(Clone, Copy, Debug)]
pub enum Trust<'a> {
    /// Those that are signed by one in this file, or in the system's.
    File(Option<&'a Path>),
    /// Those that are signed by one of these, PEM.
    Text(&'a str),
    /// Anybody's: what is sent can be read by whoever is in between.
    Anybody,
}

/// A server that is asked.
#[derive(Clone)]
pub struct Client {
    target: Target,
    token: Option<Arc<str>>,
    tls: Option<TlsConnector>,
}

/// An answer that was read whole.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Whether it went well.
    pub status: StatusCode,
    /// For how long the server does not want to be asked again.
    pub retry_after: Option<Duration>,
    /// What it says.
    pub body: Bytes,
}

impl Client {
    /// One of a URL; its certificates are read here.
    ///
    /// # Errors
    /// The URL is none, or a file cannot be read.
    pub fn open(url: &str, trust: Trust<'_>, token: Option<String>) -> Result<Client> {
        let target = Target::parse(url)?;
        let tls = match (target.encrypted, trust) {
            (false, _) => None,
            (true, Trust::File(file)) => Some(believing_file(file.unwrap_or(Path::new(CA_FILE)))?),
            (true, Trust::Text(text)) => {
                Some(believing(CertificateDer::pem_slice_iter(text.as_bytes()))?)
            }
            (true, Trust::Anybody) => Some(believing_anybody()?),
        };
        Ok(Client {
            target,
            token: token.map(Arc::from),
            tls,
        })
    }

    /// Whom it asks.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The same with another token.
    #[must_use]
    pub fn with_token(&self, token: String) -> Client {
        Client {
            token: Some(Arc::from(token)),
            ..self.clone()
        }
    }

    /// Sends a body to the URL's path followed by `path`, and reads the answer whole.
    ///
    /// # Errors
    /// The server cannot be reached, does not answer in time, or answers with too much.
    pub async fn post(&self, path: &str, content: &'static str, body: Bytes) -> Result<Answer> {
        let request = self
            .request(Method::POST, path)
            .header(header::CONTENT_TYPE, content)
            .body(Full::new(body))?;
        self.whole(request).await
    }

    /// Asks for the URL's path followed by `path`, and reads the answer whole.
    ///
    /// # Errors
    /// As [`Client::post`].
    pub async fn get(&self, path: &str, accept: &'static str) -> Result<Answer> {
        self.whole(self.asking(path, accept)?).await
    }

    /// The same, and hands back the answer while its lines are still to come.
    ///
    /// # Errors
    /// As [`Client::post`].
    pub async fn stream(&self, path: &str, accept: &'static str) -> Result<Lines> {
        let answer = self.begin(self.asking(path, accept)?).await?;
        Ok(Lines {
            status: answer.status(),
            body: answer.into_body(),
            read: BytesMut::new(),
            searched: 0,
        })
    }

    fn asking(&self, path: &str, accept: &'static str) -> Result<Request<Full<Bytes>>> {
        let request = self.request(Method::GET, path);
        Ok(request
            .header(header::ACCEPT, accept)
            .body(Full::default())?)
    }

    fn request(&self, method: Method, path: &str) -> hyper::http::request::Builder {
        let base = match path {
            "" => self.target.path.as_str(),
            _ => self.target.path.trim_end_matches('/'),
        };
        let host = match (self.target.host.contains(':'), self.target.port) {
            (false, port) => format!("{}:{port}", self.target.host),
            (true, port) => format!("[{}]:{port}", self.target.host),
        };
        let request = Request::builder()
            .method(method)
            .uri(format!("{base}{path}"))
            .header(header::HOST, host)
            .header(
                header::USER_AGENT,
                concat!("observer/", env!("CARGO_PKG_VERSION")),
            )
            .header(header::CONNECTION, "close");
        match &self.token {
            Some(token) => request.header(header::AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        }
    }

    async fn whole(&self, request: Request<Full<Bytes>>) -> Result<Answer> {
        let answer = self.begin(request).await?;
        let status = answer.status();
        let retry_after = answer
            .headers()
            .get(header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(Duration::from_secs);
        let body = timeout(
            LIMIT,
            Limited::new(answer.into_body(), MAX_ANSWER).collect(),
        )
        .await
        .context("the answer does not end in time")?
        .map_err(|error| anyhow::anyhow!("cannot read the answer: {error}"))?;
        Ok(Answer {
            status,
            retry_after,
            body: body.to_bytes(),
        })
    }

    async fn begin(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>> {
        let asked = async {
            let address = (self.target.host.as_str(), self.target.port);
            let stream = TcpStream::connect(address)
                .await
                .with_context(|| format!("cannot connect to {}", self.target))?;
            match &self.tls {
                Some(tls) => {
                    let name = ServerName::try_from(self.target.host.clone())?;
                    let stream = tls.connect(name, stream).await;
                    send(stream.context("cannot agree on the encryption")?, request).await
                }
                None => send(stream, request).await,
            }
        };
        timeout(LIMIT, asked)
            .await
            .with_context(|| format!("{} does not answer within {LIMIT:?}", self.target))?
    }
}

/// An answer whose lines come one by one.
pub struct Lines {
    /// Whether it went well.
    pub status: StatusCode,
    body: Incoming,
    read: BytesMut,
    /// Bytes of them in which there is no end of a line.
    searched: usize,
}

impl Lines {
    /// The next line, without its end; `None`: there are no more. `patience`: how long nothing may come.
    ///
    /// # Errors
    /// The connection breaks, nothing comes, or a line is too long.
    pub async fn next(&mut self, patience: Duration) -> Result<Option<Bytes>> {
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.read[self.searched..]) {
                let mut line = self.read.split_to(self.searched + at + 1);
                line.truncate(line.len() - 1);
                self.searched = 0;
                return Ok(Some(line.freeze()));
            }
            self.searched = self.read.len();
            if self.searched > MAX_ANSWER {
                bail!("a line of the answer is longer than {MAX_ANSWER} bytes");
            }
            let frame = timeout(patience, self.body.frame()).await;
            match frame.with_context(|| format!("nothing came for {patience:?}"))? {
                Some(frame) => {
                    if let Ok(data) = frame.context("the connection broke")?.into_data() {
                        self.read.extend_from_slice(&data);
                    }
                }
                None => return Ok(None),
            }
        }
    }
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        // The answer, or its absence, tells enough.
        let _ = connection.await;
    });
    Ok(sender.send_request(request).await?)
}

/// Reads a token: the file's text without white space around it.
///
/// # Errors
/// It cannot be read, or is none.
pub fn read_token(path: &Path) -> Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_TOKEN).read_to_string(&mut text))
        .with_context(|| format!("cannot read the token in {}", path.display()))?;
    let token = text.trim();
    if token.len() < LEAST_TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        bail!(
            "the token in {} is none: it takes {LEAST_TOKEN} printable characters or more",
            path.display()
        );
    }
    Ok(token.to_owned())
}

fn believing_file(file: &Path) -> Result<TlsConnector> {
    let context = || format!("cannot read the certificates in {}", file.display());
    let all = CertificateDer::pem_file_iter(file).with_context(context)?;
    believing(all).with_context(context)
}

fn believing(
    certificates: impl Iterator<Item = Result<CertificateDer<'static>, pem::Error>>,
) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        // Bundles hold some that are not understood.
        let _ = roots.add(certificate.context("no certificates")?);
    }
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn believing_anybody() -> Result<TlsConnector> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Believes every certificate, but not that its key is somebody else's.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let target = Target::parse("http://[::1]:8080/a?b=c").unwrap();
        assert_eq!(
            (&*target.host, target.port, &*target.path),
            ("::1", 8080, "/a?b=c")
        );
        assert!(target.is_local());
        assert_eq!(Target::parse("https://x.example").unwrap().port, 443);
        assert!(!Target::parse("https://x.example").unwrap().is_local());
        for url in [
            "",
            "x",
            "ftp://x",
            "http://",
            "file:///etc/passwd",
            "http:// x",
        ] {
            assert!(Target::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_path_goes_behind_that_of_the_url() {
        let uri = |url: &str, path: &str| {
            let client = Client::open(url, Trust::File(None), None).unwrap();
            let request = client.request(Method::GET, path).body(()).unwrap();
            request.uri().to_string()
        };
        assert_eq!(uri("http://h/otlp/", "/v1/logs"), "/otlp/v1/logs");
        assert_eq!(uri("http://h", "/v1/logs"), "/v1/logs");
        assert_eq!(uri("http://h/hook/?a=b", ""), "/hook/?a=b");
    }
}
