//! The certificates that come with the source code, in `certs/`. Their key is public.

use std::sync::OnceLock;

use super::{certificate::Certificate, chain};

/// The server's own certificate, then that of the CA.
const CERTIFICATES: &[u8] = include_bytes!("../../certs/server.pem");

/// Whether a certificate has the public key of the bundled one, whatever file it came from.
pub(super) fn is_bundled(certificate: &Certificate) -> bool {
    static KEY: OnceLock<Vec<u8>> = OnceLock::new();
    let key = || {
        let chain = chain::from_pem(CERTIFICATES).unwrap_or_default();
        chain.first().map(|own| own.public_key().to_vec()).unwrap_or_default()
    };
    certificate.public_key() == KEY.get_or_init(key)
}
