//! `list`: the connections, as a table or as JSON.

use clap::Args;
use switchboard::{ConnectionInfo, Hub, NodeId, NodeInfo};

use super::{
    after_help,
    audience::Meant,
    failure::Failure,
    human::{age, bytes, count, round_trip},
    json, nodes,
    output::Output,
    place::Place,
    table::Column,
};
use crate::command::escaped::escaped;

#[derive(Debug, Args)]
#[command(after_help = after_help!("  \
  switchboard list                      on a terminal the columns that fit
  switchboard list --topic lobby
  switchboard list --json | jq -r 'select(.queuedBytes > 100000).id'
  switchboard list | grep ^b3kT9ZcY     the whole ID of one in a log, or top

If a node of a cluster does not answer, or Redis, those of the others are listed, and the exit code is 1."))]
pub(in crate::command) struct List {
    #[command(flatten)]
    meant: Meant,
    /// Only those of the node of the cluster with this number
    #[arg(long, value_name = "N")]
    node: Option<u32>,
    /// Print a JSON object for each, with the names of GET /@connections, of which node is that of a cluster
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

const COLUMNS: &[Column] = &[
    Column::left("ID", 22, 0).whole(),
    Column::left("USER", 6, 2),
    Column::left("PATH", 8, 1),
    Column::left("FROM", 9, 8),
    Column::right("AGE", 0, 3),
    Column::right("IDLE", 0, 4),
    Column::right("IN", 0, 7),
    Column::right("OUT", 0, 6),
    Column::right("QUEUE", 0, 5),
    Column::right("RTT", 0, 10),
    Column::left("SHARED", 6, 9),
    Column::left("AGENT", 10, 11),
];

impl List {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let hub = self.place.hub()?;
        let nodes = nodes::all(&hub);
        let mut output = Output::new()?;
        let missing = if self.json {
            let print = |info| output.line(&json::line(&json::Connection::new(&info, None)));
            self.each(&hub, &nodes, print)?
        } else {
            self.print(&hub, &nodes, &mut output)?
        };
        output.flush()?;
        missing.map_or(Ok(()), Err)
    }

    fn print(&self, hub: &Hub, nodes: &[NodeInfo], output: &mut Output) -> Result<Option<Failure>, Failure> {
        let is_cluster = nodes.len() > 1;
        let mut rows = Vec::new();
        let missing = self.each(hub, nodes, |info| {
            let mut row = row(&info);
            if is_cluster {
                row.insert(1, info.id.node().to_string());
            }
            rows.push(row);
            Ok(())
        })?;
        let mut columns = COLUMNS.to_vec();
        if is_cluster {
            columns.insert(1, nodes::COLUMN);
        }
        output.table(&columns, &rows)?;
        Ok(missing)
    }

    /// Takes all that are asked for. Returns what is to be said of those that are missing.
    fn each(
        &self,
        hub: &Hub,
        nodes: &[NodeInfo],
        take: impl FnMut(ConnectionInfo) -> Result<(), Failure>,
    ) -> Result<Option<Failure>, Failure> {
        let asked: Vec<_> = match self.node {
            Some(node) => vec![NodeId::new(node)],
            None => nodes.iter().map(|node| node.node).collect(),
        };
        let missing = nodes::each(hub, &asked, self.meant.audience(), take)?;
        Ok(missing.or_else(|| (self.node.is_none() && nodes.len() == 1).then(|| nodes::cut_off(hub))?))
    }
}

fn row(info: &ConnectionInfo) -> Vec<String> {
    vec![
        info.id.to_string(),
        info.user.as_deref().map_or_else(|| "-".into(), escaped),
        escaped(&info.path),
        info.client_address.map_or_else(|| "unix".into(), |address| address.to_string()),
        age(info.age),
        age(info.idle),
        count(info.messages_in),
        count(info.messages_out),
        bytes(info.queued as u64),
        info.round_trip.map_or_else(|| "-".into(), round_trip),
        if info.shared { "yes" } else { "no" }.into(),
        info.user_agent.as_deref().map_or_else(|| "-".into(), escaped),
    ]
}
