//! How the one end verifies the other, with `rustls`.
//!
//! Chains as `rustls` does. But it refuses a certificate that is itself among the trusted ones if it is a CA's, too, which is how
//! `openssl req -x509` makes one for a box that has no CA; OpenSSL takes it, and so does this.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ParsedCertificate,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use x509_cert::der::DateTime;

use super::certificate::Certificate;

/// Certificates that are trusted themselves.
#[derive(Debug)]
struct Own(Vec<(Vec<u8>, [DateTime; 2])>);

impl Own {
    /// In DER, with the time for which it is valid.
    fn new(trusted: &[Certificate]) -> Self {
        let own = trusted.iter().map(|certificate| {
            (certificate.der.clone(), [certificate.not_before(), certificate.not_after()])
        });
        Self(own.collect())
    }

    /// `None`: it is none of these.
    fn check_time(&self, shown: &CertificateDer<'_>, now: UnixTime) -> Option<Result<(), Error>> {
        let (_, [begin, end]) = self.0.iter().find(|(der, _)| der == shown.as_ref())?;
        Some(match now.as_secs() {
            now if now < begin.unix_duration().as_secs() => Err(CertificateError::NotValidYet.into()),
            now if now > end.unix_duration().as_secs() => Err(CertificateError::Expired.into()),
            _ => Ok(()),
        })
    }
}

/// The signatures of a handshake are those that chains are verified with.
macro_rules! verify_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, cert, dss, &self.algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, cert, dss, &self.algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.algorithms.supported_schemes()
        }
    };
}

/// What a client verifies servers with.
#[derive(Debug)]
pub(super) struct TrustedServers {
    chains: Arc<WebPkiServerVerifier>,
    own: Own,
    algorithms: WebPkiSupportedAlgorithms,
}

impl TrustedServers {
    pub(super) fn new(
        chains: Arc<WebPkiServerVerifier>,
        trusted: &[Certificate],
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Self {
        Self { chains, own: Own::new(trusted), algorithms }
    }
}

impl ServerCertVerifier for TrustedServers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(in_time) = self.own.check_time(end_entity, now) else {
            let chains = &self.chains;
            return chains.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        };
        in_time?;
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    verify_signatures!();
}

/// What a server verifies clients with.
#[derive(Debug)]
pub(super) struct TrustedClients {
    chains: Arc<dyn ClientCertVerifier>,
    own: Own,
    algorithms: WebPkiSupportedAlgorithms,
}

impl TrustedClients {
    pub(super) fn new(
        chains: Arc<dyn ClientCertVerifier>,
        trusted: &[Certificate],
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Self {
        Self { chains, own: Own::new(trusted), algorithms }
    }
}

impl ClientCertVerifier for TrustedClients {
    fn client_auth_mandatory(&self) -> bool {
        self.chains.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chains.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match self.own.check_time(end_entity, now) {
            Some(in_time) => in_time.map(|()| ClientCertVerified::assertion()),
            None => self.chains.verify_client_cert(end_entity, intermediates, now),
        }
    }

    verify_signatures!();
}

/// Takes each server, as long as it has the key of the certificate that it shows.
#[derive(Debug)]
pub(super) struct Anybody {
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    verify_signatures!();
}
