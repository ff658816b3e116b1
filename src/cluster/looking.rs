//! A look at a cluster from outside, by whoever is no node of it, or is none yet.

use std::time::Duration;

use ::redis::{Connection, cmd};

use super::{
    Cluster,
    keeper::{CONNECT, node_of},
    member::Choices,
    names::Names,
    nodes::Lease,
    rights,
};
use crate::{
    error::ServerError,
    id::NodeId,
    node_info::NodeInfo,
    redis::{Failure, FailureKind, Timeouts},
};

/// How long an answer of Redis is waited for at least: nobody is in a hurry.
const TIMEOUT: Duration = Duration::from_secs(1);

impl Cluster {
    /// The nodes that there are now, by what Redis knows of them, in the order of their numbers: of each its version, and of none how many
    /// connections it has. Nobody becomes a node by this.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), switchboard::ServerError> {
    /// for node in switchboard::Cluster::new("redis://redis.lan").nodes()? {
    ///     println!("{}: {}", node.node, node.software);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ServerError::Config`]: what was chosen is wrong, or Redis does not want it. [`ServerError::Io`]: Redis was not reached.
    pub fn nodes(&self) -> Result<Vec<NodeInfo>, ServerError> {
        let (nodes, _) = look(&self.check()?).map_err(as_error)?;
        Ok(nodes.iter().map(|(node, lease)| NodeInfo::leased(*node, &lease.software)).collect())
    }
}

/// Tells what [`Membership::begin`](super::Membership::begin) would fail with. What it would warn of is in the log.
///
/// # Errors
/// As there.
pub(crate) fn rehearse(cluster: &Cluster, node: Option<NodeId>) -> Result<(), ServerError> {
    let choices = cluster.check()?;
    match look(&choices) {
        Ok((nodes, connection)) => match node.filter(|node| nodes.iter().any(|(other, _)| other == node)) {
            Some(node) => Err(is_taken(node)),
            None => {
                nodes.iter().for_each(|(node, lease)| lease.compare_keys(*node, &choices.keys));
                tell_missing(&choices, connection);
                Ok(())
            }
        },
        Err(failure) if failure.kind() == FailureKind::Unsuitable => Err(unsuitable(&failure)),
        Err(failure) => {
            log::warn!("{}: {failure}", super::NOT_REACHED);
            Ok(())
        }
    }
}

pub(super) fn unsuitable(failure: &Failure) -> ServerError {
    ServerError::config(format!("the cluster: {failure}"))
}

pub(super) fn is_taken(node: NodeId) -> ServerError {
    ServerError::config(format!("the cluster: another node has the number {node}: each needs its own"))
}

fn as_error(failure: Failure) -> ServerError {
    match failure.kind() {
        FailureKind::Unsuitable => unsuitable(&failure),
        _ => std::io::Error::other(format!("the cluster: {failure}")).into(),
    }
}

/// Those that have a lease, and listen; and by which connection that was asked.
fn look(choices: &Choices) -> Result<(Vec<(NodeId, Lease)>, Connection), Failure> {
    let timeouts = Timeouts { connect: CONNECT, answer: choices.answer_timeout.max(TIMEOUT) };
    let mut connection = choices.redis.connect(timeouts)?;
    let listed = nodes(&mut connection, &Names::new(&choices.prefix));
    match listed {
        Ok(nodes) => Ok((nodes, connection)),
        Err(error) => {
            if rights::is_about(&error) {
                tell_missing(choices, connection);
            }
            Err(choices.redis.failure(&error))
        }
    }
}

/// Warns of what a node would not be allowed to do.
fn tell_missing(choices: &Choices, mut connection: Connection) {
    let names = Names::new(&choices.prefix);
    let Ok(missing) = rights::missing(&mut connection, &names, TIMEOUT) else { return };
    let Some((_, first)) = missing.first() else { return };
    let mut commands: Vec<_> = missing.iter().map(|(command, _)| command.as_str()).collect();
    commands.dedup();
    rights::warn(&commands.join(", "), first);
}

fn nodes(connection: &mut Connection, names: &Names) -> Result<Vec<(NodeId, Lease)>, ::redis::RedisError> {
    let listed: Vec<String> = cmd("SMEMBERS").arg(names.nodes()).query(connection)?;
    let mut nodes: Vec<_> = listed.iter().filter_map(|text| node_of(text)).collect();
    nodes.sort_unstable();
    let mut present = Vec::new();
    for node in nodes {
        let lease: Option<String> = cmd("GET").arg(names.lease(node)).query(connection)?;
        let Some(lease) = lease.as_deref().and_then(Lease::parse) else { continue };
        let (_, listening): (String, u64) =
            cmd("PUBSUB").arg("NUMSUB").arg(names.node(node)).query(connection)?;
        if listening > 0 {
            present.push((node, lease));
        }
    }
    Ok(present)
}
