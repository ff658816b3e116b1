//! The client that the Autobahn testsuite tests: asks for each case, and sends back what it gets.
//!
//!     autobahn_client COMPRESSION URL AGENT
//!
//! COMPRESSION is `off`, `pooled` or `dedicated`. Over `wss://` the CA of the tests is trusted, whatever the server's name.

use std::{error::Error, time::Duration};

use switchboard::{Client, ClientBuilder, Compression, Limits, TlsTrust};

/// No case has a silence that is longer.
const PATIENCE: Duration = Duration::from_secs(100);

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(compression), Some(url), Some(agent), None) =
        (args.next(), args.next(), args.next(), args.next())
    else {
        return Err("usage: autobahn_client off|pooled|dedicated URL AGENT".into());
    };
    let compression = match compression.as_str() {
        "off" => Compression::Off,
        "pooled" => Compression::Pooled,
        "dedicated" => Compression::Dedicated { window_bits: 15, level: 6 },
        other => return Err(format!("no compression: {other}").into()),
    };
    let trust = TlsTrust::ca_file("certs/ca.pem")?;
    let builder = |path: String| Client::builder(&format!("{url}{path}")).tls(trust.clone()).limits(limits());
    let count = builder("/getCaseCount".into()).connect()?.read_message(PATIENCE)?;
    let count: u32 = count.as_text().ok_or("the number of cases is not text")?.parse()?;
    for case in 1..=count {
        let case = builder(format!("/runCase?case={case}&agent={agent}")).compression(compression);
        if let Err(e) = run(&case) {
            eprintln!("{case:?}: {e}"); // the report says what that means
        }
    }
    builder(format!("/updateReports?agent={agent}")).connect()?.messages().for_each(drop);
    Ok(())
}

/// Many cases end with an error: that is what is tested.
fn run(case: &ClientBuilder) -> Result<(), Box<dyn Error>> {
    let client = case.connect()?;
    for message in client.messages() {
        if client.write(message).is_err() {
            break;
        }
    }
    client.finish();
    Ok(())
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_message_size = 16 << 20;
    limits.max_frame_size = 16 << 20;
    limits
}
