//! Renewing a certificate while it is served: connections that begin get the new one, and open ones keep theirs.

use std::time::SystemTime;

use super::{
    changes::Changes,
    identity::{Current, TlsIdentity},
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
    /// taken; what else was chosen stays.
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
        let new = self.current().replaced(&new.current())?;
        self.renew(new);
        Ok(())
    }

    /// Reads the files that this identity was loaded from again, and those of the certificates [for other
    /// names](Self::with_other); where there is anything new, certificate and key are [replaced](Self::replace). Returns whether
    /// there was. [`watch`](Self::watch) does so whenever the files change.
    ///
    /// # Errors
    /// If files cannot be used, as when the identity was loaded; if a new certificate is out of its time, and the one from before is
    /// not; or if nothing was loaded from files. Then what was used before stays in use.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let (mut is_new, mut errors) = (false, Vec::new());
        for identity in self.of_files()? {
            match identity.reload_own() {
                Ok(new) => is_new |= new,
                Err(e) => errors.push(e.to_string()),
            }
        }
        if errors.is_empty() { Ok(is_new) } else { Err(TlsError::new(errors.join("; "))) }
    }

    /// This one and those for other names, as far as they were loaded from files.
    fn of_files(&self) -> Result<Vec<Self>, TlsError> {
        let mut all = self.with_all_others();
        all.retain(|identity| !identity.source().files().is_empty());
        match all.is_empty() {
            true => Err(without_files()),
            false => Ok(all),
        }
    }

    fn reload_own(&self) -> Result<bool, TlsError> {
        let _turn = self.turn().locked();
        let content = self.source().read(true)?;
        let before = self.current();
        if before.fingerprint() == Some(content.fingerprint()) {
            return Ok(false);
        }
        let new = before.renewed(self.source().certified(&content)?, content.fingerprint())?;
        let (info, now) = (new.info(), SystemTime::now());
        if !info.is_valid_at(now) && before.info().is_valid_at(now) {
            let (subject, since, until) = (Quoted(&info.subject), info.since(), info.until());
            let name = &info.name;
            return Err(TlsError::new(format!(
                "{name}: the certificate {subject} is valid from {since} to {until}, and not now"
            )));
        }
        new.warn();
        self.renew(new);
        Ok(true)
    }

    fn renew(&self, new: Current) {
        let info = new.info();
        self.set_current(new);
        let (subject, until) = (Quoted(&info.subject), info.until());
        log::info!("{}: the certificate {subject}, valid until {until}, is used from now on", info.name);
    }

    /// Watches the files that this identity was loaded from, and those of the certificates for other names, on a thread of its own,
    /// as long as the returned value is there: whenever they have changed, and then been left alone for a moment, they are [loaded
    /// again](Self::reload). So a certificate is renewed in a running server by whoever writes its files, however they do it: into
    /// the same file, by renaming a new one, or by turning a symbolic link to it, or to a folder on the way.
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
        let files = self.of_files()?.iter().flat_map(|identity| identity.source().files()).collect();
        let identity = self.clone();
        Ok(TlsWatch::start(Changes::new(files), move || identity.reload())?)
    }
}
