//! Why Redis did not do what it was asked, and what to do about it.

use std::{fmt, sync::Arc};

use ::redis::{ErrorKind, RedisError, ServerError};

/// Why Redis did not do what it was asked. Cheap to clone, since many may wait for the same connection.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    kind: FailureKind,
    text: Arc<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// It could not be reached, the connection broke, or no answer came in time. The connection is of no more use.
    Unreachable,
    /// It will not do: a wrong password, another kind of server. Somebody has to change something.
    Unsuitable,
    /// It is a replica, or has become one. What is connected now has to be connected anew.
    ReadOnly,
    /// It has no memory left for what was to be stored.
    Full,
    /// It cannot at the moment: it loads its data, or runs somebody's script.
    Busy,
    /// It answered with another error.
    Refused,
}

impl Failure {
    pub(super) fn new(kind: FailureKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into().into() }
    }

    /// What the connection to this server had to say.
    pub(super) fn at(place: &str, error: &RedisError) -> Self {
        let Self { kind, text } = Self::from(error);
        Self::new(kind, format!("{place}: {text}"))
    }

    pub(crate) fn kind(&self) -> FailureKind {
        self.kind
    }

    /// The connection is of no more use.
    pub(crate) fn needs_another_connection(&self) -> bool {
        matches!(self.kind, FailureKind::Unreachable | FailureKind::Unsuitable | FailureKind::ReadOnly)
    }

    /// The same with what to do about it.
    pub(super) fn advise(self, advice: &str) -> Self {
        Self::new(self.kind, with_advice(&self.text, advice))
    }

    fn of_server(error: &ServerError) -> Self {
        let (code, details) = (error.code(), error.details().unwrap_or_default());
        let told = |kind, advice: &str| Self::new(kind, with_advice(&format!("{code} {details}"), advice));
        // Redis 6 tells the error of a command in a script like this.
        let in_script = |name: &str| code == "ERR" && details.contains(&format!(" -{name} "));
        match code {
            _ if in_script("READONLY") => told(FailureKind::ReadOnly, ""),
            _ if in_script("OOM") => told(FailureKind::Full, ""),
            "WRONGPASS" => told(FailureKind::Unsuitable, ": the user or the password is wrong"),
            "ERR" if is_forbidden_in_script(details) => told(
                FailureKind::Refused,
                ": the user's ACL has to allow what the script does: `switchboard check` names what is missing",
            ),
            "NOPERM" => told(FailureKind::Refused, ": the user's ACL has to allow it"),
            "NOAUTH" | "DENIED" => told(FailureKind::Unsuitable, ""),
            "READONLY" => told(FailureKind::ReadOnly, ""),
            "OOM" => told(FailureKind::Full, ""),
            "MOVED" | "CLUSTERDOWN" | "CROSSSLOT" => told(FailureKind::Unsuitable, NO_CLUSTER),
            "LOADING" | "BUSY" | "MASTERDOWN" | "TRYAGAIN" => told(FailureKind::Busy, ""),
            _ => told(FailureKind::Refused, ""),
        }
    }
}

/// What Redis before 7, and Valkey, say where a script does what its user may not: it has no code of its own.
pub(crate) fn is_forbidden_in_script(text: &str) -> bool {
    ["The user executing the script can't", "ACL failure in script"].iter().any(|words| text.contains(words))
}

/// What Redis says may end as a sentence does.
fn with_advice(text: &str, advice: &str) -> String {
    let end: &[char] = if advice.is_empty() { &[] } else { &['.'] };
    format!("{}{advice}", text.trim().trim_end_matches(end))
}

/// Begins as what follows an error.
pub(super) const NO_CLUSTER: &str = ": it is in the mode of Redis Cluster, which is not supported: one Redis is needed, or one with replicas and Sentinels";

impl From<&RedisError> for Failure {
    fn from(error: &RedisError) -> Self {
        // In this library `MOVED` and the like are kinds, and all others are codes.
        if let ErrorKind::Server(_) | ErrorKind::Extension = error.kind()
            && let Ok(error) = ServerError::try_from(error.clone())
        {
            return Self::of_server(&error);
        }
        let kind = if error.kind() == ErrorKind::InvalidClientConfig {
            FailureKind::Unsuitable
        } else {
            FailureKind::Unreachable // and who knows what the next answer would belong to
        };
        if error.is_timeout() {
            return Self::new(kind, "no answer in time");
        }
        if error.kind() == ErrorKind::Parse {
            return Self::new(kind, "what answers is no Redis");
        }
        Self::new(kind, error.to_string())
    }
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        Self::from(&error)
    }
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        Self::of_server(&error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Redis would say it.
    fn of(text: &str) -> Failure {
        let answer = ::redis::parse_redis_value(format!("-{text}\r\n").as_bytes()).unwrap();
        Failure::from(answer.extract_error().unwrap_err())
    }

    #[test]
    fn what_redis_says_has_a_meaning() {
        for (text, kind) in [
            ("WRONGPASS invalid username-password pair or user is disabled.", FailureKind::Unsuitable),
            ("NOAUTH Authentication required.", FailureKind::Unsuitable),
            ("NOPERM this user has no permissions to run the 'get' command", FailureKind::Refused),
            ("READONLY You can't write against a read only replica.", FailureKind::ReadOnly),
            ("OOM command not allowed when used memory > 'maxmemory'.", FailureKind::Full),
            ("MOVED 3999 127.0.0.1:6381", FailureKind::Unsuitable),
            ("LOADING Redis is loading the dataset in memory", FailureKind::Busy),
            ("BUSY Redis is busy running a script.", FailureKind::Busy),
            ("MISCONF Redis is configured to save RDB snapshots", FailureKind::Refused),
            ("ERR unknown command", FailureKind::Refused),
            (
                "ERR Error running script (call to f_1): @user_script:1: -OOM command not allowed",
                FailureKind::Full,
            ),
            (
                "ERR Error running script (call to f_1): @user_script:1: -READONLY You can't",
                FailureKind::ReadOnly,
            ),
        ] {
            let failure = of(text);
            assert_eq!(failure.kind(), kind, "{text}");
            assert!(failure.to_string().starts_with(text.trim_end_matches('.')), "{failure}");
            assert!(!failure.to_string().contains(".:"), "{failure}");
        }
        assert!(of("READONLY x").needs_another_connection() && !of("OOM x").needs_another_connection());
    }
}
