//! The certificates of the server whose connections these are, for whoever looks after them.

use super::Registry;
use crate::tls::{CertificateInfo, TlsIdentity};

impl Registry {
    /// The server has these, for all of its life.
    pub(crate) fn set_identities(&self, identities: Vec<TlsIdentity>) {
        let _ = self.identities.set(identities);
    }

    /// As they are now.
    pub(crate) fn certificates(&self) -> Vec<CertificateInfo> {
        self.identities.get().into_iter().flatten().map(|identity| identity.current().info()).collect()
    }
}
