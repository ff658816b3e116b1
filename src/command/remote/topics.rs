//! `topics`: their names, and how many connections are in each.

use clap::Args;
use switchboard::Hub;

use super::{after_help, failure::Failure, human::count, json, output::Output, place::Place, table::Column};
use crate::command::escaped::escaped;

#[derive(Debug, Args)]
#[command(after_help = after_help!("  \
  switchboard topics
  switchboard topics --json | jq -s 'max_by(.members).name'"))]
pub(in crate::command) struct Topics {
    /// Print a JSON object for each, with the names of GET /@topics
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

const COLUMNS: &[Column] = &[Column::right("MEMBERS", 0, 1), Column::left("TOPIC", 20, 0)];

impl Topics {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let hub = self.place.hub()?;
        let mut output = Output::new()?;
        if self.json {
            print_json(&hub, &mut output)?
        } else {
            print(&hub, &mut output)?
        }
        output.flush()
    }
}

fn print_json(hub: &Hub, output: &mut Output) -> Result<(), Failure> {
    for topic in hub.all_topics() {
        let topic = topic?;
        output.line(&json::line(&json::Topic { name: &topic.name, members: topic.members }))?;
    }
    Ok(())
}

fn print(hub: &Hub, output: &mut Output) -> Result<(), Failure> {
    let row = |topic: switchboard::TopicInfo| vec![count(topic.members as u64), escaped(&topic.name)];
    let rows: Vec<_> = hub.all_topics().map(|topic| Ok(row(topic?))).collect::<Result<_, Failure>>()?;
    output.table(COLUMNS, &rows)
}
