//! Jobs with progress, which go on while their client is away: who comes back gets the state, and then what follows.
//!
//! A job belongs to the session, which the page and all tabs of its browser share; after a login it would be the user's.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use switchboard::{
    Audience, Handled, Hub, Message, Opening, Refusal, Response, Server, ServerError, ServerResult,
    WebSocket, WebSocketServer,
};

const PAGE: &str = r#"<!doctype html><meta charset="utf-8"><title>Jobs</title>
<button id="start">Start a job</button> <div id="jobs"></div>
<script src="reconnecting.js"></script>
<script>
  const jobs = document.getElementById("jobs");
  const ws = new ReconnectingWebSocket("/jobs");
  const show = ({ job, percent }) => {
    if (!jobs.children[`job-${job}`]) jobs.insertAdjacentHTML("beforeend", `<progress max=100 id=job-${job}>`);
    jobs.children[`job-${job}`].value = percent;
  };
  ws.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    if (message.error) return alert(message.error);
    if (message.jobs) jobs.replaceChildren(), message.jobs.forEach(show); // all of them, after each connect
    else show(message);
  };
  document.getElementById("start").onclick = () => ws.send("start");
</script>"#;

/// Of one owner, and of all; and how long those that are done are shown.
const MOST: (usize, usize) = (5, 100);
const SHOWN: Duration = Duration::from_secs(600);

type Jobs = Mutex<BTreeMap<u64, Job>>;

struct Job {
    owner: String,
    percent: u32,
    changed: Instant,
}

struct Panel {
    jobs: Arc<Jobs>,
    owner: String,
}

impl WebSocketServer for Panel {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        self.owner = format!("jobs of {}", opening.session_id()?);
        opening.set_shared_connection(true);
        // What changes is told under the same lock: so nothing comes before the state, and nothing is missing after it.
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        opening.join(&self.owner)?;
        let mine = jobs.iter().filter(|(_, job)| job.owner == self.owner);
        let state: Value = mine.map(|(number, job)| told(*number, job)).collect();
        let pushed = opening.hub().push(opening.websocket_id(), json!({ "jobs": state }).to_string());
        pushed.map(drop).map_err(Refusal::internal)
    }

    fn server(&mut self, _ws: &mut WebSocket) -> ServerResult {
        Ok(())
    }

    fn on_client_message(&mut self, ws: &WebSocket, message: Message) -> Handled {
        if message == "start"
            && let Err(error) = start(&self.jobs, ws.hub(), &self.owner)
        {
            let _ = ws.write(json!({ "error": error }).to_string());
        }
        Handled::Yes
    }
}

fn start(jobs: &Arc<Jobs>, hub: Hub, owner: &str) -> Result<(), &'static str> {
    let mut all = jobs.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|_, job| job.percent < 100 || job.changed.elapsed() < SHOWN);
    if all.values().filter(|job| job.owner == owner).count() >= MOST.0 || all.len() >= MOST.1 {
        return Err("too many jobs: try again later");
    }
    let number = all.keys().last().map_or(1, |last| last + 1);
    let jobs = jobs.clone();
    thread::spawn(move || (0..=100).for_each(|percent| step(&jobs, &hub, number, percent)));
    all.insert(number, Job { owner: owner.to_owned(), percent: 0, changed: Instant::now() });
    Ok(())
}

/// Works a little, and tells all who look at it. A broadcast waits for nobody, and calls no code of ours: so the lock may be held.
fn step(jobs: &Jobs, hub: &Hub, number: u64, percent: u32) {
    thread::sleep(Duration::from_millis(20));
    let mut jobs = jobs.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(job) = jobs.get_mut(&number) else { return };
    (job.percent, job.changed) = (percent, Instant::now());
    let _ = hub.broadcast(Audience::Topic(&job.owner), told(number, job).to_string());
}

fn told(number: u64, job: &Job) -> Value {
    json!({ "job": number, "percent": job.percent })
}

fn main() -> Result<(), ServerError> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    let jobs = Arc::new(Jobs::default());
    let server = Server::builder()
        .listen(address)
        // The page opens the session, so that its sockets have the same one.
        .http("/", |exchange| exchange.session().id().map(|_| Response::html(PAGE)).map_err(Refusal::from))
        .http("/reconnecting.js", |_| Response::new("text/javascript", include_str!("web/reconnecting.js")))
        .route("/jobs", move || Panel { jobs: jobs.clone(), owner: String::new() })
        .bind()?;
    println!("listening on http://{}/", server.local_addrs()[0]);
    server.run()
}
