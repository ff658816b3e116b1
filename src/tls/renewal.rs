//! Renewing a certificate while it is served: connections that begin get the new one, and open ones keep theirs.

use std::{path::PathBuf, time::SystemTime};

use super::{
    changes::Changes,
    client_ca::TlsClientCa,
    identity::{Current, TlsIdentity},
    info::CertificateInfo,
    source::without_files,
    watch::TlsWatch,
};
use crate::{
    error::{ServerError, TlsError},
    shown::Quoted,
    sync::LockExt,
};

impl TlsIdentity {
    /// From now on certificate and key of `new` are used in place of these, by all clones of this identity, and so by all servers
    /// that have it: connections that begin get them, those that are open go on as they are. Of `new` only certificate and key are
    /// taken; what else was chosen stays. Sessions from before are not resumed: the next handshake of each client is a whole one.
    ///
    /// ```
    /// # fn main() -> Result<(), switchboard::ServerError> {
    /// use switchboard::{Server, TlsIdentity};
    ///
    /// let identity = TlsIdentity::from_pem_files("certs/server.pem", "certs/server.key")?;
    /// let server = Server::builder().listen_tls("127.0.0.1:0", identity.clone()).bind()?;
    /// // Some weeks later, while it runs:
    /// # let (certificates, key) = (std::fs::read("certs/server.pem")?, std::fs::read("certs/server.key")?);
    /// identity.replace(&TlsIdentity::from_pem(&certificates, &key)?)?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// If the [library](Self::backend) of this identity cannot use them. Then all stays as it was.
    pub fn replace(&self, new: &Self) -> Result<(), TlsError> {
        let new = new.current();
        let now = self.change(|before| before.replaced(&new))?;
        tell(&now);
        Ok(())
    }

    /// Reads the files that this identity was loaded from again, and those of the certificates [for other
    /// names](Self::with_other); where there is anything new, certificate and key are [replaced](Self::replace). So is the
    /// [CA of the clients](Self::with_client_ca), if it is from a file. Returns whether there was anything new.
    /// [`watch`](Self::watch) does so whenever the files change.
    ///
    /// # Errors
    /// If files cannot be used, as when the identity was loaded; if a new certificate is out of its time, and the one from before is
    /// not; or if nothing was loaded from files. Then what was used before stays in use, of each certificate and of the CA by
    /// itself.
    pub fn reload(&self) -> Result<bool, TlsError> {
        if self.files().is_empty() {
            return Err(without_files());
        }
        // At first, who may not come any more.
        let mut results = vec![self.reload_client_ca()];
        results.extend(self.of_files().map(|identity| identity.reload_certificate()));
        let (mut is_new, mut errors) = (false, Vec::new());
        for result in results {
            match result {
                Ok(new) => is_new |= new,
                Err(e) => errors.push(e.to_string()),
            }
        }
        if errors.is_empty() { Ok(is_new) } else { Err(TlsError::new(errors.join("; "))) }
    }

    /// This one and those for other names, as far as they were loaded from files.
    fn of_files(&self) -> impl Iterator<Item = Self> {
        self.with_all_others().into_iter().filter(|identity| !identity.source().files().is_empty())
    }

    /// All that is loaded again.
    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> = self.of_files().flat_map(|identity| identity.source().files()).collect();
        files.extend(self.current().client_ca().and_then(TlsClientCa::file).map(|file| file.path.clone()));
        files
    }

    fn reload_certificate(&self) -> Result<bool, TlsError> {
        let _turn = self.turn().locked();
        let content = self.source().read(true)?;
        let before = self.current();
        if before.fingerprint() == Some(content.fingerprint()) {
            return Ok(false);
        }
        let certified = self.source().certified(&content)?;
        let new = self.change(|before| {
            let new = before.renewed(certified, content.fingerprint())?;
            check_time(&new.info(), &before.info())?;
            Ok(new)
        })?;
        new.warn();
        tell(&new);
        Ok(true)
    }

    fn reload_client_ca(&self) -> Result<bool, TlsError> {
        let _turn = self.turn().locked();
        let current = self.current();
        let Some(new) = current.client_ca().map(TlsClientCa::read_again).transpose()?.flatten() else {
            return Ok(false);
        };
        let line = format!("{}: clients are verified with {new} from now on", new.name());
        self.change(|before| before.with_other_clients(new))?;
        log::info!("{line}");
        Ok(true)
    }

    /// Watches the files that this identity was loaded from, those of the certificates for other names, and that of the [CA of the
    /// clients](Self::with_client_ca), on a thread of its own, as long as the returned value is there: whenever they have changed, and
    /// then been left alone for a moment, they are [loaded again](Self::reload). So a certificate is renewed in a running server by
    /// whoever writes its files, however they do it: into the same file, by renaming a new one, or by turning a symbolic link to it,
    /// or to a folder on the way.
    ///
    /// Files that cannot be used, such as a key that does not match yet, make a line in the log, and what was loaded before stays
    /// in use; they are tried again when they change, and once a minute.
    ///
    /// On Linux the system tells of changes (inotify). What it does not tell, as on file systems of a network, is found by looking
    /// once a minute; on other systems every 10 s.
    ///
    /// ```
    /// # fn main() -> Result<(), switchboard::ServerError> {
    /// use switchboard::{Server, TlsIdentity};
    ///
    /// let identity = TlsIdentity::from_pem_files("certs/server.pem", "certs/server.key")?;
    /// let _watch = identity.watch()?;
    /// let server = Server::builder().listen_tls("127.0.0.1:0", identity).bind()?;
    /// # let handle = server.handle();
    /// # handle.shutdown(std::time::Duration::ZERO);
    /// server.run()
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ServerError::Tls`] if nothing was loaded from files, [`ServerError::Io`] if the system refuses to start the
    /// thread.
    pub fn watch(&self) -> Result<TlsWatch, ServerError> {
        let files = self.files();
        if files.is_empty() {
            return Err(without_files().into());
        }
        let identity = self.clone();
        Ok(TlsWatch::start(Changes::new(files), move || identity.reload())?)
    }
}

/// One that is out of its time does not take the place of a good one. Otherwise the clock may be wrong.
fn check_time(new: &CertificateInfo, before: &CertificateInfo) -> Result<(), TlsError> {
    let now = SystemTime::now();
    if new.is_valid_at(now) || !before.is_valid_at(now) {
        return Ok(());
    }
    let (name, subject, since, until) = (&new.name, Quoted(&new.subject), new.since(), new.until());
    Err(TlsError::new(format!(
        "{name}: the certificate {subject} is valid from {since} to {until}, and not now"
    )))
}

fn tell(new: &Current) {
    let info = new.info();
    let (subject, until) = (Quoted(&info.subject), info.until());
    log::info!("{}: the certificate {subject}, valid until {until}, is used from now on", info.name);
}
