//! Request and answer: JSON-RPC 2.0, with ids, errors and unknown methods, and a page whose `call` returns a promise.

use serde_json::{Value, json};
use switchboard::{Limits, Response, Server, ServerError, ServerResult, WebSocket, WebSocketServer};

const PAGE: &str = r#"<!doctype html><meta charset="utf-8"><title>Calculator</title>
<form id="form"><input id="method" value="add"> <input id="params" value="[1, 2]"> <button>Call</button></form>
<pre id="log"></pre>
<script>
  const $ = (id) => document.getElementById(id);
  const ws = new WebSocket(`${location.origin.replace("http", "ws")}/rpc`);
  const waiting = new Map();
  let last = 0;
  // Any number of calls may wait for their answers, which are told apart by the id.
  function call(method, params) {
    const id = ++last;
    ws.send(JSON.stringify({ jsonrpc: "2.0", id, method, params }));
    return new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
  }
  ws.onmessage = (event) => {
    const { id, result, error } = JSON.parse(event.data);
    const call = waiting.get(id);
    waiting.delete(id);
    if (error) call?.reject(new Error(error.message));
    else call?.resolve(result);
  };
  ws.onclose = (event) => waiting.forEach(({ reject }) => reject(new Error(`closed: ${event.code}`)));
  $("form").onsubmit = async (event) => {
    event.preventDefault();
    try {
      $("log").append(JSON.stringify(await call($("method").value, JSON.parse($("params").value))) + "\n");
    } catch (error) {
      $("log").append(error + "\n");
    }
  };
</script>"#;

/// What the standard says of errors: a number, and a text.
type Fault = (i32, &'static str);

const PARSE_ERROR: Fault = (-32700, "this is not JSON");
const INVALID_REQUEST: Fault = (-32600, "this is no request of JSON-RPC 2.0");
const METHOD_NOT_FOUND: Fault = (-32601, "there is no such method");
const INVALID_PARAMS: Fault = (-32602, "an array of numbers, please");

/// One for each connection: the memory is its client's own.
#[derive(Default)]
struct Calculator {
    memory: f64,
}

impl Calculator {
    fn call(&mut self, method: &str, params: &Value) -> Result<Value, Fault> {
        match method {
            "add" => Ok(json!(numbers(params)?.iter().sum::<f64>())),
            "store" => {
                self.memory = numbers(params)?.iter().sum();
                Ok(Value::Null)
            }
            "recall" => Ok(json!(self.memory)),
            _ => Err(METHOD_NOT_FOUND),
        }
    }

    /// `None`: a request without an id, which wants no answer.
    fn answer(&mut self, text: &str) -> Option<Value> {
        let (id, result) = match serde_json::from_str::<Value>(text) {
            Err(_) => (Value::Null, Err(PARSE_ERROR)),
            Ok(request) => match request["method"].as_str() {
                Some(method) if request["jsonrpc"] == "2.0" => {
                    let result = self.call(method, &request["params"]);
                    (request.get("id")?.clone(), result)
                }
                _ => (Value::Null, Err(INVALID_REQUEST)),
            },
        };
        Some(match result {
            Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
            Err((code, message)) => {
                json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } })
            }
        })
    }
}

fn numbers(params: &Value) -> Result<Vec<f64>, Fault> {
    let numbers = params.as_array().map(|all| all.iter().map(Value::as_f64).collect());
    numbers.flatten().ok_or(INVALID_PARAMS)
}

impl WebSocketServer for Calculator {
    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        for message in ws.messages() {
            let Some(text) = message.as_text() else {
                ws.close(1003, "text only");
                break;
            };
            if let Some(answer) = self.answer(text) {
                ws.write(answer.to_string())?;
            }
        }
        Ok(())
    }
}

fn main() -> Result<(), ServerError> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    let mut limits = Limits::default();
    limits.max_message_size = 64 * 1024; // parsed JSON takes many times its length
    let server = Server::builder()
        .listen(address)
        .limits(limits)
        .http("/", |_| Response::html(PAGE))
        .route("/rpc", Calculator::default)
        .bind()?;
    println!("listening on http://{}/", server.local_addrs()[0]);
    server.run()
}
