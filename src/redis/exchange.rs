//! A pipeline that gives up as a whole.

use std::io;

use ::redis::{Connection, Pipeline, RedisError, RedisResult, Value};

use crate::deadline::Deadline;

/// Sends all commands of a pipeline, and returns all answers, of which each may be an error of its own. One of the client's own would
/// wait for each answer anew, after the first one that has not come, too.
///
/// The connection's timeouts are others afterwards: what was left.
///
/// # Errors
/// If not all of them came in time. The connection is of no more use then.
pub(crate) fn exchange(
    connection: &mut Connection,
    pipeline: &Pipeline,
    deadline: Deadline,
) -> RedisResult<Vec<Value>> {
    let left = || deadline.remaining().ok_or(RedisError::from(io::Error::from(io::ErrorKind::TimedOut)));
    connection.set_write_timeout(Some(left()?))?;
    connection.set_read_timeout(Some(left()?))?; // with rustls the first write is the handshake
    connection.send_packed_command(&pipeline.get_packed_pipeline())?;
    let mut answers = Vec::with_capacity(pipeline.len());
    for _ in 0..pipeline.len() {
        connection.set_read_timeout(Some(left()?))?;
        answers.push(connection.recv_response()?);
    }
    Ok(answers)
}
