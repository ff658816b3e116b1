//! Who is meant.

use clap::Args;
use switchboard::Audience;

#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct Meant {
    /// Only those whose request had this path
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Only those that are served by this route, such as '/chat/*'
    #[arg(long, value_name = "ROUTE")]
    route: Option<String>,
    /// Only the members of this topic
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Only those of this user
    #[arg(long, value_name = "USER")]
    user: Option<String>,
}

impl Meant {
    pub(super) fn audience(&self) -> Audience<'_> {
        let Self { path, route, topic, user } = self;
        let path = path.as_deref().map(Audience::Path);
        let route = route.as_deref().map(Audience::Route);
        let topic = topic.as_deref().map(Audience::Topic);
        let user = user.as_deref().map(Audience::User);
        path.or(route).or(topic).or(user).unwrap_or(Audience::All)
    }
}
