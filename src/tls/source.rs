//! Where a certificate and its key come from: read when they are loaded, and again when they are renewed.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use sha2::{Digest, Sha256};

use super::certified::{Certified, read_as};
use crate::{error::TlsError, small_file};

pub(super) enum Source {
    /// The program had them.
    Memory,
    Pem {
        certificates: Named,
        key: Named,
    },
    #[cfg(feature = "tls")]
    Pkcs12 {
        archive: Named,
        password: Password,
    },
}

#[cfg(feature = "tls")]
pub(super) enum Password {
    Known(Box<str>),
    File(Named),
}

/// A file, found again wherever the program has gone meanwhile.
pub(super) struct Named {
    /// Absolute.
    pub(super) path: PathBuf,
    /// As it was given.
    pub(super) name: String,
}

/// What is in the files of a source.
pub(super) enum Content {
    Pem {
        certificates: Vec<u8>,
        key: Vec<u8>,
    },
    #[cfg(feature = "tls")]
    Pkcs12 {
        archive: Vec<u8>,
        password: String,
    },
}

/// By this it is told whether the files hold anything new.
pub(super) type Fingerprint = [u8; 32];

impl Source {
    pub(super) fn pem(certificates: &Path, key: &Path) -> Self {
        Self::Pem { certificates: Named::new(certificates), key: Named::new(key) }
    }

    #[cfg(feature = "tls")]
    pub(super) fn pkcs12(archive: &Path, password: &str) -> Self {
        Self::Pkcs12 { archive: Named::new(archive), password: Password::Known(password.into()) }
    }

    #[cfg(feature = "tls")]
    pub(super) fn pkcs12_with(archive: &Path, password: &Path) -> Self {
        Self::Pkcs12 { archive: Named::new(archive), password: Password::File(Named::new(password)) }
    }

    /// Reads the files. `again`: they were read before, so what cannot be read twice, such as a pipe, is refused, and not waited
    /// for.
    pub(super) fn read(&self, again: bool) -> Result<Content, TlsError> {
        let read = |file: &Named| file.read(again);
        Ok(match self {
            Self::Memory => return Err(without_files()),
            Self::Pem { certificates, key } => {
                Content::Pem { certificates: read(certificates)?, key: read(key)? }
            }
            #[cfg(feature = "tls")]
            Self::Pkcs12 { archive, password: Password::Known(password) } => {
                Content::Pkcs12 { archive: read(archive)?, password: password.to_string() }
            }
            #[cfg(feature = "tls")]
            Self::Pkcs12 { archive, password: Password::File(file) } => {
                let password = String::from_utf8(read(file)?)
                    .map_err(|_| TlsError::new(format!("{}: the password is no UTF-8", file.name)))?;
                let password = password.trim_end_matches(['\r', '\n']).to_owned();
                Content::Pkcs12 { archive: read(archive)?, password }
            }
        })
    }

    /// What was read, as certificate and key.
    pub(super) fn certified(&self, content: &Content) -> Result<Certified, TlsError> {
        match (self, content) {
            (Self::Pem { certificates: file, key: key_file }, Content::Pem { certificates, key }) => {
                Certified::from_pem((certificates, &file.name), (key, &key_file.name))
            }
            #[cfg(feature = "tls")]
            (Self::Pkcs12 { archive: file, .. }, Content::Pkcs12 { archive, password }) => {
                Certified::from_pkcs12(archive, password, &file.name)
            }
            _ => Err(without_files()),
        }
    }

    /// The absolute paths of the files; none if there are none.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let files = match self {
            Self::Memory => vec![],
            Self::Pem { certificates, key } => vec![certificates, key],
            #[cfg(feature = "tls")]
            Self::Pkcs12 { archive, password: Password::Known(_) } => vec![archive],
            #[cfg(feature = "tls")]
            Self::Pkcs12 { archive, password: Password::File(file) } => vec![archive, file],
        };
        files.into_iter().map(|file| file.path.clone()).collect()
    }
}

pub(super) fn without_files() -> TlsError {
    TlsError::new("this certificate was not loaded from files: load a new one, and pass it to `replace`")
}

impl Content {
    pub(super) fn fingerprint(&self) -> Fingerprint {
        let [one, other] = match self {
            Self::Pem { certificates, key } => [&**certificates, &**key],
            #[cfg(feature = "tls")]
            Self::Pkcs12 { archive, password } => [&**archive, password.as_bytes()],
        };
        let all = Sha256::new().chain_update(one.len().to_be_bytes()).chain_update(one).chain_update(other);
        all.finalize().into()
    }
}

impl Named {
    pub(super) fn new(path: &Path) -> Self {
        let name = path.display().to_string();
        Self { path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()), name }
    }

    /// `again`: see [`Source::read`].
    pub(super) fn read(&self, again: bool) -> Result<Vec<u8>, TlsError> {
        let name = &self.name;
        let unreadable = |e| TlsError::new(format!("cannot read {name}: {e}"));
        if again && !fs::metadata(&self.path).map_err(unreadable)?.is_file() {
            return Err(TlsError::new(format!("cannot read {name} again: it is no regular file")));
        }
        // It may have become a pipe just now.
        read_as(&self.path, name, if again { Duration::ZERO } else { small_file::PATIENCE })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It is none when it is looked at, and one when it is opened.
    #[test]
    fn a_pipe_that_nobody_writes_into_is_not_waited_for() {
        let pipe = std::env::temp_dir().join(format!("switchboard-pipe-{}", std::process::id()));
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
        let read = read_as(&pipe, "pipe", Duration::ZERO);
        fs::remove_file(pipe).unwrap();
        assert!(read.unwrap_err().to_string().starts_with("cannot read pipe: nobody has written"));
    }

    #[test]
    fn a_fingerprint_tells_which_byte_is_in_which_file() {
        let pem = |certificates: &str, key: &str| {
            Content::Pem { certificates: certificates.into(), key: key.into() }.fingerprint()
        };
        assert_eq!(pem("ab", "c"), pem("ab", "c"));
        assert!(pem("ab", "c") != pem("a", "bc") && pem("ab", "c") != pem("ab", "d"));
    }
}
