//! The rights that a node's user needs in Redis's ACL, as [`Cluster`](super::Cluster) says, and a look at which are missing.

use std::time::Duration;

use ::redis::{Cmd, Connection, RedisError, Value, cmd, pipe};

use super::names::Names;
use crate::{
    deadline::Deadline,
    id::NodeId,
    redis::{Failure, exchange, is_forbidden_in_script},
};

/// Whether it is about what the user may not do.
pub(super) fn is_about(error: &RedisError) -> bool {
    error.code() == Some("NOPERM") || is_forbidden_in_script(&error.to_string())
}

/// Warns of commands that the user may not do.
pub(super) fn warn(commands: &str, error: &RedisError) {
    log::warn!("the cluster: Redis does not let its user do {commands}: {}", Failure::from(error));
}

/// What the user may not do, and Redis's words for it. Nothing is done: a transaction is begun, whose commands Redis checks when they
/// come, and it is not ended. The connection is of no more use.
///
/// # Errors
/// It is not known.
pub(super) fn missing(
    connection: &mut Connection,
    names: &Names,
    timeout: Duration,
) -> Result<Vec<(String, RedisError)>, RedisError> {
    match cmd("MULTI").query::<Value>(connection) {
        // What came next would be done.
        Err(error) if is_about(&error) => return Ok(vec![("MULTI".into(), error)]),
        begun => begun?,
    };
    let (mut pipeline, mut shown) = (pipe(), Vec::new());
    for (name, command) in commands(names) {
        pipeline.add_command(command);
        shown.push(name);
    }
    let answers = exchange(connection, &pipeline, Deadline::after(timeout))?;
    let refused = shown.into_iter().zip(answers).filter_map(|(name, answer)| {
        let error = answer.extract_error().err().filter(is_about)?;
        Some((name.to_owned(), error))
    });
    Ok(refused.collect())
}

/// All that nodes do, each with a key or a channel as they use it.
fn commands(names: &Names) -> Vec<(&'static str, Cmd)> {
    let node = NodeId::new(0);
    let (nodes, lease, all) = (names.nodes(), names.lease(node), names.all());
    let [history, publications, idempotency] = names.history("a");
    let commands: [(&str, &[&str]); 28] = [
        ("EVAL", &["return 0", "0"]),
        ("EVALSHA", &["0000000000000000000000000000000000000000", "0"]),
        ("TIME", &[]),
        ("GET", &[&lease]),
        ("MGET", &[&lease]),
        ("SET", &[&lease, "x"]),
        ("SETNX", &[&names.memory(), "1"]),
        ("SET", &[&names.young(), "1"]),
        ("PEXPIRE", &[&lease, "1"]),
        ("DEL", &[&lease]),
        ("SMEMBERS", &[&nodes]),
        ("SADD", &[&nodes, "x"]),
        ("SREM", &[&nodes, "x"]),
        ("HMGET", &[&history, "x"]),
        ("HSET", &[&history, "x", "x"]),
        ("HGET", &[&idempotency, "x"]),
        ("HDEL", &[&idempotency, "x"]),
        ("XLEN", &[&publications]),
        ("XRANGE", &[&publications, "-", "+"]),
        ("XADD", &[&publications, "*", "x", "x"]),
        ("XDEL", &[&publications, "1-1"]),
        ("PUBLISH", &[&all, ""]),
        ("SUBSCRIBE", &[&all, &names.node(node), &names.topic("a")]),
        ("UNSUBSCRIBE", &[&all]),
        ("INFO", &["server"]),
        ("CLIENT LIST", &["TYPE", "pubsub"]),
        ("CLIENT KILL", &["ID", "0"]),
        ("PUBSUB NUMSUB", &[&all]),
    ];
    let command = |(name, args): (&'static str, &[&str])| {
        let mut words = name.split(' ');
        let mut command = cmd(words.next().unwrap_or_default());
        for word in words {
            command.arg(word);
        }
        command.arg(args);
        (name, command)
    };
    commands.into_iter().map(command).collect()
}
